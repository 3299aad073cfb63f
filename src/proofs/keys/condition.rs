//! The state of a key on disk, and why one cannot be made.

use bulkhead_proofs::generator::GenerateError;
use std::io;
use std::path::PathBuf;

pub const CACHE_VARIABLE: &str = "FIL_PROOFS_PARAMETER_CACHE";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "proving keys for {} sectors are published, not generated: fetch them into {CACHE_VARIABLE} (for example with \
         `lotus fetch-params {}`); keys made by one machine are for 2 KiB test sectors only", human(*size), size
    )]
    Published { size: u64 },
    #[error("proving keys are generated for 2 KiB test sectors only, not for a sector size of {size} bytes")]
    NotGenerated { size: u64 },
    #[error("{key}: the proofs library refuses its parameters: {why}")]
    Library { key: &'static str, why: String },
    #[error("{key}: {source}")]
    Generate { key: &'static str, source: GenerateError },
    #[error("{}: {source}; free space or set {CACHE_VARIABLE} to a folder that can be written", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn human(size: u64) -> String {
    match size {
        s if s >= 1 << 30 => format!("{} GiB", s >> 30),
        s if s >= 1 << 20 => format!("{} MiB", s >> 20),
        s => format!("{} KiB", s >> 10),
    }
}

/// The state of one key in a parameter cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Complete {
        bytes: u64,
    },
    Absent,
    /// The parameters are whole; verifying key or metadata must be written again from them.
    NeedsVk(String),
    /// Thrown away and made again by [`ensure_2kib`].
    Damaged(String),
}
