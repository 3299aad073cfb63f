//! One step of a sector's sealing as a thing that can be handed to whoever has the sector's files: what to do, its name,
//! and how it is carried out there. Small on the wire: C1's output, the one large thing, stays beside the files.

use super::sector_files::SectorDirs;
use crate::chain::proof_types;
use crate::proofs::{ActorId, Bytes32, Job, Output, Prover, ProverError, Task};
use crate::supervisor::{Fence, Fenced};
use crate::util::host::{free_disk, lack};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The input of C1 and C2.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Sealed {
    pub ticket: Bytes32,
    pub seed: Bytes32,
    pub comm_r: Bytes32,
    pub comm_d: Bytes32,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum SealStep {
    AddPiece,
    Pc1 {
        ticket: Bytes32,
    },
    /// With the output of PC1: a few KiB of where its layers are.
    Pc2 {
        pc1: Vec<u8>,
    },
    C1(Sealed),
    /// Takes C1's output from the folder of that attempt.
    C2 {
        sealed: Sealed,
        c1_attempt: u32,
    },
    /// Drops what proving does not need.
    Finalize,
    /// Deletes everything of the sector.
    Remove,
}

/// The kinds of steps, in the order of a sector's life: what is furthest goes first. Neither stored nor sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepKind {
    AddPiece,
    Pc1,
    Pc2,
    C1,
    C2,
    Finalize,
    Remove,
}

impl StepKind {
    /// Its part of a job's name, and of the job's folder.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::AddPiece => "ap",
            StepKind::Pc1 => "pc1",
            StepKind::Pc2 => "pc2",
            StepKind::C1 => "c1",
            StepKind::C2 => "c2",
            StepKind::Finalize => "fin",
            StepKind::Remove => "rm",
        }
    }

    /// Moves and deletes files, computes nothing.
    pub fn is_light(self) -> bool {
        match self {
            StepKind::Finalize | StepKind::Remove => true,
            StepKind::AddPiece | StepKind::Pc1 | StepKind::Pc2 | StepKind::C1 | StepKind::C2 => false,
        }
    }
}

