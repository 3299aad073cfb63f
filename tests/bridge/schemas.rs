//! Nodes whose versions of one message differ. What each reads it says by what it exports; nothing is set by hand.

use crate::support::bridge::*;
use bulkhead::rpc::bridge::{Bridge, EpochGate};
use bulkhead::supervisor::wire::WireError;
use bulkhead::supervisor::*;
use bulkhead::wire::codec;
use libp2p::PeerId;

const SHELF: &str = "/t01000/shelf";

/// One version of a node: the message as it is there, and an actor that takes it.
trait Edition: Sized + 'static {
    type Put: Message;
    type Shelf: Actor + Handler<Self::Put>;
    fn shelf() -> Self::Shelf;
}

/// An actor of each version; it answers with how much it has.
macro_rules! shelf {
    ($edition:ident, |$put:ident| $n:expr, |$total:ident| $reply:expr) => {
        pub struct $edition;
        pub struct Shelf(u64);
        impl Actor for Shelf {}
        impl Handler<Put> for Shelf {
            async fn handle(&mut self, $put: Put, _: &Cx<Self>) -> Result<<Put as Message>::Reply, Exit> {
                self.0 += $n;
                let $total = self.0;
                Ok($reply)
            }
        }
        impl super::Edition for $edition {
            type Put = Put;
            type Shelf = Shelf;
            fn shelf() -> Shelf {
                Shelf(0)
            }
        }
    };
}

mod first {
    use bulkhead::supervisor::wire::WireForm;
    use bulkhead::supervisor::*;
    use bulkhead::wire::codec;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    pub struct Put(pub u64);
    impl Message for Put {
        type Reply = u64;
        const WIRE: Option<WireForm<Self>> = Some(codec::form(77, 1));
    }
    shelf!(First, |put| put.0, |total| total);
}

mod second {
    use bulkhead::supervisor::wire::{WireError, WireForm};
    use bulkhead::supervisor::*;
    use bulkhead::wire::codec::{self, Earlier};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    pub struct Put {
        pub n: u64,
        pub times: u64,
    }
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    pub struct Held {
        pub label: Option<String>,
        pub total: u64,
    }
    impl Message for Put {
        type Reply = Held;
        const WIRE: Option<WireForm<Self>> =
            Some(codec::form(77, 2).with_previous(codec::previous::<Self, super::first::Put>()));
    }
    impl Earlier<Put> for super::first::Put {
        type Reply = u64;
        fn upgrade(self) -> Put {
            Put { n: self.0, times: 1 }
        }
        fn downgrade(put: &Put) -> Result<Self, WireError> {
            match put.times {
                1 => Ok(super::first::Put(put.n)),
                times => Err(WireError(format!("the other node is older and cannot put {times} times: update it"))),
            }
        }
        fn upgrade_reply(total: u64) -> Held {
            Held { label: None, total }
        }
        fn downgrade_reply(held: &Held) -> Result<u64, WireError> {
            Ok(held.total)
        }
    }
    shelf!(Second, |put| put.n * put.times, |total| Held { label: Some("shelf".into()), total });
}

mod third {
    use bulkhead::supervisor::wire::{WireError, WireForm};
    use bulkhead::supervisor::*;
    use bulkhead::wire::codec::{self, Earlier};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    pub struct Put {
        pub total: u128,
    }
    impl Message for Put {
        type Reply = super::second::Held;
        const WIRE: Option<WireForm<Self>> =
            Some(codec::form(77, 3).with_previous(codec::previous::<Self, super::second::Put>()));
    }
    impl Earlier<Put> for super::second::Put {
        type Reply = super::second::Held;
        fn upgrade(self) -> Put {
            Put { total: u128::from(self.n) * u128::from(self.times) }
        }
        fn downgrade(put: &Put) -> Result<Self, WireError> {
            let n = u64::try_from(put.total).map_err(|e| WireError(e.to_string()))?;
            Ok(super::second::Put { n, times: 1 })
        }
        fn upgrade_reply(held: super::second::Held) -> super::second::Held {
            held
        }
        fn downgrade_reply(held: &super::second::Held) -> Result<super::second::Held, WireError> {
            Ok(super::second::Held { label: held.label.clone(), total: held.total })
        }
    }
    shelf!(Third, |put| put.total as u64, |total| super::second::Held { label: None, total });
}

struct At<E: Edition> {
    bridge: Bridge,
    _tree: Tree,
    _home: Ref<E::Shelf>,
}

