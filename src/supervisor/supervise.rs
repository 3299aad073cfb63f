//! A supervisor: feeds its engine, carries out the commands. No user code runs in it.

mod combiner;
mod control;
mod upgrade;

pub(super) use combiner::Combiner;
pub(super) use control::{Control, keep};

use super::cell::{ActorState, CellMeta};
use super::engine::{
    AdminError, CallAnswer, ChildPhase, End, Engine, EngineCommand, EngineEvent, Key, Serial, StartFailure,
    SupervisorCall,
};
use super::exit::Exit;
use super::node::TreeNode;
use super::policy::{Restart, Shutdown};
use super::shell::{ArbiterSlot, ChildReport, Ctl, CtlSender, Pause, ReportSink, Reporter, StartOrder};
use super::spec::{Body, ChildDef, SupDef};
use control::ControlTask;
use rand::Rng;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

pub(super) type CallReply = oneshot::Sender<Result<CallAnswer, AdminError>>;

/// A supervisor's messages.
pub(super) enum SupervisorMsg {
    /// To start the children of its spec.
    Begin,
    /// The deadline that it asked to be woken at.
    Tick(Instant),
    Child(Key, Serial, ChildReport),
    Stop,
    Kill,
    /// End in order for that reason.
    Over(Exit),
    Call(SupervisorCall<Arc<ChildDef>>, CallReply),
    Upgrade(Arc<SupDef>, CallReply),
    Hung {
        key: Key,
        /// The one that was seen to hang; by now it may have a successor.
        incarnation: u64,
        what: String,
    },
    /// The thread of that arbiter was given up.
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

enum Handle {
    Worker { ctl: CtlSender, pause: Arc<Pause>, place: ArbiterSlot, abandoned: Arc<AtomicBool> },
    Supervisor { combiner: Arc<Combiner> },
}

pub(super) struct Supervisor {
    control: Arc<Control>,
    combiner: Weak<Combiner>,
    def: Arc<SupDef>,
    node: Arc<TreeNode>,
    engine: Engine<Arc<ChildDef>>,
    handles: HashMap<Key, Handle>,
    replies: HashMap<u64, CallReply>,
    next_ticket: u64,
    /// Keys that incarnations were started with, where an upgrade has given their child another.
    aliases: HashMap<Key, Key>,
    /// Specs that the engine has yet to take over.
    upgrades: VecDeque<Arc<SupDef>>,
    epoch: u64,
    tell: ReportSink,
    report: Reporter,
    /// When it will be woken; each was asked for once.
    alarms: BTreeSet<Instant>,
}

/// Starts a supervisor; its end comes through `report`.
pub(super) fn open_supervisor(control: Arc<Control>, node: Arc<TreeNode>, report: Reporter) -> Option<Arc<Combiner>> {
    let branch = node.branch.as_ref()?;
    let combiner =
        Combiner::of(|combiner| Supervisor::new(control.clone(), combiner.clone(), node.clone(), branch.def(), report));
    branch.open(combiner.clone());
    control.enter(&combiner);
    combiner.send(SupervisorMsg::Begin);
    Some(combiner)
}

impl Supervisor {
    fn new(
        control: Arc<Control>,
        combiner: Weak<Combiner>,
        node: Arc<TreeNode>,
        def: Arc<SupDef>,
        report: Reporter,
    ) -> Supervisor {
        let epoch = control.next_epoch(&node.meta, None);
        node.meta.watchers.open(epoch).tell();
        let to_me = combiner.clone();
        Supervisor {
            engine: Engine::new(def.path.as_str(), def.flags.clone()),
            def,
            node,
            control,
            combiner,
            handles: HashMap::new(),
            replies: HashMap::new(),
            next_ticket: 1,
            aliases: HashMap::new(),
            upgrades: VecDeque::new(),
            epoch,
            tell: Arc::new(move |key, serial, news| {
                if let Some(me) = to_me.upgrade() {
                    me.send(SupervisorMsg::Child(key, serial, news)); // it is over: nobody cares any more
                }
            }),
            report,
            alarms: BTreeSet::new(),
        }
    }

    /// It panicked. What it supervised must not run on without it.
    fn crash(self, what: String) {
        tracing::error!(supervisor = %self.def.path, %what, "panicked");
        self.handles.keys().for_each(|key| self.order(*key, Ctl::Kill, SupervisorMsg::Kill));
        self.leave(End::Exit(Exit::Panicked(what)));
    }

