//! A lane whose actor has no room.

use super::*;
use crate::rpc::bridge::exports::EpochGate;
use crate::rpc::bridge::hello::{Hello, our_versions};
use crate::rpc::bridge::link::{Bounds, Link};
use crate::supervisor::wire::WireForm;
use crate::supervisor::{Actor, CallError, ChildSpec, Cx, Exit, Export, Handler, Message, Ref, SupervisorSpec, Tree};
use crate::wire::codec;
use std::sync::atomic::AtomicU64;
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

fn peer_session() -> Arc<PeerSession> {
    let link = Link::still(Bounds::default());
    let hello =
        Hello { versions: our_versions(), boot: 1, cluster: "c".into(), serial: 1, max_frame: LIMIT, schemas: vec![] };
    let terms = hello.agree(&hello).unwrap();
    Arc::new(PeerSession::new(libp2p::PeerId::random(), 1, terms, link, Arc::default(), 1))
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
    type Change = fn(&Exports, &AtomicU64);
    let changes: [(&str, Change, Refusal); 2] = [
        ("another epoch", |_, held| held.store(6, Ordering::Release), Refusal::Fenced),
        ("no export", |exports, _| exports.remove("/stuck"), Refusal::UnknownPath),
    ];
    for (name, change, why) in changes {
        let (exports, held, peer_session) = (Exports::default(), Arc::new(AtomicU64::new(5)), peer_session());
        exports.set(Export::of(&home).message::<Hang>().done().unwrap(), EpochGate::of(held.clone()));
        let mut inbox = Inbox::new(1);
        inbox.buffer = [tell(1, Some("/stuck"), 5), tell(2, None, 5)].concat();
        inbox.end = inbox.buffer.len();
        assert_eq!(inbox.take_all(&peer_session, &exports, LIMIT), Next::Wait, "{name}");
        assert!(inbox.waits());
        change(&exports, &held);
        assert_eq!(inbox.take_all(&peer_session, &exports, LIMIT), Next::Go, "{name}");
        assert!(!inbox.waits(), "{name}: it would never be read again");
        assert_eq!(peer_session.counters.refused(why), 2, "{name}");
    }
}

/// Notes down what it is told.
struct Noting(mpsc::Sender<u32>);
impl Actor for Noting {}
#[derive(serde::Serialize, serde::Deserialize)]
struct Note(u32);
impl Message for Note {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(1, 1));
}
#[derive(serde::Serialize, serde::Deserialize)]
struct Other(u32);
impl Message for Other {
    type Reply = ();
    const WIRE: Option<WireForm<Self>> = Some(codec::form(2, 1));
}
impl Handler<Note> for Noting {
    async fn handle(&mut self, Note(it): Note, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(it);
        Ok(())
    }
}
impl Handler<Other> for Noting {
    async fn handle(&mut self, Other(it): Other, _: &Cx<Self>) -> Result<(), Exit> {
        let _ = self.0.send(it);
        Ok(())
    }
}

