//! Bulkhead: a Filecoin storage provider that keeps proving while parts of it fail.
//!
//! The map of the crate; arrows point one way:
//! `cli -> node -> actors -> {rpc, proofs, store, chain} -> supervisor`.
//!
//! * [`supervisor`] — Erlang/OTP's supervision rules on actix; knows nothing of Filecoin.
//! * [`chain`] — the Filecoin domain without I/O: epochs, deadlines, messages, Lotus' JSON shapes.
//! * [`store`] — durable state, fenced: redb; in a cluster etcd, with redb as the node's mirror.
//! * `etcd` (feature `cluster`) — calls to etcd, for the store and the directory.
//! * [`proofs`] — proof tasks, the prover child process, proving keys.
//! * [`rpc`] — everything that crosses a process boundary: full node client, admin HTTP.
//! * [`actors`] — one folder a concern.
//! * [`node`] — THE supervision tree, written down once.
//! * [`devnet`] — the embedded chain; serves the full node's JSON-RPC as Lotus does.
//! * [`failpoint`] — where a drill can kill the process.
//! * [`config`], [`cli`] — typed configuration; one file per command group.
//! * [`wire`] — messages between nodes as bytes: for actors and the bridge.
//! * [`util`] — durable writes, a mutex, the clock: for every room.

#[cfg(panic = "abort")]
compile_error!("bulkhead isolates faults by catching panics: build it with panic = \"unwind\"");

#[cfg(test)]
#[macro_use]
mod golden_tests;

pub mod actors;
pub mod chain;
pub mod cli;
pub mod config;
pub mod devnet;
#[cfg(feature = "cluster")]
mod etcd;
pub mod failpoint;
pub mod node;
pub mod proofs;
pub mod rpc;
pub mod store;
pub mod supervisor;
pub mod util;
pub mod wire;
