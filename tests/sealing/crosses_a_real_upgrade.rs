//! The upgrade from network version 28 to 29 under a provider that runs: the real binary with real proofs against a chain in
//! a process of its own, which the operator restarts with the epoch of the upgrade while sectors stand in different phases.

use crate::support::operator::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// FULL_QA_POWER of `SectorOnChainInfo`'s flags.
const FULL_QA_POWER: u64 = 2;
/// A C2 on a machine that does other things.
const PROOF: Duration = Duration::from_secs(600);

/// The phase of each sector, by number.
fn phases(repo: &Path) -> BTreeMap<u64, String> {
    let list = ask(repo, &["sectors", "list"]);
    let rows = list.as_array().unwrap_or_else(|| panic!("rows: {list}"));
    let row = |row: &Value| Some((row["number"].as_u64()?, row["state"].as_str()?.to_string()));
    rows.iter().filter_map(row).collect()
}

fn pledge(repo: &Path) {
    say(&["sectors", "pledge", "--repo", text(repo)], &[]).ok();
}

fn reaches(repo: &Path, number: u64, wanted: &[&str]) -> BTreeMap<u64, String> {
    until_within(PROOF, &format!("sector {number} in {wanted:?}"), || {
        let all = phases(repo);
        all.get(&number).is_some_and(|phase| wanted.contains(&phase.as_str())).then_some(all)
    })
}

#[test]
fn sectors_in_several_phases_cross_it_while_the_provider_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (chain_dir, repo) = (dir.path().join("devnet"), dir.path().join("repo"));
    // Slow enough that a sector stands in each phase for a while.
    let slow = ["--block-delay", "1s", "--warmup-delay", "1s", "--upgrade-epoch", "1000000"];
    let chain = Chain::start_at(&chain_dir, 0, &slow, &[]);
    chain.init(&repo);
    let mut node = up(&repo, &chain.api_info());
    // The first one is in its C2, a minute long, when the others come.
    pledge(&repo);
    let first = until("a number", || phases(&repo).keys().next().copied());
    reaches(&repo, first, &["Commit2"]);
    pledge(&repo);
    reaches(&repo, first + 1, &["PreCommitWait", "WaitSeed"]);
    pledge(&repo);
    pledge(&repo);
    reaches(&repo, first + 2, &["PreCommitWait", "WaitSeed"]);
    let port = chain.port;
    let height = chain.height();
    chain.process.stopped();
    let before = phases(&repo);
    assert_eq!(before[&first], "Commit2", "{before:?}");

    // The operator's new full node knows the upgrade. The provider goes on with it.
    let upgrade = (height + 8).to_string();
    let fast = ["--block-delay", "300ms", "--warmup-delay", "300ms", "--upgrade-epoch", &upgrade];
    let chain = Chain::start_at(&chain_dir, port, &fast, &[]);
    until("network version 29", || (chain.call("StateNetworkVersion", "[null]") == 29).then_some(()));
    let at_the_upgrade = phases(&repo);
    assert_eq!(at_the_upgrade[&first], "Commit2", "{before:?} {at_the_upgrade:?}");
    assert!(node.lives());

    // Begun before, proven after: by the rules of after, with one message.
    let after = reaches(&repo, first, &["Proving"]);
    let sector = chain.call("StateSectorGetInfo", &format!("[\"t01000\",{first},null]"));
    assert_eq!(sector["Flags"].as_u64().unwrap() & FULL_QA_POWER, FULL_QA_POWER, "{sector}");
    let failed = |phase: &&String| phase.contains("Failed") || phase.contains("Remov");
    assert_eq!(after.values().filter(failed).count(), 0, "{before:?} {after:?}");
    // The others wait for their turn at C2.
    for number in first + 1..=first + 3 {
        reaches(&repo, number, &["Commit2"]);
    }
    assert!(!node.err().contains("a message of a sector was refused"), "{}", node.err());
    node.stopped();
}
