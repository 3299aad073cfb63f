//! PC2 encodes the replica in place: interrupted and run again, it gives the same CommR, not a replica encoded twice.

use crate::support::prover::*;
use bulkhead::proofs::{Output, Prover};

#[tokio::test]
async fn pc2_after_an_interrupted_pc2_gives_the_same_sector() {
    let dir = tempfile::tempdir().unwrap();
    let prover = prover(dir.path());
    let s = Sector::in_dir(dir.path(), 3);
    prover.run(job(s.add_piece())).await.unwrap();
    let pc1 = phase1(prover.run(job(s.pc1())).await);
    let whole = prover.run(job(s.pc2(pc1.clone()))).await.unwrap();
    assert!(matches!(whole, Output::Pc2 { .. }));
    let replica = std::fs::read(&s.sealed).unwrap();

    // as a kill half way leaves it: the marker, an encoded part, a half-written tree
    std::fs::write(s.cache.join("pc2-started"), b"").unwrap();
    let mut half = replica.clone();
    half[1024..].fill(0);
    std::fs::write(&s.sealed, half).unwrap();
    assert_eq!(prover.run(job(s.pc2(pc1))).await, Ok(whole));
    assert_eq!(std::fs::read(&s.sealed).unwrap(), replica);
    assert!(!s.cache.join("pc2-started").exists());

    // PC1 again over all of it starts a fresh sector with the same ticket: the same again
    let again = s.pre_commit(&prover).await;
    assert_eq!(std::fs::read(&s.sealed).unwrap(), replica);
    assert!(again.0 != [0; 32]);
}
