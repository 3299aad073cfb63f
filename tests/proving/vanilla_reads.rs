//! What a PoSt reads of real 2 KiB sectors: files that are not the chain's, a file that hangs, a read that was damaged.

use crate::support::prover::*;
use bulkhead::proofs::tasks::{comm_r_of, execute, read_sectors, tainted};
use bulkhead::proofs::{Output, PostSector, Task};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const RANDOMNESS: [u8; 32] = [7; 32];

#[tokio::test]
async fn a_wrong_sector_is_named_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let prover = prover(dir.path());
    let mut sectors: Vec<PostSector> = Vec::new();
    for number in 1..=3 {
        let sector = Sector::in_dir(dir.path(), number);
        let (comm_r, _) = sector.pre_commit(&prover).await;
        let p_aux = std::fs::read(sector.cache.join("p_aux")).unwrap();
        assert_eq!(comm_r_of(&p_aux).unwrap(), comm_r);
        sectors.push(sector.for_post(comm_r));
    }
    let task =
        Task::PostChallenges { proof_type: WINDOW, miner: MINER, randomness: RANDOMNESS, sectors: vec![1, 2, 3] };
    let Ok(Output::Challenges(places)) = execute(task, &|_| {}) else { panic!("no challenges") };
    let alone = Task::PostChallenges { proof_type: WINDOW, miner: MINER, randomness: RANDOMNESS, sectors: vec![3] };
    let Ok(Output::Challenges(of_three)) = execute(alone, &|_| {}) else { panic!("no challenges") };
    assert_eq!(of_three[0], places[2], "a sector's challenges do not depend on the others: what was read is kept");
    let wanted = |sectors: &[PostSector]| -> Vec<(PostSector, Vec<u64>)> {
        sectors.iter().zip(&places).map(|(sector, (_, places))| (sector.clone(), places.clone())).collect()
    };
    let read = |sectors: &[PostSector], patience| {
        let mut read = read_sectors(WINDOW, wanted(sectors), patience).unwrap();
        read.sort_by_key(|(number, _)| *number);
        read
    };

    let good: Vec<Vec<u8>> = read(&sectors, PATIENCE).into_iter().map(|(_, proof)| proof.unwrap()).collect();
    let mut other = sectors.clone();
    other[1].comm_r[0] ^= 1;
    let answers = read(&other, PATIENCE);
    assert!(answers[0].1.is_ok() && answers[2].1.is_ok());
    let why = answers[1].1.clone().unwrap_err();
    assert!(why.contains("its files have CommR") && why.contains("the chain has"), "{why}");

    let damaged = |mut proof: Vec<u8>| {
        let middle = proof.len() / 2;
        proof[middle] ^= 1;
        proof
    };
    // One wrong vanilla proof among good ones is found before any circuit is computed.
    let proofs = |bad: Option<usize>| {
        let mut all = good.clone();
        if let Some(bad) = bad {
            all[bad] = damaged(all[bad].clone());
        }
        (1..=3).zip(all).collect::<Vec<(u64, Vec<u8>)>>()
    };
    let post = |proofs| Task::PostFromVanilla { proof_type: WINDOW, miner: MINER, randomness: RANDOMNESS, proofs };
    assert_eq!(execute(post(proofs(Some(1))), &|_| {}), Ok(Output::Skipped(vec![2])));
    // One that was read of another sector is wrong, too, whole as it is.
    let exchanged = vec![(1, good[0].clone()), (2, good[0].clone()), (3, damaged(good[2].clone()))];
    assert_eq!(execute(post(exchanged), &|_| {}), Ok(Output::Skipped(vec![2, 3])));
    // Each is refuted by itself: all of them are named, so that what is proven besides is sent.
    let all_bad = proofs(None).into_iter().map(|(number, proof)| (number, damaged(proof))).collect();
    assert_eq!(execute(post(all_bad), &|_| {}), Ok(Output::Skipped(vec![1, 2, 3])));

    // An error that passes says nothing of the sector: it is missing from the answer.
    let sealed = sectors[2].sealed_path.clone();
    let aside = sealed.with_extension("aside");
    std::fs::rename(&sealed, &aside).unwrap();
    std::os::unix::fs::symlink(&sealed, &sealed).unwrap();
    assert_eq!(read(&sectors, PATIENCE).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    std::fs::remove_file(&sealed).unwrap();
    let missing = &read(&sectors, PATIENCE)[2];
    assert!(missing.1.is_err(), "a file that is not there is named: {missing:?}");
    std::fs::rename(&aside, &sealed).unwrap();
    assert!(!tainted());

    // A file that hangs: the others are answered, the process is spent.
    let p_aux = sectors[0].cache_dir.join("p_aux");
    std::fs::remove_file(&p_aux).unwrap();
    nix::unistd::mkfifo(&p_aux, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(!tainted());
    let answers = read(&sectors, Duration::from_millis(1500));
    let numbers: Vec<u64> = answers.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 3], "what is missing is late");
    assert!(tainted());
    let _release = std::fs::OpenOptions::new().read(true).write(true).open(&p_aux).unwrap();
}
