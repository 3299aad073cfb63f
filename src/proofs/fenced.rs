//! A prover for one incarnation: it gives no slot to one that has a successor.

use super::{Job, Output, Prover, ProverError};
use crate::supervisor::Fence;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

pub struct FencedProver {
    inner: Arc<dyn Prover>,
    fence: Arc<dyn Fence>,
}

impl FencedProver {
    pub fn shared(inner: &Arc<dyn Prover>, fence: impl Fence) -> Arc<dyn Prover> {
        Arc::new(FencedProver { inner: inner.clone(), fence: Arc::new(fence) })
    }
}

#[async_trait]
impl Prover for FencedProver {
    async fn run(&self, job: Job) -> Result<Output, ProverError> {
        self.run_timed(job).await.0
    }

    async fn run_timed(&self, job: Job) -> (Result<Output, ProverError>, Option<Duration>) {
        if let Err(fenced) = self.fence.check() {
            let task = job.task.name().to_string();
            return (Err(ProverError::NotStarted { task, why: fenced.to_string() }), None);
        }
        self.inner.run_timed(job).await
    }
}
