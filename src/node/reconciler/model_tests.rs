//! A model of one node and its cluster: claims and releases answered late or not at all, leases lost, etcd put back, the
//! reconciler started anew, in any order. Once all of that is over, every view of "who holds it, under which epoch" agrees.

use super::compare::Seen;
use super::phase::{ConcernPhase, Leave, PhaseCommand, PhaseEvent};
use crate::node::concern::Concern;
use crate::node::lease_slot::{EPOCH_SHIFT, Held, HeldLease, LeaseSlot};
use crate::rpc::bridge::HeldEpoch;
use crate::rpc::directory::lease::ProvenUntil;
use crate::rpc::directory::placement::{PlacementStep, Why};
use crate::rpc::directory::{Lease, LeaseState};
use crate::store::Store;
use crate::supervisor::EpochSource;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// More looks than anything here takes to come to rest.
const LOOKS: usize = 40;
const PATH: &str = "/t01000/winning-post";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// This node, in that session of its own with etcd.
    Us(u32),
    Other,
}

/// The concern's key in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    epoch: u64,
    who: Who,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The reconciler looks, and its view is up to date or not.
    Look {
        fresh: bool,
    },
    /// The step under way ends.
    Done(Outcome),
    /// An acquisition that the node has given up reaches etcd now.
    LateClaim,
    /// etcd gives no answer for so long that nothing is proven; and gives it again.
    Unproven(bool),
    /// Our session ends, and all that hangs on it.
    SessionLost,
    /// Somebody deletes the key.
    TakenAway,
    /// Another node takes it if it is free; gives it back.
    OtherTakes,
    OtherLeaves,
    Backup,
    PutBack,
    /// The reconciler ends and a new one begins; what it had under way may have been carried out.
    KeeperRestarts {
        carried_out: bool,
    },
    /// The placement wants it here, or elsewhere.
    WantedHere(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Succeeds,
    Fails,
    /// It is carried out, and the answer is lost.
    Unanswered,
}

fn acts() -> impl Strategy<Value = Act> {
    let outcome = prop_oneof![3 => Just(Outcome::Succeeds), 1 => Just(Outcome::Fails), 2 => Just(Outcome::Unanswered)];
    prop_oneof![
        6 => any::<bool>().prop_map(|fresh| Act::Look { fresh }),
        6 => outcome.prop_map(Act::Done),
        1 => Just(Act::LateClaim),
        1 => any::<bool>().prop_map(Act::Unproven),
        1 => Just(Act::SessionLost),
        1 => Just(Act::TakenAway),
        1 => Just(Act::OtherTakes),
        1 => Just(Act::OtherLeaves),
        1 => Just(Act::Backup),
        1 => Just(Act::PutBack),
        1 => any::<bool>().prop_map(|carried_out| Act::KeeperRestarts { carried_out }),
        1 => any::<bool>().prop_map(Act::WantedHere),
    ]
}

struct World {
    // etcd
    revision: u64,
    row: Option<Row>,
    backup: (u64, Option<Row>),
    // the node
    session: u32,
    slot: LeaseSlot,
    /// The end and the epoch of the slot's lease; `None`: the slot has none.
    lost: Option<(watch::Sender<bool>, u64)>,
    /// The time until which leases of the present session are proven.
    until: ProvenUntil,
    unproven: bool,
    phase: ConcernPhase,
    under_way: Option<PhaseCommand>,
    up: bool,
    view: Option<Row>,
    wanted_here: bool,
    /// The model's clock, by which late reports are told; passes while all rests.
    now: Instant,
    store: Store,
}

fn proven() -> ProvenUntil {
    ProvenUntil::until(Instant::now() + Duration::from_secs(3600))
}

