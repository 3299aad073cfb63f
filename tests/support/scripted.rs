//! A full node that answers what a test told it; it lacks every other method.

#[path = "scripted/parts.rs"]
mod parts;

use async_trait::async_trait;
use bulkhead::chain::types::*;
use bulkhead::rpc::full_node::{FullNode, FullNodeError, RandomnessTag, Result};
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use multihash_codetable::{Code, MultihashDigest};
#[allow(unused_imports)] // a bench has no use for them
pub use parts::*;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

pub fn cid(name: &str) -> Cid {
    Cid::new_v1(0x71, Code::Blake2b256.digest(name.as_bytes()))
}

pub fn super_block(miner: Address, height: ChainEpoch, parents: Vec<Cid>) -> BlockHeader {
    BlockHeader {
        miner,
        ticket: Some(Ticket { vrf_proof: vec![height as u8] }),
        election_proof: None,
        beacon_entries: vec![],
        win_post_proof: vec![],
        parents,
        parent_weight: 0.into(),
        height,
        parent_state_root: cid("state"),
        parent_message_receipts: cid("receipts"),
        messages: cid("messages"),
        bls_aggregate: None,
        timestamp: 1_000_000 + 30 * height as u64,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(100),
    }
}

/// A tipset of one block, named after itself.
pub fn tipset(name: &str, height: ChainEpoch, parent: &str) -> TipSet {
    let block = super_block(Address::new_id(1), height, vec![cid(parent)]);
    TipSet { cids: vec![cid(name)], blocks: vec![block], height }
}

/// With that many more blocks of other miners.
pub fn among(others: u64, tipset: TipSet) -> TipSet {
    let mut tipset = tipset;
    for other in 0..others {
        tipset.cids.push(cid(&format!("{} of {other}", tipset.cids[0])));
        tipset.blocks.push(BlockHeader { miner: Address::new_id(2000 + other), ..tipset.blocks[0].clone() });
    }
    tipset
}

/// The network's lengths, period 0 at epoch 0.
pub fn mainnet() -> DeadlineInfo {
    DeadlineInfo {
        w_post_period_deadlines: 48,
        w_post_proving_period: 2880,
        w_post_challenge_window: 60,
        w_post_challenge_lookback: 20,
        fault_declaration_cutoff: 70,
        ..Default::default()
    }
    .with(0, 0)
}

pub fn bits(set: &[u64]) -> BitField {
    BitField::try_from_bits(set.iter().copied()).unwrap()
}

pub fn partition(live: &[u64], faulty: &[u64], recovering: &[u64]) -> Partition {
    Partition {
        all_sectors: bits(live),
        faulty_sectors: bits(faulty),
        recovering_sectors: bits(recovering),
        live_sectors: bits(live),
        active_sectors: bits(live),
    }
}

pub fn comm_r(number: u64) -> [u8; 32] {
    let mut out = [0; 32];
    out[..8].copy_from_slice(&number.to_le_bytes());
    out
}

/// A sealed CID is the multihash of CommR under its own code.
pub fn sealed_cid(number: u64) -> Cid {
    sealed_cid_of(&comm_r(number))
}

fn sealed_cid_of(comm_r: &[u8; 32]) -> Cid {
    let hash = cid::multihash::Multihash::wrap(0xb401, comm_r).unwrap();
    Cid::new_v1(0xf102, hash)
}

fn sector(number: u64) -> SectorOnChainInfo {
    SectorOnChainInfo {
        sector_number: number,
        seal_proof: 5,
        sealed_cid: sealed_cid(number),
        deal_ids: vec![],
        activation: 0,
        expiration: 1_000_000,
        initial_pledge: None,
        expected_day_reward: None,
        expected_storage_pledge: None,
        power_base_epoch: 0,
        sector_key_cid: None,
        flags: 0,
        daily_fee: None,
    }
}

/// One sector, eligible, a new beacon entry; of a network power of 1000.
pub fn base_info(power: i64) -> MiningBaseInfo {
    MiningBaseInfo {
        miner_power: power.into(),
        network_power: 1000.into(),
        sectors: vec![ExtendedSectorInfo {
            seal_proof: 5,
            sector_number: 1,
            sector_key: None,
            sealed_cid: sealed_cid(1),
        }],
        worker_key: Address::new_bls(&[1; 48]).unwrap(),
        sector_size: 2048,
        prev_beacon_entry: BeaconEntry { round: 1, data: vec![1] },
        beacon_entries: vec![BeaconEntry { round: 2, data: vec![2] }],
        eligible_for_mining: true,
    }
}

