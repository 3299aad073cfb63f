//! How long a full node may take for which call, and how long its head feed may be silent.

use std::time::Duration;

/// The deadlines of one full node's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Answers from memory: the head, the wallet, a nonce.
    pub quick: Duration,
    /// Reads the state of one actor, or judges a block.
    pub state: Duration,
    /// Listings, searches through the chain, gas estimates.
    pub heavy: Duration,
    /// To connect the head feed.
    pub connect: Duration,
    /// A feed that says nothing for so long, not even a pong, is dead. A ping goes out every third of it.
    pub silence: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        CallLimits {
            quick: Duration::from_secs(10),
            state: Duration::from_secs(30),
            heavy: Duration::from_secs(120),
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
        }
    }
}

impl CallLimits {
    pub fn deadline(&self, method: &str) -> Duration {
        match method.strip_prefix("Filecoin.").unwrap_or(method) {
            "Version" | "ChainHead" | "ChainGetTipSet" | "StateNetworkName" | "MpoolGetNonce" | "ChainNotify" => {
                self.quick
            }
            m if m.starts_with("Wallet") => self.quick,
            "StateMinerSectors" | "StateMinerDeadlines" | "StateMinerPartitions" | "StateMinerAllocated" => self.heavy,
            "StateSearchMsg" | "GasEstimateMessageGas" | "MpoolPending" => self.heavy,
            _ => self.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_call_has_its_deadline() {
        let l = CallLimits::default();
        for (method, deadline) in [
            ("Filecoin.ChainHead", l.quick),
            ("Filecoin.WalletSign", l.quick),
            ("Filecoin.MinerGetBaseInfo", l.state),
            ("Filecoin.SyncSubmitBlock", l.state),
            ("Filecoin.StateMinerSectors", l.heavy),
            ("Filecoin.Unknown", l.state),
        ] {
            assert_eq!(l.deadline(method), deadline, "{method}");
        }
    }
}
