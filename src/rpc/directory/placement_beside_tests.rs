//! Co-location: a vacant concern is taken where the one it belongs with is; one that is held elsewhere follows when all
//! is calm. And orders that nobody would carry out.

use super::*;
use crate::rpc::directory::Holder;
use libp2p::PeerId;
use std::sync::Arc;

const WINDOW: &str = "/t01000/window-post";
const SENDER: &str = "/t01000/message-sender";
/// In ms after `t0`: everything that began at `t0` has come to rest.
const REST: u64 = 15_000;

struct Case {
    view: View,
    placement: Placement,
    t0: Instant,
}

/// Three nodes of every role in contact since `t0`; `window-post` is preferred on b, then a; nobody holds anything.
fn case() -> Case {
    let t0 = Instant::now();
    let mut view = View { in_contact: true, ..View::empty(t0) };
    for name in ["a", "b", "c"] {
        view.nodes.insert(name.into(), Arc::new(NodeRecord::new(name, PeerId::random(), 1)));
    }
    let placement = Placement {
        concerns: vec![Wanted::new(SENDER, Role::DaemonLink).beside(WINDOW), Wanted::new(WINDOW, Role::WindowPost)],
        prefer: BTreeMap::from([("window-post".to_string(), vec!["b".to_string(), "a".to_string()])]),
        patience: Duration::from_secs(5),
        settle: Duration::from_secs(15),
        rest: Duration::from_millis(REST),
    };
    Case { view, placement, t0 }
}

impl Case {
    fn node(mut self, name: &str, change: impl FnOnce(&mut NodeRecord)) -> Case {
        change(Arc::make_mut(self.view.nodes.get_mut(name).unwrap()));
        self
    }
    /// Held since so many ms after `t0`.
    fn holds(mut self, name: &str, concern: &str, since: u64) -> Case {
        let holder = Holder { node: name.into(), peer_id: PeerId::random(), boot: 1, epoch: 7 };
        self.view.holders.insert(concern.into(), holder);
        self.view.held.insert(concern.into(), self.t0 + Duration::from_millis(since));
        self
    }
    fn named(mut self, names: &[&str]) -> Case {
        self.placement.prefer.insert("message-sender".into(), names.iter().map(|name| name.to_string()).collect());
        self
    }
    fn moving(mut self, concern: &str, to: &str) -> Case {
        self.view.moves.insert(concern.into(), to.into());
        self
    }
    fn gone(mut self, name: &str) -> Case {
        self.view.nodes.remove(name);
        self
    }
    /// The step of `me` about the sender then.
    fn at(&self, me: &str, ms: u64) -> Option<PlacementStep> {
        let steps = decide(&self.view, me, &self.placement, self.t0 + Duration::from_millis(ms));
        let path = |step: &PlacementStep| match step {
            PlacementStep::Acquire { concern } | PlacementStep::Release { concern, .. } => concern.clone(),
            PlacementStep::Keep { concern, .. } | PlacementStep::Wait { concern, .. } => concern.clone(),
        };
        steps.into_iter().find(|step| path(step) == SENDER)
    }
    fn acquires(&self, me: &str, ms: u64) -> bool {
        matches!(self.at(me, ms), Some(PlacementStep::Acquire { .. }))
    }
}

#[test]
fn a_vacant_one_is_taken_where_the_other_is_or_will_be() {
    let first = |case: &Case| {
        let taking: Vec<_> = ["a", "b", "c"].into_iter().filter(|me| case.acquires(me, 0)).collect();
        assert!(taking.len() <= 1, "{taking:?}");
        taking.first().copied()
    };
    let unable = |node: &mut NodeRecord| node.roles = [Role::WindowPost].into();
    let drained = |node: &mut NodeRecord| node.drained = true;
    let table = [
        ("nobody holds it: its preferred node", case(), Some("b")),
        ("its holder", case().holds("c", WINDOW, 0), Some("c")),
        ("where it is ordered to", case().holds("c", WINDOW, 0).moving(WINDOW, "a"), Some("a")),
        ("its holder cannot send", case().holds("c", WINDOW, 0).node("c", unable), Some("b")),
        ("its holder is drained", case().holds("c", WINDOW, 0).node("c", drained), Some("b")),
        ("its holder is gone", case().holds("b", WINDOW, 0).gone("b"), None),
        ("its preferred node cannot send", case().node("b", unable), Some("a")),
        ("an order of its own", case().holds("c", WINDOW, 0).moving(SENDER, "a"), Some("a")),
        ("nodes of its own", case().named(&["a"]).holds("c", WINDOW, 0), Some("a")),
    ];
    for (what, case, expected) in table {
        assert_eq!(first(&case), expected, "{what}");
    }
    // At the cold start of the cluster both wait for the same absent node; afterwards the next of both lines is the same.
    let mut absent = case().gone("b");
    assert!(!absent.acquires("a", REST - 1) && absent.acquires("a", REST));
    absent.view.vacated = [WINDOW, SENDER].map(|path| (path.to_string(), absent.t0)).into();
    assert_eq!(first(&absent), Some("a"));
    let steps = decide(&absent.view, "a", &absent.placement, absent.t0);
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| matches!(step, PlacementStep::Acquire { .. })), "{steps:?}");
}

