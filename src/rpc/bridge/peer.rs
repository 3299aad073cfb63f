//! One peer: its present session with what waits for it, and the carrier that brings messages there.

use super::counters::{Counters, Refusal};
use super::exports::Exported;
use super::frame::{Call, Head, TraceParent};
use super::hello::Terms;
use super::link::{LANES, Link, Unsent, index};
use super::pending::PendingAsks;
use super::session::PeerState;
use super::{BODY, PeerInfo, lock};
use crate::supervisor::wire::{Carrier, Fault, OutgoingMessage, RemoteEnvelope, Respond, WireError, WireLane, Writer};
use crate::supervisor::{Down, Exit, Monitor, Recipient};
use crate::util::time::clock_ms;
use arc_swap::{ArcSwap, ArcSwapOption};
use libp2p::PeerId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Span;

/// How many monitors a peer may set here, and asks it may have under way.
const MAX_WATCHES: usize = 1 << 16;
const MAX_SERVED: usize = 1 << 16;
/// How long an ask is kept after its asker gave up: for an answer that is on its way.
const GRACE_MS: u64 = 1000;

/// A monitor set from here: the actor's path, and who is told.
type Waiter = (Arc<str>, Recipient<Down>);

/// From the first connection with one process of a peer to the end of the last.
pub struct PeerSession {
    pub peer: PeerId,
    pub boot: u64,
    pub terms: Terms,
    /// The connection for what is sent; replaced when two connections become one.
    pub link: ArcSwap<Link>,
    pub counters: Arc<Counters>,
    pub pending: Mutex<PendingAsks>,
    /// Monitors set from here on actors there.
    watches: Mutex<HashMap<u64, Waiter>>,
    next_watch: AtomicU64,
    /// Monitors set from there on actors here.
    watched: Mutex<HashMap<u64, Monitor>>,
    /// Asks from there that are not answered yet.
    served: AtomicUsize,
    pub rtt_us: AtomicU64,
    /// [`clock_ms`] of the last frame.
    pub heard_ms: AtomicU64,
    our_boot: u64,
}

impl PeerSession {
    pub fn new(
        peer: PeerId,
        boot: u64,
        terms: Terms,
        link: Arc<Link>,
        counters: Arc<Counters>,
        our_boot: u64,
    ) -> PeerSession {
        PeerSession {
            peer,
            boot,
            terms,
            link: ArcSwap::new(link),
            counters,
            pending: Mutex::default(),
            watches: Mutex::default(),
            next_watch: AtomicU64::new(1),
            watched: Mutex::default(),
            served: AtomicUsize::new(0),
            rtt_us: AtomicU64::new(0),
            heard_ms: AtomicU64::new(clock_ms()),
            our_boot,
        }
    }

    /// The origin of the request in hand, for the other node's log.
    fn trace(&self) -> Option<TraceParent> {
        let span = Span::current().id()?.into_u64();
        Some(TraceParent { trace: u128::from(self.our_boot) << 64 | u128::from(span), span })
    }

    fn tell(
        &self,
        envelope: &RemoteEnvelope,
        schema: u16,
        epoch: u64,
        outgoing: &dyn OutgoingMessage,
    ) -> Result<(), Unsent> {
        let head = |serial, to| Head::Tell(Call { corr: serial, to, message: envelope.id, schema, epoch, trace: None });
        let link = self.link.load();
        link.call(envelope.lane, &envelope.to, false, head, |into| outgoing.write(into))?;
        link.wake();
        Ok(())
    }

