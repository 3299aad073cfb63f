//! Every concern's promises, asked by its address: one body of tests, run in one process, over two processes and over two
//! network namespaces. What is expected is the same in all three, failures too.

use crate::support::concern::{HOST, SOON, Stage, answered};
use crate::support::downs::Downs;
use crate::support::placement::{comm_r, eventually};
use bulkhead::actors::daemon_link::messages::{FeedInfo, PoolInfo};
use bulkhead::actors::deal_handler::MarketInfo;
use bulkhead::actors::message_sender::messages::{
    Enqueue, EnqueueAnswer, MessageStatus, Pending, Status as MessageQuery, Withdraw, WithdrawAnswer,
};
use bulkhead::actors::seal_scheduler::Phase;
use bulkhead::actors::seal_scheduler::messages::{List, Pledge, PledgeAnswer, Remove, Status};
use bulkhead::actors::sector_allocator::messages::{Allocate, Allocated, Free, Reserve, ReserveCount, ReserveError};
use bulkhead::actors::storage::messages::{Challenged, Has, HasAnswer, Vanilla, VanillaAnswer};
use bulkhead::actors::window_post::messages::{WindowPostInfo, WindowPostReport};
use bulkhead::actors::winning_post::messages::{RoundOutcome, WinningInfo};
use bulkhead::chain::TokenAmount;
use bulkhead::node::api_views::TreeSnapshot;
use bulkhead::supervisor::{CallError, Exit, Handler, Message, Ref};
use std::collections::BTreeSet;

fn first() -> Pledge {
    Pledge { request: "first".into() }
}

async fn seal_scheduler(stage: &Stage) {
    let sealing = stage.sealing();
    let number = |request: &str| {
        let (sealing, request) = (sealing.clone(), request.to_string());
        async move {
            eventually("a number", || async {
                match sealing.ask(Pledge { request: request.clone() }, SOON).await.ok()? {
                    PledgeAnswer::Sector(number) => Some(number),
                    PledgeAnswer::Waiting(_) => None,
                    PledgeAnswer::Refused(why) => panic!("refused: {why}"),
                }
            })
            .await
        }
    };
    assert_eq!((number("first").await, number("second").await, number("first").await), (1, 2, 1));
    assert_eq!(sealing.ask(Status { number: 99 }, SOON).await.unwrap(), None);
    let remove = |number| Remove { number, why: "a test".into(), even_if_proving: false };
    let refused = sealing.ask(remove(99), SOON).await.unwrap().unwrap_err();
    assert!(refused.contains("99"), "{refused}");

    // Its end in the middle of sealing costs time only, and a wish is not granted twice.
    stage.drill("root/sealing/seal_scheduler", &sealing, first).await;
    assert_eq!(number("first").await, 1);
    let list = eventually("both sectors proving", || async {
        let list = sealing.ask(List::ALL, SOON).await.ok()?.sectors;
        list.iter().all(|sector| sector.phase == Phase::Proving).then_some(list)
    })
    .await;
    let rows: Vec<_> = list.iter().map(|sector| (sector.number, sector.location.as_deref())).collect();
    assert_eq!(rows, [(1, None), (2, None)]);
    let detail = sealing.ask(Status { number: 2 }, SOON).await.unwrap().expect("sector 2").sector;
    assert_eq!((detail.comm_r, detail.comm_d), (Some(comm_r()), Some([0; 32])));
    let refused = sealing.ask(remove(1), SOON).await.unwrap().unwrap_err();
    assert!(refused.contains("proving"), "{refused}");
}

