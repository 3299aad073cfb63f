//! The embedded chain answers and refuses as the network does.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod blocks;
mod crosses_upgrade;
mod inspection;
mod messages;
mod miner_owner;
mod real_network;
mod refuses_bad_proofs;
mod restart_reorg;
mod sector_life;
mod speaks_lotus;
