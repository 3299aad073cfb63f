//! A cluster's store in memory that loses requests and answers as told: commits, leases and markers as etcd has them.

use bulkhead::store::replica::{
    Commit, Committed, Held, Image, Loaded, Marker, Op, Replica, ReplicaError, Row, WriteRight,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Known not to have been sent.
    NotSent,
    /// The request is lost.
    RequestLost,
    /// The answer is lost; the request was carried out.
    AnswerLost,
    /// No answer; the request is carried out when [`ScriptedReplica::deliver_late`] is called.
    Late,
    Refused,
    /// This process dies right after the commit landed (a panic that the test catches).
    DiesAfter,
    /// The same before it is sent.
    DiesBefore,
}

#[derive(Default)]
pub struct State {
    pub leases: BTreeMap<String, u64>,
    pub markers: BTreeMap<String, Marker>,
    pub rows: BTreeMap<(String, String, String), Vec<u8>>,
    /// Faults of the calls to come; then none.
    pub script: VecDeque<Fault>,
    /// Every call from now on is lost.
    pub away: bool,
    /// A commit of more rows is refused as too large.
    pub rows_most: Option<usize>,
    late: Vec<OwnedCommit>,
    /// (scope, lease, sequence) of every commit that landed, in order.
    pub landed: Vec<(String, WriteRight, Marker)>,
    pub calls: usize,
}

struct OwnedCommit {
    scope: String,
    hold: WriteRight,
    base: Option<Marker>,
    marker: Marker,
    ops: Vec<Op>,
}

#[derive(Default)]
pub struct ScriptedReplica {
    state: Mutex<State>,
}

impl State {
    fn fence(&self, scope: &str, hold: WriteRight) -> Option<Option<u64>> {
        let holder = self.leases.get(scope).copied();
        let held = match hold {
            WriteRight::Lease(lease) => holder == Some(lease),
            WriteRight::Nobody => holder.is_none(),
            WriteRight::Unchecked => true,
        };
        (!held).then_some(holder)
    }

    fn carry_out(&mut self, c: &OwnedCommit) -> Committed {
        if let Some(holder) = self.fence(&c.scope, c.hold) {
            return Committed::Fenced { holder };
        }
        let found = self.markers.get(&c.scope).copied();
        if found != c.base {
            return Committed::Differs { found };
        }
        self.markers.insert(c.scope.clone(), c.marker);
        for op in &c.ops {
            let key = (c.scope.clone(), op.table.clone(), op.key.clone());
            match &op.value {
                Some(value) => self.rows.insert(key, value.clone()),
                None => self.rows.remove(&key),
            };
        }
        self.landed.push((c.scope.clone(), c.hold, c.marker));
        Committed::Landed
    }
}

fn unreachable(sent: bool) -> ReplicaError {
    ReplicaError::Unreachable { endpoint: "scripted:2379".into(), why: "scripted".into(), sent }
}

impl ScriptedReplica {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
    pub fn give(&self, scope: &str, lease: u64) {
        self.state().leases.insert(scope.to_owned(), lease);
    }
    pub fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().script.extend(faults);
    }
    /// Requests that were under way are carried out now, in order.
    pub fn deliver_late(&self) -> Vec<Committed> {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        late.iter().map(|commit| state.carry_out(commit)).collect()
    }
    fn fault(&self) -> Fault {
        let mut state = self.state();
        state.calls += 1;
        if state.away { Fault::RequestLost } else { state.script.pop_front().unwrap_or(Fault::None) }
    }
}

impl Replica for ScriptedReplica {
    fn commit(&self, commit: &Commit) -> Result<Committed, ReplicaError> {
        let fault = self.fault();
        let (rows, most) = (commit.ops.len(), self.state().rows_most);
        if fault == Fault::None && most.is_some_and(|most| rows > most) {
            return Err(ReplicaError::TooLarge { why: "too many operations".into() });
        }
        let commit = OwnedCommit {
            scope: commit.scope.to_owned(),
            hold: commit.hold,
            base: commit.base,
            marker: commit.marker,
            ops: commit.ops.to_vec(),
        };
        match fault {
            Fault::None => Ok(self.state().carry_out(&commit)),
            Fault::NotSent => Err(unreachable(false)),
            Fault::RequestLost => Err(unreachable(true)),
            Fault::AnswerLost => {
                self.state().carry_out(&commit);
                Err(unreachable(true))
            }
            Fault::Late => {
                self.state().late.push(commit);
                Err(unreachable(true))
            }
            Fault::Refused => Err(ReplicaError::Refused { endpoint: "scripted:2379".into(), why: "no space".into() }),
            Fault::DiesBefore => panic!("scripted death before the commit"),
            Fault::DiesAfter => {
                self.state().carry_out(&commit);
                panic!("scripted death after the commit")
            }
        }
    }

    fn check(&self, scope: &str, hold: WriteRight) -> Result<Held, ReplicaError> {
        match self.fault() {
            Fault::None => Ok(match self.state().fence(scope, hold) {
                Some(holder) => Held::Fenced { holder },
                None => Held::Yes,
            }),
            _ => Err(unreachable(true)),
        }
    }

    fn load(&self, scope: &str, hold: WriteRight) -> Result<Loaded, ReplicaError> {
        if self.fault() != Fault::None {
            return Err(unreachable(true));
        }
        let state = self.state();
        if let Some(holder) = state.fence(scope, hold) {
            return Ok(Loaded::Fenced { holder });
        }
        let rows = state.rows.iter().filter(|((s, _, _), _)| s == scope);
        let rows =
            rows.map(|((_, table, key), value)| Row { table: table.clone(), key: key.clone(), value: value.clone() });
        Ok(Loaded::Image(Image { marker: state.markers.get(scope).copied(), rows: rows.collect() }))
    }

    fn scopes(&self) -> Result<Vec<String>, ReplicaError> {
        Ok(self.state().markers.keys().cloned().collect())
    }
}
