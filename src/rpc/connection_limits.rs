//! How many connections a surface takes: in all, without a token, and from one remote host.
//!
//! [`Table`] decides and is pure; [`ConnectionLimiter`] shares it. A full surface closes the quietest stranger, so that
//! whoever holds connections without using them never keeps a newcomer out; see [`WhenFull`].

use crate::util::lock;
use crate::util::time::clock_ms;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;

/// The time that a connection that was told to close has for that, before a newcomer is refused for it.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The treatment of a stranger's connection that finds its surface full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused.
    Refuse,
    /// It is taken, and the stranger that was silent for longest is closed: of its own host if that has its share, else
    /// of the host that has most.
    CloseQuietest,
}

/// A stranger has neither shown a token nor finished a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Strangers and known callers together, with the connections that are being closed.
    pub total: usize,
    /// Strangers. The rest of `total` is kept for known callers.
    pub strangers: usize,
    pub strangers_per_host: usize,
    pub known_per_host: usize,
    pub when_full: WhenFull,
}

/// One connection's number in its table.
pub type ConnectionId = u64;

#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted {
        id: ConnectionId,
        /// To be closed for it. It counts in `total` until it has left.
        closes: Option<ConnectionId>,
    },
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Stranger,
    Known,
    Closing,
}

struct Entry {
    host: IpAddr,
    standing: Standing,
    activity: Arc<Activity>,
}

/// The state that a connection shares with its table.
#[derive(Default)]
struct Activity {
    /// Milliseconds on the limiter's clock at which bytes last came.
    heard_ms: AtomicU64,
    closing: AtomicBool,
    reader: futures::task::AtomicWaker,
}

#[derive(Default)]
struct OfHost {
    strangers: usize,
    known: usize,
}

/// The decisions of one surface.
pub struct Table {
    limits: ConnectionLimits,
    entries: HashMap<ConnectionId, Entry>,
    hosts: HashMap<IpAddr, OfHost>,
    strangers: usize,
    known: usize,
    next: ConnectionId,
}

impl Table {
    pub fn new(limits: ConnectionLimits) -> Table {
        Table { limits, entries: HashMap::new(), hosts: HashMap::new(), strangers: 0, known: 0, next: 0 }
    }

    /// A new connection from `from`; it is a stranger's until [`Table::identify`].
    pub fn admit(&mut self, from: IpAddr, now_ms: u64) -> Admission {
        let host = remote_host(from);
        if self.entries.len() >= self.limits.total {
            return Admission::Refused;
        }
        let of_host = self.hosts.get(&host).map_or(0, |h| h.strangers);
        let crowded = if of_host >= self.limits.strangers_per_host {
            Some(host)
        } else if self.strangers >= self.limits.strangers {
            self.hosts.iter().max_by_key(|(_, h)| h.strangers).map(|(host, _)| *host)
        } else {
            None
        };
        let closes = match (crowded, self.limits.when_full) {
            (None, _) => None,
            (Some(_), WhenFull::Refuse) => return Admission::Refused,
            (Some(crowded), WhenFull::CloseQuietest) => match self.quietest(crowded) {
                Some(quietest) => Some(quietest),
                None => return Admission::Refused,
            },
        };
        if let Some(quietest) = closes {
            self.set(quietest, Standing::Closing);
        }
        let id = self.next;
        self.next += 1;
        let activity = Arc::new(Activity { heard_ms: AtomicU64::new(now_ms), ..Activity::default() });
        self.entries.insert(id, Entry { host, standing: Standing::Closing, activity });
        self.set(id, Standing::Stranger);
        Admission::Admitted { id, closes }
    }

    /// The connection has shown who it is: it leaves the strangers' share. `false`: there is no room for it.
    pub fn identify(&mut self, id: ConnectionId) -> bool {
        let Some(entry) = self.entries.get(&id) else { return false };
        match entry.standing {
            Standing::Known => true,
            Standing::Closing => false,
            Standing::Stranger => {
                let of_host = self.hosts.get(&entry.host).map_or(0, |h| h.known);
                let kept = self.limits.total.saturating_sub(self.limits.strangers);
                let room = self.known < kept && of_host < self.limits.known_per_host;
                if room {
                    self.set(id, Standing::Known);
                }
                room
            }
        }
    }

    pub fn leave(&mut self, id: ConnectionId) {
        self.set(id, Standing::Closing);
        self.entries.remove(&id);
    }

    fn has_closing(&self) -> bool {
        self.entries.len() > self.strangers + self.known
    }

