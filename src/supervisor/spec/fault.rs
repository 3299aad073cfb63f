//! What can be wrong with a spec: each fault is a type of its own and names its field.

/// One way for a spec to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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

impl Fault {
    /// The field of the spec that is at fault.
    pub fn field(self) -> &'static str {
        match self {
            Fault::EmptyId | Fault::SlashInId | Fault::OtherId => "id",
            Fault::ZeroPeriod => "period",
            Fault::NeverTrips => "intensity",
            Fault::BackoffCap => "backoff",
            Fault::DynamicChildren => "children",
            Fault::DynamicStrategy => "strategy",
            Fault::DynamicChanged => "dynamic",
            Fault::SignificantUnderNever => "auto_shutdown",
            Fault::SignificantPermanent => "significant",
            Fault::ZeroShutdown => "shutdown",
            Fault::ZeroStartTimeout => "start_timeout",
            Fault::ZeroHangAfter => "hang_after",
            Fault::UnnamedThread => "thread",
            Fault::ZeroMailbox => "mailbox",
            Fault::AddressTaken | Fault::AddressChanged => "address",
            Fault::KindChanged => "kind",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SpecError {
    #[error("supervisor {supervisor}: two children are called {id}")]
    DuplicateId { supervisor: String, id: String },
    #[error("{id}: {field}: {why}")]
    Field { id: String, field: &'static str, fault: Fault, why: String },
}

impl SpecError {
    pub(super) fn faulty(id: String, fault: Fault, why: String) -> SpecError {
        SpecError::Field { id, field: fault.field(), fault, why }
    }
}
