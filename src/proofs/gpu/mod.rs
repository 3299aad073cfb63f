//! GPU slots of this host, leased by priority across all its Bulkhead processes (nodes, agents, workers): WinningPoSt,
//! WindowPoSt, C2, PC2. bellperson has a lock of its own in TMPDIR, which keeps no two of our provers apart, since each has
//! a private one.
//!
//! A slot is a file with a lock on it, a place in the queue another one: both are gone with the process that has them,
//! however it ends. [`queue`] decides who goes first.

pub mod queue;

use super::Task;
use crate::util::time::since_epoch;
use queue::{GpuClass, Ticket};
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// This build computes on GPUs where there are any.
pub const BUILT_IN: bool = cfg!(any(feature = "cuda", feature = "opencl"));
/// Between two log lines of a task that waits.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// For WARN lines about a folder that takes no locks.
const HOW: &str = "proofs go on without GPU slots; give another folder in proving.gpu_locks";

/// The GPU slots that this process shares with others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gpu(Option<Arc<Slots>>);

#[derive(Debug)]
struct Slots {
    folder: PathBuf,
    count: u32,
    numbers: AtomicU64,
}

/// The right to use a GPU, until dropped.
#[derive(Debug)]
pub struct GpuLease {
    slot: u32,
    /// There are several: this one's prover sees its own GPU only.
    pinned: bool,
    _lock: File,
}

impl GpuLease {
    pub fn slot(&self) -> u32 {
        self.slot
    }
    /// `None`: its prover sees all GPUs.
    pub fn pinned_to(&self) -> Option<u32> {
        self.pinned.then_some(self.slot)
    }
}

/// The environment in which a prover sees that GPU alone: of those that this process is given, the one of that number.
pub fn visible(gpu: u32) -> [(OsString, OsString); 2] {
    let given = |variable: &str| {
        let list = std::env::var(variable).ok().filter(|list| !list.is_empty());
        let nth = list.and_then(|list| list.split(',').nth(gpu as usize).map(|one| one.trim().to_string()));
        (variable.into(), nth.unwrap_or_else(|| gpu.to_string()).into())
    };
    [given("CUDA_VISIBLE_DEVICES"), given("GPU_DEVICE_ORDINAL")]
}

/// The GPUs that this process may use, of those that this host's driver shows; 0 in a build that uses none.
pub fn detected() -> u32 {
    if !BUILT_IN {
        return 0;
    }
    let nvidia = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, |gpus| gpus.flatten().count());
    match nvidia {
        0 => u32::from(Path::new("/dev/kfd").exists()),
        count => allowed(count, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()),
    }
}

/// The GPUs, of `count`, that a list in CUDA_VISIBLE_DEVICES leaves: CUDA reads it up to the first entry that names none.
fn allowed(count: usize, list: Option<&str>) -> u32 {
    let names = |entry: &&str| !entry.is_empty() && !entry.starts_with('-') && *entry != "NoDevFiles";
    let listed = list.map_or(count, |list| list.split(',').map(str::trim).take_while(names).count());
    u32::try_from(count.min(listed)).unwrap_or(u32::MAX)
}

/// In memory, so that no disk that hangs holds a proof up.
pub fn default_folder() -> PathBuf {
    // SAFETY: geteuid always succeeds.
    let me = unsafe { libc::geteuid() };
    let shm = Path::new("/dev/shm");
    let root = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
    root.join(format!("bulkhead-gpu-{me}"))
}

/// Anybody may write beside the default folder, and so make it first: another user's tickets there would hold every proof up.
fn private(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    // SAFETY: geteuid always succeeds.
    let ours = found.is_dir() && found.uid() == unsafe { libc::geteuid() } && found.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(io::Error::other("it is not this user's own, or others may write to it")) }
}

impl Gpu {
    /// Nothing is leased, every task runs at once.
    pub fn none() -> Gpu {
        Gpu(None)
    }

    /// `count` 0: none. The same count and folder in every process of the host.
    pub fn slots(count: u32, folder: PathBuf) -> Gpu {
        Gpu((count > 0).then(|| Arc::new(Slots { folder, count, numbers: AtomicU64::new(0) })))
    }

    /// Waits until the task may use a GPU; dropping the future leaves the queue. `None`: it runs without a lease, because it
    /// needs none, there are none, or its deadline does not let it wait longer.
    pub async fn lease(&self, task: &Task, max_runtime: Duration) -> Option<GpuLease> {
        let slots = self.0.as_ref()?;
        let class = GpuClass::of(task)?;
        let waited = match class.patience(max_runtime) {
            None => Some(slots.wait(class).await),
            Some(patience) => timeout(patience, slots.wait(class)).await.ok(),
        };
        match waited {
            Some(Ok(lease)) => Some(lease),
            Some(Err(error)) => {
                tracing::warn!(folder = %slots.folder.display(), %error, "{HOW}");
                None
            }
            None => {
                tracing::warn!(
                    task = task.name(),
                    "no GPU slot became free in time: it is proven beside what runs there"
                );
                None
            }
        }
    }
}

/// A place in the queue, until dropped.
struct QueuedTicket {
    path: PathBuf,
    ticket: Ticket,
    _lock: File,
}

