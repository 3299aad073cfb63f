//! Actors, accounts, randomness, messages and the wallet, in Lotus' shapes.

use super::core::{Core, put_key};
use super::error::{ChainError, ChainResult};
use super::keys::Secret;
use super::mempool::account_key;
use super::rand::ChainRand;
use super::store::{Batch, Table};
use super::vm::{Rand, Vm};
use super::wire;
use super::wording::Wording;
use crate::chain::types::{
    Message, MessageReceipt, MsgLookup, NetworkParams, OnChainActor, Signature, SignedMessage, TipSetKey,
};
use crate::rpc::full_node::RandomnessTag;
use cid::Cid;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::receipt::Receipt;

/// `hello` of test networks.
const EIP155_CHAIN_ID: u64 = 31_415_926;

/// The upgrades that `StateGetNetworkParams` tells, oldest first (lotus `api/types.go`, forest
/// `rpc/methods/state.rs`).
const UPGRADES: [&str; 33] = [
    "Breeze",
    "Smoke",
    "Ignition",
    "Refuel",
    "Assembly",
    "Tape",
    "Liftoff",
    "Kumquat",
    "Calico",
    "Persian",
    "Orange",
    "Claus",
    "Trust",
    "Norwegian",
    "Turbo",
    "Hyperdrive",
    "Chocolate",
    "OhSnap",
    "Skyr",
    "Shark",
    "Hygge",
    "Lightning",
    "Thunder",
    "Watermelon",
    "Dragon",
    "Phoenix",
    "Waffle",
    "Tuktuk",
    "Teep",
    "Tock",
    "GoldenWeek",
    "FireHorse",
    "Solstice",
];
/// `{UpgradeBreezeHeight: -34, …}`: what was in force at genesis has a negative height, as on Lotus' devnets.
fn upgrade_heights(solstice: ChainEpoch) -> serde_json::Value {
    let past = (1..UPGRADES.len() as ChainEpoch).rev().map(|n| -n - 1);
    let heights = UPGRADES.iter().zip(past.chain([solstice]));
    let mut all: serde_json::Map<_, _> =
        heights.map(|(name, height)| (format!("Upgrade{name}Height"), height.into())).collect();
    all.insert("BreezeGasTampingDuration".into(), 0.into());
    all.into()
}

pub fn receipt_json(r: Receipt) -> MessageReceipt {
    MessageReceipt {
        exit_code: i64::from(r.exit_code.value()),
        return_data: r.return_data.bytes().to_vec(),
        gas_used: r.gas_used as i64,
        events_root: r.events_root,
    }
}

fn id_of(vm: &Vm<'_>, who: &Address) -> ChainResult<u64> {
    vm.resolve(who)?.ok_or_else(|| ChainError::refused(format!("actor not found: {who}")))
}

/// Whether two messages differ in nothing but their fees.
fn same_call(a: &Message, b: &Message) -> bool {
    let fees = |of: &Message, message: &Message| Message {
        gas_limit: of.gas_limit,
        gas_fee_cap: of.gas_fee_cap.clone(),
        gas_premium: of.gas_premium.clone(),
        ..message.clone()
    };
    fees(a, b) == *a
}

impl Core {
    /// `None` when there is no such actor, which Lotus calls an error.
    pub fn actor_state(&mut self, who: &Address, key: &TipSetKey) -> ChainResult<Option<OnChainActor>> {
        let wording = self.switches.wording;
        let (_, vm) = self.view(key)?;
        let actor = match vm.resolve(who)? {
            Some(id) => vm.find(id)?,
            None => None,
        };
        match (actor, wording) {
            (Some(actor), _) => Ok(Some(OnChainActor {
                code: actor.code,
                head: actor.head,
                nonce: actor.sequence,
                balance: actor.balance,
                delegated_address: actor.delegated_address,
            })),
            (None, Wording::Forest) => Ok(None),
            (None, Wording::Lotus) => Err(wording.no_actor(who)),
        }
    }

    pub fn lookup_id(&mut self, who: &Address, key: &TipSetKey) -> ChainResult<Address> {
        let (_, vm) = self.view(key)?;
        Ok(Address::new_id(id_of(&vm, who)?))
    }

    pub fn account_key_of(&mut self, who: &Address, key: &TipSetKey) -> ChainResult<Address> {
        let (_, vm) = self.view(key)?;
        account_key(&vm, who)
    }

