//! Three nodes, three members of etcd, and whatever can happen to each of them while sectors are sealed and windows are
//! open: the chain never sees a fault, two blocks of one height, or one sector number twice.
//!
//! By default each kind of fault strikes once, where it hurts most, for one window. `BULKHEAD_FAULTS=all` strikes every node
//! and member, takes all of etcd away for ten minutes, and restarts the nodes in turn through twenty deadlines (an hour);
//! `BULKHEAD_FAULTS=etcd` and `BULKHEAD_FAULTS=rolling` do only the second and the third.

use crate::support::etcd::Etcds;
use crate::support::netns::Lan;
use crate::support::placement::{NodeProcess, Plan, World, eventually, forward};
use bulkhead::chain::types::TipSetKey;
use bulkhead::rpc::directory::Directory;
use bulkhead::rpc::directory::etcd::Etcd;
use bulkhead::rpc::full_node::FullNode;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

const NODES: [&str; 3] = ["a", "b", "c"];
const SINGLETONS: [&str; 5] = ["window-post", "winning-post", "sector-allocator", "message-sender", "deal-handler"];
/// Epochs of a second that a deadline is open: as many as a lease, a restart and a proof take, and some.
const WINDOW: i64 = 14;

/// Epochs that etcd is wholly gone, and deadlines through which nodes restart: by default, and of the long run.
const OUTAGE: [i64; 2] = [WINDOW, 600];
const ROLLING: [usize; 2] = [3, 20];

fn asked_for() -> String {
    std::env::var("BULKHEAD_FAULTS").unwrap_or_default()
}

/// Whether that part is done at length.
fn at_length(part: &str) -> bool {
    ["all", part].contains(&asked_for().as_str())
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill(usize),
    Freeze(usize),
    /// It reaches neither the other nodes nor etcd, only its full node.
    CutOff(usize),
    /// It does not reach etcd any more; all else works.
    CutFromEtcd(usize),
    /// What it sends to the other nodes is lost; what they send arrives.
    CutOneWay(usize),
    KillMember(usize),
    FreezeMember(usize),
    /// It reaches no other member; the nodes reach all of them.
    MemberApart(usize),
    /// Every member at once.
    NoEtcd,
}

struct Cluster {
    world: World,
    etcds: Etcds,
    directory: Etcd,
    lan: Lan,
    /// Where etcd is for the nodes.
    etcd_at: Ipv4Addr,
    nodes: Vec<NodeProcess>,
}

impl Cluster {
    async fn start() -> Option<Cluster> {
        // The nodes' hosts, then the members'.
        let lan = crate::support::netns::lan(NODES.len() + 3)?;
        let (chain_at, etcd_at) = (lan.uplink(), lan.uplink_at(253));
        let members = lan.hosts[NODES.len()..].iter().map(|host| (host.name.clone(), host.addr));
        let (world, etcds) = (World::start_with(WINDOW).await, Etcds::on_hosts(members).await);
        let directory = etcds.connect().await;
        let mut endpoints = Vec::new();
        for endpoint in etcds.endpoints() {
            let at = endpoint.trim_start_matches("http://").parse().unwrap();
            endpoints.push(format!("http://{}", forward(IpAddr::V4(etcd_at), at).await));
        }
        let mut nodes = Vec::new();
        for (name, host) in NODES.into_iter().zip(&lan.hosts) {
            let plan = SINGLETONS.iter().fold(world.plan(name, Some(&etcds)), |p, c| p.prefer(c, &NODES));
            let full_node = forward(IpAddr::V4(chain_at), plan.full_node).await;
            let plan = Plan { bind: host.addr.into(), full_node, etcd: Some(endpoints.clone()), ..plan };
            nodes.push(plan.start(host.command(std::env::current_exe().unwrap())));
        }
        let cluster = Cluster { world, etcds, directory, lan, etcd_at, nodes };
        cluster.whole().await;
        Some(cluster)
    }

    fn holder(&self, concern: &str) -> Option<usize> {
        let view = self.directory.view().borrow().clone();
        let holder = view.holders.get(&format!("/t01000/{concern}"))?;
        NODES.iter().position(|name| *name == holder.node)
    }

    /// Every node is there and every concern has a holder that says so itself.
    async fn whole(&self) {
        for concern in SINGLETONS {
            let path = format!("/t01000/{concern}");
            eventually(&format!("{concern} runs"), || async {
                let view = self.directory.view().borrow().clone();
                let all = view.in_contact && NODES.iter().all(|name| view.nodes.contains_key(*name));
                let holder = self.nodes.get(self.holder(concern).filter(|_| all)?)?;
                holder.runs().await?.contains(&path).then_some(())
            })
            .await;
        }
    }

    fn restart(&mut self, i: usize) {
        let plan = self.nodes[i].plan.clone();
        self.nodes[i] = plan.start(self.lan.hosts[i].command(std::env::current_exe().unwrap()));
    }

