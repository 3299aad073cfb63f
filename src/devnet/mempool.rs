//! Messages that wait for a block: by sender and nonce, bounded, durable before they are acknowledged.

use super::core::Core;
use super::error::{ChainError, ChainResult};
use super::keys;
use super::state_tree::Kind;
use super::store::{Batch, ChainStore, Table};
use super::vm::{Vm, miner};
use super::wire;
use crate::chain::types::{Message, SignedMessage, TipSet, TipSetKey};
use cid::Cid;
use fvm_shared::ActorID;
use fvm_shared::address::{Address, Protocol};
use fvm_shared::econ::TokenAmount;
use num_traits::Zero;
use std::collections::BTreeMap;

/// Gas of all messages of a block.
pub const BLOCK_GAS_LIMIT: u64 = 10_000_000_000;
/// Nonces that a message may be ahead of the first one missing.
const MAX_NONCE_GAP: u64 = 64;
/// Largest encoded message.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

pub struct Mempool {
    limit: usize,
    senders: BTreeMap<ActorID, BTreeMap<u64, SignedMessage>>,
}

fn row_key(sender: ActorID, nonce: u64) -> Vec<u8> {
    [sender.to_be_bytes(), nonce.to_be_bytes()].concat()
}

impl Mempool {
    pub fn load(store: &ChainStore, limit: usize) -> ChainResult<Self> {
        let mut pool = Mempool { limit, senders: BTreeMap::new() };
        for (key, row) in store.read_all(Table::Mempool)? {
            let sender: [u8; 8] =
                key.get(..8).and_then(|k| k.try_into().ok()).ok_or_else(|| ChainError::store("a bad mempool key"))?;
            pool.insert(u64::from_be_bytes(sender), wire::signed_from_bytes(&row)?);
        }
        Ok(pool)
    }

    pub fn len(&self) -> usize {
        self.senders.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn all(&self) -> Vec<SignedMessage> {
        self.senders.values().flat_map(|m| m.values().cloned()).collect()
    }

    pub fn of(&self, sender: ActorID) -> impl Iterator<Item = &SignedMessage> {
        self.senders.get(&sender).into_iter().flat_map(|m| m.values())
    }

    fn insert(&mut self, sender: ActorID, message: SignedMessage) {
        self.senders.entry(sender).or_default().insert(message.message.nonce, message);
    }

    /// The first nonce at or after `from` without a message.
    fn next_nonce(&self, sender: ActorID, from: u64) -> u64 {
        let Some(pending) = self.senders.get(&sender) else { return from };
        (from..).find(|n| !pending.contains_key(n)).unwrap_or(from)
    }

    /// Adds a message and says so in the batch.
    pub fn add(&mut self, batch: &mut Batch, sender: ActorID, message: SignedMessage) -> ChainResult<()> {
        batch.put(Table::Mempool, row_key(sender, message.message.nonce), wire::signed_bytes(&message)?);
        self.insert(sender, message);
        Ok(())
    }

    /// Forgets all messages of a sender below a nonce.
    pub fn drop_below(&mut self, batch: &mut Batch, sender: ActorID, nonce: u64) {
        let Some(pending) = self.senders.get_mut(&sender) else { return };
        for gone in pending.range(..nonce).map(|(n, _)| *n) {
            batch.delete(Table::Mempool, row_key(sender, gone));
        }
        pending.retain(|n, _| *n >= nonce);
        if pending.is_empty() {
            self.senders.remove(&sender);
        }
    }

    pub fn senders(&self) -> Vec<ActorID> {
        self.senders.keys().copied().collect()
    }
}

/// The mempool's decision about a message, from its nonce and rivals.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    Add,
    Replace,
    /// The very same bytes again, which is refused although the pool holds them.
    Same,
    TooLow,
    GapTooLarge,
    PremiumTooLow(TokenAmount),
}

/// `replace_percent`: the premium of a replacement, in percent of that of its rival; one attoFIL more is asked for
/// (lotus `ComputeMinRBF`).
fn judge(
    (state_nonce, next_nonce): (u64, u64),
    rival: Option<&SignedMessage>,
    message: &SignedMessage,
    replace_percent: u64,
) -> Admission {
    let nonce = message.message.nonce;
    match rival {
        _ if nonce < state_nonce => Admission::TooLow,
        Some(rival) if rival == message => Admission::Same,
        Some(rival) => {
            let least = (&rival.message.gas_premium * replace_percent).div_floor(100u64) + TokenAmount::from_atto(1);
            if message.message.gas_premium >= least { Admission::Replace } else { Admission::PremiumTooLow(least) }
        }
        None if nonce > next_nonce.saturating_add(MAX_NONCE_GAP) => Admission::GapTooLarge,
        None => Admission::Add,
    }
}

