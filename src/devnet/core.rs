//! The chain itself, behind one lock: opening, tipsets, execution.

use super::clock::Clock;
use super::error::{ChainError, ChainResult, DevnetError};
use super::genesis;
use super::keys::Secret;
use super::mempool::Mempool;
use super::rand::{Beacon, ChainRand, NoRand, load_header};
use super::settings::DevnetSettings;
use super::store::{Batch, ChainStore, Table};
use super::verifier::Verifier;
use super::vm::{Env, Vm, migrate, power, reward};
use super::wire;
use super::wording::Wording;
use crate::chain::types::{BlockHeader, HeadChange, Message, TipSet, TipSetKey};
use crate::store::StoreError;
use crate::util::time::unix_ms;
use cid::Cid;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_amt::Amtv0;
use fvm_ipld_blockstore::Blockstore;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::receipt::Receipt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The outcome of a tipset's messages; the next tipset's header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    pub state: Cid,
    pub receipts: Cid,
}

/// Told to misbehave.
#[derive(Default, Debug)]
pub struct Switches {
    pub stalled: bool,
    pub refuse_gas: bool,
    /// Epochs that the next block leaves out.
    pub null_rounds: i64,
    /// The F3 calls answer that fast finality is off.
    pub f3_disabled: bool,
    /// Distinguishes the blocks of each reorg from those that they replace.
    pub fork: u64,
    /// The base fee of the blocks to come; `None`: it follows the messages.
    pub base_fee: Option<TokenAmount>,
    /// The node whose words refusals are in.
    pub wording: Wording,
}

pub struct Core {
    pub settings: DevnetSettings,
    pub policy: Policy,
    pub verifier: Arc<dyn Verifier>,
    pub store: ChainStore,
    pub beacon: Beacon,
    pub producer: Secret,
    pub wallet: BTreeMap<Address, Secret>,
    pub default_address: Option<Address>,
    pub genesis: TipSet,
    pub head: TipSet,
    /// Height -> key of the heaviest chain.
    pub canon: BTreeMap<ChainEpoch, TipSetKey>,
    executed: HashMap<TipSetKey, Executed>,
    pub unsaved: Batch,
    pub pool: Mempool,
    pub switches: Switches,
    pub f3: super::f3::Leaser,
    pub clock: Clock,
    /// Valid blocks of providers for the next epoch.
    pub held: Vec<BlockHeader>,
    pub changes: broadcast::Sender<Arc<Vec<HeadChange>>>,
    /// Tests set the time; `None` is the system's.
    pub manual_time: Option<u64>,
}

/// Results kept in memory; older ones are in the database.
const EXECUTED_IN_MEMORY: usize = 512;
/// Head changes that a slow listener may be behind before it is cut off.
const CHANGES_BEHIND: usize = 256;

impl Core {
    pub fn open(dir: &Path, settings: DevnetSettings, verifier: Arc<dyn Verifier>) -> Result<Core, DevnetError> {
        let path = dir.join("chain.redb");
        let open = |why: String| DevnetError::Open { path: path.clone(), why };
        settings.check().map_err(DevnetError::Settings)?;
        std::fs::create_dir_all(dir).map_err(|e| open(e.to_string()))?;
        let store = match ChainStore::open(&path) {
            Ok(store) => store,
            Err(StoreError::Damaged { why, .. }) => return Err(DevnetError::Corrupt { path, why }),
            Err(StoreError::Locked { .. }) => return Err(open("another process has it open".into())),
            Err(e) => return Err(DevnetError::Store(e)),
        };
        match store.read(Table::Meta, b"head")? {
            None => Core::create(store, settings, verifier),
            Some(head) => Core::resume(store, settings, verifier, &head)
                .map_err(|e| DevnetError::Corrupt { path, why: e.to_string() }),
        }
    }

