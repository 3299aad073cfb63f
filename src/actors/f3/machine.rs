//! The lease loop of F3 participation: pure. An answer of the full node -> the next call, and when.
//!
//! Two nodes that sign for one miner equivocate, so that there is never a second lease: a ticket is renewed where it was
//! issued; one of another node, or of another process that held this concern before, is waited out by instances, not by time.
//! (lotus `chain/lf3/participation.go`, `participation_lease.go`; forest `rpc/methods/f3`.)

use super::messages::{F3Report, F3State};
use crate::chain::f3::{F3Lease, MAX_INSTANCES, code};
use crate::util::Backoff;
use std::time::Duration;

/// A call to the full node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `F3GetProgress`.
    Progress,
    /// `F3GetOrRenewParticipationTicket`; empty: no ticket before it.
    Ticket { previous: Vec<u8>, instances: u64 },
    /// `F3Participate`.
    Participate { ticket: Vec<u8> },
    /// `F3GetManifest`.
    Manifest,
}

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Disabled,
    TicketInvalid,
    TicketExpired,
    IssuerMismatch,
    TooManyInstances,
    StartsBeforeExisting,
    NotReady,
    /// The node lacks the method.
    Missing,
    /// Anything else, a silent node among it.
    Other,
}

impl Refusal {
    /// By Lotus' code, else by the words of a node that has none (Forest).
    pub fn of(code: Option<i64>, message: &str) -> Refusal {
        match code {
            Some(code::DISABLED) => return Refusal::Disabled,
            Some(code::TICKET_INVALID) => return Refusal::TicketInvalid,
            Some(code::TICKET_EXPIRED) => return Refusal::TicketExpired,
            Some(code::ISSUER_MISMATCH) => return Refusal::IssuerMismatch,
            Some(code::TOO_MANY_INSTANCES) => return Refusal::TooManyInstances,
            Some(code::STARTS_BEFORE_EXISTING) => return Refusal::StartsBeforeExisting,
            Some(code::NOT_READY) => return Refusal::NotReady,
            _ => {}
        }
        let text = message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["f3 is disabled", "f3 is not enabled"]) {
            Refusal::Disabled
        } else if says(&["has expired", "has been expired", "different network", "current network"]) {
            Refusal::TicketExpired
        } else if says(&["not issued by", "issuer does not match", "issuer mismatch"]) {
            Refusal::IssuerMismatch
        } else if says(&["should never decrease", "starts before existing"]) {
            Refusal::StartsBeforeExisting
        } else if says(&["yet ready", "not ready", "not running"]) {
            Refusal::NotReady
        } else {
            Refusal::Other
        }
    }
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Progress(u64),
    Ticket(Vec<u8>),
    Lease(F3Lease),
    /// The network's name and the time of one instance; `None`: the node has no manifest yet.
    Manifest(Option<(String, Duration)>),
    Refused(Refusal, String),
}

/// The next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub after: Duration,
    pub ask: Ask,
    /// A ticket to be on disk before the call is made.
    pub save: Option<Vec<u8>>,
}

/// Between two rounds at least.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60)).factor(1.5);
/// A node without fast finality is asked again after this.
const DISABLED_PAUSE: Duration = Duration::from_secs(300);
/// Failures in a row after which a try begins again with a ticket (lotus: 13, about five minutes).
const GIVE_UP_AFTER: u32 = 13;
/// Between two looks at a node whose lease has no known end: one without a manifest, or with an unknown time per instance.
const UNKNOWN_ALIGNMENT: Duration = Duration::from_secs(30);
/// Instances that pass between two looks while others' leases are waited out. More: the node catches up with the network,
/// and others' leases end later than its own count says.
const MOST_PASSED: u64 = 2;
/// Instances that a lease has left when it is renewed.
const RENEW_WITHIN: u64 = MAX_INSTANCES / 2;

/// 1 s, 1.5 s, 2.25 s, .. up to a minute.
pub fn backoff(failures: u32) -> Duration {
    BACKOFF.after(failures)
}

/// The loop of one miner at one full node.
#[derive(Clone, Debug)]
pub struct Participation {
    /// The last ticket; empty: none, or one that has certainly run out.
    ticket: Vec<u8>,
    /// No ticket is taken before this instance has passed: until then somebody else's lease may count. `None`: nobody's can.
    wait_past: Option<u64>,
    /// Between two looks while that is waited out. `None`: the network's time of an instance, as far as it is known.
    look_every: Option<Duration>,
    /// Only we take leases for this miner: a start needs to wait for nobody.
    alone: bool,
    instances: u64,
    alignment: Option<(String, Duration)>,
    lease: Option<F3Lease>,
    /// The call in hand.
    ask: Ask,
    pub report: F3Report,
}

