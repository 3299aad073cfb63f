//! The F3 calls of the devnet: [`super::f3`] over its chain.

use super::Devnet;
use super::core::Core;
use super::f3::{Leaser, Now, Refusal};
use crate::chain::f3::F3Manifest;
use crate::rpc::full_node::{FullNodeError, Result as RpcResult};
use crate::util::lock;
use libp2p::multihash::Multihash;
use std::time::Duration;

fn now_of(core: &Core) -> Result<Now, Refusal> {
    const SHA2_256: u64 = 0x12;
    if core.switches.f3_disabled {
        return Err(Refusal::Disabled);
    }
    let key = blake2b_simd::Params::new().hash_length(32).hash(&core.producer.address().to_bytes());
    let issuer = Multihash::wrap(SHA2_256, key.as_bytes()).ok();
    let issuer = issuer.and_then(|hash| libp2p::PeerId::from_multihash(hash).ok()).map(|peer| peer.to_base58());
    Ok(Now {
        network: core.settings.network_name.clone(),
        issuer: issuer.unwrap_or_default(),
        instance: u64::try_from(core.head.height).unwrap_or_default(),
    })
}

impl Devnet {
    /// From now on the F3 calls answer as those of a node that runs without fast finality.
    pub fn disable_f3(&self, disabled: bool) {
        lock(&self.core).switches.f3_disabled = disabled;
    }

    /// The miners with a lease.
    pub fn f3_participants(&self) -> Vec<u64> {
        let core = lock(&self.core);
        now_of(&core).map(|now| core.f3.participants(&now)).unwrap_or_default()
    }

    pub(super) async fn f3<T: Send + 'static>(
        &self,
        method: &'static str,
        answer: impl FnOnce(&mut Leaser, Now) -> Result<T, Refusal> + Send + 'static,
    ) -> RpcResult<T> {
        let given = self.ask(method, move |core| Ok(now_of(core).and_then(|now| answer(&mut core.f3, now)))).await?;
        let node = super::full_node::NAME;
        given.map_err(|refusal| FullNodeError::Rpc {
            node: node.into(),
            method,
            code: refusal.code(),
            message: refusal.to_string(),
        })
    }

    pub(super) async fn f3_manifest(&self, method: &'static str) -> RpcResult<Option<F3Manifest>> {
        let delay = self.ask(method, |core| Ok(core.settings.block_delay)).await?;
        let manifest = move |now: Now| F3Manifest { network_name: now.network, catch_up_alignment: half(delay) };
        self.f3(method, move |_, now| Ok(Some(manifest(now)))).await
    }
}

/// As Lotus sets it for a network of its own.
fn half(block_delay: Duration) -> Duration {
    block_delay / 2
}
