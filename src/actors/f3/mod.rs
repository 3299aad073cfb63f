//! F3 participation: keeps the lease alive under which the full node signs for the miner in fast finality (FIP-0086).
//!
//! [`machine`] decides; the actor asks the full node, keeps the ticket on disk, and shows how it stands. It runs where
//! WinningPoSt is held, under the same lease, at one full node at a time. It delays no stop: a lease that is not renewed runs out.

pub mod machine;
pub mod messages;

use crate::chain::Address;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::supervisor::{Actor, Cx, Exit, Fence, Handler, Message, StartError};
use crate::util::{Mode, Repeats, write_durably};
use machine::{Answer, Ask, Next, Participation, Refusal};
use messages::{F3Report, F3State, F3Status};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Right to act: asked again after this, where another process may hold the concern at the moment.
const UNPROVEN_PAUSE: Duration = Duration::from_secs(5);
const PARTICIPATION: &str = "F3 participation";
/// The method whose node has all calls, of a pool too: a lease at a second one would sign twice.
const AT_ONE_NODE: &str = "Filecoin.F3Participate";

#[derive(Clone, Debug, PartialEq)]
pub struct F3Settings {
    /// False: no lease is taken.
    pub enabled: bool,
    /// No other host may take leases for the miner.
    pub alone: bool,
}

#[derive(Clone)]
pub struct F3Deps {
    /// An ID address.
    pub miner: Address,
    /// One full node, or a pool.
    pub node: Arc<dyn FullNode>,
    /// The folder for the last ticket.
    pub repo: PathBuf,
    pub settings: F3Settings,
}

pub struct F3Participation {
    deps: F3Deps,
    /// The one full node that leases are taken at.
    at: Arc<dyn FullNode>,
    participation: Participation,
    /// When the next call goes out.
    due: Option<Instant>,
    began: Instant,
    repeats: Repeats<&'static str>,
}

/// The last ticket; the lease in it says whose it is and how long it counts.
fn ticket_file(deps: &F3Deps) -> PathBuf {
    deps.repo.join(format!("f3-ticket-{}", deps.miner.id().unwrap_or_default()))
}

impl F3Participation {
    pub async fn start(_cx: Cx<Self>, deps: F3Deps) -> Result<Self, StartError> {
        let at = deps.node.pinned_for(AT_ONE_NODE).unwrap_or_else(|| deps.node.clone());
        let id = deps.miner.id().map_err(|_| StartError(format!("miner {}: give its ID address", deps.miner)))?;
        // One that cannot be read is as good as none: what it stands for is waited out.
        let kept = std::fs::read(ticket_file(&deps)).unwrap_or_default();
        let mut participation = Participation::new(id, kept, deps.settings.alone);
        participation.report.miner = deps.miner.to_string();
        participation.report.full_node = at.name();
        if !deps.settings.enabled {
            participation.report.state = F3State::Off;
        }
        Ok(F3Participation { deps, at, participation, due: None, began: Instant::now(), repeats: Repeats::new(1, 1) })
    }

    /// Goes over to another node of the pool when this one is not used any more and that one is; the first call there. Between
    /// two calls only, so that no ticket is on its way from the first one.
    fn moves(&mut self) -> Option<Ask> {
        let pool = self.deps.node.pool()?;
        if pool.is_used(&self.at.name()) {
            return None;
        }
        let other = self.deps.node.pinned_for(AT_ONE_NODE).filter(|other| pool.is_used(&other.name()))?;
        tracing::info!(from = self.at.name(), to = other.name(), "F3 participation goes on at another full node");
        self.at = other;
        Some(self.participation.moved(self.at.name()).ask)
    }

    /// Carries out what the loop says next: the ticket on disk first.
    fn go_on(&mut self, next: Next, cx: &Cx<Self>) {
        if let Some(ticket) = &next.save
            && let Err(error) = write_durably(&ticket_file(&self.deps), ticket, Mode::Private)
        {
            // Without it a restart waits the lease out: later, not twice.
            tracing::warn!(%error, "the F3 ticket could not be kept");
        }
        self.due = Some(Instant::now() + next.after);
        cx.tell_after(next.after, Call(next.ask));
    }

