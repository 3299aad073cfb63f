//! The journal of ends: an actor that monitors everything in the tree and keeps what ended, when and why. A row of the
//! tree shows only the last exit; this shows what led there, after the row is gone, too.

use crate::rpc::admin::Ended;
use crate::supervisor::{Actor, ActorState, Cx, Down, Exit, Handler, Message, Monitor, WeakTree};
use crate::util::lock;
use crate::util::time::unix_secs;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Ends that are kept.
const KEPT: usize = 512;
/// New children and incarnations are found this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// After an end its successor is looked for sooner.
const SWEEP_AFTER_END: Duration = Duration::from_millis(50);

/// Outlives the actor's incarnations.
#[derive(Default)]
pub struct ExitLog {
    ring: Mutex<VecDeque<Ended>>,
}

impl ExitLog {
    pub fn entries(&self) -> Vec<Ended> {
        lock(&self.ring).iter().cloned().collect()
    }
    fn keep(&self, down: Down) {
        let at = unix_secs();
        let mut ring = lock(&self.ring);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Ended { down, at });
    }
}

pub struct ExitLogActor {
    /// Known once the tree has started.
    tree: Arc<OnceLock<WeakTree>>,
    journal: Arc<ExitLog>,
    /// The watched epoch, by place in the tree.
    watched: HashMap<String, (u64, Monitor)>,
    sweep_is_set: bool,
}

impl ExitLogActor {
    pub fn new(tree: Arc<OnceLock<WeakTree>>, journal: Arc<ExitLog>) -> ExitLogActor {
        ExitLogActor { tree, journal, watched: HashMap::new(), sweep_is_set: false }
    }

    fn sweep(&mut self, cx: &Cx<Self>) {
        let Some(tree) = self.tree.get().and_then(WeakTree::upgrade) else { return };
        let rows = tree.snapshot();
        self.watched.retain(|path, _| rows.iter().any(|row| row.path == *path));
        for row in rows {
            let known = self.watched.get(&row.path).is_some_and(|(epoch, _)| *epoch == row.epoch);
            if !known
                && matches!(row.state, ActorState::Up | ActorState::Stopping)
                && let Some(monitor) = tree.monitor(&row.path, cx.myself().recipient())
            {
                self.watched.insert(row.path, (row.epoch, monitor));
            }
        }
    }
}

struct Sweep {
    again: bool,
}
impl Message for Sweep {
    type Reply = ();
}

impl Actor for ExitLogActor {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(SWEEP_AFTER_END, Sweep { again: true });
        Ok(())
    }
}

impl Handler<Sweep> for ExitLogActor {
    async fn handle(&mut self, Sweep { again }: Sweep, cx: &Cx<Self>) -> Result<(), Exit> {
        self.sweep(cx);
        match again {
            true => cx.tell_after(SWEEP_INTERVAL, Sweep { again: true }),
            false => self.sweep_is_set = false,
        }
        Ok(())
    }
}

impl Handler<Down> for ExitLogActor {
    async fn handle(&mut self, down: Down, cx: &Cx<Self>) -> Result<(), Exit> {
        self.watched.remove(&down.path);
        if down.reason == Exit::NotRunning {
            return Ok(()); // it ended before it could be watched; the next sweep finds its successor
        }
        let Down { path, incarnation, reason } = &down;
        match reason.is_abnormal() {
            true => tracing::warn!(target: "audit", path, incarnation, %reason, "ended"),
            false => tracing::info!(target: "audit", path, incarnation, %reason, "ended"),
        }
        self.journal.keep(down);
        if !std::mem::replace(&mut self.sweep_is_set, true) {
            cx.tell_after(SWEEP_AFTER_END, Sweep { again: false });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{ChildSpec, Ref, RestartBackoff, SupervisorSpec, Tree};

    struct Mortal;
    impl Actor for Mortal {}

    #[tokio::test]
    async fn every_end_is_kept_after_its_row_is_gone() {
        let (mortal, log_actor) = (Ref::<Mortal>::new("/mortal", 4), Ref::new("/journal", 4));
        let (cell, journal) = (Arc::new(OnceLock::new()), Arc::new(ExitLog::default()));
        let (tree, book) = (cell.clone(), journal.clone());
        let root = SupervisorSpec::new("root")
            .backoff(RestartBackoff::NONE)
            .child(ChildSpec::actor("mortal", &mortal, |_| async { Ok(Mortal) }))
            .child(ChildSpec::actor("journal", &log_actor, move |_| {
                let log_actor = ExitLogActor::new(tree.clone(), book.clone());
                async move { Ok(log_actor) }
            }));
        let tree = Tree::start(root).unwrap();
        assert!(cell.set(tree.downgrade()).is_ok());
        let kept = async {
            // Killed until a kill was seen: nobody watches before the first sweep.
            while !journal.entries().iter().any(|e| e.down.path == "root/mortal" && e.down.reason == Exit::Killed) {
                if tree.info("root/mortal").is_some_and(|row| row.restarts < 2)
                    && log_actor.tell(Sweep { again: false }).is_ok()
                {
                    log_actor.ask(Sweep { again: false }, Duration::from_secs(5)).await.unwrap();
                    tree.kill("root/mortal");
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), kept).await.expect("an entry");
        tree.supervisor("root").unwrap().terminate_child("mortal").await.unwrap();
        assert!(!journal.entries().is_empty());
        tree.shutdown().await;
    }
}
