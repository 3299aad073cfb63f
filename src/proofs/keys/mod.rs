//! Proving keys for 2 KiB test sectors: which there are, making them, checking them.
//!
//! **These keys are for test sectors only.** Whoever makes a Groth16 key knows, for a moment, the secrets with which any
//! proof can be forged. The published keys for real sector sizes come from a ceremony of many parties; no network that is
//! worth anything accepts a key made by one machine. So other sizes are refused here: their keys are fetched.
//!
//! Files carry the names that filecoin-proofs expects in `FIL_PROOFS_PARAMETER_CACHE`, its own loader reads them.

mod check;
mod condition;
mod files;

pub use bulkhead_proofs::circuits::{KEYS_2KIB, Key};
pub use bulkhead_proofs::generator::{GenerateError, GeneratorPhase, ToxicWaste, write_parameters};
pub use check::{CheckReport, check, check_key};
pub use condition::{CACHE_VARIABLE, Condition, KeyError};

use super::tasks;
use crate::chain::proof_types;
use anyhow::Context;
use filecoin_proofs_api::PoStType;
use files::Files;
use rand::rngs::OsRng;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The proofs library's default folder for keys.
pub const DEFAULT_CACHE: &str = "/var/tmp/filecoin-proof-parameters";
pub const TEST_SECTOR_SIZE: u64 = 2048;

/// The parameter cache of this process: the variable, else the library's default.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(dir) if !dir.is_empty() => dir.into(),
        _ => DEFAULT_CACHE.into(),
    }
}

/// The parameter files that proofs of that sector size read: PoRep, WinningPoSt, WindowPoSt. They depend on the size only.
pub fn files_of(sector_size: u64) -> anyhow::Result<[PathBuf; 3]> {
    let numbers =
        (proof_types::seal_proof(sector_size, u32::MAX), proof_types::window_post_proof(sector_size, u32::MAX));
    let (Some(seal), Some(window)) = numbers else { anyhow::bail!("no sector has {sector_size} bytes") };
    let winning = proof_types::winning_post_proof(seal).context("no winning proof for this seal proof")?;
    Ok([
        tasks::seal_proof(seal)?.cache_params_path()?,
        tasks::post_proof(winning, PoStType::Winning)?.cache_params_path()?,
        tasks::post_proof(window, PoStType::Window)?.cache_params_path()?,
    ])
}

#[derive(Clone, Debug)]
pub struct KeyStatus {
    pub key: Key,
    pub params: PathBuf,
    pub condition: Condition,
}

/// The progress of [`ensure_2kib`], for a progress bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyProgress {
    pub key: &'static str,
    pub phase: KeyPhase,
    /// Curve points written, of `total`; both 0 outside [`KeyPhase::Points`].
    pub done: u64,
    pub total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPhase {
    /// Another process makes this key.
    Waiting,
    Counting,
    Points,
    /// Flushing to disk.
    Syncing,
    Done,
}

/// The outcome for one key.
#[derive(Clone, Debug)]
pub struct Ensured {
    pub key: Key,
    /// `None`: it was there.
    pub generated_in: Option<Duration>,
    pub bytes: u64,
}

/// Every key that a 2 KiB sector needs, and whether it is there. Reads a few bytes of each file.
pub fn list(cache_dir: &Path) -> Result<Vec<KeyStatus>, KeyError> {
    KEYS_2KIB
        .into_iter()
        .map(|key| {
            let files = Files::of(key, cache_dir)?;
            Ok(KeyStatus { key, condition: files.condition(), params: files.params })
        })
        .collect()
}

/// [`ensure_2kib`] for a sector size that may be refused.
pub fn ensure(
    cache_dir: &Path,
    sector_size: u64,
    progress: &(dyn Fn(KeyProgress) + Sync),
) -> Result<Vec<Ensured>, KeyError> {
    match sector_size {
        TEST_SECTOR_SIZE => ensure_2kib(cache_dir, progress),
        // the sizes of the published parameter sets
        0x80_0000 | 0x2000_0000 | 0x8_0000_0000 | 0x10_0000_0000 => Err(KeyError::Published { size: sector_size }),
        size => Err(KeyError::NotGenerated { size }),
    }
}

/// Makes what is missing of the 2 KiB keys. A complete key is left alone, half of one is thrown away, a key that another
/// process is making is waited for.
pub fn ensure_2kib(cache_dir: &Path, progress: &(dyn Fn(KeyProgress) + Sync)) -> Result<Vec<Ensured>, KeyError> {
    fs::create_dir_all(cache_dir).map_err(|source| KeyError::Io { path: cache_dir.into(), source })?;
    KEYS_2KIB.into_iter().map(|key| ensure_key(key, cache_dir, progress)).collect()
}

/// [`ensure_2kib`] for one key.
pub fn ensure_key(key: Key, cache_dir: &Path, progress: &(dyn Fn(KeyProgress) + Sync)) -> Result<Ensured, KeyError> {
    let files = Files::of(key, cache_dir)?;
    let io = |source| KeyError::Io { path: files.params.clone(), source };
    let say = |phase, done, total| progress(KeyProgress { key: key.name(), phase, done, total });
    let there = |bytes| {
        say(KeyPhase::Done, 0, 0);
        Ok(Ensured { key, generated_in: None, bytes })
    };
    if let Condition::Complete { bytes } = files.condition() {
        return there(bytes);
    }
    let lock = files.open_lock().map_err(io)?;
    if !lock.try_take().map_err(io)? {
        say(KeyPhase::Waiting, 0, 0);
        lock.take().map_err(io)?;
    }
    // again, now that nobody else changes it
    match files.condition() {
        Condition::Complete { bytes } => return there(bytes),
        Condition::NeedsVk(_) => {
            files.complete().map_err(io)?;
            let bytes = fs::metadata(&files.params).map_err(io)?.len();
            return there(bytes);
        }
        Condition::Absent | Condition::Damaged(_) => files.clear().map_err(io)?,
    }

    let started = Instant::now();
    let part = files.part();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(io)?);
    let vk = key
        .generate(&ToxicWaste::random(OsRng), &mut out, &|phase| match phase {
            GeneratorPhase::Counting => say(KeyPhase::Counting, 0, 0),
            GeneratorPhase::Points { done, total } => say(KeyPhase::Points, done, total),
        })
        .map_err(|source| {
            // a full disk must not stay full of half a key
            let _ = fs::remove_file(&part);
            KeyError::Generate { key: key.name(), source }
        })?;
    say(KeyPhase::Syncing, 0, 0);
    out.flush().map_err(io)?;
    out.get_ref().sync_all().map_err(io)?;
    let bytes = out.get_ref().metadata().map_err(io)?.len();
    let mut vk_bytes = Vec::new();
    vk.write(&mut vk_bytes).map_err(io)?;
    files.publish(&vk_bytes).map_err(io)?;
    say(KeyPhase::Done, 0, 0);
    Ok(Ensured { key, generated_in: Some(started.elapsed()), bytes })
}
