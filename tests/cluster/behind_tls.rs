//! Whole nodes behind an etcd that wants TLS, a client's certificate, a user and a password, configured as an operator does:
//! they register, hold, seal, prove and take over. What does not fit is one sentence at the start.

use crate::support::etcd::{Etcds, Options, see};
use crate::support::operator::{say, text};
use crate::support::placement::{World, eventually};

const STRICT: Options = Options { tls: true, users: true };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_register_hold_seal_and_take_over() {
    let (world, etcds) = (World::start().await, Etcds::start(1, STRICT).await);
    let directory = etcds.connect().await;
    let node = |name: &str| world.plan(name, None).configured(&etcds.keys(), &[]).start_here();
    let mut a = node("a");
    let window_post = "/t01000/window-post".to_string();
    let held_by = |node: &'static str| {
        move |view: &bulkhead::rpc::directory::View| {
            ["window-post", "winning-post", "sector-allocator", "message-sender", "deal-handler"]
                .iter()
                .all(|concern| view.holders.get(&format!("/t01000/{concern}")).is_some_and(|h| h.node == node))
        }
    };
    see(&directory, "all is a's", held_by("a")).await;
    let b = node("b");
    see(&directory, "b is there", |view| view.nodes.contains_key("b")).await;
    // Its number and its state are in etcd, its messages are sent under a lease from there.
    let pledged = eventually("a pledge", || async { a.call("Filecoin.PledgeSector", vec![]).await.ok() }).await;
    assert_eq!(pledged["Number"], 1);
    eventually("a window proven", || async { a.windows(0).await.filter(|(landed, _)| *landed > 0) }).await;
    let rows =
        etcds.client().await.get("/bulkhead/main/state/", Some(etcd_client::GetOptions::new().with_prefix())).await;
    assert!(rows.unwrap().kvs().len() > 5, "the state is there");

    a.kill();
    see(&directory, "all is b's", held_by("b")).await;
    eventually("it runs there", || async { b.runs().await.filter(|runs| runs.contains(&window_post)) }).await;
    let from = world.height().await;
    eventually("a window proven by b", || async { b.windows(from).await.filter(|(landed, _)| *landed > 0) }).await;
    let number = eventually("a pledge at b", || async { b.call("Filecoin.PledgeSector", vec![]).await.ok() }).await;
    assert!(number["Number"].as_u64() > Some(1), "{number}");
    b.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_one_sentence_at_the_start() {
    let (world, etcds) = (World::start().await, Etcds::start(1, STRICT).await);
    let other = Etcds::start(1, Options { tls: true, users: false }).await;
    let endpoint = etcds.endpoints()[0].clone();
    let of_other = other.keys().into_iter().find(|(key, _)| *key == "etcd_ca").unwrap().1;
    let with = |key: &str, value: Option<&str>| {
        let keys = etcds.keys().into_iter().filter(|(name, _)| *name != key || value.is_some());
        keys.map(|(name, was)| (name, value.filter(|_| name == key).map_or(was, str::to_string))).collect::<Vec<_>>()
    };
    let cases: [(_, &[&str]); 4] = [
        (with("etcd_password", Some("\"wrong\"")), &[&endpoint, "bulkhead", "not accepted"]),
        (with("etcd_ca", Some(&of_other)), &[&endpoint, "certificate", "cluster.etcd_ca"]),
        (with("etcd_ca", Some("\"/nowhere/ca.pem\"")), &["/nowhere/ca.pem", "No such file"]),
        (
            with("etcd_user", None).into_iter().filter(|(key, _)| *key != "etcd_password").collect(),
            &[&endpoint, "/bulkhead/main/", "cluster.etcd_cert", "cluster.etcd_user"],
        ),
    ];
    // Without a user etcd goes by the name in the certificate, which it does not know.
    for (n, (keys, parts)) in cases.into_iter().enumerate() {
        let plan = world.plan(&format!("a{n}"), None).configured(&keys, &[]);
        let (file, _) = plan.file.as_ref().unwrap();
        std::fs::write(plan.repo.join("config.toml"), file).unwrap();
        let repo = plan.repo.clone();
        let said = tokio::task::spawn_blocking(move || say(&["run", "--repo", text(&repo)], &[])).await.unwrap();
        println!("{}", said.err.lines().last().unwrap_or_default());
        said.refused(1, parts);
    }
    world.end().await;
}
