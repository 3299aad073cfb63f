//! What a task needs of the machine that runs it: pure.

use crate::actors::seal_jobs::StepKind;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Bytes of memory, as Lotus' resource table has them for the CPU.
pub fn memory(kind: StepKind, sector_size: u64) -> u64 {
    use StepKind as K;
    match (kind, sector_size) {
        (K::Finalize | K::Remove, _) => 0,
        (K::AddPiece, 64 * GIB..) => 8 * GIB,
        (K::Pc1, 64 * GIB..) => 112 * GIB,
        (K::Pc2, 64 * GIB..) => 60 * GIB,
        (K::C1, 64 * GIB..) => GIB,
        (K::C2, 64 * GIB..) => 60 * GIB,
        (K::AddPiece, 32 * GIB..) => 4 * GIB,
        (K::Pc1, 32 * GIB..) => 56 * GIB,
        (K::Pc2, 32 * GIB..) => 30 * GIB,
        (K::C1, 32 * GIB..) => GIB,
        (K::C2, 32 * GIB..) => 30 * GIB,
        (_, 512 * MIB..) => GIB,
        (_, 8 * MIB..) => 8 * MIB,
        _ => 2 * MIB,
    }
}

/// Bytes of disk that a sector takes while it is sealed: eleven layers, the trees, unsealed and sealed.
pub fn disk(sector_size: u64) -> u64 {
    sector_size.saturating_mul(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_grow_at_each_sector_size() {
        let at = |size| memory(StepKind::Pc1, size);
        for (below, size) in [(2048, 8 * MIB), (8 * MIB, 512 * MIB), (512 * MIB, 32 * GIB), (32 * GIB, 64 * GIB)] {
            assert_eq!(at(size - 1), at(below));
            assert!(at(size) > at(below) && at(size + 1) == at(size), "{size}");
        }
        assert_eq!(memory(StepKind::Remove, 64 * GIB), 0);
        assert_eq!(disk(2048), 30720);
    }
}
