//! `bulkhead sealing workers|jobs`: who seals, and what is being computed; of a node for the whole provider, of an agent
//! for itself.

use super::client::NodeClient;
use super::render::sealing as render;
use super::render::time::unix_now;
use super::{CliError, Context};
use crate::node::provider_report::Worker;
use crate::node::sealing_report::Jobs;
use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The nodes, agents and worker processes that seal: what each runs and may run
    Workers,
    /// The tasks that run or wait: for which sector, where, for how long
    Jobs,
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::Workers => {
            let workers: Vec<Worker> = node.call("Bulkhead.SealingWorkers", vec![]).await?;
            cx.out.answer(&workers, |workers| render::workers(workers));
        }
        Command::Jobs => {
            let jobs: Jobs = node.call("Bulkhead.SealingJobs", vec![]).await?;
            cx.out.answer(&jobs, |jobs| render::jobs(&jobs.jobs, unix_now()));
            // As a failure: a script must not take a part of the list for all of it.
            if !jobs.missing.is_empty() {
                let each: Vec<_> = jobs.missing.iter().map(|(at, why)| format!("{at} ({why})")).collect();
                return Err(CliError::Failed(format!("the tasks of these are missing: {}", each.join(", "))));
            }
        }
    }
    Ok(())
}
