//! The figures of an actor that anyone may read at any time, without asking it: atomics that outlive its incarnations.

use super::dead_letters::{DeadLetters, DeadReason};
use super::exit::Exit;
use super::fence::EpochSource;
use super::histogram::Histogram;
use super::inspect::InspectionCell;
use super::monitor::Watchers;
use super::shell::{StartWaiters, here};
use crate::util::lock;
use crate::util::time::clock_ms;
use crate::util::time::unix_secs;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ActorState {
    Starting,
    Up,
    Restarting,
    Stopping,
    Stopped,
}

impl ActorState {
    pub fn name(self) -> &'static str {
        match self {
            ActorState::Starting => "starting",
            ActorState::Up => "up",
            ActorState::Restarting => "restarting",
            ActorState::Stopping => "stopping",
            ActorState::Stopped => "stopped",
        }
    }
    fn from_u8(n: u8) -> ActorState {
        match n {
            0 => ActorState::Starting,
            1 => ActorState::Up,
            2 => ActorState::Restarting,
            3 => ActorState::Stopping,
            _ => ActorState::Stopped,
        }
    }
}

pub(super) struct CellMeta {
    pub path: Arc<str>,
    pub bound: usize,
    state: AtomicU8,
    /// The present incarnation's: a hung predecessor must not fill its successor's queue, nor be taken for it when it
    /// wakes up. Held while the address changes hands.
    present: Mutex<Option<Arc<IncarnationStats>>>,
    pub incarnation: AtomicU64,
    pub epoch: AtomicU64,
    pub restarts: AtomicU64,
    last_exit: Mutex<Option<(Exit, u64)>>,
    /// The action that the actor is retrying now, and why.
    trouble: Mutex<Option<String>>,
    /// Why its supervisor holds it down between tries.
    held: Mutex<Option<String>>,
    thread: Mutex<Arc<str>>,
    /// The child spec that owns this address; 0 without one.
    owner: AtomicU64,
    letters: Mutex<Option<Arc<DeadLetters>>>,
    pub watchers: Watchers,
    /// The highest epoch whose thread was given up.
    pub given_up: AtomicU64,
    /// Sets the epochs of its incarnations, if another process may run it instead.
    pub epoch_source: Mutex<Option<Arc<dyn EpochSource>>>,
    pub handle_times: Histogram,
    pub inspection: InspectionCell,
    pub start_waiters: StartWaiters,
}

impl CellMeta {
    pub fn new(path: impl Into<Arc<str>>, bound: usize) -> CellMeta {
        CellMeta {
            path: path.into(),
            bound,
            state: AtomicU8::new(ActorState::Stopped as u8),
            present: Mutex::new(None),
            incarnation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            last_exit: Mutex::new(None),
            trouble: Mutex::new(None),
            held: Mutex::new(None),
            thread: Mutex::default(),
            owner: AtomicU64::new(0),
            letters: Mutex::default(),
            watchers: Watchers::default(),
            given_up: AtomicU64::new(0),
            epoch_source: Mutex::new(None),
            handle_times: Histogram::default(),
            inspection: InspectionCell::default(),
            start_waiters: StartWaiters::default(),
        }
    }

    pub fn state(&self) -> ActorState {
        ActorState::from_u8(self.state.load(Ordering::Acquire))
    }
    pub fn set_state(&self, state: ActorState) {
        self.state.store(state as u8, Ordering::Release);
        self.start_waiters.look_again();
    }

