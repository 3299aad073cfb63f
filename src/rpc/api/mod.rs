//! The StorageMiner API (`Filecoin.*` on `127.0.0.1:2345/rpc/v0`): what lotus-miner's clients and our own CLI call.
//!
//! `methods` names them, `types` has Lotus' shapes, `backend` is the node that answers. The JSON-RPC transport, tokens
//! and permissions are the generic server's; this folder only turns parameters into calls.

mod actor;
mod backend;
mod methods;
mod orders;
mod types;

pub use crate::rpc::server_actor::WhereIs;
pub use actor::{ApiConfig, ApiServer, child, start};
pub use backend::{BackendError, MinerBackend, ReportKind, SectorBrief, SectorsAsked};
pub use methods::{ALL as METHODS, Method};
pub use orders::{MessageOrder, MessageState, Order, Plan, PlannedMessage};
pub use types::{PieceInfo, SealRandomness, SectorId, SectorInfo, SectorLog, SectorPiece};

use crate::chain::lotus_json as lj;
use crate::rpc::auth::Perm;
use crate::rpc::full_node::pool::view::PoolChange;
use crate::rpc::server::{ExtraMethods, RpcError};
use crate::util::log_levels;
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

impl From<BackendError> for RpcError {
    fn from(why: BackendError) -> Self {
        RpcError::verdict(why.to_string())
    }
}

#[derive(Clone)]
pub struct StorageMinerApi {
    backend: Arc<dyn MinerBackend>,
}

impl StorageMinerApi {
    pub fn new(backend: Arc<dyn MinerBackend>) -> StorageMinerApi {
        StorageMinerApi { backend }
    }

    async fn run(&self, name: &str, method: Method, params: Vec<Value>) -> Result<Value, RpcError> {
        let params = Params::new(name, method, params)?;
        let backend = &self.backend;
        match method {
            Method::ActorAddress => json(backend.miner().to_string()),
            Method::ActorSectorSize => {
                let asked: String = params.get(0)?;
                match lj::address::parse(&asked) {
                    Err(why) => Err(params.wrong(0, why)),
                    Ok(miner) if miner != backend.miner() => Err(BackendError::OtherMiner(asked).into()),
                    Ok(_) => json(backend.sector_size().await?),
                }
            }
            Method::MiningBase => json(backend.mining_base().await?),
            Method::PledgeSector => {
                let number = backend.pledge_sector().await?;
                let miner = backend.miner().id().map_err(|e| BackendError::Failed(e.to_string()))?;
                json(SectorId { miner, number })
            }
            Method::SectorsList => json(numbers(backend.sectors().await?, |_| true)),
            Method::SectorsListInStates => {
                let states: Vec<String> = params.get(0)?;
                json(numbers(backend.sectors().await?, |sector| states.contains(&sector.state)))
            }
            Method::SectorsSummary => {
                let mut counts = BTreeMap::<String, u64>::new();
                for sector in backend.sectors().await? {
                    *counts.entry(sector.state).or_default() += 1;
                }
                json(counts)
            }
            Method::SectorsStatus => {
                let (number, on_chain): (u64, bool) = (params.get(0)?, params.get(1)?);
                json(backend.sector(number, on_chain).await?)
            }
            Method::RuntimeSubsystems => json(backend.subsystems()),
            Method::Version => json(backend.version()),
            Method::Shutdown => {
                tracing::info!(target: "audit", action = "stop", "API request");
                backend.shutdown();
                Ok(Value::Null)
            }
            Method::ActorCheck => json(backend.check_order(&params.required(0)?).await?),
            Method::ActorOrder => {
                let (order, request): (Order, String) = (params.required(0)?, params.required(1)?);
                tracing::info!(target: "audit", action = order.name(), request, ?order, "API request");
                json(backend.order(&order, &request).await?)
            }
            Method::Messages => Ok(backend.messages(params.required(0)?).await?),
            Method::MessageReplace => {
                let (key, max_fee): (String, Option<String>) = (params.required(0)?, params.required(1)?);
                tracing::info!(target: "audit", action = "replace message", key, max_fee, "API request");
                json(backend.replace_message(&key, max_fee.as_deref()).await?)
            }
            Method::MessageCancel => {
                let key: String = params.required(0)?;
                tracing::info!(target: "audit", action = "cancel message", key, "API request");
                json(backend.cancel_message(&key).await?)
            }
            Method::MessageStatus => json(backend.message_state(&params.required::<String>(0)?).await?),
            Method::LogList => json(log_levels::SYSTEMS.map(|(name, _)| name)),
            Method::LogSetLevel => {
                let (system, level): (String, String) = (params.required(0)?, params.required(1)?);
                tracing::info!(target: "audit", action = "set a log level", system, level, "API request");
                log_levels::set(&system, &level).map_err(|e| RpcError::verdict(e.to_string()))?;
                Ok(Value::Null)
            }
            Method::DaemonsSet => {
                let change: PoolChange = params.required(0)?;
                // Not `?change`: an added node has its token in it.
                tracing::info!(target: "audit", action = "change the pool of full nodes", "API request");
                json(backend.change_daemons(change).await?)
            }
            Method::DaemonsAuth => {
                tracing::info!(target: "audit", action = "read the full nodes' tokens", "API request");
                json(backend.daemons_auth().await?)
            }
            Method::DaemonsApiInfo => {
                let perm: Perm = params.required(0)?;
                tracing::info!(target: "audit", action = "make a token of the pool", perm = perm.name(), "API request");
                json(backend.daemons_api_info(perm).await?)
            }
            Method::Report(ReportKind::Sectors(_)) => Ok(backend.report(ReportKind::Sectors(params.get(0)?)).await?),
            Method::Report(report) => Ok(backend.report(report).await?),
        }
    }
}

