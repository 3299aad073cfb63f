//! The right to be the one holder of a concern: its epoch, until when it is proven, and its end.

use super::DirectoryError;
use crate::supervisor::{Fence, Fenced};
use crate::util::lock;
use futures::future::BoxFuture;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nobody else can be the holder now.
    Proven,
    /// The cluster is out of reach: perhaps somebody else is the holder already, perhaps we still are.
    Unproven,
    /// Somebody else is the holder, or may become it at any moment.
    Lost,
}

/// The time until which the cluster guarantees that nobody else holds this lease. Uses the monotonic clock, which stops
/// while the machine sleeps; the store's fencing covers that.
#[derive(Clone, Debug)]
pub struct ProvenUntil(Arc<Mutex<Option<Instant>>>);

impl ProvenUntil {
    /// Valid as long as the process lives: there is nobody else.
    pub fn always() -> ProvenUntil {
        ProvenUntil(Arc::new(Mutex::new(None)))
    }
    pub fn until(at: Instant) -> ProvenUntil {
        ProvenUntil(Arc::new(Mutex::new(Some(at))))
    }
    /// Moves the end; a proof that was overtaken by a later one changes nothing.
    pub fn extend(&self, to: Instant) {
        if let Some(at) = lock(&self.0).as_mut() {
            *at = to.max(*at);
        }
    }
    /// As if the time had passed.
    #[cfg(test)]
    pub(crate) fn run_out(&self) {
        *lock(&self.0) = Some(Instant::now());
    }
    pub fn get(&self) -> Instant {
        let at = *lock(&self.0);
        at.unwrap_or_else(|| Instant::now() + Duration::from_secs(365 * 24 * 3600))
    }
}

/// Can be asked right before an effect whether we are still the holder. Cheap to clone; outlives its lease.
#[derive(Clone)]
pub struct LeaseProof {
    concern: Arc<str>,
    epoch: u64,
    until: ProvenUntil,
    lost: watch::Receiver<bool>,
}

impl LeaseProof {
    pub fn concern(&self) -> &str {
        &self.concern
    }
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    pub fn proven_until(&self) -> Instant {
        self.until.get()
    }

    pub fn state(&self) -> LeaseState {
        // A sender that is gone belongs to a directory that is gone: nobody keeps the lease alive any more.
        if *self.lost.borrow() || self.lost.has_changed().is_err() {
            return LeaseState::Lost;
        }
        if Instant::now() < self.until.get() { LeaseState::Proven } else { LeaseState::Unproven }
    }

    /// Completes when the lease is known to be lost; being unproven does not complete it.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _ = lost.wait_for(|lost| *lost).await; // an error: the directory is gone, and the lease with it
    }
}

/// For what must never be done twice: only a proven lease passes.
impl Fence for LeaseProof {
    fn check(&self) -> Result<(), Fenced> {
        match self.state() {
            LeaseState::Proven => Ok(()),
            LeaseState::Unproven | LeaseState::Lost => {
                Err(Fenced { path: self.concern.to_string(), epoch: self.epoch, newer: self.epoch })
            }
        }
    }
}

impl fmt::Debug for LeaseProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} epoch {} {:?}", self.concern, self.epoch, self.state())
    }
}

/// How a directory takes a lease back.
pub(super) trait LeaseRelease: Send + Sync {
    /// Ends the belief at once and tells the cluster in the background; completes when the cluster knows.
    fn give_back(self: Arc<Self>, concern: &str, epoch: u64) -> BoxFuture<'static, Result<(), DirectoryError>>;
}

/// Held until it is released, dropped or lost.
pub struct Lease {
    proof: LeaseProof,
    releaser: Option<Arc<dyn LeaseRelease>>,
}

impl Lease {
    pub(super) fn new(
        concern: &str,
        epoch: u64,
        until: ProvenUntil,
        lost: watch::Receiver<bool>,
        releaser: Arc<dyn LeaseRelease>,
    ) -> Lease {
        Lease { proof: LeaseProof { concern: concern.into(), epoch, until, lost }, releaser: Some(releaser) }
    }

    /// That nobody takes back: a test says itself when it is lost.
    #[cfg(test)]
    pub(crate) fn scripted(concern: &str, epoch: u64, until: ProvenUntil, lost: watch::Receiver<bool>) -> Lease {
        Lease { proof: LeaseProof { concern: concern.into(), epoch, until, lost }, releaser: None }
    }

    pub fn proof(&self) -> LeaseProof {
        self.proof.clone()
    }
    pub fn concern(&self) -> &str {
        self.proof.concern()
    }
    /// The fencing epoch: greater than that of every earlier holder.
    pub fn epoch(&self) -> u64 {
        self.proof.epoch
    }
    pub fn proven_until(&self) -> Instant {
        self.proof.proven_until()
    }
    pub fn state(&self) -> LeaseState {
        self.proof.state()
    }
    pub async fn lost(&self) {
        self.proof.lost().await
    }

    /// Stops being the holder. An error says only that the others may have to wait until the lease expires.
    pub async fn release(mut self) -> Result<(), DirectoryError> {
        match self.giving_back() {
            Some(given) => given.await,
            None => Ok(()),
        }
    }

    /// A lost lease is not ours to give back: its concern may have been acquired anew, by us even.
    fn giving_back(&mut self) -> Option<BoxFuture<'static, Result<(), DirectoryError>>> {
        let releaser = self.releaser.take().filter(|_| self.state() != LeaseState::Lost)?;
        Some(releaser.give_back(self.proof.concern(), self.proof.epoch))
    }
}

impl Drop for Lease {
    /// As [`Lease::release`], without waiting for it.
    fn drop(&mut self) {
        drop(self.giving_back());
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.proof.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_proven_lease_passes_the_fence() {
        let (sender, lost) = watch::channel(false);
        let until = ProvenUntil::until(Instant::now() + Duration::from_secs(3600));
        let proof = LeaseProof { concern: "/t01000/winning-post".into(), epoch: 5, until, lost };
        assert_eq!((proof.state(), proof.check()), (LeaseState::Proven, Ok(())));
        let past = LeaseProof { until: ProvenUntil::until(Instant::now()), ..proof.clone() };
        assert_eq!(past.state(), LeaseState::Unproven, "at the very end it is over");
        assert_eq!(past.check().unwrap_err().epoch, 5);
        sender.send_replace(true);
        assert_eq!(proof.state(), LeaseState::Lost);
    }

    #[test]
    fn a_directory_that_is_gone_takes_its_leases_with_it() {
        let (sender, lost) = watch::channel(false);
        let proof = LeaseProof { concern: "/t01000/x".into(), epoch: 1, until: ProvenUntil::always(), lost };
        drop(sender);
        assert_eq!(proof.state(), LeaseState::Lost);
    }

    #[test]
    fn a_proof_that_arrives_late_shortens_nothing() {
        let now = Instant::now();
        let until = ProvenUntil::until(now);
        until.extend(now + Duration::from_secs(2));
        until.extend(now + Duration::from_secs(1));
        assert_eq!(until.get(), now + Duration::from_secs(2));
    }
}
