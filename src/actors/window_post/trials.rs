//! Declares faulty sectors recovered once a trial proof of them succeeds: files of the right size may have rotted, and a
//! sector that is declared and not proven costs a fee each period.

use super::effects::{Effects, Why, why};
use super::{batch::PostStatus, reads, recoveries};
use crate::actors::sector_reads::{ReadRequest, SectorRead, WantedSector};
use crate::chain::miner_messages::{self, MinerCall, comm_r};
use crate::chain::types::{DeadlineInfo, TipSet};
use crate::chain::{ChainEpoch, proof_types};
use crate::util::lock;
use fvm_ipld_bitfield::BitField;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Random places that a trial reads of a sector: as many as a WinningPoSt, several times those of a window.
const PLACES: usize = 66;
/// Bytes of a place, a leaf of the replica's tree.
const LEAF: u64 = 32;
/// A sector that failed its trial is tried again after so many epochs.
const AGAIN: ChainEpoch = 10;
/// The most that the trials of one head may take; the rest follows on the next.
const TIME: Duration = Duration::from_secs(300);
/// Messages with the same content that are sent anew when one before failed on chain.
const MESSAGES: u32 = 5;

/// How the last trials went. In memory: after a restart they are made again.
#[derive(Default)]
pub struct Trials {
    sectors: Mutex<BTreeMap<u64, Trial>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trial {
    /// Open of the deadline that it was made for.
    open: ChainEpoch,
    at: ChainEpoch,
    /// Why it failed; `None`: it succeeded.
    failed: Option<String>,
}

impl Trials {
    /// The part of `faulty` that needs a trial now.
    fn due(&self, faulty: &BTreeSet<u64>, open: ChainEpoch, height: ChainEpoch) -> BTreeSet<u64> {
        let sectors = lock(&self.sectors);
        let fresh = |number: &u64| {
            let trial = sectors.get(number).filter(|trial| trial.open == open);
            trial.is_some_and(|trial| trial.failed.is_none() || height < trial.at + AGAIN)
        };
        faulty.iter().copied().filter(|number| !fresh(number)).collect()
    }

    fn passed(&self, faulty: &BTreeSet<u64>, open: ChainEpoch) -> BTreeSet<u64> {
        let sectors = lock(&self.sectors);
        let ok = |number: &u64| sectors.get(number).is_some_and(|t| t.open == open && t.failed.is_none());
        faulty.iter().copied().filter(ok).collect()
    }

    fn ended(&self, number: u64, trial: Trial) {
        lock(&self.sectors).insert(number, trial);
    }

    /// Trials of windows before `open` are over.
    fn drop_before(&self, open: ChainEpoch) {
        lock(&self.sectors).retain(|_, trial| trial.open >= open);
    }
}

/// The work that is left for the faults of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The chain shows no fault that is not declared recovered.
    Complete,
    /// The number of faulty sectors that are not declared on chain: they fail their trial, or their message has not landed.
    Left(usize),
}

impl Effects {
    /// Declares recovered what is faulty in `target` and passes a trial. One look; the next head brings the next.
    pub async fn recover(&self, target: &DeadlineInfo, head: &TipSet) -> Result<Recovery, Why> {
        let key = head.key();
        let partitions = self.node.state_miner_partitions(&self.miner, target.index, &key).await.map_err(why)?;
        let undeclared = recoveries::undeclared(&partitions);
        self.trials.drop_before(target.open);
        if undeclared.is_empty() {
            return Ok(Recovery::Complete);
        }
        let faulty: BTreeSet<u64> = undeclared.iter().flat_map(|(_, faults)| faults.iter()).collect();
        let due = self.trials.due(&faulty, target.open, head.height);
        if !due.is_empty() {
            self.try_sectors(due, target, head).await?;
        }
        let passed = self.trials.passed(&faulty, target.open);
        let max = recoveries::partition_limit(self.settings.max_recovery_partitions);
        for declaration in recoveries::declarations(target.index, &undeclared, &passed, max) {
            let count = declaration.len();
            let call = miner_messages::declare_faults_recovered(declaration).map_err(why)?;
            self.declare(target, call, count, head).await?;
        }
        Ok(Recovery::Left(faulty.len()))
    }

