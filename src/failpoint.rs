//! Places at which a drill ends this process as `kill -9` would: `BULKHEAD_FAILPOINT=enter:PreCommit1`. Inert without it.
//!
//! `enter:<Phase>` is right after the journal has a sector in that phase, `leave:<Phase>` right before the journal
//! learns that its work is done; `allocated:<number>` between allocator and journal; `window_post:<phase>` after a window
//! proof's record; `message:signed` and `message:pushed` on both sides of a push; `init:signed`, `init:pushed` and
//! `init:created` on the way to a miner; in a cluster `store:committed` and `store:flushed` between etcd and this disk,
//! `store:journaled` and `store:loaded` right after it. A test can so be sure where the kill lands.

use std::fmt::Display;
use std::sync::OnceLock;

fn armed() -> Option<&'static str> {
    static ARMED: OnceLock<Option<String>> = OnceLock::new();
    ARMED.get_or_init(|| std::env::var("BULKHEAD_FAILPOINT").ok().filter(|v| !v.is_empty())).as_deref()
}

/// Does not return if this place is armed.
pub fn hit(kind: &str, place: impl Display) {
    if armed().is_some_and(|armed| armed == format!("{kind}:{place}")) {
        eprintln!("failpoint {kind}:{place}");
        // SAFETY: a signal to ourselves; it cannot be caught, so nothing of ours runs after it.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        loop {
            std::thread::park(); // the signal may take a moment to arrive
        }
    }
}
