//! Supervision on actix with Erlang/OTP's rules. Knows nothing of Filecoin.
//!
//! A concern implements [`Actor`] and [`Handler`] and is described by a [`ChildSpec`]; a [`SupervisorSpec`] groups
//! children; [`Tree`] starts them in order and stops them in reverse. A [`Ref`] is an address that outlives restarts.
//!
//! `engine` holds the rules and does no I/O (it knows `policy`, not `spec`); `shell` is the only part that knows actix; `supervise` joins the two.

mod actor;
mod cell;
mod dead_letters;
mod engine;
mod exit;
mod fence;
mod groups;
mod histogram;
mod inspect;
mod monitor;
mod node;
mod orders;
mod policy;
pub mod process;
mod shell;
mod spec;
mod supervise;
mod tree;
mod watchdog;
pub mod wire;

pub use actor::{Actor, CallError, Handler, Message, Reconfigure, Token};
pub use dead_letters::{DeadLetter, DeadLetters, DeadReason};
pub use engine::{AdminError, ChildCounts};
pub use exit::Exit;
pub use fence::{EpochSource, Fence, Fenced, Pass};
pub use groups::{Group, GroupRow, Groups, MemberRow};
pub use histogram::{HANDLE_BOUNDS_US, HandleTimes};
pub use inspect::{InspectError, Inspection};
pub use monitor::{Down, Monitor};
pub use orders::Order;
pub use policy::{AutoShutdown, BudgetSpent, Restart, RestartBackoff, Shutdown, Strategy, Thread};
pub(crate) use shell::here;
pub use shell::{Cx, Export, ExportError, ExportOf, OnUnreadable, Recipient, Ref};
pub use spec::{ChildSpec, SpecError, SpecFault, StartError, SupervisorSpec};
pub use tree::{ActorInfo, ActorState, SupervisorRef, Tree, TreeError, TreeOptions, UpgradeError, WeakTree};
