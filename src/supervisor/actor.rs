//! The public face of an actor: traits, tokens, call errors.

use super::exit::Exit;
use super::shell::Cx;
use super::wire::WireForm;
use std::future::Future;
use std::sync::Arc;

/// The author of a side effect: an actor's path and its epoch (the incarnation on one node, the lease's in a cluster).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub path: Arc<str>,
    pub epoch: u64,
}

/// A request to an actor and what it answers.
pub trait Message: Sized + Send + 'static {
    type Reply: Send + 'static;
    /// How it crosses to another process; without one it stays in this one.
    const WIRE: Option<WireForm<Self>> = None;
}

/// An actor's state. It may be `!Send`: it is built on, and never leaves, its arbiter's thread.
/// Handlers run one at a time to completion (OTP's serial handling), awaits included.
pub trait Actor: Sized + 'static {
    /// Runs before the first message; an error is a failed start.
    fn started(&mut self, _cx: &Cx<Self>) -> impl Future<Output = Result<(), Exit>> {
        async { Ok(()) }
    }
    /// The state that an operator is shown: never keys or tokens. `None`: nothing. Called between two messages, ahead
    /// of the mailbox; it must not block. A panic in it is reported to the asker, and ends nothing.
    fn inspect(&self) -> Option<serde_json::Value> {
        None
    }
    /// Runs on an orderly stop, within the child spec's shutdown time; not after a panic or a kill.
    fn stopping(&mut self, _cx: &Cx<Self>) -> impl Future<Output = ()> {
        async {}
    }
}

/// New settings for an actor that runs, which it takes without a restart. Whoever sends them sees to it that the next
/// incarnation starts with them too.
#[derive(Clone, Debug)]
pub struct Reconfigure<S>(pub S);

impl<S: Send + 'static> Message for Reconfigure<S> {
    /// Why it goes on by the old ones.
    type Reply = Result<(), String>;
}

pub trait Handler<M: Message>: Actor {
    /// An error ends the incarnation with that reason; the asker gets [`CallError::Exited`].
    fn handle(&mut self, message: M, cx: &Cx<Self>) -> impl Future<Output = Result<M::Reply, Exit>>;
}

/// Why a tell or an ask gave nothing; the message comes back where it was not delivered.
#[derive(thiserror::Error)]
pub enum CallError<M> {
    #[error("the actor is not running")]
    NotRunning(M),
    #[error("the actor is restarting")]
    Restarting(M),
    #[error("the actor's mailbox is full")]
    Full(M),
    #[error("no answer within the deadline")]
    Timeout,
    #[error("the actor panicked while it held the message")]
    Panicked,
    #[error("the actor ended while it held the message: {0:?}")]
    Exited(Exit),
    /// The message, if it was not sent; one that was sent may have been handled.
    #[error("the actor's node is down or cannot be reached")]
    NodeDown(Option<M>),
    #[error("the actor has moved: it is held under another epoch than was believed here")]
    Fenced(M),
    #[error("the message is not taken there: {1}")]
    Refused(M, String),
}

impl<M> CallError<M> {
    /// The message, where it was not delivered.
    pub fn into_message(self) -> Option<M> {
        match self {
            CallError::NotRunning(m) | CallError::Restarting(m) | CallError::Full(m) => Some(m),
            CallError::Fenced(m) | CallError::Refused(m, _) => Some(m),
            CallError::NodeDown(m) => m,
            CallError::Timeout | CallError::Panicked | CallError::Exited(_) => None,
        }
    }

    /// The same reason without the message.
    pub fn drop_message(self) -> CallError<()> {
        match self {
            CallError::NotRunning(_) => CallError::NotRunning(()),
            CallError::Restarting(_) => CallError::Restarting(()),
            CallError::Full(_) => CallError::Full(()),
            CallError::Timeout => CallError::Timeout,
            CallError::Panicked => CallError::Panicked,
            CallError::Exited(exit) => CallError::Exited(exit),
            CallError::NodeDown(m) => CallError::NodeDown(m.map(drop)),
            CallError::Fenced(_) => CallError::Fenced(()),
            CallError::Refused(_, why) => CallError::Refused((), why),
        }
    }
}

/// Says the reason, not the message: a message need not be printable to be sent.
impl<M> std::fmt::Debug for CallError<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::NotRunning(_) => f.write_str("NotRunning"),
            CallError::Restarting(_) => f.write_str("Restarting"),
            CallError::Full(_) => f.write_str("Full"),
            CallError::Timeout => f.write_str("Timeout"),
            CallError::Panicked => f.write_str("Panicked"),
            CallError::Exited(exit) => f.debug_tuple("Exited").field(exit).finish(),
            CallError::NodeDown(_) => f.write_str("NodeDown"),
            CallError::Fenced(_) => f.write_str("Fenced"),
            CallError::Refused(_, why) => f.debug_tuple("Refused").field(why).finish(),
        }
    }
}
