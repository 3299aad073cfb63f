//! Every rule of the placement at its boundaries.

use super::*;
use crate::rpc::directory::Holder;
use libp2p::PeerId;
use std::sync::Arc;

const WINDOW: &str = "/t01000/window-post";

/// Three nodes of every role in contact since `t0`, `window-post` preferred on a, then b.
struct Case {
    view: View,
    placement: Placement,
    t0: Instant,
}

fn record(name: &str) -> NodeRecord {
    NodeRecord::new(name, PeerId::random(), 1)
}

fn case() -> Case {
    let t0 = Instant::now();
    let mut view = View { in_contact: true, ..View::empty(t0) };
    for name in ["a", "b", "c"] {
        view.nodes.insert(name.into(), Arc::new(record(name)));
    }
    let placement = Placement {
        concerns: vec![Wanted::new(WINDOW, Role::WindowPost)],
        prefer: BTreeMap::from([("window-post".to_string(), vec!["a".to_string(), "b".to_string()])]),
        patience: Duration::from_secs(5),
        settle: Duration::from_secs(15),
        ..Placement::default()
    };
    Case { view, placement, t0 }
}

impl Case {
    fn node(&mut self, name: &str, change: impl FnOnce(&mut NodeRecord)) -> &mut Case {
        change(Arc::make_mut(self.view.nodes.get_mut(name).unwrap()));
        self
    }
    fn gone(&mut self, name: &str) -> &mut Case {
        self.view.nodes.remove(name);
        self
    }
    fn held_by(&mut self, name: &str) -> &mut Case {
        let (peer_id, boot) = self.view.nodes.get(name).map_or((PeerId::random(), 1), |n| (n.peer_id, n.boot));
        self.view.holders.insert(WINDOW.into(), Holder { node: name.into(), peer_id, boot, epoch: 7 });
        self
    }
    fn move_to(&mut self, name: &str) -> &mut Case {
        self.view.moves.insert(WINDOW.into(), name.into());
        self
    }
    fn vacated(&mut self, ms: u64) -> &mut Case {
        self.view.vacated.insert(WINDOW.into(), self.t0 + Duration::from_millis(ms));
        self
    }
    /// The step of `me`, `ms` after `t0`.
    fn at(&self, me: &str, ms: u64) -> Option<PlacementStep> {
        let steps = decide(&self.view, me, &self.placement, self.t0 + Duration::from_millis(ms));
        assert!(steps.len() <= 1);
        steps.into_iter().next()
    }
    fn acquires(&self, me: &str, ms: u64) -> bool {
        matches!(self.at(me, ms), Some(PlacementStep::Acquire { .. }))
    }
    /// Waits until exactly then, in ms after `t0`, and acquires from then on.
    #[track_caller]
    fn acquires_from(&self, me: &str, from: u64) {
        let until = self.t0 + Duration::from_millis(from);
        if from > 0 {
            assert_eq!(
                self.at(me, from - 1),
                Some(PlacementStep::Wait { concern: WINDOW.into(), until }),
                "{me} at -1 ms"
            );
        }
        assert!(self.acquires(me, from) && self.acquires(me, from + 1), "{me} at 0 and +1 ms");
    }
}

fn keep(despite: Option<Why>) -> Option<PlacementStep> {
    Some(PlacementStep::Keep { concern: WINDOW.into(), despite })
}

fn release(why: Why) -> Option<PlacementStep> {
    Some(PlacementStep::Release { concern: WINDOW.into(), why })
}

#[test]
fn a_vacant_concern_goes_down_the_line_one_patience_after_another() {
    let case = case();
    case.acquires_from("a", 0);
    case.acquires_from("b", 5_000);
    case.acquires_from("c", 10_000);
    assert_eq!(case.at("stranger", 60_000), None);
}

#[test]
fn without_a_preference_names_decide_and_a_whole_path_goes_before_a_name() {
    let mut case = case();
    case.placement.prefer.insert(WINDOW.into(), vec!["c".into()]);
    case.acquires_from("c", 0);
    case.acquires_from("a", 5_000);
    case.placement.prefer.clear();
    case.acquires_from("a", 0);
    case.acquires_from("b", 5_000);
}

#[test]
fn a_node_that_is_listed_twice_stands_in_line_once() {
    let mut case = case();
    case.placement.prefer.insert("window-post".into(), vec!["a".into(), "a".into(), "b".into()]);
    case.acquires_from("b", 5_000);
}

#[test]
fn at_the_cold_start_an_absent_preferred_node_is_waited_for() {
    let mut case = case();
    case.gone("a");
    case.acquires_from("b", 15_000);
    case.acquires_from("c", 20_000);
    // Who stands behind the absent one waits; who stands before it does not.
    case.placement.prefer.insert("window-post".into(), vec!["b".into(), "a".into()]);
    case.acquires_from("b", 0);
}

#[test]
fn after_a_holder_is_gone_the_next_takes_it_at_once() {
    let mut case = case();
    case.gone("a").vacated(3_000);
    case.acquires_from("b", 3_000);
    case.acquires_from("c", 8_000);
    // Time without contact does not count as patience.
    case.view.since = case.t0 + Duration::from_secs(20);
    case.acquires_from("b", 20_000);
    case.acquires_from("c", 25_000);
}

#[test]
fn a_holder_stays_the_holder() {
    let mut case = case();
    case.held_by("b");
    assert_eq!(case.at("b", 60_000), keep(None), "although a, which is preferred, is there");
    assert_eq!(case.at("a", 60_000), None);
    // Its record may be late or gone: the lease alone says who holds.
    case.gone("b");
    assert_eq!(case.at("b", 0), keep(None));
    assert_eq!(case.at("a", 60_000), None);
}

