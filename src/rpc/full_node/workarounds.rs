//! Substitute calls for a full node that lacks a method, or leaves out what it should tell.

use super::node_client::{HttpFullNode, Params, addr, key, lacks, params};
use super::{FullNode, FullNodeError, Result};
use crate::chain::lotus_json::{CidJson, WholeBytes, WholeToken};
use crate::chain::types::{Message, MinerFunds, NetworkParams, TipSetKey};
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `MessageSendSpec`; Forest insists on all three members.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SendSpec {
    max_fee: WholeToken,
    msg_uuid: &'static str,
    maximize_fee_cap: bool,
}

/// A node that knows the method but not these parameters.
fn refused_params(e: &FullNodeError) -> bool {
    const INVALID_PARAMS: i64 = -32602;
    match e {
        FullNodeError::Rpc { code, message, .. } => {
            *code == INVALID_PARAMS || message.contains("unmarshaling params") || message.contains("invalid params")
        }
        _ => false,
    }
}

impl HttpFullNode {
    /// Older nodes leave members out or lack the method; what another call tells is filled in. What no call tells (the
    /// challenge delay) stays zero: who needs it says so and waits.
    pub(super) async fn network_params(&self) -> Result<NetworkParams> {
        const METHOD: &str = "Filecoin.StateGetNetworkParams";
        let mut params: NetworkParams = match self.call(METHOD, params![]).await {
            Err(e) if lacks(&e) => NetworkParams::default(),
            answer => answer?,
        };
        if params.network_name.is_empty() {
            params.network_name = self.state_network_name().await?;
        }
        if params.block_delay_secs == 0 {
            params.block_delay_secs = self.version().await?.block_delay;
        }
        if params.block_delay_secs == 0 {
            let why = "neither it nor Version tells the block delay".to_string();
            return Err(FullNodeError::BadAnswer { node: self.name(), method: METHOD, why });
        }
        if params.genesis_timestamp == 0 {
            // For those who show it; nothing depends on it.
            let genesis = self.chain_get_tip_set_by_height(0, &TipSetKey::default()).await;
            params.genesis_timestamp = genesis.map_or(0, |genesis| genesis.min_ticket_block().timestamp);
        }
        Ok(params)
    }

    /// `StateMinerAllocated`, read where it reads: the bitfield that the miner's state links to.
    pub(super) async fn allocated_in_state(&self, miner: &Address, k: &TipSetKey) -> Result<BitField> {
        #[derive(Deserialize)]
        struct Read {
            #[serde(rename = "State")]
            state: State,
        }
        #[derive(Deserialize)]
        struct State {
            #[serde(rename = "AllocatedSectors")]
            allocated: CidJson,
        }
        const OBJECT: &str = "Filecoin.ChainReadObj";
        let read: Read = self.call("Filecoin.StateReadState", params![addr(miner), key(k)]).await?;
        let WholeBytes(bytes) = self.call(OBJECT, params![read.state.allocated]).await?;
        fvm_ipld_encoding::from_slice(&bytes).map_err(|e| {
            let why = format!("allocated sector numbers: not a bitfield: {e}");
            FullNodeError::BadAnswer { node: self.name(), method: OBJECT, why }
        })
    }

    /// The funds of a miner: no call but this one tells pledge, deposits and debt.
    pub(super) async fn funds_in_state(&self, miner: &Address, k: &TipSetKey) -> Result<MinerFunds> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Read {
            balance: WholeToken,
            state: State,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct State {
            pre_commit_deposits: WholeToken,
            locked_funds: WholeToken,
            fee_debt: WholeToken,
            initial_pledge: WholeToken,
        }
        let read: Read = self.call("Filecoin.StateReadState", params![addr(miner), key(k)]).await?;
        Ok(MinerFunds {
            balance: read.balance.0,
            pre_commit_deposits: read.state.pre_commit_deposits.0,
            initial_pledge: read.state.initial_pledge.0,
            vesting: read.state.locked_funds.0,
            fee_debt: read.state.fee_debt.0,
        })
    }

    /// `MpoolGetNonce`: after what is on chain and what is pending.
    pub(super) async fn nonce_in_state(&self, who: &Address) -> Result<u64> {
        let head = self.chain_head().await?.key();
        let actor = self.state_get_actor(who, &head).await?;
        // As MpoolGetNonce says it.
        let no_actor = || FullNodeError::Rpc {
            node: self.name(),
            method: "Filecoin.StateGetActor",
            code: 1,
            message: format!("actor not found: {who}"),
        };
        let on_chain = actor.ok_or_else(no_actor)?.nonce;
        let pending = self.mpool_pending(&head).await?;
        let after = pending.iter().filter(|m| m.message.from == *who).map(|m| m.message.nonce.saturating_add(1)).max();
        Ok(after.unwrap_or(0).max(on_chain))
    }

    /// With the bound if the node takes it, else with the node's own; the sender holds its bound by itself.
    pub(super) async fn estimate_gas(
        &self,
        message: &Message,
        max_fee: &TokenAmount,
        k: &TipSetKey,
    ) -> Result<Message> {
        const METHOD: &str = "Filecoin.GasEstimateMessageGas";
        if !max_fee.is_zero() {
            let spec = SendSpec {
                max_fee: WholeToken(max_fee.clone()),
                msg_uuid: "00000000-0000-0000-0000-000000000000",
                maximize_fee_cap: false,
            };
            match self.call(METHOD, params![message, spec, key(k)]).await {
                Err(e) if refused_params(&e) => tracing::debug!(error = %e, "the node takes no bound on the fee"),
                answer => return answer,
            }
        }
        self.call(METHOD, params![message, Value::Null, key(k)]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complaints_about_parameters_are_asked_again_without_the_bound() {
        let rpc =
            |code, message: &str| FullNodeError::Rpc { node: "n".into(), method: "m", code, message: message.into() };
        assert!(refused_params(&rpc(-32602, "missing field `msgUuid`")));
        assert!(refused_params(&rpc(-32700, "unmarshaling params for 'X' (param: 1)")));
        assert!(!refused_params(&rpc(1, "message execution failed: exit code: 16, reason: invalid proof")));
        assert!(!refused_params(&FullNodeError::Unreachable { node: "n".into(), why: "refused".into() }));
    }
}
