//! A peer's session: how it begins, what ends it, and that whoever waits is told once.

use crate::support::bridge::*;
use crate::support::test_of_this_file;
use bulkhead::rpc::bridge::{Bridge, PeerState, Refusal};
use bulkhead::supervisor::*;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PARENT: &str = "BRIDGE_TEST_PARENT";

/// The other process of the tests below: serves the actor until its stdin ends.
#[test]
fn child_process() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let it = node(config());
        it.bridge.allow([parent.parse().unwrap()]);
        let at = address(&it.bridge).await;
        println!("\n@{} {at}", it.id());
        std::io::stdout().flush().unwrap();
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    });
}

struct Other {
    child: Child,
    id: PeerId,
    at: Multiaddr,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn other_process(parent: PeerId) -> Other {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test_of_this_file!("child_process"), "--exact", "--nocapture", "--test-threads=1"])
        .env(PARENT, parent.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find_map(|line| line.strip_prefix('@').map(str::to_string)).unwrap();
    let (id, at) = line.split_once(' ').unwrap();
    Other { child, id: id.parse().unwrap(), at: at.parse().unwrap() }
}

#[tokio::test]
async fn a_killed_process_fails_asks_and_fires_monitors_at_once() {
    let a = node(config());
    let other = other_process(a.id());
    a.bridge.allow([other.id]);
    a.bridge.know(other.id, vec![other.at.clone()]);
    up(&a.bridge, other.id).await;
    let away = a.away(other.id);
    let (_watchers, me, mut downs) = watcher();
    let _monitor = away.monitor(me.recipient());
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 1);
    let pending = away.ask(Hang, SOON);
    let killed = async {
        kill(Pid::from_raw(other.child.id() as i32), Signal::SIGKILL).unwrap();
        Instant::now()
    };
    let (answer, at) = futures::join!(pending, killed);
    assert!(matches!(answer, Err(CallError::NodeDown(_))), "{answer:?}");
    assert_eq!(downs.recv().await.unwrap().reason, Exit::NodeDown);
    assert!(at.elapsed() < quick().down, "a closed connection needs no silence: {:?}", at.elapsed());
    until(&a.bridge, "it is down", || a.bridge.state(other.id) == PeerState::Down).await;
    assert!(matches!(away.ask(Add(1), SOON).await, Err(CallError::NodeDown(Some(_)))));
    assert!(downs.try_recv().is_err(), "once");
}

#[tokio::test]
async fn a_frozen_process_is_suspect_then_down_and_comes_back_as_a_new_life() {
    let a = node(config());
    let other = other_process(a.id());
    a.bridge.allow([other.id]);
    a.bridge.know(other.id, vec![other.at.clone()]);
    up(&a.bridge, other.id).await;
    let away = a.away(other.id);
    let (_watchers, me, mut downs) = watcher();
    let _monitor = away.monitor(me.recipient());
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 1);
    let pid = Pid::from_raw(other.child.id() as i32);
    let frozen = Instant::now();
    kill(pid, Signal::SIGSTOP).unwrap();
    until(&a.bridge, "it is suspect", || a.bridge.state(other.id) == PeerState::Suspect).await;
    let answer = away.ask(Add(1), SOON).await;
    assert!(matches!(answer, Err(CallError::NodeDown(None))), "{answer:?}");
    assert_eq!(downs.recv().await.unwrap().reason, Exit::NodeDown);
    let took = frozen.elapsed();
    assert!(took >= quick().suspect && took < quick().down * 3, "{took:?}");
    kill(pid, Signal::SIGCONT).unwrap();
    up(&a.bridge, other.id).await;
    let sum = away.ask(Add(1), SOON).await.unwrap();
    assert!((2..=3).contains(&sum), "the same process: {sum}");
    assert!(downs.try_recv().is_err(), "once");
}

#[tokio::test]
async fn a_restarted_node_ends_all_that_belonged_to_its_earlier_process() {
    let a = node(config());
    let mut there = config();
    let (first, second) = (there.clone(), {
        there.boot += 1;
        there
    });
    let b = node(first.clone());
    let id = b.id();
    join(&a.bridge, &b.bridge).await;
    let away = a.away(id);
    let (_watchers, me, mut downs) = watcher();
    let _monitor = away.monitor(me.recipient());
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 1);
    // Its successor dials us while the connection of the first still stands.
    let c = Bridge::start(second).unwrap();
    c.allow([a.id()]);
    c.know(a.id(), vec![address(&a.bridge).await]);
    assert_eq!(downs.recv().await.unwrap().reason, Exit::NodeDown);
    up(&c, a.id()).await;
    let boot = || a.bridge.peers().iter().find(|it| it.peer == id).and_then(|it| it.boot);
    until(&a.bridge, "the successor's life", || boot() == Some(c.boot())).await;
    // The first, which nobody stopped, does not come back.
    b.bridge.know(a.id(), vec![address(&a.bridge).await]);
    let refused = |why| {
        let peers = a.bridge.peers();
        let peer = peers.iter().find(|it| it.peer == id).unwrap();
        peer.refused.iter().find(|it| it.0 == why).map_or(0, |it| it.1)
    };
    until(&a.bridge, "the old boot is refused", || refused(Refusal::OldBoot) > 0).await;
    assert_eq!(boot(), Some(c.boot()));
    assert!(downs.try_recv().is_err(), "once");
}

