//! The methods by name, and the permission that each needs: Lotus' own, and ours under `Bulkhead.`.

use super::backend::{ReportKind, SectorsAsked};
use crate::rpc::auth::Perm;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    ActorAddress,
    ActorSectorSize,
    MiningBase,
    PledgeSector,
    SectorsList,
    SectorsListInStates,
    SectorsSummary,
    SectorsStatus,
    RuntimeSubsystems,
    Version,
    Shutdown,
    /// The messages of an order; nothing is sent.
    ActorCheck,
    ActorOrder,
    MessageStatus,
    Messages,
    MessageReplace,
    MessageCancel,
    /// The subsystems of the log.
    LogList,
    /// The level of one of them, from now on.
    LogSetLevel,
    /// A change of the pool of full nodes.
    DaemonsSet,
    /// The pool's nodes with their tokens.
    DaemonsAuth,
    /// The pool's own address, with a token of the permission that is asked for.
    DaemonsApiInfo,
    Report(ReportKind),
}

pub const ALL: [(&str, Method); 35] = [
    ("Filecoin.ActorAddress", Method::ActorAddress),
    ("Filecoin.ActorSectorSize", Method::ActorSectorSize),
    ("Filecoin.MiningBase", Method::MiningBase),
    ("Filecoin.PledgeSector", Method::PledgeSector),
    ("Filecoin.SectorsList", Method::SectorsList),
    ("Filecoin.SectorsListInStates", Method::SectorsListInStates),
    ("Filecoin.SectorsSummary", Method::SectorsSummary),
    ("Filecoin.SectorsStatus", Method::SectorsStatus),
    ("Filecoin.RuntimeSubsystems", Method::RuntimeSubsystems),
    ("Filecoin.Version", Method::Version),
    ("Filecoin.Shutdown", Method::Shutdown),
    ("Filecoin.LogList", Method::LogList),
    ("Filecoin.LogSetLevel", Method::LogSetLevel),
    ("Bulkhead.ActorCheck", Method::ActorCheck),
    ("Bulkhead.ActorOrder", Method::ActorOrder),
    ("Bulkhead.MessageStatus", Method::MessageStatus),
    ("Bulkhead.Messages", Method::Messages),
    ("Bulkhead.MessageReplace", Method::MessageReplace),
    ("Bulkhead.MessageCancel", Method::MessageCancel),
    ("Bulkhead.DaemonsSet", Method::DaemonsSet),
    ("Bulkhead.DaemonsAuth", Method::DaemonsAuth),
    ("Bulkhead.DaemonsApiInfo", Method::DaemonsApiInfo),
    ("Bulkhead.Daemons", Method::Report(ReportKind::Daemons)),
    ("Bulkhead.Actor", Method::Report(ReportKind::Actor)),
    ("Bulkhead.Info", Method::Report(ReportKind::Info)),
    ("Bulkhead.Tree", Method::Report(ReportKind::Tree)),
    ("Bulkhead.Sectors", Method::Report(ReportKind::Sectors(SectorsAsked::FIRST))),
    ("Bulkhead.SealingWorkers", Method::Report(ReportKind::SealingWorkers)),
    ("Bulkhead.SealingJobs", Method::Report(ReportKind::SealingJobs)),
    ("Bulkhead.ProvingInfo", Method::Report(ReportKind::ProvingInfo)),
    ("Bulkhead.ProvingDeadlines", Method::Report(ReportKind::ProvingDeadlines)),
    ("Bulkhead.WindowPost", Method::Report(ReportKind::WindowPost)),
    ("Bulkhead.WinningPost", Method::Report(ReportKind::WinningPost)),
    ("Bulkhead.F3Status", Method::Report(ReportKind::F3)),
    ("Bulkhead.Market", Method::Report(ReportKind::Market)),
];

impl Method {
    pub fn named(name: &str) -> Option<Method> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    pub fn permission(self) -> Perm {
        match self {
            Method::PledgeSector | Method::LogList => Perm::Write,
            // With it an audit line would not be written. Lotus asks for `write`.
            Method::LogSetLevel => Perm::Admin,
            // It moves the provider's money, and changes who may.
            Method::ActorOrder | Method::MessageReplace | Method::MessageCancel | Method::Shutdown => Perm::Admin,
            // Whom the provider believes, and the full nodes' own tokens.
            Method::DaemonsSet | Method::DaemonsAuth | Method::DaemonsApiInfo => Perm::Admin,
            Method::ActorAddress
            | Method::ActorSectorSize
            | Method::MiningBase
            | Method::SectorsList
            | Method::SectorsListInStates
            | Method::SectorsSummary
            | Method::SectorsStatus
            | Method::RuntimeSubsystems
            | Method::Version
            | Method::ActorCheck
            | Method::MessageStatus
            | Method::Messages
            | Method::Report(_) => Perm::Read,
        }
    }

    /// Parameters that may be left out, at the end.
    pub fn optional(self) -> usize {
        usize::from(matches!(self, Method::Report(ReportKind::Sectors(_))))
    }

    /// Parameters that may not.
    pub fn arity(self) -> usize {
        match self {
            Method::ActorSectorSize
            | Method::SectorsListInStates
            | Method::ActorCheck
            | Method::MessageStatus
            | Method::Messages
            | Method::MessageCancel
            | Method::DaemonsSet
            | Method::DaemonsApiInfo => 1,
            Method::SectorsStatus | Method::ActorOrder | Method::MessageReplace | Method::LogSetLevel => 2,
            Method::ActorAddress
            | Method::MiningBase
            | Method::PledgeSector
            | Method::SectorsList
            | Method::SectorsSummary
            | Method::RuntimeSubsystems
            | Method::Version
            | Method::Shutdown
            | Method::DaemonsAuth
            | Method::LogList
            | Method::Report(_) => 0,
        }
    }
}
