//! `bulkhead log ..`: what the running node logs.

use super::client::NodeClient;
use super::{CliError, Context};
use crate::util::log_levels::ALL;
use clap::Subcommand;
use serde_json::{Value, json};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The subsystems whose level can be set
    List,
    /// Set the level of subsystems of the running node, until it ends; node.log holds beyond that
    SetLevel {
        /// A subsystem, such as fullpool; more than once for several [default: all]
        #[arg(long, value_name = "NAME")]
        system: Vec<String>,
        /// trace, debug, info, warn, error or off
        #[arg(value_name = "LEVEL")]
        level: String,
    },
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    match command {
        Command::List => {
            let systems: Vec<String> = node.call("Filecoin.LogList", vec![]).await?;
            cx.out.answer(&systems, |systems| systems.iter().map(|name| format!("{name}\n")).collect());
        }
        Command::SetLevel { system, level } => {
            let systems = if system.is_empty() { vec![ALL.to_string()] } else { system };
            for system in &systems {
                node.call::<Value>("Filecoin.LogSetLevel", vec![json!(system), json!(level)]).await?;
            }
            let names = if systems == [ALL] { "all subsystems".to_string() } else { systems.join(", ") };
            cx.out.answer(&systems, |_| format!("{names}: {level}\n"));
        }
    }
    Ok(())
}
