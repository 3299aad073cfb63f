//! A signed message's life as a pure state machine: what is stored, what the node shows, what to do next.

use super::messages::MessageSummary;
use super::record::{Open, Signed};
use crate::chain::ChainEpoch;

/// The node's view of a signed message at a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub head: ChainEpoch,
    /// Epoch of the tipset that executed one of its versions.
    pub executed_at: Option<ChainEpoch>,
    /// Epoch of the tipset that executed a self-transfer in its place.
    pub filled_at: Option<ChainEpoch>,
    /// The node says that another message was executed with the nonce.
    pub displaced: bool,
    /// The sender's next nonce by the chain's state.
    pub chain_nonce: u64,
    /// The sender's next nonce by the node's mempool: the first that it does not hold. `None`: it did not tell.
    pub pool_nonce: Option<u64>,
    /// A second execution would move nothing, and the message is for a deadline: gas is cheaper than a fault.
    pub rather_twice: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SendRules {
    /// Epochs on top of the executing tipset before an outcome is final.
    pub confidence: ChainEpoch,
    /// Epochs without landing before an ordinary message's fee is raised.
    pub replace_after: ChainEpoch,
    /// Epochs for which a used nonce without our message must be seen before it is believed.
    pub lost_after: ChainEpoch,
    /// The pause between two pushes of the same bytes where the mempool does not tell its nonce, or a gap stands in front.
    pub repush_every: ChainEpoch,
}

/// The same for a message for which gas is cheaper than a delay.
const LOST_AFTER_URGENT: ChainEpoch = 2;

/// The next action for a signed message.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageStep {
    /// The outcome is final: record it.
    Finish,
    /// A self-transfer has used the nonce for good: the message is free to be signed again, or is cancelled.
    Freed,
    /// Push the stored bytes (again).
    Push,
    /// Held by a mempool: is its fee still right?
    Price,
    /// Someone else used the nonce. Sign anew with another one.
    Renew,
    /// First seen with its nonce used by another message: remember since when.
    NoteNonceGone,
    /// The nonce is not used after all (a reorg): forget that it was.
    ForgetNonceGone,
    Wait(&'static str),
}

pub fn next_step(s: &Signed, seen: &Seen, rules: &SendRules) -> MessageStep {
    if let Some(at) = seen.executed_at {
        return match seen.head >= at + rules.confidence {
            true => MessageStep::Finish,
            false => MessageStep::Wait("on chain, waiting for confidence"),
        };
    }
    if let Some(at) = seen.filled_at {
        return match seen.rather_twice || seen.head >= at + rules.confidence {
            true => MessageStep::Freed,
            false => MessageStep::Wait("its nonce is freed, waiting for confidence"),
        };
    }
    if seen.chain_nonce > s.nonce {
        return nonce_gone(s, seen, rules);
    }
    if s.nonce_gone_since.is_some() {
        return MessageStep::ForgetNonceGone;
    }
    let Some(pushed_at) = s.pushed_at else { return MessageStep::Push };
    let since = seen.head - pushed_at;
    match seen.pool_nonce {
        Some(next) if next == s.nonce && since >= 1 => return MessageStep::Push,
        Some(next) if next < s.nonce && since >= rules.repush_every => return MessageStep::Push,
        None if since >= rules.repush_every => return MessageStep::Push,
        _ => {}
    }
    MessageStep::Price
}

fn nonce_gone(s: &Signed, seen: &Seen, rules: &SendRules) -> MessageStep {
    let Some(since) = s.nonce_gone_since else { return MessageStep::NoteNonceGone };
    let wait = match (seen.rather_twice, seen.displaced) {
        (true, true) => 1,
        (true, false) => LOST_AFTER_URGENT.min(rules.lost_after),
        // A node that names the other message may still see it reverted.
        (false, true) => rules.confidence.min(rules.lost_after),
        (false, false) => rules.lost_after,
    };
    match seen.head >= since + wait {
        true => MessageStep::Renew,
        false => MessageStep::Wait("its nonce is used on chain, its receipt is not found yet"),
    }
}

