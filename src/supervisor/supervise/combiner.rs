//! Runs a supervisor without a thread of its own: the caller that delivers an event handles it (flat combining).
//!
//! A thread switch would cost more than the work: the arbiter where a child ended starts its successor itself. Callers
//! never block: while one thread runs the supervisor, others only queue events, which that thread then handles. No user
//! code runs in here, so a hung actor can never hold up a supervisor.

use super::super::exit::catch;
use super::control::ControlTask;
use super::{Supervisor, SupervisorMsg};
use crate::util::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// After this many events in a row the caller returns to its own work, and the control thread takes over.
const MAX_EVENTS_IN_A_ROW: usize = 256;

pub(in crate::supervisor) struct Combiner(Mutex<Inner>);

/// Unbounded, because each sender's share is: an incarnation reports twice, a caller waits.
struct Inner {
    events: VecDeque<SupervisorMsg>,
    supervisor: Owner,
}

enum Owner {
    /// There are no events.
    Idle(Box<Supervisor>),
    /// Run by some thread, which will handle all events.
    Busy,
    Closed,
}

/// The destination of an event.
enum Submitted {
    /// The caller runs the supervisor now.
    First(Box<Supervisor>),
    /// Queued for the thread that runs the supervisor.
    Behind,
    Closed,
}

impl Combiner {
    /// `make` is given the combiner of the supervisor that it makes.
    pub fn of(make: impl FnOnce(&std::sync::Weak<Combiner>) -> Supervisor) -> Arc<Combiner> {
        Arc::new_cyclic(|combiner| {
            let supervisor = Owner::Idle(Box::new(make(combiner)));
            Combiner(Mutex::new(Inner { events: VecDeque::new(), supervisor }))
        })
    }

    /// False: the supervisor does not run any more. Not to be called under a lock that a supervisor takes.
    pub fn send(self: &Arc<Combiner>, event: SupervisorMsg) -> bool {
        match self.put(event) {
            Submitted::First(supervisor) => self.work(supervisor),
            Submitted::Behind => {}
            Submitted::Closed => return false,
        }
        true
    }

    /// The same for a thread that must not be held up by anything: the control thread carries it out.
    pub fn hand_over(self: &Arc<Combiner>, event: SupervisorMsg) -> bool {
        match self.put(event) {
            Submitted::First(supervisor) => self.go_on_later(supervisor),
            Submitted::Behind => {}
            Submitted::Closed => return false,
        }
        true
    }

    fn put(&self, event: SupervisorMsg) -> Submitted {
        let mut combiner = lock(&self.0);
        match std::mem::replace(&mut combiner.supervisor, Owner::Busy) {
            Owner::Idle(supervisor) => {
                combiner.events.push_back(event);
                Submitted::First(supervisor)
            }
            Owner::Busy => {
                combiner.events.push_back(event);
                Submitted::Behind
            }
            Owner::Closed => {
                combiner.supervisor = Owner::Closed;
                Submitted::Closed
            }
        }
    }

    /// Handles all queued events.
    pub(super) fn work(self: &Arc<Combiner>, mut supervisor: Box<Supervisor>) {
        for _ in 0..MAX_EVENTS_IN_A_ROW {
            let Some((present, event)) = self.next(supervisor) else { return };
            supervisor = present;
            match catch(|| supervisor.handle(event)) {
                Ok(None) => {}
                Ok(Some(end)) => {
                    self.close();
                    return supervisor.leave(end);
                }
                Err(what) => {
                    self.close();
                    return supervisor.crash(what);
                }
            }
        }
        self.go_on_later(supervisor);
    }

    fn go_on_later(self: &Arc<Combiner>, supervisor: Box<Supervisor>) {
        let control = supervisor.control.clone();
        control.ask(ControlTask::GoOn(self.clone(), supervisor));
    }

    /// Without an event the supervisor becomes idle.
    fn next(&self, supervisor: Box<Supervisor>) -> Option<(Box<Supervisor>, SupervisorMsg)> {
        let mut combiner = lock(&self.0);
        if let Some(event) = combiner.events.pop_front() {
            return Some((supervisor, event));
        }
        if let Owner::Busy = combiner.supervisor {
            combiner.supervisor = Owner::Idle(supervisor);
        }
        None
    }

    /// Drops the queued events, and the supervisor if idle; outside the lock, because destructors may call back.
    pub fn close(&self) {
        let mut combiner = lock(&self.0);
        let left = (std::mem::replace(&mut combiner.supervisor, Owner::Closed), std::mem::take(&mut combiner.events));
        drop(combiner);
        drop(left);
    }

