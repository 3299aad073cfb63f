//! All deadlines of one miner: heads and results go in, commands for the shell come out. No I/O, no clock.

use super::batch::*;
use super::schedule::{self, Confidence};
use super::settings::WindowPostSettings;
use crate::chain::ChainEpoch;
use crate::chain::types::DeadlineInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Batches that are read while others are proven: each holds its sectors' vanilla proofs in memory.
const READ_AHEAD: usize = 1;

/// The shell carries these out in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadlineCommand {
    /// Find the partitions that have something to prove.
    Plan {
        job: JobId,
        di: DeadlineInfo,
    },
    Prove {
        job: JobId,
        di: DeadlineInfo,
        batch: usize,
        partitions: Vec<u64>,
        attempt: u32,
    },
    /// Make the parameters and hand them to the message sender under `key`.
    Submit {
        job: JobId,
        di: DeadlineInfo,
        batch: usize,
        proof: ReadyProof,
        key: String,
    },
    Watch {
        job: JobId,
        di: DeadlineInfo,
        batch: usize,
        key: String,
    },
    /// Does the chain count these partitions as proven?
    Check {
        job: JobId,
        di: DeadlineInfo,
        batch: usize,
        partitions: Vec<u64>,
    },
    Abort(JobId),
    /// Write the deadline's record before any later command.
    Save(ChainEpoch),
    Forget(ChainEpoch),
    /// Call `wake` after that time.
    WakeIn(Duration),
}

/// A deadline in work; the durable record is the same.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DeadlineRun {
    pub di: DeadlineInfo,
    /// `None` until the partitions are known. Empty: nothing to prove.
    pub batches: Option<Vec<Batch>>,
    pub plan_error: Option<String>,
    #[serde(skip)]
    pub plan_job: Option<JobId>,
    #[serde(skip)]
    pub plan_failures: u32,
    #[serde(skip)]
    pub plan_not_before: Duration,
}

impl DeadlineRun {
    fn new(di: DeadlineInfo) -> DeadlineRun {
        DeadlineRun {
            di,
            batches: None,
            plan_error: None,
            plan_job: None,
            plan_failures: 0,
            plan_not_before: Duration::ZERO,
        }
    }
}

pub struct DeadlineScheduler {
    miner: String,
    settings: WindowPostSettings,
    runs: BTreeMap<ChainEpoch, DeadlineRun>,
    di: Option<DeadlineInfo>,
    height: ChainEpoch,
    next_job: JobId,
}

impl DeadlineScheduler {
    /// `records`: what an earlier incarnation saved.
    pub fn new(miner: String, settings: WindowPostSettings, records: Vec<DeadlineRun>) -> DeadlineScheduler {
        let restore = |mut run: DeadlineRun| {
            run.batches = run.batches.map(|batches| batches.into_iter().map(Batch::restored).collect());
            (run.di.open, run)
        };
        let runs = records.into_iter().map(restore).collect();
        DeadlineScheduler { miner, settings, runs, di: None, height: ChainEpoch::MIN, next_job: 1 }
    }

    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &DeadlineRun> {
        self.runs.values()
    }
    pub fn run(&self, open: ChainEpoch) -> Option<&DeadlineRun> {
        self.runs.get(&open)
    }
    pub fn current(&self) -> Option<&DeadlineInfo> {
        self.di.as_ref()
    }
    pub fn height(&self) -> ChainEpoch {
        self.height
    }

    /// A new head. `di` is what the node says is the current deadline; without it the last known one is rolled forward.
    pub fn head(
        &mut self,
        height: ChainEpoch,
        reverted_to: Option<ChainEpoch>,
        di: Option<DeadlineInfo>,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        self.height = height;
        let current = match (di, self.di) {
            (Some(di), _) => di.not_elapsed_at(height),
            // A revert may lead to before the deadline that was current.
            (None, Some(last)) => {
                last.with(last.period_start - last.w_post_proving_period, last.index).not_elapsed_at(height)
            }
            (None, None) => return Vec::new(),
        };
        self.di = Some(current);
        let mut out = Vec::new();
        if let Some(to) = reverted_to {
            self.revert(to, &mut out);
        }
        self.close(&mut out);
        self.open(&current);
        self.advance(now, &mut out);
        out
    }

    /// A pause has ended.
    pub fn wake(&mut self, now: Duration) -> Vec<DeadlineCommand> {
        let mut out = Vec::new();
        self.advance(now, &mut out);
        out
    }

    /// For what begins from now on.
    pub fn reconfigure(&mut self, settings: WindowPostSettings, now: Duration) -> Vec<DeadlineCommand> {
        self.settings = settings;
        if self.di.is_some() { self.wake(now) } else { Vec::new() }
    }