#[test]
fn without_contact_nothing_is_taken_and_nothing_given_up() {
    let mut case = case();
    case.view.in_contact = false;
    for me in ["a", "b", "c"] {
        assert_eq!(case.at(me, 60_000), None);
    }
    case.held_by("b").node("b", |b| b.drained = true);
    assert_eq!(case.at("b", 60_000), keep(Some(Why::Drained)));
    case.node("b", |b| b.drained = false).move_to("c");
    assert_eq!(case.at("b", 60_000), keep(Some(Why::Moved { to: "c".into() })));
}

#[test]
fn a_drained_node_hands_over_and_takes_nothing() {
    let mut case = case();
    case.held_by("a").node("a", |a| a.drained = true);
    assert_eq!(case.at("a", 0), release(Why::Drained));
    case.view.holders.clear();
    case.vacated(1_000);
    assert_eq!(case.at("a", 60_000), None);
    case.acquires_from("b", 1_000);
    // Undrained, it does not get it back by itself.
    case.held_by("b").node("a", |a| a.drained = false);
    assert_eq!(case.at("b", 60_000), keep(None));
}

#[test]
fn a_drained_node_keeps_what_nobody_else_can_take() {
    let mut case = case();
    case.held_by("a").gone("b").node("c", |c| c.roles = [Role::Sealing].into()).node("a", |a| a.drained = true);
    assert_eq!(case.at("a", 0), keep(Some(Why::Drained)));
    // Another drained node is nobody to hand over to.
    case.node("c", |c| (c.roles, c.drained) = ([Role::WindowPost].into(), true));
    assert_eq!(case.at("a", 0), keep(Some(Why::Drained)));
    case.node("c", |c| c.drained = false);
    assert_eq!(case.at("a", 0), release(Why::Drained));
}

#[test]
fn roles_bound_who_may_hold() {
    let mut case = case();
    case.node("a", |a| a.roles = [Role::WinningPost, Role::Sealing].into());
    assert_eq!(case.at("a", 60_000), None);
    case.acquires_from("b", 0);
    case.node("b", |b| b.roles = [Role::WindowPost].into());
    case.acquires_from("b", 0);
    case.node("b", |b| (b.roles, b.kind) = ([Role::All].into(), NodeKind::Agent));
    assert_eq!(case.at("b", 60_000), None, "an agent holds nothing");
    case.acquires_from("c", 0);
    // A holder that was restarted without the role hands over.
    case.held_by("a");
    assert_eq!(case.at("a", 0), release(Why::RoleLost));
}

#[test]
fn a_move_goes_before_every_preference() {
    let mut case = case();
    case.held_by("a").move_to("c");
    assert_eq!(case.at("a", 0), release(Why::Moved { to: "c".into() }));
    assert_eq!(case.at("c", 0), None, "not while another holds it");
    case.view.holders.clear();
    case.vacated(1_000);
    assert!(case.acquires("c", 1_000));
    assert_eq!((case.at("a", 60_000), case.at("b", 60_000)), (None, None));
    case.held_by("c");
    assert_eq!(case.at("c", 0), keep(None));
}

#[test]
fn a_move_to_a_node_that_cannot_take_it_is_no_order() {
    for unable in ["gone", "drained", "role"] {
        let mut case = case();
        case.held_by("a").move_to("c");
        match unable {
            "gone" => case.gone("c"),
            "drained" => case.node("c", |c| c.drained = true),
            _ => case.node("c", |c| c.roles = [Role::Storage].into()),
        };
        assert_eq!(case.at("a", 0), keep(None), "{unable}");
        case.view.holders.clear();
        case.acquires_from("a", 0);
    }
}

#[test]
fn a_pinned_shard_belongs_to_its_node_alone() {
    let mut case = case();
    case.placement.concerns = vec![Wanted::pinned(WINDOW, Role::WindowPost, "c")];
    assert_eq!((case.at("a", 60_000), case.at("b", 60_000)), (None, None));
    case.acquires_from("c", 0);
    case.node("c", |c| c.drained = true);
    case.acquires_from("c", 0);
    case.held_by("c").move_to("a");
    assert_eq!(case.at("c", 0), keep(None), "neither a drain nor a move moves a shard");
    case.view.holders.clear();
    case.gone("c");
    for me in ["a", "b", "c"] {
        assert_eq!(case.at(me, 60_000), None);
    }
}

#[test]
fn a_restarted_node_takes_back_what_its_earlier_start_held() {
    let mut case = case();
    case.held_by("b").node("b", |b| b.boot = 2);
    assert!(case.acquires("b", 0));
    assert_eq!(case.at("a", 60_000), None, "the lease still holds for the others");
    case.move_to("c");
    assert_eq!(case.at("b", 0), None);
    case.view.moves.clear();
    case.node("b", |b| b.drained = true);
    assert_eq!(case.at("b", 0), None);
}

#[test]
fn at_most_one_node_is_told_to_acquire_at_any_moment_before_the_patience_runs_out() {
    for moved in [None, Some("a"), Some("c")] {
        for vacated in [None, Some(100)] {
            let mut case = case();
            moved.map(|to| case.move_to(to));
            vacated.map(|ms| case.vacated(ms));
            for ms in [0, 99, 100, 101, 4_999] {
                let taking: Vec<_> = ["a", "b", "c"].into_iter().filter(|me| case.acquires(me, ms)).collect();
                assert!(taking.len() <= 1, "{moved:?} {vacated:?} {ms}: {taking:?}");
            }
        }
    }
}
