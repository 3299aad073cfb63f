//! Compares the directory's view with a concern's slot: pure.
//!
//! A row of the directory that names this node while its slot is empty is an answer that came too late, or a lease that
//! could not be given back: it is taken up, or given back again.

use super::phase::{ConcernPhase, PhaseEvent};
use crate::rpc::directory::placement::{PlacementStep, Why};

/// The observed state of one concern.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The placement's decision.
    pub step: PlacementStep,
    pub phase: ConcernPhase,
    /// Epoch of the directory's row if that names this node. `None`: it names another one, or there is no row.
    pub row: Option<u64>,
    /// The epoch that the row may still show though the cluster knows its holding to have ended.
    pub ended: Option<u64>,
    /// Whether the directory's changes reach this node.
    pub in_contact: bool,
}

impl Seen {
    /// The cluster takes this node for the holder, and this node does not know of it.
    pub fn is_left_over(&self) -> bool {
        self.phase == ConcernPhase::Away && self.in_contact && self.row.is_some() && self.row != self.ended
    }

    /// `None`: nothing is to be done now. A wait is over before the next look but one.
    pub fn event(&self) -> Option<PhaseEvent> {
        match (&self.step, self.phase) {
            (PlacementStep::Acquire { .. }, _) => Some(PhaseEvent::Wanted),
            (PlacementStep::Wait { .. }, _) => None,
            (PlacementStep::Keep { .. }, _) => self.is_left_over().then_some(PhaseEvent::Wanted),
            (PlacementStep::Release { .. }, ConcernPhase::Away) => self.is_left_over().then_some(PhaseEvent::LeftOver),
            // What is on its way follows nobody.
            (PlacementStep::Release { why: Why::Beside { .. }, .. }, phase) => {
                (phase == ConcernPhase::Running).then_some(PhaseEvent::Unwanted)
            }
            (PlacementStep::Release { why: Why::Moved { .. } | Why::Drained | Why::RoleLost, .. }, _) => {
                Some(PhaseEvent::Unwanted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_row_of_ours_that_nobody_here_knows_of_is_taken_up_or_given_back() {
        let concern = || "/t01000/window-post".to_string();
        let keep = || PlacementStep::Keep { concern: concern(), despite: None };
        let release = |why| PlacementStep::Release { concern: concern(), why };
        let (moved, beside) = (Why::Moved { to: "b".into() }, Why::Beside { at: "b".into() });
        let wait = PlacementStep::Wait { concern: concern(), until: Instant::now() };
        let entering = ConcernPhase::Entering { then: None };
        // step, phase, row, ended, in contact -> event
        let table = [
            (
                PlacementStep::Acquire { concern: concern() },
                ConcernPhase::Away,
                None,
                None,
                true,
                Some(PhaseEvent::Wanted),
            ),
            (wait, ConcernPhase::Away, None, None, true, None),
            (keep(), ConcernPhase::Away, Some(41), None, true, Some(PhaseEvent::Wanted)),
            (keep(), ConcernPhase::Away, Some(41), Some(40), true, Some(PhaseEvent::Wanted)),
            // The view has not seen yet what the cluster has told us, or we the cluster.
            (keep(), ConcernPhase::Away, Some(41), Some(41), true, None),
            // After etcd was put back epochs are lower; it is another hold all the same.
            (keep(), ConcernPhase::Away, Some(41), Some(900), true, Some(PhaseEvent::Wanted)),
            (keep(), ConcernPhase::Away, Some(41), None, false, None),
            (keep(), ConcernPhase::Acquiring, Some(41), None, true, None),
            (keep(), ConcernPhase::Running, Some(41), None, true, None),
            (keep(), ConcernPhase::Releasing, Some(41), None, true, None),
            (release(moved.clone()), ConcernPhase::Away, Some(41), None, true, Some(PhaseEvent::LeftOver)),
            (release(Why::Drained), ConcernPhase::Away, Some(41), None, true, Some(PhaseEvent::LeftOver)),
            (release(beside.clone()), ConcernPhase::Away, Some(41), None, true, Some(PhaseEvent::LeftOver)),
            (release(moved.clone()), ConcernPhase::Away, Some(41), Some(41), true, None),
            (release(moved.clone()), ConcernPhase::Running, Some(41), None, true, Some(PhaseEvent::Unwanted)),
            (release(moved), entering, Some(41), None, true, Some(PhaseEvent::Unwanted)),
            (release(beside.clone()), ConcernPhase::Running, Some(41), None, true, Some(PhaseEvent::Unwanted)),
            (release(beside), entering, Some(41), None, true, None),
        ];
        for (step, phase, row, ended, in_contact, event) in table {
            let seen = Seen { step, phase, row, ended, in_contact };
            assert_eq!(seen.event(), event, "{seen:?}");
        }
    }
}
