//! Why a configuration was not taken: each is one sentence that names the place, the key and what is allowed.

use std::fmt;
use std::path::PathBuf;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File(PathBuf),
    Env(String),
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Env(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("{path}: cannot read the configuration: {why}")]
    Read { path: PathBuf, why: String },
    #[error("{path}: cannot write the configuration: {why}")]
    Write { path: PathBuf, why: String },
    #[error("{path}: line {line}: not valid TOML: {why}")]
    Syntax { path: PathBuf, line: usize, why: String },
    #[error("{origin}: unknown key {key}; {hint}")]
    UnknownKey { origin: Source, key: String, hint: String },
    #[error("{origin}: {key} = {value} is not allowed: {allowed}")]
    BadValue { origin: Source, key: String, value: String, allowed: String },
    #[error("{origin}: {key} = {value} does not fit: {why}")]
    Inconsistent { origin: Source, key: String, value: String, why: String },
    #[error("{path}: belongs to miner {found} already, not to {wanted}; use another --repo")]
    OtherMiner { path: PathBuf, found: String, wanted: String },
    #[error("{repo} is in use by {who}: stop that one (`bulkhead stop`), or use another --repo")]
    Locked { repo: PathBuf, who: String },
    #[error("{path}: cannot lock it: {why}")]
    Lock { path: PathBuf, why: String },
    #[error("no home directory is known: give the node's folder with --repo or BULKHEAD_PATH")]
    NoHome,
}