    pub fn is_closed(&self) -> bool {
        matches!(lock(&self.0).supervisor, Owner::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::engine::{AdminError, CallAnswer, SupervisorCall};
    use super::super::super::node::TreeNode;
    use super::super::super::shell::{Reporter, run_system};
    use super::super::super::spec::SupervisorSpec;
    use super::super::{Control, open_supervisor};
    use super::*;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::sync::oneshot;

    /// A supervisor without children, and what its control thread is asked.
    fn open() -> (Arc<Combiner>, UnboundedReceiver<ControlTask>) {
        let (tx, rx) = std::sync::mpsc::channel();
        run_system("control", Arc::default(), move |arbiters| async move {
            let (control, asked) = Control::new(arbiters, Arc::default(), Default::default());
            let node = TreeNode::root(SupervisorSpec::new("root").dynamic(1).compile("").unwrap());
            let report = Reporter::new(Arc::new(|_, _, _| ()), 0, 0, "root".into(), Arc::default());
            tx.send((open_supervisor(control, node, report).unwrap(), asked)).unwrap();
        })
        .unwrap();
        rx.recv().unwrap()
    }

    fn take(combiner: &Combiner) -> Box<Supervisor> {
        match std::mem::replace(&mut lock(&combiner.0).supervisor, Owner::Busy) {
            Owner::Idle(supervisor) => supervisor,
            Owner::Busy | Owner::Closed => panic!("not there"),
        }
    }

    type Reply = oneshot::Receiver<Result<CallAnswer, AdminError>>;

    fn count(combiner: &Arc<Combiner>) -> Reply {
        let (reply, answer) = oneshot::channel();
        assert!(combiner.send(SupervisorMsg::Call(SupervisorCall::Count, reply)));
        answer
    }

    #[test]
    fn what_comes_meanwhile_is_done_too_and_when_it_is_much_by_the_control_thread() {
        let (combiner, mut asked) = open();
        assert!(matches!(count(&combiner).try_recv(), Ok(Ok(CallAnswer::Count(_)))), "done before `send` returns");
        // (how much comes while somebody has the supervisor in hand, how often the control thread must go on)
        for (much, times) in
            [(0, 0), (1, 0), (MAX_EVENTS_IN_A_ROW - 1, 0), (MAX_EVENTS_IN_A_ROW, 1), (3 * MAX_EVENTS_IN_A_ROW, 3)]
        {
            let supervisor = take(&combiner);
            let mut answers: Vec<Reply> = (0..much).map(|_| count(&combiner)).collect();
            assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "nobody waits");
            combiner.work(supervisor);
            for _ in 0..times {
                let Ok(ControlTask::GoOn(combiner, supervisor)) = asked.try_recv() else { panic!("{much}") };
                combiner.work(supervisor);
            }
            assert!(asked.try_recv().is_err(), "{much}");
            assert!(answers.iter_mut().all(|answer| answer.try_recv().is_ok()), "{much}");
        }
    }

    #[test]
    fn what_is_handed_over_is_left_to_the_control_thread() {
        let (combiner, mut asked) = open();
        let (reply, mut answer) = oneshot::channel();
        assert!(combiner.hand_over(SupervisorMsg::Call(SupervisorCall::Count, reply)));
        assert!(answer.try_recv().is_err(), "not done by who brought it");
        let Ok(ControlTask::GoOn(combiner, supervisor)) = asked.try_recv() else { panic!("nobody was asked") };
        combiner.work(supervisor);
        assert!(matches!(answer.try_recv(), Ok(Ok(CallAnswer::Count(_)))));
    }

    #[test]
    fn nothing_is_taken_after_the_end_whoever_had_it_in_hand() {
        for at_work in [false, true] {
            let (combiner, _asked) = open();
            let in_hand = at_work.then(|| take(&combiner));
            let waits = at_work.then(|| count(&combiner));
            combiner.close();
            let (reply, _) = oneshot::channel();
            assert!(combiner.is_closed() && !combiner.send(SupervisorMsg::Call(SupervisorCall::Count, reply)));
            assert!(waits.is_none_or(|mut answer| answer.try_recv().is_err()), "its caller hears of it");
            if let Some(supervisor) = in_hand {
                combiner.work(supervisor);
                assert!(combiner.is_closed(), "dropped, not laid down");
            }
        }
    }
}