    pub fn network_params(&self) -> NetworkParams {
        NetworkParams {
            network_name: self.settings.network_name.clone(),
            block_delay_secs: self.settings.block_delay.as_secs().max(1),
            consensus_miner_min_power: self.settings.minimum_power.into(),
            supported_proof_types: vec![5],
            pre_commit_challenge_delay: self.settings.pre_commit_challenge_delay,
            fork_upgrade_params: upgrade_heights(self.settings.upgrade_epoch),
            eip155_chain_id: EIP155_CHAIN_ID,
            genesis_timestamp: self.genesis.min_ticket_block().timestamp,
        }
    }

    pub fn randomness(
        &self,
        beacon: bool,
        tag: RandomnessTag,
        epoch: ChainEpoch,
        entropy: &[u8],
        key: &TipSetKey,
    ) -> ChainResult<Vec<u8>> {
        let rand = ChainRand::new(&self.store, &self.beacon, &self.find(key)?);
        let drawn = if beacon { rand.beacon(tag, epoch, entropy) } else { rand.tickets(tag, epoch, entropy) };
        Ok(drawn?.to_vec())
    }

    /// The receipt of a message, or with `replaced` of the one with its nonce that does the same. A message that this node
    /// never held is an error; so may be one whose nonce another message has used.
    pub fn search_message(
        &self,
        from: &TipSetKey,
        cid: &Cid,
        lookback: ChainEpoch,
        replaced: bool,
    ) -> ChainResult<Option<MsgLookup>> {
        let wording = self.switches.wording;
        let from = self.find(from)?;
        let Some(wanted) = self.held_message(cid)? else { return Err(wording.unknown_message(cid)) };
        let Some(message) = self.message_of_nonce(&wanted)? else { return Ok(None) };
        let Some((_, index, carrying)) = self.locate(&message, &from)? else { return Ok(None) };
        if lookback >= 0 && from.height - carrying.height > lookback {
            return Ok(None);
        }
        if message != *cid {
            if !same_call(&wanted, &wire::load_message(&self.store, &message)?) {
                return wording.displaced(cid, wanted.nonce, &message, replaced).map(|()| None);
            }
            if !replaced {
                return wording.other_fee_landed(cid, &wanted, &message).map(|()| None);
            }
        }
        let receipt = self.receipt(&carrying, index)?;
        Ok(Some(MsgLookup {
            message,
            receipt: receipt_json(receipt),
            return_dec: serde_json::Value::Null,
            tip_set: carrying.key(),
            height: carrying.height,
        }))
    }

    /// A message of a block or of the mempool, of now or of earlier.
    fn held_message(&self, cid: &Cid) -> ChainResult<Option<Message>> {
        match self.has_object(cid)? {
            true => Ok(wire::load_message(&self.store, cid).ok()),
            false => Ok(self.find_message(cid).ok()),
        }
    }

    pub fn balance_of(&mut self, who: &Address) -> ChainResult<TokenAmount> {
        let (_, vm) = self.view(&TipSetKey::default())?;
        let Some(id) = vm.resolve(who)? else { return Ok(TokenAmount::default()) };
        Ok(vm.find(id)?.map(|a| a.balance).unwrap_or_default())
    }

    /// The wallet's key behind an address of any kind.
    fn secret(&mut self, who: &Address) -> ChainResult<Secret> {
        let missing = || ChainError::refused(format!("key not found in the wallet: {who}"));
        let key = self.account_key_of(who, &TipSetKey::default()).map_err(|_| missing())?;
        self.wallet.get(&key).cloned().ok_or_else(missing)
    }

    pub fn wallet_has(&mut self, who: &Address) -> bool {
        self.secret(who).is_ok()
    }

    pub fn sign(&mut self, who: &Address, bytes: &[u8]) -> ChainResult<Signature> {
        self.secret(who)?.sign(bytes).map_err(ChainError::Refused)
    }

    pub fn sign_message(&mut self, who: &Address, message: &Message) -> ChainResult<SignedMessage> {
        let cid = wire::message_cid(message)?;
        let signature = self.sign(who, &cid.to_bytes())?;
        Ok(SignedMessage { message: message.clone(), signature })
    }

    pub fn add_key(&mut self, secret: Secret) -> ChainResult<Address> {
        let address = secret.address();
        let mut batch = Batch::default();
        put_key(&mut batch, &secret);
        if self.default_address.is_none() {
            batch.put(Table::Meta, "default", address.to_bytes());
        }
        self.store.commit(&batch)?;
        self.default_address.get_or_insert(address);
        self.wallet.insert(address, secret);
        Ok(address)
    }

    pub fn export_key(&mut self, who: &Address) -> ChainResult<(String, Vec<u8>)> {
        let secret = self.secret(who)?;
        Ok((secret.kind().to_string(), secret.to_bytes()))
    }
}