impl Participation {
    /// `kept`: the ticket that an earlier process left here, or nothing. `alone`: no other host may hold this concern.
    pub fn new(miner_id: u64, kept: Vec<u8>, alone: bool) -> Participation {
        let ours = F3Lease::of_ticket(&kept).is_some_and(|lease| lease.miner_id == miner_id);
        Participation {
            ticket: if ours { kept } else { Vec::new() },
            wait_past: None,
            look_every: None,
            alone,
            instances: MAX_INSTANCES,
            alignment: None,
            lease: None,
            ask: Ask::Progress,
            report: F3Report::default(),
        }
    }

    /// The first call.
    pub fn begin(&mut self) -> Next {
        self.next(Duration::ZERO, Ask::Progress)
    }

    fn next(&mut self, after: Duration, ask: Ask) -> Next {
        self.ask = ask.clone();
        Next { after, ask, save: None }
    }

    fn ticket(&mut self, after: Duration) -> Next {
        let ask = Ask::Ticket { previous: self.ticket.clone(), instances: self.instances };
        self.next(after, ask)
    }

    fn participate(&mut self, after: Duration) -> Next {
        let ask = Ask::Participate { ticket: self.ticket.clone() };
        self.next(after, ask)
    }

    fn succeeded(&mut self) {
        self.report.failures = 0;
        self.report.error = None;
    }

    pub fn answered(&mut self, answer: Answer) -> Next {
        match answer {
            Answer::Progress(instance) => self.progressed(instance),
            Answer::Ticket(ticket) => {
                self.succeeded();
                self.ticket = ticket.clone();
                Next { save: Some(ticket), ..self.participate(Duration::ZERO) }
            }
            Answer::Lease(lease) => self.leased(lease),
            Answer::Manifest(manifest) => self.told(manifest),
            Answer::Refused(refusal, why) => self.refused(refusal, why),
        }
    }

    /// The calls go to another full node from now on. A ticket of the one before is shown to it until its instances have
    /// passed, as after a restart: a node never renews the ticket of another one.
    pub fn moved(&mut self, full_node: String) -> Next {
        self.report.full_node = full_node;
        self.succeeded();
        self.report.state = if self.ticket.is_empty() { F3State::Starting } else { F3State::Waiting };
        self.next(Duration::ZERO, Ask::Progress)
    }

    /// Which leases may count at this instance.
    fn progressed(&mut self, instance: u64) -> Next {
        let before = self.report.instance.replace(instance);
        let end = F3Lease::of_ticket(&self.ticket).map(|lease| lease.to_instance());
        if let Some(end) = end {
            if instance <= end {
                // Ours, or refused as another node's: that node is asked until it takes or outlives it.
                return match self.report.failures {
                    0 => self.ticket(Duration::ZERO),
                    failures => self.ticket(backoff(failures)),
                };
            }
            self.ticket = Vec::new();
        }
        if before.is_none() && !self.alone && self.wait_past.is_none() {
            // Whoever held this before has taken no ticket after this instance, and none for longer.
            self.wait_past = Some(instance.saturating_add(MAX_INSTANCES));
        }
        if let Some(past) = self.wait_past {
            let pause = self.alignment.as_ref().map_or(UNKNOWN_ALIGNMENT, |(_, alignment)| *alignment);
            let mut pause = self.look_every.unwrap_or(pause.clamp(LEAST_PAUSE, BACKOFF.cap));
            // That start was no count of the network's: the node catches up, or the instances begin anew.
            let counts = before.is_none_or(|before| (before..=before.saturating_add(MOST_PASSED)).contains(&instance));
            let past = if counts { past } else { instance.saturating_add(MAX_INSTANCES) };
            if !counts {
                // On a quick network that is what the looks are too seldom for.
                pause = (pause / 2).max(LEAST_PAUSE);
                self.look_every = Some(pause);
            }
            if instance <= past {
                self.wait_past = Some(past);
                self.report.state = F3State::Waiting;
                return self.next(pause, Ask::Progress);
            }
        }
        (self.wait_past, self.look_every) = (None, None);
        match (self.ticket.is_empty(), self.report.failures) {
            (true, _) => self.ticket(Duration::ZERO),
            // A ticket that cannot be read: given up like one that has run out, once it has been refused often enough.
            (false, failures) if failures > GIVE_UP_AFTER => {
                self.succeeded();
                self.ticket = Vec::new();
                self.ticket(Duration::ZERO)
            }
            (false, failures) => self.ticket(backoff(failures)),
        }
    }