async fn sector_allocator(stage: &Stage) {
    let numbers = &stage.refs().allocator;
    let allocate = |request: &str| numbers.ask(Allocate { request: request.into() }, SOON);
    assert_eq!(allocate("by hand").await.unwrap(), Ok(3));
    let reserve = |name: &str, from, to| numbers.ask(Reserve { name: name.into(), numbers: vec![from..=to] }, SOON);
    assert_eq!(reserve("ops", 100, 110).await.unwrap(), Ok(()));
    assert_eq!(reserve("ops", 200, 210).await.unwrap(), Err(ReserveError::Exists("ops".into())));
    let taken = ReserveError::Reserved { number: 105, by: "ops".into() };
    assert_eq!(reserve("others", 105, 120).await.unwrap(), Err(taken));
    assert_eq!(reserve("others", 1, 1).await.unwrap(), Err(ReserveError::Allocated(1)));
    assert_eq!(reserve("no name!", 7, 8).await.unwrap(), Err(ReserveError::Name("no name!".into())));
    assert!(matches!(reserve("others", 9, 8).await.unwrap(), Err(ReserveError::Numbers(_))));
    let free = |name: &str| numbers.ask(Free { name: name.into() }, SOON);
    assert_eq!(free("nobody").await.unwrap(), Err(ReserveError::Missing("nobody".into())));
    let two = numbers.ask(ReserveCount { name: "two".into(), count: 2 }, SOON).await.unwrap().unwrap();
    assert_eq!(two.iter().map(|range| range.end() - range.start() + 1).sum::<u64>(), 2, "{two:?}");

    stage.drill("root/sealing/sector_allocator", numbers, || Allocated).await;
    // Known to its successor: the same wish, the same number; what is set aside is not given out.
    assert_eq!(allocate("by hand").await.unwrap(), Ok(3));
    let next = allocate("the next").await.unwrap().unwrap();
    assert!(next > 3 && !(100..=110).contains(&next) && two.iter().all(|range| !range.contains(&next)), "{next}");
    let known = numbers.ask(Allocated, SOON).await.unwrap().unwrap();
    assert!(known.allocated.iter().any(|range| range.contains(&1) && range.contains(&3)), "{known:?}");
    assert!(known.reserved.contains(&("ops".into(), vec![100..=110])), "{known:?}");
    assert_eq!((free("ops").await.unwrap(), free("two").await.unwrap()), (Ok(()), Ok(())));
    assert_eq!(free("ops").await.unwrap(), Err(ReserveError::Missing("ops".into())));
}

fn gift() -> MessageQuery {
    MessageQuery { key: "a gift".into() }
}

async fn message_sender(stage: &Stage) {
    let messages = &stage.refs().messages;
    let info = stage.world.full_node().state_miner_info(&stage.world.miner, &Default::default()).await.unwrap();
    let enqueue = |key: &str, method| Enqueue {
        key: key.into(),
        to: if method == 0 { info.owner } else { stage.world.miner },
        method,
        params: vec![],
        value: TokenAmount::from_atto(1),
        max_fee: TokenAmount::default(),
        from: None,
        closes: None,
    };
    let status = |key: &str| messages.ask(MessageQuery { key: key.into() }, SOON);
    assert_eq!(messages.ask(enqueue("a gift", 0), SOON).await.unwrap(), EnqueueAnswer::Accepted);
    let again = messages.ask(enqueue("a gift", 0), SOON).await.unwrap();
    assert!(matches!(again, EnqueueAnswer::Known(_)), "{again:?}");
    assert_eq!(status("nothing").await.unwrap(), MessageStatus::Unknown);
    let withdraw = |key: &str| messages.ask(Withdraw { key: key.into() }, SOON);
    assert_eq!(withdraw("nothing").await.unwrap(), Ok(WithdrawAnswer::Unknown));
    // One that the chain refuses is told as that, and not sent again.
    assert_eq!(messages.ask(enqueue("nonsense", 9999), SOON).await.unwrap(), EnqueueAnswer::Accepted);

    // What it has taken over, it has: it lands once, whatever ends in between.
    stage.drill("root/chain/message_sender", messages, gift).await;
    let landed = eventually("the gift landed", || async {
        status("a gift").await.ok().filter(|status| matches!(status, MessageStatus::Landed { .. }))
    })
    .await;
    assert_eq!(messages.ask(enqueue("a gift", 0), SOON).await.unwrap(), EnqueueAnswer::Known(landed.clone()));
    assert_eq!(withdraw("a gift").await.unwrap(), Ok(WithdrawAnswer::TooLate(landed)));
    let failed = eventually("the nonsense failed", || async {
        match status("nonsense").await.ok()? {
            MessageStatus::Failed { exit_code, error } => Some((exit_code, error)),
            _ => None,
        }
    })
    .await;
    assert!(failed.0 == -1 && failed.1.contains("9999"), "{failed:?}");
    let keys = messages.ask(Pending, SOON).await.unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert!(!keys.iter().any(|key| key == "a gift" || key == "nonsense"), "{keys:?}");
}

fn landed(report: &WindowPostReport, from: i64) -> usize {
    let windows = report.deadlines.iter().filter(|deadline| deadline.open >= from);
    windows.flat_map(|deadline| &deadline.batches).filter(|batch| batch.phase == "landed").count()
}

