//! An operator's orders to the miner actor, with the real binary against a chain in a process of its own: what is shown,
//! what is sent, what the chain has afterwards.

use crate::support::devnet::{Net, settings};
use crate::support::operator::*;
use bulkhead::devnet::tree::{ChainServer, ServerConfig};
use bulkhead::devnet::{Devnet, DevnetSettings};
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::client::RpcClient;
use bulkhead::rpc::server_actor::WhereIs;
use bulkhead::supervisor::{Ref, Tree, TreeOptions};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const FIL: &str = "000000000000000000";

/// The chain's API, as `lotus` calls it.
struct Lotus {
    client: RpcClient,
    runtime: tokio::runtime::Runtime,
}

impl Lotus {
    fn at(api_info: &str) -> Lotus {
        let info = ApiInfo::parse("test", api_info).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Lotus { client: RpcClient::new(&info, "v1").unwrap(), runtime }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let Value::Array(params) = params else { panic!("a list") };
        let answer = self.runtime.block_on(self.client.call(&format!("Filecoin.{method}"), params, LIMIT));
        answer.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// FIL from the wallet's default address, and waits for it.
    fn send(&self, to: &Value, fil: u64) {
        let from = self.call("WalletDefaultAddress", json!([]));
        let message = json!({ "Version": 0, "To": to, "From": from, "Nonce": 0, "Value": format!("{fil}{FIL}"), "GasLimit": 0,
            "GasFeeCap": "0", "GasPremium": "0", "Method": 0, "Params": null });
        let sent = self.call("MpoolPushMessage", json!([message, null]));
        let receipt = self.call("StateWaitMsg", json!([sent["CID"], 0, -1, true]));
        assert_eq!(receipt["Receipt"]["ExitCode"], 0);
    }

    /// A funded account: its key and its ID.
    fn account(&self, kind: &str) -> (String, String) {
        let key = self.call("WalletNew", json!([kind]));
        self.send(&key, 10);
        let id = self.call("StateLookupID", json!([key, null]));
        let text = |value: &Value| value.as_str().unwrap().to_string();
        (text(&key), text(&id))
    }

    fn miner(&self) -> Value {
        self.call("StateMinerInfo", json!(["t01000", null]))
    }

    fn sent_by(&self, who: &str) -> u64 {
        self.call("StateGetActor", json!([who, null]))["Nonce"].as_u64().unwrap()
    }
}

struct Place {
    _dir: tempfile::TempDir,
    _chain: Chain,
    _node: Running,
    repo: PathBuf,
    lotus: Lotus,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (chain, repo) = (Chain::start(&dir.path().join("devnet")), dir.path().join("repo"));
        chain.init(&repo);
        let node = up(&repo, &chain.api_info());
        let lotus = Lotus::at(&chain.api_info());
        Place { _dir: dir, _chain: chain, _node: node, repo, lotus }
    }

    fn actor(&self, args: &[&str]) -> Said {
        typed(&self.repo, &[&["actor"], args].concat())
    }
}

