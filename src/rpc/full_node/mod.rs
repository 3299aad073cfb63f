//! The full node's API (Lotus, Forest, Venus, the embedded devnet) as far as the provider uses it, as a trait.
//!
//! One method per `Filecoin.*` JSON-RPC method that we use; every call has a deadline inside its implementation.
//! [`HttpFullNode`] is the implementation for nodes behind an address.
//!
//! * [`http`] — the calls; [`feed`] — the head feed over a WebSocket; [`limits`] — how long each may take.
//! * [`capabilities`] — which methods a node lacks; [`workarounds`] — what is asked instead.
//! * [`verdicts`] — errors that are answers; [`lookups`] — questions that take more than one call.
//! * [`rules`] — the network's rules at a tipset.
//! * [`pool`] — several nodes that are used as one.

pub mod capabilities;
mod feed;
pub mod http;
pub mod limits;
pub mod lookups;
mod node_client;
pub mod pool;
pub mod rules;
mod sync;
pub mod verdicts;
mod workarounds;

pub use feed::open_channel;
pub use limits::CallLimits;
pub use node_client::HttpFullNode;
pub use node_client::Missing;
pub use verdicts::MessageVerdict;

use crate::chain::types::*;
use async_trait::async_trait;
use cid::Cid;
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Why a call to a full node gave no result.
#[derive(Debug, thiserror::Error, Clone)]
pub enum FullNodeError {
    /// Nothing listens there, the connection broke, or TLS/WebSocket set-up failed: try the next node, or again later.
    #[error("full node {node}: cannot reach it: {why}")]
    Unreachable { node: String, why: String },
    /// The node did not answer within the call's deadline.
    #[error("full node {node}: {method} did not answer within {after:?}")]
    Timeout { node: String, method: &'static str, after: std::time::Duration },
    /// 401/403: check the token in FULLNODE_API_INFO.
    #[error(
        "full node {node}: {method} refused: {why}; check the token in FULLNODE_API_INFO (admin permission is needed)"
    )]
    Unauthorized { node: String, method: &'static str, why: String },
    /// The node lacks the method (JSON-RPC -32601).
    #[error("full node {node}: it has no method {method}")]
    NoSuchMethod { node: String, method: &'static str },
    /// The node has the method, and says that the network's version has it no longer.
    #[error("full node {node}: {method} is not supported by it: {why}")]
    Unsupported { node: String, method: &'static str, why: String },
    /// The node refuses the call for the moment: an expensive migration at an upgrade's epoch (Lotus, -32002), or a quota
    /// (-32005). Says nothing of the call, and nothing of the node's health.
    #[error("full node {node}: {method} is refused for the moment, asked again at the next tipset: {why}")]
    NotNow { node: String, method: &'static str, code: i64, why: String },
    /// The node answered with a JSON-RPC error.
    #[error("full node {node}: {method}: {message}")]
    Rpc { node: String, method: &'static str, code: i64, message: String },
    /// The answer is not the JSON that the method gives.
    #[error("full node {node}: {method} answered something else than expected: {why}")]
    BadAnswer { node: String, method: &'static str, why: String },
}

impl FullNodeError {
    /// The same call may succeed later or on another node; no verdict was given.
    pub fn is_transient(&self) -> bool {
        matches!(self, FullNodeError::Unreachable { .. } | FullNodeError::Timeout { .. } | FullNodeError::NotNow { .. })
    }

    /// The node lacks the method, on this network's version or at all.
    pub fn is_missing_method(&self) -> bool {
        matches!(self, FullNodeError::NoSuchMethod { .. } | FullNodeError::Unsupported { .. })
    }

    /// The JSON-RPC code of the node's own verdict.
    pub fn code(&self) -> Option<i64> {
        match self {
            FullNodeError::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }
}

pub type Result<T> = std::result::Result<T, FullNodeError>;

/// Domain separation tags for randomness (`go-state-types/crypto/randomness.go`).
#[derive(serde::Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(try_from = "i64")]
#[repr(i64)]
pub enum RandomnessTag {
    TicketProduction = 1,
    ElectionProofProduction = 2,
    WinningPoStChallengeSeed = 3,
    WindowedPoStChallengeSeed = 4,
    SealRandomness = 5,
    InteractiveSealChallengeSeed = 6,
    WindowedPoStDeadlineAssignment = 7,
    MarketDealCronSeed = 8,
    PoStChainCommit = 9,
}

impl TryFrom<i64> for RandomnessTag {
    type Error = String;
    fn try_from(n: i64) -> std::result::Result<Self, String> {
        use RandomnessTag::*;
        [
            TicketProduction,
            ElectionProofProduction,
            WinningPoStChallengeSeed,
            WindowedPoStChallengeSeed,
            SealRandomness,
            InteractiveSealChallengeSeed,
            WindowedPoStDeadlineAssignment,
            MarketDealCronSeed,
            PoStChainCommit,
        ]
        .into_iter()
        .find(|tag| *tag as i64 == n)
        .ok_or_else(|| format!("{n} is no domain separation tag"))
    }
}

/// Peers of a node's gossip, by what they pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GossipPeers {
    pub messages: u64,
    pub blocks: u64,
}

/// A method that an implementation leaves out is one that the node lacks.
#[async_trait]
#[allow(unused_variables)] // of the methods that are left out
pub trait FullNode: Send + Sync + 'static {
    /// How logs and errors name this node (`host:port`).
    fn name(&self) -> String;

    /// The node alone to which `method` would go now, for calls that must all go to one node: a round of WinningPoSt, an F3
    /// lease. `None`: this is one node.
    fn pinned_for(&self, method: &'static str) -> Option<Arc<dyn FullNode>> {
        None
    }

    /// The pool behind it; `None`: this is one node.
    fn pool(&self) -> Option<&pool::NodePool> {
        None
    }

    /// How a node says that it lacks `method`.
    fn lacks(&self, method: &'static str) -> FullNodeError {
        FullNodeError::NoSuchMethod { node: self.name(), method }
    }

    /// Which of the methods that are used here the node lacks; probed once.
    async fn missing_methods(&self) -> Result<Vec<Missing>> {
        Ok(Vec::new())
    }

    async fn version(&self) -> Result<Version> {
        Err(self.lacks("Version"))
    }
    async fn chain_head(&self) -> Result<TipSet> {
        Err(self.lacks("ChainHead"))
    }
    /// The feed of head changes: the first batch is one `Current`. The channel is bounded; it closes when the connection breaks.
    async fn chain_notify(&self) -> Result<mpsc::Receiver<Vec<HeadChange>>> {
        Err(self.lacks("ChainNotify"))
    }
    async fn chain_get_tip_set(&self, key: &TipSetKey) -> Result<TipSet> {
        Err(self.lacks("ChainGetTipSet"))
    }
    async fn chain_get_tip_set_by_height(&self, height: ChainEpoch, key: &TipSetKey) -> Result<TipSet> {
        Err(self.lacks("ChainGetTipSetByHeight"))
    }
    async fn chain_tip_set_weight(&self, key: &TipSetKey) -> Result<num_bigint::BigInt> {
        Err(self.lacks("ChainTipSetWeight"))
    }

    /// Epochs that it has left to sync by its own word, 0 when it is in sync; `None`: it does not tell.
    async fn sync_behind(&self) -> Result<Option<ChainEpoch>> {
        Ok(None)
    }
    /// Peers that pass on messages and blocks to it; `None`: it does not tell.
    async fn gossip_peers(&self) -> Result<Option<GossipPeers>> {
        Ok(None)
    }

    async fn state_network_name(&self) -> Result<String> {
        Err(self.lacks("StateNetworkName"))
    }
    async fn state_network_version(&self, key: &TipSetKey) -> Result<u32> {
        Err(self.lacks("StateNetworkVersion"))
    }
    async fn state_get_network_params(&self) -> Result<NetworkParams> {
        Err(self.lacks("StateGetNetworkParams"))
    }
    /// `None` when the chain has no such actor.
    async fn state_get_actor(&self, who: &Address, key: &TipSetKey) -> Result<Option<OnChainActor>> {
        Err(self.lacks("StateGetActor"))
    }
    async fn state_lookup_id(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        Err(self.lacks("StateLookupID"))
    }
    async fn state_account_key(&self, who: &Address, key: &TipSetKey) -> Result<Address> {
        Err(self.lacks("StateAccountKey"))
    }

    async fn state_miner_info(&self, miner: &Address, key: &TipSetKey) -> Result<MinerInfo> {
        Err(self.lacks("StateMinerInfo"))
    }
    async fn state_miner_power(&self, miner: &Address, key: &TipSetKey) -> Result<MinerPower> {
        Err(self.lacks("StateMinerPower"))
    }
    async fn state_miner_available_balance(&self, miner: &Address, key: &TipSetKey) -> Result<TokenAmount> {
        Err(self.lacks("StateMinerAvailableBalance"))
    }
    /// Read from the actor's state.
    async fn state_miner_funds(&self, miner: &Address, key: &TipSetKey) -> Result<MinerFunds> {
        Err(self.lacks("StateReadState"))
    }
    async fn state_miner_proving_deadline(&self, miner: &Address, key: &TipSetKey) -> Result<DeadlineInfo> {
        Err(self.lacks("StateMinerProvingDeadline"))
    }
    async fn state_miner_deadlines(&self, miner: &Address, key: &TipSetKey) -> Result<Vec<Deadline>> {
        Err(self.lacks("StateMinerDeadlines"))
    }
    async fn state_miner_partitions(&self, miner: &Address, deadline: u64, key: &TipSetKey) -> Result<Vec<Partition>> {
        Err(self.lacks("StateMinerPartitions"))
    }
    /// `None` asks for all sectors. One number that is no sector on chain makes the whole call fail: see
    /// [`lookups::sectors_on_chain`].
    async fn state_miner_sectors(
        &self,
        miner: &Address,
        numbers: Option<&BitField>,
        key: &TipSetKey,
    ) -> Result<Vec<SectorOnChainInfo>> {
        Err(self.lacks("StateMinerSectors"))
    }
    /// Every sector number that the miner has ever allocated on chain.
    async fn state_miner_allocated(&self, miner: &Address, key: &TipSetKey) -> Result<BitField> {
        Err(self.lacks("StateMinerAllocated"))
    }
    async fn state_miner_pre_commit_deposit_for_power(
        &self,
        miner: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        Err(self.lacks("StateMinerPreCommitDepositForPower"))
    }
    async fn state_miner_initial_pledge_collateral(
        &self,
        miner: &Address,
        info: &SectorPreCommitInfo,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        Err(self.lacks("StateMinerInitialPledgeCollateral"))
    }
    /// Asked from network version 29 on, where [`Self::state_miner_initial_pledge_collateral`] is refused (FIP-0118). The
    /// answer contains Lotus' margin of a tenth. `duration`: epochs from the tipset to the sector's expiration, above 0;
    /// `verified_size`: the bytes that count ten-fold, at most `sector_size`.
    async fn state_miner_initial_pledge_for_sector(
        &self,
        duration: ChainEpoch,
        sector_size: u64,
        verified_size: u64,
        key: &TipSetKey,
    ) -> Result<TokenAmount> {
        Err(self.lacks("StateMinerInitialPledgeForSector"))
    }
    /// The deposit that CreateMiner must carry (FIP-0077, network version 27 on); zero before.
    async fn state_miner_creation_deposit(&self, key: &TipSetKey) -> Result<TokenAmount> {
        Err(self.lacks("StateMinerCreationDeposit"))
    }
    /// `None` when no pre-commit of that number is on chain.
    async fn state_sector_pre_commit_info(
        &self,
        miner: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorPreCommitOnChainInfo>> {
        Err(self.lacks("StateSectorPreCommitInfo"))
    }
    /// `None` when the sector is not proven on chain.
    async fn state_sector_get_info(
        &self,
        miner: &Address,
        number: u64,
        key: &TipSetKey,
    ) -> Result<Option<SectorOnChainInfo>> {
        Err(self.lacks("StateSectorGetInfo"))
    }
    async fn state_sector_partition(&self, miner: &Address, number: u64, key: &TipSetKey) -> Result<SectorLocation> {
        Err(self.lacks("StateSectorPartition"))
    }

    /// 32 bytes.
    async fn state_get_randomness_from_tickets(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        Err(self.lacks("StateGetRandomnessFromTickets"))
    }
    /// 32 bytes.
    async fn state_get_randomness_from_beacon(
        &self,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        key: &TipSetKey,
    ) -> Result<Vec<u8>> {
        Err(self.lacks("StateGetRandomnessFromBeacon"))
    }

    /// `None` when the message is not on chain within `lookback` epochs (-1: no limit). Does not wait. A message that the
    /// node never held, or whose nonce another one has used, is an error: see [`FullNodeError::of_message`].
    async fn state_search_msg(
        &self,
        from: &TipSetKey,
        message: &Cid,
        lookback: ChainEpoch,
        allow_replaced: bool,
    ) -> Result<Option<MsgLookup>> {
        Err(self.lacks("StateSearchMsg"))
    }

    async fn mpool_get_nonce(&self, who: &Address) -> Result<u64> {
        Err(self.lacks("MpoolGetNonce"))
    }
    async fn mpool_push(&self, message: &SignedMessage) -> Result<Cid> {
        Err(self.lacks("MpoolPush"))
    }
    async fn mpool_pending(&self, key: &TipSetKey) -> Result<Vec<SignedMessage>> {
        Err(self.lacks("MpoolPending"))
    }
    async fn mpool_select(&self, key: &TipSetKey, ticket_quality: f64) -> Result<Vec<SignedMessage>> {
        Err(self.lacks("MpoolSelect"))
    }
    /// Fills gas limit, fee cap and premium. `max_fee` in attoFIL bounds fee cap x limit; zero = the node's default.
    async fn gas_estimate_message_gas(
        &self,
        message: &Message,
        max_fee: &TokenAmount,
        key: &TipSetKey,
    ) -> Result<Message> {
        Err(self.lacks("GasEstimateMessageGas"))
    }

    async fn wallet_has(&self, who: &Address) -> Result<bool> {
        Err(self.lacks("WalletHas"))
    }
    async fn wallet_list(&self) -> Result<Vec<Address>> {
        Err(self.lacks("WalletList"))
    }
    async fn wallet_new(&self, kind: &str) -> Result<Address> {
        Err(self.lacks("WalletNew"))
    }
    async fn wallet_balance(&self, who: &Address) -> Result<TokenAmount> {
        Err(self.lacks("WalletBalance"))
    }
    async fn wallet_default_address(&self) -> Result<Option<Address>> {
        Err(self.lacks("WalletDefaultAddress"))
    }
    async fn wallet_sign(&self, who: &Address, bytes: &[u8]) -> Result<Signature> {
        Err(self.lacks("WalletSign"))
    }
    async fn wallet_sign_message(&self, who: &Address, message: &Message) -> Result<SignedMessage> {
        Err(self.lacks("WalletSignMessage"))
    }

    /// `None` when the miner may not mine at this height.
    async fn miner_get_base_info(
        &self,
        miner: &Address,
        epoch: ChainEpoch,
        key: &TipSetKey,
    ) -> Result<Option<MiningBaseInfo>> {
        Err(self.lacks("MinerGetBaseInfo"))
    }
    async fn miner_create_block(&self, template: &BlockTemplate) -> Result<BlockMsg> {
        Err(self.lacks("MinerCreateBlock"))
    }
    async fn sync_submit_block(&self, block: &BlockMsg) -> Result<()> {
        Err(self.lacks("SyncSubmitBlock"))
    }

    /// A ticket for an F3 participation lease of `instances` (at most 5). `previous`: the last ticket, empty without one.
    async fn f3_get_or_renew_participation_ticket(
        &self,
        miner: &Address,
        previous: &[u8],
        instances: u64,
    ) -> Result<Vec<u8>> {
        Err(self.lacks("F3GetOrRenewParticipationTicket"))
    }
    /// Takes or prolongs the lease of a ticket: until it ends the node signs for the miner in fast finality (FIP-0086).
    async fn f3_participate(&self, ticket: &[u8]) -> Result<F3Lease> {
        Err(self.lacks("F3Participate"))
    }
    /// The instance of fast finality that the node works on.
    async fn f3_get_progress(&self) -> Result<F3Progress> {
        Err(self.lacks("F3GetProgress"))
    }
    /// `None` while the node has none yet.
    async fn f3_get_manifest(&self) -> Result<Option<F3Manifest>> {
        Err(self.lacks("F3GetManifest"))
    }
}