async fn window_post(stage: &Stage) {
    let windows = &stage.refs().window_post;
    let proven = async |from: i64| {
        eventually("a window proven", || async {
            windows.ask(WindowPostInfo, SOON).await.ok().filter(|report| landed(report, from) > 0)
        })
        .await
    };
    let report = proven(0).await;
    assert_eq!(report.miner, "t01000");
    for deadline in &report.deadlines {
        for batch in deadline.batches.iter().filter(|batch| batch.phase == "landed") {
            let at = batch.landed_at.expect("an epoch");
            assert!(deadline.open <= at && at <= deadline.close && batch.message.is_some(), "{deadline:?}");
        }
    }
    stage.drill("root/proving/window_post", windows, || WindowPostInfo).await;
    let report = proven(stage.world.height().await).await;
    let missed = report.deadlines.iter().flat_map(|deadline| &deadline.batches).filter(|batch| batch.phase == "missed");
    assert_eq!(missed.count(), 0, "{report:?}");
}

async fn winning_post(stage: &Stage) {
    let rounds = &stage.refs().winning_post;
    let won = async |more: u64| {
        eventually("blocks won", || async {
            rounds.ask(WinningInfo, SOON).await.ok().filter(|report| report.blocks_on_chain > more)
        })
        .await
    };
    let before = won(0).await;
    assert_eq!(before.miner, "t01000");
    stage.drill("root/proving/winning_post", rounds, || WinningInfo).await;
    // Counted over its ends; no epoch is tried twice.
    let after = won(before.blocks_on_chain).await;
    assert!(after.blocks_accepted >= after.blocks_on_chain, "{after:?}");
    let wins = |report: &bulkhead::actors::winning_post::messages::WinningReport| {
        let won = report.rounds.iter().filter(|round| matches!(round.outcome, RoundOutcome::Won { .. }));
        won.map(|round| round.round).collect::<BTreeSet<_>>()
    };
    assert!(wins(&before).is_disjoint(&wins(&after)), "{before:?} {after:?}");
}

async fn deal_handler(stage: &Stage) {
    let market = &stage.refs().market;
    let signed = || async {
        eventually("a signed ask", || async {
            market.ask(MarketInfo, SOON).await.ok().filter(|report| report.ask.is_some())
        })
        .await
    };
    let before = signed().await;
    assert_eq!((before.miner.as_str(), before.connections, before.bad_requests), ("t01000", 0, 0));
    assert!(before.addrs.iter().all(|addr| addr.ends_with(&format!("/p2p/{}", before.peer_id))), "{before:?}");
    stage.drill("root/markets/deal_handler-t01000", market, || MarketInfo).await;
    let after = signed().await;
    assert_eq!((after.peer_id, after.ask), (before.peer_id, before.ask), "clients know it by both");
}

async fn storage(stage: &Stage) {
    let disks = stage.storage();
    let has = || Has { miner: 1000, sectors: vec![1, 2, 99] };
    let here = |here: &[u64]| HasAnswer { here: here.to_vec(), unknown: vec![] };
    assert_eq!(disks.ask(has(), SOON).await.unwrap(), here(&[1, 2]));
    assert_eq!(disks.ask(Has { miner: 1001, sectors: vec![1] }, SOON).await.unwrap(), here(&[]));
    let challenged = |number| Challenged { number, comm_r: comm_r(), places: vec![0] };
    let question = || Vanilla { miner: 1000, proof_type: 10, sectors: vec![challenged(1), challenged(99)] };
    let read = || async {
        eventually("the challenged places", || async {
            match disks.ask(question(), SOON).await.ok()? {
                VanillaAnswer::NotYet => None,
                VanillaAnswer::Ready(mut proofs) => {
                    proofs.sort_by_key(|(number, _)| *number);
                    Some(proofs)
                }
            }
        })
        .await
    };
    let expected = read().await;
    assert_eq!(expected[0], (1, Ok(crate::support::devnet::GOOD.to_vec())));
    assert!(matches!(&expected[1], (99, Err(why)) if why.contains("s-t01000-99")), "{expected:?}");
    stage.drill("root/storage/disks", &disks, || Has { miner: 1000, sectors: vec![1] }).await;
    assert_eq!(read().await, expected);
}

