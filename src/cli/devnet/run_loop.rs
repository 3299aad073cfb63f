//! The devnet's course: keys, chain, miner, node, then a look once a second until it is enough, a signal came, or the
//! tree gave up. Knows the parts only through [`Stage`].

use super::args::Args;
use super::progress::{KeyProgress, Progress, ProgressEvent, diff, reached};
use super::screen::Show;
use super::timeline::Timeline;
use crate::cli::CliError;
use crate::cli::signals::Signals;
use crate::util::lock;
use crate::util::time::unix_ms;
use async_trait::async_trait;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

/// Called while keys are made, from any thread; `None`: they are all there.
pub type ReportKeys<'a> = &'a (dyn Fn(Option<KeyProgress>) + Send + Sync);

/// The parts that a devnet puts together. Each step returns when its part is up, with one line on what is there now.
#[async_trait]
pub trait Stage: Send + Sync {
    async fn keys(&self, report: ReportKeys<'_>) -> Result<String, CliError>;
    async fn chain(&self) -> Result<String, CliError>;
    /// Creates the miner, or finds the one of an earlier run.
    async fn miner(&self) -> Result<String, CliError>;
    /// Starts the node and pledges a sector if it has none.
    async fn node(&self) -> Result<String, CliError>;
    /// One look; what cannot be told at the moment stays as it was in `last`.
    async fn look(&self, last: &Progress) -> Progress;
    /// Completes when the node has ended by itself: `Ok` after an orderly stop from outside.
    async fn ended(&self) -> Result<(), CliError>;
    /// Stops what runs, in reverse order.
    async fn stop(&self);
}

pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub async fn drive(
    stage: &dyn Stage,
    args: &Args,
    show: Show,
    signals: &Signals,
    look_every: Duration,
) -> Result<(), CliError> {
    let mut run = Run { stage, show, look_every, timeline: Timeline::new(unix_ms()), last: Progress::default() };
    let result = tokio::select! {
        result = run.course(args) => result.map(|()| None),
        name = signals.first() => Ok(Some(name)),
    };
    let why = match &result {
        Ok(Some(name)) => name.to_string(),
        Ok(None) => "everything asked for is there".to_string(),
        Err(_) => "after an error".to_string(),
    };
    run.show.event(&ProgressEvent::Stopping { why }, unix_ms());
    // taken before the stop: how long the work took, not the leaving
    let rows = run.timeline.rows(unix_ms());
    stage.stop().await;
    match result {
        Ok(_) => {
            run.show.summary(&rows);
            Ok(())
        }
        Err(e) => {
            run.show.end();
            Err(e)
        }
    }
}

struct Run<'a> {
    stage: &'a dyn Stage,
    show: Show,
    look_every: Duration,
    timeline: Timeline,
    last: Progress,
}

impl Run<'_> {
    async fn course(&mut self, args: &Args) -> Result<(), CliError> {
        let stage = self.stage;
        if !args.chain_only {
            self.keys().await?;
        }
        self.step("chain", stage.chain()).await?;
        if !args.chain_only {
            self.step("miner", stage.miner()).await?;
            self.step("node", stage.node()).await?;
        }
        let mut tick = tokio::time::interval(self.look_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = stage.ended() => return ended,
                _ = tick.tick() => {}
            }
            let progress = stage.look(&self.last).await;
            self.update(progress);
            if args.exit_after.is_some_and(|what| reached(what, &self.last)) {
                return Ok(());
            }
        }
    }

    async fn step(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<String, CliError>>,
    ) -> Result<(), CliError> {
        let text = work.await?;
        self.timeline.step_done(what, unix_ms());
        self.show.event(&ProgressEvent::Ready { what, text }, unix_ms());
        Ok(())
    }

    /// Keys report from threads of their own, often: the latest report is shown a few times a second.
    async fn keys(&mut self) -> Result<(), CliError> {
        let latest: Mutex<Option<KeyProgress>> = Mutex::new(None);
        let read = || lock(&latest).clone();
        let report = |p| *lock(&latest) = p;
        let text = {
            let work = self.stage.keys(&report);
            tokio::pin!(work);
            let mut tick = tokio::time::interval(self.look_every / 4);
            loop {
                tokio::select! {
                    result = &mut work => break result?,
                    _ = tick.tick() => {
                        let progress = Progress { keys: read(), ..self.last.clone() };
                        self.update(progress);
                    }
                }
            }
        };
        self.update(Progress { keys: None, ..self.last.clone() });
        self.step("keys", async { Ok(text) }).await
    }

    fn update(&mut self, progress: Progress) {
        let now = unix_ms();
        for event in diff(&self.last, &progress) {
            self.show.event(&event, now);
        }
        self.timeline.observe(&progress, now);
        self.show.progress(&progress, now);
        self.last = progress;
    }
}

#[cfg(test)]
#[path = "run_loop_tests.rs"]
mod tests;