#[async_trait]
impl ExtraMethods for StorageMinerApi {
    fn permission(&self, method: &str) -> Option<Perm> {
        Method::named(method).map(Method::permission)
    }
    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        Some(self.run(method, Method::named(method)?, params).await)
    }
}

fn numbers(sectors: Vec<SectorBrief>, keep: impl Fn(&SectorBrief) -> bool) -> Vec<u64> {
    sectors.into_iter().filter(keep).map(|sector| sector.number).collect()
}

fn json(answer: impl Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(answer).map_err(|e| RpcError::verdict(e.to_string()))
}

/// Positional parameters of the right count.
struct Params<'a> {
    name: &'a str,
    list: Vec<Value>,
}

impl<'a> Params<'a> {
    fn new(name: &'a str, method: Method, list: Vec<Value>) -> Result<Params<'a>, RpcError> {
        let want = method.arity();
        if (want..=want + method.optional()).contains(&list.len()) {
            return Ok(Params { name, list });
        }
        // The words of go-jsonrpc.
        Err(RpcError::invalid_params(format!("wrong param count (method '{name}'): {} != {want}", list.len())))
    }

    /// `null` is the empty value, as in Go.
    fn get<T: DeserializeOwned + Default>(&self, at: usize) -> Result<T, RpcError> {
        let value = self.list.get(at).cloned().unwrap_or_default();
        serde_json::from_value::<Option<T>>(value).map(Option::unwrap_or_default).map_err(|e| self.wrong(at, e))
    }

    fn required<T: DeserializeOwned>(&self, at: usize) -> Result<T, RpcError> {
        let value = self.list.get(at).cloned().unwrap_or_default();
        serde_json::from_value(value).map_err(|e| self.wrong(at, e))
    }

    fn wrong(&self, at: usize, why: impl std::fmt::Display) -> RpcError {
        RpcError::invalid_params(format!("{}: parameter {}: {why}", self.name, at + 1))
    }
}

#[cfg(test)]
mod tests;
