//! The market host and its actor.

#[path = "../support/mod.rs"]
mod support;

mod answers_market_clients;
mod crash_stays_in_its_actor;
mod signs_through_the_wallet;
mod silent_connections;
