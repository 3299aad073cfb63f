//! What tests share: doubles (a scripted chain, a scripted prover), and real parts that they start (etcd, nodes, namespaces).
#![allow(dead_code, unused_macros, unused_imports)] // each room uses a part

pub mod agent;
pub mod bridge;
#[cfg(feature = "cluster")]
pub mod concern;
pub mod devnet;
pub mod devnet_process;
pub mod downs;
#[cfg(feature = "cluster")]
pub mod etcd;
pub mod fake_chain;
pub mod full_node;
pub mod mortal;
pub mod netns;
pub mod operator;
#[cfg(feature = "cluster")]
pub mod placement;
pub mod prover;
pub mod scripted;
pub mod scripted_prover;
pub mod scripted_replica;
pub mod sockets;
pub mod waiting_sectors;
pub mod world;

/// The full name of a test in this file, for a process that runs only that test (`--exact`).
macro_rules! test_of_this_file {
    ($name:literal) => {
        concat!(module_path!(), "::", $name).split_once("::").expect("a module of a room").1
    };
}
pub(crate) use test_of_this_file;