#[derive(Default)]
pub struct ScriptedNode {
    pub name: Mutex<Option<String>>,
    pub network: Mutex<String>,
    /// Seconds; 30 unless told.
    pub block_delay: Mutex<Option<u64>>,
    pub head: Mutex<Option<TipSet>>,
    pub channels: Mutex<VecDeque<mpsc::Receiver<Vec<HeadChange>>>>,
    pub tipsets: Mutex<Vec<TipSet>>,
    pub deadline: Mutex<Option<DeadlineInfo>>,
    pub partitions: Mutex<Option<Vec<Partition>>>,
    /// Partitions that count as proven, in every deadline.
    pub proven: Mutex<BitField>,
    /// All bytes of the challenge.
    pub beacon: Mutex<u8>,
    pub base_info: Mutex<Option<MiningBaseInfo>>,
    /// It lacks MpoolSelect.
    pub no_select: AtomicBool,
    pub submitted: Mutex<Vec<BlockMsg>>,
    pub panics_with: Mutex<Option<String>>,
    /// CommR of sectors, where it is not [`comm_r`].
    pub comm_r: Mutex<HashMap<u64, [u8; 32]>>,
    /// Sectors in a partition; 2 unless told.
    pub partition_sectors: Mutex<Option<u64>>,
    pub calls: Mutex<HashMap<&'static str, u64>>,
    /// Methods that never answer, of those that [`ScriptedNode::reached`] guards; `submitted` is after a block was taken.
    pub hangs: Mutex<BTreeSet<&'static str>>,
    /// How many calls of a method are refused for the moment, as at an upgrade's epoch.
    pub not_now: Mutex<HashMap<&'static str, u64>>,
}

impl ScriptedNode {
    fn down(&self, method: &'static str) -> FullNodeError {
        FullNodeError::Unreachable { node: "scripted".into(), why: format!("{method} is not scripted") }
    }
    fn seen(&self, method: &'static str) {
        *self.calls.lock().unwrap().entry(method).or_default() += 1;
    }
    fn refuses(&self, method: &'static str) -> Result<()> {
        match self.not_now.lock().unwrap().get_mut(method) {
            Some(left) if *left > 0 => *left -= 1,
            _ => return Ok(()),
        }
        let why = "refusing explicit call due to state fork at epoch".to_string();
        Err(FullNodeError::NotNow { node: "scripted".into(), method, code: -32002, why })
    }
    async fn reached(&self, method: &'static str) {
        self.seen(method);
        let hangs = self.hangs.lock().unwrap().contains(method);
        if hangs {
            std::future::pending::<()>().await;
        }
    }
    pub fn count(&self, method: &'static str) -> u64 {
        self.calls.lock().unwrap().get(method).copied().unwrap_or_default()
    }
    pub fn add(&self, tipset: TipSet) {
        self.tipsets.lock().unwrap().push(tipset);
    }
    pub fn channel(&self) -> mpsc::Sender<Vec<HeadChange>> {
        let (sender, receiver) = mpsc::channel(16);
        self.channels.lock().unwrap().push_back(receiver);
        sender
    }
}

