//! One run of an actor: built by its factory, polled under a panic guard, ended with exactly one report.

use super::super::actor::Actor;
use super::super::cell::{ActorState, CellMeta, IncarnationStats};
use super::super::exit::StartError;
use super::super::exit::{Exit, catch};
use super::address::{Ref, Slot, Up};
use super::busy_poll::BusyPoll;
use super::context::{Cx, Local, Shell, ShellCx, given_up};
use super::report::{Ctl, Drill, StartOrder};
use actix::dev::channel::channel;
use actix::dev::{ContextFut, ContextParts, Mailbox};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The last exit after [`crate::supervisor::Tree::panic`].
const DRILL: &str = "panicked on request (drill)";
/// The message in hand after [`crate::supervisor::Tree::hang`].
const HANG_DRILL: &str = "hung on request (drill)";
/// How long a thread that hangs on request waits for its successor after it was given up: there may be none.
const HANG_ON: Duration = Duration::from_secs(10);

/// A child spec's way to start an incarnation, whatever its actor's type.
pub(in crate::supervisor) trait Launch: Send + Sync {
    fn meta(&self) -> &Arc<CellMeta>;
    /// On the arbiter's thread.
    fn launch(&self, order: StartOrder);
    /// The address forgets the incarnation it points to: that one will not end by itself.
    fn detach(&self);
}

struct Launcher<A: Actor, F> {
    slot: Arc<Slot<A>>,
    start: Arc<F>,
}

