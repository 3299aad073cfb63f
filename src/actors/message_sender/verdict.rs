//! Classifies a node's refusal of a message: texts of Lotus' and Forest's mempools, sorted by what to do.

use crate::chain::types::MsgLookup;
use crate::rpc::full_node::{FullNodeError, MessageVerdict};

/// A node's answer to a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// It holds the message now.
    Held,
    /// The nonce is used on chain: the receipt search will tell by whom.
    NonceUsed,
    /// The mempool holds other bytes of this nonce, and the fee is not high enough to replace them.
    FeeTooLow,
    /// The sender cannot pay it, alone or beside its other messages.
    Funds(String),
    /// No block can ever hold these bytes: no node takes them.
    Invalid(String),
    /// The node refuses them for a reason that lies elsewhere (a gap below, a full pool): the same bytes again later.
    Busy(String),
    /// The node refuses them for a reason that is not known here.
    Refused(String),
    /// No answer: whether the node holds them is not known.
    NoAnswer(String),
}

pub fn push_verdict(answer: &Result<cid::Cid, FullNodeError>) -> Push {
    let e = match answer {
        Ok(_) => return Push::Held,
        Err(e) => e,
    };
    let FullNodeError::Rpc { message, .. } = e else { return Push::NoAnswer(e.to_string()) };
    let text = message.to_lowercase();
    // Lotus' and Venus' words, then Forest's. The order counts: a refused replacement is "already in mpool" too.
    const USED: [&str; 3] = ["nonce too low", "minimum expected nonce", "sequence too low"];
    const BUSY: [&str; 4] = ["nonce gap", "too big a gap", "too many pending messages", "check sender balance"];
    const TOO_LOW: [&str; 4] = ["replace by fee", "rbf", "gas premium too low", "lower than min gas price"];
    const HELD: [&str; 4] = ["already in mpool", "already exists", "same cid", "already in mempool"];
    const FUNDS: [&str; 3] = ["not enough funds", "insufficient funds", "insufficient balance"];
    // Lotus' `ValidForBlockInclusion` and `checkMessage`; Forest's `valid_for_block_inclusion`.
    const INVALID: [&str; 11] = [
        "will not be included in a block",
        "not valid for block inclusion",
        "gaslimit",
        "gas limit",
        "gas_limit",
        "less than 'gaspremium'",
        "less than gas_premium",
        "too big",
        "too large",
        "signature verification failed",
        "message had invalid to address",
    ];
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&USED) {
        Push::NonceUsed
    } else if says(&BUSY) {
        Push::Busy(e.to_string())
    } else if says(&TOO_LOW) {
        Push::FeeTooLow
    } else if says(&HELD) {
        Push::Held
    } else if says(&FUNDS) {
        Push::Funds(e.to_string())
    } else if says(&INVALID) {
        Push::Invalid(e.to_string())
    } else {
        Push::Refused(e.to_string())
    }
}

/// A node's answer to the search for a message.
#[derive(Clone, Debug)]
pub enum Search {
    Found(Box<MsgLookup>),
    /// Not executed as far as this node sees; also what a node says of a message that it never had.
    NotFound,
    /// Another message was executed with its nonce.
    Displaced,
}

/// Lotus' and Forest's errors about the message are answers; anything else says nothing.
pub fn search_verdict(answer: Result<Option<MsgLookup>, FullNodeError>) -> Result<Search, FullNodeError> {
    match answer {
        Ok(Some(found)) => Ok(Search::Found(Box::new(found))),
        Ok(None) => Ok(Search::NotFound),
        Err(e) => match e.of_message() {
            Some(MessageVerdict::Displaced) => Ok(Search::Displaced),
            Some(MessageVerdict::NotHere) => Ok(Search::NotFound),
            None => Err(e),
        },
    }
}

/// A failed estimate's verdict on the message itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Estimate {
    /// The node could not be asked: says nothing of the message.
    NoAnswer(String),
    /// The message would fail on chain now; the exit code where the text names one.
    WouldFail { exit_code: i64, why: String },
}

pub fn estimate_verdict(e: &FullNodeError) -> Estimate {
    match e {
        FullNodeError::Rpc { message, .. } => {
            Estimate::WouldFail { exit_code: exit_code_in(message).unwrap_or(-1), why: e.to_string() }
        }
        e => Estimate::NoAnswer(e.to_string()),
    }
}

