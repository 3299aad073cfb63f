//! An asker's wait for its answer, with its deadline.

use super::super::actor::{CallError, Message};
use super::super::exit::Exit;
use super::busy_poll::{self, ReplySpin};
use super::deadlines::Deadline;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// For a deadline that no clock can express.
const AGES: Duration = Duration::from_secs(86_400 * 365 * 30);

type Answered<M> = Result<<M as Message>::Reply, CallError<M>>;

/// The waiter for an answer.
pub(super) enum ReplyTo<M: Message> {
    Near(oneshot::Sender<Answered<M>>),
    /// An asker in another process; whoever brought the message takes the answer back.
    Far {
        until: Option<Instant>,
        to: Box<dyn FnOnce(Answered<M>) + Send>,
    },
}

impl<M: Message> ReplyTo<M> {
    /// An asker that has given up does not listen.
    pub fn send(self, answer: Answered<M>) {
        match self {
            ReplyTo::Near(to) => drop(to.send(answer)),
            ReplyTo::Far { to, .. } => to(answer),
        }
    }
    /// Nobody waits any more.
    pub fn is_closed(&self) -> bool {
        match self {
            ReplyTo::Near(to) => to.is_closed(),
            ReplyTo::Far { until, .. } => until.is_some_and(|until| until <= Instant::now()),
        }
    }
}

pub(super) type ReplyFrom<M> = oneshot::Receiver<Result<<M as Message>::Reply, CallError<M>>>;

/// `remote_send`: the actor runs on another thread.
pub(super) async fn answer<M: Message>(
    mut from: ReplyFrom<M>,
    within: Duration,
    far: bool,
) -> Result<M::Reply, CallError<M>> {
    let asked = Instant::now();
    // Most answers come at once: first it looks, then it sets a deadline.
    let mut soon = Soon { far, asked, looked: None };
    let mut limit: Option<Deadline> = None;
    poll_fn(|task| {
        if let Poll::Ready(answer) = Pin::new(&mut from).poll(task) {
            return Poll::Ready(answer.unwrap_or(Err(CallError::Exited(Exit::Killed))));
        }
        match &limit {
            Some(limit) if limit.has_passed(task) => return Poll::Ready(Err(CallError::Timeout)),
            Some(_) => {}
            None if within > busy_poll::CALL_SPIN && soon.look_again(task) => {}
            None => limit = Some(Deadline::set(deadline(asked, within), task)),
        }
        Poll::Pending
    })
    .await
}

/// That long after `from`, which may be for ever.
pub(super) fn deadline(from: Instant, within: Duration) -> Instant {
    from.checked_add(within).unwrap_or(from + AGES)
}

/// The result of `work`, if it comes until then. Needs no runtime.
pub(in crate::supervisor) async fn by<F: Future>(until: Instant, work: F) -> Option<F::Output> {
    let (mut work, mut deadline) = (pin!(work), None);
    poll_fn(|task| {
        if let Poll::Ready(done) = work.as_mut().poll(task) {
            return Poll::Ready(Some(done));
        }
        match deadline.get_or_insert_with(|| Deadline::set(until, task)).has_passed(task) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    })
    .await
}

/// How often an asker looks before it sets its deadline and sleeps.
struct Soon {
    far: bool,
    asked: Instant,
    looked: Option<Option<ReplySpin>>,
}

impl Soon {
    fn look_again(&mut self, task: &mut Context<'_>) -> bool {
        match &mut self.looked {
            None if self.far => {
                let expect = ReplySpin::answer(self.asked);
                self.looked.insert(expect).as_mut().is_some_and(|e| e.goes_on(task))
            }
            None => {
                // On the actor's own thread one more turn is enough: the actor is ahead of us in the queue.
                self.looked = Some(None);
                task.waker().wake_by_ref();
                true
            }
            Some(expect) => expect.as_mut().is_some_and(|e| e.goes_on(task)),
        }
    }
}