pub(in crate::supervisor) fn launcher<A, F, Fut>(address: &Ref<A>, start: F) -> Arc<dyn Launch>
where
    A: Actor,
    F: Fn(Cx<A>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<A>, StartError>> + 'static,
{
    Arc::new(Launcher { slot: address.slot.clone(), start: Arc::new(start) })
}

impl<A, F, Fut> Launch for Launcher<A, F>
where
    A: Actor,
    F: Fn(Cx<A>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<A>, StartError>> + 'static,
{
    fn meta(&self) -> &Arc<CellMeta> {
        &self.slot.meta
    }
    fn launch(&self, order: StartOrder) {
        let start = self.start.clone();
        let life = Incarnation::new(self.slot.clone(), order, move |cx| async move {
            // Also what the factory does before its first await is inside the guard.
            start(cx).await
        });
        if let Some(life) = life {
            actix_rt::spawn(life);
        }
    }
    fn detach(&self) {
        let _last = self.slot.meta.detach(|| self.slot.up.swap(None)); // dropped outside the lock
    }
}

enum RunPhase<A: Actor> {
    Starting(LocalBoxFuture<'static, Result<(), Exit>>),
    Running(Box<ContextFut<Shell<A>, ShellCx<A>>>),
    Stopping { last: LocalBoxFuture<'static, ()>, exit: Exit },
    Over,
}

struct Incarnation<A: Actor> {
    local: Rc<Local<A>>,
    phase: RunPhase<A>,
    /// Messages wait here while the actor starts.
    mailbox: Option<Mailbox<Shell<A>>>,
    /// `None` until there is any.
    spawned: Option<FuturesUnordered<LocalBoxFuture<'static, ()>>>,
    order: StartOrder,
    stop: bool,
    /// Told to show its state; it begins no message before.
    look: bool,
    busy_poll: BusyPoll,
    /// Ordered to stop, but a successor will come.
    again: bool,
}

/// Plain movable parts: what must not move is boxed.
impl<A: Actor> Unpin for Incarnation<A> {}

impl<A: Actor> Incarnation<A> {
    /// `None`: the order waited on a thread that was given up meanwhile. Another incarnation has the address.
    fn new<F, Fut>(slot: Arc<Slot<A>>, order: StartOrder, start: F) -> Option<Incarnation<A>>
    where
        F: FnOnce(Cx<A>) -> Fut + 'static,
        Fut: Future<Output = Result<Option<A>, StartError>> + 'static,
    {
        let (sender, receiver) = channel(0);
        let meta = &slot.meta;
        let up = Arc::new(Up { sender, lane: meta.lane() });
        let given_up = || order.report.is_abandoned();
        let (_last, owed) = meta.take_over(&up.lane, order.epoch, given_up, || {
            meta.set_thread(order.thread.clone());
            (slot.up.swap(Some(up.clone())), meta.watchers.open(order.epoch))
        })?;
        owed.tell();
        let local = Rc::new(Local::new(slot, up, order.epoch, order.report.abandoned()));
        let cx = Cx { local: local.clone() };
        // The borrow is held across awaits on purpose: no handler runs before the start is done.
        #[allow(clippy::await_holding_refcell_ref)]
        let begin = Box::pin(async move {
            let state = start(cx.clone()).await.map_err(|why| Exit::Failed(why.0))?.ok_or(Exit::Ignored)?;
            let mut place = cx.local.state.borrow_mut();
            place.insert(state).started(&cx).await
        });
        Some(Incarnation {
            local,
            phase: RunPhase::Starting(begin),
            mailbox: Some(Mailbox::new(receiver)),
            spawned: None,
            order,
            stop: false,
            look: false,
            busy_poll: BusyPoll::default(),
            again: false,
        })
    }

    fn meta(&self) -> &CellMeta {
        &self.local.slot.meta
    }
    fn vitals(&self) -> &IncarnationStats {
        &self.local.up.lane.vitals
    }

    /// One turn on the thread. Ready: the run is over, for that reason.
    fn turn(&mut self, task: &mut Context<'_>) -> Poll<Exit> {
        while let Poll::Ready(Some(ctl)) = self.order.ctl.poll_recv(task) {
            match ctl {
                Ctl::Kill => return Poll::Ready(Exit::Killed),
                Ctl::Drill(Drill::Panic) => panic!("{DRILL}"),
                Ctl::Drill(Drill::Hang) => self.hang(),
                Ctl::Stop { again } => {
                    self.stop = true;
                    self.again = again;
                    self.local.hold.set(true);
                }
                Ctl::Pause => {
                    let pause = self.order.pause.look();
                    self.vitals().suspended.store(pause, Ordering::Relaxed);
                    self.hold_or_go_on();
                }
                Ctl::Inspect => {
                    self.look = true;
                    self.hold_or_go_on();
                }
            }
        }
        loop {
            match &mut self.phase {
                RunPhase::Starting(begin) => match begin.as_mut().poll(task) {
                    Poll::Ready(Ok(())) => {
                        self.begin_running();
                        continue;
                    }
                    Poll::Ready(Err(exit)) => return Poll::Ready(exit),
                    Poll::Pending => {}
                },
                RunPhase::Running(context) => {
                    let _ = Pin::new(context.as_mut()).poll(task); // it never ends by itself: the address keeps it
                    if self.look && !self.local.handling.get() {
                        self.show();
                        continue;
                    }
                }
                RunPhase::Stopping { last, exit } => {
                    if last.as_mut().poll(task).is_ready() {
                        return Poll::Ready(exit.clone());
                    }
                }
                RunPhase::Over => return Poll::Pending,
            }
            self.poll_spawned(task);
            // While it was in this turn: nothing that waits is for it any more.
            if self.local.is_given_up() {
                return Poll::Ready(given_up());
            }
            match self.next_end() {
                None => return Poll::Pending,
                Some(Ok(exit)) => return Poll::Ready(exit),
                Some(Err(exit)) => self.begin_stopping(exit),
            }
        }
    }

    /// A drill: nothing else runs on this thread until it was given up and, for a moment at least, a successor serves.
    fn hang(&self) {
        const LOOK: Duration = Duration::from_millis(10);
        let meta = self.meta();
        self.vitals().begins(HANG_DRILL);
        while !self.order.report.is_abandoned() {
            std::thread::sleep(LOOK);
        }
        let until = Instant::now() + HANG_ON;
        let succeeded = || meta.epoch.load(Ordering::Acquire) > self.order.epoch && meta.state() == ActorState::Up;
        while !succeeded() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }

    /// Waits awake for the next message if the last one came from another thread, where it costs its sender a wake.
    fn busy_poll(&mut self, task: &mut Context<'_>) {
        let local = &self.local;
        if matches!(self.phase, RunPhase::Running(_)) && !local.handling.get() && !local.hold.get() {
            self.busy_poll.idle(task, || local.up.lane.was_called_from_afar());
        }
    }

    fn poll_spawned(&mut self, task: &mut Context<'_>) {
        loop {
            let new = std::mem::take(&mut *self.local.inbox.borrow_mut());
            if !new.is_empty() {
                self.spawned.get_or_insert_default().extend(new);
            }
            let Some(spawned) = &mut self.spawned else { return };
            while !self.local.is_given_up()
                && let Poll::Ready(Some(())) = spawned.poll_next_unpin(task)
            {}
            if self.local.is_given_up() || self.local.inbox.borrow().is_empty() {
                return;
            }
        }
    }

    /// Whether messages may be begun.
    fn hold_or_go_on(&self) {
        let suspended = self.vitals().suspended.load(Ordering::Relaxed);
        self.local.hold.set(suspended || self.look || self.stop || self.local.exit.borrow().is_some());
    }

    /// Between two messages.
    fn show(&mut self) {
        self.look = false;
        self.vitals().answers();
        if self.meta().epoch.load(Ordering::Acquire) == self.local.epoch {
            let state = self.local.state.borrow();
            self.meta().inspection.show(self.local.epoch, || state.as_ref().and_then(A::inspect));
        }
        self.hold_or_go_on();
    }

    /// `Ok`: it is over. `Err`: an orderly end begins, `stopping` runs first.
    fn next_end(&self) -> Option<Result<Exit, Exit>> {
        let own = self.local.exit.borrow().clone();
        let exit = match own {
            Some(exit) if exit.is_abnormal() || matches!(exit, Exit::Fenced(_)) => return Some(Ok(exit)),
            Some(exit) => exit,
            None if self.stop => Exit::Shutdown,
            None => return None,
        };
        match &self.phase {
            RunPhase::Starting(_) => Some(Ok(exit)),
            RunPhase::Running(_) if self.local.handling.get() => None, // the handler in hand finishes first
            RunPhase::Running(_) => Some(Err(exit)),
            RunPhase::Stopping { .. } | RunPhase::Over => None,
        }
    }

    fn begin_running(&mut self) {
        let Some(mailbox) = self.mailbox.take() else { return };
        let parts = ContextParts::new(mailbox.sender_producer());
        let shell = ShellCx::new(parts, self.local.clone());
        self.phase = RunPhase::Running(Box::new(ContextFut::new(shell, Shell::new(), mailbox)));
        self.order.report.started();
    }

    #[allow(clippy::await_holding_refcell_ref)] // serial: the mailbox is closed by now
    fn begin_stopping(&mut self, exit: Exit) {
        self.close_address(if self.again { ActorState::Restarting } else { ActorState::Stopping });
        self.drop_phase();
        let cx = Cx { local: self.local.clone() };
        let within = if self.stop { None } else { self.order.stop_within };
        let last = Box::pin(async move {
            let bye = async {
                if let Some(state) = cx.local.state.borrow_mut().as_mut() {
                    state.stopping(&cx).await;
                }
            };
            match within {
                Some(limit) => drop(tokio::time::timeout(limit, bye).await),
                None => bye.await,
            }
        });
        self.phase = RunPhase::Stopping { last, exit };
    }

    fn close_address(&self, state: ActorState) {
        if !self.order.report.is_abandoned() {
            self.meta().set_state(state);
        }
        // Only if it still is ours: an abandoned incarnation has a successor there.
        self.local.slot.up.compare_and_swap(&self.local.up, None);
    }

    /// Drops the context without letting actix call its hooks, which would run on a possibly corrupt state.
    fn drop_phase(&mut self) {
        if let RunPhase::Running(context) = &mut self.phase {
            actix::ActorContext::terminate(context.ctx());
        }
        self.phase = RunPhase::Over;
    }

    /// Takes everything down, each thing behind its own guard: a destructor that panics takes nothing with it.
    fn finish(&mut self, exit: Exit) {
        let exit = match exit {
            Exit::Failed(why) if self.meta().is_fenced(self.order.epoch) => Exit::Fenced(why),
            exit => exit,
        };
        let again = if self.stop { self.again } else { exit != Exit::Ignored && (self.order.restarts_after)(&exit) };
        self.close_address(if again { ActorState::Restarting } else { ActorState::Stopping });
        self.local.closed.set(true);
        *self.local.exit.borrow_mut() = Some(exit.clone()); // what the askers of the handler in hand will hear
        let mut panics = Vec::new();
        let in_hand = self.local.in_hand.try_borrow_mut().ok().and_then(|mut work| work.take());
        panics.extend(catch(|| drop(in_hand)).err());
        panics.extend(catch(|| self.drop_phase()).err());
        panics.extend(catch(|| drop(self.mailbox.take())).err());
        let inbox = std::mem::take(&mut *self.local.inbox.borrow_mut());
        for work in self.spawned.take().into_iter().flatten().chain(inbox) {
            panics.extend(catch(|| drop(work)).err());
        }
        let state = self.local.state.try_borrow_mut().ok().and_then(|mut s| s.take());
        panics.extend(catch(|| drop(state)).err());
        let exit = match panics.into_iter().next() {
            Some(what) if !exit.is_abnormal() => Exit::Panicked(format!("in a destructor: {what}")),
            _ => exit,
        };
        self.vitals().waited();
        if !self.order.report.is_abandoned() {
            self.meta().ended(&exit);
            if !again {
                self.meta().set_state(ActorState::Stopped); // only now: its state is dropped
            }
        }
        // Void when it was given up: its watchers were told then.
        self.meta().watchers.close(self.order.epoch, &exit);
        self.order.report.ended(exit);
    }
}

impl<A: Actor> Future for Incarnation<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.local.waker.borrow().will_wake(task.waker()) {
            *this.local.waker.borrow_mut() = task.waker().clone();
        }
        if this.order.report.is_abandoned() {
            this.finish(given_up());
            return Poll::Ready(());
        }
        this.vitals().enter();
        let end = catch(|| this.turn(task));
        this.vitals().leave();
        let exit = match end {
            Ok(Poll::Pending) => {
                this.busy_poll(task);
                return Poll::Pending;
            }
            Ok(Poll::Ready(exit)) => exit,
            Err(what) => Exit::Panicked(what),
        };
        this.finish(exit);
        Poll::Ready(())
    }
}

impl<A: Actor> Drop for Incarnation<A> {
    fn drop(&mut self) {
        if !matches!(self.phase, RunPhase::Over) {
            self.finish(Exit::Killed); // its arbiter stopped under it
        }
    }
}
