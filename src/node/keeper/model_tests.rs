//! A model of one node and its cluster: claims and releases answered late or not at all, leases lost, etcd put back, the
//! keeper started anew, in any order. Once all of that is over, every view of "who holds it, under which epoch" agrees.

use super::look::Seen;
use super::phase::{Command, Event, Leave, Phase};
use crate::node::concern::Concern;
use crate::node::seat::{EPOCH_SHIFT, Held, Holding, Seat};
use crate::rpc::bridge::HeldEpoch;
use crate::rpc::directory::lease::ProvenUntil;
use crate::rpc::directory::placement::{Step, Why};
use crate::rpc::directory::{Lease, LeaseState};
use crate::store::Store;
use crate::supervisor::Tenure;
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
    /// The keeper looks, and its view is up to date or not.
    Look {
        fresh: bool,
    },
    /// What is under way ends.
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
    /// The keeper ends and a new one begins; what it had under way may have been carried out.
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
    seat: Seat,
    /// Of the lease that the seat has, if it has one: ends it, and the epoch.
    lost: Option<(watch::Sender<bool>, u64)>,
    /// Of the present session: until when its leases are proven.
    until: ProvenUntil,
    unproven: bool,
    phase: Phase,
    under_way: Option<Command>,
    up: bool,
    view: Option<Row>,
    wanted_here: bool,
    /// By which late news are told; passes while all rests.
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
            seat: Seat::new(Concern::WinningPost, PATH.into()),
            lost: None,
            until: proven(),
            unproven: false,
            phase: Phase::Away,
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

    fn event(&mut self, event: Event) {
        let (next, command) = self.phase.step(self.seat.concern.in_doubt(), event);
        self.phase = next;
        if let Some(command) = command {
            self.command(command);
        }
    }

    fn command(&mut self, command: Command) {
        assert_eq!(self.under_way, None, "two things under way at a time");
        match command {
            Command::Forget => {
                if let Some(lost) = self.seat.vacate() {
                    self.seat.ended_at(lost.epoch(), self.now);
                }
            }
            command => self.under_way = Some(command),
        }
    }

    fn done(&mut self, outcome: Outcome) {
        let Some(command) = self.under_way.take() else { return };
        let event = match (command, outcome) {
            (Command::Acquire, Outcome::Succeeds) => {
                let epoch = self.claim();
                if let Some(epoch) = epoch {
                    let lease = self.lease(epoch);
                    self.seat.acquired(Holding::leased(lease, self.store.clone()));
                }
                Event::Acquired(epoch.is_some())
            }
            (Command::Acquire, outcome) => {
                if outcome == Outcome::Unanswered {
                    self.claim();
                }
                Event::Acquired(false)
            }
            (Command::Enter, outcome) => {
                let starts = outcome == Outcome::Succeeds && self.seat.holding().is_some();
                if outcome != Outcome::Fails {
                    self.seat.open();
                }
                self.up |= starts;
                Event::Entered(starts)
            }
            (Command::Leave, _) => {
                self.seat.close();
                self.seat.halt();
                self.up = false;
                Event::Left
            }
            (Command::Release, outcome) => {
                if let Some(holding) = self.seat.vacate() {
                    let (epoch, was_lost) = (holding.epoch(), holding.state() == LeaseState::Lost);
                    if outcome != Outcome::Fails && !was_lost {
                        self.delete_ours(epoch);
                    }
                    if outcome == Outcome::Succeeds || was_lost {
                        self.seat.ended_at(epoch, self.now);
                    }
                }
                Event::Released
            }
            (Command::GiveBack, outcome) => {
                if outcome != Outcome::Fails
                    && let Some(epoch) = self.claim()
                    && outcome == Outcome::Succeeds
                {
                    self.delete_ours(epoch);
                    self.seat.ended_at(epoch, self.now);
                }
                Event::Released
            }
            (Command::Forget, _) => unreachable!("it is done at once"),
        };
        self.event(event);
    }

    /// As the keeper's.
    fn look(&mut self) {
        if let Some(holding) = self.seat.holding() {
            self.event(Event::Lease(holding.state()));
        }
        if !self.phase.agrees(self.seat.held()) {
            self.found();
        }
        let concern = || PATH.to_string();
        let step = match self.view {
            Some(Row { who: Who::Other, .. }) => return,
            Some(Row { who: Who::Us(_), .. }) if self.wanted_here => Step::Keep { concern: concern(), despite: None },
            Some(Row { who: Who::Us(_), .. }) => Step::Release { concern: concern(), why: Why::Drained },
            None if self.wanted_here => Step::Acquire { concern: concern() },
            None => return,
        };
        let row = self.view.map(|row| row.epoch).filter(|_| matches!(step, Step::Keep { .. } | Step::Release { .. }));
        let seen = Seen { step, phase: self.phase, row, ended: self.seat.ended(self.now), in_contact: true };
        if let Some(event) = seen.event() {
            self.event(event);
        }
    }

    fn found(&mut self) {
        let allowed = self.seat.holding().is_none_or(|holding| self.seat.concern.in_doubt().allows(holding.state()));
        let (phase, command) = Phase::found(self.seat.held(), self.up, allowed);
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
                self.look();
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
                    Some(Command::Acquire | Command::GiveBack) if carried_out => {
                        if let Some(epoch) = self.claim() {
                            self.delete_ours(epoch);
                        }
                    }
                    Some(Command::Release) => {
                        if let Some(holding) = self.seat.vacate().filter(|_| carried_out) {
                            self.delete_ours(holding.epoch());
                        }
                    }
                    Some(Command::Enter) if carried_out => {
                        self.seat.open();
                        self.up = true;
                    }
                    Some(Command::Leave) => {
                        self.seat.close();
                        if carried_out {
                            self.up = false;
                        }
                    }
                    _ => {}
                }
                self.found();
                if self.phase == Phase::Seated {
                    self.seat.open();
                }
            }
            Act::WantedHere(here) => self.wanted_here = here,
        }
        self.check();
    }

    /// Holds at every moment.
    fn check(&self) {
        let (held, gate) = (self.seat.holding().map(|holding| holding.epoch()), self.seat.held_epoch());
        assert!(gate == 0 || Some(gate) == held, "the bridge lets in {gate}, held is {held:?}");
        let token = self.seat.epoch_base() + 1;
        if let Some(holding) = self.seat.present() {
            let allowed = self.seat.concern.in_doubt().allows(holding.state());
            assert_eq!(self.seat.holds(token), allowed, "what starts now is under what is held");
        } else {
            assert!(!self.seat.holds(token), "nothing has effects under what is not held");
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
        let (seat, epoch) = (&world.seat, epoch.unwrap_or_default());
        prop_assert_eq!((world.phase, seat.held(), world.up), (Phase::Seated, Held::Running, true));
        prop_assert_eq!(seat.holding().map(|holding| (holding.epoch(), holding.state())), Some((epoch, LeaseState::Proven)));
        prop_assert_eq!((seat.held_epoch(), seat.epoch_base() >> EPOCH_SHIFT), (epoch, epoch));
        prop_assert!(seat.holds(seat.epoch_base() + 1));
        prop_assert_eq!(world.lost.as_ref().map(|(_, epoch)| *epoch), Some(epoch), "the directory's own");

        world.rest(false);
        prop_assert_eq!(world.row, None, "nobody is kept from it");
        let (seat, token) = (&world.seat, world.seat.epoch_base() + 1);
        prop_assert_eq!((world.phase, seat.held(), world.up), (Phase::Away, Held::No, false));
        prop_assert!(seat.held_epoch() == 0 && !seat.holds(token));
    }
}

/// Of the two faults that the model was written for.
#[test]
fn a_claim_without_an_answer_is_taken_up_and_an_etcd_that_was_put_back_gives_a_lower_epoch() {
    let mut world = World::new();
    world.act(Act::Look { fresh: true });
    world.act(Act::Done(Outcome::Unanswered));
    assert_eq!((world.phase, world.row.map(|row| row.epoch)), (Phase::Away, Some(101)));
    world.rest(true);
    assert_eq!((world.phase, world.seat.held_epoch()), (Phase::Seated, 101));
    world.act(Act::PutBack);
    world.act(Act::Look { fresh: true });
    assert_eq!(world.phase, Phase::Leaving(Leave::Forget));
    world.rest(true);
    assert_eq!((world.phase, world.seat.held_epoch(), world.seat.epoch_base() >> EPOCH_SHIFT), (Phase::Seated, 2, 2));
}