#[tokio::test]
async fn simultaneous_dials_become_one_connection_and_lose_nothing() {
    for _ in 0..10 {
        let mut configs = [config(), config()];
        configs.iter_mut().for_each(|it| it.timing.courtesy = Duration::ZERO);
        let [a, b] = configs.map(node);
        let (at_a, at_b) = (address(&a.bridge).await, address(&b.bridge).await);
        a.bridge.allow([b.id()]);
        b.bridge.allow([a.id()]);
        a.bridge.know(b.id(), vec![at_b]);
        b.bridge.know(a.id(), vec![at_a]);
        up(&a.bridge, b.id()).await;
        up(&b.bridge, a.id()).await;
        let (to_b, to_a) = (a.away(b.id()), b.away(a.id()));
        for n in 1..=200 {
            assert_eq!(to_b.ask(Add(1), SOON).await.unwrap(), n);
            assert_eq!(to_a.ask(Add(1), SOON).await.unwrap(), n);
        }
        for (bridge, peer) in [(&a.bridge, b.id()), (&b.bridge, a.id())] {
            let peers = bridge.peers();
            assert_eq!((peers.len(), peers[0].peer, peers[0].lives), (1, peer, 1), "{peers:?}");
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_dialled_is_called_over_the_connection_it_made() {
    let (a, mut hidden) = (node(config()), config());
    hidden.listen.clear();
    let b = node(hidden);
    a.bridge.allow([b.id()]);
    b.bridge.allow([a.id()]);
    b.bridge.know(a.id(), vec![address(&a.bridge).await]);
    up(&a.bridge, b.id()).await;
    assert_eq!(a.away(b.id()).ask(Add(4), SOON).await.unwrap(), 4);
    let (_watchers, me, mut downs) = watcher();
    let _monitor = a.away(b.id()).monitor(me.recipient());
    assert!(matches!(a.away(b.id()).ask(Crash, SOON).await, Err(CallError::Panicked)));
    assert!(matches!(downs.recv().await.unwrap().reason, Exit::Panicked(_)));
}

#[tokio::test]
async fn a_peer_that_is_struck_off_the_list_is_cut_off() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let away = a.away(b.id());
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 1);
    b.bridge.allow([]);
    until(&a.bridge, "it is down", || a.bridge.state(b.id()) == PeerState::Down).await;
    assert!(matches!(away.ask(Add(1), SOON).await, Err(CallError::NodeDown(Some(_)))));
    b.bridge.allow([a.id()]);
    up(&a.bridge, b.id()).await;
    assert_eq!(away.ask(Add(1), SOON).await.unwrap(), 2);
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let (a, b) = (node(config()), node(config()));
    join(&a.bridge, &b.bridge).await;
    let id = b.id();
    let pending = a.away(id);
    let pending = pending.ask(Hang, SOON);
    let (answer, ()) = futures::join!(pending, b.bridge.shutdown());
    assert!(matches!(answer, Err(CallError::NodeDown(_))), "{answer:?}");
    until(&a.bridge, "it is down", || a.bridge.state(id) == PeerState::Down).await;
}

#[tokio::test]
async fn neighbouring_versions_work_together_and_distant_ones_say_what_to_do() {
    for (ours, theirs, together) in [((1, 1), (1, 2), true), ((1, 2), (1, 1), true), ((1, 1), (2, 3), false)] {
        let mut configs = [config(), config()];
        configs[0].versions = Some(ours);
        configs[1].versions = Some(theirs);
        let [a, b] = configs.map(node);
        a.bridge.allow([b.id()]);
        b.bridge.allow([a.id()]);
        a.bridge.know(b.id(), vec![address(&b.bridge).await]);
        if together {
            up(&a.bridge, b.id()).await;
            assert_eq!(a.away(b.id()).ask(Add(1), SOON).await.unwrap(), 1);
            continue;
        }
        let refused =
            |bridge: &Bridge| bridge.peers().iter().any(|it| it.refused.iter().any(|r| r.0 == Refusal::Hello));
        until(&b.bridge, "it is refused there", || refused(&b.bridge)).await;
        assert_eq!(a.bridge.state(b.id()), PeerState::Connecting);
    }
}

#[tokio::test]
async fn another_cluster_is_not_let_in() {
    let mut foreign = config();
    foreign.cluster = "other".into();
    let (a, b) = (node(config()), node(foreign));
    a.bridge.allow([b.id()]);
    b.bridge.allow([a.id()]);
    a.bridge.know(b.id(), vec![address(&b.bridge).await]);
    let refused = || b.bridge.peers().iter().any(|it| it.refused.iter().any(|r| r.0 == Refusal::Hello));
    until(&b.bridge, "it is refused", refused).await;
    assert_eq!(a.bridge.state(b.id()), PeerState::Connecting);
}

#[test]
fn the_key_is_made_once_and_kept_private() {
    use bulkhead::rpc::bridge::identity;
    use std::os::unix::fs::PermissionsExt;
    let repo = tempfile::tempdir().unwrap();
    let id = |key: Keypair| key.public().to_peer_id();
    let first = id(identity::load_or_make(repo.path()).unwrap());
    assert_eq!(id(identity::load_or_make(repo.path()).unwrap()), first);
    let file = repo.path().join(identity::FILE);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = identity::load_or_make(repo.path()).unwrap_err().to_string();
    assert!(open.contains("chmod 600"), "{open}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, b"rubbish").unwrap();
    let broken = identity::load_or_make(repo.path()).unwrap_err().to_string();
    assert!(broken.contains("backup"), "{broken}");
}
