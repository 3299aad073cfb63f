//! Fencing: a side effect is refused once its actor has a successor, whatever thread it still runs on.

use super::actor::Token;
use super::cell::CellMeta;
use crate::util::lock;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The effect is not for this incarnation any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} epoch {epoch} was fenced off by {}", self.by())]
pub struct Fenced {
    pub path: String,
    pub epoch: u64,
    /// The same as `epoch` if no successor is known: its thread was given up, or its epoch source no longer holds it.
    pub newer: u64,
}

impl Fenced {
    fn by(&self) -> String {
        match self.newer > self.epoch {
            true => format!("epoch {}", self.newer),
            false => "the end of its tenure".to_string(),
        }
    }
}

/// A right that reaches beyond this process: of the concern that only one of several processes may run. One for all
/// incarnations of an address.
pub trait EpochSource: Send + Sync + 'static {
    /// The base of the epochs of incarnations that start now, instead of the tree's base. It grows with every right;
    /// where it begins lower (a cluster that counts anew), `holds` refuses every earlier one.
    fn epoch_base(&self) -> u64;
    /// Whether an incarnation of that epoch may still cause effects.
    fn holds(&self, epoch: u64) -> bool;
}

/// The right to cause effects: asked right before one that cannot be taken back.
pub trait Fence: Send + Sync + 'static {
    fn check(&self) -> Result<(), Fenced>;
}

/// An incarnation's right. It ends when a successor is started, its thread is given up, or its [`EpochSource`] has ended.
#[derive(Clone)]
pub struct Pass {
    token: Token,
    meta: Arc<CellMeta>,
    epoch_source: Option<Arc<dyn EpochSource>>,
}

impl Pass {
    pub(super) fn new(token: Token, meta: Arc<CellMeta>) -> Pass {
        let epoch_source = lock(&meta.epoch_source).clone();
        Pass { token, meta, epoch_source }
    }
}

impl Fence for Pass {
    fn check(&self) -> Result<(), Fenced> {
        let (newer, given_up) = (self.meta.epoch.load(Ordering::Acquire), self.meta.given_up.load(Ordering::Acquire));
        let held = self.epoch_source.as_ref().is_none_or(|epoch_source| epoch_source.holds(self.token.epoch));
        if newer > self.token.epoch || given_up >= self.token.epoch || !held {
            return Err(Fenced { path: self.token.path.to_string(), epoch: self.token.epoch, newer });
        }
        Ok(())
    }
}