#[test]
fn control_addresses_worker_and_owner_change_as_an_operator_types_it() {
    let place = Place::new();
    let (lotus, owner) = (&place.lotus, place.lotus.miner()["Owner"].as_str().unwrap().to_string());
    let (bls, bls_id) = lotus.account("bls");
    let (secp, secp_id) = lotus.account("secp256k1");

    let before = lotus.sent_by(&owner);
    let dry = place.actor(&["control", "set", &bls, &secp]).ok();
    shows(&dry, &[&format!("Add {bls_id} ({bls})"), "ChangeWorkerAddress (method 3) to t01000", "with --really-do-it"]);
    assert_eq!((lotus.sent_by(&owner), lotus.miner()["ControlAddresses"].as_array().map_or(0, Vec::len)), (before, 0));

    let done = place.actor(&["control", "set", "--really-do-it", &bls, &secp, "--request", "control-1"]).ok();
    shows(&done, &["On chain at epoch", "control-0", "control-1"]);
    assert_eq!(lotus.miner()["ControlAddresses"], json!([bls_id, secp_id]));
    let sent = lotus.sent_by(&owner);
    // The same order once more is followed, not sent: nothing would be left to change either.
    place.actor(&["control", "set", "--really-do-it", &bls, &secp, "--request", "control-1"]).ok();
    assert_eq!(lotus.sent_by(&owner), sent);
    let list = place.actor(&["control", "list"]).ok();
    assert!(list.out.starts_with("name         ID"), "{list}");
    shows(&list, &["owner", "worker", "beneficiary", "post", "10.0 FIL"]);
    shows(&place.actor(&["control", "list", "--verbose"]).ok(), &[&bls, &secp]);
    place.actor(&["control", "set", "t0nonsense"]).refused(1, &["t0nonsense", "is not an address"]);
    place.actor(&["control", "set", &bls, &secp]).refused(1, &["the control addresses are these already"]);

    place.actor(&["propose-change-worker", &secp]).refused(1, &["must be the account of a BLS key"]);
    place.actor(&["confirm-change-worker", &bls]).refused(1, &["no worker change is proposed"]);
    let proposed = place.actor(&["propose-change-worker", "--really-do-it", &bls]).ok();
    let epoch = lotus.miner()["WorkerChangeEpoch"].as_i64().unwrap();
    shows(&proposed, &[&format!("happens at epoch {epoch}"), "confirm-change-worker --really-do-it"]);
    assert_eq!(lotus.miner()["ControlAddresses"], json!([bls_id, secp_id]), "they stay");
    until("the epoch of the change", || {
        let height = lotus.call("ChainHead", json!([]))["Height"].as_i64().unwrap();
        if height < epoch - 3 {
            place
                .actor(&["confirm-change-worker", "--really-do-it", &bls])
                .refused(1, &["can be confirmed from epoch"]);
        }
        (height >= epoch).then_some(())
    });
    let confirm = place.actor(&["confirm-change-worker", "--really-do-it", &bls]);
    // The deadline's cron may have been there first.
    assert!(confirm.status.success() || confirm.err.contains("no worker change is proposed"), "{confirm}");
    assert_eq!(lotus.miner()["Worker"], json!(bls_id));

    place.actor(&["set-owner", &secp, &secp]).refused(1, &["is not proposed as owner"]);
    let first = place.actor(&["set-owner", "--really-do-it", &secp, &owner]).ok();
    shows(&first, &[&format!("bulkhead actor set-owner --really-do-it {secp_id} {secp_id}")]);
    assert_eq!(lotus.miner()["Owner"], json!(owner));
    place.actor(&["set-owner", "--really-do-it", &secp_id, &secp_id]).ok();
    assert_eq!((&lotus.miner()["Owner"], &lotus.miner()["Beneficiary"]), (&json!(secp_id), &json!(secp_id)));
}

