//! Reads challenged sectors from this host's disks: each storage path by itself, checked by its own threads first, then
//! read in batches by a prover process. A path that hangs costs its own sectors only.

use super::breaker::Breaker;
use crate::actors::path_checks::PathChecks;
use crate::actors::sector_files::{SectorCheck, SectorFiles, SectorPaths, Unprovable};
use crate::actors::sector_reads::{Answers, ReadRequest, SectorRead, SectorReader, WantedSector};
use crate::chain::proof_types;
use crate::proofs::{ActorId, Job, Output, PostSector, Prover, ProverError, Task};
use crate::util::lock;
use async_trait::async_trait;
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Sectors in one prover task: about 3 MB of vanilla proofs for a window.
const BATCH: usize = 128;
/// One batch; a disk that takes longer is as good as gone for a PoSt. The prover gives up a disk that answers nothing
/// sooner, and answers with what it has.
const READ: Duration = Duration::from_secs(120);

pub struct LocalReader {
    files: Arc<dyn SectorFiles>,
    prover: Arc<dyn Prover>,
    checks: Arc<PathChecks>,
    breakers: Mutex<HashMap<PathBuf, Breaker>>,
    began: Instant,
}

impl LocalReader {
    pub fn new(files: Arc<dyn SectorFiles>, prover: Arc<dyn Prover>, checks: Arc<PathChecks>) -> LocalReader {
        LocalReader { files, prover, checks, breakers: Mutex::default(), began: Instant::now() }
    }

    pub fn files(&self) -> &Arc<dyn SectorFiles> {
        &self.files
    }

    /// Whether each of these sectors has files here, or why its disk does not say. Takes `look` of the limits at most; a disk
    /// or a file that hangs keeps no other's answer back.
    pub async fn present(&self, numbers: &[u64]) -> Vec<Result<bool, String>> {
        let look = self.checks.limits().look;
        let until = Instant::now() + look;
        let mut out = vec![Err("the node's own folder hangs".to_string()); numbers.len()];
        let by_path = self.by_path(numbers, look).await;
        let look = by_path.iter().map(|(path, places)| async move {
            let jobs = places.iter().map(|place| {
                let (files, number) = (self.files.clone(), numbers[*place]);
                move || files.present(number)
            });
            let left = until.saturating_duration_since(Instant::now());
            (path, places, self.checks.run_within(path, jobs.collect(), left).await)
        });
        for (path, places, answers) in join_all(look).await {
            for (place, answer) in places.iter().zip(answers) {
                out[*place] = answer.ok_or_else(|| format!("{} hangs", path.display()));
            }
        }
        out
    }

    /// The places in `numbers` of the sectors of each storage path; without those whose path cannot be told.
    async fn by_path(&self, numbers: &[u64], limit: Duration) -> BTreeMap<PathBuf, Vec<usize>> {
        let (files, all) = (self.files.clone(), numbers.to_vec());
        // Reads links of the repo's own folder, which may hang, too.
        let look = move || all.into_iter().map(|number| files.storage_path(number)).collect::<Vec<_>>();
        let paths = self.checks.run_within(Path::new("links"), vec![look], limit).await;
        let paths = paths.into_iter().flatten().next().unwrap_or_default();
        let mut by_path: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (place, path) in paths.into_iter().enumerate() {
            by_path.entry(path).or_default().push(place);
        }
        by_path
    }

    async fn read_path(&self, path: &Path, ask: &PathRequest, answers: &Answers) {
        let mut left = ask.sectors.as_slice();
        while !left.is_empty() {
            let (batch, rest) = left.split_at(left.len().min(BATCH));
            if let Err(why) = self.read_batch(path, ask, batch, answers).await {
                let late = |sector: &WantedSector| (sector.number, SectorRead::Late(why.clone()));
                rest.iter().map(late).for_each(|answer| drop(answers.send(answer)));
                return;
            }
            left = rest;
        }
    }

    /// Answers for all of `batch`; an error when the path gives nothing, for the sectors after it.
    async fn read_batch(
        &self,
        path: &Path,
        ask: &PathRequest,
        batch: &[WantedSector],
        answers: &Answers,
    ) -> Result<(), String> {
        let tell = |number: u64, read: SectorRead| drop(answers.send((number, read)));
        let late = |why: &str| batch.iter().for_each(|s| tell(s.number, SectorRead::Late(why.to_string())));
        let now = self.began.elapsed();
        if let Some(wait) = lock(&self.breakers).get(path).and_then(|breaker| breaker.wait(now)) {
            let why = format!("{} did not answer; it is read again in {} s", path.display(), wait.as_secs().max(1));
            late(&why);
            return Err(why);
        }
        if Instant::now() >= ask.until {
            late("its turn did not come in time");
            return Err("its turn did not come in time".to_string());
        }
        let hangs = || format!("{} hangs", path.display());
        let mut readable: Vec<(PostSector, Vec<u64>)> = Vec::new();
        let mut unanswered = 0;
        for (sector, found) in batch.iter().zip(self.check(path, ask, batch).await) {
            match found {
                Some(Ok(paths)) => {
                    readable.push((paths.post_sector(sector.number, sector.comm_r), sector.places.clone()));
                }
                Some(Err(Unprovable::Bad(why))) => tell(sector.number, SectorRead::Unreadable(why)),
                Some(Err(Unprovable::Passing(why))) => tell(sector.number, SectorRead::Late(why)),
                None => {
                    unanswered += 1;
                    tell(sector.number, SectorRead::Late(hangs()));
                }
            }
        }
        if readable.is_empty() {
            return if unanswered > 0 && self.checks.hangs(path) { Err(hangs()) } else { Ok(()) };
        }
        let verdict = self.read_halves(ask, readable, answers).await;
        let mut breakers = lock(&self.breakers);
        let breaker = breakers.entry(path.to_path_buf()).or_default();
        match verdict {
            PathVerdict::Answers => breaker.answered(),
            PathVerdict::Hangs => breaker.hung(self.began.elapsed()),
            PathVerdict::Unknown(_) => {}
        }
        match verdict {
            PathVerdict::Answers => Ok(()),
            PathVerdict::Hangs => Err(format!("{} does not answer reads", path.display())),
            PathVerdict::Unknown(why) => Err(why),
        }
    }

