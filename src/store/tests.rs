//! Records, fences, a full disk and damaged files.

use super::db::Db;
use super::*;
use redb::StorageBackend;
use redb::backends::FileBackend;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Boat {
    name: String,
    crew: Vec<u64>,
}
impl Record for Boat {
    const TABLE: &'static str = "boats";
}
/// The same table, as a later version of the program would write it.
#[derive(Serialize, Deserialize, Debug)]
struct BoatV2(u64);
impl Record for BoatV2 {
    const TABLE: &'static str = "boats";
    const SCHEMA: u16 = 2;
}

fn token(epoch: u64) -> Token {
    Token { path: "/test".into(), epoch }
}

fn boat(n: u64) -> Boat {
    Boat { name: format!("boat {n}"), crew: (0..n).collect() }
}

fn fresh() -> (tempfile::TempDir, std::path::PathBuf, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bulkhead.redb");
    let store = Store::open(&path).unwrap();
    (dir, path, store)
}

#[test]
fn what_was_put_is_there_after_the_file_is_opened_again() {
    let (_dir, path, store) = fresh();
    assert_eq!(store.get::<Boat>("a").unwrap(), None);
    store.put(&token(1), "b", &boat(2)).unwrap();
    store.put(&token(1), "a", &boat(1)).unwrap();
    store.put(&token(1), "c", &boat(3)).unwrap();
    store.delete::<Boat>(&token(1), "c").unwrap();
    let answer = store.update::<Boat, _>(&token(1), "a", |old| {
        let mut new = old.unwrap();
        new.crew.push(9);
        (new, "answer")
    });
    assert_eq!(answer.unwrap(), "answer");
    drop(store);
    let store = Store::open(&path).unwrap();
    let keys: Vec<_> = store.list::<Boat>().unwrap().into_iter().map(|(k, b)| (k, b.crew.len())).collect();
    assert_eq!(keys, [("a".to_owned(), 2), ("b".to_owned(), 2)]);
    assert_eq!(store.list_prefix::<Boat>("b").unwrap(), [("b".to_owned(), boat(2))]);
}

#[test]
fn an_error_in_a_transaction_writes_none_of_it() {
    let (_dir, _path, store) = fresh();
    let answer: Result<()> = store.transact(&token(1), |tx| {
        tx.put("a", &boat(1))?;
        Err(StoreError::Io("no".into()))
    });
    assert!(answer.is_err());
    assert_eq!(store.get::<Boat>("a").unwrap(), None);
    store.put(&token(1), "a", &boat(1)).unwrap();
}

#[test]
fn a_lower_epoch_is_fenced_off_an_equal_or_higher_one_is_not() {
    let (_dir, path, store) = fresh();
    for (epoch, ok) in [(5, true), (4, false), (5, true), (6, true), (5, false)] {
        let answer = store.put(&token(epoch), "a", &boat(epoch));
        assert_eq!(answer.is_ok(), ok, "epoch {epoch}: {answer:?}");
    }
    assert_eq!(store.get::<Boat>("a").unwrap(), Some(boat(6)));
    store.put(&Token { path: "/other".into(), epoch: 1 }, "a", &boat(7)).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let refused = store.put(&token(5), "a", &boat(1)).unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { epoch: 5, newer: 6, .. }), "{refused}");
}

#[test]
fn boots_are_counted_over_restarts() {
    let (_dir, path, store) = fresh();
    assert_eq!((store.next_boot().unwrap(), store.next_boot().unwrap()), (1, 2));
    drop(store);
    assert_eq!(Store::open(&path).unwrap().next_boot().unwrap(), 3);
}

#[test]
fn a_later_start_has_a_higher_number_whatever_the_clock_and_the_repo_went_through() {
    let (_dir, path, store) = fresh();
    assert_eq!([store.next_start(100).unwrap(), store.next_start(100).unwrap()], [100, 101]);
    drop(store);
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!([store.next_start(7).unwrap(), store.next_start(200).unwrap()], [102, 200], "the clock went back");
    drop(store);
    std::fs::copy(&copy, &path).unwrap();
    assert_eq!(Store::open(&path).unwrap().next_start(201).unwrap(), 201, "an older copy came back");
}

#[test]
fn a_record_of_another_schema_is_refused_by_name() {
    let (_dir, _path, store) = fresh();
    store.put(&token(1), "a", &BoatV2(7)).unwrap();
    let e = store.get::<Boat>("a").unwrap_err();
    assert!(matches!(&e, StoreError::Schema { table, found: 2, known: 1, .. } if table == "boats"), "{e}");
}

#[test]
fn a_second_opening_says_that_it_is_locked() {
    let (_dir, path, _store) = fresh();
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
}

