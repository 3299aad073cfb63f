//! The link to the chain: full node client, head feed, message sender.

#[path = "../support/mod.rs"]
mod support;

mod f3_participation;
mod full_node_calls;
mod full_node_gaps;
mod full_node_head_feed;
mod full_node_refusals;
mod head_feed_follow;
mod head_feed_log;
mod lotus_json_shapes;
mod message_sender_crash;
mod message_sender_fees;
mod message_sender_lines;
mod pool_api;
mod pool_calls;
mod pool_faults;
mod pool_heads;
mod pool_nodes;
mod signed_under_a_lease;
