//! What the prover tests share: a prover on the real binary, a 2 KiB sector's paths and tasks.

use bulkhead::proofs::{ChildConfig, ChildProver, Job, Output, PostSector, Prover, ProverError, PublicSector, Task};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const MINER: u64 = 1000;
pub const SEAL: i64 = 5;
pub const WINNING: i64 = 0;
pub const WINDOW: i64 = 10;
pub const TICKET: [u8; 32] = [1; 32];
pub const SEED: [u8; 32] = [2; 32];

pub fn config(dir: &Path) -> ChildConfig {
    let mut config = ChildConfig::with_exe(env!("CARGO_BIN_EXE_bulkhead").into());
    config.tmp_root = dir.to_path_buf();
    config
}

pub fn prover(dir: &Path) -> ChildProver {
    ChildProver::new(config(dir))
}

pub fn job(task: Task) -> Job {
    Job { task, job_dir: None, max_runtime: Duration::from_secs(1200) }
}

/// A task that waits for as long as its child lives: opening a FIFO for writing waits for a reader.
pub fn endless_task(dir: &Path) -> Task {
    let fifo = dir.join("fifo");
    if !fifo.exists() {
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    Task::AddPiece { proof_type: SEAL, unsealed_path: fifo }
}

/// Waits until the condition holds, looking often; panics with its name after a minute.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `false` for a zombie too.
pub fn process_lives(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'),
        Err(_) => false,
    }
}

pub struct Sector {
    pub number: u64,
    pub unsealed: PathBuf,
    pub sealed: PathBuf,
    pub cache: PathBuf,
    pub ticket: [u8; 32],
    pub seed: [u8; 32],
}

impl Sector {
    pub fn in_dir(dir: &Path, number: u64) -> Self {
        let name = format!("s-t0{MINER}-{number}");
        Sector {
            number,
            unsealed: dir.join("unsealed").join(&name),
            sealed: dir.join("sealed").join(&name),
            cache: dir.join("cache").join(&name),
            ticket: TICKET,
            seed: SEED,
        }
    }

    pub fn add_piece(&self) -> Task {
        Task::AddPiece { proof_type: SEAL, unsealed_path: self.unsealed.clone() }
    }

    pub fn pc1(&self) -> Task {
        Task::Pc1 {
            proof_type: SEAL,
            cache_dir: self.cache.clone(),
            unsealed_path: self.unsealed.clone(),
            sealed_path: self.sealed.clone(),
            miner: MINER,
            number: self.number,
            ticket: self.ticket,
        }
    }

    pub fn pc2(&self, pc1: Vec<u8>) -> Task {
        Task::Pc2 { pc1, cache_dir: self.cache.clone(), sealed_path: self.sealed.clone() }
    }

    pub fn c1(&self, comm_r: [u8; 32], comm_d: [u8; 32]) -> Task {
        Task::C1 {
            proof_type: SEAL,
            cache_dir: self.cache.clone(),
            sealed_path: self.sealed.clone(),
            miner: MINER,
            number: self.number,
            ticket: self.ticket,
            seed: self.seed,
            comm_r,
            comm_d,
        }
    }

    pub fn for_post(&self, comm_r: [u8; 32]) -> PostSector {
        PostSector { number: self.number, comm_r, cache_dir: self.cache.clone(), sealed_path: self.sealed.clone() }
    }

    pub fn public(&self, comm_r: [u8; 32]) -> PublicSector {
        PublicSector { number: self.number, comm_r }
    }

    /// AddPiece, PC1, PC2: (CommR, CommD).
    pub async fn pre_commit(&self, prover: &impl Prover) -> ([u8; 32], [u8; 32]) {
        prover.run(job(self.add_piece())).await.unwrap();
        let pc1 = phase1(prover.run(job(self.pc1())).await);
        match prover.run(job(self.pc2(pc1))).await.unwrap() {
            Output::Pc2 { comm_r, comm_d } => (comm_r, comm_d),
            other => panic!("{other:?}"),
        }
    }
}

pub fn phase1(r: Result<Output, ProverError>) -> Vec<u8> {
    match r {
        Ok(Output::Phase1(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

pub fn proof(r: Result<Output, ProverError>) -> Vec<u8> {
    match r {
        Ok(Output::Proof(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}
