//! The messages that F3 participation takes.

use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};

/// How participation in fast finality stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct F3Status;

impl Message for F3Status {
    type Reply = F3Report;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::F3_STATUS, 1));
}

/// The stage of participation at the moment.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum F3State {
    /// No answer of the full node yet.
    #[default]
    Starting,
    /// Switched off in the configuration.
    Off,
    /// A lease is held: the full node signs for the miner.
    Participating,
    /// The full node runs without fast finality, or lacks the calls.
    Disabled,
    /// The full node's fast finality has not begun.
    NotReady,
    /// A lease that another process or node may hold must run out first.
    Waiting,
    /// The full node refuses or does not answer; tried again.
    Failing,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct F3Report {
    pub miner: String,
    pub state: F3State,
    /// The full node that the leases are held at.
    pub full_node: String,
    /// The network's name in fast finality; empty without a lease.
    pub network: String,
    /// The peer id of the full node that gave the lease.
    pub issuer: String,
    /// The instance at the last answer; `None`: none yet.
    pub instance: Option<u64>,
    /// The last instance of the lease.
    pub lease_to: Option<u64>,
    /// Leases taken or renewed since the actor started.
    pub leases: u64,
    /// Failed tries in a row.
    pub failures: u32,
    /// The text of the last failed try.
    pub error: Option<String>,
    /// Seconds until the next call.
    pub next_in: Option<u64>,
}
