//! The message bridge: actors of other processes and hosts behind the same calls as those of this one.
//!
//! * [`ids`] — every message that crosses, and its number; [`codec`] — how its body is written.

pub mod codec;
pub mod ids;