/// The key behind an account; what signatures are checked against.
pub fn account_key(vm: &Vm<'_>, address: &Address) -> ChainResult<Address> {
    match address.protocol() {
        Protocol::BLS | Protocol::Secp256k1 => return Ok(*address),
        _ => {}
    }
    let id = vm.resolve(address)?.ok_or_else(|| ChainError::refused(format!("actor not found: {address}")))?;
    match vm.kind(id)? {
        Some(Kind::Account) => Ok(vm.load::<fil_actor_account_state::v19::State>(id)?.address),
        Some(kind) => {
            let kind = format!("{kind:?}").to_lowercase();
            let why = format!("failed to get account actor state for {address}: actor code is not account: {kind}");
            Err(ChainError::refused(why))
        }
        None => Err(ChainError::refused(format!("actor not found: {address}"))),
    }
}

impl Core {
    pub fn push(&mut self, message: SignedMessage) -> ChainResult<Cid> {
        self.check_verifier(&message.message)?;
        let limit = self.pool.limit;
        let bytes = wire::signed_bytes(&message)?;
        let cid = wire::signed_cid(&message)?;
        let unsigned = wire::message_cid(&message.message)?;
        let refused = |why: String| Err(ChainError::Refused(why));
        let wording = self.switches.wording;
        let m = &message.message;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(wording.message_too_large(bytes.len()));
        }
        if m.gas_limit <= 0 || m.gas_limit as u64 > BLOCK_GAS_LIMIT {
            return refused(format!("message has a gas limit of {}: it must be in 1..={BLOCK_GAS_LIMIT}", m.gas_limit));
        }
        if m.gas_premium > m.gas_fee_cap {
            return refused("'GasFeeCap' less than 'GasPremium'".into());
        }
        if m.gas_fee_cap < TokenAmount::from_atto(super::genesis::BASE_FEE) {
            return Err(wording.fee_cap_too_low());
        }
        let (sender, nonce, balance) = {
            let (_, vm) = self.view(&TipSetKey::default())?;
            let key = account_key(&vm, &m.from)?;
            if let Err(why) = keys::verify(&message.signature, &key, &unsigned.to_bytes()) {
                return refused(format!("failed to verify signature: {why}"));
            }
            let Some(id) = vm.resolve(&m.from)? else {
                return refused(format!("mpool push: not enough funds: {} has no account on chain", m.from));
            };
            let actor = vm.actor(id)?;
            (id, actor.sequence, actor.balance)
        };
        let rival = self.pool.of(sender).find(|r| r.message.nonce == m.nonce);
        let next = self.pool.next_nonce(sender, nonce);
        let entry = judge((nonce, next), rival, &message, self.settings.replace_percent);
        if entry == Admission::TooLow {
            return Err(wording.nonce_too_low(nonce, m.nonce));
        }
        if cost(m) > balance {
            return Err(wording.not_enough_funds(&cost(m), &balance));
        }
        let others = self.pool.of(sender).filter(|r| r.message.nonce != m.nonce);
        let required = others.fold(cost(m), |sum, r| sum + cost(&r.message));
        if required > balance {
            return Err(wording.not_enough_with_pending(&required, &balance));
        }
        // Kept before the pool decides, as Lotus and Forest do: a search for it is answered from now on.
        wire::put_message(&self.store, &message)?;
        match entry {
            Admission::Same => return Err(wording.already_pending(m)),
            Admission::GapTooLarge => return Err(wording.nonce_gap(m.nonce, next)),
            Admission::PremiumTooLow(least) => return Err(wording.premium_too_low(m, &least)),
            Admission::Add if self.pool.len() >= limit => {
                return refused(format!("mempool is full ({limit} messages): try again later"));
            }
            Admission::TooLow | Admission::Add | Admission::Replace => {}
        }
        let mut batch = Batch::default();
        let mut signature = vec![message.signature.kind];
        signature.extend(&message.signature.data);
        batch.put(Table::Signatures, unsigned.to_bytes(), signature);
        batch.put(Table::Mempool, row_key(sender, m.nonce), bytes);
        // Acknowledged only once it is on disk.
        self.store.commit(&batch)?;
        self.pool.insert(sender, message);
        Ok(cid)
    }

    /// Messages with proofs are no use while the keys to check them are missing: better said now than never mined.
    pub fn check_verifier(&mut self, m: &Message) -> ChainResult<()> {
        if ![miner::PROVE_COMMIT3, miner::SUBMIT_WINDOWED_POST, miner::DISPUTE_WINDOWED_POST].contains(&m.method) {
            return Ok(());
        }
        let (_, vm) = self.view(&TipSetKey::default())?;
        let to = vm.resolve(&m.to)?;
        let is_miner = to.map(|id| vm.kind(id)).transpose()?.flatten() == Some(Kind::Miner);
        drop(vm);
        if is_miner { self.verifier.ready().map_err(|e| ChainError::refused(e.to_string())) } else { Ok(()) }
    }

    /// The next nonce to use, counting what is pending. An address that the chain does not know has none.
    pub fn next_nonce(&mut self, who: &Address) -> ChainResult<u64> {
        let wording = self.switches.wording;
        let (_, vm) = self.view(&TipSetKey::default())?;
        let id = vm.resolve(who)?.ok_or_else(|| wording.no_actor(who))?;
        let nonce = vm.find(id)?.ok_or_else(|| wording.no_actor(who))?.sequence;
        drop(vm);
        Ok(self.pool.next_nonce(id, nonce))
    }

    /// The messages that the next block on `ts` may contain: contiguous nonces that their senders can pay for.
    pub fn select(&mut self, ts: &TipSet) -> ChainResult<Vec<SignedMessage>> {
        let root = self.executed(ts)?.state;
        let base_fee = self.base_fee_after(ts)?;
        let vm = self.view_root(&root, ts.height)?;
        let mut selected = Vec::new();
        let mut gas = 0;
        for sender in self.pool.senders() {
            let Some(actor) = vm.find(sender)? else { continue };
            let (mut nonce, mut balance) = (actor.sequence, actor.balance);
            for message in self.pool.of(sender).filter(|m| m.message.nonce >= actor.sequence) {
                let m = &message.message;
                let price = cost(m);
                gas += m.gas_limit.max(0) as u64;
                // A cap below the base fee would cost the block's miner: what stands behind it waits too.
                if m.nonce != nonce || m.gas_fee_cap < base_fee || price > balance || gas > BLOCK_GAS_LIMIT {
                    gas -= m.gas_limit.max(0) as u64;
                    break;
                }
                nonce += 1;
                balance -= price;
                selected.push(message.clone());
            }
        }
        Ok(selected)
    }
}

