//! A command's failure: one sentence and an exit code.

use crate::config::load::distance;
use crate::config::{ConfigError, Source};
use crate::rpc::full_node::FullNodeError;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no node is running in {repo} (start it with `bulkhead run`{hint})")]
    NoNode { repo: PathBuf, hint: String },
    #[error(
        "{repo} has no miner yet: create one with `bulkhead init --owner <address> --sector-size 2KiB`, or adopt one with `bulkhead init --actor t01000`"
    )]
    NotInitialised { repo: PathBuf },
    #[error("no full node is named: set FULLNODE_API_INFO, or full_node.api_info in {file}")]
    NoFullNode { file: PathBuf },
    #[error(
        "cluster.etcd is set, but this build has no etcd client: build it with the feature `cluster` (it needs protoc): cargo run --release --features cluster"
    )]
    NoClusterFeature,
    #[error(transparent)]
    FullNode(#[from] FullNodeError),
    /// A running node, or what answers in its place.
    #[error("{node}: {method}: {why}")]
    Node { node: String, method: String, why: String },
    #[error("{0}")]
    Failed(String),
    /// The root supervisor's restart budget is spent.
    #[error("the supervision tree gave up: {0}")]
    Escalated(String),
    /// Something that every program needs, which the host does not give.
    #[error("{limit}: raise {raise} ({why})")]
    HostLimit { limit: &'static str, raise: &'static str, why: String },
    #[error("this is a bug in bulkhead: {0}")]
    Bug(String),
}

impl CliError {
    /// A panic that nothing caught. Where a library panics because the host refused a thread or a descriptor, that is no bug.
    pub fn of_panic(text: String) -> CliError {
        match host_limit(&text) {
            Some((limit, raise)) => CliError::HostLimit { limit, raise, why: text },
            None => CliError::Bug(text),
        }
    }

    /// The host's limit by name, where an error that says no more than the kernel's words comes from one.
    pub fn or_host_limit(self) -> CliError {
        match self {
            CliError::Failed(text) => match host_limit(&text) {
                Some((limit, raise)) => CliError::HostLimit { limit, raise, why: text },
                None => CliError::Failed(text),
            },
            error => error,
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Config(
                ConfigError::BadValue { origin: Source::Flag(_), .. }
                | ConfigError::Inconsistent { origin: Source::Flag(_), .. },
            ) => 2,
            CliError::Escalated(_) | CliError::Bug(_) => 70,
            CliError::HostLimit { .. }
            | CliError::Config(_)
            | CliError::NoNode { .. }
            | CliError::NotInitialised { .. }
            | CliError::NoFullNode { .. }
            | CliError::NoClusterFeature
            | CliError::FullNode(_)
            | CliError::Node { .. }
            | CliError::Failed(_) => 1,
        }
    }
}

/// Which limit of the host an error of the operating system speaks of, and how it is raised.
fn host_limit(text: &str) -> Option<(&'static str, &'static str)> {
    let says = |code: &str, words: &str| {
        text.contains(&format!("os error {code})")) || text.contains(&format!("code: {code},")) || text.contains(words)
    };
    // A socket that has nothing yet says the same: only what was to be started counts.
    let starts = ["thread", "spawn", "start", "fork"].iter().any(|word| text.contains(word));
    if starts && says("11", "Resource temporarily unavailable") {
        Some((
            "the host refuses this user another thread or process",
            "`ulimit -u`, TasksMax= of the service, or pids.max of its cgroup; a node needs about 100",
        ))
    } else if says("24", "Too many open files") {
        Some(("the host refuses this process another open file", "`ulimit -n`, or LimitNOFILE= of the service"))
    } else if says("12", "Cannot allocate memory") {
        Some(("the host has no memory left for this process", "MemoryMax= of the service, or free some"))
    } else {
        None
    }
}

/// The parser's message without its usage block: what is wrong, a tip if it has one, where to read on.
pub fn one_sentence(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        return "a command is missing; see `bulkhead --help`".to_string();
    }
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) {
        return unknown_command(name, error.get(ContextKind::SuggestedSubcommand));
    }
    let text = error.to_string();
    let wanted = |line: &&str| !line.is_empty() && !line.starts_with("Usage:") && !line.starts_with("For more");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(wanted).collect();
    let joined = lines.join("; ").replace(":; ", ": ");
    let joined = joined.strip_prefix("error: ").unwrap_or(&joined);
    // clap proposes `-- --flag` for an unknown flag; no command of ours takes one
    let joined = joined.split("; tip: to pass").next().unwrap_or(joined);
    format!("{joined}; see `bulkhead --help`")
}

