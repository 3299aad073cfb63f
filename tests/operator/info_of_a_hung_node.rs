//! A full node that hangs: `info` shows every part that does not come from it, says of the others why they are missing, and
//! names the full node, not the provider.

use crate::support::operator::*;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

#[test]
fn parts_that_a_hung_full_node_does_not_tell_do_not_take_the_others_along() {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let repo = dir.path().join("repo");
    chain.init(&repo);
    let node = up(&repo, &chain.api_info());
    chain.process.signal(Signal::SIGSTOP);
    let began = Instant::now();
    let info = ask(&repo, &["info"]);
    chain.process.signal(Signal::SIGCONT);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let missing = &info["provider"]["unavailable"];
    for part in ["power", "balances", "deadlines"] {
        let why = missing[part].as_str().unwrap_or_else(|| panic!("{part} is not named: {missing}"));
        assert!(why.contains("full node"), "{why}");
    }
    for part in ["miner", "sectors", "winning_post", "market", "workers", "troubles"] {
        assert!(!info[part].is_null() && info[part].get("unavailable").is_none(), "{part}: {}", info[part]);
    }
    assert!(info["provider"]["messages"].is_object(), "{info}");
    node.stopped();
    chain.process.stopped();
}
