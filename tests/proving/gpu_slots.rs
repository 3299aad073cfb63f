//! GPU slots over several processes of one host: a winning proof goes first, and a holder that is killed frees its slot.

use crate::support::prover::*;
use bulkhead::proofs::gpu::Gpu;
use bulkhead::proofs::{ChildProver, Job, Prover, Task};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const FOLDER: &str = "BULKHEAD_TEST_GPU_FOLDER";

fn winning() -> Task {
    Task::WinningPost { proof_type: WINNING, miner: MINER, randomness: [0; 32], sectors: vec![] }
}
fn window() -> Task {
    Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness: [0; 32], sectors: vec![] }
}
fn c2() -> Task {
    Task::C2 { c1: vec![], miner: MINER, number: 1 }
}
fn pc2() -> Task {
    Task::Pc2 { pc1: vec![], cache_dir: "/x".into(), sealed_path: "/x".into() }
}

/// Files of the queue that wait.
fn waiting(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("wait-")).count()
}

/// The body of another process: takes the slot, says so, waits to be killed.
#[tokio::test]
async fn another_process_holds_a_slot() {
    let Some(folder) = std::env::var_os(FOLDER).map(std::path::PathBuf::from) else { return };
    let gpu = Gpu::slots(1, folder.clone());
    let _held = gpu.lease(&c2(), HOUR).await.expect("it is free");
    std::fs::write(folder.join("held"), "").unwrap();
    let _queued = gpu.lease(&pc2(), HOUR).await; // in the queue too
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_holder_frees_its_slot_and_the_most_urgent_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("gpu");
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "gpu_slots::another_process_holds_a_slot"])
        .env(FOLDER, &folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the other process' lease", || folder.join("held").exists().then_some(())).await;
    until("its place in the queue", || (waiting(&folder) == 1).then_some(())).await;

    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    // The least urgent asks first; each of a "process" of its own.
    for (place, task) in [pc2(), c2(), window(), winning()].into_iter().enumerate() {
        let (gpu, order) = (Gpu::slots(1, folder.clone()), order.clone());
        tasks.push(tokio::spawn(async move {
            // A round that has an hour: a winning proof's patience is 2 s all the same.
            let lease = gpu.lease(&task, HOUR).await;
            order.lock().unwrap().push((task.name(), lease.is_some()));
        }));
        until("its place in the queue", || (waiting(&folder) == place + 2).then_some(())).await;
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let expected = ["WinningPoSt", "WindowPoSt", "C2", "PC2"].map(|name| (name, true));
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(waiting(&folder), 0, "nor of the process that was killed");
}

/// Two provers, as of two processes: their sealing children do not run at a time.
#[tokio::test]
async fn provers_of_one_host_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // A child that says when it begins and ends, and then dies.
    let script = format!("echo begin >> {0}; sleep 0.2; echo end >> {0}; exit 7", log.display());
    let prover = || {
        let mut config = config(dir.path());
        config.exe = "/bin/sh".into();
        config.args = vec!["-c".into(), script.clone().into()];
        config.gpu = Gpu::slots(1, dir.path().join("gpu"));
        ChildProver::new(config)
    };
    let job = || Job { task: c2(), job_dir: None, max_runtime: Duration::from_secs(60) };
    let (a, b) = (prover(), prover());
    let (a, b) = tokio::join!(a.run(job()), b.run(job()));
    assert!(a.is_err() && b.is_err(), "{a:?} {b:?}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "begin\nend\nbegin\nend\n");
}
