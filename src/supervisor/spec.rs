//! Child and supervisor specs: OTP's maps as structs, validated before anything starts.

mod fault;

pub use fault::{SpecError, SpecFault};

use super::actor::Actor;
use super::cell::CellMeta;
use super::engine::{ChildRules, Flags};
use super::fence::EpochSource;
use super::node::TreeNode;
use super::policy::{AutoShutdown, BudgetSpent, Restart, RestartBackoff, Shutdown, Strategy, Thread};
use super::shell::{Cx, Launch, Ref, launcher};
use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A start that failed; `why` goes into the tree.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Looks up the node at a tree path.
pub(super) type Before<'a> = dyn Fn(&str) -> Option<Arc<TreeNode>> + 'a;

enum What {
    Worker(Arc<dyn Launch>),
    Supervisor(SupervisorSpec),
}

pub struct ChildSpec {
    id: String,
    what: What,
    restart: Restart,
    shutdown: Shutdown,
    significant: bool,
    thread: Thread,
    start_timeout: Duration,
    hang_after: Option<Duration>,
    epoch_source: Option<Arc<dyn EpochSource>>,
    fleeting: bool,
    required: bool,
}

impl ChildSpec {
    /// Permanent worker on a shared arbiter `io`, shutdown 5 s, start timeout 30 s. `start` builds the state anew for each incarnation.
    pub fn actor<A, F, Fut>(id: impl Into<String>, address: &Ref<A>, start: F) -> ChildSpec
    where
        A: Actor,
        F: Fn(Cx<A>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A, StartError>> + 'static,
    {
        ChildSpec::optional(id, address, move |cx| {
            let state = start(cx);
            async move { state.await.map(Some) }
        })
    }

    /// As [`ChildSpec::actor`], for one that may have nothing to do: `None` from `start` is OTP's `ignore`. It does not
    /// run, which is no failure; its spec stays (a temporary one's does not), and [`super::SupervisorRef::restart_child`] asks again.
    pub fn optional<A, F, Fut>(id: impl Into<String>, address: &Ref<A>, start: F) -> ChildSpec
    where
        A: Actor,
        F: Fn(Cx<A>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<A>, StartError>> + 'static,
    {
        ChildSpec {
            id: id.into(),
            what: What::Worker(launcher(address, start)),
            restart: Restart::Permanent,
            shutdown: Shutdown::Timeout(Duration::from_secs(5)),
            significant: false,
            thread: Thread::Shared("io"),
            start_timeout: Duration::from_secs(30),
            hang_after: None,
            epoch_source: None,
            fleeting: false,
            required: true,
        }
    }
    /// Permanent, shutdown infinity: a supervisor bounds its children's stops itself.
    pub fn supervisor(spec: SupervisorSpec) -> ChildSpec {
        ChildSpec {
            id: spec.id.clone(),
            what: What::Supervisor(spec),
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            significant: false,
            thread: Thread::Shared("io"),
            start_timeout: Duration::MAX,
            hang_after: None,
            epoch_source: None,
            fleeting: false,
            required: true,
        }
    }
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }
    pub fn on(mut self, thread: Thread) -> Self {
        self.thread = thread;
        self
    }
    pub fn start_timeout(mut self, after: Duration) -> Self {
        self.start_timeout = after;
        self
    }
    /// Its own end counts for its supervisor's [`AutoShutdown`].
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }
    /// How long its thread may be inside one turn of this actor before it is declared hung; default 30 s, dedicated 120 s.
    /// Time spent awaiting does not count.
    pub fn hang_after(mut self, after: Duration) -> Self {
        self.hang_after = Some(after);
        self
    }

    /// Its supervisor does not require it, and comes up also when the first start of this child fails: it is then tried
    /// again as after a crash.
    pub fn may_start_later(mut self) -> Self {
        self.required = false;
        self
    }

    /// It uses its tokens for nothing, so that their epochs may begin anew: what is known of its address is forgotten with it.
    pub(super) fn fleeting(mut self) -> Self {
        self.fleeting = true;
        self
    }
    /// Only one of several processes may run it: its tokens' epochs are counted from that source, and its passes end with it.
    pub fn under(mut self, epoch_source: Arc<dyn EpochSource>) -> Self {
        self.epoch_source = Some(epoch_source);
        self
    }

