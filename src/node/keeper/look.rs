//! What a look at the directory's view comes to for one concern: pure.
//!
//! The view and the seat are compared here. A row of the directory that names this node while its seat is empty is an
//! answer that came too late, or a lease that could not be given back: it is taken up, or given back again.

use super::phase::{Event, Phase};
use crate::rpc::directory::placement::{Step, Why};

/// What is seen of one concern.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the placement says.
    pub step: Step,
    pub phase: Phase,
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
        self.phase == Phase::Away && self.in_contact && self.row.is_some() && self.row != self.ended
    }

    /// `None`: nothing is to be done now. A wait is over before the next look but one.
    pub fn event(&self) -> Option<Event> {
        match (&self.step, self.phase) {
            (Step::Acquire { .. }, _) => Some(Event::Wanted),
            (Step::Wait { .. }, _) => None,
            (Step::Keep { .. }, _) => self.is_left_over().then_some(Event::Wanted),
            (Step::Release { .. }, Phase::Away) => self.is_left_over().then_some(Event::LeftOver),
            // What is on its way follows nobody.
            (Step::Release { why: Why::Beside { .. }, .. }, phase) => {
                (phase == Phase::Seated).then_some(Event::Unwanted)
            }
            (Step::Release { why: Why::Moved { .. } | Why::Drained | Why::RoleLost, .. }, _) => Some(Event::Unwanted),
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
        let keep = || Step::Keep { concern: concern(), despite: None };
        let release = |why| Step::Release { concern: concern(), why };
        let (moved, beside) = (Why::Moved { to: "b".into() }, Why::Beside { at: "b".into() });
        let wait = Step::Wait { concern: concern(), until: Instant::now() };
        let entering = Phase::Entering { then: None };
        // step, phase, row, ended, in contact -> event
        let table = [
            (Step::Acquire { concern: concern() }, Phase::Away, None, None, true, Some(Event::Wanted)),
            (wait, Phase::Away, None, None, true, None),
            (keep(), Phase::Away, Some(41), None, true, Some(Event::Wanted)),
            (keep(), Phase::Away, Some(41), Some(40), true, Some(Event::Wanted)),
            // The view has not seen yet what the cluster has told us, or we the cluster.
            (keep(), Phase::Away, Some(41), Some(41), true, None),
            // After etcd was put back epochs are lower; it is another hold all the same.
            (keep(), Phase::Away, Some(41), Some(900), true, Some(Event::Wanted)),
            (keep(), Phase::Away, Some(41), None, false, None),
            (keep(), Phase::Acquiring, Some(41), None, true, None),
            (keep(), Phase::Seated, Some(41), None, true, None),
            (keep(), Phase::Releasing, Some(41), None, true, None),
            (release(moved.clone()), Phase::Away, Some(41), None, true, Some(Event::LeftOver)),
            (release(Why::Drained), Phase::Away, Some(41), None, true, Some(Event::LeftOver)),
            (release(beside.clone()), Phase::Away, Some(41), None, true, Some(Event::LeftOver)),
            (release(moved.clone()), Phase::Away, Some(41), Some(41), true, None),
            (release(moved.clone()), Phase::Seated, Some(41), None, true, Some(Event::Unwanted)),
            (release(moved), entering, Some(41), None, true, Some(Event::Unwanted)),
            (release(beside.clone()), Phase::Seated, Some(41), None, true, Some(Event::Unwanted)),
            (release(beside), entering, Some(41), None, true, None),
        ];
        for (step, phase, row, ended, in_contact, event) in table {
            let seen = Seen { step, phase, row, ended, in_contact };
            assert_eq!(seen.event(), event, "{seen:?}");
        }
    }
}
