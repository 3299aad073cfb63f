//! Everything that crosses a process boundary.
//!
//! * [`api_info`] — `<token>:/ip4/127.0.0.1/tcp/1234/http` strings; [`client`] — typed JSON-RPC calls to such a node.
//! * [`full_node`] — what we ask of a full node; [`full_node::http`] asks it over its `Filecoin.*` JSON-RPC.
//! * [`directory`] — who is in the cluster, who holds what, and who should.
//! * [`server`] — serves `Filecoin.*` JSON-RPC the way Lotus does; [`auth`] — its tokens and permissions.
//! * [`server_actor`] — an HTTP server as a child of a tree; [`listener`] — its socket, which outlives it.
//! * [`api`] — the StorageMiner API (`Filecoin.*`) that the CLI and lotus-miner's clients call.
//! * [`pool_api`] — the pool of full nodes, served as one; [`json_text`] — an answer that is passed on as it came.
//! * [`bridge`] — messages between actors of different processes and hosts.
//! * [`connection_limits`] — quotas of connections; [`descriptors`] — their size per surface; [`limited_stream`] — a socket
//!   under one; [`http_surface`] — an HTTP server of such sockets.
//! * [`cross_site`] — refuses what web pages of others make a browser send; [`refusal_log`] — few, short lines about it.
//! * [`admin`] — the admin HTTP endpoint: reads snapshots, answers when all else hangs.

pub mod admin;
pub mod api;
pub mod api_info;
pub mod auth;
pub mod bridge;
pub mod client;
pub mod connection_limits;
pub mod cross_site;
pub mod descriptors;
pub mod directory;
pub mod full_node;
pub mod http_surface;
pub(crate) mod json;
pub mod json_text;
pub mod limited_stream;
pub mod listener;
pub mod pool_api;
pub mod refusal_log;
pub mod server;
pub mod server_actor;
