//! The chain's answers at one head, asked for once for all sectors that need them.

use crate::actors::sector_allocator::NumberSet;
use crate::chain::miner_messages::entropy;
use crate::chain::network_rules::{self, Upgrade};
use crate::chain::types::{NetworkParams, TipSet, TipSetKey};
use crate::chain::{Address, ChainEpoch, proof_types};
use crate::rpc::full_node::{FullNode, FullNodeError, RandomnessTag};
use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

type Answer<T> = Result<T, FullNodeError>;

/// One question. All who ask while it is under way get its answer; after a failure the next one asks anew.
struct Once<T: Clone>(RefCell<Option<Shared<LocalBoxFuture<'static, Answer<T>>>>>);

impl<T: Clone> Default for Once<T> {
    fn default() -> Once<T> {
        Once(RefCell::new(None))
    }
}

impl<T: Clone + 'static> Once<T> {
    async fn get<F: Future<Output = Answer<T>> + 'static>(&self, ask: impl FnOnce() -> F) -> Answer<T> {
        let asked = self.0.borrow_mut().get_or_insert_with(|| ask().boxed_local().shared()).clone();
        let answer = asked.clone().await;
        if answer.is_err() {
            // Another one may have asked anew already.
            self.0.borrow_mut().take_if(|now| now.ptr_eq(&asked));
        }
        answer
    }
}

/// Randomness that is drawn once.
type Draw = Rc<Once<Vec<u8>>>;

/// The answers at one head.
pub(super) struct HeadAnswers {
    node: Arc<dyn FullNode>,
    miner: Address,
    key: TipSetKey,
    network: Once<Rc<NetworkParams>>,
    allocated: Once<Rc<NumberSet>>,
    seal_proof: Once<Option<i64>>,
    /// By tag and epoch.
    randomness: RefCell<HashMap<(i64, ChainEpoch), Draw>>,
}

impl HeadAnswers {
    /// PreCommitChallengeDelay; 0 or less where the node does not tell it.
    pub async fn challenge_delay(&self) -> Answer<ChainEpoch> {
        Ok(self.network().await?.pre_commit_challenge_delay)
    }

    /// Time between tipsets.
    pub async fn block_delay(&self) -> Answer<Duration> {
        Ok(Duration::from_secs(self.network().await?.block_delay_secs))
    }

    /// The upgrades that the node announces, past ones included.
    pub async fn upgrades(&self) -> Answer<Vec<Upgrade>> {
        Ok(network_rules::upgrades(&self.network().await?.fork_upgrade_params))
    }

    async fn network(&self) -> Answer<Rc<NetworkParams>> {
        let node = self.node.clone();
        self.network.get(|| async move { Ok(Rc::new(node.state_get_network_params().await?)) }).await
    }

    /// The numbers that the chain has taken, each from its pre-commit on: one that is not in there is neither pre-committed
    /// nor proven.
    pub async fn allocated(&self) -> Answer<Rc<NumberSet>> {
        let (node, miner, key) = (self.node.clone(), self.miner, self.key.clone());
        let ask = || async move {
            let field = node.state_miner_allocated(&miner, &key).await?;
            Ok(Rc::new(NumberSet::of_bitfield(&field)))
        };
        self.allocated.get(ask).await
    }

    /// `RegisteredSealProof` for the miner's sector size under the network's version; `None`: there is none.
    pub async fn seal_proof(&self) -> Answer<Option<i64>> {
        let (node, miner, key) = (self.node.clone(), self.miner, self.key.clone());
        let ask = || async move {
            let info = node.state_miner_info(&miner, &key).await?;
            let version = node.state_network_version(&key).await?;
            Ok(proof_types::seal_proof(info.sector_size, version))
        };
        self.seal_proof.get(ask).await
    }

    /// The ticket for a PC1 that begins now.
    pub async fn ticket(&self, epoch: ChainEpoch) -> Answer<Vec<u8>> {
        self.drawn(RandomnessTag::SealRandomness, epoch).await
    }

    /// The seed of the sectors whose pre-commits are of one epoch.
    pub async fn seed(&self, epoch: ChainEpoch) -> Answer<Vec<u8>> {
        self.drawn(RandomnessTag::InteractiveSealChallengeSeed, epoch).await
    }

    async fn drawn(&self, tag: RandomnessTag, epoch: ChainEpoch) -> Answer<Vec<u8>> {
        let once = self.randomness.borrow_mut().entry((tag as i64, epoch)).or_default().clone();
        let (node, miner, key) = (self.node.clone(), self.miner, self.key.clone());
        let ask = || async move {
            let entropy = entropy(&miner).map_err(|e| FullNodeError::BadAnswer {
                node: node.name(),
                method: "StateGetRandomness",
                why: e.to_string(),
            })?;
            match tag {
                RandomnessTag::SealRandomness => {
                    node.state_get_randomness_from_tickets(tag, epoch, &entropy, &key).await
                }
                _ => node.state_get_randomness_from_beacon(tag, epoch, &entropy, &key).await,
            }
        };
        once.get(ask).await
    }
}

/// Heads of which the answers are kept: actions of the ones before may still be under way.
const HEADS: usize = 4;

/// The answers at the last heads.
#[derive(Default)]
pub struct AnswersByHead(RefCell<VecDeque<Rc<HeadAnswers>>>);

impl AnswersByHead {
    pub(super) fn at(&self, node: &Arc<dyn FullNode>, miner: Address, head: &TipSet) -> Rc<HeadAnswers> {
        let mut heads = self.0.borrow_mut();
        if let Some(known) = heads.iter().find(|known| known.key.0 == head.cids) {
            return known.clone();
        }
        let answers = Rc::new(HeadAnswers {
            node: node.clone(),
            miner,
            key: head.key(),
            network: Once::default(),
            allocated: Once::default(),
            seal_proof: Once::default(),
            randomness: RefCell::default(),
        });
        heads.push_back(answers.clone());
        if heads.len() > HEADS {
            heads.pop_front();
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn gone() -> FullNodeError {
        FullNodeError::Unreachable { node: "n".into(), why: "gone".into() }
    }

    #[tokio::test]
    async fn all_who_ask_together_share_one_answer_and_a_failure_is_asked_again() {
        let (once, asked) = (Once::<u64>::default(), Rc::new(Cell::new(0)));
        let ask = |answer: Answer<u64>| {
            let asked = asked.clone();
            once.get(move || async move {
                asked.set(asked.get() + 1);
                tokio::task::yield_now().await;
                answer
            })
        };
        let (a, b) = tokio::join!(ask(Err(gone())), ask(Ok(1)));
        assert!(a.is_err() && b.is_err(), "the second shares the failure of the first");
        assert_eq!(asked.get(), 1);
        let (a, b) = tokio::join!(ask(Ok(2)), ask(Ok(3)));
        assert_eq!((a.unwrap(), b.unwrap(), ask(Ok(4)).await.unwrap(), asked.get()), (2, 2, 2, 2));
    }

    #[tokio::test]
    async fn who_is_cancelled_leaves_the_question_to_the_others() {
        let once = Once::<u64>::default();
        let first = once.get(|| async {
            tokio::task::yield_now().await;
            Ok(5)
        });
        let mut first = Box::pin(first);
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        let second = once.get(|| async { Ok(6) }).await;
        assert_eq!(second.unwrap(), 5);
    }
}
