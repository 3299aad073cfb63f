//! An incarnation's own context ([`Cx`]), and the actix context it runs in.

use super::super::actor::{Actor, CallError, Handler, Message, Token};
use super::super::exit::Exit;
use super::super::fence::Pass;
use super::super::histogram::SAMPLE;
use super::super::monitor::{Down, Monitor};
use super::address::{Recipient, Ref, Slot, Up};
use super::deliver::{Answer, Deliver, Nobody};
use super::reply::ReplyTo;
use actix::dev::{AsyncContextParts, ContextParts};
use actix::{ActorContext, ActorFuture, AsyncContext, SpawnHandle};
use futures::future::LocalBoxFuture;
use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tracing::{Instrument, Span};

/// After so many messages in a row the neighbours on the thread have their turn.
const TURN: u32 = 64;

/// An incarnation's state and switches, shared by its context, its handlers and its spawned work. One thread only.
pub(super) struct Local<A: Actor> {
    pub slot: Arc<Slot<A>>,
    pub up: Arc<Up<A>>,
    pub epoch: u64,
    pub state: RefCell<Option<A>>,
    /// A handler is suspended at an await, and holds the state.
    pub handling: Cell<bool>,
    /// That handler: apart from the context and its mailbox, so that it is dropped under a guard of its own.
    pub in_hand: RefCell<Option<LocalBoxFuture<'static, ()>>>,
    /// Work that was spawned and not yet taken over by the incarnation.
    pub inbox: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
    pub waker: RefCell<Waker>,
    /// No further message may be begun.
    pub hold: Cell<bool>,
    pub exit: RefCell<Option<Exit>>,
    pub closed: Cell<bool>,
    /// Set by its supervisor when it gave this incarnation up: a successor has its address, or will have it.
    abandoned: Arc<AtomicBool>,
    handled: Cell<u32>,
    /// The type of the last message, as its cell has it.
    message: Cell<&'static str>,
}

/// How an incarnation ends that finds itself given up.
pub(super) fn given_up() -> Exit {
    Exit::Hung("woke up after its thread was given up".into())
}

impl<A: Actor> Local<A> {
    pub fn new(slot: Arc<Slot<A>>, up: Arc<Up<A>>, epoch: u64, abandoned: Arc<AtomicBool>) -> Local<A> {
        Local {
            slot,
            up,
            epoch,
            state: RefCell::new(None),
            handling: Cell::new(false),
            in_hand: RefCell::new(None),
            inbox: RefCell::new(Vec::new()),
            waker: RefCell::new(Waker::noop().clone()),
            hold: Cell::new(false),
            exit: RefCell::new(None),
            closed: Cell::new(false),
            abandoned,
            handled: Cell::new(0),
            message: Cell::new(""),
        }
    }

