//! One folder a concern: `messages.rs` its protocol, `mod.rs` a thin actor shell, decisions in pure files of their own.
pub mod deal_handler;