    fn create(store: ChainStore, settings: DevnetSettings, verifier: Arc<dyn Verifier>) -> Result<Core, DevnetError> {
        let secret = || Secret::generate("bls").map_err(DevnetError::Genesis);
        let (producer, beacon, owner, worker) = (secret()?, secret()?, secret()?, secret()?);
        let beacon = Beacon(Arc::new(beacon));
        let keys = genesis::Keys { producer: &producer, owner: &owner, worker: &worker };
        let ticket: [u8; 32] = rand::random();
        let timestamp = unix_ms() / 1000;
        let header = genesis::header(&store, &settings, &keys, beacon.entry(0)?, ticket.to_vec(), timestamp)?;
        put_header(&store, &header)?;
        let genesis = wire::tip_set(vec![header])?;

        let mut batch = Batch::default();
        let key = wire::key_bytes(&genesis.key());
        let kept = serde_json::to_vec(&settings).map_err(|e| DevnetError::Genesis(e.to_string()))?;
        batch.put(Table::Meta, "settings", kept);
        batch.put(Table::Meta, "genesis", key.clone());
        batch.put(Table::Meta, "producer", producer.to_bytes());
        batch.put(Table::Meta, "beacon", beacon.0.to_bytes());
        batch.put(Table::Meta, "default", owner.address().to_bytes());
        for key in [&owner, &worker] {
            put_key(&mut batch, key);
        }
        batch.put(Table::Canon, height_key(0), key.clone());
        batch.put(Table::Meta, "head", key.clone());
        store.commit(&batch)?;
        Ok(Core::resume(store, settings, verifier, &key)?)
    }

    fn resume(
        store: ChainStore,
        settings: DevnetSettings,
        verifier: Arc<dyn Verifier>,
        head: &[u8],
    ) -> ChainResult<Core> {
        let meta = |name: &str| {
            store.read(Table::Meta, name.as_bytes())?.ok_or_else(|| ChainError::store(format!("no {name} in it")))
        };
        let kept: DevnetSettings = serde_json::from_slice(&meta("settings")?).map_err(ChainError::store)?;
        let genesis = load_tip_set(&store, &wire::key_from_bytes(&meta("genesis")?)?)?;
        let head = load_tip_set(&store, &wire::key_from_bytes(head)?)?;
        // Policy is the chain's for ever; clock and bounds are this run's. An upgrade may be set while it is to come.
        let to_come = |epoch: ChainEpoch| epoch > head.height;
        let upgrade_epoch = match to_come(kept.upgrade_epoch) && to_come(settings.upgrade_epoch) {
            true => settings.upgrade_epoch,
            false => kept.upgrade_epoch,
        };
        if upgrade_epoch != kept.upgrade_epoch {
            let mut batch = Batch::default();
            let kept = DevnetSettings { upgrade_epoch, ..kept.clone() };
            batch.put(Table::Meta, "settings", serde_json::to_vec(&kept).map_err(ChainError::store)?);
            store.commit(&batch)?;
        }
        let settings = DevnetSettings {
            upgrade_epoch,
            block_delay: settings.block_delay,
            warmup_delay: settings.warmup_delay,
            mempool_limit: settings.mempool_limit,
            ..kept
        };
        let bls = |bytes: Vec<u8>| Secret::from_bytes("bls", &bytes).map_err(ChainError::store);
        let mut canon = BTreeMap::new();
        for (height, key) in store.read_all(Table::Canon)? {
            canon.insert(height_from_key(&height)?, wire::key_from_bytes(&key)?);
        }
        let mut wallet = BTreeMap::new();
        for (_, row) in store.read_all(Table::Wallet)? {
            let (kind, bytes) = match row.split_first() {
                Some((0, bytes)) => ("bls", bytes),
                Some((_, bytes)) => ("secp256k1", bytes),
                None => return Err(ChainError::store("an empty key")),
            };
            let secret = Secret::from_bytes(kind, bytes).map_err(ChainError::store)?;
            wallet.insert(secret.address(), secret);
        }
        let default_address = store.read(Table::Meta, b"default")?.and_then(|b| Address::from_bytes(&b).ok());
        let mut core = Core {
            policy: settings.policy(),
            beacon: Beacon(Arc::new(bls(meta("beacon")?)?)),
            producer: bls(meta("producer")?)?,
            pool: Mempool::load(&store, settings.mempool_limit)?,
            settings,
            verifier,
            store,
            wallet,
            default_address,
            genesis,
            head,
            canon,
            executed: HashMap::new(),
            unsaved: Batch::default(),
            switches: Switches::default(),
            f3: Default::default(),
            clock: Clock { head_at: unix_ms(), provider_ready: false, block_held: false, stalled: false },
            held: Vec::new(),
            changes: broadcast::channel(CHANGES_BEHIND).0,
            manual_time: None,
        };
        core.clock.provider_ready = core.any_miner_ready()?;
        Ok(core)
    }

