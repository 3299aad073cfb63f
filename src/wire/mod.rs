//! Messages between nodes as bytes, whatever carries them.
//!
//! * [`codec`] — the form of a message that crosses: bincode, versions, bounds.
//! * [`ids`] — the number of every message, which no other one ever gets.

pub mod codec;
pub mod ids;
