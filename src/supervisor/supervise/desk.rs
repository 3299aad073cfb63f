//! Where a supervisor lies while there is nothing to do: whoever brings it an event carries that out, on their own thread.
//!
//! A supervisor has no thread of its own, since a change of threads costs more than all that it does: the arbiter where a
//! child ended starts the successor itself. Nobody ever waits: what comes while one thread is at it, that one does too.
//! No user code runs meanwhile, so that whoever hangs does not hang while it has a supervisor in hand.

use super::super::cell::lock;
use super::super::exit::catch;
use super::control::Chore;
use super::{In, Supervisor};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// So many events in a row, then the thread that brought them has its own work again, and the control thread goes on.
const AT_ONCE: usize = 256;

pub(in crate::supervisor) struct Desk(Mutex<Inner>);

/// Unbounded, because each sender's share is: an incarnation reports twice, a caller waits.
struct Inner {
    events: VecDeque<In>,
    supervisor: Is,
}

enum Is {
    /// There are no events.
    Here(Box<Supervisor>),
    /// In some thread's hands, which will come to all events.
    AtWork,
    Over,
}

/// Where an event went.
enum Put {
    /// Nobody has the supervisor in hand but the caller now.
    First(Box<Supervisor>),
    /// Whoever has it in hand will come to it.
    Behind,
    Over,
}

impl Desk {
    /// `make` is given the desk for what it makes.
    pub fn of(make: impl FnOnce(&std::sync::Weak<Desk>) -> Supervisor) -> Arc<Desk> {
        Arc::new_cyclic(|desk| {
            let supervisor = Is::Here(Box::new(make(desk)));
            Desk(Mutex::new(Inner { events: VecDeque::new(), supervisor }))
        })
    }

    /// False: the supervisor does not run any more. Not to be called under a lock that a supervisor takes.
    pub fn send(self: &Arc<Desk>, event: In) -> bool {
        match self.put(event) {
            Put::First(supervisor) => self.work(supervisor),
            Put::Behind => {}
            Put::Over => return false,
        }
        true
    }

    /// The same for a thread that must not be held up by anything: the control thread carries it out.
    pub fn hand_over(self: &Arc<Desk>, event: In) -> bool {
        match self.put(event) {
            Put::First(supervisor) => self.go_on_later(supervisor),
            Put::Behind => {}
            Put::Over => return false,
        }
        true
    }

    fn put(&self, event: In) -> Put {
        let mut desk = lock(&self.0);
        match std::mem::replace(&mut desk.supervisor, Is::AtWork) {
            Is::Here(supervisor) => {
                desk.events.push_back(event);
                Put::First(supervisor)
            }
            Is::AtWork => {
                desk.events.push_back(event);
                Put::Behind
            }
            Is::Over => {
                desk.supervisor = Is::Over;
                Put::Over
            }
        }
    }

