//! `bulkhead info`: how the running node does, on one screen; of an agent, what it has to do.

use super::client::NodeClient;
use super::output::print_error;
use super::render::{agent, facts::facts, info as render, time::unix_now};
use super::{CliError, Context};
use serde::Deserialize;
use serde_json::Value;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Everything that the node says of itself
    #[arg(long)]
    pub all: bool,
}

pub async fn run(args: Args, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    let info = match node.call("Bulkhead.Info", vec![]).await {
        Err(why) if node.has_admin() => published(&node, why).await?,
        answer => answer?,
    };
    cx.out.answer(&info, |info| text(info, args.all));
    Ok(())
}

/// While the API is held down (its port is taken, its secret damaged) the admin HTTP has what the node last said of itself.
async fn published(node: &NodeClient, why: CliError) -> Result<Value, CliError> {
    match node.admin_get::<Value>("/info").await {
        Ok(info) if !info.is_null() => {
            print_error(&format!("note: the API does not answer, this is from the admin HTTP ({why})"));
            Ok(info)
        }
        _ => Err(why),
    }
}

fn text(info: &Value, all: bool) -> String {
    if info.get("agent").is_some() {
        return agent::info(info);
    }
    // A node from before there was a screen, or one whose answer has another form.
    let Some(known) = info.get("provider").and_then(|_| render::Info::deserialize(info).ok()) else {
        return facts(info);
    };
    let screen = render::info(&known, unix_now(), all);
    if all { format!("{screen}\n{}", facts(info)) } else { screen }
}
