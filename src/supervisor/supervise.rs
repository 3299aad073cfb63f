//! A supervisor as a task on the control thread: feeds its engine, carries out the commands. No user code runs here.

mod upgrade;

use super::cell::{ActorState, CellMeta, lock};
use super::dead_letters::DeadLetters;
use super::engine::{AdminError, Answer, Call, ChildPhase, Cmd, End, Engine, Ev, Key, Serial, StartFailure};
use super::exit::Exit;
use super::fence::Tenure;
use super::node::Node;
use super::shell::{Arbiters, Ctl, CtlSender, News, Order, Pause, Place, Report, STEP, Tell, awhile};
use super::spec::{Body, ChildDef, Restart, Shutdown, SupDef};
use super::tree::TreeOptions;
use rand::Rng;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

pub(super) type CallReply = oneshot::Sender<Result<Answer, AdminError>>;

/// What a supervisor hears. Unbounded, because each sender's share is: an incarnation reports twice, a caller waits.
pub(super) enum In {
    Child(Key, Serial, News),
    Stop,
    Kill,
    /// End in order for that reason.
    Over(Exit),
    Call(Call<Arc<ChildDef>>, CallReply),
    Upgrade(Arc<SupDef>, CallReply),
    Hung {
        key: Key,
        /// The one that was seen to hang; by now it may have a successor.
        incarnation: u64,
        what: String,
    },
    /// The thread of that place was given up.
    Lost {
        place: u64,
    },
    Suspend {
        key: Key,
        suspend: bool,
    },
    /// To the child's present incarnation.
    Order {
        key: Key,
        order: Ctl,
    },
}

/// What all supervisors of a tree share on the control thread.
pub(super) struct Control {
    pub arbiters: Rc<Arbiters>,
    pub letters: Arc<DeadLetters>,
    pub epoch_base: u64,
    pub max_zombies: u64,
    /// The root supervisor.
    root: RefCell<Option<UnboundedSender<In>>>,
    /// The highest incarnation per address path: a token's epoch never repeats, whoever builds the address anew.
    incarnations: RefCell<HashMap<Arc<str>, u64>>,
    supervisors: RefCell<Vec<UnboundedSender<In>>>,
}

impl Control {
    pub fn new(arbiters: Rc<Arbiters>, letters: Arc<DeadLetters>, options: TreeOptions) -> Control {
        Control {
            arbiters,
            letters,
            epoch_base: options.epoch_base,
            max_zombies: options.max_zombies,
            root: RefCell::default(),
            incarnations: RefCell::default(),
            supervisors: RefCell::default(),
        }
    }

    /// That thread is stuck for good. A process that has lost too many is better begun anew.
    fn give_up(&self, place: &Place) {
        let Some(zombies) = self.arbiters.give_up(place) else { return }; // several actors ran there
        if zombies > self.max_zombies
            && let Some(root) = self.root.borrow().as_ref()
        {
            let why = format!("{zombies} threads are stuck for good, more than {}", self.max_zombies);
            let _ = root.send(In::Over(Exit::ShutdownWith(why))); // it has ended
        }
    }

    /// The epoch of the incarnation that is started now.
    fn next_epoch(&self, meta: &CellMeta, tenure: Option<&Arc<dyn Tenure>>) -> u64 {
        let mut all = self.incarnations.borrow_mut();
        let last = all.entry(meta.path.clone()).or_default();
        *last += 1;
        if meta.incarnation.swap(*last, Ordering::AcqRel) != 0 {
            meta.restarts.fetch_add(1, Ordering::Relaxed);
        }
        let epoch = tenure.map_or(self.epoch_base, |tenure| tenure.epoch_base()) + *last;
        meta.epoch.store(epoch, Ordering::Relaxed);
        *lock(&meta.tenure) = tenure.cloned();
        epoch
    }
}

enum Handle {
    Worker { ctl: CtlSender, pause: Arc<Pause>, place: Place, abandoned: Arc<AtomicBool> },
    Supervisor { tx: UnboundedSender<In> },
}

struct Supervisor {
    control: Rc<Control>,
    def: Arc<SupDef>,
    node: Arc<Node>,
    engine: Engine<Arc<ChildDef>>,
    handles: HashMap<Key, Handle>,
    replies: HashMap<u64, CallReply>,
    next_ticket: u64,
    /// Keys that incarnations were started with, where an upgrade has given their child another.
    aliases: HashMap<Key, Key>,
    /// Specs that the engine has yet to take over.
    upgrades: VecDeque<Arc<SupDef>>,
    epoch: u64,
    tell: Tell,
    report: Report,
}

