//! The API's shapes, permissions and refusals, over a backend that holds three sectors.

use super::*;
use crate::chain::types::{TipSet, Version};
use async_trait::async_trait;
use fvm_shared::address::Address;
use serde_json::json;

struct ThreeSectors;

#[async_trait]
impl MinerBackend for ThreeSectors {
    fn miner(&self) -> Address {
        Address::new_id(1000)
    }
    async fn sector_size(&self) -> Result<u64, BackendError> {
        Ok(2048)
    }
    async fn mining_base(&self) -> Result<TipSet, BackendError> {
        Ok(TipSet { cids: vec![], blocks: vec![], height: 9 })
    }
    async fn pledge_sector(&self) -> Result<u64, BackendError> {
        Ok(3)
    }
    async fn sectors(&self) -> Result<Vec<SectorBrief>, BackendError> {
        let brief = |number, state: &str| SectorBrief { number, state: state.into() };
        Ok(vec![brief(0, "Proving"), brief(1, "WaitSeed"), brief(2, "Proving")])
    }
    async fn sector(&self, number: u64, on_chain: bool) -> Result<SectorInfo, BackendError> {
        let mut info = match number {
            0..=2 => SectorInfo::new(number, "Proving"),
            _ => return Err(BackendError::NoSuchSector(number)),
        };
        info.expiration = if on_chain { 77 } else { 0 };
        Ok(info)
    }
    fn subsystems(&self) -> Vec<String> {
        vec!["Mining".into(), "Sealing".into()]
    }
    fn version(&self) -> Version {
        Version { version: "1".into(), api_version: 2, block_delay: 30 }
    }
    fn shutdown(&self) {}
    async fn check_order(&self, order: &Order) -> Result<Plan, BackendError> {
        Err(BackendError::Failed(format!("no {} here", order.name())))
    }
    async fn order(&self, _: &Order, _: &str) -> Result<Vec<String>, BackendError> {
        Ok(vec![])
    }
    async fn message_state(&self, _: &str) -> Result<MessageState, BackendError> {
        Ok(MessageState::Unknown)
    }
    async fn messages(&self, most: u32) -> Result<Value, BackendError> {
        Ok(json!({ "open": 0, "rows": [], "most": most }))
    }
    async fn replace_message(&self, _: &str, _: Option<&str>) -> Result<MessageOrder, BackendError> {
        Ok(MessageOrder::Unknown)
    }
    async fn cancel_message(&self, _: &str) -> Result<MessageOrder, BackendError> {
        Ok(MessageOrder::Withdrawn)
    }
    async fn report(&self, report: ReportKind) -> Result<Value, BackendError> {
        match report {
            ReportKind::Market => Err(BackendError::Unavailable { what: "deal_handler", why: "it restarts".into() }),
            other => Ok(json!(format!("{other:?}"))),
        }
    }
}

async fn call(name: &str, params: Value) -> Result<Value, (i64, String)> {
    let Value::Array(params) = params else { panic!("params are a list") };
    let api = StorageMinerApi::new(Arc::new(ThreeSectors));
    api.call(name, params).await.expect("a method of ours").map_err(|e| (e.code, e.message))
}

#[tokio::test]
async fn answers_have_lotus_shapes() {
    // The network prefix is the process's; only the number is ours to check.
    let cases = [
        ("Filecoin.ActorSectorSize", json!(["t01000"]), json!(2048)),
        ("Filecoin.MiningBase", json!([]), json!({"Cids": [], "Blocks": [], "Height": 9})),
        ("Filecoin.PledgeSector", json!([]), json!({"Miner": 1000, "Number": 3})),
        ("Filecoin.SectorsList", json!([]), json!([0, 1, 2])),
        ("Filecoin.SectorsListInStates", json!([["Proving"]]), json!([0, 2])),
        ("Filecoin.SectorsListInStates", json!([[]]), json!([])),
        ("Filecoin.SectorsListInStates", json!([null]), json!([])),
        ("Filecoin.SectorsSummary", json!([]), json!({"Proving": 2, "WaitSeed": 1})),
        ("Filecoin.RuntimeSubsystems", json!([]), json!(["Mining", "Sealing"])),
        ("Filecoin.Version", json!([]), json!({"Version": "1", "APIVersion": 2, "BlockDelay": 30})),
        ("Filecoin.Shutdown", json!([]), Value::Null),
        ("Bulkhead.WindowPost", json!([]), json!("WindowPost")),
    ];
    for (name, params, want) in cases {
        assert_eq!(call(name, params).await, Ok(want), "{name}");
    }
    assert!(call("Filecoin.ActorAddress", json!([])).await.unwrap().as_str().unwrap().ends_with("01000"));
}

#[tokio::test]
async fn a_sector_s_status_is_lotus_s_sector_info() {
    let status = call("Filecoin.SectorsStatus", json!([1, true])).await.unwrap();
    let mut keys: Vec<_> = status.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    let mut want = "SectorID State CommD CommR Proof Deals Pieces Ticket Seed PreCommitMsg CommitMsg Retries ToUpgrade \
        ReplicaUpdateMessage LastErr Log SealProof Activation Expiration DealWeight VerifiedDealWeight InitialPledge OnTime \
        Early"
        .split_whitespace()
        .collect::<Vec<_>>();
    want.sort();
    assert_eq!(keys, want);
    assert_eq!(status["Ticket"], json!({"Value": null, "Epoch": 0}));
    assert_eq!((&status["CommD"], &status["InitialPledge"]), (&Value::Null, &json!("0")));
    assert_eq!(status["Expiration"], 77);
    assert_eq!(call("Filecoin.SectorsStatus", json!([1, false])).await.unwrap()["Expiration"], 0);
    let back: SectorInfo = serde_json::from_value(status).unwrap();
    assert_eq!(back.sector_id, 1);
}