impl Drop for QueuedTicket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Slots {
    async fn wait(&self, class: GpuClass) -> io::Result<GpuLease> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if self.folder == default_folder() {
            private(&self.folder)?;
        }
        let place = self.join(class)?;
        let mut say_at = Instant::now() + SAY_EVERY;
        loop {
            if queue::first(&place.ticket, &self.waiting()?)
                && let Some(lease) = self.take()?
            {
                return Ok(lease);
            }
            if Instant::now() >= say_at {
                tracing::info!(?class, "still waits for a GPU slot");
                say_at += SAY_EVERY;
            }
            sleep(class.look_every()).await;
        }
    }

    /// Visible only once it is locked: what nobody has locked counts as left by a process that died.
    fn join(&self, class: GpuClass) -> io::Result<QueuedTicket> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let asked = u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX);
        let ticket = Ticket { class, asked, pid: std::process::id(), number };
        let new = tempfile::Builder::new().prefix("new-").tempfile_in(&self.folder)?;
        new.as_file().try_lock()?;
        let path = self.folder.join(ticket.file_name());
        let lock = new.persist(&path).map_err(|e| e.error)?;
        Ok(QueuedTicket { path, ticket, _lock: lock })
    }

    /// The tickets of those that live; the others' files are removed.
    fn waiting(&self) -> io::Result<Vec<Ticket>> {
        let mut living = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name();
            let Some(ticket) = name.to_str().and_then(Ticket::of_name) else { continue };
            match File::open(entry.path()).and_then(|file| file.try_lock_shared().map_err(io::Error::from)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => living.push(ticket),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
                Ok(()) => drop(fs::remove_file(entry.path())),
            }
        }
        Ok(living)
    }

    fn take(&self) -> io::Result<Option<GpuLease>> {
        for slot in 0..self.count {
            let path = self.folder.join(format!("slot-{slot}"));
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            match file.try_lock() {
                Ok(()) => return Ok(Some(GpuLease { slot, pinned: self.count > 1, _lock: file })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c2() -> Task {
        Task::C2 { c1: vec![], miner: 1, number: 1 }
    }
    fn winning() -> Task {
        Task::WinningPost { proof_type: 0, miner: 1, randomness: [0; 32], sectors: vec![] }
    }
    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn without_slots_and_for_tasks_that_use_no_gpu_nothing_is_leased() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Gpu::none().lease(&c2(), MINUTE).await.is_none());
        assert!(Gpu::slots(0, folder.path().into()).lease(&c2(), MINUTE).await.is_none());
        let task = Task::Finalize { cache_dir: "/x".into() };
        assert!(Gpu::slots(1, folder.path().into()).lease(&task, MINUTE).await.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        if !BUILT_IN {
            assert_eq!(detected(), 0);
        }
    }

    #[test]
    fn gpus_that_this_process_may_not_use_are_no_slots() {
        let two = |list| allowed(2, list);
        let found = [None, Some("0"), Some("1,0"), Some("0, 1,2"), Some(""), Some("-1"), Some("0,-1,1")].map(two);
        assert_eq!(found, [2, 1, 2, 2, 0, 0, 1]);
        assert_eq!(two(Some("GPU-8932f937,GPU-1")), 2);
    }

    #[test]
    fn a_default_folder_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let allow = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        for (mode, ours) in [(0o700, true), (0o755, true), (0o770, false), (0o777, false)] {
            allow(mode);
            assert_eq!(private(folder.path()).is_ok(), ours, "{mode:o}");
        }
        allow(0o700);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(private(&link).is_err(), "whoever made the link can move it");
    }

    #[tokio::test]
    async fn several_slots_pin_a_prover_to_its_gpu() {
        let folder = tempfile::tempdir().unwrap();
        let one = Gpu::slots(1, folder.path().join("one"));
        assert_eq!(one.lease(&c2(), MINUTE).await.unwrap().pinned_to(), None);
        let two = Gpu::slots(2, folder.path().join("two"));
        let (a, b) = (two.lease(&c2(), MINUTE).await.unwrap(), two.lease(&winning(), MINUTE).await.unwrap());
        assert_eq!((a.pinned_to(), b.pinned_to()), (Some(0), Some(1)));
        let [(cuda, one), _] = visible(1);
        assert_eq!((cuda, one), ("CUDA_VISIBLE_DEVICES".into(), "1".into()));
    }

    #[tokio::test]
    async fn a_folder_that_takes_no_locks_holds_no_proof_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Gpu::slots(1, file).lease(&c2(), MINUTE).await.is_none());
    }

    #[tokio::test]
    async fn a_winning_proof_that_gets_no_slot_goes_on_without() {
        let folder = tempfile::tempdir().unwrap();
        let gpu = Gpu::slots(1, folder.path().into());
        let held = gpu.lease(&c2(), MINUTE).await.unwrap();
        let short = Duration::from_millis(500);
        assert!(gpu.lease(&winning(), short).await.is_none());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["slot-0"], "its place in the queue is gone");
        assert!(timeout(short, gpu.lease(&c2(), short)).await.is_err(), "sealing waits");
        drop(held);
        assert!(gpu.lease(&winning(), MINUTE).await.is_some());
    }
}
