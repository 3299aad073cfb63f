//! One folder a concern: `messages.rs` its protocol, `mod.rs` a thin actor shell, decisions in pure files of their own.

pub mod daemon_link;
pub mod sector_files;
pub mod window_post;
pub mod winning_post;
