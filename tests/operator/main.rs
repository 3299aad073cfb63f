//! What an operator types, reads and breaks: CLI, JSON-RPC, admin HTTP, whole nodes.

#[path = "../support/mod.rs"]
mod support;

mod actor_orders;
mod admin_http_outlives_hung_actors;
mod admin_http_reads_snapshots;
mod admin_orders;
mod cli_bad_input;
mod cluster_cli_asks_a_node;
mod cluster_cli_joins;
mod daemons;
mod docs_name_metrics;
mod docs_name_tests;
mod drill;
mod house_style;
mod import_circles;
mod info_of_a_hung_node;
mod miner_api_serves_lotus_clients;
mod node_reload;
mod one_concern_never_stops_another;
mod operator_faults;
mod proving_info_of_parts;
mod secrets_stay_private;
mod starts;
mod surfaces_of_a_node_under_attack;
mod surfaces_under_attack;
