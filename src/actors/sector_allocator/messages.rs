//! The sector allocator's public protocol.

use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// Take a sector number. The request key names the need: asked again with the same key (after a crash, a timeout, a
/// lost answer), the same number comes back.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Allocate {
    pub request: String,
}

impl Message for Allocate {
    type Reply = Result<u64, AllocateError>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::ALLOCATE, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Ask again later: nothing was taken.
    #[error("no sector number now: {why}, and no leased number is left; it will be asked again")]
    ChainUnavailable { why: String },
    #[error("sector numbers: {0}")]
    Store(String),
    #[error("no sector number is free below 2^63")]
    Exhausted,
}

/// Set numbers aside under a name: they are not given out until freed.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Reserve {
    pub name: String,
    pub numbers: Vec<RangeInclusive<u64>>,
}

impl Message for Reserve {
    type Reply = Result<(), ReserveError>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::RESERVE, 1));
}

/// Set the lowest `count` free numbers aside; answers which.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ReserveCount {
    pub name: String,
    pub count: u64,
}

impl Message for ReserveCount {
    type Reply = Result<Vec<RangeInclusive<u64>>, ReserveError>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::RESERVE_COUNT, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Free {
    pub name: String,
}

impl Message for Free {
    type Reply = Result<(), ReserveError>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::FREE, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    #[error("{0:?} is not a reservation's name (allowed: a-z, A-Z, 0-9, '-', '_')")]
    Name(String),
    #[error("a reservation named {0:?} exists already")]
    Exists(String),
    #[error("there is no reservation named {0:?}")]
    Missing(String),
    #[error("sector {number} is reserved already by {by:?}")]
    Reserved { number: u64, by: String },
    #[error("sector {0} is allocated already")]
    Allocated(u64),
    #[error("{0} is no set of sector numbers")]
    Numbers(String),
    #[error("cannot ask the chain which numbers are used: {0}; try again")]
    ChainUnavailable(String),
    #[error("sector numbers: {0}")]
    Store(String),
}

/// Everything the allocator knows; `next` is what the next allocation would give.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Allocated;

impl Message for Allocated {
    type Reply = Result<Numbers, AllocateError>;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(ids::ALLOCATED, 1));
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Given out here.
    pub allocated: Vec<RangeInclusive<u64>>,
    /// Used on chain, by whomever; as of the last answer.
    pub on_chain: Vec<RangeInclusive<u64>>,
    pub reserved: Vec<(String, Vec<RangeInclusive<u64>>)>,
    /// May be given out while the chain cannot be asked.
    pub leased: Vec<RangeInclusive<u64>>,
    pub next: Option<u64>,
}
