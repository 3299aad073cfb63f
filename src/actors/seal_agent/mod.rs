//! Runs sealing steps where the sectors' files are: an agent's side of a seal scheduler, and of its own workers.
//!
//! [`messages`] is the protocol; `queue` says who may run what, `resources` what a task needs, [`worker_api`] answers worker
//! processes over HTTP, [`worker`] is such a process's inside. A job is on disk before it is accepted and its result before
//! it is reported, so that neither the scheduler's end nor the agent's loses work; the files themselves never leave.

mod assignments;
pub mod messages;
mod queue;
mod resources;
mod settings;
pub mod worker;
pub mod worker_api;

use crate::util::time::unix_ms;
pub use queue::OURSELVES;
pub use resources::disk;
pub use resources::memory as memory_of;
pub use settings::{AgentSettings, MARK, storage_mark};

use crate::actors::seal_jobs::{JobFailed, SealJob, StepKind, carry_out};
use crate::actors::sector_files::{SectorDirs, Writing};
use crate::chain::proof_types;
use crate::proofs::{ActorId, Output, Prover};
use crate::store::{Record, Store, StoreError};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message, Ref, StartError};
use messages::*;
use queue::{Accept, Entry, FreeSlots, Queue, State};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

impl Record for Entry {
    const TABLE: &'static str = "seal_jobs";
}

/// The miner that the agent works for; set by the first job where the settings name none.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
struct Master {
    miner: ActorId,
    sector_size: u64,
}

impl Record for Master {
    const TABLE: &'static str = "agent_master";
}

const MASTER: &str = "master";

#[derive(Clone)]
pub struct AgentDeps {
    pub store: Store,
    pub prover: Arc<dyn Prover>,
    /// Holds `sectors/` and `jobs/`: the storage that the agent's workers share.
    pub repo: PathBuf,
    pub settings: AgentSettings,
    /// Grows when a task becomes free: workers that wait for one look again.
    pub changed: watch::Sender<u64>,
}

struct WorkerSession {
    name: String,
    slots: Slots,
    heard: Instant,
}

/// The actor; one per agent, `/AGENT/seal-worker`.
pub struct SealAgent {
    deps: AgentDeps,
    token: crate::store::Token,
    pass: Rc<crate::supervisor::Pass>,
    queue: Queue,
    master: Option<Master>,
    sessions: BTreeMap<String, WorkerSession>,
    /// Tasks in our own provers; dropping the sender ends one.
    own: HashMap<String, oneshot::Sender<()>>,
}

fn size_of(job: &SealJob) -> u64 {
    proof_types::sector_size(job.proof_type).unwrap_or_default()
}

impl SealAgent {
    pub async fn start(cx: Cx<SealAgent>, deps: AgentDeps) -> Result<SealAgent, StartError> {
        let failed = |e: StoreError| StartError(e.to_string());
        let entries = deps.store.list::<Entry>().map_err(failed)?;
        let queue = Queue::load(entries.into_iter().map(|(_, entry)| entry), Instant::now(), deps.settings.lease);
        let master = match (deps.settings.miner, deps.settings.sector_size) {
            (Some(miner), Some(sector_size)) => Some(Master { miner, sector_size }),
            _ => deps.store.get::<Master>(MASTER).map_err(failed)?,
        };
        let (token, pass) = (cx.token(), Rc::new(cx.pass()));
        Ok(SealAgent { deps, token, pass, queue, master, sessions: BTreeMap::new(), own: HashMap::new() })
    }

    fn lease(&self) -> Duration {
        self.deps.settings.lease
    }

    fn dirs(&self, miner: ActorId) -> SectorDirs {
        SectorDirs::of_repo(&self.deps.repo, miner)
    }

    /// Why a job cannot be taken.
    fn refusal(&self, job: &SealJob) -> Option<String> {
        let size = proof_types::sector_size(job.proof_type);
        match (&self.master, size) {
            (_, None) => Some(format!("seal proof type {} is unknown here; update the agent", job.proof_type)),
            (Some(m), _) if m.miner != job.miner => {
                Some(format!("this agent works for miner t0{}, not t0{}", m.miner, job.miner))
            }
            (Some(m), Some(size)) if m.sector_size != size => {
                Some(format!("this agent's sectors have {} bytes, not {size}", m.sector_size))
            }
            _ => None,
        }
    }

