//! How one concern comes to this node and leaves it: pure. The keeper carries the commands out and tells what came of them.

use crate::node::concern::InDoubt;
use crate::node::seat::Held;
use crate::rpc::directory::LeaseState;

/// Where a concern stands on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not held here.
    Away,
    /// The directory is asked for the lease.
    Acquiring,
    /// Held; its state is loaded and its actor started.
    Entering { then: Option<Leave> },
    /// Held and running.
    Seated,
    /// Its actor is being stopped, in order.
    Leaving(Leave),
    /// Held, but not running while the lease cannot be proven.
    Paused,
    /// The lease is being given back.
    Releasing,
}

/// What follows once a concern's actor has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Others may take it at once.
    Release,
    /// The lease is lost: there is nothing to give back.
    Forget,
    /// Until the lease is proven again.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The placement wants it here, and nobody holds it.
    Wanted,
    /// The placement wants it elsewhere.
    Unwanted,
    /// The cluster takes this node for the holder, nothing here is held, and the placement wants it elsewhere.
    LeftOver,
    /// What came of [`Command::Acquire`], [`Command::Enter`].
    Acquired(bool),
    Entered(bool),
    /// [`Command::Leave`] is done.
    Left,
    /// [`Command::Release`] or [`Command::GiveBack`] is done.
    Released,
    /// How the lease stands now.
    Lease(LeaseState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Acquire,
    /// Load the concern's state under the lease, then start its actor.
    Enter,
    /// Stop its actor.
    Leave,
    Release,
    /// Give back what only the cluster knows of.
    GiveBack,
    /// Drop what is left of a lost lease.
    Forget,
}

impl Phase {
    /// For a keeper that begins anew: what it had started about a concern has ended with it, half done or not. One that is
    /// held and does not run is entered again, which can be repeated: nobody else may take it. `allowed`: effects are, as
    /// its lease stands.
    pub fn found(held: Held, up: bool, allowed: bool) -> (Phase, Option<Command>) {
        match (held, up) {
            (Held::No, _) => (Phase::Away, None),
            (Held::Running, true) => (Phase::Seated, None),
            // The next look finds the lease proven, or lost.
            (Held::Waiting, _) if !allowed => (Phase::Paused, None),
            (Held::Waiting, _) | (Held::Running, false) => (Phase::Entering { then: None }, Some(Command::Enter)),
        }
    }

    /// Whether the seat says the same. True while something is under way.
    pub fn agrees(self, held: Held) -> bool {
        match self {
            Phase::Away => held == Held::No,
            Phase::Seated => held == Held::Running,
            Phase::Paused => held == Held::Waiting,
            Phase::Acquiring | Phase::Entering { .. } | Phase::Leaving(_) | Phase::Releasing => true,
        }
    }