    /// Asked before each message: the thread may have been stuck in the one before.
    pub fn is_given_up(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The first reason counts.
    pub fn end(&self, exit: Exit) {
        self.hold.set(true);
        self.exit.borrow_mut().get_or_insert(exit);
    }

    /// For the watchdog; most actors get the same type many times over.
    fn begins(&self, message: &'static str) {
        if !std::ptr::eq(self.message.replace(message), message) {
            self.up.lane.vitals.begins(message);
        }
    }

    fn wake(&self) {
        self.waker.borrow().wake_by_ref();
    }

    /// After a message: whether the neighbours on the thread have their turn now.
    pub fn turn_is_over(&self) -> bool {
        self.handled.get() == 0
    }
}

/// An actor's own address, epoch and timers. Cheap to clone.
pub struct Cx<A: Actor> {
    pub(super) local: Rc<Local<A>>,
}

impl<A: Actor> Clone for Cx<A> {
    fn clone(&self) -> Self {
        Cx { local: self.local.clone() }
    }
}

impl<A: Actor> Cx<A> {
    pub fn myself(&self) -> Ref<A> {
        Ref { slot: self.local.slot.clone() }
    }
    pub fn path(&self) -> &str {
        &self.local.slot.meta.path
    }
    /// 1 for the first start; grows with each restart, also over restarts of the process when the caller seeds it.
    pub fn incarnation(&self) -> u64 {
        self.local.epoch
    }
    /// Says in the tree what this actor tries again, and why; `None` when that is over. Gone with the incarnation.
    pub fn trouble(&self, why: Option<String>) {
        let meta = &self.local.slot.meta;
        if meta.epoch.load(Ordering::Acquire) == self.local.epoch {
            meta.set_trouble(why);
        }
    }
    /// For the store and every other side effect.
    pub fn token(&self) -> Token {
        Token { path: self.local.slot.meta.path.clone(), epoch: self.local.epoch }
    }
    /// This incarnation's right to cause effects, to be checked right before one.
    pub fn pass(&self) -> Pass {
        Pass::new(self.token(), self.local.slot.meta.clone())
    }
    /// `to` hears when this incarnation is over; `None`: it was given up.
    pub(in crate::supervisor) fn watch_my_end(&self, to: Recipient<Down>) -> Option<Monitor> {
        Monitor::of(&self.local.slot.meta, self.local.epoch, to)
    }
    /// Runs beside the handlers on this actor's thread; its output comes back as a message, ahead of the mailbox's bound.
    /// Ends with the incarnation; a panic in it ends the incarnation.
    pub fn spawn<M: Message>(&self, work: impl Future<Output = M> + 'static)
    where
        A: Handler<M>,
    {
        let local = self.local.clone();
        self.spawn_detached(async move {
            let message = work.await;
            local.up.lane.reserve_beyond();
            let _ = local.up.sender.do_send(Deliver::new(message, Nobody, &local.up)); // refused: the end has come
        });
    }
    /// As `spawn`, without a message at the end.
    pub fn spawn_detached(&self, work: impl Future<Output = ()> + 'static) {
        if self.local.closed.get() {
            return; // this incarnation is over, and its work with it
        }
        // It belongs to what the handler in hand belongs to.
        self.local.inbox.borrow_mut().push(Box::pin(work.in_current_span()));
        self.local.wake();
    }
    /// A timer: `message` comes after `delay`. Ends with the incarnation.
    pub fn tell_after<M: Message>(&self, delay: Duration, message: M)
    where
        A: Handler<M>,
    {
        self.spawn(async move {
            tokio::time::sleep(delay).await;
            message
        });
    }
    /// Ends this incarnation: after the handler in hand for an orderly reason, at once for any other.
    pub fn exit(&self, exit: Exit) {
        self.local.end(exit);
        self.local.wake();
    }
}

/// The actix actor. The state lives in [`Local`], so that a handler's future can hold it across awaits.
pub(super) struct Shell<A: Actor>(std::marker::PhantomData<fn() -> A>);

impl<A: Actor> Shell<A> {
    pub fn new() -> Shell<A> {
        Shell(std::marker::PhantomData)
    }
}

impl<A: Actor> actix::Actor for Shell<A> {
    type Context = ShellCx<A>;
}

pub(super) struct ShellCx<A: Actor> {
    parts: ContextParts<Shell<A>>,
    local: Rc<Local<A>>,
}

impl<A: Actor> ShellCx<A> {
    pub fn new(parts: ContextParts<Shell<A>>, local: Rc<Local<A>>) -> ShellCx<A> {
        ShellCx { parts, local }
    }

    pub fn local(&self) -> &Rc<Local<A>> {
        &self.local
    }

    /// Runs the handler up to its first await; if it is not done then, the mailbox waits for it.
    pub fn handle<M: Message>(&mut self, message: M, reply: Option<ReplyTo<M>>, span: Span)
    where
        A: Handler<M>,
    {
        match self.begin(message, reply, span) {
            Some(handling) => {
                self.parts.wait(handling);
            }
            None if self.local.turn_is_over() => {
                self.parts.wait(Turn { over: false });
            }
            None => {}
        }
    }

