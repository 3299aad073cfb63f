//! The faults of a spec: each is a type of its own and names its field.

/// One way for a spec to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecFault {
    EmptyId,
    SlashInId,
    /// An upgrade for another supervisor.
    OtherId,
    ZeroPeriod,
    /// More restarts than the backoff leaves time for: a child that always crashes would be restarted for ever.
    NeverTrips,
    /// The cap is below the first wait.
    BackoffCap,
    DynamicChildren,
    DynamicStrategy,
    DynamicChanged,
    /// OTP's bad combination: a significant child under auto_shutdown never.
    SignificantUnderNever,
    SignificantPermanent,
    ZeroShutdown,
    ZeroStartTimeout,
    ZeroHangAfter,
    UnnamedThread,
    ZeroMailbox,
    /// Another child has that address. A tree cannot contain itself: this is what would be left of a cycle.
    AddressTaken,
    AddressChanged,
    /// A worker where a supervisor runs, or the other way round.
    KindChanged,
}

impl SpecFault {
    /// The field of the spec that is at fault.
    pub fn field(self) -> &'static str {
        match self {
            SpecFault::EmptyId | SpecFault::SlashInId | SpecFault::OtherId => "id",
            SpecFault::ZeroPeriod => "period",
            SpecFault::NeverTrips => "intensity",
            SpecFault::BackoffCap => "backoff",
            SpecFault::DynamicChildren => "children",
            SpecFault::DynamicStrategy => "strategy",
            SpecFault::DynamicChanged => "dynamic",
            SpecFault::SignificantUnderNever => "auto_shutdown",
            SpecFault::SignificantPermanent => "significant",
            SpecFault::ZeroShutdown => "shutdown",
            SpecFault::ZeroStartTimeout => "start_timeout",
            SpecFault::ZeroHangAfter => "hang_after",
            SpecFault::UnnamedThread => "thread",
            SpecFault::ZeroMailbox => "mailbox",
            SpecFault::AddressTaken | SpecFault::AddressChanged => "address",
            SpecFault::KindChanged => "kind",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SpecError {
    #[error("supervisor {supervisor}: two children are called {id}")]
    DuplicateId { supervisor: String, id: String },
    #[error("{id}: {field}: {why}")]
    Field { id: String, field: &'static str, fault: SpecFault, why: String },
}

impl SpecError {
    pub(super) fn faulty(id: String, fault: SpecFault, why: String) -> SpecError {
        SpecError::Field { id, field: fault.field(), fault, why }
    }
}