#[test]
fn tells_that_came_together_arrive_as_if_they_had_come_one_by_one() {
    let frame = |serial, message, epoch, body: &[u8]| {
        let to = To { number: 0, defines: (serial == 1).then_some("/noting") };
        let head = Head::Tell(Call { corr: serial, to, message, schema: 1, epoch, trace: None });
        let mut bytes = Vec::new();
        let start = frame::begin(&mut bytes, 1, &head);
        bytes.extend_from_slice(body);
        frame::finish(&mut bytes, start, LIMIT).unwrap();
        bytes
    };
    let body = |n: u32| {
        let mut bytes = Vec::new();
        codec::encode(&n, &mut bytes).unwrap();
        bytes
    };
    let (told, notes) = mpsc::channel();
    let home: Ref<Noting> = Ref::new("/noting", 1000);
    let child = ChildSpec::actor("noting", &home, move |_| {
        let told = told.clone();
        async { Ok(Noting(told)) }
    });
    let _tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
    let (exports, peer_session) = (Exports::default(), peer_session());
    exports.set(Export::of(&home).message::<Note>().message::<Other>().done().unwrap(), EpochGate::at(5));
    // Serial, message, epoch and body of what comes at once; then what of it is handled, and what is refused.
    let run = |from: u64, to: u64| (from..=to).map(|n| (n, 1, 5, body(n as u32))).collect::<Vec<_>>();
    type Frames = Vec<(u64, u32, u64, Vec<u8>)>;
    let cases: [(&str, Frames, Vec<u32>, &[Refusal]); 7] = [
        ("many", run(1, 200), (1..=200).collect(), &[]),
        (
            "a replay among them",
            [run(201, 203), run(202, 202), run(204, 205)].concat(),
            (201..=205).collect(),
            &[Refusal::Replayed],
        ),
        ("all of it a replay", run(200, 203), vec![], &[Refusal::Replayed; 4]),
        (
            "another message among them",
            [run(206, 207), vec![(208, 2, 5, body(208))], run(209, 210)].concat(),
            (206..=210).collect(),
            &[],
        ),
        (
            "another epoch",
            [run(211, 212), vec![(213, 1, 4, body(213)), (214, 1, 4, body(214))]].concat(),
            vec![211, 212],
            &[Refusal::Fenced, Refusal::Fenced],
        ),
        (
            "no message",
            [run(215, 216), vec![(217, 1, 5, vec![])], run(218, 219)].concat(),
            vec![215, 216, 218, 219],
            &[Refusal::UnknownMessage],
        ),
        (
            "a message of another actor",
            vec![(220, 9, 5, body(220)), (221, 9, 5, body(221))],
            vec![],
            &[Refusal::UnknownMessage, Refusal::UnknownMessage],
        ),
    ];
    let mut inbox = Inbox::new(1);
    let mut frames_in = 0;
    for (name, frames, handled, refused) in cases {
        let before = peer_session.counters.all_refused();
        inbox.buffer =
            frames.iter().flat_map(|(serial, message, epoch, body)| frame(*serial, *message, *epoch, body)).collect();
        (inbox.start, inbox.end) = (0, inbox.buffer.len());
        frames_in += frames.len() as u64;
        assert_eq!(inbox.take_all(&peer_session, &exports, LIMIT), Next::Go, "{name}");
        let arrived: Vec<u32> = handled.iter().map(|_| notes.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
        assert_eq!(arrived, handled, "{name}");
        for why in [Refusal::Replayed, Refusal::Fenced, Refusal::UnknownMessage] {
            let more = refused.iter().filter(|it| **it == why).count() as u64;
            let counted =
                || peer_session.counters.refused(why) - before.iter().find(|it| it.0 == why).map_or(0, |it| it.1);
            let late = Instant::now() + Duration::from_secs(30);
            while counted() < more && Instant::now() < late {
                std::thread::yield_now(); // on the actor's thread
            }
            assert_eq!(counted(), more, "{name}: {why:?}");
        }
        assert_eq!(peer_session.counters.frames_in.load(Ordering::Relaxed), frames_in, "{name}");
    }
    assert!(notes.try_recv().is_err());
}

#[test]
fn what_could_not_be_delivered_together_is_looked_at_once_only() {
    let (_tree, home) = full();
    let (exports, peer_session) = (Exports::default(), peer_session());
    exports.set(Export::of(&home).message::<Hang>().done().unwrap(), EpochGate::at(5));
    // The path is defined by a frame that waits for room in vain.
    let inbox_at = |epoch| {
        let mut inbox = Inbox::new(1);
        inbox.buffer = tell(1, Some("/stuck"), epoch);
        inbox.end = inbox.buffer.len();
        while inbox.take_all(&peer_session, &exports, LIMIT) == Next::Wait {}
        inbox
    };
    for (name, epoch, why) in [("no room", 5, Refusal::Undelivered), ("another epoch", 4, Refusal::Fenced)] {
        let mut inbox = inbox_at(epoch);
        let before = peer_session.counters.refused(why);
        let frames: Vec<u8> = (2..=31).flat_map(|serial| tell(serial, None, epoch)).collect();
        let (first, _) = frame::parse(&frames, LIMIT).unwrap().unwrap();
        for left in [29, 28, 27] {
            assert_eq!(inbox.batch(&peer_session, &exports, &first, &frames, LIMIT), (0, 0), "{name}");
            assert_eq!(inbox.one_by_one, left, "{name}");
        }
        (inbox.start, inbox.end, inbox.one_by_one) = (0, frames.len(), 0);
        inbox.buffer = frames;
        assert_eq!(inbox.take_all(&peer_session, &exports, LIMIT), Next::Go, "{name}");
        assert_eq!((inbox.one_by_one, peer_session.counters.refused(why) - before), (0, 30), "{name}");
    }
}
