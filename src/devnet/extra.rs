//! The server's methods beyond [`crate::rpc::full_node::FullNode`]: inspection of the chain, key import,
//! synchronisation state.

use super::Devnet;
use super::error::ChainError;
use super::keys::Secret;
use super::query_chain::receipt_json;
use super::wire;
use crate::chain::lotus_json::CidJson;
use crate::chain::lotus_json::bitfield::to_runs;
use crate::chain::types::*;
use crate::rpc::full_node::{FullNodeError, Result};
use crate::rpc::json::try_json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cid::Cid;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use serde_json::Value;
use std::time::Duration;

/// A caller of StateWaitMsg waits at most this long.
const WAIT_LIMIT: Duration = Duration::from_secs(600);

fn no_json(why: serde_json::Error) -> ChainError {
    ChainError::refused(format!("the answer has no JSON: {why}"))
}

impl Devnet {
    pub async fn chain_get_genesis(&self) -> Result<TipSet> {
        self.ask("ChainGetGenesis", |core| Ok(core.genesis.clone())).await
    }

    pub async fn chain_get_block(&self, block: &Cid) -> Result<BlockHeader> {
        let block = *block;
        self.ask("ChainGetBlock", move |core| super::rand::load_header(&core.store, &block)).await
    }

    /// `{BlsMessages, SecpkMessages, Cids}`.
    pub async fn chain_get_block_messages(&self, block: &Cid) -> Result<Value> {
        let block = *block;
        self.ask("ChainGetBlockMessages", move |core| {
            let header = super::rand::load_header(&core.store, &block)?;
            let (bls, secp256k1) = wire::block_messages(&core.store, &header.messages)?;
            let (mut plain, mut signed) = (Vec::new(), Vec::new());
            for cid in &bls {
                plain.push(wire::load_message(&core.store, cid)?);
            }
            for cid in &secp256k1 {
                let message = wire::load_message(&core.store, cid)?;
                signed.extend(core.signed(cid, message)?);
            }
            let cids: Vec<_> = bls.into_iter().chain(secp256k1).map(CidJson::from).collect();
            try_json!({ "BlsMessages": plain, "SecpkMessages": signed, "Cids": cids }).map_err(no_json)
        })
        .await
    }

    /// Receipts of the messages that a block's parents included.
    pub async fn chain_get_parent_receipts(&self, block: &Cid) -> Result<Vec<MessageReceipt>> {
        let block = *block;
        self.ask("ChainGetParentReceipts", move |core| {
            let ts = wire::tip_set(vec![super::rand::load_header(&core.store, &block)?])?;
            Ok(core.receipts(&ts)?.into_iter().map(receipt_json).collect())
        })
        .await
    }

    /// `[{Cid, Message}]`: the messages that a block's parents included.
    pub async fn chain_get_parent_messages(&self, block: &Cid) -> Result<Value> {
        let block = *block;
        self.ask("ChainGetParentMessages", move |core| {
            let header = super::rand::load_header(&core.store, &block)?;
            if header.parents.is_empty() {
                return Ok(Value::Array(Vec::new()));
            }
            let parents = core.find(&TipSetKey(header.parents))?;
            let rows = core.messages_of(&parents)?;
            let row = |(cid, m)| try_json!({ "Cid": CidJson::from(cid), "Message": m }).map_err(no_json);
            rows.into_iter().map(row).collect()
        })
        .await
    }

    pub async fn chain_get_message(&self, message: &Cid) -> Result<Message> {
        let message = *message;
        self.ask("ChainGetMessage", move |core| core.find_message(&message)).await
    }

    /// The raw block, base64.
    pub async fn chain_read_obj(&self, object: &Cid) -> Result<String> {
        let object = *object;
        self.ask("ChainReadObj", move |core| {
            let bytes = fvm_ipld_blockstore::Blockstore::get(&core.store, &object)?;
            let bytes = bytes.ok_or_else(|| ChainError::refused(format!("blockstore: block not found: {object}")))?;
            Ok(STANDARD.encode(bytes))
        })
        .await
    }

    pub async fn chain_has_obj(&self, object: &Cid) -> Result<bool> {
        let object = *object;
        self.ask("ChainHasObj", move |core| core.has_object(&object)).await
    }

    pub async fn beacon_get_entry(&self, epoch: ChainEpoch) -> Result<BeaconEntry> {
        self.ask("BeaconGetEntry", move |core| match u64::try_from(epoch) {
            Ok(round) if epoch <= core.head.height + 1 => core.beacon.entry(round),
            _ => Err(ChainError::refused(format!("no beacon entry for epoch {epoch} yet"))),
        })
        .await
    }

