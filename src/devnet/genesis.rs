//! The first block: system actors, funded accounts, the chain's own keys.

use super::error::{ActorResult, ChainError, ChainResult};
use super::keys::Secret;
use super::settings::DevnetSettings;
use super::state_tree::{ActorEntry, Actors, FIRST_FREE_ID, Kind, StateTree};
use super::store::ChainStore;
use super::wire;
use crate::chain::types::{BeaconEntry, BlockHeader, ElectionProof, Ticket};
use cid::Cid;
use fil_actor_account_state::v19 as account;
use fil_actor_cron_state::v19 as cron;
use fil_actor_init_state::v19 as init;
use fil_actor_power_state::v19 as power;
use fil_actor_system_state::v19 as system;
use fil_actors_shared::v19::{
    BURNT_FUNDS_ACTOR_ID, CRON_ACTOR_ID, DEFAULT_HAMT_CONFIG, INIT_ACTOR_ID, REWARD_ACTOR_ID, STORAGE_MARKET_ACTOR_ID,
    STORAGE_POWER_ACTOR_ADDR, STORAGE_POWER_ACTOR_ID, SYSTEM_ACTOR_ADDR, SYSTEM_ACTOR_ID,
};
use fvm_ipld_amt::Amtv0;
use fvm_ipld_encoding::CborStore;
use fvm_shared::ActorID;
use fvm_shared::address::Address;
use fvm_shared::econ::TokenAmount;
use fvm_shared::receipt::Receipt;
use multihash_codetable::Code;
use serde::Serialize;

/// The built-in producer's account; its blocks carry this address.
pub const PRODUCER_ID: ActorID = 100;
pub const OWNER_ID: ActorID = 101;
pub const WORKER_ID: ActorID = 102;

/// No block may ask for less.
pub const BASE_FEE: u64 = 100;

/// The genesis keys, in the order of their ids.
pub struct Keys<'a> {
    pub producer: &'a Secret,
    pub owner: &'a Secret,
    pub worker: &'a Secret,
}

pub fn header(
    store: &ChainStore,
    settings: &DevnetSettings,
    keys: &Keys<'_>,
    beacon: BeaconEntry,
    ticket: Vec<u8>,
    timestamp: u64,
) -> ChainResult<BlockHeader> {
    let state_root = state(store, settings, keys)?;
    let receipts = Amtv0::<Receipt, _>::new_from_iter(store, Vec::new()).map_err(ChainError::store)?;
    Ok(BlockHeader {
        miner: SYSTEM_ACTOR_ADDR,
        ticket: Some(Ticket { vrf_proof: ticket }),
        election_proof: Some(ElectionProof { win_count: 0, vrf_proof: vec![] }),
        beacon_entries: vec![beacon],
        win_post_proof: vec![],
        parents: vec![],
        parent_weight: 0.into(),
        height: 0,
        parent_state_root: state_root,
        parent_message_receipts: receipts,
        messages: wire::put_messages(store, &[], &[])?,
        bls_aggregate: Some(super::keys::aggregate(&[]).map_err(ChainError::refused)?),
        timestamp,
        block_sig: None,
        fork_signaling: 0,
        parent_base_fee: TokenAmount::from_atto(BASE_FEE),
    })
}

fn state(store: &ChainStore, settings: &DevnetSettings, keys: &Keys<'_>) -> ChainResult<Cid> {
    let mut tree = StateTree::empty(store)?;
    let actors = settings.actors(0);
    let nothing = TokenAmount::default;
    set(store, (&mut tree, actors), SYSTEM_ACTOR_ID, Kind::System, nothing(), &system::State::new(store)?)?;
    let entries = vec![cron::Entry { receiver: STORAGE_POWER_ACTOR_ADDR, method_num: 5 }];
    set(store, (&mut tree, actors), CRON_ACTOR_ID, Kind::Cron, nothing(), &cron::State { entries })?;
    set(store, (&mut tree, actors), STORAGE_POWER_ACTOR_ID, Kind::Power, nothing(), &power::State::new(store)?)?;
    let supply = TokenAmount::from_whole(1_100_000_000);
    // The two actors whose state changes its shape with version 19.
    match actors {
        Actors::V18 => {
            let markets = fil_actor_market_state::v18::State::new(store).map_err(ChainError::store)?;
            set(store, (&mut tree, actors), STORAGE_MARKET_ACTOR_ID, Kind::Market, nothing(), &markets)?;
            let rewards = fil_actor_reward_state::v18::State::new(0.into());
            set(store, (&mut tree, actors), REWARD_ACTOR_ID, Kind::Reward, supply, &rewards)?;
        }
        Actors::V19 => {
            let markets = fil_actor_market_state::v19::State::new(store).map_err(ChainError::store)?;
            set(store, (&mut tree, actors), STORAGE_MARKET_ACTOR_ID, Kind::Market, nothing(), &markets)?;
            let rewards = fil_actor_reward_state::v19::State::new(store, 0.into())?;
            set(store, (&mut tree, actors), REWARD_ACTOR_ID, Kind::Reward, supply, &rewards)?;
        }
    }
    let burnt = account::State { address: Address::new_id(BURNT_FUNDS_ACTOR_ID) };
    set(store, (&mut tree, actors), BURNT_FUNDS_ACTOR_ID, Kind::Account, nothing(), &burnt)?;

    let funds = settings.account_balance();
    let accounts = [
        (PRODUCER_ID, keys.producer, nothing()),
        (OWNER_ID, keys.owner, funds.clone()),
        (WORKER_ID, keys.worker, funds),
    ];
    for (id, key, balance) in &accounts {
        let state = account::State { address: key.address() };
        set(store, (&mut tree, actors), *id, Kind::Account, balance.clone(), &state)?;
    }
    let init = init_state(store, settings, accounts.iter().map(|(id, key, _)| (key.address(), *id)))?;
    set(store, (&mut tree, actors), INIT_ACTOR_ID, Kind::Init, nothing(), &init)?;
    tree.flush()
}

fn init_state(
    store: &ChainStore,
    settings: &DevnetSettings,
    accounts: impl Iterator<Item = (Address, ActorID)>,
) -> ActorResult<init::State> {
    let mut state = init::State::new(store, settings.network_name.clone())?;
    let mut map = init::AddressMap::load(store, &state.address_map, DEFAULT_HAMT_CONFIG, "addresses")?;
    for (address, id) in accounts {
        map.set(&address, id)?;
    }
    state.address_map = map.flush()?;
    // The first miner is t01000.
    state.next_id = FIRST_FREE_ID;
    Ok(state)
}

fn set<T: Serialize>(
    store: &ChainStore,
    (tree, actors): (&mut StateTree, Actors),
    id: ActorID,
    kind: Kind,
    balance: TokenAmount,
    state: &T,
) -> ChainResult<()> {
    let head = store.put_cbor(state, Code::Blake2b256)?;
    tree.set(id, ActorEntry { code: kind.code(actors), head, sequence: 0, balance, delegated_address: None });
    Ok(())
}