    fn accept(&mut self, job: &SealJob) -> Result<(), StoreError> {
        let Accept::Write { entry, gone } = self.queue.accept(job, unix_ms()) else { return Ok(()) };
        let master = match self.master {
            Some(_) => None,
            None => {
                proof_types::sector_size(job.proof_type).map(|sector_size| Master { miner: job.miner, sector_size })
            }
        };
        self.deps.store.transact(&self.token, |tx| {
            for id in &gone {
                tx.delete::<Entry>(id)?;
            }
            if let Some(master) = &master {
                tx.put(MASTER, master)?;
            }
            tx.put(&entry.job.id(), &*entry)
        })?;
        self.master = self.master.or(master);
        self.queue.accepted(*entry, &gone);
        // Ours end at once; workers learn of it with their next heartbeat.
        gone.iter().for_each(|id| drop(self.own.remove(id)));
        Ok(())
    }

    /// Tells those who wait, and takes what is ours to do.
    fn dispatch(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.deps.changed.send_modify(|n| *n += 1);
        let slots = match self.works_itself() {
            true => self.deps.settings.slots,
            false => Slots { add_piece: 0, pc1: 0, pc2: 0, commit: 0 },
        };
        let room = FreeSlots { slots, memory: u64::MAX };
        while let Some(job) = self.queue.next(OURSELVES, &room, size_of).map(|e| e.job.clone()) {
            self.give(&job.id(), OURSELVES)?;
            let (cancel, cancelled) = oneshot::channel::<()>();
            self.own.insert(job.id(), cancel);
            let (dirs, prover, pass) = (self.dirs(job.miner), self.deps.prover.clone(), self.pass.clone());
            cx.spawn(async move {
                let result = tokio::select! {
                    result = carry_out(&job, &dirs, prover.as_ref(), Some(pass.as_ref())) => Some(result),
                    _ = cancelled => None,
                };
                OwnDone { job: job.id(), result }
            });
        }
        Ok(())
    }

    /// Bytes that the steps under way have written of what their sectors were promised.
    fn written_under_way(&self) -> u64 {
        let written = |entry: &Entry| {
            let writing = match entry.job.step.kind() {
                StepKind::AddPiece => Writing::Piece,
                StepKind::Pc1 => Writing::Layers,
                StepKind::Pc2 => Writing::Trees,
                StepKind::C1 | StepKind::C2 | StepKind::Finalize | StepKind::Remove => return 0,
            };
            match entry.state {
                State::Queued | State::Given { .. } => self.dirs(entry.job.miner).written(entry.job.number, writing),
                State::Done(_) => 0,
            }
        };
        self.queue.entries().map(written).sum()
    }

    fn works_itself(&self) -> bool {
        self.deps.settings.own_work && self.sessions.is_empty()
    }

    /// On disk first: after a restart it must be known that a worker may have it.
    fn give(&mut self, id: &str, worker: &str) -> Result<(), Exit> {
        let lease = self.lease();
        self.queue.given(id, worker, Instant::now(), lease);
        self.write(id)
    }

    fn write(&self, id: &str) -> Result<(), Exit> {
        match self.queue.get(id) {
            Some(entry) => self.deps.store.put(&self.token, id, entry).map_err(Exit::from),
            None => Ok(()),
        }
    }

    fn finish(&mut self, worker: &str, id: &str, result: Result<Output, JobFailed>) -> Result<bool, Exit> {
        if !self.queue.may_finish(worker, id) {
            return Ok(false);
        }
        match &result {
            Ok(_) => tracing::info!(job = id, worker, "done"),
            Err(failed) => tracing::warn!(job = id, worker, "{failed}"),
        }
        self.queue.finished(id, result);
        self.write(id)?;
        Ok(true)
    }

