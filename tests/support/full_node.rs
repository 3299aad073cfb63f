//! `FixedNode`: a full node in memory that answers with the examples of Lotus' own API documentation.

use ::cid::Cid;
use async_trait::async_trait;
use bulkhead::chain::lotus_json::*;
use bulkhead::chain::types::*;
use bulkhead::chain::{Address, ChainEpoch, TokenAmount};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::{CallLimits, FullNode, FullNodeError, HttpFullNode, RandomnessTag, Result};
use bulkhead::rpc::server::{ServerHandle, Service, serve};
use fvm_ipld_bitfield::BitField;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Lotus' example answers by method name.
pub fn samples() -> HashMap<String, Value> {
    serde_json::from_str(include_str!("../data/lotus_answers.json")).expect("samples are JSON")
}

pub struct FixedNode {
    answers: Mutex<HashMap<String, Value>>,
    /// Every call with its parameters, as they arrived.
    pub seen: Mutex<Vec<(String, Value)>>,
    feeds: Mutex<Vec<mpsc::Sender<Vec<HeadChange>>>>,
}

impl FixedNode {
    pub fn new() -> Arc<FixedNode> {
        Arc::new(FixedNode { answers: Mutex::new(samples()), seen: Mutex::default(), feeds: Mutex::default() })
    }
    pub fn set(&self, method: &str, answer: Value) {
        self.answers.lock().expect("lock").insert(method.into(), answer);
    }
    /// The next tipset of the sample chain.
    pub fn tip_set(height: ChainEpoch) -> TipSet {
        let mut sample: TipSet = serde_json::from_value(samples()["ChainHead"].clone()).expect("a tipset");
        sample.height = height;
        sample.blocks[0].height = height;
        sample
    }
    pub async fn push(&self, kind: HeadChangeType, height: ChainEpoch) {
        self.set("ChainHead", json!(FixedNode::tip_set(height)));
        let feeds = self.feeds.lock().expect("lock").clone();
        for feed in feeds {
            let _ = feed.send(vec![HeadChange { kind, val: FixedNode::tip_set(height) }]).await;
        }
    }
    pub fn close_feeds(&self) {
        self.feeds.lock().expect("lock").clear();
    }
    pub fn subscribers(&self) -> Vec<mpsc::Sender<Vec<HeadChange>>> {
        self.feeds.lock().expect("lock").clone()
    }
    pub fn calls_of(&self, method: &str) -> Vec<Value> {
        let seen = self.seen.lock().expect("lock");
        seen.iter().filter(|(m, _)| m == method).map(|(_, p)| p.clone()).collect()
    }

    /// `"hang"` as an answer never comes; `{"code", "message"}` under `error` is a verdict.
    async fn give<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T> {
        self.seen.lock().expect("lock").push((method.into(), params));
        let answer = self.answers.lock().expect("lock").get(method).cloned();
        let node = self.name();
        match answer {
            None => Err(FullNodeError::NoSuchMethod { node, method }),
            Some(Value::String(s)) if s == "hang" => std::future::pending().await,
            Some(Value::String(s)) if s == "panic" => panic!("asked to"),
            Some(v) if v.get("error").is_some() => Err(FullNodeError::Rpc {
                node,
                method,
                code: v["error"]["code"].as_i64().expect("code"),
                message: v["error"]["message"].as_str().expect("message").into(),
            }),
            Some(v) => Ok(serde_json::from_value(v).expect(method)),
        }
    }
}

/// A node behind a server on a free port of loopback.
pub struct Served {
    pub node: Arc<FixedNode>,
    pub auth: Arc<Auth>,
    pub server: ServerHandle,
}

impl Served {
    pub fn start() -> Served {
        Served::with(|s| s)
    }
    pub fn with(change: impl FnOnce(Service) -> Service) -> Served {
        let node = FixedNode::new();
        let auth = Arc::new(Auth::with_secret(vec![1; 32]));
        let service = change(Service::of_node(node.clone(), auth.clone()));
        let server = serve("127.0.0.1:0".parse().expect("address"), service).expect("served");
        Served { node, auth, server }
    }
    pub fn info(&self, perms: Option<&[Perm]>) -> ApiInfo {
        ApiInfo::local(self.server.addr(), perms.map(|p| self.auth.token(p).expect("token")))
    }
    pub fn client(&self) -> HttpFullNode {
        self.client_with(CallLimits::default())
    }
    pub fn client_with(&self, limits: CallLimits) -> HttpFullNode {
        HttpFullNode::with_limits(self.info(Some(&Perm::ALL)), limits).expect("client")
    }
}

/// Listings may take 300 ms; all else has time enough on a busy machine.
pub fn brief() -> CallLimits {
    let long = Duration::from_secs(20);
    CallLimits { quick: long, state: long, heavy: Duration::from_millis(300), connect: long, silence: long }
}

pub fn as_json(v: &impl Serialize) -> Value {
    serde_json::to_value(v).expect("JSON")
}