    pub(super) fn compile(self, parent: &str) -> Result<Arc<ChildDef>, SpecError> {
        self.compile_over(parent, &|_| None)
    }

    /// `before` knows what runs at a tree path: this spec will replace that one's.
    fn compile_over(self, parent: &str, before: &Before) -> Result<Arc<ChildDef>, SpecError> {
        let id = self.id;
        let bad =
            |fault: SpecFault, why: &str| Err(SpecError::faulty(format!("{parent}/{id}"), fault, why.to_string()));
        if let Some((fault, why)) = faulty_id(&id) {
            return bad(fault, why);
        }
        if self.shutdown == Shutdown::Timeout(Duration::ZERO) {
            return bad(SpecFault::ZeroShutdown, "a timeout of zero: say BrutalKill if that is meant");
        }
        if self.start_timeout.is_zero() {
            return bad(SpecFault::ZeroStartTimeout, "zero: nothing could ever start");
        }
        if self.hang_after.is_some_and(|d| d.is_zero()) {
            return bad(SpecFault::ZeroHangAfter, "zero: every actor would be hung");
        }
        if self.significant && self.restart == Restart::Permanent {
            return bad(
                SpecFault::SignificantPermanent,
                "a permanent child never ends by itself: make it transient or temporary",
            );
        }
        if self.thread == Thread::Shared("") {
            return bad(SpecFault::UnnamedThread, "a shared arbiter needs a name");
        }
        let rules = ChildRules {
            restart: self.restart,
            shutdown: self.shutdown,
            significant: self.significant,
            supervisor: matches!(self.what, What::Supervisor(_)),
            start_timeout: self.start_timeout,
            required: self.required,
        };
        let hang_after = self.hang_after.unwrap_or(match self.thread {
            Thread::Shared(_) => Duration::from_secs(30),
            Thread::Dedicated => Duration::from_secs(120),
        });
        let path = format!("{parent}/{id}");
        let running = before(&path);
        let (meta, claim, body) = match self.what {
            What::Worker(launch) => {
                let meta = launch.meta().clone();
                if running.as_ref().is_some_and(|n| n.branch.is_some()) {
                    return bad(SpecFault::KindChanged, "a supervisor is there: delete that child first");
                }
                if running.as_ref().is_some_and(|n| !Arc::ptr_eq(&n.meta, &meta)) {
                    return bad(
                        SpecFault::AddressChanged,
                        "the child that is there has another address: delete that child first",
                    );
                }
                if meta.bound == 0 {
                    return bad(SpecFault::ZeroMailbox, "a bound of zero: no message could ever be taken");
                }
                // Of the spec that this one replaces: claimed when it does, see `take_over`.
                let claim = if running.is_some() { Some(0) } else { meta.claim() };
                let Some(claim) = claim else {
                    return bad(SpecFault::AddressTaken, "another child of a running tree has this address");
                };
                (meta, claim, Body::Worker(launch))
            }
            What::Supervisor(spec) => {
                let def = spec.compile_over(parent, before)?;
                let meta = match running {
                    Some(node) if node.branch.is_some() => node.meta.clone(),
                    Some(_) => return bad(SpecFault::KindChanged, "a worker is there: delete that child first"),
                    None => Arc::new(CellMeta::new(def.path.as_str(), 0)),
                };
                (meta, 0, Body::Supervisor(def))
            }
        };
        let claim = AtomicU64::new(claim);
        let (thread, epoch_source, fleeting) = (self.thread, self.epoch_source, self.fleeting);
        Ok(Arc::new(ChildDef {
            id: id.into(),
            path: path.into(),
            rules,
            thread,
            hang_after,
            meta,
            epoch_source,
            fleeting,
            claim,
            body,
        }))
    }
}

fn faulty_id(id: &str) -> Option<(SpecFault, &'static str)> {
    if id.is_empty() {
        Some((SpecFault::EmptyId, "empty: a child is found by it"))
    } else if id.contains('/') {
        Some((SpecFault::SlashInId, "contains a slash, which separates the parts of a tree path"))
    } else {
        None
    }
}

