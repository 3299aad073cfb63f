//! Settings of a devnet: clock, proving period, policy. Policy is fixed at genesis; the clock may change at every
//! start.

use super::state_tree::Actors;
use fil_actors_shared::v19::runtime::{Policy, ProofSet};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::sector::{RegisteredPoStProof, RegisteredSealProof, StoragePower};
use serde::{Deserialize, Serialize};
use std::time::Duration;

const EPOCHS_IN_DAY: ChainEpoch = 2880;

/// "FireHorse": actors v18.
pub const FIRE_HORSE: u32 = 28;
/// "Solstice": actors v19 (FIP-0118).
pub const SOLSTICE: u32 = 29;

/// The height of an upgrade that has no date yet (lotus `buildconstants`).
pub const NEVER: ChainEpoch = 999_999_999_999_999;

/// The value for a chain that was made before there was network version 29.
fn never() -> ChainEpoch {
    NEVER
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DevnetSettings {
    pub network_name: String,
    /// Time between tipsets once a provider may mine.
    pub block_delay: Duration,
    /// Time between tipsets before that, so that a first sector need not wait.
    pub warmup_delay: Duration,

    /// Deadlines of a proving period; at least 3, or no deadline would ever be open for change.
    pub deadlines: u64,
    /// Epochs of one deadline; the proving period is `deadlines` times as long.
    pub challenge_window: ChainEpoch,
    pub challenge_lookback: ChainEpoch,
    pub fault_cutoff: ChainEpoch,
    /// Proving periods that a sector may stay faulty before it is terminated.
    pub fault_max_periods: i64,
    pub dispute_window: ChainEpoch,
    pub pre_commit_challenge_delay: ChainEpoch,
    /// Epochs from pre-commit until the proof is due, without the challenge delay (network: 30 days).
    pub max_prove_commit: ChainEpoch,
    /// Epochs after that until the pre-commit is cleaned up and its deposit burnt (network: 8 hours).
    pub pre_commit_clean_up_delay: ChainEpoch,
    /// Network: 180 days.
    pub min_sector_lifetime: ChainEpoch,
    pub chain_finality: ChainEpoch,
    /// How far back power and sectors are looked up when a block is made.
    pub winning_lookback: ChainEpoch,
    /// Bytes that a miner needs to mine once four miners have as much.
    pub minimum_power: u64,
    /// The last epoch of network version 28: the state is migrated after it, and version 29 begins with the next one, as
    /// with Lotus' `UpgradeXxHeight`. Negative: version 29 from genesis.
    #[serde(default = "never")]
    pub upgrade_epoch: ChainEpoch,
    /// Demand FIP-0077's deposit from whoever creates a miner.
    pub creation_deposit: bool,
    /// The balance of each genesis account, in whole FIL.
    pub account_fil: u64,
    /// The least premium of a replacement, in percent of that of the message replaced (Lotus: 110, plus 1 attoFIL).
    pub replace_percent: u64,
    /// Quality-adjusted bytes of other miners, who make the blocks that the provider does not win; 0: none, so that a small
    /// miner wins nearly every epoch.
    pub others_power: u64,
    /// Blocks of other miners in a tipset, beside the provider's own; at least 1.
    pub others_blocks: u64,
    /// Sectors of a partition of a new miner; 0: those of the proof type (2 for 2 KiB sectors, 2,349 for 32 GiB).
    pub partition_sectors: u64,
    /// Pending messages that the mempool holds at most.
    pub mempool_limit: usize,
}

impl Default for DevnetSettings {
    fn default() -> Self {
        DevnetSettings {
            network_name: "bulkhead-devnet-1".into(),
            block_delay: Duration::from_secs(10),
            warmup_delay: Duration::from_secs(2),
            deadlines: 6,
            challenge_window: 10,
            challenge_lookback: 4,
            fault_cutoff: 4,
            fault_max_periods: 42,
            dispute_window: 40,
            pre_commit_challenge_delay: 10,
            max_prove_commit: 30 * EPOCHS_IN_DAY,
            pre_commit_clean_up_delay: 960,
            min_sector_lifetime: 180 * EPOCHS_IN_DAY,
            chain_finality: 20,
            winning_lookback: 10,
            minimum_power: 2048,
            upgrade_epoch: -1,
            creation_deposit: false,
            account_fil: 100_000,
            replace_percent: 110,
            others_power: 0,
            others_blocks: 1,
            partition_sectors: 0,
            mempool_limit: 1000,
        }
    }
}

impl DevnetSettings {
    /// The network version at a height.
    pub fn network_version(&self, height: ChainEpoch) -> u32 {
        if height > self.upgrade_epoch { SOLSTICE } else { FIRE_HORSE }
    }

    /// The version of the actors at a height.
    pub fn actors(&self, height: ChainEpoch) -> Actors {
        match self.network_version(height) {
            ..SOLSTICE => Actors::V18,
            SOLSTICE.. => Actors::V19,
        }
    }

    pub fn proving_period(&self) -> ChainEpoch {
        self.deadlines as ChainEpoch * self.challenge_window
    }

    /// Why these settings cannot make a chain.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (self.deadlines >= 3, "deadlines must be at least 3"),
            (self.deadlines <= 48, "deadlines must be at most 48"),
            (self.challenge_window >= 2, "challenge_window must be at least 2 epochs"),
            (self.challenge_lookback >= 1, "challenge_lookback must be at least 1 epoch"),
            (self.fault_cutoff >= 0, "fault_cutoff must not be negative"),
            (self.fault_max_periods >= 1, "fault_max_periods must be at least 1"),
            (self.pre_commit_challenge_delay >= 1, "pre_commit_challenge_delay must be at least 1 epoch"),
            (self.max_prove_commit >= 1, "max_prove_commit must be at least 1 epoch"),
            (self.pre_commit_clean_up_delay >= 1, "pre_commit_clean_up_delay must be at least 1 epoch"),
            (self.min_sector_lifetime >= 1, "min_sector_lifetime must be at least 1 epoch"),
            (self.chain_finality >= 1, "chain_finality must be at least 1 epoch"),
            (self.winning_lookback >= 1, "winning_lookback must be at least 1 epoch"),
            (
                self.dispute_window <= self.proving_period() - self.challenge_window,
                "dispute_window must end before the deadline opens again",
            ),
            (self.block_delay >= Duration::from_millis(10), "block_delay must be at least 10 ms"),
            (self.warmup_delay >= Duration::from_millis(10), "warmup_delay must be at least 10 ms"),
            (self.mempool_limit >= 1, "mempool_limit must be at least 1"),
            (self.replace_percent >= 100, "replace_percent must be at least 100"),
            ((1..=10).contains(&self.others_blocks), "others_blocks must be from 1 to 10"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err((*why).to_string()),
            None => Ok(()),
        }
    }

    /// The network's own policy with this devnet's periods.
    pub fn policy(&self) -> Policy {
        let mut posts = ProofSet::default();
        posts.insert(RegisteredPoStProof::StackedDRGWindow2KiBV1P1);
        let mut seals = ProofSet::default();
        seals.insert(RegisteredSealProof::StackedDRG2KiBV1P1);
        Policy {
            wpost_proving_period: self.proving_period(),
            wpost_challenge_window: self.challenge_window,
            wpost_period_deadlines: self.deadlines,
            wpost_max_chain_commit_age: self.challenge_window,
            wpost_dispute_window: self.dispute_window,
            wpost_challenge_lookback: self.challenge_lookback,
            fault_declaration_cutoff: self.fault_cutoff,
            fault_max_age: self.proving_period() * self.fault_max_periods,
            pre_commit_challenge_delay: self.pre_commit_challenge_delay,
            max_pre_commit_randomness_lookback: EPOCHS_IN_DAY + self.chain_finality,
            expired_pre_commit_clean_up_delay: self.pre_commit_clean_up_delay,
            min_sector_expiration: self.min_sector_lifetime,
            worker_key_change_delay: self.chain_finality,
            consensus_fault_ineligibility_duration: self.chain_finality,
            chain_finality: self.chain_finality,
            valid_post_proof_type: posts,
            valid_pre_commit_proof_type: seals,
            minimum_consensus_power: StoragePower::from(self.minimum_power),
            ..Policy::default()
        }
    }

    /// The state crate takes the 30 days from a constant, so the devnet keeps this one limit itself.
    pub fn max_prove_commit_duration(&self) -> ChainEpoch {
        self.max_prove_commit + self.pre_commit_challenge_delay
    }

    pub fn account_balance(&self) -> TokenAmount {
        TokenAmount::from_whole(self.account_fil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_make_a_chain_are_refused_at_the_boundary() {
        let base = DevnetSettings::default;
        let table: [(DevnetSettings, bool); 8] = [
            (base(), true),
            (DevnetSettings { deadlines: 2, ..base() }, false),
            (DevnetSettings { deadlines: 3, dispute_window: 20, ..base() }, true),
            (DevnetSettings { dispute_window: 50, ..base() }, true),
            (DevnetSettings { dispute_window: 51, ..base() }, false),
            (DevnetSettings { challenge_window: 1, ..base() }, false),
            (DevnetSettings { pre_commit_challenge_delay: 0, ..base() }, false),
            (DevnetSettings { mempool_limit: 0, ..base() }, false),
        ];
        for (settings, good) in table {
            assert_eq!(settings.check().is_ok(), good, "{settings:?}");
        }
    }

    #[test]
    fn the_version_changes_after_the_upgrade_epoch() {
        let at = |upgrade_epoch| DevnetSettings { upgrade_epoch, ..Default::default() };
        for (upgrade, height, version) in
            [(-1, 0, 29), (0, 0, 28), (0, 1, 29), (30, 30, 28), (30, 31, 29), (NEVER, 500, 28)]
        {
            assert_eq!(at(upgrade).network_version(height), version, "{upgrade} {height}");
        }
        // A chain that was made before the setting stays what it is.
        let old: DevnetSettings = serde_json::from_str("{}").unwrap();
        assert_eq!(old.network_version(1_000_000), 28);
    }

    #[test]
    fn policy_carries_the_periods() {
        let policy = DevnetSettings::default().policy();
        assert_eq!(policy.wpost_proving_period, 60);
        assert!(policy.valid_post_proof_type.contains(10i64) && !policy.valid_post_proof_type.contains(12i64));
        assert!(
            policy.valid_pre_commit_proof_type.contains(5i64) && !policy.valid_pre_commit_proof_type.contains(8i64)
        );
    }
}
