//! A concern never has two holders, whoever freezes, dies or hands over.

use crate::support::etcd::{Etcds, TTL, acquire, record, see, within};
use crate::support::test_of_this_file;
use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig};
use bulkhead::rpc::directory::{Directory, DirectoryError, LeaseState};
use bulkhead::supervisor::Fence;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WINDOW: &str = "/t01000/window-post";

#[tokio::test]
async fn of_many_contenders_one_holds_and_epochs_only_grow() {
    let etcds = Etcds::single().await;
    let holding = Arc::new(AtomicU64::new(0));
    let last = Arc::new(AtomicU64::new(0));
    let mut contenders = JoinSet::new();
    for name in ["a", "b", "c", "d"] {
        let node = etcds.node(name).await;
        let (holding, last) = (holding.clone(), last.clone());
        contenders.spawn(async move {
            let mut won = 0;
            while won < 5 {
                match node.acquire(WINDOW).await {
                    Ok(lease) => {
                        won += 1;
                        assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        assert!(
                            lease.epoch() > last.swap(lease.epoch(), Ordering::SeqCst),
                            "an epoch that does not grow"
                        );
                        tokio::task::yield_now().await;
                        holding.fetch_sub(1, Ordering::SeqCst);
                        lease.release().await.expect("released");
                    }
                    Err(DirectoryError::Held { .. }) => {
                        see(&node, "a vacancy", |view| !view.holders.contains_key(WINDOW)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    within("every contender's turns", contenders.join_all()).await;
}

#[tokio::test]
async fn a_released_concern_is_free_at_once_and_a_dropped_lease_is_a_released_one() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let first = a.acquire(WINDOW).await.unwrap();
    assert!(
        matches!(a.acquire(WINDOW).await, Err(DirectoryError::Held { holder, .. }) if holder.epoch == first.epoch())
    );
    first.release().await.unwrap();
    let second = b.acquire(WINDOW).await.unwrap();
    let proof = second.proof();
    drop(second);
    assert_eq!(proof.state(), LeaseState::Lost, "belief ends before the cluster is told");
    let third = acquire(&a, WINDOW).await;
    assert!(third.epoch() > proof.epoch());
}

/// Of an acquisition whose answer was lost: the key is there, and hangs on our own lease.
#[tokio::test]
async fn what_was_acquired_without_our_knowing_is_taken_up() {
    let etcds = Etcds::single().await;
    let a = etcds.node("a").await;
    let lease = a.acquire(WINDOW).await.unwrap();
    let mut client = etcds.client().await;
    let key = format!("/bulkhead/main/leases{WINDOW}");
    let there = client.get(key.as_str(), None).await.unwrap().kvs()[0].clone();
    lease.release().await.unwrap();
    let options = etcd_client::PutOptions::new().with_lease(there.lease());
    client.put(key.as_str(), there.value(), Some(options)).await.unwrap();
    let created = client.get(key.as_str(), None).await.unwrap().kvs()[0].create_revision();
    assert_eq!(a.acquire(WINDOW).await.unwrap().epoch(), created as u64);
}

#[tokio::test]
async fn a_key_that_is_taken_away_loses_only_its_own_lease() {
    let etcds = Etcds::single().await;
    let a = etcds.node("a").await;
    let (window, winning) = (a.acquire(WINDOW).await.unwrap(), a.acquire("/t01000/winning-post").await.unwrap());
    let mut client = etcds.client().await;
    client.delete(format!("/bulkhead/main/leases{WINDOW}"), None).await.unwrap();
    within("the holder is told", window.lost()).await;
    assert_eq!(winning.state(), LeaseState::Proven);
}

/// A process of its own that holds the concern and says, again and again, until when it has believed so.
struct Holder(Child);

impl Holder {
    fn start(endpoints: &[String]) -> (Holder, std::io::Lines<BufReader<std::process::ChildStdout>>) {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", test_of_this_file!("holder_process"), "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("HOLDER_ENDPOINTS", endpoints.join(",")).stdout(Stdio::piped()).stdin(Stdio::null());
        // SAFETY: only a system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        (Holder(child), lines)
    }

    fn signal(&self, signal: i32) {
        // SAFETY: our own child, not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine's clock, which all its processes share.
fn monotonic() -> u128 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u128 * 1_000_000_000 + now.tv_nsec as u128
}

#[tokio::test]
#[ignore = "the process that other tests freeze"]
async fn holder_process() {
    let Ok(endpoints) = std::env::var("HOLDER_ENDPOINTS") else { return };
    let config = EtcdConfig { ttl: TTL, ..EtcdConfig::new("main", endpoints.split(',')) };
    let etcd = Etcd::connect(config).await.unwrap();
    etcd.register(record("frozen")).await.unwrap();
    let proof = {
        let lease = etcd.acquire(WINDOW).await.unwrap();
        let proof = lease.proof();
        std::mem::forget(lease);
        proof
    };
    println!("\nholds {}", proof.epoch());
    let mut believed = 0;
    loop {
        // The clock is read before the question: what is said is never later than what was believed.
        let now = monotonic();
        match proof.check() {
            Ok(()) => believed = now,
            Err(_) => {
                println!("believed {believed}");
                println!("{:?}", proof.state());
                std::io::stdout().flush().unwrap();
                if proof.state() == LeaseState::Lost {
                    // Nobody reads what the test harness would say now.
                    std::process::exit(0);
                }
                proof.lost().await;
            }
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

#[tokio::test]
async fn a_frozen_holder_never_believes_beyond_its_proof() {
    let etcds = Etcds::single().await;
    let next = etcds.node("next").await;
    let endpoints = etcds.endpoints();
    let (holder, mut lines) = tokio::task::spawn_blocking(move || Holder::start(&endpoints)).await.unwrap();
    let mut line = move |start: &str| {
        let found = lines.by_ref().map(|line| line.expect("a line")).find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("the holder ended without saying {start:?}"))
    };
    let (held, mut line) = tokio::task::spawn_blocking(move || (line("holds "), line)).await.unwrap();
    holder.signal(libc::SIGSTOP);
    see(&next, "the frozen one gone", |view| !view.nodes.contains_key("frozen")).await;
    let lease = acquire(&next, WINDOW).await;
    let taken = monotonic();
    holder.signal(libc::SIGCONT);
    let (believed, end) = tokio::task::spawn_blocking(move || (line("believed "), line("Lost"))).await.unwrap();
    let believed: u128 = believed.trim_start_matches("believed ").parse().unwrap();
    assert!(believed < taken, "it believed {} ns after another held it", believed - taken);
    assert!(lease.epoch() > held.trim_start_matches("holds ").parse().unwrap());
    assert_eq!(end, "Lost");
}

/// The next holder's turn does not begin before the proof of the one before has run out.
#[tokio::test]
async fn a_killed_holder_is_followed_only_after_its_proof_ran_out() {
    let etcds = Etcds::single().await;
    let (a, b) = (etcds.node("a").await, etcds.node("b").await);
    let lease = a.acquire(WINDOW).await.unwrap();
    let proof = lease.proof();
    drop(a);
    let until = proof.proven_until();
    assert!(until <= Instant::now() + TTL);
    within("b's turn", async {
        see(&b, "the vacancy", |view| view.vacated.contains_key(WINDOW)).await;
        let next = acquire(&b, WINDOW).await;
        assert!(Instant::now() > until);
        assert!(next.epoch() > proof.epoch());
    })
    .await;
}
