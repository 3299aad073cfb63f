//! One sector, real proofs, the real binary: killed in every phase and on both sides of every journal write, its provers
//! killed and crashed under it, started again with the same command. It finishes, and the chain has seen everything once.

use crate::support::devnet_process::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The phases in the order of a run that nothing disturbs.
const PHASES: [&str; 14] = [
    "Allocated",
    "AddPiece",
    "GetTicket",
    "PreCommit1",
    "PreCommit2",
    "PreCommitting",
    "PreCommitWait",
    "WaitSeed",
    "Commit1",
    "Commit2",
    "VerifySeal",
    "SubmitCommit",
    "CommitWait",
    "FinalizeSector",
];

/// Before there is a sector: a miner is made, a number is given.
const BEFORE: [&str; 4] = ["init:signed", "init:pushed", "init:created", "allocated:1"];

/// A window proof's record, the message that carries it, and its end.
const WINDOW_POST: [&str; 6] = [
    "window_post:proving",
    "window_post:proved",
    "window_post:submitting",
    "message:signed",
    "message:pushed",
    "window_post:landed",
];

fn enters(event: &Value, state: &str) -> bool {
    event["event"] == "sector" && event["state"] == state
}

fn log_of(sector: &Value) -> Vec<String> {
    let lines = sector["Log"].as_array().into_iter().flatten();
    lines.map(|line| format!("{}: {}", line["Kind"].as_str().unwrap(), line["Message"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sector_and_its_window_outlive_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    // Short proving periods: a window comes up within 30 epochs.
    std::fs::create_dir(dir.path().join("node")).unwrap();
    std::fs::write(dir.path().join("node/config.toml"), "[devnet]\ndeadlines = 3\ndispute_window = 20\n").unwrap();
    let mut devnet = Devnet { dir: dir.path().to_path_buf(), flags: vec!["--warmup-delay".into(), "1s".into()] };
    let took = std::time::Instant::now();
    let note = |what: &str| eprintln!("{:>5} s  {what}", took.elapsed().as_secs());

    for failpoint in BEFORE {
        devnet.start(failpoint, &[]).falls(failpoint);
        note(failpoint);
    }
    for phase in PHASES {
        for side in ["enter", "leave"] {
            let failpoint = format!("{side}:{phase}");
            if failpoint == "leave:Commit2" {
                note("C2's provers are killed, then the node while one works");
                sealing_provers_fall(&devnet).await;
            }
            devnet.start(&failpoint, &[]).falls(&failpoint);
            note(&failpoint);
        }
    }

    let mut node = devnet.start("", &[]);
    node.prover("window", &[]);
    node.kill_nine();
    note("the node is killed while a WindowPoSt is made");
    // From here on enough time that a window proof which is killed again and again still makes its window.
    devnet.flags = ["--warmup-delay", "5s", "--block-delay", "4s"].map(String::from).to_vec();
    window_provers_fall(&devnet).await;
    note("WindowPoSt's provers are killed, then the node while one works");
    for failpoint in WINDOW_POST {
        devnet.start(failpoint, &[]).falls(failpoint);
        note(failpoint);
    }
    let mut last = devnet.start("", &["--exit-after", "window-post"]);
    last.event("the summary", |event| event["event"] == "summary");
    let status = last.ended("the end");
    assert_eq!(status.code(), Some(0), "{}", last.log());
    note("--exit-after window-post: exit 0");

    the_chain_has_seen_everything_once(&devnet).await;
    note("the chain has seen everything once");
}

/// The prover of C2 dies twice: once for nothing that it did, once by a crash. Then the node dies under the third.
async fn sealing_provers_fall(devnet: &Devnet) {
    let mut node = devnet.start("", &[]);
    node.event("Commit2", |event| enters(event, "Commit2"));
    let first = node.prover("seal", &[]);
    fell(first, Signal::SIGKILL);
    let second = node.prover("seal", &[first]);
    fell(second, Signal::SIGSEGV);
    let third = node.prover("seal", &[first, second]);
    let sector = node.call("node", "Filecoin.SectorsStatus", vec![json!(1), json!(false)]).await;
    assert_eq!(sector["State"], "Commit2", "tried again");
    let log = log_of(&sector);
    for told in [
        "Commit2: C2: the prover was killed (signal 9)",
        "ComputeProofFailed: C2: the prover crashed (SIGSEGV); again from Commit2 in 5 s",
        "Commit2: trying again",
    ] {
        assert!(log.iter().any(|line| line == told), "{told:?} is not in {log:#?}");
    }
    nothing_restarted(&node).await;
    assert!(provers(node.pid(), "seal").contains(&third), "C2 is at work");
    node.kill_nine();
}

/// The same for a window proof. A job that only verifies is begun again without a word, so each prover that comes is
/// struck until the report tells the blow.
async fn window_provers_fall(devnet: &Devnet) {
    let mut node = devnet.start("", &[]);
    let mut fallen = Vec::new();
    for (blow, told) in [
        (Signal::SIGKILL, "WindowPoSt: the prover was killed (signal 9)"),
        (Signal::SIGSEGV, "WindowPoSt: the prover crashed (SIGSEGV)"),
    ] {
        let started = std::time::Instant::now();
        loop {
            if let Some(prover) = provers(node.pid(), "window").into_iter().find(|pid| !fallen.contains(pid)) {
                fell(prover, blow);
                fallen.push(prover);
            }
            let report = node.call("node", "Bulkhead.WindowPost", vec![]).await;
            if report.to_string().contains(told) {
                break;
            }
            assert!(started.elapsed() < LIMIT, "never {told}: {report:#}\n{}", node.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    node.prover("window", &fallen);
    nothing_restarted(&node).await;
    node.kill_nine();
}

async fn nothing_restarted(node: &Running) {
    let tree = node.call("node", "Bulkhead.Tree", vec![]).await;
    let restarted: Vec<&Value> = tree.as_array().unwrap().iter().filter(|row| row["restarts"] != 0).collect();
    assert!(restarted.is_empty(), "a prover's end is no actor's end: {restarted:#?}");
}

async fn the_chain_has_seen_everything_once(devnet: &Devnet) {
    let mut chain = devnet.start("", &["--chain-only"]);
    chain.event("the chain", |event| event["event"] == "ready" && event["what"] == "chain");
    let miner = "t01000";
    let allocated = chain.call("chain", "Filecoin.StateMinerAllocated", vec![json!(miner), Value::Null]).await;
    assert_eq!(allocated, json!([1, 1]), "run lengths: number 0 is not, 1 is, no other");
    let miners = chain.call("chain", "Filecoin.StateListMiners", vec![Value::Null]).await;
    assert_eq!(miners, json!([miner]));
    let sectors = chain.call("chain", "Filecoin.StateMinerSectors", vec![json!(miner), Value::Null, Value::Null]).await;
    assert_eq!(sectors.as_array().map(Vec::len), Some(1), "{sectors:#}");
    let found = messages(&chain).await;
    // CreateMiner, PreCommitSectorBatch2, ProveCommitSectors3
    for (to, method) in [("t04", 2), (miner, 28), (miner, 34)] {
        let exits: Vec<i64> = found.iter().filter(|m| m.0 == to && m.1 == method).map(|m| m.2).collect();
        assert_eq!(exits, [0], "method {method} of {to}: {found:?}");
    }
    let failed: Vec<_> = found.iter().filter(|m| m.2 != 0).collect();
    assert!(failed.is_empty(), "a message that failed cost gas for nothing: {failed:?}");
}
