//! The embedded chain: a small real Filecoin network in one process, spoken to only through `Filecoin.*` JSON-RPC.
//!
//! * [`core`] the chain behind its lock; [`head`] moving it; [`produce`], [`mine`] making and judging blocks;
//!   [`clock`] when; [`mempool`], [`gas`], [`base_fee`] messages on their way.
//! * [`vm`] executes: the network's own state crates behind our method dispatch; [`verifier`] checks proofs.
//! * [`store`] one redb file; [`state_tree`], [`wire`] how state, blocks and messages are encoded.
//! * [`full_node`], [`extra`], [`extra_rpc`], [`f3`] what is answered, [`wording`] in whose words; [`tree`] the chain as
//!   supervised actors.

mod base_fee;
pub mod clock;
pub mod core;
pub mod error;
pub mod extra;
pub mod extra_rpc;
pub mod f3;
mod f3_calls;
mod full_node;
mod gas;
pub mod genesis;
mod head;
pub mod keys;
mod mempool;
mod mine;
mod produce;
mod query_chain;
mod query_miner;
mod rand;
pub mod settings;
pub mod state_tree;
pub mod store;
pub mod tree;
pub mod verifier;
pub mod vm;
pub mod wire;
pub mod wording;

pub use error::{ChainError, DevnetError};
pub use settings::DevnetSettings;
pub use verifier::{ProofsVerifier, Verifier};
pub use wording::Wording;

use crate::chain::types::{HeadChange, HeadChangeType, TipSet};
use crate::rpc::full_node::Result as RpcResult;
use crate::util::lock;
use core::Core;
use fvm_shared::address::{Address, Network, set_current_network};
use fvm_shared::econ::TokenAmount;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, broadcast, mpsc};

/// Batches of head changes that a listener may be behind.
const NOTIFY_BOUND: usize = 64;
/// After a failed commit (a full disk) the chain tries again.
const RETRY: Duration = Duration::from_secs(1);

/// A running chain. Cheap to share; stops when dropped, resumes when opened again.
pub struct Devnet {
    /// Its memory follows the database, which is written in whole commits: a panic leaves nothing half done.
    core: Arc<Mutex<Core>>,
    /// Something changed that the clock should look at.
    wake: Notify,
    drop_sockets: broadcast::Sender<()>,
}

impl Devnet {
    /// Opens the chain in `dir`, or starts one there. Verifies proofs with the keys in `FIL_PROOFS_PARAMETER_CACHE`.
    pub fn open(dir: &Path, settings: DevnetSettings) -> Result<Arc<Devnet>, DevnetError> {
        Devnet::open_with(dir, settings, Arc::new(ProofsVerifier))
    }

    pub fn open_with(
        dir: &Path,
        settings: DevnetSettings,
        verifier: Arc<dyn Verifier>,
    ) -> Result<Arc<Devnet>, DevnetError> {
        // Addresses print as t…: this is not mainnet.
        set_current_network(Network::Testnet);
        let core = Core::open(dir, settings, verifier)?;
        Ok(Arc::new(Devnet {
            core: Arc::new(Mutex::new(core)),
            wake: Notify::new(),
            drop_sockets: broadcast::channel(4).0,
        }))
    }

    /// The genesis accounts whose keys are in the wallet: owner, worker.
    pub fn accounts(&self) -> (Address, Address) {
        (Address::new_id(genesis::OWNER_ID), Address::new_id(genesis::WORKER_ID))
    }