    pub async fn state_miner_active_sectors(&self, miner: &Address, key: &TipSetKey) -> Result<Vec<SectorOnChainInfo>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerActiveSectors", move |core| {
            let active = core.select_sectors(&miner, &key, |p| p.active_sectors())?;
            core.sectors(&miner, Some(&active), &key)
        })
        .await
    }

    /// `{Live, Active, Faulty}`.
    pub async fn state_miner_sector_count(&self, miner: &Address, key: &TipSetKey) -> Result<Value> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerSectorCount", move |core| {
            let live = core.select_sectors(&miner, &key, |p| p.live_sectors())?.len();
            let active = core.select_sectors(&miner, &key, |p| p.active_sectors())?.len();
            let faulty = core.select_sectors(&miner, &key, |p| p.faults.clone())?.len();
            try_json!({ "Live": live, "Active": active, "Faulty": faulty }).map_err(no_json)
        })
        .await
    }

    /// A bitfield as run lengths.
    pub async fn state_miner_faults(&self, miner: &Address, key: &TipSetKey) -> Result<Vec<u64>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerFaults", move |core| Ok(to_runs(&core.select_sectors(&miner, &key, |p| p.faults.clone())?)))
            .await
    }

    /// A bitfield as run lengths.
    pub async fn state_miner_recoveries(&self, miner: &Address, key: &TipSetKey) -> Result<Vec<u64>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerRecoveries", move |core| {
            Ok(to_runs(&core.select_sectors(&miner, &key, |p| p.recoveries.clone())?))
        })
        .await
    }

    pub async fn state_list_miners(&self, key: &TipSetKey) -> Result<Vec<Address>> {
        let key = key.clone();
        self.ask("StateListMiners", move |core| core.miners(&key)).await
    }

    /// `{Balance, Code, State}`; the state of miners only.
    pub async fn state_read_state(&self, who: &Address, key: &TipSetKey) -> Result<Value> {
        let (who, key) = (*who, key.clone());
        self.ask("StateReadState", move |core| core.miner_state_json(&who, &key)).await
    }

    /// The deposit for creating a miner.
    pub async fn state_miner_creation_deposit(&self, key: &TipSetKey) -> Result<TokenAmount> {
        let key = key.clone();
        self.ask("StateMinerCreationDeposit", move |core| core.creation_deposit(&key)).await
    }

    /// Runs a message without sending it: `{MsgRct, Error}`.
    pub async fn state_call(&self, message: &Message, key: &TipSetKey) -> Result<Value> {
        let (message, key) = (message.clone(), key.clone());
        self.ask("StateCall", move |core| {
            let applied = core.simulate(&message, &key)?;
            let (receipt, error) = (receipt_json(applied.receipt), applied.error.unwrap_or_default());
            try_json!({ "Msg": message, "MsgRct": receipt, "Error": error }).map_err(no_json)
        })
        .await
    }

    /// Waits until the message's receipt is `confidence` epochs deep.
    pub async fn state_wait_msg(
        &self,
        message: &Cid,
        confidence: u64,
        lookback: ChainEpoch,
        allow_replaced: bool,
    ) -> Result<MsgLookup> {
        let cid = *message;
        let search = async {
            let mut changes = self.changes().await;
            loop {
                let found = self
                    .ask("StateWaitMsg", move |core| {
                        let found = core.search_message(&TipSetKey::default(), &cid, lookback, allow_replaced)?;
                        let height = core.head.height;
                        Ok(found.filter(|f| height >= f.height.saturating_add_unsigned(confidence)))
                    })
                    .await?;
                if let Some(found) = found {
                    return Ok(found);
                }
                // Lagging behind only means looking again.
                let _ = changes.recv().await;
            }
        };
        let timeout = FullNodeError::Timeout { node: "devnet".into(), method: "StateWaitMsg", after: WAIT_LIMIT };
        tokio::time::timeout(WAIT_LIMIT, search).await.unwrap_or(Err(timeout))
    }

    /// `{Type, PrivateKey}` with the key in base64.
    pub async fn wallet_import(&self, kind: &str, private_key: &[u8]) -> Result<Address> {
        let (kind, bytes) = (kind.to_string(), private_key.to_vec());
        self.ask("WalletImport", move |core| {
            core.add_key(Secret::from_bytes(&kind, &bytes).map_err(ChainError::Refused)?)
        })
        .await
    }

    /// `{Type, PrivateKey}` with the key in base64.
    pub async fn wallet_export(&self, who: &Address) -> Result<Value> {
        let who = *who;
        self.ask("WalletExport", move |core| {
            let (kind, bytes) = core.export_key(&who)?;
            try_json!({ "Type": kind, "PrivateKey": STANDARD.encode(bytes) }).map_err(no_json)
        })
        .await
    }

    pub async fn wallet_set_default(&self, who: &Address) -> Result<()> {
        let who = *who;
        self.ask("WalletSetDefault", move |core| {
            if !core.wallet.contains_key(&who) {
                return Err(ChainError::refused(format!("key not found in the wallet: {who}")));
            }
            let mut batch = super::store::Batch::default();
            batch.put(super::store::Table::Meta, "default", who.to_bytes());
            core.store.commit(&batch)?;
            core.default_address = Some(who);
            Ok(())
        })
        .await
    }

    /// Always complete: there is nobody to sync from.
    pub async fn sync_state(&self) -> Result<Value> {
        self.ask("SyncState", |core| {
            let never = "0001-01-01T00:00:00Z";
            let sync = try_json!({
                "WorkerID": 1, "Base": core.genesis, "Target": core.head, "Stage": 4,
                "Height": core.head.height, "Start": never, "End": never, "Message": ""
            });
            try_json!({ "ActiveSyncs": [sync.map_err(no_json)?], "VMApplied": 0 }).map_err(no_json)
        })
        .await
    }
}
