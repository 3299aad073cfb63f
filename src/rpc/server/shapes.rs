//! Members that Lotus' answers have and our types leave out, because the provider does not need them.

use super::envelope::RpcError;
use super::json::to_json;
use crate::chain::types::{Deadline, MinerInfo, SectorOnChainInfo, Version};
use crate::rpc::json::try_json;
use serde_json::Value;

/// Adds the members that are not there yet.
fn with(mut answer: Value, members: serde_json::Result<Value>) -> Result<Value, RpcError> {
    let members = members.map_err(|e| RpcError::no_json(&e))?;
    if let (Value::Object(answer), Value::Object(members)) = (&mut answer, members) {
        for (name, value) in members {
            answer.entry(name).or_insert(value);
        }
    }
    Ok(answer)
}

/// Go writes a slice that was never filled as `null`, and so does Forest for most lists. Which method gives `[]` instead
/// differs between the two: a client must take either, so the chain gives the one that is harder to read.
pub fn no_empty_lists(answer: Value) -> Value {
    match answer {
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::Array(list) => list.into_iter().map(no_empty_lists).collect(),
        Value::Object(members) => members.into_iter().map(|(name, value)| (name, no_empty_lists(value))).collect(),
        other => other,
    }
}

pub fn version(v: Version) -> Result<Value, RpcError> {
    let agent = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));
    with(to_json(&v)?, try_json!({ "Agent": agent }))
}

/// A miner without a beneficiary agreement is its own owner's.
pub fn miner_info(info: MinerInfo) -> Result<Value, RpcError> {
    let term = try_json!({ "Quota": "0", "UsedQuota": "0", "Expiration": 0 }).map_err(|e| RpcError::no_json(&e))?;
    let members = try_json!({
        "PendingOwnerAddress": Value::Null,
        "Beneficiary": info.owner.to_string(),
        "BeneficiaryTerm": term,
        "PendingBeneficiaryTerm": Value::Null,
    });
    with(to_json(&info)?, members)
}

/// A sector of committed capacity: no deal weighs.
pub fn sector(info: SectorOnChainInfo) -> Result<Value, RpcError> {
    let members = try_json!({ "DealWeight": "0", "VerifiedDealWeight": "0", "ReplacedDayReward": Value::Null });
    with(to_json(&info)?, members)
}

pub fn sectors(list: Vec<SectorOnChainInfo>) -> Result<Vec<Value>, RpcError> {
    list.into_iter().map(sector).collect()
}

pub fn deadlines(list: Vec<Deadline>) -> Result<Vec<Value>, RpcError> {
    list.iter().map(|d| with(to_json(d)?, try_json!({ "DailyFee": "0" }))).collect()
}
