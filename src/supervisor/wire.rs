//! Messages that may leave the process: their encoded form, who carries them, and what comes back.
//!
//! No transport and no encoding lives here: a [`WireForm`] is a number and some functions, a [`Carrier`] whatever brings
//! bytes to another process. The sender's call is the same as for an actor next door: [`super::Ref::route_to`] only says
//! where messages go while no incarnation runs in this process. [`super::Export`] is the receiving side.

use super::actor::{CallError, Message};
use super::exit::Exit;
use super::monitor::Down;
use super::shell::Recipient;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How a message and its reply look outside this process.
pub struct WireForm<M: Message> {
    /// Unique among all messages of the product, and never used again for another one.
    pub id: u32,
    /// Grows by one when the fields of message or reply change.
    pub schema: u16,
    pub lane: WireLane,
    pub code: WireCode<M>,
    /// The code of the schema before, so that nodes of two adjacent versions work together.
    pub previous: Option<WireCode<M>>,
}

/// A message and its reply in one schema.
pub struct WireCode<M: Message> {
    pub encode: fn(&M, &mut Vec<u8>) -> Result<(), WireError>,
    pub decode: fn(&[u8]) -> Result<M, WireError>,
    pub encode_reply: fn(&M::Reply, &mut Vec<u8>) -> Result<(), WireError>,
    pub decode_reply: fn(&[u8]) -> Result<M::Reply, WireError>,
}

impl<M: Message> WireForm<M> {
    /// Speaks the schema before too.
    pub const fn with_previous(self, code: WireCode<M>) -> WireForm<M> {
        assert!(self.schema > 0, "no schema is before the first: raise `schema` first");
        WireForm { id: self.id, schema: self.schema, lane: self.lane, code: self.code, previous: Some(code) }
    }
    pub fn schemas(&self) -> Schemas {
        Schemas { lowest: self.schema - u16::from(self.previous.is_some()), highest: self.schema }
    }
    pub fn code_of(&self, schema: u16) -> Option<&WireCode<M>> {
        match self.schema.checked_sub(schema)? {
            0 => Some(&self.code),
            1 => self.previous.as_ref(),
            _ => None,
        }
    }
}

/// The schemas in which a process reads and writes one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schemas {
    pub lowest: u16,
    pub highest: u16,
}

impl Schemas {
    /// The highest that both know.
    pub fn shared(self, other: Schemas) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }
}

impl fmt::Display for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lowest == self.highest {
            true => write!(f, "schema {}", self.highest),
            false => write!(f, "schemas {} to {}", self.lowest, self.highest),
        }
    }
}

/// Which queue a message waits in; the control lane never waits behind the other.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum WireLane {
    Control,
    Message,
}

/// Bytes that are no such message, or a message that gives no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub String);

/// Why a message in another process got no answer: a [`CallError`] without the message. The order of the variants is
/// part of the wire protocol: new ones go to the end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NotRunning,
    Restarting,
    Full,
    Timeout,
    Panicked,
    Exited(Exit),
    /// The other node is gone, or cannot be reached.
    NodeDown {
        /// It may have arrived, and have been handled.
        sent: bool,
    },
    /// The actor is held under another epoch than the sender believed.
    Fenced,
    /// The receiver does not take this message: unknown there, too large, not allowed.
    Refused(String),
}

impl Fault {
    /// Gives an undelivered message back.
    pub fn with<M>(self, message: M) -> CallError<M> {
        match self {
            Fault::NotRunning => CallError::NotRunning(message),
            Fault::Restarting => CallError::Restarting(message),
            Fault::Full => CallError::Full(message),
            Fault::Timeout => CallError::Timeout,
            Fault::Panicked => CallError::Panicked,
            Fault::Exited(exit) => CallError::Exited(exit),
            Fault::NodeDown { sent: false } => CallError::NodeDown(Some(message)),
            Fault::NodeDown { sent: true } => CallError::NodeDown(None),
            Fault::Fenced => CallError::Fenced(message),
            Fault::Refused(why) => CallError::Refused(message, why),
        }
    }
}

impl<M> From<CallError<M>> for Fault {
    fn from(error: CallError<M>) -> Fault {
        match error {
            CallError::NotRunning(_) => Fault::NotRunning,
            CallError::Restarting(_) => Fault::Restarting,
            CallError::Full(_) => Fault::Full,
            CallError::Timeout => Fault::Timeout,
            CallError::Panicked => Fault::Panicked,
            CallError::Exited(exit) => Fault::Exited(exit.on_the_wire()),
            CallError::NodeDown(message) => Fault::NodeDown { sent: message.is_none() },
            CallError::Fenced(_) => Fault::Fenced,
            CallError::Refused(_, why) => Fault::Refused(why),
        }
    }
}

/// The destination of a message, and how long its asker waits.
#[derive(Clone, Debug)]
pub struct RemoteEnvelope {
    /// The actor's logical path.
    pub to: Arc<str>,
    pub id: u32,
    pub schemas: Schemas,
    pub lane: WireLane,
    /// `None`: a tell, which nobody waits for.
    pub within: Option<Duration>,
}

/// A message on its way out, and what waits for its answer.
pub trait OutgoingMessage: Send + 'static {
    /// Which of the envelope's schemas the message is written in, and its answer read; if none is said, the highest.
    fn use_schema(&mut self, schema: u16);
    /// Appends the message's bytes.
    fn write(&self, into: &mut Vec<u8>) -> Result<(), WireError>;
    /// The end of what a carrier has accepted, once: the reply's bytes, or why there are none. A tell that was sent is
    /// dropped instead. May run on any thread and does not block.
    fn complete(self: Box<Self>, answer: Result<&[u8], Fault>);
    #[doc(hidden)]
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Brings messages to actors of one other process.
pub trait Carrier: Send + Sync + 'static {
    /// Takes the message over, without waiting, or gives it back with the reason.
    fn carry(
        &self,
        envelope: RemoteEnvelope,
        outgoing: Box<dyn OutgoingMessage>,
    ) -> Result<(), (Fault, Box<dyn OutgoingMessage>)>;
    /// `to` gets one [`Down`] when the incarnation that runs there ends, when its node is lost, or at once if there is
    /// none. Dropping what is returned takes the monitor back.
    fn watch(&self, path: &Arc<str>, to: Recipient<Down>) -> Box<dyn Send + Sync>;
}

/// Appends a reply's bytes; handed to whoever sends the reply, so that they are written once, into its buffer.
pub type Writer<'a> = &'a dyn Fn(&mut Vec<u8>) -> Result<(), WireError>;

/// Takes one answer of a local actor on its way back to another process.
pub type Respond = Box<dyn FnOnce(Result<Writer<'_>, Fault>) + Send>;

#[cfg(test)]
mod tests {
    use super::Schemas;

    #[test]
    fn two_ranges_share_the_highest_that_both_know() {
        let cases = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 2), (1, 1), Some(1)),
            ((1, 2), (2, 3), Some(2)),
            ((1, 3), (2, 2), Some(2)),
            ((1, 1), (2, 3), None),
            ((1, 9), (3, 2), None), // no range at all
        ];
        for (ours, theirs, shared) in cases {
            let range = |(lowest, highest)| Schemas { lowest, highest };
            assert_eq!(range(ours).shared(range(theirs)), shared, "{ours:?} and {theirs:?}");
            assert_eq!(range(theirs).shared(range(ours)), shared, "{theirs:?} and {ours:?}");
        }
    }
}
