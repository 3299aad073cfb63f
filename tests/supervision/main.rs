//! Supervision: the rules of OTP on real actors, threads and processes.

#[path = "../support/mod.rs"]
mod support;

mod actix_facts;
mod ask_when_up;
mod batches;
mod escalation;
mod fairness;
mod fencing;
mod groups;
mod hangs;
mod held_down;
mod inspect;
mod messages;
mod monitors;
mod panics;
mod processes;
mod remote_actors;
mod soak;
mod spans;
mod stops;
mod upgrade;
