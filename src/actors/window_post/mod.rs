//! WindowPoSt of one miner: proves every deadline, sends the proof, watches it until it is on chain or the window closes.
//!
//! [`machine`] decides (a pure state machine over [`batch`]es); this shell fetches, runs and saves what it commands.
//! A job that panics is one crashed attempt of one batch: it is tried again, and no other batch notices.

pub mod batch;
pub mod batching;
pub mod chunks;
pub mod effects;
pub mod machine;
mod memory;
pub mod messages;
mod missed;
pub mod outbox;
mod parts;
mod proving;
mod reads;
pub mod recoveries;
pub mod schedule;
pub mod settings;
pub mod trials;

#[cfg(test)]
mod known_tests;

use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::sector_reads::SectorReader;
use crate::chain::types::{DeadlineInfo, TipSet};
use crate::chain::{Address, ChainEpoch};
use crate::failpoint;
use crate::proofs::Prover;
use crate::rpc::full_node::FullNode;
use crate::store::{Record, Store, StoreError};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message, Reconfigure, StartError};
use crate::util::Repeats;
use batch::{JobId, Outcome, PostStatus, Submission};
use effects::Effects;
use futures::FutureExt;
use futures::future::{AbortHandle, Abortable};
use machine::{DeadlineCommand, DeadlineRun, DeadlineScheduler};
use messages::{Closed, DeadlineReport, WindowPostInfo, WindowPostReport, WindowPostSummary};
use missed::MissedLog;
use outbox::PostMessages;
use settings::WindowPostSettings;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use trials::Recovery;

const DEADLINE: &str = "reading the proving deadline";

impl Record for DeadlineRun {
    const TABLE: &'static str = "window_post";
}

#[derive(Clone)]
pub struct WindowPostDeps {
    /// An ID address.
    pub miner: Address,
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub reader: Arc<dyn SectorReader>,
    pub outbox: Arc<dyn PostMessages>,
    pub store: Store,
    /// `<repo>/jobs`.
    pub jobs: Option<PathBuf>,
    pub settings: WindowPostSettings,
}

pub struct WindowPost {
    /// `t01000`, whatever the network.
    miner: String,
    work: Arc<Effects>,
    store: Store,
    scheduler: DeadlineScheduler,
    started: Instant,
    /// The newest head whose deadline is known.
    head: Option<Arc<TipSet>>,
    looking_up: bool,
    next: Option<HeadUpdate>,
    jobs: HashMap<JobId, AbortHandle>,
    wake_at: Option<Duration>,
    recovering: bool,
    /// Open of the deadline for which nothing is left to declare.
    declared: Option<ChainEpoch>,
    repeats: Repeats<&'static str>,
    missed: MissedLog,
}

