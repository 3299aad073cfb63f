//! The rules that depend on the network's version, in one table, and the upgrades that a node announces. Pure.
//!
//! The call for a pledge and the quality rule are asked for at the time of use with the version of the tipset in hand
//! (`StateNetworkVersion`), never once at the start: a node crosses an upgrade epoch without a restart. Methods decide with
//! them whether it is ready for an upgrade. The other columns are shown (`info`), and hold nothing up. Sources: the FIPs named in each row, builtin-actors' policy.

use super::ChainEpoch;
use super::miner_messages::method::*;
use serde::Serialize;

/// The newest version whose rules are in the table.
pub const NEWEST: u32 = 29;

/// The call that answers a new sector's initial pledge. Either answer contains Lotus' margin of a tenth.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PledgeRpc {
    /// `StateMinerInitialPledgeCollateral`.
    ForPreCommit,
    /// `StateMinerInitialPledgeForSector`; the other one answers an error (FIP-0118).
    ForSector,
}

impl PledgeRpc {
    pub fn method(self) -> &'static str {
        match self {
            PledgeRpc::ForPreCommit => "StateMinerInitialPledgeCollateral",
            PledgeRpc::ForSector => "StateMinerInitialPledgeForSector",
        }
    }
}

/// The bytes of a new sector that count ten-fold.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum QualityRule {
    /// The bytes of verified deals.
    VerifiedBytes,
    /// All of them: flag FULL_QA_POWER (FIP-0118).
    WholeSector,
}

impl QualityRule {
    /// For `StateMinerInitialPledgeForSector`.
    pub fn verified_size(self, sector_size: u64, verified_bytes: u64) -> u64 {
        match self {
            QualityRule::VerifiedBytes => verified_bytes.min(sector_size),
            QualityRule::WholeSector => sector_size,
        }
    }
}

/// How a deal in a new sector begins.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DealActivation {
    /// By the deal ids of the pre-commit.
    DealIds,
    /// By a notification of the market actor in ProveCommitSectors3 (FIP-0076).
    Notification,
}

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partitions in one SubmitWindowedPoSt.
    pub posted_partitions: usize,
    /// Partitions in one declaration of faults, recoveries, terminations or extensions.
    pub addressed_partitions: usize,
    /// Sectors in one of them.
    pub addressed_sectors: u64,
    /// Sectors in one PreCommitSectorBatch2; `None`: gas and the message's size decide (FIP-0100).
    pub pre_commit_batch: Option<usize>,
}

/// One row of the table: the rules from a version on.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkRules {
    /// The first version that they hold for.
    pub since: u32,
    pub name: &'static str,
    /// Methods of the miner actor that a provider may send.
    pub methods: &'static [u64],
    pub pledge: PledgeRpc,
    pub quality: QualityRule,
    pub deal_activation: DealActivation,
    /// Whether a client's verified allocation may be claimed (frozen since FIP-0118).
    pub verified_allocations: bool,
    /// Fields of a receipt in CBOR.
    pub receipt_fields: usize,
    pub limits: Limits,
}

/// Methods that every version in the table has.
const LASTING: &[u64] = &[
    CHANGE_WORKER_ADDRESS,
    CHANGE_PEER_ID,
    SUBMIT_WINDOWED_POST,
    TERMINATE_SECTORS,
    DECLARE_FAULTS,
    DECLARE_FAULTS_RECOVERED,
    WITHDRAW_BALANCE,
    CHANGE_MULTIADDRS,
    CONFIRM_CHANGE_WORKER_ADDRESS,
    DISPUTE_WINDOWED_POST,
    PRE_COMMIT_SECTOR_BATCH2,
    EXTEND_SECTOR_EXPIRATION2,
    PROVE_COMMIT_SECTORS3,
];

/// The limits of the newest version. What WindowPoSt and orders go by is the same in every row, which a test holds: they
/// need not ask the full node for it.
pub const LIMITS: Limits =
    Limits { posted_partitions: 3, addressed_partitions: 3_000, addressed_sectors: 25_000, pre_commit_batch: None };

