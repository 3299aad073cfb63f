//! Classifies a node's refusal of a message: texts of Lotus' and Forest's mempools, sorted by what to do.

use crate::rpc::full_node::FullNodeError;

/// A node's answer to a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// It holds the message now.
    Held,
    /// The nonce is used on chain: the receipt search will tell by whom.
    NonceUsed,
    /// A replacement whose fee is not high enough, or another message with this nonce.
    FeeTooLow,
    /// Try again on the next head, with the reason shown.
    Later(String),
}

pub fn push_verdict(answer: &Result<cid::Cid, FullNodeError>) -> Push {
    let e = match answer {
        Ok(_) => return Push::Held,
        Err(e) => e,
    };
    let FullNodeError::Rpc { message, .. } = e else { return Push::Later(e.to_string()) };
    let text = message.to_lowercase();
    // Lotus' and Venus' words, then Forest's. The order counts: a refused replacement is "already in mpool" too.
    const USED: [&str; 3] = ["nonce too low", "minimum expected nonce", "sequence too low"];
    const TOO_LOW: [&str; 4] = ["replace by fee", "rbf", "gas premium too low", "lower than min gas price"];
    const HELD: [&str; 4] = ["already in mpool", "already exists", "same cid", "already in mempool"];
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&USED) {
        Push::NonceUsed
    } else if says(&TOO_LOW) {
        Push::FeeTooLow
    } else if says(&HELD) {
        Push::Held
    } else {
        Push::Later(e.to_string())
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
        assert!(matches!(push_verdict(&Err(rpc("not enough funds to execute transaction"))), Push::Later(_)));
        let gone = FullNodeError::Unreachable { node: "n".into(), why: "refused".into() };
        assert!(matches!(push_verdict(&Err(gone.clone())), Push::Later(_)));
        assert!(matches!(estimate_verdict(&gone), Estimate::NoAnswer(_)));
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