    fn new_owner(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// A spec has it, and none of its incarnations was started yet.
    pub fn is_yet_to_start(&self) -> bool {
        self.owner.load(Ordering::Acquire) != 0 && self.incarnation.load(Ordering::Acquire) == 0
    }

    /// An address belongs to at most one child spec at a time. `None`: it is taken.
    pub fn claim(&self) -> Option<u64> {
        let owner = self.new_owner();
        self.owner.compare_exchange(0, owner, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| owner)
    }
    /// The spec that has it is replaced by another, whatever that one still does.
    pub fn take_over_claim(&self) -> u64 {
        let owner = self.new_owner();
        self.owner.store(owner, Ordering::Release);
        owner
    }
    /// Does nothing when another spec has it by now.
    pub fn release_claim(&self, owner: u64) {
        if owner == 0 {
            return; // it never had it
        }
        let _ = self.owner.compare_exchange(owner, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub fn report_to(&self, letters: Arc<DeadLetters>) {
        *lock(&self.letters) = Some(letters);
    }
    pub fn dead_letter(&self, message: &'static str, reason: DeadReason) {
        let letters = lock(&self.letters).clone();
        if let Some(letters) = letters {
            letters.record(&self.path, message, reason);
        }
    }

    pub fn depth(&self) -> usize {
        self.vitals().map_or(0, |v| v.depth.now())
    }

    /// Statistics of the present incarnation, or of the last one that ended by itself.
    pub fn vitals(&self) -> Option<Arc<IncarnationStats>> {
        lock(&self.present).clone()
    }

    /// For an incarnation that is about to take over; counts from zero. To be called on its thread.
    pub fn lane(self: &Arc<Self>) -> Arc<Lane> {
        let vitals = Arc::new(IncarnationStats::new(self.bound));
        Arc::new(Lane { meta: self.clone(), vitals, home: here(), called_from_afar: AtomicBool::new(false) })
    }

    /// That incarnation takes over, with all that `publish` does, unless it was given up before its thread came to it:
    /// then its successor has the address, or will have it.
    pub fn take_over<T>(
        &self,
        lane: &Lane,
        epoch: u64,
        given_up: impl Fn() -> bool,
        publish: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut present = lock(&self.present);
        if given_up() || self.epoch.load(Ordering::Acquire) != epoch {
            return None;
        }
        *present = Some(lane.vitals.clone());
        self.set_trouble(None);
        let published = publish();
        self.start_waiters.look_again();
        Some(published)
    }

    /// The present incarnation was given up: what `forget` does comes before or after all of [`CellMeta::take_over`].
    pub fn detach<T>(&self, forget: impl FnOnce() -> T) -> T {
        let mut present = lock(&self.present);
        *present = None;
        forget()
    }

    /// The message in hand and for how many milliseconds, as far as that is known without slowing the actor down.
    pub fn busy(&self) -> Option<(&'static str, u64)> {
        self.vitals()?.busy()
    }

    pub fn ended(&self, exit: &Exit) {
        *lock(&self.last_exit) = Some((exit.clone(), unix_secs()));
    }
    pub fn last_exit(&self) -> Option<(Exit, u64)> {
        lock(&self.last_exit).clone()
    }

    /// Its tenure, which another process may have by now, does not hold for that epoch.
    pub fn is_fenced(&self, epoch: u64) -> bool {
        let epoch_source = lock(&self.epoch_source).clone();
        epoch_source.is_some_and(|epoch_source| !epoch_source.holds(epoch))
    }

    pub fn set_trouble(&self, why: Option<String>) {
        *lock(&self.trouble) = why;
    }
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub fn set_held(&self, why: Option<String>) {
        *lock(&self.held) = why;
    }
    pub fn held(&self) -> Option<String> {
        lock(&self.held).clone()
    }

    pub fn set_thread(&self, name: Arc<str>) {
        *lock(&self.thread) = name;
    }
    pub fn thread(&self) -> String {
        lock(&self.thread).to_string()
    }
}

/// Padded so that neither two of these nor the line the processor prefetches is shared. Padded, not aligned: aligned
/// allocations are slow, and every actor start would make one.
struct CachePadded<T> {
    it: T,
    _line: [u8; 120],
}

/// How many messages wait: those sent less those taken. Senders and the actor write to different cache lines.
#[repr(C)]
struct QueueLen {
    _before: CachePadded<()>,
    sent: CachePadded<AtomicUsize>,
    /// Up to here senders need not look at what was taken; never above `taken` + the bound.
    limit: CachePadded<AtomicUsize>,
    taken: CachePadded<AtomicUsize>,
}

impl QueueLen {
    fn new(bound: usize) -> QueueLen {
        let at = |n| CachePadded { it: AtomicUsize::new(n), _line: [0; 120] };
        QueueLen { _before: CachePadded { it: (), _line: [0; 120] }, sent: at(0), limit: at(bound), taken: at(0) }
    }
    fn now(&self) -> usize {
        let taken = self.taken.it.load(Ordering::Relaxed);
        self.sent.it.load(Ordering::Relaxed).saturating_sub(taken)
    }
}

/// The published figures of one incarnation.
pub(super) struct IncarnationStats {
    depth: QueueLen,
    /// Odd while a thread is inside this actor. The watchdog compares two readings; no clock is read on the way.
    progress: AtomicU64,
    /// [`clock_ms`] at which the message in hand began to wait; 0 without one.
    waiting_since: AtomicU64,
    /// How long the watchdog has seen the thread inside one turn.
    pub stuck_ms: AtomicU64,
    pub suspended: AtomicBool,
    /// It was told to show its state and has not come to it.
    asked: AtomicBool,
    /// The type of the last message that was begun.
    message: Mutex<&'static str>,
}

impl IncarnationStats {
    fn new(bound: usize) -> IncarnationStats {
        IncarnationStats {
            depth: QueueLen::new(bound),
            progress: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
            stuck_ms: AtomicU64::new(0),
            suspended: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            message: Mutex::new(""),
        }
    }

    /// True for the first caller, who sends the request; all others share its answer.
    pub fn is_to_be_asked(&self) -> bool {
        !self.asked.swap(true, Ordering::AcqRel)
    }
    /// It is about to show its state: whoever asks from now on is not answered by that.
    pub fn answers(&self) {
        self.asked.store(false, Ordering::Release);
    }

    pub fn enter(&self) {
        self.progress.fetch_or(1, Ordering::Relaxed);
    }
    pub fn leave(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    pub fn begins(&self, message: &'static str) {
        *lock(&self.message) = message;
    }
    pub fn waits(&self) {
        self.waiting_since.store(clock_ms(), Ordering::Relaxed);
    }
    pub fn waited(&self) {
        self.waiting_since.store(0, Ordering::Relaxed);
    }
    pub fn busy(&self) -> Option<(&'static str, u64)> {
        let since = self.waiting_since.load(Ordering::Relaxed);
        let waited = if since == 0 { 0 } else { clock_ms().saturating_sub(since) };
        let stuck = self.stuck_ms.load(Ordering::Relaxed);
        let inside = self.progress() & 1 == 1;
        (since != 0 || inside).then(|| (*lock(&self.message), waited.max(stuck)))
    }
}

/// One incarnation's share of the mailbox bound.
pub(super) struct Lane {
    pub meta: Arc<CellMeta>,
    pub vitals: Arc<IncarnationStats>,
    /// The thread it runs on.
    home: usize,
    called_from_afar: AtomicBool,
}

impl Lane {
    /// Takes a place in the mailbox; false when all are taken.
    pub fn reserve(&self) -> bool {
        let depth = &self.vitals.depth;
        let place = depth.sent.it.fetch_add(1, Ordering::Relaxed);
        if place < depth.limit.it.load(Ordering::Relaxed) {
            return true;
        }
        let limit = depth.taken.it.load(Ordering::Relaxed).saturating_add(self.meta.bound);
        if place < limit {
            depth.limit.it.fetch_max(limit, Ordering::Relaxed);
            return true;
        }
        depth.sent.it.fetch_sub(1, Ordering::Relaxed);
        false
    }
    /// Takes up to `wanted` places; answers how many it got.
    pub fn reserve_up_to(&self, wanted: usize) -> usize {
        let depth = &self.vitals.depth;
        let mut sent = depth.sent.it.load(Ordering::Relaxed);
        loop {
            let limit = depth.taken.it.load(Ordering::Relaxed).saturating_add(self.meta.bound);
            let places = limit.saturating_sub(sent).min(wanted);
            // Not as `reserve` does: many places taken for a moment would turn others away.
            match depth.sent.it.compare_exchange_weak(sent, sent + places, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return places,
                Err(now) => sent = now,
            }
        }
    }
    /// A place beyond the bound: for the actor's own timers and finished work, which cannot be refused.
    pub fn reserve_beyond(&self) {
        self.vitals.depth.sent.it.fetch_add(1, Ordering::Relaxed);
    }
    /// A message was taken out: by the actor's own thread, the only one that writes this count.
    pub fn release(&self) {
        let taken = &self.vitals.depth.taken.it;
        taken.store(taken.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
    /// A message will not be taken: it could not be sent, or the mailbox is gone.
    pub fn take_back(&self) {
        self.vitals.depth.sent.it.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes a call; true when the caller is on another thread.
    pub fn called(&self) -> bool {
        let far = self.home != here();
        if far && !self.called_from_afar.load(Ordering::Relaxed) {
            self.called_from_afar.store(true, Ordering::Relaxed);
        }
        far
    }
    /// Whether anyone called from another thread since this was last asked.
    pub fn was_called_from_afar(&self) -> bool {
        let called = self.called_from_afar.load(Ordering::Relaxed);
        if called {
            self.called_from_afar.store(false, Ordering::Relaxed);
        }
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_at_its_edge() {
        let meta = Arc::new(CellMeta::new("/a", 2));
        let open = || {
            let lane = meta.lane();
            meta.take_over(&lane, 0, || false, || lane.clone()).unwrap()
        };
        let lane = open();
        assert!(lane.reserve() && lane.reserve());
        assert!(!lane.reserve());
        lane.reserve_beyond();
        assert_eq!(meta.depth(), 3);
        lane.release();
        assert!(!lane.reserve());
        lane.release();
        assert!(lane.reserve());
        let next = open();
        assert_eq!(meta.depth(), 0, "a successor starts empty");
        assert!(next.reserve());
    }

    #[test]
    fn several_places_are_taken_as_far_as_there_are_any() {
        let lane = Arc::new(CellMeta::new("/a", 10)).lane();
        // (places wanted, places got, messages taken out afterwards)
        for (wanted, got, taken) in [(4, 4, 0), (0, 0, 0), (7, 6, 0), (3, 0, 2), (3, 2, 0), (1, 0, 10), (64, 10, 0)] {
            assert_eq!(lane.reserve_up_to(wanted), got, "of {wanted}");
            (0..taken).for_each(|_| lane.release());
        }
        assert!(!lane.reserve());
        assert_eq!(lane.vitals.depth.now(), 10);
    }

    #[test]
    fn progress_is_odd_only_inside() {
        let vitals = IncarnationStats::new(1);
        vitals.enter();
        assert_eq!(vitals.progress() & 1, 1);
        vitals.leave();
        assert_eq!(vitals.progress(), 2);
    }

    #[test]
    fn only_the_incarnation_of_the_present_epoch_takes_over() {
        let meta = Arc::new(CellMeta::new("/a", 1));
        // (its epoch, given up, the present epoch, whether it takes over)
        let cases = [(1, false, 1, true), (1, true, 1, false), (1, false, 2, false), (2, false, 2, true)];
        for (epoch, given_up, present, takes) in cases {
            meta.detach(|| ());
            meta.epoch.store(present, Ordering::Relaxed);
            let done = meta.take_over(&meta.lane(), epoch, || given_up, || ());
            assert_eq!((done.is_some(), meta.vitals().is_some()), (takes, takes), "{epoch} {given_up} {present}");
        }
    }
}
