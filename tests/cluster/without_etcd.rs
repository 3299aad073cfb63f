//! Two nodes that know each other by hand, started with the distributed miner's flags: one seals with the numbers that the
//! other gives out, and asks it for what runs there; nobody else is let in.

use crate::support::placement::{GoodProver, World, eventually};
use bulkhead::cli::miner_flags::{MinerFlags, ScType};
use bulkhead::config::{Overrides, load};
use bulkhead::node::identity::Identity;
use bulkhead::node::settings::NodeSettings;
use bulkhead::node::{Links, Node};
use bulkhead::rpc::bridge::identity;
use bulkhead::supervisor::ActorState;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

struct Host {
    name: &'static str,
    repo: PathBuf,
    peer_id: String,
}

impl Host {
    fn new(world: &World, name: &'static str) -> Host {
        let repo = world.plan(name, None).repo;
        let peer_id = identity::load_or_make(&repo).unwrap().public().to_peer_id().to_string();
        Host { name, repo, peer_id }
    }

    /// As `bulkhead run` does with that configuration and these flags.
    async fn run(&self, world: &World, rest: &str, peer: (&Host, &str), flags: MinerFlags) -> Node {
        let (other, roles) = peer;
        let text = format!(
            "[node]\nminer = \"t01000\"\n[api]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [cluster]\nnode = \"{}\"\n{rest}[[cluster.peer]]\nname = \"{}\"\npeer_id = \"{}\"\nroles = [{roles}]\n",
            self.name, other.name, other.peer_id
        );
        std::fs::write(self.repo.join("config.toml"), text).unwrap();
        flags.check().unwrap();
        let overrides = flags.overrides(Overrides { repo: Some(self.repo.clone()), ..Default::default() });
        let config = load(&overrides, &|_| None).unwrap().config;
        let settings = NodeSettings::of(&config).for_devnet();
        let link = || world.full_node();
        let links = Links { chain: link(), proving: link(), sealing: link(), markets: link(), admin: link() };
        let identity = Identity::establish(&self.repo, world.miner, &links.chain).await.unwrap();
        let start = move || Node::start(settings, identity, links, Arc::new(GoodProver)).unwrap();
        tokio::task::spawn_blocking(start).await.unwrap()
    }

    async fn admin(&self, path: &str) -> Option<Value> {
        let at = std::fs::read_to_string(self.repo.join("admin")).ok()?;
        let answer = reqwest::get(format!("http://{at}{path}")).await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_seals_with_the_numbers_of_the_other() {
    let world = World::start().await;
    let (post, seal) = (Host::new(&world, "post"), Host::new(&world, "seal"));
    let at = free_port();
    let alloce = MinerFlags {
        window_post: Some(true),
        winning_post: Some(true),
        p2p: Some(false),
        sctype: Some(ScType::Alloce),
        sclisten: Some(at),
    };
    let get = MinerFlags {
        window_post: Some(false),
        winning_post: Some(false),
        p2p: Some(true),
        sctype: Some(ScType::Get),
        sclisten: Some(at),
    };
    let server = "\"window-post\", \"winning-post\", \"allocator\", \"daemon-link\"";
    let client = "\"sealing\", \"markets\", \"daemon-link\"";
    let post_node = post.run(&world, "", (&seal, client), alloce).await;
    // It dials the allocator; nobody dials it.
    let seal_node = seal.run(&world, "listen = []\n", (&post, server), get).await;

    let number = eventually("a number from the other node", || async {
        seal_node.backend.pledge("first".to_string()).await.ok()
    })
    .await;
    assert_eq!(number, 1);
    eventually("a window that the other node proved, asked here", || async {
        let report = seal_node.backend.window_post().await.ok()?;
        report.deadlines.iter().flat_map(|d| &d.batches).find(|batch| batch.phase == "landed").map(drop)
    })
    .await;

    let report = seal.admin("/cluster").await.unwrap();
    assert_eq!((report["directory"].as_str(), report["node"].as_str()), (Some("static"), Some("seal")));
    let held_by = |concern: &str| {
        let leases = report["leases"].as_array().unwrap();
        leases.iter().find(|l| l["concern"] == format!("/t01000/{concern}")).unwrap()["node"].as_str().unwrap()
    };
    assert_eq!((held_by("sector-allocator"), held_by("message-sender")), ("post", "post"));
    assert_eq!((held_by("deal-handler"), held_by("seal-scheduler/seal")), ("seal", "seal"));
    let far = eventually("the other node's tree", || seal.admin("/nodes/post/actors")).await;
    assert!(far.as_array().unwrap().iter().any(|row| row["path"] == "root/proving/window_post"), "{far}");

    seal_node.stop().await;
    // A node that is gone is named, and what it did not answer is an error with a deadline.
    let gone =
        reqwest::get(format!("http://{}/nodes/seal/actors", std::fs::read_to_string(post.repo.join("admin")).unwrap()));
    assert_eq!(gone.await.unwrap().status().as_u16(), 504);
    post_node.stop().await;
    world.end().await;
}

/// The reconciler ends while it hands a concern over: the actor is stopped already, the lease not yet given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concern_that_its_keeper_left_half_way_runs_again() {
    let world = World::start().await;
    let (post, seal) = (Host::new(&world, "post"), Host::new(&world, "seal"));
    let flags = MinerFlags {
        p2p: Some(false),
        sctype: Some(ScType::Alloce),
        sclisten: Some(free_port()),
        ..Default::default()
    };
    let node = post.run(&world, "", (&seal, "\"sealing\", \"markets\", \"daemon-link\""), flags).await;
    let up = async |path: &str, incarnation: u64| {
        let row =
            || async { node.tree.info(path).filter(|r| r.state == ActorState::Up && r.incarnation >= incarnation) };
        eventually(&format!("{path} is up"), row).await.incarnation
    };
    up("root/proving/window_post", 0).await;
    let keeper = up("root/net/keeper", 0).await;
    node.tree.supervisor("root/proving").unwrap().try_terminate_child("window_post").await.unwrap();
    assert!(node.tree.panic("root/net/keeper"));
    up("root/net/keeper", keeper + 1).await;
    up("root/proving/window_post", 0).await;
    node.stop().await;
    world.end().await;
}
