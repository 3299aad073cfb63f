//! WinningPoSt of one miner: a round per epoch, a block where it wins, never two where that is a fault.
//!
//! [`machine`] decides when, [`effects`] does one round's work, [`slashfilter`] has the last word; a block is on disk before it is sent.

pub mod effects;
pub mod machine;
pub mod messages;
pub mod proof_run;
pub mod settings;
pub mod slashfilter;

use crate::actors::daemon_link::lag;
use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::sector_files::SectorFiles;
use crate::chain::types::TipSet;
use crate::chain::{Address, ChainEpoch};
use crate::proofs::Prover;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::store::{Record, Store, StoreError};
use crate::supervisor::{Actor, Cx, Exit, Fence, Handler, Message, StartError};
use effects::{Mined, Miner, ReadyBlock};
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable};
use machine::{Base, RoundAction, RoundId, RoundTiming, Rounds};
use messages::{LOST_AFTER, RoundOutcome, RoundReport, WinningInfo, WinningReport};
use proof_run::ProofRuns;
use serde::{Deserialize, Serialize};
use settings::{Clock, WinningPostSettings};
use slashfilter::{BlockState, MinedBlock};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Heads that come together count as one.
const SETTLE: Duration = Duration::from_millis(20);

/// Counted over restarts; blocks themselves are forgotten after a while.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    accepted: u64,
    on_chain: u64,
}
impl Record for Totals {
    const TABLE: &'static str = "winning_post_totals";
}

#[derive(Clone)]
pub struct WinningPostDeps {
    /// An ID address.
    pub miner: Address,
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub files: Arc<dyn SectorFiles>,
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub settings: WinningPostSettings,
}

/// The work on a round, as far as it is shown and can be dropped.
struct Working {
    id: RoundId,
    base: Base,
    began: Duration,
    handle: AbortHandle,
}

pub struct WinningPost {
    miner: Arc<Miner>,
    store: Store,
    settings: WinningPostSettings,
    /// `None` until the node told the block delay.
    rounds: Option<Rounds>,
    asking_timing: bool,
    settling: bool,
    latest: Rc<RefCell<Option<Arc<TipSet>>>>,
    working: Option<Working>,
    /// Rounds whose block is on its way to the node: the next round does not wait for the answer.
    sending: Vec<Working>,
    /// The base lags the clock too far to mine on it; kept to say so once.
    lagging: bool,
    wake_at: Option<Duration>,
    mined: BTreeMap<ChainEpoch, MinedBlock>,
    totals: Totals,
    reports: VecDeque<RoundReport>,
}

