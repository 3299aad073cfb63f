//! A real full node (Lotus, Forest, Venus, our devnet) behind the trait: HTTP for calls, a WebSocket for the head feed.

use super::capabilities::Probes;
use super::node_client::{HttpFullNode, Missing, Params, Way, addr, key, lacks, params};
use super::pool::NodePool;
use super::{FullNode, FullNodeError, GossipPeers, RandomnessTag, Result, feed, sync};
use crate::chain::lotus_json::{WholeAddress, WholeAddresses, WholeBigInt, WholeBitField, WholeBytes, WholeCid};
use crate::chain::lotus_json::{WholeOptAddress, WholeToken};
use crate::chain::types::*;
use async_trait::async_trait;
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Nodes that answer "there is none" with an error instead of `null`.
fn none_if_said<T>(answer: Result<Option<T>>, phrases: &[&str]) -> Result<Option<T>> {
    match answer {
        Err(FullNodeError::Rpc { message, .. }) if phrases.iter().any(|p| message.contains(p)) => Ok(None),
        other => other,
    }
}

#[async_trait]
impl FullNode for HttpFullNode {
    fn name(&self) -> String {
        match &self.way {
            Way::One { info, .. } => info.name(),
            Way::Pool(calls) => calls.name(),
        }
    }

    fn pool(&self) -> Option<&NodePool> {
        match &self.way {
            Way::One { .. } => None,
            Way::Pool(calls) => Some(calls.pool()),
        }
    }

    fn pinned_for(&self, method: &'static str) -> Option<Arc<dyn FullNode>> {
        let Way::Pool(calls) = &self.way else { return None };
        let limits = self.limits;
        let calls = calls.pinned_for(method)?;
        Some(Arc::new(HttpFullNode { way: Way::Pool(Arc::new(calls)), limits, probes: Probes::default() }))
    }