    fn ask(
        &self,
        envelope: &RemoteEnvelope,
        schema: u16,
        epoch: u64,
        within: Duration,
        outgoing: Box<dyn OutgoingMessage>,
    ) -> Result<(), (Unsent, Box<dyn OutgoingMessage>)> {
        let Some(slot) = lock(&self.pending).reserve() else { return Err((Unsent::Full, outgoing)) };
        let lane = index(envelope.lane);
        let left_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX).max(1);
        let trace = self.trace();
        let (number, alone) = (Cell::new(0), Cell::new(false));
        let mut outgoing = Some(outgoing);
        let head = |serial, to| {
            number.set(PendingAsks::number(slot, lane, serial));
            let call = Call { corr: number.get(), to, message: envelope.id, schema, epoch, trace };
            Head::Ask { call, left_ms }
        };
        let link = self.link.load();
        // It waits for its answer before anyone can send it: the queue is locked until then.
        let sent = link.call(envelope.lane, &envelope.to, true, head, |into| {
            let Some(it) = outgoing.take() else { return Ok(()) };
            if let Err(why) = it.write(into) {
                outgoing = Some(it);
                return Err(why);
            }
            let mut pending = lock(&self.pending);
            let until = clock_ms().saturating_add(u64::from(left_ms)).saturating_add(GRACE_MS);
            pending.wait(number.get(), until, it);
            alone.set(pending.waiting() == 1);
            Ok(())
        });
        match sent {
            Ok(()) if alone.get() => link.flush(),
            Ok(()) => link.wake(),
            Err(why) => {
                let mut pending = lock(&self.pending);
                match outgoing {
                    Some(outgoing) => {
                        pending.give_up(slot);
                        return Err((why, outgoing));
                    }
                    // Too long: it waited already.
                    None => match pending.take(number.get()) {
                        Some(outgoing) => return Err((why, outgoing)),
                        None => return Ok(()), // the session ended meanwhile and has settled it
                    },
                }
            }
        }
        Ok(())
    }

    /// An answer came.
    pub fn settle(&self, corr: u64, answer: Result<&[u8], Fault>) {
        let outgoing = lock(&self.pending).take(corr);
        match outgoing {
            Some(outgoing) => outgoing.settle(answer),
            None => self.counters.refuse(Refusal::UnknownAsk),
        }
    }

    pub fn expire(&self) {
        let late = lock(&self.pending).expired(clock_ms());
        late.into_iter().for_each(|outgoing| outgoing.settle(Err(Fault::Timeout)));
    }

    /// Takes an ask from there to its actor here.
    pub fn serve(
        self: &Arc<Self>,
        lane: WireLane,
        to: &Exported,
        call: &Call<'_>,
        left_ms: u32,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let served = self.served.fetch_add(1, Ordering::AcqRel);
        let owed = OwedAnswer { peer_session: self.clone(), lane, corr: call.corr, answered: false };
        if served >= MAX_SERVED {
            owed.answer(Err(Fault::Full));
            return Err(Refusal::TooMany);
        }
        let respond: Respond = Box::new(move |answer| owed.answer(answer));
        let within = Some(Duration::from_millis(u64::from(left_ms)));
        let deliver = || to.export.deliver(call.message, call.schema, body, within, Some(respond));
        let delivered = match call.trace {
            None => deliver(),
            Some(trace) => tracing::info_span!("bridge", peer = %self.peer, traceparent = %trace).in_scope(deliver),
        };
        let Err((fault, respond)) = delivered else { return Ok(()) };
        let why = refusal_of(&fault);
        if let Some(respond) = respond {
            respond(Err(fault));
        }
        why.map_or(Ok(()), Err)
    }

    /// An ask from there that does not come to an actor.
    pub fn refuse_ask(&self, lane: WireLane, corr: u64, fault: Fault) {
        self.respond(lane, corr, Err(fault), self.served.load(Ordering::Relaxed) == 0);
    }

    /// Writes one answer; `last`: nobody else there waits for one.
    fn respond(&self, lane: WireLane, corr: u64, answer: Result<Writer<'_>, Fault>, last: bool) {
        let fault = |fault: Fault| self.notice(lane, &Head::Fault { corr }, &|into| encode(&fault, into));
        let sent = match answer {
            Ok(write) => match self.notice(lane, &Head::Reply { corr }, write) {
                Err(Unsent::TooLong(why)) => {
                    fault(Fault::Refused(format!("its answer is {why}: bulk data goes over HTTP or shared storage")))
                }
                Err(Unsent::Unwritable(why)) => fault(Fault::Refused(format!("its answer cannot be written: {why}"))),
                sent => sent,
            },
            Err(why) => fault(why),
        };
        if let Ok(link) = sent {
            // Closed: the asker was told that its node is gone.
            if last { link.flush() } else { link.wake() }
        }
    }

    /// Queues what must go, on the connection that carries now.
    pub fn notice(&self, lane: WireLane, head: &Head, body: Writer<'_>) -> Result<Arc<Link>, Unsent> {
        let link = self.link.load_full();
        match link.notice(lane, head, body) {
            Ok(()) => Ok(link),
            // Another connection of this session may have taken over meanwhile.
            Err(Unsent::Closed) => {
                let link = self.link.load_full();
                link.notice(lane, head, body).map(|()| link)
            }
            Err(unsent) => Err(unsent),
        }
    }

    fn watch(self: &Arc<Self>, path: &Arc<str>, epoch: u64, to: Recipient<Down>) -> Option<Watch> {
        let corr = self.next_watch.fetch_add(1, Ordering::Relaxed);
        let link = self.link.load();
        let head = |_, number| Head::Watch { corr, to: number, epoch };
        // It is noted before anyone can answer.
        let sent = link.call(WireLane::Control, path, true, head, |_| {
            lock(&self.watches).insert(corr, (path.clone(), to));
            Ok(())
        });
        link.wake();
        if sent.is_err() {
            lock(&self.watches).remove(&corr);
            return None;
        }
        Some(Watch { peer_session: self.clone(), corr })
    }

    /// An actor there has ended.
    pub fn down(&self, corr: u64, incarnation: u64, reason: Exit) {
        let watch = lock(&self.watches).remove(&corr);
        if let Some((path, to)) = watch {
            to.deliver(Down { path: path.to_string(), incarnation, reason }); // else: taken back meanwhile
        }
    }

    /// Sets a monitor for an actor there on one here.
    pub fn set_watch(self: &Arc<Self>, corr: u64, to: Option<&Exported>) -> Result<(), Refusal> {
        let Some(to) = to else {
            self.send_down(corr, 0, &Exit::NotRunning);
            return Err(Refusal::UnknownPath);
        };
        if lock(&self.watched).len() >= MAX_WATCHES {
            self.send_down(corr, 0, &Exit::NotRunning);
            return Err(Refusal::TooMany);
        }
        let over = Arc::new(AtomicBool::new(false));
        let (peer_session, told) = (Arc::downgrade(self), over.clone());
        let pass = Recipient::passing(to.export.path().clone(), move |down| {
            told.store(true, Ordering::Release);
            if let Some(peer_session) = peer_session.upgrade() {
                peer_session.send_down(corr, down.incarnation, &down.reason);
            }
        });
        let monitor = to.export.monitor(pass);
        let mut watched = lock(&self.watched);
        if !over.load(Ordering::Acquire) {
            watched.insert(corr, monitor);
        }
        Ok(())
    }

    fn send_down(&self, corr: u64, incarnation: u64, reason: &Exit) {
        let reason = reason.clone().on_the_wire();
        let body = |into: &mut Vec<u8>| encode(&(incarnation, &reason), into);
        if let Ok(link) = self.notice(WireLane::Control, &Head::Down { corr }, &body) {
            link.wake();
        }
        self.unset_watch(corr);
    }

    pub fn unset_watch(&self, corr: u64) {
        let gone = lock(&self.watched).remove(&corr);
        drop(gone);
    }

    /// It is over: whoever waits for something from there is told, once.
    pub fn finish(&self) {
        let watched = std::mem::take(&mut *lock(&self.watched));
        drop(watched);
        let pending = lock(&self.pending).drain();
        pending.into_iter().for_each(|outgoing| outgoing.settle(Err(Fault::NodeDown { sent: true })));
        let watches = std::mem::take(&mut *lock(&self.watches));
        for (path, to) in watches.into_values() {
            to.deliver(Down { path: path.to_string(), incarnation: 0, reason: Exit::NodeDown });
        }
    }
}

