//! The network that this provider works on: its version, whether it can go on after the next upgrade, and fast finality.

use super::proving_report::Trouble;
use crate::actors::f3::messages::{F3Report, F3State};
use crate::chain::ChainEpoch;
use crate::chain::network_rules::{self, NetworkRules, Readiness, Upgrade};
use crate::chain::types::TipSetKey;
use crate::rpc::admin::provider::{F3Part, NetworkPart, UpgradePart};
use crate::rpc::full_node::{FullNode, Result};
use std::time::Duration;
use tokio::time::Instant;

/// Heights of upgrades change only with another version of the full node.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// An upgrade that is further away is shown, and is no trouble yet.
const TROUBLE_WITHIN: Duration = Duration::from_secs(21 * 24 * 3600);

/// The upgrades as the full node told them last.
#[derive(Default)]
pub struct UpgradesTold {
    told: Option<(Instant, Vec<Upgrade>)>,
}

impl UpgradesTold {
    async fn read(&mut self, node: &dyn FullNode) -> Result<Vec<Upgrade>> {
        if let Some((_, told)) = self.told.as_ref().filter(|(at, _)| at.elapsed() < ASK_EVERY) {
            return Ok(told.clone());
        }
        let told = network_rules::upgrades(&node.state_get_network_params().await?.fork_upgrade_params);
        self.told = Some((Instant::now(), told.clone()));
        Ok(told)
    }
}

/// The full node's answers that a report needs.
pub struct NetworkAsked {
    version: u32,
    upgrades: Vec<Upgrade>,
}

impl NetworkAsked {
    pub async fn read(node: &dyn FullNode, told: &mut UpgradesTold) -> Result<NetworkAsked> {
        let version = node.state_network_version(&TipSetKey::default()).await?;
        let upgrades = told.read(node).await?;
        Ok(NetworkAsked { version, upgrades })
    }

    pub fn at(&self, epoch: ChainEpoch, block_delay: Option<Duration>, lacks: Lacks) -> NetworkReport {
        NetworkReport { block_delay, ..NetworkReport::of(self.version, epoch, &self.upgrades, lacks) }
    }
}

/// Methods that the full node does not have, or why that is not known.
pub type Lacks<'a> = std::result::Result<Vec<&'static str>, &'a str>;

/// The network at the head.
#[derive(Clone, Debug)]
pub struct NetworkReport {
    pub version: u32,
    /// The reasons why this node cannot work on the present version.
    pub unready: Vec<String>,
    pub next: Option<Readiness>,
    pub epoch: ChainEpoch,
    /// `None` until the full node has told it.
    pub block_delay: Option<Duration>,
}

impl NetworkReport {
    pub fn of(version: u32, epoch: ChainEpoch, upgrades: &[Upgrade], lacks: Lacks) -> NetworkReport {
        let known = lacks.as_deref().unwrap_or_default();
        // A network of our own may give no name to its version: only the number counts.
        let unready = network_rules::unready(Some(version), known);
        let mut next = network_rules::next_upgrade(upgrades, epoch, known);
        // Ready is what was seen to be so.
        if let (Some(next), Err(why)) = (&mut next, &lacks) {
            next.ready = false;
            next.because.push(format!("which methods the full node has is not known: {why}"));
        }
        NetworkReport { version, unready, next, epoch, block_delay: None }
    }

    fn seconds_to(&self, epoch: ChainEpoch) -> Option<u64> {
        let epochs = u64::try_from(epoch - self.epoch).unwrap_or(0);
        self.block_delay.map(|delay| delay.as_secs().saturating_mul(epochs))
    }

    pub fn part(&self) -> NetworkPart {
        NetworkPart {
            version: self.version,
            name: NetworkRules::of(self.version).name.to_string(),
            known: self.version <= network_rules::NEWEST,
            next_upgrade: self.next.as_ref().map(|next| UpgradePart {
                name: next.upgrade.name.clone(),
                epoch: next.upgrade.epoch,
                seconds: self.seconds_to(next.upgrade.epoch),
                ready: next.ready,
                because: next.because.clone(),
            }),
        }
    }

