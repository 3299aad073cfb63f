//! What a client process is told to do, and what it tells back; both as JSON.

use super::Peer;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Serialize, Deserialize, Clone)]
pub struct Plan {
    pub peer: Peer,
    /// As its server announced it.
    pub address: String,
    pub server: u32,
    pub secrets: PathBuf,
    pub work: Work,
}

#[derive(Serialize, Deserialize, Clone)]
pub enum Work {
    /// R1 and R2, one after the other over one connection.
    Load { asks: Vec<Ask>, ms: u64, tells: u64 },
    /// R3: a call that never ends, until it does. "waiting" on stdout when it is on its way.
    Pending { limit_ms: u64 },
    /// R4: so many clients; "connected" on stdout, then a line on stdin when the server listens again.
    Storm { clients: u64 },
    /// R5: the one test body, moved.
    Moved { times: u64, other_node: bool },
}

/// A cell of R1.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ask {
    pub size: usize,
    pub in_flight: usize,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub enum Sample {
    Ask {
        ask: Ask,
        per_second: f64,
        p50_us: f64,
        p99_us: f64,
        client_cpu_us: f64,
        server_cpu_us: f64,
    },
    Tell {
        sent: u64,
        per_second: f64,
        client_cpu_us: f64,
        server_cpu_us: f64,
        refused: u64,
    },
    /// When the call failed, in milliseconds since the epoch, and what it said; `None`: not within the limit.
    Pending {
        failed_at_ms: Option<f64>,
        said: String,
    },
    /// Milliseconds from the line on stdin until each client's call was answered.
    Storm {
        answered_ms: Vec<f64>,
    },
    Moved {
        place: String,
        p50_us: f64,
        p99_us: f64,
        per_second: f64,
    },
    /// The peer did not do it.
    Failed {
        why: String,
    },
}
