//! Which sectors may act now, found without looking at the others: indexed by wake-up time, by head, by pool. Pure.

use super::phase::{Phase, Pool};
use super::plan::{LONGEST_WAIT, Limits, due_at, has_come};
use super::sector::Sector;
use crate::chain::ChainEpoch;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The order among sectors that may act: the furthest first, then the lowest number.
type Turn = (Reverse<u32>, u64);

/// The limit that a sector takes room of when it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Queue {
    /// It begins to be sealed: `max_sealing`.
    New,
    /// A slot of its pool, at this node.
    Slot(Pool),
    /// Nothing that is counted here.
    Free,
    /// Nothing that is counted here, and a head must be known.
    FreeWithHead,
}

/// The event that an idle sector waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// A moment in Unix milliseconds.
    Time(u64),
    /// A head of at least that epoch.
    Epoch(ChainEpoch),
    /// Another head than that at which it asked last; `None`: any.
    Head(Option<ChainEpoch>),
    Turn(Queue, Turn),
}

/// A sector that starts now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub number: u64,
    rank: u32,
    /// See [`super::driver::ActionRun::may_read`].
    pub may_read: bool,
}

/// The work under way, as far as it takes room.
#[derive(Default)]
pub(super) struct Busy {
    /// Tasks at this node.
    pub pools: HashMap<Pool, usize>,
    /// Sectors past `Allocated` and not final, and those that are on their way there.
    pub sealing: usize,
    /// Queues that the host has no room for now.
    pub held: BTreeSet<Pool>,
}

/// The idle sectors that may act at some time by themselves. Those that run, and those that nothing moves, are not in it.
#[derive(Default)]
pub(super) struct Ready {
    waits: HashMap<u64, Wait>,
    times: BTreeSet<(u64, u64)>,
    epochs: BTreeSet<(ChainEpoch, u64)>,
    heads: BTreeSet<(Option<ChainEpoch>, u64)>,
    turns: BTreeMap<Queue, BTreeSet<Turn>>,
    /// Polling sector -> the head at which it last was allowed to read the chain. The least recent goes first.
    reads: HashMap<u64, ChainEpoch>,
    looked_at: u64,
}

/// A sector's times that its record does not hold; they are forgotten at a restart.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    /// The head at which it last asked.
    pub polled: Option<ChainEpoch>,
    /// No question before that epoch can have another answer.
    pub until: Option<ChainEpoch>,
    /// After a write that failed: not again before. Unix milliseconds.
    pub held: Option<u64>,
}

impl Ready {
    /// Notes what an idle sector waits for. One that runs is taken out with [`Ready::forget`].
    pub fn place(&mut self, sector: &Sector, pace: Pace, now: u64) {
        self.forget(sector.number);
        let Some(at) = due_at(sector).map(|at| at.max(pace.held.unwrap_or(0))) else { return };
        let wait = match has_come(at, now) {
            false => Wait::Time(at),
            true => wait_of(sector, pace),
        };
        self.put(sector.number, wait);
    }

    fn put(&mut self, number: u64, wait: Wait) {
        self.waits.insert(number, wait);
        match wait {
            Wait::Time(at) => drop(self.times.insert((at, number))),
            Wait::Epoch(at) => drop(self.epochs.insert((at, number))),
            Wait::Head(asked) => drop(self.heads.insert((asked, number))),
            Wait::Turn(queue, turn) => drop(self.turns.entry(queue).or_default().insert(turn)),
        }
    }

    pub fn forget(&mut self, number: u64) {
        match self.waits.remove(&number) {
            None => {}
            Some(Wait::Time(at)) => drop(self.times.remove(&(at, number))),
            Some(Wait::Epoch(at)) => drop(self.epochs.remove(&(at, number))),
            Some(Wait::Head(asked)) => drop(self.heads.remove(&(asked, number))),
            Some(Wait::Turn(queue, turn)) => {
                if let Some(turns) = self.turns.get_mut(&queue) {
                    turns.remove(&turn);
                }
            }
        }
    }

    /// The sector does not poll any more.
    pub fn ends_polling(&mut self, number: u64) {
        self.reads.remove(&number);
    }

    /// The sectors whose time has come; each must be placed again.
    pub fn wake(&mut self, now: u64) -> Vec<u64> {
        let come = self.times.range(..=(now, u64::MAX));
        // Set before the clock was put back.
        let lost = self.times.range((now.saturating_add(LONGEST_WAIT).saturating_add(1), 0)..);
        let due: Vec<u64> = come.chain(lost).map(|(_, number)| *number).collect();
        self.looked_at += due.len() as u64;
        due
    }

