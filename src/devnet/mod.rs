//! The embedded chain: a small real Filecoin network in one process, spoken to only through `Filecoin.*` JSON-RPC.
