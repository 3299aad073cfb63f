//! The order of those who wait for a GPU: pure. A ticket is the name of a file, so that every process of the host reads the same queue.

use crate::proofs::{Task, tasks};
use std::time::Duration;

/// The work that wants a GPU, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuClass {
    Winning,
    Window,
    C2,
    Pc2,
}

const CLASSES: [GpuClass; 4] = [GpuClass::Winning, GpuClass::Window, GpuClass::C2, GpuClass::Pc2];

impl GpuClass {
    /// `None`: it computes nothing on a GPU.
    pub fn of(task: &Task) -> Option<GpuClass> {
        match task {
            Task::WinningPost { .. } => Some(GpuClass::Winning),
            Task::WindowPost { .. } => Some(GpuClass::Window),
            Task::PostFromVanilla { proof_type, .. } => Some(match tasks::is_winning(*proof_type) {
                true => GpuClass::Winning,
                false => GpuClass::Window,
            }),
            Task::C2 { .. } => Some(GpuClass::C2),
            Task::Pc2 { .. } => Some(GpuClass::Pc2),
            Task::AddPiece { .. }
            | Task::Pc1 { .. }
            | Task::C1 { .. }
            | Task::Finalize { .. }
            | Task::VerifySeal { .. }
            | Task::VerifyWindowPost { .. }
            | Task::WinningChallenge { .. }
            | Task::PostChallenges { .. }
            | Task::Vanilla { .. } => None,
        }
    }

    fn rank(self) -> u8 {
        match self {
            GpuClass::Winning => 0,
            GpuClass::Window => 1,
            GpuClass::C2 => 2,
            GpuClass::Pc2 => 3,
        }
    }

    /// The longest wait for a slot; then a proof that has a deadline goes on without one, beside whatever is there.
    /// `None`: until one is free.
    pub fn patience(self, max_runtime: Duration) -> Option<Duration> {
        match self {
            GpuClass::Winning => Some((max_runtime / 10).min(Duration::from_secs(2))),
            GpuClass::Window => Some(max_runtime / 4),
            GpuClass::C2 | GpuClass::Pc2 => None,
        }
    }

    /// Between two looks at the queue.
    pub fn look_every(self) -> Duration {
        match self {
            GpuClass::Winning => Duration::from_millis(10),
            GpuClass::Window => Duration::from_millis(50),
            GpuClass::C2 | GpuClass::Pc2 => Duration::from_millis(250),
        }
    }
}

/// A place in the queue: by class, then by the time of asking; the rest tells tickets apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub class: GpuClass,
    /// Nanoseconds since the Unix epoch.
    pub asked: u64,
    pub pid: u32,
    pub number: u64,
}

impl Ticket {
    pub fn file_name(&self) -> String {
        format!("wait-{}-{:020}-{}-{}", self.class.rank(), self.asked, self.pid, self.number)
    }

    /// `None`: no ticket's name.
    pub fn of_name(name: &str) -> Option<Ticket> {
        let mut parts = name.strip_prefix("wait-")?.split('-');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (rank, asked, pid, number) = (next()?, next()?, next()?, next()?);
        let class = CLASSES.into_iter().find(|class| u64::from(class.rank()) == rank)?;
        Some(Ticket { class, asked, pid: u32::try_from(pid).ok()?, number })
    }
}

/// Whether `mine` may take a slot that is free: nobody who waits goes before it.
pub fn first<'a>(mine: &Ticket, waiting: impl IntoIterator<Item = &'a Ticket>) -> bool {
    waiting.into_iter().all(|other| mine <= other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(class: GpuClass, asked: u64) -> Ticket {
        Ticket { class, asked, pid: 7, number: asked }
    }

    #[test]
    fn winning_goes_before_window_before_c2_before_pc2_and_then_who_asked_first() {
        use GpuClass::*;
        let line = [(Winning, 40), (Winning, 41), (Window, 30), (C2, 20), (C2, 21), (Pc2, 10)];
        let line = line.map(|(class, asked)| ticket(class, asked));
        for (place, mine) in line.iter().enumerate() {
            assert!(first(mine, &line[place..]), "{mine:?}");
            assert!(place == 0 || !first(mine, &line[place - 1..]), "{mine:?}");
        }
    }

    #[test]
    fn a_ticket_is_read_from_its_name_and_other_names_are_none() {
        let ticket = Ticket { class: GpuClass::C2, asked: 1_796_054_831_586_029_680, pid: 4_194_304, number: 9 };
        assert_eq!(Ticket::of_name(&ticket.file_name()), Some(ticket));
        for name in ["", "slot-0", "wait-", "wait-9-1-1-1", "wait-1-x-1-1", "wait-1-1-99999999999-1", "new-1"] {
            assert_eq!(Ticket::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn only_what_has_a_deadline_goes_on_without_a_slot() {
        let secs = Duration::from_secs;
        for (class, runtime, patience) in [
            (GpuClass::Winning, secs(10), Some(secs(1))),
            (GpuClass::Winning, secs(60), Some(secs(2))),
            (GpuClass::Window, secs(1600), Some(secs(400))),
            (GpuClass::C2, secs(60), None),
            (GpuClass::Pc2, secs(60), None),
        ] {
            assert_eq!(class.patience(runtime), patience, "{class:?} {runtime:?}");
        }
    }
}