/// Starts a supervisor's task; its end comes through `report`.
pub(super) fn spawn_supervisor(control: Rc<Control>, node: Arc<Node>, report: Report) -> UnboundedSender<In> {
    let (tx, rx) = mpsc::unbounded_channel();
    if let Some(branch) = &node.branch {
        branch.open(tx.clone());
        let epoch = control.next_epoch(&node.meta, None);
        node.meta.watchers.open(epoch).tell();
        control.root.borrow_mut().get_or_insert_with(|| tx.clone());
        let def = branch.def();
        {
            let mut all = control.supervisors.borrow_mut();
            all.retain(|s| !s.is_closed());
            all.push(tx.clone());
        }
        let to_me = tx.clone();
        let supervisor = Supervisor {
            engine: Engine::new(def.path.as_str(), def.flags.clone()),
            def,
            node: node.clone(),
            control,
            handles: HashMap::new(),
            replies: HashMap::new(),
            next_ticket: 1,
            aliases: HashMap::new(),
            upgrades: VecDeque::new(),
            epoch,
            tell: Arc::new(move |key, serial, news| {
                let _ = to_me.send(In::Child(key, serial, news)); // it is over: nobody cares any more
            }),
            report,
        };
        let task: futures::future::LocalBoxFuture<'static, ()> = Box::pin(supervisor.run(rx));
        actix_rt::spawn(task);
    }
    tx
}

impl Supervisor {
    async fn run(mut self, mut rx: UnboundedReceiver<In>) {
        for def in self.def.clone().children.iter() {
            let key = self.engine.add(def.id.clone(), def.rules.clone(), def.clone());
            self.show(key, def);
        }
        let mut over = self.step(Ev::Begin);
        while over.is_none() {
            let deadline = self.engine.next_deadline();
            let event = tokio::select! {
                biased;
                event = awhile(rx.recv(), STEP) => event,
                () = until(deadline) => None,
            };
            over = match event {
                None => self.step(Ev::Tick),
                Some(event) => self.hear(event),
            };
        }
        rx.close();
        if let Some(branch) = &self.node.branch {
            branch.close();
        }
        for (_, reply) in self.replies.drain() {
            let _ = reply.send(Err(AdminError::NoSupervisor));
        }
        // Those of the spec may run again, if this supervisor does; those that were added are forgotten with it.
        for def in self.engine.payloads().filter(|d| !self.def.children.iter().any(|c| Arc::ptr_eq(c, d))) {
            def.release();
        }
        // The root has no parent that would enter this in its books.
        match over {
            Some(End::NotStarted(why)) => {
                let exit = Exit::Failed(format!("{} did not start: {}", why.path, why.why));
                self.node.meta.ended(&exit);
                self.node.meta.watchers.close(self.epoch, &exit);
                self.report.not_started(why);
            }
            Some(End::Exit(exit)) => {
                self.node.meta.ended(&exit);
                self.node.meta.watchers.close(self.epoch, &exit);
                self.report.ended(exit);
            }
            None => {}
        }
    }

