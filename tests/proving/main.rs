//! WindowPoSt, WinningPoSt, prover processes and proving keys.

#[path = "../support/mod.rs"]
mod support;

mod fixed_base;
mod key_generator;
mod keys_files;
mod proof_tasks;
mod prover_child;
mod prover_interrupted_pc2;
mod vanilla_reads;
mod window_post_actor;
mod window_post_at_size;
mod window_post_devnet;
mod window_post_schedule;
mod window_post_work;
mod winning_post_mine;
mod winning_post_slashfilter;