    fn leased(&mut self, lease: F3Lease) -> Next {
        self.succeeded();
        if self.report.state != F3State::Participating || self.report.lease_to != Some(lease.to_instance()) {
            self.report.leases += 1;
        }
        self.report.state = F3State::Participating;
        self.report.instance = Some(lease.from_instance);
        self.report.lease_to = Some(lease.to_instance());
        (self.report.network, self.report.issuer) = (lease.network.clone(), lease.issuer.clone());
        let left = lease.validity_term;
        let alignment = self.alignment.as_ref().filter(|(network, _)| *network == lease.network).map(|(_, time)| *time);
        self.lease = Some(lease);
        if left <= RENEW_WITHIN {
            return self.ticket(LEAST_PAUSE);
        }
        match alignment {
            Some(alignment) => {
                let wait = alignment.saturating_mul(u32::try_from(left - RENEW_WITHIN).unwrap_or(u32::MAX));
                self.participate(wait.max(LEAST_PAUSE))
            }
            None => self.next(Duration::ZERO, Ask::Manifest),
        }
    }

    fn told(&mut self, manifest: Option<(String, Duration)>) -> Next {
        let network = self.lease.as_ref().map(|lease| lease.network.clone());
        match manifest {
            Some((name, alignment)) => {
                self.succeeded();
                let other = network.is_some_and(|network| network != name);
                self.alignment = Some((name, alignment));
                // Of another network than the lease: fast finality has begun anew meanwhile.
                if other { self.ticket(LEAST_PAUSE) } else { self.participate(LEAST_PAUSE) }
            }
            // One that had it may have lost it at a restart, and the lease runs out meanwhile: the next ticket tells.
            None => {
                self.succeeded();
                self.ticket(UNKNOWN_ALIGNMENT)
            }
        }
    }

    fn refused(&mut self, refusal: Refusal, why: String) -> Next {
        self.report.error = Some(why);
        match refusal {
            Refusal::Disabled | Refusal::Missing => {
                // F3GetProgress came last: without it leases cannot be waited out, but they can be had.
                if self.ask == Ask::Progress && refusal == Refusal::Missing && self.alone {
                    return self.ticket(LEAST_PAUSE);
                }
                self.report.state = F3State::Disabled;
                self.report.failures = 0;
                self.report.lease_to = None;
                self.next(DISABLED_PAUSE, Ask::Progress)
            }
            Refusal::NotReady => {
                self.report.state = F3State::NotReady;
                self.report.failures = self.report.failures.saturating_add(1);
                let (pause, ask) = (backoff(self.report.failures), self.ask.clone());
                self.next(pause, ask)
            }
            // The node forgot the lease, or it is over: the next ticket follows this one.
            Refusal::TicketExpired | Refusal::StartsBeforeExisting if matches!(self.ask, Ask::Participate { .. }) => {
                self.ticket(LEAST_PAUSE)
            }
            Refusal::TicketExpired => {
                // Forest says so of any ticket of an earlier network.
                self.ticket = Vec::new();
                self.ticket(LEAST_PAUSE)
            }
            Refusal::TooManyInstances => {
                self.instances = (self.instances - 1).max(1);
                self.ticket(LEAST_PAUSE)
            }
            // Whether it has run out is a question of instances.
            Refusal::IssuerMismatch | Refusal::TicketInvalid => {
                self.fail(if refusal == Refusal::IssuerMismatch { F3State::Waiting } else { F3State::Failing });
                let pause = backoff(self.report.failures);
                self.next(pause, Ask::Progress)
            }
            Refusal::StartsBeforeExisting | Refusal::Other => {
                self.fail(F3State::Failing);
                let (pause, ask) = (backoff(self.report.failures), self.ask.clone());
                match ask {
                    Ask::Participate { .. } | Ask::Manifest if self.report.failures > GIVE_UP_AFTER => {
                        self.report.failures = 0;
                        self.ticket(pause)
                    }
                    ask => self.next(pause, ask),
                }
            }
        }
    }

    fn fail(&mut self, state: F3State) {
        self.report.failures = self.report.failures.saturating_add(1);
        self.report.state = state;
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
