//! A lease for fast finality at a real server: taken, renewed, given up when the node has it no longer, gone on with after a
//! restart; and the answers of a node that refuses.

use crate::support::devnet::{Net, settings};
use crate::support::full_node::Served;
use bulkhead::actors::f3::messages::{F3Report, F3State, F3Status};
use bulkhead::actors::f3::{F3Deps, F3Participation, F3Settings};
use bulkhead::chain::Address;
use bulkhead::chain::f3::F3Lease;
use bulkhead::devnet::DevnetSettings;
use bulkhead::devnet::extra_rpc::DevnetMethods;
use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::auth::{Auth, Perm};
use bulkhead::rpc::full_node::pool::calls::PooledCalls;
use bulkhead::rpc::full_node::pool::entries::PoolEntry;
use bulkhead::rpc::full_node::pool::judge::Health;
use bulkhead::rpc::full_node::pool::{NodePool, PoolSettings};
use bulkhead::rpc::full_node::{FullNode, HttpFullNode};
use bulkhead::rpc::server::{ServerHandle, Service, serve};
use bulkhead::supervisor::*;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

struct Participant {
    tree: Tree,
    actor: Ref<F3Participation>,
}

impl Participant {
    fn start(node: Arc<dyn FullNode>, repo: &Path, alone: bool) -> Participant {
        let settings = F3Settings { enabled: true, alone };
        let deps = F3Deps { miner: Address::new_id(1000), node, repo: repo.into(), settings };
        let actor = Ref::new("/t01000/f3", 64);
        let child = ChildSpec::actor("f3", &actor, move |cx| F3Participation::start(cx, deps.clone()));
        let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child)).unwrap();
        Participant { tree, actor }
    }

    async fn until(&self, what: impl Fn(&F3Report) -> bool) -> F3Report {
        let mut last = F3Report::default();
        let wait = async {
            loop {
                if let Ok(report) = self.actor.ask(F3Status, SOON).await {
                    if what(&report) {
                        return report;
                    }
                    last = report;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(SOON, wait).await {
            Ok(report) => report,
            Err(_) => panic!("the last report: {last:?}"),
        }
    }

    async fn state(&self, state: F3State) -> F3Report {
        self.until(|report| report.state == state).await
    }
}

fn served(net: &Net) -> (Arc<dyn FullNode>, ServerHandle) {
    let auth = Arc::new(Auth::with_secret(vec![1; 32]));
    // The two calls need the permission to sign, and no more.
    let token = auth.token(&[Perm::Read, Perm::Write, Perm::Sign]).unwrap();
    let extras = Arc::new(DevnetMethods(net.devnet.clone()));
    let service = Service { extras: Some(extras), ..Service::of_node(net.devnet.clone(), auth) };
    let server = serve("127.0.0.1:0".parse().unwrap(), service).unwrap();
    let node = HttpFullNode::new(ApiInfo::local(server.addr(), Some(token))).unwrap();
    (Arc::new(node), server)
}

#[tokio::test]
async fn a_lease_is_taken_renewed_and_gone_on_with_after_a_restart() {
    let net = Net::start_with(DevnetSettings { block_delay: Duration::from_millis(10), ..settings() }).await;
    let (node, _server) = served(&net);
    let repo = tempfile::tempdir().unwrap();
    let first = Participant::start(node.clone(), repo.path(), true);
    let report = first.state(F3State::Participating).await;
    assert_eq!(net.devnet.f3_participants(), [1000]);
    let end = report.lease_to.unwrap();
    assert_eq!((end as i64, report.network.as_str()), (net.height().await + 5, net.settings.network_name.as_str()));

    // With two instances left the next lease follows, before this one is over.
    net.until(end as i64 - 2);
    let renewed = first.until(|report| report.lease_to.is_some_and(|to| to > end)).await;
    assert_eq!((renewed.leases, renewed.failures), (2, 0));
    assert_eq!(net.devnet.f3_participants(), [1000]);

    // A stop waits for nothing; the next process renews the ticket that is on disk, though others might hold leases, too.
    let before = std::time::Instant::now();
    first.tree.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(5));
    let kept = std::fs::read(repo.path().join("f3-ticket-1000")).unwrap();
    assert_eq!(F3Lease::of_ticket(&kept).map(|lease| Some(lease.to_instance())), Some(renewed.lease_to));
    let second = Participant::start(node.clone(), repo.path(), false);
    second.state(F3State::Participating).await;
    // Another host, with nothing on its disk, waits until no earlier lease can count.
    let elsewhere = tempfile::tempdir().unwrap();
    let third = Participant::start(node, elsewhere.path(), false);
    third.state(F3State::Waiting).await;

    net.devnet.disable_f3(true);
    let report = second.state(F3State::Disabled).await;
    assert_eq!((report.lease_to, report.failures), (None, 0));
    assert!(report.next_in.is_some_and(|seconds| seconds > 200), "asked again slowly: {report:?}");
    second.tree.shutdown().await;
    third.tree.shutdown().await;
}

#[tokio::test]
async fn what_a_node_refuses_is_shown_and_a_lease_stays_at_its_node() {
    let served = Served::start();
    let node: Arc<dyn FullNode> = Arc::new(served.client());
    let error = |code: i64, message: &str| json!({ "error": { "code": code, "message": message } });
    let start = || {
        let repo = tempfile::tempdir().unwrap();
        let participant = Participant::start(node.clone(), repo.path(), true);
        (participant, repo)
    };
    for (code, why, state) in [
        (4, "f3 is disabled", F3State::Disabled),
        (10, "f3 isn't yet ready to participate", F3State::NotReady),
        (7, "issuer does not match current node", F3State::Waiting),
        (1, "something broke", F3State::Failing),
    ] {
        served.node.set("F3GetOrRenewParticipationTicket", error(code, why));
        let (participant, _repo) = start();
        let report = participant.state(state).await;
        assert!(report.error.is_some_and(|error| error.contains(why)), "{code}");
        participant.tree.shutdown().await;
    }
    // The ticket of another node is never followed by an empty one while it counts.
    let ticket = F3Lease {
        network: "filecoin".into(),
        issuer: "another".into(),
        miner_id: 1000,
        from_instance: 0,
        validity_term: 5,
    };
    let ticket = ticket.to_ticket().unwrap();
    let repo = tempfile::tempdir().unwrap();
    std::fs::write(repo.path().join("f3-ticket-1000"), &ticket).unwrap();
    served.node.set("F3GetOrRenewParticipationTicket", error(7, "issuer does not match current node"));
    let before = served.node.calls_of("F3GetOrRenewParticipationTicket").len();
    let participant = Participant::start(node.clone(), repo.path(), true);
    participant.until(|report| report.failures >= 2).await;
    participant.tree.shutdown().await;
    let asked = served.node.calls_of("F3GetOrRenewParticipationTicket");
    let kept = json!(bulkhead::chain::lotus_json::WholeBytes(ticket));
    assert!(asked.len() > before && asked[before..].iter().all(|call| call[1] == kept), "{asked:?}");
    assert!(served.node.calls_of("F3Participate").is_empty());
}

/// Of a pool the lease moves with the node that is used; while the first node's lease counts the second gives none.
#[tokio::test]
async fn a_lease_moves_to_another_node_of_the_pool_and_there_are_never_two() {
    let (first, second) = (Served::start(), Served::start());
    let lease_of = |issuer: &str, from: u64| F3Lease {
        network: "filecoin".into(),
        issuer: issuer.into(),
        miner_id: 1000,
        from_instance: from,
        validity_term: 5,
    };
    let ticket = |lease: &F3Lease| json!(bulkhead::chain::lotus_json::WholeBytes(lease.to_ticket().unwrap()));
    let progress = |at: u64| json!({"ID": at, "Round": 0, "Phase": 0});
    for (served, issuer, from) in [(&first, "first", 10), (&second, "second", 16)] {
        let lease = lease_of(issuer, from);
        served.node.set("F3GetOrRenewParticipationTicket", ticket(&lease));
        served.node.set("F3Participate", serde_json::to_value(&lease).unwrap());
        served.node.set("F3GetManifest", json!({"NetworkName": "filecoin", "CatchUpAlignment": 1_000_000}));
        served.node.set("F3GetProgress", progress(10));
    }
    let all = |served: &Served| served.info(Some(&Perm::ALL));
    let entries: Vec<PoolEntry> = [&first, &second].map(|served| PoolEntry::of(all(served))).into();
    let pool = NodePool::new(&entries, PoolSettings::default());
    let node = Arc::new(HttpFullNode::pooled(PooledCalls::new(pool.clone(), "t01000")));
    let repo = tempfile::tempdir().unwrap();
    let participant = Participant::start(node, repo.path(), true);
    let report = participant.state(F3State::Participating).await;
    assert_eq!((report.full_node.as_str(), report.lease_to), (all(&first).name().as_str(), Some(15)));

    let refused = json!({ "error": { "code": 7, "message": "issuer does not match current node" } });
    second.node.set("F3GetOrRenewParticipationTicket", refused);
    second.node.set("F3GetProgress", progress(12));
    pool.report(vec![Health { error: Some("refused".into()), ..Health::of(&all(&first).name()) }]);
    let report = participant.until(|report| report.state == F3State::Waiting && report.failures >= 2).await;
    assert_eq!((report.full_node.as_str(), report.lease_to), (all(&second).name().as_str(), Some(15)));
    let asked = second.node.calls_of("F3GetOrRenewParticipationTicket");
    assert!(asked.iter().all(|call| call[1] == ticket(&lease_of("first", 10))), "{asked:?}");
    assert!(second.node.calls_of("F3Participate").is_empty());
    let before = first.node.calls_of("F3Participate").len();

    second.node.set("F3GetProgress", progress(16));
    second.node.set("F3GetOrRenewParticipationTicket", ticket(&lease_of("second", 16)));
    let report = participant.until(|report| report.lease_to == Some(21)).await;
    assert_eq!((report.state, report.issuer.as_str()), (F3State::Participating, "second"));
    // The first is used again: the lease stays where it is.
    for _ in 0..2 {
        pool.report(vec![Health { height: Some(5), ..Health::of(&all(&first).name()) }]);
    }
    let leases = second.node.calls_of("F3Participate").len();
    participant.until(|_| second.node.calls_of("F3Participate").len() > leases).await;
    assert_eq!(first.node.calls_of("F3Participate").len(), before);
    participant.tree.shutdown().await;
}