#[test]
fn addresses_are_set_and_money_is_moved_once() {
    let place = Place::new();
    let lotus = &place.lotus;
    let owner = lotus.miner()["Owner"].as_str().unwrap().to_string();
    let peer = "12D3KooWGC6TvWhfapngX6wvJHgJaLEQm6PBdhFJ8dKYbYwoyFPs";
    let with_peer = format!("/ip4/203.0.113.7/tcp/24001/p2p/{peer}");
    place.actor(&["set-addrs", "203.0.113.7:24001"]).refused(1, &["203.0.113.7:24001", "is not a multiaddress"]);
    place.actor(&["set-addrs"]).refused(2, &["MULTIADDR"]);
    shows(&place.actor(&["set-addrs", &with_peer]).ok(), &["reached at /ip4/203.0.113.7/tcp/24001\n", "On chain"]);
    place.actor(&["set-peer-id", peer]).ok();
    assert_eq!(lotus.miner()["PeerId"], json!(peer));
    let report = ask(&place.repo, &["actor", "control", "list"]);
    assert_eq!(report["multiaddrs"], json!(["/ip4/203.0.113.7/tcp/24001"]));
    place.actor(&["set-addresses", "--unset"]).ok();
    assert!(lotus.miner()["Multiaddrs"].as_array().is_none_or(Vec::is_empty));

    place.actor(&["withdraw", "1"]).refused(1, &["nothing is available to withdraw"]);
    lotus.send(&json!("t01000"), 5);
    place.actor(&["withdraw", "6"]).refused(1, &["6.0 FIL are asked for, 5.0 FIL are available"]);
    place.actor(&["withdraw", "five"]).refused(1, &["\"five\" is not an amount of FIL"]);
    let before = lotus.sent_by(&owner);
    shows(&place.actor(&["withdraw", "2", "--dry-run"]).ok(), &["Withdraw 2.0 FIL of 5.0 FIL", "Nothing is sent"]);
    assert_eq!(lotus.sent_by(&owner), before);
    // Two at once: one of them is told that the other is under way, or comes after it.
    let args = ["actor", "withdraw", "2", "--repo", text(&place.repo), "--request"];
    let two: Vec<Running> = ["a", "a"].map(|name| Running::start(&[&args[..], &[name]].concat(), &[])).into();
    for said in two.into_iter().map(Running::ended) {
        shows(&said.ok(), &["Withdrew 2.0 FIL\n"]);
    }
    let left = |want: u64| {
        let available = lotus.call("StateMinerAvailableBalance", json!(["t01000", null]));
        assert_eq!(available, json!(format!("{want}{FIL}")));
    };
    left(3);
    let again = place.actor(&["withdraw", "2", "--request", "a"]).ok();
    shows(&again, &["Withdrew 2.0 FIL\n"]);
    left(3);
    let slow = place.actor(&["withdraw", "--timeout", "0s"]);
    slow.refused(1, &["is not on chain after 0s", "bulkhead messages status order-withdraw-"]);
    let second = place.actor(&["withdraw", "1"]);
    second.refused(1, &[]);
    // The chain may have included the first before the second was asked for.
    let told = ["is still under way", "nothing is available to withdraw"];
    assert!(told.iter().any(|text| second.err.contains(text)), "{second}");
    let key = slow.err.split_whitespace().find(|word| word.starts_with("order-withdraw-")).unwrap().to_string();
    until("the withdrawal", || {
        let said = typed(&place.repo, &["messages", "status", &key]).ok();
        said.out.contains("is on chain at epoch").then_some(())
    });
    let none = lotus.call("StateMinerAvailableBalance", json!(["t01000", null]));
    assert_eq!(none, json!("0"));
    place.actor(&["repay-debt"]).refused(1, &["the miner has no fee debt"]);
    typed(&place.repo, &["messages", "status", "nonsense"]).refused(1, &["no message nonsense"]);
    let info = ask(&place.repo, &["info"]);
    for part in ["miner_available", "miner_pledge", "miner_vesting", "miner_fee_debt", "worker"] {
        assert!(info["provider"]["balances"][part].is_string(), "{part}: {info:#}");
    }

    // A key that is elsewhere: the message is shown, and not sent.
    place.actor(&["repay-debt", "1", "--from", "t099"]).refused(1, &["controls nothing of this miner"]);
}

#[test]
fn an_open_message_is_listed_replaced_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (chain_dir, repo) = (dir.path().join("devnet"), dir.path().join("repo"));
    let chain = Chain::start(&chain_dir);
    chain.init(&repo);
    Lotus::at(&chain.api_info()).send(&json!("t01000"), 5);
    chain.process.stopped();
    // From here on no block comes: what is sent stays open.
    let chain = Chain::start_at(&chain_dir, 0, &["--block-delay", "10m", "--warmup-delay", "10m"], &[]);
    let _node = up(&repo, &chain.api_info());
    let messages = |args: &[&str]| typed(&repo, &[&["messages"], args].concat());
    shows(&messages(&["list"]).ok(), &["no message is open"]);
    let said = typed(&repo, &["actor", "withdraw", "1", "--no-wait", "--request", "w"]).ok();
    shows(&said, &["Ordered; follow it with `bulkhead messages status order-withdraw-w`"]);
    let pushed = until("the message in the mempool", || {
        let list = messages(&["list"]).ok();
        list.out.contains("pushed").then_some(list)
    });
    shows(&pushed, &["order-withdraw-w", "WithdrawBalance", "AT MOST"]);
    let cid = ask(&repo, &["messages", "list"])["rows"][0]["cid"].as_str().unwrap().to_string();
    shows(&messages(&["status", "order-withdraw-w"]).ok(), &[&cid]);
    shows(&messages(&["replace", "order-withdraw-w"]).ok(), &["will be replaced"]);
    until("a higher fee", || {
        let list = ask(&repo, &["messages", "list"]);
        (list["rows"][0]["cid"].as_str() != Some(&cid)).then_some(())
    });
    shows(&messages(&["cancel", "order-withdraw-w"]).ok(), &["will be cancelled"]);
    until("the transfer that takes its nonce", || {
        let list = ask(&repo, &["messages", "list"]);
        (list["rows"][0]["fills"] == true).then_some(())
    });
    messages(&["cancel", "nonsense"]).refused(1, &["no open message nonsense"]);
    messages(&["replace", "order-withdraw-w", "--max-fee", "much"]).refused(1, &["\"much\" is not an amount of FIL"]);
}

