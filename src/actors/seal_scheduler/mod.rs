//! Seals sectors: a journaled state machine per sector, tasks under limits, messages through the message sender.
//!
//! [`messages`] is the protocol; `machine` says what follows from what, `plan` what is due, [`Effects`] carries one
//! action out, [`Driver`] holds the journal. Nothing here waits for a restart: a failure state carries its retry, a
//! silent node is asked again, and after `kill -9` every action can be carried out once more.

mod agent_selection;
mod driver;
mod effects;
mod head_answers;
mod holds;
mod journal;
mod machine;
#[cfg(test)]
mod machine_tests;
pub mod messages;
mod phase;
mod plan;
mod ports;
mod ready;
mod remote;
mod room;
mod sector;
mod settings;

pub use crate::actors::sector_files::SectorDirs;
use crate::util::time::unix_ms;
pub use driver::{ActionRun, Driver, PledgeRecord, RemoveError};
pub use effects::Effects;
pub use head_answers::AnswersByHead;
pub use machine::{Event, Rules};
pub use phase::{Action, Phase, Pool};
pub use plan::Limits;
pub use ports::{Agent, Agents, NoAgents, NumberSource};
pub use sector::{Attempts, Drawn, LogLine, Sector, Timing};
pub use settings::{Place, Runtimes, SealSettings};

use crate::actors::daemon_link::messages::HeadUpdate;
use crate::actors::message_sender::MessageSender;
use crate::actors::sector_allocator::SectorAllocator;
use crate::chain::Address;
use crate::chain::types::TipSet;
use crate::proofs::Prover;
use crate::rpc::full_node::FullNode;
use crate::store::{Store, StoreError};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message, Reconfigure, Ref, StartError};
use crate::util::{Repeats, host};
use messages::{
    List, Pledge, PledgeAnswer, Remove, SealingSummary, SealingTask, SectorDetail, SectorPage, Status, Summary, Tasks,
};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a pledge waits for its number before it answers that the number will come.
const NUMBER_WAIT: Duration = Duration::from_secs(6);
/// Pledges that get their numbers together; then their sectors begin.
const NUMBERED_AT_ONCE: usize = 64;
/// Milliseconds before a question that failed is asked again; doubles up to the cap.
const ASK_AGAIN: u64 = 5_000;
const ASK_AGAIN_CAP: u64 = 60_000;
const HEAD: &str = "asking for the chain's head";
const NUMBER: &str = "asking for a sector number";

pub struct SealDeps {
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub store: Store,
    pub messages: Ref<MessageSender>,
    pub allocator: Ref<SectorAllocator>,
    pub miner: Address,
    pub settings: SealSettings,
    pub dirs: SectorDirs,
    pub agents: Arc<dyn Agents>,
}

/// The actor; one per miner, `/t01000/seal-scheduler`.
pub struct SealScheduler {
    driver: Driver,
    effects: Rc<Effects>,
    numbers: Rc<dyn NumberSource>,
    head: Option<Arc<TipSet>>,
    /// Dropping the sender ends the run; a prover's child dies with it.
    cancel: HashMap<u64, oneshot::Sender<()>>,
    /// The wake-up that is set, so that no second one is.
    wake_at: Option<u64>,
    numbering: bool,
    /// Questions that concern no sector yet.
    repeats: Repeats<&'static str>,
}

impl SealScheduler {
    pub async fn start(cx: Cx<SealScheduler>, deps: SealDeps) -> Result<SealScheduler, StartError> {
        let SealDeps { node, prover, store, messages, allocator, miner, settings, dirs, agents } = deps;
        dirs.create().map_err(|e| StartError(e.to_string()))?;
        let driver = Driver::load(store, cx.token(), miner.to_string(), settings.rules, settings.limits)
            .map_err(|e| StartError(e.to_string()))?;
        let effects = Effects {
            node,
            prover,
            outbox: Arc::new(messages),
            miner,
            dirs,
            settings,
            agents,
            rules: Default::default(),
            fence: Some(Arc::new(cx.pass())),
            answers: AnswersByHead::default(),
            memory: Arc::new(host::memory),
        };
        Ok(SealScheduler {
            driver,
            effects: Rc::new(effects),
            numbers: Rc::new(allocator),
            head: None,
            cancel: HashMap::new(),
            wake_at: None,
            numbering: false,
            repeats: Repeats::new(ASK_AGAIN, ASK_AGAIN_CAP),
        })
    }

    /// A question failed: how long to wait before it is asked again.
    fn ask_later(&mut self, what: &'static str, why: &str) -> Duration {
        let repeat = self.repeats.failed(&what, why, unix_ms());
        if let Some(warning) = repeat.warning {
            tracing::warn!("{warning}");
        }
        Duration::from_millis(repeat.pause)
    }

