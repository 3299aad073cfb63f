//! Tells of one type that came together from another process: one delivery, each decoded when its turn comes.
//!
//! One by one, each costs three allocations on the bridge's thread that the actor's thread frees. In a batch the bodies
//! travel as the bytes they came as, and only the actor's thread makes messages of them. They keep their order, each has its
//! own place in the mailbox, and between two of them the actor stops, waits, shows itself and yields as between any two.

use super::super::actor::{Handler, Message};
use super::super::dead_letters::DeadReason;
use super::super::wire::WireCode;
use super::address::Up;
use super::context::{Handling, Local, Shell, ShellCx};
use super::deliver::LanePtr;
use actix::dev::{Envelope, EnvelopeProxy, ToEnvelope};
use actix::{ActorFuture, AsyncContext};
use std::any::type_name;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;
use tracing::Span;

/// Hears that a body was no message after all.
pub type OnUnreadable = Arc<dyn Fn() + Send + Sync>;

/// The remaining tells. Dropped, each of them becomes a dead letter.
pub(super) struct TellBatch<M: Message> {
    bytes: Vec<u8>,
    /// The end of each body in `bytes`.
    ends: Vec<u32>,
    next: usize,
    code: &'static WireCode<M>,
    on_unreadable: OnUnreadable,
    lane: LanePtr,
}

impl<M: Message> TellBatch<M> {
    /// For the mailbox of `up` only; a place for each body must have been reserved.
    pub fn new<A: Handler<M>>(
        bodies: &[&[u8]],
        code: &'static WireCode<M>,
        on_unreadable: OnUnreadable,
        up: &Up<A>,
    ) -> TellBatch<M> {
        let mut bytes = Vec::with_capacity(bodies.iter().map(|body| body.len()).sum());
        let mut ends = Vec::with_capacity(bodies.len());
        for body in bodies {
            bytes.extend_from_slice(body);
            ends.push(bytes.len() as u32);
        }
        TellBatch { bytes, ends, next: 0, code, on_unreadable, lane: LanePtr::to(&up.lane) }
    }

    /// False: the incarnation has ended, and nothing came of it.
    pub fn send<A: Handler<M>>(self, up: &Up<A>) -> bool {
        use actix::dev::SendError;
        match up.sender.do_send(self) {
            Ok(()) => true,
            Err(SendError::Closed(mut back) | SendError::Full(mut back)) => {
                while back.take().is_some() {
                    back.lane.take_back();
                }
                false
            }
        }
    }

    fn take(&mut self) -> Option<&[u8]> {
        let end = *self.ends.get(self.next)? as usize;
        let start = self.next.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.next += 1;
        Some(&self.bytes[start..end])
    }

    /// The next one that is a message.
    fn next(&mut self) -> Option<M> {
        let code = self.code;
        loop {
            let message = (code.decode)(self.take()?);
            self.lane.release();
            match message {
                Ok(message) => return Some(message),
                Err(why) => {
                    tracing::debug!(actor = %self.lane.meta.path, "{} cannot be read: {why}", type_name::<M>());
                    (self.on_unreadable)();
                }
            }
        }
    }
}

impl<M: Message> Drop for TellBatch<M> {
    fn drop(&mut self) {
        while self.take().is_some() {
            self.lane.take_back();
            self.lane.meta.dead_letter(type_name::<M>(), DeadReason::ActorEnded);
        }
    }
}

impl<M: Message> actix::Message for TellBatch<M> {
    type Result = ();
}

impl<A: Handler<M>, M: Message> ToEnvelope<Shell<A>, TellBatch<M>> for ShellCx<A> {
    fn pack(batch: TellBatch<M>, _: Option<oneshot::Sender<()>>) -> Envelope<Shell<A>> {
        Envelope::with_proxy(Box::new(Some(batch)))
    }
}

impl<A: Handler<M>, M: Message> EnvelopeProxy<Shell<A>> for Option<TellBatch<M>> {
    fn handle(&mut self, _: &mut Shell<A>, shell: &mut ShellCx<A>) {
        if let Some(batch) = self.take() {
            let local = shell.local().clone();
            shell.wait(InTurn { batch, in_hand: None, _local: local });
        }
    }
}

/// actix wants the bound; messages come as envelopes, not this way.
impl<A: Handler<M>, M: Message> actix::Handler<TellBatch<M>> for Shell<A> {
    type Result = ();
    fn handle(&mut self, batch: TellBatch<M>, shell: &mut ShellCx<A>) {
        EnvelopeProxy::handle(&mut Some(batch), self, shell);
    }
}

/// A batch out of the mailbox, which waits until it is through.
struct InTurn<A: Handler<M>, M: Message> {
    batch: TellBatch<M>,
    /// The last one's handler is at an await.
    in_hand: Option<Handling>,
    /// Outlives the batch: its way to its lane is a pointer.
    _local: Rc<Local<A>>,
}

/// Plain movable parts.
impl<A: Handler<M>, M: Message> Unpin for InTurn<A, M> {}

impl<A: Handler<M>, M: Message> ActorFuture<Shell<A>> for InTurn<A, M> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, it: &mut Shell<A>, shell: &mut ShellCx<A>, task: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(handling) = &mut self.in_hand {
                ready!(Pin::new(handling).poll(it, shell, task));
                self.in_hand = None;
            }
            if shell.local().hold.get() || shell.local().is_given_up() {
                return Poll::Pending; // whoever lets it go on polls it
            }
            let Some(message) = self.batch.next() else { return Poll::Ready(()) };
            self.in_hand = shell.begin(message, None, Span::none());
            if self.in_hand.is_none() && shell.local().turn_is_over() {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}
