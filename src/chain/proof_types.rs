//! Sector sizes and the network's numbers of proof types for each of them (`RegisteredSealProof`, `RegisteredPoStProof`).
//!
//! Both enumerations are families of five, one number for each size in the order of [`SECTOR_SIZES`]. Seal proofs: V1, V1_1,
//! synthetic, non-interactive. PoSt proofs: winning, window V1, window V1_1. Which family counts follows from the network
//! version that the node tells, never from the network's name.

pub const SECTOR_SIZES: [(&str, u64); 5] =
    [("2KiB", 2 << 10), ("8MiB", 8 << 20), ("512MiB", 512 << 20), ("32GiB", 32 << 30), ("64GiB", 64 << 30)];

const FAMILY: i64 = SECTOR_SIZES.len() as i64;
const SEAL_FAMILIES: i64 = 4;
/// First network version whose miners seal with V1_1 (Turbo's predecessor: actors v2).
const SEAL_V1_1_SINCE: u32 = 7;
/// First network version whose miners take window proofs of V1_1 (FIP-0061).
const WINDOW_V1_1_SINCE: u32 = 19;

/// Place of a sector size in each family.
pub fn size_index(sector_size: u64) -> Option<i64> {
    SECTOR_SIZES.iter().position(|(_, bytes)| *bytes == sector_size).map(|i| i as i64)
}

/// How a sector size is written in flags: `32GiB`.
pub fn size_name(sector_size: u64) -> Option<&'static str> {
    SECTOR_SIZES.iter().find(|(_, bytes)| *bytes == sector_size).map(|(name, _)| *name)
}

/// The interactive seal proof of a new sector.
pub fn seal_proof(sector_size: u64, network_version: u32) -> Option<i64> {
    let family = i64::from(network_version >= SEAL_V1_1_SINCE);
    size_index(sector_size).map(|i| family * FAMILY + i)
}

/// The window proof type that a new miner actor is made with; an existing one names its own (`MinerInfo`).
pub fn window_post_proof(sector_size: u64, network_version: u32) -> Option<i64> {
    let family = if network_version >= WINDOW_V1_1_SINCE { 2 } else { 1 };
    size_index(sector_size).map(|i| family * FAMILY + i)
}

/// The WinningPoSt type of sectors that were sealed with `seal_proof`.
pub fn winning_post_proof(seal_proof: i64) -> Option<i64> {
    (0..SEAL_FAMILIES * FAMILY).contains(&seal_proof).then_some(seal_proof % FAMILY)
}

/// Bytes of a sector that is sealed with that proof.
pub fn sector_size(seal_proof: i64) -> Option<u64> {
    let index = winning_post_proof(seal_proof)?;
    usize::try_from(index).ok().and_then(|i| SECTOR_SIZES.get(i)).map(|(_, bytes)| *bytes)
}

/// True if a network with these seal proofs takes sectors of that size. A node that names none (they are no longer part
/// of `StateGetNetworkParams`) takes any: the network will say.
pub fn takes(supported_seal_proofs: &[i64], sector_size: u64) -> bool {
    supported_seal_proofs.is_empty()
        || supported_seal_proofs.iter().any(|p| Some(p.rem_euclid(FAMILY)) == size_index(sector_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::sector::{RegisteredPoStProof as Post, RegisteredSealProof as Seal};

    #[test]
    fn seal_proofs_follow_size_and_network_version() {
        for (size, version, want) in [
            (2 << 10, 28, Some(5)),
            (2 << 10, 7, Some(5)),
            (2 << 10, 6, Some(0)),
            (32 << 30, 28, Some(8)),
            (64 << 30, 28, Some(9)),
            (2047, 28, None),
            (2049, 28, None),
        ] {
            assert_eq!(seal_proof(size, version), want, "{size} {version}");
        }
        assert_eq!(Seal::from(seal_proof(32 << 30, 28).unwrap()), Seal::StackedDRG32GiBV1P1);
    }

    #[test]
    fn window_proofs_follow_size_and_network_version() {
        for (size, version, want) in [
            (2 << 10, 28, Some(10)),
            (2 << 10, 19, Some(10)),
            (2 << 10, 18, Some(5)),
            (32 << 30, 28, Some(13)),
            (64 << 30, 28, Some(14)),
            (2049, 28, None),
        ] {
            assert_eq!(window_post_proof(size, version), want, "{size} {version}");
        }
        assert_eq!(Post::from(window_post_proof(32 << 30, 28).unwrap()), Post::StackedDRGWindow32GiBV1P1);
    }

    #[test]
    fn winning_proofs_follow_the_sector_size() {
        let types = [-1, 0, 4, 5, 8, 9, 10, 13, 19, 20].map(winning_post_proof);
        let want = [None, Some(0), Some(4), Some(0), Some(3), Some(4), Some(0), Some(3), Some(4), None];
        assert_eq!(types, want, "2 KiB is 0, 32 GiB is 3, 64 GiB is 4");
    }

    #[test]
    fn a_network_takes_the_sizes_of_its_seal_proofs() {
        assert!(takes(&[5], 2 << 10) && takes(&[], 2 << 10) && takes(&[8, 9], 32 << 30) && takes(&[3, 4], 64 << 30));
        assert!(!takes(&[8, 9], 2 << 10) && !takes(&[5], 32 << 30) && !takes(&[5], 2047) && !takes(&[-1], 2047));
    }
}