    /// Starts what is due and sets the clock for what becomes due.
    fn dispatch(&mut self, cx: &Cx<Self>) {
        cx.trouble(self.repeats.trouble().or_else(|| self.driver.trouble()));
        let now = unix_ms();
        for work in self.driver.due(now, self.head.as_ref().map(|h| h.height)) {
            let (effects, head) = (self.effects.clone(), self.head.clone());
            let (cancel, cancelled) = oneshot::channel::<()>();
            let (number, run) = (work.sector.number, work.run);
            self.cancel.insert(number, cancel);
            cx.spawn(async move {
                let event = tokio::select! {
                    event = effects.run(&work, head.as_deref()) => Some(event),
                    _ = cancelled => None,
                };
                RunDone { number, run, event }
            });
        }
        let sooner = |at: &u64| self.wake_at.is_none_or(|set| *at < set || set <= now);
        if let Some(at) = self.driver.next_wake(now).filter(sooner) {
            self.wake_at = Some(at);
            cx.tell_after(Duration::from_millis(at - now), Wake);
        }
        self.number_pledges(cx);
    }

    /// Asks for the numbers that pledges still lack.
    fn number_pledges(&mut self, cx: &Cx<Self>) {
        if self.numbering {
            return;
        }
        let requests = self.driver.unnumbered(NUMBERED_AT_ONCE);
        if requests.is_empty() {
            return;
        }
        self.numbering = true;
        let (numbers, shard) = (self.numbers.clone(), self.effects.settings.shard.clone());
        cx.spawn(async move {
            let mut given = Vec::new();
            for request in requests {
                match numbers.allocate(&allocation_key(shard.as_deref(), &request)).await {
                    Ok(number) => given.push((request, number)),
                    Err(why) => return Numbered { given, missing: Some(why) },
                }
            }
            Numbered { given, missing: None }
        });
    }

    fn ask_head(&self, cx: &Cx<Self>) {
        let node = self.effects.node.clone();
        cx.spawn(async move { HeadAsked(node.chain_head().await.map_err(|e| e.to_string())) });
    }
}

/// The allocator's request key of a pledge.
pub fn allocation_key(shard: Option<&str>, request: &str) -> String {
    match shard {
        // The same wish at two schedulers is two sectors: they must not get one number between them.
        Some(shard) => format!("pledge-{shard}/{request}"),
        None => format!("pledge-{request}"),
    }
}

/// A fenced or damaged journal ends the incarnation; a disk that is full does not: it is tried again.
fn fatal(e: StoreError) -> Result<(), Exit> {
    match e {
        StoreError::Fenced { .. } | StoreError::Corrupt { .. } | StoreError::Schema { .. } => Err(e.into()),
        e => {
            tracing::error!("sector journal: {e}");
            Ok(())
        }
    }
}

impl Actor for SealScheduler {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.ask_head(cx);
        self.dispatch(cx);
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "head": self.head.as_ref().map(|head| head.height),
            "driver": self.driver.show(),
            "asking_for_numbers": self.numbering,
            "wakes_in_ms": self.wake_at.map(|at| at.saturating_sub(unix_ms())),
        }))
    }
}

struct RunDone {
    number: u64,
    run: u64,
    event: Option<Event>,
}
impl Message for RunDone {
    type Reply = ();
}
struct Wake;
impl Message for Wake {
    type Reply = ();
}
struct Numbered {
    given: Vec<(String, u64)>,
    missing: Option<String>,
}
impl Message for Numbered {
    type Reply = ();
}
struct NumberAgain;
impl Message for NumberAgain {
    type Reply = ();
}
struct HeadAsked(Result<TipSet, String>);
impl Message for HeadAsked {
    type Reply = ();
}
struct AskHead;
impl Message for AskHead {
    type Reply = ();
}

