//! A devnet with a scripted verifier, driven without waiting; what tests of the chain share.

use bulkhead::chain::types::*;
use bulkhead::devnet::verifier::{PoStCheck, SealCheck, VerifierError};
use bulkhead::devnet::{Devnet, DevnetSettings, Verifier};
use bulkhead::rpc::full_node::{FullNode, RandomnessTag};
use cid::Cid;
use cid::multihash::Multihash;
use fil_actor_miner_state::v18 as miner;
use fil_actor_power_state::v18 as power;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::address::Address;
use fvm_shared::bigint::BigInt;
use fvm_shared::commcid::{FIL_COMMITMENT_SEALED, POSEIDON_BLS12_381_A1_FC1};
use fvm_shared::econ::TokenAmount;
use fvm_shared::randomness::Randomness;
use fvm_shared::sector::{PoStProof as FvmPoStProof, RegisteredPoStProof, RegisteredSealProof};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const GOOD: &[u8] = &[1; 192];
pub const BAD: &[u8] = &[0; 192];

/// Proofs that start with 1 are good, while it says so.
#[derive(Default)]
pub struct ScriptedVerifier {
    pub refuse_all: AtomicBool,
    pub no_keys: AtomicBool,
}

impl ScriptedVerifier {
    fn judge(&self, proof: &[u8]) -> Result<bool, VerifierError> {
        self.ready()?;
        Ok(proof.first() == Some(&1) && !self.refuse_all.load(Ordering::SeqCst))
    }
}

impl Verifier for ScriptedVerifier {
    fn ready(&self) -> Result<(), VerifierError> {
        match self.no_keys.load(Ordering::SeqCst) {
            true => Err(VerifierError::NoKey { what: "PoRep", path: "v28-missing.vk".into() }),
            false => Ok(()),
        }
    }
    fn seal(&self, check: &SealCheck<'_>) -> Result<bool, VerifierError> {
        self.judge(check.proof)
    }
    fn window_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError> {
        self.judge(check.proof)
    }
    fn winning_post(&self, check: &PoStCheck<'_>) -> Result<bool, VerifierError> {
        self.judge(check.proof)
    }
}

pub struct Net {
    pub devnet: Arc<Devnet>,
    pub verifier: Arc<ScriptedVerifier>,
    pub dir: tempfile::TempDir,
    pub owner: Address,
    pub worker: Address,
    pub miner: Address,
    pub settings: DevnetSettings,
}

pub fn head() -> TipSetKey {
    TipSetKey::default()
}

pub fn fil(n: u64) -> TokenAmount {
    TokenAmount::from_whole(n)
}

/// Short lifetimes, so that tests reach every end.
pub fn settings() -> DevnetSettings {
    DevnetSettings {
        min_sector_lifetime: 200,
        max_prove_commit: 50,
        pre_commit_clean_up_delay: 10,
        fault_max_periods: 3,
        ..Default::default()
    }
}

impl Net {
    /// A chain without a miner.
    pub fn bare(settings: DevnetSettings) -> Net {
        let verifier = Arc::new(ScriptedVerifier::default());
        Net::bare_with(settings, verifier.clone(), verifier)
    }

    /// As [`Net::bare`], with another verifier than the scripted one.
    pub fn bare_with(settings: DevnetSettings, of_chain: Arc<dyn Verifier>, verifier: Arc<ScriptedVerifier>) -> Net {
        let dir = tempfile::tempdir().unwrap();
        let devnet = Devnet::open_with(dir.path(), settings.clone(), of_chain).unwrap();
        devnet.set_time(1_700_000_000_000);
        let (owner, worker) = devnet.accounts();
        Net { devnet, verifier, dir, owner, worker, miner: Address::new_id(1000), settings }
    }

    /// A chain with the miner t01000, funded.
    pub async fn start() -> Net {
        Net::start_with(settings()).await
    }

    pub async fn start_with(settings: DevnetSettings) -> Net {
        Net::bare(settings).with_miner().await
    }

    pub async fn with_miner(self) -> Net {
        let net = self;
        net.devnet.produce_until(2).unwrap();
        let params = power::CreateMinerParams {
            owner: net.owner,
            worker: net.worker,
            window_post_proof_type: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            peer: vec![],
            multiaddrs: vec![],
        };
        let receipt = net.must(net.owner, Address::new_id(4), 2, &params, fil(100)).await;
        let created: power::CreateMinerReturn = fvm_ipld_encoding::from_slice(&receipt.return_data).unwrap();
        assert_eq!(created.id_address, net.miner);
        assert_eq!(net.devnet.state_lookup_id(&created.robust_address, &head()).await.unwrap(), net.miner);
        net
    }