impl WindowPost {
    pub async fn start(_cx: Cx<Self>, deps: WindowPostDeps) -> Result<Self, StartError> {
        let WindowPostDeps { miner, node, prover, reader, outbox, store, jobs, settings } = deps;
        let work = Effects::new(miner, node, prover, reader, outbox, jobs, settings.clone()).map_err(StartError)?;
        let miner = work.name();
        let repeats = Repeats::new(settings.retry_first.as_millis() as u64, settings.retry_cap.as_millis() as u64);
        // A record that cannot be read costs a second proof; refusing to start would cost a fault.
        let (records, damaged) = store.list_readable::<DeadlineRun>(&format!("{miner}/")).unwrap_or_else(|error| {
            tracing::error!(%error, "window_post starts without its records: proofs in work are made again");
            Default::default()
        });
        for (key, error) in damaged {
            tracing::warn!(key, error, "window_post starts without this record: its proof is made again");
        }
        let records: Vec<DeadlineRun> = records.into_iter().map(|(_, run)| run).collect();
        let missed = MissedLog::with(records.iter());
        Ok(WindowPost {
            miner: miner.clone(),
            work: Arc::new(work),
            store,
            scheduler: DeadlineScheduler::new(miner, settings, records),
            started: Instant::now(),
            head: None,
            looking_up: false,
            next: None,
            jobs: HashMap::new(),
            wake_at: None,
            recovering: false,
            declared: None,
            repeats,
            missed,
        })
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn report(&self) -> WindowPostReport {
        WindowPostReport {
            miner: self.work.miner.to_string(),
            height: self.head.as_ref().map(|head| head.height),
            current: self.scheduler.current().copied(),
            deadlines: self.scheduler.runs().map(|run| DeadlineReport::of(run, &self.work.left_out)).collect(),
        }
    }

    fn look_up(&mut self, update: HeadUpdate, cx: &Cx<Self>) {
        self.looking_up = true;
        let work = self.work.clone();
        cx.spawn(async move {
            let found = work.node.state_miner_proving_deadline(&work.miner, &update.tipset.key()).await;
            DeadlineSeen { update, found: found.map_err(|error| error.to_string()) }
        });
    }

    fn carry_out(&mut self, commands: Vec<DeadlineCommand>, cx: &Cx<Self>) -> Result<(), Exit> {
        let Some(head) = self.head.clone() else { return Ok(()) };
        for command in commands {
            let (work, head) = (self.work.clone(), head.clone());
            match command {
                DeadlineCommand::Save(open) => self.save(open, cx)?,
                DeadlineCommand::Forget(open) => {
                    work.forget_jobs(open);
                    self.missed.forget(open);
                    self.stored(self.store.delete::<DeadlineRun>(&cx.token(), &record_key(&self.miner, open)))?;
                }
                DeadlineCommand::Abort(job) => {
                    if let Some(handle) = self.jobs.remove(&job) {
                        handle.abort();
                    }
                }
                DeadlineCommand::WakeIn(after) => {
                    let at = self.now() + after;
                    if self.wake_at.is_none_or(|known| at < known) {
                        self.wake_at = Some(at);
                        cx.tell_after(after, Wake);
                    }
                }
                DeadlineCommand::Plan { job, di } => {
                    let work = async move { JobEnd::Planned(work.plan(&di, &head).await) };
                    self.run(di.open, 0, job, work, |why| JobEnd::Planned(Err(crashed(why))), cx);
                }
                DeadlineCommand::Prove { job, di, batch, partitions, attempt } => {
                    tracing::info!(deadline = di.index, ?partitions, attempt, close = di.close, "proving");
                    let work = async move { JobEnd::Proven(work.prove(&di, &partitions, &head).await) };
                    self.run(di.open, batch, job, work, |why| JobEnd::Proven(Outcome::Crashed(why)), cx);
                }
                DeadlineCommand::Submit { job, di, batch, proof, key } => {
                    tracing::info!(deadline = di.index, %key, close = di.close, "submitting");
                    let work = async move { JobEnd::Submitted(work.submit(&di, &proof, &key, &head).await) };
                    let on_panic = |why| JobEnd::Submitted(Submission::Failed(crashed(why)));
                    self.run(di.open, batch, job, work, on_panic, cx);
                }
                DeadlineCommand::Watch { job, di, batch, key } => {
                    let work = async move { JobEnd::Watched(work.outbox.status(&key).await) };
                    self.run(di.open, batch, job, work, |why| JobEnd::Watched(Err(crashed(why))), cx);
                }
                DeadlineCommand::Check { job, di, batch, partitions } => {
                    let work = async move { JobEnd::Checked(work.check(&di, &partitions, &head).await) };
                    self.run(di.open, batch, job, work, |why| JobEnd::Checked(Err(crashed(why))), cx);
                }
            }
        }
        Ok(())
    }

    /// Runs a job whose end comes back as a message, a panic included. Aborting drops it, and with it the prover's child.
    fn run(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        work: impl Future<Output = JobEnd> + 'static,
        on_panic: impl FnOnce(String) -> JobEnd + 'static,
        cx: &Cx<Self>,
    ) {
        let (handle, registration) = AbortHandle::new_pair();
        self.jobs.insert(job, handle);
        cx.spawn(async move {
            let end = match Abortable::new(AssertUnwindSafe(work).catch_unwind(), registration).await {
                Ok(Ok(end)) => Some(end),
                Ok(Err(panic)) => Some(on_panic(panic_text(panic.as_ref()))),
                Err(_aborted) => None,
            };
            JobDone { open, batch, job, end }
        });
    }

    fn save(&mut self, open: ChainEpoch, cx: &Cx<Self>) -> Result<(), Exit> {
        let Some(run) = self.scheduler.run(open) else { return Ok(()) };
        self.missed.tell(run);
        self.stored(self.store.put(&cx.token(), &record_key(&self.miner, open), run))?;
        run.batches.iter().flatten().for_each(|batch| failpoint::hit("window_post", batch.phase.name()));
        Ok(())
    }

    /// A full disk must not cost a fault: without a record a crash costs a second proof, and at most the gas of a second
    /// message, for which the chain then says what is proven. A fence ends us.
    fn stored(&self, result: Result<(), StoreError>) -> Result<(), Exit> {
        match result {
            Ok(()) => Ok(()),
            Err(error @ StoreError::Fenced { .. }) => Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "window_post goes on without a record");
                Ok(())
            }
        }
    }

    fn declare_recoveries(&mut self, di: &DeadlineInfo, head: &Arc<TipSet>, cx: &Cx<Self>) {
        let landing = self.work.settings.landing_time.max(1);
        let Some(target) = recoveries::target(di, head.height, landing) else { return };
        if self.recovering || self.declared == Some(target.open) {
            return;
        }
        self.recovering = true;
        let (work, head) = (self.work.clone(), head.clone());
        cx.spawn(async move {
            let left = AssertUnwindSafe(work.recover(&target, &head)).catch_unwind().await;
            let left = left.unwrap_or_else(|panic| Err(crashed(panic_text(panic.as_ref()))));
            Recovered { open: target.open, left }
        });
    }
}

