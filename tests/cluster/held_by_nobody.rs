//! A concern that the cluster takes for held and that runs nowhere: it is run again, given back, or told with the way out.

use crate::support::etcd::{Etcds, see};
use crate::support::placement::{NodeProcess, World, eventually};
use bulkhead::rpc::directory::etcd::{Connection, repair};
use bulkhead::rpc::directory::{Directory, View};
use etcd_client::PutOptions;
use serde_json::Value;

const WINDOW: &str = "/t01000/window-post";
const ALLOCATOR: &str = "/t01000/sector-allocator";
const SENDER: &str = "/t01000/message-sender";
const SINGLETONS: [&str; 5] = [WINDOW, "/t01000/winning-post", ALLOCATOR, SENDER, "/t01000/deal-handler"];

fn key(concern: &str) -> String {
    format!("/bulkhead/main/leases{concern}")
}

/// All runs there, under the epochs of the directory, and the node says that it is ready.
async fn ready_with_all(node: &NodeProcess) {
    eventually(&format!("{} is ready and runs all", node.name()), || async {
        let runs = node.runs().await?;
        let (status, answer) = node.ready().await?;
        (status == 200 && answer["ready"] == true && SINGLETONS.iter().all(|concern| runs.contains(&(*concern).into())))
            .then_some(())
    })
    .await;
}

/// What a late answer comes to: the key is this node's, on its own lease, under an epoch that it was never told of.
async fn acquired_without_its_knowing(etcds: &Etcds, node: &NodeProcess, concern: &str, meanwhile: &[&str]) -> u64 {
    let mut client = etcds.client().await;
    let there = client.get(key(concern), None).await.unwrap().kvs()[0].clone();
    node.signal(libc::SIGSTOP);
    client.delete(key(concern), None).await.unwrap();
    client.put(key(concern), there.value(), Some(PutOptions::new().with_lease(there.lease()))).await.unwrap();
    for key in meanwhile {
        client.put(*key, "", None).await.unwrap();
    }
    let created = client.get(key(concern), None).await.unwrap().kvs()[0].create_revision();
    node.signal(libc::SIGCONT);
    u64::try_from(created).unwrap()
}

fn held_by(node: &'static str, concern: &'static str) -> impl Fn(&View) -> bool {
    move |view| view.holders.get(concern).is_some_and(|holder| holder.node == node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_its_node_does_not_know_of_is_run_or_given_back() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let directory = etcds.connect().await;
    let plan = |name: &str| SINGLETONS.iter().fold(world.plan(name, Some(&etcds)), |p, c| p.prefer(c, &["a", "b"]));
    let a = plan("a").start_here();
    ready_with_all(&a).await;

    let epoch = acquired_without_its_knowing(&etcds, &a, WINDOW, &[]).await;
    eventually("it runs under that epoch, proven", || async {
        let status = a.cluster().await?;
        let row = status["leases"].as_array()?.iter().find(|row| row["concern"] == WINDOW)?.clone();
        (row["state"] == "proven" && row["epoch"] == epoch).then_some(())
    })
    .await;
    ready_with_all(&a).await;
    eventually("it answers", || a.windows(0)).await;

    // The same, and it is not to run there any more.
    let b = plan("b").start_here();
    see(&directory, "b", |view| view.nodes.contains_key("b")).await;
    acquired_without_its_knowing(&etcds, &a, WINDOW, &["/bulkhead/main/drain/a"]).await;
    see(&directory, "it is b's", held_by("b", WINDOW)).await;
    ready_with_all(&b).await;
    b.stop().await;
    a.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_marker_that_nobody_can_read_is_not_ready_and_says_which_key_it_is_and_what_to_do() {
    let (world, etcds) = (World::start().await, Etcds::single().await);
    let plan = world.plan("a", Some(&etcds));
    let a = plan.clone().start_here();
    ready_with_all(&a).await;
    a.stop().await;
    let marker = format!("/bulkhead/main/seq{WINDOW}");
    etcds.client().await.put(marker.as_str(), "garbage", None).await.unwrap();

    let a = plan.start_here();
    let says_it = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        [WINDOW, &marker, "bulkhead cluster repair"].iter().all(|part| text.contains(part)) && !text.contains('\n')
    };
    eventually("it says so", || async {
        let (status, answer) = a.ready().await?;
        let told = answer["troubles"].as_array()?.iter().any(says_it);
        let shown = a.cluster().await?["troubles"].as_array()?.iter().any(says_it);
        (status == 503 && told && shown).then_some(())
    })
    .await;
    let others = a.runs().await.unwrap();
    assert!(others.contains(&ALLOCATOR.to_string()) && !others.contains(&WINDOW.to_string()), "{others:?}");

    let check = bulkhead::actors::records::check;
    let options = repair::RepairOptions { dry_run: false, check, mirror: None, drop: None };
    let found = repair::repair(&Connection::new(etcds.config()).unwrap(), &options).await.unwrap();
    assert_eq!(found.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), [marker.as_str()], "{found:?}");
    ready_with_all(&a).await;
    a.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_put_back_under_a_running_node_is_gone_on_with_under_lower_epochs() {
    let (world, mut etcds) = (World::start().await, Etcds::single().await);
    let directory = etcds.connect().await;
    let a = world.plan("a", Some(&etcds)).start_here();
    ready_with_all(&a).await;
    // What is held anew after the copy was made has an epoch that the copy does not reach.
    let copy = etcds.back_up().await;
    ready_with_all(&a).await;
    etcds.write_on(200).await;
    let epoch = |view: &View| view.holders.get(SENDER).map(|holder| holder.epoch);
    let before = epoch(&directory.view().borrow());
    etcds.client().await.delete(key(SENDER), None).await.unwrap();
    let anew = |view: &View| epoch(view).is_some_and(|epoch| Some(epoch) != before);
    let high = epoch(&*see(&directory, "the sender held anew", anew).await);
    ready_with_all(&a).await;
    etcds.put_back(&copy).await;

    let lower = |view: &View| epoch(view).is_some_and(|epoch| Some(epoch) < high && Some(epoch) != before);
    see(&directory, "it is held under a lower epoch", lower).await;
    // A message that is sent is a write under the new epoch, and was asked for by one between the concerns.
    let pledged = eventually("a pledge", || async { a.call("Filecoin.PledgeSector", vec![]).await.ok() }).await;
    eventually("its first message is sent", || async {
        let status = vec![pledged["Number"].clone(), false.into()];
        let status = a.call("Filecoin.SectorsStatus", status).await.ok()?;
        status["PreCommitMsg"].as_object().map(|_| ())
    })
    .await;
    a.stop().await;
    world.end().await;
}