    async fn missing_methods(&self) -> Result<Vec<Missing>> {
        self.probes.missing(self).await
    }
    async fn version(&self) -> Result<Version> {
        self.call("Filecoin.Version", params![]).await
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.call("Filecoin.ChainHead", params![]).await
    }
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        match &self.way {
            Way::One { info, .. } => feed::subscribe(info, &self.limits).await,
            Way::Pool(calls) => {
                let method = "Filecoin.ChainNotify";
                let lone = calls.pinned_for(method).and_then(|one| one.address());
                let none = || FullNodeError::Unreachable { node: self.name(), why: calls.pool().why_none() };
                feed::subscribe(&lone.ok_or_else(none)?, &self.limits).await
            }
        }
    }
    async fn chain_get_tip_set(&self, k: &TipSetKey) -> Result<TipSet> {
        self.call("Filecoin.ChainGetTipSet", params![key(k)]).await
    }
    async fn chain_get_tip_set_by_height(&self, height: ChainEpoch, k: &TipSetKey) -> Result<TipSet> {
        self.call("Filecoin.ChainGetTipSetByHeight", params![height, key(k)]).await
    }
    async fn chain_tip_set_weight(&self, k: &TipSetKey) -> Result<num_bigint::BigInt> {
        self.call("Filecoin.ChainTipSetWeight", params![key(k)]).await.map(|WholeBigInt(n)| n)
    }

    async fn sync_behind(&self) -> Result<Option<ChainEpoch>> {
        match self.call::<sync::SyncState>("Filecoin.SyncState", params![]).await {
            Err(error) if error.is_missing_method() => Ok(None), // Forest
            answer => answer.map(|state| Some(state.behind())),
        }
    }
    async fn gossip_peers(&self) -> Result<Option<GossipPeers>> {
        match self.call::<Vec<sync::PubsubScore>>("Filecoin.NetPubsubScores", params![]).await {
            Err(error) if error.is_missing_method() => Ok(None), // Forest, the devnet
            answer => answer.map(|scores| Some(sync::gossip_peers(&scores))),
        }
    }

    async fn state_network_name(&self) -> Result<String> {
        self.call("Filecoin.StateNetworkName", params![]).await
    }
    async fn state_network_version(&self, k: &TipSetKey) -> Result<u32> {
        self.call("Filecoin.StateNetworkVersion", params![key(k)]).await
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.network_params().await
    }
    async fn state_get_actor(&self, who: &Address, k: &TipSetKey) -> Result<Option<OnChainActor>> {
        match self.call("Filecoin.StateGetActor", params![addr(who), key(k)]).await {
            Err(e) if e.names_no_actor() => Ok(None),
            answer => answer,
        }
    }
    async fn state_lookup_id(&self, who: &Address, k: &TipSetKey) -> Result<Address> {
        self.call("Filecoin.StateLookupID", params![addr(who), key(k)]).await.map(|WholeAddress(a)| a)
    }
    async fn state_account_key(&self, who: &Address, k: &TipSetKey) -> Result<Address> {
        self.call("Filecoin.StateAccountKey", params![addr(who), key(k)]).await.map(|WholeAddress(a)| a)
    }

    async fn state_miner_info(&self, miner: &Address, k: &TipSetKey) -> Result<MinerInfo> {
        self.call("Filecoin.StateMinerInfo", params![addr(miner), key(k)]).await
    }
    async fn state_miner_power(&self, miner: &Address, k: &TipSetKey) -> Result<MinerPower> {
        self.call("Filecoin.StateMinerPower", params![addr(miner), key(k)]).await
    }
    async fn state_miner_available_balance(&self, miner: &Address, k: &TipSetKey) -> Result<TokenAmount> {
        self.call("Filecoin.StateMinerAvailableBalance", params![addr(miner), key(k)]).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_funds(&self, miner: &Address, k: &TipSetKey) -> Result<MinerFunds> {
        self.funds_in_state(miner, k).await
    }
    async fn state_miner_proving_deadline(&self, miner: &Address, k: &TipSetKey) -> Result<DeadlineInfo> {
        self.call("Filecoin.StateMinerProvingDeadline", params![addr(miner), key(k)]).await
    }
    async fn state_miner_deadlines(&self, miner: &Address, k: &TipSetKey) -> Result<Vec<Deadline>> {
        self.list("Filecoin.StateMinerDeadlines", params![addr(miner), key(k)]).await
    }
    async fn state_miner_partitions(&self, miner: &Address, deadline: u64, k: &TipSetKey) -> Result<Vec<Partition>> {
        self.list("Filecoin.StateMinerPartitions", params![addr(miner), deadline, key(k)]).await
    }
    async fn state_miner_sectors(
        &self,
        miner: &Address,
        numbers: Option<&BitField>,
        k: &TipSetKey,
    ) -> Result<Vec<SectorOnChainInfo>> {
        let filter = numbers.map(|b| WholeBitField(b.clone()));
        self.list("Filecoin.StateMinerSectors", params![addr(miner), filter, key(k)]).await
    }
    async fn state_miner_allocated(&self, miner: &Address, k: &TipSetKey) -> Result<BitField> {
        match self.call("Filecoin.StateMinerAllocated", params![addr(miner), key(k)]).await {
            Err(e) if lacks(&e) => self.allocated_in_state(miner, k).await,
            answer => answer.map(|WholeBitField(b)| b),
        }
    }
    async fn state_miner_pre_commit_deposit_for_power(
        &self,
        miner: &Address,
        info: &SectorPreCommitInfo,
        k: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = params![addr(miner), info, key(k)];
        self.call("Filecoin.StateMinerPreCommitDepositForPower", params).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_initial_pledge_collateral(
        &self,
        miner: &Address,
        info: &SectorPreCommitInfo,
        k: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = params![addr(miner), info, key(k)];
        self.call("Filecoin.StateMinerInitialPledgeCollateral", params).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_initial_pledge_for_sector(
        &self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        k: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = params![duration, sector_size, verified_size, key(k)];
        self.call("Filecoin.StateMinerInitialPledgeForSector", params).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_creation_deposit(&self, k: &TipSetKey) -> Result<TokenAmount> {
        self.call("Filecoin.StateMinerCreationDeposit", params![key(k)]).await.map(|WholeToken(t)| t)
    }
    async fn state_sector_pre_commit_info(
        &self,
        miner: &Address,
        number: u64,
        k: &TipSetKey,
    ) -> Result<Option<SectorPreCommitOnChainInfo>> {
        let answer = self.call("Filecoin.StateSectorPreCommitInfo", params![addr(miner), number, key(k)]).await;
        none_if_said(answer, &["precommit info does not exist", "precommit info is not exists"])
    }
    async fn state_sector_get_info(
        &self,
        miner: &Address,
        number: u64,
        k: &TipSetKey,
    ) -> Result<Option<SectorOnChainInfo>> {
        self.call("Filecoin.StateSectorGetInfo", params![addr(miner), number, key(k)]).await
    }
    async fn state_sector_partition(&self, miner: &Address, number: u64, k: &TipSetKey) -> Result<SectorLocation> {
        self.call("Filecoin.StateSectorPartition", params![addr(miner), number, key(k)]).await
    }

    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        k: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.randomness("Filecoin.StateGetRandomnessFromTickets", tag, epoch, entropy, k).await
    }
    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        k: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.randomness("Filecoin.StateGetRandomnessFromBeacon", tag, epoch, entropy, k).await
    }

    async fn state_search_msg(
        &self,
        from: &TipSetKey,
        message: &Cid,
        lookback: ChainEpoch,
        allow_replaced: bool,
    ) -> Result<Option<MsgLookup>> {
        let params = params![key(from), WholeCid(*message), lookback, allow_replaced];
        self.call("Filecoin.StateSearchMsg", params).await
    }

    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        match self.call("Filecoin.MpoolGetNonce", params![addr(who)]).await {
            Err(e) if lacks(&e) => self.nonce_in_state(who).await,
            answer => answer,
        }
    }
    async fn mpool_push(&self, message: &SignedMessage) -> Result<Cid> {
        self.call("Filecoin.MpoolPush", params![message]).await.map(|WholeCid(c)| c)
    }
    async fn mpool_pending(&self, k: &TipSetKey) -> Result<Vec<SignedMessage>> {
        // One message of a kind that we do not know must not hide the others.
        let pending: Vec<Value> = self.list("Filecoin.MpoolPending", params![key(k)]).await?;
        Ok(pending.into_iter().filter_map(|m| serde_json::from_value(m).ok()).collect())
    }
    async fn mpool_select(&self, k: &TipSetKey, ticket_quality: f64) -> Result<Vec<SignedMessage>> {
        self.list("Filecoin.MpoolSelect", params![key(k), ticket_quality]).await
    }
    async fn gas_estimate_message_gas(
        &self,
        message: &Message,
        max_fee: &TokenAmount,
        k: &TipSetKey,
    ) -> Result<Message> {
        self.estimate_gas(message, max_fee, k).await
    }

    async fn wallet_has(&self, who: &Address) -> Result<bool> {
        match self.call("Filecoin.WalletHas", params![addr(who)]).await {
            // Whether it has the key shows when it is to sign.
            Err(e) if lacks(&e) => Ok(true),
            answer => answer,
        }
    }
    async fn wallet_list(&self) -> Result<Vec<Address>> {
        self.call("Filecoin.WalletList", params![]).await.map(|WholeAddresses(list)| list)
    }
    async fn wallet_new(&self, kind: &str) -> Result<Address> {
        self.call("Filecoin.WalletNew", params![kind]).await.map(|WholeAddress(a)| a)
    }
    async fn wallet_balance(&self, who: &Address) -> Result<TokenAmount> {
        self.call("Filecoin.WalletBalance", params![addr(who)]).await.map(|WholeToken(t)| t)
    }
    async fn wallet_default_address(&self) -> Result<Option<Address>> {
        let answer = self.call("Filecoin.WalletDefaultAddress", params![]).await;
        none_if_said(answer.map(|WholeOptAddress(a)| a), &["failed to get default key"])
    }
    async fn wallet_sign(&self, who: &Address, bytes: &[u8]) -> Result<Signature> {
        self.call("Filecoin.WalletSign", params![addr(who), WholeBytes(bytes.to_vec())]).await
    }
    async fn wallet_sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage> {
        self.call("Filecoin.WalletSignMessage", params![addr(who), message]).await
    }

    async fn miner_get_base_info(
        &self,
        miner: &Address,
        epoch: ChainEpoch,
        k: &TipSetKey,
    ) -> Result<Option<MiningBaseInfo>> {
        self.call("Filecoin.MinerGetBaseInfo", params![addr(miner), epoch, key(k)]).await
    }
    async fn miner_create_block(&self, template: &BlockTemplate) -> Result<BlockMsg> {
        self.call("Filecoin.MinerCreateBlock", params![template]).await
    }
    async fn sync_submit_block(&self, block: &BlockMsg) -> Result<()> {
        // Lotus answers null; the documentation shows {}: either is fine
        self.call::<Value>("Filecoin.SyncSubmitBlock", params![block]).await.map(|_| ())
    }

    async fn f3_get_or_renew_participation_ticket(
        &self,
        miner: &Address,
        previous: &[u8],
        instances: u64,
    ) -> Result<Vec<u8>> {
        let params = params![addr(miner), WholeBytes(previous.to_vec()), instances];
        self.call("Filecoin.F3GetOrRenewParticipationTicket", params).await.map(|WholeBytes(ticket)| ticket)
    }
    async fn f3_participate(&self, ticket: &[u8]) -> Result<F3Lease> {
        self.call("Filecoin.F3Participate", params![WholeBytes(ticket.to_vec())]).await
    }
    async fn f3_get_progress(&self) -> Result<F3Progress> {
        self.call("Filecoin.F3GetProgress", params![]).await
    }
    async fn f3_get_manifest(&self) -> Result<Option<F3Manifest>> {
        self.call("Filecoin.F3GetManifest", params![]).await
    }
}

impl HttpFullNode {
    /// Go writes an empty list as `null`.
    async fn list<T: DeserializeOwned + Send + 'static>(&self, method: &'static str, params: Params) -> Result<Vec<T>> {
        self.call::<Option<Vec<T>>>(method, params).await.map(Option::unwrap_or_default)
    }

    async fn randomness(
        &self,
        method: &'static str,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        k: &TipSetKey,
    ) -> Result<Vec<u8>> {
        let params = params![tag as i64, epoch, WholeBytes(entropy.to_vec()), key(k)];
        let WholeBytes(bytes) = self.call(method, params).await?;
        if bytes.len() == 32 {
            return Ok(bytes);
        }
        let why = format!("{} bytes of randomness instead of 32", bytes.len());
        Err(FullNodeError::BadAnswer { node: self.name(), method, why })
    }
}