    /// Hands a declaration over, under a new name when one before it failed on chain: the chain still shows the faults.
    async fn declare(&self, target: &DeadlineInfo, call: MinerCall, count: usize, head: &TipSet) -> Result<(), Why> {
        let hash = blake2b_simd::Params::new().hash_length(8).hash(&call.params).to_hex();
        let first = format!("recover-{}-{}-{hash}", self.name(), target.open);
        for message in 1..=MESSAGES {
            let name = if message == 1 { first.clone() } else { format!("{first}-{message}") };
            match self.outbox.status(&name).await? {
                PostStatus::Unknown => {
                    tracing::info!(deadline = target.index, partitions = count, "declaring recoveries");
                    return self.enqueue(name, call, target.fault_cutoff).await.map(drop);
                }
                PostStatus::Waiting | PostStatus::Unsent { .. } => return Ok(()),
                // This head's state does not show it yet.
                PostStatus::Landed { at } if head.height <= at => return Ok(()),
                PostStatus::Landed { .. } => {}
                PostStatus::Failed { why } => {
                    tracing::warn!(deadline = target.index, %why, "a declaration of recoveries failed on chain");
                }
            }
        }
        Err(format!("{MESSAGES} declarations of recoveries for deadline {} failed", target.index))
    }

    async fn try_sectors(&self, due: BTreeSet<u64>, target: &DeadlineInfo, head: &TipSet) -> Result<(), Why> {
        let key = head.key();
        let info = self.node.state_miner_info(&self.miner, &key).await.map_err(why)?;
        let numbers = BitField::try_from_bits(due.iter().copied()).map_err(why)?;
        let on_chain = self.node.state_miner_sectors(&self.miner, Some(&numbers), &key).await.map_err(why)?;
        let proof_type = info.window_post_proof_type;
        let size = proof_types::sector_size(proof_type).unwrap_or(info.sector_size);
        let ended = |number: u64, failed: Option<String>| {
            if let Some(why) = &failed {
                tracing::warn!(sector = number, %why, "a trial proof of a faulty sector failed: it stays faulty");
            }
            self.trials.ended(number, Trial { open: target.open, at: head.height, failed });
        };
        let mut sectors = Vec::new();
        for sector in on_chain.iter().filter(|sector| due.contains(&sector.sector_number)) {
            let number = sector.sector_number;
            match comm_r(&sector.sealed_cid) {
                Ok(comm_r) => sectors.push(WantedSector { number, comm_r, places: places(size) }),
                Err(e) => ended(number, Some(e.to_string())),
            }
        }
        let left = super::schedule::time_left(head.height, target, self.block_delay().await?);
        let until = Instant::now() + TIME.min(left / 3);
        let request = ReadRequest { miner: self.actor_id, proof_type, sectors, until };
        let (tell, mut answers) = mpsc::unbounded_channel();
        let read = async {
            let tell = tell;
            reads::read_all(self.reader.as_ref(), request, &tell).await
        };
        // Taken as they come: what a trial reads is large, and only whether it succeeds counts.
        let take = async {
            while let Some((number, answer)) = answers.recv().await {
                match answer {
                    SectorRead::Proof(_) => ended(number, None),
                    SectorRead::Unreadable(why) => ended(number, Some(why)),
                    SectorRead::Late(_) => {}
                }
            }
        };
        let (late, ()) = futures::join!(read, take);
        late.into_iter().for_each(|(number, why)| ended(number, Some(format!("late: {why}"))));
        Ok(())
    }
}

fn places(sector_size: u64) -> Vec<u64> {
    let leaves = (sector_size / LEAF).max(1);
    let mut random = rand::thread_rng();
    (0..PLACES).map(|_| random.gen_range(0..leaves)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_counts_for_its_window_and_a_failed_one_for_ten_epochs() {
        let trials = Trials::default();
        let faulty = BTreeSet::from([1, 2, 3]);
        assert_eq!(trials.due(&faulty, 60, 0), faulty);
        trials.ended(1, Trial { open: 60, at: 0, failed: None });
        trials.ended(2, Trial { open: 60, at: 0, failed: Some("rotten".into()) });
        assert_eq!(trials.due(&faulty, 60, 9), BTreeSet::from([3]));
        assert_eq!(trials.due(&faulty, 60, 10), BTreeSet::from([2, 3]));
        assert_eq!(trials.passed(&faulty, 60), BTreeSet::from([1]));
        assert_eq!((trials.due(&faulty, 120, 10), trials.passed(&faulty, 120)), (faulty.clone(), BTreeSet::new()));
        trials.drop_before(61);
        assert_eq!(trials.due(&faulty, 60, 1), faulty);
    }

    #[test]
    fn places_lie_in_the_sector() {
        let found = places(2048);
        assert_eq!(found.len(), PLACES);
        assert!(found.iter().all(|place| *place < 64), "{found:?}");
    }
}
