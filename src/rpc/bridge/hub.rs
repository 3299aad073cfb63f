//! The bridge's own task: listens, dials, and runs every peer's [`SessionState`] on a clock.

use super::counters::{Counters, Refusal};
use super::driver::{self, Connection};
use super::exports::Exports;
use super::frame::Head;
use super::handshake_limits::{HandshakeLimiter, ip_of};
use super::hello::{Hello, Terms, our_versions};
use super::link::{LANES, Link};
use super::peer::{Peer, PeerSession};
use super::session::{CloseReason, PeerState, Rank, Refused, SessionAction, SessionEvent, SessionState};
use super::transport::{AllowList, Connected};
use super::{BODY, BridgeConfig, lock};
use crate::rpc::refusal_log::RefusalLog;
use crate::supervisor::wire::{WireError, WireLane};
use crate::util::time::clock_us;
use crate::util::time::instant_of;
use libp2p::core::Endpoint;
use libp2p::core::transport::{Boxed, DialOpts, PortUse, Transport, TransportEvent};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot, watch};

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

    fn conn(&self, peer: PeerId, dialled: Option<u64>, from: Option<IpAddr>) -> Connection {
        Connection { id: self.next_conn.fetch_add(1, Ordering::Relaxed), peer, dialled, from }
    }
}

pub struct Hub {
    shared: Arc<HubState>,
    transport: Boxed<Connected>,
    sessions: HashMap<PeerId, SessionState>,
    links: HashMap<u64, Arc<Link>>,
    places: HandshakeLimiter,
    /// Anybody can make a handshake fail.
    failed_handshakes: Arc<RefusalLog>,
    dials: u64,
}

impl Hub {
    pub fn new(shared: Arc<HubState>, transport: Boxed<Connected>) -> Hub {
        let (sessions, links, places) = (HashMap::new(), HashMap::new(), HandshakeLimiter::default());
        Hub { shared, transport, sessions, links, places, failed_handshakes: Arc::default(), dials: 0 }
    }

