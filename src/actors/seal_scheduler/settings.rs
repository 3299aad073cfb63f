//! Operator settings of sealing, and the small sums that follow from them.

use super::machine::Rules;
use super::plan::Limits;
use crate::chain::TokenAmount;
use num_traits::Zero;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct SealSettings {
    pub rules: Rules,
    pub limits: Limits,
    /// `RegisteredSealProof`; `None` = the interactive proof of the miner's sector size on the network's version.
    pub seal_proof: Option<i64>,
    /// Epochs from the pre-commit to the sector's expiration. Networks want more than 180 days after the latest
    /// activation; the default is 540 days of 30 s.
    pub expiration: i64,
    /// Epochs that a ticket lies behind the head, so that no reorg changes it. On a chain that is younger, epoch 0.
    pub ticket_lookback: i64,
    /// Networks refuse a pre-commit whose ticket is older than this (2880 + 900 epochs).
    pub max_ticket_age: i64,
    /// A ticket is given up this long before it is too old: the message needs time to land.
    pub ticket_margin: i64,
    /// Epochs on top of the seed's epoch before it is drawn (Lotus' InteractivePoRepConfidence).
    pub seed_confidence: i64,
    /// Epochs on top of the activation before the cache is cleared.
    pub commit_confidence: i64,
    /// Epochs that a landed message may be invisible in the state before that counts.
    pub landed_grace: i64,
    /// Pay deposit and pledge from what the miner actor has free, as far as that goes. Two sectors at a time may count
    /// on the same free balance; a message that then fails is sent again.
    pub use_miner_balance: bool,
    /// Bytes of the disk that sealing here leaves free: for the store, messages and proofs.
    pub keep_free: u64,
    pub runtimes: Runtimes,
    pub place: Place,
    /// The name of this scheduler among several of one miner.
    pub shard: Option<String>,
}

/// The place where new sectors are sealed. A sector that has begun stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this node's repo.
    Here,
    /// At agents.
    Agents,
}

/// After this long a task counts as hung and its prover is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Runtimes {
    pub add_piece: Duration,
    pub pc1: Duration,
    pub pc2: Duration,
    pub c1: Duration,
    pub c2: Duration,
    pub verify: Duration,
    pub finalize: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for SealSettings {
    fn default() -> Self {
        SealSettings {
            rules: Rules::default(),
            limits: Limits::default(),
            seal_proof: None,
            expiration: 540 * 2880,
            ticket_lookback: 900,
            max_ticket_age: 2880 + 900,
            ticket_margin: 120,
            seed_confidence: 6,
            commit_confidence: 10,
            landed_grace: 20,
            use_miner_balance: false,
            keep_free: 1 << 30,
            place: Place::Here,
            shard: None,
            runtimes: Runtimes {
                add_piece: HOUR,
                pc1: HOUR * 24,
                pc2: HOUR * 6,
                c1: HOUR,
                c2: HOUR * 6,
                verify: HOUR / 6,
                finalize: HOUR,
            },
        }
    }
}

/// The amount to send with the message: the node's figure, which has a margin of a tenth for the time until the message
/// lands (lotus `node/impl/full/state.go`), less the miner's free balance. Never negative.
pub fn attach(need: &TokenAmount, available: &TokenAmount) -> TokenAmount {
    (need - available).max(TokenAmount::zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collateral_is_what_the_node_says_less_what_is_there() {
        let t = |n: i64| TokenAmount::from_atto(n);
        for (need, available, want) in
            [(10, 100, 0), (10, 5, 5), (10, 0, 10), (10, 9, 1), (10, 10, 0), (10, 11, 0), (0, 0, 0), (-5, 0, 0)]
        {
            assert_eq!(attach(&t(need), &t(available)), t(want), "{need} {available}");
        }
    }
}
