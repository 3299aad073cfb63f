//! Whole nodes as one provider: placement, take-over, faults.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "cluster")]
mod behind_tls;
#[cfg(feature = "cluster")]
mod concerns_answer_anywhere;
#[cfg(feature = "cluster")]
mod distributed_miner_roles;
#[cfg(feature = "cluster")]
mod faults;
#[cfg(feature = "cluster")]
mod held_by_nobody;
#[cfg(feature = "cluster")]
mod placement_answers;
#[cfg(feature = "cluster")]
mod placement_moves;
#[cfg(feature = "cluster")]
mod remote_agent_and_workers;
#[cfg(feature = "cluster")]
mod without_etcd;

/// Not a test: the program of a node's process, which [`support::placement::Plan::start`] runs.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn a_node() {
    support::placement::run_as_node().await;
}
