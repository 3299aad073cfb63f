//! Keys as files: the library's own names and loader, whole or not at all, made once when many ask.

use crate::support::test_of_this_file;
use bulkhead::proofs::keys::{self, Condition, KEYS_2KIB, Key, KeyError, KeyPhase};
use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The smallest key: a second of work.
const KEY: Key = Key::WindowPost;

fn params(dir: &Path) -> PathBuf {
    dir.join(&KEY.file_names().unwrap()[0])
}

fn vk(dir: &Path) -> PathBuf {
    dir.join(&KEY.file_names().unwrap()[1])
}

fn ensure(dir: &Path) -> keys::Ensured {
    keys::ensure_key(KEY, dir, &|_| {}).unwrap()
}

fn condition(dir: &Path) -> Condition {
    keys::list(dir).unwrap().into_iter().find(|s| s.key == KEY).unwrap().condition
}

#[test]
fn names_are_the_ones_the_library_looks_for() {
    let seal = RegisteredSealProof::StackedDrg2KiBV1_1;
    let winning = RegisteredPoStProof::StackedDrgWinning2KiBV1;
    let window = RegisteredPoStProof::StackedDrgWindow2KiBV1_2;
    for (key, params, vk) in [
        (Key::Seal, seal.cache_params_path(), seal.cache_verifying_key_path()),
        (Key::WinningPost, winning.cache_params_path(), winning.cache_verifying_key_path()),
        (Key::WindowPost, window.cache_params_path(), window.cache_verifying_key_path()),
    ] {
        let names = key.file_names().unwrap();
        assert_eq!(params.unwrap().file_name().unwrap().to_str(), Some(names[0].as_str()));
        assert_eq!(vk.unwrap().file_name().unwrap().to_str(), Some(names[1].as_str()));
        assert!(names[2].ends_with(".meta"));
    }
    // the older WindowPoSt type shares the key
    let old = RegisteredPoStProof::StackedDrgWindow2KiBV1.circuit_identifier().unwrap();
    assert_eq!(old, window.circuit_identifier().unwrap());
}

#[test]
fn a_key_is_made_once_repaired_and_made_again_when_it_is_half() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(condition(dir), Condition::Absent);

    // what a killed generator leaves does not stop the next
    fs::write(params(dir).with_extension("params.part"), b"half").unwrap();
    let phases = Mutex::new(Vec::new());
    let made = keys::ensure_key(KEY, dir, &|p| phases.lock().unwrap().push(p)).unwrap();
    assert!(made.generated_in.is_some());
    let phases = phases.into_inner().unwrap();
    assert_eq!(phases[0].phase, KeyPhase::Counting);
    assert!(phases.iter().any(|p| p.phase == KeyPhase::Points && p.done == p.total && p.total > 0));
    assert_eq!(phases.last().unwrap().phase, KeyPhase::Done);
    assert_eq!(condition(dir), Condition::Complete { bytes: made.bytes });
    assert_eq!(keys::check_key(KEY, dir).unwrap().problems, Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|n| n.ends_with(".part") || n.ends_with(".tmp")), "{left:?}");

    // there already: not a byte changes
    let bytes = fs::read(params(dir)).unwrap();
    assert!(ensure(dir).generated_in.is_none());

    // verifying key gone, or another key's: written again from the parameters
    let right = fs::read(vk(dir)).unwrap();
    fs::remove_file(vk(dir)).unwrap();
    assert!(matches!(condition(dir), Condition::NeedsVk(_)));
    assert!(ensure(dir).generated_in.is_none());
    let mut wrong = right.clone();
    wrong[5] ^= 1;
    fs::write(vk(dir), wrong).unwrap();
    assert!(!keys::check_key(KEY, dir).unwrap().problems.is_empty());
    assert!(ensure(dir).generated_in.is_none());
    assert_eq!(fs::read(vk(dir)).unwrap(), right);
    assert_eq!(fs::read(params(dir)).unwrap(), bytes);

    // a flipped bit inside is found by the thorough check
    let mut flipped = bytes.clone();
    let at = bytes.len() - 1000;
    flipped[at] ^= 1;
    fs::write(params(dir), &flipped).unwrap();
    let problems = keys::check_key(KEY, dir).unwrap().problems;
    assert!(problems[0].contains("not on the curve"), "{problems:?}");

    // half a key under the real name is thrown away
    fs::write(params(dir), &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(condition(dir), Condition::Damaged(_)));
    assert!(ensure(dir).generated_in.is_some());
    assert_eq!(keys::check_key(KEY, dir).unwrap().problems, Vec::<String>::new());
    assert_ne!(fs::read(params(dir)).unwrap(), bytes, "new secrets, new key");
}

/// Not a test by itself: one of the processes that want the same key.
#[test]
#[ignore = "run by processes_that_want_the_same_key_make_it_once"]
fn wants_a_key() {
    let dir = PathBuf::from(std::env::var_os("BULKHEAD_TEST_DIR").unwrap());
    let made = ensure(&dir);
    println!("\nmade={}", made.generated_in.is_some());
}

#[test]
fn processes_that_want_the_same_key_make_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let wanting: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test_of_this_file!("wants_a_key"), "--ignored", "--nocapture"])
                .env("BULKHEAD_TEST_DIR", dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut made = 0;
    for process in wanting {
        let out = process.wait_with_output().unwrap();
        assert!(out.status.success());
        made += String::from_utf8_lossy(&out.stdout).matches("made=true").count();
    }
    assert_eq!(made, 1);
    assert_eq!(keys::check_key(KEY, dir.path()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_generator_that_is_killed_leaves_no_key_and_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut generator = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test_of_this_file!("wants_a_key"), "--ignored"])
        .env("BULKHEAD_TEST_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let part = params(dir.path()).with_extension("params.part");
    while !part.exists() {
        assert!(generator.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::yield_now();
    }
    generator.kill().unwrap();
    generator.wait().unwrap();
    assert_eq!(condition(dir.path()), Condition::Absent);
    assert!(ensure(dir.path()).generated_in.is_some());
}

#[test]
fn other_sizes_are_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (size, name) in [(32u64 << 30, "32 GiB"), (64 << 30, "64 GiB"), (512 << 20, "512 MiB"), (8 << 20, "8 MiB")] {
        let error = keys::ensure(dir.path(), size, &|_| {}).unwrap_err();
        assert!(matches!(error, KeyError::Published { size: s } if s == size));
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("fetch"), "{text}");
    }
    for size in [0, 2047, 2049, (32 << 30) + 1] {
        assert!(matches!(keys::ensure(dir.path(), size, &|_| {}), Err(KeyError::NotGenerated { .. })));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_cache_lists_all_keys_as_absent_and_a_bad_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let list = keys::list(dir.path()).unwrap();
    assert_eq!(list.len(), KEYS_2KIB.len());
    assert!(list.iter().all(|s| s.condition == Condition::Absent));
    assert!(keys::check(dir.path()).unwrap().iter().all(|r| r.problems.len() == 1));
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = keys::ensure_2kib(&file.join("cache"), &|_| {}).unwrap_err().to_string();
    assert!(error.contains("file/cache"), "{error}");
}
