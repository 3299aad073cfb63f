//! One connection: two lanes with their out-queues, written by whoever has something to send and finds it idle.
//!
//! A sender appends its frame to the lane's queue and wakes the driver, the connection's one task, which writes all that
//! queued meanwhile at once. With nothing else under way the sender drives the connection itself: waking another thread
//! costs more than encrypting and writing a small frame. All polls of the connection use one waker, the driver's.

use super::frame::{self, FrameError, Head, MAX_PATHS, To, UNKEPT};
use crate::supervisor::here;
use crate::supervisor::wire::{WireError, WireLane, Writer};
use crate::util::lock;
use futures::AsyncWrite;
use futures::task::AtomicWaker;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Notify;

pub const LANES: [WireLane; 2] = [WireLane::Control, WireLane::Message];

pub fn index(lane: WireLane) -> usize {
    match lane {
        WireLane::Control => 0,
        WireLane::Message => 1,
    }
}

/// How much a lane's queue holds before senders are refused.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub tells: usize,
    /// Askers wait for their answer and so send less by themselves.
    pub asks: usize,
    /// Answers and notices cannot be refused: a peer that leaves more of them unread loses its connection.
    pub answers: usize,
}

/// As [`Bounds::answers`], in frames: the asks and monitors that one peer may have here.
const MAX_OWED: u64 = 1 << 17;

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { tells: 2 << 20, asks: 32 << 20, answers: 64 << 20 }
    }
}

/// Buffers above this are not kept for the next batch: 64 bodies of 64 KiB fit.
const KEEP: usize = 8 << 20;

/// A lane's frames that nobody has begun to write.
struct Queue {
    buffer: Vec<u8>,
    frames: u64,
    /// Queued answers and notices: their number, their bytes.
    owed: (u64, usize),
    paths: HashMap<Arc<str>, u32>,
    /// The path of the last call: most go to the same actor.
    last: Option<(Arc<str>, u32)>,
    serial: u64,
    open: bool,
}

pub struct Outbox {
    queue: Mutex<Queue>,
    /// Bytes in `queue`, for those that only look.
    depth: AtomicU64,
    room: Notify,
}

/// Why a frame was not queued.
#[derive(Debug)]
pub enum Unsent {
    Closed,
    Full,
    /// The other side leaves too much unread.
    Unread,
    TooLong(FrameError),
    Unwritable(WireError),
}

impl Outbox {
    fn new() -> Outbox {
        let queue = Queue {
            buffer: Vec::new(),
            frames: 0,
            owed: (0, 0),
            paths: HashMap::new(),
            last: None,
            serial: 0,
            open: true,
        };
        Outbox { queue: Mutex::new(queue), depth: AtomicU64::new(0), room: Notify::new() }
    }
}

impl Queue {
    /// The number of a path, and whether the other side knows it.
    fn number(&mut self, path: &Arc<str>) -> (u32, bool) {
        if let Some((last, number)) = &self.last
            && Arc::ptr_eq(last, path)
        {
            return (*number, true);
        }
        if let Some(number) = self.paths.get(path) {
            self.last = Some((path.clone(), *number));
            return (*number, true);
        }
        match u32::try_from(self.paths.len()) {
            Ok(number) if self.paths.len() < MAX_PATHS => (number, false),
            _ => (UNKEPT, false),
        }
    }
    fn keep(&mut self, path: &Arc<str>, number: u32) {
        if number != UNKEPT {
            self.paths.insert(path.clone(), number);
            self.last = Some((path.clone(), number));
        }
    }
}

/// The driver's waker, for every poll of the connection by any thread.
struct DriverWake {
    driver: AtomicWaker,
    /// The thread that fills the lanes' streams: what it wakes itself means nothing, it polls the connection right after.
    /// Other threads' wake-ups count: QUIC's connection is driven by a task of its own.
    filling: AtomicUsize,
}

impl Wake for DriverWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.filling.load(Ordering::Relaxed) != here() {
            self.driver.wake();
        }
    }
}

/// A lane's stream and what of a batch is not written yet.
struct LaneIo {
    stream: SubstreamBox,
    batch: Vec<u8>,
    written: usize,
}

/// The state that only one thread at a time may touch.
pub struct Io {
    muxer: StreamMuxerBox,
    lanes: [LaneIo; 2],
}

