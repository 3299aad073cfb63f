//! Real full nodes lack methods and send null: what is missing is found once and worked around, null is what it means.

use crate::support::devnet::*;
use async_trait::async_trait;
use bulkhead::chain::TokenAmount;
use bulkhead::cli::init::{self, WantedMiner};
use bulkhead::config::load;
use bulkhead::devnet::DevnetSettings;
use bulkhead::devnet::extra_rpc::DevnetMethods;
use bulkhead::proofs::keys;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::rpc::server::{ExtraMethods, RpcError, ServerHandle, Service, serve};
use fvm_shared::address::Address;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The devnet as a node with fewer methods and other answers.
struct Gaps {
    chain: Option<DevnetMethods>,
    lacks: Vec<&'static str>,
    says: HashMap<&'static str, Value>,
    /// Methods that answer an error, whatever the parameters.
    refuses: Mutex<HashMap<&'static str, RpcError>>,
    /// GasEstimateMessageGas takes `null` alone as its second parameter.
    no_spec: bool,
    seen: Arc<Mutex<Vec<String>>>,
    /// Held by a test: no call is answered meanwhile.
    busy: tokio::sync::RwLock<()>,
}

#[async_trait]
impl ExtraMethods for Gaps {
    fn permission(&self, method: &str) -> Option<Perm> {
        let refused = self.refuses.lock().unwrap().contains_key(method);
        let ours = self.lacks.contains(&method) || self.says.contains_key(method) || refused || self.no_spec;
        self.chain.as_ref().and_then(|c| c.permission(method)).or(ours.then_some(Perm::Read))
    }
    async fn call(&self, method: &str, params: Vec<Value>) -> Option<Result<Value, RpcError>> {
        self.seen.lock().unwrap().push(method.to_string());
        drop(self.busy.read().await);
        if self.lacks.contains(&method) {
            return Some(Err(RpcError::no_method(method)));
        }
        if let Some(error) = self.refuses.lock().unwrap().get(method) {
            return Some(Err(RpcError { code: error.code, message: error.message.clone() }));
        }
        if let Some(answer) = self.says.get(method) {
            return Some(Ok(answer.clone()));
        }
        if self.no_spec && method.ends_with("GasEstimateMessageGas") && params.get(1).is_some_and(|p| !p.is_null()) {
            return Some(Err(RpcError::invalid_params("unmarshaling params (param: 1): unknown field")));
        }
        match &self.chain {
            Some(chain) => chain.call(method, params).await,
            None => None,
        }
    }
}

struct Behind {
    node: Arc<HttpFullNode>,
    gaps: Arc<Gaps>,
    seen: Arc<Mutex<Vec<String>>>,
    _server: ServerHandle,
}

