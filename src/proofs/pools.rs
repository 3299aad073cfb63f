//! Which prover slots a task uses, and how many of each there are. A reload may change their number while tasks run.

use super::{Task, tasks};
use crate::util::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Which slots a task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProverPool {
    Winning,
    Window,
    /// Reading for a WindowPoSt: disks may hang, and the provers' slots are taken only once a partition is read.
    Read,
    Seal,
    Verify,
}

pub const POOLS: [ProverPool; 5] =
    [ProverPool::Winning, ProverPool::Window, ProverPool::Read, ProverPool::Seal, ProverPool::Verify];

impl ProverPool {
    pub fn of(task: &Task) -> Self {
        match task {
            // the challenge comes right before the proof, in the same round
            Task::WinningPost { .. } | Task::WinningChallenge { .. } => ProverPool::Winning,
            Task::WindowPost { .. } => ProverPool::Window,
            Task::PostFromVanilla { proof_type, .. } => match tasks::is_winning(*proof_type) {
                true => ProverPool::Winning,
                false => ProverPool::Window,
            },
            // milliseconds, which must not wait behind a disk that hangs
            Task::PostChallenges { proof_type, .. } => match tasks::is_winning(*proof_type) {
                true => ProverPool::Winning,
                false => ProverPool::Verify,
            },
            Task::Vanilla { proof_type, .. } => match tasks::is_winning(*proof_type) {
                true => ProverPool::Winning,
                false => ProverPool::Read,
            },
            Task::VerifySeal { .. } | Task::VerifyWindowPost { .. } => ProverPool::Verify,
            Task::AddPiece { .. }
            | Task::Pc1 { .. }
            | Task::Pc2 { .. }
            | Task::C1 { .. }
            | Task::C2 { .. }
            | Task::Finalize { .. } => ProverPool::Seal,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ProverPool::Winning => "winning",
            ProverPool::Window => "window",
            ProverPool::Read => "read",
            ProverPool::Seal => "seal",
            ProverPool::Verify => "verify",
        }
    }

    /// Its children stay, with parameters and tables in memory. A sealing child gives its gigabytes back.
    pub(super) fn warm(self) -> bool {
        self != ProverPool::Seal
    }
}

/// Children that may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProverPools {
    pub winning: usize,
    pub window: usize,
    /// Storage paths that are read at a time.
    pub read: usize,
    pub seal: usize,
    pub verify: usize,
}

impl Default for ProverPools {
    fn default() -> Self {
        ProverPools { winning: 1, window: 1, read: 4, seal: 1, verify: 1 }
    }
}

impl ProverPools {
    /// At least one: a pool without slots would wait for ever.
    fn slots(&self, pool: ProverPool) -> usize {
        match pool {
            ProverPool::Winning => self.winning,
            ProverPool::Window => self.window,
            ProverPool::Read => self.read,
            ProverPool::Seal => self.seal,
            ProverPool::Verify => self.verify,
        }
        .max(1)
    }
}

/// The slots of all pools.
pub(super) struct Slots(BTreeMap<ProverPool, Arc<PoolSlots>>);

struct PoolSlots {
    free: Arc<Semaphore>,
    size: Mutex<PoolSize>,
}

struct PoolSize {
    slots: usize,
    /// Slots that are gone once the tasks that have them end.
    owed: usize,
}

/// A slot of a pool, while it is held.
pub(super) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<PoolSlots>,
}

impl Slots {
    pub fn new(pools: ProverPools) -> Slots {
        let of = |pool| {
            let slots = pools.slots(pool);
            let free = Arc::new(Semaphore::new(slots));
            Arc::new(PoolSlots { free, size: Mutex::new(PoolSize { slots, owed: 0 }) })
        };
        Slots(POOLS.into_iter().map(|pool| (pool, of(pool))).collect())
    }

