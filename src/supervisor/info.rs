//! An actor as the tree shows it, and the settings of a whole tree.

use super::cell::ActorState;
use super::exit::Exit;
use super::histogram::HandleTimes;
use super::policy::Strategy;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One row of `bulkhead tree`: field names are stable.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ActorInfo {
    /// Place in the tree: `root/proving/window_post`.
    pub path: String,
    /// `worker` or `supervisor`.
    pub kind: String,
    pub state: ActorState,
    pub incarnation: u64,
    pub restarts: u64,
    pub mailbox_depth: usize,
    pub mailbox_bound: usize,
    pub last_exit: Option<Exit>,
    /// Unix seconds of the last exit.
    pub last_exit_at: Option<u64>,
    /// The action that the actor is retrying now, in its own words; none while all is well.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Why it is not up and waits for another try: its start failed, it crashed too often, or it was fenced off.
    #[serde(default)]
    pub held: Option<String>,
    /// A worker's logical path, the one of its tokens.
    #[serde(default)]
    pub address: Option<String>,
    /// The epoch of its tokens.
    #[serde(default)]
    pub epoch: u64,
    /// The name of the thread a worker runs on.
    #[serde(default)]
    pub thread: Option<String>,
    /// The type of the message in hand, and for how long.
    #[serde(default)]
    pub busy_message: Option<String>,
    #[serde(default)]
    pub busy_ms: Option<u64>,
    /// It begins no further message until it is resumed.
    #[serde(default)]
    pub suspended: bool,
    /// How long a worker's messages took since the node started.
    #[serde(default)]
    pub handle_times: Option<HandleTimes>,
    /// A supervisor's strategy, and how many of the restarts it may make within the period it has made.
    #[serde(default)]
    pub strategy: Option<Strategy>,
    #[serde(default)]
    pub restart_budget_used: Option<usize>,
    #[serde(default)]
    pub restart_budget: Option<u32>,
    #[serde(default)]
    pub restart_period_ms: Option<u64>,
}

/// Settings of a whole tree, made by the caller.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// Added to each incarnation to give a token's epoch. A boot counter in the upper bits keeps epochs growing over restarts of the process.
    pub epoch_base: u64,
    /// With more threads than that stuck at the same time, the tree ends, so that the process can be started anew; 2 by default.
    pub max_zombies: u64,
    /// No actor may be inside one turn for longer than this, whatever its spec allows; no such limit by default.
    pub hang_after: Option<Duration>,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions { epoch_base: 0, max_zombies: 2, hang_after: None }
    }
}
