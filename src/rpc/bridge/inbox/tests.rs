//! A lane whose actor has no room.

use super::*;
use crate::rpc::bridge::codec;
use crate::rpc::bridge::exports::EpochGate;
use crate::rpc::bridge::hello::{Hello, our_versions};
use crate::rpc::bridge::link::{Bounds, Link};
use crate::supervisor::wire::WireForm;
use crate::supervisor::{Actor, CallError, ChildSpec, Cx, Export, Handler, Message, Ref, SupervisorSpec, Tree};
use std::sync::mpsc;

const LIMIT: u32 = 1 << 20;

/// Says when it has begun, and never ends.
struct Stuck(mpsc::Sender<()>);
impl Actor for Stuck {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Hang;
impl Message for Hang {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 1));
}
impl Handler<Hang> for Stuck {
    async fn handle(&mut self, _: Hang, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(());
        std::future::pending().await
    }
}

/// An actor whose mailbox is full for good.
fn full() -> (Tree, Ref<Stuck>) {
    let (begun, begins) = mpsc::channel();
    let home: Ref<Stuck> = Ref::new("/stuck", 1);
    let child = ChildSpec::actor("stuck", &home, move |_| {
        let begun = begun.clone();
        async { Ok(Stuck(begun)) }
    });
    let tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
    home.tell(Hang).unwrap();
    begins.recv_timeout(Duration::from_secs(30)).unwrap();
    while !matches!(home.tell(Hang), Err(CallError::Full(_))) {}
    (tree, home)
}

fn life() -> Arc<Life> {
    let link = Link::still(Bounds::default());
    let hello =
        Hello { versions: our_versions(), boot: 1, cluster: "c".into(), serial: 1, max_frame: LIMIT, schemas: vec![] };
    let terms = hello.agree(&hello).unwrap();
    Arc::new(Life::new(libp2p::PeerId::random(), 1, terms, link, Arc::default(), 1))
}

fn tell(serial: u64, path: Option<&str>, epoch: u64) -> Vec<u8> {
    let to = To { number: 0, defines: path };
    let head = Head::Tell(Call { corr: serial, to, message: 1, schema: 1, epoch, trace: None });
    let mut bytes = Vec::new();
    let start = frame::begin(&mut bytes, 1, &head);
    codec::encode(&Hang, &mut bytes).unwrap();
    frame::finish(&mut bytes, start, LIMIT).unwrap();
    bytes
}

#[test]
fn a_lane_that_waited_for_room_goes_on_whatever_changed_meanwhile() {
    let (_tree, home) = full();
    type Change = fn(&Exports, &EpochGate);
    let changes: [(&str, Change, Refusal); 2] = [
        ("another epoch", |_, gate| gate.set(6), Refusal::Fenced),
        ("no export", |exports, _| exports.remove("/stuck"), Refusal::UnknownPath),
    ];
    for (name, change, why) in changes {
        let (exports, gate, life) = (Exports::default(), EpochGate::at(5), life());
        exports.set(Export::of(&home).message::<Hang>().done().unwrap(), gate.clone());
        let mut inbox = Inbox::new(1);
        inbox.buffer = [tell(1, Some("/stuck"), 5), tell(2, None, 5)].concat();
        inbox.end = inbox.buffer.len();
        assert_eq!(inbox.take_all(&life, &exports, LIMIT), Next::Wait, "{name}");
        assert!(inbox.waits());
        change(&exports, &gate);
        assert_eq!(inbox.take_all(&life, &exports, LIMIT), Next::Go, "{name}");
        assert!(!inbox.waits(), "{name}: it would never be read again");
        assert_eq!(life.counters.refused(why), 2, "{name}");
    }
}