impl<E: Edition> At<E> {
    fn start() -> At<E> {
        let bridge = Bridge::start(config()).unwrap();
        let home = Ref::new(SHELF, 64);
        let child = ChildSpec::actor("shelf", &home, |_| async { Ok(E::shelf()) });
        let tree = Tree::start(SupervisorSpec::new("root").child(child)).unwrap();
        bridge.export(Export::of(&home).message::<E::Put>().done().unwrap(), EpochGate::none());
        At { bridge, _tree: tree, _home: home }
    }
    /// The actor at `peer`, as this version believes that it is.
    fn away(&self, peer: PeerId) -> Ref<E::Shelf> {
        let away = Ref::new(SHELF, 16);
        away.route_to(Some(self.bridge.carrier(peer, 0)));
        away
    }
}

async fn pair<A: Edition, B: Edition>() -> (At<A>, At<B>) {
    let (a, b) = (At::start(), At::start());
    join(&a.bridge, &b.bridge).await;
    (a, b)
}

#[tokio::test]
async fn adjacent_versions_of_a_message_work_together_in_both_directions() {
    use {first::First, second::Second};
    let (old, new) = pair::<First, Second>().await;
    let (to_new, to_old) = (old.away(new.bridge.peer_id()), new.away(old.bridge.peer_id()));
    to_new.tell(first::Put(2)).unwrap();
    assert_eq!(to_new.ask(first::Put(5), SOON).await.unwrap(), 7);
    to_old.tell(second::Put { n: 3, times: 1 }).unwrap();
    let held = to_old.ask(second::Put { n: 10, times: 1 }, SOON).await.unwrap();
    assert_eq!(held, second::Held { label: None, total: 13 });
    // What the older one cannot be told comes back, and it has seen none of it.
    let refused = to_old.ask(second::Put { n: 1, times: 4 }, SOON).await.unwrap_err();
    let CallError::Refused(second::Put { n: 1, times: 4 }, why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("cannot put 4 times: update it"), "{why}");
    assert_eq!(to_old.ask(second::Put { n: 0, times: 1 }, SOON).await.unwrap().total, 13);
    // Two of the later version leave nothing out.
    let other = At::<Second>::start();
    join(&other.bridge, &new.bridge).await;
    let held = other.away(new.bridge.peer_id()).ask(second::Put { n: 4, times: 2 }, SOON).await.unwrap();
    assert_eq!(held, second::Held { label: Some("shelf".into()), total: 15 });
}

#[tokio::test]
async fn versions_that_share_no_schema_of_a_message_refuse_it_before_it_is_sent() {
    use {first::First, third::Third};
    let (old, new) = pair::<First, Third>().await;
    let refused = old.away(new.bridge.peer_id()).ask(first::Put(1), SOON).await.unwrap_err();
    let CallError::Refused(first::Put(1), why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("in schemas 2 to 3, this one has it in schema 1: update the older node"), "{why}");
    let refused = new.away(old.bridge.peer_id()).ask(third::Put { total: 1 }, SOON).await.unwrap_err();
    let CallError::Refused(third::Put { total: 1 }, why) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("in schema 1, this one has it in schemas 2 to 3: update the older node"), "{why}");
    let frames = |at: &Bridge| at.peers().iter().all(|peer| peer.refused.is_empty());
    assert!(frames(&old.bridge) && frames(&new.bridge), "nothing came that had to be refused there");
}

#[tokio::test]
async fn the_version_between_two_others_works_with_both() {
    use {second::Second, third::Third};
    let (old, new) = pair::<Second, Third>().await;
    let held = old.away(new.bridge.peer_id()).ask(second::Put { n: 2, times: 3 }, SOON).await.unwrap();
    assert_eq!(held.total, 6);
    let held = new.away(old.bridge.peer_id()).ask(third::Put { total: 9 }, SOON).await.unwrap();
    assert_eq!(held, second::Held { label: Some("shelf".into()), total: 9 });
}

#[test]
fn the_schema_before_has_the_bytes_that_it_always_had() {
    let form = second::Put::WIRE.unwrap();
    let bytes = |schema: u16, put: &second::Put| -> Result<String, WireError> {
        let mut bytes = Vec::new();
        (form.code_of(schema).unwrap().encode)(put, &mut bytes)?;
        Ok(hex::encode(bytes))
    };
    let put = second::Put { n: 300, times: 1 };
    let mut first = Vec::new();
    codec::encode(&first::Put(300), &mut first).unwrap();
    assert_eq!((bytes(1, &put).unwrap(), bytes(2, &put).unwrap()), ("fb2c01".into(), "fb2c0101".into()));
    assert_eq!(hex::encode(first), "fb2c01");
    assert!(form.code_of(0).is_none() && form.code_of(3).is_none());
    let read = (form.code_of(1).unwrap().decode)(&[0xfb, 0x2c, 0x01]);
    assert_eq!(read, Ok(put));
}