    /// Runs the handler up to its first await; `Some`: it is not done then, and no message may be begun before it is.
    // The borrow is held across awaits on purpose: handlers are serial, nothing else borrows the state meanwhile.
    #[allow(clippy::await_holding_refcell_ref)]
    pub fn begin<M: Message>(&mut self, message: M, reply: Option<ReplyTo<M>>, span: Span) -> Option<Handling>
    where
        A: Handler<M>,
    {
        self.local.begins(type_name::<M>());
        let cx = Cx { local: self.local.clone() };
        let owed = reply.map(|reply| Answer::new(reply, self.local.clone()));
        let work = async move {
            let result = {
                let mut state = cx.local.state.borrow_mut();
                match state.as_mut() {
                    Some(state) => state.handle(message, &cx).await,
                    None => Err(Exit::Killed),
                }
            };
            match result {
                // Its state is gone, and its effects were fenced off: nobody is told that all went well.
                Ok(_) if cx.local.is_given_up() => {
                    if let Some(owed) = owed {
                        owed.send(Err(CallError::Exited(given_up())));
                    }
                }
                Ok(value) => {
                    if let Some(owed) = owed {
                        owed.send(Ok(value));
                    }
                }
                Err(exit) => {
                    if let Some(owed) = owed {
                        owed.send(Err(CallError::Exited(exit.clone())));
                    }
                    cx.local.end(exit);
                }
            }
        };
        let mut work: LocalBoxFuture<'static, ()> = match span.is_none() {
            true => Box::pin(work),
            false => Box::pin(work.instrument(span)),
        };
        let timed = self.local.handled.get().is_multiple_of(SAMPLE).then(Instant::now);
        let first = {
            let waker = self.local.waker.borrow();
            work.as_mut().poll(&mut Context::from_waker(&waker))
        };
        self.local.handled.set((self.local.handled.get() + 1) % TURN);
        if first.is_pending() {
            self.local.handling.set(true);
            self.local.up.lane.vitals.waits();
            *self.local.in_hand.borrow_mut() = Some(work);
            return Some(Handling { since: Instant::now() });
        }
        if let Some(began) = timed {
            self.local.slot.meta.handle_times.observe(began.elapsed(), SAMPLE);
        }
        None
    }
}

/// A handler at an await.
pub(super) struct Handling {
    since: Instant,
}

impl<A: Actor> ActorFuture<Shell<A>> for Handling {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Shell<A>, shell: &mut ShellCx<A>, task: &mut Context<'_>) -> Poll<()> {
        if shell.local.is_given_up() {
            return Poll::Pending; // it ends with this turn
        }
        let done = match shell.local.in_hand.borrow_mut().as_mut() {
            Some(work) => work.as_mut().poll(task),
            None => Poll::Ready(()),
        };
        if done.is_ready() {
            let work = shell.local.in_hand.borrow_mut().take();
            drop(work);
            shell.local.handling.set(false);
            shell.local.up.lane.vitals.waited();
            shell.local.slot.meta.handle_times.observe(self.since.elapsed(), 1);
        }
        done
    }
}

/// Goes to the back of the thread's queue once.
struct Turn {
    over: bool,
}

impl<A: Actor> ActorFuture<Shell<A>> for Turn {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, _: &mut Shell<A>, _: &mut ShellCx<A>, task: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.over, true) {
            return Poll::Ready(());
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<A: Actor> ActorContext for ShellCx<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }
    fn terminate(&mut self) {
        self.parts.terminate();
    }
    fn state(&self) -> actix::ActorState {
        self.parts.state()
    }
}

impl<A: Actor> AsyncContext<Shell<A>> for ShellCx<A> {
    fn address(&self) -> actix::Addr<Shell<A>> {
        self.parts.address()
    }
    fn spawn<F: ActorFuture<Shell<A>, Output = ()> + 'static>(&mut self, work: F) -> SpawnHandle {
        self.parts.spawn(work)
    }
    fn wait<F: ActorFuture<Shell<A>, Output = ()> + 'static>(&mut self, work: F) {
        self.parts.wait(work);
    }
    fn waiting(&self) -> bool {
        self.local.hold.get() || self.local.is_given_up() || self.parts.waiting()
    }
    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }
}

impl<A: Actor> AsyncContextParts<Shell<A>> for ShellCx<A> {
    fn parts(&mut self) -> &mut ContextParts<Shell<A>> {
        &mut self.parts
    }
}
