//! Execution: one `Vm` runs the messages of one tipset over a state tree. Actor rules are in the files beside this one.

mod apply;
mod migration;
pub mod miner;
pub mod power;
pub mod reward;

pub use apply::{Applied, gas_of};
pub use migration::migrate;

use super::error::{ActorResult, ChainResult, state_error};
use super::settings::DevnetSettings;
use super::state_tree::{ActorEntry, Actors, Kind, StateTree};
use super::store::ChainStore;
use super::verifier::Verifier;
use super::wire;
use crate::rpc::full_node::RandomnessTag;
use fil_actor_init_state::v19 as init;
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::runtime::Policy;
use fil_actors_shared::v19::{ActorError, BURNT_FUNDS_ACTOR_ID, INIT_ACTOR_ID};
use fvm_ipld_encoding::{CborStore, RawBytes};
use fvm_shared::ActorID;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use multihash_codetable::Code;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The randomness of messages: from the chain that ends with the tipset that executes them.
pub trait Rand {
    fn tickets(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ChainResult<[u8; 32]>;
    fn beacon(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ChainResult<[u8; 32]>;
}

/// The environment, constant while messages run.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    pub settings: &'a DevnetSettings,
    pub policy: &'a Policy,
    pub verifier: &'a dyn Verifier,
    pub rand: &'a dyn Rand,
}

/// One call of an actor's method.
pub struct Call {
    pub from: ActorID,
    pub to: ActorID,
    pub value: TokenAmount,
    pub method: u64,
    pub params: RawBytes,
}

impl Call {
    pub fn params<T: DeserializeOwned>(&self) -> ActorResult<T> {
        fvm_ipld_encoding::from_slice(self.params.bytes())
            .map_err(|e| actor_error!(serialization, "failed to deserialize params: {}", e))
    }

    pub fn to_address(&self) -> Address {
        Address::new_id(self.to)
    }

    /// Refuses callers other than these (id addresses).
    pub fn only<'a>(&self, allowed: impl IntoIterator<Item = &'a Address>) -> ActorResult<()> {
        let from = Address::new_id(self.from);
        if allowed.into_iter().any(|a| *a == from) {
            return Ok(());
        }
        Err(actor_error!(forbidden, "caller {} is not one of supported", from))
    }
}

pub struct Vm<'a> {
    pub store: ChainStore,
    pub tree: StateTree,
    pub env: Env<'a>,
    pub epoch: ChainEpoch,
}

impl<'a> Vm<'a> {
    pub fn new(store: &ChainStore, root: &cid::Cid, env: Env<'a>, epoch: ChainEpoch) -> ChainResult<Self> {
        Ok(Vm { store: store.clone(), tree: StateTree::load(store, root)?, env, epoch })
    }

    pub fn actor(&self, id: ActorID) -> ActorResult<ActorEntry> {
        self.find(id)?.ok_or_else(|| actor_error!(not_found, "actor t0{} not found", id))
    }

    pub fn find(&self, id: ActorID) -> ActorResult<Option<ActorEntry>> {
        self.tree.get(id).map_err(|e| actor_error!(illegal_state, "cannot load actor {}: {}", id, e))
    }

    /// The version of the actors whose rules hold.
    pub fn actors(&self) -> Actors {
        self.env.settings.actors(self.epoch)
    }

    pub fn kind(&self, id: ActorID) -> ActorResult<Option<Kind>> {
        Ok(self.find(id)?.and_then(|a| Kind::of(&a.code)))
    }

    pub fn load<T: DeserializeOwned>(&self, id: ActorID) -> ActorResult<T> {
        let head = self.actor(id)?.head;
        wire::load(&self.store, &head).map_err(|e| actor_error!(illegal_state, "cannot load state of t0{}: {}", id, e))
    }

    pub fn save<T: Serialize>(&mut self, id: ActorID, state: &T) -> ActorResult<()> {
        let mut actor = self.actor(id)?;
        actor.head = self.put(state)?;
        self.tree.set(id, actor);
        Ok(())
    }

