//! An operator's orders, left in etcd where every node sees them.

use super::keys::Key;
use super::state::EtcdState;
use crate::rpc::directory::{DirectoryError, NodeKind, NodeRecord, PlacementOrder, View, check_concern};
use etcd_client::{Client, PutOptions};
use std::sync::Arc;
use std::time::Duration;

/// How long a move that nobody carries out stays an order.
const MOVE_LASTS: Duration = Duration::from_secs(600);

pub(super) async fn give(shared: &EtcdState, order: PlacementOrder) -> Result<(), DirectoryError> {
    let view = shared.view.borrow().clone();
    match order {
        PlacementOrder::Move { concern, node } => {
            check_concern(&concern)?;
            can_take(&*known(&view, &node)?, &concern)?;
            move_to(shared, &concern, &node).await
        }
        PlacementOrder::Drain { node } => {
            known(&view, &node)?;
            let key = shared.connection.keys.key(Key::Drain(&node));
            let put = |mut client: Client| {
                let key = key.clone();
                async move { client.put(key, "", None).await }
            };
            shared.connection.call(put).await.map(|_| ())
        }
        PlacementOrder::Undrain { node } => {
            // A node that is away may be told as well.
            if !view.drained.contains(&node) {
                known(&view, &node)?;
            }
            let key = shared.connection.keys.key(Key::Drain(&node));
            let delete = |mut client: Client| {
                let key = key.clone();
                async move { client.delete(key, None).await }
            };
            shared.connection.call(delete).await.map(|_| ())
        }
    }
}

fn known(view: &View, node: &str) -> Result<Arc<NodeRecord>, DirectoryError> {
    view.nodes.get(node).cloned().ok_or_else(|| DirectoryError::UnknownNode {
        node: node.to_string(),
        known: view.nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    })
}

/// Which role a concern needs is the placement's to know: `placement::never`.
fn can_take(node: &NodeRecord, concern: &str) -> Result<(), DirectoryError> {
    let why = match node.kind {
        NodeKind::Agent => "it is an agent",
        NodeKind::Node if node.drained => "it is drained; `bulkhead cluster drain --undo` ends that",
        NodeKind::Node => return Ok(()),
    };
    Err(DirectoryError::CannotTake { node: node.name.clone(), concern: concern.to_string(), why: why.to_string() })
}

async fn move_to(shared: &EtcdState, concern: &str, node: &str) -> Result<(), DirectoryError> {
    let connection = &shared.connection;
    let seconds = MOVE_LASTS.as_secs() as i64;
    let lease = connection.call(|mut client| async move { client.lease_grant(seconds, None).await }).await?.id();
    let key = connection.keys.key(Key::Move(concern));
    let put = |mut client: Client| {
        let (key, node, options) = (key.clone(), node.to_string(), PutOptions::new().with_lease(lease));
        async move { client.put(key, node, Some(options)).await }
    };
    connection.call(put).await.map(|_| ())
}