const DRAGON: NetworkRules = NetworkRules {
    since: 22,
    name: "Dragon",
    methods: LASTING,
    pledge: PledgeRpc::ForPreCommit,
    quality: QualityRule::VerifiedBytes,
    deal_activation: DealActivation::Notification,
    verified_allocations: true,
    receipt_fields: 4,
    limits: Limits { pre_commit_batch: Some(256), ..LIMITS },
};

/// In order of versions. Those before Dragon lack ProveCommitSectors3: nothing can be sealed on them.
const TABLE: [NetworkRules; 9] = [
    NetworkRules {
        since: 0,
        name: "before Dragon",
        methods: &[SUBMIT_WINDOWED_POST, DECLARE_FAULTS, DECLARE_FAULTS_RECOVERED],
        deal_activation: DealActivation::DealIds,
        ..DRAGON
    },
    DRAGON,
    NetworkRules { since: 23, name: "Waffle", ..DRAGON },
    NetworkRules { since: 24, name: "TukTuk", ..DRAGON },
    // FIP-0100: daily fees, no limit on batches.
    NetworkRules { since: 25, name: "Teep", limits: LIMITS, ..DRAGON },
    NetworkRules { since: 26, name: "Tock", limits: LIMITS, ..DRAGON },
    NetworkRules { since: 27, name: "GoldenWeek", limits: LIMITS, ..DRAGON },
    NetworkRules { since: 28, name: "FireHorse", limits: LIMITS, ..DRAGON },
    NetworkRules {
        since: 29,
        name: "Solstice",
        pledge: PledgeRpc::ForSector,
        quality: QualityRule::WholeSector,
        verified_allocations: false,
        limits: LIMITS,
        ..DRAGON
    },
];

impl NetworkRules {
    /// The rules of a version; of a later one than the table knows, those of its last row.
    pub fn of(version: u32) -> &'static NetworkRules {
        TABLE.iter().rev().find(|row| row.since <= version).unwrap_or(&TABLE[0])
    }

    pub fn takes(&self, method: u64) -> bool {
        self.methods.contains(&method)
    }
}

/// An upgrade in `ForkUpgradeParams`.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// As the node names it, without `Upgrade` and `Height`.
    pub name: String,
    pub epoch: ChainEpoch,
    /// The version that it begins; `None`: not in our table.
    pub version: Option<u32>,
}

/// The upgrades that begin a version, as Lotus' `ForkUpgradeParams` names them. From Dragon on each has its row in [`TABLE`].
const VERSIONS: &[(&str, u32)] = &[
    ("Smoke", 1),
    ("Ignition", 2),
    ("Refuel", 3),
    ("Assembly", 4),
    ("Tape", 5),
    ("Kumquat", 6),
    ("Calico", 7),
    ("Persian", 8),
    ("Orange", 9),
    ("Trust", 10),
    ("Norwegian", 11),
    ("Turbo", 12),
    ("Hyperdrive", 13),
    ("Chocolate", 14),
    ("OhSnap", 15),
    ("Skyr", 16),
    ("Shark", 17),
    ("Hygge", 18),
    ("Lightning", 19),
    ("Thunder", 20),
    ("Watermelon", 21),
    ("Dragon", 22),
    ("Waffle", 23),
    ("TukTuk", 24),
    ("Teep", 25),
    ("Tock", 26),
    ("GoldenWeek", 27),
    ("FireHorse", 28),
    ("Solstice", 29),
];

/// Heights that begin no version: changes of the beacon, of supply, of a test network's actors.
const NO_VERSION: &[&str] =
    &["Breeze", "Claus", "Liftoff", "Phoenix", "WatermelonFix", "WatermelonFix2", "CalibrationDragonFix", "TockFix"];

/// A height that no chain reaches: an upgrade that has no epoch yet (lotus sets 9999999999 and more).
const NEVER: ChainEpoch = 1_000_000_000;