    /// It has ended.
    fn leave(mut self, end: End) {
        if let Some(branch) = &self.node.branch {
            branch.close();
        }
        for (_, reply) in self.replies.drain() {
            let _ = reply.send(Err(AdminError::NoSupervisor));
        }
        // Those of the spec may run again, if this supervisor does; those that were added are forgotten with it.
        let own: HashSet<*const ChildDef> = self.def.children.iter().map(Arc::as_ptr).collect();
        self.engine.payloads().filter(|def| !own.contains(&Arc::as_ptr(def))).for_each(|def| def.release());
        // The root has no parent that would enter this in its books.
        let exit = match &end {
            End::NotStarted(why) => Exit::Failed(format!("{} did not start: {}", why.path, why.why)),
            End::Exit(exit) => exit.clone(),
        };
        self.node.meta.ended(&exit);
        self.node.meta.watchers.close(self.epoch, &exit);
        match end {
            End::NotStarted(why) => self.report.not_started(why),
            End::Exit(exit) => self.report.ended(exit),
        }
    }

    /// `Some`: that was the last.
    fn handle(&mut self, event: SupervisorMsg) -> Option<End> {
        let over = self.apply(event);
        if let Some(at) = self.engine.next_deadline()
            && self.alarms.first().is_none_or(|first| at < *first)
        {
            self.alarms.insert(at);
            self.control.ask(ControlTask::Wake(at, self.combiner.clone()));
        }
        over
    }

    fn apply(&mut self, event: SupervisorMsg) -> Option<End> {
        match event {
            SupervisorMsg::Begin => {
                for def in self.def.clone().children.iter() {
                    let key = self.engine.add(def.id.clone(), def.rules.clone(), def.clone());
                    self.show(key, def);
                }
                self.step(EngineEvent::Begin)
            }
            SupervisorMsg::Tick(at) => {
                self.alarms.remove(&at);
                self.step(EngineEvent::Tick)
            }
            SupervisorMsg::Child(key, serial, news) => {
                let key = self.present(key);
                let current = self.engine.serial(key) == Some(serial);
                match news {
                    ChildReport::Started => self.step(EngineEvent::Started { key, serial }),
                    ChildReport::NotStarted(why) => {
                        self.drop_handle(key, current);
                        if current {
                            tracing::warn!(child = %why.path, why = %why.why, "did not start");
                        }
                        self.step(EngineEvent::StartFailed { key, serial, why })
                    }
                    ChildReport::Ignored => {
                        self.drop_handle(key, current);
                        self.step(EngineEvent::Ignored { key, serial })
                    }
                    ChildReport::Down(exit) => {
                        self.drop_handle(key, current);
                        if let Some(def) = self.engine.payload(key).filter(|_| current) {
                            match exit.is_abnormal() {
                                true => tracing::error!(child = %def.path, %exit, "ended"),
                                false => tracing::debug!(child = %def.path, %exit, "ended"),
                            }
                        }
                        self.step(EngineEvent::Down { key, serial, exit })
                    }
                }
            }
            SupervisorMsg::Stop => self.step(EngineEvent::Stop(Exit::Shutdown)),
            SupervisorMsg::Kill => self.step(EngineEvent::Kill),
            SupervisorMsg::Over(exit) => self.step(EngineEvent::Stop(exit)),
            SupervisorMsg::Upgrade(def, reply) => self.upgrade(def, reply),
            SupervisorMsg::Call(call, reply) => {
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                self.replies.insert(ticket, reply);
                let added = match &call {
                    SupervisorCall::Start { id, payload, .. } => Some((id.clone(), payload.clone())),
                    _ => None,
                };
                let before = added.as_ref().and_then(|(id, _)| self.engine.key_of(id));
                let (commands, over) = self.decide(EngineEvent::Call { ticket, call });
                if let Some((id, def)) = added
                    && before.is_none()
                    && let Some(key) = self.engine.key_of(&id)
                {
                    self.show(key, &def);
                }
                self.carry_out(commands);
                over
            }
            SupervisorMsg::Hung { key, incarnation, what } => {
                let key = self.present(key);
                let present = self.engine.payload(key).map(|def| def.meta.incarnation.load(Ordering::Relaxed));
                if present != Some(incarnation) {
                    return None;
                }
                if let Some(def) = self.engine.payload(key) {
                    tracing::error!(child = %def.path, %what, "hung");
                }
                self.step(EngineEvent::Hung { key, what })
            }
            SupervisorMsg::Lost { place } => {
                let lost: Vec<Key> = self
                    .handles
                    .iter()
                    .filter(|(_, h)| matches!(h, Handle::Worker { place: p, .. } if p.id == place))
                    .map(|(k, _)| *k)
                    .collect();
                for key in lost {
                    if let Some(serial) = self.engine.serial(key)
                        && let Some(end) = self.step(EngineEvent::Lost { key, serial })
                    {
                        return Some(end);
                    }
                }
                None
            }
            SupervisorMsg::Suspend { key, suspend } => {
                if let Some(Handle::Worker { ctl, pause, .. }) = self.handles.get(&self.present(key))
                    && pause.want(suspend)
                {
                    let _ = ctl.send(Ctl::Pause); // gone: nothing to suspend
                }
                None
            }
            SupervisorMsg::Order { key, order } => {
                if let Some(Handle::Worker { ctl, .. }) = self.handles.get(&self.present(key)) {
                    let _ = ctl.send(order); // gone: nobody is left to be told
                }
                None
            }
        }
    }

