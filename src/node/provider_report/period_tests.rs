//! A full node far away: of many calls one after the other each counts.

use super::*;
use crate::chain::types::{Partition, TipSet};
use async_trait::async_trait;
use std::sync::Mutex;
use std::time::Duration;

#[derive(Default)]
struct Calls {
    /// The deadlines whose partitions were asked for, in order.
    asked: Vec<u64>,
    /// Questions about deadlines that are not answered yet, and the most of them at a time.
    open: usize,
    most: usize,
    /// Partitions that are told before the node hangs; `None`: all.
    patience: Option<usize>,
    /// The open deadline.
    deadline: u64,
}

#[derive(Default)]
struct FarAway(Mutex<Calls>);

impl FarAway {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        crate::util::lock(&self.0)
    }
    fn take_asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.calls().asked)
    }
}

type Answer<T> = Result<T, FullNodeError>;

#[async_trait]
impl FullNode for FarAway {
    fn name(&self) -> String {
        "far away".into()
    }
    async fn chain_head(&self) -> Answer<TipSet> {
        Ok(TipSet { cids: vec![], blocks: vec![], height: 0 })
    }
    async fn state_miner_proving_deadline(&self, _: &Address, _: &TipSetKey) -> Answer<DeadlineInfo> {
        let index = self.calls().deadline;
        let open = index as i64 * 60;
        Ok(DeadlineInfo { index, open, current_epoch: open, w_post_challenge_window: 60, ..DeadlineInfo::default() })
    }
    async fn state_miner_deadlines(&self, _: &Address, _: &TipSetKey) -> Answer<Vec<Deadline>> {
        Ok(vec![Deadline { post_submissions: Default::default(), disputable_proof_count: 0 }; 48])
    }
    async fn state_miner_partitions(&self, _: &Address, index: u64, _: &TipSetKey) -> Answer<Vec<Partition>> {
        {
            let mut calls = self.calls();
            calls.asked.push(index);
            calls.open += 1;
            calls.most = calls.most.max(calls.open);
        }
        // Later deadlines answer sooner: answers come in any order.
        for _ in 0..2 * (48 - index) {
            tokio::task::yield_now().await;
        }
        let mut calls = self.calls();
        calls.open -= 1;
        match &mut calls.patience {
            Some(0) => {
                let (node, method) = (self.name(), "Filecoin.StateMinerPartitions");
                Err(FullNodeError::Timeout { node, method, after: Duration::from_secs(8) })
            }
            patience => {
                patience.iter_mut().for_each(|left| *left -= 1);
                Ok(vec![])
            }
        }
    }
}

fn indices(read: &PeriodRead) -> Vec<u64> {
    read.1.iter().map(|row| row.index).collect()
}

/// One after the other, 51 calls of 1.2 s are more than the 60 s that the command line waits.
#[tokio::test]
async fn several_deadlines_are_asked_for_at_a_time_and_told_in_order() {
    let node = FarAway::default();
    let read = PeriodCache::default().read(&node, &Address::new_id(1000)).await.unwrap();
    assert_eq!(indices(&read), (0..48).collect::<Vec<_>>());
    assert_eq!(node.calls().most, AT_ONCE);
}

#[tokio::test]
async fn a_read_that_fails_goes_on_where_it_was_and_a_head_costs_one_deadline() {
    let (node, miner, mut cache) = (FarAway::default(), Address::new_id(1000), PeriodCache::default());
    let (mut looks, mut asked) = (0, 0);
    let read = loop {
        looks += 1;
        node.calls().patience = Some(20);
        let read = cache.read(&node, &miner).await;
        asked += node.take_asked().len();
        node.calls().open = 0;
        if let Ok(read) = read {
            break read;
        }
        assert!(looks < 10, "it never comes to an end");
    };
    assert_eq!(indices(&read), (0..48).collect::<Vec<_>>());
    assert!(asked < 48 + looks * (AT_ONCE + 1), "{asked} in {looks} looks");
    cache.read(&node, &miner).await.unwrap();
    assert_eq!(node.take_asked(), [0], "the open one");
    node.calls().patience = None;
    node.calls().deadline = 7;
    cache.read(&node, &miner).await.unwrap();
    assert_eq!(node.take_asked().len(), 48, "another is open");
}
