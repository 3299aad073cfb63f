//! One real 2 KiB sector through every phase and on the chain: each of its proofs, with one bit flipped, is refused by
//! the real verifier and changes nothing; then the honest one is taken. (The suite's one C2.)

use crate::support::devnet::*;
use crate::support::prover::{MINER, SEAL, Sector, WINDOW, WINNING, job, phase1, proof};
use async_trait::async_trait;
use bulkhead::actors::sector_files::SectorDirs;
use bulkhead::actors::winning_post::effects::{Mined, Miner};
use bulkhead::actors::winning_post::machine::{Base, RoundTiming};
use bulkhead::actors::winning_post::proof_run::ProofRuns;
use bulkhead::actors::winning_post::settings::Clock;
use bulkhead::chain::miner_messages::{self as messages, MinerCall, PreCommit};
use bulkhead::chain::types::*;
use bulkhead::devnet::ProofsVerifier;
use bulkhead::proofs::{ChildProver, Job, Output, Prover, ProverError, Task, keys, tasks};
use bulkhead::rpc::full_node::{FullNode, RandomnessTag};
use cid::Cid;
use fil_actor_miner_state::v18 as miner;
use fvm_ipld_bitfield::BitField;
use fvm_shared::bigint::BigInt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NUMBER: u64 = 7;

/// The chain, and a provider's means beside it.
struct World {
    net: Net,
    prover: ChildProver,
    sector: Sector,
    comm_r: [u8; 32],
}

/// A message must fail on chain with 16, with these words, and change nothing of the sector.
impl World {
    async fn refused(&self, call: &MinerCall, words: &str) {
        let (before, power) = (self.on_chain().await, self.net.power().await);
        let asked = self.net.message(self.net.worker, self.net.miner, call.method, call.params.clone(), fil(0));
        let estimate = self.net.devnet.gas_estimate_message_gas(&asked, &fil(0), &head()).await;
        let said = estimate.expect_err(words).to_string();
        assert!(said.contains(words) && said.contains("16"), "{said} does not say {words}");
        // with a gas limit of its own it gets into a block all the same
        let cid = self.net.push(asked).await;
        assert_eq!(self.net.receipt(&cid).await.exit_code, 16, "{words}");
        assert_eq!(self.on_chain().await, before, "{words}");
        assert_eq!(self.net.power().await, power, "{words}");
    }

    async fn lands(&self, call: &MinerCall) {
        let message = self.net.message(self.net.worker, self.net.miner, call.method, call.params.clone(), fil(0));
        let estimated = self.net.devnet.gas_estimate_message_gas(&message, &fil(0), &head()).await.unwrap();
        let cid = self.net.push(estimated).await;
        assert_eq!(self.net.receipt(&cid).await.exit_code, 0, "method {}", call.method);
    }

    /// All that the chain holds of the sector and of what the miner has locked for it.
    async fn on_chain(&self) -> String {
        let (chain, at) = (&self.net.devnet, &self.net.miner);
        let pre_commit = chain.state_sector_pre_commit_info(at, NUMBER, &head()).await.unwrap();
        let sector = chain.state_sector_get_info(at, NUMBER, &head()).await.unwrap();
        let allocated = chain.state_miner_allocated(at, &head()).await.unwrap();
        let state = chain.state_read_state(at, &head()).await.unwrap();
        let of = |name: &str| state["State"][name].to_string();
        let posted: Vec<BitField> = match chain.state_miner_deadlines(at, &head()).await {
            Ok(deadlines) => deadlines.into_iter().map(|d| d.post_submissions).collect(),
            Err(_) => vec![],
        };
        let (deposits, pledge) = (of("PreCommitDeposits"), of("InitialPledge"));
        format!("{pre_commit:?} {sector:?} {allocated:?} {deposits} {pledge} {posted:?}")
    }

    async fn beacon(&self, tag: RandomnessTag, epoch: i64) -> [u8; 32] {
        let entropy = messages::entropy(&self.net.miner).unwrap();
        let drawn = self.net.devnet.state_get_randomness_from_beacon(tag, epoch, &entropy, &head()).await.unwrap();
        drawn.try_into().unwrap()
    }
}

