//! The only part that knows actix: mailboxes, contexts, arbiters. An incarnation is one fresh actix context.

mod address;
mod arbiters;
mod ask_when_up;
mod batch;
mod busy_poll;
mod context;
mod deadlines;
mod deliver;
mod export;
mod incarnation;
mod remote_send;
mod reply;
mod report;
mod start_waiters;

pub use address::{Recipient, Ref};
pub use batch::OnUnreadable;
pub use context::Cx;
pub use export::{Export, ExportError, ExportOf};

pub(super) use arbiters::{ArbiterSlot, Arbiters, run_system};
pub(crate) use busy_poll::here;
pub(super) use busy_poll::{START_SPIN, allowed as may_linger, spin_then_wait};
pub(super) use incarnation::{Launch, launcher};
pub(super) use reply::by;
pub(super) use report::{ChildReport, Ctl, CtlSender, Drill, Pause, ReportSink, Reporter, StartOrder};
pub(super) use start_waiters::StartWaiters;
