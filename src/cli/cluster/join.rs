//! `cluster id`, `cluster join-token`, `cluster join`: how a host becomes a node.

use crate::cli::{CliError, Context};
use crate::config::example::{read_or_empty, with_entries};
use crate::config::{Config, RepoLock};
use crate::rpc::bridge::identity;
use crate::rpc::directory::join::JoinToken;
use crate::util::{Mode, write_durably};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// What `bulkhead cluster join-token` printed on a node of the cluster; `-` reads it from stdin
    pub token: String,
    /// This node's name [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// What it may run, separated by commas [default: all]
    #[arg(long, value_name = "ROLES")]
    pub roles: Option<String>,
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> CliError {
    move |e| CliError::Failed(format!("{}: {e}", path.display()))
}

pub fn id(cx: &Context) -> Result<(), CliError> {
    let repo = &cx.config.repo;
    std::fs::create_dir_all(repo).map_err(at(repo))?;
    let key = identity::load_or_make(repo).map_err(|e| CliError::Failed(e.to_string()))?;
    let peer_id = key.public().to_peer_id().to_string();
    let node = cx.config.cluster.node_name();
    cx.out.answer(&json!({ "node": node, "peer_id": peer_id }), |_| peer_id.clone());
    Ok(())
}

pub fn token(cx: &Context) -> Result<(), CliError> {
    let cluster = &cx.config.cluster;
    if cluster.etcd.is_empty() {
        return Err(CliError::Failed(
            "cluster.etcd names no endpoint, so there is nothing to join: set it, or list the nodes of a cluster without \
             etcd as [[cluster.peer]]"
                .to_string(),
        ));
    }
    let pem = |path: &Option<PathBuf>| -> Result<Option<String>, CliError> {
        path.as_ref().map(|path| std::fs::read_to_string(path).map_err(at(path))).transpose()
    };
    let (ca, cert, key) = cluster.etcd_tls();
    let token = JoinToken {
        cluster: cluster.name.clone(),
        endpoints: cluster.etcd.clone(),
        user: cluster.etcd_user.clone().zip(cluster.etcd_password.clone()),
        ca: pem(&ca)?,
        identity: pem(&cert)?.zip(pem(&key)?),
    };
    let (text, secret) = (token.encode(), token.is_secret());
    cx.out.answer(&json!({ "token": text, "secret": secret }), |_| text.clone());
    if secret && !cx.out.json {
        crate::cli::output::print_error("keep it as a password: it opens the cluster's etcd");
    }
    Ok(())
}

pub fn join(args: Args, cx: &Context) -> Result<(), CliError> {
    let text = match args.token.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|e| CliError::Failed(format!("stdin: {e}")))?,
        text => text.to_string(),
    };
    let token = JoinToken::decode(&text).map_err(|e| CliError::Failed(e.to_string()))?;
    let repo = &cx.config.repo;
    std::fs::create_dir_all(repo).map_err(at(repo))?;
    // a node that runs has read its configuration already
    let _lock = RepoLock::take(repo)?;
    if !cx.config.cluster.etcd.is_empty() && cx.config.cluster.name != token.cluster {
        let (path, ours) = (cx.config.config_file(), &cx.config.cluster.name);
        return Err(CliError::Failed(format!(
            "{}: this node belongs to cluster {ours} already; take cluster.etcd out of it first",
            path.display()
        )));
    }
    let mut entries =
        vec![("name", token.cluster.clone().into()), ("etcd", toml::Value::from(token.endpoints.clone()))];
    if let Some(node) = &args.node {
        if !crate::config::cluster::is_node_name(node) {
            return Err(CliError::Usage(format!("flag --node: {node:?} takes letters, digits, `-`, `_`, `.`")));
        }
        entries.push(("node", node.clone().into()));
    }
    if let Some(roles) = &args.roles {
        let roles: Vec<&str> = roles.split(',').map(str::trim).filter(|role| !role.is_empty()).collect();
        if let Some(bad) = roles.iter().find(|role| !crate::config::cluster::is_role(role)) {
            let known = crate::config::cluster::ROLES.join(", ");
            return Err(CliError::Usage(format!("flag --roles: {bad:?} is none of {known}")));
        }
        entries.push(("roles", toml::Value::from(roles)));
    }
    if let Some((user, password)) = &token.user {
        entries.push(("etcd_user", user.clone().into()));
        entries.push(("etcd_password", password.clone().into()));
    }
    let mut file = |key: &'static str, name: &str, pem: &str| -> Result<(), CliError> {
        let path = repo.join(name);
        secret_file(&path, pem.as_bytes())?;
        entries.push((key, path.display().to_string().into()));
        Ok(())
    };
    if let Some(ca) = &token.ca {
        file("etcd_ca", "etcd-ca.pem", ca)?;
    }
    if let Some((cert, key)) = &token.identity {
        file("etcd_cert", "etcd-cert.pem", cert)?;
        file("etcd_key", "etcd-key.pem", key)?;
    }
    let path = cx.config.config_file();
    let before = read_or_empty(&path).map_err(at(&path))?;
    secret_file(&path, with_entries(&before, "cluster", &entries).as_bytes())?;
    let peer_id = identity::load_or_make(repo).map_err(|e| CliError::Failed(e.to_string()))?.public().to_peer_id();
    let joined = Config {
        cluster: crate::config::Cluster { node: args.node, ..cx.config.cluster.clone() },
        ..cx.config.clone()
    };
    let node = joined.cluster.node_name();
    let answer = json!({ "cluster": token.cluster, "node": node, "peer_id": peer_id.to_string(), "config": path });
    cx.out.answer(&answer, |_| {
        let miner = match cx.config.node.miner {
            Some(_) => "",
            None => "its miner is not set yet: bulkhead init --actor t01000\n",
        };
        format!(
            "{node} is a node of cluster {} now ({})\n{miner}start it with: bulkhead run",
            token.cluster,
            path.display()
        )
    });
    Ok(())
}

/// Others on this host must not read it: it may hold a password.
fn secret_file(path: &Path, content: &[u8]) -> Result<(), CliError> {
    write_durably(path, content, Mode::Private).map_err(at(path))
}
