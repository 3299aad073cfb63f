//! An ask that waits while its actor is between two incarnations, for callers that a short restart need not concern.

use super::super::actor::{Actor, CallError, Handler, Message};
use super::super::cell::{ActorState, CellMeta};
use super::super::dead_letters::DeadReason;
use super::address::Ref;
use super::reply::{by, deadline};
use std::any::type_name;
use std::time::{Duration, Instant};

/// Whether its supervisor is about to start an incarnation, as far as is known.
fn will_be_up(meta: &CellMeta) -> bool {
    match meta.state() {
        ActorState::Starting | ActorState::Up | ActorState::Restarting => true,
        ActorState::Stopped => meta.is_yet_to_start(),
        ActorState::Stopping => false,
    }
}

impl<A: Actor> Ref<A> {
    /// As [`Ref::ask`], but an actor of this process that restarts, or has yet to start, is waited for within the same
    /// deadline. At most as many wait as its mailbox takes. A message that comes back because the incarnation ended
    /// before it was begun goes to the next one; one that was begun is never sent again.
    pub async fn ask_when_up<M: Message>(&self, message: M, within: Duration) -> Result<M::Reply, CallError<M>>
    where
        A: Handler<M>,
    {
        let meta = &self.slot.meta;
        let until = deadline(Instant::now(), within);
        let (mut message, mut waiter) = (message, None);
        loop {
            let changed = meta.start_waiters.changed.notified(); // what happens from here on is not missed
            if self.has_receiver() || !will_be_up(meta) {
                let left = until.saturating_duration_since(Instant::now());
                match self.ask(message, left).await {
                    Err(CallError::Restarting(back) | CallError::NotRunning(back))
                        if will_be_up(meta) && !self.is_remote() && Instant::now() < until =>
                    {
                        message = back;
                        continue;
                    }
                    answer => return answer,
                }
            }
            if waiter.is_none() {
                waiter = meta.start_waiters.enter(meta.bound);
            }
            if waiter.is_none() {
                meta.dead_letter(type_name::<M>(), DeadReason::Full);
                return Err(CallError::Full(message));
            }
            if by(until, changed).await.is_none() {
                return Err(self.slot.refuse(message));
            }
        }
    }
}