/// Commands of lotus and lotus-miner that are somewhere else here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("wallet", "keys are in the full node's wallet (`lotus wallet`)"),
    ("chain", "ask the full node (`lotus chain`)"),
    ("state", "ask the full node (`lotus state`)"),
    ("sync", "ask the full node (`lotus sync`)"),
    ("mpool", "ask the full node (`lotus mpool`)"),
    ("daemon", "run a full node (`lotus daemon`), or `bulkhead devnet` to try"),
    ("auth", "the token is in <repo>/token, the address in <repo>/api"),
    ("log", "set node.log, then `bulkhead config reload`"),
];

/// The parser's own suggestions go by common letters, which sends `wallet` to `agent`: only names that a slip of the
/// finger leads to are passed on.
fn unknown_command(name: &str, suggested: Option<&clap::error::ContextValue>) -> String {
    use clap::error::ContextValue;
    let suggested: &[String] = match suggested {
        Some(ContextValue::Strings(names)) => names,
        Some(ContextValue::String(name)) => std::slice::from_ref(name),
        _ => &[],
    };
    let close = suggested.iter().filter(|other| distance(name, other) <= (name.len() / 3).max(1));
    let near = close.min_by_key(|other| distance(name, other));
    let tip = match (ELSEWHERE.iter().find(|(other, _)| *other == name), near) {
        (Some((_, place)), _) => format!("; {place}"),
        (None, Some(near)) => format!("; did you mean '{near}'?"),
        (None, None) => String::new(),
    };
    format!("unrecognized subcommand '{name}'{tip}; see `bulkhead --help`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use clap::Parser;

    #[test]
    fn an_unknown_command_leads_only_to_a_near_one() {
        let said = |line: &[&str]| {
            let line = std::iter::once("bulkhead").chain(line.iter().copied());
            one_sentence(&Cli::try_parse_from(line).unwrap_err())
        };
        for (line, part) in [
            (&["inof"][..], "did you mean 'info'?"),
            (&["sector"], "did you mean 'sectors'?"),
            (&["sectors", "lst"], "did you mean 'list'?"),
            (&["wallet"], "the full node's wallet"),
            (&["auth"], "<repo>/token"),
        ] {
            let said = said(line);
            assert!(said.contains(part) && said.contains("unrecognized subcommand"), "{said}");
        }
        for line in [&["wallet"][..], &["frobnicate"], &["gent-ly"], &["market"]] {
            assert!(!said(line).contains("did you mean") && !said(line).contains("agent"), "{}", said(line));
        }
    }

    #[test]
    fn a_limit_of_the_host_is_named_and_is_no_bug() {
        // (what was panicked with or failed, what is to be raised)
        let table = [
            ("OS can't spawn worker thread: Resource temporarily unavailable (os error 11)", Some("ulimit -u")),
            (
                "failed to spawn thread: Os { code: 11, kind: WouldBlock, message: \"Resource temporarily unavailable\" }",
                Some("ulimit -u"),
            ),
            ("json_rpc did not start: Resource temporarily unavailable (os error 11)", Some("ulimit -u")),
            ("no threads for the tree: Resource temporarily unavailable (os error 11)", Some("ulimit -u")),
            ("Too many open files (os error 24)", Some("ulimit -n")),
            ("cannot fork: Cannot allocate memory (os error 12)", Some("MemoryMax=")),
            ("read: Resource temporarily unavailable (os error 11)", None),
            ("index out of bounds: the len is 11", None),
        ];
        for (text, raise) in table {
            let panicked = CliError::of_panic(text.to_string());
            let failed = CliError::Failed(text.to_string()).or_host_limit();
            match raise {
                Some(raise) => {
                    for error in [panicked, failed] {
                        let said = error.to_string();
                        assert!(said.contains(raise) && said.contains(text) && !said.contains("bug"), "{said}");
                        assert_eq!(error.exit_code(), 1);
                    }
                }
                None => {
                    assert_eq!(panicked.to_string(), format!("this is a bug in bulkhead: {text}"));
                    assert_eq!(failed.to_string(), text);
                }
            }
        }
    }
}
