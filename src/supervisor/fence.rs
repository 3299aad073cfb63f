//! Fencing: a side effect is refused once its actor has a successor, whatever thread it still runs on.

use super::actor::Token;
use super::cell::CellMeta;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The effect is not for this incarnation any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} epoch {epoch} was fenced off by epoch {newer}")]
pub struct Fenced {
    pub path: String,
    pub epoch: u64,
    /// The same as `epoch` if its thread was given up and it has no successor yet.
    pub newer: u64,
}

/// The right to cause effects: asked right before one that cannot be taken back.
pub trait Fence: Send + Sync + 'static {
    fn check(&self) -> Result<(), Fenced>;
}

/// An incarnation's right. It ends when a successor is started or its thread is given up.
#[derive(Clone)]
pub struct Pass {
    token: Token,
    meta: Arc<CellMeta>,
}

impl Pass {
    pub(super) fn new(token: Token, meta: Arc<CellMeta>) -> Pass {
        Pass { token, meta }
    }
}

impl Fence for Pass {
    fn check(&self) -> Result<(), Fenced> {
        let (newer, given_up) = (self.meta.epoch.load(Ordering::Acquire), self.meta.given_up.load(Ordering::Acquire));
        if newer > self.token.epoch || given_up >= self.token.epoch {
            return Err(Fenced { path: self.token.path.to_string(), epoch: self.token.epoch, newer });
        }
        Ok(())
    }
}