    fn tick(&mut self) -> Result<(), Exit> {
        let now = Instant::now();
        for id in self.queue.expire(now) {
            tracing::warn!(job = id, "its worker was silent for a lease; it waits for another");
            self.write(&id)?;
        }
        let lease = self.lease();
        self.sessions.retain(|id, s| {
            let there = now.saturating_duration_since(s.heard) < lease;
            if !there {
                tracing::warn!(worker = s.name, id, "the worker is gone");
            }
            there
        });
        Ok(())
    }
}

struct OwnDone {
    job: String,
    /// `None`: overtaken.
    result: Option<Result<Output, JobFailed>>,
}
impl Message for OwnDone {
    type Reply = ();
}
struct Tick;
impl Message for Tick {
    type Reply = ();
}

impl Actor for SealAgent {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(self.deps.settings.lease / 4, Tick);
        self.dispatch(cx)
    }
}

impl Handler<Tick> for SealAgent {
    async fn handle(&mut self, _: Tick, cx: &Cx<Self>) -> Result<(), Exit> {
        self.tick()?;
        cx.tell_after(self.deps.settings.lease / 4, Tick);
        self.dispatch(cx)
    }
}

impl Handler<OwnDone> for SealAgent {
    async fn handle(&mut self, done: OwnDone, cx: &Cx<Self>) -> Result<(), Exit> {
        // Also with a result it may have been overtaken: by a job that was taken in while this waited to be handled.
        let counts = self.queue.own_ended(&done.job);
        if let Some(result) = done.result.filter(|_| counts) {
            self.own.remove(&done.job);
            self.finish(OURSELVES, &done.job, result)?;
        }
        self.dispatch(cx)
    }
}

impl Handler<Run> for SealAgent {
    async fn handle(&mut self, run: Run, cx: &Cx<Self>) -> Result<RunAnswer, Exit> {
        if let Some(why) = self.refusal(&run.job) {
            return Ok(RunAnswer::Refused(why));
        }
        match self.accept(&run.job) {
            Ok(()) => {}
            Err(e @ (StoreError::Fenced { .. } | StoreError::Corrupt { .. })) => return Err(e.into()),
            Err(e) => return Ok(RunAnswer::Refused(format!("the agent's journal: {e}"))),
        }
        self.dispatch(cx)?;
        Ok(RunAnswer::Accepted)
    }
}

impl Handler<JobStatus> for SealAgent {
    async fn handle(&mut self, ask: JobStatus, _: &Cx<Self>) -> Result<JobState, Exit> {
        let worker_name = |id: &str| self.sessions.get(id).map_or(id.to_owned(), |s| s.name.clone());
        Ok(match self.queue.state(&ask.job) {
            JobState::Running { by } => JobState::Running { by: worker_name(&by) },
            state => state,
        })
    }
}

impl Handler<Acknowledge> for SealAgent {
    async fn handle(&mut self, ack: Acknowledge, _: &Cx<Self>) -> Result<(), Exit> {
        let done = matches!(self.queue.state(&ack.job), JobState::Done(_) | JobState::Failed(_));
        if done && self.queue.remove(&ack.job) {
            self.deps.store.delete::<Entry>(&self.token, &ack.job)?;
        }
        Ok(())
    }
}

impl Handler<TakeBack> for SealAgent {
    async fn handle(&mut self, ask: TakeBack, _: &Cx<Self>) -> Result<bool, Exit> {
        match self.queue.state(&ask.job) {
            JobState::Queued => {
                self.deps.store.delete::<Entry>(&self.token, &ask.job)?;
                self.queue.remove(&ask.job);
                Ok(true)
            }
            JobState::Unknown => Ok(true),
            JobState::Running { .. } | JobState::Done(_) | JobState::Failed(_) => Ok(false),
        }
    }
}

