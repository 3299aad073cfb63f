//! Everything that crosses a process boundary.
//!
//! * [`full_node`] — the client side of a full node's `Filecoin.*` JSON-RPC.
//! * [`admin`] — the admin HTTP endpoint: reads snapshots, answers when all else hangs.

pub mod admin;
pub mod full_node;
