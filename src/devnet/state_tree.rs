//! The state tree: actors by id, in a HAMT under a versioned root. Changes wait in memory until [`StateTree::flush`].

use super::error::{ChainError, ChainResult};
use super::store::ChainStore;
use super::wire;
use cid::Cid;
use cid::multihash::Multihash;
use fil_actors_shared::v19::{EAM_ACTOR_ID, HAMT_BIT_WIDTH};
use fvm_ipld_encoding::tuple::*;
use fvm_ipld_encoding::{CborStore, IPLD_RAW};
use fvm_ipld_hamt::{BytesKey, Hamt};
use fvm_shared::ActorID;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use multihash_codetable::Code;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize_tuple, Deserialize_tuple, Clone, Debug, PartialEq)]
pub struct ActorEntry {
    pub code: Cid,
    pub head: Cid,
    pub sequence: u64,
    pub balance: TokenAmount,
    pub delegated_address: Option<Address>,
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct StateRoot {
    version: u64,
    actors: Cid,
    info: Cid,
}

/// `go-state-types`: StateTreeVersion5.
const VERSION: u64 = 5;

/// The versions of the built-in actors on this chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actors {
    /// Network version 28.
    V18,
    /// Network version 29 (FIP-0118).
    V19,
}

impl Actors {
    const ALL: [Actors; 2] = [Actors::V18, Actors::V19];

    fn number(self) -> u32 {
        match self {
            Actors::V18 => 18,
            Actors::V19 => 19,
        }
    }
}

/// The kinds of actors on this chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    System,
    Init,
    Cron,
    Account,
    Power,
    Miner,
    Market,
    Reward,
}

impl Kind {
    const ALL: [Kind; 8] =
        [Kind::System, Kind::Init, Kind::Cron, Kind::Account, Kind::Power, Kind::Miner, Kind::Market, Kind::Reward];

    pub fn name(self) -> &'static str {
        match self {
            Kind::System => "system",
            Kind::Init => "init",
            Kind::Cron => "cron",
            Kind::Account => "account",
            Kind::Power => "storagepower",
            Kind::Miner => "storageminer",
            Kind::Market => "storagemarket",
            Kind::Reward => "reward",
        }
    }

    /// Native code has no WASM to hash: the name itself is in the CID, as before the FVM.
    pub fn code(self, actors: Actors) -> Cid {
        let name = format!("fil/{}/{}", actors.number(), self.name());
        let hash = Multihash::wrap(0, name.as_bytes()).expect("a short name fits a multihash");
        Cid::new_v1(IPLD_RAW, hash)
    }

    pub fn of(code: &Cid) -> Option<Kind> {
        Kind::and_actors(code).map(|(kind, _)| kind)
    }

    /// An actor's kind, and the version of its code.
    pub fn and_actors(code: &Cid) -> Option<(Kind, Actors)> {
        let all = Kind::ALL.into_iter().flat_map(|kind| Actors::ALL.map(|actors| (kind, actors)));
        all.into_iter().find(|(kind, actors)| kind.code(*actors) == *code)
    }
}

#[derive(Clone)]
pub struct StateTree {
    store: ChainStore,
    actors: Option<Cid>,
    info: Cid,
    changed: BTreeMap<ActorID, ActorEntry>,
}

type ActorMap<'a> = Hamt<&'a ChainStore, ActorEntry>;

fn key(id: ActorID) -> BytesKey {
    Address::new_id(id).to_bytes().into()
}

impl StateTree {
    pub fn empty(store: &ChainStore) -> ChainResult<Self> {
        let info = store.put_cbor(&Vec::<u8>::new(), Code::Blake2b256)?;
        Ok(StateTree { store: store.clone(), actors: None, info, changed: BTreeMap::new() })
    }

    pub fn load(store: &ChainStore, root: &Cid) -> ChainResult<Self> {
        let root: StateRoot = wire::load(store, root)?;
        if root.version != VERSION {
            return Err(ChainError::store(format!("state tree version {}", root.version)));
        }
        Ok(StateTree { store: store.clone(), actors: Some(root.actors), info: root.info, changed: BTreeMap::new() })
    }

    fn map(&self) -> ChainResult<ActorMap<'_>> {
        match &self.actors {
            Some(root) => Hamt::load_with_bit_width(root, &self.store, HAMT_BIT_WIDTH).map_err(ChainError::store),
            None => Ok(Hamt::new_with_bit_width(&self.store, HAMT_BIT_WIDTH)),
        }
    }

    pub fn get(&self, id: ActorID) -> ChainResult<Option<ActorEntry>> {
        if let Some(actor) = self.changed.get(&id) {
            return Ok(Some(actor.clone()));
        }
        Ok(self.map()?.get(&key(id)).map_err(ChainError::store)?.cloned())
    }

    /// The ids of all actors.
    pub fn ids(&self) -> ChainResult<Vec<ActorID>> {
        let mut ids: BTreeSet<ActorID> = self.changed.keys().copied().collect();
        self.map()?
            .for_each(|key, _| {
                ids.extend(Address::from_bytes(&key.0).ok().and_then(|address| address.id().ok()));
                Ok(())
            })
            .map_err(ChainError::store)?;
        Ok(ids.into_iter().collect())
    }

    pub fn set(&mut self, id: ActorID, actor: ActorEntry) {
        self.changed.insert(id, actor);
    }

    /// A copy to which a failed message is rolled back.
    pub fn snapshot(&self) -> BTreeMap<ActorID, ActorEntry> {
        self.changed.clone()
    }

    pub fn roll_back(&mut self, snapshot: BTreeMap<ActorID, ActorEntry>) {
        self.changed = snapshot;
    }

    pub fn flush(&mut self) -> ChainResult<Cid> {
        let actors = {
            let mut map = self.map()?;
            for (id, actor) in &self.changed {
                map.set(key(*id), actor.clone()).map_err(ChainError::store)?;
            }
            map.flush().map_err(ChainError::store)?
        };
        self.actors = Some(actors);
        self.changed.clear();
        let root = StateRoot { version: VERSION, actors, info: self.info };
        Ok(self.store.put_cbor(&root, Code::Blake2b256)?)
    }
}

/// Ids below this are never handed out.
pub const FIRST_FREE_ID: ActorID = 1000;
const _: () = assert!(EAM_ACTOR_ID < FIRST_FREE_ID);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actors_survive_a_flush_and_a_roll_back_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let store = ChainStore::open(&dir.path().join("c.redb")).unwrap();
        let actor = |n: i64| ActorEntry {
            code: Kind::Account.code(Actors::V19),
            head: Cid::default(),
            sequence: n as u64,
            balance: TokenAmount::from_atto(n),
            delegated_address: None,
        };
        let mut tree = StateTree::empty(&store).unwrap();
        tree.set(100, actor(1));
        let snapshot = tree.snapshot();
        tree.set(100, actor(2));
        tree.set(101, actor(3));
        tree.roll_back(snapshot);
        let root = tree.flush().unwrap();
        let tree = StateTree::load(&store, &root).unwrap();
        assert_eq!(tree.get(100).unwrap(), Some(actor(1)));
        assert_eq!(tree.get(101).unwrap(), None);
        assert_eq!(Kind::of(&actor(1).code), Some(Kind::Account));
        assert_eq!(Kind::and_actors(&Kind::Miner.code(Actors::V18)), Some((Kind::Miner, Actors::V18)));
        assert_eq!(tree.ids().unwrap(), [100]);
    }
}
