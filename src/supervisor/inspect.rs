//! A look into an actor: it shows of its state what it chose to, between two messages; its last answer is kept.

use super::cell::ActorState;
use super::inspection::{InspectError, Inspection};
use super::shell::{Ctl, by};
use super::supervise::SupervisorMsg;
use super::tree::Tree;
use std::time::{Duration, Instant};

impl Tree {
    /// Inspects the actor at that tree path ahead of its mailbox; after `within` returns the last inspection. However
    /// many ask, the actor is asked once at a time.
    pub async fn inspect(&self, path: &str, within: Duration) -> Result<Inspection, InspectError> {
        let node = self.root().find(path).ok_or(InspectError::NotFound)?;
        if node.branch.is_some() {
            return Err(InspectError::NotAWorker);
        }
        let mut answers = node.meta.inspection.last().subscribe();
        let vitals = node.meta.vitals().filter(|_| node.meta.state() == ActorState::Up);
        let runs = vitals.is_some();
        if vitals.is_some_and(|vitals| vitals.is_to_be_asked()) {
            self.with_parent(path, |_, key| SupervisorMsg::Order { key, order: Ctl::Inspect });
        }
        let fresh = runs && by(Instant::now() + within, answers.changed()).await.is_some();
        let last = answers.borrow_and_update().clone();
        match last {
            Some(last) => last.told(path, !fresh),
            None if runs => Err(InspectError::Silent(within)),
            None => Err(InspectError::NotRunning),
        }
    }

    /// The last inspection, if it is not older than `within`: for those who ask again and again.
    pub fn inspected(&self, path: &str, within: Duration) -> Option<Result<Inspection, InspectError>> {
        let node = self.root().find(path)?;
        let last = node.meta.inspection.last().borrow().clone()?;
        let present = node.meta.epoch.load(std::sync::atomic::Ordering::Relaxed);
        (last.epoch == present && last.at.elapsed() <= within).then(|| last.told(path, false))
    }
}
