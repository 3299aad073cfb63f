//! Decides whether an answered keep-alive proves that nobody else can hold our lease. Pure.
//!
//! An answer alone does not: a leader that was frozen or cut off answers for leases that its successor counts down,
//! until it learns that it is deposed. So each keep-alive is followed by a linearizable read, which only the true
//! leader's majority can answer. If the member that took the keep-alive had applied the same raft term as the read
//! shows, the keep-alive went to that term's leader, and no other leader was elected before the read. Then our lease
//! runs for its whole time from the moment we sent the keep-alive: on the present leader and, since a new leader starts
//! every lease anew, on each one after it.

use std::time::{Duration, Instant};

/// An answered keep-alive.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// Before it was sent.
    pub sent: Instant,
    /// As etcd counts it from now on; none if etcd does not know the lease.
    pub ttl: Option<Duration>,
    pub term: u64,
}

/// The linearizable read after it.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub term: u64,
    /// The lease that our record hangs on.
    pub lease: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    Proven {
        until: Instant,
    },
    /// Our record is gone or another's: so is the lease.
    Lost,
    /// Proves nothing: ask again.
    Unsure,
}

/// The part of a lease's time held in reserve: for clocks that run unevenly, and for the moment between a check and its
/// effect.
pub fn margin(ttl: Duration) -> Duration {
    (ttl / 20).max(Duration::from_millis(50))
}

pub fn judge(lease: i64, beat: KeepAlive, read: Read) -> Judgement {
    match beat.ttl {
        _ if read.lease != Some(lease) => Judgement::Lost,
        Some(ttl) if beat.term == read.term => Judgement::Proven { until: beat.sent + ttl.saturating_sub(margin(ttl)) },
        _ => Judgement::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_term_before_and_after_proves_and_only_the_record_loses() {
        let sent = Instant::now();
        let ttl = Duration::from_secs(10);
        let proven = Judgement::Proven { until: sent + Duration::from_millis(9500) };
        let table = [
            // ttl answered, terms of beat and read, lease of the record -> judgement
            (Some(ttl), 4, 4, Some(7), proven),
            (Some(ttl), 3, 4, Some(7), Judgement::Unsure),
            (Some(ttl), 5, 4, Some(7), Judgement::Unsure),
            // A deposed leader may say that it does not know a lease which lives.
            (None, 4, 4, Some(7), Judgement::Unsure),
            (None, 4, 4, None, Judgement::Lost),
            (Some(ttl), 4, 4, None, Judgement::Lost),
            (Some(ttl), 4, 4, Some(8), Judgement::Lost),
            (Some(ttl), 3, 4, Some(8), Judgement::Lost),
        ];
        for (ttl, beat, read, record, expected) in table {
            let got = judge(7, KeepAlive { sent, ttl, term: beat }, Read { term: read, lease: record });
            assert_eq!(got, expected, "{ttl:?} {beat} {read} {record:?}");
        }
    }

    #[test]
    fn the_margin_never_outgrows_the_lease() {
        let sent = Instant::now();
        let (beat, read) =
            (KeepAlive { sent, ttl: Some(Duration::from_millis(20)), term: 1 }, Read { term: 1, lease: Some(1) });
        assert_eq!(judge(1, beat, read), Judgement::Proven { until: sent });
        assert_eq!(margin(Duration::from_secs(1)), Duration::from_millis(50));
        assert_eq!(margin(Duration::from_secs(2)), Duration::from_millis(100));
    }
}