    /// Waits for one, first come first served.
    pub async fn acquire(&self, pool: ProverPool) -> Result<Slot, AcquireError> {
        let pool = self.0[&pool].clone();
        let permit = Some(pool.free.clone().acquire_owned().await?);
        Ok(Slot { permit, pool })
    }

    /// Slots of the pool, free or not.
    pub fn size(&self, pool: ProverPool) -> usize {
        lock(&self.0[&pool].size).slots
    }

    /// More are there at once, fewer as tasks end.
    pub fn resize(&self, pools: ProverPools) {
        for (pool, slots) in &self.0 {
            slots.resize(pools.slots(*pool));
        }
    }
}

impl PoolSlots {
    fn resize(&self, wanted: usize) {
        let mut size = lock(&self.size);
        let (more, fewer) = (wanted.saturating_sub(size.slots), size.slots.saturating_sub(wanted));
        let kept = more.min(size.owed);
        size.owed -= kept;
        self.free.add_permits(more - kept);
        size.owed += fewer - self.free.forget_permits(fewer);
        size.slots = wanted;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut size = lock(&self.pool.size);
        if size.owed > 0
            && let Some(permit) = self.permit.take()
        {
            size.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn proving_has_slots_that_sealing_cannot_take() {
        let c2 = Task::C2 { c1: vec![], miner: 1, number: 1 };
        let post = |w| match w {
            true => Task::WinningPost { proof_type: 0, miner: 1, randomness: [0; 32], sectors: vec![] },
            false => Task::WindowPost { proof_type: 10, miner: 1, randomness: [0; 32], sectors: vec![] },
        };
        let pools = [ProverPool::of(&c2), ProverPool::of(&post(true)), ProverPool::of(&post(false))];
        assert_eq!(pools, [ProverPool::Seal, ProverPool::Winning, ProverPool::Window]);
        // What reads disks has slots of its own: what only computes does not wait for it.
        let challenges =
            |proof_type| Task::PostChallenges { proof_type, miner: 1, randomness: [0; 32], sectors: vec![] };
        let vanilla = |proof_type| Task::Vanilla { proof_type, sectors: vec![] };
        let pools = [challenges(10), vanilla(10), challenges(0), vanilla(0)].map(|task| ProverPool::of(&task));
        assert_eq!(pools, [ProverPool::Verify, ProverPool::Read, ProverPool::Winning, ProverPool::Winning]);
    }

    #[test]
    fn no_pool_is_without_a_slot() {
        let none = ProverPools { winning: 0, window: 0, read: 0, seal: 0, verify: 0 };
        assert!(POOLS.into_iter().all(|p| none.slots(p) == 1));
    }

    /// Takes what is free of the window's slots.
    fn take(slots: &Slots) -> Vec<Slot> {
        std::iter::from_fn(|| slots.acquire(ProverPool::Window).now_or_never().transpose().ok().flatten()).collect()
    }

    #[test]
    fn a_pool_grows_at_once_and_shrinks_as_its_tasks_end() {
        let window = |window| ProverPools { window, ..ProverPools::default() };
        let slots = Slots::new(window(2));
        let mut held = take(&slots);
        assert_eq!(held.len(), 2);
        slots.resize(window(4));
        held.extend(take(&slots));
        assert_eq!(held.len(), 4, "two more while the others run");
        slots.resize(window(1));
        held.truncate(1);
        assert_eq!(take(&slots).len(), 0, "three ended, none came back");
        drop(held);
        assert_eq!(take(&slots).len(), 1);
        // Fewer and then more again while all are held.
        slots.resize(window(3));
        let held = take(&slots);
        slots.resize(window(1));
        slots.resize(window(2));
        drop(held);
        assert_eq!(take(&slots).len(), 2);
        slots.resize(window(1));
        assert_eq!(take(&slots).len(), 1, "free ones go at once");
        assert_eq!(slots.0[&ProverPool::Seal].free.available_permits(), 1, "other pools are as they were");
    }
}