fn flip(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1;
    flipped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_proof_is_refused_and_the_good_one_is_taken() {
    let started = Instant::now();
    keys::ensure_2kib(&keys::cache_dir(), &|_| {}).unwrap();
    println!("keys {:?}", started.elapsed());
    let net = Net::bare_with(settings(), Arc::new(ProofsVerifier), Arc::default()).with_miner().await;
    let dir = tempfile::tempdir().unwrap();
    // under the names that a node's repo has
    let sector = Sector::in_dir(&dir.path().join("sectors"), NUMBER);
    let mut world = World { prover: crate::support::prover::prover(dir.path()), net, sector, comm_r: [0; 32] };

    let seed_epoch = pre_commit(&mut world).await;
    let comm_d = comm_d(&world).await;
    prove_commit(&mut world, dir.path(), seed_epoch, comm_d).await;
    println!("sealed {:?}", started.elapsed());
    window_post(&world).await;
    println!("WindowPoSt {:?}", started.elapsed());
    block(&world, dir.path()).await;
    println!("block {:?}", started.elapsed());
    finalized_sectors_still_prove(&world).await;
}

/// AddPiece, PC1, PC2 and the message; gives the epoch of the seed.
async fn pre_commit(world: &mut World) -> i64 {
    let World { net, prover, sector, .. } = world;
    let ticket_epoch = net.height().await - 1;
    let entropy = messages::entropy(&net.miner).unwrap();
    let tag = RandomnessTag::SealRandomness;
    let ticket = net.devnet.state_get_randomness_from_tickets(tag, ticket_epoch, &entropy, &head()).await.unwrap();
    sector.ticket = ticket.try_into().unwrap();
    let (comm_r, _) = sector.pre_commit(prover).await;
    world.comm_r = comm_r;

    let settings = &world.net.settings;
    let least = world.net.height().await + settings.max_prove_commit_duration() + settings.min_sector_lifetime;
    let good = PreCommit { seal_proof: SEAL, number: NUMBER, comm_r, ticket_epoch, expiration: least + 60 };
    let call = |pre_commit: &PreCommit| messages::pre_commit_sector_batch2(std::slice::from_ref(pre_commit)).unwrap();
    let good_call = call(&good);

    let mut params: miner::PreCommitSectorBatchParams2 = fvm_ipld_encoding::from_slice(&good_call.params).unwrap();
    let sealed = params.sectors[0].sealed_cid;
    params.sectors[0].sealed_cid = Cid::new_v1(fvm_shared::commcid::FIL_COMMITMENT_UNSEALED, *sealed.hash());
    let wrong_prefix = MinerCall { params: fvm_ipld_encoding::to_vec(&params).unwrap(), ..good_call.clone() };
    world.refused(&wrong_prefix, "sealed CID had wrong prefix").await;
    world.refused(&call(&PreCommit { expiration: least - 60, ..good.clone() }), "invalid expiration").await;

    world.lands(&good_call).await;
    let found = world.net.devnet.state_sector_pre_commit_info(&world.net.miner, NUMBER, &head()).await.unwrap();
    let seed_epoch = found.unwrap().pre_commit_epoch + settings.pre_commit_challenge_delay;
    world.net.until(seed_epoch);
    world.refused(&good_call, "already allocated").await;
    seed_epoch
}

/// One piece of zeros fills the sector.
async fn comm_d(world: &World) -> [u8; 32] {
    match world.prover.run(job(world.sector.add_piece())).await.unwrap() {
        Output::Piece { comm_p } => comm_p,
        other => panic!("{other:?}"),
    }
}

async fn prove_commit(world: &mut World, dir: &Path, seed_epoch: i64, comm_d: [u8; 32]) {
    world.sector.seed = world.beacon(RandomnessTag::InteractiveSealChallengeSeed, seed_epoch).await;
    let World { prover, sector, comm_r, .. } = &*world;
    // the finished result of C2 is adopted by another prover without a child
    let c1 = phase1(prover.run(job(sector.c1(*comm_r, comm_d))).await);
    let mut c2 = job(Task::C2 { c1, miner: MINER, number: NUMBER });
    c2.job_dir = Some(dir.join("jobs/c2"));
    let at = Instant::now();
    let good = proof(prover.run(c2.clone()).await);
    println!("C2 {:?}", at.elapsed());
    let nobody =
        bulkhead::proofs::ChildConfig { exe: "/nonexistent/bulkhead".into(), ..crate::support::prover::config(dir) };
    assert_eq!(proof(ChildProver::new(nobody).run(c2).await), good);

    let verify = |proof: Vec<u8>, number| Task::VerifySeal {
        proof_type: SEAL,
        miner: MINER,
        number,
        ticket: sector.ticket,
        seed: sector.seed,
        comm_r: *comm_r,
        comm_d,
        proof,
    };
    assert_eq!(prover.run(job(verify(good.clone(), NUMBER))).await, Ok(Output::Verified(true)));
    assert_eq!(prover.run(job(verify(good.clone(), NUMBER + 1))).await, Ok(Output::Verified(false)));
    assert_ne!(prover.run(job(verify(flip(&good, 50), NUMBER))).await, Ok(Output::Verified(true)));

    let call = |proof: Vec<u8>| messages::prove_commit_sectors3(&[(NUMBER, proof)]).unwrap();
    // the first byte holds flags of the compressed point, the others coordinates
    for at in [0, 50, good.len() - 1] {
        world.refused(&call(flip(&good, at)), "invalid proof for sector 7 while requiring activation success").await;
    }
    world.refused(&call(vec![0; good.len()]), "invalid proof for sector 7").await;
    world.lands(&call(good)).await;
    let listed = world.net.devnet.state_sector_get_info(&world.net.miner, NUMBER, &head()).await.unwrap().unwrap();
    assert_eq!(listed.sealed_cid, messages::sealed_cid(&world.comm_r).unwrap());
}

async fn window_post(world: &World) {
    let World { net, prover, sector, comm_r } = world;
    let at = net.location(NUMBER).await;
    let open = net.until_open(at.deadline).await;
    let randomness = world.beacon(RandomnessTag::WindowedPoStChallengeSeed, open.challenge).await;
    let sectors = vec![sector.for_post(*comm_r)];
    let task = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness, sectors };
    let good = proof(prover.run(job(task)).await);
    assert_eq!(good.len(), 192);

    // what a provider asks before it sends
    let verify = |proof: Vec<u8>, comm_r| Task::VerifyWindowPost {
        proof_type: WINDOW,
        miner: MINER,
        randomness,
        sectors: vec![sector.public(comm_r)],
        proof,
    };
    let mut other = *comm_r;
    other[0] ^= 1;
    assert_eq!(prover.run(job(verify(good.clone(), *comm_r))).await, Ok(Output::Verified(true)));
    assert_eq!(prover.run(job(verify(good.clone(), other))).await, Ok(Output::Verified(false)));
    assert_ne!(prover.run(job(verify(flip(&good, 100), *comm_r))).await, Ok(Output::Verified(true)));

    let commit = net.height().await;
    let tag = RandomnessTag::PoStChainCommit;
    let rand = net.devnet.state_get_randomness_from_tickets(tag, commit, &[], &head()).await.unwrap();
    let call = |proof: &[u8], rand: &[u8]| {
        let proofs = [PoStProof { post_proof: WINDOW, proof_bytes: proof.to_vec() }];
        let partitions = vec![(at.partition, BitField::new())];
        messages::submit_windowed_post(at.deadline, partitions, &proofs, commit, rand.to_vec()).unwrap()
    };
    world.refused(&call(&good, &flip(&rand, 31)), "post commit randomness mismatched").await;
    world.refused(&call(&flip(&good, 100), &rand), "invalid post was submitted").await;
    assert_eq!(net.power().await, BigInt::from(0));
    world.lands(&call(&good, &rand)).await;
    assert_eq!(net.power().await, BigInt::from(2048));
    assert!(net.deadline().await.current_epoch < open.close, "all of it within one window");
}