/// The upgrades that a node tells, in order of epochs. What is no height is left out; an unknown name has no version.
pub fn upgrades(fork_upgrade_params: &serde_json::Value) -> Vec<Upgrade> {
    let members = fork_upgrade_params.as_object().into_iter().flatten();
    let mut all: Vec<Upgrade> = members
        .filter_map(|(member, height)| {
            let name = member.strip_prefix("Upgrade")?.strip_suffix("Height")?;
            let epoch = height.as_i64().filter(|epoch| *epoch < NEVER)?;
            let known = |row: &&(&str, u32)| row.0.eq_ignore_ascii_case(name);
            let version = VERSIONS.iter().find(known).map(|(_, version)| *version);
            let counts = !NO_VERSION.iter().any(|other| other.eq_ignore_ascii_case(name));
            counts.then(|| Upgrade { name: name.to_string(), epoch, version })
        })
        .collect();
    all.sort_by(|a, b| (a.epoch, &a.name).cmp(&(b.epoch, &b.name)));
    all
}

/// Whether this node can go on after an upgrade.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub upgrade: Upgrade,
    pub ready: bool,
    /// The reasons why not; empty when ready.
    pub because: Vec<String>,
}

/// The next upgrade after `head`, with what is missing for it. `lacks`: methods that the full node does not have.
pub fn next_upgrade(all: &[Upgrade], head: ChainEpoch, lacks: &[&str]) -> Option<Readiness> {
    let upgrade = all.iter().find(|upgrade| upgrade.epoch > head)?.clone();
    let because = unready(upgrade.version, lacks);
    Some(Readiness { ready: because.is_empty(), upgrade, because })
}

/// The network version that an announced upgrade begins within `epochs` after `head`; of several, the last one. An upgrade at
/// epoch `u` holds from `u + 1` on.
pub fn version_within(all: &[Upgrade], head: ChainEpoch, epochs: ChainEpoch) -> Option<u32> {
    let near = all.iter().filter(|upgrade| (head..=head.saturating_add(epochs)).contains(&upgrade.epoch));
    near.filter_map(|upgrade| upgrade.version).max()
}