    fn hear(&mut self, event: In) -> Option<End> {
        match event {
            In::Child(key, serial, news) => {
                let key = self.present(key);
                let current = self.engine.serial(key) == Some(serial);
                match news {
                    News::Started => self.step(Ev::Started { key, serial }),
                    News::NotStarted(why) => {
                        self.let_go(key, current);
                        if current {
                            tracing::warn!(child = %why.path, why = %why.why, "did not start");
                        }
                        self.step(Ev::StartFailed { key, serial, why })
                    }
                    News::Ignored => {
                        self.let_go(key, current);
                        self.step(Ev::Ignored { key, serial })
                    }
                    News::Down(exit) => {
                        self.let_go(key, current);
                        if let Some(def) = self.engine.payload(key).filter(|_| current) {
                            match exit.is_abnormal() {
                                true => tracing::error!(child = %def.path, %exit, "ended"),
                                false => tracing::debug!(child = %def.path, %exit, "ended"),
                            }
                        }
                        self.step(Ev::Down { key, serial, exit })
                    }
                }
            }
            In::Stop => self.step(Ev::Stop(Exit::Shutdown)),
            In::Kill => self.step(Ev::Kill),
            In::Over(exit) => self.step(Ev::Stop(exit)),
            In::Upgrade(def, reply) => self.upgrade(def, reply),
            In::Call(call, reply) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.replies.insert(ticket, reply);
                let added = match &call {
                    Call::Start { id, payload, .. } => Some((id.clone(), payload.clone())),
                    _ => None,
                };
                let before = added.as_ref().and_then(|(id, _)| self.engine.key_of(id));
                let (commands, over) = self.decide(Ev::Call { ticket, call });
                if let Some((id, def)) = added
                    && before.is_none()
                    && let Some(key) = self.engine.key_of(&id)
                {
                    self.show(key, &def);
                }
                self.carry_out(commands);
                over
            }
            In::Hung { key, incarnation, what } => {
                let key = self.present(key);
                let present = self.engine.payload(key).map(|def| def.meta.incarnation.load(Ordering::Relaxed));
                if present != Some(incarnation) {
                    return None;
                }
                if let Some(def) = self.engine.payload(key) {
                    tracing::error!(child = %def.path, %what, "hung");
                }
                self.step(Ev::Hung { key, what })
            }
            In::Lost { place } => {
                let lost: Vec<Key> = self
                    .handles
                    .iter()
                    .filter(|(_, h)| matches!(h, Handle::Worker { place: p, .. } if p.id == place))
                    .map(|(k, _)| *k)
                    .collect();
                for key in lost {
                    if let Some(serial) = self.engine.serial(key)
                        && let Some(end) = self.step(Ev::Lost { key, serial })
                    {
                        return Some(end);
                    }
                }
                None
            }
            In::Suspend { key, suspend } => {
                if let Some(Handle::Worker { ctl, pause, .. }) = self.handles.get(&self.present(key))
                    && pause.want(suspend)
                {
                    let _ = ctl.send(Ctl::Pause); // gone: nothing to suspend
                }
                None
            }
            In::Order { key, order } => {
                if let Some(Handle::Worker { ctl, .. }) = self.handles.get(&self.present(key)) {
                    let _ = ctl.send(order); // gone: nobody is left to be told
                }
                None
            }
        }
    }

    fn step(&mut self, event: Ev<Arc<ChildDef>>) -> Option<End> {
        let (commands, over) = self.decide(event);
        self.carry_out(commands);
        over
    }

    fn decide(&mut self, event: Ev<Arc<ChildDef>>) -> (Vec<Cmd>, Option<End>) {
        let now = Instant::now();
        let jitter = rand::thread_rng().gen_range(-1.0..=1.0);
        let mut commands = self.engine.step(now, event, jitter);
        if let Some(keys) = self.engine.take_rekeyed() {
            self.rekey(keys);
        }
        for key in self.engine.take_touched() {
            if let (Some(phase), Some(def)) = (self.engine.phase(key), self.engine.payload(key)) {
                def.meta.set_state(state_of(phase, &def.meta, self.engine.comes_back(key)));
            }
        }
        if let Some(branch) = &self.node.branch {
            branch.budget_used.store(self.engine.budget(now).0, Ordering::Relaxed);
        }
        let over = match commands.last() {
            Some(Cmd::End(_)) => match commands.pop() {
                Some(Cmd::End(end)) => Some(end),
                _ => None,
            },
            _ => None,
        };
        (commands, over)
    }

    fn carry_out(&mut self, commands: Vec<Cmd>) {
        for command in commands {
            match command {
                Cmd::Start { key, serial } => self.start(key, serial),
                Cmd::Stop { key } => self.order(key, Ctl::Stop { again: self.engine.comes_back(key) }, In::Stop),
                Cmd::Kill { key } => self.order(key, Ctl::Kill, In::Kill),
                Cmd::Abandon { key } => self.abandon(key),
                Cmd::Reply { ticket, result } => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        let _ = reply.send(result); // the caller may have given up
                    }
                }
                Cmd::Removed { key } => {
                    let node = self.node.branch.as_ref().and_then(|branch| branch.remove(key));
                    if let Some(node) = node.filter(|node| node.fleeting) {
                        self.control.incarnations.borrow_mut().remove(&node.meta.path);
                    }
                }
                Cmd::Up => {
                    self.node.meta.set_state(ActorState::Up);
                    self.report.started();
                }
                Cmd::End(_) => {} // taken off by `decide`
            }
        }
    }

    fn show(&self, key: Key, def: &Arc<ChildDef>) {
        def.meta.report_to(self.control.letters.clone());
        if let Some(branch) = &self.node.branch {
            branch.add(key, Node::child(def));
        }
    }

    fn start(&mut self, key: Key, serial: Serial) {
        let Some(def) = self.engine.payload(key).cloned() else { return };
        self.aliases.retain(|_, present| *present != key);
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut report = Report::new(self.tell.clone(), key, serial, def.path.clone(), abandoned.clone());
        match &def.body {
            Body::Supervisor(_) => {
                let node =
                    self.node.branch.as_ref().and_then(|b| b.children().into_iter().find(|n| n.path == def.path));
                if let Some(node) = node {
                    let tx = spawn_supervisor(self.control.clone(), node, report);
                    self.handles.insert(key, Handle::Supervisor { tx });
                }
            }
            Body::Worker(launch) => {
                let place = match self.control.arbiters.place(&def.thread, &def.path) {
                    Ok(place) => place,
                    Err(why) => {
                        let why = format!("no thread for it: {why}");
                        return report.not_started(StartFailure { path: def.path.clone(), why });
                    }
                };
                let (ctl, orders) = mpsc::unbounded_channel();
                let pause: Arc<Pause> = Arc::default();
                let order = Order {
                    epoch: self.control.next_epoch(&def.meta, def.tenure.as_ref()),
                    report,
                    ctl: orders,
                    pause: pause.clone(),
                    stop_within: match def.rules.shutdown {
                        Shutdown::BrutalKill => Some(std::time::Duration::ZERO),
                        Shutdown::Timeout(limit) => Some(limit),
                        Shutdown::Infinity => None,
                    },
                    restarts_after: match def.rules.restart {
                        Restart::Permanent => |_| true,
                        Restart::Transient => Exit::is_abnormal,
                        Restart::Temporary => |_| false,
                    },
                    thread: place.name.clone(),
                };
                let launch = launch.clone();
                if !place.run(move || launch.launch(order)) {
                    // The dropped order reports the failed start; the next one gets a new thread.
                    self.control.arbiters.abandon(&place);
                }
                self.handles.insert(key, Handle::Worker { ctl, pause, place, abandoned });
            }
        }
    }

    fn order(&self, key: Key, worker: Ctl, supervisor: In) {
        // A closed channel: it ended meanwhile, and its report is on the way.
        match self.handles.get(&key) {
            Some(Handle::Worker { ctl, .. }) => drop(ctl.send(worker)),
            Some(Handle::Supervisor { tx }) => drop(tx.send(supervisor)),
            None => {}
        }
    }

    fn let_go(&mut self, key: Key, current: bool) {
        if current && let Some(Handle::Worker { place, .. }) = self.handles.remove(&key) {
            self.control.arbiters.release(&place);
        }
    }

    /// Its thread is stuck: everything on it is given up, and told so.
    fn abandon(&mut self, key: Key) {
        let Some(handle) = self.handles.remove(&key) else { return };
        let Some(def) = self.engine.payload(key) else { return };
        if let (Handle::Worker { place, abandoned, .. }, Body::Worker(launch)) = (handle, &def.body) {
            tracing::error!(child = %def.path, thread = %place.name, "thread given up");
            abandoned.store(true, Ordering::Release);
            launch.detach();
            let exit = Exit::Hung("its thread was given up".into());
            def.meta.ended(&exit);
            def.meta.given_up.fetch_max(def.meta.epoch.load(Ordering::Relaxed), Ordering::Release);
            def.meta.watchers.close(def.meta.epoch.load(Ordering::Relaxed), &exit);
            self.control.give_up(&place);
            for supervisor in self.control.supervisors.borrow().iter() {
                let _ = supervisor.send(In::Lost { place: place.id }); // over: it has nobody there
            }
        }
    }
}

fn state_of(phase: &ChildPhase, meta: &CellMeta, comes_back: bool) -> ActorState {
    let first = meta.incarnation.load(Ordering::Relaxed) == 0;
    match phase {
        ChildPhase::Idle => ActorState::Stopped,
        ChildPhase::Queued { .. } | ChildPhase::Starting { .. } if first => ActorState::Starting,
        ChildPhase::Queued { .. } | ChildPhase::Starting { .. } | ChildPhase::Backoff | ChildPhase::Dead => {
            ActorState::Restarting
        }
        ChildPhase::Up { .. } => ActorState::Up,
        ChildPhase::Ending(_) if comes_back => ActorState::Restarting,
        ChildPhase::Ending(_) => ActorState::Stopping,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