/// The chain's time is the test's; it does not limit the child.
struct Unhurried(ChildProver);

#[async_trait]
impl Prover for Unhurried {
    async fn run(&self, asked: Job) -> Result<Output, ProverError> {
        self.0.run(job(asked.task)).await
    }
}

struct Late;
impl Clock for Late {
    fn unix(&self) -> Duration {
        Duration::from_secs(u64::from(u32::MAX))
    }
}

async fn block(world: &World, dir: &Path) {
    let net = &world.net;
    net.until(net.height().await + net.settings.winning_lookback);
    let provider = Miner {
        address: net.miner,
        actor_id: MINER,
        node: net.devnet.clone(),
        proofs: Arc::new(ProofRuns::new(Arc::new(Unhurried(crate::support::prover::prover(dir))), Duration::ZERO)),
        files: Arc::new(SectorDirs::of_repo(dir, MINER)),
        clock: Arc::new(Late),
    };
    let timing = RoundTiming::new(net.settings.block_delay, None, 0);
    let ready = loop {
        let base = Base { tipset: Arc::new(net.devnet.chain_head().await.unwrap()), nulls: 0 };
        match provider.mine(&base, &timing, || None).await.unwrap() {
            Mined::Block(ready) => break ready,
            Mined::Lost => net.step().await, // as good as never with all of the power
            Mined::NotEligible(why) => panic!("{why}"),
        }
    };
    let good = ready.block;
    let before = net.devnet.chain_head().await.unwrap();
    net.devnet.set_time(1000 * (good.header.timestamp + 1));

    let template = BlockTemplate {
        miner: good.header.miner,
        parents: before.key(),
        ticket: good.header.ticket.clone().unwrap(),
        eproof: good.header.election_proof.clone().unwrap(),
        beacon_values: good.header.beacon_entries.clone(),
        messages: vec![],
        epoch: good.header.height,
        timestamp: good.header.timestamp,
        winning_post_proof: good.header.win_post_proof.clone(),
    };
    let with = |change: &dyn Fn(&mut BlockTemplate)| {
        let mut template = template.clone();
        change(&mut template);
        template
    };
    // each signed anew by the worker: only the part itself is wrong
    let table = [
        (with(&|t| t.winning_post_proof[0].proof_bytes[0] ^= 1), "Failed to verify winning PoSt"),
        (with(&|t| t.winning_post_proof[0].proof_bytes[100] ^= 1), "Failed to verify winning PoSt"),
        (with(&|t| t.winning_post_proof[0].post_proof = WINDOW), "Failed to verify winning PoSt"),
        (with(&|t| t.eproof.vrf_proof[40] ^= 1), "Verifying VRF failed: election proof"),
        (with(&|t| t.ticket.vrf_proof[40] ^= 1), "Verifying VRF failed: ticket"),
        (with(&|t| t.eproof.win_count += 1), "claimed wrong number of wins"),
    ];
    for (template, verdict) in table {
        let block = net.devnet.miner_create_block(&template).await.unwrap();
        let said = net.devnet.sync_submit_block(&block).await.expect_err(verdict).to_string();
        assert!(said.contains(verdict), "{said} does not say {verdict}");
    }
    let mut forged = good.clone();
    forged.header.block_sig.as_mut().unwrap().data[40] ^= 1;
    let said = net.devnet.sync_submit_block(&forged).await.unwrap_err().to_string();
    assert!(said.contains("block signature is not the worker's"), "{said}");
    assert_eq!(net.devnet.chain_head().await.unwrap(), before);

    net.devnet.sync_submit_block(&good).await.unwrap();
    let head = net.devnet.chain_head().await.unwrap();
    assert_eq!((head.height, head.blocks[0].miner), (good.header.height, net.miner));

    // the same proof is worth nothing under other randomness
    let sectors = [world.sector.public(world.comm_r)];
    let bytes = &good.header.win_post_proof[0].proof_bytes;
    assert!(!tasks::verify_winning_post(WINNING, MINER, [3; 32], &sectors, bytes).unwrap());
}

/// Finalized, it can still be proven; with its file gone it is named.
async fn finalized_sectors_still_prove(world: &World) {
    let World { prover, sector, comm_r, .. } = world;
    assert_eq!(prover.run(job(Task::Finalize { cache_dir: sector.cache.clone() })).await, Ok(Output::Done));
    let sectors = vec![sector.for_post(*comm_r)];
    let window = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness: [0xff; 32], sectors };
    assert_eq!(proof(prover.run(job(window.clone())).await).len(), 192);
    std::fs::remove_file(&sector.sealed).unwrap();
    assert_eq!(prover.run(job(window)).await, Ok(Output::Skipped(vec![sector.number])));
}