/// The refusal that a fault at delivery counts as.
pub fn refusal_of(fault: &Fault) -> Option<Refusal> {
    match fault {
        Fault::Refused(_) => Some(Refusal::UnknownMessage),
        Fault::Fenced => Some(Refusal::Fenced),
        Fault::NotRunning | Fault::Restarting | Fault::Full => Some(Refusal::Undelivered),
        Fault::Timeout | Fault::Panicked | Fault::Exited(_) | Fault::NodeDown { .. } => None,
    }
}

fn encode<T: serde::Serialize>(it: &T, into: &mut Vec<u8>) -> Result<(), WireError> {
    bincode::serde::encode_into_std_write(it, into, BODY).map(drop).map_err(|e| WireError(e.to_string()))
}

/// An answer that is owed; dropped, nobody waits for it any more.
struct OwedAnswer {
    peer_session: Arc<PeerSession>,
    lane: WireLane,
    corr: u64,
    answered: bool,
}

impl OwedAnswer {
    fn answer(mut self, answer: Result<Writer<'_>, Fault>) {
        self.answered = true;
        let last = self.peer_session.served.fetch_sub(1, Ordering::AcqRel) == 1;
        self.peer_session.respond(self.lane, self.corr, answer, last);
    }
}

impl Drop for OwedAnswer {
    fn drop(&mut self) {
        if !self.answered {
            self.peer_session.served.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A monitor on an actor there; dropped, it is taken back.
struct Watch {
    peer_session: Arc<PeerSession>,
    corr: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let set = lock(&self.peer_session.watches).remove(&self.corr).is_some();
        if set {
            let head = Head::Unwatch { corr: self.corr };
            if let Ok(link) = self.peer_session.notice(WireLane::Control, &head, &|_| Ok(())) {
                link.wake();
            }
        }
    }
}

/// A peer as long as the bridge knows of it.
pub struct Peer {
    pub id: PeerId,
    pub peer_session: ArcSwapOption<PeerSession>,
    pub counters: Arc<Counters>,
    pub state: Mutex<PeerState>,
}

impl Peer {
    pub fn new(id: PeerId) -> Peer {
        Peer {
            id,
            peer_session: ArcSwapOption::empty(),
            counters: Arc::default(),
            state: Mutex::new(PeerState::Connecting),
        }
    }

    pub fn info(&self) -> PeerInfo {
        let peer_session = self.peer_session.load();
        let peer_session = peer_session.as_ref();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let rtt = peer_session.map(|it| count(&it.rtt_us)).filter(|us| *us > 0);
        PeerInfo {
            peer: self.id,
            state: *lock(&self.state),
            boot: peer_session.map(|it| it.boot),
            rtt: rtt.map(Duration::from_micros),
            pending: peer_session.map_or(0, |it| lock(&it.pending).waiting()),
            queued: peer_session.map_or([0; 2], |it| LANES.map(|lane| it.link.load().depth(lane))),
            frames_in: count(&self.counters.frames_in),
            lives: count(&self.counters.lives),
            refused: self.counters.all_refused(),
        }
    }
}

/// Brings messages to the actors of one peer that are held under one epoch.
pub struct PeerCarrier {
    pub peer: Arc<Peer>,
    pub epoch: u64,
}

impl Carrier for PeerCarrier {
    fn carry(
        &self,
        envelope: RemoteEnvelope,
        mut outgoing: Box<dyn OutgoingMessage>,
    ) -> Result<(), (Fault, Box<dyn OutgoingMessage>)> {
        let peer_session = self.peer.peer_session.load();
        let Some(peer_session) = peer_session.as_deref() else {
            return Err((Fault::NodeDown { sent: false }, outgoing));
        };
        let schema = match peer_session.terms.schema(envelope.id, envelope.schemas) {
            Ok(schema) => schema,
            Err(why) => return Err((Fault::Refused(why), outgoing)),
        };
        outgoing.use_schema(schema);
        // Twice: another connection of the same session may have taken over between the look and the call.
        for last in [false, true] {
            let unsent = match envelope.within {
                None => match peer_session.tell(&envelope, schema, self.epoch, &*outgoing) {
                    Ok(()) => return Ok(()),
                    Err(unsent) => unsent,
                },
                Some(within) => match peer_session.ask(&envelope, schema, self.epoch, within, outgoing) {
                    Ok(()) => return Ok(()),
                    Err((unsent, back)) => {
                        outgoing = back;
                        unsent
                    }
                },
            };
            let fault = match unsent {
                Unsent::Closed if !last => continue,
                Unsent::Closed => Fault::NodeDown { sent: false },
                Unsent::Full => Fault::Full,
                Unsent::Unread => Fault::NodeDown { sent: false }, // for notices only
                Unsent::TooLong(why) => {
                    Fault::Refused(format!("it is {why}: bulk data goes over HTTP or shared storage"))
                }
                Unsent::Unwritable(why) => Fault::Refused(format!("it cannot be written: {why}")),
            };
            return Err((fault, outgoing));
        }
        Err((Fault::NodeDown { sent: false }, outgoing))
    }

    fn watch(&self, path: &Arc<str>, to: Recipient<Down>) -> Box<dyn Send + Sync> {
        let peer_session = self.peer.peer_session.load_full();
        for _ in 0..2 {
            if let Some(watch) =
                peer_session.as_ref().and_then(|peer_session| peer_session.watch(path, self.epoch, to.clone()))
            {
                return Box::new(watch);
            }
        }
        to.deliver(Down { path: path.to_string(), incarnation: 0, reason: Exit::NodeDown });
        Box::new(())
    }
}