pub struct SupervisorSpec {
    id: String,
    strategy: Strategy,
    intensity: u32,
    period: Duration,
    backoff: RestartBackoff,
    budget_spent: BudgetSpent,
    auto_shutdown: AutoShutdown,
    dynamic: Option<usize>,
    children: Vec<ChildSpec>,
}

impl SupervisorSpec {
    /// one_for_one, intensity 3 within 60 s, backoff 200 ms doubling to 30 s, reset after 60 s.
    pub fn new(id: impl Into<String>) -> SupervisorSpec {
        SupervisorSpec {
            id: id.into(),
            strategy: Strategy::OneForOne,
            intensity: 3,
            period: Duration::from_secs(60),
            backoff: RestartBackoff {
                first: Duration::from_millis(200),
                cap: Duration::from_secs(30),
                reset_after: Duration::from_secs(60),
            },
            budget_spent: BudgetSpent::Escalate,
            auto_shutdown: AutoShutdown::Never,
            dynamic: None,
            children: Vec::new(),
        }
    }
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }
    pub fn intensity(mut self, restarts: u32, within: Duration) -> Self {
        self.intensity = restarts;
        self.period = within;
        self
    }
    pub fn backoff(mut self, backoff: RestartBackoff) -> Self {
        self.backoff = backoff;
        self
    }
    pub fn on_budget_spent(mut self, budget_spent: BudgetSpent) -> Self {
        self.budget_spent = budget_spent;
        self
    }
    pub fn auto_shutdown(mut self, auto: AutoShutdown) -> Self {
        self.auto_shutdown = auto;
        self
    }
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }
    /// Children are added at run time through [`super::SupervisorRef`]; at most `max_children`.
    pub fn dynamic(mut self, max_children: usize) -> Self {
        self.dynamic = Some(max_children);
        self
    }

    /// `parent` is the tree path above this supervisor; empty for the root.
    pub(super) fn compile(self, parent: &str) -> Result<Arc<SupDef>, SpecError> {
        self.compile_over(parent, &|_| None)
    }

    /// For a supervisor that runs at `node`, under the same parent.
    pub(super) fn compile_upgrade(self, node: &TreeNode, before: &Before) -> Result<Arc<SupDef>, SpecError> {
        let (parent, id) = node.path.rsplit_once('/').unwrap_or(("", &node.path));
        let bad = |fault, why: String| Err(SpecError::faulty(node.path.to_string(), fault, why));
        if self.id != id {
            return bad(SpecFault::OtherId, format!("this spec is for {}", self.id));
        }
        let dynamic = node.branch.as_ref().is_some_and(|b| b.def().flags.dynamic.is_some());
        if dynamic != self.dynamic.is_some() {
            return bad(SpecFault::DynamicChanged, "a running supervisor stays dynamic, or not".into());
        }
        self.compile_over(parent, before)
    }

    fn compile_over(self, parent: &str, before: &Before) -> Result<Arc<SupDef>, SpecError> {
        let path = if parent.is_empty() { self.id.clone() } else { format!("{parent}/{}", self.id) };
        let bad = |fault: SpecFault, why: String| {
            let id = if path.is_empty() { "the root supervisor".to_string() } else { path.clone() };
            Err(SpecError::faulty(id, fault, why))
        };
        if let Some((fault, why)) = faulty_id(&self.id) {
            return bad(fault, why.to_string());
        }
        if self.period.is_zero() {
            return bad(SpecFault::ZeroPeriod, "zero: no restart would ever be counted".into());
        }
        if self.backoff.cap < self.backoff.first {
            return bad(SpecFault::BackoffCap, "the cap is below the first wait".into());
        }
        if self.budget_spent != BudgetSpent::Escalate && self.backoff.cap.is_zero() {
            return bad(
                SpecFault::BackoffCap,
                "zero, and a child that is held down is tried again after that long".into(),
            );
        }
        if self.dynamic.is_some() && !self.children.is_empty() {
            return bad(
                SpecFault::DynamicChildren,
                "a dynamic supervisor starts empty: add children at run time".into(),
            );
        }
        if self.dynamic.is_some() && self.strategy != Strategy::OneForOne {
            return bad(SpecFault::DynamicStrategy, "a dynamic supervisor is one_for_one".into());
        }
        if self.auto_shutdown == AutoShutdown::Never
            && let Some(child) = self.children.iter().find(|c| c.significant)
        {
            return bad(SpecFault::SignificantUnderNever, format!("never, but its child {} is significant", child.id));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.children.iter().find(|c| !seen.insert(c.id.clone())) {
            return Err(SpecError::DuplicateId { supervisor: path, id: twice.id.clone() });
        }
        let crowd = match self.budget_spent {
            BudgetSpent::Escalate => self.dynamic.unwrap_or(self.children.len()),
            BudgetSpent::HoldDown { .. } => self.dynamic.unwrap_or(self.children.len()).min(1), // each has its own budget
        };
        if crowd > 0 && !can_trip(self.intensity, self.period, &self.backoff, crowd) {
            return bad(
                SpecFault::NeverTrips,
                format!(
                    "more than {} restarts within {:?} can never happen under a backoff from {:?} to {:?}: \
                     a child that always crashes would be restarted forever; lower the intensity or the backoff",
                    self.intensity, self.period, self.backoff.first, self.backoff.cap
                ),
            );
        }
        let children =
            self.children.into_iter().map(|c| c.compile_over(&path, before)).collect::<Result<Vec<_>, _>>()?;
        let flags = Flags {
            strategy: self.strategy,
            intensity: self.intensity,
            period: self.period,
            backoff: self.backoff,
            budget_spent: self.budget_spent,
            auto_shutdown: self.auto_shutdown,
            dynamic: self.dynamic,
        };
        Ok(Arc::new(SupDef { path, flags, children }))
    }
}