    pub fn step(self, in_doubt: InDoubt, event: Event) -> (Phase, Option<Command>) {
        use Phase::*;
        match (self, event) {
            (Away, Event::Wanted) => (Acquiring, Some(Command::Acquire)),
            (Away, Event::LeftOver) => (Releasing, Some(Command::GiveBack)),
            (Acquiring, Event::Acquired(true)) => (Entering { then: None }, Some(Command::Enter)),
            (Acquiring, Event::Acquired(false)) => (Away, None),

            // An entry is not interrupted; what speaks against it is done right after.
            (Entering { then }, Event::Unwanted) => (Entering { then: then.or(Some(Leave::Release)) }, None),
            (Entering { then }, Event::Lease(state)) => (Entering { then: doubt(in_doubt, state).or(then) }, None),
            (Entering { then: None }, Event::Entered(true)) => (Seated, None),
            (Entering { then: Some(leave) }, Event::Entered(true)) => (Leaving(leave), Some(Command::Leave)),
            (Entering { then: Some(Leave::Forget) }, Event::Entered(false)) => {
                (Leaving(Leave::Forget), Some(Command::Leave))
            }
            // What cannot run here may run elsewhere.
            (Entering { .. }, Event::Entered(false)) => (Leaving(Leave::Release), Some(Command::Leave)),

            (Seated, Event::Unwanted) => (Leaving(Leave::Release), Some(Command::Leave)),
            (Seated, Event::Lease(state)) => match doubt(in_doubt, state) {
                Some(leave) => (Leaving(leave), Some(Command::Leave)),
                None => (Seated, None),
            },

            (Leaving(_), Event::Lease(LeaseState::Lost)) => (Leaving(Leave::Forget), None),
            (Leaving(Leave::Pause), Event::Unwanted) => (Leaving(Leave::Release), None),
            (Leaving(Leave::Release), Event::Left) => (Releasing, Some(Command::Release)),
            (Leaving(Leave::Forget), Event::Left) => (Away, Some(Command::Forget)),
            (Leaving(Leave::Pause), Event::Left) => (Paused, None),

            (Paused, Event::Lease(LeaseState::Proven)) => (Entering { then: None }, Some(Command::Enter)),
            (Paused, Event::Lease(LeaseState::Lost)) => (Away, Some(Command::Forget)),
            (Paused, Event::Unwanted) => (Releasing, Some(Command::Release)),

            (Releasing, Event::Released) => (Away, None),

            // Said again, or too late to matter.
            (
                Away,
                Event::Unwanted
                | Event::Acquired(_)
                | Event::Entered(_)
                | Event::Left
                | Event::Released
                | Event::Lease(_),
            )
            | (
                Acquiring,
                Event::Wanted
                | Event::Unwanted
                | Event::LeftOver
                | Event::Entered(_)
                | Event::Left
                | Event::Released
                | Event::Lease(_),
            )
            | (Entering { .. }, Event::Wanted | Event::LeftOver | Event::Acquired(_) | Event::Left | Event::Released)
            | (
                Seated,
                Event::Wanted
                | Event::LeftOver
                | Event::Acquired(_)
                | Event::Entered(_)
                | Event::Left
                | Event::Released,
            )
            | (
                Leaving(_),
                Event::Wanted
                | Event::Unwanted
                | Event::LeftOver
                | Event::Acquired(_)
                | Event::Entered(_)
                | Event::Released
                | Event::Lease(LeaseState::Proven | LeaseState::Unproven),
            )
            | (
                Paused,
                Event::Wanted
                | Event::LeftOver
                | Event::Acquired(_)
                | Event::Entered(_)
                | Event::Left
                | Event::Released
                | Event::Lease(LeaseState::Unproven),
            )
            | (
                Releasing,
                Event::Wanted
                | Event::Unwanted
                | Event::LeftOver
                | Event::Acquired(_)
                | Event::Entered(_)
                | Event::Left
                | Event::Lease(_),
            ) => (self, None),
        }
    }
}

