//! A start, with the real binary: what proving can do without never ends it. Such a concern comes up later, `tree`, `info`
//! and readiness say why, and it is up by itself once the fault is over.

use crate::support::operator::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

struct Place {
    dir: tempfile::TempDir,
    chain: Chain,
    repo: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let repo = dir.path().join("repo");
    chain.init(&repo);
    Place { dir, chain, repo }
}

/// A port that another program has.
fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    (listener, port)
}

/// `/health/ready`.
fn ready(repo: &Path) -> Option<(u16, Value)> {
    let url = format!("http://{}/health/ready", std::fs::read_to_string(repo.join("admin")).ok()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let answer = reqwest::Client::new().get(url).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    })
}

/// State, and why it is held down, by path.
fn rows(repo: &Path) -> BTreeMap<String, (String, Option<String>)> {
    let tree = ask(repo, &["tree"]);
    let row = |row: &Value| {
        let text = |name: &str| row[name].as_str().map(str::to_string);
        (text("path").expect("a path"), (text("state").expect("a state"), text("held")))
    };
    tree.as_array().expect("rows").iter().map(row).collect()
}

#[track_caller]
fn all_up(repo: &Path) {
    until("everything up", || rows(repo).values().all(|(state, held)| state == "up" && held.is_none()).then_some(()));
    until("ready", || ready(repo).filter(|(code, _)| *code == 200));
}

#[track_caller]
fn is_held(repo: &Path, path: &str, part: &str) {
    until(&format!("{path} held down for {part}"), || {
        let (state, held) = rows(repo).remove(path)?;
        (state == "restarting" && held.is_some_and(|why| why.contains(part))).then_some(())
    });
}

const API: &str = "root/admin/api_server";
const MARKET: &str = "root/markets/deal_handler-t01000";
const SCHEDULER: &str = "root/sealing/seal_scheduler";
const ALLOCATOR: &str = "root/sealing/sector_allocator";

#[test]
fn concerns_that_proving_can_do_without_come_up_later_and_say_why() {
    let Place { chain, repo, .. } = &place();
    std::fs::write(repo.join("libp2p.key"), "no key").expect("written");
    let _ = std::fs::remove_dir_all(repo.join("sectors"));
    std::fs::write(repo.join("sectors"), "no folder").expect("written");
    std::fs::write(repo.join("sectorid"), "many").expect("written");
    std::fs::write(repo.join("jwt-secret"), "no secret").expect("written");
    let node = up(repo, &chain.api_info());
    let expected =
        [(MARKET, "libp2p.key"), (SCHEDULER, "sectors"), (ALLOCATOR, "no sector number"), (API, "jwt-secret")];
    for (path, part) in expected {
        is_held(repo, path, part);
        assert!(node.err().contains(part), "the log says so: {}", node.err());
    }
    let up = rows(repo);
    for path in ["root/proving/window_post", "root/proving/winning_post", "root/chain/message_sender"] {
        assert_eq!(up[path], ("up".into(), None), "{path}");
    }
    // The API answers nobody; the admin HTTP has what it would say.
    let info = until("the node's own report", || {
        let said = say(&["info", "--json", "--repo", text(repo)], &[]);
        let info: Value = serde_json::from_str(&said.out).ok()?;
        (info["held_down"].as_object()?.len() == expected.len()).then_some(info)
    });
    let (code, answer) = ready(repo).expect("readiness");
    assert_eq!(code, 503);
    for (path, part) in expected {
        let says = |answer: &Value, name: &str| answer[name][path].as_str().is_some_and(|why| why.contains(part));
        assert!(says(&answer, "reasons") && says(&info, "held_down"), "{path}: {answer} {info}");
        assert!(answer["waiting_for"].as_array().expect("paths").iter().any(|waits| waits == path), "{answer}");
    }
    // Repaired while it runs: nothing has to be restarted by hand.
    for name in ["libp2p.key", "sectors", "sectorid", "jwt-secret"] {
        std::fs::remove_file(repo.join(name)).expect("removed");
    }
    all_up(repo);
    assert_eq!(ask(repo, &["info"]).get("held_down"), None);
    node.stopped();
}

#[test]
fn a_taken_port_ends_no_start_and_nobody_is_led_to_the_other_program() {
    let Place { chain, repo, .. } = &place();
    // The API's and the market's.
    let ((api, api_port), (market, market_port)) = (taken(), taken());
    let (listen, deals) = (format!("127.0.0.1:{api_port}"), format!("/ip4/127.0.0.1/tcp/{market_port}"));
    let mut node = run(repo, &chain.api_info(), &["--api-listen", &listen, "--market-listen", &deals]);
    node.says("the node is up");
    for (path, part) in [(API, &listen), (MARKET, &deals)] {
        is_held(repo, path, part);
    }
    drop((api, market));
    all_up(repo);
    node.stopped();
    // The admin HTTP's, which would have said so.
    let (admin, admin_port) = taken();
    let listen = format!("127.0.0.1:{admin_port}");
    let mut node = run(repo, &chain.api_info(), &["--admin-listen", &listen]);
    node.says("the node is up");
    node.says(&format!("{listen} is in use"));
    assert!(!repo.join("admin").exists(), "the address of the other program is not left there");
    drop(admin);
    until("the admin HTTP's address", || repo.join("admin").exists().then_some(()));
    all_up(repo);
    assert_eq!(std::fs::read_to_string(repo.join("admin")).expect("an address"), listen);
    node.stopped();
}

#[test]
fn what_proving_cannot_do_without_still_ends_a_start() {
    let Place { dir, chain, repo } = &place();
    let database = repo.join("bulkhead.redb");
    up(repo, &chain.api_info()).stopped();
    std::fs::write(&database, "no database").expect("written");
    run(repo, &chain.api_info(), &[]).ended().refused(1, &["bulkhead.redb"]);
    assert!(dir.path().exists());
}
