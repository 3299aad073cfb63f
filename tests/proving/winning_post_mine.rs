//! One mining round: eligibility, election, ticket, proof, block, each with the network's own randomness.

use crate::support::scripted::*;
use bulkhead::actors::winning_post::effects::{Mined, Miner};
use bulkhead::actors::winning_post::machine::{Base, RoundTiming};
use bulkhead::actors::winning_post::proof_run::ProofRuns;
use bulkhead::actors::winning_post::settings::TokioClock;
use bulkhead::chain::randomness::draw;
use bulkhead::chain::types::TipSet;
use bulkhead::chain::{Address, ChainEpoch};
use bulkhead::proofs::{Output, Task};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

const HEIGHT: ChainEpoch = 10;

struct Setup {
    node: Arc<ScriptedNode>,
    prover: Arc<ScriptedProver>,
    miner: Miner,
    base: Base,
    timing: RoundTiming,
}

fn base_tipset() -> TipSet {
    let block = |name: u64| super_block(Address::new_id(name), HEIGHT, vec![cid("parent")]);
    TipSet { cids: vec![cid("a"), cid("b")], blocks: vec![block(1), block(2)], height: HEIGHT }
}

/// The clock stands a moment before the block's time.
fn setup() -> Setup {
    let node = Arc::new(ScriptedNode::default());
    *node.base_info.lock().unwrap() = Some(base_info(1_000_000));
    let prover = Arc::new(ScriptedProver::default());
    let base = Base { tipset: Arc::new(base_tipset()), nulls: 0 };
    let began = Duration::from_millis(1000 * (base.tipset.blocks[0].timestamp + 30) - 30);
    let miner = Miner {
        address: Address::new_id(1000),
        actor_id: 1000,
        node: node.clone(),
        proofs: Arc::new(ProofRuns::new(prover.clone(), Duration::from_secs(2))),
        files: Arc::new(ScriptedFiles::default()),
        clock: Arc::new(TokioClock { began, at: Instant::now() }),
    };
    Setup { node, prover, miner, base, timing: RoundTiming::new(Duration::from_secs(30), None, 0) }
}

impl Setup {
    async fn mine(&self, latest: Option<TipSet>) -> Result<Mined, String> {
        let latest = latest.map(Arc::new);
        self.miner.mine(&self.base, &self.timing, || latest.clone()).await.map_err(|error| error.to_string())
    }
}

/// What the scripted wallet signs.
fn signed(input: [u8; 32]) -> Vec<u8> {
    [&input[..], &[0xb5]].concat()
}

fn entropy() -> Vec<u8> {
    fvm_ipld_encoding::to_vec(&Address::new_id(1000)).unwrap()
}

#[tokio::test]
async fn a_win_gives_a_block_at_its_time() {
    let s = setup();
    let Ok(Mined::Block(ready)) = s.mine(Some(base_tipset())).await else { panic!() };
    let header = &ready.block.header;
    assert_eq!((header.height, header.timestamp), (11, 1_000_000 + 330));
    assert!(s.miner.clock.unix() >= Duration::from_secs(1_000_330), "not before its time");
    assert_eq!(header.parents, [cid("a"), cid("b")]);

    let election = header.election_proof.as_ref().unwrap();
    assert_eq!(election.vrf_proof, signed(draw(&[2], 2, 11, &entropy())), "the newest beacon entry");
    assert!(election.win_count >= 1);
    let with_ticket = [entropy(), vec![HEIGHT as u8]].concat();
    assert_eq!(header.ticket.as_ref().unwrap().vrf_proof, signed(draw(&[2], 1, 10, &with_ticket)));

    let jobs = s.prover.jobs.lock().unwrap();
    let Task::WinningPost { proof_type: 0, miner: 1000, randomness, sectors } = &jobs[0].task else { panic!() };
    let mut expected = draw(&[2], 3, 11, &entropy());
    expected[31] &= 0x3f;
    assert_eq!(*randomness, expected);
    assert_eq!((sectors[0].number, sectors[0].comm_r), (1, comm_r(1)));
}

