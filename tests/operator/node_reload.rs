//! New settings for a node that runs, with the real binary: hot keys are in force in the same incarnations and in the next
//! ones, the others are named, and a faulty file changes nothing.

use crate::support::operator::*;
use bulkhead::config::example::with_entries;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const WINDOW: &str = "root/proving/window_post";
const CONCERNS: [&str; 4] =
    [WINDOW, "root/sealing/seal_scheduler", "root/markets/deal_handler-t01000", "root/chain/message_sender"];

struct Place {
    _dir: tempfile::TempDir,
    chain: Chain,
    repo: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let repo = dir.path().join("repo");
    chain.init(&repo);
    Place { _dir: dir, chain, repo }
}

/// Writes one key into the repo's file.
fn set(repo: &Path, section: &str, key: &str, value: impl Into<toml::Value>) {
    let file = repo.join("config.toml");
    let text = std::fs::read_to_string(&file).expect("init wrote it");
    let text = if text.contains(&format!("[{section}]")) { text } else { format!("{text}\n[{section}]\n") };
    std::fs::write(&file, with_entries(&text, section, &[(key, value.into())])).expect("written");
}

fn incarnation(repo: &Path, actor: &str) -> Value {
    let tree = ask(repo, &["tree"]);
    let row = tree.as_array().expect("rows").iter().find(|row| row["path"] == actor);
    row.unwrap_or_else(|| panic!("no {actor}"))["incarnation"].clone()
}

#[track_caller]
fn shows(repo: &Path, actor: &str, pointer: &str, want: Value) {
    until(&format!("{actor} to show {pointer} = {want}"), || {
        let seen = ask(repo, &["tree", "--inspect", actor]);
        (seen["state"].pointer(pointer) == Some(&want)).then_some(())
    });
}

/// With the token of the repo, or another.
fn post(repo: &Path, path: &str, token: Option<&str>) -> (u16, Value) {
    let read = |name: &str| std::fs::read_to_string(repo.join(name)).expect("the node wrote it");
    let url = format!("http://{}{path}", read("admin"));
    let token = token.map_or_else(|| read("token"), str::to_string);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let answer = reqwest::Client::new().post(url).bearer_auth(token.trim()).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    })
}

#[test]
fn hot_keys_are_taken_over_by_running_concerns() {
    let Place { chain, repo, _dir } = place();
    let mut node = up(&repo, &chain.api_info());
    let before = CONCERNS.map(|actor| incarnation(&repo, actor));
    let nothing = ask(&repo, &["config", "reload"]);
    assert_eq!(nothing, json!({ "changed": [], "needs_restart": [], "concerns": {} }));

    set(&repo, "node", "log", "info,bulkhead::actors=debug");
    set(&repo, "proving", "parallel", 3);
    set(&repo, "sealing", "pc1", 5);
    set(&repo, "market", "price", "7");
    set(&repo, "market", "max_connections", 9);
    set(&repo, "fees", "other", "0.01");
    let done = ask(&repo, &["config", "reload"]);
    let keys = ["node.log", "proving.parallel", "sealing.pc1", "market.price", "fees.other"];
    assert_eq!((&done["changed"], &done["needs_restart"]), (&json!(keys), &json!(["market.max_connections"])));
    let told: Vec<&String> = done["concerns"].as_object().expect("concerns").keys().collect();
    assert_eq!(told, ["deal_handler", "message_sender", "seal_scheduler", "window_post"]);
    shows(&repo, WINDOW, "/settings/parallel", json!(3));
    shows(&repo, CONCERNS[1], "/driver/limits/pc1", json!(5));
    shows(&repo, CONCERNS[2], "/market/ask/price", json!("7")); // signed anew, and served
    shows(&repo, CONCERNS[3], "/messages/max_fee", json!("0.01"));
    node.says("DEBUG");
    assert_eq!(CONCERNS.map(|actor| incarnation(&repo, actor)), before, "nobody was restarted");

    let again = ask(&repo, &["config", "reload"]);
    assert_eq!((&again["changed"], &again["needs_restart"]), (&json!([]), &json!(["market.max_connections"])));

    set(&repo, "proving", "parallel", 4);
    node.signal(nix::sys::signal::Signal::SIGHUP);
    shows(&repo, WINDOW, "/settings/parallel", json!(4));
    assert_eq!(post(&repo, &format!("/actors/{WINDOW}/kill"), None).0, 200);
    until("the next incarnation", || (incarnation(&repo, WINDOW) != before[0]).then_some(()));
    shows(&repo, WINDOW, "/settings/parallel", json!(4));
    assert!(node.err().contains("config reload") && node.err().contains("SIGHUP"), "an audit line: {}", node.err());
    node.stopped();
    chain.process.stopped();
}

#[test]
fn a_faulty_file_changes_nothing_and_names_the_key() {
    let Place { chain, repo, _dir } = place();
    let mut node = up(&repo, &chain.api_info());
    set(&repo, "proving", "parallel", 3);
    set(&repo, "sealing", "pc1", 0);
    let (status, body) = post(&repo, "/config/reload", None);
    let why = body["error"].as_str().expect("why").to_string();
    assert!(status == 422 && why.contains("nothing is changed") && why.contains("sealing.pc1 = 0"), "{status} {why}");
    say(&["config", "reload", "--repo", text(&repo)], &[]).refused(1, &["sealing.pc1 = 0"]);
    node.signal(nix::sys::signal::Signal::SIGHUP);
    until("the hangup's audit line", || {
        let said = node.err();
        said.lines().any(|line| line.contains("SIGHUP") && line.contains("sealing.pc1")).then_some(())
    });
    assert_eq!(post(&repo, "/config/reload", Some("wrong")).0, 401);
    shows(&repo, WINDOW, "/settings/parallel", json!(1));
    set(&repo, "sealing", "pc1", 2);
    assert_eq!(ask(&repo, &["config", "reload"])["changed"], json!(["proving.parallel", "sealing.pc1"]));
    assert!(node.lives());
    node.stopped();
    chain.process.stopped();
}
