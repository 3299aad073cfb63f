//! The permission that each method of a full node needs, as in lotus `api/api_full.go`, `api_common.go` and `api_net.go`.

use crate::rpc::auth::Perm;

/// Methods of read permission, without `Filecoin.`.
const READ: &str = "
    ChainBlockstoreInfo ChainExport ChainGetBlock ChainGetBlockMessages ChainGetEvents ChainGetFinalizedTipSet
    ChainGetGenesis ChainGetMessage ChainGetMessagesInTipset ChainGetNode ChainGetParentMessages ChainGetParentReceipts
    ChainGetPath ChainGetRandomnessFromBeacon ChainGetRandomnessFromTickets ChainGetTipSet ChainGetTipSetAfterHeight
    ChainGetTipSetByHeight ChainHasObj ChainHead ChainNotify ChainReadObj ChainStatObj ChainTipSetWeight
    BeaconGetEntry Closing Discover
    F3GetCertificate F3GetECPowerTable F3GetF3PowerTable F3GetLatestCertificate F3GetManifest F3GetPowerTableByInstance
    F3GetProgress F3IsRunning F3ListParticipants
    EthAccounts EthAddressToFilecoinAddress EthBaseFee EthBlockNumber EthCall EthChainId EthEstimateGas EthFeeHistory
    EthGasPrice EthGetBalance EthGetBlockByHash EthGetBlockByNumber EthGetBlockReceipts EthGetBlockReceiptsLimited
    EthGetBlockTransactionCountByHash EthGetBlockTransactionCountByNumber EthGetCode EthGetFilterChanges EthGetFilterLogs
    EthGetLogs EthGetMessageCidByTransactionHash EthGetStorageAt EthGetTransactionByBlockHashAndIndex
    EthGetTransactionByBlockNumberAndIndex EthGetTransactionByHash EthGetTransactionByHashLimited EthGetTransactionCount
    EthGetTransactionHashByCid EthGetTransactionReceipt EthGetTransactionReceiptLimited EthMaxPriorityFeePerGas
    EthNewBlockFilter EthNewFilter EthNewPendingTransactionFilter EthProtocolVersion EthSendRawTransaction
    EthSendRawTransactionUntrusted EthSubscribe EthSyncing EthTraceBlock EthTraceFilter EthTraceReplayBlockTransactions
    EthTraceTransaction EthUninstallFilter EthUnsubscribe FilecoinAddressToEthAddress Web3ClientVersion
    GasEstimateFeeCap GasEstimateGasLimit GasEstimateGasPremium GasEstimateMessageGas
    GetActorEventsRaw SubscribeActorEventsRaw ID MinerGetBaseInfo
    MpoolCheckMessages MpoolCheckPendingMessages MpoolCheckReplaceMessages MpoolGetConfig MpoolGetNonce MpoolPending
    MpoolSelect MpoolSub
    MsigGetAvailableBalance MsigGetPending MsigGetVested MsigGetVestingSchedule
    NetAddrsListen NetAgentVersion NetAutoNatStatus NetBandwidthStats NetBandwidthStatsByPeer NetBandwidthStatsByProtocol
    NetBlockList NetConnectedness NetFindPeer NetLimit NetListening NetPeerInfo NetPeers NetPing NetProtectList
    NetPubsubScores NetStat NetVersion NodeStatus
    PaychList PaychStatus PaychVoucherCheckSpendable PaychVoucherCheckValid StartTime
    StateAccountKey StateActorCodeCIDs StateActorManifestCID StateAllMinerFaults StateCall StateChangedActors
    StateCirculatingSupply StateCompute StateComputeDataCID StateDealProviderCollateralBounds StateDecodeParams
    StateEncodeParams StateGetActor StateGetAllAllocations StateGetAllClaims StateGetAllocation
    StateGetAllocationForPendingDeal StateGetAllocationIdForPendingDeal StateGetAllocations StateGetBeaconEntry
    StateGetClaim StateGetClaims StateGetNetworkParams StateGetRandomnessDigestFromBeacon
    StateGetRandomnessDigestFromTickets StateGetRandomnessFromBeacon StateGetRandomnessFromTickets StateGetReceipt
    StateListActors StateListMessages StateListMiners StateLookupID StateLookupRobustAddress StateMarketBalance
    StateMarketDeals StateMarketParticipants StateMarketProposalPending StateMarketStorageDeal StateMinerActiveSectors
    StateMinerAllocated StateMinerAvailableBalance StateMinerCreationDeposit StateMinerDeadlines StateMinerFaults
    StateMinerInfo StateMinerInitialPledgeCollateral StateMinerInitialPledgeForSector StateMinerPartitions
    StateMinerPower StateMinerPreCommitDepositForPower StateMinerProvingDeadline StateMinerRecoveries
    StateMinerSectorAllocated StateMinerSectorCount StateMinerSectors StateNetworkName StateNetworkVersion StateReadState
    StateReplay StateSearchMsg StateSearchMsgLimited StateSectorExpiration StateSectorGetInfo StateSectorPartition
    StateSectorPreCommitInfo StateVMCirculatingSupplyInternal StateVerifiedClientStatus StateVerifiedRegistryRootKey
    StateVerifierStatus StateWaitMsg StateWaitMsgLimited
    SyncCheckBad SyncIncomingBlocks SyncState SyncValidateTipset Version WalletBalance WalletValidateAddress WalletVerify