    fn others(&self, i: usize) -> impl Iterator<Item = usize> + use<> {
        (0..NODES.len()).filter(move |other| *other != i)
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(i) => self.nodes[i].kill(),
            Fault::Freeze(i) => self.nodes[i].signal(libc::SIGSTOP),
            Fault::CutOff(i) => {
                self.lan.isolate(i);
                self.lan.cut_from(i, self.etcd_at);
            }
            Fault::CutFromEtcd(i) => self.lan.cut_from(i, self.etcd_at),
            Fault::CutOneWay(i) => self.others(i).for_each(|other| self.lan.cut_one_way(i, other)),
            Fault::KillMember(m) => self.etcds.kill(m),
            Fault::FreezeMember(m) => self.etcds.freeze(m),
            Fault::MemberApart(m) => self.lan.isolate_among(NODES.len() + m, NODES.len()..NODES.len() + 3),
            Fault::NoEtcd => (0..3).for_each(|m| self.etcds.freeze(m)),
        }
    }

    async fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(i) => self.restart(i),
            Fault::Freeze(i) => self.nodes[i].signal(libc::SIGCONT),
            Fault::CutOff(i) => {
                self.lan.rejoin(i);
                self.lan.heal_to(i, self.etcd_at);
            }
            Fault::CutFromEtcd(i) => self.lan.heal_to(i, self.etcd_at),
            Fault::CutOneWay(i) => self.others(i).for_each(|other| self.lan.heal(i, other)),
            Fault::KillMember(m) => self.etcds.restart(&[m]).await,
            Fault::FreezeMember(m) => self.etcds.thaw(m),
            Fault::MemberApart(m) => self.lan.rejoin(NODES.len() + m),
            Fault::NoEtcd => (0..3).for_each(|m| self.etcds.thaw(m)),
        }
        self.whole().await;
    }

    async fn every_deadline_has_sectors(&self) -> bool {
        let (node, miner) = (self.world.full_node(), self.world.miner);
        for index in 0..3 {
            let partitions = node.state_miner_partitions(&miner, index, &TipSetKey::default()).await.unwrap();
            if partitions.iter().all(|p| p.live_sectors.is_empty()) {
                return false;
            }
        }
        true
    }

    /// Waits for the beginning of a window, and says when it is over.
    async fn window_opens(&self) -> i64 {
        let node = self.world.full_node();
        let now = self.world.height().await;
        eventually("a window opens", || async {
            let info = node.state_miner_proving_deadline(&self.world.miner, &TipSetKey::default()).await.ok()?;
            // The first epochs of one that opened after we began to look.
            (info.open > now && info.current_epoch <= info.open + 2).then_some(info.close)
        })
        .await
    }

    async fn height_is(&self, height: i64) {
        eventually(&format!("epoch {height}"), || async { (self.world.height().await >= height).then_some(()) }).await
    }

    /// A long way to an epoch, a window at a time.
    async fn outlasts(&self, height: i64) {
        while self.world.height().await < height {
            self.height_is(height.min(self.world.height().await + WINDOW)).await;
        }
    }

    /// Asks some node for a sector; one that is struck does not answer.
    async fn pledge(&self, at: usize) {
        let _ = self.nodes[at].call("Filecoin.PledgeSector", vec![]).await;
    }
}

/// What the chain says of the miner, all the while.
#[derive(Default)]
struct Seen {
    /// Deadline and sectors that were faulty, and since when.
    faulty: Mutex<BTreeMap<(u64, Vec<u64>), i64>>,
    proven: Mutex<BTreeSet<(i64, u64)>>,
}

