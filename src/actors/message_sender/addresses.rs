//! Which address sends a message: by what the message is for, the first that can pay and whose key is there.
//!
//! As lotus-miner does it (`storage/ctladdr`), with the control addresses in the order that the chain has them.

use super::fees::fil;
use crate::chain::miner_messages::method;
use crate::chain::types::MinerInfo;
use crate::chain::{Address, TokenAmount};

/// The use of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// WindowPoSt, declared faults and recoveries: they go first, and have places, fees and addresses of their own.
    Proving,
    PreCommit,
    Commit,
    Terminate,
    DealPublish,
    /// Everything else: the worker.
    Other,
}

/// The market actor, and its method PublishStorageDeals.
const MARKET_ACTOR: Address = Address::new_id(5);
const PUBLISH_STORAGE_DEALS: u64 = 4;

impl Purpose {
    pub fn of(miner: Option<Address>, to: Address, number: u64) -> Purpose {
        if to == MARKET_ACTOR && number == PUBLISH_STORAGE_DEALS {
            return Purpose::DealPublish;
        }
        if miner != Some(to) {
            return Purpose::Other;
        }
        match number {
            method::SUBMIT_WINDOWED_POST | method::DECLARE_FAULTS | method::DECLARE_FAULTS_RECOVERED => {
                Purpose::Proving
            }
            method::PRE_COMMIT_SECTOR_BATCH2 => Purpose::PreCommit,
            method::PROVE_COMMIT_SECTORS3 => Purpose::Commit,
            method::TERMINATE_SECTORS => Purpose::Terminate,
            _ => Purpose::Other,
        }
    }
}

/// Lotus' `[Addresses]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddressRules {
    pub pre_commit: Vec<Address>,
    pub commit: Vec<Address>,
    pub terminate: Vec<Address>,
    pub deal_publish: Vec<Address>,
    pub disable_owner_fallback: bool,
    /// Holds only where there is another address.
    pub disable_worker_fallback: bool,
}

impl AddressRules {
    pub(super) fn listed(&self, purpose: Purpose) -> &[Address] {
        match purpose {
            Purpose::PreCommit => &self.pre_commit,
            Purpose::Commit => &self.commit,
            Purpose::Terminate => &self.terminate,
            Purpose::DealPublish => &self.deal_publish,
            Purpose::Proving | Purpose::Other => &[],
        }
    }

    /// Every address that these rules name.
    pub fn named(&self) -> impl Iterator<Item = &Address> {
        [&self.pre_commit, &self.commit, &self.terminate, &self.deal_publish].into_iter().flatten()
    }

    /// The addresses that may send such a message, the preferred first. `id_of` gives the ID address of a named one, `None`
    /// where that is not known. Addresses that the chain does not know as the miner's are left out: the actor would refuse.
    pub fn candidates(
        &self,
        purpose: Purpose,
        info: &MinerInfo,
        id_of: impl Fn(&Address) -> Option<Address>,
    ) -> Vec<Address> {
        let mut all: Vec<Address> = match purpose {
            Purpose::Other => return vec![info.worker],
            Purpose::Proving => {
                let taken: Vec<Address> = self.named().filter_map(&id_of).collect();
                info.control_addresses.iter().filter(|control| !taken.contains(control)).copied().collect()
            }
            _ => {
                let listed = self.listed(purpose).iter().filter_map(&id_of);
                listed.filter(|id| is_of(info, id)).collect()
            }
        };
        all.retain(|id| *id != info.owner && *id != info.worker || purpose != Purpose::Proving);
        if all.is_empty() || !self.disable_worker_fallback {
            all.push(info.worker);
        }
        if !self.disable_owner_fallback {
            all.push(info.owner);
        }
        let mut unique = Vec::with_capacity(all.len());
        all.into_iter().for_each(|id| {
            if !unique.contains(&id) {
                unique.push(id);
            }
        });
        unique
    }
}

/// Whether the miner actor takes messages from it.
pub fn is_of(info: &MinerInfo, id: &Address) -> bool {
    *id == info.owner || *id == info.worker || info.control_addresses.contains(id)
}

/// A candidate as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub id: Address,
    /// The address form that signs.
    pub key: Address,
    /// Balance without what its open messages may cost.
    pub available: TokenAmount,
    /// Why it sends nothing at this head; `None`: it can.
    pub cannot: Option<String>,
    /// No message of ours that cannot be mined stands in its nonce line.
    pub is_free: bool,
}

impl Candidate {
    /// Nothing speaks against it: no further candidate needs to be looked at.
    pub fn is_good(&self, need: &TokenAmount) -> bool {
        self.cannot.is_none() && self.is_free && self.available >= *need
    }
}

/// The first that can pay and stands behind nothing, else the first that can pay, else the richest; of those that can send.
pub fn pick<'a>(candidates: &'a [Candidate], need: &TokenAmount) -> Option<&'a Candidate> {
    let able = || candidates.iter().filter(|c| c.cannot.is_none());
    able()
        .find(|c| c.is_good(need))
        .or_else(|| able().find(|c| c.available >= *need))
        // The first of equals.
        .or_else(|| able().rev().max_by(|a, b| a.available.cmp(&b.available)))
}

