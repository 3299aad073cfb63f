//! Addresses that outlive restarts: a stable cell whose slot holds the present incarnation's mailbox.

use super::super::actor::{Actor, CallError, Handler, Message};
use super::super::cell::{ActorState, CellMeta, Lane};
use super::super::dead_letters::DeadReason;
use super::super::exit::Exit;
use super::super::monitor::{Down, Monitor};
use super::super::wire::Carrier;
use super::context::{Local, Shell, ShellCx};
use super::far;
use super::reply::{ReplyTo, answer};
use actix::dev::channel::AddressSender;
use actix::dev::{Envelope, EnvelopeProxy, SendError, ToEnvelope};
use arc_swap::ArcSwapOption;
use std::any::type_name;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::Span;

/// The present incarnation's mailbox. The order of the fields matters: see [`LanePtr`].
pub(super) struct Up<A: Actor> {
    pub sender: AddressSender<Shell<A>>,
    pub lane: Arc<Lane>,
}

pub(super) struct Slot<A: Actor> {
    pub meta: Arc<CellMeta>,
    pub up: ArcSwapOption<Up<A>>,
    /// Who takes messages elsewhere while nothing runs here.
    pub far: ArcSwapOption<Box<dyn Carrier>>,
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
        if self.up.load().is_none()
            && let Some(carrier) = self.far.load().as_deref()
        {
            return far::post(&**carrier, &self.meta, message, reply, within).map(|()| true);
        }
        self.send_here(message, reply).map_err(|(error, _)| error)
    }

    /// To the incarnation in this process. Answers whether it went to another thread.
    pub(super) fn send_here<M: Message>(&self, message: M, reply: Option<ReplyTo<M>>) -> Result<bool, Unsent<M>>
    where
        A: Handler<M>,
    {
        let up = self.up.load();
        let Some(up) = up.as_deref() else { return Err((self.refuse(message), reply)) };
        if !up.lane.reserve() {
            self.meta.dead_letter(type_name::<M>(), DeadReason::Full);
            return Err((CallError::Full(message), reply));
        }
        // The asker waits: what is done for it belongs to its span. A tell is on its own.
        let span = if reply.is_some() { Span::current() } else { Span::none() };
        let far = up.lane.called();
        match up.sender.do_send(Deliver::new(message, reply, up).within(span)) {
            Ok(()) => Ok(far),
            // It ended between the look and the send.
            Err(SendError::Closed(back) | SendError::Full(back)) => match back.take_back() {
                (Some(message), reply) => Err((self.refuse(message), reply)),
                (None, reply) => Err((CallError::Exited(Exit::Killed), reply)),
            },
        }
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
                let _ = up.sender.do_send(Deliver::new(message, None, up)); // ended: a dead letter
            }
        }
    }

    fn refuse<M>(&self, message: M) -> CallError<M> {
        let (reason, error) = refusal(&self.meta, message);
        self.meta.dead_letter(type_name::<M>(), reason);
        error
    }
}

