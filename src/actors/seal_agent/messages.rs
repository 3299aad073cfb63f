//! The seal-worker's public protocol: what a scheduler asks of an agent, and what a worker process asks of it.

use crate::actors::seal_jobs::{JobFailed, SealJob, StepKind};
use crate::proofs::{ActorId, Output};
use crate::rpc::bridge::{codec, ids};
use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use serde::{Deserialize, Serialize};

/// Do this step. Taken durably: when this answers [`RunAnswer::Accepted`], the agent's own end does not lose it. A job of
/// the same name is the same job; one that had failed begins again; a newer job of a sector ends the older ones.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Run {
    pub job: SealJob,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum RunAnswer {
    Accepted,
    /// Not taken, and why.
    Refused(String),
}

impl Message for Run {
    type Reply = RunAnswer;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::SEAL_RUN, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct JobStatus {
    pub job: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum JobState {
    /// Never taken, or acknowledged.
    Unknown,
    Queued,
    Running {
        /// The worker that has it.
        by: String,
    },
    Done(Output),
    Failed(JobFailed),
}

impl Message for JobStatus {
    type Reply = JobState;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::SEAL_JOB_STATUS, 1));
}

/// The result is safe with whoever asked: it need not be kept any more.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Acknowledge {
    pub job: String,
}

impl Message for Acknowledge {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::SEAL_ACKNOWLEDGE, 1));
}

/// Do not begin this step: it would come too late. `false`: it has begun, and goes on.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct TakeBack {
    pub job: String,
}

impl Message for TakeBack {
    type Reply = bool;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::SEAL_TAKE_BACK, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GetAgentReport;

/// An agent's state and resources: enough to choose one, and to show it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct AgentReport {
    /// The miner that it works for; `None` until its first job.
    pub miner: Option<ActorId>,
    pub sector_size: Option<u64>,
    /// Sectors that it has begun and not finished.
    pub sectors: u64,
    /// PC1 tasks that it runs at a time, over all its workers.
    pub slots: u64,
    pub queued: u64,
    /// Bytes, and what the steps under way have written: a scheduler takes off what it has promised them in all.
    pub free_disk: u64,
    pub workers: Vec<WorkerSeen>,
    /// It runs tasks in its own provers while no worker is there.
    pub works_itself: bool,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct WorkerSeen {
    pub id: String,
    pub name: String,
    pub running: Vec<String>,
    /// Milliseconds since it was last heard.
    pub silent_for: u64,
}

impl Message for GetAgentReport {
    type Reply = AgentReport;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::AGENT_REPORT, 1));
}

/// The tasks that an agent has, for `sealing jobs`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Tasks;

impl Message for Tasks {
    type Reply = Vec<AgentTask>;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::AGENT_TASKS, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct AgentTask {
    pub id: String,
    pub sector: u64,
    /// As the job's name has it: `pc1`.
    pub task: String,
    /// `queued`, `running`, `done` (until the scheduler has the result) or `failed`.
    pub state: String,
    /// The worker that has it, by its name; `agent`: its own provers.
    pub worker: Option<String>,
    /// Unix milliseconds at which it was taken from the scheduler.
    pub accepted: u64,
    pub error: Option<String>,
}

/// A worker process introduces itself.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Join {
    /// Chosen by the worker at its start, and the same until its end.
    pub id: String,
    /// Host and process, for people.
    pub name: String,
    pub miner: ActorId,
    pub sector_size: u64,
    /// The content of the mark in the storage that it works on.
    pub storage: String,
    pub slots: Slots,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Joined {
    /// A task is taken from a worker that is silent for so long. Milliseconds.
    pub lease: u64,
}

impl Message for Join {
    type Reply = Result<Joined, String>;
}

/// How many tasks of each kind a worker runs at a time.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    pub add_piece: u32,
    pub pc1: u32,
    pub pc2: u32,
    /// C1 and C2.
    pub commit: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Slots { add_piece: 1, pc1: 1, pc2: 1, commit: 1 }
    }
}

impl Slots {
    pub fn of(&self, kind: StepKind) -> u32 {
        match kind {
            StepKind::AddPiece => self.add_piece,
            StepKind::Pc1 => self.pc1,
            StepKind::Pc2 => self.pc2,
            StepKind::C1 | StepKind::C2 => self.commit,
            // Files only; the agent does them itself.
            StepKind::Finalize | StepKind::Remove => 0,
        }
    }

    pub fn total(&self) -> u32 {
        self.add_piece + self.pc1 + self.pc2 + self.commit
    }
}

/// A worker asks for one task that it has the room for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct TakeTask {
    pub id: String,
    /// Bytes of memory that are free there.
    pub memory: u64,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum TakeAnswer {
    Job(Box<SealJob>),
    Nothing,
    /// The agent does not know the worker: it was started anew, or forgot a silent one.
    JoinFirst,
}

impl Message for TakeTask {
    type Reply = TakeAnswer;
}

/// A worker lives and has these tasks.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Heartbeat {
    pub id: String,
    pub running: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct HeartbeatAnswer {
    /// Not the worker's any more: it must end them.
    pub lost: Vec<String>,
    pub join_first: bool,
}

impl Message for Heartbeat {
    type Reply = HeartbeatAnswer;
}

/// A worker's result. Durable when this answers.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ReportResult {
    pub id: String,
    pub job: String,
    pub result: Result<Output, JobFailed>,
}

impl Message for ReportResult {
    /// Whether it still counted.
    type Reply = bool;
}
