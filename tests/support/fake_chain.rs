//! A full node that is a few maps: a mempool, accounts' nonces, pre-commits and sectors of one miner. It advances when
//! the test says so and misbehaves as scripted. Messages are decoded with the network's own parameter types.

mod execution;
mod state;

use super::mortal::Mortal;
use async_trait::async_trait;
use bulkhead::chain::cbor::signed_message_cid as message_cid;
use bulkhead::chain::miner_messages::entropy;
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, ChainEpoch, TokenAmount};
use bulkhead::devnet::{ChainError, Wording};
use bulkhead::rpc::full_node::{FullNode, FullNodeError, RandomnessTag, Result};
use cid::Cid;
use execution::same_call;
use fvm_ipld_bitfield::BitField;
use multihash_codetable::{Code, MultihashDigest};
use num_traits::Zero;
use state::cid_of;
pub use state::{Chain, Executed, tipset};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

pub const CHALLENGE_DELAY: ChainEpoch = 3;

pub fn miner() -> Address {
    Address::new_id(1000)
}
pub fn worker() -> Address {
    Address::new_bls(&[7; 48]).unwrap()
}
pub fn owner() -> Address {
    Address::new_bls(&[8; 48]).unwrap()
}
/// The balance of an account that no test has set.
pub const RICH: u64 = 1 << 60;

pub fn fil(atto: u64) -> TokenAmount {
    TokenAmount::from_atto(atto)
}

pub struct FakeChain {
    chain: Mutex<Chain>,
    pub mortal: Arc<Mortal>,
}

impl FakeChain {
    pub fn new(mortal: Arc<Mortal>) -> Arc<FakeChain> {
        let chain = Chain { height: 10, base_fee: fil(100), block_gas: 10_000_000_000, ..Chain::default() };
        Arc::new(FakeChain { chain: Mutex::new(chain), mortal })
    }
    pub fn state(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap()
    }
    pub fn head(&self) -> TipSet {
        let c = self.state();
        c.tipset(c.height)
    }
    pub fn executed(&self, method: u64) -> Vec<Executed> {
        self.state().executed.iter().filter(|e| e.message.method == method).cloned().collect()
    }

    /// One more epoch: every message whose turn it is by nonce and that pays enough is executed.
    pub fn mine(&self) {
        let mut c = self.state();
        c.height += 1;
        c.mempool.sort_by_key(|m| m.message.nonce);
        for signed in std::mem::take(&mut c.mempool) {
            let next = c.nonces.get(&signed.message.from).copied().unwrap_or(0);
            if signed.message.nonce < next {
                continue;
            }
            let left = signed.message.gas_fee_cap.clone() - c.base_fee.clone();
            let paid = left.min(signed.message.gas_premium.clone());
            if signed.message.nonce > next || paid < c.min_premium {
                c.mempool.push(signed);
                continue;
            }
            c.nonces.insert(signed.message.from, next + 1);
            let exit_code = c.execute(&signed.message);
            let (cid, height) = (message_cid(&signed).unwrap(), c.height);
            c.executed.push(Executed { cid, message: signed.message, exit_code, height });
        }
    }

    /// The operator sends something from that address with another tool.
    pub fn transfer(&self, from: Address) {
        let mut c = self.state();
        let message = Message {
            version: 0,
            to: Address::new_id(3000),
            from,
            nonce: c.nonces.get(&from).copied().unwrap_or(0),
            value: fil(1),
            gas_limit: 100,
            gas_fee_cap: fil(1 << 40),
            gas_premium: fil(1 << 39),
            method: 0,
            params: vec![],
        };
        c.mempool.push(SignedMessage { message, signature: Signature { kind: 2, data: vec![1; 96] } });
    }

    async fn enter(&self, method: &'static str) -> Result<()> {
        self.mortal.point(&format!("before {method}")).await;
        *self.state().calls.entry(method).or_default() += 1;
        if self.state().down {
            return Err(FullNodeError::Unreachable { node: self.name(), why: "connection refused".into() });
        }
        Ok(())
    }
    async fn leave(&self, method: &'static str) {
        self.mortal.point(&format!("after {method}")).await;
    }
    fn rpc<T>(&self, method: &'static str, message: &str) -> Result<T> {
        Err(FullNodeError::Rpc { node: self.name(), method, code: 1, message: message.to_owned() })
    }
    fn refusal(&self, method: &'static str, e: ChainError) -> FullNodeError {
        FullNodeError::Rpc { node: self.name(), method, code: e.code(), message: e.to_string() }
    }
}

