//! A Ref's calls to an actor of another process: the same errors, deadlines and monitors, with the message given back.
//! The carrier here hands bytes to the other side's Export at once; the bridge does the same over sockets.

use bulkhead::rpc::bridge::codec;
use bulkhead::supervisor::wire::{Carrier, Fault, OutgoingMessage, RemoteEnvelope, WireError, WireForm, WireLane};
use bulkhead::supervisor::*;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const SOON: Duration = Duration::from_secs(20);

/// Adds up; on [`Hold`] it waits for its gate.
struct Sum {
    total: u64,
    gate: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}
impl Actor for Sum {}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Add(u64);
impl Message for Add {
    type Reply = u64;
    const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 3));
}
#[derive(Serialize, Deserialize)]
struct Hold;
impl Message for Hold {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::control(2, 1));
}
#[derive(Serialize, Deserialize)]
struct Panic;
impl Message for Panic {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(3, 1));
}
/// Has no wire form.
#[derive(Debug)]
struct Local;
impl Message for Local {
    type Reply = &'static str;
}

impl Handler<Add> for Sum {
    async fn handle(&mut self, Add(n): Add, _: &Cx<Self>) -> Result<u64, Exit> {
        self.total += n;
        Ok(self.total)
    }
}
impl Handler<Hold> for Sum {
    async fn handle(&mut self, _: Hold, _: &Cx<Self>) -> Result<(), Exit> {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            let _ = gate.await;
        }
        Ok(())
    }
}
impl Handler<Panic> for Sum {
    async fn handle(&mut self, _: Panic, _: &Cx<Self>) -> Result<(), Exit> {
        panic!("told to")
    }
}
impl Handler<Local> for Sum {
    async fn handle(&mut self, _: Local, _: &Cx<Self>) -> Result<&'static str, Exit> {
        Ok("near")
    }
}

/// Brings the bytes to an [`Export`] of this process, unless it is told that the node is down.
struct Wire {
    export: Export,
    down: Option<Fault>,
    schema: Option<u16>,
    lanes: Arc<Mutex<Vec<WireLane>>>,
}

impl Carrier for Wire {
    fn carry(
        &self,
        envelope: RemoteEnvelope,
        outgoing: Box<dyn OutgoingMessage>,
    ) -> Result<(), (Fault, Box<dyn OutgoingMessage>)> {
        if let Some(fault) = &self.down {
            return Err((fault.clone(), outgoing));
        }
        self.lanes.lock().unwrap().push(envelope.lane);
        let mut body = Vec::new();
        if let Err(WireError(why)) = outgoing.write(&mut body) {
            return Err((Fault::Refused(why), outgoing));
        }
        let asked = envelope.within.is_some();
        let outgoing = Arc::new(Mutex::new(Some(outgoing)));
        let waiting = outgoing.clone();
        let respond: wire::Respond = Box::new(move |answer| {
            let Some(outgoing) = waiting.lock().unwrap().take() else { return };
            match answer {
                Ok(write) => {
                    let mut bytes = Vec::new();
                    write(&mut bytes).unwrap();
                    outgoing.settle(Ok(&bytes));
                }
                Err(fault) => outgoing.settle(Err(fault)),
            }
        });
        let schema = self.schema.unwrap_or(envelope.schemas.highest);
        let refused = self.export.deliver(envelope.id, schema, &body, envelope.within, asked.then_some(respond));
        if let Err((fault, _)) = refused
            && let Some(outgoing) = outgoing.lock().unwrap().take()
        {
            outgoing.settle(Err(fault));
        }
        Ok(())
    }

    fn watch(&self, _: &Arc<str>, to: Recipient<Down>) -> Box<dyn Send + Sync> {
        Box::new(self.export.monitor(to))
    }
}

struct Far {
    _tree: Tree,
    /// The actor as its own process sees it.
    home: Ref<Sum>,
    /// As another one does.
    away: Ref<Sum>,
    open: oneshot::Sender<()>,
    /// Empty once a hold has begun.
    gate: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    lanes: Arc<Mutex<Vec<WireLane>>>,
}

