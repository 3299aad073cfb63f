//! The StorageMiner API over real sockets: repo files, permissions by token, answers and refusals.

use async_trait::async_trait;
use bulkhead::chain::types::{TipSet, Version};
use bulkhead::rpc::api::{
    ApiConfig, ApiServer, BackendError, MessageOrder, MessageState, MinerBackend, Order, Plan, ReportKind, SectorBrief,
    SectorId, SectorInfo,
};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm, RepoAuth};
use bulkhead::rpc::client::{CallErrorKind, RpcClient};
use fvm_shared::address::Address;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Default)]
struct OneMiner {
    next: AtomicU64,
    stopping: AtomicBool,
    /// Questions to WindowPoSt: under way, and the most at a time. They wait until `told` is set.
    asking: AtomicU64,
    most_asking: AtomicU64,
    told: watch::Sender<bool>,
}

/// Bytes of one large answer.
const LARGE: usize = 3 << 20;

#[async_trait]
impl MinerBackend for OneMiner {
    fn miner(&self) -> Address {
        Address::new_id(1000)
    }
    async fn sector_size(&self) -> Result<u64, BackendError> {
        Ok(2048)
    }
    async fn mining_base(&self) -> Result<TipSet, BackendError> {
        panic!("a backend that panics")
    }
    async fn pledge_sector(&self) -> Result<u64, BackendError> {
        Ok(self.next.fetch_add(1, SeqCst))
    }
    async fn sectors(&self) -> Result<Vec<SectorBrief>, BackendError> {
        let brief = |number| SectorBrief { number, state: "PreCommit1".into() };
        Ok((0..self.next.load(SeqCst)).map(brief).collect())
    }
    async fn sector(&self, number: u64, _: bool) -> Result<SectorInfo, BackendError> {
        if number < self.next.load(SeqCst) {
            Ok(SectorInfo::new(number, "PreCommit1"))
        } else {
            Err(BackendError::NoSuchSector(number))
        }
    }
    fn subsystems(&self) -> Vec<String> {
        vec!["Mining".into()]
    }
    fn version(&self) -> Version {
        Version { version: "bulkhead".into(), api_version: 0x010500, block_delay: 10 }
    }
    fn shutdown(&self) {
        self.stopping.store(true, SeqCst);
    }
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
            ReportKind::WindowPost => {
                let asking = self.asking.fetch_add(1, SeqCst) + 1;
                self.most_asking.fetch_max(asking, SeqCst);
                let _ = self.told.subscribe().wait_for(|told| *told).await;
                self.asking.fetch_sub(1, SeqCst);
            }
            ReportKind::Daemons => return Ok(json!("x".repeat(LARGE))),
            _ => {}
        }
        Ok(json!(format!("{report:?}")))
    }
}

struct Fixture {
    server: ApiServer,
    auth: Arc<RepoAuth>,
    node: Arc<OneMiner>,
    repo: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let repo = tempfile::tempdir().unwrap();
    let auth = Arc::new(RepoAuth::new(repo.path()));
    let node = Arc::new(OneMiner::default());
    let config =
        ApiConfig { listen: "127.0.0.1:0".parse().unwrap(), repo: repo.path().to_path_buf(), auth: auth.clone() };
    let server = bulkhead::rpc::api::start(&config, node.clone()).unwrap();
    Fixture { server, auth, node, repo }
}

impl Fixture {
    fn client(&self, token: Option<String>) -> RpcClient {
        RpcClient::new(&ApiInfo::local(self.server.addr(), token), "v0").unwrap()
    }
}

async fn call(client: &RpcClient, method: &str, params: Value) -> Result<Value, CallErrorKind> {
    let Value::Array(params) = params else { panic!("params are a list") };
    client.call(method, params, Duration::from_secs(20)).await.map_err(|e| e.kind)
}

#[tokio::test]
async fn the_repo_s_files_open_the_api() {
    let f = fixture();
    let read = |name: &str| std::fs::read_to_string(f.repo.path().join(name)).unwrap();
    let info = ApiInfo::parse("MINER_API_INFO", &format!("{}:{}", read("token"), read("api"))).unwrap();
    let client = RpcClient::new(&info, "v0").unwrap();
    let at = Duration::from_secs(20);
    let id: SectorId = client.call("Filecoin.PledgeSector", vec![], at).await.unwrap();
    assert_eq!((id.miner, id.number), (1000, 0));
    assert_eq!(call(&client, "Filecoin.SectorsList", json!([])).await, Ok(json!([0])));
    assert_eq!(call(&client, "Filecoin.SectorsSummary", json!([])).await, Ok(json!({"PreCommit1": 1})));
    let info: SectorInfo = client.call("Filecoin.SectorsStatus", vec![json!(0), json!(false)], at).await.unwrap();
    assert_eq!(info.state, "PreCommit1");
    assert_eq!(call(&client, "Filecoin.ActorSectorSize", json!(["t01000"])).await, Ok(json!(2048)));
    assert_eq!(call(&client, "Bulkhead.Tree", json!([])).await, Ok(json!("Tree")));
    let perms = call(&client, "Filecoin.AuthVerify", json!([read("token")])).await;
    assert_eq!(perms, Ok(json!(["read", "write", "sign", "admin"])));
    assert_eq!(call(&client, "Filecoin.Shutdown", json!([])).await, Ok(Value::Null));
    assert!(f.node.stopping.load(SeqCst));
}

