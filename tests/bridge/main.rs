//! The bridge: messages between nodes over real sockets.

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod forged;
mod golden;
mod messages_cross_processes;
mod schemas;
mod sessions;
