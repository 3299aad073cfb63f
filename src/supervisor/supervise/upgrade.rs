//! A running supervisor's move to another spec.

use super::super::engine::{End, EngineEvent, Key, SupervisorCall};
use super::super::node::TreeNode;
use super::super::spec::SupDef;
use super::{CallReply, Supervisor};
use std::sync::Arc;

impl Supervisor {
    /// The engine takes the spec over now, or when the ordered start or group restart under way is done.
    pub(super) fn upgrade(&mut self, def: Arc<SupDef>, reply: CallReply) -> Option<End> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.replies.insert(ticket, reply);
        let children = def.children.iter().map(|c| (c.id.clone(), c.rules.clone(), c.clone())).collect();
        let call = SupervisorCall::Upgrade { flags: def.flags.clone(), children };
        self.upgrades.push_back(def);
        self.step(EngineEvent::Call { ticket, call })
    }

    /// The present key of a report whose key was given at the incarnation's start.
    pub(super) fn present(&self, key: Key) -> Key {
        self.aliases.get(&key).copied().unwrap_or(key)
    }

    /// The engine has taken specs over.
    pub(super) fn rekey(&mut self, keys: Vec<(Option<Key>, Key)>) {
        let mut handles = std::mem::take(&mut self.handles);
        for (old, new) in &keys {
            let Some(old) = old else { continue };
            if let Some(handle) = handles.remove(old) {
                self.handles.insert(*new, handle);
            }
            self.aliases.values_mut().filter(|present| **present == *old).for_each(|present| *present = *new);
            self.aliases.insert(*old, *new);
        }
        while let Some(def) = self.upgrades.pop_front() {
            def.children.iter().for_each(|child| child.take_over());
            self.def = def;
        }
        let Some(branch) = &self.node.branch else { return };
        branch.set_def(self.def.clone());
        branch.rekey(&keys, |key| self.engine.payload(key).map(|def| TreeNode::child(def)));
        for (_, key) in &keys {
            let Some(def) = self.engine.payload(*key) else { continue };
            def.meta.report_to(self.control.letters.clone());
            if let Some(node) = branch.child(&def.path) {
                node.renew(def);
            }
        }
    }
}
