//! The output of commands for people: pure functions from values to text, with golden tests.

pub mod actor;
pub mod agent;
pub mod cluster;
pub mod daemons;
pub mod deadlines;
pub mod facts;
pub mod info;
pub mod messages;
pub mod proving;
pub mod sealing;
pub mod sectors;
pub mod table;
pub mod time;
pub mod tree;
