//! Moving the head: what is reverted and applied, in one durable commit, then told to the listeners.

use super::core::{Core, height_key};
use super::error::{ChainError, ChainResult};
use super::genesis::PRODUCER_ID;
use super::keys;
use super::mempool::Mempool;
use super::store::{Batch, Table};
use super::wire;
use crate::chain::types::{HeadChange, HeadChangeType, Message, Signature, SignedMessage, TipSet};
use cid::Cid;
use fvm_ipld_encoding::CborStore;
use std::sync::Arc;

impl Core {
    /// Makes `new` (whose blocks are stored) the head.
    pub fn set_head(&mut self, new: TipSet) -> ChainResult<()> {
        let (reverted, applied) = self.path_to(&new)?;
        if reverted.is_empty() && applied.is_empty() {
            return Ok(());
        }
        // Executed now, so that its state is in the same commit as the head.
        let root = self.executed(&new)?.state;
        let mut batch = std::mem::take(&mut self.unsaved);
        let mut returned = Vec::new();
        for ts in &reverted {
            batch.delete(Table::Canon, height_key(ts.height));
            for (cid, message) in self.messages_of(ts)? {
                batch.delete(Table::Included, cid.to_bytes());
                batch.delete(Table::BySender, sender_key(&message));
                returned.extend(self.signed(&cid, message)?);
            }
        }
        for ts in &applied {
            batch.put(Table::Canon, height_key(ts.height), wire::key_bytes(&ts.key()));
            for (cid, message) in self.messages_of(ts)? {
                batch.put(Table::Included, cid.to_bytes(), height_key(ts.height));
                batch.put(Table::BySender, sender_key(&message), cid.to_bytes());
            }
        }
        batch.put(Table::Meta, "head", wire::key_bytes(&new.key()));
        self.update_pool(&mut batch, &root, new.height, returned)?;
        if let Err(e) = self.store.commit(&batch) {
            // The old head stays, and what the pool held with it.
            self.pool = Mempool::load(&self.store, self.settings.mempool_limit)?;
            return Err(e);
        }

        for ts in &reverted {
            self.canon.remove(&ts.height);
        }
        for ts in &applied {
            self.canon.insert(ts.height, ts.key());
        }
        self.head = new;
        self.held.clear();
        self.clock.block_held = false;
        self.clock.head_at = self.time_of_head();
        self.clock.provider_ready = self.any_miner_ready()?;
        let change = |kind, val| HeadChange { kind, val };
        let mut changes: Vec<_> = reverted.into_iter().map(|ts| change(HeadChangeType::Revert, ts)).collect();
        changes.extend(applied.into_iter().map(|ts| change(HeadChangeType::Apply, ts)));
        // Nobody listening is fine.
        let _ = self.changes.send(Arc::new(changes));
        Ok(())
    }

    /// Now; for a provider's block the time that it carries, or every block would make the chain's clock a little later
    /// than the one by which the provider works.
    fn time_of_head(&self) -> u64 {
        let now = self.now();
        let mut providers = self.head.blocks.iter().filter(|b| b.miner.id().is_ok_and(|id| id > PRODUCER_ID));
        let Some(block) = providers.next() else { return now };
        let carried = block.timestamp.saturating_mul(1000);
        let delay = self.settings.block_delay.as_millis();
        let recent = carried <= now && u128::from(now - carried) < delay;
        if recent { carried } else { now }
    }

    /// Tipsets to revert, newest first, and to apply, oldest first.
    fn path_to(&self, new: &TipSet) -> ChainResult<(Vec<TipSet>, Vec<TipSet>)> {
        let (mut old, mut new) = (self.head.clone(), new.clone());
        let (mut reverted, mut applied) = (Vec::new(), Vec::new());
        let end = || ChainError::store("two chains without a common ancestor");
        while old.key() != new.key() {
            if old.height >= new.height {
                let parent = self.parent(&old)?.ok_or_else(end)?;
                reverted.push(std::mem::replace(&mut old, parent));
            } else {
                let parent = self.parent(&new)?.ok_or_else(end)?;
                applied.push(std::mem::replace(&mut new, parent));
            }
        }
        applied.reverse();
        Ok((reverted, applied))
    }

