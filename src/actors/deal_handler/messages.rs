//! The messages that a deal handler takes.

use crate::supervisor::Message;
use crate::supervisor::wire::WireForm;
use crate::wire::{codec, ids};
use serde::{Deserialize, Serialize};

/// How is the market? Answered at once, from counters.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct MarketInfo;

impl Message for MarketInfo {
    type Reply = MarketReport;
    const WIRE: Option<WireForm<Self>> = Some(codec::report(ids::MARKET_INFO, 1));
}

/// Field names are stable: `bulkhead info --json` prints them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct MarketReport {
    pub miner: String,
    pub peer_id: String,
    /// The host's listen addresses, each ending in `/p2p/<peer id>`.
    pub addrs: Vec<String>,
    pub agent: String,
    /// Established now.
    pub connections: u64,
    pub max_connections: u32,
    pub connections_refused: u64,
    pub asks_served: u64,
    pub asks_without_answer: u64,
    pub bad_requests: u64,
    /// The ask that is served; none until the worker's key has signed one.
    pub ask: Option<AskReport>,
    /// Why there is no newer ask, when the last attempt failed.
    pub ask_error: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct AskReport {
    /// attoFIL per GiB and epoch.
    pub price: String,
    pub verified_price: String,
    pub min_piece_size: u64,
    pub max_piece_size: u64,
    pub timestamp: i64,
    pub expiry: i64,
    pub seq_no: u64,
}

/// For drills and tests: the swarm's task panics; the incarnation ends, its supervisor decides what follows.
#[derive(Clone, Copy, Debug)]
pub struct PanicHost;

impl Message for PanicHost {
    type Reply = ();
}
