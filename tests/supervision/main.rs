//! Supervision: the rules of OTP on real actors, threads and processes.

#[path = "../support/mod.rs"]
mod support;

mod actix_facts;
mod batches;
mod escalation;
mod fairness;
mod far_actors;
mod fencing;
mod groups;
mod hangs;
mod held_down;
mod inspect;
mod messages;
mod monitors;
mod panics;
mod processes;
mod soak;
mod spans;
mod stops;
mod upgrade;
mod wait_up;
