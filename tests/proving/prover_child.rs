//! Prover children under real signals: every end has its reason, nothing is left behind, the next task works.

use crate::support::prover::*;
use crate::support::test_of_this_file;
use bulkhead::proofs::gpu::Gpu;
use bulkhead::proofs::{ChildProver, Job, Output, Prover, ProverError, ProverPool, ProverPools, Task};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A quick task for a warm child.
fn challenge() -> Task {
    Task::WinningChallenge { proof_type: WINNING, miner: MINER, randomness: [5; 32], sector_count: 100 }
}

fn start(prover: &Arc<ChildProver>, job: Job) -> tokio::task::JoinHandle<Result<Output, ProverError>> {
    let prover = prover.clone();
    tokio::spawn(async move { prover.run(job).await })
}

/// The pid of the child that has this task.
async fn pid_of(prover: &ChildProver, task: &str) -> u32 {
    until(task, || prover.running().iter().find(|r| r.started && r.task == task).map(|r| r.pid)).await
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[tokio::test]
async fn each_deadly_signal_has_its_own_reason_and_the_next_task_works() {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(prover(dir.path()));
    let task = "AddPiece".to_string();
    for (deadly, want) in [
        (Signal::SIGKILL, ProverError::Killed { task: task.clone(), signal: 9 }),
        (Signal::SIGSEGV, ProverError::Segfault { task: task.clone() }),
        (Signal::SIGABRT, ProverError::Aborted { task: task.clone() }),
        (Signal::SIGTERM, ProverError::Killed { task: task.clone(), signal: 15 }),
    ] {
        let running = start(&prover, job(endless_task(dir.path())));
        signal(pid_of(&prover, "AddPiece").await, deadly);
        assert_eq!(running.await.unwrap(), Err(want));
        assert!(prover.running().is_empty());
    }
    let s = Sector::in_dir(dir.path(), 1);
    assert!(matches!(prover.run(job(s.add_piece())).await, Ok(Output::Piece { .. })));
}

#[tokio::test]
async fn a_dropped_future_and_a_passed_deadline_kill_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(prover(dir.path()));

    let running = start(&prover, job(endless_task(dir.path())));
    let pid = pid_of(&prover, "AddPiece").await;
    running.abort();
    until("the child's death", || (!process_lives(pid)).then_some(())).await;

    let max_runtime = Duration::from_millis(300);
    let late = Job { task: endless_task(dir.path()), job_dir: None, max_runtime };
    let hung = prover.run(late).await;
    assert_eq!(hung, Err(ProverError::Hung { task: "AddPiece".into(), after: max_runtime }));
    // the slot is free again only when that child is gone, so this also waits for it
    let s = Sector::in_dir(dir.path(), 1);
    assert!(matches!(prover.run(job(s.add_piece())).await, Ok(Output::Piece { .. })));
    assert!(prover.running().is_empty());
}

#[tokio::test]
async fn proving_does_not_wait_behind_sealing() {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(prover(dir.path()));
    let sealing = start(&prover, job(endless_task(dir.path())));
    pid_of(&prover, "AddPiece").await;
    let s = Sector::in_dir(dir.path(), 1);
    let queued = start(&prover, job(s.add_piece()));
    assert!(matches!(prover.run(job(challenge())).await, Ok(Output::Challenged(_))));
    assert_eq!(prover.running().len(), 1, "one sealing slot, one sealing child");
    assert!(!queued.is_finished());
    sealing.abort();
    assert!(matches!(queued.await.unwrap(), Ok(Output::Piece { .. })));
}

#[tokio::test]
async fn two_sealing_slots_run_two_children() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.pools = ProverPools { seal: 2, ..ProverPools::default() };
    let prover = Arc::new(ChildProver::new(config));
    let _sealing = start(&prover, job(endless_task(dir.path())));
    pid_of(&prover, "AddPiece").await;
    let s = Sector::in_dir(dir.path(), 1);
    assert!(matches!(prover.run(job(s.add_piece())).await, Ok(Output::Piece { .. })));
}

#[tokio::test]
async fn a_warm_child_stays_and_is_replaced_when_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(prover(dir.path()));
    let first = prover.run(job(challenge())).await.unwrap();
    let [(ProverPool::Winning, pid)] = prover.idle()[..] else { panic!("{:?}", prover.idle()) };
    assert_eq!(prover.run(job(challenge())).await, Ok(first.clone()));
    assert_eq!(prover.idle(), [(ProverPool::Winning, pid)], "the same child");

    signal(pid, Signal::SIGKILL);
    assert_eq!(prover.run(job(challenge())).await, Ok(first), "its death while idle is no task's fault");
    let [(ProverPool::Winning, next)] = prover.idle()[..] else { panic!("{:?}", prover.idle()) };
    assert_ne!(next, pid);

    // a failed task leaves it warm, a dropped prover does not leave it at all
    let wrong = Task::WinningChallenge { proof_type: 99, miner: 1, randomness: [0; 32], sector_count: 1 };
    let failed = prover.run(job(wrong)).await;
    assert!(matches!(&failed, Err(ProverError::Failed { why, .. }) if why.contains("99")), "{failed:?}");
    assert_eq!(prover.idle(), [(ProverPool::Winning, next)]);
    drop(prover);
    until("the idle child's death", || (!process_lives(next)).then_some(())).await;
}

