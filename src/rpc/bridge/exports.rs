//! The actors of this process that other nodes may reach, by logical path, each under the epoch it is held by.

use crate::supervisor::Export;
use crate::util::lock;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Lets a gate read the epoch under which an actor is held in this process. The gate keeps no copy of it.
pub trait HeldEpoch: Send + Sync + 'static {
    /// 0 while other nodes may not reach the actor: it is not held here, or it is being stopped.
    fn held_epoch(&self) -> u64;
}

/// An epoch that is set by hand.
impl HeldEpoch for AtomicU64 {
    fn held_epoch(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
}

/// The epoch an actor is held under on this node; what another node believes must be the same. `None`: under no lease.
#[derive(Clone, Default)]
pub struct EpochGate(Option<Arc<dyn HeldEpoch>>);

impl EpochGate {
    /// For an actor that is under no lease: takes messages that believe in none.
    pub fn none() -> EpochGate {
        EpochGate::default()
    }
    /// Under the epoch that `source` has at each message.
    pub fn of(source: Arc<dyn HeldEpoch>) -> EpochGate {
        EpochGate(Some(source))
    }
    pub fn at(epoch: u64) -> EpochGate {
        EpochGate::of(Arc::new(AtomicU64::new(epoch)))
    }
    pub fn epoch(&self) -> u64 {
        self.0.as_ref().map_or(0, |source| source.held_epoch())
    }
    /// A sender that believes in no lease is let through: it found the actor by its node, not by its holder.
    pub fn admits(&self, believed: u64) -> bool {
        believed == 0 || believed == self.epoch()
    }
}

pub struct Exported {
    pub export: Export,
    pub gate: EpochGate,
}

/// All of one bridge.
#[derive(Default)]
pub struct Exports {
    by_path: Mutex<HashMap<Arc<str>, Arc<Exported>>>,
    /// Grows with every change: a lane that has resolved a path need not look again before.
    version: AtomicU64,
}

impl Exports {
    /// Replaces what had the same path.
    pub fn set(&self, export: Export, gate: EpochGate) {
        lock(&self.by_path).insert(export.path().clone(), Arc::new(Exported { export, gate }));
        self.version.fetch_add(1, Ordering::Release);
    }
    pub fn remove(&self, path: &str) {
        lock(&self.by_path).remove(path);
        self.version.fetch_add(1, Ordering::Release);
    }
    pub fn get(&self, path: &str) -> Option<Arc<Exported>> {
        lock(&self.by_path).get(path).cloned()
    }
    /// Message id, lowest and highest schema of all that is read here now.
    pub fn schemas(&self) -> Vec<(u32, u16, u16)> {
        let mut schemas = BTreeMap::new();
        for exported in lock(&self.by_path).values() {
            schemas.extend(exported.export.messages().map(|(id, read, ..)| (id, read)));
        }
        schemas.into_iter().map(|(id, read)| (id, read.lowest, read.highest)).collect()
    }
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_admits_its_own_epoch_and_those_who_believe_in_none() {
        for (held, believed, admitted) in
            [(0, 0, true), (0, 5, false), (5, 0, true), (5, 5, true), (5, 4, false), (5, 6, false)]
        {
            assert_eq!(EpochGate::at(held).admits(believed), admitted, "held {held}, believed {believed}");
        }
    }
}