impl WinningPost {
    pub async fn start(_cx: Cx<Self>, deps: WinningPostDeps) -> Result<Self, StartError> {
        let WinningPostDeps { miner, node, prover, files, store, clock, settings } = deps;
        let actor_id = miner.id().map_err(|_| StartError(format!("miner {miner}: give its ID address (t01000)")))?;
        // Without its memory the slash filter is blind: a double block is slashable, so better no block at all.
        let refuse = |error| StartError(format!("winning_post does not mine without its record of blocks: {error}"));
        // Durable names do not depend on how addresses print in this process.
        let ours = format!("t0{actor_id}/");
        let records = store.list::<MinedBlock>().map_err(refuse)?;
        let mined =
            records.into_iter().filter(|(key, _)| key.starts_with(&ours)).map(|(_, block)| (block.epoch, block));
        let mined = mined.collect();
        let totals = match store.get::<Totals>(&format!("t0{actor_id}")) {
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Schema { .. })) => {
                tracing::warn!(%error, "winning_post counts its blocks from 0 on again");
                Totals::default()
            }
            totals => totals.map_err(refuse)?.unwrap_or_default(),
        };
        let proofs = Arc::new(ProofRuns::new(prover, settings.abandoned_proof));
        Ok(WinningPost {
            miner: Arc::new(Miner { address: miner, actor_id, node, proofs, files, clock }),
            store,
            settings,
            rounds: None,
            asking_timing: false,
            settling: false,
            latest: Rc::new(RefCell::new(None)),
            working: None,
            sending: Vec::new(),
            lagging: false,
            wake_at: None,
            mined,
            totals,
            reports: VecDeque::new(),
        })
    }

    fn now(&self) -> Duration {
        self.miner.clock.unix()
    }

    fn act(&mut self, actions: Vec<RoundAction>, cx: &Cx<Self>) {
        for action in actions {
            match action {
                RoundAction::WakeAt(at) => {
                    let now = self.now();
                    if self.wake_at.is_none_or(|known| at < known || known <= now) {
                        self.wake_at = Some(at);
                        cx.tell_after(at.saturating_sub(now), Wake);
                    }
                }
                RoundAction::Abort { id, why } => self.finish(id, RoundOutcome::Late { why }),
                RoundAction::Start { id, base } => self.begin(id, base, cx),
            }
        }
        self.say_lag(cx);
    }

    /// Said once when it begins and once when it is over; shown in the tree meanwhile.
    fn say_lag(&mut self, cx: &Cx<Self>) {
        let Some(rounds) = &self.rounds else { return };
        let lag = rounds.lags(self.now());
        match (lag, self.lagging) {
            (Some(lag), false) => tracing::warn!("{}", lag::sentence(lag, rounds.timing().block_delay)),
            (None, true) => tracing::info!("the full node's head is in time again: rounds begin"),
            (Some(_), true) | (None, false) => {}
        }
        self.lagging = lag.is_some();
        cx.trouble(lag.map(|lag| lag::sentence(lag, rounds.timing().block_delay)));
    }

    fn begin(&mut self, id: RoundId, base: Base, cx: &Cx<Self>) {
        let Some(timing) = self.rounds.as_ref().map(|rounds| *rounds.timing()) else { return };
        let (handle, registration) = AbortHandle::new_pair();
        self.working = Some(Working { id, base: base.clone(), began: self.now(), handle });
        let (miner, latest) = (self.miner.for_one_round(), self.latest.clone());
        cx.spawn(async move {
            let work = async { miner.mine(&base, &timing, || latest.borrow().clone()).await };
            let end = match Abortable::new(AssertUnwindSafe(work).catch_unwind(), registration).await {
                Ok(Ok(Ok(mined))) => Ok(mined),
                Ok(Ok(Err(error))) => Err(error.to_string()),
                Ok(Err(_panic)) => Err("the round's work panicked".to_string()),
                Err(_aborted) => Err("aborted".to_string()),
            };
            RoundDone { id, end }
        });
    }

    /// Notes how a round ended; the first word about it counts.
    fn finish(&mut self, id: RoundId, outcome: RoundOutcome) {
        let sent =
            self.sending.iter().position(|sending| sending.id == id).map(|place| self.sending.swap_remove(place));
        let Some(working) = sent.or_else(|| self.working.take_if(|working| working.id == id)) else { return };
        working.handle.abort();
        let round = working.base.round();
        match &outcome {
            RoundOutcome::Lost | RoundOutcome::NotEligible { .. } => tracing::debug!(round, ?outcome, "round over"),
            RoundOutcome::Won { win_count, .. } => tracing::info!(round, win_count, "won a block"),
            RoundOutcome::Late { why } => tracing::info!(round, %why, "a round was late"),
            RoundOutcome::Refused { why } => tracing::warn!(round, %why, "a block was refused"),
            RoundOutcome::Failed { why } => tracing::warn!(round, %why, "a round failed"),
        }
        self.reports.push_back(RoundReport {
            round,
            base: working.base.tipset.height,
            nulls: working.base.nulls,
            outcome,
            took_ms: self.now().saturating_sub(working.began).as_millis() as u64,
        });
        while self.reports.len() > self.settings.rounds_shown.max(1) {
            self.reports.pop_front();
        }
    }

    fn ended(&mut self, id: RoundId, outcome: RoundOutcome, cx: &Cx<Self>) {
        self.finish(id, outcome);
        let now = self.now();
        if let Some(rounds) = &mut self.rounds {
            let actions = rounds.ended(id, now);
            self.act(actions, cx);
        }
    }

    /// The slash filter, then the disk, then the node.
    fn send(&mut self, id: RoundId, ready: ReadyBlock, cx: &Cx<Self>) -> Result<(), RoundOutcome> {
        let candidate = MinedBlock::of(&ready.block.header, &ready.base);
        let ours_in_base = ready.base.blocks.iter().any(|block| block.miner == self.miner.address);
        let refused = |why: String| RoundOutcome::Refused { why };
        slashfilter::check(&self.mined, &candidate, ours_in_base).map_err(|fault| refused(fault.to_string()))?;
        cx.pass().check().map_err(|fenced| refused(fenced.to_string()))?;
        // From here on no head stops it: a record of a block that is not sent would only cost the next ones.
        if !self.rounds.as_mut().is_some_and(|rounds| rounds.submitting(id)) {
            return Err(RoundOutcome::Late { why: "the round was aborted before the block was sent".into() });
        }
        self.sending.extend(self.working.take_if(|working| working.id == id));
        let key = self.block_key(candidate.epoch);
        self.store
            .put(&cx.token(), &key, &candidate)
            .map_err(|error| refused(format!("the block is not sent, it could not be recorded: {error}")))?;
        let epoch = candidate.epoch;
        self.mined.insert(epoch, candidate);
        self.forget_old(epoch, cx);
        // Recording takes a moment, in which a successor may have come.
        cx.pass().check().map_err(|fenced| refused(fenced.to_string()))?;
        let node = self.miner.node.clone();
        cx.spawn(async move {
            let sent = AssertUnwindSafe(node.sync_submit_block(&ready.block)).catch_unwind().await;
            Submitted { id, epoch, result: sent.ok() }
        });
        Ok(())
    }

    fn block_key(&self, epoch: ChainEpoch) -> String {
        format!("t0{}/{epoch:020}", self.miner.actor_id)
    }

    fn forget_old(&mut self, epoch: ChainEpoch, cx: &Cx<Self>) {
        let horizon = epoch.saturating_sub(self.settings.remember.max(1));
        let kept = self.mined.split_off(&horizon);
        for old in std::mem::replace(&mut self.mined, kept).into_keys() {
            if let Err(error) = self.store.delete::<MinedBlock>(&cx.token(), &self.block_key(old)) {
                tracing::warn!(%error, epoch = old, "an old block's record stays");
            }
        }
    }

    fn note_block(&mut self, epoch: ChainEpoch, state: BlockState, cx: &Cx<Self>) {
        let key = self.block_key(epoch);
        let Some(block) = self.mined.get_mut(&epoch) else { return };
        let counted = |state: &BlockState| matches!(state, BlockState::Accepted | BlockState::OnChain { .. });
        // Once on chain it stays counted, whatever the node said when it was sent.
        if matches!(block.state, BlockState::OnChain { .. }) || block.state == state {
            return;
        }
        self.totals.accepted += u64::from(counted(&state) && !counted(&block.state));
        self.totals.on_chain += u64::from(matches!(state, BlockState::OnChain { .. }));
        block.state = state;
        let saved = self.store.put(&cx.token(), &key, &*block);
        let saved =
            saved.and_then(|()| self.store.put(&cx.token(), &format!("t0{}", self.miner.actor_id), &self.totals));
        if let Err(error) = saved {
            tracing::warn!(%error, epoch, "how a block stands could not be recorded");
        }
    }

    /// Is a block of ours in this tipset?
    fn look_for_ours(&mut self, tipset: &TipSet, cx: &Cx<Self>) {
        let ours = tipset.cids.iter().zip(&tipset.blocks).find(|(_, block)| block.miner == self.miner.address);
        let Some((cid, _)) = ours else { return };
        let cid = cid.to_string();
        self.note_block(tipset.height, BlockState::OnChain { cid: cid.clone() }, cx);
        self.name_win(tipset.height, cid);
    }

    fn name_win(&mut self, epoch: ChainEpoch, found: String) {
        for report in self.reports.iter_mut().filter(|report| report.round == epoch) {
            if let RoundOutcome::Won { cid, .. } = &mut report.outcome {
                *cid = Some(found.clone());
            }
        }
    }

    fn lost(&self) -> u64 {
        let Some(head) = self.latest.borrow().as_ref().map(|head| head.height) else { return 0 };
        let old = self.mined.range(..head.saturating_sub(LOST_AFTER)).map(|(_, block)| &block.state);
        old.filter(|state| !matches!(state, BlockState::OnChain { .. })).count() as u64
    }

    fn ask_timing(&mut self, cx: &Cx<Self>) {
        self.asking_timing = true;
        let node = self.miner.node.clone();
        cx.spawn(
            async move { TimingSeen(node.state_get_network_params().await.map(|params| params.block_delay_secs)) },
        );
    }
}

