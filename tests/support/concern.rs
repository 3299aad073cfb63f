//! Where the concerns run, and the node that asks them: the same one, another process, or another host. What a test asks of
//! it is the same in all three.

use crate::support::downs::Downs;
use crate::support::etcd::Etcds;
use crate::support::netns::{self, Lan};
use crate::support::placement::{NodeProcess, Plan, World, eventually, forward};
use bulkhead::actors::daemon_link::{DaemonPool, HeadFeed};
use bulkhead::actors::seal_scheduler::SealScheduler;
use bulkhead::actors::storage::{Storage, Storages};
use bulkhead::node::api_views::InfoPublisher;
use bulkhead::node::refs::{FEED, INFO, POOL};
use bulkhead::node::{Node, Refs};
use bulkhead::store::Store;
use bulkhead::supervisor::{Actor, CallError, Exit, Handler, Message, Ref};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The node whose concerns are asked.
pub const HOST: &str = "host";

/// A call that has to be answered.
pub const SOON: Duration = Duration::from_secs(30);
/// One that has not.
const SHORT: Duration = Duration::from_millis(300);

pub struct Stage {
    pub world: World,
    _etcds: Etcds,
    lan: Option<Lan>,
    pub host: NodeProcess,
    /// The host, where it is this process.
    here: Option<Node>,
    /// Who asks, where the host is another process: a node that runs none of the concerns.
    asker: Option<Node>,
    asker_repo: Option<PathBuf>,
}

/// Its leases outlast what a loaded machine does to it: nothing is to move here.
fn node(world: &World, name: &str, etcds: &Etcds) -> Plan {
    Plan { lease_ttl: Duration::from_secs(10), ..world.plan(name, Some(etcds)) }
}

impl Stage {
    /// Whoever asks, asks its own process.
    pub async fn in_one_process() -> Stage {
        let (world, etcds) = (World::start().await, Etcds::single().await);
        let plan = node(&world, HOST, &etcds);
        let (host, here) = (plan.stand_in(), Some(plan.node().await));
        Stage { world, _etcds: etcds, lan: None, host, here, asker: None, asker_repo: None }.ready().await
    }

    pub async fn in_two_processes() -> Stage {
        let (world, etcds) = (World::start().await, Etcds::single().await);
        let asker = node(&world, "asker", &etcds).roles(&["storage"]);
        let host = node(&world, HOST, &etcds).start_here();
        Stage::far(world, etcds, None, host, asker).await
    }

    /// The host is a network namespace of its own, with one cable to the one that asks. `None`: there can be none here.
    pub async fn on_two_hosts() -> Option<Stage> {
        let lan = netns::lan(1)?;
        let (world, etcds) = (World::start().await, Etcds::single().await);
        let cable = IpAddr::V4(lan.uplink());
        let asker = Plan { bind: cable, ..node(&world, "asker", &etcds).roles(&["storage"]) };
        // The chain and etcd listen on the loopback of the one that asks.
        let mut etcd = Vec::new();
        for endpoint in etcds.endpoints() {
            let at = endpoint.trim_start_matches("http://").parse().unwrap();
            etcd.push(format!("http://{}", forward(cable, at).await));
        }
        let plan = node(&world, HOST, &etcds);
        let full_node = forward(cable, plan.full_node).await;
        let plan = Plan { bind: lan.hosts[0].addr.into(), full_node, etcd: Some(etcd), ..plan };
        let host = plan.start(lan.hosts[0].command(std::env::current_exe().unwrap()));
        Some(Stage::far(world, etcds, Some(lan), host, asker).await)
    }

    async fn far(world: World, etcds: Etcds, lan: Option<Lan>, host: NodeProcess, asker: Plan) -> Stage {
        let (asker_repo, asker) = (Some(asker.repo.clone()), Some(asker.node().await));
        Stage { world, _etcds: etcds, lan, host, here: None, asker, asker_repo }.ready().await
    }