#[test]
fn one_that_is_held_follows_when_both_have_come_to_rest() {
    let apart = || case().holds("a", SENDER, 0).holds("b", WINDOW, 0);
    let late = |concern: &str, name: &str| apart().holds(name, concern, 1);
    let in_contact_again = |mut case: Case| {
        case.view.since = case.t0 + Duration::from_millis(1);
        case
    };
    let unseen = |mut case: Case, concern: &str| {
        case.view.held.remove(concern);
        case
    };
    // The restarted window-post node has not taken its earlier start's lease over yet.
    let restarted = apart().node("b", |b| b.boot = 2);
    let table = [
        ("all is calm", apart(), true),
        ("another is preferred, but holds nothing", case().holds("a", SENDER, 0).holds("c", WINDOW, 0), true),
        ("together", case().holds("a", SENDER, 0).holds("a", WINDOW, 0), false),
        ("nobody holds the other", case().holds("a", SENDER, 0), false),
        ("the other came a moment ago", late(WINDOW, "b"), false),
        ("it came a moment ago itself", late(SENDER, "a"), false),
        ("nobody knows since when", unseen(apart(), WINDOW), false),
        ("contact is a moment old", in_contact_again(apart()), false),
        ("the other is about to move", apart().moving(WINDOW, "c"), false),
        ("it is ordered here itself", apart().moving(SENDER, "a"), false),
        ("the other's node is gone", apart().gone("b"), false),
        ("the other's node was restarted", restarted, false),
        ("the other's node is drained", apart().node("b", |b| b.drained = true), false),
        ("the other's node cannot send", apart().node("b", |b| b.roles = [Role::WindowPost].into()), false),
        ("the other is about to leave", apart().node("b", |b| b.roles = [Role::DaemonLink].into()), false),
        ("nodes of its own", apart().named(&["a", "b"]), false),
        ("nodes of its own, of which this is none", apart().named(&["c"]), false),
    ];
    for (what, case, follows) in table {
        let at = case.view.holders.get(WINDOW).map(|holder| holder.node.clone()).unwrap_or_default();
        let follow = PlacementStep::Release { concern: SENDER.into(), why: Why::Beside { at } };
        let stay = PlacementStep::Keep { concern: SENDER.into(), despite: None };
        assert_eq!(case.at("a", REST), Some(if follows { follow } else { stay.clone() }), "{what}");
        assert_eq!(case.at("a", REST - 1), Some(stay), "{what}, too early");
    }
    let mut unreachable = apart();
    unreachable.view.in_contact = false;
    assert!(
        matches!(unreachable.at("a", REST), Some(PlacementStep::Keep { .. })),
        "without contact nothing is given up"
    );
}

#[test]
fn it_arrives_and_stays() {
    let mut case = case().holds("a", SENDER, 0).holds("b", WINDOW, 0);
    case.view.holders.remove(SENDER);
    case.view.vacated.insert(SENDER.into(), case.t0 + Duration::from_secs(20));
    assert!(case.acquires("b", 20_000) && !case.acquires("a", 24_999) && !case.acquires("c", 29_999));
    let case = case.holds("b", SENDER, 20_000);
    for ms in [20_000, 60_000] {
        assert_eq!(case.at("b", ms), Some(PlacementStep::Keep { concern: SENDER.into(), despite: None }));
        assert_eq!((case.at("a", ms), case.at("c", ms)), (None, None));
    }
}

#[test]
fn orders_that_nobody_would_carry_out() {
    let role = |name: &str, role: Role| case().node(name, |node| node.roles = [role].into());
    let apart = || case().holds("b", WINDOW, 0);
    let alone = apart().node("b", |b| b.roles = [Role::WindowPost].into());
    let leaving = apart().node("b", |b| b.drained = true);
    let agent = case().node("c", |c| c.kind = NodeKind::Agent);
    let table = [
        ("any role", case(), WINDOW, None),
        ("the role", role("c", Role::WindowPost), WINDOW, None),
        ("another role", role("c", Role::Sealing), WINDOW, Some("does not have the role window-post")),
        ("an agent is refused by the directory", agent, WINDOW, None),
        ("no concern", case(), "/t01000/lunch", Some("none of this miner's concerns")),
        ("its own shard", case(), "/t01000/seal-scheduler/c", None),
        ("another's shard", case(), "/t01000/seal-scheduler/b", Some("b's own")),
        ("the shard of this node", case(), "/t01000/seal-scheduler/a", Some("a's own")),
        ("no shard", case(), "/t01000/seal-scheduler/b/c", Some("none of this miner's concerns")),
        ("away from window-post", apart(), SENDER, Some("placement.message_sender")),
        ("to window-post", case().holds("c", WINDOW, 0), SENDER, None),
        ("nobody holds window-post", case(), SENDER, None),
        ("whose holder cannot send", alone, SENDER, None),
        ("whose holder is drained", leaving, SENDER, None),
        ("placed apart", apart().named(&["a"]), SENDER, None),
    ];
    for (what, mut case, concern, part) in table {
        case.placement.concerns.push(Wanted::pinned("/t01000/seal-scheduler/a", Role::Sealing, "a"));
        let why = never(&case.view, &case.placement, concern, &case.view.nodes["c"]);
        match part {
            Some(part) => assert!(why.as_deref().is_some_and(|why| why.contains(part)), "{what}: {why:?}"),
            None => assert_eq!(why, None, "{what}"),
        }
    }
}
