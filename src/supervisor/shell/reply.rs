//! An asker's wait for its answer, with its deadline.

use super::super::actor::{CallError, Message};
use super::super::exit::Exit;
use super::linger::{self, Expect};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, Timeout, timeout_at};

type Answered<M> = Result<<M as Message>::Reply, CallError<M>>;

/// Who waits for an answer.
pub(super) enum ReplyTo<M: Message> {
    Near(oneshot::Sender<Answered<M>>),
    /// An asker in another process; whoever brought the message takes the answer back.
    Far {
        until: Option<std::time::Instant>,
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
            ReplyTo::Far { until, .. } => until.is_some_and(|until| until <= std::time::Instant::now()),
        }
    }
}

pub(super) type ReplyFrom<M> = oneshot::Receiver<Result<<M as Message>::Reply, CallError<M>>>;

/// `far`: the actor runs on another thread.
pub(super) async fn answer<M: Message>(
    mut from: ReplyFrom<M>,
    within: Duration,
    far: bool,
) -> Result<M::Reply, CallError<M>> {
    let asked = Instant::now();
    let deadline = deadline(asked, within);
    // Most answers come at once; a timer for each would cost more than they do.
    let mut soon = Soon { far, asked: asked.into_std(), looked: None };
    let early = poll_fn(|task| match Pin::new(&mut from).poll(task) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if within > linger::CHAT && soon.look_again(task) => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    });
    let answer = match early.await {
        Some(answer) => answer,
        None => by(deadline.into_std(), from).await.map_err(|_| CallError::Timeout)?,
    };
    answer.unwrap_or(Err(CallError::Exited(Exit::Killed)))
}

/// That long after `from`, which may be for ever.
pub(super) fn deadline(from: Instant, within: Duration) -> Instant {
    from.checked_add(within).unwrap_or_else(|| from + Duration::from_secs(86_400 * 365 * 30))
}

/// `work` until then. Off any tokio runtime the deadline is kept by a small one of our own.
pub(in crate::supervisor) fn by<F: Future>(deadline: std::time::Instant, work: F) -> Timeout<F> {
    let _guard = tokio::runtime::Handle::try_current().is_err().then(|| timers().enter());
    timeout_at(deadline.into(), work)
}

/// How often an asker looks before it sets its timer and sleeps.
struct Soon {
    far: bool,
    asked: std::time::Instant,
    looked: Option<Option<Expect>>,
}

impl Soon {
    fn look_again(&mut self, task: &mut Context<'_>) -> bool {
        match &mut self.looked {
            None if self.far => {
                let expect = Expect::answer(self.asked);
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

fn timers() -> &'static tokio::runtime::Runtime {
    static TIMERS: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    TIMERS.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ask-deadlines")
            .enable_time()
            .build()
            .expect("a thread for the deadlines of asks")
    })
}