    /// Reverted messages wait again; those that the new head has spent are dropped.
    fn update_pool(
        &mut self,
        batch: &mut Batch,
        root: &Cid,
        height: i64,
        returned: Vec<SignedMessage>,
    ) -> ChainResult<()> {
        let mut nonces = Vec::new();
        let mut senders = self.pool.senders();
        let mut back = Vec::new();
        {
            let vm = self.view_root(root, height)?;
            for message in returned {
                if let Some(id) = vm.resolve(&message.message.from)? {
                    senders.push(id);
                    back.push((id, message));
                }
            }
            for id in senders {
                nonces.push((id, vm.find(id)?.map_or(0, |a| a.sequence)));
            }
        }
        for (id, message) in back {
            self.pool.add(batch, id, message)?;
        }
        for (id, nonce) in nonces {
            self.pool.drop_below(batch, id, nonce);
        }
        Ok(())
    }

    /// A message of a block with its signature: its own, or the one that came with it into the mempool.
    pub fn signed(&self, cid: &Cid, message: Message) -> ChainResult<Option<SignedMessage>> {
        let unsigned = wire::message_cid(&message)?;
        if unsigned != *cid {
            let bytes = fvm_ipld_blockstore::Blockstore::get(&self.store, cid)?.unwrap_or_default();
            return Ok(Some(wire::signed_from_bytes(&bytes)?));
        }
        let row = self.store.read(Table::Signatures, &unsigned.to_bytes())?;
        Ok(row.and_then(|row| {
            let (kind, data) = row.split_first()?;
            Some(SignedMessage { message, signature: Signature { kind: *kind, data: data.to_vec() } })
        }))
    }

    /// Finds a message's execution: the including tipset, its index there, and the tipset that carries its receipt.
    pub fn locate(&self, cid: &Cid, from: &TipSet) -> ChainResult<Option<(TipSet, usize, TipSet)>> {
        let Some(row) = self.store.read(Table::Included, &cid.to_bytes())? else { return Ok(None) };
        let height =
            row.try_into().map(|b| u64::from_be_bytes(b) as i64).map_err(|_| ChainError::store("a bad height"))?;
        if height >= from.height {
            return Ok(None);
        }
        let including = self.at_or_before(height, from)?;
        if including.height != height {
            return Ok(None);
        }
        let carrying = self.at_or_after(height + 1, from)?;
        let index = self.messages_of(&including)?.iter().position(|(c, _)| c == cid);
        Ok(index.map(|index| (including, index, carrying)))
    }

    /// The canonical message with this one's sender and nonce.
    pub fn message_of_nonce(&self, message: &Message) -> ChainResult<Option<Cid>> {
        let row = self.store.read(Table::BySender, &sender_key(message))?;
        Ok(row.and_then(|bytes| Cid::try_from(bytes.as_slice()).ok()))
    }

    /// A message by CID: of a block or pending, signed or not.
    pub fn find_message(&self, cid: &Cid) -> ChainResult<Message> {
        match wire::load_message(&self.store, cid) {
            Ok(message) => Ok(message),
            Err(_) => {
                let pending =
                    self.pool.all().into_iter().find(|m| {
                        m.signature.kind != keys::BLS && wire::message_cid(&m.message).is_ok_and(|c| c == *cid)
                    });
                pending.map(|m| m.message).ok_or_else(|| ChainError::refused(format!("message {cid} not found")))
            }
        }
    }

    pub fn has_object(&self, cid: &Cid) -> ChainResult<bool> {
        Ok(fvm_ipld_blockstore::Blockstore::has(&self.store, cid)?)
    }

    /// An executed message's receipt.
    pub fn receipt(&self, carrying: &TipSet, index: usize) -> ChainResult<fvm_shared::receipt::Receipt> {
        self.receipts(carrying)?
            .into_iter()
            .nth(index)
            .ok_or_else(|| ChainError::store(format!("no receipt {index} in tipset {}", carrying.height)))
    }

    /// The receipts that a tipset carries: of its parents' messages.
    pub fn receipts(&self, carrying: &TipSet) -> ChainResult<Vec<fvm_shared::receipt::Receipt>> {
        let root = carrying.min_ticket_block().parent_message_receipts;
        let array = fvm_ipld_amt::Amtv0::<fvm_shared::receipt::Receipt, _>::load(&root, &self.store)
            .map_err(ChainError::store)?;
        let mut receipts = Vec::new();
        array
            .for_each(|_, receipt| {
                receipts.push(receipt.clone());
                Ok(())
            })
            .map_err(ChainError::store)?;
        Ok(receipts)
    }

    pub fn get_cbor<T: serde::de::DeserializeOwned>(&self, cid: &Cid) -> ChainResult<Option<T>> {
        Ok(self.store.get_cbor(cid)?)
    }
}

fn sender_key(message: &Message) -> Vec<u8> {
    [message.from.to_bytes().as_slice(), &message.nonce.to_be_bytes()].concat()
}
