//! The receiving side of a lane: bytes become frames, frames go to actors, askers and monitors.
//!
//! Consecutive tells of one type to one actor are delivered together: its mailbox takes a batch at a time.

use super::BODY;
use super::counters::Refusal;
use super::exports::{Exported, Exports};
use super::frame::{self, Call, Frame, FrameError, Head, MAX_PATHS, To, UNKEPT};
use super::later;
use super::link::LANES;
use super::peer::{PeerSession, refusal_of};
use super::pending::PendingAsks;
use super::session::CloseReason;
use crate::supervisor::OnUnreadable;
use crate::supervisor::wire::{Fault, WireLane};
use crate::util::time::clock_us;
use futures::AsyncRead;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Bytes per read; a longer frame makes the buffer grow as it arrives.
const CHUNK: usize = 128 * 1024;
/// How long a lane waits for room in a full mailbox before it drops a tell. Its other actors wait too, so it waits for
/// each actor only once until that takes a tell again.
const MAX_MAILBOX_WAIT: Duration = Duration::from_millis(50);
/// At most this many tells, of this many bytes in all, are delivered together: about as many as an actor handles in one
/// turn on its thread.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 32 * 1024;

struct Known {
    path: Arc<str>,
    exported: Option<Arc<Exported>>,
    /// The result of a look-up in [`Exports`], with its version.
    version: u64,
    /// It let a tell wait in vain.
    clogged: bool,
}

/// One lane's incoming side. Belongs to the driver.
pub struct Inbox {
    lane: WireLane,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    known: Vec<Known>,
    last_call: u64,
    waits_since: Option<Instant>,
    on_unreadable: Option<OnUnreadable>,
    /// This many coming frames are handled singly, because they were looked at together in vain: repeating that for
    /// each would cost a peer that floods nothing, and us much.
    one_by_one: usize,
}

/// A frame's consequence beyond its delivery.
#[derive(Debug, PartialEq)]
pub enum Next {
    Go,
    /// A mailbox is full: try this frame again in a moment.
    Wait,
    Goodbye(CloseReason, String),
    /// Nothing on this connection can be believed any more.
    Broken(Refusal, String),
}

impl Inbox {
    pub fn new(lane: usize) -> Inbox {
        Inbox {
            lane: LANES[lane],
            buffer: Vec::new(),
            start: 0,
            end: 0,
            known: Vec::new(),
            last_call: 0,
            waits_since: None,
            on_unreadable: None,
            one_by_one: 0,
        }
    }