/// What a lease in that state asks of a concern that runs.
fn doubt(in_doubt: InDoubt, state: LeaseState) -> Option<Leave> {
    match state {
        LeaseState::Lost => Some(Leave::Forget),
        state if in_doubt.allows(state) => None,
        LeaseState::Proven | LeaseState::Unproven => Some(Leave::Pause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LeaseState::*;
    use Phase::*;

    const ENTERING: Phase = Entering { then: None };

    #[test]
    fn a_keeper_that_begins_anew_leaves_nothing_held_that_does_not_run() {
        let enter = Some(Command::Enter);
        let table = [
            (Held::No, false, true, Away, None),
            (Held::No, true, false, Away, None),
            (Held::Waiting, false, true, ENTERING, enter),
            (Held::Waiting, true, true, ENTERING, enter),
            (Held::Waiting, false, false, Paused, None),
            (Held::Running, true, true, Seated, None),
            (Held::Running, true, false, Seated, None),
            (Held::Running, false, true, ENTERING, enter),
        ];
        for (held, up, allowed, phase, command) in table {
            assert_eq!(Phase::found(held, up, allowed), (phase, command), "{held:?}, up {up}, {allowed}");
            assert!(phase.agrees(held), "{held:?}, up {up}, {allowed}");
        }
        assert!(!Away.agrees(Held::Waiting) && !Seated.agrees(Held::No) && !Paused.agrees(Held::Running));
    }

    #[test]
    fn a_concern_comes_and_goes() {
        let both = [InDoubt::GoOn, InDoubt::Stop];
        let table: &[(Phase, Event, Phase, Option<Command>)] = &[
            (Away, Event::Wanted, Acquiring, Some(Command::Acquire)),
            (Away, Event::Lease(Lost), Away, None),
            (Away, Event::Unwanted, Away, None),
            (Away, Event::LeftOver, Releasing, Some(Command::GiveBack)),
            (Seated, Event::LeftOver, Seated, None),
            (Acquiring, Event::Wanted, Acquiring, None),
            (Acquiring, Event::Acquired(false), Away, None),
            (Acquiring, Event::Acquired(true), ENTERING, Some(Command::Enter)),
            (ENTERING, Event::Entered(true), Seated, None),
            (ENTERING, Event::Entered(false), Leaving(Leave::Release), Some(Command::Leave)),
            (ENTERING, Event::Unwanted, Entering { then: Some(Leave::Release) }, None),
            (ENTERING, Event::Lease(Lost), Entering { then: Some(Leave::Forget) }, None),
            (Entering { then: Some(Leave::Release) }, Event::Lease(Lost), Entering { then: Some(Leave::Forget) }, None),
            (
                Entering { then: Some(Leave::Forget) },
                Event::Entered(true),
                Leaving(Leave::Forget),
                Some(Command::Leave),
            ),
            (
                Entering { then: Some(Leave::Forget) },
                Event::Entered(false),
                Leaving(Leave::Forget),
                Some(Command::Leave),
            ),
            (Seated, Event::Wanted, Seated, None),
            (Seated, Event::Lease(Proven), Seated, None),
            (Seated, Event::Unwanted, Leaving(Leave::Release), Some(Command::Leave)),
            (Seated, Event::Lease(Lost), Leaving(Leave::Forget), Some(Command::Leave)),
            (Leaving(Leave::Release), Event::Lease(Lost), Leaving(Leave::Forget), None),
            (Leaving(Leave::Release), Event::Left, Releasing, Some(Command::Release)),
            (Leaving(Leave::Forget), Event::Left, Away, Some(Command::Forget)),
            (Leaving(Leave::Pause), Event::Left, Paused, None),
            (Paused, Event::Lease(Unproven), Paused, None),
            (Paused, Event::Lease(Proven), ENTERING, Some(Command::Enter)),
            (Paused, Event::Lease(Lost), Away, Some(Command::Forget)),
            (Paused, Event::Unwanted, Releasing, Some(Command::Release)),
            (Releasing, Event::Wanted, Releasing, None),
            (Releasing, Event::Released, Away, None),
        ];
        for (phase, event, next, command) in table {
            for in_doubt in both {
                assert_eq!(phase.step(in_doubt, *event), (*next, *command), "{phase:?} {event:?}");
            }
        }
    }

    #[test]
    fn in_doubt_only_what_must_never_be_done_twice_stops() {
        for in_doubt in [InDoubt::GoOn, InDoubt::WithinRange, InDoubt::Finish] {
            assert_eq!(Seated.step(in_doubt, Event::Lease(Unproven)), (Seated, None), "{in_doubt:?}");
        }
        let stops = Seated.step(InDoubt::Stop, Event::Lease(Unproven));
        assert_eq!(stops, (Leaving(Leave::Pause), Some(Command::Leave)));
    }

    /// Whatever is told in whatever order: no effect without a lease, and never stuck.
    #[test]
    fn every_phase_answers_every_event_and_a_lost_lease_always_ends_away() {
        let leaves = [Leave::Release, Leave::Forget, Leave::Pause];
        let mut phases = vec![Away, Acquiring, ENTERING, Seated, Paused, Releasing];
        phases.extend(leaves.map(Leaving));
        phases.extend(leaves.map(|leave| Entering { then: Some(leave) }));
        for mut phase in phases {
            for in_doubt in [InDoubt::GoOn, InDoubt::Stop] {
                (phase, _) = phase.step(in_doubt, Event::Lease(Lost));
                for done in [Event::Acquired(false), Event::Entered(true), Event::Left, Event::Released] {
                    (phase, _) = phase.step(in_doubt, done);
                }
                assert_eq!(phase, Away);
            }
        }
    }
}