impl Behind {
    fn net(net: &Net, lacks: &[&'static str], says: &[(&'static str, Value)], no_spec: bool) -> Behind {
        Behind::new(net.devnet.clone(), Some(DevnetMethods(net.devnet.clone())), lacks, says, no_spec)
    }
    fn new(
        node: Arc<dyn FullNode>,
        chain: Option<DevnetMethods>,
        lacks: &[&'static str],
        says: &[(&'static str, Value)],
        no_spec: bool,
    ) -> Behind {
        let (auth, seen) = (Arc::new(Auth::with_secret(vec![1; 32])), Arc::<Mutex<Vec<String>>>::default());
        let says = says.iter().cloned().collect();
        let refuses = Mutex::default();
        let gaps = Arc::new(Gaps {
            chain,
            lacks: lacks.to_vec(),
            says,
            refuses,
            no_spec,
            seen: seen.clone(),
            busy: Default::default(),
        });
        let token = auth.token(&Perm::ALL).unwrap();
        let service = Service { extras: Some(gaps.clone()), ..Service::of_node(node, auth) };
        let server = serve("127.0.0.1:0".parse().unwrap(), service).unwrap();
        let node = Arc::new(HttpFullNode::new(ApiInfo::local(server.addr(), Some(token))).unwrap());
        Behind { node, gaps, seen, _server: server }
    }
    fn refuse(&self, method: &'static str, code: i64, message: &str) {
        self.gaps.refuses.lock().unwrap().insert(method, RpcError { code, message: message.into() });
    }
    fn calls(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|m| *m == method).count()
    }
}

#[tokio::test]
async fn what_a_node_lacks_is_probed_once_and_named_with_its_consequence() {
    let net = Net::start().await;
    let whole = Behind::net(&net, &[], &[], false);
    assert_eq!(whole.node.missing_methods().await.unwrap(), []);

    let lacks = ["Filecoin.StateMinerAllocated", "Filecoin.MpoolSelect"];
    let behind = Behind::net(&net, &lacks, &[], false);
    for _ in 0..2 {
        let missing = behind.node.missing_methods().await.unwrap();
        let names: Vec<_> = missing.iter().map(|m| m.method).collect();
        assert_eq!(names, ["StateMinerAllocated", "MpoolSelect"]);
        assert!(missing.iter().all(|m| !m.instead.is_empty()));
    }
    assert_eq!(behind.calls("Filecoin.MpoolSelect"), 1, "asked once");
    assert_eq!(net.height().await, whole.node.chain_head().await.unwrap().height, "asking changed nothing");
}

/// A look that gives up (its part of `info` has 8 s) must not make the next one begin anew, and never come to an end.
#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_probe() {
    let lacks = ["Filecoin.StateMinerAllocated"];
    let behind = Behind::net(&Net::start().await, &lacks, &[], false);
    let busy = behind.gaps.busy.write().await;
    for _ in 0..3 {
        let asked = tokio::time::timeout(Duration::from_millis(100), behind.node.missing_methods());
        assert!(asked.await.is_err(), "the node is busy");
    }
    drop(busy);
    let missing = behind.node.missing_methods().await.unwrap();
    assert_eq!(missing.iter().map(|m| m.method).collect::<Vec<_>>(), ["StateMinerAllocated"]);
    assert_eq!(behind.calls("Filecoin.StateMinerAllocated"), 1, "one probe for all");
}

