//! Process groups of one node, as OTP's pg: an incarnation joins, whoever has the group sees who is in it, and an
//! incarnation that ends, or is given up, is in none any more.

use super::actor::{Actor, Handler, Message};
use super::monitor::Monitor;
use super::shell::{Cx, Recipient};
use crate::util::lock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The groups of one node, by name.
#[derive(Clone, Default)]
pub struct Groups {
    all: Arc<Mutex<BTreeMap<&'static str, Weak<dyn Listed>>>>,
}

/// One row of `GET /groups`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    pub name: String,
    /// In the order in which they joined; one that joined several times is there as often.
    pub members: Vec<MemberRow>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The actor's address.
    pub path: String,
    /// The incarnation, by the epoch of its tokens.
    pub epoch: u64,
}

trait Listed: Send + Sync {
    fn rows(&self) -> Vec<MemberRow>;
}

/// The members, which take `M`.
pub struct Group<M: Message> {
    members: Arc<Members<M>>,
}

impl<M: Message> Clone for Group<M> {
    fn clone(&self) -> Self {
        Group { members: self.members.clone() }
    }
}

struct Members<M: Message> {
    next: AtomicU64,
    list: Mutex<BTreeMap<u64, Member<M>>>,
}

struct Member<M: Message> {
    row: MemberRow,
    to: Recipient<M>,
    /// Takes it out when its incarnation ends.
    _end: Option<Monitor>,
}

impl<M: Message> Listed for Members<M> {
    fn rows(&self) -> Vec<MemberRow> {
        lock(&self.list).values().map(|member| member.row.clone()).collect()
    }
}

impl Groups {
    /// A group of that name, listed here as long as anybody has it.
    pub fn group<M: Message>(&self, name: &'static str) -> Group<M> {
        let members = Arc::new(Members::<M> { next: AtomicU64::new(0), list: Mutex::default() });
        let listed: Arc<dyn Listed> = members.clone();
        lock(&self.all).insert(name, Arc::downgrade(&listed));
        Group { members }
    }

    pub fn rows(&self) -> Vec<GroupRow> {
        let all = lock(&self.all);
        let groups = all.iter().filter_map(|(name, group)| Some((*name, group.upgrade()?)));
        groups.map(|(name, group)| GroupRow { name: name.to_string(), members: group.rows() }).collect()
    }
}

impl<M: Message> Group<M> {
    /// The present members, in the order in which they joined.
    pub fn members(&self) -> Vec<Recipient<M>> {
        lock(&self.members.list).values().map(|member| member.to.clone()).collect()
    }
}

impl<A: Actor> Cx<A> {
    /// This incarnation is in the group from now on, until [`Cx::leave`] or its end. Joined twice, it is in it twice.
    pub fn join<M: Message>(&self, group: &Group<M>)
    where
        A: Handler<M>,
    {
        let members = &group.members;
        let id = members.next.fetch_add(1, Ordering::Relaxed);
        let row = MemberRow { path: self.path().to_string(), epoch: self.incarnation() };
        lock(&members.list).insert(id, Member { row, to: self.myself().recipient(), _end: None });
        let weak = Arc::downgrade(members);
        let gone = Recipient::passing(self.path().into(), move |_| {
            let member = weak.upgrade().and_then(|members| lock(&members.list).remove(&id));
            drop(member); // outside of the lock
        });
        // An incarnation that was given up has no end that could be watched: its successor's would be.
        let end = self.watch_my_end(gone);
        let mut list = lock(&members.list);
        match (list.get_mut(&id), end) {
            (Some(member), Some(end)) => member._end = Some(end),
            (_, end) => {
                let member = list.remove(&id);
                drop(list);
                drop((member, end));
            }
        }
    }

    /// Takes back one [`Cx::join`].
    pub fn leave<M: Message>(&self, group: &Group<M>) {
        let mut list = lock(&group.members.list);
        let mine = |member: &Member<M>| member.row.path == self.path() && member.row.epoch == self.incarnation();
        let id = list.iter().find(|(_, member)| mine(member)).map(|(id, _)| *id);
        let member = id.and_then(|id| list.remove(&id));
        drop(list);
        drop(member);
    }
}