    /// Keeps the chain moving; never returns. Dropping the future stops the clock, not the chain. `trouble` is told why
    /// it cannot move at the moment.
    pub async fn run(&self, trouble: impl Fn(Option<String>)) {
        loop {
            let ticked = self.tick_now().await;
            trouble(ticked.as_ref().err().map(|e| e.to_string()));
            let wait = match ticked {
                Ok((now, Some(next))) => Duration::from_millis(next.saturating_sub(now)),
                Ok((_, None)) => Duration::from_secs(3600),
                Err(e) => {
                    tracing::error!(error = %e, "the chain cannot move; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    async fn tick_now(&self) -> RpcResult<(u64, Option<u64>)> {
        self.ask("tick", |core| {
            let now = core.now();
            Ok((now, core.tick(now)?))
        })
        .await
    }

    /// Does what is due at `now` (Unix milliseconds); gives when to look again.
    pub fn tick(&self, now: u64) -> Result<Option<u64>, ChainError> {
        lock(&self.core).tick(now)
    }

    /// Makes blocks without waiting until the head is at `height`.
    pub fn produce_until(&self, height: i64) -> Result<TipSet, ChainError> {
        let mut core = lock(&self.core);
        while core.head.height < height {
            core.produce()?;
        }
        Ok(core.head.clone())
    }

    /// Tests set the time instead of waiting for it.
    pub fn set_time(&self, unix_millis: u64) {
        lock(&self.core).manual_time = Some(unix_millis);
    }

    /// Replaces the last `depth` tipsets by other ones.
    pub fn reorg(&self, depth: u64) -> Result<(), ChainError> {
        lock(&self.core).reorg(depth)
    }

    /// Stops the chain's clock; blocks of providers are refused.
    pub fn stall(&self) {
        lock(&self.core).switches.stalled = true;
    }

    pub fn resume(&self) {
        lock(&self.core).switches.stalled = false;
        self.wake.notify_one();
    }

    /// The next block of the built-in producer leaves out `rounds` epochs.
    pub fn null_rounds(&self, rounds: u32) {
        lock(&self.core).switches.null_rounds = i64::from(rounds);
    }

    pub fn refuse_gas_estimates(&self, refuse: bool) {
        lock(&self.core).switches.refuse_gas = refuse;
    }

    /// Holds the base fee of the blocks to come at a figure, as traffic of others would drive it; `None` lets it follow the
    /// messages again.
    pub fn hold_base_fee(&self, base_fee: Option<TokenAmount>) {
        lock(&self.core).switches.base_fee = base_fee;
    }

    /// Chooses whose words the refusals are in, where Lotus and Forest differ; Forest's at first.
    pub fn speak_as(&self, wording: Wording) {
        lock(&self.core).switches.wording = wording;
    }

    /// Tells every WebSocket of the server to close; `chain_notify` channels end too.
    pub fn drop_websockets(&self) {
        let _ = self.drop_sockets.send(());
    }

    /// The server closes a WebSocket when this fires.
    pub fn dropped_websockets(&self) -> broadcast::Receiver<()> {
        self.drop_sockets.subscribe()
    }

    async fn changes(&self) -> broadcast::Receiver<Arc<Vec<HeadChange>>> {
        lock(&self.core).changes.subscribe()
    }

    /// Head changes from now on; the first batch is the head itself.
    async fn notify(&self) -> RpcResult<mpsc::Receiver<Vec<HeadChange>>> {
        let (head, mut changes) =
            self.ask("ChainNotify", |core| Ok((core.head.clone(), core.changes.subscribe()))).await?;
        let mut dropped = self.drop_sockets.subscribe();
        let (tx, rx) = mpsc::channel(NOTIFY_BOUND);
        tokio::spawn(async move {
            let mut batch = vec![HeadChange { kind: HeadChangeType::Current, val: head }];
            loop {
                tokio::select! {
                    sent = tx.send(batch) => if sent.is_err() { return },
                    _ = dropped.recv() => return,
                }
                batch = tokio::select! {
                    // A listener that lost changes must start again from a `current`.
                    change = changes.recv() => match change {
                        Ok(change) => change.as_ref().clone(),
                        Err(_) => return,
                    },
                    () = tx.closed() => return,
                    _ = dropped.recv() => return,
                };
            }
        });
        Ok(rx)
    }
}
