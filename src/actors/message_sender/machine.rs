//! A message's life as a pure state machine: what is stored, what the chain shows, what to do next.

use super::messages::MessageSummary;
use crate::chain::{ChainEpoch, TokenAmount};
use crate::store::Record;
use num_bigint::BigInt;
use serde::{Deserialize, Serialize};

/// A message on its way. Text forms, because the store's encoding is not self-describing.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Open {
    /// Order of arrival.
    pub seq: u64,
    pub to: String,
    pub from: Option<String>,
    pub method: u64,
    pub params: Vec<u8>,
    /// attoFIL, decimal.
    pub value: String,
    pub max_fee: String,
    pub why_waiting: String,
    /// The head when it was last looked at.
    pub seen_at: ChainEpoch,
    /// Verdicts (not outages) in a row by which the node refused to estimate it.
    pub refusals: u32,
    pub signed: Option<Signed>,
}

impl Record for Open {
    const TABLE: &'static str = "messages";
}

/// A signed message. Its bytes are stored before the first push; pushes only ever repeat them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Signed {
    /// `SignedMessage` in Lotus' JSON.
    pub json: String,
    pub cid: String,
    pub nonce: u64,
    /// Full address form that signed it.
    pub from: String,
    /// The last push that a node took.
    pub pushed_at: Option<ChainEpoch>,
    /// When these bytes were signed.
    pub signed_at: ChainEpoch,
    /// Earlier versions with the same nonce and a lower fee: any of them may land.
    pub replaced: Vec<String>,
    /// The epoch at which the chain first showed the nonce used with none of our versions found.
    pub nonce_gone_since: Option<ChainEpoch>,
}

/// How a message ended.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Done {
    pub at: ChainEpoch,
    pub outcome: MessageOutcome,
}

impl Record for Done {
    const TABLE: &'static str = "messages_done";
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MessageOutcome {
    Landed { cid: String, epoch: ChainEpoch, tipset: Vec<String>, return_data: Vec<u8> },
    Failed { exit_code: i64, error: String },
}

/// The next nonce of a sender address; shared by every miner that uses the address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NextNonce(pub u64);

impl Record for NextNonce {
    const TABLE: &'static str = "nonces";
}

/// The node's view of a signed message at a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub head: ChainEpoch,
    /// Epoch of the tipset that executed one of its versions.
    pub executed_at: Option<ChainEpoch>,
    /// The sender's next nonce by the chain's state.
    pub chain_nonce: u64,
    /// `None` when the node cannot list its mempool.
    pub in_mempool: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SendRules {
    /// Epochs on top of the executing tipset before an outcome is final.
    pub confidence: ChainEpoch,
    /// Epochs without landing before the fee is raised.
    pub replace_after: ChainEpoch,
    /// Epochs for which a used nonce without our message must be seen before it is believed.
    pub lost_after: ChainEpoch,
    /// Without a mempool listing, the same bytes are pushed again this often.
    pub repush_every: ChainEpoch,
}

/// The next action for a signed message.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageStep {
    /// The outcome is final: record it.
    Finish,
    /// Push the stored bytes (again).
    Push,
    /// Sign the same nonce with a higher fee.
    Replace,
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
        return if seen.head >= at + rules.confidence {
            MessageStep::Finish
        } else {
            MessageStep::Wait("on chain, waiting for confidence")
        };
    }
    if seen.chain_nonce > s.nonce {
        return match s.nonce_gone_since {
            None => MessageStep::NoteNonceGone,
            Some(since) if seen.head >= since + rules.lost_after => MessageStep::Renew,
            Some(_) => MessageStep::Wait("its nonce is used on chain, its receipt is not found yet"),
        };
    }
    if s.nonce_gone_since.is_some() {
        return MessageStep::ForgetNonceGone;
    }
    let Some(pushed_at) = s.pushed_at else { return MessageStep::Push };
    match seen.in_mempool {
        Some(false) => return MessageStep::Push,
        None if seen.head >= pushed_at + rules.repush_every => return MessageStep::Push,
        Some(true) | None => {}
    }
    // Only the lowest open nonce can be late for its fee; the others wait for it.
    if seen.chain_nonce == s.nonce && seen.head >= s.signed_at + rules.replace_after {
        return MessageStep::Replace;
    }
    MessageStep::Wait("in the mempool")
}

/// `open` in the order of arrival.
pub fn summary<'a>(open: impl Iterator<Item = (&'a str, &'a Open)>) -> MessageSummary {
    let mut all = MessageSummary::default();
    let mut oldest: Option<ChainEpoch> = None;
    let mut head = ChainEpoch::MIN;
    for (key, open) in open {
        head = head.max(open.seen_at);
        match &open.signed {
            Some(signed) => {
                all.pushed += 1;
                oldest = Some(oldest.map_or(signed.signed_at, |at| at.min(signed.signed_at)));
            }
            None => {
                all.queued += 1;
                all.waiting.get_or_insert_with(|| (key.to_string(), open.why_waiting.clone()));
            }
        }
    }
    all.oldest_epochs = oldest.map(|at| u64::try_from(head.saturating_sub(at)).unwrap_or(0));
    all
}

/// A node's estimate, held within `max_fee`: fee cap x limit is at most that, the premium at most the fee cap. Not
/// every node takes the bound itself.
pub fn bounded_fee(
    cap: &TokenAmount,
    premium: &TokenAmount,
    gas_limit: i64,
    max_fee: &TokenAmount,
) -> (TokenAmount, TokenAmount) {
    let most = TokenAmount::from_atto(max_fee.atto() / gas_limit.max(1));
    let cap = cap.clone().min(most);
    (cap.clone(), premium.clone().min(cap))
}