/// Its replica is the update's, under CommR of the update.
#[tokio::test]
async fn an_upgraded_sector_is_proven_from_its_update() {
    let s = setup();
    s.node.base_info.lock().unwrap().as_mut().unwrap().sectors[0].sector_key = Some(cid("key"));
    assert!(matches!(s.mine(None).await, Ok(Mined::Block(_))));
    let jobs = s.prover.jobs.lock().unwrap();
    let Task::WinningPost { sectors, .. } = &jobs[0].task else { panic!() };
    assert_eq!(
        (sectors[0].sealed_path.as_path(), sectors[0].cache_dir.as_path()),
        (Path::new("update/1"), Path::new("update-cache/1"))
    );
}

#[tokio::test]
async fn a_node_that_selects_no_messages_still_gets_a_block() {
    let s = setup();
    s.node.no_select.store(true, Ordering::SeqCst);
    let Ok(Mined::Block(ready)) = s.mine(None).await else { panic!() };
    assert!(ready.block.bls_messages.is_empty() && ready.block.secpk_messages.is_empty());
}

/// Also one that hangs: the round goes on after a moment.
#[tokio::test]
async fn a_node_that_never_ends_selecting_still_gets_a_block_in_time() {
    let mut s = setup();
    s.timing = RoundTiming::new(Duration::from_secs(1), None, 0);
    s.node.hangs.lock().unwrap().insert("mpool_select");
    let Ok(Mined::Block(ready)) = s.mine(None).await else { panic!() };
    assert!(ready.block.bls_messages.is_empty() && ready.block.secpk_messages.is_empty());
}

#[tokio::test]
async fn without_new_beacon_entries_the_previous_one_counts() {
    let s = setup();
    s.node.base_info.lock().unwrap().as_mut().unwrap().beacon_entries.clear();
    let Ok(Mined::Block(ready)) = s.mine(None).await else { panic!() };
    assert_eq!(ready.block.header.election_proof.unwrap().vrf_proof, signed(draw(&[1], 2, 11, &entropy())));
}

#[tokio::test]
async fn no_power_no_round() {
    let s = setup();
    s.node.base_info.lock().unwrap().as_mut().unwrap().eligible_for_mining = false;
    assert!(matches!(s.mine(None).await, Ok(Mined::NotEligible(_))));
    *s.node.base_info.lock().unwrap() = None;
    assert!(matches!(s.mine(None).await, Ok(Mined::NotEligible(_))));
    *s.node.base_info.lock().unwrap() = Some(base_info(0));
    assert!(matches!(s.mine(None).await, Ok(Mined::Lost)));
    assert!(s.prover.jobs.lock().unwrap().is_empty(), "nothing was proven for it");
}

#[tokio::test]
async fn ejected_blocks_leave_the_base_and_no_block_joins_it() {
    let s = setup();
    let mut latest = base_tipset();
    latest.cids[1] = cid("c");
    let Ok(Mined::Block(ready)) = s.mine(Some(latest)).await else { panic!() };
    assert_eq!(ready.block.header.parents, [cid("a")]);
    assert_eq!(ready.base.blocks.len(), 1);
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_fails_the_round() {
    let s = setup();
    s.prover.script.lock().unwrap().push_back(Ok(Output::Skipped(vec![1])));
    let error = s.mine(None).await.unwrap_err();
    assert!(error.contains("[1]"), "{error}");
    assert_eq!(s.node.count("miner_create_block"), 0);
}

/// Five blocks in the base, and more of them while the proof runs; at an upgrade's epoch the node selects no messages.
#[tokio::test]
async fn a_base_of_several_miners_gives_a_block_on_what_it_had_also_at_an_upgrades_epoch() {
    let mut s = setup();
    let base = among(3, base_tipset());
    s.base.tipset = Arc::new(base.clone());
    s.node.not_now.lock().unwrap().insert("mpool_select", 1);
    let Ok(Mined::Block(ready)) = s.mine(Some(among(5, base_tipset()))).await else { panic!() };
    assert_eq!(ready.block.header.parents, base.cids, "none that came later joins it");
    assert_eq!(ready.base.blocks.len(), 5);
    assert!(ready.block.bls_messages.is_empty() && ready.block.secpk_messages.is_empty());
}