    /// Stops the chain and opens it again from its folder.
    pub fn reopen(self) -> Net {
        let Net { devnet, verifier, dir, owner, worker, miner, settings } = self;
        assert_eq!(Arc::strong_count(&devnet), 1);
        drop(devnet);
        let devnet = Devnet::open_with(dir.path(), settings.clone(), verifier.clone()).unwrap();
        devnet.set_time(1_700_000_000_000);
        Net { devnet, verifier, dir, owner, worker, miner, settings }
    }

    pub async fn height(&self) -> i64 {
        self.devnet.chain_head().await.unwrap().height
    }

    pub fn until(&self, height: i64) {
        self.devnet.produce_until(height).unwrap();
    }

    pub async fn step(&self) {
        self.until(self.height().await + 1);
    }

    pub fn message(&self, from: Address, to: Address, method: u64, params: Vec<u8>, value: TokenAmount) -> Message {
        Message {
            version: 0,
            to,
            from,
            nonce: 0,
            value,
            gas_limit: 0,
            gas_fee_cap: TokenAmount::default(),
            gas_premium: TokenAmount::default(),
            method,
            params,
        }
    }

    /// Signed with the next nonce and a gas limit that suffices, and pushed.
    pub async fn push(&self, message: Message) -> Cid {
        let nonce = self.devnet.mpool_get_nonce(&message.from).await.unwrap();
        self.devnet.mpool_push(&self.signed(message, nonce).await).await.unwrap()
    }

    pub async fn signed(&self, mut message: Message, nonce: u64) -> SignedMessage {
        message.nonce = nonce;
        if message.gas_limit == 0 {
            message.gas_limit = 200_000_000;
        }
        message.gas_fee_cap = TokenAmount::from_atto(200_000);
        message.gas_premium = TokenAmount::from_atto(100_000);
        self.devnet.wallet_sign_message(&message.from.clone(), &message).await.unwrap()
    }

    /// Signed exactly as it is.
    pub async fn signed_raw(&self, message: Message) -> SignedMessage {
        let signature = Signature { kind: 2, data: vec![0; 96] };
        SignedMessage { message, signature }
    }

    /// Sends a message (no estimate), makes the block with it and the next, gives the receipt.
    pub async fn send<P: Serialize>(
        &self,
        from: Address,
        to: Address,
        method: u64,
        params: &P,
        value: TokenAmount,
    ) -> MessageReceipt {
        let params = RawBytes::serialize(params).unwrap().to_vec();
        let cid = self.push(self.message(from, to, method, params, value)).await;
        self.receipt(&cid).await
    }

    pub async fn receipt(&self, cid: &Cid) -> MessageReceipt {
        for _ in 0..3 {
            if let Some(found) = self.devnet.state_search_msg(&head(), cid, -1, false).await.unwrap() {
                return found.receipt;
            }
            self.step().await;
        }
        panic!("message {cid} is not on chain");
    }

    pub async fn must<P: Serialize>(
        &self,
        from: Address,
        to: Address,
        method: u64,
        params: &P,
        value: TokenAmount,
    ) -> MessageReceipt {
        let receipt = self.send(from, to, method, params, value).await;
        assert_eq!(receipt.exit_code, 0, "method {method}");
        receipt
    }

    /// What the node says when asked to estimate this call: the reason of a failure.
    pub async fn refusal<P: Serialize>(&self, from: Address, method: u64, params: &P) -> String {
        let params = RawBytes::serialize(params).unwrap().to_vec();
        let message = self.message(from, self.miner, method, params, TokenAmount::default());
        let asked = self.devnet.gas_estimate_message_gas(&message, &TokenAmount::default(), &head()).await;
        asked.unwrap_err().to_string()
    }

    pub async fn pre_commit_params(&self, number: u64) -> miner::PreCommitSectorBatchParams2 {
        let now = self.height().await;
        miner::PreCommitSectorBatchParams2 {
            sectors: vec![miner::SectorPreCommitInfo {
                seal_proof: RegisteredSealProof::StackedDRG2KiBV1P1,
                sector_number: number,
                sealed_cid: sealed_cid(number),
                seal_rand_epoch: now - 1,
                deal_ids: vec![],
                expiration: now + self.settings.max_prove_commit_duration() + self.settings.min_sector_lifetime + 60,
                unsealed_cid: miner::CompactCommD::empty(),
            }],
        }
    }

