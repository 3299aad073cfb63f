//! The one way to write a small file: the old content or the new one is there, never half, also after a power cut.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// The users that may read a file that [`write_durably`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0600, whatever was there before: keys, tokens.
    Private,
    /// 0666 less the umask.
    Public,
    /// Mode, owner and symbolic link of the file that is replaced; 0600 where there is none. For files that an operator
    /// edits too.
    Keep,
}

/// Replaces the content of `path` and returns once that is durable: temporary file in the same folder, fsync, rename,
/// fsync of the folder. An error leaves the old file and removes the temporary one, which nobody else can open.
pub fn write_durably(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    match (mode, fs::canonicalize(path)) {
        (Mode::Keep, Ok(target)) => {
            let before = fs::metadata(&target)?;
            replace(&target, bytes, 0o600, Some(&before))
        }
        (Mode::Keep | Mode::Private, _) => replace(path, bytes, 0o600, None),
        (Mode::Public, _) => replace(path, bytes, 0o666, None),
    }
}

/// As [`write_durably`], unless the file says so already and only those may read it who should: a full or read-only disk is no
/// trouble while nothing changes.
pub fn write_where_it_differs(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let found = fs::symlink_metadata(path).is_ok_and(|file| {
        let private_enough = mode != Mode::Private || file.mode() & 0o777 == 0o600;
        file.is_file() && private_enough && fs::read(path).is_ok_and(|found| found == bytes)
    });
    if found { Ok(()) } else { write_durably(path, bytes, mode) }
}

/// Makes renames and new files in `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// `mode` is less the umask. `before`: the file whose mode and owner the new one gets.
fn replace(path: &Path, bytes: &[u8], mode: u32, before: Option<&fs::Metadata>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    // a new random name, made with O_EXCL: nothing that lies there already is followed or taken over
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    if let Some(before) = before {
        let ours = file.as_file().metadata()?;
        let same_owner = (ours.uid(), ours.gid()) == (before.uid(), before.gid())
            || chown(file.path(), Some(before.uid()), Some(before.gid())).is_ok();
        // bits for a group or for others meant the old owner's: without that owner they are not given
        let kept = if same_owner { before.mode() & 0o777 } else { before.mode() & 0o700 };
        file.as_file().set_permissions(Permissions::from_mode(kept))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn each_mode_on_a_new_file_and_over_an_old_one() {
        let dir = tempfile::tempdir().unwrap();
        // of a new file as this process makes them
        fs::write(dir.path().join("usual"), "").unwrap();
        let usual = mode_of(&dir.path().join("usual"));
        // (mode, of the old file, of the new one)
        let table = [
            (Mode::Private, None, 0o600),
            (Mode::Private, Some(0o644), 0o600),
            (Mode::Public, None, usual),
            (Mode::Public, Some(0o600), usual),
            (Mode::Keep, None, 0o600),
            (Mode::Keep, Some(0o600), 0o600),
            (Mode::Keep, Some(0o640), 0o640),
            (Mode::Keep, Some(0o644), 0o644),
            (Mode::Keep, Some(0o666), 0o666),
        ];
        for (mode, before, after) in table {
            let path = dir.path().join("file");
            let _ = fs::remove_file(&path);
            if let Some(before) = before {
                fs::write(&path, "a longer text than the new one").unwrap();
                fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            }
            write_durably(&path, b"new", mode).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(mode_of(&path), after, "{mode:?} over {before:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("in")).unwrap();
        for mode in [Mode::Private, Mode::Public, Mode::Keep] {
            assert!(write_durably(&taken, b"x", mode).is_err(), "a folder is not replaced");
            assert!(write_durably(&dir.path().join("no/such"), b"x", mode).is_err());
            assert!(write_durably(Path::new("/"), b"x", mode).is_err());
        }
        assert!(taken.join("in").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_kept_only_where_the_old_file_is() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_durably(&link, b"new", Mode::Keep).unwrap();
        assert_eq!((fs::read(&real).unwrap().as_slice(), link.is_symlink()), (b"new".as_slice(), true));
        write_durably(&link, b"key", Mode::Private).unwrap();
        assert_eq!((fs::read(&real).unwrap().as_slice(), link.is_symlink()), (b"new".as_slice(), false));
    }

    #[test]
    fn a_relative_path_without_a_folder_is_fine() {
        // of a name that no other test has, because the working folder is shared
        let name = format!("bulkhead-durable-{}", std::process::id());
        write_durably(Path::new(&name), b"x", Mode::Public).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"x");
        fs::remove_file(&name).unwrap();
    }

    /// A second way to write and rename would forget one of the four steps sooner or later.
    #[test]
    fn nobody_else_writes_and_renames() {
        fn walk(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let code = text.split("#[cfg(test)]").next().unwrap_or("");
                    if code.contains("fs::rename(") {
                        found.push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string());
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        // a proving key is written over hours under a name of its own; sectors' files are moved, not written
        assert_eq!(found, ["src/proofs/keys/files.rs"]);
    }

    #[test]
    fn a_file_that_says_so_already_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let written = |bytes: &str, mode| {
            write_where_it_differs(&path, bytes.as_bytes(), mode).unwrap();
            (fs::metadata(&path).unwrap().ino(), fs::read_to_string(&path).unwrap(), mode_of(&path))
        };
        let first = written("a", Mode::Private);
        assert_eq!(written("a", Mode::Private), first);
        assert_eq!(written("a", Mode::Public), first);
        let second = written("b", Mode::Private);
        assert_eq!((second.1.as_str(), second.2), ("b", 0o600));
        assert_ne!(second.0, first.0);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(written("b", Mode::Private).2, 0o600, "what others could read is closed");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(write_where_it_differs(&path, b"b", Mode::Private).is_err());
    }
}