impl Actor for WinningPost {
    /// The feed may have told the present head while this incarnation started: ask once, do not wait for the next.
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let node = self.miner.node.clone();
        cx.spawn(async move { FirstHead(node.chain_head().await.ok()) });
        Ok(())
    }
    fn inspect(&self) -> Option<serde_json::Value> {
        let now = self.now();
        let (first, last) = (self.mined.keys().next(), self.mined.keys().next_back());
        Some(serde_json::json!({
            "head": self.latest.borrow().as_ref().map(|head| head.height),
            "block_delay_known": self.rounds.is_some(),
            "heads_settle": self.settling,
            "round": self.working.as_ref().map(|w| w.base.round()),
            "sending": self.sending.iter().map(|sending| sending.base.round()).collect::<Vec<_>>(),
            "round_for_ms": self.working.as_ref().map(|w| now.saturating_sub(w.began).as_millis() as u64),
            "wakes_in_ms": self.wake_at.map(|at| at.saturating_sub(now).as_millis() as u64),
            // What the slash filter goes by.
            "own_blocks": { "kept": self.mined.len(), "from": first, "to": last },
            "blocks": self.totals,
            "last_round": self.reports.back(),
        }))
    }

    async fn stopping(&mut self, _cx: &Cx<Self>) {
        if let Some(working) = &self.working {
            working.handle.abort();
        }
    }
}

