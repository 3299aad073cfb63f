//! Random trees, and what happens to them.

use super::super::*;
use proptest::prelude::{Just, any, prop, prop_oneof};
use proptest::strategy::Strategy as Strategy_;
use std::rc::Rc;

#[derive(Clone, Debug)]
pub struct Plan {
    pub flags: Flags,
    pub children: Vec<(ChildRules, Kid)>,
}

#[derive(Clone, Debug)]
pub enum Kid {
    Worker,
    Sup(Rc<Plan>),
}

/// A step's effect on the tree; numbers pick among what is there.
#[derive(Clone, Debug)]
pub enum Op {
    Exit(usize, u8),
    Hung(usize),
    Lost(usize),
    Call(usize, u8, usize),
    /// Another spec: flags, and for each child by turns whether it is kept, and with which rules; so many new ones.
    Upgrade(usize, Flags, Vec<(bool, ChildRules)>, usize),
    Advance(u64),
}

fn rules_() -> impl Strategy_<Value = ChildRules> {
    let restart = prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)];
    let shutdown = prop_oneof![Just(Shutdown::BrutalKill), Just(Shutdown::Timeout(secs(2))), Just(Shutdown::Infinity)];
    (restart, shutdown, any::<bool>(), any::<bool>()).prop_map(|(restart, shutdown, significant, required)| {
        ChildRules { shutdown, required, significant: significant && restart != Restart::Permanent, ..rules(restart) }
    })
}

fn flags_() -> impl Strategy_<Value = Flags> {
    let strategy = prop_oneof![Just(Strategy::OneForOne), Just(Strategy::OneForAll), Just(Strategy::RestForOne)];
    let auto = prop_oneof![
        4 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant)
    ];
    let first = prop_oneof![Just(0u64), Just(300)];
    let spent = prop_oneof![
        2 => Just(BudgetSpent::Escalate),
        1 => Just(BudgetSpent::HoldDown { escalate_after: None }),
        1 => (1u64..20).prop_map(|after| BudgetSpent::HoldDown { escalate_after: Some(secs(after)) }),
    ];
    let make = |(strategy, intensity, period, auto_shutdown, first, budget_spent)| Flags {
        // One who holds down waits between tries: its spec would be refused otherwise.
        backoff: RestartBackoff { first: ms(first), cap: ms((first * 8).max(100)), reset_after: secs(10) },
        budget_spent,
        auto_shutdown,
        ..flags(strategy, intensity, period)
    };
    (strategy, 0u32..6, 1u64..20, auto, first, spent).prop_map(make)
}

/// Its children come by calls.
fn dynamic() -> impl Strategy_<Value = Plan> {
    (flags_(), 0usize..5).prop_map(|(flags, max)| {
        let flags = Flags { strategy: Strategy::OneForOne, dynamic: Some(max), ..flags };
        Plan { flags, children: vec![] }
    })
}

pub fn plan() -> impl Strategy_<Value = Plan> {
    let leaf = (flags_(), prop::collection::vec(rules_().prop_map(|r| (r, Kid::Worker)), 0..5))
        .prop_map(|(flags, children)| Plan { flags, children });
    leaf.prop_recursive(3, 20, 4, |inner| {
        let inner = prop_oneof![3 => inner, 1 => dynamic()];
        let sup = (rules_(), inner).prop_map(|(r, plan)| {
            let r = ChildRules { supervisor: true, shutdown: Shutdown::Infinity, start_timeout: secs(1_000_000), ..r };
            (r, Kid::Sup(Rc::new(plan)))
        });
        let kid = prop_oneof![2 => rules_().prop_map(|r| (r, Kid::Worker)), 1 => sup];
        (flags_(), prop::collection::vec(kid, 1..5)).prop_map(|(flags, children)| Plan { flags, children })
    })
}

pub fn ops() -> impl Strategy_<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (any::<usize>(), 0u8..6).prop_map(|(who, how)| Op::Exit(who, how)),
        1 => any::<usize>().prop_map(Op::Hung),
        1 => any::<usize>().prop_map(Op::Lost),
        3 => (any::<usize>(), 0u8..8, any::<usize>()).prop_map(|(sup, what, child)| Op::Call(sup, what, child)),
        1 => (any::<usize>(), flags_(), prop::collection::vec((any::<bool>(), rules_()), 1..6), 0usize..3)
            .prop_map(|(sup, flags, children, new)| Op::Upgrade(sup, flags, children, new)),
        3 => (0u64..4_000).prop_map(Op::Advance),
    ];
    prop::collection::vec(op, 0..60)
}
