//! OS processes as supervised actors: every end has its reason, a stop takes the group, nothing outlives the parent.

use crate::support::test_of_this_file;
use bulkhead::supervisor::process::{OsProcess, Pid, Program};
use bulkhead::supervisor::*;
use std::io::BufRead;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Program {
    Program { exe: "/bin/sh".into(), args: vec!["-c".into(), script.into()], env: vec![], nice: 0, oom_score_adj: 500 }
}

fn tree(script: &str, restart: Restart) -> (Tree, Ref<OsProcess>) {
    let address = Ref::new("/process", 4);
    let child = OsProcess::child("process", &address, shell(script)).restart(restart);
    let root = SupervisorSpec::new("root").backoff(RestartBackoff::NONE).intensity(20, SOON).child(child);
    (Tree::start(root).unwrap(), address)
}

/// Looks again until it holds; what is looked at is another process or a tree's books.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::task::yield_now().await;
    }
}

fn exists(pid: u32) -> bool {
    // A zombie of somebody else's is gone as far as it matters.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn an_exit_status_becomes_an_exit_reason() {
    for (script, want) in [
        ("exit 0", Exit::Normal),
        ("exit 3", Exit::Code(3)),
        ("kill -ABRT $$", Exit::Aborted),
        ("kill -SEGV $$", Exit::Segfault),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -KILL $$", Exit::Signal(9)),
    ] {
        let (tree, _) = tree(&format!("sleep 0.05; {script}"), Restart::Temporary);
        let mut last = None;
        until(script, || {
            match tree.info("root/process") {
                Some(row) => last = row.last_exit.or(last.take()),
                None => return true,
            }
            false
        })
        .await;
        // The row goes with the spec of a temporary child; the reason may have been seen just before.
        assert!(last.is_none() || last == Some(want.clone()), "{script}: {last:?}");
        tree.shutdown().await;
        // A transient child's row stays.
        let (tree, _) = self::tree(&format!("sleep 0.05; {script}"), Restart::Transient);
        let abnormal = want.is_abnormal();
        until(script, || {
            let row = tree.info("root/process").unwrap();
            row.last_exit.as_ref() == Some(&want) && (!abnormal || row.restarts >= 1)
        })
        .await;
        tree.shutdown().await;
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failed_start() {
    let address = Ref::new("/process", 4);
    let program = Program { exe: "/nonexistent/program".into(), ..shell("") };
    let root = SupervisorSpec::new("root").child(OsProcess::child("process", &address, program));
    let why = Tree::start(root).err().expect("no start").to_string();
    assert!(why.contains("/nonexistent/program"), "{why}");
}

#[tokio::test]
async fn a_process_that_dies_is_replaced() {
    let (tree, address) = tree("exec sleep 1000", Restart::Permanent);
    let first = address.ask(Pid, SOON).await.unwrap();
    assert!(exists(first));
    // SAFETY: our own child, alive: it was just asked.
    unsafe { libc::kill(first as i32, libc::SIGSEGV) };
    until("a second incarnation", || tree.info("root/process").unwrap().restarts == 1).await;
    let row = tree.info("root/process").unwrap();
    assert_eq!(row.last_exit, Some(Exit::Segfault));
    let second = loop {
        match address.ask(Pid, SOON).await {
            Ok(pid) => break pid,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(first != second && exists(second));
    assert_eq!(tree.shutdown().await, Exit::Shutdown);
    until("its end", || !exists(second)).await;
}

#[tokio::test]
async fn a_stop_and_a_kill_take_the_whole_group() {
    for kill in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.tmp; mv {0}.tmp {0}; wait", file.display());
        let (tree, address) = tree(&script, Restart::Temporary);
        let leader = address.ask(Pid, SOON).await.unwrap();
        until("the grandchild", || file.exists()).await;
        let grandchild: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert!(exists(leader) && exists(grandchild));
        match kill {
            true => assert!(tree.kill("root/process")),
            false => tree.supervisor("root").unwrap().terminate_child("process").await.unwrap(),
        }
        until("the group's end", || !exists(leader) && !exists(grandchild)).await;
        tree.shutdown().await;
    }
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_after_its_shutdown_time() {
    let address = Ref::new("/process", 4);
    let child = OsProcess::child("process", &address, shell("trap '' TERM; while :; do sleep 1000; done"))
        .shutdown(Shutdown::Timeout(Duration::from_millis(300)));
    let tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
    let pid = address.ask(Pid, SOON).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, tree.shutdown()).await.unwrap(), Exit::Shutdown);
    until("its end", || !exists(pid)).await;
}

/// Run by the test below in a process of its own: a node that is about to be killed.
#[test]
fn parent_that_will_be_killed() {
    if std::env::var_os("BULKHEAD_TEST_DOOMED").is_none() {
        return;
    }
    let (_tree, address) = tree("exec sleep 1000", Restart::Permanent);
    let pid = futures::executor::block_on(address.ask(Pid, SOON)).unwrap();
    println!("\nchild {pid}");
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn no_orphan_is_left_a_second_after_the_parent_died() {
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test_of_this_file!("parent_that_will_be_killed"), "--nocapture"])
        .env("BULKHEAD_TEST_DOOMED", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|l| l.strip_prefix("child ")?.parse::<u32>().ok()).unwrap();
    assert!(exists(pid));
    parent.kill().unwrap();
    let killed = Instant::now();
    parent.wait().unwrap();
    until("its end", || !exists(pid)).await;
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}