impl SealStep {
    pub fn kind(&self) -> StepKind {
        match self {
            SealStep::AddPiece => StepKind::AddPiece,
            SealStep::Pc1 { .. } => StepKind::Pc1,
            SealStep::Pc2 { .. } => StepKind::Pc2,
            SealStep::C1(_) => StepKind::C1,
            SealStep::C2 { .. } => StepKind::C2,
            SealStep::Finalize => StepKind::Finalize,
            SealStep::Remove => StepKind::Remove,
        }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SealJob {
    pub miner: ActorId,
    pub number: u64,
    /// `RegisteredSealProof`; gives the sector's size.
    pub proof_type: i64,
    /// Which entry into the phase this is for.
    pub attempt: u32,
    pub step: SealStep,
    /// After this long its prover counts as hung and is killed.
    pub max_runtime: Duration,
}

impl SealJob {
    /// The same entry into the same phase always has the same name.
    pub fn id(&self) -> String {
        format!("s-t0{}-{}-{}-{}", self.miner, self.number, self.step.kind().name(), self.attempt)
    }
}

/// `transient`: the prover was killed or could not start, or the disk refused; says nothing of the sector.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct JobFailed {
    pub error: String,
    #[serde(rename = "soft")]
    pub transient: bool,
}

impl From<ProverError> for JobFailed {
    fn from(e: ProverError) -> JobFailed {
        let transient = match &e {
            ProverError::Killed { .. } | ProverError::OutOfMemory { .. } | ProverError::NotStarted { .. } => true,
            // Disk, memory, descriptors, threads: the host's, not the sector's.
            ProverError::Failed { why, .. } => lack(why).is_some(),
            ProverError::Aborted { .. } | ProverError::Segfault { .. } | ProverError::Hung { .. } => false,
        };
        JobFailed { error: e.to_string(), transient }
    }
}

impl From<std::io::Error> for JobFailed {
    fn from(e: std::io::Error) -> JobFailed {
        JobFailed { error: format!("sector files: {e}"), transient: true }
    }
}

impl From<Fenced> for JobFailed {
    fn from(e: Fenced) -> JobFailed {
        JobFailed { error: e.to_string(), transient: true }
    }
}

/// A job on the files in `dirs`. Every step may be carried out again after a crash: finished tasks are found in their
/// folders. `fence` is asked right before each effect.
pub async fn carry_out(
    job: &SealJob,
    dirs: &SectorDirs,
    prover: &dyn Prover,
    fence: Option<&dyn Fence>,
) -> Result<Output, JobFailed> {
    let check = || fence.map_or(Ok(()), Fence::check);
    let run = async |task: Task, kind: StepKind, attempt: u32| -> Result<Output, JobFailed> {
        check()?;
        dirs.create()?;
        let job_dir = Some(dirs.job(job.number, kind.name(), attempt));
        let outcome = prover.run(Job { task, job_dir, max_runtime: job.max_runtime }).await.map_err(JobFailed::from);
        outcome.map_err(|failed| of_a_full_disk(failed, job, dirs))
    };
    let kind = job.step.kind();
    match &job.step {
        SealStep::AddPiece => {
            let task = Task::AddPiece { proof_type: job.proof_type, unsealed_path: dirs.unsealed(job.number) };
            run(task, kind, job.attempt).await
        }
        SealStep::Pc1 { ticket } => {
            let task = Task::Pc1 {
                proof_type: job.proof_type,
                cache_dir: dirs.cache(job.number),
                unsealed_path: dirs.unsealed(job.number),
                sealed_path: dirs.sealed(job.number),
                miner: job.miner,
                number: job.number,
                ticket: *ticket,
            };
            run(task, kind, job.attempt).await
        }
        SealStep::Pc2 { pc1 } => {
            let task =
                Task::Pc2 { pc1: pc1.clone(), cache_dir: dirs.cache(job.number), sealed_path: dirs.sealed(job.number) };
            run(task, kind, job.attempt).await
        }
        SealStep::C1(sealed) => match run(c1_task(job, sealed, dirs), kind, job.attempt).await? {
            Output::Phase1(_) => Ok(Output::Done),
            other => Ok(other),
        },
        SealStep::C2 { sealed, c1_attempt } => {
            match run(c1_task(job, sealed, dirs), StepKind::C1, *c1_attempt).await? {
                Output::Phase1(c1) => {
                    run(Task::C2 { c1, miner: job.miner, number: job.number }, kind, job.attempt).await
                }
                other => Ok(other),
            }
        }
        SealStep::Finalize => {
            let done = run(Task::Finalize { cache_dir: dirs.cache(job.number) }, kind, job.attempt).await?;
            check()?;
            // A CC sector's unsealed copy is zeros.
            dirs.remove_unsealed(job.number)?;
            dirs.remove_jobs(job.number)?;
            Ok(done)
        }
        SealStep::Remove => {
            check()?;
            dirs.remove_all(job.number)?;
            Ok(Output::Done)
        }
    }
}

/// Bytes below which a disk counts as full.
const FULL: u64 = 256 << 20;

/// A task that writes into mapped memory dies of a signal when the disk is full, and no error text tells why.
fn of_a_full_disk(failed: JobFailed, job: &SealJob, dirs: &SectorDirs) -> JobFailed {
    let free = free_disk(&dirs.sectors);
    // Less than what stays free by plan: others took it.
    let full = proof_types::sector_size(job.proof_type).is_some_and(|size| free < size.min(FULL));
    match failed.transient || !full {
        true => failed,
        false => {
            JobFailed { error: format!("{}; the disk is full: {free} bytes are free", failed.error), transient: true }
        }
    }
}

fn c1_task(job: &SealJob, sealed: &Sealed, dirs: &SectorDirs) -> Task {
    Task::C1 {
        proof_type: job.proof_type,
        cache_dir: dirs.cache(job.number),
        sealed_path: dirs.sealed(job.number),
        miner: job.miner,
        number: job.number,
        ticket: sealed.ticket,
        seed: sealed.seed,
        comm_r: sealed.comm_r,
        comm_d: sealed.comm_d,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proofs::ScriptedProver;

    fn job(step: SealStep) -> SealJob {
        SealJob { miner: 1000, number: 7, proof_type: 5, attempt: 2, step, max_runtime: Duration::from_secs(60) }
    }

    fn sealed() -> Sealed {
        Sealed { ticket: [1; 32], seed: [2; 32], comm_r: [3; 32], comm_d: [4; 32] }
    }

    #[test]
    fn the_name_says_sector_step_and_attempt() {
        assert_eq!(job(SealStep::AddPiece).id(), "s-t01000-7-ap-2");
        assert_eq!(job(SealStep::C2 { sealed: sealed(), c1_attempt: 1 }).id(), "s-t01000-7-c2-2");
    }

    #[tokio::test]
    async fn the_large_output_of_c1_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(dir.path(), 1000);
        let prover = ScriptedProver::new();
        assert_eq!(carry_out(&job(SealStep::C1(sealed())), &dirs, &prover, None).await, Ok(Output::Done));
        let c2 = job(SealStep::C2 { sealed: sealed(), c1_attempt: 1 });
        assert!(matches!(carry_out(&c2, &dirs, &prover, None).await, Ok(Output::Proof(_))));
        assert_eq!(prover.names(), ["C1", "C1", "C2"]);
    }

    #[tokio::test]
    async fn finalize_and_remove_clear_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = SectorDirs::of_repo(dir.path(), 1000);
        dirs.create().unwrap();
        let lay = || {
            for file in [dirs.unsealed(7), dirs.sealed(7), dirs.unsealed(8)] {
                std::fs::write(file, b"x").unwrap();
            }
            std::fs::create_dir_all(dirs.job(7, "pc1", 1)).unwrap();
        };
        let prover = ScriptedProver::new();
        lay();
        carry_out(&job(SealStep::Finalize), &dirs, &prover, None).await.unwrap();
        assert!(!dirs.unsealed(7).exists() && !dirs.job(7, "pc1", 1).exists() && dirs.sealed(7).exists());
        lay();
        carry_out(&job(SealStep::Remove), &dirs, &prover, None).await.unwrap();
        assert!(!dirs.sealed(7).exists() && dirs.unsealed(8).exists(), "only its own");
    }
}