    pub async fn pre_commit(&self, number: u64) {
        let params = self.pre_commit_params(number).await;
        self.must(self.worker, self.miner, 28, &params, TokenAmount::default()).await;
    }

    pub fn prove_params(&self, number: u64, proof: &[u8]) -> miner::ProveCommitSectors3Params {
        miner::ProveCommitSectors3Params {
            sector_activations: vec![miner::SectorActivationManifest { sector_number: number, pieces: vec![] }],
            sector_proofs: vec![RawBytes::new(proof.to_vec())],
            aggregate_proof: RawBytes::default(),
            aggregate_proof_type: None,
            require_activation_success: true,
            require_notification_success: false,
        }
    }

    /// Pre-commits, waits for the seed, proves.
    pub async fn seal(&self, number: u64) {
        self.pre_commit(number).await;
        let found = self.devnet.state_sector_pre_commit_info(&self.miner, number, &head()).await.unwrap().unwrap();
        self.until(found.pre_commit_epoch + self.settings.pre_commit_challenge_delay);
        self.must(self.worker, self.miner, 34, &self.prove_params(number, GOOD), TokenAmount::default()).await;
    }

    pub async fn location(&self, number: u64) -> SectorLocation {
        self.devnet.state_sector_partition(&self.miner, number, &head()).await.unwrap()
    }

    pub async fn deadline(&self) -> DeadlineInfo {
        self.devnet.state_miner_proving_deadline(&self.miner, &head()).await.unwrap()
    }

    /// Moves to an epoch from which the next block is in the sector's deadline.
    pub async fn until_open(&self, deadline: u64) -> DeadlineInfo {
        loop {
            let now = self.deadline().await;
            if now.index == deadline && now.current_epoch < now.close - 2 {
                return now;
            }
            self.step().await;
        }
    }

    pub async fn post_params(&self, at: SectorLocation, proof: &[u8]) -> miner::SubmitWindowedPoStParams {
        let commit = self.height().await;
        let rand = self
            .devnet
            .state_get_randomness_from_tickets(RandomnessTag::PoStChainCommit, commit, &[], &head())
            .await
            .unwrap();
        miner::SubmitWindowedPoStParams {
            deadline: at.deadline,
            partitions: vec![miner::PoStPartition { index: at.partition, skipped: Default::default() }],
            proofs: vec![FvmPoStProof {
                post_proof: RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
                proof_bytes: proof.to_vec(),
            }],
            chain_commit_epoch: commit,
            chain_commit_rand: Randomness(rand),
        }
    }

    pub async fn post(&self, at: SectorLocation) {
        self.until_open(at.deadline).await;
        let params = self.post_params(at, GOOD).await;
        self.must(self.worker, self.miner, 5, &params, TokenAmount::default()).await;
    }

    /// Bytes of the sectors that count.
    pub async fn power(&self) -> BigInt {
        self.devnet.state_miner_power(&self.miner, &head()).await.unwrap().miner_power.raw_byte_power
    }

    /// Those bytes times the quality of each sector.
    pub async fn quality_adjusted(&self) -> BigInt {
        self.devnet.state_miner_power(&self.miner, &head()).await.unwrap().miner_power.quality_adj_power
    }

    /// A sector with power.
    pub async fn with_power() -> Net {
        let net = Net::start().await;
        net.seal(1).await;
        net.post(net.location(1).await).await;
        assert_eq!(net.power().await, BigInt::from(2048));
        net
    }
}

/// What stands in the `p_aux` of a sector's cache: its commitments, of which CommR is made.
pub fn p_aux(number: u64) -> [u8; 64] {
    let mut commitments = [0; 64];
    commitments[..8].copy_from_slice(&number.to_le_bytes());
    commitments
}

pub fn sealed_cid(number: u64) -> Cid {
    let comm_r = bulkhead::proofs::tasks::comm_r_of(&p_aux(number)).unwrap();
    let hash = Multihash::wrap(POSEIDON_BLS12_381_A1_FC1, &comm_r).unwrap();
    Cid::new_v1(FIL_COMMITMENT_SEALED, hash)
}

pub fn bits(numbers: &[u64]) -> fvm_ipld_bitfield::BitField {
    fvm_ipld_bitfield::BitField::try_from_bits(numbers.iter().copied()).unwrap()
}
