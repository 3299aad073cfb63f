//! Everything that crosses a process boundary.
//!
//! * [`full_node`] — the client side of a full node's `Filecoin.*` JSON-RPC.
//! * [`api`] — the StorageMiner API (`Filecoin.*`) that the CLI and lotus-miner's clients call.
//! * [`admin`] — the admin HTTP endpoint: reads snapshots, answers when all else hangs.

pub mod admin;
pub mod api;
pub mod full_node;
