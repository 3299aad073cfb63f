//! Another spec for a supervisor that runs: OTP's code_change rules.
//!
//! Flags count from now on. A child that both specs name goes on running and has the new spec's rules; one that only
//! the new spec names is there, but not started; one that only the old spec names goes on as it was, last in order.

use super::child::{Child, Key, Upgrade};
use super::{AdminError, CallAnswer, Engine, EngineCommand, Work};
use std::collections::HashMap;
use std::sync::Arc;

impl<P> Engine<P> {
    pub(super) fn call_upgrade(&mut self, upgrade: Upgrade<P>) -> Result<Option<CallAnswer>, AdminError> {
        if matches!(self.work, Work::Closing { .. } | Work::Ended) {
            return Err(AdminError::ShuttingDown);
        }
        self.upgrades.push_back(upgrade);
        Ok(None)
    }

    /// Nothing is under way that counts on the present order. Children get new keys, since a key is a place in the order.
    pub(super) fn apply_upgrade(&mut self, upgrade: Upgrade<P>) {
        let old = std::mem::take(&mut self.children);
        let order: Vec<Arc<str>> = old.values().map(|c| c.id.clone()).collect();
        let mut old: HashMap<Arc<str>, (Key, Child<P>)> =
            old.into_iter().map(|(k, c)| (c.id.clone(), (k, c))).collect();
        let mut next: Vec<(Option<Key>, Child<P>)> = Vec::new();
        for (id, rules, payload) in upgrade.children {
            next.push(match old.remove(&id) {
                Some((key, child)) => (Some(key), Child { rules, payload, ..child }),
                None => (None, Child::new(id, rules, payload)),
            });
        }
        next.extend(order.iter().filter_map(|id| old.remove(id)).map(|(key, child)| (Some(key), child)));
        self.flags = upgrade.flags;
        self.ids.clear();
        self.timers.clear();
        for class in [&mut self.alive, &mut self.moving, &mut self.queued] {
            class.clear();
        }
        let mut keys = Vec::new();
        for (before, child) in next {
            let key = self.next_key;
            self.next_key += 1;
            self.ids.insert(child.id.clone(), key);
            self.timers.extend(child.timer.map(|at| (at, key)));
            self.children.insert(key, child);
            self.classify(key);
            self.touched.push(key);
            keys.push((before, key));
        }
        // What this step has commanded already is carried out after it.
        let now: HashMap<Key, Key> = keys.iter().filter_map(|(before, key)| Some(((*before)?, *key))).collect();
        for command in &mut self.out {
            if let EngineCommand::Start { key, .. }
            | EngineCommand::Stop { key }
            | EngineCommand::Kill { key }
            | EngineCommand::Abandon { key } = command
            {
                *key = now.get(key).copied().unwrap_or(*key);
            }
        }
        // Two in one step are one to who listens.
        if let Some(first) = self.rekeyed.take() {
            let first: HashMap<Key, Option<Key>> = first.into_iter().map(|(before, key)| (key, before)).collect();
            keys.iter_mut().for_each(|(before, _)| *before = before.and_then(|key| first.get(&key).copied().flatten()));
        }
        self.rekeyed = Some(keys);
        self.reply(upgrade.ticket, Ok(CallAnswer::Done));
    }
}