    pub fn now(&self) -> u64 {
        self.manual_time.unwrap_or_else(unix_ms)
    }

    /// An empty key means the head.
    pub fn find(&self, key: &TipSetKey) -> ChainResult<TipSet> {
        if key.0.is_empty() || *key == self.head.key() {
            return Ok(self.head.clone());
        }
        load_tip_set(&self.store, key)
    }

    pub fn parent(&self, ts: &TipSet) -> ChainResult<Option<TipSet>> {
        let parents = &ts.min_ticket_block().parents;
        if parents.is_empty() { Ok(None) } else { self.find(&TipSetKey(parents.clone())).map(Some) }
    }

    fn is_canonical(&self, ts: &TipSet) -> bool {
        self.canon.get(&ts.height) == Some(&ts.key())
    }

    /// The tipset at `height` on the chain that ends with `from`; at a null round the one before it.
    pub fn at_or_before(&self, height: ChainEpoch, from: &TipSet) -> ChainResult<TipSet> {
        if height > from.height {
            return Err(ChainError::refused(format!(
                "looking for tipset with height greater than start point: {height} > {}",
                from.height
            )));
        }
        let mut ts = from.clone();
        loop {
            if ts.height <= height {
                return Ok(ts);
            }
            if self.is_canonical(&ts)
                && let Some((_, key)) = self.canon.range(..=height.max(0)).next_back()
            {
                return self.find(key);
            }
            match self.parent(&ts)? {
                Some(parent) => ts = parent,
                None => return Ok(ts),
            }
        }
    }

    /// The first tipset at or after `height` on the chain that ends with `from`.
    pub fn at_or_after(&self, height: ChainEpoch, from: &TipSet) -> ChainResult<TipSet> {
        let mut ts = from.clone();
        loop {
            if self.is_canonical(&ts)
                && let Some((_, key)) = self.canon.range(height.max(0)..).next()
            {
                return self.find(key);
            }
            match self.parent(&ts)? {
                Some(parent) if parent.height >= height => ts = parent,
                _ => return Ok(ts),
            }
        }
    }