#[tokio::test]
async fn a_child_is_set_up_as_it_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(prover(dir.path()));
    let running = start(&prover, job(endless_task(dir.path())));
    let pid = pid_of(&prover, "AddPiece").await;
    let proc_file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let stat = proc_file("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[2], pid.to_string(), "leads its own process group");
    assert_eq!(fields[16], "8", "sealing is niced");
    assert_eq!(proc_file("oom_score_adj").trim(), "800");
    let core = proc_file("limits").lines().find(|l| l.starts_with("Max core")).unwrap().to_string();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let tmp = proc_file("environ").split('\0').find_map(|v| v.strip_prefix("TMPDIR=").map(String::from)).unwrap();
    assert!(tmp.starts_with(dir.path().to_str().unwrap()) && std::path::Path::new(&tmp).is_dir());
    let mut fds: Vec<u32> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    fds.sort_unstable();
    assert_eq!(fds, [0, 1, 2, 3, 4], "nothing else of the node's is open in it");

    signal(pid, Signal::SIGKILL);
    assert!(running.await.unwrap().is_err());
    assert!(!std::path::Path::new(&tmp).exists(), "its TMPDIR goes with it");
}

/// Not a test by itself: the node whose death the next test causes.
#[tokio::test]
#[ignore = "run by a_killed_node_leaves_no_prover"]
async fn node_that_is_killed() {
    let dir = std::path::PathBuf::from(std::env::var_os("BULKHEAD_TEST_DIR").unwrap());
    let prover = Arc::new(prover(&dir));
    let _running = start(&prover, job(endless_task(&dir)));
    prover.run(job(challenge())).await.unwrap();
    let pids = [pid_of(&prover, "AddPiece").await, prover.idle()[0].1];
    let tmp = dir.join("pids.tmp");
    std::fs::write(&tmp, format!("{} {}", pids[0], pids[1])).unwrap();
    std::fs::rename(tmp, dir.join("pids")).unwrap();
    std::future::pending::<()>().await
}

#[tokio::test]
async fn a_killed_node_leaves_no_prover() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test_of_this_file!("node_that_is_killed"), "--ignored"])
        .env("BULKHEAD_TEST_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = until("the node's children", || std::fs::read_to_string(dir.path().join("pids")).ok()).await;
    let pids: Vec<u32> = text.split(' ').map(|p| p.parse().unwrap()).collect();
    assert!(pids.iter().all(|p| process_lives(*p)));
    node.kill().unwrap();
    node.wait().unwrap();
    for pid in pids {
        until("the prover's death", || (!process_lives(pid)).then_some(())).await;
    }
}

/// A child that is a shell script.
fn scripted(dir: &std::path::Path, script: &str) -> ChildProver {
    let mut config = config(dir);
    config.exe = "/bin/sh".into();
    config.args = vec!["-c".into(), script.into()];
    config.silence = Duration::from_millis(500);
    ChildProver::new(config)
}

#[tokio::test]
async fn a_child_that_talks_nonsense_is_refused_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    for (script, want) in [
        (r"printf '\377\377\377\377' >&4; exec sleep 1000", "over the limit"),
        (r"printf '\003\000\000\000\372\372\372' >&4; exec sleep 1000", "no message"),
        ("exit 7", "exit code 7"),
    ] {
        let failed = scripted(dir.path(), script).run(job(challenge())).await;
        assert!(matches!(&failed, Err(ProverError::Failed { why, .. }) if why.contains(want)), "{failed:?}");
    }
    let mute = scripted(dir.path(), "sleep 1000; true").run(job(challenge())).await;
    assert!(matches!(mute, Err(ProverError::Hung { .. })), "{mute:?}");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 0, "no TMPDIR stays");
}

/// The real child with these bytes as its fd 3: exit code and stderr.
fn child_with_input(bytes: &str, fds: &str) -> (Option<i32>, String) {
    let script = format!("printf '{bytes}' | {{ \"$0\" prover {fds}; }}");
    let out = Command::new("/bin/sh").args(["-c", &script, env!("CARGO_BIN_EXE_bulkhead")]).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn the_child_refuses_bad_frames_and_being_started_by_hand() {
    let (code, text) = child_with_input(r"\377\377\377\377", "3<&0 4>/dev/null");
    assert_eq!((code, text.contains("over the limit")), (Some(3), true), "{text}");
    let (code, text) = child_with_input(r"\003\000\000\000\372\372\372", "3<&0 4>/dev/null");
    assert_eq!((code, text.contains("no message")), (Some(3), true), "{text}");
    let (code, _) = child_with_input("", "3<&0 4>/dev/null");
    assert_eq!(code, Some(0), "a closed pipe is the end of work");
    let (code, text) = child_with_input("", "3<&- 4>&-");
    assert_eq!((code, text.contains("not by hand")), (Some(2), true), "{text}");
}

/// In a file, where nobody wants escape sequences, and between the node's own lines, which may be JSON.
#[test]
fn a_childs_log_lines_are_written_as_the_nodes_are() {
    let said = |format: &str| {
        let script = r#"printf '\377\377\377\377' | { "$0" prover 3<&0 4>/dev/null; }"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_bulkhead")]).env_remove("NO_COLOR").env_remove("RUST_LOG");
        let out = command.env("BULKHEAD_NODE_LOG_FORMAT", format).output().unwrap();
        String::from_utf8(out.stderr).unwrap()
    };
    let pretty = said("pretty");
    assert!(pretty.contains("over the limit") && !pretty.contains('\x1b'), "{pretty:?}");
    let json = said("json");
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines[0]["fields"]["message"].as_str().is_some_and(|m| m.contains("over the limit")), "{json}");
}

