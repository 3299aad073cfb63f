//! The full nodes behind a provider: which are usable, and ONE feed of their heads.

pub mod messages;