/// Lotus: `message execution failed (exit=[ErrIllegalArgument(16)], ...)`, `RetCode=16`; Forest: `exit code: 16`, `ExitCode(16)`.
fn exit_code_in(text: &str) -> Option<i64> {
    let lower = text.to_lowercase();
    ["exit=[", "retcode=", "exit code: ", "exit code ", "exitcode(", "exit "].iter().find_map(|mark| {
        let rest = &lower[lower.find(mark)? + mark.len()..];
        // The code's name may stand before it.
        let rest = match *mark {
            "exit=[" | "retcode=" => rest.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '('),
            _ => rest,
        };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(message: &str) -> FullNodeError {
        FullNodeError::Rpc { node: "n".into(), method: "MpoolPush", code: 1, message: message.into() }
    }

    #[test]
    fn refusals_sort_into_what_to_do() {
        for (text, want) in [
            ("message nonce too low: 3 < 4", Push::NonceUsed),
            ("minimum expected nonce is 4: message nonce too low", Push::NonceUsed),
            ("replace by fee has too low GasPremium", Push::FeeTooLow),
            ("message with nonce already exists", Push::Held),
            ("message from t3 with nonce 4 already in mpool: message with nonce already exists", Push::Held),
            (
                "message from t3 with nonce 4 already in mpool, increase GasPremium to 2 from 1 to trigger replace by fee: replace by fee has too low GasPremium",
                Push::FeeTooLow,
            ),
            ("Message sequence too low", Push::NonceUsed),
            ("gas price is lower than min gas price", Push::FeeTooLow),
            ("Message with sequence already in mempool", Push::Held),
        ] {
            assert_eq!(push_verdict(&Err(rpc(text))), want, "{text}");
        }
        // Sorted by their kind; the text is the node's.
        type Is = fn(&Push) -> bool;
        const FUNDS: Is = |push| matches!(push, Push::Funds(_));
        const INVALID: Is = |push| matches!(push, Push::Invalid(_));
        const BUSY: Is = |push| matches!(push, Push::Busy(_));
        const REFUSED: Is = |push| matches!(push, Push::Refused(_));
        for (text, is) in [
            ("not enough funds (required: 1 FIL, balance: 0 FIL): not enough funds to execute transaction", FUNDS),
            (
                "not enough funds including pending messages (required: 1 FIL, balance: 0 FIL): validation failure",
                FUNDS,
            ),
            ("Not enough funds to execute transaction, balance: 0, required: 1", FUNDS),
            (
                "message will not be included in a block: 'GasLimit' field cannot be greater than a block's gas limit (12 > 10)",
                INVALID,
            ),
            ("gas_limit 12 cannot be greater than block gas limit", INVALID),
            ("message has a gas limit of 12: it must be in 1..=10", INVALID),
            ("mpool message too large (70000B): message too big", INVALID),
            ("gas_fee_cap less than gas_premium", INVALID),
            (
                "message nonce has too big a gap from expected nonce (Nonce: 9, nextNonce: 3): unfulfilled nonce gap",
                BUSY,
            ),
            ("too many pending messages for actor", BUSY),
            ("failed to check sender balance: no tipset: validation failure", BUSY),
            ("something that nobody has seen", REFUSED),
        ] {
            let verdict = push_verdict(&Err(rpc(text)));
            assert!(is(&verdict), "{text}: {verdict:?}");
        }
        let gone = FullNodeError::Unreachable { node: "n".into(), why: "refused".into() };
        assert!(matches!(push_verdict(&Err(gone.clone())), Push::NoAnswer(_)));
        assert!(matches!(estimate_verdict(&gone), Estimate::NoAnswer(_)));
    }

    #[test]
    fn errors_of_a_search_are_answers_where_they_say_something_of_the_message() {
        for (text, want) in [
            ("failed to load message: ipld: could not find bafy2", "NotFound"),
            ("failed to load message bafy2: not found", "NotFound"),
            (
                "checking for message execution during lookback: message was replaced: found message with equal nonce as the one we are looking for that is NOT a valid replacement message (F:bafy n 3, TS: bafy n3)",
                "Displaced",
            ),
            (
                "found message with equal nonce and call params but different CID. wanted a, found: b, nonce: 1",
                "Displaced",
            ),
        ] {
            let got = search_verdict(Err(rpc(text))).unwrap();
            assert_eq!(format!("{got:?}"), want, "{text}");
        }
        assert!(matches!(search_verdict(Ok(None)), Ok(Search::NotFound)));
        for text in ["failed to load initial tipset", "failed to load the actor: actor not found"] {
            assert!(search_verdict(Err(rpc(text))).is_err(), "{text}");
        }
        let gone = FullNodeError::Unreachable { node: "n".into(), why: "refused".into() };
        assert!(search_verdict(Err(gone)).is_err(), "an outage says nothing");
    }

    #[test]
    fn exit_codes_are_read_from_the_texts_of_both_nodes() {
        for (text, want) in [
            ("message execution failed (exit=[16], revert reason=[none])", 16),
            (
                "message execution failed (exit=[ErrIllegalArgument(16)], vm error=[message failed with backtrace: 0])",
                16,
            ),
            ("message execution failed (exit=[SysErrInsufficientFunds(6)], vm error=[])", 6),
            ("message execution failed: exit code: 16, reason: invalid expiration", 16),
            ("CallMessage: RetCode=18", 18),
            ("failed with exit code 19", 19),
            ("ExitCode(20)", 20),
            ("estimating gas: no such actor", -1),
            ("exit ", -1),
        ] {
            match estimate_verdict(&rpc(text)) {
                Estimate::WouldFail { exit_code, .. } => assert_eq!(exit_code, want, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
