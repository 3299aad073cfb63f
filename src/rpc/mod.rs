//! Everything that crosses a process boundary.
//!
//! * [`api_info`] — `<token>:/ip4/127.0.0.1/tcp/1234/http` strings; [`client`] — typed JSON-RPC calls to such a node.
//! * [`full_node`] — what we ask of a full node; [`full_node::http`] asks it over its `Filecoin.*` JSON-RPC.
//! * [`directory`] — who is in the cluster, who holds what, and who should.
//! * [`server`] — serves `Filecoin.*` JSON-RPC the way Lotus does; [`auth`] — its tokens and permissions.
//! * [`api`] — the StorageMiner API (`Filecoin.*`) that the CLI and lotus-miner's clients call.
//! * [`bridge`] — messages between actors of different processes and hosts.
//! * [`admin`] — the admin HTTP endpoint: reads snapshots, answers when all else hangs.

pub mod admin;
pub mod api;
pub mod api_info;
pub mod auth;
pub mod bridge;
pub mod client;
pub mod directory;
pub mod door;
pub mod full_node;
pub mod server;