    /// Reads once; true if anything came.
    pub fn fill(&mut self, stream: Pin<&mut impl AsyncRead>, task: &mut Context<'_>) -> io::Result<bool> {
        if self.waits_since.is_some() {
            return Ok(false);
        }
        self.make_room();
        match stream.poll_read(task, &mut self.buffer[self.end..]) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(n)) => {
                self.end += n;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(false),
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < CHUNK / 2 && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            // Whoever announces much must send it before it is held for him.
            let size = (self.buffer.len() * 2).max(CHUNK);
            self.buffer.resize(size, 0);
        }
    }

    pub fn waits(&self) -> bool {
        self.waits_since.is_some()
    }

    /// Takes the frames that are complete; says why it stopped before the last.
    pub fn take_all(&mut self, peer_session: &Arc<PeerSession>, exports: &Exports, limit: u32) -> Next {
        let mut frames = 0;
        let next = loop {
            let bytes = std::mem::take(&mut self.buffer); // so that a frame may borrow from it
            let unread = &bytes[self.start..self.end];
            let (next, taken, used) = match frame::parse(unread, limit) {
                Ok(None) => {
                    self.buffer = bytes;
                    break Next::Go;
                }
                Ok(Some((frame, used))) => match self.batch(peer_session, exports, &frame, unread, limit) {
                    (0, _) => (self.take(peer_session, exports, &frame), 1, used),
                    (taken, used) => (Next::Go, taken, used),
                },
                Err(error) => {
                    let why = match error {
                        FrameError::TooLong { .. } => Refusal::TooLong,
                        _ => Refusal::Malformed,
                    };
                    (Next::Broken(why, error.to_string()), 1, 0)
                }
            };
            self.buffer = bytes;
            if next != Next::Wait {
                self.start += used;
                frames += taken;
            }
            if next != Next::Go {
                break next;
            }
        };
        peer_session.counters.frames_in.fetch_add(frames, Ordering::Relaxed);
        next
    }

    fn take(&mut self, peer_session: &Arc<PeerSession>, exports: &Exports, frame: &Frame<'_>) -> Next {
        let refuse = |why: Refusal| {
            peer_session.counters.refuse(why);
            Next::Go
        };
        match frame.head {
            Head::Tell(call) => self.tell(peer_session, exports, &call, frame.body),
            Head::Ask { call, left_ms } => {
                let to = match self.addressee(exports, &call, PendingAsks::serial(call.corr)) {
                    Ok(to) => to,
                    Err((why, fault)) => {
                        peer_session.counters.refuse(why);
                        return match fault {
                            Some(fault) => {
                                peer_session.refuse_ask(self.lane, call.corr, fault);
                                Next::Go
                            }
                            None => Next::Go,
                        };
                    }
                };
                match peer_session.serve(self.lane, &to, &call, left_ms, frame.body) {
                    Ok(()) => Next::Go,
                    Err(why) => refuse(why),
                }
            }
            Head::Reply { corr } => {
                peer_session.settle(corr, Ok(frame.body));
                Next::Go
            }
            Head::Fault { corr } => match later::fault(frame.body) {
                Some(fault) => {
                    peer_session.settle(corr, Err(fault));
                    Next::Go
                }
                None => refuse(Refusal::Malformed),
            },
            Head::Heartbeat { stamp, echo: false } => {
                let echo = Head::Heartbeat { stamp, echo: true };
                if let Ok(link) = peer_session.notice(WireLane::Control, &echo, &|_| Ok(())) {
                    link.wake();
                }
                Next::Go
            }
            Head::Heartbeat { stamp, echo: true } => {
                let took = clock_us().saturating_sub(stamp);
                peer_session.rtt_us.store(took.max(1), Ordering::Relaxed);
                Next::Go
            }
            Head::Watch { corr, to, epoch } => {
                let found = match self.find(exports, &to) {
                    Ok(at) => self.known[at].exported.clone().filter(|it| it.gate.admits(epoch)),
                    Err(Lost::Unkept(it)) => it.filter(|it| it.gate.admits(epoch)),
                    Err(Lost::Undefined) => return refuse(Refusal::UnknownPath),
                };
                match peer_session.set_watch(corr, found.as_deref()) {
                    Ok(()) => Next::Go,
                    Err(why) => refuse(why),
                }
            }
            Head::Unwatch { corr } => {
                peer_session.unset_watch(corr);
                Next::Go
            }
            Head::Down { corr } => match later::down(frame.body) {
                Some((incarnation, reason)) => {
                    peer_session.down(corr, incarnation, reason);
                    Next::Go
                }
                None => refuse(Refusal::Malformed),
            },
            Head::Goodbye => match decode::<(bool, String)>(frame.body) {
                Some((true, why)) => Next::Goodbye(CloseReason::Superseded, why),
                Some((false, why)) => Next::Goodbye(CloseReason::Leaving, why),
                None => Next::Goodbye(CloseReason::Leaving, String::new()),
            },
            Head::Hello => refuse(Refusal::Misplaced),
        }
    }

    /// Delivers the tells at the beginning of `unread` that are like the first frame there: how many, and their bytes.
    /// None if it is no tell, or alone, or there is something to be said of it.
    fn batch(
        &mut self,
        peer_session: &Arc<PeerSession>,
        exports: &Exports,
        first: &Frame<'_>,
        unread: &[u8],
        limit: u32,
    ) -> (u64, usize) {
        if self.one_by_one > 0 {
            self.one_by_one -= 1;
            return (0, 0);
        }
        let Head::Tell(call) = &first.head else { return (0, 0) };
        if self.waits_since.is_some() || call.corr <= self.last_call || call.to.defines.is_some() {
            return (0, 0);
        }
        let (mut bodies, mut ends) = ([&[][..]; BATCH], [(0, 0); BATCH]);
        let (mut count, mut end, mut bytes, mut serial) = (0, 0, 0, self.last_call);
        while count < BATCH
            && let Ok(Some((Frame { head: Head::Tell(it), body, .. }, used))) = frame::parse(&unread[end..], limit)
            && (Call { corr: call.corr, ..it }) == *call
            && it.corr > serial
            && bytes + body.len() <= BATCH_BYTES
        {
            (end, bytes, serial) = (end + used, bytes + body.len(), it.corr);
            (bodies[count], ends[count]) = (body, (end, serial));
            count += 1;
        }
        if count < 2 {
            return (0, 0);
        }
        self.one_by_one = count - 1; // unless it goes well
        let Ok(to) = self.addressee(exports, call, u64::MAX) else { return (0, 0) };
        let on_unreadable = self.on_unreadable.get_or_insert_with(|| {
            let counters = peer_session.counters.clone();
            Arc::new(move || counters.refuse(Refusal::UnknownMessage))
        });
        let taken = to.export.deliver_batch(call.message, call.schema, &bodies[..count], on_unreadable);
        let Some((end, serial)) = taken.checked_sub(1).map(|last| ends[last]) else { return (0, 0) };
        (self.last_call, self.one_by_one) = (serial, 0);
        if let Some(known) = self.known.get_mut(call.to.number as usize) {
            known.clogged = false;
        }
        (taken as u64, end)
    }

    fn tell(&mut self, peer_session: &Arc<PeerSession>, exports: &Exports, call: &Call<'_>, body: &[u8]) -> Next {
        let again = self.waits_since.is_some();
        let serial = if again { u64::MAX } else { call.corr };
        let to = match self.addressee(exports, call, serial) {
            Ok(to) => to,
            Err((why, _)) => {
                // It may have waited for room before the gate changed.
                self.waits_since = None;
                peer_session.counters.refuse(why);
                return Next::Go;
            }
        };
        let given = to.export.deliver(call.message, call.schema, body, None, None);
        let known = self.known.get_mut(call.to.number as usize);
        let Err((fault, _)) = given else {
            self.waits_since = None;
            if let Some(known) = known {
                known.clogged = false;
            }
            return Next::Go;
        };
        if fault == Fault::Full
            && let Some(known) = known
            && !known.clogged
        {
            let since = *self.waits_since.get_or_insert_with(Instant::now);
            if since.elapsed() < MAX_MAILBOX_WAIT {
                return Next::Wait;
            }
            known.clogged = true;
        }
        self.waits_since = None;
        if let Some(why) = refusal_of(&fault) {
            peer_session.counters.refuse(why);
        }
        Next::Go
    }

    /// `serial`: the lane's serial number of this call, which only grows; `u64::MAX` if it was checked already.
    fn addressee(
        &mut self,
        exports: &Exports,
        call: &Call<'_>,
        serial: u64,
    ) -> Result<Arc<Exported>, (Refusal, Option<Fault>)> {
        if serial != u64::MAX {
            if serial <= self.last_call {
                return Err((Refusal::Replayed, None));
            }
            self.last_call = serial;
        }
        let unknown = || (Refusal::UnknownPath, Some(Fault::NotRunning));
        let found = match self.find(exports, &call.to) {
            Ok(at) => self.known[at].exported.clone(),
            Err(Lost::Unkept(it)) => it,
            Err(Lost::Undefined) => None,
        };
        let found = found.ok_or_else(unknown)?;
        match found.gate.admits(call.epoch) {
            true => Ok(found),
            false => Err((Refusal::Fenced, Some(Fault::Fenced))),
        }
    }

    fn find(&mut self, exports: &Exports, to: &To<'_>) -> Result<usize, Lost> {
        let at = to.number as usize;
        if let Some(path) = to.defines {
            let version = exports.version();
            let exported = exports.get(path);
            if to.number == UNKEPT {
                return Err(Lost::Unkept(exported));
            }
            let known = Known { path: path.into(), exported, version, clogged: false };
            if at < self.known.len() {
                self.known[at] = known;
            } else if at == self.known.len() && at < MAX_PATHS {
                self.known.push(known);
            } else {
                return Err(Lost::Undefined);
            }
            return Ok(at);
        }
        let known = self.known.get_mut(at).ok_or(Lost::Undefined)?;
        let version = exports.version();
        if known.version != version {
            known.exported = exports.get(&known.path);
            known.version = version;
        }
        Ok(at)
    }
}

enum Lost {
    /// The sender keeps no number for it.
    Unkept(Option<Arc<Exported>>),
    Undefined,
}

fn decode<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    bincode::serde::decode_from_slice(body, BODY).ok().filter(|(_, used)| *used == body.len()).map(|(it, _)| it)
}

#[cfg(test)]
mod tests;