/// One of its forty calls that fails says nothing of the others' methods, and the next look asks again.
#[tokio::test]
async fn a_probe_that_fails_is_no_answer_and_is_made_again() {
    let behind = Behind::net(&Net::start().await, &["Filecoin.StateMinerAllocated"], &[], false);
    behind.refuse("Filecoin.F3GetProgress", -32005, "limit exceeded");
    assert!(behind.node.missing_methods().await.unwrap_err().is_transient());
    behind.gaps.refuses.lock().unwrap().clear();
    assert_eq!(behind.node.missing_methods().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_is_away_is_not_taken_for_one_that_lacks_everything() {
    let behind = Behind::net(&Net::start().await, &[], &[], false);
    let node = behind.node.clone();
    drop(behind);
    assert!(node.missing_methods().await.unwrap_err().is_transient());
}

/// From network version 29 on both nodes answer the old pledge call with an error of their own, not with "no such method".
#[tokio::test]
async fn an_answer_unsupported_is_a_method_that_the_node_lacks() {
    const COLLATERAL: &str = "Filecoin.StateMinerInitialPledgeCollateral";
    let behind = Behind::net(&Net::start().await, &[], &[], false);
    let why = "unsupported from network version 29 (FIP-0118): use StateMinerInitialPledgeForSector";
    behind.refuse(COLLATERAL, 1, why);
    // About something else: no word on the method.
    behind.refuse("Filecoin.StateMinerInfo", 1, "unsupported sector size 7");
    let missing = behind.node.missing_methods().await.unwrap();
    assert_eq!(missing.iter().map(|m| m.method).collect::<Vec<_>>(), ["StateMinerInitialPledgeCollateral"]);
    let info = serde_json::from_value(crate::support::full_node::samples()["StateSectorPreCommitInfo"]["Info"].clone());
    let asked =
        behind.node.state_miner_initial_pledge_collateral(&Address::new_id(1000), &info.unwrap(), &head()).await;
    let error = asked.unwrap_err();
    assert!(error.is_missing_method() && error.to_string().contains("FIP-0118"), "{error}");
    assert!(!behind.node.state_miner_info(&Address::new_id(1000), &head()).await.unwrap_err().is_missing_method());
}

/// Lotus refuses to compute an upgrade's migration for a caller (-32002): that says nothing of the call or of the node.
#[tokio::test]
async fn a_refusal_at_an_upgrades_epoch_is_asked_again_and_no_ill_health() {
    let net = Net::start().await;
    let behind = Behind::net(&net, &[], &[], false);
    for code in [-32002, -32005] {
        behind.refuse("Filecoin.GasEstimateMessageGas", code, "refusing explicit call due to state fork at epoch");
        let message = net.message(net.worker, net.owner, 0, vec![], fil(1));
        let error = behind.node.gas_estimate_message_gas(&message, &fil(1), &head()).await.unwrap_err();
        assert!(error.is_transient() && !error.is_missing_method(), "{code}: {error}");
        assert!(error.to_string().contains("next tipset"), "{error}");
    }
    behind.refuse("Filecoin.GasEstimateMessageGas", -32001, "something else");
    let message = net.message(net.worker, net.owner, 0, vec![], fil(1));
    assert!(!behind.node.gas_estimate_message_gas(&message, &fil(1), &head()).await.unwrap_err().is_transient());
}

/// A receipt has three members before nv18, four since, and six with FIP-0107.
#[tokio::test]
async fn receipts_of_three_four_and_six_members_are_read() {
    let found = crate::support::full_node::samples()["StateSearchMsg"].clone();
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut found = found.clone();
        change(found["Receipt"].as_object_mut().unwrap());
        found
    };
    let three = with(&|receipt| drop(receipt.remove("EventsRoot")));
    let six = with(&|receipt| {
        receipt.insert("IpldCodec".into(), json!(0x71));
        receipt.insert("Message".into(), json!("out of gas"));
    });
    let empty = with(&|receipt| drop(receipt.insert("Return".into(), Value::Null)));
    for (answer, events) in [(found.clone(), true), (three, false), (six, true), (empty, true)] {
        let node = crate::support::full_node::FixedNode::new();
        let c = Behind::new(node, None, &[], &[("Filecoin.StateSearchMsg", answer.clone())], false).leak();
        let cid = serde_json::from_value::<bulkhead::chain::lotus_json::WholeCid>(answer["Message"].clone()).unwrap().0;
        let receipt = c.state_search_msg(&head(), &cid, -1, true).await.unwrap().unwrap().receipt;
        assert_eq!((receipt.exit_code, receipt.gas_used, receipt.events_root.is_some()), (0, 9, events), "{answer}");
    }
}

#[tokio::test]
async fn allocated_numbers_are_read_from_the_miners_state() {
    let net = Net::start().await;
    for number in [1, 2, 7] {
        net.pre_commit(number).await;
    }
    let behind = Behind::net(&net, &["Filecoin.StateMinerAllocated"], &[], false);
    let read = behind.node.state_miner_allocated(&net.miner, &head()).await.unwrap();
    assert_eq!(read, bits(&[1, 2, 7]));
    assert_eq!(read, net.devnet.state_miner_allocated(&net.miner, &head()).await.unwrap());
}

#[tokio::test]
async fn network_params_come_from_where_they_can() {
    let net = Net::start().await;
    let delay = net.devnet.version().await.unwrap().block_delay;
    let nulls =
        json!({"NetworkName": null, "BlockDelaySecs": null, "PreCommitChallengeDelay": 150, "ForkUpgradeParams": null});
    let partly = Behind::net(&net, &[], &[("Filecoin.StateGetNetworkParams", nulls)], false);
    let params = partly.node.state_get_network_params().await.unwrap();
    assert_eq!((params.network_name, params.block_delay_secs), (net.settings.network_name.clone(), delay));
    assert_eq!(params.pre_commit_challenge_delay, 150);

    let lacking = Behind::net(&net, &["Filecoin.StateGetNetworkParams"], &[], false);
    let params = lacking.node.state_get_network_params().await.unwrap();
    assert_eq!((params.network_name, params.block_delay_secs), (net.settings.network_name.clone(), delay));
    assert_eq!(params.pre_commit_challenge_delay, 0, "nobody tells: not guessed");

    let version = json!({"Version": "x", "APIVersion": 1, "BlockDelay": null});
    let silent = Behind::net(&net, &["Filecoin.StateGetNetworkParams"], &[("Filecoin.Version", version)], false);
    let error = silent.node.state_get_network_params().await.unwrap_err().to_string();
    assert!(error.contains("block delay"), "{error}");
}

#[tokio::test]
async fn the_nonce_follows_state_and_mempool() {
    let net = Net::start().await;
    let behind = Behind::net(&net, &["Filecoin.MpoolGetNonce"], &[], false);
    for _ in 0..3 {
        let want = net.devnet.mpool_get_nonce(&net.worker).await.unwrap();
        assert_eq!(behind.node.mpool_get_nonce(&net.worker).await.unwrap(), want);
        net.push(net.message(net.worker, net.owner, 0, vec![], fil(1))).await;
    }
    net.step().await;
    net.step().await;
    let want = net.devnet.mpool_get_nonce(&net.worker).await.unwrap();
    assert_eq!(behind.node.mpool_get_nonce(&net.worker).await.unwrap(), want);
}

#[tokio::test]
async fn a_node_that_takes_no_bound_on_the_fee_estimates_without() {
    let net = Net::start().await;
    let behind = Behind::net(&net, &[], &[], true);
    let message = net.message(net.worker, net.owner, 0, vec![], fil(1));
    let estimated = behind.node.gas_estimate_message_gas(&message, &fil(1), &head()).await.unwrap();
    assert!(estimated.gas_limit > 0);
    assert_eq!(behind.calls("Filecoin.GasEstimateMessageGas"), 2);
    let broke = net.message(net.worker, net.owner, 0, vec![], fil(1_000_000_000));
    assert!(behind.node.gas_estimate_message_gas(&broke, &TokenAmount::default(), &head()).await.is_err());
}

#[tokio::test]
async fn null_and_absent_members_are_no_error() {
    let said = crate::support::full_node::samples();
    let without = |method: &str, drop: &[&str], null: &[&str]| {
        let mut answer = said[method].clone();
        let mut row = &mut answer;
        if row.is_array() {
            row = &mut row[0];
        }
        let row = row.as_object_mut().unwrap();
        drop.iter().for_each(|member| assert!(row.remove(*member).is_some(), "{method} has {member}"));
        null.iter().for_each(|member| drop_to_null(row, member));
        answer
    };
    let sector = [
        "ExpectedDayReward",
        "ExpectedStoragePledge",
        "ReplacedDayReward",
        "InitialPledge",
        "DailyFee",
        "SectorKeyCID",
        "Flags",
        "PowerBaseEpoch",
        "DealWeight",
        "VerifiedDealWeight",
    ];
    let pending = json!([{"Message": {"From": "a kind of address of tomorrow"}}, said["MpoolPending"][0]]);
    let says = [
        ("Filecoin.StateMinerSectors", without("StateMinerSectors", &[], &sector)),
        ("Filecoin.StateSectorGetInfo", without("StateSectorGetInfo", &sector[..1], &sector[1..])),
        (
            "Filecoin.StateMinerInfo",
            without(
                "StateMinerInfo",
                &["ConsensusFaultElapsed"],
                &["PeerId", "Multiaddrs", "ControlAddresses", "NewWorker"],
            ),
        ),
        ("Filecoin.MinerGetBaseInfo", without("MinerGetBaseInfo", &[], &["BeaconEntries", "Sectors"])),
        ("Filecoin.StateMinerDeadlines", without("StateMinerDeadlines", &["DailyFee"], &["DisputableProofCount"])),
        ("Filecoin.StateMinerPartitions", json!(null)),
        ("Filecoin.StateSectorPreCommitInfo", json!(null)),
        ("Filecoin.WalletDefaultAddress", json!(null)),
        ("Filecoin.MpoolPending", pending),
    ];
    let node = crate::support::full_node::FixedNode::new();
    let c = Behind::new(node, None, &[], &says, false).leak();
    let m = Address::new_id(1000);
    let sectors = c.state_miner_sectors(&m, None, &head()).await.unwrap();
    assert!(sectors[0].initial_pledge.is_none() && sectors[0].expected_day_reward.is_none());
    assert!(c.state_sector_get_info(&m, 9, &head()).await.unwrap().is_some());
    let info = c.state_miner_info(&m, &head()).await.unwrap();
    assert!(info.peer_id.is_none() && info.multiaddrs.is_empty() && info.new_worker.is_none());
    let base = c.miner_get_base_info(&m, 1, &head()).await.unwrap().unwrap();
    assert!(base.beacon_entries.is_empty() && base.sectors.is_empty());
    assert_eq!(c.state_miner_deadlines(&m, &head()).await.unwrap()[0].disputable_proof_count, 0);
    assert!(c.state_miner_partitions(&m, 0, &head()).await.unwrap().is_empty());
    assert!(c.state_sector_pre_commit_info(&m, 1, &head()).await.unwrap().is_none());
    assert!(c.wallet_default_address().await.unwrap().is_none());
    assert_eq!(c.mpool_pending(&head()).await.unwrap().len(), 1, "one that cannot be read hides no other");
}

fn drop_to_null(row: &mut serde_json::Map<String, Value>, member: &str) {
    row.insert(member.to_string(), Value::Null);
}

impl Behind {
    /// The server lives as long as the test.
    fn leak(self) -> Arc<HttpFullNode> {
        let node = self.node.clone();
        std::mem::forget(self);
        node
    }
}

/// Makes blocks until it is dropped.
struct Ticking(tokio::task::JoinHandle<()>);

impl Ticking {
    fn of(net: &Net) -> Ticking {
        let devnet = net.devnet.clone();
        Ticking(tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(20));
            loop {
                beat.tick().await;
                let height = devnet.chain_head().await.unwrap().height;
                devnet.produce_until(height + 1).unwrap();
            }
        }))
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keys that only have to be there.
fn key_files(dir: &Path) {
    for file in keys::files_of(2048).unwrap() {
        std::fs::write(dir.join(file.file_name().unwrap()), b"").unwrap();
    }
}

