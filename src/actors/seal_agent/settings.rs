//! Operator settings of an agent, and the check of workers that join it.

use super::messages::{Join, Slots};
use crate::chain::proof_types::size_name;
use crate::proofs::ActorId;
use crate::util::{Mode, write_durably};
use std::io;
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// `None`: whoever sends the first job.
    pub miner: Option<ActorId>,
    pub sector_size: Option<u64>,
    /// Runs tasks in the agent's own provers while no worker has joined.
    pub own_work: bool,
    /// Tasks at a time in the agent's own provers.
    pub slots: Slots,
    /// A worker that is silent for so long loses its tasks.
    pub lease: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        AgentSettings {
            miner: None,
            sector_size: None,
            own_work: true,
            slots: Slots::default(),
            lease: Duration::from_secs(30),
        }
    }
}

/// A file in the agent's storage; who shares the storage can read it.
pub const MARK: &str = "agent-storage";

/// The mark's content, made at the first call.
pub fn storage_mark(repo: &Path) -> io::Result<String> {
    let path = repo.join(MARK);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mark = hex::encode(rand::random::<[u8; 16]>());
    std::fs::create_dir_all(repo)?;
    write_durably(&path, mark.as_bytes(), Mode::Public)?;
    Ok(mark)
}

/// Why a worker may not join, in one sentence. `master`: miner and sector size, where they are known.
pub fn join_refusal(join: &Join, master: Option<(ActorId, u64)>, repo: &Path) -> Option<String> {
    let size = |bytes: u64| size_name(bytes).map_or(format!("{bytes} bytes"), str::to_owned);
    if let Some((miner, _)) = master
        && miner != join.miner
    {
        return Some(format!("this agent works for MINER_ADDR t0{miner}, the worker was started for t0{}", join.miner));
    }
    if let Some((_, bytes)) = master
        && bytes != join.sector_size
    {
        let (ours, theirs) = (size(bytes), size(join.sector_size));
        return Some(format!("this agent's sectors have SECTOR_SIZE {ours}, the worker was started for {theirs}"));
    }
    match storage_mark(repo) {
        Ok(mark) if mark == join.storage => None,
        Ok(_) => Some(format!(
            "WORKER_PATH of the worker is not the agent's storage: mount the agent's {} there, under the same path",
            repo.display()
        )),
        Err(e) => Some(format!("the agent cannot read its own storage: {}: {e}", repo.join(MARK).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_another_miner_size_or_storage_is_refused_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let mark = storage_mark(dir.path()).unwrap();
        assert_eq!(storage_mark(dir.path()).unwrap(), mark, "made once");
        let join = |miner, sector_size, storage: &str| Join {
            id: "w".into(),
            name: "host".into(),
            miner,
            sector_size,
            storage: storage.into(),
            slots: Slots::default(),
        };
        let master = Some((1000, 2048));
        assert_eq!(join_refusal(&join(1000, 2048, &mark), master, dir.path()), None);
        assert_eq!(join_refusal(&join(7, 512, &mark), None, dir.path()), None, "nobody has said yet");
        for (join, part) in [
            (join(1001, 2048, &mark), "MINER_ADDR t01000, the worker was started for t01001"),
            (join(1000, 32 << 30, &mark), "SECTOR_SIZE 2KiB, the worker was started for 32GiB"),
            (join(1000, 2048, "other"), "WORKER_PATH"),
        ] {
            let why = join_refusal(&join, master, dir.path()).unwrap();
            assert!(why.contains(part) && !why.contains('\n'), "{why}");
        }
    }
}
