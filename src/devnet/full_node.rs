//! The devnet as a full node: every method hops to a blocking thread and asks the chain under its lock.

use super::Devnet;
use super::core::Core;
use super::error::{ChainError, ChainResult};
use super::f3::Leaser;
use super::keys::Secret;
use crate::chain::types::*;
use crate::rpc::full_node::{FullNode, FullNodeError, RandomnessTag, Result};
use async_trait::async_trait;
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use tokio::sync::mpsc;

/// Lotus' full API v1, 2.3.0.
const API_VERSION: u64 = 0x02_03_00;
pub(super) const NAME: &str = "devnet";

impl Devnet {
    /// Runs `f` on the chain, away from the async threads.
    pub(super) async fn ask<T, F>(&self, method: &'static str, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Core) -> ChainResult<T> + Send + 'static,
    {
        let core = self.core.clone();
        let asked = tokio::task::spawn_blocking(move || f(&mut super::lock(&core))).await;
        let error = |code, message: String| FullNodeError::Rpc { node: NAME.into(), method, code, message };
        match asked {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => Err(error(e.code(), e.to_string())),
            Err(e) => Err(error(1, format!("internal error: {e}"))),
        }
    }
}

#[async_trait]
impl FullNode for Devnet {
    fn name(&self) -> String {
        NAME.into()
    }

    async fn version(&self) -> Result<Version> {
        self.ask("Version", |core| {
            Ok(Version {
                version: format!("bulkhead-devnet-{}", env!("CARGO_PKG_VERSION")),
                api_version: API_VERSION,
                block_delay: core.settings.block_delay.as_secs().max(1),
            })
        })
        .await
    }

