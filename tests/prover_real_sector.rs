//! One real 2 KiB sector through every phase, with keys made here, proven and verified; wrong proofs are refused.

mod prover_support;

use bulkhead::proofs::{Output, Prover, Task, keys, tasks};
use prover_support::*;
use std::time::Instant;

#[tokio::test]
async fn a_sector_is_sealed_proven_and_verified() {
    let started = Instant::now();
    keys::ensure_2kib(&keys::cache_dir(), &|_| {}).unwrap();
    println!("keys {:?}", started.elapsed());
    let dir = tempfile::tempdir().unwrap();
    let prover = prover(dir.path());
    let s = Sector::in_dir(dir.path(), 7);

    let (comm_r, comm_d) = s.pre_commit(&prover).await;
    match prover.run(job(s.add_piece())).await.unwrap() {
        Output::Piece { comm_p } => assert_eq!(comm_p, comm_d, "one piece fills the sector"),
        other => panic!("{other:?}"),
    }
    println!("pre-committed {:?}", started.elapsed());

    // PoSt needs no C2: both kinds, several times in the same warm child
    let randomness = [0xff; 32];
    let sectors = vec![s.for_post(comm_r)];
    let public = [s.public(comm_r)];
    let mut flipped = vec![];
    for round in 0..2 {
        let at = Instant::now();
        let window = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness, sectors: sectors.clone() };
        let p = proof(prover.run(job(window)).await);
        println!("WindowPoSt {round} {:?}", at.elapsed());
        assert_eq!(p.len(), 192);
        let verify = |proof: Vec<u8>, sectors: &[_]| Task::VerifyWindowPost {
            proof_type: WINDOW,
            miner: MINER,
            randomness,
            sectors: sectors.to_vec(),
            proof,
        };
        assert_eq!(prover.run(job(verify(p.clone(), &public))).await, Ok(Output::Verified(true)));
        let mut other = public[0].clone();
        other.comm_r[0] ^= 1;
        assert_eq!(prover.run(job(verify(p.clone(), &[other]))).await, Ok(Output::Verified(false)));
        flipped = p;
        flipped[100] ^= 1;
        let refused = prover.run(job(verify(flipped.clone(), &public))).await;
        assert_ne!(refused, Ok(Output::Verified(true)));
    }
    assert!(!flipped.is_empty());

    let challenge = Task::WinningChallenge { proof_type: WINNING, miner: MINER, randomness, sector_count: 1 };
    assert_eq!(prover.run(job(challenge)).await, Ok(Output::Challenged(vec![0])));
    let at = Instant::now();
    let winning = Task::WinningPost { proof_type: WINNING, miner: MINER, randomness, sectors: sectors.clone() };
    let p = proof(prover.run(job(winning)).await);
    println!("WinningPoSt {:?}", at.elapsed());
    assert!(tasks::verify_winning_post(WINNING, MINER, randomness, &public, &p).unwrap());
    assert!(!tasks::verify_winning_post(WINNING, MINER, [3; 32], &public, &p).unwrap());

    // C1, C2 into a job folder; the finished result is adopted by another prover without a child
    let c1 = phase1(prover.run(job(s.c1(comm_r, comm_d))).await);
    let job_dir = dir.path().join("jobs/c2");
    let mut c2 = job(Task::C2 { c1, miner: MINER, number: s.number });
    c2.job_dir = Some(job_dir);
    let at = Instant::now();
    let seal_proof = proof(prover.run(c2.clone()).await);
    println!("C2 {:?}", at.elapsed());
    let mut nobody = config(dir.path());
    nobody.exe = "/nonexistent/bulkhead".into();
    let adopting = bulkhead::proofs::ChildProver::new(nobody);
    assert_eq!(proof(adopting.run(c2).await), seal_proof);

    let verify = |proof: Vec<u8>, number| Task::VerifySeal {
        proof_type: SEAL,
        miner: MINER,
        number,
        ticket: TICKET,
        seed: SEED,
        comm_r,
        comm_d,
        proof,
    };
    assert_eq!(prover.run(job(verify(seal_proof.clone(), s.number))).await, Ok(Output::Verified(true)));
    assert_eq!(prover.run(job(verify(seal_proof.clone(), s.number + 1))).await, Ok(Output::Verified(false)));
    let mut bad = seal_proof;
    bad[50] ^= 1;
    assert_ne!(prover.run(job(verify(bad, s.number))).await, Ok(Output::Verified(true)));

    // finalized, it can still be proven; with its file gone it is named
    assert_eq!(prover.run(job(Task::Finalize { cache_dir: s.cache.clone() })).await, Ok(Output::Done));
    let window = Task::WindowPost { proof_type: WINDOW, miner: MINER, randomness: [9; 32], sectors };
    assert_eq!(proof(prover.run(job(window.clone())).await).len(), 192);
    let tree = std::fs::read_dir(&s.cache).unwrap().map(|e| e.unwrap().path());
    let tree = tree.into_iter().find(|p| p.to_string_lossy().contains("tree-r-last")).unwrap();
    let whole = std::fs::read(&tree).unwrap();
    std::fs::write(&tree, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(prover.run(job(window.clone())).await, Ok(Output::Skipped(vec![s.number])), "half a tree");
    std::fs::write(&tree, &whole).unwrap();
    assert_eq!(proof(prover.run(job(window.clone())).await).len(), 192);
    std::fs::remove_file(&s.sealed).unwrap();
    assert_eq!(prover.run(job(window)).await, Ok(Output::Skipped(vec![s.number])));
}