impl Handler<GetAgentReport> for SealAgent {
    async fn handle(&mut self, _: GetAgentReport, _: &Cx<Self>) -> Result<AgentReport, Exit> {
        let now = Instant::now();
        let slots = match self.works_itself() {
            true => u64::from(self.deps.settings.slots.pc1),
            false => self.sessions.values().map(|s| u64::from(s.slots.pc1)).sum(),
        };
        let sectors: std::collections::BTreeSet<(ActorId, u64)> =
            self.queue.entries().map(|e| (e.job.miner, e.job.number)).collect();
        Ok(AgentReport {
            miner: self.master.map(|m| m.miner),
            sector_size: self.master.map(|m| m.sector_size),
            sectors: sectors.len() as u64,
            slots,
            queued: self.queue.queued(),
            free_disk: crate::util::host::free_disk(&self.deps.repo).saturating_add(self.written_under_way()),
            workers: self
                .sessions
                .iter()
                .map(|(id, s)| WorkerSeen {
                    id: id.clone(),
                    name: s.name.clone(),
                    running: self.queue.running(id),
                    silent_for: now.saturating_duration_since(s.heard).as_millis() as u64,
                })
                .collect(),
            works_itself: self.works_itself(),
        })
    }
}

impl Handler<Tasks> for SealAgent {
    async fn handle(&mut self, _: Tasks, _: &Cx<Self>) -> Result<Vec<AgentTask>, Exit> {
        let name = |id: &str| self.sessions.get(id).map_or(id.to_owned(), |session| session.name.clone());
        Ok(self.queue.entries().map(|entry| entry.shown(name)).collect())
    }
}

impl Handler<Join> for SealAgent {
    async fn handle(&mut self, join: Join, cx: &Cx<Self>) -> Result<Result<Joined, String>, Exit> {
        if let Some(why) = settings::join_refusal(&join, self.master.map(|m| (m.miner, m.sector_size)), &self.deps.repo)
        {
            return Ok(Err(why));
        }
        tracing::info!(worker = join.name, id = join.id, "a worker joined");
        self.sessions.insert(join.id, WorkerSession { name: join.name, slots: join.slots, heard: Instant::now() });
        self.dispatch(cx)?;
        Ok(Ok(Joined { lease: self.lease().as_millis() as u64 }))
    }
}

impl Handler<TakeTask> for SealAgent {
    async fn handle(&mut self, take: TakeTask, _: &Cx<Self>) -> Result<TakeAnswer, Exit> {
        let Some(session) = self.sessions.get_mut(&take.id) else { return Ok(TakeAnswer::JoinFirst) };
        session.heard = Instant::now();
        let room = FreeSlots { slots: session.slots, memory: take.memory };
        match self.queue.next(&take.id, &room, size_of).map(|e| e.job.clone()) {
            Some(job) => {
                self.give(&job.id(), &take.id)?;
                Ok(TakeAnswer::Job(Box::new(job)))
            }
            None => Ok(TakeAnswer::Nothing),
        }
    }
}

impl Handler<Heartbeat> for SealAgent {
    async fn handle(&mut self, beat: Heartbeat, _: &Cx<Self>) -> Result<HeartbeatAnswer, Exit> {
        let now = Instant::now();
        let lost = self.queue.beat(&beat.id, &beat.running, now, self.lease());
        let known = self.sessions.get_mut(&beat.id).map(|s| s.heard = now);
        self.deps.changed.send_modify(|n| *n += 1);
        Ok(HeartbeatAnswer { lost, join_first: known.is_none() })
    }
}

impl Handler<ReportResult> for SealAgent {
    async fn handle(&mut self, m: ReportResult, cx: &Cx<Self>) -> Result<bool, Exit> {
        let counted = self.finish(&m.id, &m.job, m.result)?;
        self.dispatch(cx)?;
        Ok(counted)
    }
}

/// How long a local ask of the actor may take: an fsync on a busy disk.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);

/// The address of an agent's seal-worker.
pub fn path(agent: &str) -> String {
    format!("/{agent}/seal-worker")
}

/// The messages that other processes may send.
pub fn export(worker: &Ref<SealAgent>) -> crate::supervisor::ExportOf<SealAgent> {
    crate::supervisor::Export::of(worker)
        .message::<Run>()
        .message::<JobStatus>()
        .message::<Acknowledge>()
        .message::<TakeBack>()
        .message::<GetAgentReport>()
        .message::<Tasks>()
}
