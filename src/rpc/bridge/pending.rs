//! Asks that wait for an answer from one peer. Numbers are never used twice, so an answer fits one ask or none. Pure.

use crate::supervisor::wire::OutgoingMessage;

/// Slots are the low bits of a number, the lane's serial the high ones.
const SLOT_BITS: u32 = 20;
const LANE_BIT: u64 = 1 << (SLOT_BITS - 1);
/// How many asks may wait at once.
pub const MAX_PENDING: usize = 1 << 16;

enum PendingSlot {
    Waits { corr: u64, until_ms: u64, outgoing: Box<dyn OutgoingMessage> },
    Free,
}

#[derive(Default)]
pub struct PendingAsks {
    slots: Vec<PendingSlot>,
    free: Vec<u32>,
    waiting: usize,
}

impl PendingAsks {
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// A place for one more ask; `None`: too many wait.
    pub fn reserve(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < MAX_PENDING)?;
        self.slots.push(PendingSlot::Free);
        Some(slot)
    }

    /// The number of the ask in `slot` that is the lane's `serial`th frame.
    pub fn number(slot: u32, lane: usize, serial: u64) -> u64 {
        let lane = if lane == 0 { 0 } else { LANE_BIT };
        serial << SLOT_BITS | lane | u64::from(slot)
    }

    /// The lane's serial in the number of an ask.
    pub fn serial(number: u64) -> u64 {
        number >> SLOT_BITS
    }

    pub fn give_up(&mut self, slot: u32) {
        if let Some(it) = self.slots.get_mut(slot as usize) {
            *it = PendingSlot::Free;
            self.free.push(slot);
        }
    }

    pub fn wait(&mut self, corr: u64, until_ms: u64, outgoing: Box<dyn OutgoingMessage>) {
        if let Some(it) = self.slots.get_mut(slot_of(corr)) {
            self.waiting += 1;
            *it = PendingSlot::Waits { corr, until_ms, outgoing };
        }
    }

    /// The ask that this answer is for, once.
    pub fn take(&mut self, number: u64) -> Option<Box<dyn OutgoingMessage>> {
        let slot = slot_of(number);
        let it = self.slots.get_mut(slot)?;
        if !matches!(it, PendingSlot::Waits { corr, .. } if *corr == number) {
            return None;
        }
        let PendingSlot::Waits { outgoing, .. } = std::mem::replace(it, PendingSlot::Free) else { return None };
        self.waiting -= 1;
        self.free.push(slot as u32);
        Some(outgoing)
    }

    /// Removes the asks whose askers have given up.
    pub fn expired(&mut self, now_ms: u64) -> Vec<Box<dyn OutgoingMessage>> {
        let late = |slot: &PendingSlot| match slot {
            PendingSlot::Waits { corr, until_ms, .. } if *until_ms <= now_ms => Some(*corr),
            PendingSlot::Waits { .. } | PendingSlot::Free => None,
        };
        let late: Vec<u64> = self.slots.iter().filter_map(late).collect();
        late.into_iter().filter_map(|corr| self.take(corr)).collect()
    }

    pub fn drain(&mut self) -> Vec<Box<dyn OutgoingMessage>> {
        self.expired(u64::MAX)
    }
}

fn slot_of(corr: u64) -> usize {
    (corr & (LANE_BIT - 1)) as usize
}