    async fn check(
        &self,
        path: &Path,
        ask: &PathRequest,
        batch: &[WantedSector],
    ) -> Vec<Option<Result<SectorPaths, Unprovable>>> {
        let jobs = batch.iter().map(|sector| {
            let check = SectorCheck { number: sector.number, size: ask.size, comm_r: sector.comm_r };
            let files = self.files.clone();
            move || files.check(&check)
        });
        self.checks.run(path, jobs.collect()).await
    }

    /// A batch in which the prover crashes is read in halves, down to the sector. Any other end of a prover is the host's
    /// matter: it says nothing of a sector, which is late then, never unreadable.
    async fn read_halves(&self, ask: &PathRequest, all: Vec<(PostSector, Vec<u64>)>, answers: &Answers) -> PathVerdict {
        let (mut answered, mut hung, mut host) = (false, false, "its disk was not read".to_string());
        let mut todo = vec![all];
        while let Some(mut batch) = todo.pop() {
            let tell = |number: u64, read: SectorRead| drop(answers.send((number, read)));
            let late = |why: &str| batch.iter().for_each(|(s, _)| tell(s.number, SectorRead::Late(why.to_string())));
            let left = ask.until.saturating_duration_since(Instant::now());
            let task = Task::Vanilla { proof_type: ask.proof_type, sectors: batch.clone() };
            match self.prover.run(Job { task, job_dir: None, max_runtime: READ.min(left) }).await {
                Ok(Output::Vanilla(read)) => {
                    (answered, hung) = (answered || !read.is_empty(), hung || read.is_empty());
                    let mut read: HashMap<u64, Result<Vec<u8>, String>> = read.into_iter().collect();
                    for (sector, _) in &batch {
                        let answer = match read.remove(&sector.number) {
                            Some(Ok(proof)) => SectorRead::Proof(proof),
                            Some(Err(why)) => SectorRead::Unreadable(why),
                            None => SectorRead::Late("its disk did not answer in time, or failed for now".to_string()),
                        };
                        tell(sector.number, answer);
                    }
                }
                Err(ProverError::Segfault { .. } | ProverError::Aborted { .. }) if batch.len() > 1 => {
                    let second = batch.split_off(batch.len() / 2);
                    todo.extend([second, batch]);
                }
                // The path answers, and what it says crashes the prover; or the host has no memory: late, too.
                Err(error @ (ProverError::Segfault { .. } | ProverError::Aborted { .. })) => {
                    answered = true;
                    late(&error.to_string());
                }
                Err(error @ ProverError::Hung { .. }) if left >= READ => {
                    hung = true;
                    late(&error.to_string());
                }
                Err(error) => {
                    host = error.to_string();
                    late(&host);
                }
                Ok(other) => {
                    host = format!("the prover answered {other:?}");
                    late(&host);
                }
            }
        }
        match (answered, hung) {
            (true, _) => PathVerdict::Answers,
            (false, true) => PathVerdict::Hangs,
            (false, false) => PathVerdict::Unknown(host),
        }
    }
}

/// The verdict of a read on its storage path.
enum PathVerdict {
    Answers,
    /// A whole read went by without an answer.
    Hangs,
    /// Nothing: the prover was killed, not started, or had too little time; why.
    Unknown(String),
}

struct PathRequest {
    proof_type: i64,
    /// Bytes of a sector.
    size: u64,
    sectors: Vec<WantedSector>,
    until: Instant,
}

#[async_trait]
impl SectorReader for LocalReader {
    async fn read(&self, request: ReadRequest, answers: &Answers) {
        let ReadRequest { proof_type, sectors, until, .. } = request;
        let Some(size) = proof_types::sector_size(proof_type) else {
            let why = format!("PoSt proof type {proof_type} is unknown");
            sectors.iter().for_each(|s| drop(answers.send((s.number, SectorRead::Unreadable(why.clone())))));
            return;
        };
        let numbers: Vec<u64> = sectors.iter().map(|sector| sector.number).collect();
        let by_path = self.by_path(&numbers, Duration::MAX).await;
        if by_path.is_empty() {
            let late = || SectorRead::Late("the node's own folder hangs".to_string());
            numbers.iter().for_each(|number| drop(answers.send((*number, late()))));
            return;
        }
        let paths = by_path.into_iter().map(|(path, places)| {
            let sectors = places.into_iter().map(|place| sectors[place].clone()).collect();
            (path, PathRequest { proof_type, size, sectors, until })
        });
        let reads: Vec<_> = paths.collect();
        join_all(reads.iter().map(|(path, ask)| self.read_path(path, ask, answers))).await;
    }
}

/// The sectors of a repo, for the miner whose folders these are.
pub fn of_repo(repo: &Path, miner: ActorId, prover: Arc<dyn Prover>) -> LocalReader {
    let dirs = crate::actors::sector_files::SectorDirs::of_repo(repo, miner);
    LocalReader::new(Arc::new(dirs), prover, PathChecks::of_process())
}
