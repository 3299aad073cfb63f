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
    pub newer: u64,
}

/// Whatever knows the highest epoch of a path: asked right before an effect that cannot be taken back.
pub trait Fence: Send + Sync + 'static {
    fn check(&self, token: &Token) -> Result<(), Fenced>;
}

/// An incarnation's right to cause effects. It ends when a successor is started or its thread is given up.
#[derive(Clone)]
pub struct Pass {
    token: Token,
    meta: Arc<CellMeta>,
}

impl Pass {
    pub(super) fn new(token: Token, meta: Arc<CellMeta>) -> Pass {
        Pass { token, meta }
    }
    pub fn token(&self) -> &Token {
        &self.token
    }
    /// Right before the effect.
    pub fn check(&self) -> Result<(), Fenced> {
        self.meta.as_ref().check(&self.token)
    }
}

impl Fence for CellMeta {
    fn check(&self, token: &Token) -> Result<(), Fenced> {
        let newer = self.epoch.load(Ordering::Acquire);
        if newer > token.epoch {
            return Err(Fenced { path: token.path.to_string(), epoch: token.epoch, newer });
        }
        Ok(())
    }
}