/// Frames: Ready, Started, and the answer.
const ANSWERS: &str = r"printf '\001\000\000\000\000\001\000\000\000\001'; printf '\002\000\000\000";

/// A process with a thread that hangs on a disk lives on, its pipes open: the next task would wait for it in vain.
#[tokio::test]
async fn a_child_that_says_its_last_word_gets_no_other_task() {
    let dir = tempfile::tempdir().unwrap();
    for (tag, warm) in [(r"\004", 1), (r"\006", 0)] {
        let prover = scripted(dir.path(), &format!(r"{{ {ANSWERS}{tag}\007'; }} >&4; sleep 1000; true"));
        assert_eq!(prover.run(job(challenge())).await, Ok(Output::Done));
        assert_eq!(prover.idle().len(), warm, "{tag}");
    }
}

/// Each sees its own GPU and keeps parameters in memory: no more of them stay than there are slots.
#[tokio::test]
async fn warm_children_of_other_gpus_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.exe = "/bin/sh".into();
    config.args = vec!["-c".into(), format!(r"{{ {ANSWERS}\004\007'; }} >&4; sleep 1000; true").into()];
    config.gpu = Gpu::slots(3, dir.path().join("gpu"));
    let (prover, others) = (ChildProver::new(config), Gpu::slots(3, dir.path().join("gpu")));
    let winning = || Task::WinningPost { proof_type: WINNING, miner: MINER, randomness: [0; 32], sectors: vec![] };
    let mut held = Vec::new();
    let mut pids = Vec::new();
    for _ in 0..3 {
        assert_eq!(prover.run(job(winning())).await, Ok(Output::Done));
        let [(ProverPool::Winning, pid)] = prover.idle()[..] else { panic!("{:?}", prover.idle()) };
        pids.push(pid);
        held.push(others.lease(&winning(), Duration::from_secs(60)).await.expect("the GPU that it had"));
    }
    pids.dedup();
    assert_eq!(pids.len(), 3, "each saw another GPU");
    until("the end of those before", || (!process_lives(pids[0]) && !process_lives(pids[1])).then_some(())).await;
}

#[tokio::test]
async fn a_result_is_durable_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let real = prover(dir.path());
    let s = Sector::in_dir(dir.path(), 1);
    let mut first = job(s.add_piece());
    first.job_dir = Some(dir.path().join("jobs/1"));
    let output = real.run(first.clone()).await.unwrap();

    let mut config = config(dir.path());
    config.exe = "/nonexistent".into();
    let nobody = ChildProver::new(config);
    let adopted = nobody.run_timed(first.clone()).await;
    assert_eq!(adopted, (Ok(output.clone()), None), "adopted without a child, and no measure of a proof");
    bulkhead::proofs::result::forget(&dir.path().join("jobs/1"), &first.task).unwrap();
    assert!(matches!(nobody.run(first).await, Err(ProverError::NotStarted { .. })));

    // no folder to keep it in: not acknowledged
    let file = dir.path().join("a-file");
    std::fs::write(&file, b"").unwrap();
    let mut nowhere = job(s.add_piece());
    nowhere.job_dir = Some(file);
    let failed = real.run(nowhere).await;
    assert!(matches!(&failed, Err(ProverError::Failed { why, .. }) if why.contains("a-file")), "{failed:?}");
}

/// Empties every array under the name "labels".
fn without_labels(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, inner) in map {
                match inner {
                    serde_json::Value::Array(labels) if name == "labels" => labels.clear(),
                    _ => without_labels(inner),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_labels),
        _ => {}
    }
}

#[tokio::test]
async fn a_panic_in_the_library_is_a_failed_task_and_spends_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let prover = prover(dir.path());
    let s = Sector::in_dir(dir.path(), 1);
    prover.run(job(s.add_piece())).await.unwrap();
    let good = phase1(prover.run(job(s.pc1())).await);
    let mut bad: serde_json::Value = serde_json::from_slice(&good).unwrap();
    without_labels(&mut bad);
    let failed = prover.run(job(s.pc2(serde_json::to_vec(&bad).unwrap()))).await;
    assert!(matches!(&failed, Err(ProverError::Failed { why, .. }) if why.contains("panicked")), "{failed:?}");
    assert!(matches!(prover.run(job(s.pc2(good))).await, Ok(Output::Pc2 { .. })));
}
