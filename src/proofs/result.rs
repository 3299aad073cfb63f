//! Finished results in a job's folder: written before they are acknowledged, adopted by a node that starts again.
//!
//! A prover dies with its node, so there is never a running child to adopt, only a finished result. It is found by the
//! hash of the whole task: another ticket, seed or path is another task. To run the same task again on purpose (its files
//! are damaged), [`forget`] its result first.

use super::wire::{decode, encode};
use super::{Output, Task};
use crate::util::{Mode, write_durably};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const SCHEMA: u32 = 1;

#[derive(Serialize, Deserialize)]
struct ResultRecord {
    schema: u32,
    task_hash: [u8; 32],
    output: Output,
    /// blake2b of the encoded output: a file that bit rot got at is not a result
    digest: [u8; 32],
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let h = blake2b_simd::Params::new().hash_length(32).hash(bytes);
    let mut out = [0; 32];
    out.copy_from_slice(h.as_bytes());
    out
}

fn task_hash(task: &Task) -> io::Result<[u8; 32]> {
    Ok(hash(&encode(task).map_err(io::Error::other)?))
}

fn path_of(job_dir: &Path, task: &Task, task_hash: &[u8; 32]) -> PathBuf {
    job_dir.join(format!("{}-{}.result", task.name(), hex::encode(&task_hash[..8])))
}

/// Only what stays true is kept: which sectors could not be read may be another matter in a minute.
fn worth_keeping(output: &Output) -> bool {
    !matches!(output, Output::Skipped(_) | Output::Vanilla(_))
}

/// Durable when it returns: file and folder are synced.
pub fn keep(job_dir: &Path, task: &Task, output: &Output) -> io::Result<()> {
    if !worth_keeping(output) {
        return Ok(());
    }
    let task_hash = task_hash(task)?;
    let digest = hash(&encode(output).map_err(io::Error::other)?);
    let record = ResultRecord { schema: SCHEMA, task_hash, output: output.clone(), digest };
    let bytes = encode(&record).map_err(io::Error::other)?;
    fs::create_dir_all(job_dir)?;
    let path = path_of(job_dir, task, &task_hash);
    write_durably(&path, &bytes, Mode::Public)
}

/// The finished result of exactly this task, if there is a whole one.
pub fn find(job_dir: &Path, task: &Task) -> Option<Output> {
    let task_hash = task_hash(task).ok()?;
    let bytes = fs::read(path_of(job_dir, task, &task_hash)).ok()?;
    let record: ResultRecord = decode(&bytes).ok()?;
    let digest = hash(&encode(&record.output).ok()?);
    (record.schema == SCHEMA && record.task_hash == task_hash && record.digest == digest).then_some(record.output)
}

/// Makes the next run of this task a real one.
pub fn forget(job_dir: &Path, task: &Task) -> io::Result<()> {
    match fs::remove_file(path_of(job_dir, task, &task_hash(task)?)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(number: u64) -> Task {
        Task::C2 { c1: vec![1, 2, 3], miner: 1000, number }
    }

    #[test]
    fn found_for_the_same_task_only_until_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::Proof(vec![9; 192]);
        assert_eq!(find(dir.path(), &task(1)), None);
        keep(dir.path(), &task(1), &output).unwrap();
        assert_eq!(find(dir.path(), &task(1)), Some(output));
        assert_eq!(find(dir.path(), &task(2)), None);
        forget(dir.path(), &task(1)).unwrap();
        assert_eq!(find(dir.path(), &task(1)), None);
        forget(dir.path(), &task(1)).unwrap();
    }

    #[test]
    fn a_flipped_or_missing_byte_is_no_result() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), &task(1), &Output::Proof(vec![9; 8])).unwrap();
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut bad = whole.clone();
            bad[i] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(find(dir.path(), &task(1)), None, "byte {i}");
            fs::write(&path, &whole[..i]).unwrap();
            assert_eq!(find(dir.path(), &task(1)), None, "cut at {i}");
        }
    }

    #[test]
    fn skipped_sectors_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), &task(1), &Output::Skipped(vec![1])).unwrap();
        assert_eq!(find(dir.path(), &task(1)), None);
    }
}
