//! Enums of the supervisor.

use super::text;
use crate::supervisor::wire::Fault;
use crate::supervisor::wire::WireLane;
use crate::supervisor::{ActorOrder, ActorState, AutoShutdown, DeadReason, Exit, Restart, Strategy};

pinned! { exit: Exit {
    0 = Exit::Normal => Exit::Normal, "00";
    1 = Exit::Shutdown => Exit::Shutdown, "01";
    2 = Exit::ShutdownWith(_) => Exit::ShutdownWith(text()), "020178";
    3 = Exit::Failed(_) => Exit::Failed(text()), "030178";
    4 = Exit::Panicked(_) => Exit::Panicked(text()), "040178";
    5 = Exit::Killed => Exit::Killed, "05";
    6 = Exit::Hung(_) => Exit::Hung(text()), "060178";
    7 = Exit::Ignored => Exit::Ignored, "07";
    8 = Exit::NotRunning => Exit::NotRunning, "08";
    9 = Exit::Code(_) => Exit::Code(1), "0902";
    10 = Exit::Aborted => Exit::Aborted, "0a";
    11 = Exit::Segfault => Exit::Segfault, "0b";
    12 = Exit::OutOfMemory => Exit::OutOfMemory, "0c";
    13 = Exit::Signal(_) => Exit::Signal(9), "0d12";
    14 = Exit::NodeDown => Exit::NodeDown, "0e";
    15 = Exit::Fenced(_) => Exit::Fenced(text()), "0f0178";
} }

pinned! { fault: Fault {
    0 = Fault::NotRunning => Fault::NotRunning, "00";
    1 = Fault::Restarting => Fault::Restarting, "01";
    2 = Fault::Full => Fault::Full, "02";
    3 = Fault::Timeout => Fault::Timeout, "03";
    4 = Fault::Panicked => Fault::Panicked, "04";
    5 = Fault::Exited(_) => Fault::Exited(Exit::Normal), "0500";
    6 = Fault::NodeDown { .. } => Fault::NodeDown { sent: true }, "0601";
    7 = Fault::Fenced => Fault::Fenced, "07";
    8 = Fault::Refused(_) => Fault::Refused(text()), "080178";
} }

named! { exit_in_json: Exit {
    Exit::Normal => Exit::Normal, r#""Normal""#;
    Exit::Shutdown => Exit::Shutdown, r#""Shutdown""#;
    Exit::ShutdownWith(_) => Exit::ShutdownWith(text()), r#"{"ShutdownWith":"x"}"#;
    Exit::Failed(_) => Exit::Failed(text()), r#"{"Failed":"x"}"#;
    Exit::Panicked(_) => Exit::Panicked(text()), r#"{"Panicked":"x"}"#;
    Exit::Killed => Exit::Killed, r#""Killed""#;
    Exit::Hung(_) => Exit::Hung(text()), r#"{"Hung":"x"}"#;
    Exit::Ignored => Exit::Ignored, r#""Ignored""#;
    Exit::NotRunning => Exit::NotRunning, r#""NotRunning""#;
    Exit::Code(_) => Exit::Code(1), r#"{"Code":1}"#;
    Exit::Aborted => Exit::Aborted, r#""Aborted""#;
    Exit::Segfault => Exit::Segfault, r#""Segfault""#;
    Exit::OutOfMemory => Exit::OutOfMemory, r#""OutOfMemory""#;
    Exit::Signal(_) => Exit::Signal(9), r#"{"Signal":9}"#;
    Exit::NodeDown => Exit::NodeDown, r#""NodeDown""#;
    Exit::Fenced(_) => Exit::Fenced(text()), r#"{"Fenced":"x"}"#;
} }
named! { actor_state: ActorState {
    ActorState::Starting => ActorState::Starting, r#""starting""#;
    ActorState::Up => ActorState::Up, r#""up""#;
    ActorState::Restarting => ActorState::Restarting, r#""restarting""#;
    ActorState::Stopping => ActorState::Stopping, r#""stopping""#;
    ActorState::Stopped => ActorState::Stopped, r#""stopped""#;
} }
named! { dead_reason: DeadReason {
    DeadReason::ActorEnded => DeadReason::ActorEnded, r#""actor_ended""#;
    DeadReason::Expired => DeadReason::Expired, r#""expired""#;
    DeadReason::Full => DeadReason::Full, r#""full""#;
    DeadReason::NotRunning => DeadReason::NotRunning, r#""not_running""#;
    DeadReason::Restarting => DeadReason::Restarting, r#""restarting""#;
    DeadReason::NodeDown => DeadReason::NodeDown, r#""node_down""#;
    DeadReason::Refused => DeadReason::Refused, r#""refused""#;
} }
named! { order: ActorOrder {
    ActorOrder::Restart => ActorOrder::Restart, r#""restart""#;
    ActorOrder::Suspend => ActorOrder::Suspend, r#""suspend""#;
    ActorOrder::Resume => ActorOrder::Resume, r#""resume""#;
    ActorOrder::Stop => ActorOrder::Stop, r#""stop""#;
    ActorOrder::Kill => ActorOrder::Kill, r#""kill""#;
} }
named! { restart: Restart {
    Restart::Permanent => Restart::Permanent, r#""permanent""#;
    Restart::Transient => Restart::Transient, r#""transient""#;
    Restart::Temporary => Restart::Temporary, r#""temporary""#;
} }
named! { strategy: Strategy {
    Strategy::OneForOne => Strategy::OneForOne, r#""one_for_one""#;
    Strategy::OneForAll => Strategy::OneForAll, r#""one_for_all""#;
    Strategy::RestForOne => Strategy::RestForOne, r#""rest_for_one""#;
} }
named! { auto_shutdown: AutoShutdown {
    AutoShutdown::Never => AutoShutdown::Never, r#""never""#;
    AutoShutdown::AnySignificant => AutoShutdown::AnySignificant, r#""any_significant""#;
    AutoShutdown::AllSignificant => AutoShutdown::AllSignificant, r#""all_significant""#;
} }
named! { wire_lane: WireLane {
    WireLane::Control => WireLane::Control, r#""control""#;
    WireLane::Message => WireLane::Message, r#""message""#;
} }
