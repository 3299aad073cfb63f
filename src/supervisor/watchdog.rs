//! Finds actors whose thread is stuck inside them, from a thread that shares nothing with theirs.

use super::exit::Exit;
use super::node::{Branch, Node};
use super::supervise::In;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const TICK: Duration = Duration::from_millis(250);

/// Runs until the tree has ended.
pub(super) fn run(root: Arc<Node>, ended: watch::Receiver<Option<Exit>>, ticks: Arc<AtomicU64>) -> io::Result<()> {
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut seen = Seen::new();
        while ended.borrow().is_none() && ended.has_changed().is_ok() {
            std::thread::sleep(TICK);
            ticks.fetch_add(1, Ordering::Relaxed);
            seen = scan(&root, &seen, Instant::now());
        }
    })?;
    Ok(())
}

/// Per actor: its incarnation, the progress it had, and since when.
type Seen = HashMap<usize, (u64, u64, Instant)>;

fn scan(root: &Arc<Node>, before: &Seen, now: Instant) -> Seen {
    let mut seen = Seen::new();
    look(root, None, before, now, &mut seen);
    seen
}

fn look(node: &Arc<Node>, parent: Option<&Branch>, before: &Seen, now: Instant, seen: &mut Seen) {
    let meta = &node.meta;
    // Read first: what is seen of an incarnation that was given up must not be held against its successor.
    let incarnation = meta.incarnation.load(Ordering::Acquire);
    let progress = meta.progress();
    let id = Arc::as_ptr(meta) as usize;
    // Odd: a thread is inside. The same odd number as before: it never left.
    if progress & 1 == 1 {
        let since = match before.get(&id) {
            Some((i, p, since)) if (*i, *p) == (incarnation, progress) => *since,
            _ => now,
        };
        let stuck = now.saturating_duration_since(since);
        meta.stuck_ms.store(stuck.as_millis() as u64, Ordering::Relaxed);
        seen.insert(id, (incarnation, progress, since));
        if stuck >= node.hang_after()
            && let Some(parent) = parent
            && let Some(key) = parent.key_of(node)
        {
            let message = meta.busy().map_or("", |(message, _)| message);
            let what = format!("{:?} inside one turn, last message {message}", node.hang_after());
            parent.send(In::Hung { key, incarnation, what }); // its supervisor does not run: it is being stopped
        }
    } else {
        meta.stuck_ms.store(0, Ordering::Relaxed);
    }
    if let Some(branch) = &node.branch {
        for child in branch.children() {
            look(&child, Some(branch), before, now, seen);
        }
    }
}