/// A chain with a clock, of which a sector is faulty, in this process.
fn faulty_chain(dir: &Path) -> (Tree, String, i64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Windows as long as a machine may take that does other work.
    let fast = DevnetSettings {
        block_delay: Duration::from_millis(200),
        warmup_delay: Duration::from_millis(200),
        deadlines: 3,
        challenge_window: 200,
        min_sector_lifetime: 6000,
        dispute_window: 10,
        ..settings()
    };
    let (net, cutoff) = runtime.block_on(async {
        let net = Net::start_with(fast).await;
        net.seal(1).await;
        net.post(net.location(1).await).await;
        let proven = net.deadline().await;
        net.until(proven.close + proven.w_post_proving_period + 1);
        (net, proven.fault_cutoff + 2 * proven.w_post_proving_period)
    });
    let Net { devnet, verifier, dir: chain_dir, settings, .. } = net;
    drop(devnet);
    let from = chain_dir.path();
    std::fs::create_dir_all(dir).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let devnet = Devnet::open_with(dir, settings, verifier).unwrap();
    let auth = Arc::new(Auth::open(dir).unwrap());
    let token = auth.token(&Perm::ALL).unwrap();
    let server = Ref::<ChainServer>::new("/devnet/json-rpc", 16);
    let config = ServerConfig { listen: "127.0.0.1:0".parse().unwrap(), dir: dir.to_path_buf(), auth };
    let tree = Tree::start_with(bulkhead::devnet::tree::spec(devnet, config, &server), TreeOptions::default()).unwrap();
    let addr = runtime.block_on(server.ask(WhereIs, LIMIT)).unwrap();
    (tree, ApiInfo::local(addr, Some(token)).secret_text(), cutoff)
}

#[test]
fn faults_are_declared_recovered_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let (_chain, api_info, cutoff) = faulty_chain(&dir.path().join("chain"));
    let repo = dir.path().join("repo");
    say(&["init", "--actor", "t01000", "--repo", text(&repo)], &[("FULLNODE_API_INFO", &api_info)]).ok();
    // The provider itself would declare it, too.
    let mut node = run(&repo, &api_info, &["--window-post=false", "--winning-post=false"]);
    node.says("the node is up");
    let lotus = Lotus::at(&api_info);
    typed(&repo, &["proving", "recover-faults", "7"]).refused(1, &["not faulty by the chain: sectors 7"]);
    typed(&repo, &["proving", "recover-faults"]).refused(2, &["SECTOR"]);
    let height = lotus.call("ChainHead", json!([]))["Height"].as_i64().unwrap();
    assert!(height < cutoff, "{height}: this machine is too slow for the cutoff at {cutoff}");
    let said = typed(&repo, &["proving", "recover-faults", "1"]).ok();
    shows(
        &said,
        &["Declare recovered in deadline", "sectors 1", "DeclareFaultsRecovered (method 11)", "On chain at epoch"],
    );
    assert_eq!(lotus.call("StateMinerRecoveries", json!(["t01000", null])), json!([1, 1]));
    typed(&repo, &["proving", "recover-faults", "1"]).refused(1, &["declared recovered already"]);
    node.stopped();
}
