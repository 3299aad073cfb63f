//! A look into an actor: it shows of its state what it chose to, between two messages; its last answer is kept.

use super::exit::catch;
use super::shell::{Ctl, by};
use super::supervise::SupervisorMsg;
use super::tree::{ActorState, Tree};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// An answer is for a person to read, and one is kept per actor.
const MOST_BYTES: usize = 256 << 10;

/// The state that an actor showed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Place in the tree.
    pub path: String,
    /// The incarnation that showed it, by the epoch of its tokens.
    pub epoch: u64,
    /// In the actor's own terms.
    pub state: Value,
    /// Why there is no state: showing it panicked, or it was too large. The actor goes on.
    pub error: Option<String>,
    /// Since it was shown.
    pub age_ms: u64,
    /// It was shown before: the actor did not answer this time.
    pub stale: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("there is no such actor; see `bulkhead tree`")]
    NotFound,
    #[error("it is a supervisor: inspect its children")]
    NotAWorker,
    #[error("it shows nothing of its state")]
    ShowsNothing,
    #[error("it does not run, and has shown nothing before")]
    NotRunning,
    #[error("no answer within {0:?}, and it has shown nothing before; `bulkhead tree` says what it is busy with")]
    Silent(Duration),
}

struct LastInspection {
    epoch: u64,
    at: Instant,
    state: Result<Option<Value>, String>,
}

/// Per actor: its last inspection, and who awaits the next.
#[derive(Default)]
pub(super) struct InspectionCell {
    last: OnceLock<watch::Sender<Option<Arc<LastInspection>>>>,
}

impl InspectionCell {
    fn last(&self) -> &watch::Sender<Option<Arc<LastInspection>>> {
        self.last.get_or_init(|| watch::channel(None).0)
    }

    /// Runs on the actor's thread.
    pub fn show(&self, epoch: u64, look: impl FnOnce() -> Option<Value>) {
        let state = catch(|| {
            let state = look();
            let bytes = state.as_ref().map_or(0, |state| state.to_string().len());
            (state, bytes)
        });
        let state = match state {
            Ok((_, bytes)) if bytes > MOST_BYTES => Err(format!("{bytes} bytes are more than {MOST_BYTES}")),
            Ok((state, _)) => Ok(state),
            Err(what) => Err(format!("showing it panicked: {what}")),
        };
        self.last().send_replace(Some(Arc::new(LastInspection { epoch, at: Instant::now(), state })));
    }
}

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
        let last = node.meta.inspection.last.get()?.borrow().clone()?;
        let present = node.meta.epoch.load(std::sync::atomic::Ordering::Relaxed);
        (last.epoch == present && last.at.elapsed() <= within).then(|| last.told(path, false))
    }
}

impl LastInspection {
    fn told(&self, path: &str, stale: bool) -> Result<Inspection, InspectError> {
        let (state, error) = match &self.state {
            Ok(None) => return Err(InspectError::ShowsNothing),
            Ok(Some(state)) => (state.clone(), None),
            Err(why) => (Value::Null, Some(why.clone())),
        };
        let age_ms = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Inspection { path: path.to_string(), epoch: self.epoch, state, error, age_ms, stale })
    }
}