/// Fee cap and premium x1.25 (the mempool's least raise), rounded up, fee cap bounded so that cap x limit stays within
/// `max_fee`. `None` when the bound leaves no room for the least raise.
pub fn raised_fee(
    cap: &TokenAmount,
    premium: &TokenAmount,
    gas_limit: i64,
    max_fee: &TokenAmount,
) -> Option<(TokenAmount, TokenAmount)> {
    let raise = |t: &TokenAmount| -> BigInt { (t.atto() * 125u8 + 99u8) / 100u8 + 1u8 };
    let (cap, premium) = (raise(cap), raise(premium));
    let cost: BigInt = &cap * gas_limit.max(1);
    if cost > *max_fee.atto() {
        return None;
    }
    let premium = premium.min(cap.clone());
    Some((TokenAmount::from_atto(cap), TokenAmount::from_atto(premium)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_and_names_the_oldest_only() {
        let open = |seq, seen_at, signed_at: Option<ChainEpoch>| Open {
            seq,
            to: "t01".into(),
            from: None,
            method: 0,
            params: vec![],
            value: "0".into(),
            max_fee: "0".into(),
            why_waiting: format!("why {seq}"),
            seen_at,
            refusals: 0,
            signed: signed_at.map(|signed_at| Signed {
                json: String::new(),
                cid: String::new(),
                nonce: seq,
                from: String::new(),
                pushed_at: None,
                signed_at,
                replaced: vec![],
                nonce_gone_since: None,
            }),
        };
        let all = [open(1, 30, Some(12)), open(2, 30, None), open(3, 31, Some(9)), open(4, 0, None)];
        let told = summary(["a", "b", "c", "d"].into_iter().zip(&all));
        let expected = MessageSummary {
            queued: 2,
            pushed: 2,
            oldest_epochs: Some(22),
            waiting: Some(("b".into(), "why 2".into())),
        };
        assert_eq!(told, expected);
        assert_eq!(summary(std::iter::empty()), MessageSummary::default());
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
        }
    }

    fn seen(head: ChainEpoch) -> Seen {
        Seen { head, executed_at: None, chain_nonce: 7, in_mempool: Some(true) }
    }

    #[test]
    fn an_outcome_is_final_at_its_confidence() {
        for (head, final_) in [(103, false), (104, false), (105, true), (106, true)] {
            let step = next_step(&signed(), &Seen { executed_at: Some(100), chain_nonce: 8, ..seen(head) }, &RULES);
            assert_eq!(step == MessageStep::Finish, final_, "head {head}: {step:?}");
        }
    }

    #[test]
    fn stored_bytes_are_pushed_until_a_node_holds_them() {
        let never = Signed { pushed_at: None, ..signed() };
        assert_eq!(next_step(&never, &seen(100), &RULES), MessageStep::Push);
        let forgotten = Seen { in_mempool: Some(false), ..seen(101) };
        assert_eq!(next_step(&signed(), &forgotten, &RULES), MessageStep::Push);
        for (head, push) in [(103, false), (104, true), (105, true)] {
            let blind = Seen { in_mempool: None, ..seen(head) };
            assert_eq!(next_step(&signed(), &blind, &RULES) == MessageStep::Push, push, "head {head}");
        }
    }

    #[test]
    fn the_fee_is_raised_late_and_only_for_the_lowest_nonce() {
        for (head, raise) in [(109, false), (110, true), (111, true)] {
            assert_eq!(next_step(&signed(), &seen(head), &RULES) == MessageStep::Replace, raise, "head {head}");
        }
        let behind = Seen { chain_nonce: 6, ..seen(200) };
        assert_eq!(next_step(&signed(), &behind, &RULES), MessageStep::Wait("in the mempool"));
    }

    #[test]
    fn a_used_nonce_is_believed_only_after_a_while_and_forgotten_after_a_reorg() {
        let used = |head| Seen { chain_nonce: 8, in_mempool: Some(false), ..seen(head) };
        assert_eq!(next_step(&signed(), &used(100), &RULES), MessageStep::NoteNonceGone);
        let noted = Signed { nonce_gone_since: Some(100), ..signed() };
        for (head, renew) in [(107, false), (108, true), (109, true)] {
            assert_eq!(next_step(&noted, &used(head), &RULES) == MessageStep::Renew, renew, "head {head}");
        }
        assert_eq!(next_step(&noted, &seen(120), &RULES), MessageStep::ForgetNonceGone);
    }

    #[test]
    fn an_estimate_stays_within_the_bound() {
        let t = |n: u64| TokenAmount::from_atto(n);
        for (cap, premium, max_fee, want) in [
            (100, 10, 99_999, (99, 10)),
            (100, 10, 100_000, (100, 10)),
            (100, 10, 100_001, (100, 10)),
            (100, 100, 50_000, (50, 50)),
            (100, 200, 1_000_000, (100, 100)),
        ] {
            let got = bounded_fee(&t(cap), &t(premium), 1000, &t(max_fee));
            assert_eq!(got, (t(want.0), t(want.1)), "{cap} {premium} {max_fee}");
        }
    }

    #[test]
    fn a_raise_is_at_least_a_quarter_and_stays_within_the_bound() {
        let t = |n: u64| TokenAmount::from_atto(n);
        let (cap, premium) = raised_fee(&t(100), &t(10), 1000, &t(1_000_000)).unwrap();
        assert_eq!((cap, premium), (t(126), t(14)));
        assert!(raised_fee(&t(100), &t(10), 1000, &t(125_999)).is_none());
        assert!(raised_fee(&t(100), &t(10), 1000, &t(126_000)).is_some());
        let (cap, premium) = raised_fee(&t(0), &t(0), 1, &t(10)).unwrap();
        assert!(cap > t(0) && premium > t(0), "a zero fee can be raised too");
    }
}