impl World {
    fn new() -> World {
        static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
        let (_, store) = STORE.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("s.redb")).unwrap();
            (dir, store)
        });
        World {
            revision: 100,
            row: None,
            backup: (1, None),
            session: 1,
            slot: LeaseSlot::new(Concern::WinningPost, PATH.into()),
            lost: None,
            until: proven(),
            unproven: false,
            phase: ConcernPhase::Away,
            under_way: None,
            up: false,
            view: None,
            wanted_here: true,
            now: Instant::now(),
            store: store.clone(),
        }
    }

    /// As the directory's claim: ours already, an earlier session's of ours, or free.
    fn claim(&mut self) -> Option<u64> {
        match self.row {
            Some(Row { epoch, who: Who::Us(session) }) if session == self.session => Some(epoch),
            Some(Row { who: Who::Other, .. }) => None,
            Some(Row { who: Who::Us(_), .. }) | None => {
                self.revision += 1;
                self.row = Some(Row { epoch: self.revision, who: Who::Us(self.session) });
                Some(self.revision)
            }
        }
    }

    /// The directory has a lease of that epoch from now on.
    fn lease(&mut self, epoch: u64) -> Lease {
        let (sender, lost) = watch::channel(false);
        self.lost = Some((sender, epoch));
        Lease::scripted(PATH, epoch, self.until.clone(), lost)
    }

    fn lose(&mut self) {
        if let Some((lost, _)) = &self.lost {
            lost.send_replace(true);
        }
    }

    /// As a lease is given back: what is lost already is not ours to give.
    fn delete_ours(&mut self, epoch: u64) {
        if self.row == Some(Row { epoch, who: Who::Us(self.session) }) {
            self.revision += 1;
            self.row = None;
        }
    }

    fn begin_session(&mut self) {
        self.lose();
        self.session += 1;
        self.until = if self.unproven { ProvenUntil::until(Instant::now()) } else { proven() };
    }

    fn event(&mut self, event: PhaseEvent) {
        let (next, command) = self.phase.step(self.slot.concern.in_doubt(), event);
        self.phase = next;
        if let Some(command) = command {
            self.command(command);
        }
    }

    fn command(&mut self, command: PhaseCommand) {
        assert_eq!(self.under_way, None, "two things under way at a time");
        match command {
            PhaseCommand::Forget => {
                if let Some(lost) = self.slot.vacate() {
                    self.slot.ended_at(lost.epoch(), self.now);
                }
            }
            command => self.under_way = Some(command),
        }
    }

    fn done(&mut self, outcome: Outcome) {
        let Some(command) = self.under_way.take() else { return };
        let event = match (command, outcome) {
            (PhaseCommand::Acquire, Outcome::Succeeds) => {
                let epoch = self.claim();
                if let Some(epoch) = epoch {
                    let lease = self.lease(epoch);
                    self.slot.acquired(HeldLease::leased(lease, self.store.clone()));
                }
                PhaseEvent::Acquired(epoch.is_some())
            }
            (PhaseCommand::Acquire, outcome) => {
                if outcome == Outcome::Unanswered {
                    self.claim();
                }
                PhaseEvent::Acquired(false)
            }
            (PhaseCommand::Enter, outcome) => {
                let starts = outcome == Outcome::Succeeds && self.slot.held_lease().is_some();
                if outcome != Outcome::Fails {
                    self.slot.open();
                }
                self.up |= starts;
                PhaseEvent::Entered(starts)
            }
            (PhaseCommand::Leave, _) => {
                self.slot.close();
                self.slot.halt();
                self.up = false;
                PhaseEvent::Left
            }
            (PhaseCommand::Release, outcome) => {
                if let Some(held_lease) = self.slot.vacate() {
                    let (epoch, was_lost) = (held_lease.epoch(), held_lease.state() == LeaseState::Lost);
                    if outcome != Outcome::Fails && !was_lost {
                        self.delete_ours(epoch);
                    }
                    if outcome == Outcome::Succeeds || was_lost {
                        self.slot.ended_at(epoch, self.now);
                    }
                }
                PhaseEvent::Released
            }
            (PhaseCommand::GiveBack, outcome) => {
                if outcome != Outcome::Fails
                    && let Some(epoch) = self.claim()
                    && outcome == Outcome::Succeeds
                {
                    self.delete_ours(epoch);
                    self.slot.ended_at(epoch, self.now);
                }
                PhaseEvent::Released
            }
            (PhaseCommand::Forget, _) => unreachable!("it is done at once"),
        };
        self.event(event);
    }

    /// As the reconciler's.
    fn reconcile(&mut self) {
        if let Some(held_lease) = self.slot.held_lease() {
            self.event(PhaseEvent::Lease(held_lease.state()));
        }
        if !self.phase.agrees(self.slot.held()) {
            self.found();
        }
        let concern = || PATH.to_string();
        let step = match self.view {
            Some(Row { who: Who::Other, .. }) => return,
            Some(Row { who: Who::Us(_), .. }) if self.wanted_here => {
                PlacementStep::Keep { concern: concern(), despite: None }
            }
            Some(Row { who: Who::Us(_), .. }) => PlacementStep::Release { concern: concern(), why: Why::Drained },
            None if self.wanted_here => PlacementStep::Acquire { concern: concern() },
            None => return,
        };
        let row = self
            .view
            .map(|row| row.epoch)
            .filter(|_| matches!(step, PlacementStep::Keep { .. } | PlacementStep::Release { .. }));
        let seen = Seen { step, phase: self.phase, row, ended: self.slot.ended(self.now), in_contact: true };
        if let Some(event) = seen.event() {
            self.event(event);
        }
    }

    fn found(&mut self) {
        let allowed =
            self.slot.held_lease().is_none_or(|held_lease| self.slot.concern.in_doubt().allows(held_lease.state()));
        let (phase, command) = ConcernPhase::found(self.slot.held(), self.up, allowed);
        self.phase = phase;
        if let Some(command) = command {
            self.command(command);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Look { fresh } => {
                if fresh {
                    self.view = self.row;
                }
                self.reconcile();
            }
            Act::Done(outcome) => self.done(outcome),
            Act::LateClaim => {
                if self.row.is_none() {
                    self.claim();
                }
            }
            Act::Unproven(unproven) => {
                self.unproven = unproven;
                match unproven {
                    true => self.until.run_out(),
                    false => self.until.extend(Instant::now() + Duration::from_secs(3600)),
                }
            }
            Act::SessionLost => {
                if matches!(self.row, Some(Row { who: Who::Us(_), .. })) {
                    self.revision += 1;
                    self.row = None;
                }
                self.begin_session();
            }
            Act::TakenAway => {
                if let Some(Row { who: Who::Us(_), .. }) = self.row.take() {
                    self.lose();
                }
                self.revision += 1;
            }
            Act::OtherTakes => {
                if self.row.is_none() {
                    self.revision += 1;
                    self.row = Some(Row { epoch: self.revision, who: Who::Other });
                }
            }
            Act::OtherLeaves => {
                if matches!(self.row, Some(Row { who: Who::Other, .. })) {
                    self.revision += 1;
                    self.row = None;
                }
            }
            Act::Backup => self.backup = (self.revision, self.row),
            Act::PutBack => {
                (self.revision, self.row) = self.backup;
                self.begin_session();
            }
            Act::KeeperRestarts { carried_out } => {
                match self.under_way.take() {
                    // Nobody takes the lease that it came to, so it is given back.
                    Some(PhaseCommand::Acquire | PhaseCommand::GiveBack) if carried_out => {
                        if let Some(epoch) = self.claim() {
                            self.delete_ours(epoch);
                        }
                    }
                    Some(PhaseCommand::Release) => {
                        if let Some(held_lease) = self.slot.vacate().filter(|_| carried_out) {
                            self.delete_ours(held_lease.epoch());
                        }
                    }
                    Some(PhaseCommand::Enter) if carried_out => {
                        self.slot.open();
                        self.up = true;
                    }
                    Some(PhaseCommand::Leave) => {
                        self.slot.close();
                        if carried_out {
                            self.up = false;
                        }
                    }
                    _ => {}
                }
                self.found();
                if self.phase == ConcernPhase::Running {
                    self.slot.open();
                }
            }
            Act::WantedHere(here) => self.wanted_here = here,
        }
        self.check();
    }

    /// Holds at every moment.
    fn check(&self) {
        let (held, gate) = (self.slot.held_lease().map(|held_lease| held_lease.epoch()), self.slot.held_epoch());
        assert!(gate == 0 || Some(gate) == held, "the bridge lets in {gate}, held is {held:?}");
        let token = self.slot.epoch_base() + 1;
        if let Some(held_lease) = self.slot.present() {
            let allowed = self.slot.concern.in_doubt().allows(held_lease.state());
            assert_eq!(self.slot.holds(token), allowed, "what starts now is under what is held");
        } else {
            assert!(!self.slot.holds(token), "nothing has effects under what is not held");
        }
    }

    /// From now on everything is answered and seen.
    fn rest(&mut self, wanted_here: bool) {
        self.act(Act::Unproven(false));
        self.act(Act::OtherLeaves);
        // Nobody keeps alive what hangs on an earlier session.
        self.row = self.row.filter(|row| row.who == Who::Us(self.session));
        self.wanted_here = wanted_here;
        for _ in 0..LOOKS {
            self.now += Duration::from_secs(1);
            self.act(Act::Look { fresh: true });
            self.act(Act::Done(Outcome::Succeeds));
        }
        assert_eq!(self.under_way, None, "it does not come to rest: {:?}", self.phase);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn whatever_went_wrong_every_view_of_a_hold_agrees_after_a_look(acts in vec(acts(), 0..60)) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.rest(true);
        let epoch = world.row.filter(|row| row.who == Who::Us(world.session)).map(|row| row.epoch);
        prop_assert!(epoch.is_some(), "the cluster has {:?} for its holder", world.row);
        let (slot, epoch) = (&world.slot, epoch.unwrap_or_default());
        prop_assert_eq!((world.phase, slot.held(), world.up), (ConcernPhase::Running, Held::Running, true));
        prop_assert_eq!(slot.held_lease().map(|held_lease| (held_lease.epoch(), held_lease.state())), Some((epoch, LeaseState::Proven)));
        prop_assert_eq!((slot.held_epoch(), slot.epoch_base() >> EPOCH_SHIFT), (epoch, epoch));
        prop_assert!(slot.holds(slot.epoch_base() + 1));
        prop_assert_eq!(world.lost.as_ref().map(|(_, epoch)| *epoch), Some(epoch), "the directory's own");

        world.rest(false);
        prop_assert_eq!(world.row, None, "nobody is kept from it");
        let (slot, token) = (&world.slot, world.slot.epoch_base() + 1);
        prop_assert_eq!((world.phase, slot.held(), world.up), (ConcernPhase::Away, Held::No, false));
        prop_assert!(slot.held_epoch() == 0 && !slot.holds(token));
    }
}

/// Replays the two faults that the model was written for.
#[test]
fn a_claim_without_an_answer_is_taken_up_and_an_etcd_that_was_put_back_gives_a_lower_epoch() {
    let mut world = World::new();
    world.act(Act::Look { fresh: true });
    world.act(Act::Done(Outcome::Unanswered));
    assert_eq!((world.phase, world.row.map(|row| row.epoch)), (ConcernPhase::Away, Some(101)));
    world.rest(true);
    assert_eq!((world.phase, world.slot.held_epoch()), (ConcernPhase::Running, 101));
    world.act(Act::PutBack);
    world.act(Act::Look { fresh: true });
    assert_eq!(world.phase, ConcernPhase::Leaving(Leave::Forget));
    world.rest(true);
    assert_eq!(
        (world.phase, world.slot.held_epoch(), world.slot.epoch_base() >> EPOCH_SHIFT),
        (ConcernPhase::Running, 2, 2)
    );
}
