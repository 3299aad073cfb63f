//! The life of one concern on this node: pure. The reconciler carries the commands out and reports their results.

use crate::node::concern::InDoubt;
use crate::node::lease_slot::Held;
use crate::rpc::directory::LeaseState;

/// The state of a concern on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcernPhase {
    /// Not held here.
    Away,
    /// The directory is asked for the lease.
    Acquiring,
    /// Held; its state is loaded and its actor started.
    Entering { then: Option<Leave> },
    /// Held and running.
    Running,
    /// Its actor is being stopped, in order.
    Leaving(Leave),
    /// Held, but not running while the lease cannot be proven.
    Paused,
    /// The lease is being given back.
    Releasing,
}

/// The next step once a concern's actor has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Others may take it at once.
    Release,
    /// The lease is lost: there is nothing to give back.
    Forget,
    /// Wait until the lease is proven again.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseEvent {
    /// The placement wants it here, and nobody holds it.
    Wanted,
    /// The placement wants it elsewhere.
    Unwanted,
    /// The cluster takes this node for the holder, nothing here is held, and the placement wants it elsewhere.
    LeftOver,
    /// The result of [`PhaseCommand::Acquire`], [`PhaseCommand::Enter`].
    Acquired(bool),
    Entered(bool),
    /// [`PhaseCommand::Leave`] is done.
    Left,
    /// [`PhaseCommand::Release`] or [`PhaseCommand::GiveBack`] is done.
    Released,
    /// How the lease stands now.
    Lease(LeaseState),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseCommand {
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

impl ConcernPhase {
    /// For a reconciler that begins anew: what it had started about a concern has ended with it, half done or not. One that is
    /// held and does not run is entered again, which can be repeated: nobody else may take it. `allowed`: effects are, as
    /// its lease stands.
    pub fn found(held: Held, up: bool, allowed: bool) -> (ConcernPhase, Option<PhaseCommand>) {
        match (held, up) {
            (Held::No, _) => (ConcernPhase::Away, None),
            (Held::Running, true) => (ConcernPhase::Running, None),
            // The next look finds the lease proven, or lost.
            (Held::Waiting, _) if !allowed => (ConcernPhase::Paused, None),
            (Held::Waiting, _) | (Held::Running, false) => {
                (ConcernPhase::Entering { then: None }, Some(PhaseCommand::Enter))
            }
        }
    }

    /// Whether the slot says the same. True while something is under way.
    pub fn agrees(self, held: Held) -> bool {
        match self {
            ConcernPhase::Away => held == Held::No,
            ConcernPhase::Running => held == Held::Running,
            ConcernPhase::Paused => held == Held::Waiting,
            ConcernPhase::Acquiring
            | ConcernPhase::Entering { .. }
            | ConcernPhase::Leaving(_)
            | ConcernPhase::Releasing => true,
        }
    }

    pub fn step(self, in_doubt: InDoubt, event: PhaseEvent) -> (ConcernPhase, Option<PhaseCommand>) {
        use ConcernPhase::*;
        match (self, event) {
            (Away, PhaseEvent::Wanted) => (Acquiring, Some(PhaseCommand::Acquire)),
            (Away, PhaseEvent::LeftOver) => (Releasing, Some(PhaseCommand::GiveBack)),
            (Acquiring, PhaseEvent::Acquired(true)) => (Entering { then: None }, Some(PhaseCommand::Enter)),
            (Acquiring, PhaseEvent::Acquired(false)) => (Away, None),

            // An entry is not interrupted; what speaks against it is done right after.
            (Entering { then }, PhaseEvent::Unwanted) => (Entering { then: then.or(Some(Leave::Release)) }, None),
            (Entering { then }, PhaseEvent::Lease(state)) => (Entering { then: doubt(in_doubt, state).or(then) }, None),
            (Entering { then: None }, PhaseEvent::Entered(true)) => (Running, None),
            (Entering { then: Some(leave) }, PhaseEvent::Entered(true)) => (Leaving(leave), Some(PhaseCommand::Leave)),
            (Entering { then: Some(Leave::Forget) }, PhaseEvent::Entered(false)) => {
                (Leaving(Leave::Forget), Some(PhaseCommand::Leave))
            }
            // What cannot run here may run elsewhere.
            (Entering { .. }, PhaseEvent::Entered(false)) => (Leaving(Leave::Release), Some(PhaseCommand::Leave)),

            (Running, PhaseEvent::Unwanted) => (Leaving(Leave::Release), Some(PhaseCommand::Leave)),
            (Running, PhaseEvent::Lease(state)) => match doubt(in_doubt, state) {
                Some(leave) => (Leaving(leave), Some(PhaseCommand::Leave)),
                None => (Running, None),
            },

            (Leaving(_), PhaseEvent::Lease(LeaseState::Lost)) => (Leaving(Leave::Forget), None),
            (Leaving(Leave::Pause), PhaseEvent::Unwanted) => (Leaving(Leave::Release), None),
            (Leaving(Leave::Release), PhaseEvent::Left) => (Releasing, Some(PhaseCommand::Release)),
            (Leaving(Leave::Forget), PhaseEvent::Left) => (Away, Some(PhaseCommand::Forget)),
            (Leaving(Leave::Pause), PhaseEvent::Left) => (Paused, None),

            (Paused, PhaseEvent::Lease(LeaseState::Proven)) => (Entering { then: None }, Some(PhaseCommand::Enter)),
            (Paused, PhaseEvent::Lease(LeaseState::Lost)) => (Away, Some(PhaseCommand::Forget)),
            (Paused, PhaseEvent::Unwanted) => (Releasing, Some(PhaseCommand::Release)),

            (Releasing, PhaseEvent::Released) => (Away, None),

            // Said again, or too late to matter.
            (
                Away,
                PhaseEvent::Unwanted
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Entered(_)
                | PhaseEvent::Left
                | PhaseEvent::Released
                | PhaseEvent::Lease(_),
            )
            | (
                Acquiring,
                PhaseEvent::Wanted
                | PhaseEvent::Unwanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Entered(_)
                | PhaseEvent::Left
                | PhaseEvent::Released
                | PhaseEvent::Lease(_),
            )
            | (
                Entering { .. },
                PhaseEvent::Wanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Left
                | PhaseEvent::Released,
            )
            | (
                Running,
                PhaseEvent::Wanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Entered(_)
                | PhaseEvent::Left
                | PhaseEvent::Released,
            )
            | (
                Leaving(_),
                PhaseEvent::Wanted
                | PhaseEvent::Unwanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Entered(_)
                | PhaseEvent::Released
                | PhaseEvent::Lease(LeaseState::Proven | LeaseState::Unproven),
            )
            | (
                Paused,
                PhaseEvent::Wanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Entered(_)
                | PhaseEvent::Left
                | PhaseEvent::Released
                | PhaseEvent::Lease(LeaseState::Unproven),
            )
            | (
                Releasing,
                PhaseEvent::Wanted
                | PhaseEvent::Unwanted
                | PhaseEvent::LeftOver
                | PhaseEvent::Acquired(_)
                | PhaseEvent::Entered(_)
                | PhaseEvent::Left
                | PhaseEvent::Lease(_),
            ) => (self, None),
        }
    }
}

/// The reaction of a running concern to that state of its lease.
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
    use ConcernPhase::*;
    use LeaseState::*;

    const ENTERING: ConcernPhase = Entering { then: None };

    #[test]
    fn a_keeper_that_begins_anew_leaves_nothing_held_that_does_not_run() {
        let enter = Some(PhaseCommand::Enter);
        let table = [
            (Held::No, false, true, Away, None),
            (Held::No, true, false, Away, None),
            (Held::Waiting, false, true, ENTERING, enter),
            (Held::Waiting, true, true, ENTERING, enter),
            (Held::Waiting, false, false, Paused, None),
            (Held::Running, true, true, Running, None),
            (Held::Running, true, false, Running, None),
            (Held::Running, false, true, ENTERING, enter),
        ];
        for (held, up, allowed, phase, command) in table {
            assert_eq!(ConcernPhase::found(held, up, allowed), (phase, command), "{held:?}, up {up}, {allowed}");
            assert!(phase.agrees(held), "{held:?}, up {up}, {allowed}");
        }
        assert!(!Away.agrees(Held::Waiting) && !Running.agrees(Held::No) && !Paused.agrees(Held::Running));
    }

    #[test]
    fn a_concern_comes_and_goes() {
        let both = [InDoubt::GoOn, InDoubt::Stop];
        let table: &[(ConcernPhase, PhaseEvent, ConcernPhase, Option<PhaseCommand>)] = &[
            (Away, PhaseEvent::Wanted, Acquiring, Some(PhaseCommand::Acquire)),
            (Away, PhaseEvent::Lease(Lost), Away, None),
            (Away, PhaseEvent::Unwanted, Away, None),
            (Away, PhaseEvent::LeftOver, Releasing, Some(PhaseCommand::GiveBack)),
            (Running, PhaseEvent::LeftOver, Running, None),
            (Acquiring, PhaseEvent::Wanted, Acquiring, None),
            (Acquiring, PhaseEvent::Acquired(false), Away, None),
            (Acquiring, PhaseEvent::Acquired(true), ENTERING, Some(PhaseCommand::Enter)),
            (ENTERING, PhaseEvent::Entered(true), Running, None),
            (ENTERING, PhaseEvent::Entered(false), Leaving(Leave::Release), Some(PhaseCommand::Leave)),
            (ENTERING, PhaseEvent::Unwanted, Entering { then: Some(Leave::Release) }, None),
            (ENTERING, PhaseEvent::Lease(Lost), Entering { then: Some(Leave::Forget) }, None),
            (
                Entering { then: Some(Leave::Release) },
                PhaseEvent::Lease(Lost),
                Entering { then: Some(Leave::Forget) },
                None,
            ),
            (
                Entering { then: Some(Leave::Forget) },
                PhaseEvent::Entered(true),
                Leaving(Leave::Forget),
                Some(PhaseCommand::Leave),
            ),
            (
                Entering { then: Some(Leave::Forget) },
                PhaseEvent::Entered(false),
                Leaving(Leave::Forget),
                Some(PhaseCommand::Leave),
            ),
            (Running, PhaseEvent::Wanted, Running, None),
            (Running, PhaseEvent::Lease(Proven), Running, None),
            (Running, PhaseEvent::Unwanted, Leaving(Leave::Release), Some(PhaseCommand::Leave)),
            (Running, PhaseEvent::Lease(Lost), Leaving(Leave::Forget), Some(PhaseCommand::Leave)),
            (Leaving(Leave::Release), PhaseEvent::Lease(Lost), Leaving(Leave::Forget), None),
            (Leaving(Leave::Release), PhaseEvent::Left, Releasing, Some(PhaseCommand::Release)),
            (Leaving(Leave::Forget), PhaseEvent::Left, Away, Some(PhaseCommand::Forget)),
            (Leaving(Leave::Pause), PhaseEvent::Left, Paused, None),
            (Paused, PhaseEvent::Lease(Unproven), Paused, None),
            (Paused, PhaseEvent::Lease(Proven), ENTERING, Some(PhaseCommand::Enter)),
            (Paused, PhaseEvent::Lease(Lost), Away, Some(PhaseCommand::Forget)),
            (Paused, PhaseEvent::Unwanted, Releasing, Some(PhaseCommand::Release)),
            (Releasing, PhaseEvent::Wanted, Releasing, None),
            (Releasing, PhaseEvent::Released, Away, None),
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
            assert_eq!(Running.step(in_doubt, PhaseEvent::Lease(Unproven)), (Running, None), "{in_doubt:?}");
        }
        let stops = Running.step(InDoubt::Stop, PhaseEvent::Lease(Unproven));
        assert_eq!(stops, (Leaving(Leave::Pause), Some(PhaseCommand::Leave)));
    }

    /// Whatever is told in whatever order: no effect without a lease, and never stuck.
    #[test]
    fn every_phase_answers_every_event_and_a_lost_lease_always_ends_away() {
        let leaves = [Leave::Release, Leave::Forget, Leave::Pause];
        let mut phases = vec![Away, Acquiring, ENTERING, Running, Paused, Releasing];
        phases.extend(leaves.map(Leaving));
        phases.extend(leaves.map(|leave| Entering { then: Some(leave) }));
        for mut phase in phases {
            for in_doubt in [InDoubt::GoOn, InDoubt::Stop] {
                (phase, _) = phase.step(in_doubt, PhaseEvent::Lease(Lost));
                for done in
                    [PhaseEvent::Acquired(false), PhaseEvent::Entered(true), PhaseEvent::Left, PhaseEvent::Released]
                {
                    (phase, _) = phase.step(in_doubt, done);
                }
                assert_eq!(phase, Away);
            }
        }
    }
}