    /// `None`: that host has no stranger.
    fn quietest(&self, host: IpAddr) -> Option<ConnectionId> {
        let strangers = self.entries.iter().filter(|(_, e)| e.host == host && e.standing == Standing::Stranger);
        strangers.min_by_key(|(id, e)| (e.activity.heard_ms.load(Ordering::Relaxed), **id)).map(|(id, _)| *id)
    }

    /// Moves the connection between the counts.
    fn set(&mut self, id: ConnectionId, to: Standing) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let from = std::mem::replace(&mut entry.standing, to);
        let of_host = self.hosts.entry(entry.host).or_default();
        match from {
            Standing::Stranger => (self.strangers, of_host.strangers) = (self.strangers - 1, of_host.strangers - 1),
            Standing::Known => (self.known, of_host.known) = (self.known - 1, of_host.known - 1),
            Standing::Closing => {}
        }
        match to {
            Standing::Stranger => (self.strangers, of_host.strangers) = (self.strangers + 1, of_host.strangers + 1),
            Standing::Known => (self.known, of_host.known) = (self.known + 1, of_host.known + 1),
            Standing::Closing => {}
        }
        if of_host.strangers + of_host.known == 0 {
            self.hosts.remove(&entry.host);
        }
    }
}

/// The table of one surface, shared by all threads that serve it.
#[derive(Clone)]
pub struct ConnectionLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    /// A connection has left.
    left: Notify,
    refused: AtomicU64,
    closed: AtomicU64,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

impl ConnectionLimiter {
    pub fn new(limits: ConnectionLimits) -> ConnectionLimiter {
        let (refused, closed) = (AtomicU64::new(0), AtomicU64::new(0));
        let table = Mutex::new(Table::new(limits));
        let left = Notify::new();
        ConnectionLimiter { shared: Arc::new(Shared { table, left, refused, closed }) }
    }

    /// `None`: the surface is full. `from` is `None` where the transport names no address; all those share one host.
    pub fn admit(&self, from: Option<IpAddr>) -> Option<ConnectionPermit> {
        let permit = self.try_admit(from);
        if permit.is_none() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// As [`ConnectionLimiter::admit`], after a while if connections that were told to close are still in the way.
    pub async fn admit_soon(&self, from: Option<IpAddr>) -> Option<ConnectionPermit> {
        let until = tokio::time::Instant::now() + LEAVE_WITHIN;
        loop {
            let left = self.shared.left.notified();
            if let Some(permit) = self.try_admit(from) {
                return Some(permit);
            }
            let waits = self.shared.table().has_closing();
            if !waits || tokio::time::timeout_at(until, left).await.is_err() {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
    }

    fn try_admit(&self, from: Option<IpAddr>) -> Option<ConnectionPermit> {
        let mut table = self.shared.table();
        let admission = table.admit(from.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), clock_ms());
        let Admission::Admitted { id, closes } = admission else { return None };
        if let Some(quietest) = closes.and_then(|id| table.entries.get(&id)) {
            self.shared.closed.fetch_add(1, Ordering::Relaxed);
            quietest.activity.closing.store(true, Ordering::Release);
            quietest.activity.reader.wake();
        }
        let activity = table.entries.get(&id)?.activity.clone();
        drop(table);
        Some(ConnectionPermit { connection: Connection { shared: self.shared.clone(), id, activity } })
    }

    pub fn limits(&self) -> ConnectionLimits {
        self.shared.table().limits
    }

    /// Connections that found the surface full since it started.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Connections that were closed to make room since the surface started.
    pub fn closed(&self) -> u64 {
        self.shared.closed.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> usize {
        self.shared.table().entries.len()
    }
}

/// The right to one connection; it ends when the permit is dropped.
pub struct ConnectionPermit {
    connection: Connection,
}

impl ConnectionPermit {
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.shared.table().leave(connection.id);
        connection.shared.left.notify_waiters();
    }
}

/// Names a connection to its limiter; keeps nothing open.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    id: ConnectionId,
    activity: Arc<Activity>,
}

impl Connection {
    /// The caller has shown who it is. `false`: no room is left for known callers.
    pub fn identify(&self) -> bool {
        self.shared.table().identify(self.id)
    }

    /// Bytes came from the other side.
    pub fn heard(&self) {
        self.activity.heard_ms.store(clock_ms(), Ordering::Relaxed);
    }

    /// Whether the connection was told to close; if not, `cx` is woken when it is.
    pub fn is_closing(&self, cx: &std::task::Context<'_>) -> bool {
        self.activity.reader.register(cx.waker());
        self.activity.closing.load(Ordering::Acquire)
    }
}

/// A remote host as the limits count it: a host of IPv6 has a whole /64.
pub fn remote_host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
#[path = "connection_limits_tests.rs"]
mod tests;
