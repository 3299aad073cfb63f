//! Participation in fast finality as a Lotus node gives it (`chain/lf3/participation_lease.go`): tickets, leases, refusals.
//! No GossiPBFT runs: each epoch counts as one instance, so that leases run out as on a network.

use crate::chain::f3::{F3Lease, MAX_INSTANCES, code};
use std::collections::BTreeMap;

/// Why a ticket or a lease is not given: Lotus' code and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("f3 is disabled")]
    Disabled,
    #[error("ticket is not valid")]
    TicketInvalid,
    #[error("ticket has expired")]
    TicketExpired,
    #[error("issuer does not match current node")]
    IssuerMismatch,
    #[error("requested instance count too high")]
    TooManyInstances,
    #[error("ticket starts before existing lease")]
    StartsBeforeExisting,
    /// No code of its own in Lotus.
    #[error("not enough instances")]
    NotEnoughInstances,
}

impl Refusal {
    pub fn code(self) -> i64 {
        match self {
            Refusal::Disabled => code::DISABLED,
            Refusal::TicketInvalid => code::TICKET_INVALID,
            Refusal::TicketExpired => code::TICKET_EXPIRED,
            Refusal::IssuerMismatch => code::ISSUER_MISMATCH,
            Refusal::TooManyInstances => code::TOO_MANY_INSTANCES,
            Refusal::StartsBeforeExisting => code::STARTS_BEFORE_EXISTING,
            Refusal::NotEnoughInstances => 1,
        }
    }
}

/// The node's side of fast finality at one moment.
#[derive(Clone, Debug)]
pub struct Now {
    pub network: String,
    /// This node's peer id.
    pub issuer: String,
    pub instance: u64,
}

/// The leases by miner; a restart of the node forgets them, as in Lotus.
#[derive(Default, Debug)]
pub struct Leaser {
    leases: BTreeMap<u64, F3Lease>,
}

impl Leaser {
    pub fn ticket(now: &Now, miner: u64, previous: &[u8], instances: u64) -> Result<F3Lease, Refusal> {
        if instances == 0 {
            return Err(Refusal::NotEnoughInstances);
        }
        if instances > MAX_INSTANCES {
            return Err(Refusal::TooManyInstances);
        }
        if !previous.is_empty() {
            match check(now, previous) {
                // One that has run out is followed by any other.
                Ok(_) | Err(Refusal::TicketExpired | Refusal::TooManyInstances) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(F3Lease {
            network: now.network.clone(),
            issuer: now.issuer.clone(),
            miner_id: miner,
            from_instance: now.instance,
            validity_term: instances,
        })
    }

    pub fn participate(&mut self, now: &Now, ticket: &[u8]) -> Result<F3Lease, Refusal> {
        let lease = check(now, ticket)?;
        let known = self.leases.get(&lease.miner_id);
        if known.is_some_and(|known| known.network == lease.network && known.from_instance > lease.from_instance) {
            return Err(Refusal::StartsBeforeExisting);
        }
        self.leases.insert(lease.miner_id, lease.clone());
        let validity_term = lease.to_instance().saturating_sub(now.instance);
        Ok(F3Lease { from_instance: now.instance, validity_term, ..lease })
    }

    /// The miners that this node signs for at that instance.
    pub fn participants(&self, now: &Now) -> Vec<u64> {
        let valid = |lease: &&F3Lease| lease.network == now.network && now.instance <= lease.to_instance();
        self.leases.values().filter(valid).map(|lease| lease.miner_id).collect()
    }
}

fn check(now: &Now, ticket: &[u8]) -> Result<F3Lease, Refusal> {
    let lease = F3Lease::of_ticket(ticket).ok_or(Refusal::TicketInvalid)?;
    if now.network != lease.network || now.instance > lease.to_instance() {
        return Err(Refusal::TicketExpired);
    }
    if now.issuer != lease.issuer {
        return Err(Refusal::IssuerMismatch);
    }
    if lease.validity_term > MAX_INSTANCES { Err(Refusal::TooManyInstances) } else { Ok(lease) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(instance: u64) -> Now {
        Now { network: "net".into(), issuer: "me".into(), instance }
    }

    fn ticket(change: impl FnOnce(&mut F3Lease)) -> Vec<u8> {
        let mut lease = Leaser::ticket(&at(10), 1000, &[], 5).unwrap();
        change(&mut lease);
        lease.to_ticket().unwrap()
    }

    #[test]
    fn tickets_follow_the_one_before_only_at_the_same_node_or_after_its_end() {
        use Refusal::*;
        let table = [
            (10, vec![], 0, Err(NotEnoughInstances)),
            (10, vec![], 1, Ok(10)),
            (10, vec![], 5, Ok(10)),
            (10, vec![], 6, Err(TooManyInstances)),
            (10, vec![1, 2], 5, Err(TicketInvalid)),
            (12, ticket(|_| {}), 5, Ok(12)),
            (15, ticket(|t| t.issuer = "other".into()), 5, Err(IssuerMismatch)),
            (16, ticket(|t| t.issuer = "other".into()), 5, Ok(16)),
            (12, ticket(|t| t.network = "other".into()), 5, Ok(12)),
            (12, ticket(|t| t.validity_term = 6), 5, Ok(12)),
        ];
        for (instance, previous, instances, want) in table {
            let given = Leaser::ticket(&at(instance), 1000, &previous, instances).map(|lease| lease.from_instance);
            assert_eq!(given, want, "at {instance} for {instances} after {previous:?}");
        }
    }

    #[test]
    fn a_lease_counts_to_its_end_and_never_starts_earlier_than_the_one_before() {
        let mut leaser = Leaser::default();
        let first = ticket(|_| {});
        let lease = leaser.participate(&at(12), &first).unwrap();
        assert_eq!((lease.from_instance, lease.validity_term), (12, 3));
        assert_eq!(leaser.participants(&at(15)), [1000]);
        assert_eq!(leaser.participants(&at(16)), [0u64; 0]);
        assert_eq!(leaser.participate(&at(16), &first), Err(Refusal::TicketExpired));
        leaser.participate(&at(12), &ticket(|t| t.from_instance = 12)).unwrap();
        assert_eq!(leaser.participate(&at(12), &first), Err(Refusal::StartsBeforeExisting));
        assert_eq!(leaser.participate(&at(12), &ticket(|t| t.issuer = "x".into())), Err(Refusal::IssuerMismatch));
        assert_eq!(leaser.participate(&at(12), &[]), Err(Refusal::TicketInvalid));
    }
}