/// `open` in the order of arrival, each with its key and why it waits.
pub fn summary<'a>(open: impl Iterator<Item = (&'a str, &'a Open, String)>, head: ChainEpoch) -> MessageSummary {
    let mut all = MessageSummary::default();
    let mut oldest: Option<ChainEpoch> = None;
    for (key, open, why) in open {
        match &open.signed {
            Some(signed) => {
                all.pushed += 1;
                oldest = Some(oldest.map_or(signed.signed_at, |at| at.min(signed.signed_at)));
            }
            None => {
                all.queued += 1;
                all.waiting.get_or_insert_with(|| (key.to_string(), why));
            }
        }
    }
    all.oldest_epochs = oldest.map(|at| u64::try_from(head.saturating_sub(at)).unwrap_or(0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_and_names_the_oldest_only() {
        let open = |seq, signed_at: Option<ChainEpoch>| Open {
            seq,
            to: "t01".into(),
            from: None,
            method: 0,
            params: vec![],
            value: "0".into(),
            max_fee: "0".into(),
            closes: None,
            refusals: 0,
            refused_at: None,
            order: None,
            signed: signed_at.map(|signed_at| Signed { signed_at, nonce: seq, ..signed() }),
        };
        let all = [open(1, Some(12)), open(2, None), open(3, Some(9)), open(4, None)];
        let rows =
            ["a", "b", "c", "d"].into_iter().zip(&all).map(|(key, open)| (key, open, format!("why {}", open.seq)));
        let expected = MessageSummary {
            queued: 2,
            pushed: 2,
            oldest_epochs: Some(22),
            waiting: Some(("b".into(), "why 2".into())),
            alerts: vec![],
        };
        assert_eq!(summary(rows, 31), expected);
        assert_eq!(summary(std::iter::empty(), 31), MessageSummary::default());
    }

    const RULES: SendRules = SendRules { confidence: 5, replace_after: 10, lost_after: 8, repush_every: 4 };

    fn signed() -> Signed {
        Signed {
            json: String::new(),
            cid: "c".into(),
            nonce: 7,
            from: "t3".into(),
            pushed_at: Some(100),
            signed_at: 100,
            replaced: vec![],
            nonce_gone_since: None,
            held: true,
            fillers: vec![],
        }
    }

    fn seen(head: ChainEpoch) -> Seen {
        Seen {
            head,
            executed_at: None,
            filled_at: None,
            displaced: false,
            chain_nonce: 7,
            pool_nonce: Some(8),
            rather_twice: false,
        }
    }

    #[test]
    fn an_outcome_is_final_at_its_confidence() {
        for (head, final_) in [(103, false), (104, false), (105, true), (106, true)] {
            let step = next_step(&signed(), &Seen { executed_at: Some(100), chain_nonce: 8, ..seen(head) }, &RULES);
            assert_eq!(step == MessageStep::Finish, final_, "head {head}: {step:?}");
            // A self-transfer too, unless a second execution harms less than a delay.
            let filled = Seen { filled_at: Some(100), chain_nonce: 8, ..seen(head) };
            assert_eq!(next_step(&signed(), &filled, &RULES) == MessageStep::Freed, final_, "head {head}");
            let urgent = Seen { rather_twice: true, ..filled };
            assert_eq!(next_step(&signed(), &urgent, &RULES), MessageStep::Freed);
        }
    }

    #[test]
    fn stored_bytes_are_pushed_until_a_node_holds_them() {
        let never = Signed { pushed_at: None, ..signed() };
        assert_eq!(next_step(&never, &seen(100), &RULES), MessageStep::Push);
        for (pool_nonce, head, push) in [
            // The mempool lacks this one: at the next head.
            (Some(7), 100, false),
            (Some(7), 101, true),
            // It lacks one in front, or says nothing: now and then.
            (Some(6), 103, false),
            (Some(6), 104, true),
            (None, 103, false),
            (None, 104, true),
            (Some(8), 150, false),
            (Some(9), 150, false),
        ] {
            let step = next_step(&signed(), &Seen { pool_nonce, ..seen(head) }, &RULES);
            assert_eq!(step, if push { MessageStep::Push } else { MessageStep::Price }, "{pool_nonce:?} {head}");
        }
    }

    #[test]
    fn a_used_nonce_is_believed_only_after_a_while_and_forgotten_after_a_reorg() {
        let used = |head| Seen { chain_nonce: 8, ..seen(head) };
        assert_eq!(next_step(&signed(), &used(100), &RULES), MessageStep::NoteNonceGone);
        let noted = Signed { nonce_gone_since: Some(100), ..signed() };
        for (head, displaced, rather_twice, renew) in [
            (107, false, false, false),
            (108, false, false, true),
            (104, true, false, false),
            (105, true, false, true),
            (101, false, true, false),
            (102, false, true, true),
            (100, true, true, false),
            (101, true, true, true),
        ] {
            let seen = Seen { displaced, rather_twice, ..used(head) };
            assert_eq!(next_step(&noted, &seen, &RULES) == MessageStep::Renew, renew, "{seen:?}");
        }
        assert_eq!(next_step(&noted, &seen(120), &RULES), MessageStep::ForgetNonceGone);
    }
}