    pub fn planned(
        &mut self,
        open: ChainEpoch,
        job: JobId,
        plan: Result<Vec<Vec<u64>>, String>,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        let mut out = Vec::new();
        let pause = self.pause();
        if let Some(run) = self.runs.get_mut(&open).filter(|run| run.plan_job == Some(job)) {
            run.plan_job = None;
            match plan {
                Ok(batches) => {
                    run.batches = Some(batches.into_iter().map(Batch::new).collect());
                    run.plan_error = None;
                    out.push(DeadlineCommand::Save(open));
                }
                Err(why) => {
                    run.plan_failures += 1;
                    run.plan_not_before = now + pause(run.plan_failures);
                    run.plan_error = Some(why);
                }
            }
            self.advance(now, &mut out);
        }
        out
    }

    pub fn proven(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        outcome: Outcome,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        let pause = self.pause();
        self.result(open, batch, job, now, |batch, _, _| batch.proven(outcome, now, pause))
    }

    pub fn submitted(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        result: Submission,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        let pause = self.pause();
        self.result(open, batch, job, now, |batch, _, _| batch.submitted(result, now, pause))
    }

    pub fn watched(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        result: Result<PostStatus, String>,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        self.result(open, batch, job, now, |batch, di, height| batch.watched(result, height, di))
    }

    pub fn checked(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        proven: Result<bool, String>,
        now: Duration,
    ) -> Vec<DeadlineCommand> {
        let pause = self.pause();
        self.result(open, batch, job, now, |batch, _, height| batch.checked(proven, height, now, pause))
    }

    fn pause(&self) -> impl Fn(u32) -> Duration + use<> {
        let settings = self.settings.clone();
        move |failures| schedule::backoff(&settings, failures)
    }

    fn result(
        &mut self,
        open: ChainEpoch,
        batch: usize,
        job: JobId,
        now: Duration,
        apply: impl FnOnce(&mut Batch, &DeadlineInfo, ChainEpoch) -> Persist,
    ) -> Vec<DeadlineCommand> {
        let mut out = Vec::new();
        let height = self.height;
        let Some(run) = self.runs.get_mut(&open) else { return out };
        let found = run.batches.as_mut().and_then(|batches| batches.get_mut(batch));
        let Some(found) = found.filter(|found| found.job == Some(job)) else { return out };
        let after = apply(found, &run.di, height);
        note(open, after, &mut out);
        self.close(&mut out);
        self.advance(now, &mut out);
        out
    }

    fn revert(&mut self, to: ChainEpoch, out: &mut Vec<DeadlineCommand>) {
        for (open, run) in &mut self.runs {
            // A deadline that was missed unread is open again: read it.
            if self.height < run.di.close && run.batches.iter().flatten().any(|batch| batch.partitions.is_empty()) {
                run.batches = None;
                out.push(DeadlineCommand::Save(*open));
            }
            for batch in run.batches.iter_mut().flatten() {
                note(*open, batch.revert(to, self.height, &run.di), out);
            }
            // What was planned before its challenge came again was read from a state that is gone.
            let nothing_done = run.batches.iter().flatten().all(|batch| batch.attempt == 0);
            if to < run.di.challenge && self.height < run.di.close && nothing_done {
                out.extend(run.plan_job.take().map(DeadlineCommand::Abort));
                run.batches = None;
                out.push(DeadlineCommand::Save(*open));
            }
        }
    }

    fn close(&mut self, out: &mut Vec<DeadlineCommand>) {
        let height = self.height;
        let keep = self.settings.keep_after_close.max(0);
        for (open, run) in &mut self.runs {
            if height < run.di.close {
                continue;
            }
            if run.batches.is_none() {
                // Unknown is not "nothing": say that it was missed.
                out.extend(run.plan_job.take().map(DeadlineCommand::Abort));
                let mut unknown = Batch::new(Vec::new());
                let error = run.plan_error.as_deref().unwrap_or("the node gave no answer");
                unknown.phase = BatchPhase::Missed { why: format!("its partitions could not be read: {error}") };
                run.batches = Some(vec![unknown]);
                out.push(DeadlineCommand::Save(*open));
            }
            let watch_until = run.di.close + run.di.w_post_challenge_window.max(10);
            for batch in run.batches.iter_mut().flatten() {
                note(*open, batch.close(height, watch_until), out);
            }
        }
        self.runs.retain(|open, run| {
            let done = height >= run.di.close.saturating_add(keep.max(run.di.w_post_challenge_window));
            if done {
                out.push(DeadlineCommand::Forget(*open));
            }
            !done
        });
    }

    /// Takes up every deadline whose challenge is deep enough: the current one, and those that open soon.
    fn open(&mut self, current: &DeadlineInfo) {
        if !current.period_started_at(self.height) {
            return;
        }
        let confidence = Confidence::fitted(&self.settings, current);
        let mut candidate = *current;
        for _ in 0..current.w_post_period_deadlines.max(1) {
            if self.height < candidate.challenge + confidence.challenge {
                break;
            }
            if schedule::should_start(self.height, &candidate, confidence) {
                self.runs.entry(candidate.open).or_insert_with(|| DeadlineRun::new(candidate));
            }
            candidate = candidate.next();
        }
    }

