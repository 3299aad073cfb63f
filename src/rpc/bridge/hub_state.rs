//! The state that all of the bridge's parts share, and what a connection's task reports to the hub.

use super::config::BridgeConfig;
use super::counters::Counters;
use super::exports::Exports;
use super::hello::{Hello, Terms, our_versions};
use super::link::Link;
use super::peer::{Peer, PeerSession};
use super::session::{CloseReason, Rank};
use super::transport::AllowList;
use crate::util::lock;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub struct Connection {
    pub id: u64,
    pub peer: PeerId,
    /// The serial number of our dial; `None`: the peer dialled.
    pub dialled: Option<u64>,
    /// The address that the peer dialled from.
    pub from: Option<IpAddr>,
}

/// A report of a connection's task.
pub enum FromConn {
    /// Both hellos were exchanged; `admit` gets the session it belongs to, or is dropped.
    Ready {
        conn: Connection,
        rank: Rank,
        terms: Terms,
        link: Arc<Link>,
        admit: oneshot::Sender<Arc<PeerSession>>,
    },
    Failed {
        conn: Connection,
    },
    DialFailed {
        peer: PeerId,
    },
    Goodbye {
        conn: u64,
        peer: PeerId,
        why: CloseReason,
    },
    Closed {
        conn: u64,
        peer: PeerId,
    },
}

/// The state that all of the bridge's parts share.
pub struct HubState {
    pub config: BridgeConfig,
    pub me: PeerId,
    pub boot: u64,
    pub exports: Exports,
    pub allow: Arc<AllowList>,
    /// Counters of those who never became a peer.
    pub strangers: Arc<Counters>,
    pub peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    pub known: Mutex<HashMap<PeerId, Vec<Multiaddr>>>,
    pub listening: Mutex<Vec<Multiaddr>>,
    /// The allow-list or the known addresses have changed.
    pub changed: Notify,
    pub stop: AtomicBool,
    pub events: watch::Sender<u64>,
    to_hub: mpsc::Sender<FromConn>,
    next_conn: AtomicU64,
}

impl HubState {
    pub fn new(config: BridgeConfig, me: PeerId) -> (HubState, mpsc::Receiver<FromConn>) {
        let (to_hub, from_conns) = mpsc::channel(1024);
        let shared = HubState {
            me,
            boot: config.boot,
            config,
            exports: Exports::default(),
            allow: Arc::default(),
            strangers: Arc::default(),
            peers: Mutex::default(),
            known: Mutex::default(),
            listening: Mutex::default(),
            changed: Notify::new(),
            stop: AtomicBool::new(false),
            events: watch::Sender::new(0),
            to_hub,
            next_conn: AtomicU64::new(1),
        };
        (shared, from_conns)
    }

    pub fn peer(&self, id: PeerId) -> Arc<Peer> {
        lock(&self.peers).entry(id).or_insert_with(|| Arc::new(Peer::new(id))).clone()
    }

    pub fn hello(&self, serial: u64) -> Hello {
        Hello {
            versions: self.config.versions.unwrap_or_else(our_versions),
            boot: self.boot,
            cluster: self.config.cluster.clone(),
            serial,
            max_frame: self.config.max_frame,
            schemas: self.exports.schemas(),
        }
    }

    pub async fn tell_hub(&self, event: FromConn) {
        let _ = self.to_hub.send(event).await; // the hub has ended: so does all else
    }

    pub fn conn(&self, peer: PeerId, dialled: Option<u64>, from: Option<IpAddr>) -> Connection {
        Connection { id: self.next_conn.fetch_add(1, Ordering::Relaxed), peer, dialled, from }
    }
}
