//! One market per miner: a libp2p host of its own that answers identify, ping and storage asks.
//!
//! It shares nothing with proving: own key, port, connection limits, thread and runtime. A panic in the host ends this
//! actor's incarnation and nothing else. `messages` is its protocol; `ask` and `frame` decide; `host` owns the swarm,
//! `inbound` takes its sockets.

pub mod ask;
pub mod codec;
mod frame;
pub mod host;
mod inbound;
mod key;
mod messages;
mod runtime;
mod settings;
mod signer;

use crate::util::Backoff;
pub use messages::{AskReport, MarketInfo, MarketReport, PanicHost};
pub use settings::{AskSettings, MarketSettings, SettingError};
pub(super) use signer::AskRecord;
pub use signer::{AskSigner, AskStore, WalletSigner};

use crate::store::StoreError;
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Reconfigure, Ref, StartError, Thread};
use ask::{AskStep, AskTerms, SignedStorageAsk, StoredAsk, next_ask};
use fvm_shared::address::Address;
use host::{End, Ended, Host, HostError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::watch;

/// Signing is one RPC to the full node; a round that takes longer is tried again.
const ROUND_DEADLINE: Duration = Duration::from_secs(30);
/// Terms, key and expiry are looked at again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct MarketConfig {
    pub miner: Address,
    /// `libp2p.key` in the repo; made when missing.
    pub key_path: PathBuf,
    pub sector_size: u64,
    pub settings: MarketSettings,
}

#[derive(Clone)]
pub struct MarketDeps {
    pub signer: Arc<dyn AskSigner>,
    pub book: Arc<dyn AskStore>,
}

/// The child of `root/markets` for one miner.
pub fn child(config: MarketConfig, deps: MarketDeps, address: &Ref<DealHandler>) -> ChildSpec {
    let id = format!("deal_handler-{}", config.miner);
    ChildSpec::actor(id, address, move |_cx| {
        let (config, deps) = (config.clone(), deps.clone());
        async move { DealHandler::start(config, deps).await }
    })
    .on(Thread::Dedicated)
}

pub struct DealHandler {
    config: MarketConfig,
    terms: AskTerms,
    deps: MarketDeps,
    host: Host,
    end: End,
    /// The ask that the host serves.
    serve: watch::Sender<Option<Arc<SignedStorageAsk>>>,
    kept: Option<StoredAsk>,
    failures: u32,
    last_error: Option<String>,
    /// Rounds for the present terms; those of earlier ones count no more.
    terms_no: u64,
}

impl DealHandler {
    pub async fn start(config: MarketConfig, deps: MarketDeps) -> Result<DealHandler, StartError> {
        let why = |e: &dyn std::fmt::Display| StartError(e.to_string());
        config.settings.check(config.sector_size).map_err(|e| why(&e))?;
        let terms = config.settings.terms(config.sector_size).map_err(|e| why(&e))?;
        let kept = deps.book.load(&config.miner).map_err(|e| why(&e))?;
        let key = key::load_or_create(&config.key_path).map_err(|e| why(&e))?;
        // The last ask is served at once, also while the full node is away.
        let (serve, served) = watch::channel(kept.as_ref().map(|k| Arc::new(k.signed.clone())));
        let (host, end) =
            Host::start(config.miner, key, &config.settings, served).await.map_err(|e: HostError| why(&e))?;
        Ok(DealHandler { config, terms, deps, host, end, serve, kept, failures: 0, last_error: None, terms_no: 0 })
    }

    fn spawn_round(&self, cx: &Cx<Self>) {
        let (signer, miner) = (self.deps.signer.clone(), self.config.miner);
        let (kept, terms, terms_no) = (self.kept.clone(), self.terms.clone(), self.terms_no);
        cx.spawn(async move {
            let round = ask_round(signer.as_ref(), kept.as_ref(), miner, &terms);
            let result = tokio::time::timeout(ROUND_DEADLINE, round).await;
            let late = |_| Err(format!("signing a storage ask took more than {ROUND_DEADLINE:?}"));
            RoundDone { terms_no, result: result.unwrap_or_else(late) }
        });
    }

    /// Durable first, then served.
    fn adopt(&mut self, ask: StoredAsk, cx: &Cx<Self>) -> Result<(), StoreError> {
        self.deps.book.save(&cx.token(), &self.config.miner, &ask)?;
        tracing::info!(miner = %self.config.miner, seq = ask.signed.ask.seq_no, expiry = ask.signed.ask.expiry, "storage ask signed");
        self.serve.send_replace(Some(Arc::new(ask.signed.clone())));
        self.kept = Some(ask);
        Ok(())
    }

    fn report(&self) -> MarketReport {
        let stats = &self.host.stats;
        let addrs = self.host.addrs.borrow().iter().map(|a| format!("{a}/p2p/{}", self.host.peer_id)).collect();
        let ask = self.serve.borrow().as_ref().map(|signed| AskReport {
            price: signed.ask.price.atto().to_string(),
            verified_price: signed.ask.verified_price.atto().to_string(),
            min_piece_size: signed.ask.min_piece_size,
            max_piece_size: signed.ask.max_piece_size,
            timestamp: signed.ask.timestamp,
            expiry: signed.ask.expiry,
            seq_no: signed.ask.seq_no,
        });
        MarketReport {
            miner: self.config.miner.to_string(),
            peer_id: self.host.peer_id.to_string(),
            addrs,
            agent: host::AGENT.to_string(),
            connections: stats.connections.load(Relaxed),
            max_connections: self.config.settings.max_connections,
            connections_refused: stats.connections_refused.load(Relaxed),
            asks_served: stats.asks_served.load(Relaxed),
            asks_without_answer: stats.asks_without_answer.load(Relaxed),
            bad_requests: stats.bad_requests.load(Relaxed),
            ask,
            ask_error: self.last_error.clone(),
        }
    }
}