#[async_trait]
impl FullNode for ScriptedNode {
    fn name(&self) -> String {
        self.name.lock().unwrap().clone().unwrap_or_else(|| "scripted".into())
    }
    async fn chain_head(&self) -> Result<TipSet> {
        self.seen("chain_head");
        self.refuses("chain_head")?;
        self.head.lock().unwrap().clone().ok_or_else(|| self.down("chain_head"))
    }
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        self.seen("chain_notify");
        self.channels.lock().unwrap().pop_front().ok_or_else(|| self.down("chain_notify"))
    }
    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        self.seen("chain_get_tip_set");
        let known = self.tipsets.lock().unwrap().iter().find(|tipset| tipset.key() == *key).cloned();
        known.ok_or_else(|| self.down("chain_get_tip_set"))
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        self.seen("state_get_network_params");
        self.refuses("state_get_network_params")?;
        Ok(NetworkParams {
            network_name: self.network.lock().unwrap().clone(),
            block_delay_secs: self.block_delay.lock().unwrap().unwrap_or(30),
            consensus_miner_min_power: 0.into(),
            supported_proof_types: vec![],
            pre_commit_challenge_delay: 10,
            fork_upgrade_params: serde_json::Value::Null,
            eip155_chain_id: 0,
            genesis_timestamp: 0,
        })
    }
    async fn state_miner_info(&self, _miner: &Address, _key: &TipSetKey) -> Result<MinerInfo> {
        self.seen("state_miner_info");
        Ok(MinerInfo {
            owner: Address::new_id(100),
            worker: Address::new_id(100),
            new_worker: None,
            control_addresses: vec![],
            worker_change_epoch: -1,
            peer_id: None,
            multiaddrs: vec![],
            window_post_proof_type: 10,
            sector_size: 2048,
            window_post_partition_sectors: self.partition_sectors.lock().unwrap().unwrap_or(2),
            consensus_fault_elapsed: -1,
            pending_owner_address: None,
            beneficiary: None,
        })
    }
    async fn state_miner_proving_deadline(&self, _miner: &Address, _key: &TipSetKey) -> Result<DeadlineInfo> {
        self.seen("state_miner_proving_deadline");
        let height = self.head.lock().unwrap().as_ref().map_or(0, |head| head.height);
        let deadline = *self.deadline.lock().unwrap();
        deadline.map(|di| di.not_elapsed_at(height)).ok_or_else(|| self.down("state_miner_proving_deadline"))
    }
    async fn state_miner_deadlines(&self, _miner: &Address, _key: &TipSetKey) -> Result<Vec<Deadline>> {
        self.seen("state_miner_deadlines");
        let post_submissions = self.proven.lock().unwrap().clone();
        Ok(vec![Deadline { post_submissions, disputable_proof_count: 0 }; 48])
    }
    async fn state_miner_partitions(
        &self,
        _miner: &Address,
        _deadline: u64,
        _key: &TipSetKey,
    ) -> Result<Vec<Partition>> {
        self.seen("state_miner_partitions");
        self.refuses("state_miner_partitions")?;
        let bug = self.panics_with.lock().unwrap().take();
        if let Some(text) = bug {
            panic!("{text}");
        }
        let partitions = self.partitions.lock().unwrap().clone();
        partitions.ok_or_else(|| self.down("state_miner_partitions"))
    }
    async fn state_miner_sectors(
        &self,
        _miner: &Address,
        numbers: Option<&BitField>,
        _key: &TipSetKey,
    ) -> Result<Vec<SectorOnChainInfo>> {
        self.seen("state_miner_sectors");
        self.refuses("state_miner_sectors")?;
        let comm_r = self.comm_r.lock().unwrap();
        let found = |number: u64| match comm_r.get(&number) {
            Some(comm_r) => SectorOnChainInfo { sealed_cid: sealed_cid_of(comm_r), ..sector(number) },
            None => sector(number),
        };
        Ok(numbers.map(|numbers| numbers.iter().map(found).collect()).unwrap_or_default())
    }
    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        _key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.seen("state_get_randomness_from_tickets");
        assert_eq!(tag, RandomnessTag::PoStChainCommit);
        assert!(entropy.is_empty());
        Ok(vec![epoch as u8; 32])
    }
    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        _epoch: ChainEpoch,
        entropy: &[u8],
        _key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        self.seen("state_get_randomness_from_beacon");
        self.refuses("state_get_randomness_from_beacon")?;
        assert_eq!(tag, RandomnessTag::WindowedPoStChallengeSeed);
        assert_eq!(entropy, fvm_ipld_encoding::to_vec(&Address::new_id(1000)).unwrap());
        Ok(vec![*self.beacon.lock().unwrap(); 32])
    }
    async fn mpool_select(&self, _key: &TipSetKey, _ticket_quality: f64) -> Result<Vec<SignedMessage>> {
        self.reached("mpool_select").await;
        self.refuses("mpool_select")?;
        if self.no_select.load(Ordering::SeqCst) { Err(self.lacks("MpoolSelect")) } else { Ok(vec![]) }
    }
    async fn wallet_sign(&self, _who: &Address, bytes: &[u8]) -> Result<Signature> {
        self.reached("wallet_sign").await;
        Ok(Signature { kind: 2, data: [bytes, &[0xb5]].concat() })
    }
    async fn miner_get_base_info(
        &self,
        _miner: &Address,
        _epoch: ChainEpoch,
        _key: &TipSetKey,
    ) -> Result<Option<MiningBaseInfo>> {
        self.reached("miner_get_base_info").await;
        Ok(self.base_info.lock().unwrap().clone())
    }
    async fn miner_create_block(&self, template: &BlockTemplate) -> Result<BlockMsg> {
        self.reached("miner_create_block").await;
        let mut header = super_block(template.miner, template.epoch, template.parents.0.clone());
        header.timestamp = template.timestamp;
        header.ticket = Some(template.ticket.clone());
        header.election_proof = Some(template.eproof.clone());
        header.win_post_proof = template.winning_post_proof.clone();
        Ok(BlockMsg { header, bls_messages: vec![], secpk_messages: vec![] })
    }
    async fn sync_submit_block(&self, block: &BlockMsg) -> Result<()> {
        self.reached("sync_submit_block").await;
        self.submitted.lock().unwrap().push(block.clone());
        self.reached("submitted").await;
        Ok(())
    }
}
