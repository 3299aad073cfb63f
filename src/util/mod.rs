//! Small helpers for every room. They know nothing of actors, the network or Filecoin.
//!
//! * [`write_durably`] — the one way to write a small file.
//! * [`lock`] — a mutex that ignores poisoning.
//! * [`time`] — the clocks.
//! * [`Backoff`] — waits between tries that fail.
//! * [`host`] — free disk, and what the host lacks.
//! * [`Repeats`] — errors that repeat: pauses, warnings, what is shown.
//! * [`log_levels`] — levels of the log by subsystem, changed while the process runs.
//! * [`listen_error`] — why a libp2p host cannot listen.

mod backoff;
mod durable;
pub mod host;
mod listen;
pub mod log_levels;
mod repeats;
pub mod time;

pub use backoff::Backoff;
pub use durable::{Mode, sync_folder, write_durably, write_where_it_differs};
pub use listen::listen_error;
pub use repeats::{Repeat, Repeats};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` even after a holder panicked. For values that every holder leaves whole at each step.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