/// What hangs on the full nodes is made anew with them, which is told once, and goes on.
async fn daemon_link(stage: &Stage) {
    let messages = &stage.refs().messages;
    let mut downs = Downs::start();
    let _monitor = downs.watch(messages);
    answered(messages, gift).await; // behind the monitor on its way, which is there by then
    stage.order("root/chain/daemon_pool", "panic").await;
    let down = downs.next().await;
    assert_eq!((down.path.as_str(), &down.reason), ("/t01000/message-sender", &Exit::Shutdown));
    assert!(matches!(answered(messages, gift).await, MessageStatus::Landed { .. }), "it knows what it did");
    let height = stage.world.height().await;
    let windows = &stage.refs().window_post;
    eventually("heads that came since", || async {
        windows.ask(WindowPostInfo, SOON).await.ok()?.height.filter(|seen| *seen > height)
    })
    .await;
    downs.nothing_more("the message sender");
    let (status, links) = eventually("the host's full node", || async {
        let (status, links) = stage.admin(&format!("/nodes/{HOST}/full-nodes")).await;
        (status != 200 || links["feed"]["subscribed"] == true).then_some((status, links))
    })
    .await;
    assert_eq!(status, 200, "{links}");
    assert!(links["feed"]["height"].as_i64() >= Some(height) && links["full_nodes"][0]["error"].is_null(), "{links}");
    let (status, error) = stage.admin("/nodes/nobody/full-nodes").await;
    assert!(status == 404 && error["error"].as_str().is_some_and(|why| why.contains("nobody")), "{status} {error}");

    let (feed, pool) = (stage.feed(), stage.pool());
    stage.drill("root/chain/head_feed", &feed, || FeedInfo).await;
    stage.drill("root/chain/daemon_pool", &pool, || PoolInfo).await;
    let height = stage.world.height().await;
    eventually("the feed follows", || async {
        feed.ask(FeedInfo, SOON).await.ok().filter(|feed| feed.subscribed && feed.height > Some(height))
    })
    .await;
    let full_nodes = answered(&pool, || PoolInfo).await;
    assert!(full_nodes.len() == 1 && full_nodes[0].error.is_none(), "{full_nodes:?}");
}

/// What `tree --all` asks for.
async fn tree(stage: &Stage) {
    stage.drill("root/admin/info", &stage.info(), || TreeSnapshot {}).await;
    let (status, rows) = stage.admin(&format!("/nodes/{HOST}/actors")).await;
    assert_eq!(status, 200, "{rows}");
    for path in ["proving/window_post", "proving/winning_post", "sealing/seal_scheduler", "sealing/sector_allocator"] {
        let row = rows.as_array().unwrap().iter().find(|row| row["path"] == format!("root/{path}"));
        assert_eq!(row.map(|row| &row["state"]), Some(&"up".into()), "{path}");
    }
    let (status, error) = stage.admin("/nodes/nobody/actors").await;
    assert!(status == 404 && error["error"].as_str().is_some_and(|why| why.contains("nobody")), "{status} {error}");
}

/// Every concern, one after the other; what one leaves behind is there for the next.
async fn each_concern(stage: &Stage) {
    seal_scheduler(stage).await;
    sector_allocator(stage).await;
    message_sender(stage).await;
    storage(stage).await;
    deal_handler(stage).await;
    window_post(stage).await;
    winning_post(stage).await;
    daemon_link(stage).await;
    tree(stage).await;
}

/// A monitor on each.
struct Watch {
    downs: Downs,
    paths: BTreeSet<String>,
    _monitors: Vec<bulkhead::supervisor::Monitor>,
}

impl Watch {
    fn all(stage: &Stage) -> Watch {
        let (refs, sealing, storage, downs) = (stage.refs(), stage.sealing(), stage.storage(), Downs::start());
        let monitors = vec![
            downs.watch(&refs.messages),
            downs.watch(&refs.window_post),
            downs.watch(&refs.winning_post),
            downs.watch(&refs.allocator),
            downs.watch(&refs.market),
            downs.watch(&sealing),
            downs.watch(&storage),
            downs.watch(&stage.feed()),
            downs.watch(&stage.pool()),
            downs.watch(&stage.info()),
        ];
        let mut paths: BTreeSet<_> = [
            "window-post",
            "winning-post",
            "sector-allocator",
            "message-sender",
            "deal-handler",
            "seal-scheduler/host",
        ]
        .map(|concern| format!("/t01000/{concern}"))
        .into();
        paths.extend(["storage", "head-feed", "daemon-pool", "info"].map(|own| format!("/{HOST}/{own}")));
        Watch { downs, paths, _monitors: monitors }
    }

