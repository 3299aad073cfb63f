//! In which order the nodes of a pool are asked: the eight policies of the pool's manual.

use crate::chain::ChainEpoch;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The first node that can be used, then the next ones.
    OneByIndexAsc,
    /// The last node that can be used, then the ones before.
    OneByIndexDesc,
    /// Each call begins at another node: the method's calls so far, modulo the number of nodes.
    OneByIdRound,
    /// The heaviest chain first; of equals, the higher head.
    OneByChainHeadDesc,
    /// The most peers that pass on messages first.
    OneByMessagePeersDesc,
    /// The most peers that pass on blocks first.
    OneByBlockPeersDesc,
    /// The caller's primary first: its seed modulo the number of nodes, or the node that it was bound to.
    OneBySeedRound,
    /// All at once; the first success is the answer.
    AllWithFirstSucceed,
}

impl Policy {
    pub const ALL: [Policy; 8] = [
        Policy::OneByIndexAsc,
        Policy::OneByIndexDesc,
        Policy::OneByIdRound,
        Policy::OneByChainHeadDesc,
        Policy::OneByMessagePeersDesc,
        Policy::OneByBlockPeersDesc,
        Policy::OneBySeedRound,
        Policy::AllWithFirstSucceed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Policy::OneByIndexAsc => "OneByIndexAsc",
            Policy::OneByIndexDesc => "OneByIndexDesc",
            Policy::OneByIdRound => "OneByIdRound",
            Policy::OneByChainHeadDesc => "OneByChainHeadDesc",
            Policy::OneByMessagePeersDesc => "OneByMessagePeersDesc",
            Policy::OneByBlockPeersDesc => "OneByBlockPeersDesc",
            Policy::OneBySeedRound => "OneBySeedRound",
            Policy::AllWithFirstSucceed => "AllWithFirstSucceed",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = String;
    /// The names of the manual. It prints `FirstOk` and `RoundRobin` in one listing for two of them.
    fn from_str(text: &str) -> Result<Policy, String> {
        match text {
            "FirstOk" => return Ok(Policy::AllWithFirstSucceed),
            "RoundRobin" => return Ok(Policy::OneByIdRound),
            _ => {}
        }
        Policy::ALL
            .into_iter()
            .find(|policy| policy.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is no policy; there are {}", Policy::ALL.map(Policy::name).join(", ")))
    }
}

/// A node that may be asked, as the policies see it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Candidate {
    /// Its place among all nodes of the pool, also those that can't be used now.
    pub index: usize,
    pub head: Option<ChainEpoch>,
    /// Of its head's chain.
    pub weight: Option<num_bigint::BigInt>,
    pub message_peers: Option<u64>,
    pub block_peers: Option<u64>,
}

/// `candidates` in the order in which they are asked. `of`: how many nodes the pool has; `start`: the place where a round
/// begins (a seed, a count of calls, or the primary's index).
pub fn order(policy: Policy, candidates: &[Candidate], of: usize, start: u64) -> Vec<usize> {
    let mut nodes: Vec<&Candidate> = candidates.iter().collect();
    let first = (start % of.max(1) as u64) as usize;
    nodes.sort_by_key(|node| node.index);
    match policy {
        Policy::OneByIndexAsc | Policy::AllWithFirstSucceed => {}
        Policy::OneByIndexDesc => nodes.reverse(),
        Policy::OneByIdRound | Policy::OneBySeedRound => nodes.sort_by_key(|node| (node.index < first, node.index)),
        Policy::OneByChainHeadDesc => {
            nodes.sort_by(|a, b| b.weight.cmp(&a.weight).then(b.head.cmp(&a.head)));
        }
        Policy::OneByMessagePeersDesc => nodes.sort_by_key(|node| std::cmp::Reverse(node.message_peers)),
        Policy::OneByBlockPeersDesc => nodes.sort_by_key(|node| std::cmp::Reverse(node.block_peers)),
    }
    nodes.into_iter().map(|node| node.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(index: usize, head: i64, weight: i64, messages: u64, blocks: u64) -> Candidate {
        let (message_peers, block_peers) = (Some(messages), Some(blocks));
        Candidate { index, head: Some(head), weight: Some(weight.into()), message_peers, block_peers }
    }

    #[test]
    fn each_policy_orders_the_nodes_that_can_be_used() {
        // Node 2 of five can't be used.
        let nodes = [node(0, 9, 50, 1, 7), node(1, 10, 40, 3, 5), node(3, 10, 60, 2, 6), node(4, 8, 10, 9, 1)];
        for (policy, start, expected) in [
            (Policy::OneByIndexAsc, 3, [0, 1, 3, 4]),
            (Policy::OneByIndexDesc, 3, [4, 3, 1, 0]),
            (Policy::OneByIdRound, 0, [0, 1, 3, 4]),
            (Policy::OneByIdRound, 1, [1, 3, 4, 0]),
            (Policy::OneByIdRound, 2, [3, 4, 0, 1]), // its node is away: the next one
            (Policy::OneByIdRound, 9, [4, 0, 1, 3]),
            (Policy::OneBySeedRound, 1003, [3, 4, 0, 1]),
            (Policy::OneByChainHeadDesc, 0, [3, 0, 1, 4]),
            (Policy::OneByMessagePeersDesc, 0, [4, 1, 3, 0]),
            (Policy::OneByBlockPeersDesc, 0, [0, 3, 1, 4]),
            (Policy::AllWithFirstSucceed, 0, [0, 1, 3, 4]),
        ] {
            assert_eq!(order(policy, &nodes, 5, start), expected, "{policy} from {start}");
        }
        // What a node does not tell comes last.
        let silent = Candidate { index: 0, ..Candidate::default() };
        for policy in [Policy::OneByChainHeadDesc, Policy::OneByMessagePeersDesc, Policy::OneByBlockPeersDesc] {
            assert_eq!(order(policy, &[silent.clone(), node(1, 1, 1, 0, 0)], 2, 0), [1, 0], "{policy}");
        }
        assert_eq!(order(Policy::OneBySeedRound, &[], 0, 7), Vec::<usize>::new());
    }

    #[test]
    fn names_are_read_back() {
        for policy in Policy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
        }
        assert_eq!("FirstOk".parse(), Ok(Policy::AllWithFirstSucceed));
        assert!("OneByLuck".parse::<Policy>().unwrap_err().contains("OneBySeedRound"));
    }
}
