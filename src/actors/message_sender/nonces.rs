//! The stored next nonce of each sender address: taken and given back together with the signed bytes that use it.

use super::effects::Engine;
use super::record::{Done, NextNonce, Open, Order, Signed};
use crate::chain::Address;
use crate::store::{Store, StoreError, Txn};

fn is_damage(e: &StoreError) -> bool {
    matches!(e, StoreError::Corrupt { .. } | StoreError::Schema { .. })
}

/// The nonce after the last that an open message of that address has.
fn behind_open(from: &str, open: impl Iterator<Item = Open>) -> Option<NextNonce> {
    let signed = open.filter_map(|open| open.signed).filter(|signed| signed.from == from);
    signed.map(|signed| NextNonce(signed.nonce + 1)).max_by_key(|next| next.0)
}

/// A record that cannot be read is made again from the open messages: those on chain are counted by the chain.
fn stored_nonce(tx: &Txn<'_>, from: &str) -> Result<Option<NextNonce>, StoreError> {
    match tx.get::<NextNonce>(from) {
        Err(e) if is_damage(&e) => {
            Ok(behind_open(from, tx.list_readable::<Open>("")?.into_iter().map(|(_, open)| open)))
        }
        next => next,
    }
}

impl Engine {
    /// The stored next nonce; an error in the answer: it cannot be told which nonces are used, because this record and one of
    /// a message cannot be read.
    pub(super) fn next_nonce(&self, from: &Address) -> Result<Result<Option<NextNonce>, String>, StoreError> {
        let from = from.to_string();
        let why = match self.store.get::<NextNonce>(&from) {
            Err(e) if is_damage(&e) => e,
            next => return Ok(Ok(next?)),
        };
        let (open, damaged) = self.store.list_readable::<Open>("")?;
        if let Some((key, _)) = damaged.first() {
            return Ok(Err(format!(
                "nothing is signed with {from}: {why}, and {key}, which may have a nonce of it, cannot be read either; put a \
                 backup of the store back, in a cluster run `bulkhead cluster repair`"
            )));
        }
        tracing::warn!(%from, "the next nonce is made again from the open messages: {why}");
        Ok(Ok(behind_open(&from, open.into_iter().map(|(_, open)| open))))
    }

    /// The write-ahead step: the signed bytes and their nonce, together. `read`: the stored nonce that theirs follows from.
    /// `false` when another sender of the same address took a nonce or gave one back meanwhile (sign again: a nonce in front
    /// would be used by nobody), or the message was withdrawn.
    pub(super) fn store_signed(
        &self,
        store: &Store,
        key: &str,
        signed: Signed,
        read: Option<NextNonce>,
    ) -> Result<bool, StoreError> {
        let nonce_key = signed.from.clone();
        store.transact(&self.token, |tx| {
            if stored_nonce(tx, &nonce_key)? != read {
                return Ok(false);
            }
            let Some(open) = tx.get::<Open>(key)? else { return Ok(false) };
            // An earlier try of which we were not told; or a cancellation that came meanwhile, which the next round ends.
            if open.signed.is_some() || open.order == Some(Order::Cancel) {
                return Ok(false);
            }
            tx.put(&nonce_key, &NextNonce(signed.nonce + 1))?;
            tx.put(key, &Open { signed: Some(signed), refusals: 0, refused_at: None, ..open })?;
            Ok(true)
        })
    }

    /// A self-transfer that nobody asked for, to be watched like a cancelled message. `false`: it is stored already.
    pub(super) fn store_filler(&self, key: &str, filler: Open) -> Result<bool, StoreError> {
        let Some(signed) = &filler.signed else { return Ok(false) };
        let (nonce_key, after) = (signed.from.clone(), signed.nonce + 1);
        let prefix = self.prefix();
        self.store.transact(&self.token, |tx| {
            if tx.get::<Open>(key)?.is_some() {
                return Ok(false);
            }
            let seq = tx.list_readable::<Open>(&prefix)?.iter().map(|(_, open)| open.seq + 1).max().unwrap_or(0);
            let next = stored_nonce(tx, &nonce_key)?.map_or(0, |next| next.0).max(after);
            tx.put(&nonce_key, &NextNonce(next))?;
            tx.delete::<Done>(key)?;
            tx.put(key, &Open { seq, ..filler })?;
            Ok(true)
        })
    }

    /// Gives the nonce of a message back that no node can hold: it is signed anew. `false`: a later nonce is out, so that
    /// this one must be used.
    pub(super) fn give_nonce_back(&self, store: &Store, key: &str, signed: &Signed) -> Result<bool, StoreError> {
        store.transact(&self.token, |tx| {
            let next = stored_nonce(tx, &signed.from)?;
            if next.is_none_or(|next| next.0 != signed.nonce + 1) {
                return Ok(false);
            }
            let Some(open) = tx.get::<Open>(key)? else { return Ok(false) };
            if open.signed.as_ref().is_none_or(|now| now.cid != signed.cid) {
                return Ok(false);
            }
            tx.put(&signed.from, &NextNonce(signed.nonce))?;
            tx.put(key, &Open { signed: None, ..open })?;
            Ok(true)
        })
    }
}