#[tokio::test]
async fn a_token_opens_what_it_lists_and_no_more() {
    let f = fixture();
    let token = |perms: &[Perm]| Some(f.auth.open().unwrap().token(perms).unwrap());
    let methods = [
        ("Filecoin.SectorsList", Perm::Read),
        ("Filecoin.PledgeSector", Perm::Write),
        ("Filecoin.Shutdown", Perm::Admin),
    ];
    let callers: [(Option<String>, &[Perm]); 5] = [
        (None, &[Perm::Read]),
        (token(&[Perm::Read]), &[Perm::Read]),
        (token(&[Perm::Read, Perm::Write]), &[Perm::Read, Perm::Write]),
        (token(&[Perm::Admin]), &[Perm::Admin]),
        (token(&Perm::ALL), &Perm::ALL),
    ];
    for (token, may) in callers {
        let client = f.client(token);
        for (method, need) in methods {
            let outcome = call(&client, method, json!([])).await;
            assert_eq!(outcome.is_ok(), may.contains(&need), "{may:?} {method}: {outcome:?}");
        }
    }
    let other = Auth::with_secret(vec![7; 32]).token(&Perm::ALL).unwrap();
    for token in [other, "nonsense".to_string()] {
        let outcome = call(&f.client(Some(token)), "Filecoin.SectorsList", json!([])).await;
        assert!(matches!(outcome, Err(CallErrorKind::Unauthorized(_))), "{outcome:?}");
    }
}

#[tokio::test]
async fn refusals_are_json_rpc_errors() {
    let f = fixture();
    let client = f.client(Some(f.auth.open().unwrap().token(&Perm::ALL).unwrap()));
    let cases = [
        ("Filecoin.SectorsStatus", json!([0, true]), 1, "sector 0 is not known"),
        ("Filecoin.SectorsStatus", json!([0]), -32602, "wrong param count"),
        ("Filecoin.SectorsStatus", json!(["x", true]), -32602, "parameter 1"),
        ("Filecoin.ActorSectorSize", json!(["t01001"]), 1, "not the miner"),
        ("Filecoin.MiningBase", json!([]), 0, "panic in rpc method"),
    ];
    for (method, params, code, part) in cases {
        match call(&client, method, params).await {
            Err(CallErrorKind::Rpc { code: got, message }) => {
                assert!(got == code && message.contains(part), "{method}: {got} {message}")
            }
            other => panic!("{method}: {other:?}"),
        }
    }
    for method in ["Filecoin.ChainHead", "Filecoin.NoSuch", "Bulkhead.NoSuch", "Tree"] {
        assert_eq!(call(&client, method, json!([])).await, Err(CallErrorKind::NoSuchMethod), "{method}");
    }
    assert_eq!(call(&client, "Filecoin.SectorsList", json!([])).await, Ok(json!([])), "it still answers");
}

/// WindowPoSt's mailbox takes 256 messages; a head that finds it full of questions is lost.
#[tokio::test]
async fn callers_without_a_token_have_few_questions_under_way_and_those_with_one_do_not_wait_for_them() {
    let f = fixture();
    let strangers: Vec<_> = (0..120)
        .map(|_| {
            let client = f.client(None);
            tokio::spawn(async move { call(&client, "Bulkhead.WindowPost", json!([])).await })
        })
        .collect();
    let few = 16;
    while f.node.asking.load(SeqCst) < few {
        tokio::time::sleep(Duration::from_millis(5)).await; // of another thread: nothing here could be awaited instead
    }
    let ours = f.client(Some(f.auth.open().unwrap().token(&[Perm::Read]).unwrap()));
    assert_eq!(call(&ours, "Bulkhead.WinningPost", json!([])).await, Ok(json!("WinningPost")));
    f.node.told.send_replace(true);
    for stranger in strangers {
        assert_eq!(stranger.await.unwrap(), Ok(json!("WindowPost")));
    }
    assert_eq!(f.node.most_asking.load(SeqCst), few);
}

#[tokio::test]
async fn answers_without_a_token_take_little_memory() {
    let f = fixture();
    let batch = |count: usize| {
        let one = json!({"jsonrpc": "2.0", "id": 1, "method": "Bulkhead.Daemons", "params": []});
        json!(vec![one; count])
    };
    let token = f.auth.open().unwrap().token(&[Perm::Read]).unwrap();
    let url = format!("http://{}/rpc/v0", f.server.addr());
    let post = async |count: usize, token: Option<&str>| {
        let request = reqwest::Client::new().post(&url).json(&batch(count));
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        request.send().await.unwrap().text().await.unwrap()
    };
    // 64 MiB for all of them together.
    for (count, token, whole) in
        [(20, None, true), (22, None, false), (20, None, true), (22, Some(token.as_str()), true)]
    {
        let answer = post(count, token).await;
        assert_eq!(answer.len() > count * LARGE, whole, "{count}: {} bytes", answer.len());
        assert_eq!(answer.contains("too many large answers"), !whole, "{count}");
    }
}
