//! Child and supervisor specs: OTP's maps as structs, validated before anything starts.

use super::actor::{Actor, Cx, Ref};
use std::future::Future;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    Permanent,
    Transient,
    Temporary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    BrutalKill,
    Timeout(Duration),
    Infinity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    OneForOne,
    OneForAll,
    RestForOne,
}

/// Exponential, with jitter; resets after `reset_after` of uptime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub cap: Duration,
    pub reset_after: Duration,
}

/// Where an actor's handlers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thread {
    /// An arbiter of that name, shared with the actors that name it too.
    Shared(&'static str),
    /// An arbiter of its own: for actors that touch files or FFI.
    Dedicated,
}

/// A start that failed; `why` goes into the tree.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

#[derive(Debug, Clone, thiserror::Error)]
pub enum SpecError {
    #[error("supervisor {supervisor}: two children are called {id}")]
    DuplicateId { supervisor: String, id: String },
    #[error("{id}: {field}: {why}")]
    Field { id: String, field: &'static str, why: String },
}

pub struct ChildSpec {}

impl ChildSpec {
    /// Permanent worker on a shared arbiter `io`, shutdown 5 s, start timeout 30 s. `start` builds the state anew for each incarnation.
    pub fn actor<A, F, Fut>(_id: impl Into<String>, _address: &Ref<A>, _start: F) -> ChildSpec
    where
        A: Actor,
        F: Fn(Cx<A>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, StartError>> + 'static,
    {
        todo!()
    }
    pub fn supervisor(_spec: SupervisorSpec) -> ChildSpec {
        todo!()
    }
    pub fn restart(self, _restart: Restart) -> Self {
        todo!()
    }
    pub fn shutdown(self, _shutdown: Shutdown) -> Self {
        todo!()
    }
    pub fn on(self, _thread: Thread) -> Self {
        todo!()
    }
    pub fn start_timeout(self, _after: Duration) -> Self {
        todo!()
    }
}

pub struct SupervisorSpec {}

impl SupervisorSpec {
    /// one_for_one, intensity 3 within 60 s, backoff 200 ms doubling to 30 s, reset after 60 s.
    pub fn new(_id: impl Into<String>) -> SupervisorSpec {
        todo!()
    }
    pub fn strategy(self, _strategy: Strategy) -> Self {
        todo!()
    }
    pub fn intensity(self, _restarts: u32, _within: Duration) -> Self {
        todo!()
    }
    pub fn backoff(self, _backoff: Backoff) -> Self {
        todo!()
    }
    pub fn child(self, _child: ChildSpec) -> Self {
        todo!()
    }
    /// Children are added at run time through [`super::SupervisorRef`]; at most `max_children`.
    pub fn dynamic(self, _max_children: usize) -> Self {
        todo!()
    }
}