    /// Quiet: a node without fast finality, or one that is not ready. The rest is a warning once it repeats.
    fn say(&mut self, before: F3State) {
        let report = &self.participation.report;
        let now = self.began.elapsed().as_millis() as u64;
        match (report.state, &report.error) {
            (F3State::Failing | F3State::Waiting, Some(why)) => {
                if let Some(warning) = self.repeats.failed(&PARTICIPATION, why, now).warning {
                    tracing::warn!("{warning}");
                }
            }
            _ => self.repeats.over(&PARTICIPATION),
        }
        if report.state != before {
            tracing::info!(state = ?report.state, lease_to = report.lease_to, error = report.error, "F3 participation");
        }
    }
}

async fn ask(node: &dyn FullNode, miner: &Address, ask: &Ask) -> Result<Answer, FullNodeError> {
    Ok(match ask {
        Ask::Progress => Answer::Progress(node.f3_get_progress().await?.instance),
        Ask::Ticket { previous, instances } => {
            Answer::Ticket(node.f3_get_or_renew_participation_ticket(miner, previous, *instances).await?)
        }
        Ask::Participate { ticket } => Answer::Lease(node.f3_participate(ticket).await?),
        Ask::Manifest => {
            let manifest = node.f3_get_manifest().await?;
            Answer::Manifest(manifest.map(|manifest| (manifest.network_name, manifest.catch_up_alignment)))
        }
    })
}

fn refusal(error: &FullNodeError) -> Answer {
    let refusal = match error {
        e if e.is_missing_method() => Refusal::Missing,
        e if e.is_transient() => Refusal::Other,
        e => Refusal::of(e.code(), &e.to_string()),
    };
    Answer::Refused(refusal, error.to_string())
}

impl Actor for F3Participation {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        if self.deps.settings.enabled {
            let next = self.participation.begin();
            self.go_on(next, cx);
        }
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        serde_json::to_value(self.report()).ok()
    }
}

impl F3Participation {
    fn report(&self) -> F3Report {
        let next_in = self.due.map(|due| due.saturating_duration_since(Instant::now()).as_secs());
        F3Report { next_in, ..self.participation.report.clone() }
    }
}

/// The time of a call has come.
struct Call(Ask);
impl Message for Call {
    type Reply = ();
}

impl Handler<Call> for F3Participation {
    async fn handle(&mut self, Call(next): Call, cx: &Cx<Self>) -> Result<(), Exit> {
        // A lease in doubt may be another host's: two leases equivocate.
        if cx.pass().check().is_err() {
            self.due = Some(Instant::now() + UNPROVEN_PAUSE);
            cx.tell_after(UNPROVEN_PAUSE, Call(next));
            return Ok(());
        }
        self.due = None;
        let next = self.moves().unwrap_or(next);
        let (node, miner) = (self.at.clone(), self.deps.miner);
        cx.spawn(async move {
            let answer = ask(node.as_ref(), &miner, &next).await;
            Answered(answer.unwrap_or_else(|error| refusal(&error)))
        });
        Ok(())
    }
}

struct Answered(Answer);
impl Message for Answered {
    type Reply = ();
}

impl Handler<Answered> for F3Participation {
    async fn handle(&mut self, Answered(answer): Answered, cx: &Cx<Self>) -> Result<(), Exit> {
        let before = self.participation.report.state;
        let next = self.participation.answered(answer);
        self.say(before);
        self.go_on(next, cx);
        Ok(())
    }
}

impl Handler<F3Status> for F3Participation {
    async fn handle(&mut self, _: F3Status, _cx: &Cx<Self>) -> Result<F3Report, Exit> {
        Ok(self.report())
    }
}