fn refusal<M>(meta: &CellMeta, message: M) -> (DeadReason, CallError<M>) {
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
        Ref { slot: Arc::new(Slot { meta, up: ArcSwapOption::empty(), far: ArcSwapOption::empty() }) }
    }
    pub fn path(&self) -> &str {
        &self.slot.meta.path
    }
    /// Where messages go while no incarnation runs in this process; `None`: nowhere. Every clone follows.
    pub fn carry_by(&self, carrier: Option<Box<dyn Carrier>>) {
        self.slot.far.store(carrier.map(Arc::new));
    }
    /// Whether a message sent now would leave this process.
    pub fn is_far(&self) -> bool {
        self.slot.up.load().is_none() && self.slot.far.load().is_some()
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
            && let Some(carrier) = self.slot.far.load().as_deref()
        {
            return Monitor::afar(&self.slot.meta, carrier.watch(&self.slot.meta.path, to));
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

/// What a [`Recipient`] needs of a slot, whatever its actor.
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

/// A message on its way. Dropped unhandled, it becomes a dead letter and its asker gets it back.
pub(super) struct Deliver<M: Message> {
    message: Option<M>,
    reply: Option<ReplyTo<M>>,
    lane: LanePtr,
    /// The asker's.
    span: Span,
}

/// A message's way back to its lane without a count of references, which all senders would write to.
struct LanePtr(NonNull<Lane>);

// SAFETY: it stands for a `&Lane`, and a `Lane` is `Sync`.
unsafe impl Send for LanePtr {}

impl std::ops::Deref for LanePtr {
    type Target = Lane;
    fn deref(&self) -> &Lane {
        // SAFETY: a message exists within `Slot::send` and the like, which hold the `Up` meanwhile, and in the queue of
        // that `Up`'s mailbox. The queue lives as long as its sender, which is dropped before the lane beside it in
        // `Up`, and as its receiver, which the incarnation drops before its own hold on the `Up` (`Incarnation::local`).
        unsafe { self.0.as_ref() }
    }
}

impl<M: Message> Deliver<M> {
    /// For the mailbox of `up` only; the place in it must have been reserved.
    pub fn new<A: Actor>(message: M, reply: Option<ReplyTo<M>>, up: &Up<A>) -> Deliver<M> {
        Deliver { message: Some(message), reply, lane: LanePtr(NonNull::from(&*up.lane)), span: Span::none() }
    }

    fn within(mut self, span: Span) -> Deliver<M> {
        self.span = span;
        self
    }

    fn take_back(mut self) -> (Option<M>, Option<ReplyTo<M>>) {
        let message = self.message.take();
        if message.is_some() {
            self.lane.release();
        }
        (message, self.reply.take())
    }
}

impl<M: Message> Drop for Deliver<M> {
    fn drop(&mut self) {
        let Some(message) = self.message.take() else { return };
        self.lane.release();
        let meta = &self.lane.meta;
        meta.dead_letter(type_name::<M>(), DeadReason::ActorEnded);
        if let Some(reply) = self.reply.take() {
            reply.send(Err(refusal(meta, message).1));
        }
    }
}

impl<M: Message> actix::Message for Deliver<M> {
    type Result = ();
}

impl<A: Handler<M>, M: Message> ToEnvelope<Shell<A>, Deliver<M>> for ShellCx<A> {
    fn pack(message: Deliver<M>, _: Option<oneshot::Sender<()>>) -> Envelope<Shell<A>> {
        Envelope::with_proxy(Box::new(message))
    }
}

impl<A: Handler<M>, M: Message> EnvelopeProxy<Shell<A>> for Deliver<M> {
    fn handle(&mut self, _: &mut Shell<A>, shell: &mut ShellCx<A>) {
        let Some(message) = self.message.take() else { return };
        self.lane.release();
        let reply = self.reply.take();
        if reply.as_ref().is_some_and(ReplyTo::is_closed) {
            return self.lane.meta.dead_letter(type_name::<M>(), DeadReason::Expired);
        }
        let span = match self.span.is_none() {
            true => Span::none(),
            false => {
                let actor: &str = &self.lane.meta.path;
                tracing::info_span!(parent: &self.span, "handle", actor, message = type_name::<M>())
            }
        };
        shell.handle(message, reply, span);
    }
}

/// actix wants the bound; messages come as envelopes, not this way.
impl<A: Handler<M>, M: Message> actix::Handler<Deliver<M>> for Shell<A> {
    type Result = ();
    fn handle(&mut self, mut message: Deliver<M>, shell: &mut ShellCx<A>) {
        EnvelopeProxy::handle(&mut message, self, shell);
    }
}

/// Owes the asker an answer: dropped, it says how the incarnation ended.
pub(super) struct Answer<A: Actor, M: Message> {
    reply: Option<ReplyTo<M>>,
    local: Rc<Local<A>>,
}

impl<A: Actor, M: Message> Answer<A, M> {
    pub fn new(reply: Option<ReplyTo<M>>, local: Rc<Local<A>>) -> Answer<A, M> {
        Answer { reply, local }
    }
    pub fn send(mut self, result: Result<M::Reply, CallError<M>>) {
        if let Some(reply) = self.reply.take() {
            reply.send(result);
        }
    }
}

impl<A: Actor, M: Message> Drop for Answer<A, M> {
    fn drop(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        let how = match self.local.exit.borrow().as_ref() {
            _ if std::thread::panicking() => CallError::Panicked,
            Some(Exit::Panicked(_)) => CallError::Panicked,
            Some(exit) => CallError::Exited(exit.clone()),
            None => CallError::Exited(Exit::Killed),
        };
        reply.send(Err(how));
    }
}