pub struct Link {
    pub version: u8,
    /// The longest frame the other side takes.
    pub max_frame: u32,
    bounds: Bounds,
    out: [Outbox; 2],
    io: Mutex<Io>,
    wake: Arc<DriverWake>,
    waker: Waker,
    /// The driver was woken and has not looked yet.
    dirty: AtomicBool,
    closing: AtomicBool,
    unread: AtomicBool,
    pub bytes_out: AtomicU64,
    pub frames_out: AtomicU64,
}

impl Link {
    pub fn new(version: u8, max_frame: u32, bounds: Bounds, muxer: StreamMuxerBox, streams: [SubstreamBox; 2]) -> Link {
        let wake = Arc::new(DriverWake { driver: AtomicWaker::new(), filling: AtomicUsize::new(0) });
        let lanes = streams.map(|stream| LaneIo { stream, batch: Vec::new(), written: 0 });
        Link {
            version,
            max_frame,
            bounds,
            out: [Outbox::new(), Outbox::new()],
            io: Mutex::new(Io { muxer, lanes }),
            waker: Waker::from(wake.clone()),
            wake,
            dirty: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            bytes_out: AtomicU64::new(0),
            frames_out: AtomicU64::new(0),
        }
    }

    /// Queues a call to `path`: `head` makes its header of the path and the lane's next serial number.
    pub fn call<'a>(
        &self,
        lane: WireLane,
        path: &'a Arc<str>,
        is_ask: bool,
        head: impl FnOnce(u64, To<'a>) -> Head<'a>,
        body: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
    ) -> Result<(), Unsent> {
        let outbox = &self.out[index(lane)];
        let mut queue = lock(&outbox.queue);
        let bound = if is_ask { self.bounds.asks } else { self.bounds.tells };
        if !queue.open {
            return Err(Unsent::Closed);
        }
        if queue.buffer.len() >= bound {
            return Err(Unsent::Full);
        }
        let (number, known) = queue.number(path);
        let serial = queue.serial + 1;
        let head = head(serial, To { number, defines: (!known).then_some(&**path) });
        let start = frame::begin(&mut queue.buffer, self.version, &head);
        if let Err(why) = body(&mut queue.buffer) {
            queue.buffer.truncate(start);
            return Err(Unsent::Unwritable(why));
        }
        frame::finish(&mut queue.buffer, start, self.max_frame).map_err(Unsent::TooLong)?;
        queue.serial = serial;
        if !known {
            queue.keep(path, number);
        }
        queue.frames += 1;
        outbox.depth.store(queue.buffer.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Queues what must go, an answer or a notice. Where too many of them wait the connection is closed.
    pub fn notice(&self, lane: WireLane, head: &Head, body: Writer<'_>) -> Result<(), Unsent> {
        let outbox = &self.out[index(lane)];
        let mut queue = lock(&outbox.queue);
        if !queue.open {
            return Err(Unsent::Closed);
        }
        let (frames, bytes) = queue.owed;
        if frames >= MAX_OWED || bytes >= self.bounds.answers {
            drop(queue);
            self.unread.store(true, Ordering::Release);
            self.close();
            return Err(Unsent::Unread);
        }
        let start = frame::begin(&mut queue.buffer, self.version, head);
        if let Err(why) = body(&mut queue.buffer) {
            queue.buffer.truncate(start);
            return Err(Unsent::Unwritable(why));
        }
        frame::finish(&mut queue.buffer, start, self.max_frame).map_err(Unsent::TooLong)?;
        queue.frames += 1;
        queue.owed = (frames + 1, bytes + queue.buffer.len() - start);
        outbox.depth.store(queue.buffer.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Lets the driver write what is queued.
    pub fn wake(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.wake.driver.wake();
        }
    }

    /// Writes what is queued from this thread, unless the driver is at it.
    pub fn flush(&self) {
        match self.io.try_lock() {
            Ok(mut io) => {
                if self.pump(&mut io).is_err() {
                    self.wake(); // the driver finds the same, and ends
                }
            }
            Err(_) => self.wake(),
        }
    }

    /// Bytes that wait in a lane.
    pub fn depth(&self, lane: WireLane) -> u64 {
        self.out[index(lane)].depth.load(Ordering::Relaxed)
    }

    /// Resolves when the lane takes tells again.
    pub async fn room(&self, lane: WireLane) {
        let outbox = &self.out[index(lane)];
        loop {
            let notified = outbox.room.notified();
            {
                let queue = lock(&outbox.queue);
                if !queue.open || queue.buffer.len() < self.bounds.tells {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Nothing is queued any more; the driver writes the rest and ends.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.refuse_more();
        self.wake.driver.wake();
    }
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
    /// It is closed because the other side leaves too much unread.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }
    pub fn refuse_more(&self) {
        for outbox in &self.out {
            lock(&outbox.queue).open = false;
            outbox.room.notify_waiters();
        }
    }

    /// One round for the driver: writes and reads what can be; `read` gets each lane's stream.
    pub fn drive(
        &self,
        task: &Waker,
        mut read: impl FnMut(usize, Pin<&mut SubstreamBox>, &mut Context<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        self.wake.driver.register(task);
        self.dirty.swap(false, Ordering::AcqRel); // who set it has queued before: seen from here on
        let mut io = lock(&self.io);
        let pumped = self.pump(&mut io);
        let mut context = Context::from_waker(&self.waker);
        // Also of a connection that has just ended: what came before the end counts.
        let mut all = Ok(());
        for (lane, it) in io.lanes.iter_mut().enumerate() {
            all = all.and(read(lane, Pin::new(&mut it.stream), &mut context));
        }
        pumped.and(all)?;
        Ok(io.lanes.iter().all(|lane| lane.written == lane.batch.len()))
    }

    /// Moves queued frames into the lanes' streams, control first, and lets the connection write and read.
    fn pump(&self, io: &mut Io) -> io::Result<()> {
        let mut context = Context::from_waker(&self.waker);
        loop {
            self.wake.filling.store(here(), Ordering::Relaxed);
            let filled = self.fill(io, &mut context);
            self.wake.filling.store(0, Ordering::Relaxed);
            let filled = filled?;
            if let Poll::Ready(event) = Pin::new(&mut io.muxer).poll(&mut context) {
                event?; // an address change: of no interest
            }
            let rest = io.lanes.iter().any(|lane| lane.written < lane.batch.len());
            if !filled || !rest && self.out.iter().all(|it| it.depth.load(Ordering::Relaxed) == 0) {
                return Ok(()); // what is queued from now on wakes the driver
            }
        }
    }

    /// Whether anything was moved.
    fn fill(&self, io: &mut Io, context: &mut Context<'_>) -> io::Result<bool> {
        let mut filled = false;
        for (outbox, lane) in self.out.iter().zip(&mut io.lanes) {
            loop {
                if lane.written == lane.batch.len() && !self.next_batch(outbox, lane) {
                    break;
                }
                match Pin::new(&mut lane.stream).poll_write(context, &lane.batch[lane.written..]) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => lane.written += n,
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
                filled = true;
            }
        }
        Ok(filled)
    }

    fn next_batch(&self, outbox: &Outbox, lane: &mut LaneIo) -> bool {
        lane.written = 0;
        lane.batch.clear();
        if lane.batch.capacity() > KEEP {
            lane.batch = Vec::new();
        }
        if outbox.depth.load(Ordering::Acquire) == 0 {
            return false; // without taking the lock from those who send
        }
        let mut queue = lock(&outbox.queue);
        if queue.buffer.is_empty() {
            return false;
        }
        let was_full = queue.buffer.len() >= self.bounds.tells;
        std::mem::swap(&mut queue.buffer, &mut lane.batch);
        let frames = std::mem::take(&mut queue.frames);
        queue.owed = (0, 0);
        outbox.depth.store(0, Ordering::Relaxed);
        drop(queue);
        self.frames_out.fetch_add(frames, Ordering::Relaxed);
        self.bytes_out.fetch_add(lane.batch.len() as u64, Ordering::Relaxed);
        if was_full {
            outbox.room.notify_waiters();
        }
        true
    }

    /// Ends the connection for good. To be polled by the driver alone.
    pub fn poll_close(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut io = lock(&self.io);
        Pin::new(&mut io.muxer).poll_close(context).map(drop)
    }
}

#[cfg(test)]
mod tests;
