//! File descriptors: raised at start, and shared out so that no surface takes those that provers and the store need.

use super::connection_limits::{ConnectionLimits, WhenFull};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A limit beyond this serves nothing and makes programs slow that close all descriptors one by one.
const RAISE_TO: u64 = 65_536;
/// The limit where it cannot be read.
const USUAL: usize = 1024;

/// A listener's purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// JSON-RPC: the provider's API, the pool's, the devnet's chain, an agent's API. One process may have two.
    JsonRpc,
    /// WebSockets on [`Surface::JsonRpc`]; each is one of its connections.
    WebSocket,
    Admin,
    /// Handshakes of hosts from which no peer is expected.
    BridgeStrangers,
    /// Handshakes of hosts from which one is.
    BridgePeers,
}

impl Surface {
    /// The surface's limits in a process that may open that many descriptors. All surfaces of a process together take
    /// less than 5/8 of them: two of JSON-RPC 2/8, the bridge 1/8, the market 1/8, admin HTTP 1/16.
    pub fn limits(self, descriptors: usize) -> ConnectionLimits {
        let share = |most: usize, part: usize| most.min(descriptors / part).max(8);
        let http = |total: usize| ConnectionLimits {
            total,
            strangers: total / 2,
            strangers_per_host: total * 3 / 8,
            known_per_host: total,
            when_full: WhenFull::CloseQuietest,
        };
        let handshakes = |per_host: usize| ConnectionLimits {
            total: share(256, 16),
            strangers: share(256, 16),
            strangers_per_host: per_host.min(share(256, 16)),
            known_per_host: 0,
            when_full: WhenFull::Refuse,
        };
        match self {
            Surface::JsonRpc => http(share(512, 8)),
            Surface::WebSocket => ConnectionLimits { when_full: WhenFull::Refuse, ..http(share(256, 16)) },
            // Nearly all of its callers read without a token.
            Surface::Admin => {
                let total = share(256, 16);
                ConnectionLimits { strangers: total - total / 4, strangers_per_host: total / 2, ..http(total) }
            }
            Surface::BridgeStrangers => handshakes(32),
            Surface::BridgePeers => handshakes(usize::MAX),
        }
    }
}

/// The market's limits. `established` and `pending` are its settings; both shrink with the descriptors.
pub fn market_limits(established: usize, pending: usize, descriptors: usize) -> ConnectionLimits {
    let most = (descriptors / 8).max(8);
    let pending = pending.clamp(1, most / 2);
    let established = established.clamp(1, most - pending);
    ConnectionLimits {
        total: established + pending,
        strangers: pending,
        strangers_per_host: (pending * 3 / 4).max(1),
        known_per_host: (established / 4).max(8).min(established),
        when_full: WhenFull::CloseQuietest,
    }
}

/// How many descriptors this process may open now.
pub fn limit() -> usize {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => usize::try_from(soft).unwrap_or(usize::MAX),
        Err(_) => USUAL,
    }
}

/// Raises the soft limit as far as the hard one lets it; children inherit it.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let to = hard.min(RAISE_TO).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, to, hard).map(|()| (soft, to))
    });
    match raised {
        Ok((soft, to)) if soft < to => tracing::debug!(from = soft, to, "raised the limit on open files"),
        Ok((_, limit)) if limit < 1024 => {
            tracing::warn!(limit, "few files may be open at once: raise the hard limit (`ulimit -Hn`, LimitNOFILE=)")
        }
        Ok(_) => {}
        Err(why) => tracing::warn!(%why, "the limit on open files stays as it is"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_surfaces_together_leave_three_eighths_to_the_rest() {
        for descriptors in [256, 257, 1023, 1024, 1025, 4096, 65_536] {
            let total = |surface: Surface| surface.limits(descriptors).total;
            let market = market_limits(128, 32, descriptors).total;
            let taken = 2 * total(Surface::JsonRpc)
                + total(Surface::Admin)
                + total(Surface::BridgeStrangers)
                + total(Surface::BridgePeers)
                + market;
            assert!(taken <= descriptors * 5 / 8, "{taken} of {descriptors}");
        }
    }

    #[test]
    fn every_share_leaves_room_for_known_callers_and_other_hosts() {
        for descriptors in [1, 64, 1024, 65_536] {
            for surface in [Surface::JsonRpc, Surface::WebSocket, Surface::Admin] {
                let limits = surface.limits(descriptors);
                assert!(limits.strangers < limits.total, "{surface:?} {descriptors}: {limits:?}");
                assert!(limits.strangers_per_host < limits.strangers, "{surface:?} {descriptors}: {limits:?}");
                assert!(limits.strangers_per_host > 0, "{surface:?} {descriptors}: {limits:?}");
            }
        }
        assert_eq!(Surface::BridgeStrangers.limits(65_536).strangers_per_host, 32);
        for (established, pending, descriptors, total) in
            [(128, 32, 65_536, 160), (128, 32, 1024, 128), (1, 1, 1024, 2), (100_000, 100_000, 1024, 128)]
        {
            let limits = market_limits(established, pending, descriptors);
            assert_eq!(limits.total, total, "{established} {pending} {descriptors}");
            assert!(limits.strangers >= 1 && limits.strangers_per_host >= 1 && limits.known_per_host >= 1);
        }
    }
}
