//! Owns a message until it is on chain with exit 0: sign, store, push, watch, raise the fee, push the same bytes again.
//!
//! [`messages`] is the protocol, [`record`] what is stored, [`Engine`] the work; the actor runs one round per head. The
//! decisions are pure: [`machine`] (what a signed message needs), [`addresses`] (who sends), `fees` (how much is offered),
//! `verdict` (what a node's refusal means).

pub mod addresses;
mod advance;
mod client;
mod effects;
mod fees;
mod freeing;
mod in_front;
mod line;
mod listing;
pub mod machine;
mod memory;
pub mod messages;
mod nonces;
pub mod record;
mod round;
mod senders;
mod verdict;

pub use crate::actors::wallet::{NodeWallet, Wallet};
pub use addresses::AddressRules;
pub use client::Outbox;
pub use effects::{Engine, RoundCounts, SenderSettings};
pub use machine::SendRules;
pub use memory::Memory;

use crate::actors::daemon_link::messages::HeadUpdate;
use crate::chain::Address;
use crate::chain::types::TipSet;
use crate::rpc::full_node::FullNode;
use crate::store::{Store, StoreError};
use crate::supervisor::{Actor, Cx, Exit, Handler, Message, Reconfigure, StartError};
use crate::util::Repeats;
use addresses::Purpose;
use messages::{
    Cancel, Enqueue, EnqueueAnswer, ListMessages, MessageList, MessageStatus, MessageSummary, OrderAnswer, Pending,
    Replace, Status, Summary, Withdraw, WithdrawAnswer,
};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A round's RPC calls have deadlines of their own; this bounds their sum.
const ROUND_LIMIT: Duration = Duration::from_secs(120);
/// Milliseconds before a round that failed is tried again without a new head; doubles up to the cap.
const ROUND_AGAIN: u64 = 5_000;
const ROUND_AGAIN_CAP: u64 = 60_000;
const ROUND: &str = "a round over the open messages";

pub struct SenderDeps {
    pub node: Arc<dyn FullNode>,
    pub wallet: Arc<dyn Wallet>,
    pub store: Store,
    pub miner: Address,
    pub settings: SenderSettings,
}

/// The actor; one per miner, `/t01000/message-sender`.
pub struct MessageSender {
    engine: Rc<Engine>,
    head: Option<Arc<TipSet>>,
    running: bool,
    /// Something came while a round ran: run another.
    again: bool,
    repeats: Repeats<&'static str>,
    began: Instant,
}

impl MessageSender {
    pub async fn start(cx: Cx<MessageSender>, deps: SenderDeps) -> Result<MessageSender, StartError> {
        let engine = Engine {
            scope: deps.miner.to_string(),
            miner: Some(deps.miner),
            node: deps.node,
            wallet: deps.wallet,
            store: deps.store,
            token: cx.token(),
            fence: Some(Arc::new(cx.pass())),
            settings: deps.settings,
            memory: Arc::default(),
        };
        let open = engine.pending().map_err(|e| StartError(e.to_string()))?.len();
        tracing::info!(open, "message sender");
        Ok(MessageSender {
            engine: Rc::new(engine),
            head: None,
            running: false,
            again: false,
            repeats: Repeats::new(ROUND_AGAIN, ROUND_AGAIN_CAP),
            began: Instant::now(),
        })
    }

    fn kick(&mut self, cx: &Cx<MessageSender>) {
        if self.running {
            self.again = true;
            return;
        }
        self.running = true;
        let (engine, head) = (self.engine.clone(), self.head.clone());
        cx.spawn(async move {
            let round = async {
                let head = match head {
                    Some(head) => head,
                    None => Arc::new(engine.node.chain_head().await.map_err(|e| RoundError::Head(e.to_string()))?),
                };
                engine.round(&head).await.map_err(RoundError::Store)
            };
            let result = tokio::time::timeout(ROUND_LIMIT, round).await.unwrap_or(Err(RoundError::Slow));
            RoundDone(result)
        });
    }
}

impl Actor for MessageSender {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        // What was open when the last incarnation ended goes on at once.
        self.kick(cx);
        Ok(())
    }

    fn inspect(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "head": self.head.as_ref().map(|head| head.height),
            "round_runs": self.running,
            "another_follows": self.again,
            "messages": self.engine.show(),
        }))
    }
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Head(String),
    #[error(transparent)]
    Store(StoreError),
    #[error("the round took longer than {ROUND_LIMIT:?}")]
    Slow,
}

struct RoundDone(Result<RoundCounts, RoundError>);
impl Message for RoundDone {
    type Reply = ();
}

struct Retry;
impl Message for Retry {
    type Reply = ();
}

