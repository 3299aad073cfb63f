//! The course against scripted parts.

use super::super::progress::{ExitAfter, HeadProgress, SectorProgress};
use super::*;
use std::sync::Arc;

#[derive(Default)]
struct Scripted {
    calls: Mutex<Vec<&'static str>>,
    lines: Arc<Mutex<Vec<String>>>,
    fail_at: Option<&'static str>,
    /// Ends by itself at this look.
    ends_at: Option<i64>,
    looks: Mutex<i64>,
}

impl Scripted {
    fn call(&self, name: &'static str) -> Result<String, CliError> {
        self.calls.lock().unwrap().push(name);
        match self.fail_at {
            Some(at) if at == name => Err(CliError::Failed(format!("{name} broke"))),
            _ => Ok("up".to_string()),
        }
    }
}

#[async_trait]
impl Stage for Scripted {
    async fn keys(&self, report: ReportKeys<'_>) -> Result<String, CliError> {
        report(Some(KeyProgress { name: "porep".into(), done: 1, total: 2 }));
        while !self.lines.lock().unwrap().iter().any(|l| l.starts_with("keys:")) {
            tokio::task::yield_now().await;
        }
        self.call("keys")
    }
    async fn chain(&self) -> Result<String, CliError> {
        self.call("chain")
    }
    async fn miner(&self) -> Result<String, CliError> {
        self.call("miner")
    }
    async fn node(&self) -> Result<String, CliError> {
        self.call("node")
    }
    /// A sector is Proving at look 3, a WindowPoSt accepted at 4, a block won at 5.
    async fn look(&self, _last: &Progress) -> Progress {
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        let state = if *looks >= 3 { "Proving" } else { "PreCommit1" };
        Progress {
            head: Some(HeadProgress { height: *looks, delay: Duration::from_secs(2) }),
            sectors: vec![SectorProgress { number: 0, state: state.into(), since: 0, states: vec![] }],
            window_posts_accepted: u64::from(*looks >= 4),
            blocks_won: u64::from(*looks >= 5),
            ..Default::default()
        }
    }
    async fn ended(&self) -> Result<(), CliError> {
        if self.ends_at.is_some_and(|at| *self.looks.lock().unwrap() >= at) {
            return Err(CliError::Escalated("root".into()));
        }
        std::future::pending().await
    }
    async fn stop(&self) {
        let _ = self.call("stop");
    }
}

fn args(chain_only: bool, exit_after: Option<ExitAfter>) -> Args {
    let node = crate::cli::run::Args::default();
    Args {
        dir: None,
        block_delay: None,
        warmup_delay: None,
        listen: None,
        upgrade_epoch: None,
        chain_only,
        exit_after,
        node,
    }
}

async fn play(stage: &Scripted, args: Args) -> (Result<(), CliError>, Vec<String>) {
    let lines = stage.lines.clone();
    let result = drive(stage, &args, Show::Record(lines.clone()), &Signals::never(), Duration::from_millis(4)).await;
    let lines = lines.lock().unwrap().clone();
    (result, lines)
}

#[tokio::test]
async fn everything_in_order_then_exit_with_a_summary() {
    for (what, looks) in
        [(ExitAfter::SectorProving, 3), (ExitAfter::WindowPost, 4), (ExitAfter::Block, 5), (ExitAfter::All, 5)]
    {
        let stage = Scripted::default();
        let (result, lines) = play(&stage, args(false, Some(what))).await;
        result.unwrap();
        assert_eq!(*stage.calls.lock().unwrap(), ["keys", "chain", "miner", "node", "stop"]);
        assert_eq!(*stage.looks.lock().unwrap(), looks, "{what:?}");
        assert_eq!(lines.last().map(String::as_str), Some("summary"));
        assert!(lines.contains(&"keys: porep 50 %".to_string()), "{lines:?}");
    }
}

#[tokio::test]
async fn a_step_that_fails_stops_what_is_up_and_is_the_error() {
    for (i, step) in ["keys", "chain", "miner", "node"].into_iter().enumerate() {
        let stage = Scripted { fail_at: Some(step), ..Default::default() };
        let (result, lines) = play(&stage, args(false, None)).await;
        assert_eq!(result.unwrap_err().to_string(), format!("{step} broke"));
        assert_eq!(stage.calls.lock().unwrap().len(), i + 2, "the steps so far, and stop");
        assert!(!lines.contains(&"summary".to_string()));
    }
}

#[tokio::test]
async fn a_tree_that_gives_up_ends_it_with_70() {
    let stage = Scripted { ends_at: Some(2), ..Default::default() };
    let (result, _) = play(&stage, args(false, Some(ExitAfter::All))).await;
    assert_eq!(result.unwrap_err().exit_code(), 70);
    assert_eq!(stage.calls.lock().unwrap().last(), Some(&"stop"));
}

#[tokio::test]
async fn chain_only_starts_nothing_else() {
    let stage = Scripted { ends_at: Some(6), ..Default::default() };
    let _ = play(&stage, args(true, None)).await;
    assert_eq!(*stage.calls.lock().unwrap(), ["chain", "stop"]);
}