    /// Starts whatever may start now. Deadlines are in the order of Open, so the most urgent gets the free slot.
    fn advance(&mut self, now: Duration, out: &mut Vec<DeadlineCommand>) {
        let height = self.height;
        // The prover's slots bound the proofs; a batch more is read meanwhile.
        let slots = self.settings.parallel.max(1) + READ_AHEAD;
        let batches = || self.runs.values().flat_map(|run| run.batches.iter().flatten());
        let mut proving = batches().filter(|batch| batch.phase == BatchPhase::Proving).count();
        let mut wake: Option<Duration> = None;
        let mut later = |at: Duration| wake = Some(wake.map_or(at, |w: Duration| w.min(at)));

        for (open, run) in &mut self.runs {
            let di = run.di;
            let confidence = Confidence::fitted(&self.settings, &di);
            let mut job = || {
                self.next_job += 1;
                self.next_job
            };
            let Some(batches) = &mut run.batches else {
                if run.plan_job.is_none() && height < di.close {
                    if now < run.plan_not_before {
                        later(run.plan_not_before);
                    } else {
                        let job = job();
                        run.plan_job = Some(job);
                        out.push(DeadlineCommand::Plan { job, di });
                    }
                }
                continue;
            };
            for (index, batch) in batches.iter_mut().enumerate() {
                if batch.job.is_some() {
                    continue;
                }
                let paused = now < batch.not_before;
                let partitions = batch.partitions.clone();
                match &mut batch.phase {
                    BatchPhase::Waiting if schedule::should_start(height, &di, confidence) => {
                        if paused {
                            later(batch.not_before);
                        } else if proving < slots {
                            proving += 1;
                            let job = job();
                            batch.phase = BatchPhase::Proving;
                            batch.attempt += 1;
                            batch.job = Some(job);
                            out.push(DeadlineCommand::Save(*open));
                            out.push(DeadlineCommand::Prove {
                                job,
                                di,
                                batch: index,
                                partitions,
                                attempt: batch.attempt,
                            });
                        }
                    }
                    BatchPhase::Proved(proof) if schedule::could_submit(height, &di, confidence) => {
                        if paused {
                            later(batch.not_before);
                        } else {
                            let job = job();
                            let proof = proof.clone();
                            batch.submission += 1;
                            let key = key(&self.miner, *open, &proof, batch.submission);
                            batch.phase =
                                BatchPhase::Submitting { proof: proof.clone(), key: key.clone(), sent: Sent::Sending };
                            batch.job = Some(job);
                            out.push(DeadlineCommand::Save(*open));
                            out.push(DeadlineCommand::Submit { job, di, batch: index, proof, key });
                        }
                    }
                    BatchPhase::Submitting { sent: Sent::Sending, .. } if height >= di.close => {}
                    BatchPhase::Submitting {
                        sent: Sent::Sending | Sent::Checking | Sent::KnownLanded { .. }, ..
                    } if paused => later(batch.not_before),
                    BatchPhase::Submitting { proof, key, sent: Sent::Sending } => {
                        let job = job();
                        batch.job = Some(job);
                        out.push(DeadlineCommand::Submit {
                            job,
                            di,
                            batch: index,
                            proof: proof.clone(),
                            key: key.clone(),
                        });
                    }
                    BatchPhase::Submitting { sent: Sent::Checking | Sent::KnownLanded { .. }, .. } => {
                        let job = job();
                        batch.job = Some(job);
                        out.push(DeadlineCommand::Check { job, di, batch: index, partitions });
                    }
                    BatchPhase::Submitting { key, sent: Sent::Queued | Sent::Known, .. } => {
                        if batch.watched_at != Some(height) {
                            let job = job();
                            batch.job = Some(job);
                            batch.watched_at = Some(height);
                            out.push(DeadlineCommand::Watch { job, di, batch: index, key: key.clone() });
                        }
                    }
                    BatchPhase::Waiting | BatchPhase::Proving | BatchPhase::Proved(_) => {}
                    BatchPhase::Landed { .. } | BatchPhase::Nothing | BatchPhase::Missed { .. } => {}
                }
            }
        }
        out.extend(wake.map(|at| DeadlineCommand::WakeIn(at.saturating_sub(now))));
    }
}

/// The name of a message. What it proves is part of it: another holder of the window numbers its batches by what was left
/// when it planned, and the same name must never stand for other partitions.
fn key(miner: &str, open: ChainEpoch, proof: &ReadyProof, submission: u32) -> String {
    let partitions: Vec<String> = proof.partitions.iter().map(|(index, _)| index.to_string()).collect();
    format!("wdpost-{miner}-{open}-p{}-{submission}", partitions.join("."))
}

fn note(open: ChainEpoch, after: Persist, out: &mut Vec<DeadlineCommand>) {
    match after {
        Persist::Same => {}
        Persist::Save => out.push(DeadlineCommand::Save(open)),
        Persist::Abort(job) => {
            out.extend(job.map(DeadlineCommand::Abort));
            out.push(DeadlineCommand::Save(open));
        }
    }
}
