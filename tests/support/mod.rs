//! Doubles for tests about order, time and crashes: a scripted chain, a scripted prover, and a process that can die.
#![allow(dead_code)]

pub mod fake_chain;
pub mod mortal;
pub mod scripted_prover;
pub mod world;