    pub fn read_env(&self) -> Env<'_> {
        Env { settings: &self.settings, policy: &self.policy, verifier: self.verifier.as_ref(), rand: &NoRand }
    }

    /// A tipset and the state after its messages, to read.
    pub fn view(&mut self, key: &TipSetKey) -> ChainResult<(TipSet, Vm<'_>)> {
        let ts = self.find(key)?;
        let root = self.executed(&ts)?.state;
        let height = ts.height;
        Ok((ts, self.view_root(&root, height)?))
    }

    pub fn view_root(&self, root: &Cid, height: ChainEpoch) -> ChainResult<Vm<'_>> {
        Vm::new(&self.store, root, self.read_env(), height)
    }

    /// The messages of a tipset in the order of execution.
    pub fn messages_of(&self, ts: &TipSet) -> ChainResult<Vec<(Cid, Message)>> {
        let mut seen = HashSet::new();
        let mut messages = Vec::new();
        for block in &ts.blocks {
            let (bls, secp256k1) = wire::block_messages(&self.store, &block.messages)?;
            for cid in bls.into_iter().chain(secp256k1) {
                if seen.insert(cid) {
                    messages.push((cid, wire::load_message(&self.store, &cid)?));
                }
            }
        }
        Ok(messages)
    }

    /// State and receipts after the tipset's messages, computed once.
    pub fn executed(&mut self, ts: &TipSet) -> ChainResult<Executed> {
        let block = ts.min_ticket_block();
        if ts.height == 0 {
            return Ok(Executed { state: block.parent_state_root, receipts: block.parent_message_receipts });
        }
        let key = ts.key();
        if let Some(done) = self.executed.get(&key) {
            return Ok(*done);
        }
        let done = match self.store.read(Table::Executed, &wire::key_bytes(&key))? {
            Some(bytes) => {
                let (state, receipts) = fvm_ipld_encoding::from_slice(&bytes)?;
                Executed { state, receipts }
            }
            None => {
                let done = self.execute(ts)?;
                let bytes = fvm_ipld_encoding::to_vec(&(done.state, done.receipts))?;
                self.unsaved.put(Table::Executed, wire::key_bytes(&key), bytes);
                done
            }
        };
        if self.executed.len() >= EXECUTED_IN_MEMORY {
            self.executed.clear();
        }
        self.executed.insert(key, done);
        Ok(done)
    }

    fn execute(&self, ts: &TipSet) -> ChainResult<Executed> {
        let first = ts.min_ticket_block();
        let parent_height = match first.parents.first() {
            Some(cid) => load_header(&self.store, cid)?.height,
            None => return Err(ChainError::refused("a block without parents")),
        };
        let rand = ChainRand::new(&self.store, &self.beacon, ts);
        let env = Env { rand: &rand, ..self.read_env() };
        let mut vm = Vm::new(&self.store, &first.parent_state_root, env, parent_height + 1)?;
        for epoch in parent_height + 1..=ts.height {
            vm.epoch = epoch;
            if epoch == self.settings.upgrade_epoch + 1 {
                migrate(&mut vm)?;
            }
            if epoch < ts.height {
                power::on_epoch_end(&mut vm)?; // a null round
            }
        }
        let mut receipts = Vec::new();
        let mut seen = HashSet::new();
        for block in &ts.blocks {
            let mut tips = Default::default();
            let (bls, secp256k1) = wire::block_messages(&self.store, &block.messages)?;
            for cid in bls.into_iter().chain(secp256k1) {
                if !seen.insert(cid) {
                    continue;
                }
                let message = wire::to_fvm(&wire::load_message(&self.store, &cid)?)?;
                match vm.apply(&message, &block.parent_base_fee) {
                    Ok(applied) => {
                        if let Some(error) = applied.error {
                            tracing::info!(%cid, method = message.method_num, error, "message failed");
                        }
                        tips += applied.tip;
                        receipts.push(applied.receipt);
                    }
                    // Two blocks of one tipset may spend the same nonce: the second message does nothing.
                    Err(e) => receipts.push(Receipt {
                        exit_code: e.exit_code(),
                        return_data: Default::default(),
                        gas_used: 0,
                        events_root: None,
                    }),
                }
            }
            let wins = block.election_proof.as_ref().map_or(0, |e| e.win_count);
            reward::award(&mut vm, block.miner.id().unwrap_or_default(), wins, &tips)?;
        }
        power::on_epoch_end(&mut vm)?;
        let state = vm.tree.flush()?;
        let receipts = Amtv0::new_from_iter(&self.store, receipts).map_err(ChainError::store)?;
        Ok(Executed { state, receipts })
    }
}

pub fn put_header(store: &ChainStore, header: &BlockHeader) -> ChainResult<Cid> {
    let bytes = wire::header_bytes(header)?;
    let cid = wire::cid_of(&bytes);
    store.put_keyed(&cid, &bytes)?;
    Ok(cid)
}

pub fn load_tip_set(store: &ChainStore, key: &TipSetKey) -> ChainResult<TipSet> {
    let blocks = key.0.iter().map(|cid| load_header(store, cid)).collect::<ChainResult<Vec<_>>>()?;
    wire::tip_set(blocks)
}

pub fn put_key(batch: &mut Batch, key: &Secret) {
    let mut row = vec![u8::from(key.kind() != "bls")];
    row.extend(key.to_bytes());
    batch.put(Table::Wallet, key.address().to_bytes(), row);
}

/// Big-endian, so that keys sort by height.
pub fn height_key(height: ChainEpoch) -> [u8; 8] {
    (height.max(0) as u64).to_be_bytes()
}

fn height_from_key(key: &[u8]) -> ChainResult<ChainEpoch> {
    let bytes: [u8; 8] = key.try_into().map_err(|_| ChainError::store("a height of wrong length"))?;
    ChainEpoch::try_from(u64::from_be_bytes(bytes)).map_err(ChainError::store)
}
