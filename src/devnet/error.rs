//! The chain's errors, and their form for a JSON-RPC caller.

use fil_actors_shared::v19::{ActorDowncast, ActorError};
use fvm_shared::error::ExitCode;

/// Why the devnet could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    #[error("devnet settings: {0}")]
    Settings(String),
    #[error("{path}: {why}; stop what holds it, or move the folder away to start a new chain")]
    Open { path: std::path::PathBuf, why: String },
    #[error("{path}: the chain in it is damaged: {why}; move the folder away to start a new chain")]
    Corrupt { path: std::path::PathBuf, why: String },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("devnet genesis: {0}")]
    Genesis(String),
    #[error("devnet: {0}")]
    Chain(#[from] ChainError),
}

/// Why a call on the chain gave no result.
#[derive(Debug, thiserror::Error, Clone)]
pub enum ChainError {
    /// The caller asked for something that the chain does not have or does not accept.
    #[error("{0}")]
    Refused(String),
    /// Refused with a JSON-RPC code of its own.
    #[error("{message}")]
    Coded { code: i64, message: String },
    /// The database or the state in it cannot be read or written.
    #[error("chain store: {0}")]
    Store(String),
}

pub type ChainResult<T> = Result<T, ChainError>;

/// The result of actor code: a value, or an exit code with a text.
pub type ActorResult<T> = Result<T, ActorError>;

impl ChainError {
    /// The JSON-RPC code of the refusal; 1 is a method's own verdict.
    pub fn code(&self) -> i64 {
        match self {
            ChainError::Coded { code, .. } => *code,
            ChainError::Refused(_) | ChainError::Store(_) => 1,
        }
    }
    pub fn refused(why: impl Into<String>) -> Self {
        ChainError::Refused(why.into())
    }
    pub fn store(why: impl std::fmt::Display) -> Self {
        ChainError::Store(why.to_string())
    }
}

impl From<ActorError> for ChainError {
    fn from(e: ActorError) -> Self {
        ChainError::Refused(e.msg().to_string())
    }
}

impl From<anyhow::Error> for ChainError {
    fn from(e: anyhow::Error) -> Self {
        ChainError::Store(format!("{e:#}"))
    }
}

impl From<fvm_ipld_encoding::Error> for ChainError {
    fn from(e: fvm_ipld_encoding::Error) -> Self {
        ChainError::Store(e.to_string())
    }
}

/// `illegal state` unless the error already carries an exit code.
pub fn state_error(what: &'static str) -> impl FnOnce(anyhow::Error) -> ActorError {
    move |e| e.downcast_default(ExitCode::USR_ILLEGAL_STATE, what)
}
