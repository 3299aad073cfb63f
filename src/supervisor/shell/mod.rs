//! The only part that knows actix: mailboxes, contexts, arbiters. An incarnation is one fresh actix context.

mod address;
mod arbiters;
mod batch;
mod context;
mod deadlines;
mod deliver;
mod export;
mod far;
mod incarnation;
mod linger;
mod reply;
mod report;
mod wait_up;

pub use address::{Recipient, Ref};
pub use batch::OnUnreadable;
pub use context::Cx;
pub use export::{Export, ExportError, ExportOf};

pub(super) use arbiters::{Arbiters, Place, run_system};
pub(super) use incarnation::{Launch, launcher};
pub(crate) use linger::here;
pub(super) use linger::{STEP, allowed as may_linger, awhile};
pub(super) use reply::by;
pub(super) use report::{Ctl, CtlSender, Drill, News, Order, Pause, Report, Tell};
pub(super) use wait_up::WaitingRoom;