async fn create(net: &Net, behind: &Behind) -> Result<init::Initialised, String> {
    let dir = tempfile::tempdir().unwrap();
    key_files(dir.path());
    let mut config = load::defaults();
    config.repo = dir.path().join("repo");
    config.proving.parameter_cache = dir.path().into();
    let wanted = WantedMiner::Create { owner: Some(net.owner), worker: Some(net.worker), sector_size: 2048 };
    let _ticking = Ticking::of(net);
    init::init(&wanted, &config, behind.node.as_ref(), 0, &|_| {}).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_new_miner_carries_the_deposit_that_the_node_asks_for() {
    let net = Net::bare(DevnetSettings { creation_deposit: true, ..settings() });
    net.until(2);
    let deposit = net.devnet.state_miner_creation_deposit(&head()).await.unwrap();
    assert!(deposit > TokenAmount::default());
    let made = create(&net, &Behind::net(&net, &[], &[], false)).await.unwrap();
    assert_eq!(made.miner, "t01000");
    let miner = net.devnet.state_get_actor(&net.miner, &head()).await.unwrap().unwrap();
    assert!(miner.balance >= deposit, "{} of {deposit}", miner.balance);
}

#[tokio::test]
async fn a_node_without_the_method_gets_a_miner_without_deposit() {
    let net = Net::bare(settings());
    net.until(2);
    let behind = Behind::net(&net, &["Filecoin.StateMinerCreationDeposit", "Filecoin.WalletHas"], &[], false);
    assert_eq!(create(&net, &behind).await.unwrap().miner, "t01000");
    let miner = net.devnet.state_get_actor(&net.miner, &head()).await.unwrap().unwrap();
    assert_eq!(miner.balance, TokenAmount::default());

    // Where a deposit is due all the same, the node's refusal says so before anything is sent.
    let net = Net::bare(DevnetSettings { creation_deposit: true, ..settings() });
    net.until(2);
    let behind = Behind::net(&net, &["Filecoin.StateMinerCreationDeposit"], &[], false);
    let why = create(&net, &behind).await.unwrap_err();
    assert!(why.contains("GasEstimateMessageGas"), "{why}");
}
