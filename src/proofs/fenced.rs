//! A prover for one incarnation: it gives no slot to one that has a successor.

use super::{Job, Output, Prover, ProverError};
use crate::supervisor::Fence;
use async_trait::async_trait;
use std::sync::Arc;

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
        let check = || {
            let task = job.task.name().to_string();
            self.fence.check().map_err(|fenced| ProverError::NotStarted { task, why: fenced.to_string() })
        };
        check()?;
        self.inner.run(job).await
    }
}
