//! An operator's orders to one actor or supervisor.

use super::engine::AdminError;
use super::tree::Tree;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Stop in order and start again; a stopped one is started. No budget pays for it.
    Restart,
    /// Begin no further message.
    Suspend,
    Resume,
    /// Stop in order and stay away until [`Order::Restart`]. Temporary and dynamic children are forgotten.
    Stop,
    /// End at once; the restart rule applies.
    Kill,
}

impl Order {
    pub const ALL: [Order; 5] = [Order::Restart, Order::Suspend, Order::Resume, Order::Stop, Order::Kill];

    pub fn name(self) -> &'static str {
        match self {
            Order::Restart => "restart",
            Order::Suspend => "suspend",
            Order::Resume => "resume",
            Order::Stop => "stop",
            Order::Kill => "kill",
        }
    }
}

impl Tree {
    /// Completes when it is done, which for a stop or a restart may take the child's shutdown and start times.
    pub async fn order(&self, path: &str, order: Order) -> Result<(), AdminError> {
        let node = self.root().find(path).ok_or(AdminError::NotFound)?;
        let Some((above, id)) = path.rsplit_once('/') else { return Err(AdminError::Root) };
        let parent = self.supervisor(above).ok_or(AdminError::NotFound)?;
        let sent = |sent| if sent { Ok(()) } else { Err(AdminError::NoSupervisor) };
        match order {
            Order::Kill => parent.kill_child(id).await,
            Order::Stop => parent.try_terminate_child(id).await,
            Order::Suspend | Order::Resume if node.branch.is_some() => Err(AdminError::NotAWorker),
            Order::Suspend => sent(self.suspend(path)),
            Order::Resume => sent(self.resume(path)),
            Order::Restart if node.temporary || parent.is_dynamic() => Err(AdminError::Dynamic),
            Order::Restart => parent.renew_child(id).await,
        }
    }
}