    pub fn put<T: Serialize>(&self, object: &T) -> ActorResult<cid::Cid> {
        self.store.put_cbor(object, Code::Blake2b256).map_err(state_error("failed to store an object"))
    }

    pub fn balance(&self, id: ActorID) -> ActorResult<TokenAmount> {
        Ok(self.actor(id)?.balance)
    }

    pub fn transfer(&mut self, from: ActorID, to: ActorID, amount: &TokenAmount) -> ActorResult<()> {
        if amount.is_negative() {
            return Err(actor_error!(illegal_argument, "cannot transfer a negative amount {}", amount));
        }
        let mut payer = self.actor(from)?;
        if &payer.balance < amount {
            let have = payer.balance;
            return Err(ActorError::unchecked(
                fvm_shared::error::ExitCode::SYS_INSUFFICIENT_FUNDS,
                format!("t0{from} holds {have}, cannot pay {amount}"),
            ));
        }
        payer.balance -= amount;
        self.tree.set(from, payer);
        let mut payee = self.actor(to)?;
        payee.balance += amount;
        self.tree.set(to, payee);
        Ok(())
    }

    pub fn burn(&mut self, from: ActorID, amount: &TokenAmount) -> ActorResult<()> {
        if amount.is_positive() { self.transfer(from, BURNT_FUNDS_ACTOR_ID, amount) } else { Ok(()) }
    }

    pub fn resolve(&self, address: &Address) -> ActorResult<Option<ActorID>> {
        if address.protocol() == Protocol::ID {
            return Ok(address.id().ok());
        }
        let state: init::State = self.load(INIT_ACTOR_ID)?;
        let found = state.resolve_address(&self.store, address)?;
        Ok(found.and_then(|a| a.id().ok()))
    }

    /// A new actor with a new id for a robust address.
    pub fn create(&mut self, robust: &Address, kind: Kind, head: cid::Cid) -> ActorResult<ActorID> {
        let mut state: init::State = self.load(INIT_ACTOR_ID)?;
        let (id, _) = state.map_addresses_to_id(&self.store, robust, None)?;
        self.save(INIT_ACTOR_ID, &state)?;
        let actor = ActorEntry {
            code: kind.code(self.actors()),
            head,
            sequence: 0,
            balance: TokenAmount::default(),
            delegated_address: None,
        };
        self.tree.set(id, actor);
        Ok(id)
    }

    /// The account of a key; created at the first message to it.
    pub fn account(&mut self, address: &Address) -> ActorResult<ActorID> {
        if let Some(id) = self.resolve(address)? {
            return Ok(id);
        }
        match address.protocol() {
            Protocol::BLS | Protocol::Secp256k1 => {
                let head = self.put(&fil_actor_account_state::v19::State { address: *address })?;
                self.create(address, Kind::Account, head)
            }
            _ => Err(ActorError::unchecked(
                fvm_shared::error::ExitCode::SYS_INVALID_RECEIVER,
                format!("actor does not exist: {address}"),
            )),
        }
    }

    pub fn draw_tickets(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ActorResult<[u8; 32]> {
        let drawn = self.env.rand.tickets(tag, epoch, entropy);
        drawn.map_err(|e| actor_error!(illegal_argument, "failed to draw ticket randomness: {}", e))
    }

    pub fn draw_beacon(&self, tag: RandomnessTag, epoch: ChainEpoch, entropy: &[u8]) -> ActorResult<[u8; 32]> {
        let drawn = self.env.rand.beacon(tag, epoch, entropy);
        drawn.map_err(|e| actor_error!(illegal_argument, "failed to draw beacon randomness: {}", e))
    }
}

/// A method's return value.
pub fn returns<T: Serialize>(value: &T) -> ActorResult<RawBytes> {
    RawBytes::serialize(value).map_err(|e| actor_error!(serialization, "failed to encode the return value: {}", e))
}
