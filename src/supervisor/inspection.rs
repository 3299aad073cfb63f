//! The state that an actor showed last, and who awaits the next.

use super::exit::catch;
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

pub(super) struct LastInspection {
    pub epoch: u64,
    pub at: Instant,
    state: Result<Option<Value>, String>,
}

/// Per actor: its last inspection, and who awaits the next.
#[derive(Default)]
pub(super) struct InspectionCell {
    last: OnceLock<watch::Sender<Option<Arc<LastInspection>>>>,
}

impl InspectionCell {
    pub fn last(&self) -> &watch::Sender<Option<Arc<LastInspection>>> {
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

impl LastInspection {
    pub fn told(&self, path: &str, stale: bool) -> Result<Inspection, InspectError> {
        let (state, error) = match &self.state {
            Ok(None) => return Err(InspectError::ShowsNothing),
            Ok(Some(state)) => (state.clone(), None),
            Err(why) => (Value::Null, Some(why.clone())),
        };
        let age_ms = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Inspection { path: path.to_string(), epoch: self.epoch, state, error, age_ms, stale })
    }
}
