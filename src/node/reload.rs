//! New settings for a node that runs: the configuration is read anew, hot keys go to their concerns, the others are named.

use super::refs::Refs;
use super::settings::NodeSettings;
use super::settings::Origin;
use crate::actors::deal_handler::MarketSettings;
use crate::actors::message_sender::SenderSettings;
use crate::actors::seal_scheduler::SealSettings;
use crate::actors::window_post::settings::WindowPostSettings;
use crate::config::Config;
use crate::config::change::{self, Change};
use crate::proofs::Prover;
use crate::rpc::admin::ReloadError;
use crate::supervisor::{CallError, Handler, Reconfigure, Ref};
use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long to wait; a busy concern takes the settings after its current handler.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// For how long a concern may stay busy before it is left to its next start.
const TAKEN_WITHIN: Duration = Duration::from_secs(600);

/// Settings that concerns take over while they run. Each incarnation starts with the present ones.
#[derive(Clone, PartialEq)]
pub struct Hot {
    pub window_post: WindowPostSettings,
    pub sealing: SealSettings,
    pub market: MarketSettings,
    pub messages: SenderSettings,
}

impl Hot {
    pub fn of(settings: &NodeSettings) -> Hot {
        let shard = settings.cluster.as_ref().map(|cluster| cluster.node.clone());
        Hot {
            window_post: settings.window_post.clone(),
            sealing: SealSettings { shard, ..settings.sealing.clone() },
            market: settings.market.clone(),
            messages: settings.messages.clone(),
        }
    }
}

pub type Live = Arc<ArcSwap<Hot>>;

/// The result of a reload.
#[derive(Serialize, Clone, Debug, Default, PartialEq)]
pub struct Reloaded {
    /// In force.
    pub changed: Vec<&'static str>,
    /// Differs from what the node runs by, and is not in force.
    pub needs_restart: Vec<&'static str>,
    /// The concerns that the changed keys are for.
    pub concerns: BTreeMap<&'static str, Taken>,
}

#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    Now,
    /// After the message in hand.
    WhenItComesToIt,
    /// It does not run now.
    AtItsNextStart,
    /// Another node runs it, by that node's configuration.
    Elsewhere,
    Refused(String),
}

pub struct Reloader {
    pub(super) origin: Option<Arc<dyn Origin>>,
    pub(super) refs: Refs,
    pub(super) prover: Arc<dyn Prover>,
    pub(super) live: Live,
    /// The configuration in force. Locked during a reload: one at a time.
    pub(super) running: Arc<Mutex<Option<Config>>>,
}

impl Reloader {
    pub(super) fn new(settings: &NodeSettings, refs: &Refs, prover: &Arc<dyn Prover>) -> Reloader {
        prover.resize(NodeSettings::prover_pools(&settings.window_post, &settings.sealing));
        Reloader {
            origin: settings.origin.clone(),
            refs: refs.clone(),
            prover: prover.clone(),
            live: Arc::new(ArcSwap::from_pointee(Hot::of(settings))),
            running: Arc::new(Mutex::new(settings.origin.as_ref().map(|origin| origin.started_with().clone()))),
        }
    }