    pub async fn run(mut self, mut from_conns: mpsc::Receiver<FromConn>) {
        let timing = self.shared.config.timing;
        let mut tick = tokio::time::interval((timing.heartbeat / 4).max(Duration::from_millis(5)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        self.look_around();
        while !shared.stop.load(Ordering::Acquire) {
            tokio::select! {
                event = from_conns.recv() => match event {
                    Some(event) => self.on_conn(event),
                    None => break,
                },
                event = poll_fn(|task| Pin::new(&mut self.transport).poll(task)) => self.on_transport(event),
                () = shared.changed.notified() => self.look_around(),
                _ = tick.tick() => self.tick(),
            }
        }
        self.say_goodbye(&mut from_conns).await;
    }

    async fn say_goodbye(&mut self, from_conns: &mut mpsc::Receiver<FromConn>) {
        for link in self.links.values() {
            goodbye(link, CloseReason::Leaving, "this node stops");
            link.close();
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), async {
            while !self.links.is_empty() {
                match from_conns.recv().await {
                    Some(FromConn::Closed { conn, .. }) => drop(self.links.remove(&conn)),
                    Some(_) => {}
                    None => break,
                }
            }
        })
        .await;
        let peers: Vec<_> = lock(&self.shared.peers).values().cloned().collect();
        for peer in peers {
            if let Some(peer_session) = peer.peer_session.swap(None) {
                peer_session.finish();
            }
            *lock(&peer.state) = PeerState::Down;
        }
        self.shared.events.send_modify(|n| *n += 1);
    }

    fn on_transport(
        &mut self,
        event: TransportEvent<<Boxed<Connected> as Transport>::ListenerUpgrade, std::io::Error>,
    ) {
        match event {
            TransportEvent::NewAddress { listen_addr, .. } => {
                tracing::info!(address = %listen_addr, "bridge: listens");
                lock(&self.shared.listening).push(listen_addr);
                self.shared.events.send_modify(|n| *n += 1);
            }
            TransportEvent::AddressExpired { listen_addr, .. } => {
                lock(&self.shared.listening).retain(|it| *it != listen_addr);
            }
            TransportEvent::Incoming { upgrade, send_back_addr, .. } => {
                let from = ip_of(&send_back_addr);
                let Some(place) = self.places.take(from) else {
                    return self.shared.strangers.refuse(Refusal::TooMany);
                };
                let (shared, failed) = (self.shared.clone(), self.failed_handshakes.clone());
                tokio::spawn(async move {
                    match upgrade.await {
                        Ok((peer, muxer)) => {
                            drop(place);
                            let conn = shared.conn(peer, None, from);
                            driver::run(shared, conn, muxer).await
                        }
                        Err(why) => {
                            if let Some(left_out) = failed.take() {
                                tracing::info!(from = %send_back_addr, %why, left_out, "bridge: a handshake failed");
                            }
                        }
                    }
                });
            }
            TransportEvent::ListenerClosed { reason, .. } => {
                if let Err(why) = reason {
                    tracing::warn!(%why, "bridge: a listener is closed");
                }
            }
            TransportEvent::ListenerError { error, .. } => tracing::warn!(%error, "bridge: a listener failed"),
        }
    }

    fn on_conn(&mut self, event: FromConn) {
        match event {
            FromConn::Ready { conn, rank, terms, link, admit } => self.on_ready(conn, rank, terms, link, admit),
            FromConn::Failed { conn } => {
                if conn.dialled.is_some() {
                    self.step(conn.peer, SessionEvent::DialFailed);
                }
            }
            FromConn::DialFailed { peer } => self.step(peer, SessionEvent::DialFailed),
            FromConn::Goodbye { conn, peer, why } => self.step(peer, SessionEvent::Goodbye { conn, why }),
            FromConn::Closed { conn, peer } => {
                self.links.remove(&conn);
                self.step(peer, SessionEvent::Closed { conn });
            }
        }
    }

    fn on_ready(
        &mut self,
        conn: Connection,
        rank: Rank,
        terms: Terms,
        link: Arc<Link>,
        admit: oneshot::Sender<Arc<PeerSession>>,
    ) {
        self.links.insert(conn.id, link.clone());
        let from = conn.from;
        let mut admit = Some((admit, terms, link));
        let boot = admit.as_ref().map_or(0, |(_, terms, _)| terms.boot);
        let actions = self.session(conn.peer).step(
            Instant::now(),
            rand::random(),
            SessionEvent::Ready { conn: conn.id, rank, boot },
        );
        let peer = self.shared.peer(conn.peer);
        for action in actions {
            match action {
                SessionAction::Begin { boot } => {
                    let Some((_, terms, link)) = &admit else { continue };
                    peer.counters.lives.fetch_add(1, Ordering::Relaxed);
                    let counters = peer.counters.clone();
                    let peer_session =
                        PeerSession::new(peer.id, boot, terms.clone(), link.clone(), counters, self.shared.boot);
                    peer.peer_session.store(Some(Arc::new(peer_session)));
                    if let Some(from) = from {
                        self.places.met(peer.id, from);
                    }
                    tracing::info!(peer = %peer.id, boot, "bridge: up");
                }
                SessionAction::Admit { .. } => {
                    if let (Some((admit, ..)), Some(peer_session)) = (admit.take(), peer.peer_session.load_full()) {
                        let _ = admit.send(peer_session); // its task has ended: it says so next
                    }
                }
                other => self.act(&peer, other),
            }
        }
        self.publish(&peer);
    }

    fn session(&mut self, peer: PeerId) -> &mut SessionState {
        let shared = &self.shared;
        self.sessions.entry(peer).or_insert_with(|| {
            let mut session = SessionState::new(shared.config.timing, shared.me < peer);
            let _ = session.step(Instant::now(), 0.0, SessionEvent::Allowed(shared.allow.has(&peer))); // no address: no action
            session
        })
    }

    fn step(&mut self, id: PeerId, event: SessionEvent) {
        let actions = self.session(id).step(Instant::now(), rand::random(), event);
        let peer = self.shared.peer(id);
        for action in actions {
            self.act(&peer, action);
        }
        self.publish(&peer);
    }

    fn act(&mut self, peer: &Arc<Peer>, action: SessionAction) {
        match action {
            SessionAction::Dial => self.dial(peer.id),
            SessionAction::Begin { .. } | SessionAction::Admit { .. } => {} // answers to Event::Ready only: on_ready
            SessionAction::Refuse { conn, why } => {
                let (reason, text) = match why {
                    Refused::OldBoot => (
                        Refusal::OldBoot,
                        "a later start of this node was here: end this process, or give it a repo of its own",
                    ),
                    Refused::Twice => (Refusal::Twice, "this connection is there already"),
                    Refused::NotAllowed => (Refusal::UnknownPeer, "not on the allow-list"),
                };
                peer.counters.refuse(reason);
                if let Some(link) = self.links.get(&conn) {
                    goodbye(link, CloseReason::Leaving, text);
                    link.close();
                }
            }
            SessionAction::Route { conn } => {
                if let (Some(peer_session), Some(link)) = (peer.peer_session.load_full(), self.links.get(&conn)) {
                    peer_session.link.store(link.clone());
                }
            }
            SessionAction::Part { conn } => {
                if let Some(link) = self.links.get(&conn) {
                    goodbye(link, CloseReason::Superseded, "another connection carries");
                    link.refuse_more();
                    link.wake();
                }
            }
            SessionAction::Close { conn } => {
                if let Some(link) = self.links.get(&conn) {
                    link.close();
                }
            }
            SessionAction::Heartbeat { conn } => {
                if let Some(link) = self.links.get(&conn)
                    && link
                        .notice(WireLane::Control, &Head::Heartbeat { stamp: clock_us(), echo: false }, &|_| Ok(()))
                        .is_ok()
                {
                    link.wake();
                }
            }
            SessionAction::Finish(end) => {
                if let Some(peer_session) = peer.peer_session.swap(None) {
                    tracing::info!(peer = %peer.id, boot = peer_session.boot, ?end, "bridge: down");
                    peer_session.link.load().refuse_more();
                    peer_session.finish();
                }
            }
        }
    }

    fn publish(&self, peer: &Peer) {
        let Some(state) = self.sessions.get(&peer.id).map(SessionState::state) else { return };
        let before = std::mem::replace(&mut *lock(&peer.state), state);
        if before != state {
            self.shared.events.send_modify(|n| *n += 1);
        }
    }

    fn tick(&mut self) {
        let ids: Vec<PeerId> = self.sessions.keys().copied().collect();
        for id in ids {
            let peer_session = self.shared.peer(id).peer_session.load_full();
            if let Some(peer_session) = &peer_session {
                peer_session.expire();
            }
            let heard = peer_session.map(|peer_session| instant_of(peer_session.heard_ms.load(Ordering::Relaxed)));
            self.step(id, SessionEvent::Tick { heard });
        }
    }

    /// The allow-list or the addresses may have changed.
    fn look_around(&mut self) {
        let known: Vec<(PeerId, bool)> =
            lock(&self.shared.known).iter().map(|(id, at)| (*id, !at.is_empty())).collect();
        {
            let (known, allow) = (lock(&self.shared.known), &self.shared.allow);
            self.places.know(known.iter().filter(|(id, _)| allow.has(id)).flat_map(|(_, at)| at));
        }
        self.places.forget(|peer| self.shared.allow.has(peer));
        for (id, reachable) in known {
            self.session(id);
            self.step(id, SessionEvent::Reachable(reachable));
        }
        let ids: Vec<PeerId> = self.sessions.keys().copied().collect();
        for id in ids {
            let allowed = self.shared.allow.has(&id);
            self.step(id, SessionEvent::Allowed(allowed));
        }
    }

    fn dial(&mut self, peer: PeerId) {
        self.dials += 1;
        let serial = self.dials;
        let addresses = lock(&self.shared.known).get(&peer).cloned().unwrap_or_default();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dials: Vec<_> = addresses.into_iter().map(|at| (at.clone(), self.transport.dial(at, opts))).collect();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            for (at, dial) in dials {
                let reached = match dial {
                    Ok(dial) => dial.await.map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match reached {
                    Ok((who, muxer)) if who == peer => {
                        let conn = shared.conn(peer, Some(serial), None);
                        return driver::run(shared, conn, muxer).await;
                    }
                    Ok((who, _)) => tracing::warn!(%peer, %at, %who, "bridge: another node answers there"),
                    Err(why) => tracing::debug!(%peer, %at, why, "bridge: not reached"),
                }
            }
            shared.tell_hub(FromConn::DialFailed { peer }).await;
        });
    }
}

/// On both lanes: what was sent before on either is read before it.
fn goodbye(link: &Link, why: CloseReason, text: &str) {
    let body = |into: &mut Vec<u8>| {
        let body = (why == CloseReason::Superseded, text);
        bincode::serde::encode_into_std_write(body, into, BODY).map(drop).map_err(|e| WireError(e.to_string()))
    };
    for lane in LANES {
        if link.notice(lane, &Head::Goodbye, &body).is_ok() {
            link.wake();
        }
    }
}
