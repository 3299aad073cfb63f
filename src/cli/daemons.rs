//! `bulkhead daemons ..` (alias `fpool`): the full nodes behind this provider, used as one.

use super::client::NodeClient;
use super::render::daemons as render;
use super::{CliError, Context};
use crate::rpc::api_info::ApiInfo;
use crate::rpc::auth::Perm;
use crate::rpc::full_node::pool::routes::CATEGORIES;
use crate::rpc::full_node::pool::view::{PoolChange, PoolView};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// The nodes: which is asked first, heights, peers, and why one is not used
    Nodes,
    /// The nodes, and changes of them
    #[command(subcommand)]
    Node(NodeCommand),
    /// How each method is sent to the nodes
    #[command(subcommand)]
    Api(ApiCommand),
    /// Which node a miner or a wallet asks first
    #[command(subcommand)]
    Primary(PrimaryCommand),
    /// The bounds beyond which a node is not used, and the default policy
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The nodes' addresses and tokens, for another provider
    #[command(subcommand)]
    Auth(AuthCommand),
}

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// As `daemons nodes`
    List,
    /// Take a node into the pool, until the process ends
    Add {
        /// Its address: /ip4/192.168.1.6/tcp/1234/http or a URL
        #[arg(long, value_name = "ADDRESS")]
        api: String,
        /// Its token of admin permission; `-` reads it from standard input
        #[arg(long, value_name = "TOKEN", env = "FULLNODE_API_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// How it is called in lists [default: host:port]
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
    /// Set a node's status or its part in sealing
    Set {
        /// The node's ID, or its name
        #[arg(long, value_name = "NODE")]
        nid: String,
        /// status or sealing
        #[arg(long, value_name = "KEY")]
        key: String,
        /// status: running, pause, exit; sealing: true, false
        #[arg(long, value_name = "VALUE")]
        val: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum ApiCommand {
    /// The categories of methods
    Types,
    /// The methods that were called or set: calls, filter, policy, nohang, timeout
    List,
    /// Set how a method is sent
    Set {
        /// The method, such as ChainHead
        #[arg(long, value_name = "METHOD")]
        api: String,
        /// policy, filter, nohang or timeout
        #[arg(long, value_name = "KEY")]
        key: String,
        /// Such as OneByIndexAsc, sealing, true, 30s
        #[arg(long, value_name = "VALUE")]
        val: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum PrimaryCommand {
    /// The miners and wallets, each with the node that it asks first
    List,
    /// Bind a miner or a wallet to a node
    Set {
        /// The address of the miner or the wallet
        #[arg(long, value_name = "ADDRESS")]
        seed: String,
        /// The node's ID, as `daemons nodes` shows it
        #[arg(long, value_name = "NODE")]
        nid: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// The values in force
    Show,
    /// Set DefaultPolicy, PrimarySeed, MaxSyncBehind, MaxBehindDiff, MinMessagePeers, MinBlockPeers or Agreement
    Set {
        #[arg(long, value_name = "KEY", help = "The key's name")]
        key: String,
        #[arg(long, value_name = "VALUE", help = "Its value")]
        val: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum AuthCommand {
    /// Two lines for another provider's environment, with the nodes' tokens
    ApiPoolInfo,
    /// A line for the environment of workers, other providers and the lotus command line: the pool as one full node
    ApiInfo {
        /// Permission of its token: read, write, sign or admin
        #[arg(long, value_name = "PERM", default_value = "admin", value_parser = perm)]
        perm: Perm,
    },
}

fn perm(text: &str) -> Result<Perm, String> {
    let found = Perm::ALL.into_iter().find(|perm| perm.name() == text);
    found.ok_or_else(|| "it is read, write, sign or admin".to_string())
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    let view = async || node.call::<PoolView>("Bulkhead.Daemons", vec![]).await;
    let change = async |change: PoolChange| {
        let told: String = node.call("Bulkhead.DaemonsSet", vec![json!(change)]).await?;
        cx.out.answer(&told, |told| format!("{told}\n"));
        Ok::<(), CliError>(())
    };
    match command {
        Command::Nodes | Command::Node(NodeCommand::List) => {
            let view = view().await?;
            cx.out.answer(&view.nodes, |nodes| render::nodes(nodes));
        }
        Command::Node(NodeCommand::Add { api, token, host }) => {
            let token = match token.as_deref() {
                Some("-") => {
                    Some(std::io::read_to_string(std::io::stdin()).map_err(|e| CliError::Failed(e.to_string()))?)
                }
                _ => token,
            };
            let token = token.map(|token| format!("{}:", token.trim())).unwrap_or_default();
            ApiInfo::parse("--api", &format!("{token}{api}")).map_err(|e| CliError::Failed(e.to_string()))?;
            let host = host.map(|host| format!(":{host}")).unwrap_or_default();
            change(PoolChange::AddNode { node: format!("{token}{api}{host}") }).await?;
        }
        Command::Node(NodeCommand::Set { nid, key, val }) => {
            change(PoolChange::SetNode { id: nid, key, value: val }).await?;
        }
        Command::Api(ApiCommand::Types) => {
            let names: Vec<&str> = CATEGORIES.iter().map(|(name, _)| *name).collect();
            cx.out.answer(&names, |names| names.iter().map(|name| format!("{name}\n")).collect());
        }
        Command::Api(ApiCommand::List) => {
            let view = view().await?;
            cx.out.answer(&view.apis, |apis| render::apis(apis));
        }
        Command::Api(ApiCommand::Set { api, key, val }) => {
            change(PoolChange::SetApi { api, key, value: val }).await?;
        }
        Command::Primary(PrimaryCommand::List) => {
            let view = view().await?;
            cx.out.answer(&view.primaries, |primaries| render::primaries(primaries));
        }
        Command::Primary(PrimaryCommand::Set { seed, nid }) => change(PoolChange::SetPrimary { seed, id: nid }).await?,
        Command::Config(ConfigCommand::Show) => {
            let view = view().await?;
            cx.out.answer(&view.config, render::config);
        }
        Command::Config(ConfigCommand::Set { key, val }) => change(PoolChange::SetConfig { key, value: val }).await?,
        Command::Auth(AuthCommand::ApiInfo { perm }) => {
            let info: String = node.call("Bulkhead.DaemonsApiInfo", vec![json!(perm)]).await?;
            let line = format!("FULLNODE_API_INFO={info}\n");
            cx.out.answer(&info, |_| line.clone());
        }
        Command::Auth(AuthCommand::ApiPoolInfo) => {
            let info: String = node.call("Bulkhead.DaemonsAuth", vec![]).await?;
            let lines = format!("FULLNODE_API_USE_POOL=true\nFULLNODE_API_POOL_INFO={info}\n");
            cx.out.answer(&info, |_| lines.clone());
        }
    }
    Ok(())
}