/// The most that a message can take from its sender.
fn cost(m: &Message) -> TokenAmount {
    let gas = if m.gas_limit > 0 { &m.gas_fee_cap * m.gas_limit } else { TokenAmount::zero() };
    gas + &m.value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::types::Signature;

    fn message(nonce: u64, premium: u64) -> SignedMessage {
        let message = Message {
            version: 0,
            to: Address::new_id(1),
            from: Address::new_id(2),
            nonce,
            value: TokenAmount::zero(),
            gas_limit: 1,
            gas_fee_cap: TokenAmount::from_atto(1000),
            gas_premium: TokenAmount::from_atto(premium),
            method: 0,
            params: vec![],
        };
        SignedMessage { message, signature: Signature { kind: keys::BLS, data: vec![] } }
    }

    #[test]
    fn nonces_and_premiums_are_judged_at_their_boundaries() {
        let rival = message(5, 100);
        let least = |atto| Admission::PremiumTooLow(TokenAmount::from_atto(atto));
        let table = [
            (4, 100, None, 110, Admission::TooLow),
            (5, 100, None, 110, Admission::Add),
            (7 + MAX_NONCE_GAP, 1, None, 110, Admission::Add),
            (8 + MAX_NONCE_GAP, 1, None, 110, Admission::GapTooLarge),
            (5, 100, Some(&rival), 110, Admission::Same),
            (5, 110, Some(&rival), 110, least(111)),
            (5, 111, Some(&rival), 110, Admission::Replace),
            (5, 125, Some(&rival), 125, least(126)),
            (5, 126, Some(&rival), 125, Admission::Replace),
        ];
        for (nonce, premium, rival, percent, want) in table {
            assert_eq!(judge((5, 7), rival, &message(nonce, premium), percent), want, "{nonce} {premium} {percent}");
        }
        let free = message(5, 0);
        assert_eq!(judge((5, 5), Some(&free), &message(5, 1), 110), Admission::Replace);
        assert_eq!(judge((6, 6), Some(&rival), &rival, 110), Admission::TooLow, "spent, though still listed");
    }
}