    /// Does all that there is to do.
    pub(super) fn work(self: &Arc<Desk>, mut supervisor: Box<Supervisor>) {
        for _ in 0..AT_ONCE {
            let Some((present, event)) = self.next(supervisor) else { return };
            supervisor = present;
            match catch(|| supervisor.hear(event)) {
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

    fn go_on_later(self: &Arc<Desk>, supervisor: Box<Supervisor>) {
        let control = supervisor.control.clone();
        control.ask(Chore::GoOn(self.clone(), supervisor));
    }

    /// Without an event the supervisor is laid down.
    fn next(&self, supervisor: Box<Supervisor>) -> Option<(Box<Supervisor>, In)> {
        let mut desk = lock(&self.0);
        if let Some(event) = desk.events.pop_front() {
            return Some((supervisor, event));
        }
        if let Is::AtWork = desk.supervisor {
            desk.supervisor = Is::Here(supervisor);
        }
        None
    }

    /// The supervisor, unless somebody has it in hand, and the events are dropped: outside the lock, for what that sets off.
    pub fn close(&self) {
        let mut desk = lock(&self.0);
        let left = (std::mem::replace(&mut desk.supervisor, Is::Over), std::mem::take(&mut desk.events));
        drop(desk);
        drop(left);
    }

    pub fn is_closed(&self) -> bool {
        matches!(lock(&self.0).supervisor, Is::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::engine::{AdminError, Answer, Call};
    use super::super::super::node::Node;
    use super::super::super::shell::{Report, run_system};
    use super::super::super::spec::SupervisorSpec;
    use super::super::{Control, open_supervisor};
    use super::*;
    use tokio::sync::mpsc::UnboundedReceiver;
    use tokio::sync::oneshot;

    /// A supervisor without children, and what its control thread is asked.
    fn open() -> (Arc<Desk>, UnboundedReceiver<Chore>) {
        let (tx, rx) = std::sync::mpsc::channel();
        run_system("control", Arc::default(), move |arbiters| async move {
            let (control, asked) = Control::new(arbiters, Arc::default(), Default::default());
            let node = Node::root(SupervisorSpec::new("root").dynamic(1).compile("").unwrap());
            let report = Report::new(Arc::new(|_, _, _| ()), 0, 0, "root".into(), Arc::default());
            tx.send((open_supervisor(control, node, report).unwrap(), asked)).unwrap();
        })
        .unwrap();
        rx.recv().unwrap()
    }

    fn take(desk: &Desk) -> Box<Supervisor> {
        match std::mem::replace(&mut lock(&desk.0).supervisor, Is::AtWork) {
            Is::Here(supervisor) => supervisor,
            Is::AtWork | Is::Over => panic!("not there"),
        }
    }

    type Reply = oneshot::Receiver<Result<Answer, AdminError>>;

    fn count(desk: &Arc<Desk>) -> Reply {
        let (reply, answer) = oneshot::channel();
        assert!(desk.send(In::Call(Call::Count, reply)));
        answer
    }

    #[test]
    fn what_comes_meanwhile_is_done_too_and_when_it_is_much_by_the_control_thread() {
        let (desk, mut asked) = open();
        assert!(matches!(count(&desk).try_recv(), Ok(Ok(Answer::Count(_)))), "done before `send` returns");
        // (how much comes while somebody has the supervisor in hand, how often the control thread must go on)
        for (much, times) in [(0, 0), (1, 0), (AT_ONCE - 1, 0), (AT_ONCE, 1), (3 * AT_ONCE, 3)] {
            let supervisor = take(&desk);
            let mut answers: Vec<Reply> = (0..much).map(|_| count(&desk)).collect();
            assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "nobody waits");
            desk.work(supervisor);
            for _ in 0..times {
                let Ok(Chore::GoOn(desk, supervisor)) = asked.try_recv() else { panic!("{much}") };
                desk.work(supervisor);
            }
            assert!(asked.try_recv().is_err(), "{much}");
            assert!(answers.iter_mut().all(|answer| answer.try_recv().is_ok()), "{much}");
        }
    }

    #[test]
    fn what_is_handed_over_is_left_to_the_control_thread() {
        let (desk, mut asked) = open();
        let (reply, mut answer) = oneshot::channel();
        assert!(desk.hand_over(In::Call(Call::Count, reply)));
        assert!(answer.try_recv().is_err(), "not done by who brought it");
        let Ok(Chore::GoOn(desk, supervisor)) = asked.try_recv() else { panic!("nobody was asked") };
        desk.work(supervisor);
        assert!(matches!(answer.try_recv(), Ok(Ok(Answer::Count(_)))));
    }

    #[test]
    fn nothing_is_taken_after_the_end_whoever_had_it_in_hand() {
        for at_work in [false, true] {
            let (desk, _asked) = open();
            let in_hand = at_work.then(|| take(&desk));
            let waits = at_work.then(|| count(&desk));
            desk.close();
            let (reply, _) = oneshot::channel();
            assert!(desk.is_closed() && !desk.send(In::Call(Call::Count, reply)));
            assert!(waits.is_none_or(|mut answer| answer.try_recv().is_err()), "its caller hears of it");
            if let Some(supervisor) = in_hand {
                desk.work(supervisor);
                assert!(desk.is_closed(), "dropped, not laid down");
            }
        }
    }
}