    /// One notice each, for its reason.
    async fn each_ends_once(&mut self, reason: impl Fn(&str) -> Exit) {
        let mut left = self.paths.clone();
        while !left.is_empty() {
            let down = self.downs.next().await;
            assert_eq!(down.reason, reason(&down.path), "{down:?}");
            assert!(left.remove(&down.path), "told twice: {down:?}");
        }
    }
}

/// The message comes back from whoever is not there.
async fn nobody<A: Handler<M>, M: Message>(actor: &Ref<A>, ask: impl Fn() -> M) {
    let back = eventually(&format!("{} is gone", actor.path()), || async {
        actor.ask(ask(), SOON).await.err().filter(|error| matches!(error, CallError::NotRunning(_)))
    })
    .await;
    assert!(back.into_message().is_some());
}

async fn nobody_there(stage: &Stage) {
    if !stage.is_remote() {
        return; // nor is anybody who could ask
    }
    let refs = stage.refs();
    nobody(&refs.messages, gift).await;
    nobody(&refs.window_post, || WindowPostInfo).await;
    nobody(&refs.winning_post, || WinningInfo).await;
    nobody(&refs.allocator, || Allocated).await;
    nobody(&refs.market, || MarketInfo).await;
    nobody(&stage.sealing(), first).await;
}

/// What was durable is what the next start of the node answers.
async fn known_again(stage: &Stage) {
    let again = answered(&stage.sealing(), first).await;
    assert_eq!(again, PledgeAnswer::Sector(1));
    assert_eq!(answered(&stage.refs().allocator, || Allocate { request: "by hand".into() }).await, Ok(3));
    assert!(matches!(answered(&stage.refs().messages, gift).await, MessageStatus::Landed { .. }));
    let won = answered(&stage.refs().winning_post, || WinningInfo).await;
    assert!(won.blocks_on_chain > 0, "{won:?}");
}

async fn the_nodes_end(stage: &mut Stage) {
    let mut watch = Watch::all(stage);
    stage.stop_host().await;
    // The bridge stops before the link to the chain: for others, that has gone with its node.
    let outlives_the_bridge = |path: &str| path.ends_with("/head-feed") || path.ends_with("/daemon-pool");
    let far = stage.is_remote();
    let reason = |path: &str| if far && outlives_the_bridge(path) { Exit::NodeDown } else { Exit::Shutdown };
    watch.each_ends_once(reason).await;
    nobody_there(stage).await;
    stage.start_host().await;
    known_again(stage).await;
    watch.downs.nothing_more("after its end in order");
}

/// Told from its peers only: one that ends with its node has nobody left to tell.
async fn the_nodes_death(stage: &mut Stage) {
    let mut watch = Watch::all(stage);
    stage.host.kill();
    watch.each_ends_once(|_| Exit::NodeDown).await;
    nobody_there(stage).await;
    stage.start_host().await;
    known_again(stage).await;
    watch.downs.nothing_more("after its death");
}

/// Whoever cannot be reached is as good as gone, which is told once; the host holds nothing meanwhile, and is asked again after.
async fn the_cables_cut(stage: &Stage) {
    let mut watch = Watch::all(stage);
    stage.cut();
    watch.each_ends_once(|_| Exit::NodeDown).await;
    nobody_there(stage).await;
    stage.heal().await;
    known_again(stage).await;
    watch.downs.nothing_more("after the cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_keeps_its_promises_in_one_process() {
    let mut stage = Stage::in_one_process().await;
    each_concern(&stage).await;
    the_nodes_end(&mut stage).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_keeps_its_promises_in_two_processes() {
    let mut stage = Stage::in_two_processes().await;
    each_concern(&stage).await;
    the_nodes_end(&mut stage).await;
    the_nodes_death(&mut stage).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_concern_keeps_its_promises_on_two_hosts() {
    let Some(mut stage) = Stage::on_two_hosts().await else { return };
    each_concern(&stage).await;
    the_nodes_end(&mut stage).await;
    the_nodes_death(&mut stage).await;
    the_cables_cut(&stage).await;
    stage.end().await;
}
