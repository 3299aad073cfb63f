//! The network's rules at a tipset: its version is asked once per tipset, never once for good.

use super::{FullNode, Result};
use crate::chain::network_rules::NetworkRules;
use crate::chain::types::TipSetKey;
use crate::util::lock;
use std::sync::Mutex;

/// The version of the tipset that was asked for last. Share one among those who work at the same head.
#[derive(Default, Debug)]
pub struct RulesAt {
    last: Mutex<Option<(TipSetKey, u32)>>,
}

impl RulesAt {
    pub async fn version(&self, node: &dyn FullNode, key: &TipSetKey) -> Result<u32> {
        if let Some((at, version)) = &*lock(&self.last)
            && at == key
        {
            return Ok(*version);
        }
        let version = node.state_network_version(key).await?;
        // The empty key is whatever tipset is the head at the moment.
        if !key.0.is_empty() {
            *lock(&self.last) = Some((key.clone(), version));
        }
        Ok(version)
    }

    pub async fn rules(&self, node: &dyn FullNode, key: &TipSetKey) -> Result<&'static NetworkRules> {
        self.version(node, key).await.map(NetworkRules::of)
    }
}
