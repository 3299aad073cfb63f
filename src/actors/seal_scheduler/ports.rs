//! The seal scheduler's ports to other actors, as traits: an actor's address is one implementation, the plain engine
//! behind it another.

use crate::actors::seal_agent::SealAgent;
use crate::actors::sector_allocator::messages::Allocate;
use crate::actors::sector_allocator::{Allocator, SectorAllocator};
use crate::supervisor::Ref;
use async_trait::async_trait;
use std::time::Duration;

/// Answers come from the store; the deadline covers a restart of the other actor, which is waited for.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

#[async_trait(?Send)]
pub trait NumberSource {
    /// The same request gets the same number.
    async fn allocate(&self, request: &str) -> Result<u64, String>;
}

#[async_trait(?Send)]
impl NumberSource for Ref<SectorAllocator> {
    async fn allocate(&self, request: &str) -> Result<u64, String> {
        let answer = self.ask_when_up(Allocate { request: request.to_owned() }, ASK_TIMEOUT).await;
        answer.map_err(|e| format!("sector allocator: {e}"))?.map_err(|e| e.to_string())
    }
}

#[async_trait(?Send)]
impl NumberSource for Allocator {
    async fn allocate(&self, request: &str) -> Result<u64, String> {
        Allocator::allocate(self, request).await.map_err(|e| e.to_string())
    }
}

/// An agent that the directory names.
#[derive(Clone)]
pub struct Agent {
    pub name: String,
    /// Takes no new sectors.
    pub drained: bool,
    pub worker: Ref<SealAgent>,
}

pub trait Agents: Send + Sync + 'static {
    /// The agents that are registered now, or why that is not known.
    fn seen(&self) -> Result<Vec<Agent>, String>;
}

/// A node that was told of no directory.
pub struct NoAgents;

impl Agents for NoAgents {
    fn seen(&self) -> Result<Vec<Agent>, String> {
        Err("client: no endpoints available: set [SealAgent] EtcdAddrs in config.toml".into())
    }
}

/// For one process: agents that were put there by hand.
impl Agents for Vec<Agent> {
    fn seen(&self) -> Result<Vec<Agent>, String> {
        Ok(self.clone())
    }
}