fn record_key(miner: &str, open: ChainEpoch) -> String {
    format!("{miner}/{open:020}")
}

fn crashed(why: String) -> String {
    format!("crashed: {why}")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_string())
}

impl Actor for WindowPost {
    /// The feed may have told the present head while this incarnation started: ask once, do not wait for the next.
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let work = self.work.clone();
        cx.spawn(async move { FirstHead(work.node.chain_head().await.ok()) });
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        let mut jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.sort_unstable();
        let (report, now) = (self.report(), self.now());
        Some(serde_json::json!({
            "settings": self.work.settings,
            "height": report.height,
            "current": report.current,
            "deadlines": report.deadlines,
            "jobs": jobs,
            "asking_for_the_deadline": self.looking_up,
            "a_newer_head_waits": self.next.is_some(),
            "wakes_in_ms": self.wake_at.map(|at| at.saturating_sub(now).as_millis() as u64),
            "declaring_recoveries": self.recovering,
            "recoveries_declared_for": self.declared,
        }))
    }
}

struct FirstHead(Option<TipSet>);
impl Message for FirstHead {
    type Reply = ();
}

impl Handler<FirstHead> for WindowPost {
    async fn handle(&mut self, FirstHead(head): FirstHead, cx: &Cx<Self>) -> Result<(), Exit> {
        if let Some(head) = head
            && self.head.is_none()
            && !self.looking_up
        {
            self.look_up(HeadUpdate { tipset: Arc::new(head), reverted_to: None }, cx);
        }
        Ok(())
    }
}

impl Handler<HeadUpdate> for WindowPost {
    async fn handle(&mut self, update: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        if !self.looking_up {
            self.look_up(update, cx);
            return Ok(());
        }
        // Only the newest head matters, and the deepest revert on the way to it.
        let earlier = self.next.take().and_then(|earlier| earlier.reverted_to);
        let reverted_to = [earlier, update.reverted_to].into_iter().flatten().min();
        self.next = Some(HeadUpdate { tipset: update.tipset, reverted_to });
        Ok(())
    }
}

struct DeadlineSeen {
    update: HeadUpdate,
    found: Result<DeadlineInfo, String>,
}
impl Message for DeadlineSeen {
    type Reply = ();
}

impl Handler<DeadlineSeen> for WindowPost {
    async fn handle(&mut self, DeadlineSeen { update, found }: DeadlineSeen, cx: &Cx<Self>) -> Result<(), Exit> {
        self.looking_up = false;
        let HeadUpdate { tipset, reverted_to } = update;
        match &found {
            Ok(_) => self.repeats.over(&DEADLINE),
            Err(error) => {
                let repeat = self.repeats.failed(&DEADLINE, error, self.now().as_millis() as u64);
                match repeat.warning {
                    Some(warning) => tracing::warn!(height = tipset.height, "{warning}; going by the last known one"),
                    None => tracing::info!(%error, height = tipset.height, "cannot read the proving deadline"),
                }
                let again = HeadUpdate { tipset: tipset.clone(), reverted_to: None };
                cx.tell_after(Duration::from_millis(repeat.pause), LookUpAgain(again));
            }
        }
        cx.trouble(self.repeats.trouble());
        self.head = Some(tipset.clone());
        let commands = self.scheduler.head(tipset.height, reverted_to, found.ok(), self.now());
        self.carry_out(commands, cx)?;
        if let Some(di) = self.scheduler.current().copied() {
            self.declare_recoveries(&di, &tipset, cx);
        }
        if let Some(next) = self.next.take() {
            self.look_up(next, cx);
        }
        Ok(())
    }
}

