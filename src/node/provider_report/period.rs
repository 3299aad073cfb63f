//! The deadlines of the present proving period, read with few calls, and what of it was read already.

use crate::chain::Address;
use crate::chain::types::{Deadline, DeadlineInfo, TipSetKey};
use crate::node::proving_report::{DeadlineRow, PartitionFaults};
use crate::rpc::full_node::{FullNode, FullNodeError};
use futures::TryStreamExt;
use futures::stream::FuturesOrdered;

/// Deadlines that the full node is asked about at a time.
const AT_ONCE: usize = 4;

/// The proving period at a head, a row for each deadline, and the partitions that have faults.
pub type PeriodRead = (DeadlineInfo, Vec<DeadlineRow>, Vec<PartitionFaults>);

/// The deadlines of the present period as they were last read, so that a head costs one deadline and not all of them. What
/// was read is kept when the reader is given up: the next goes on there.
#[derive(Default)]
pub struct PeriodCache {
    now: DeadlineInfo,
    rows: Vec<DeadlineRow>,
    faults: Vec<PartitionFaults>,
}

impl PeriodCache {
    /// All deadlines are read when another one opens; the open one is read each time.
    pub async fn read(&mut self, full: &dyn FullNode, miner: &Address) -> Result<PeriodRead, FullNodeError> {
        // One tipset for all of it: the parts belong together.
        let key = full.chain_head().await?.key();
        let now = full.state_miner_proving_deadline(miner, &key).await?;
        let submitted = full.state_miner_deadlines(miner, &key).await?;
        let same =
            |then: &DeadlineInfo| (then.period_start, then.index, then.open) == (now.period_start, now.index, now.open);
        if !same(&self.now) || self.rows.len() > submitted.len() {
            *self = PeriodCache::default();
        }
        self.now = now;
        let known = self.rows.len() as u64;
        let mut wanted = (0u64..).zip(&submitted).collect::<Vec<_>>();
        wanted.retain(|(index, _)| *index >= known || *index == now.index);
        for some in wanted.chunks(AT_ONCE) {
            let mut asked = FuturesOrdered::new();
            for (index, deadline) in some {
                asked.push_back(one(full, miner, &key, &now, *index, deadline));
            }
            while let Some((row, faults)) = asked.try_next().await? {
                let index = row.index;
                match self.rows.get_mut(index as usize) {
                    Some(known) => *known = row,
                    None => self.rows.push(row),
                }
                self.faults.retain(|known| known.deadline != index);
                self.faults.extend(faults);
            }
        }
        Ok((now, self.rows.clone(), self.faults.clone()))
    }
}

async fn one(
    full: &dyn FullNode,
    miner: &Address,
    key: &TipSetKey,
    now: &DeadlineInfo,
    index: u64,
    deadline: &Deadline,
) -> Result<(DeadlineRow, Vec<PartitionFaults>), FullNodeError> {
    let partitions = full.state_miner_partitions(miner, index, key).await?;
    let row = DeadlineRow::of(index, now, &deadline.post_submissions, &partitions);
    Ok((row, PartitionFaults::of(index, &partitions)))
}

#[cfg(test)]
#[path = "period_tests.rs"]
mod tests;