    fn step(&mut self, event: EngineEvent<Arc<ChildDef>>) -> Option<End> {
        let (commands, over) = self.decide(event);
        self.carry_out(commands);
        over
    }

    fn decide(&mut self, event: EngineEvent<Arc<ChildDef>>) -> (Vec<EngineCommand>, Option<End>) {
        let now = Instant::now();
        let jitter = rand::thread_rng().gen_range(-1.0..=1.0);
        let mut commands = self.engine.step(now, event, jitter);
        if let Some(keys) = self.engine.take_rekeyed() {
            self.rekey(keys);
        }
        for key in self.engine.take_touched() {
            if let (Some(phase), Some(def)) = (self.engine.phase(key), self.engine.payload(key)) {
                def.meta.set_state(state_of(phase, &def.meta, self.engine.comes_back(key)));
                def.meta.set_held(self.engine.held(key).map(|held| held.to_string()));
            }
        }
        if let Some(branch) = &self.node.branch {
            branch.budget_used.store(self.engine.budget(now).0, Ordering::Relaxed);
        }
        let over = match commands.last() {
            Some(EngineCommand::End(_)) => match commands.pop() {
                Some(EngineCommand::End(end)) => Some(end),
                _ => None,
            },
            _ => None,
        };
        (commands, over)
    }

    fn carry_out(&mut self, commands: Vec<EngineCommand>) {
        for command in commands {
            match command {
                EngineCommand::Start { key, serial } => self.start(key, serial),
                EngineCommand::Stop { key } => {
                    self.order(key, Ctl::Stop { again: self.engine.comes_back(key) }, SupervisorMsg::Stop)
                }
                EngineCommand::Kill { key } => self.order(key, Ctl::Kill, SupervisorMsg::Kill),
                EngineCommand::Abandon { key } => self.abandon(key),
                EngineCommand::Reply { ticket, result } => {
                    if let Some(reply) = self.replies.remove(&ticket) {
                        let _ = reply.send(result); // the caller may have given up
                    }
                }
                EngineCommand::Removed { key } => {
                    let node = self.node.branch.as_ref().and_then(|branch| branch.remove(key));
                    if let Some(node) = node.filter(|node| node.fleeting) {
                        self.control.forget(&node.meta.path);
                    }
                }
                EngineCommand::Up => {
                    self.node.meta.set_state(ActorState::Up);
                    self.report.started();
                }
                EngineCommand::End(_) => {} // taken off by `decide`
            }
        }
    }

    fn show(&self, key: Key, def: &Arc<ChildDef>) {
        def.meta.report_to(self.control.letters.clone());
        if let Some(branch) = &self.node.branch {
            branch.add(key, TreeNode::child(def));
        }
    }

    fn start(&mut self, key: Key, serial: Serial) {
        let Some(def) = self.engine.payload(key).cloned() else { return };
        self.aliases.retain(|_, present| *present != key);
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut report = Reporter::new(self.tell.clone(), key, serial, def.path.clone(), abandoned.clone());
        match &def.body {
            Body::Supervisor(_) => {
                let node = self.node.branch.as_ref().and_then(|branch| branch.child(&def.path));
                if let Some(node) = node {
                    let combiner = open_supervisor(self.control.clone(), node, report);
                    self.handles.extend(combiner.map(|combiner| (key, Handle::Supervisor { combiner })));
                }
            }
            Body::Worker(launch) => {
                let place = match self.control.arbiters.place(&def.thread, &def.path) {
                    Ok(place) => place,
                    Err(why) => {
                        let why = format!("no thread for it: {why}");
                        return report.not_started(StartFailure { path: def.path.to_string(), why });
                    }
                };
                let (ctl, orders) = mpsc::unbounded_channel();
                let pause: Arc<Pause> = Arc::default();
                let order = StartOrder {
                    epoch: self.control.next_epoch(&def.meta, def.epoch_source.as_ref()),
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

    fn order(&self, key: Key, worker: Ctl, supervisor: SupervisorMsg) {
        // A closed channel: it ended meanwhile, and its report is on the way.
        match self.handles.get(&key) {
            Some(Handle::Worker { ctl, .. }) => drop(ctl.send(worker)),
            Some(Handle::Supervisor { combiner }) => drop(combiner.send(supervisor)),
            None => {}
        }
    }

    fn drop_handle(&mut self, key: Key, current: bool) {
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