pub fn randomness(tag: i64, epoch: ChainEpoch) -> Vec<u8> {
    let mut seed = [tag.to_be_bytes(), epoch.to_be_bytes()].concat();
    seed.extend(entropy(&miner()).unwrap());
    let mut value = Code::Blake2b256.digest(&seed).digest().to_vec();
    value[0] = epoch as u8;
    value
}

#[async_trait]
impl FullNode for FakeChain {
    fn name(&self) -> String {
        "fake:1234".into()
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.enter("ChainHead").await?;
        Ok(self.head())
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.enter("StateGetNetworkParams").await?;
        Ok(NetworkParams {
            network_name: "fake".into(),
            block_delay_secs: 1,
            consensus_miner_min_power: 0.into(),
            supported_proof_types: vec![5],
            pre_commit_challenge_delay: CHALLENGE_DELAY,
            fork_upgrade_params: self.state().upgrades(),
            eip155_chain_id: 0,
            genesis_timestamp: 0,
        })
    }
    async fn state_get_actor(&self, who: &Address, _: &TipSetKey) -> Result<Option<OnChainActor>> {
        self.enter("StateGetActor").await?;
        let c = self.state();
        if c.strangers.contains(who) {
            return Ok(None);
        }
        let nonce = c.nonces.get(who).copied().unwrap_or(0);
        let any = cid_of("actor");
        let balance = c.balance(who);
        Ok(Some(OnChainActor { code: any, head: any, nonce, balance, delegated_address: None }))
    }
    async fn state_lookup_id(&self, who: &Address, _: &TipSetKey) -> Result<Address> {
        self.enter("StateLookupID").await?;
        let c = self.state();
        let known = [(100, owner()), (101, worker())].into_iter().chain(c.controls.clone());
        match known.into_iter().find(|(_, key)| key == who) {
            _ if who.id().is_ok() => Ok(*who),
            Some((id, _)) => Ok(Address::new_id(id)),
            None => Err(self.refusal("StateLookupID", c.wording.no_actor(who))),
        }
    }
    async fn state_account_key(&self, who: &Address, _: &TipSetKey) -> Result<Address> {
        self.enter("StateAccountKey").await?;
        if let Some(e) = self.state().account_key_error.clone() {
            return self.rpc("StateAccountKey", &e);
        }
        let controls = self.state().controls.clone();
        let known = [(100, owner()), (101, worker())].into_iter().chain(controls);
        Ok(known.into_iter().find(|(id, _)| Address::new_id(*id) == *who).map_or(*who, |(_, key)| key))
    }
    async fn state_miner_info(&self, _: &Address, _: &TipSetKey) -> Result<MinerInfo> {
        self.enter("StateMinerInfo").await?;
        Ok(MinerInfo {
            owner: Address::new_id(100),
            worker: Address::new_id(101),
            new_worker: None,
            control_addresses: self.state().controls.iter().map(|(id, _)| Address::new_id(*id)).collect(),
            worker_change_epoch: -1,
            peer_id: None,
            multiaddrs: vec![],
            window_post_proof_type: 10,
            sector_size: 2048,
            window_post_partition_sectors: 2,
            consensus_fault_elapsed: -1,
            pending_owner_address: None,
            beneficiary: None,
        })
    }
    async fn state_miner_available_balance(&self, _: &Address, _: &TipSetKey) -> Result<TokenAmount> {
        self.enter("StateMinerAvailableBalance").await?;
        Ok(self.state().available.clone())
    }
    async fn state_miner_allocated(&self, _: &Address, _: &TipSetKey) -> Result<BitField> {
        self.enter("StateMinerAllocated").await?;
        let bits = BitField::try_from_bits(self.state().allocated.iter().copied()).unwrap();
        self.leave("StateMinerAllocated").await;
        Ok(bits)
    }
    async fn state_miner_pre_commit_deposit_for_power(
        &self,
        _: &Address,
        _: &SectorPreCommitInfo,
        _: &TipSetKey,
    ) -> Result<TokenAmount> {
        self.enter("StateMinerPreCommitDepositForPower").await?;
        Ok(fil(1000))
    }
    async fn state_miner_initial_pledge_collateral(
        &self,
        _: &Address,
        _: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        const METHOD: &str = "StateMinerInitialPledgeCollateral";
        self.enter(METHOD).await?;
        if self.state_network_version(key).await? >= 29 {
            let why = format!(
                "{METHOD} is unsupported from network version 29 (FIP-0118): use StateMinerInitialPledgeForSector"
            );
            return Err(FullNodeError::Unsupported { node: self.name(), method: METHOD, why });
        }
        let c = self.state();
        Ok(c.pledge(c.height_of(key), false))
    }
    async fn state_miner_initial_pledge_for_sector(
        &self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        _: &TipSetKey,
    ) -> Result<TokenAmount> {
        const METHOD: &str = "StateMinerInitialPledgeForSector";
        self.enter(METHOD).await?;
        if duration <= 0 || sector_size == 0 || verified_size > sector_size {
            return self.rpc(METHOD, "sector duration must greater than 0, sizes must fit");
        }
        // Lotus computes it with the caller's verified size, before Solstice and after.
        Ok(fil(if verified_size == sector_size { 50_000 } else { 5000 }))
    }
    async fn state_sector_pre_commit_info(
        &self,
        _: &Address,
        number: u64,
        _: &TipSetKey,
    ) -> Result<Option<SectorPreCommitOnChainInfo>> {
        self.enter("StateSectorPreCommitInfo").await?;
        Ok(self.state().pre_commits.get(&number).cloned())
    }
    async fn state_sector_get_info(
        &self,
        _: &Address,
        number: u64,
        _: &TipSetKey,
    ) -> Result<Option<SectorOnChainInfo>> {
        self.enter("StateSectorGetInfo").await?;
        Ok(self.state().sectors.get(&number).cloned())
    }
    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        _: &[u8],
        _: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.enter("StateGetRandomnessFromTickets").await?;
        Ok(randomness(tag as i64, epoch))
    }
    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        _: &[u8],
        _: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.enter("StateGetRandomnessFromBeacon").await?;
        Ok(randomness(tag as i64, epoch))
    }
    async fn state_search_msg(
        &self,
        _: &TipSetKey,
        cid: &Cid,
        _: ChainEpoch,
        replaced: bool,
    ) -> Result<Option<MsgLookup>> {
        const METHOD: &str = "StateSearchMsg";
        self.enter(METHOD).await?;
        let c = self.state();
        let Some(wanted) = c.message(cid) else {
            return Err(self.refusal(METHOD, c.wording.unknown_message(cid)));
        };
        let landed = c.executed.iter().find(|e| (e.message.from, e.message.nonce) == (wanted.from, wanted.nonce));
        let Some(landed) = landed else { return Ok(None) };
        if landed.cid != *cid {
            let nothing = match same_call(&wanted, &landed.message) {
                false => c.wording.displaced(cid, wanted.nonce, &landed.cid, replaced),
                true if !replaced => c.wording.other_fee_landed(cid, &wanted, &landed.cid),
                true => Ok(()),
            };
            nothing.map_err(|e| self.refusal(METHOD, e))?;
            if !replaced || !same_call(&wanted, &landed.message) {
                return Ok(None);
            }
        }
        Ok(Some(MsgLookup {
            message: landed.cid,
            receipt: MessageReceipt {
                exit_code: landed.exit_code,
                return_data: vec![1],
                gas_used: 1,
                events_root: None,
            },
            return_dec: serde_json::Value::Null,
            tip_set: c.tipset(landed.height).key(),
            height: landed.height,
        }))
    }
    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        self.enter("MpoolGetNonce").await?;
        let c = self.state();
        if c.strangers.contains(who) {
            return Err(self.refusal("MpoolGetNonce", c.wording.no_actor(who)));
        }
        let chain = c.nonces.get(who).copied().unwrap_or(0);
        let pooled: HashSet<u64> =
            c.mempool.iter().filter(|m| m.message.from == *who).map(|m| m.message.nonce).collect();
        if c.pool_counts_from_the_last {
            return Ok(pooled.iter().map(|nonce| nonce + 1).max().unwrap_or(0).max(chain));
        }
        Ok((chain..).find(|nonce| !pooled.contains(nonce)).unwrap())
    }
    async fn mpool_push(&self, signed: &SignedMessage) -> Result<Cid> {
        self.enter("MpoolPush").await?;
        let cid = message_cid(signed).unwrap();
        {
            let mut c = self.state();
            if c.down_for_pushes {
                let (node, method) = (self.name(), "MpoolPush");
                return Err(FullNodeError::Timeout { node, method, after: std::time::Duration::from_secs(1) });
            }
            c.pushes += 1;
            if let Some(e) = c.push_error.clone() {
                return self.rpc("MpoolPush", &e);
            }
            c.pushed.push(signed.clone());
            if c.strangers.contains(&signed.message.from) {
                return Err(self.refusal("MpoolPush", c.wording.no_actor(&signed.message.from)));
            }
            if signed.message.nonce < c.nonces.get(&signed.message.from).copied().unwrap_or(0) {
                return self.rpc("MpoolPush", "message nonce too low");
            }
            if let Some(e) = c.refuses(&signed.message) {
                c.refused.push(signed.clone());
                return self.rpc("MpoolPush", &e);
            }
            // Kept before the pool decides, as Lotus and Forest do.
            c.held.insert(cid);
            let same =
                |m: &SignedMessage| m.message.from == signed.message.from && m.message.nonce == signed.message.nonce;
            if let Some(at) = c.mempool.iter().position(same) {
                let old = &c.mempool[at];
                if message_cid(old).unwrap() == cid {
                    return self.rpc("MpoolPush", "already in mpool: message with nonce already exists");
                } else {
                    let least: num_bigint::BigInt = old.message.gas_premium.atto() * 110u8 / 100u8 + 1u8;
                    if *signed.message.gas_premium.atto() < least {
                        return self.rpc("MpoolPush", "replace by fee has too low GasPremium");
                    }
                    c.mempool[at] = signed.clone();
                }
            } else {
                c.mempool.push(signed.clone());
            }
        }
        self.leave("MpoolPush").await;
        Ok(cid)
    }
    async fn mpool_pending(&self, _: &TipSetKey) -> Result<Vec<SignedMessage>> {
        self.enter("MpoolPending").await?;
        if self.state().blind_mempool {
            return Err(self.lacks("MpoolPending"));
        }
        Ok(self.state().mempool.clone())
    }
    async fn gas_estimate_message_gas(&self, m: &Message, _: &TokenAmount, _: &TipSetKey) -> Result<Message> {
        self.enter("GasEstimateMessageGas").await?;
        if let Some(e) = self.state().estimate_error.clone() {
            return self.rpc("GasEstimateMessageGas", &e);
        }
        let mut c = self.state();
        if c.forks.contains(&c.height) {
            let (node, method) = (self.name(), "Filecoin.GasEstimateMessageGas");
            let why = "refusing explicit call due to state fork at epoch".to_string();
            return Err(FullNodeError::NotNow { node, method, code: -32002, why });
        }
        if let Some(why) = c.estimate_fails(m) {
            drop(c);
            return self.rpc("GasEstimateMessageGas", &why);
        }
        let gas_limit = if c.gas_limits.is_empty() { 1000 } else { c.gas_limits.remove(0) };
        let gas_limit = if m.method == 0 { 100 } else { gas_limit };
        Ok(Message { gas_limit, gas_fee_cap: c.base_fee.clone() + fil(100), gas_premium: fil(100), ..m.clone() })
    }
    async fn wallet_has(&self, who: &Address) -> Result<bool> {
        self.enter("WalletHas").await?;
        Ok(!self.state().keyless.contains(who))
    }
    async fn wallet_sign_message(&self, _: &Address, m: &Message) -> Result<SignedMessage> {
        self.enter("WalletSignMessage").await?;
        let signed = SignedMessage { message: m.clone(), signature: Signature { kind: 2, data: vec![9; 96] } };
        self.leave("WalletSignMessage").await;
        Ok(signed)
    }

    async fn state_network_version(&self, key: &TipSetKey) -> Result<u32> {
        self.enter("StateNetworkVersion").await?;
        let c = self.state();
        Ok(c.version(c.height_of(key)))
    }
    async fn wallet_balance(&self, _: &Address) -> Result<TokenAmount> {
        Ok(TokenAmount::zero())
    }
}