/// The reasons why this node cannot work on a network of that version.
pub fn unready(version: Option<u32>, lacks: &[&str]) -> Vec<String> {
    let mut because = Vec::new();
    match version {
        None => because.push("this version of bulkhead does not know it: look for a newer one".to_string()),
        Some(version) if version > NEWEST => {
            because.push(format!(
                "this version of bulkhead knows networks up to version {NEWEST}, not {version}: look for a newer one"
            ));
        }
        Some(version) => {
            let rules = NetworkRules::of(version);
            if !rules.takes(PROVE_COMMIT_SECTORS3) {
                because.push(format!("network version {version} has no ProveCommitSectors3: nothing can be sealed"));
            }
            if lacks.contains(&rules.pledge.method()) {
                because.push(format!("the full node has no {}: it needs a newer version", rules.pledge.method()));
            }
        }
    }
    because
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_is_in_order_and_each_boundary_is_where_the_fip_has_it() {
        assert!(TABLE.is_sorted_by(|a, b| a.since < b.since) && TABLE.last().map(|row| row.since) == Some(NEWEST));
        let pledge = [21, 22, 28, 29, 30].map(|version| NetworkRules::of(version).pledge);
        use PledgeRpc::*;
        assert_eq!(pledge, [ForPreCommit, ForPreCommit, ForPreCommit, ForSector, ForSector]);
        let size = 32 << 30;
        let verified = [28, 29].map(|version| NetworkRules::of(version).quality.verified_size(size, 7));
        assert_eq!(verified, [7, size]);
        assert_eq!(QualityRule::VerifiedBytes.verified_size(size, size + 1), size);
        let allocations = [28, 29, 30].map(|version| NetworkRules::of(version).verified_allocations);
        assert_eq!(allocations, [true, false, false]);
        let batch = [24, 25, 29].map(|version| NetworkRules::of(version).limits.pre_commit_batch);
        assert_eq!(batch, [Some(256), None, None]);
        let seals = [21, 22, 29].map(|version| NetworkRules::of(version).takes(PROVE_COMMIT_SECTORS3));
        assert_eq!(seals, [false, true, true]);
        let deals = [21, 22].map(|version| NetworkRules::of(version).deal_activation);
        assert_eq!(deals, [DealActivation::DealIds, DealActivation::Notification]);
        assert!(TABLE.iter().all(|row| row.receipt_fields == 4));
    }

    /// A row with limits of its own needs its version where they are used.
    #[test]
    fn the_limits_that_are_used_without_a_version_are_those_of_every_version() {
        let used = |limits: Limits| (limits.posted_partitions, limits.addressed_partitions, limits.addressed_sectors);
        assert!(TABLE.iter().all(|row| used(row.limits) == used(LIMITS)));
        assert_eq!(used(LIMITS), (3, 3_000, 25_000), "builtin-actors' policy");
    }

    #[test]
    fn the_next_upgrade_is_named_and_what_is_missing_for_it() {
        let told = json!({
            "UpgradeSmokeHeight": 51_000, "UpgradeFireHorseHeight": 6_052_800, "UpgradeSolsticeHeight": 6_470_279,
            "UpgradeClausHeight": 343_200, "UpgradeNv30Height": 7_000_000, "UpgradeXxHeight": 9_999_999_999_i64, "UpgradeTeepHeight": -31,
            "BreezeGasTampingDuration": 120, "UpgradeOddHeight": "soon",
        });
        let all = upgrades(&told);
        let names: Vec<_> = all.iter().map(|u| (u.name.as_str(), u.version)).collect();
        assert_eq!(
            names,
            [("Teep", Some(25)), ("Smoke", Some(1)), ("FireHorse", Some(28)), ("Solstice", Some(29)), ("Nv30", None)]
        );
        let next = |head, lacks: &[&str]| {
            next_upgrade(&all, head, lacks).map(|next| (next.upgrade.name, next.ready, next.because.len()))
        };
        let solstice = |ready, why| Some(("Solstice".to_string(), ready, why));
        assert_eq!(next(6_052_799, &[]), Some(("FireHorse".to_string(), true, 0)));
        for head in [6_052_800, 6_470_278] {
            assert_eq!(next(head, &[]), solstice(true, 0), "{head}");
            assert_eq!(next(head, &["StateMinerInitialPledgeForSector"]), solstice(false, 1), "{head}");
            assert_eq!(next(head, &["StateMinerInitialPledgeCollateral"]), solstice(true, 0), "{head}");
        }
        assert_eq!(next(6_470_279, &[]), Some(("Nv30".to_string(), false, 1)), "a height that we do not know");
        assert_eq!(next(7_000_000, &[]), None);
        assert!(upgrades(&serde_json::Value::Null).is_empty());
    }

    #[test]
    fn an_upgrade_is_in_sight_from_its_distance_up_to_its_own_epoch() {
        let at = |epoch, version| Upgrade { name: "X".into(), epoch, version };
        let all = [at(1000, Some(28)), at(1500, Some(29)), at(1510, None)];
        for (head, version) in
            [(1379, None), (1380, Some(29)), (1500, Some(29)), (1501, None), (1000, Some(28)), (1001, None)]
        {
            assert_eq!(version_within(&all, head, 120), version, "{head}");
        }
        assert_eq!(version_within(&all, 1000, 500), Some(29), "the last of several");
    }

    #[test]
    fn every_known_upgrade_from_dragon_on_has_its_row() {
        for (name, version) in VERSIONS.iter().filter(|(_, version)| *version >= 22) {
            let row = NetworkRules::of(*version);
            assert_eq!(row.since, *version);
            assert_eq!(row.name, *name);
        }
        assert!(unready(Some(NEWEST), &[]).is_empty() && unready(Some(NEWEST + 1), &[]).len() == 1);
        assert_eq!(unready(Some(21), &[]).len(), 1);
    }
}
