//! What a proof task takes and refuses before the proofs library computes anything.

use bulkhead::proofs::tasks::{execute, in_field, post_proof, prover_id, seal_proof};
use bulkhead::proofs::{Output, PostSector, Task};
use filecoin_proofs_api::{PoStType, RegisteredPoStProof, RegisteredSealProof};
use fvm_shared::address::Address;
use fvm_shared::sector::{RegisteredPoStProof as NetPost, RegisteredSealProof as NetSeal};

#[test]
fn prover_id_is_the_payload_of_the_id_address() {
    for miner in [0, 1, 127, 128, 129, 1000, 16383, 16384, u64::from(u32::MAX), i64::MAX as u64] {
        let payload = Address::new_id(miner).payload_bytes();
        let id = prover_id(miner);
        assert_eq!(&id[..payload.len()], &payload[..]);
        assert!(id[payload.len()..].iter().all(|b| *b == 0));
    }
}

#[test]
fn proof_numbers_are_the_networks() {
    for n in 0..20 {
        let net = NetSeal::from(n).sector_size().unwrap() as u64;
        assert_eq!(u64::from(seal_proof(n).unwrap().sector_size()), net, "seal {n}");
    }
    assert_eq!(i64::from(NetSeal::StackedDRG2KiBV1P1), 5);
    assert_eq!(seal_proof(5).unwrap(), RegisteredSealProof::StackedDrg2KiBV1_1);
    assert_eq!(i64::from(NetPost::StackedDRGWinning2KiBV1), 0);
    assert_eq!(post_proof(0, PoStType::Winning).unwrap(), RegisteredPoStProof::StackedDrgWinning2KiBV1);
    assert_eq!(i64::from(NetPost::StackedDRGWindow2KiBV1P1), 10);
    assert_eq!(post_proof(10, PoStType::Window).unwrap(), RegisteredPoStProof::StackedDrgWindow2KiBV1_2);
}

#[test]
fn numbers_outside_and_of_the_wrong_kind_are_refused() {
    for n in [-1, 20, i64::MAX, i64::MIN] {
        assert!(seal_proof(n).is_err(), "{n}");
    }
    for n in [-1, 15] {
        assert!(post_proof(n, PoStType::Window).is_err(), "{n}");
    }
    assert!(post_proof(4, PoStType::Window).is_err());
    assert!(post_proof(5, PoStType::Winning).is_err());
}

#[test]
fn a_post_without_sectors_or_with_unreadable_ones() {
    let task = |sectors| Task::WindowPost { proof_type: 10, miner: 1000, randomness: [0xff; 32], sectors };
    assert!(execute(task(vec![]), &|_| {}).is_err());
    let gone = |number| PostSector {
        number,
        comm_r: [1; 32],
        cache_dir: "/nonexistent/cache".into(),
        sealed_path: "/nonexistent/sealed".into(),
    };
    assert_eq!(execute(task(vec![gone(7), gone(3)]), &|_| {}), Ok(Output::Skipped(vec![3, 7])));
}

#[test]
fn garbage_between_phases_is_an_error() {
    let pc2 = Task::Pc2 { pc1: b"{".to_vec(), cache_dir: "/nonexistent".into(), sealed_path: "/nonexistent".into() };
    assert!(execute(pc2, &|_| {}).unwrap_err().contains("PC1"));
    let c2 = Task::C2 { c1: vec![], miner: 1, number: 1 };
    assert!(execute(c2, &|_| {}).unwrap_err().contains("C1"));
}

#[test]
fn randomness_is_cut_to_the_field() {
    assert_eq!(in_field([0xff; 32])[31], 0x3f);
    assert_eq!(in_field([0xff; 32])[..31], [0xff; 31]);
}
