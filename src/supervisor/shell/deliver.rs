//! A message on its way from a sender to a handler, and the answer that is owed for it.

use super::super::actor::{Actor, CallError, Handler, Message};
use super::super::cell::Lane;
use super::super::dead_letters::DeadReason;
use super::super::exit::{Exit, catch};
use super::address::{Up, refusal};
use super::context::{Local, Shell, ShellCx};
use super::reply::ReplyTo;
use actix::dev::{Envelope, EnvelopeProxy, SendError, ToEnvelope};
use std::any::type_name;
use std::ptr::NonNull;
use std::rc::Rc;
use tokio::sync::oneshot;
use tracing::Span;
use tracing::level_filters::LevelFilter;

/// The waiter for an answer, if any: a type, so that a tell carries nothing of an ask and stays small.
pub(super) trait Waits<M: Message>: Send + 'static {
    fn asker(self) -> Option<Asker<M>>;
}

/// The waiter of a tell.
pub(super) struct Nobody;

impl<M: Message> Waits<M> for Nobody {
    fn asker(self) -> Option<Asker<M>> {
        None
    }
}

pub(super) struct Asker<M: Message> {
    reply: ReplyTo<M>,
    /// In a box, since most have none: what crosses threads is to be small.
    span: Option<Box<Span>>,
}

impl<M: Message> Asker<M> {
    /// The one that runs now.
    pub fn here(reply: ReplyTo<M>) -> Asker<M> {
        // Where nobody listens to spans, looking for one is not worth it.
        let traced = LevelFilter::current() != LevelFilter::OFF;
        let span = traced.then(Span::current).filter(|span| !span.is_none());
        Asker { reply, span: span.map(Box::new) }
    }
}

impl<M: Message> Waits<M> for Asker<M> {
    fn asker(self) -> Option<Asker<M>> {
        Some(self)
    }
}

/// A message on its way. Dropped unhandled, it becomes a dead letter and its asker gets it back.
pub(super) struct Deliver<M: Message, W: Waits<M>> {
    load: Option<(M, W)>,
    lane: LanePtr,
}

/// A message's way back to its lane without a count of references, which all senders would write to.
pub(super) struct LanePtr(NonNull<Lane>);

impl LanePtr {
    /// For what goes into the mailbox beside that lane only.
    pub fn to(lane: &Lane) -> LanePtr {
        LanePtr(NonNull::from(lane))
    }
}

// SAFETY: it stands for a `&Lane`, and a `Lane` is `Sync`.
unsafe impl Send for LanePtr {}

impl std::ops::Deref for LanePtr {
    type Target = Lane;
    fn deref(&self) -> &Lane {
        // SAFETY: a message exists within `Slot::send` and the like, which hold the `Up` meanwhile, and in the queue of
        // that `Up`'s mailbox; a batch that was taken out is kept with a hold on the `Up` of its own. The queue lives as long as its sender, which is dropped before the lane beside it in
        // `Up`, and as its receiver, which the incarnation drops before its own hold on the `Up` (`Incarnation::local`).
        unsafe { self.0.as_ref() }
    }
}

impl<M: Message, W: Waits<M>> Deliver<M, W> {
    /// For the mailbox of `up` only; the place in it must have been reserved.
    pub fn new<A: Actor>(message: M, waits: W, up: &Up<A>) -> Deliver<M, W> {
        Deliver { load: Some((message, waits)), lane: LanePtr::to(&up.lane) }
    }

    /// Returns what was not sent.
    pub fn send<A: Handler<M>>(self, up: &Up<A>) -> Result<(), (Option<M>, Option<ReplyTo<M>>)> {
        match up.sender.do_send(self) {
            Ok(()) => Ok(()),
            Err(SendError::Closed(back) | SendError::Full(back)) => Err(back.take_back()),
        }
    }

    fn take_back(mut self) -> (Option<M>, Option<ReplyTo<M>>) {
        let Some((message, waits)) = self.load.take() else { return (None, None) };
        self.lane.take_back();
        (Some(message), waits.asker().map(|asker| asker.reply))
    }
}

impl<M: Message, W: Waits<M>> Drop for Deliver<M, W> {
    fn drop(&mut self) {
        let Some((message, waits)) = self.load.take() else { return };
        self.lane.take_back();
        let meta = &self.lane.meta;
        meta.dead_letter(type_name::<M>(), DeadReason::ActorEnded);
        let give_back = move || match waits.asker() {
            Some(Asker { reply, .. }) => reply.send(Err(refusal(meta, message).1)),
            None => drop(message),
        };
        // Each behind a guard of its own: a second panic out of one mailbox would end the process.
        if let Err(what) = catch(give_back) {
            tracing::error!(actor = %meta.path, message = type_name::<M>(), %what, "panicked when it was dropped");
        }
    }
}

impl<M: Message, W: Waits<M>> actix::Message for Deliver<M, W> {
    type Result = ();
}

impl<A: Handler<M>, M: Message, W: Waits<M>> ToEnvelope<Shell<A>, Deliver<M, W>> for ShellCx<A> {
    fn pack(message: Deliver<M, W>, _: Option<oneshot::Sender<()>>) -> Envelope<Shell<A>> {
        Envelope::with_proxy(Box::new(message))
    }
}

impl<A: Handler<M>, M: Message, W: Waits<M>> EnvelopeProxy<Shell<A>> for Deliver<M, W> {
    fn handle(&mut self, _: &mut Shell<A>, shell: &mut ShellCx<A>) {
        let Some((message, waits)) = self.load.take() else { return };
        self.lane.release();
        let Some(Asker { reply, span }) = waits.asker() else { return shell.handle(message, None, Span::none()) };
        if reply.is_closed() {
            return self.lane.meta.dead_letter(type_name::<M>(), DeadReason::Expired);
        }
        let span = match span {
            None => Span::none(),
            Some(span) => {
                let actor: &str = &self.lane.meta.path;
                tracing::info_span!(parent: &*span, "handle", actor, message = type_name::<M>())
            }
        };
        shell.handle(message, Some(reply), span);
    }
}

/// actix wants the bound; messages come as envelopes, not this way.
impl<A: Handler<M>, M: Message, W: Waits<M>> actix::Handler<Deliver<M, W>> for Shell<A> {
    type Result = ();
    fn handle(&mut self, mut message: Deliver<M, W>, shell: &mut ShellCx<A>) {
        EnvelopeProxy::handle(&mut message, self, shell);
    }
}

/// Owes the asker an answer: dropped, it says how the incarnation ended.
pub(super) struct Answer<A: Actor, M: Message> {
    reply: Option<ReplyTo<M>>,
    local: Rc<Local<A>>,
}

impl<A: Actor, M: Message> Answer<A, M> {
    pub fn new(reply: ReplyTo<M>, local: Rc<Local<A>>) -> Answer<A, M> {
        Answer { reply: Some(reply), local }
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
