//! The resources that a task needs on the machine that runs it: pure.

use crate::actors::seal_jobs::StepKind;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const S8M: u64 = 8 * MIB;
const S512M: u64 = 512 * MIB;
const S32G: u64 = 32 * GIB;
const S64G: u64 = 64 * GIB;

/// Bytes of memory, as Lotus' resource table has them for the CPU.
pub fn memory(kind: StepKind, sector_size: u64) -> u64 {
    use StepKind as K;
    match (kind, sector_size) {
        (K::Finalize | K::Remove, _) => 0,
        (K::AddPiece, S64G..) => 8 * GIB,
        (K::Pc1, S64G..) => 112 * GIB,
        (K::Pc2, S64G..) => 60 * GIB,
        (K::C1, S64G..) => GIB,
        (K::C2, S64G..) => 60 * GIB,
        (K::AddPiece, S32G..) => 4 * GIB,
        (K::Pc1, S32G..) => 56 * GIB,
        (K::Pc2, S32G..) => 30 * GIB,
        (K::C1, S32G..) => GIB,
        (K::C2, S32G..) => 30 * GIB,
        (_, S512M..) => GIB,
        (_, S8M..) => 8 * MIB,
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
        for (below, size) in [(2048, S8M), (S8M, S512M), (S512M, S32G), (S32G, S64G)] {
            assert_eq!(at(size - 1), at(below));
            assert!(at(size) > at(below) && at(size + 1) == at(size), "{size}");
        }
        assert_eq!(memory(StepKind::Remove, 64 * GIB), 0);
        assert_eq!(disk(2048), 30720);
    }
}