";

const WRITE: &str = "
    ChainValidateIndex LogList LogSetLevel MinerCreateBlock MpoolBatchPush MpoolBatchPushUntrusted MpoolClear MpoolPush
    MpoolPushUntrusted NetConnect NetDisconnect PaychVoucherAdd PaychVoucherList SyncSubmitBlock WalletDefaultAddress
    WalletHas WalletList WalletNew WalletSetDefault
";

const SIGN: &str = "
    F3GetOrRenewParticipationTicket F3Participate MarketAddBalance MarketGetReserved MarketReleaseFunds MarketReserveFunds
    MarketWithdraw MpoolBatchPushMessage MpoolPushMessage MsigAddApprove MsigAddCancel MsigAddPropose MsigApprove
    MsigApproveTxnHash MsigCancel MsigCancelTxnHash MsigCreate MsigPropose MsigRemoveSigner MsigSwapApprove MsigSwapCancel
    MsigSwapPropose PaychAllocateLane PaychAvailableFunds PaychAvailableFundsByFromTo PaychCollect PaychFund PaychGet
    PaychGetWaitReady PaychNewPayment PaychSettle PaychVoucherCreate PaychVoucherSubmit WalletSign WalletSignMessage
";

/// Namespaces of the Ethereum JSON-RPC; Lotus asks read permission for each of its methods.
const ETHEREUM: [&str; 4] = ["eth_", "net_", "web3_", "trace_"];

/// A method that is not known here needs admin permission: nobody can tell its effect.
pub fn permission(method: &str) -> Perm {
    let Some(short) = method.strip_prefix("Filecoin.") else {
        let is_ethereum = ETHEREUM.iter().any(|namespace| method.starts_with(namespace));
        return if is_ethereum { Perm::Read } else { Perm::Admin };
    };
    let lists = [(READ, Perm::Read), (WRITE, Perm::Write), (SIGN, Perm::Sign)];
    let found = lists.into_iter().find(|(names, _)| names.split_ascii_whitespace().any(|name| name == short));
    found.map_or(Perm::Admin, |(_, perm)| perm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_lotus() {
        for (method, perm) in [
            ("Filecoin.ChainHead", Perm::Read),
            ("Filecoin.StateWaitMsg", Perm::Read),
            ("eth_call", Perm::Read),
            ("Filecoin.MpoolPush", Perm::Write),
            ("Filecoin.SyncSubmitBlock", Perm::Write),
            ("Filecoin.WalletNew", Perm::Write),
            ("Filecoin.MpoolPushMessage", Perm::Sign),
            ("Filecoin.F3Participate", Perm::Sign),
            ("Filecoin.WalletSign", Perm::Sign),
            ("Filecoin.WalletExport", Perm::Admin),
            ("Filecoin.WalletDelete", Perm::Admin),
            ("Filecoin.Shutdown", Perm::Admin),
            ("Filecoin.ChainSetHead", Perm::Admin),
            ("Filecoin.NetBlockAdd", Perm::Admin),
            ("Filecoin.Unheard", Perm::Admin),
            ("Forest.ChainExport", Perm::Admin),
            ("ChainHead", Perm::Admin),
            ("", Perm::Admin),
        ] {
            assert_eq!(permission(method), perm, "{method}");
        }
        let mut all: Vec<&str> = [READ, WRITE, SIGN].into_iter().flat_map(str::split_ascii_whitespace).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a method stands twice");
    }
}
