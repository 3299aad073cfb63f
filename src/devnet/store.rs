//! The chain's database: one redb file, written in one durable commit per change, and a blockstore with a write buffer over it.

use super::error::{ChainError, ChainResult};
use crate::store::StoreError;
use crate::store::db::Db;
use crate::util::lock;
use cid::Cid;
use fvm_ipld_blockstore::Blockstore;
use redb::{ReadableTable, TableDefinition};
use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// Every table maps bytes to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// CID -> block.
    Blocks,
    /// Height -> tipset key: the chain that is the heaviest.
    Canon,
    /// Settings, genesis, head, system keys.
    Meta,
    /// Sender and nonce -> signed message.
    Mempool,
    /// Address -> secret key.
    Wallet,
    /// Message CID -> signature, so that a reorg can put the message back.
    Signatures,
    /// Tipset key -> state root and receipts.
    Executed,
    /// Message CID -> height of the canonical tipset that includes it.
    Included,
    /// Sender and nonce -> message CID, canonical.
    BySender,
}

impl Table {
    const ALL: [Table; 9] = [
        Table::Blocks,
        Table::Canon,
        Table::Meta,
        Table::Mempool,
        Table::Wallet,
        Table::Signatures,
        Table::Executed,
        Table::Included,
        Table::BySender,
    ];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Table::Blocks => "blocks",
            Table::Canon => "canon",
            Table::Meta => "meta",
            Table::Mempool => "mempool",
            Table::Wallet => "wallet",
            Table::Signatures => "signatures",
            Table::Executed => "executed",
            Table::Included => "included",
            Table::BySender => "by_sender",
        })
    }
}

/// Changes that become durable together or not at all.
#[derive(Default)]
pub struct Batch(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>);

impl Batch {
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((table, key.into(), Some(value.into())));
    }
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.0.push((table, key.into(), None));
    }
}

struct Layer {
    db: Arc<Db>,
    under: Option<ChainStore>,
    fresh: Mutex<HashMap<Cid, Vec<u8>>>,
}

/// The blockstore. Clones share one buffer; [`ChainStore::scratch`] gives a layer whose writes are thrown away.
#[derive(Clone)]
pub struct ChainStore(Arc<Layer>);

impl ChainStore {
    /// A damaged file is refused and left as it is. Its mode is 0600, because the wallet's keys are in it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Db::open(path)?;
        // before anything is written to a new one; a file of an earlier version may be open to others
        std::fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(|e| StoreError::Io(format!("{}: {e}", path.display())))?;
        db.write(|tx| {
            for table in Table::ALL {
                tx.open_table(table.definition()).map_err(|e| StoreError::of(path, e))?;
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(ChainStore(Arc::new(Layer { db: Arc::new(db), under: None, fresh: Mutex::default() })))
    }

    pub fn scratch(&self) -> ChainStore {
        ChainStore(Arc::new(Layer { db: self.0.db.clone(), under: Some(self.clone()), fresh: Mutex::default() }))
    }

    fn fresh(&self) -> MutexGuard<'_, HashMap<Cid, Vec<u8>>> {
        // The map stays whole whatever panicked beside it.
        lock(&self.0.fresh)
    }

    /// Writes the buffer and the batch in one transaction. Nothing is forgotten when it fails.
    pub fn commit(&self, batch: &Batch) -> ChainResult<()> {
        let mut fresh = self.fresh();
        self.write(&fresh, batch).map_err(ChainError::store)?;
        fresh.clear();
        Ok(())
    }

    fn write(&self, fresh: &HashMap<Cid, Vec<u8>>, batch: &Batch) -> Result<(), StoreError> {
        let db = &self.0.db;
        let disk = |e: redb::Error| StoreError::of(db.path(), e);
        db.write(|tx| {
            let mut blocks = tx.open_table(Table::Blocks.definition()).map_err(|e| disk(e.into()))?;
            for (cid, block) in fresh {
                blocks.insert(cid.to_bytes().as_slice(), block.as_slice()).map_err(|e| disk(e.into()))?;
            }
            drop(blocks);
            for (table, key, value) in &batch.0 {
                let mut table = tx.open_table(table.definition()).map_err(|e| disk(e.into()))?;
                let done = match value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop),
                    None => table.remove(key.as_slice()).map(drop),
                };
                done.map_err(|e| disk(e.into()))?;
            }
            Ok(())
        })
    }

    pub fn read(&self, table: Table, key: &[u8]) -> ChainResult<Option<Vec<u8>>> {
        self.read_raw(table, key).map_err(ChainError::store)
    }

    fn read_raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let disk = |e: redb::Error| StoreError::of(self.0.db.path(), e);
        self.0.db.read(|tx| {
            let table = tx.open_table(table.definition()).map_err(|e| disk(e.into()))?;
            let value = table.get(key).map_err(|e| disk(e.into()))?;
            Ok(value.map(|v| v.value().to_vec()))
        })
    }

    /// All of a small table, in key order.
    pub fn read_all(&self, table: Table) -> ChainResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let disk = |e: redb::Error| StoreError::of(self.0.db.path(), e);
        let read = self.0.db.read(|tx| {
            let table = tx.open_table(table.definition()).map_err(|e| disk(e.into()))?;
            let mut rows = Vec::new();
            for row in table.iter().map_err(|e| disk(e.into()))? {
                let (key, value) = row.map_err(|e| disk(e.into()))?;
                rows.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(rows)
        });
        read.map_err(ChainError::store)
    }
}

impl Blockstore for ChainStore {
    fn get(&self, cid: &Cid) -> anyhow::Result<Option<Vec<u8>>> {
        if let Some(block) = self.fresh().get(cid) {
            return Ok(Some(block.clone()));
        }
        match &self.0.under {
            Some(under) => under.get(cid),
            None => Ok(self.read_raw(Table::Blocks, &cid.to_bytes())?),
        }
    }

    fn put_keyed(&self, cid: &Cid, block: &[u8]) -> anyhow::Result<()> {
        self.fresh().insert(*cid, block.to_vec());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_ipld_encoding::CborStore;
    use multihash_codetable::Code;

    #[test]
    fn blocks_and_batch_survive_reopening_and_a_scratch_layer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.redb");
        let store = ChainStore::open(&path).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600, "keys are in it");
        let kept = store.put_cbor(&1u64, Code::Blake2b256).unwrap();
        let scratch = store.scratch();
        let lost = scratch.put_cbor(&2u64, Code::Blake2b256).unwrap();
        assert_eq!(scratch.get_cbor::<u64>(&kept).unwrap(), Some(1));
        assert_eq!(store.get_cbor::<u64>(&lost).unwrap(), None);
        let mut batch = Batch::default();
        batch.put(Table::Meta, "a", "1");
        batch.put(Table::Meta, "b", "2");
        batch.delete(Table::Meta, "b");
        store.commit(&batch).unwrap();
        drop((store, scratch));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let store = ChainStore::open(&path).unwrap();
        assert_eq!(mode(), 0o600, "one of an earlier version too");
        assert_eq!(store.get_cbor::<u64>(&kept).unwrap(), Some(1));
        assert_eq!(store.read_all(Table::Meta).unwrap(), vec![(b"a".to_vec(), b"1".to_vec())]);
    }
}
