//! The table of methods: name, permission (as in lotus `api/api_full.go`), parameters, what answers them.

use super::derived;
use super::envelope::RpcError;
use super::json::{Params, to_json};
use super::shapes;
use crate::chain::lotus_json::{
    WholeAddress as Addr, WholeAddresses, WholeBigInt, WholeBitField as Bits, WholeBytes as Bytes, WholeCid,
    WholeOptAddress, WholeToken,
};
use crate::chain::types::*;
use crate::rpc::auth::Perm;
use crate::rpc::full_node::RandomnessTag;
use derived::{Ctx, SendSpec};
use futures::future::{BoxFuture, FutureExt};
use fvm_shared::econ::TokenAmount;
use serde_json::Value;

pub struct Method {
    /// Without `Filecoin.`.
    pub name: &'static str,
    pub perm: Perm,
    pub arity: usize,
    pub call: for<'a> fn(Ctx<'a>, Params) -> BoxFuture<'a, Result<Value, RpcError>>,
}

pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|m| m.name == name)
}

macro_rules! one {
    ($_t:ty) => {
        1
    };
}

macro_rules! methods {
    ($($perm:ident $name:literal |$c:ident $(, $arg:ident: $ty:ty)*| $body:expr;)*) => {
        pub const METHODS: &[Method] = &[$(Method {
            name: $name,
            perm: Perm::$perm,
            arity: 0 $(+ one!($ty))*,
            call: {
                #[allow(unused_mut, unused_variables)]
                fn call(c: Ctx<'_>, mut params: Params) -> BoxFuture<'_, Result<Value, RpcError>> {
                    async move {
                        let $c = c;
                        $(let $arg: $ty = params.take()?;)*
                        to_json(&$body)
                    }
                    .boxed()
                }
                call
            },
        }),*];
    };
}

type Key = TipSetKey;

methods! {
    Read "Version" |c| shapes::version(c.node.version().await?)?;

    Read "ChainHead" |c| c.node.chain_head().await?;
    Read "ChainGetGenesis" |c| c.node.chain_get_tip_set_by_height(0, &Key::default()).await?;
    Read "ChainGetTipSet" |c, k: Key| c.node.chain_get_tip_set(&k).await?;
    Read "ChainGetTipSetByHeight" |c, h: i64, k: Key| c.node.chain_get_tip_set_by_height(h, &k).await?;
    Read "ChainGetTipSetAfterHeight" |c, h: i64, k: Key| derived::tip_set_after_height(c.node, h, &k).await?;
    Read "ChainTipSetWeight" |c, k: Key| WholeBigInt(c.node.chain_tip_set_weight(&k).await?);
    Read "ChainGetBlock" |c, cid: WholeCid| derived::block(c.node, cid.0).await?;

    Read "StateNetworkName" |c| c.node.state_network_name().await?;
    Read "StateNetworkVersion" |c, k: Key| c.node.state_network_version(&k).await?;
    Read "StateGetNetworkParams" |c| c.node.state_get_network_params().await?;
    Read "StateGetActor" |c, a: Addr, k: Key| c.node.state_get_actor(&a.0, &k).await?;
    Read "StateLookupID" |c, a: Addr, k: Key| Addr(c.node.state_lookup_id(&a.0, &k).await?);
    Read "StateAccountKey" |c, a: Addr, k: Key| Addr(c.node.state_account_key(&a.0, &k).await?);
    Read "StateMinerInfo" |c, m: Addr, k: Key| shapes::miner_info(c.node.state_miner_info(&m.0, &k).await?)?;
    Read "StateMinerPower" |c, m: Addr, k: Key| c.node.state_miner_power(&m.0, &k).await?;
    Read "StateMinerAvailableBalance" |c, m: Addr, k: Key|
        WholeToken(c.node.state_miner_available_balance(&m.0, &k).await?);
    Read "StateMinerProvingDeadline" |c, m: Addr, k: Key| c.node.state_miner_proving_deadline(&m.0, &k).await?;
    Read "StateMinerDeadlines" |c, m: Addr, k: Key| shapes::deadlines(c.node.state_miner_deadlines(&m.0, &k).await?)?;
    Read "StateMinerPartitions" |c, m: Addr, d: u64, k: Key| c.node.state_miner_partitions(&m.0, d, &k).await?;
    Read "StateMinerSectors" |c, m: Addr, only: Option<Bits>, k: Key|
        shapes::sectors(c.node.state_miner_sectors(&m.0, only.map(|b| b.0).as_ref(), &k).await?)?;
    Read "StateMinerActiveSectors" |c, m: Addr, k: Key|
        shapes::sectors(derived::active_sectors(c.node, &m.0, &k).await?)?;
    Read "StateMinerFaults" |c, m: Addr, k: Key| Bits(derived::of_all_partitions(c.node, &m.0, &k).await?.faulty);
    Read "StateMinerRecoveries" |c, m: Addr, k: Key|
        Bits(derived::of_all_partitions(c.node, &m.0, &k).await?.recovering);
    Read "StateMinerSectorCount" |c, m: Addr, k: Key| derived::sector_count(c.node, &m.0, &k).await?;
    Read "StateMinerAllocated" |c, m: Addr, k: Key| Bits(c.node.state_miner_allocated(&m.0, &k).await?);
    Read "StateMinerSectorAllocated" |c, m: Addr, n: u64, k: Key| c.node.state_miner_allocated(&m.0, &k).await?.get(n);
    Read "StateMinerPreCommitDepositForPower" |c, m: Addr, p: SectorPreCommitInfo, k: Key|
        WholeToken(c.node.state_miner_pre_commit_deposit_for_power(&m.0, &p, &k).await?);
    Read "StateMinerInitialPledgeCollateral" |c, m: Addr, p: SectorPreCommitInfo, k: Key|
        WholeToken(c.node.state_miner_initial_pledge_collateral(&m.0, &p, &k).await?);
    Read "StateMinerInitialPledgeForSector" |c, duration: i64, size: u64, verified: u64, k: Key|
        WholeToken(c.node.state_miner_initial_pledge_for_sector(duration, size, verified, &k).await?);
    Read "StateSectorPreCommitInfo" |c, m: Addr, n: u64, k: Key| c.node.state_sector_pre_commit_info(&m.0, n, &k).await?;
    Read "StateSectorGetInfo" |c, m: Addr, n: u64, k: Key|
        c.node.state_sector_get_info(&m.0, n, &k).await?.map(shapes::sector).transpose()?;
    Read "StateSectorPartition" |c, m: Addr, n: u64, k: Key| c.node.state_sector_partition(&m.0, n, &k).await?;
    Read "StateGetRandomnessFromTickets" |c, tag: RandomnessTag, at: i64, entropy: Bytes, k: Key|
        Bytes(c.node.state_get_randomness_from_tickets(tag, at, &entropy.0, &k).await?);
    Read "StateGetRandomnessFromBeacon" |c, tag: RandomnessTag, at: i64, entropy: Bytes, k: Key|
        Bytes(c.node.state_get_randomness_from_beacon(tag, at, &entropy.0, &k).await?);
    Read "StateSearchMsg" |c, from: Key, m: WholeCid, lookback: i64, replaced: bool|
        c.node.state_search_msg(&from, &m.0, lookback, replaced).await?;
    Read "StateWaitMsg" |c, m: WholeCid, confidence: u64, lookback: i64, replaced: bool|
        derived::wait_msg(c.node, &m.0, confidence, lookback, replaced).await?;

    Read "MpoolGetNonce" |c, a: Addr| c.node.mpool_get_nonce(&a.0).await?;
    Write "MpoolPush" |c, m: SignedMessage| WholeCid(c.node.mpool_push(&m).await?);
    Write "MpoolPushUntrusted" |c, m: SignedMessage| WholeCid(c.node.mpool_push(&m).await?);
    Sign "MpoolPushMessage" |c, m: Message, spec: Option<SendSpec>| derived::push_message(c, m, spec).await?;
    Read "MpoolPending" |c, k: Key| c.node.mpool_pending(&k).await?;
    Read "MpoolSelect" |c, k: Key, quality: f64| c.node.mpool_select(&k, quality).await?;
    Read "GasEstimateMessageGas" |c, m: Message, spec: Option<SendSpec>, k: Key|
        c.node.gas_estimate_message_gas(&m, &SendSpec::max_fee(spec.as_ref()), &k).await?;

    Write "WalletHas" |c, a: Addr| c.node.wallet_has(&a.0).await?;
    Write "WalletList" |c| WholeAddresses(c.node.wallet_list().await?);
    Write "WalletNew" |c, kind: String| Addr(c.node.wallet_new(&kind).await?);
    Read "WalletBalance" |c, a: Addr| WholeToken(c.node.wallet_balance(&a.0).await?);
    Write "WalletDefaultAddress" |c| WholeOptAddress(c.node.wallet_default_address().await?);
    Read "WalletValidateAddress" |c, a: Addr| a;
    Sign "WalletSign" |c, a: Addr, bytes: Bytes| c.node.wallet_sign(&a.0, &bytes.0).await?;
    Sign "WalletSignMessage" |c, a: Addr, m: Message| c.node.wallet_sign_message(&a.0, &m).await?;

    Read "MinerGetBaseInfo" |c, m: Addr, h: i64, k: Key| c.node.miner_get_base_info(&m.0, h, &k).await?;
    Write "MinerCreateBlock" |c, t: BlockTemplate| c.node.miner_create_block(&t).await?;
    Write "SyncSubmitBlock" |c, b: BlockMsg| c.node.sync_submit_block(&b).await?;

    Sign "F3GetOrRenewParticipationTicket" |c, m: Addr, previous: Bytes, instances: u64|
        Bytes(c.node.f3_get_or_renew_participation_ticket(&m.0, &previous.0, instances).await?);
    Sign "F3Participate" |c, ticket: Bytes| c.node.f3_participate(&ticket.0).await?;
    Read "F3GetProgress" |c| c.node.f3_get_progress().await?;
    Read "F3GetManifest" |c| c.node.f3_get_manifest().await?;
}

impl SendSpec {
    fn max_fee(spec: Option<&SendSpec>) -> TokenAmount {
        spec.map(|s| s.max_fee.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut names: Vec<_> = METHODS.iter().map(|m| m.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }

    #[test]
    fn arity_is_the_number_of_parameters() {
        for (name, arity, perm) in [
            ("Version", 0, Perm::Read),
            ("WalletBalance", 1, Perm::Read),
            ("StateSearchMsg", 4, Perm::Read),
            ("MpoolPushMessage", 2, Perm::Sign),
            ("WalletList", 0, Perm::Write),
        ] {
            let method = find(name).expect(name);
            assert_eq!((method.arity, method.perm), (arity, perm), "{name}");
        }
        assert!(find("Filecoin.Version").is_none() && find("version").is_none());
    }
}