    pub fn troubles(&self) -> Vec<Trouble> {
        let fix = "see docs/operations.md, network upgrades";
        let now = self.unready.iter().map(|why| Trouble::new(format!("network version {}: {why}", self.version), fix));
        let soon = |next: &&Readiness| {
            self.seconds_to(next.upgrade.epoch).is_none_or(|seconds| seconds <= TROUBLE_WITHIN.as_secs())
        };
        let next = self.next.as_ref().filter(|next| !next.ready).filter(soon).map(|next| {
            let Upgrade { name, epoch, .. } = &next.upgrade;
            Trouble::new(format!("not ready for the upgrade {name} at epoch {epoch}: {}", next.because.join("; ")), fix)
        });
        now.chain(next).collect()
    }
}

pub fn f3_part(report: &F3Report) -> F3Part {
    let state = serde_json::to_value(report.state).ok().and_then(|state| state.as_str().map(String::from));
    F3Part {
        state: state.unwrap_or_default(),
        instance: report.instance,
        lease_to: report.lease_to,
        failures: report.failures,
        error: report.error.clone(),
    }
}

/// A few failures in a row; a node without fast finality is none.
pub fn f3_trouble(report: &F3Report) -> Option<Trouble> {
    const A_FEW: u32 = 3;
    let fails = matches!(report.state, F3State::Failing) && report.failures >= A_FEW;
    let why = report.error.as_deref().unwrap_or_default();
    fails.then(|| {
        let what = format!("no participation in fast finality after {} tries: {why}", report.failures);
        Trouble::new(what, "see `bulkhead f3 status`; nothing is slashed meanwhile")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(name: &str, epoch: ChainEpoch, version: Option<u32>) -> Upgrade {
        Upgrade { name: name.into(), epoch, version }
    }

    #[test]
    fn an_upgrade_that_we_cannot_follow_is_a_trouble_three_weeks_before() {
        let delay = Duration::from_secs(30);
        let weeks = TROUBLE_WITHIN.as_secs() as i64 / 30;
        let upgrades = [upgrade("Solstice", 1000, Some(29)), upgrade("Later", 2000 + weeks, None)];
        let at = |epoch, lacks: &[&'static str]| {
            let of = NetworkReport::of(28, epoch, &upgrades, Ok(lacks.to_vec()));
            let report = NetworkReport { block_delay: Some(delay), ..of };
            (report.part().next_upgrade.map(|next| (next.name, next.ready)), report.troubles().len())
        };
        let named = |name: &str, ready| Some((name.to_string(), ready));
        assert_eq!(at(999, &[]), (named("Solstice", true), 0));
        assert_eq!(at(999, &["StateMinerInitialPledgeForSector"]), (named("Solstice", false), 1));
        assert_eq!(at(1000, &[]), (named("Later", false), 0));
        assert_eq!([at(1999, &[]).1, at(2000, &[]).1], [0, 1]);
        assert_eq!(at(2000 + weeks, &[]), (None, 0));
    }

    #[test]
    fn a_version_that_the_full_node_or_we_do_not_serve_is_a_trouble_now() {
        for (version, lacks, troubles) in [
            (28, vec!["StateMinerInitialPledgeForSector"], 0),
            (28, vec!["StateMinerInitialPledgeCollateral"], 1),
            (29, vec!["StateMinerInitialPledgeCollateral"], 0),
            (29, vec!["StateMinerInitialPledgeForSector"], 1),
            (30, vec![], 1),
        ] {
            let report = NetworkReport::of(version, 5, &[], Ok(lacks.clone()));
            assert_eq!(report.troubles().len(), troubles, "{version} {lacks:?}");
            assert_eq!(report.part().known, version < 30);
        }
    }

    /// One of the forty-odd calls of a probe that fails says nothing of what the node has.
    #[test]
    fn ready_is_only_what_was_seen_to_be_so() {
        let upgrades = [upgrade("Solstice", 1000, Some(29))];
        let report = NetworkReport::of(28, 999, &upgrades, Err("its methods: timed out"));
        let next = report.part().next_upgrade.unwrap();
        assert!(!next.ready && next.because.len() == 1, "{next:?}");
        assert!(next.because[0].ends_with("is not known: its methods: timed out"), "{next:?}");
        assert_eq!(report.troubles().len(), 1, "of the upgrade, and none of the present version");
        assert!(NetworkReport::of(28, 1000, &upgrades, Err("x")).troubles().is_empty(), "no upgrade is to come");
    }
}