impl Handler<RunDone> for SealScheduler {
    async fn handle(&mut self, done: RunDone, cx: &Cx<Self>) -> Result<(), Exit> {
        if self.driver.is_running(done.number, done.run) {
            self.cancel.remove(&done.number);
            let event = done.event.unwrap_or_else(|| Event::NoAnswer("the run was cancelled".into()));
            if let Err(e) = self.driver.done(done.number, done.run, event, unix_ms()) {
                fatal(e)?;
            }
        }
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<Wake> for SealScheduler {
    async fn handle(&mut self, _: Wake, cx: &Cx<Self>) -> Result<(), Exit> {
        self.wake_at = None;
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<Numbered> for SealScheduler {
    async fn handle(&mut self, numbered: Numbered, cx: &Cx<Self>) -> Result<(), Exit> {
        for (request, number) in numbered.given {
            if let Err(e) = self.driver.numbered(&request, number, unix_ms()) {
                fatal(e)?;
            }
        }
        match numbered.missing {
            None => {
                self.numbering = false;
                self.repeats.over(&NUMBER);
            }
            // `numbering` stays set until the timer, so that nothing spins.
            Some(why) => {
                let pause = self.ask_later(NUMBER, &why);
                cx.tell_after(pause, NumberAgain);
            }
        }
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<NumberAgain> for SealScheduler {
    async fn handle(&mut self, _: NumberAgain, cx: &Cx<Self>) -> Result<(), Exit> {
        self.numbering = false;
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<HeadAsked> for SealScheduler {
    async fn handle(&mut self, asked: HeadAsked, cx: &Cx<Self>) -> Result<(), Exit> {
        match asked.0 {
            Err(why) if self.head.is_none() => {
                let pause = self.ask_later(HEAD, &why);
                cx.tell_after(pause, AskHead);
            }
            answer => {
                self.repeats.over(&HEAD);
                if let (Ok(head), None) = (answer, &self.head) {
                    self.head = Some(Arc::new(head));
                }
            }
        }
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<AskHead> for SealScheduler {
    async fn handle(&mut self, _: AskHead, cx: &Cx<Self>) -> Result<(), Exit> {
        if self.head.is_none() {
            self.ask_head(cx);
        }
        Ok(())
    }
}

impl Handler<HeadUpdate> for SealScheduler {
    async fn handle(&mut self, update: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        self.head = Some(update.tipset);
        self.repeats.over(&HEAD);
        self.dispatch(cx);
        Ok(())
    }
}

impl Handler<Pledge> for SealScheduler {
    async fn handle(&mut self, pledge: Pledge, cx: &Cx<Self>) -> Result<PledgeAnswer, Exit> {
        match self.driver.pledge(&pledge.request, unix_ms()) {
            Ok(Some(number)) => return Ok(PledgeAnswer::Sector(number)),
            Ok(None) => {}
            Err(e) => {
                let why = e.to_string();
                fatal(e)?;
                return Ok(PledgeAnswer::Refused(why));
            }
        }
        let key = allocation_key(self.effects.settings.shard.as_deref(), &pledge.request);
        let asked = tokio::time::timeout(NUMBER_WAIT, self.numbers.allocate(&key)).await;
        let answer = match asked {
            Ok(Ok(number)) => match self.driver.numbered(&pledge.request, number, unix_ms()) {
                Ok(()) => PledgeAnswer::Sector(number),
                Err(e) => {
                    let why = e.to_string();
                    fatal(e)?;
                    PledgeAnswer::Waiting(why)
                }
            },
            Ok(Err(why)) => PledgeAnswer::Waiting(why),
            Err(_) => PledgeAnswer::Waiting("the sector allocator has not answered yet".into()),
        };
        self.dispatch(cx);
        Ok(answer)
    }
}

/// Running tasks finish under the old settings; a lower limit ends none of them.
impl Handler<Reconfigure<SealSettings>> for SealScheduler {
    async fn handle(
        &mut self,
        Reconfigure(settings): Reconfigure<SealSettings>,
        cx: &Cx<Self>,
    ) -> Result<Result<(), String>, Exit> {
        self.driver.set_limits(settings.limits);
        self.effects = Rc::new(self.effects.with_settings(settings));
        self.dispatch(cx);
        Ok(Ok(()))
    }
}

impl Handler<List> for SealScheduler {
    async fn handle(&mut self, List { from, most }: List, _: &Cx<Self>) -> Result<SectorPage, Exit> {
        Ok(self.driver.page(from, most))
    }
}

impl Handler<Summary> for SealScheduler {
    async fn handle(&mut self, _: Summary, _: &Cx<Self>) -> Result<SealingSummary, Exit> {
        Ok(self.driver.counts())
    }
}

impl Handler<Tasks> for SealScheduler {
    async fn handle(&mut self, _: Tasks, _: &Cx<Self>) -> Result<Vec<SealingTask>, Exit> {
        Ok(self.driver.tasks())
    }
}

impl Handler<Status> for SealScheduler {
    async fn handle(&mut self, ask: Status, _: &Cx<Self>) -> Result<Option<SectorDetail>, Exit> {
        Ok(self.driver.detail(ask.number, unix_ms()))
    }
}

impl Handler<Remove> for SealScheduler {
    async fn handle(&mut self, m: Remove, cx: &Cx<Self>) -> Result<Result<(), String>, Exit> {
        let answer = self.driver.remove(m.number, &m.why, m.even_if_proving, unix_ms());
        if answer.is_ok() {
            // Before the files go, the child that writes them must.
            self.cancel.remove(&m.number);
            self.dispatch(cx);
        }
        match answer {
            Err(RemoveError::Store(e)) => {
                let why = e.to_string();
                fatal(e)?;
                Ok(Err(why))
            }
            other => Ok(other.map_err(|e| e.to_string())),
        }
    }
}