/// Whether `crowd` children that crash as soon as they are up, each waiting the shortest jittered backoff,
/// ask for more than `intensity` restarts within `period`.
fn can_trip(intensity: u32, period: Duration, backoff: &RestartBackoff, crowd: usize) -> bool {
    if backoff.first.is_zero() {
        return true; // without a wait there is always time for one more
    }
    // The first crash waits for nothing; from the 32nd doubling on all waits are the cap.
    let (mut at, mut crashes) = (Duration::ZERO, 1u64);
    for failures in 0..32 {
        at = at.saturating_add(backoff.delay(failures, -1.0));
        if at > period {
            break;
        }
        crashes += 1;
    }
    if at <= period {
        let wait = backoff.delay(32, -1.0).as_nanos().max(1);
        crashes = crashes.saturating_add(u64::try_from((period - at).as_nanos() / wait).unwrap_or(u64::MAX));
    }
    crashes.saturating_mul(crowd as u64) > u64::from(intensity)
}

/// A validated child: what one incarnation after the other is started from.
pub(super) struct ChildDef {
    pub id: Arc<str>,
    /// Its place in the tree.
    pub path: Arc<str>,
    pub rules: ChildRules,
    pub thread: Thread,
    pub hang_after: Duration,
    pub meta: Arc<CellMeta>,
    pub epoch_source: Option<Arc<dyn EpochSource>>,
    pub fleeting: bool,
    claim: AtomicU64,
    pub body: Body,
}

impl ChildDef {
    /// Its address, and those below it, are this spec's from now on, no longer those of the one that it replaces.
    pub fn take_over(&self) {
        match &self.body {
            Body::Worker(_) => self.claim.store(self.meta.take_over_claim(), Ordering::Relaxed),
            Body::Supervisor(sup) => sup.children.iter().for_each(|c| c.take_over()),
        }
    }
    /// Its address, and those below it, may be used in another spec: nothing of this one will run again.
    pub fn release(&self) {
        match &self.body {
            Body::Worker(_) => self.meta.release_claim(self.claim.load(Ordering::Relaxed)),
            Body::Supervisor(sup) => sup.children.iter().for_each(|c| c.release()),
        }
    }
}

pub(super) enum Body {
    Worker(Arc<dyn Launch>),
    Supervisor(Arc<SupDef>),
}

impl Drop for ChildDef {
    fn drop(&mut self) {
        self.release();
    }
}

pub(super) struct SupDef {
    pub path: String,
    pub flags: Flags,
    pub children: Vec<Arc<ChildDef>>,
}

#[cfg(test)]
mod tests;
