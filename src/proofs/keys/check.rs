//! A thorough check of the keys in a cache: structure, every point on its curve, the proofs library's own loader.

use super::files::{Files, Layout};
use super::{Condition, KeyError};
use super::{KEYS_2KIB, Key};
use blst::{BLST_ERROR, blst_p1_affine, blst_p2_affine};
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use storage_proofs_core::parameter_cache::read_cached_params;

/// The faults of a key; empty = it is good.
#[derive(Clone, Debug)]
pub struct CheckReport {
    pub key: Key,
    pub bytes: u64,
    pub problems: Vec<String>,
}

/// Reads every key in full. Never fails because of a bad key: the report says so.
pub fn check(cache_dir: &Path) -> Result<Vec<CheckReport>, KeyError> {
    KEYS_2KIB.into_iter().map(|key| check_key(key, cache_dir)).collect()
}

/// [`check`] for one key.
pub fn check_key(key: Key, cache_dir: &Path) -> Result<CheckReport, KeyError> {
    let files = Files::of(key, cache_dir)?;
    let (bytes, mut problems) = match files.condition() {
        Condition::Complete { bytes } => (bytes, vec![]),
        Condition::Absent => (0, vec!["there is no parameter file; `bulkhead keys generate` makes it".into()]),
        Condition::NeedsVk(why) => (0, vec![format!("{why}; `bulkhead keys generate` repairs it")]),
        Condition::Damaged(why) => (0, vec![format!("{why}; `bulkhead keys generate` makes it again")]),
    };
    if problems.is_empty() {
        let io = |source| KeyError::Io { path: files.params.clone(), source };
        let layout = Layout::read(&files.params).map_err(io)?;
        let layout = layout.ok_or_else(|| io(io::Error::other("changed while it was checked")))?;
        let bad = bad_points(&files.params, &layout).map_err(io)?;
        if bad > 0 {
            problems.push(format!("{bad} points are not on the curve: delete the file and generate it again"));
        } else {
            // The library reads the path it is given; mapped, so this is quick.
            match read_cached_params(&files.params) {
                Ok(mapped) => {
                    let mut vk = Vec::new();
                    if mapped.vk.write(&mut vk).is_err() || vk != layout.vk {
                        problems.push("the loader read another verifying key than the file holds".into());
                    }
                }
                Err(e) => problems.push(format!("the proofs library's loader refuses it: {e:#}")),
            }
        }
    }
    Ok(CheckReport { key, bytes, problems })
}

/// Points per job.
const JOB: u64 = 1 << 14;

fn bad_points(path: &Path, layout: &Layout) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut bad = 0;
    for (offset, points, size) in layout.sections {
        let jobs = points.div_ceil(JOB);
        let counts: io::Result<Vec<u64>> = (0..jobs)
            .into_par_iter()
            .map(|job| {
                let n = JOB.min(points - job * JOB);
                let mut buf = vec![0; (n * size) as usize];
                file.read_exact_at(&mut buf, offset + job * JOB * size)?;
                Ok(buf.chunks_exact(size as usize).filter(|p| !on_curve(p)).count() as u64)
            })
            .collect();
        bad += counts?.iter().sum::<u64>();
    }
    Ok(bad)
}

/// Deserialises to a point of the curve other than infinity. Membership of the subgroup would cost minutes and follows
/// from how the points are made.
fn on_curve(bytes: &[u8]) -> bool {
    // SAFETY: blst reads 96 (192) bytes, which is the slice's length, and writes one point.
    unsafe {
        match bytes.len() {
            96 => {
                let mut p = blst_p1_affine::default();
                blst::blst_p1_deserialize(&mut p, bytes.as_ptr()) == BLST_ERROR::BLST_SUCCESS
                    && !blst::blst_p1_affine_is_inf(&p)
            }
            192 => {
                let mut p = blst_p2_affine::default();
                blst::blst_p2_deserialize(&mut p, bytes.as_ptr()) == BLST_ERROR::BLST_SUCCESS
                    && !blst::blst_p2_affine_is_inf(&p)
            }
            _ => false,
        }
    }
}
