//! Whether another node of the pool is asked after an error: errors are classed by kind and code first, then by text.

use crate::rpc::client::CallErrorKind;

/// How the pool goes on after a node's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The error is the answer.
    Answer,
    /// The node failed: the next one is asked, and the node's breaker counts it.
    OtherNode,
    /// The node does not know what the others may: a block or an actor that has not reached it, a key that another wallet
    /// holds, an upgrade's state that it refuses to compute. The next one is asked; the node is none the worse for it.
    OtherMayKnow,
}

/// The texts of Lotus, Forest and Venus for a block, a tipset or a message that a node does not hold.
const NO_BLOCK: [&str; 9] = [
    "block not found",
    "could not find",
    "failed to load message",
    "tipset not found",
    "loading tipset",
    "load tipset",
    "cannot find tipset",
    "Invalid tipset",
    "requested epoch was in the future",
];
/// For an actor or a key. Forest writes them with a capital letter.
const NO_ACTOR_OR_KEY: [&str; 7] = [
    "actor not found",
    "Actor not found",
    "key not found",
    "Key not found",
    "key info not found",
    "address not found",
    "resolution lookup failed",
];
/// JSON-RPC's codes for a node that is busy or at the epoch of an upgrade (Lotus), and for one that broke.
const NOT_NOW: [i64; 2] = [-32002, -32005];
const INTERNAL_OR_PANIC: [&str; 2] = ["panic in rpc method", "connection refused"];

/// Methods that act each time they are called: once a node may have taken one it is never sent to another.
const ACTS: [&str; 8] = [
    "MpoolPushMessage",
    "MpoolBatchPushMessage",
    "WalletNew",
    "WalletImport",
    "WalletDelete",
    "AuthNew",
    "Shutdown",
    "MinerCreateBlock",
];

/// Calls that wait for something to happen on the chain: to be slow is no fault of the node. `method` without its namespace.
pub fn waits(method: &str) -> bool {
    matches!(method, "StateWaitMsg" | "StateWaitMsgLimited" | "PaychGetWaitReady")
}

/// `method` without its namespace.
pub fn may_repeat(method: &str) -> bool {
    !ACTS.contains(&method) && !method.starts_with("F3") && !method.starts_with("Msig") && !method.starts_with("Paych")
}

/// Wallets may differ from node to node, so the answer "no key" of one is none of the pool.
pub fn next(method: &str, error: &CallErrorKind) -> Next {
    let has = |texts: &[&str], message: &str| texts.iter().any(|text| message.contains(text));
    match error {
        // Nothing says that the node did not take the call.
        CallErrorKind::Unreachable(_) | CallErrorKind::Timeout(_) | CallErrorKind::BadAnswer(_)
            if !may_repeat(method) =>
        {
            Next::Answer
        }
        CallErrorKind::Unreachable(_)
        | CallErrorKind::Timeout(_)
        | CallErrorKind::BadAnswer(_)
        | CallErrorKind::Unauthorized(_) => Next::OtherNode,
        CallErrorKind::NoSuchMethod => Next::OtherMayKnow,
        CallErrorKind::Rpc { code, .. } if NOT_NOW.contains(code) => Next::OtherMayKnow,
        CallErrorKind::Rpc { message, .. } if has(&NO_BLOCK, message) || has(&NO_ACTOR_OR_KEY, message) => {
            Next::OtherMayKnow
        }
        CallErrorKind::Rpc { message, .. } if has(&INTERNAL_OR_PANIC, message) && may_repeat(method) => Next::OtherNode,
        CallErrorKind::Rpc { .. } => Next::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_class_of_error_goes_on_as_the_manual_says() {
        use Next::*;
        let rpc = |code, message: &str| CallErrorKind::Rpc { code, message: message.into() };
        for (method, error, expected) in [
            ("ChainHead", CallErrorKind::Unreachable("refused".into()), OtherNode),
            ("ChainHead", CallErrorKind::Timeout(Duration::ZERO), OtherNode),
            ("ChainHead", CallErrorKind::BadAnswer("<html>".into()), OtherNode),
            ("ChainHead", CallErrorKind::Unauthorized("HTTP 401".into()), OtherNode),
            ("ChainHead", CallErrorKind::NoSuchMethod, OtherMayKnow),
            ("StateMinerInfo", rpc(1, "loading tipset bafy: block not found"), OtherMayKnow),
            ("StateMinerInfo", rpc(-32603, "Actor not found: addr=f01"), OtherMayKnow),
            ("StateSearchMsg", rpc(1, "failed to load message: ipld: could not find bafy"), OtherMayKnow),
            ("WalletSign", rpc(1, "signing using key 'f3': key not found"), OtherMayKnow),
            ("ChainGetTipSetByHeight", rpc(1, "looking for tipset with height greater than start point"), Answer),
            ("MinerGetBaseInfo", rpc(-32002, "refusing explicit call due to state fork"), OtherMayKnow),
            ("MpoolPush", rpc(1, "message nonce too low"), Answer),
            ("GasEstimateMessageGas", rpc(2, "out of gas (exit 7)"), Answer),
            ("MpoolPush", CallErrorKind::Timeout(Duration::ZERO), OtherNode), // the same signed bytes
            ("MpoolPushMessage", CallErrorKind::Timeout(Duration::ZERO), Answer), // would be signed twice
            ("WalletNew", CallErrorKind::Unreachable("reset".into()), Answer),
            ("F3Participate", CallErrorKind::Timeout(Duration::ZERO), Answer),
            ("MsigPropose", CallErrorKind::BadAnswer("cut".into()), Answer),
        ] {
            assert_eq!(next(method, &error), expected, "{method}: {error}");
        }
    }
}
