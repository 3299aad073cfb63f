//! Which sectors of a batch are proven together, and when: a chunk begins as soon as the sectors before and in it have
//! been read. Pure.
//!
//! A window proof is a row of circuits, each over the next so many sectors in the order of their numbers. A chunk is what
//! one circuit takes, so that a batch's proof is its chunks' proofs in a row.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorState {
    /// Not read yet; why, when its disk or host is late.
    Pending(Option<String>),
    Read,
    /// Not in the proof, and why.
    LeftOut(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextChunk {
    Prove(Vec<u64>),
    /// Sectors of the next chunk are not read yet.
    Wait,
    /// Every sector is in one of the chunks that are done, or left out.
    Done,
}

/// The chunk after the first `done` ones. `size`: sectors in a circuit.
pub fn next(sectors: &BTreeMap<u64, SectorState>, done: usize, size: usize) -> NextChunk {
    let size = size.max(1);
    let before = done.saturating_mul(size);
    let mut place = 0;
    let mut chunk = Vec::new();
    for (number, state) in sectors {
        match state {
            SectorState::LeftOut(_) => {}
            SectorState::Pending(_) => return NextChunk::Wait,
            SectorState::Read => {
                if place >= before {
                    chunk.push(*number);
                }
                place += 1;
                if chunk.len() == size {
                    return NextChunk::Prove(chunk);
                }
            }
        }
    }
    if chunk.is_empty() { NextChunk::Done } else { NextChunk::Prove(chunk) }
}

/// Sectors that a proof leaves out for the same reason.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub why: String,
    pub count: u64,
    /// The lowest numbers, at most 20.
    pub first: Vec<u64>,
}

/// Reasons and numbers that are named.
const NAMED: usize = 20;

/// Sectors that are left out and those that are late, by reason.
pub fn left_out(sectors: &BTreeMap<u64, SectorState>) -> Vec<LeftOut> {
    let mut groups: Vec<LeftOut> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, state) in sectors {
        let why = match state {
            SectorState::LeftOut(why) => why.as_str(),
            SectorState::Pending(Some(why)) => why.as_str(),
            SectorState::Pending(None) | SectorState::Read => continue,
        };
        let why = if place.len() < NAMED || place.contains_key(why) { why } else { "other reasons: see the log" };
        let index = *place.entry(why).or_insert_with(|| {
            groups.push(LeftOut { why: why.to_string(), count: 0, first: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.count += 1;
        if group.first.len() < NAMED {
            group.first.push(*number);
        }
    }
    groups
}

/// The two halves of a group in which a sector spoils the proof.
pub fn halves(mut group: Vec<u64>) -> [Vec<u64>; 2] {
    let second = group.split_off(group.len().div_ceil(2));
    [group, second]
}

#[cfg(test)]
mod tests {
    use super::SectorState::*;
    use super::*;

    fn sectors(states: &str) -> BTreeMap<u64, SectorState> {
        let state = |c| match c {
            'r' => Read,
            'p' => Pending(None),
            'l' => Pending(Some("late".into())),
            _ => LeftOut("bad".into()),
        };
        (1..).zip(states.chars().map(state)).collect()
    }

    #[test]
    fn a_chunk_begins_when_it_and_those_before_it_are_read() {
        use NextChunk::*;
        for (states, done, size, expected) in [
            ("rrrr", 0, 2, Prove(vec![1, 2])),
            ("rrrr", 1, 2, Prove(vec![3, 4])),
            ("rrrr", 2, 2, Done),
            ("rrrrr", 2, 2, Prove(vec![5])),
            ("rrpr", 0, 2, Prove(vec![1, 2])),
            ("rrpr", 1, 2, Wait),
            ("rpr", 0, 2, Wait),
            ("rxr", 0, 2, Prove(vec![1, 3])),
            ("rxrlr", 0, 2, Prove(vec![1, 3])),
            ("rxrlr", 1, 2, Wait),
            ("r", 0, 2, Prove(vec![1])),
            ("rp", 0, 2, Wait),
            ("xx", 0, 2, Done),
            ("rrr", 0, usize::MAX, Prove(vec![1, 2, 3])),
            ("rr", 0, 0, Prove(vec![1])),
        ] {
            assert_eq!(next(&sectors(states), done, size), expected, "{states} after {done} of {size}");
        }
    }

    #[test]
    fn reasons_are_counted_and_bounded() {
        let found = left_out(&sectors("rxlxp"));
        let shown: Vec<_> = found.iter().map(|g| (g.why.as_str(), g.count, g.first.as_slice())).collect();
        assert_eq!(shown, [("bad", 2, [2, 4].as_slice()), ("late", 1, [3].as_slice())]);
        let many: BTreeMap<u64, SectorState> = (0..1000).map(|n| (n, LeftOut(format!("file {n}")))).collect();
        let found = left_out(&many);
        assert_eq!((found.len(), found.iter().map(|g| g.count).sum::<u64>()), (21, 1000));
        assert_eq!(found[20].first.len(), 20);
    }

    #[test]
    fn halves_lose_nobody() {
        assert_eq!(halves(vec![1, 2, 3]), [vec![1, 2], vec![3]]);
        assert_eq!(halves(vec![1, 2]), [vec![1], vec![2]]);
    }
}