    /// `by`: who asked, for the audit log. A faulty configuration changes nothing.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, ReloadError> {
        let done = self.carry_out().await;
        match &done {
            Ok(Reloaded { changed, needs_restart, concerns }) => {
                tracing::info!(target: "audit", action = "config reload", by, ?changed, ?needs_restart, ?concerns, "admin action")
            }
            Err(why) => tracing::warn!(target: "audit", action = "config reload", by, %why, "admin action"),
        }
        done
    }

    async fn carry_out(&self) -> Result<Reloaded, ReloadError> {
        let origin = self.origin.clone().ok_or(ReloadError::NoOrigin)?;
        let mut running = self.running.clone().try_lock_owned().map_err(|_| ReloadError::UnderWay)?;
        let before = running.clone().ok_or(ReloadError::NoOrigin)?;
        let reads = origin.clone();
        // The lock goes with it: a disk that hangs keeps further reloads away, not the caller.
        let read = tokio::task::spawn_blocking(move || reads.read()).await;
        let read = read.map_err(|e| ReloadError::Faulty(e.to_string()))?;
        let read = read.map_err(|e| ReloadError::Faulty(e.to_string()))?;
        let Change { hot, needs_restart } = change::between(&before, &read);
        let next = change::taken_over(&before, &read);
        if next.node.log != before.node.log {
            origin.log(&next.node.log).map_err(ReloadError::Faulty)?;
        }
        let hot_before = self.live.load_full();
        let hot_now = Hot::of(&origin.settings(&next));
        // Whoever starts from here on has them.
        self.live.store(Arc::new(hot_now.clone()));
        // Before the concerns start more.
        self.prover.resize(NodeSettings::prover_pools(&hot_now.window_post, &hot_now.sealing));
        *running = Some(next);
        let concerns = self.tell(&hot_before, hot_now).await;
        Ok(Reloaded { changed: hot, needs_restart, concerns })
    }

    async fn tell(&self, before: &Hot, now: Hot) -> BTreeMap<&'static str, Taken> {
        let refs = &self.refs;
        let told: [Option<BoxFuture<'_, (&'static str, Taken)>>; 4] = [
            (before.window_post != now.window_post)
                .then(|| give("window_post", &refs.window_post, now.window_post).boxed()),
            (before.sealing != now.sealing).then(|| give("seal_scheduler", &refs.sealing, now.sealing).boxed()),
            (before.market != now.market).then(|| give("deal_handler", &refs.market, now.market).boxed()),
            (before.messages != now.messages).then(|| give("message_sender", &refs.messages, now.messages).boxed()),
        ];
        futures::future::join_all(told.into_iter().flatten()).await.into_iter().collect()
    }
}

async fn give<A, S>(name: &'static str, to: &Ref<A>, settings: S) -> (&'static str, Taken)
where
    A: Handler<Reconfigure<S>>,
    S: Send + 'static,
{
    if to.is_remote() {
        return (name, Taken::Elsewhere);
    }
    let to = to.clone();
    // On a task: an ask that is given up is not handled any more.
    let asked = tokio::spawn(async move { to.ask(Reconfigure(settings), TAKEN_WITHIN).await });
    let taken = match tokio::time::timeout(SHOWN_WITHIN, asked).await {
        Err(_) => Taken::WhenItComesToIt,
        Ok(Ok(Ok(Ok(())))) => Taken::Now,
        Ok(Ok(Ok(Err(why)))) => Taken::Refused(why),
        Ok(Ok(Err(CallError::Full(_)))) => Taken::Refused("its mailbox is full: reload once more".into()),
        // It ended: the next incarnation starts with them.
        Ok(Ok(Err(_)) | Err(_)) => Taken::AtItsNextStart,
    };
    (name, taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Address;
    use crate::proofs::{Job, Output, ProverError, ProverPools};
    use crate::util::lock;
    use std::sync::Mutex as StdMutex;

    /// Notes how many slots it is told to have.
    #[derive(Default)]
    struct Sized(StdMutex<Vec<ProverPools>>);

    #[async_trait::async_trait]
    impl Prover for Sized {
        async fn run(&self, job: Job) -> Result<Output, ProverError> {
            Err(ProverError::NotStarted { task: job.task.name().into(), why: "it proves nothing".into() })
        }
        fn resize(&self, pools: ProverPools) {
            lock(&self.0).push(pools);
        }
    }

    struct File {
        started: Config,
        now: Config,
    }

    impl Origin for File {
        fn started_with(&self) -> &Config {
            &self.started
        }
        fn read(&self) -> Result<Config, crate::config::ConfigError> {
            Ok(self.now.clone())
        }
        fn log(&self, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    /// Tasks that the configuration lets run at a time have as many prover slots, at the start and after a reload.
    #[tokio::test]
    async fn the_provers_slots_are_those_of_the_configuration() {
        let mut started = Config::default();
        (started.proving.parallel, started.sealing.pc1) = (2, 3);
        let mut now = started.clone();
        (now.proving.parallel, now.sealing.c2) = (4, 6);
        let mut settings = NodeSettings::of(&started);
        settings.origin = Some(Arc::new(File { started, now }));
        let sized = Arc::new(Sized::default());
        let prover: Arc<dyn Prover> = sized.clone();
        let reloader = Reloader::new(&settings, &Refs::new(&Address::new_id(1000), None), &prover);
        reloader.reload("test").await.unwrap();
        let told: Vec<_> = lock(&sized.0).iter().map(|pools| (pools.window, pools.seal)).collect();
        // One each of AddPiece, PC1, PC2, C1, C2 and Finalize, but for what is set.
        assert_eq!(told, [(2, 3 + 5), (4, 3 + 6 + 4)]);
    }
}
