//! Sectors as the commands read and show them.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The fields that we read of Lotus' `api.SectorInfo`.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct SectorInfo {
    #[serde(rename = "SectorID")]
    pub sector_id: u64,
    pub state: String,
    #[serde(default, deserialize_with = "cid_text")]
    pub comm_r: Option<String>,
    #[serde(default, deserialize_with = "cid_text")]
    pub comm_d: Option<String>,
    #[serde(default)]
    pub ticket: Option<Randomness>,
    #[serde(default)]
    pub seed: Option<Randomness>,
    #[serde(default, deserialize_with = "cid_text")]
    pub pre_commit_msg: Option<String>,
    #[serde(default, deserialize_with = "cid_text")]
    pub commit_msg: Option<String>,
    #[serde(default)]
    pub activation: i64,
    #[serde(default)]
    pub expiration: i64,
    #[serde(default)]
    pub last_err: String,
    #[serde(default)]
    pub waits_for: String,
    #[serde(default, deserialize_with = "nullable")]
    pub log: Vec<LogEntry>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct Randomness {
    #[serde(default)]
    pub epoch: i64,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "PascalCase")]
pub struct LogEntry {
    #[serde(default)]
    pub kind: String,
    /// Unix seconds.
    #[serde(default)]
    pub timestamp: u64,
    #[serde(default)]
    pub message: String,
}

/// A row of `sectors list`.
#[derive(Serialize, Clone, Debug)]
pub struct SectorLine {
    pub number: u64,
    pub state: String,
    /// 0: not on chain yet, or not known.
    pub activation: i64,
    pub expiration: i64,
    /// Empty while nothing is wrong.
    pub last_error: String,
    /// Unix milliseconds of the entry into the state.
    pub since: u64,
    pub node: String,
    pub waits_for: String,
}

/// `{"/": "bafy.."}` or null.
fn cid_text<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(d)?;
    Ok(value.and_then(|v| v.get("/").and_then(Value::as_str).map(str::to_string)))
}

fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}
