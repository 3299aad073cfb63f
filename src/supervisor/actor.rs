//! The public face of an actor: traits, context, reference, call errors.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Who causes a side effect: an actor's path and its epoch (the incarnation on one node, the lease's in a cluster).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub path: Arc<str>,
    pub epoch: u64,
}

/// A request to an actor and what it answers.
pub trait Message: Send + 'static {
    type Reply: Send + 'static;
}

/// An actor's state. It may be `!Send`: it is built on, and never leaves, its arbiter's thread.
/// Handlers run one at a time to completion (OTP's serial handling), awaits included.
pub trait Actor: Sized + 'static {
    /// Runs before the first message; an error is a failed start.
    fn started(&mut self, _cx: &Cx<Self>) -> impl Future<Output = Result<(), Exit>> {
        async { Ok(()) }
    }
    /// Runs on an orderly stop, within the child spec's shutdown time; not after a panic or a kill.
    fn stopping(&mut self, _cx: &Cx<Self>) -> impl Future<Output = ()> {
        async {}
    }
}

pub trait Handler<M: Message>: Actor {
    /// An error ends the incarnation with that reason; the asker gets [`CallError::Exited`].
    fn handle(&mut self, message: M, cx: &Cx<Self>) -> impl Future<Output = Result<M::Reply, Exit>>;
}

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Exit {
    Normal,
    Shutdown,
    ShutdownWith(String),
    Failed(String),
    Panicked(String),
    Killed,
    Hung(String),
}

impl Exit {
    /// For `?` on any error inside a handler that must end the incarnation.
    pub fn failed(why: impl std::fmt::Display) -> Exit {
        Exit::Failed(why.to_string())
    }
}

/// Why a tell or an ask gave nothing; the message comes back where it was not delivered.
#[derive(Debug, thiserror::Error)]
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
}

/// An address that stays valid across restarts. Cheap to clone, `Send + Sync`.
pub struct Ref<A> {
    _a: PhantomData<fn(A)>,
}

impl<A> Clone for Ref<A> {
    fn clone(&self) -> Self {
        Ref { _a: PhantomData }
    }
}

impl<A: Actor> Ref<A> {
    /// An address for an actor that a child spec will run; `path` is its place in the tree's naming (`/t01000/window-post`).
    pub fn new(_path: impl Into<String>, _mailbox: usize) -> Ref<A> {
        todo!()
    }
    pub fn path(&self) -> &str {
        todo!()
    }
    /// Queues the message; never waits.
    pub fn tell<M: Message>(&self, _message: M) -> Result<(), CallError<M>>
    where
        A: Handler<M>,
    {
        todo!()
    }
    /// Asks and waits at most `within`. Usable from any async runtime.
    pub async fn ask<M: Message>(&self, _message: M, _within: Duration) -> Result<M::Reply, CallError<M>>
    where
        A: Handler<M>,
    {
        todo!()
    }
}

/// An address narrowed to one message: what a publisher holds of its subscribers.
pub struct Recipient<M: Message> {
    _m: PhantomData<fn(M)>,
}

impl<M: Message> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Recipient { _m: PhantomData }
    }
}

impl<M: Message> Recipient<M> {
    pub fn path(&self) -> &str {
        todo!()
    }
    pub fn tell(&self, _message: M) -> Result<(), CallError<M>> {
        todo!()
    }
}

impl<A: Actor> Ref<A> {
    pub fn recipient<M: Message>(&self) -> Recipient<M>
    where
        A: Handler<M>,
    {
        todo!()
    }
}

/// What an actor knows of itself, and what it can set going. Cheap to clone.
pub struct Cx<A> {
    _a: PhantomData<A>,
}

impl<A> Clone for Cx<A> {
    fn clone(&self) -> Self {
        Cx { _a: PhantomData }
    }
}

impl<A: Actor> Cx<A> {
    pub fn myself(&self) -> Ref<A> {
        todo!()
    }
    pub fn path(&self) -> &str {
        todo!()
    }
    /// 1 for the first start; grows with each restart, also over restarts of the process when the caller seeds it.
    pub fn incarnation(&self) -> u64 {
        todo!()
    }
    /// For the store and every other side effect.
    pub fn token(&self) -> Token {
        todo!()
    }
    /// Runs beside the handlers on this actor's thread; its output comes back as a message, ahead of the mailbox's bound.
    /// Ends with the incarnation; a panic in it ends the incarnation.
    pub fn spawn<M: Message>(&self, _work: impl Future<Output = M> + 'static)
    where
        A: Handler<M>,
    {
        todo!()
    }
    /// As `spawn`, without a message at the end.
    pub fn spawn_detached(&self, _work: impl Future<Output = ()> + 'static) {
        todo!()
    }
    /// A timer: `message` comes after `delay`. Ends with the incarnation.
    pub fn tell_after<M: Message>(&self, _delay: Duration, _message: M)
    where
        A: Handler<M>,
    {
        todo!()
    }
}