    /// The sectors that start now, taken out of the index. `reads`: how many of the polling ones may read the chain on the
    /// mere chance that it has something new.
    pub fn take(&mut self, head: Option<ChainEpoch>, busy: &Busy, limits: &Limits, reads: usize) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        if let Some(head) = head {
            self.take_polls(head, reads, &mut chosen);
        }
        for (queue, turns) in &self.turns {
            let room = match queue {
                Queue::New if limits.max_sealing == 0 => usize::MAX,
                Queue::New => limits.max_sealing.saturating_sub(busy.sealing),
                Queue::Slot(pool) if busy.held.contains(pool) => 0,
                Queue::Slot(pool) => limits.of(*pool).map_or(usize::MAX, |limit| {
                    limit.max(1).saturating_sub(busy.pools.get(pool).copied().unwrap_or(0))
                }),
                Queue::Free => usize::MAX,
                Queue::FreeWithHead if head.is_some() => usize::MAX,
                Queue::FreeWithHead => 0,
            };
            let turn = |(Reverse(rank), number): &Turn| Chosen { number: *number, rank: *rank, may_read: true };
            chosen.extend(turns.iter().take(room).map(turn));
        }
        self.looked_at += chosen.len() as u64;
        chosen.iter().for_each(|c| self.forget(c.number));
        chosen.sort_by_key(|c| (Reverse(c.rank), c.number));
        chosen
    }

    fn take_polls(&mut self, head: ChainEpoch, reads: usize, chosen: &mut Vec<Chosen>) {
        let awake: Vec<_> = self.epochs.range(..=(head, u64::MAX)).map(|(_, number)| (*number, true)).collect();
        let others = self.heads.range(..(Some(head), 0)).chain(self.heads.range((Some(head + 1), 0)..));
        let mut others: Vec<_> = others.map(|(_, number)| *number).collect();
        others.sort_by_key(|number| (self.reads.get(number).copied(), *number));
        let others = others.into_iter().enumerate().map(|(at, number)| (number, at < reads));
        let all: Vec<(u64, bool)> = awake.into_iter().chain(others).collect();
        for (number, may_read) in all {
            if may_read {
                self.reads.insert(number, head);
            }
            // Which of the polling states it is in does not matter: none of them takes room.
            chosen.push(Chosen { number, rank: Phase::CommitWait.rank(), may_read });
        }
    }

    /// The next moment after `now` at which a sector becomes due by time alone.
    pub fn next_time(&self, now: u64) -> Option<u64> {
        self.times.range((now.saturating_add(1), 0)..).next().map(|(at, _)| *at)
    }

    /// How many sectors were looked at so far.
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Sectors that wait for a time, for an epoch, for a head, for their turn.
    pub fn waiting(&self) -> [usize; 4] {
        [self.times.len(), self.epochs.len(), self.heads.len(), self.turns.values().map(BTreeSet::len).sum()]
    }
}

