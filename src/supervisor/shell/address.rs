//! Addresses that outlive restarts: a stable cell whose slot holds the present incarnation's mailbox.

use super::super::actor::{Actor, CallError, Handler, Message};
use super::super::cell::{ActorState, CellMeta, Lane};
use super::super::dead_letters::DeadReason;
use super::super::exit::Exit;
use super::super::monitor::{Down, Monitor};
use super::super::wire::{Carrier, WireCode};
use super::batch::{OnUnreadable, TellBatch};
use super::context::Shell;
use super::deliver::{Asker, Deliver, Nobody};
use super::remote_send;
use super::reply::{ReplyTo, answer};
use actix::dev::channel::AddressSender;
use arc_swap::ArcSwapOption;
use std::any::type_name;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The present incarnation's mailbox. The order of the fields matters: see `LanePtr`.
pub(super) struct Up<A: Actor> {
    pub sender: AddressSender<Shell<A>>,
    pub lane: Arc<Lane>,
}

pub(super) struct Slot<A: Actor> {
    pub meta: Arc<CellMeta>,
    pub up: ArcSwapOption<Up<A>>,
    /// The carrier of messages while nothing runs here.
    pub carrier: ArcSwapOption<Box<dyn Carrier>>,
}

/// A message that did not go, and whom it was to be answered to.
type Unsent<M> = (CallError<M>, Option<ReplyTo<M>>);

impl<A: Actor> Slot<A> {
    /// To the incarnation in this process, else to where the actor is. Answers whether it left this thread.
    fn send<M: Message>(
        &self,
        message: M,
        reply: Option<ReplyTo<M>>,
        within: Option<Duration>,
    ) -> Result<bool, CallError<M>>
    where
        A: Handler<M>,
    {
        let up = self.up.load();
        let sent = match up.as_deref() {
            Some(up) => self.push(up, message, reply),
            None => match self.carrier.load().as_deref() {
                Some(carrier) => {
                    return remote_send::post(&**carrier, &self.meta, message, reply, within).map(|()| true);
                }
                None => Err((self.refuse(message), reply)),
            },
        };
        sent.map_err(|(error, _)| error)
    }

    /// To the incarnation in this process. Answers whether it went to another thread.
    pub(super) fn send_here<M: Message>(&self, message: M, reply: Option<ReplyTo<M>>) -> Result<bool, Unsent<M>>
    where
        A: Handler<M>,
    {
        match self.up.load().as_deref() {
            Some(up) => self.push(up, message, reply),
            None => Err((self.refuse(message), reply)),
        }
    }

    fn push<M: Message>(&self, up: &Up<A>, message: M, reply: Option<ReplyTo<M>>) -> Result<bool, Unsent<M>>
    where
        A: Handler<M>,
    {
        if !up.lane.reserve() {
            self.meta.dead_letter(type_name::<M>(), DeadReason::Full);
            return Err((CallError::Full(message), reply));
        }
        let far = up.lane.called();
        let unsent = match reply {
            None => Deliver::new(message, Nobody, up).send(up),
            // The asker waits: what is done for it belongs to its span. A tell is on its own.
            Some(reply) => Deliver::new(message, Asker::here(reply), up).send(up),
        };
        match unsent {
            Ok(()) => Ok(far),
            // It ended between the look and the send.
            Err((Some(message), reply)) => Err((self.refuse(message), reply)),
            Err((None, reply)) => Err((CallError::Exited(Exit::Killed), reply)),
        }
    }

    /// As many of the tells, in their order, as find a place with the incarnation in this process.
    pub(super) fn send_batch<M: Message>(
        &self,
        bodies: &[&[u8]],
        code: &'static WireCode<M>,
        on_unreadable: &OnUnreadable,
    ) -> usize
    where
        A: Handler<M>,
    {
        let up = self.up.load();
        let Some(up) = up.as_deref() else { return 0 };
        let places = up.lane.reserve_up_to(bodies.len());
        if places == 0 {
            return 0;
        }
        up.lane.called();
        let sent = TellBatch::new(&bodies[..places], code, on_unreadable.clone(), up).send(up);
        if sent { places } else { 0 }
    }

    /// Past the bound: for what the receiver asked for itself, at most once per request.
    fn send_beyond<M: Message>(&self, message: M)
    where
        A: Handler<M>,
    {
        match self.up.load().as_deref() {
            None => drop(self.refuse(message)),
            Some(up) => {
                up.lane.reserve_beyond();
                let _ = up.sender.do_send(Deliver::new(message, Nobody, up)); // ended: a dead letter
            }
        }
    }

    pub(super) fn refuse<M>(&self, message: M) -> CallError<M> {
        let (reason, error) = refusal(&self.meta, message);
        self.meta.dead_letter(type_name::<M>(), reason);
        error
    }
}

pub(super) fn refusal<M>(meta: &CellMeta, message: M) -> (DeadReason, CallError<M>) {
    match meta.state() {
        ActorState::Up | ActorState::Restarting => (DeadReason::Restarting, CallError::Restarting(message)),
        ActorState::Starting | ActorState::Stopping | ActorState::Stopped => {
            (DeadReason::NotRunning, CallError::NotRunning(message))
        }
    }
}

/// An address that stays valid across restarts. Cheap to clone, `Send + Sync`.
pub struct Ref<A: Actor> {
    pub(super) slot: Arc<Slot<A>>,
}

