//! Methods that clients use and that are composed from the full node's others.

use super::envelope::RpcError;
use crate::chain::lotus_json;
use crate::chain::types::*;
use crate::rpc::full_node::FullNode;
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The context of a method.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    pub node: &'a dyn FullNode,
    pub pushing: &'a tokio::sync::Mutex<()>,
}

type Result<T> = std::result::Result<T, RpcError>;

/// `StateWaitMsg` gives up after this; a caller that wants to wait longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
/// Null rounds in a row that `ChainGetTipSetAfterHeight` looks through.
const MOST_NULL_ROUNDS: ChainEpoch = 1000;

/// `MessageSendSpec`. Forest insists on all three members; the last two change nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SendSpec {
    #[serde(with = "lotus_json::token")]
    pub max_fee: TokenAmount,
    #[serde(rename = "MsgUuid", deserialize_with = "uuid")]
    _msg_uuid: (),
    #[serde(rename = "MaximizeFeeCap")]
    _maximize_fee_cap: bool,
}

/// 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn uuid<'de, D: serde::Deserializer<'de>>(d: D) -> std::result::Result<(), D::Error> {
    let text = String::deserialize(d)?;
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &&str| group.bytes().all(|b| b.is_ascii_hexdigit());
    if groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hex) {
        return Ok(());
    }
    Err(serde::de::Error::custom(format!("{text:?} is no UUID")))
}

/// The union over all partitions of a miner.
#[derive(Default)]
pub struct AllPartitions {
    pub live: BitField,
    pub active: BitField,
    pub faulty: BitField,
    pub recovering: BitField,
}

pub async fn of_all_partitions(node: &dyn FullNode, miner: &Address, key: &TipSetKey) -> Result<AllPartitions> {
    let mut all = AllPartitions::default();
    // all reads at one tipset, also when the caller said "the head"
    let key = if key.0.is_empty() { node.chain_head().await?.key() } else { key.clone() };
    for index in 0..node.state_miner_deadlines(miner, &key).await?.len() as u64 {
        for partition in node.state_miner_partitions(miner, index, &key).await? {
            all.live |= &partition.live_sectors;
            all.active |= &partition.active_sectors;
            all.faulty |= &partition.faulty_sectors;
            all.recovering |= &partition.recovering_sectors;
        }
    }
    Ok(all)
}

pub async fn active_sectors(node: &dyn FullNode, miner: &Address, key: &TipSetKey) -> Result<Vec<SectorOnChainInfo>> {
    let active = of_all_partitions(node, miner, key).await?.active;
    if active.is_empty() {
        return Ok(Vec::new());
    }
    Ok(node.state_miner_sectors(miner, Some(&active), key).await?)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorCount {
    live: u64,
    active: u64,
    faulty: u64,
}

pub async fn sector_count(node: &dyn FullNode, miner: &Address, key: &TipSetKey) -> Result<SectorCount> {
    let all = of_all_partitions(node, miner, key).await?;
    Ok(SectorCount { live: all.live.len(), active: all.active.len(), faulty: all.faulty.len() })
}

/// The tipset at `height`, or the first one after it.
pub async fn tip_set_after_height(node: &dyn FullNode, height: ChainEpoch, key: &TipSetKey) -> Result<TipSet> {
    let base = if key.0.is_empty() { node.chain_head().await? } else { node.chain_get_tip_set(key).await? };
    if height > base.height {
        return Err(RpcError::verdict("looking for tipset with height greater than start point"));
    }
    let base_key = base.key();
    for at in height..base.height.min(height.saturating_add(MOST_NULL_ROUNDS)) {
        let found = node.chain_get_tip_set_by_height(at, &base_key).await?;
        if found.height >= height {
            return Ok(found);
        }
    }
    if base.height - height <= MOST_NULL_ROUNDS {
        return Ok(base);
    }
    Err(RpcError::verdict(format!("no tipset within {MOST_NULL_ROUNDS} epochs after {height}")))
}

pub async fn block(node: &dyn FullNode, cid: Cid) -> Result<BlockHeader> {
    let mut tip_set = node.chain_get_tip_set(&TipSetKey(vec![cid])).await?;
    Ok(tip_set.blocks.swap_remove(0))
}

/// Waits until the message is on chain under `confidence` epochs.
pub async fn wait_msg(
    node: &dyn FullNode,
    message: &Cid,
    confidence: u64,
    lookback: ChainEpoch,
    allow_replaced: bool,
) -> Result<MsgLookup> {
    let confidence = ChainEpoch::try_from(confidence).unwrap_or(ChainEpoch::MAX);
    let wait = async {
        let mut feed = node.chain_notify().await?;
        loop {
            let head = node.chain_head().await?;
            if let Some(found) = node.state_search_msg(&head.key(), message, lookback, allow_replaced).await?
                && head.height.saturating_sub(found.height) >= confidence
            {
                return Ok(found);
            }
            if feed.recv().await.is_none() {
                return Err(RpcError::verdict("the head feed ended while waiting for the message"));
            }
        }
    };
    let gave_up = || RpcError::verdict(format!("message {message} did not get there within {LONGEST_WAIT:?}"));
    tokio::time::timeout(LONGEST_WAIT, wait).await.unwrap_or_else(|_| Err(gave_up()))
}

/// Estimates what gas figures are missing, gives the next nonce, signs and pushes.
pub async fn push_message(c: Ctx<'_>, message: Message, spec: Option<SendSpec>) -> Result<SignedMessage> {
    if message.nonce != 0 {
        let said = format!("MpoolPushMessage expects message nonce to be 0, was {}", message.nonce);
        return Err(RpcError::verdict(said));
    }
    let head = TipSetKey::default();
    let max_fee = spec.map(|s| s.max_fee).unwrap_or_default();
    let from = c.node.state_account_key(&message.from, &head).await?;
    let _one_at_a_time = c.pushing.lock().await;
    let mut message = c.node.gas_estimate_message_gas(&message, &max_fee, &head).await?;
    message.from = from;
    message.nonce = c.node.mpool_get_nonce(&from).await?;
    let signed = c.node.wallet_sign_message(&from, &message).await?;
    c.node.mpool_push(&signed).await?;
    Ok(signed)
}