/// The event that a sector waits for whose time has come.
fn wait_of(sector: &Sector, pace: Pace) -> Wait {
    let (phase, action) = (sector.phase, sector.phase.action());
    if action.is_poll() {
        // What was asked about at a later head than that waits for the next one.
        let until = pace.until.filter(|until| pace.polled.is_none_or(|polled| polled < *until));
        return until.map_or(Wait::Head(pace.polled), Wait::Epoch);
    }
    let queue = match phase.pool() {
        _ if phase == Phase::Allocated => Queue::New,
        Pool::Unlimited if action.needs_head() => Queue::FreeWithHead,
        Pool::Unlimited => Queue::Free,
        // Its files are at an agent, which has limits of its own.
        _ if sector.location.is_some() => Queue::Free,
        pool => Queue::Slot(pool),
    };
    Wait::Turn(queue, (Reverse(phase.rank()), sector.number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(number: u64, phase: Phase) -> Sector {
        Sector { phase, ..Sector::new(number, "r", 0) }
    }

    fn with(sectors: &[Sector]) -> Ready {
        let mut ready = Ready::default();
        sectors.iter().for_each(|s| ready.place(s, Pace::default(), 1000));
        ready
    }

    fn taken(sectors: &[Sector], running: &[Pool], sealing: usize, limits: Limits) -> Vec<u64> {
        let mut busy = Busy { sealing, ..Busy::default() };
        running.iter().for_each(|pool| *busy.pools.entry(*pool).or_default() += 1);
        with(sectors).take(Some(7), &busy, &limits, 10).into_iter().map(|c| c.number).collect()
    }

    #[test]
    fn one_c2_at_a_time_and_the_furthest_first() {
        use Phase::*;
        let all = [sector(1, PreCommit1), sector(3, Commit2), sector(2, Commit2), sector(4, SubmitCommit)];
        assert_eq!(taken(&all, &[], 4, Limits::default()), [4, 2, 1]);
        assert_eq!(taken(&all, &[Pool::C2], 4, Limits::default()), [4, 1]);
        assert_eq!(taken(&all, &[Pool::C2], 4, Limits { c2: 2, ..Limits::default() }), [4, 2, 1]);
        assert_eq!(taken(&all, &[], 4, Limits { c2: 0, ..Limits::default() }), [4, 2, 1], "0 would stop for ever");
    }

    #[test]
    fn what_runs_at_an_agent_takes_no_slot_here() {
        let away = |number| Sector { location: Some("a".into()), ..sector(number, Phase::PreCommit1) };
        let all = [away(1), sector(2, Phase::PreCommit1), away(3), sector(4, Phase::PreCommit1)];
        assert_eq!(taken(&all, &[], 4, Limits::default()), [1, 2, 3]);
        assert_eq!(taken(&all, &[Pool::Pc1], 4, Limits::default()), [1, 3]);
    }

    #[test]
    fn a_clock_that_is_put_back_leaves_nothing_waiting_for_the_time_of_before() {
        let now = 10 * LONGEST_WAIT;
        let later = Sector { wait_until: Some(now + 1000), ..sector(1, Phase::PreCommit1) };
        let mut ready = Ready::default();
        ready.place(&later, Pace::default(), now);
        assert_eq!((ready.waiting(), ready.wake(now)), ([1, 0, 0, 0], vec![]));
        let back = now - 2 * LONGEST_WAIT;
        assert_eq!(ready.wake(back), [1]);
        ready.place(&later, Pace::default(), back);
        assert_eq!((ready.waiting(), ready.next_time(back)), ([0, 0, 0, 1], None), "its turn has come");
    }

    #[test]
    fn max_sealing_holds_new_sectors_back_at_its_boundary() {
        let new = [sector(1, Phase::Allocated), sector(2, Phase::Allocated)];
        for (sealing, want) in [(1, vec![1, 2]), (2, vec![1]), (3, vec![]), (4, vec![])] {
            assert_eq!(taken(&new, &[], sealing, Limits { max_sealing: 3, ..Limits::default() }), want, "{sealing}");
        }
        assert_eq!(taken(&new, &[], 1000, Limits::default()), [1, 2]);
    }

    #[test]
    fn a_time_wakes_at_its_moment_and_a_head_is_asked_about_once() {
        let later = Sector { wait_until: Some(2000), ..sector(1, Phase::GetTicket) };
        let mut ready = with(std::slice::from_ref(&later));
        for (now, due, next) in [(1999, vec![], Some(2000)), (2000, vec![1], None), (2001, vec![1], None)] {
            assert_eq!((ready.wake(now), ready.next_time(now)), (due, next), "{now}");
        }
        ready.place(&later, Pace::default(), 2000);
        assert_eq!(ready.take(None, &Busy::default(), &Limits::default(), 1), [], "no head is known");
        assert_eq!(ready.take(Some(5), &Busy::default(), &Limits::default(), 1).len(), 1);
        assert_eq!(ready.take(Some(5), &Busy::default(), &Limits::default(), 1), [], "it runs");

        let poll = sector(2, Phase::PreCommitWait);
        for (polled, until, head, want) in [
            (None, None, 5, 1),
            (Some(5), None, 5, 0),
            (Some(5), None, 6, 1),
            (Some(5), None, 4, 1), // the chain went back
            (Some(5), Some(9), 8, 0),
            (Some(5), Some(9), 9, 1),
            (Some(5), Some(9), 10, 1),
        ] {
            let mut ready = Ready::default();
            ready.place(&poll, Pace { polled, until, held: None }, 1000);
            let got = ready.take(Some(head), &Busy::default(), &Limits::default(), 1).len();
            assert_eq!(got, want, "polled {polled:?}, until {until:?}, head {head}");
        }
        let held = Pace { held: Some(1001), ..Pace::default() };
        let mut ready = Ready::default();
        ready.place(&poll, held, 1000);
        assert_eq!((ready.wake(1000), ready.next_time(1000)), (vec![], Some(1001)));
    }

    #[test]
    fn sectors_that_poll_take_turns_at_reading_the_chain() {
        let polls: Vec<Sector> = (1..=5).map(|n| sector(n, Phase::CommitWait)).collect();
        let mut ready = Ready::default();
        let mut read = Vec::new();
        for head in 1..=5 {
            let polled = Pace { polled: Some(head - 1), ..Pace::default() };
            polls.iter().for_each(|s| ready.place(s, polled, 0));
            let chosen = ready.take(Some(head), &Busy::default(), &Limits::default(), 2);
            assert_eq!(chosen.len(), 5, "each is asked about once a head");
            read.push(chosen.iter().filter(|c| c.may_read).map(|c| c.number).collect::<Vec<_>>());
        }
        assert_eq!(read, [vec![1, 2], vec![3, 4], vec![1, 5], vec![2, 3], vec![1, 4]]);
    }

    /// Ten in a pool of one, whatever waits besides them: one is looked at, not all.
    #[test]
    fn looks_only_at_what_starts() {
        let mut all: Vec<Sector> = (1..=1000).map(|n| sector(n, Phase::PreCommit1)).collect();
        all.extend((1001..=5000).map(|n| sector(n, Phase::Proving)));
        let mut ready = with(&all);
        assert_eq!(ready.take(Some(7), &Busy::default(), &Limits::default(), 10).len(), 1);
        ready.wake(10_000);
        assert_eq!(ready.looked_at(), 1);
    }
}