async fn watch(node: Arc<dyn FullNode>, miner: fvm_shared::address::Address, seen: Arc<Seen>) {
    let head = TipSetKey::default();
    loop {
        if let (Ok(at), Ok(deadlines)) = (node.chain_head().await, node.state_miner_deadlines(&miner, &head).await) {
            for (index, deadline) in deadlines.iter().enumerate() {
                let index = index as u64;
                let Ok(partitions) = node.state_miner_partitions(&miner, index, &head).await else { continue };
                for partition in partitions.iter().filter(|p| !p.faulty_sectors.is_empty()) {
                    let sectors = partition.faulty_sectors.iter().collect();
                    seen.faulty.lock().unwrap().entry((index, sectors)).or_insert(at.height);
                }
                if !deadline.post_submissions.is_empty() {
                    seen.proven.lock().unwrap().insert((at.height / (3 * WINDOW), index));
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await; // a poll of another process
    }
}

/// Every kind once, most of them at whoever proves the windows; or every one everywhere.
fn faults(cluster: &Cluster, round: usize, leader: usize) -> Option<Fault> {
    match asked_for().as_str() {
        "etcd" => return (round == 0).then_some(Fault::NoEtcd),
        "rolling" => return None,
        _ => {}
    }
    if at_length("all") {
        let kinds = [Fault::Kill, Fault::Freeze, Fault::CutOff, Fault::CutFromEtcd, Fault::CutOneWay];
        let members = [Fault::KillMember, Fault::FreezeMember, Fault::MemberApart];
        let all = kinds.into_iter().chain(members).flat_map(|kind| (0..3).map(kind)).chain([Fault::NoEtcd]);
        return all.into_iter().nth(round);
    }
    let prover = cluster.holder("window-post").unwrap_or_default();
    Some(match round {
        0 => Fault::Kill(prover),
        1 => Fault::Freeze(prover),
        2 => Fault::CutOff(prover),
        3 => Fault::CutOneWay(prover),
        4 => Fault::CutFromEtcd(cluster.holder("sector-allocator").unwrap_or_default()),
        5 => Fault::KillMember(leader),
        6 => Fault::FreezeMember(leader),
        7 => Fault::MemberApart(leader),
        8 => Fault::NoEtcd,
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_or_done_twice_whatever_fails() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let node = cluster.world.full_node();
    let miner = cluster.world.miner;
    // A sector goes to a deadline that is neither open nor the next: one a window, until each has some.
    let mut pledged = 0;
    while !cluster.every_deadline_has_sectors().await {
        assert!(pledged < 12, "12 sectors do not fill 3 deadlines");
        cluster.nodes[pledged % 3].call("Filecoin.PledgeSector", vec![]).await.unwrap();
        pledged += 1;
        cluster.window_opens().await;
    }
    let seen = Arc::new(Seen::default());
    let watcher = tokio::spawn(watch(node.clone(), miner, seen.clone()));

    let mut round = 0;
    loop {
        let leader = cluster.etcds.leader().await;
        let Some(fault) = faults(&cluster, round, leader) else { break };
        let close = cluster.window_opens().await;
        println!("epoch {}: {fault:?}", cluster.world.height().await);
        cluster.strike(fault).await;
        // Sealing goes on beside it, where it can.
        cluster.pledge(round % 3).await;
        match fault {
            Fault::NoEtcd => cluster.outlasts(close + OUTAGE[usize::from(at_length("etcd"))]).await,
            _ => cluster.height_is(close + 1).await,
        }
        assert!(seen.faulty.lock().unwrap().is_empty(), "{fault:?}: faulty: {:?}", seen.faulty);
        cluster.heal(fault).await;
        round += 1;
    }

    // A rolling restart, in order, a node a window.
    for i in (0..NODES.len()).cycle().take(ROLLING[usize::from(at_length("rolling"))]) {
        cluster.window_opens().await;
        let plan = cluster.nodes[i].plan.clone();
        println!("epoch {}: {} restarts", cluster.world.height().await, plan.name);
        cluster.pledge((i + 1) % NODES.len()).await;
        let command = cluster.lan.hosts[i].command(std::env::current_exe().unwrap());
        std::mem::replace(&mut cluster.nodes[i], plan.stand_in()).stop().await;
        cluster.nodes[i] = plan.start(command);
        cluster.whole().await;
    }
    let close = cluster.window_opens().await;
    cluster.height_is(close + 1).await;
    watcher.abort();
    assert!(seen.faulty.lock().unwrap().is_empty(), "faulty: {:?}", seen.faulty);
    assert!(seen.proven.lock().unwrap().len() > round, "the watcher saw proofs: {:?}", seen.proven);

    // What was being sealed while its node was struck is sealed all the same.
    let listed = eventually("every sector is proven", || async {
        let listed = cluster.nodes[0].call("Bulkhead.Sectors", vec![]).await.ok()?;
        let whole = listed["missing_shards"].as_array().is_some_and(Vec::is_empty);
        let proving = listed["sectors"].as_array()?.iter().all(|row| row["state"] == "Proving");
        (whole && proving).then_some(listed)
    })
    .await;
    // No number twice, over all seal schedulers.
    let mut owners: BTreeMap<u64, String> = BTreeMap::new();
    for row in listed["sectors"].as_array().unwrap() {
        let (number, text) = (row["number"].as_u64().unwrap(), row.to_string());
        if let Some(first) = owners.insert(number, text.clone()) {
            panic!("sector {number} twice: {first} and {text}");
        }
    }
    assert!(owners.len() > pledged, "{owners:?}");

    // No two blocks of ours at one height.
    let mut at = node.chain_head().await.unwrap();
    while at.height > 0 {
        let ours = at.blocks.iter().filter(|block| block.miner == miner).count();
        assert!(ours <= 1, "{ours} blocks at epoch {}", at.height);
        at = node.chain_get_tip_set(&TipSetKey(at.blocks[0].parents.clone())).await.unwrap();
    }

    for node in std::mem::take(&mut cluster.nodes) {
        node.stop().await;
    }
    cluster.world.end().await;
}
