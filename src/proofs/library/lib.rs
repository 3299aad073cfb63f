//! Every call into the Filecoin proofs library: proof tasks, and the proving keys of 2 KiB test sectors.
//!
//! A crate of its own, because its calls compile to tens of thousands of generic instances for every sector shape, and they
//! change rarely: so they are compiled once, not with each change of the node and again for the node's unit tests. Its tests
//! stand in `tests/proving/` (a test build of this crate would compile the instances a second time).

pub mod circuits;
pub mod fixed_base;
pub mod generator;
pub mod task;
pub mod tasks;
mod vanilla;