fn far(mailbox: usize, change: impl FnOnce(&mut Wire)) -> Far {
    let home = Ref::new("/sum", mailbox);
    let (open, gate) = oneshot::channel();
    let gate = Arc::new(Mutex::new(Some(gate)));
    let held = gate.clone();
    let child = ChildSpec::actor("sum", &home, move |_| {
        let gate = held.clone();
        async { Ok(Sum { total: 0, gate }) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").backoff(RestartBackoff::NONE).child(child)).unwrap();
    let export = Export::of(&home).message::<Add>().message::<Hold>().message::<Panic>().done().unwrap();
    let lanes: Arc<Mutex<Vec<WireLane>>> = Arc::default();
    let mut wire = Wire { export, down: None, schema: None, lanes: lanes.clone() };
    change(&mut wire);
    let away = Ref::new("/sum", 4);
    away.route_to(Some(Box::new(wire)));
    Far { _tree: tree, home, away, open, gate, lanes }
}

#[tokio::test]
async fn the_same_call_reaches_the_actor_wherever_it_is() {
    let far = far(16, |_| {});
    assert!(far.away.is_remote() && !far.home.is_remote());
    assert_eq!(far.home.ask(Add(1), SOON).await.unwrap(), 1);
    assert_eq!(far.away.ask(Add(2), SOON).await.unwrap(), 3);
    assert_eq!(far.away.recipient::<Add>().ask(Add(3), SOON).await.unwrap(), 6);
    far.away.tell(Add(4)).unwrap();
    assert_eq!(far.away.ask(Add(0), SOON).await.unwrap(), 10);
    drop(far.open);
    far.away.ask(Hold, SOON).await.unwrap();
    assert_eq!(far.lanes.lock().unwrap().last(), Some(&WireLane::Control));
}

#[tokio::test]
async fn without_a_carrier_or_an_actor_the_message_comes_back() {
    let far = far(16, |_| {});
    far.away.route_to(None);
    assert!(matches!(far.away.ask(Add(1), SOON).await, Err(CallError::NotRunning(Add(1)))));
    assert!(matches!(far.away.tell(Add(1)), Err(CallError::NotRunning(Add(1)))));
}

#[tokio::test]
async fn a_message_without_a_wire_form_stays_here() {
    let far = far(16, |_| {});
    assert_eq!(far.home.ask(Local, SOON).await.unwrap(), "near");
    let refused = far.away.ask(Local, SOON).await;
    assert!(matches!(&refused, Err(CallError::Refused(Local, why)) if why.contains("Local")), "{refused:?}");
}

#[tokio::test]
async fn a_carriers_refusal_gives_the_message_back() {
    for fault in [Fault::NodeDown { sent: false }, Fault::Full, Fault::Fenced, Fault::Refused("no".into())] {
        let far = far(16, |wire| wire.down = Some(fault.clone()));
        assert_eq!(far.away.tell(Add(5)).unwrap_err().into_message(), Some(Add(5)), "{fault:?}");
        let asked = far.away.ask(Add(5), SOON).await.unwrap_err();
        assert_eq!(Fault::from(asked), fault);
    }
}

#[tokio::test]
async fn what_happens_to_a_far_actor_is_told_as_if_it_were_near() {
    let far = far(1, |_| {});
    let (tx, mut holding) = mpsc::channel(1);
    let asker = far.away.clone();
    tokio::spawn(async move { tx.send(asker.ask(Hold, SOON).await).await });
    while far.gate.lock().unwrap().is_some() {
        tokio::task::yield_now().await; // the hold has not begun yet
    }
    // The held actor's one place is taken, then its mailbox is full.
    let late = far.away.ask(Add(1), Duration::from_millis(20)).await;
    assert!(matches!(late, Err(CallError::Timeout)), "{late:?}");
    let full = far.away.ask(Add(2), SOON).await;
    assert!(matches!(full, Err(CallError::Full(Add(2)))), "{full:?}");
    far.open.send(()).unwrap();
    holding.recv().await.unwrap().unwrap();
    // The one whose asker gave up is not begun: its deadline went with it. It has its place until its turn comes.
    let ended = loop {
        match far.away.ask(Panic, SOON).await {
            Err(CallError::Full(Panic)) => tokio::task::yield_now().await,
            ended => break ended,
        }
    };
    assert!(matches!(ended, Err(CallError::Panicked)), "{ended:?}");
}

#[tokio::test]
async fn another_schema_is_refused_and_named() {
    let far = far(16, |wire| wire.schema = Some(9));
    let refused = far.away.ask(Add(1), SOON).await;
    let Err(CallError::Refused(Add(1), why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("schema 3") && why.contains('9'), "{why}");
}

struct Watcher(mpsc::Sender<Down>);
impl Actor for Watcher {}
impl Handler<Down> for Watcher {
    async fn handle(&mut self, down: Down, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(down).await;
        Ok(())
    }
}

#[tokio::test]
async fn a_monitor_of_a_far_actor_tells_its_end() {
    let far = far(16, |_| {});
    let watcher = Ref::new("/watcher", 4);
    let (tx, mut downs) = mpsc::channel(4);
    let child = ChildSpec::actor("watcher", &watcher, move |_| {
        let tx = tx.clone();
        async { Ok(Watcher(tx)) }
    });
    let _tree = Tree::start(SupervisorSpec::new("watch").child(child)).unwrap();
    let _monitor = far.away.monitor(watcher.recipient());
    assert!(matches!(far.away.ask(Panic, SOON).await, Err(CallError::Panicked)));
    let down = tokio::time::timeout(SOON, downs.recv()).await.unwrap().unwrap();
    assert_eq!((down.path.as_str(), down.incarnation), ("/sum", 1));
    assert!(matches!(down.reason, Exit::Panicked(_)), "{:?}", down.reason);
}

#[test]
fn two_messages_of_one_number_are_found_at_the_start() {
    #[derive(Serialize, Deserialize)]
    struct Twin;
    impl Message for Twin {
        type Reply = ();
        const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 1));
    }
    impl Handler<Twin> for Sum {
        async fn handle(&mut self, _: Twin, _: &Cx<Self>) -> Result<(), Exit> {
            Ok(())
        }
    }
    let twins = Export::of(&Ref::<Sum>::new("/sum", 1)).message::<Add>().message::<Twin>().done();
    assert_eq!(twins.err().map(|e| e.id), Some(1));
}