/// The node failed to tell the deadline of this head; no newer head may come for a while.
struct LookUpAgain(HeadUpdate);
impl Message for LookUpAgain {
    type Reply = ();
}

impl Handler<LookUpAgain> for WindowPost {
    async fn handle(&mut self, LookUpAgain(update): LookUpAgain, cx: &Cx<Self>) -> Result<(), Exit> {
        let newest = self.head.as_ref().is_some_and(|head| head.cids == update.tipset.cids);
        if newest && !self.looking_up {
            self.look_up(update, cx);
        }
        Ok(())
    }
}

enum JobEnd {
    Planned(Result<Vec<Vec<u64>>, String>),
    Proven(Outcome),
    Submitted(Submission),
    Watched(Result<PostStatus, String>),
    Checked(Result<bool, String>),
}

struct JobDone {
    open: ChainEpoch,
    batch: usize,
    job: JobId,
    end: Option<JobEnd>,
}
impl Message for JobDone {
    type Reply = ();
}

impl Handler<JobDone> for WindowPost {
    async fn handle(&mut self, JobDone { open, batch, job, end }: JobDone, cx: &Cx<Self>) -> Result<(), Exit> {
        self.jobs.remove(&job);
        let now = self.now();
        let commands = match end {
            None => return Ok(()),
            Some(JobEnd::Planned(plan)) => self.scheduler.planned(open, job, plan, now),
            Some(JobEnd::Proven(outcome)) => {
                if let Outcome::Failed(error) | Outcome::Crashed(error) = &outcome {
                    tracing::warn!(open, batch, %error, "a window proof failed; it is tried again until Close");
                }
                self.scheduler.proven(open, batch, job, outcome, now)
            }
            Some(JobEnd::Submitted(result)) => self.scheduler.submitted(open, batch, job, result, now),
            Some(JobEnd::Watched(result)) => self.scheduler.watched(open, batch, job, result, now),
            Some(JobEnd::Checked(result)) => self.scheduler.checked(open, batch, job, result, now),
        };
        self.carry_out(commands, cx)
    }
}

struct Wake;
impl Message for Wake {
    type Reply = ();
}

impl Handler<Wake> for WindowPost {
    async fn handle(&mut self, _: Wake, cx: &Cx<Self>) -> Result<(), Exit> {
        self.wake_at = None;
        let commands = self.scheduler.wake(self.now());
        self.carry_out(commands, cx)
    }
}

struct Recovered {
    open: ChainEpoch,
    left: Result<Recovery, String>,
}
impl Message for Recovered {
    type Reply = ();
}

impl Handler<Recovered> for WindowPost {
    async fn handle(&mut self, Recovered { open, left }: Recovered, _cx: &Cx<Self>) -> Result<(), Exit> {
        self.recovering = false;
        match left {
            Ok(Recovery::Complete) => self.declared = Some(open),
            // Looked at again on every head until the cutoff: a message may fail, and files may come back.
            Ok(Recovery::Left(_)) => {}
            Err(error) => tracing::warn!(%error, "cannot declare recoveries; again on the next head"),
        }
        Ok(())
    }
}

/// Proofs and messages under way go on by the old settings.
impl Handler<Reconfigure<WindowPostSettings>> for WindowPost {
    async fn handle(
        &mut self,
        Reconfigure(settings): Reconfigure<WindowPostSettings>,
        cx: &Cx<Self>,
    ) -> Result<Result<(), String>, Exit> {
        self.work = Arc::new(self.work.with_settings(settings.clone()));
        let commands = self.scheduler.reconfigure(settings, self.now());
        self.carry_out(commands, cx)?;
        Ok(Ok(()))
    }
}

impl Handler<WindowPostSummary> for WindowPost {
    async fn handle(&mut self, _: WindowPostSummary, _cx: &Cx<Self>) -> Result<Closed, Exit> {
        Ok(Closed::of(self.scheduler.runs(), self.scheduler.height()))
    }
}

impl Handler<WindowPostInfo> for WindowPost {
    async fn handle(&mut self, _: WindowPostInfo, _cx: &Cx<Self>) -> Result<WindowPostReport, Exit> {
        Ok(self.report())
    }
}
