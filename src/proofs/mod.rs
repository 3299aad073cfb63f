//! Proof tasks, the prover child process, proving keys.
//!
//! A proof never runs in the node's process: [`Prover`] hands a [`Task`] to a child (`bulkhead prover`) over dedicated pipe fds.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

pub mod child;
mod fenced;
pub mod gpu;
pub mod keys;
mod pools;
mod process;
mod prover;
pub mod result;
mod scripted;
mod tmp;
pub mod wire;

pub use bulkhead_proofs::task::{ActorId, Bytes32, Output, PostSector, PublicSector, Task};
pub use bulkhead_proofs::tasks;
pub use fenced::FencedProver;
pub use pools::{POOLS, ProverPool, ProverPools};
pub use prover::{ChildConfig, ChildProver, RunningJob};
pub use scripted::{Answer, ScriptedProver, Step, default_output};

/// How a prover child ended, when not with a result.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProverError {
    #[error("{task}: {why}")]
    Failed { task: String, why: String },
    #[error("{task}: the prover aborted (SIGABRT)")]
    Aborted { task: String },
    #[error("{task}: the prover crashed (SIGSEGV)")]
    Segfault { task: String },
    #[error("{task}: the prover was killed for memory")]
    OutOfMemory { task: String },
    #[error("{task}: the prover was killed (signal {signal})")]
    Killed { task: String, signal: i32 },
    #[error("{task}: the prover gave no result within {after:?} and was killed")]
    Hung { task: String, after: Duration },
    #[error("{task}: the prover could not be started: {why}")]
    NotStarted { task: String, why: String },
}

/// `job_dir`: a result is fsynced and renamed in there before it is acknowledged, so that a node that died adopts it.
#[derive(Clone, Debug)]
pub struct Job {
    pub task: Task,
    pub job_dir: Option<PathBuf>,
    pub max_runtime: Duration,
}

/// Runs proof tasks. Dropping the returned future kills the child that runs it.
#[async_trait]
pub trait Prover: Send + Sync + 'static {
    async fn run(&self, job: Job) -> Result<Output, ProverError>;
    /// As [`Prover::run`], with the time that the task ran, without the wait for a slot or a GPU; `None`: it did not run, or
    /// its result was found.
    async fn run_timed(&self, job: Job) -> (Result<Output, ProverError>, Option<Duration>) {
        let began = tokio::time::Instant::now();
        let result = self.run(job).await;
        (result, Some(began.elapsed()))
    }
    /// Processes that it starts from now on are children of that dynamic supervisor while they live.
    fn show_in(&self, _provers: crate::supervisor::SupervisorRef) {}
    /// From now on so many tasks may run at once: more at once, fewer as tasks end.
    fn resize(&self, _pools: ProverPools) {}
}