#[test]
fn a_file_that_is_not_a_store_or_is_damaged_says_what_to_do_and_stays() {
    let (dir, path, store) = fresh();
    for n in 0..200 {
        store.put(&token(1), &format!("{n}"), &boat(40)).unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let marker = good.windows(7).position(|w| w == b"boat 40").unwrap();
    let mut flipped = good.clone();
    flipped[marker] ^= 1;
    let mut magic = good.clone();
    magic[3] ^= 1;
    let garbage: Vec<u8> = (0..100_000u32).map(|n| n.wrapping_mul(2_654_435_761) as u8).collect();
    for (name, bytes) in [("text", b"hello".to_vec()), ("garbage", garbage), ("magic", magic), ("flipped", flipped)] {
        let path = dir.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        match Store::open(&path) {
            Err(e @ StoreError::Damaged { .. }) => {
                assert!(e.to_string().contains("restore a backup"), "{name}: {e}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} was changed");
            }
            Err(e) => panic!("{name}: {e}"),
            // redb keeps older copies of pages: a flip in one of those harms nothing, and every record must be there.
            Ok(store) => assert_eq!(store.list::<Boat>().unwrap().len(), 200, "{name}"),
        }
    }
}

/// Whichever byte is flipped: refused, repaired from redb's older copy, or it was unused. Never a wrong record.
#[test]
fn a_flipped_byte_anywhere_never_gives_a_wrong_record() {
    let (dir, path, store) = fresh();
    for n in 0..50 {
        store.put(&token(1), &format!("{n:03}"), &boat(n)).unwrap();
    }
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let used = good.len() - good.iter().rev().take_while(|b| **b == 0).count();
    let mut refused = 0;
    for at in (0..used).step_by(used / 60) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let path = dir.path().join("flipped");
        std::fs::write(&path, &bytes).unwrap();
        let Ok(store) = Store::open(&path) else {
            refused += 1;
            assert!(std::fs::read(&path).unwrap() == bytes, "byte {at}: refused and changed");
            continue;
        };
        let boats = store.list::<Boat>().unwrap_or_else(|e| panic!("byte {at}: opened, then {e}"));
        // An older commit may come back after a repair of the newest; what is there is right.
        assert!(boats.len() >= 49, "byte {at}: {} records", boats.len());
        assert!(boats.iter().all(|(k, b)| *b == boat(k.parse().unwrap())), "byte {at}");
    }
    assert!(refused > 0);
}

/// A file on a disk that can be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}
impl Disk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[test]
fn a_full_disk_is_named_loses_nothing_and_is_over_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bulkhead.redb");
    let full = Arc::new(AtomicBool::new(false));
    let disk_full = full.clone();
    let db = Db::open_with(
        &path,
        Box::new(move |path| {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let disk = Disk { file: FileBackend::new(file)?, full: disk_full.clone() };
            redb::Database::builder().create_with_backend(disk)
        }),
    );
    let store = Store::over(db.unwrap());
    store.put(&token(1), "a", &boat(1)).unwrap();
    full.store(true, Ordering::SeqCst);
    let e = store.put(&token(1), "b", &boat(2)).unwrap_err();
    assert!(matches!(e, StoreError::Full { .. }), "{e}");
    assert!(store.put(&token(1), "b", &boat(2)).is_err(), "still full");
    full.store(false, Ordering::SeqCst);
    assert_eq!(store.get::<Boat>("a").unwrap(), Some(boat(1)));
    assert_eq!(store.get::<Boat>("b").unwrap(), None);
    store.put(&token(1), "b", &boat(2)).unwrap();
    assert_eq!(store.get::<Boat>("b").unwrap(), Some(boat(2)));
}

/// A disk that others have filled takes what is written within the file.
#[test]
fn the_file_s_blocks_are_allocated_as_far_as_it_reaches() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bulkhead.redb");
    let allocated = || {
        let file = std::fs::metadata(&path).unwrap();
        assert!(file.len() > 0 && file.blocks() * 512 >= file.len(), "{} of {}", file.blocks() * 512, file.len());
        file.len()
    };
    let store = Store::open(&path).unwrap();
    store.put(&token(1), "a", &boat(1)).unwrap();
    let first = allocated();
    for n in 0..1000 {
        store.put(&token(1), &format!("{n}"), &boat(3000)).unwrap();
        if allocated() > first {
            break;
        }
    }
    assert!(allocated() > first, "it has grown");
    drop(store);
    // One of an earlier version has holes where nothing was written yet.
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for (block, bytes) in std::fs::read(&path).unwrap().chunks(4096).enumerate() {
        if bytes.iter().all(|byte| *byte == 0) {
            nix::fcntl::fallocate(&file, hole, block as i64 * 4096, 4096).unwrap();
        }
    }
    let holed = file.metadata().unwrap();
    assert!(holed.blocks() * 512 < holed.len());
    Store::open(&path).unwrap();
    allocated();
}

/// A record of a known table, as a later version would write it.
#[derive(Serialize, Deserialize)]
struct LaterSector(u64);
impl Record for LaterSector {
    const TABLE: &'static str = "sectors";
    const SCHEMA: u16 = 99;
}

#[test]
fn a_file_that_a_later_version_wrote_is_refused_in_one_sentence() {
    let (_dir, path, store) = fresh();
    store.put(&token(1), "t01000/1", &boat(1)).unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    store.put(&token(1), "t01000/1", &LaterSector(1)).unwrap();
    drop(store);
    let refused = Store::open(&path).err().expect("refused").to_string();
    for part in [path.to_str().unwrap(), "sectors in schema 99", "up to schema 2", "start ", "backup"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    assert_eq!(refused.lines().count(), 1);
    assert_eq!(Store::open(&path).err().map(|again| again.to_string()), Some(refused));
}

#[test]
fn a_record_that_would_not_be_read_back_is_not_written() {
    let (_dir, _path, store) = fresh();
    let huge = Boat { name: "x".repeat(65 << 20), crew: vec![] };
    let e = store.put(&token(1), "a", &huge).unwrap_err();
    assert!(matches!(e, StoreError::RecordTooLarge { .. }), "{e}");
    assert_eq!(store.get::<Boat>("a").unwrap(), None);
}
