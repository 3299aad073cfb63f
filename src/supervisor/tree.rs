//! A running tree: start, snapshot, control, stop.

use super::actor::Exit;
use super::spec::{ChildSpec, SpecError, StartError, SupervisorSpec};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    Starting,
    Up,
    Restarting,
    Stopping,
    Stopped,
}

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
}

/// The running tree. Lives on threads of its own; usable from any runtime.
#[derive(Clone)]
pub struct Tree {}

impl Tree {
    /// Validates the whole spec, then starts the children in order; an error leaves nothing running.
    pub fn start(_root: SupervisorSpec) -> Result<Tree, TreeError> {
        todo!()
    }
    /// In tree order, parents first. Reads atomics and a snapshot only: answers when every arbiter hangs.
    pub fn snapshot(&self) -> Vec<ActorInfo> {
        todo!()
    }
    /// Stops in reverse order, each child within its shutdown time.
    pub async fn shutdown(&self) -> Exit {
        todo!()
    }
    /// Completes when the root supervisor has ended: by `shutdown`, or because its restart budget is spent.
    pub async fn wait(&self) -> Exit {
        todo!()
    }
    /// A supervisor by its tree path (`root/sealing/sectors`), for dynamic children.
    pub fn supervisor(&self, _path: &str) -> Option<SupervisorRef> {
        todo!()
    }
    /// Ends the present incarnation of the actor at that tree path with [`Exit::Killed`]; its supervisor decides what follows.
    pub fn kill(&self, _path: &str) -> bool {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("{path} did not start: {why}")]
    Start { path: String, why: StartError },
}

/// A handle to one supervisor.
#[derive(Clone)]
pub struct SupervisorRef {}

impl SupervisorRef {
    pub async fn start_child(&self, _child: ChildSpec) -> Result<(), StartError> {
        todo!()
    }
    pub async fn terminate_child(&self, _id: &str) -> Result<(), StartError> {
        todo!()
    }
}
