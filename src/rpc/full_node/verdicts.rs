//! Errors of a full node that are answers: what Lotus and Forest say where another node would answer `null`.

use super::FullNodeError;

/// The meaning of an error of `StateSearchMsg` for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageVerdict {
    /// This node has never held a message with this CID. Another node may know it.
    NotHere,
    /// Another message has used the nonce on chain: this one will never land.
    Displaced,
}

impl FullNodeError {
    fn says(&self, phrases: &[&str]) -> bool {
        let FullNodeError::Rpc { message, .. } = self else { return false };
        phrases.iter().any(|phrase| message.contains(phrase))
    }

    /// The verdict of `StateSearchMsg` or `StateWaitMsg` on the message; `None` when the error says nothing of it.
    pub fn of_message(&self) -> Option<MessageVerdict> {
        // Lotus (`chain/stmgr/searchwait.go`), older versions of it without the first words; Forest
        // (`state_manager/message_search.rs`) says the last where only the fee differs.
        const DISPLACED: [&str; 2] = ["message was replaced", "found message with equal nonce"];
        if self.says(&["failed to load message"]) {
            Some(MessageVerdict::NotHere)
        } else if self.says(&DISPLACED) {
            Some(MessageVerdict::Displaced)
        } else {
            None
        }
    }

    /// The chain has no actor under the address asked for.
    pub fn names_no_actor(&self) -> bool {
        self.says(&["actor not found", "Actor not found"])
    }

    /// The actor asked about with `StateAccountKey` is not the account of one key (lotus `account.Load`, older ones
    /// `ResolveToKeyAddr`; forest `account::State::load`).
    pub fn names_no_account(&self) -> bool {
        const SAID: [&str; 4] = [
            "actor code is not account",
            "unknown actor code",
            "nknown account actor code",
            "was not for an account actor",
        ];
        self.says(&SAID)
    }

    /// One of the numbers given to `StateMinerSectors` is no sector on chain (exit code 17, `ErrNotFound`).
    pub fn names_unknown_sector(&self) -> bool {
        self.says(&["sector not found", "can't find sector"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rpc(code: i64, message: &str) -> FullNodeError {
        FullNodeError::Rpc { node: "n".into(), method: "m", code, message: message.into() }
    }

    #[test]
    fn what_lotus_and_forest_say_of_a_message() {
        use MessageVerdict::{Displaced, NotHere};
        for (text, verdict) in [
            ("failed to load message: ipld: could not find bafy2bza", Some(NotHere)),
            ("failed to load message Invalid tipset: bafy2bza", Some(NotHere)),
            (
                "message was replaced: found message with equal nonce as the one we are looking for that is NOT a valid \
                 replacement message (F:bafy n 5, TS: bafy n5)",
                Some(Displaced),
            ),
            ("found message with equal nonce as the one we are looking for (F:bafy n 5, TS: bafy n5)", Some(Displaced)),
            ("failed to load tipset during msg wait searchback: blockstore", None),
            ("timed out", None),
        ] {
            assert_eq!(rpc(1, text).of_message(), verdict, "{text}");
        }
        let gone = FullNodeError::Unreachable { node: "n".into(), why: "failed to load message".into() };
        assert_eq!(gone.of_message(), None);
    }

    #[test]
    fn what_lotus_and_forest_say_of_actors_and_sectors() {
        assert!(rpc(11, "actor not found").names_no_actor());
        assert!(rpc(1, "resolution lookup failed (f3x): resolve address f3x: actor not found").names_no_actor());
        assert!(rpc(-32603, "Actor not found: addr=f3x").names_no_actor());
        assert!(!rpc(1, "loading tipset: block not found").names_no_actor());
        let lotus = "failed to get account actor state for f01000: actor code is not account: multisig";
        assert!(rpc(1, lotus).names_no_account());
        assert!(rpc(-32603, "Unknown account actor code bafk2bz").names_no_account());
        assert!(!rpc(1, "failed to load tipset: context deadline exceeded").names_no_account());
        assert!(rpc(1, "failed to load sectors: can't find sector 9").names_unknown_sector());
        assert!(
            rpc(-32603, "ActorError(exit_code: ExitCode { value: 17 }, msg: sector not found: 9)")
                .names_unknown_sector()
        );
        assert!(!rpc(1, "failed to load miner actor: actor not found").names_unknown_sector());
    }
}
