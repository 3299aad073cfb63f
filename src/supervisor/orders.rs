//! An operator's orders to one actor or supervisor.

use super::engine::AdminError;
use super::tree::Tree;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ActorOrder {
    /// Stop in order and start again; a stopped one is started. No budget pays for it.
    Restart,
    /// Begin no further message.
    Suspend,
    Resume,
    /// Stop in order and stay away until [`ActorOrder::Restart`]. Temporary and dynamic children are forgotten.
    Stop,
    /// End at once; the restart rule applies.
    Kill,
}

impl ActorOrder {
    pub const ALL: [ActorOrder; 5] =
        [ActorOrder::Restart, ActorOrder::Suspend, ActorOrder::Resume, ActorOrder::Stop, ActorOrder::Kill];

    pub fn name(self) -> &'static str {
        match self {
            ActorOrder::Restart => "restart",
            ActorOrder::Suspend => "suspend",
            ActorOrder::Resume => "resume",
            ActorOrder::Stop => "stop",
            ActorOrder::Kill => "kill",
        }
    }
}

impl Tree {
    /// Completes when it is done, which for a stop or a restart may take the child's shutdown and start times.
    pub async fn order(&self, path: &str, order: ActorOrder) -> Result<(), AdminError> {
        let node = self.root().find(path).ok_or(AdminError::NotFound)?;
        let Some((above, id)) = path.rsplit_once('/') else { return Err(AdminError::Root) };
        let parent = self.supervisor(above).ok_or(AdminError::NotFound)?;
        let sent = |sent| if sent { Ok(()) } else { Err(AdminError::NoSupervisor) };
        match order {
            ActorOrder::Kill => parent.kill_child(id).await,
            ActorOrder::Stop => parent.try_terminate_child(id).await,
            ActorOrder::Suspend | ActorOrder::Resume if node.branch.is_some() => Err(AdminError::NotAWorker),
            ActorOrder::Suspend => sent(self.suspend(path)),
            ActorOrder::Resume => sent(self.resume(path)),
            ActorOrder::Restart if node.temporary || parent.is_dynamic() => Err(AdminError::Dynamic),
            ActorOrder::Restart => parent.renew_child(id).await,
        }
    }
}