/// `None`: the ask that is kept still holds.
async fn ask_round(
    signer: &dyn AskSigner,
    kept: Option<&StoredAsk>,
    miner: Address,
    terms: &AskTerms,
) -> Result<Option<StoredAsk>, String> {
    let now = signer.standing().await?;
    let ask = match next_ask(kept, miner, terms, &now) {
        AskStep::Keep => return Ok(None),
        AskStep::Sign(ask) => ask,
    };
    let bytes = ask.signing_bytes().map_err(|e| e.to_string())?;
    let signature = signer.sign(&now.worker, &bytes).await?;
    Ok(Some(StoredAsk { signed: SignedStorageAsk { ask, signature }, signer: now.worker }))
}

const RETRIES: Backoff = Backoff::doubling(Duration::from_secs(2), Duration::from_secs(60));

struct RoundDone {
    terms_no: u64,
    result: Result<Option<StoredAsk>, String>,
}
impl Message for RoundDone {
    type Reply = ();
}

/// For the terms of that number.
struct LookAgain(u64);
impl Message for LookAgain {
    type Reply = ();
}

struct HostEnded(Ended);
impl Message for HostEnded {
    type Reply = ();
}

impl Actor for DealHandler {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let end = self.end.clone();
        cx.spawn(async move { HostEnded(end.wait().await) });
        self.spawn_round(cx);
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "market": self.report(),
            "terms": self.config.settings.ask,
            "failures_in_a_row": self.failures,
            "ask_signed_by": self.kept.as_ref().map(|kept| kept.signer.to_string()),
        }))
    }

    async fn stopping(&mut self, _cx: &Cx<Self>) {
        self.host.stop();
        // So that the sockets are closed when the tree says that this child has stopped.
        self.end.clone().wait().await;
    }
}

impl Handler<HostEnded> for DealHandler {
    async fn handle(&mut self, message: HostEnded, _cx: &Cx<Self>) -> Result<(), Exit> {
        match message.0 {
            Ended::Stopped => Ok(()),
            Ended::Failed(why) => Err(Exit::Failed(why)),
            Ended::Panicked(why) => Err(Exit::Panicked(why)),
        }
    }
}

impl Handler<LookAgain> for DealHandler {
    async fn handle(&mut self, LookAgain(terms_no): LookAgain, cx: &Cx<Self>) -> Result<(), Exit> {
        if terms_no == self.terms_no {
            self.spawn_round(cx);
        }
        Ok(())
    }
}

impl Handler<RoundDone> for DealHandler {
    async fn handle(&mut self, RoundDone { terms_no, result }: RoundDone, cx: &Cx<Self>) -> Result<(), Exit> {
        if terms_no != self.terms_no {
            return Ok(()); // signed for terms that hold no more: never served
        }
        let result = match result {
            Ok(None) => Ok(()),
            Ok(Some(ask)) => match self.adopt(ask, cx) {
                Err(fenced @ StoreError::Fenced { .. }) => return Err(fenced.into()),
                saved => saved.map_err(|e| e.to_string()),
            },
            Err(why) => Err(why),
        };
        match result {
            Ok(()) => {
                (self.failures, self.last_error) = (0, None);
                cx.tell_after(LOOK_AGAIN, LookAgain(terms_no));
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                let after = RETRIES.after(self.failures);
                tracing::warn!(miner = %self.config.miner, why, ?after, "no new storage ask yet; trying again");
                self.last_error = Some(why);
                cx.tell_after(after, LookAgain(terms_no));
            }
        }
        Ok(())
    }
}

/// New prices are signed and served; the host, its port and its limits stay as they are.
impl Handler<Reconfigure<MarketSettings>> for DealHandler {
    async fn handle(
        &mut self,
        Reconfigure(settings): Reconfigure<MarketSettings>,
        cx: &Cx<Self>,
    ) -> Result<Result<(), String>, Exit> {
        match settings.terms(self.config.sector_size) {
            Err(why) => Ok(Err(why.to_string())),
            Ok(terms) => {
                (self.terms, self.config.settings.ask) = (terms, settings.ask);
                self.terms_no += 1;
                self.spawn_round(cx);
                Ok(Ok(()))
            }
        }
    }
}

impl Handler<MarketInfo> for DealHandler {
    async fn handle(&mut self, _: MarketInfo, _cx: &Cx<Self>) -> Result<MarketReport, Exit> {
        Ok(self.report())
    }
}

impl Handler<PanicHost> for DealHandler {
    async fn handle(&mut self, _: PanicHost, _cx: &Cx<Self>) -> Result<(), Exit> {
        self.host.panic();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down_to_a_minute() {
        let secs = |n| RETRIES.after(n).as_secs();
        assert_eq!([0, 1, 2, 5, 6, 7, u32::MAX].map(secs), [2, 2, 4, 32, 60, 60, 60]);
    }
}