impl<A: Actor> Clone for Ref<A> {
    fn clone(&self) -> Self {
        Ref { slot: self.slot.clone() }
    }
}

impl<A: Actor> std::fmt::Debug for Ref<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ref({})", self.path())
    }
}

impl<A: Actor> Ref<A> {
    /// An address for an actor that a child spec will run; `path` is its place in the tree's naming (`/t01000/window-post`).
    /// At most `mailbox` messages wait there.
    pub fn new(path: impl Into<String>, mailbox: usize) -> Ref<A> {
        let meta = Arc::new(CellMeta::new(path.into(), mailbox));
        Ref { slot: Arc::new(Slot { meta, up: ArcSwapOption::empty(), carrier: ArcSwapOption::empty() }) }
    }
    pub fn path(&self) -> &str {
        &self.slot.meta.path
    }
    /// Sets the carrier of messages while no incarnation runs in this process; `None`: none. Every clone follows.
    pub fn route_to(&self, carrier: Option<Box<dyn Carrier>>) {
        self.slot.carrier.store(carrier.map(Arc::new));
    }
    /// Whether a message sent now would leave this process.
    pub fn is_remote(&self) -> bool {
        self.slot.up.load().is_none() && self.slot.carrier.load().is_some()
    }
    /// Whether anybody would take a message now, here or elsewhere.
    pub(super) fn has_receiver(&self) -> bool {
        self.slot.up.load().is_some() || self.slot.carrier.load().is_some()
    }
    /// Queues the message; never waits.
    pub fn tell<M: Message>(&self, message: M) -> Result<(), CallError<M>>
    where
        A: Handler<M>,
    {
        self.slot.send(message, None, None).map(drop)
    }
    /// Asks and waits at most `within`. Usable from any async runtime.
    pub async fn ask<M: Message>(&self, message: M, within: Duration) -> Result<M::Reply, CallError<M>>
    where
        A: Handler<M>,
    {
        let (tx, rx) = oneshot::channel();
        let far = self.slot.send(message, Some(ReplyTo::Near(tx)), Some(within))?;
        answer(rx, within, far).await
    }
    /// `to` gets one [`Down`] when the present incarnation ends, or at once when none runs.
    pub fn monitor(&self, to: Recipient<Down>) -> Monitor {
        if self.slot.up.load().is_none()
            && let Some(carrier) = self.slot.carrier.load().as_deref()
        {
            return Monitor::remote(&self.slot.meta, carrier.watch(&self.slot.meta.path, to));
        }
        Monitor::set(&self.slot.meta, self.path().to_string(), to)
    }
    pub fn recipient<M: Message>(&self) -> Recipient<M>
    where
        A: Handler<M>,
    {
        Recipient { to: self.slot.clone() }
    }
}

/// The part of a slot that a [`Recipient`] needs, whatever its actor.
trait Takes<M: Message>: Send + Sync {
    fn take(&self, message: M, reply: Option<ReplyTo<M>>, within: Option<Duration>) -> Result<bool, CallError<M>>;
    fn take_beyond(&self, message: M);
    fn meta(&self) -> &CellMeta;
}

impl<A: Handler<M>, M: Message> Takes<M> for Slot<A> {
    fn take(&self, message: M, reply: Option<ReplyTo<M>>, within: Option<Duration>) -> Result<bool, CallError<M>> {
        self.send(message, reply, within)
    }
    fn take_beyond(&self, message: M) {
        self.send_beyond(message)
    }
    fn meta(&self) -> &CellMeta {
        &self.meta
    }
}

/// An address narrowed to one message: what a publisher holds of its subscribers.
pub struct Recipient<M: Message> {
    to: Arc<dyn Takes<M>>,
}

impl<M: Message> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Recipient { to: self.to.clone() }
    }
}

impl<M: Message> Recipient<M> {
    pub fn path(&self) -> &str {
        &self.to.meta().path
    }
    pub fn tell(&self, message: M) -> Result<(), CallError<M>> {
        self.to.take(message, None, None).map(drop)
    }
    /// Past the bound: for what the receiver asked for itself, at most once per request.
    pub(crate) fn deliver(&self, message: M) {
        self.to.take_beyond(message)
    }
    pub async fn ask(&self, message: M, within: Duration) -> Result<M::Reply, CallError<M>> {
        let (tx, rx) = oneshot::channel();
        let far = self.to.take(message, Some(ReplyTo::Near(tx)), Some(within))?;
        answer(rx, within, far).await
    }
}

/// Takes notices in place of an actor: for those that pass them on, to another process for one.
struct Passes<F> {
    meta: CellMeta,
    on: F,
}

impl<F: Fn(Down) + Send + Sync> Takes<Down> for Passes<F> {
    fn take(&self, down: Down, reply: Option<ReplyTo<Down>>, _: Option<Duration>) -> Result<bool, CallError<Down>> {
        (self.on)(down);
        if let Some(reply) = reply {
            reply.send(Ok(()));
        }
        Ok(false)
    }
    fn take_beyond(&self, down: Down) {
        (self.on)(down);
    }
    fn meta(&self) -> &CellMeta {
        &self.meta
    }
}

impl Recipient<Down> {
    /// Runs `on`, which must not block, on the thread where the watched incarnation ends.
    pub(crate) fn passing(path: Arc<str>, on: impl Fn(Down) + Send + Sync + 'static) -> Recipient<Down> {
        Recipient { to: Arc::new(Passes { meta: CellMeta::new(path, 0), on }) }
    }
}
