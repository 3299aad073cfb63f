//! Supervision on actix with Erlang/OTP's rules. Knows nothing of Filecoin.
//!
//! A concern implements [`Actor`] and [`Handler`] and is described by a [`ChildSpec`]; a [`SupervisorSpec`] groups
//! children; [`Tree`] starts them in order and stops them in reverse. A [`Ref`] is an address that outlives restarts.

mod actor;
mod spec;
mod tree;

pub use actor::{Actor, CallError, Cx, Exit, Handler, Message, Recipient, Ref, Token};
pub use spec::{Backoff, ChildSpec, Restart, Shutdown, SpecError, StartError, Strategy, SupervisorSpec, Thread};
pub use tree::{ActorInfo, ActorState, SupervisorRef, Tree};