fn a(who: &Address) -> Value {
    json!(WholeAddress(*who))
}

#[async_trait]
impl FullNode for FixedNode {
    fn name(&self) -> String {
        "fixed".into()
    }
    async fn version(&self) -> Result<Version> {
        self.give("Version", json!([])).await
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.give("ChainHead", json!([])).await
    }
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        let (tx, rx) = mpsc::channel(16);
        let current = HeadChange { kind: HeadChangeType::Current, val: self.chain_head().await? };
        tx.try_send(vec![current]).expect("room");
        self.feeds.lock().expect("lock").push(tx);
        Ok(rx)
    }
    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        self.seen.lock().expect("lock").push(("ChainGetTipSet".into(), json!([key])));
        self.give("ChainHead", json!([])).await
    }
    async fn chain_get_tip_set_by_height(&self, height: ChainEpoch, key: &TipSetKey) -> Result<TipSet> {
        self.seen.lock().expect("lock").push(("ChainGetTipSetByHeight".into(), json!([height, key])));
        // every even height is a null round
        Ok(FixedNode::tip_set(if height % 2 == 0 { height - 1 } else { height }))
    }
    async fn chain_tip_set_weight(&self, key: &TipSetKey) -> Result<num_bigint::BigInt> {
        self.give("ChainTipSetWeight", json!([key])).await.map(|WholeBigInt(n)| n)
    }
    async fn state_network_name(&self) -> Result<String> {
        self.give("StateNetworkName", json!([])).await
    }
    async fn state_network_version(&self, key: &TipSetKey) -> Result<u32> {
        self.give("StateNetworkVersion", json!([key])).await
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.give("StateGetNetworkParams", json!([])).await
    }
    async fn state_get_actor(&self, who: &Address, key: &TipSetKey) -> Result<Option<OnChainActor>> {
        self.give("StateGetActor", json!([a(who), key])).await
    }
    async fn state_lookup_id(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        self.give("StateLookupID", json!([a(who), key])).await.map(|WholeAddress(a)| a)
    }
    async fn state_account_key(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        self.give("StateAccountKey", json!([a(who), key])).await.map(|WholeAddress(a)| a)
    }
    async fn state_miner_info(&self, m: &Address, key: &TipSetKey) -> Result<MinerInfo> {
        self.give("StateMinerInfo", json!([a(m), key])).await
    }
    async fn state_miner_power(&self, m: &Address, key: &TipSetKey) -> Result<MinerPower> {
        self.give("StateMinerPower", json!([a(m), key])).await
    }
    async fn state_miner_available_balance(&self, m: &Address, key: &TipSetKey) -> Result<TokenAmount> {
        self.give("StateMinerAvailableBalance", json!([a(m), key])).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_proving_deadline(&self, m: &Address, key: &TipSetKey) -> Result<DeadlineInfo> {
        self.give("StateMinerProvingDeadline", json!([a(m), key])).await
    }
    async fn state_miner_deadlines(&self, m: &Address, key: &TipSetKey) -> Result<Vec<Deadline>> {
        self.give("StateMinerDeadlines", json!([a(m), key])).await
    }
    async fn state_miner_partitions(&self, m: &Address, deadline: u64, key: &TipSetKey) -> Result<Vec<Partition>> {
        self.give("StateMinerPartitions", json!([a(m), deadline, key])).await
    }
    async fn state_miner_sectors(
        &self,
        m: &Address,
        numbers: Option<&BitField>,
        key: &TipSetKey,
    ) -> Result<Vec<SectorOnChainInfo>> {
        let filter = numbers.map(|n| WholeBitField(n.clone()));
        self.give("StateMinerSectors", json!([a(m), filter, key])).await
    }
    async fn state_miner_allocated(&self, m: &Address, key: &TipSetKey) -> Result<BitField> {
        self.give("StateMinerAllocated", json!([a(m), key])).await.map(|WholeBitField(b)| b)
    }
    async fn state_miner_pre_commit_deposit_for_power(
        &self,
        m: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = json!([a(m), info, key]);
        self.give("StateMinerPreCommitDepositForPower", params).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_initial_pledge_collateral(
        &self,
        m: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = json!([a(m), info, key]);
        self.give("StateMinerInitialPledgeCollateral", params).await.map(|WholeToken(t)| t)
    }
    async fn state_miner_initial_pledge_for_sector(
        &self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        let params = json!([duration, sector_size, verified_size, key]);
        self.give("StateMinerInitialPledgeForSector", params).await.map(|WholeToken(t)| t)
    }
    async fn state_sector_pre_commit_info(
        &self,
        m: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorPreCommitOnChainInfo>> {
        self.give("StateSectorPreCommitInfo", json!([a(m), number, key])).await
    }
    async fn state_sector_get_info(
        &self,
        m: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorOnChainInfo>> {
        self.give("StateSectorGetInfo", json!([a(m), number, key])).await
    }
    async fn state_sector_partition(&self, m: &Address, number: u64, key: &TipSetKey) -> Result<SectorLocation> {
        self.give("StateSectorPartition", json!([a(m), number, key])).await
    }
    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        _: &TipSetKey,
    ) -> Result<Vec<u8>> {
        Ok(vec![tag as u8 + epoch as u8 + entropy.len() as u8; 32])
    }
    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        _: ChainEpoch,
        _: &[u8],
        _: &TipSetKey,
    ) -> Result<Vec<u8>> {
        let method = "StateGetRandomnessFromBeacon";
        if self.answers.lock().expect("lock").get(method) != samples().get(method) {
            return self.give(method, json!([tag as i64])).await.map(|WholeBytes(bytes)| bytes);
        }
        Ok(vec![tag as u8; 31]) // one byte short: not randomness
    }
    async fn state_search_msg(
        &self,
        from: &TipSetKey,
        message: &Cid,
        lookback: ChainEpoch,
        allow_replaced: bool,
    ) -> Result<Option<MsgLookup>> {
        let params = json!([from, WholeCid(*message), lookback, allow_replaced]);
        self.give("StateSearchMsg", params).await
    }
    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        self.give("MpoolGetNonce", json!([a(who)])).await
    }
    async fn mpool_push(&self, message: &SignedMessage) -> Result<Cid> {
        self.give("MpoolPush", json!([message])).await.map(|WholeCid(c)| c)
    }
    async fn mpool_pending(&self, key: &TipSetKey) -> Result<Vec<SignedMessage>> {
        self.give("MpoolPending", json!([key])).await
    }
    async fn mpool_select(&self, key: &TipSetKey, quality: f64) -> Result<Vec<SignedMessage>> {
        self.give("MpoolSelect", json!([key, quality])).await
    }
    async fn gas_estimate_message_gas(&self, m: &Message, max_fee: &TokenAmount, key: &TipSetKey) -> Result<Message> {
        self.give("GasEstimateMessageGas", json!([m, WholeToken(max_fee.clone()), key])).await
    }
    async fn wallet_has(&self, who: &Address) -> Result<bool> {
        self.give("WalletHas", json!([a(who)])).await
    }
    async fn wallet_list(&self) -> Result<Vec<Address>> {
        self.give("WalletList", json!([])).await.map(|WholeAddresses(list)| list)
    }
    async fn wallet_new(&self, kind: &str) -> Result<Address> {
        self.give("WalletNew", json!([kind])).await.map(|WholeAddress(a)| a)
    }
    async fn wallet_balance(&self, who: &Address) -> Result<TokenAmount> {
        self.give("WalletBalance", json!([a(who)])).await.map(|WholeToken(t)| t)
    }
    async fn wallet_default_address(&self) -> Result<Option<Address>> {
        self.give("WalletDefaultAddress", json!([])).await.map(|WholeOptAddress(a)| a)
    }
    async fn wallet_sign(&self, who: &Address, bytes: &[u8]) -> Result<Signature> {
        self.give("WalletSign", json!([a(who), WholeBytes(bytes.to_vec())])).await
    }
    async fn wallet_sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage> {
        self.seen.lock().expect("lock").push(("WalletSignMessage".into(), json!([a(who), message])));
        Ok(SignedMessage { message: message.clone(), signature: Signature { kind: 2, data: vec![1; 96] } })
    }
    async fn miner_get_base_info(
        &self,
        m: &Address,
        epoch: ChainEpoch,
        key: &TipSetKey,
    ) -> Result<Option<MiningBaseInfo>> {
        self.give("MinerGetBaseInfo", json!([a(m), epoch, key])).await
    }
    async fn miner_create_block(&self, template: &BlockTemplate) -> Result<BlockMsg> {
        self.give("MinerCreateBlock", json!([template])).await
    }
    async fn sync_submit_block(&self, block: &BlockMsg) -> Result<()> {
        self.seen.lock().expect("lock").push(("SyncSubmitBlock".into(), json!([block])));
        Ok(())
    }
    async fn f3_get_or_renew_participation_ticket(
        &self,
        m: &Address,
        previous: &[u8],
        instances: u64,
    ) -> Result<Vec<u8>> {
        let params = json!([a(m), WholeBytes(previous.to_vec()), instances]);
        self.give("F3GetOrRenewParticipationTicket", params).await.map(|WholeBytes(ticket)| ticket)
    }
    async fn f3_participate(&self, ticket: &[u8]) -> Result<F3Lease> {
        self.give("F3Participate", json!([WholeBytes(ticket.to_vec())])).await
    }
    async fn f3_get_progress(&self) -> Result<F3Progress> {
        self.give("F3GetProgress", json!([])).await
    }
    async fn f3_get_manifest(&self) -> Result<Option<F3Manifest>> {
        self.give("F3GetManifest", json!([])).await
    }
}