    async fn chain_head(&self) -> Result<TipSet> {
        self.ask("ChainHead", |core| Ok(core.head.clone())).await
    }

    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        self.notify().await
    }

    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        let key = key.clone();
        self.ask("ChainGetTipSet", move |core| match key.0.is_empty() {
            true => Err(core.switches.wording.empty_tip_set_key()),
            false => core.find(&key),
        })
        .await
    }

    async fn chain_get_tip_set_by_height(&self, height: ChainEpoch, key: &TipSetKey) -> Result<TipSet> {
        let key = key.clone();
        self.ask("ChainGetTipSetByHeight", move |core| {
            if height < 0 {
                return Err(ChainError::refused(format!("negative height {height}")));
            }
            core.at_or_before(height, &core.find(&key)?)
        })
        .await
    }

    async fn chain_tip_set_weight(&self, key: &TipSetKey) -> Result<num_bigint::BigInt> {
        let key = key.clone();
        self.ask("ChainTipSetWeight", move |core| {
            let ts = core.find(&key)?;
            core.weight(&ts)
        })
        .await
    }

    async fn state_network_name(&self) -> Result<String> {
        self.ask("StateNetworkName", |core| Ok(core.settings.network_name.clone())).await
    }

    async fn state_network_version(&self, key: &TipSetKey) -> Result<u32> {
        let key = key.clone();
        self.ask("StateNetworkVersion", move |core| Ok(core.settings.network_version(core.find(&key)?.height))).await
    }

    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.ask("StateGetNetworkParams", |core| Ok(core.network_params())).await
    }

    async fn state_get_actor(&self, who: &Address, key: &TipSetKey) -> Result<Option<OnChainActor>> {
        let (who, key) = (*who, key.clone());
        self.ask("StateGetActor", move |core| core.actor_state(&who, &key)).await
    }

    async fn state_lookup_id(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        let (who, key) = (*who, key.clone());
        self.ask("StateLookupID", move |core| core.lookup_id(&who, &key)).await
    }

    async fn state_account_key(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        let (who, key) = (*who, key.clone());
        self.ask("StateAccountKey", move |core| core.account_key_of(&who, &key)).await
    }

    async fn state_miner_info(&self, miner: &Address, key: &TipSetKey) -> Result<MinerInfo> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerInfo", move |core| core.miner_info(&miner, &key)).await
    }

    async fn state_miner_power(&self, miner: &Address, key: &TipSetKey) -> Result<MinerPower> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerPower", move |core| core.miner_power(&miner, &key)).await
    }

    async fn state_miner_available_balance(&self, miner: &Address, key: &TipSetKey) -> Result<TokenAmount> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerAvailableBalance", move |core| core.miner_available_balance(&miner, &key)).await
    }

    async fn state_miner_funds(&self, miner: &Address, key: &TipSetKey) -> Result<MinerFunds> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateReadState", move |core| core.miner_funds(&miner, &key)).await
    }

    async fn state_miner_proving_deadline(&self, miner: &Address, key: &TipSetKey) -> Result<DeadlineInfo> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerProvingDeadline", move |core| core.proving_deadline(&miner, &key)).await
    }

    async fn state_miner_deadlines(&self, miner: &Address, key: &TipSetKey) -> Result<Vec<Deadline>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerDeadlines", move |core| core.deadlines(&miner, &key)).await
    }

    async fn state_miner_partitions(&self, miner: &Address, deadline: u64, key: &TipSetKey) -> Result<Vec<Partition>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerPartitions", move |core| core.partitions(&miner, deadline, &key)).await
    }

    async fn state_miner_sectors(
        &self,
        miner: &Address,
        numbers: Option<&BitField>,
        key: &TipSetKey,
    ) -> Result<Vec<SectorOnChainInfo>> {
        let (miner, numbers, key) = (*miner, numbers.cloned(), key.clone());
        self.ask("StateMinerSectors", move |core| core.sectors(&miner, numbers.as_ref(), &key)).await
    }

    async fn state_miner_allocated(&self, miner: &Address, key: &TipSetKey) -> Result<BitField> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateMinerAllocated", move |core| core.allocated(&miner, &key)).await
    }

    async fn state_miner_pre_commit_deposit_for_power(
        &self,
        _miner: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let (info, key) = (info.clone(), key.clone());
        self.ask("StateMinerPreCommitDepositForPower", move |core| core.pre_commit_deposit(&info, &key)).await
    }

    async fn state_miner_initial_pledge_collateral(
        &self,
        _miner: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let (info, key) = (info.clone(), key.clone());
        self.ask("StateMinerInitialPledgeCollateral", move |core| core.initial_pledge(&info, &key)).await
    }

    async fn state_miner_initial_pledge_for_sector(
        &self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let key = key.clone();
        let asked = move |core: &mut Core| core.initial_pledge_for_sector(duration, sector_size, verified_size, &key);
        self.ask("StateMinerInitialPledgeForSector", asked).await
    }

    async fn state_miner_creation_deposit(&self, key: &TipSetKey) -> Result<TokenAmount> {
        Devnet::state_miner_creation_deposit(self, key).await
    }

    async fn state_sector_pre_commit_info(
        &self,
        miner: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorPreCommitOnChainInfo>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateSectorPreCommitInfo", move |core| core.pre_commit_info(&miner, number, &key)).await
    }

    async fn state_sector_get_info(
        &self,
        miner: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorOnChainInfo>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateSectorGetInfo", move |core| core.sector(&miner, number, &key)).await
    }

    async fn state_sector_partition(&self, miner: &Address, number: u64, key: &TipSetKey) -> Result<SectorLocation> {
        let (miner, key) = (*miner, key.clone());
        self.ask("StateSectorPartition", move |core| core.sector_partition(&miner, number, &key)).await
    }

    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        let (entropy, key) = (entropy.to_vec(), key.clone());
        self.ask("StateGetRandomnessFromTickets", move |core| core.randomness(false, tag, epoch, &entropy, &key)).await
    }

    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        let (entropy, key) = (entropy.to_vec(), key.clone());
        self.ask("StateGetRandomnessFromBeacon", move |core| core.randomness(true, tag, epoch, &entropy, &key)).await
    }

    async fn state_search_msg(
        &self,
        from: &TipSetKey,
        message: &Cid,
        lookback: ChainEpoch,
        allow_replaced: bool,
    ) -> Result<Option<MsgLookup>> {
        let (from, message) = (from.clone(), *message);
        self.ask("StateSearchMsg", move |core| core.search_message(&from, &message, lookback, allow_replaced)).await
    }

    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        let who = *who;
        self.ask("MpoolGetNonce", move |core| core.next_nonce(&who)).await
    }

    async fn mpool_push(&self, message: &SignedMessage) -> Result<Cid> {
        let message = message.clone();
        self.ask("MpoolPush", move |core| core.push(message)).await
    }

    async fn mpool_pending(&self, _key: &TipSetKey) -> Result<Vec<SignedMessage>> {
        self.ask("MpoolPending", |core| Ok(core.pool.all())).await
    }

    async fn mpool_select(&self, key: &TipSetKey, _ticket_quality: f64) -> Result<Vec<SignedMessage>> {
        let key = key.clone();
        self.ask("MpoolSelect", move |core| {
            let ts = core.find(&key)?;
            core.select(&ts)
        })
        .await
    }

    async fn gas_estimate_message_gas(
        &self,
        message: &Message,
        max_fee: &TokenAmount,
        key: &TipSetKey,
    ) -> Result<Message> {
        let (message, max_fee, key) = (message.clone(), max_fee.clone(), key.clone());
        self.ask("GasEstimateMessageGas", move |core| core.estimate(&message, &max_fee, &key)).await
    }

    async fn wallet_has(&self, who: &Address) -> Result<bool> {
        let who = *who;
        self.ask("WalletHas", move |core| Ok(core.wallet_has(&who))).await
    }

    async fn wallet_list(&self) -> Result<Vec<Address>> {
        self.ask("WalletList", |core| Ok(core.wallet.keys().copied().collect())).await
    }

    async fn wallet_new(&self, kind: &str) -> Result<Address> {
        let kind = kind.to_string();
        let make = move |core: &mut Core| core.add_key(Secret::generate(&kind).map_err(ChainError::Refused)?);
        self.ask("WalletNew", make).await
    }

    async fn wallet_balance(&self, who: &Address) -> Result<TokenAmount> {
        let who = *who;
        self.ask("WalletBalance", move |core| core.balance_of(&who)).await
    }

    async fn wallet_default_address(&self) -> Result<Option<Address>> {
        self.ask("WalletDefaultAddress", |core| Ok(core.default_address)).await
    }

    async fn wallet_sign(&self, who: &Address, bytes: &[u8]) -> Result<Signature> {
        let (who, bytes) = (*who, bytes.to_vec());
        self.ask("WalletSign", move |core| core.sign(&who, &bytes)).await
    }

    async fn wallet_sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage> {
        let (who, message) = (*who, message.clone());
        self.ask("WalletSignMessage", move |core| core.sign_message(&who, &message)).await
    }

    async fn miner_get_base_info(
        &self,
        miner: &Address,
        epoch: ChainEpoch,
        key: &TipSetKey,
    ) -> Result<Option<MiningBaseInfo>> {
        let (miner, key) = (*miner, key.clone());
        self.ask("MinerGetBaseInfo", move |core| core.base_info(&miner, epoch, &key)).await
    }

    async fn miner_create_block(&self, template: &BlockTemplate) -> Result<BlockMsg> {
        let template = template.clone();
        self.ask("MinerCreateBlock", move |core| core.create_block(&template)).await
    }

    async fn sync_submit_block(&self, block: &BlockMsg) -> Result<()> {
        let block = block.clone();
        let verdict = self.ask("SyncSubmitBlock", move |core| core.submit_block(&block)).await;
        self.wake.notify_one();
        verdict
    }

    async fn f3_get_or_renew_participation_ticket(
        &self,
        miner: &Address,
        previous: &[u8],
        instances: u64,
    ) -> Result<Vec<u8>> {
        const METHOD: &str = "F3GetOrRenewParticipationTicket";
        let miner = self.state_lookup_id(miner, &TipSetKey::default()).await?.id().unwrap_or_default();
        let previous = previous.to_vec();
        let lease = self.f3(METHOD, move |_, now| Leaser::ticket(&now, miner, &previous, instances)).await?;
        lease.to_ticket().map_err(|message| FullNodeError::Rpc { node: NAME.into(), method: METHOD, code: 1, message })
    }

    async fn f3_participate(&self, ticket: &[u8]) -> Result<F3Lease> {
        let ticket = ticket.to_vec();
        self.f3("F3Participate", move |leaser, now| leaser.participate(&now, &ticket)).await
    }

    async fn f3_get_progress(&self) -> Result<F3Progress> {
        self.f3("F3GetProgress", |_, now| Ok(F3Progress { instance: now.instance })).await
    }

    async fn f3_get_manifest(&self) -> Result<Option<F3Manifest>> {
        self.f3_manifest("F3GetManifest").await
    }
}