impl Handler<HeadUpdate> for WinningPost {
    async fn handle(&mut self, update: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        let head = update.tipset;
        self.look_for_ours(&head, cx);
        *self.latest.borrow_mut() = Some(head);
        if self.rounds.is_none() && !self.asking_timing {
            self.ask_timing(cx);
        }
        if self.rounds.is_some() && !self.settling {
            self.settling = true;
            cx.tell_after(SETTLE, Settled);
        }
        Ok(())
    }
}

struct FirstHead(Option<TipSet>);
impl Message for FirstHead {
    type Reply = ();
}

impl Handler<FirstHead> for WinningPost {
    async fn handle(&mut self, FirstHead(head): FirstHead, cx: &Cx<Self>) -> Result<(), Exit> {
        let known = self.latest.borrow().is_some();
        match head.filter(|head| !known && !head.blocks.is_empty()) {
            Some(head) => self.handle(HeadUpdate { tipset: Arc::new(head), reverted_to: None }, cx).await,
            None => Ok(()),
        }
    }
}

/// The heads of a filled gap have come: mine on the last of them.
struct Settled;
impl Message for Settled {
    type Reply = ();
}

impl Handler<Settled> for WinningPost {
    async fn handle(&mut self, _: Settled, cx: &Cx<Self>) -> Result<(), Exit> {
        self.settling = false;
        let (now, head) = (self.now(), self.latest.borrow().clone());
        if let (Some(rounds), Some(head)) = (&mut self.rounds, head) {
            let actions = rounds.head(head, now);
            self.act(actions, cx);
        }
        Ok(())
    }
}

struct TimingSeen(Result<u64, FullNodeError>);
impl Message for TimingSeen {
    type Reply = ();
}

