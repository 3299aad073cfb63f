//! Members that Lotus' answers have and our types leave out, because the provider does not need them.

use super::dispatch::to_json;
use super::envelope::RpcError;
use crate::chain::types::{Deadline, MinerInfo, SectorOnChainInfo, Version};
use serde_json::{Value, json};

/// Adds the members that are not there yet.
fn with(mut answer: Value, members: Value) -> Value {
    if let (Value::Object(answer), Value::Object(members)) = (&mut answer, members) {
        for (name, value) in members {
            answer.entry(name).or_insert(value);
        }
    }
    answer
}

pub fn version(v: Version) -> Result<Value, RpcError> {
    let agent = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));
    Ok(with(to_json(&v)?, json!({ "Agent": agent })))
}

/// A miner without a beneficiary agreement is its own owner's.
pub fn miner_info(info: MinerInfo) -> Result<Value, RpcError> {
    let members = json!({
        "PendingOwnerAddress": null,
        "Beneficiary": info.owner.to_string(),
        "BeneficiaryTerm": {"Quota": "0", "UsedQuota": "0", "Expiration": 0},
        "PendingBeneficiaryTerm": null,
    });
    Ok(with(to_json(&info)?, members))
}

/// A sector of committed capacity: no deal weighs.
pub fn sector(info: SectorOnChainInfo) -> Result<Value, RpcError> {
    Ok(with(to_json(&info)?, json!({"DealWeight": "0", "VerifiedDealWeight": "0", "ReplacedDayReward": null})))
}

pub fn sectors(list: Vec<SectorOnChainInfo>) -> Result<Vec<Value>, RpcError> {
    list.into_iter().map(sector).collect()
}

pub fn deadlines(list: Vec<Deadline>) -> Result<Vec<Value>, RpcError> {
    list.iter().map(|d| Ok(with(to_json(d)?, json!({"DailyFee": "0"})))).collect()
}
