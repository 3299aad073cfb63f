//! Passes each head of the feed on to the subscribers of the pool's own API.

use super::messages::HeadUpdate;
use crate::rpc::pool_api::heads::HeadFan;
use crate::supervisor::{Actor, Cx, Exit, Handler};
use std::sync::Arc;

pub struct PoolHeads {
    fan: Arc<HeadFan>,
}

impl PoolHeads {
    pub fn new(fan: Arc<HeadFan>) -> PoolHeads {
        PoolHeads { fan }
    }
}

impl Actor for PoolHeads {}

impl Handler<HeadUpdate> for PoolHeads {
    async fn handle(&mut self, head: HeadUpdate, _cx: &Cx<Self>) -> Result<(), Exit> {
        self.fan.head(&head.tipset, head.reverted_to);
        Ok(())
    }
}