impl Handler<TimingSeen> for WinningPost {
    async fn handle(&mut self, TimingSeen(found): TimingSeen, cx: &Cx<Self>) -> Result<(), Exit> {
        self.asking_timing = false;
        match found {
            Ok(seconds) => {
                let timing =
                    RoundTiming::new(Duration::from_secs(seconds), self.settings.propagation, self.settings.max_lag);
                let mut rounds = Rounds::new(timing, self.miner.address);
                let head = self.latest.borrow().clone();
                let actions = head.map(|head| rounds.head(head, self.now())).unwrap_or_default();
                self.rounds = Some(rounds);
                self.act(actions, cx);
            }
            Err(error) => {
                tracing::warn!(%error, "no round before the node tells its block delay; asked again on the next head")
            }
        }
        Ok(())
    }
}

struct Wake;
impl Message for Wake {
    type Reply = ();
}

impl Handler<Wake> for WinningPost {
    async fn handle(&mut self, _: Wake, cx: &Cx<Self>) -> Result<(), Exit> {
        self.wake_at = None;
        let now = self.now();
        let actions = self.rounds.as_mut().map(|rounds| rounds.wake(now)).unwrap_or_default();
        self.act(actions, cx);
        Ok(())
    }
}

struct RoundDone {
    id: RoundId,
    end: Result<Mined, String>,
}
impl Message for RoundDone {
    type Reply = ();
}

impl Handler<RoundDone> for WinningPost {
    async fn handle(&mut self, RoundDone { id, end }: RoundDone, cx: &Cx<Self>) -> Result<(), Exit> {
        // An aborted round was reported when it was aborted.
        if self.working.as_ref().is_none_or(|working| working.id != id) {
            return Ok(());
        }
        let outcome = match end {
            Ok(Mined::Block(ready)) => match self.send(id, *ready, cx) {
                Ok(()) => return Ok(()),
                Err(outcome) => outcome,
            },
            Ok(Mined::Lost) => RoundOutcome::Lost,
            Ok(Mined::NotEligible(why)) => RoundOutcome::NotEligible { why },
            Err(why) => RoundOutcome::Failed { why },
        };
        self.ended(id, outcome, cx);
        Ok(())
    }
}

struct Submitted {
    id: RoundId,
    epoch: ChainEpoch,
    /// `None`: the call panicked.
    result: Option<Result<(), FullNodeError>>,
}
impl Message for Submitted {
    type Reply = ();
}

impl Handler<Submitted> for WinningPost {
    async fn handle(&mut self, Submitted { id, epoch, result }: Submitted, cx: &Cx<Self>) -> Result<(), Exit> {
        let win_count = self.mined.get(&epoch).map_or(0, |block| block.win_count);
        let on_chain = self.mined.get(&epoch).and_then(|block| match &block.state {
            BlockState::OnChain { cid } => Some(cid.clone()),
            BlockState::Pending | BlockState::Accepted | BlockState::Refused(_) => None,
        });
        let outcome = match result {
            // Its tipset may have come before the answer did; then the answer no longer matters.
            _ if on_chain.is_some() => RoundOutcome::Won { win_count, cid: on_chain },
            Some(Ok(())) => {
                self.note_block(epoch, BlockState::Accepted, cx);
                RoundOutcome::Won { win_count, cid: None }
            }
            // The node may have it all the same: the record stays pending and the chain will tell.
            Some(Err(error)) if error.is_transient() => RoundOutcome::Failed { why: error.to_string() },
            Some(Err(error)) => {
                self.note_block(epoch, BlockState::Refused(error.to_string()), cx);
                RoundOutcome::Refused { why: error.to_string() }
            }
            None => RoundOutcome::Failed { why: "sending the block panicked".into() },
        };
        self.ended(id, outcome, cx);
        Ok(())
    }
}

impl Handler<WinningInfo> for WinningPost {
    async fn handle(&mut self, _: WinningInfo, _cx: &Cx<Self>) -> Result<WinningReport, Exit> {
        Ok(WinningReport {
            miner: self.miner.address.to_string(),
            blocks_accepted: self.totals.accepted,
            blocks_on_chain: self.totals.on_chain,
            blocks_lost: self.lost(),
            running: self.working.iter().chain(&self.sending).map(|working| working.base.round()).next(),
            rounds: self.reports.iter().cloned().collect(),
        })
    }
}