/// For a person: every candidate, and why it does not send.
pub fn why_none(candidates: &[Candidate]) -> String {
    let each = candidates.iter().map(|c| match &c.cannot {
        None => format!("{} has {}", c.id, fil(&c.available)),
        Some(why) => why.clone(),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Address = Address::new_id(100);
    const WORKER: Address = Address::new_id(101);

    fn id(n: u64) -> Address {
        Address::new_id(n)
    }

    fn info(control: &[u64]) -> MinerInfo {
        MinerInfo {
            owner: OWNER,
            worker: WORKER,
            beneficiary: None,
            pending_owner_address: None,
            new_worker: None,
            control_addresses: control.iter().map(|n| id(*n)).collect(),
            worker_change_epoch: -1,
            peer_id: None,
            multiaddrs: vec![],
            window_post_proof_type: 10,
            sector_size: 2048,
            window_post_partition_sectors: 2,
            consensus_fault_elapsed: -1,
        }
    }

    #[test]
    fn purposes_follow_from_actor_and_method() {
        let miner = Some(id(1000));
        for (to, number, want) in [
            (1000, 5, Purpose::Proving),
            (1000, 10, Purpose::Proving),
            (1000, 11, Purpose::Proving),
            (1000, 28, Purpose::PreCommit),
            (1000, 34, Purpose::Commit),
            (1000, 9, Purpose::Terminate),
            (1000, 16, Purpose::Other),
            (5, 4, Purpose::DealPublish),
            (5, 5, Purpose::Other),
            (1001, 5, Purpose::Other),
        ] {
            assert_eq!(Purpose::of(miner, id(to), number), want, "{to} {number}");
        }
    }

    #[test]
    fn proving_takes_the_control_addresses_that_no_other_purpose_has() {
        let all = [200, 201, 202].map(id);
        let rules = |pre_commit: &[u64], no_worker, no_owner| AddressRules {
            pre_commit: pre_commit.iter().map(|n| id(*n)).collect(),
            disable_worker_fallback: no_worker,
            disable_owner_fallback: no_owner,
            ..AddressRules::default()
        };
        let same = |a: &Address| Some(*a);
        for (rules, control, purpose, want) in [
            (rules(&[], false, false), &[][..], Purpose::Proving, vec![WORKER, OWNER]),
            (rules(&[], false, true), &[], Purpose::Proving, vec![WORKER]),
            // Disabled with nothing else to send from: the worker all the same.
            (rules(&[], true, true), &[], Purpose::Proving, vec![WORKER]),
            (rules(&[], true, true), &[200], Purpose::Proving, vec![all[0]]),
            (rules(&[], false, false), &[200, 201], Purpose::Proving, vec![all[0], all[1], WORKER, OWNER]),
            (rules(&[200], false, false), &[200, 201], Purpose::Proving, vec![all[1], WORKER, OWNER]),
            (rules(&[200], false, false), &[200, 201], Purpose::PreCommit, vec![all[0], WORKER, OWNER]),
            (rules(&[200], true, true), &[200, 201], Purpose::PreCommit, vec![all[0]]),
            (rules(&[200], false, false), &[200, 201], Purpose::Commit, vec![WORKER, OWNER]),
            (rules(&[202], false, false), &[200], Purpose::PreCommit, vec![WORKER, OWNER]),
            (rules(&[101], false, false), &[], Purpose::PreCommit, vec![WORKER, OWNER]),
            (rules(&[200], false, false), &[200], Purpose::Other, vec![WORKER]),
        ] {
            assert_eq!(rules.candidates(purpose, &info(control), same), want, "{rules:?} {control:?} {purpose:?}");
        }
        let unknown = rules(&[200], false, false).candidates(Purpose::PreCommit, &info(&[200]), |_| None);
        assert_eq!(unknown, [WORKER, OWNER], "an address that cannot be looked up is passed over");
    }

    #[test]
    fn the_first_that_can_pay_sends_and_a_line_that_stands_is_avoided() {
        let c = |n: u64, available: u64, has_key: bool, is_free| Candidate {
            id: id(n),
            key: id(n),
            available: TokenAmount::from_atto(available),
            cannot: (!has_key).then(|| "no key".into()),
            is_free,
        };
        let need = TokenAmount::from_atto(100u64);
        for (candidates, want) in [
            (vec![c(1, 100, true, true), c(2, 500, true, true)], Some(1)),
            (vec![c(1, 99, true, true), c(2, 500, true, true)], Some(2)),
            (vec![c(1, 500, false, true), c(2, 500, true, true)], Some(2)),
            (vec![c(1, 500, true, false), c(2, 500, true, true)], Some(2)),
            (vec![c(1, 500, true, false), c(2, 99, true, true)], Some(1)),
            (vec![c(1, 50, true, true), c(2, 70, true, true), c(3, 70, true, true)], Some(2)),
            (vec![c(1, 500, false, true)], None),
            (vec![], None),
        ] {
            let got = pick(&candidates, &need).map(|c| c.id);
            assert_eq!(got, want.map(id), "{candidates:?}");
        }
    }
}