#[tokio::test]
async fn wrong_calls_say_what_is_wrong() {
    let cases = [
        ("Filecoin.SectorsStatus", json!([3, false]), 1, "sector 3 is not known"),
        ("Filecoin.SectorsStatus", json!([1]), -32602, "wrong param count (method 'Filecoin.SectorsStatus'): 1 != 2"),
        ("Filecoin.SectorsStatus", json!([1, true, 3]), -32602, "3 != 2"),
        ("Filecoin.SectorsStatus", json!([]), -32602, "0 != 2"),
        ("Filecoin.SectorsStatus", json!([-1, true]), -32602, "parameter 1"),
        ("Filecoin.SectorsStatus", json!(["1", true]), -32602, "parameter 1"),
        ("Filecoin.SectorsStatus", json!([1, "yes"]), -32602, "parameter 2"),
        ("Filecoin.ActorSectorSize", json!(["t01001"]), 1, "t01001 is not the miner"),
        ("Filecoin.ActorSectorSize", json!(["nonsense"]), -32602, "not an address"),
        ("Filecoin.SectorsList", json!([1]), -32602, "1 != 0"),
        ("Bulkhead.Market", json!([]), 1, "deal_handler cannot answer now: it restarts"),
    ];
    for (name, params, code, part) in cases {
        let (got, message) = call(name, params.clone()).await.unwrap_err();
        assert!(got == code && message.contains(part), "{name} {params}: {got} {message}");
    }
    assert_eq!(Method::named("Filecoin.NoSuch"), None);
    assert_eq!(Method::named("Filecoin.Market"), None, "ours are not Lotus'");
}

#[test]
fn permissions_are_lotus_s() {
    for (name, method) in METHODS {
        let want = match name {
            "Filecoin.PledgeSector" | "Filecoin.LogList" => Perm::Write,
            "Filecoin.Shutdown"
            | "Filecoin.LogSetLevel"
            | "Bulkhead.ActorOrder"
            | "Bulkhead.MessageReplace"
            | "Bulkhead.MessageCancel"
            | "Bulkhead.DaemonsSet"
            | "Bulkhead.DaemonsAuth"
            | "Bulkhead.DaemonsApiInfo" => Perm::Admin,
            _ => Perm::Read,
        };
        assert_eq!(method.permission(), want, "{name}");
    }
}

/// As if the server's thread had ended by itself.
struct Fall;
impl crate::supervisor::Message for Fall {
    type Reply = ();
}
impl crate::supervisor::Handler<Fall> for ApiServer {
    async fn handle(&mut self, _: Fall, _: &crate::supervisor::Cx<Self>) -> Result<(), crate::supervisor::Exit> {
        if let Some(server) = &self.server {
            server.fall().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_ends_by_itself_is_a_failure_and_another_serves_at_its_port() {
    use crate::rpc::auth::RepoAuth;
    use crate::supervisor::{Exit, Ref, RestartBackoff, SupervisorSpec, Tree};
    use std::time::Duration;
    const SOON: Duration = Duration::from_secs(60);

    let repo = tempfile::tempdir().unwrap();
    let auth = Arc::new(RepoAuth::new(repo.path()));
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = ApiConfig { listen, repo: repo.path().into(), auth };
    let address = Ref::<ApiServer>::new("/api", 4);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE);
    let tree = Tree::start(root.child(child(config, Arc::new(ThreeSectors), &address))).unwrap();
    let before = address.ask(WhereIs, SOON).await.unwrap();

    address.tell(Fall).unwrap();
    let after = tokio::time::timeout(SOON, async {
        loop {
            match address.ask(WhereIs, SOON).await {
                Ok(at) if tree.info("root/api_server").unwrap().incarnation == 2 => return at,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(after.await.expect("a successor"), before, "at the same port");
    let last = tree.info("root/api_server").unwrap().last_exit;
    assert!(matches!(&last, Some(Exit::Failed(why)) if why.contains("API server")), "{last:?}");
    let version =
        crate::rpc::client::RpcClient::new(&crate::rpc::api_info::ApiInfo::local(before, None), "v0").unwrap();
    version.call::<serde_json::Value>("Filecoin.Version", vec![], SOON).await.expect("it serves");
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
}

#[tokio::test]
async fn sectors_are_asked_for_by_bounded_pages() {
    for (params, asked) in [
        (json!([]), "Sectors(SectorsAsked { from: 0, most: 0 })"),
        (json!([null]), "Sectors(SectorsAsked { from: 0, most: 0 })"),
        (json!([{ "from": 7 }]), "Sectors(SectorsAsked { from: 7, most: 0 })"),
        (json!([{ "from": 7, "most": 9 }]), "Sectors(SectorsAsked { from: 7, most: 9 })"),
    ] {
        assert_eq!(call("Bulkhead.Sectors", params.clone()).await, Ok(json!(asked)), "{params}");
    }
    for params in [json!([1]), json!([{ "after": 7 }]), json!([{}, {}])] {
        assert!(call("Bulkhead.Sectors", params.clone()).await.is_err(), "{params}");
    }
    for (most, rows) in [(0, 5000), (1, 1), (5000, 5000), (u32::MAX, 5000)] {
        assert_eq!(SectorsAsked { from: 0, most }.bounded(), rows);
    }
}
