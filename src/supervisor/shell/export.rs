//! The receiver's side of messages from other processes: which of an actor's messages may come from there.

use super::super::actor::{Actor, Handler, Message};
use super::super::cell::CellMeta;
use super::super::monitor::{Down, Monitor};
use super::super::wire::{Carrier, Fault, Respond, Schemas, WireLane};
use super::address::{Recipient, Ref, Slot};
use super::batch::OnUnreadable;
use super::reply::ReplyTo;
use std::any::type_name;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sends an actor's messages to another process from now on; `None`: to the actor here.
type RouteTo = dyn Fn(Option<Box<dyn Carrier>>) + Send + Sync;

/// An actor's messages that other processes may send, by their wire id.
#[derive(Clone)]
pub struct Export {
    meta: Arc<CellMeta>,
    entries: Arc<BTreeMap<u32, Box<dyn Entry>>>,
    route: Arc<RouteTo>,
}

/// Two messages of one number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("messages {first} and {second} have the same wire id {id:#x}: give one of them another")]
pub struct ExportError {
    pub id: u32,
    pub first: &'static str,
    pub second: &'static str,
}

impl Export {
    pub fn of<A: Actor>(actor: &Ref<A>) -> ExportOf<A> {
        ExportOf { slot: actor.slot.clone(), entries: Vec::new() }
    }

    pub fn path(&self) -> &Arc<str> {
        &self.meta.path
    }

    /// As [`Ref::route_to`].
    pub fn route_to(&self, carrier: Option<Box<dyn Carrier>>) {
        (self.route)(carrier);
    }

    /// Wire id, schemas, lane and type of every message that is taken.
    pub fn messages(&self) -> impl Iterator<Item = (u32, Schemas, WireLane, &'static str)> + '_ {
        self.entries.iter().map(|(id, entry)| {
            let (schemas, lane) = entry.form();
            (*id, schemas, lane, entry.name())
        })
    }

    /// Queues the message `body` for the actor of this process. Never waits; `respond` gets the answer, on the actor's
    /// thread, or comes back with the reason why there will be none. After `within` the message is not begun any more.
    pub fn deliver(
        &self,
        id: u32,
        schema: u16,
        body: &[u8],
        within: Option<Duration>,
        respond: Option<Respond>,
    ) -> Result<(), (Fault, Option<Respond>)> {
        match self.entries.get(&id) {
            Some(entry) => entry.deliver(schema, body, within, respond),
            None => Err((Fault::Refused(format!("{} takes no message {id:#x}", self.meta.path)), respond)),
        }
    }

    /// Queues tells of one type that came together, as many as the mailbox has room for, and answers how many that were. 0
    /// also where [`Export::deliver`] has something to say. `on_unreadable` is called for each that turns out to be
    /// no message when its turn comes, on the actor's thread.
    pub fn deliver_batch(&self, id: u32, schema: u16, bodies: &[&[u8]], on_unreadable: &OnUnreadable) -> usize {
        self.entries.get(&id).map_or(0, |entry| entry.deliver_batch(schema, bodies, on_unreadable))
    }

    /// As [`Ref::monitor`].
    pub fn monitor(&self, to: Recipient<Down>) -> Monitor {
        Monitor::set(&self.meta, self.meta.path.to_string(), to)
    }
}

/// An [`Export`] in the making.
pub struct ExportOf<A: Actor> {
    slot: Arc<Slot<A>>,
    entries: Vec<(u32, Box<dyn Entry>)>,
}

impl<A: Actor> ExportOf<A> {
    /// A message without a wire form does not compile here.
    pub fn message<M: Message>(mut self) -> ExportOf<A>
    where
        A: Handler<M>,
    {
        const { assert!(M::WIRE.is_some(), "a message that is exported needs a wire form: give it a `WIRE`") };
        if let Some(form) = &M::WIRE {
            self.entries.push((form.id, Box::new(ExportEntry::<A, M> { slot: self.slot.clone(), of: PhantomData })));
        }
        self
    }

    pub fn done(self) -> Result<Export, ExportError> {
        let mut entries: BTreeMap<u32, Box<dyn Entry>> = BTreeMap::new();
        for (id, entry) in self.entries {
            if let Some(first) = entries.get(&id) {
                return Err(ExportError { id, first: first.name(), second: entry.name() });
            }
            entries.insert(id, entry);
        }
        let (meta, actor) = (self.slot.meta.clone(), Ref { slot: self.slot });
        Ok(Export { meta, entries: Arc::new(entries), route: Arc::new(move |carrier| actor.route_to(carrier)) })
    }
}

trait Entry: Send + Sync {
    fn name(&self) -> &'static str;
    fn form(&self) -> (Schemas, WireLane);
    fn deliver(
        &self,
        schema: u16,
        body: &[u8],
        within: Option<Duration>,
        respond: Option<Respond>,
    ) -> Result<(), (Fault, Option<Respond>)>;
    fn deliver_batch(&self, schema: u16, bodies: &[&[u8]], on_unreadable: &OnUnreadable) -> usize;
}

struct ExportEntry<A: Actor, M> {
    slot: Arc<Slot<A>>,
    of: PhantomData<fn(M)>,
}

impl<A: Handler<M>, M: Message> Entry for ExportEntry<A, M> {
    fn name(&self) -> &'static str {
        type_name::<M>()
    }

    fn form(&self) -> (Schemas, WireLane) {
        let none = (Schemas { lowest: 0, highest: 0 }, WireLane::Message);
        M::WIRE.as_ref().map_or(none, |form| (form.schemas(), form.lane))
    }

    fn deliver(
        &self,
        schema: u16,
        body: &[u8],
        within: Option<Duration>,
        respond: Option<Respond>,
    ) -> Result<(), (Fault, Option<Respond>)> {
        let Some(form) = &M::WIRE else { return Err((Fault::Refused("no wire form".into()), respond)) };
        let Some(code) = form.code_of(schema) else {
            let (name, read) = (type_name::<M>(), form.schemas());
            let why =
                format!("{name} is read in {read} here and came in schema {schema}: update the older of the two nodes");
            return Err((Fault::Refused(why), respond));
        };
        let message = match (code.decode)(body) {
            Ok(message) => message,
            Err(why) => {
                return Err((Fault::Refused(format!("{} cannot be read: {why}", type_name::<M>())), respond));
            }
        };
        let until = within.and_then(|within| Instant::now().checked_add(within));
        let reply = respond.map(|respond| ReplyTo::Far {
            until,
            to: Box::new(move |answer| match answer {
                Ok(reply) => respond(Ok(&|into| (code.encode_reply)(&reply, into))),
                Err(error) => respond(Err(error.into())),
            }),
        });
        match self.slot.send_here(message, reply) {
            Ok(_) => Ok(()),
            Err((error, Some(ReplyTo::Far { to, .. }))) => {
                to(Err(error));
                Ok(())
            }
            Err((error, Some(ReplyTo::Near(_)) | None)) => Err((error.into(), None)),
        }
    }

    fn deliver_batch(&self, schema: u16, bodies: &[&[u8]], on_unreadable: &OnUnreadable) -> usize {
        let code = M::WIRE.as_ref().and_then(|form| form.code_of(schema));
        code.map_or(0, |code| self.slot.send_batch(bodies, code, on_unreadable))
    }
}
