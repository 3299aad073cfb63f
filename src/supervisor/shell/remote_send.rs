//! The sender's side of a message to another process: it keeps the message until its fate is known.

use super::super::actor::{CallError, Message};
use super::super::cell::CellMeta;
use super::super::dead_letters::DeadReason;
use super::super::exit::Exit;
use super::super::wire::{Carrier, Fault, OutgoingMessage, RemoteEnvelope, WireCode, WireError, WireForm};
use super::reply::ReplyTo;
use std::any::{Any, type_name};
use std::sync::Arc;
use std::time::Duration;

/// Hands the message to the carrier.
pub(super) fn post<M: Message>(
    carrier: &dyn Carrier,
    meta: &Arc<CellMeta>,
    message: M,
    reply: Option<ReplyTo<M>>,
    within: Option<Duration>,
) -> Result<(), CallError<M>> {
    let Some(form) = &M::WIRE else {
        meta.dead_letter(type_name::<M>(), DeadReason::Refused);
        let why = format!("{} stays within its process, and {} runs in another", type_name::<M>(), meta.path);
        return Err(CallError::Refused(message, why));
    };
    let envelope =
        RemoteEnvelope { to: meta.path.clone(), id: form.id, schemas: form.schemas(), lane: form.lane, within };
    let posted =
        Box::new(PendingRemote { message: Some(message), reply, form, schema: form.schema, meta: meta.clone() });
    let Err((fault, back)) = carrier.carry(envelope, posted) else { return Ok(()) };
    meta.dead_letter(type_name::<M>(), reason(&fault));
    let message = back.into_any().downcast::<PendingRemote<M>>().ok().and_then(|mut posted| posted.message.take());
    Err(match message {
        Some(message) => fault.with(message),
        None => CallError::NodeDown(None), // a carrier that gives something else back
    })
}

fn reason(fault: &Fault) -> DeadReason {
    match fault {
        Fault::NotRunning => DeadReason::NotRunning,
        Fault::Restarting => DeadReason::Restarting,
        Fault::Full => DeadReason::Full,
        Fault::Timeout => DeadReason::Expired,
        Fault::Panicked | Fault::Exited(_) => DeadReason::ActorEnded,
        Fault::NodeDown { .. } => DeadReason::NodeDown,
        Fault::Fenced | Fault::Refused(_) => DeadReason::Refused,
    }
}

struct PendingRemote<M: Message> {
    message: Option<M>,
    reply: Option<ReplyTo<M>>,
    form: &'static WireForm<M>,
    schema: u16,
    meta: Arc<CellMeta>,
}

impl<M: Message> PendingRemote<M> {
    fn code(&self) -> Result<&'static WireCode<M>, WireError> {
        self.form.code_of(self.schema).ok_or_else(|| WireError(format!("it has no schema {}", self.schema)))
    }
    fn end(&mut self, answer: Result<&[u8], Fault>) {
        let Some(message) = self.message.take() else { return };
        let answer = match answer {
            Ok(bytes) => self
                .code()
                .and_then(|code| (code.decode_reply)(bytes))
                .map_err(|why| CallError::Exited(Exit::Failed(format!("its answer cannot be read: {why}")))),
            Err(fault) => {
                self.meta.dead_letter(type_name::<M>(), reason(&fault));
                Err(fault.with(message))
            }
        };
        if let Some(reply) = self.reply.take() {
            reply.send(answer);
        }
    }
}

impl<M: Message> OutgoingMessage for PendingRemote<M> {
    fn use_schema(&mut self, schema: u16) {
        self.schema = schema;
    }
    fn write(&self, into: &mut Vec<u8>) -> Result<(), WireError> {
        match &self.message {
            Some(message) => (self.code()?.encode)(message, into),
            None => Err(WireError("it was settled before".into())),
        }
    }
    fn complete(mut self: Box<Self>, answer: Result<&[u8], Fault>) {
        self.end(answer);
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A carrier that ends with an ask in its hands has lost its node; a tell that was sent is simply over.
impl<M: Message> Drop for PendingRemote<M> {
    fn drop(&mut self) {
        if self.reply.is_some() {
            self.end(Err(Fault::NodeDown { sent: true }));
        }
    }
}