    /// What the admin HTTP of the node that asks says.
    pub async fn admin(&self, path: &str) -> (u16, Value) {
        let repo = self.asker_repo.as_ref().unwrap_or(&self.host.plan.repo);
        let at = std::fs::read_to_string(repo.join("admin")).unwrap();
        let answer = reqwest::get(format!("http://{at}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Whether calls leave this process.
    pub fn is_remote(&self) -> bool {
        self.asker.is_some()
    }

    pub fn node(&self) -> &Node {
        self.asker.as_ref().or(self.here.as_ref()).expect("a node that asks")
    }

    pub fn refs(&self) -> &Refs {
        &self.node().refs
    }

    pub fn sealing(&self) -> Ref<SealScheduler> {
        self.node().shards.at(HOST).expect("the host's seal scheduler")
    }

    pub fn storage(&self) -> Ref<Storage> {
        if !self.is_remote() {
            return self.refs().storage.clone();
        }
        let far = self.node().far.as_ref().expect("a cluster");
        Storages::seen(&**far)
            .expect("a cluster")
            .nodes
            .into_iter()
            .find(|node| node.name == HOST)
            .expect("the host's storage")
            .storage
    }

    /// One of the actors that the host has for itself.
    pub fn own<A: Actor>(&self, here: fn(&Refs) -> &Ref<A>, name: &str) -> Ref<A> {
        if !self.is_remote() {
            return here(self.refs()).clone();
        }
        self.node().far.as_ref().expect("a cluster").own_of(HOST, name).expect("the host is known")
    }
    pub fn feed(&self) -> Ref<HeadFeed> {
        self.own(|refs| &refs.feed, FEED)
    }
    pub fn pool(&self) -> Ref<DaemonPool> {
        self.own(|refs| &refs.pool, POOL)
    }
    pub fn info(&self) -> Ref<InfoPublisher> {
        self.own(|refs| &refs.info, INFO)
    }

    async fn ready(self) -> Stage {
        self.all_up().await;
        self
    }

    /// Every concern runs on the host, and whoever asks knows where that is.
    pub async fn all_up(&self) {
        eventually("every concern runs on the host", || async {
            let runs = self.host.runs().await?;
            (runs.len() == 6).then_some(())
        })
        .await;
        let refs = self.refs();
        eventually("the one that asks knows where", || async {
            let far = [
                refs.messages.is_remote(),
                refs.window_post.is_remote(),
                refs.winning_post.is_remote(),
                refs.allocator.is_remote(),
                refs.market.is_remote(),
            ];
            let shard = self.node().shards.at(HOST).map(|shard| shard.is_remote());
            (far == [self.is_remote(); 5] && shard == Some(self.is_remote())).then_some(())
        })
        .await;
    }

    /// An order of the host's operator to one actor of its tree.
    pub async fn order(&self, path: &str, order: &str) {
        let (status, answer) = self.host.admin_post(&format!("/actors/{path}/{order}")).await;
        assert!(status == 200 || status == 202, "{order} {path}: {status} {answer}");
    }

    /// In order.
    pub async fn stop_host(&mut self) {
        match self.here.take() {
            Some(node) => drop(node.stop().await),
            None => {
                let plan = self.host.plan.clone();
                std::mem::replace(&mut self.host, plan.stand_in()).stop().await;
            }
        }
    }

    pub async fn start_host(&mut self) {
        let plan = self.host.plan.clone();
        match (&self.asker, &self.lan) {
            (None, _) => {
                // What the one before it has still under way lets go of the database a moment later.
                let free = || async { Store::open(&plan.repo.join("bulkhead.redb")).ok().map(drop) };
                eventually("the database is free", free).await;
                self.here = Some(plan.node().await);
            }
            (Some(_), None) => self.host = plan.start_here(),
            (Some(_), Some(lan)) => self.host = plan.start(lan.hosts[0].command(std::env::current_exe().unwrap())),
        }
        self.all_up().await;
    }

    /// The cable between the two hosts: nothing of the host reaches the one that asks, nor the chain and etcd beside it.
    pub fn cut(&self) {
        let lan = self.lan.as_ref().expect("two hosts");
        lan.cut_from(0, lan.uplink());
    }

    pub async fn heal(&self) {
        let lan = self.lan.as_ref().expect("two hosts");
        lan.heal_to(0, lan.uplink());
        self.all_up().await;
    }

    pub async fn end(mut self) {
        self.stop_host().await;
        if let Some(asker) = self.asker.take() {
            asker.stop().await;
        }
        self.world.end().await;
    }

    /// What holds for every actor, wherever it runs: it answers; a deadline that passes is a `Timeout`; while it is made
    /// anew, calls fail with what happened to it; its end is told once; its successor answers under the same address.
    pub async fn drill<A, M>(&self, tree: &str, actor: &Ref<A>, ask: fn() -> M)
    where
        A: Actor + Handler<M>,
        M: Message + 'static,
        Ref<A>: Send + Sync,
    {
        let path = actor.path().to_string();
        println!("{path}: drill");
        assert_eq!(actor.is_remote(), self.is_remote(), "{path}");
        answered(actor, ask).await;

        self.order(tree, "suspend").await;
        // An order is carried out a moment after it was taken.
        let late = eventually("a suspended actor is silent", || async { actor.ask(ask(), SHORT).await.err() }).await;
        assert!(matches!(late, CallError::Timeout), "{path}: {late:?}");
        self.order(tree, "resume").await;
        answered(actor, ask).await;

        let mut downs = Downs::start();
        let _monitor = downs.watch(actor);
        let callers = Callers::start(actor, ask);
        callers.answered().await;
        self.order(tree, "panic").await;
        let down = downs.next().await;
        assert_eq!(down.path, path);
        assert!(matches!(&down.reason, Exit::Panicked(why) if why.contains("drill")), "{down:?}");
        answered(actor, ask).await;
        callers.answered().await;
        let errors = callers.stop().await;
        println!("{path}: {errors:?}");
        // Nothing else: not a timeout, and no node that would be down.
        let known =
            |error: &String| error == "Restarting" || error == "Panicked" || error.starts_with("Exited(Panicked");
        assert!(errors.keys().all(known), "{path}: {errors:?}");
        downs.nothing_more(&path);
    }
}

/// Asks until it is answered, which may take a restart.
pub async fn answered<A, M>(actor: &Ref<A>, ask: impl Fn() -> M) -> M::Reply
where
    A: Handler<M>,
    M: Message,
{
    eventually(&format!("{} answers", actor.path()), || async { actor.ask(ask(), SOON).await.ok() }).await
}

/// Several who ask one actor, one call after the other.
pub struct Callers {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<BTreeMap<String, usize>>>,
}

impl Callers {
    pub fn start<A, M>(actor: &Ref<A>, ask: fn() -> M) -> Callers
    where
        A: Handler<M>,
        M: Message + 'static,
        Ref<A>: Send + Sync,
    {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let one = || {
            let (actor, stop, answers) = (actor.clone(), stop.clone(), answers.clone());
            tokio::spawn(async move {
                let mut errors = BTreeMap::new();
                let mut pace = tokio::time::interval(Duration::from_millis(5));
                while !stop.load(Ordering::Acquire) {
                    match actor.ask(ask(), SOON).await.map_err(CallError::drop_message) {
                        Ok(_) => drop(answers.fetch_add(1, Ordering::AcqRel)),
                        Err(error) => *errors.entry(format!("{error:?}")).or_default() += 1,
                    }
                    pace.tick().await;
                }
                errors
            })
        };
        let tasks = (0..3).map(|_| one()).collect();
        Callers { stop, answers, tasks }
    }

    /// Some more answers have come.
    pub async fn answered(&self) {
        let wanted = self.answers.load(Ordering::Acquire) + 3;
        eventually("answers to several callers", || async {
            (self.answers.load(Ordering::Acquire) >= wanted).then_some(())
        })
        .await;
    }

    /// The errors that they got, and how often.
    pub async fn stop(self) -> BTreeMap<String, usize> {
        self.stop.store(true, Ordering::Release);
        let mut all = BTreeMap::new();
        for task in self.tasks {
            for (error, count) in task.await.unwrap() {
                *all.entry(error).or_default() += count;
            }
        }
        all
    }
}