impl Handler<RoundDone> for MessageSender {
    async fn handle(&mut self, done: RoundDone, cx: &Cx<Self>) -> Result<(), Exit> {
        self.running = false;
        match done.0 {
            Ok(report) => {
                self.repeats.over(&ROUND);
                if report != RoundCounts::default() {
                    tracing::debug!(?report, "messages");
                }
            }
            Err(RoundError::Store(e @ (StoreError::Fenced { .. } | StoreError::Corrupt { .. }))) => {
                return Err(e.into());
            }
            Err(e) => {
                let now = self.began.elapsed().as_millis() as u64;
                let repeat = self.repeats.failed(&ROUND, &e.to_string(), now);
                match repeat.warning {
                    Some(warning) => tracing::warn!("{warning}"),
                    None => tracing::info!("messages wait: {e}"),
                }
                cx.tell_after(Duration::from_millis(repeat.pause), Retry);
            }
        }
        cx.trouble(self.repeats.trouble());
        if std::mem::take(&mut self.again) {
            self.kick(cx);
        }
        Ok(())
    }
}

impl Handler<Retry> for MessageSender {
    async fn handle(&mut self, _: Retry, cx: &Cx<Self>) -> Result<(), Exit> {
        self.kick(cx);
        Ok(())
    }
}

impl Handler<HeadUpdate> for MessageSender {
    async fn handle(&mut self, update: HeadUpdate, cx: &Cx<Self>) -> Result<(), Exit> {
        self.head = Some(update.tipset);
        self.kick(cx);
        Ok(())
    }
}

impl Handler<Enqueue> for MessageSender {
    async fn handle(&mut self, message: Enqueue, cx: &Cx<Self>) -> Result<EnqueueAnswer, Exit> {
        let answer = match self.engine.enqueue(&message) {
            Ok(answer) => answer,
            Err(e @ StoreError::Fenced { .. }) => return Err(e.into()),
            Err(e) => return Ok(EnqueueAnswer::Refused(e.to_string())),
        };
        if answer == EnqueueAnswer::Accepted {
            if Purpose::of(self.engine.miner, message.to, message.method) == Purpose::Proving {
                self.engine.memory.hurry();
            }
            self.kick(cx);
        }
        Ok(answer)
    }
}

/// A round under way goes on by the old settings; the state of every message is in the store.
impl Handler<Reconfigure<SenderSettings>> for MessageSender {
    async fn handle(
        &mut self,
        Reconfigure(settings): Reconfigure<SenderSettings>,
        cx: &Cx<Self>,
    ) -> Result<Result<(), String>, Exit> {
        self.engine = Rc::new(self.engine.with_settings(settings));
        self.kick(cx);
        Ok(Ok(()))
    }
}

impl Handler<Withdraw> for MessageSender {
    async fn handle(&mut self, ask: Withdraw, _: &Cx<Self>) -> Result<Result<WithdrawAnswer, String>, Exit> {
        match self.engine.withdraw(&ask.key) {
            Err(e @ StoreError::Fenced { .. }) => Err(e.into()),
            answer => Ok(answer.map_err(|e| e.to_string())),
        }
    }
}

impl Handler<Status> for MessageSender {
    async fn handle(&mut self, ask: Status, _: &Cx<Self>) -> Result<MessageStatus, Exit> {
        self.engine.status(&ask.key).map_err(Exit::from)
    }
}

impl Handler<Summary> for MessageSender {
    async fn handle(&mut self, _: Summary, _: &Cx<Self>) -> Result<MessageSummary, Exit> {
        self.engine.summary().map_err(Exit::failed)
    }
}

impl Handler<Pending> for MessageSender {
    async fn handle(&mut self, _: Pending, _: &Cx<Self>) -> Result<Vec<(String, MessageStatus)>, Exit> {
        self.engine.pending().map_err(Exit::from)
    }
}

impl Handler<ListMessages> for MessageSender {
    async fn handle(&mut self, ask: ListMessages, _: &Cx<Self>) -> Result<Result<MessageList, String>, Exit> {
        Ok(self.engine.list(ask.most as usize).map_err(|e| e.to_string()))
    }
}

impl Handler<Replace> for MessageSender {
    async fn handle(&mut self, ask: Replace, cx: &Cx<Self>) -> Result<Result<OrderAnswer, String>, Exit> {
        let answer = self.engine.order_replacement(&ask.key, ask.max_fee.as_ref());
        self.ordered(answer, cx)
    }
}

impl Handler<Cancel> for MessageSender {
    async fn handle(&mut self, ask: Cancel, cx: &Cx<Self>) -> Result<Result<OrderAnswer, String>, Exit> {
        let answer = self.engine.order_cancel(&ask.key);
        self.ordered(answer, cx)
    }
}

impl MessageSender {
    fn ordered(
        &mut self,
        answer: Result<OrderAnswer, StoreError>,
        cx: &Cx<Self>,
    ) -> Result<Result<OrderAnswer, String>, Exit> {
        match answer {
            Err(e @ StoreError::Fenced { .. }) => Err(e.into()),
            Ok(answer @ OrderAnswer::Ordered { .. }) => {
                self.kick(cx);
                Ok(Ok(answer))
            }
            answer => Ok(answer.map_err(|e| e.to_string())),
        }
    }
}
