//! One folder a concern: `messages.rs` its protocol, `mod.rs` a thin actor shell, decisions in pure files of their own.

pub mod daemon_link;
pub mod deal_handler;
pub mod f3;
pub mod message_sender;
pub mod path_checks;
pub mod records;
pub mod seal_agent;
pub mod seal_jobs;
pub mod seal_scheduler;
pub mod sector_allocator;
pub mod sector_files;
pub mod sector_reads;
pub mod storage;
pub mod wallet;
pub mod window_post;
pub mod winning_post;
