//! The directory's way to etcd: [`EtcdClient`] with the configuration's times, and the directory's errors.

use super::config::EtcdConfig;
use super::keys::Keys;
use crate::etcd::{CallError, EtcdClient};
use crate::rpc::directory::DirectoryError;
use etcd_client::{Client, Error};
use std::future::Future;
use std::time::Duration;

pub struct Connection {
    pub(super) config: EtcdConfig,
    pub(super) keys: Keys,
    client: EtcdClient,
}

impl From<CallError> for DirectoryError {
    fn from(error: CallError) -> DirectoryError {
        match error {
            CallError::Unreachable { why, .. } => DirectoryError::Unreachable { why },
            CallError::Endpoint { endpoint, why } => DirectoryError::Endpoint { endpoint, why },
            CallError::Credentials { endpoint, why } => DirectoryError::Credentials { endpoint, why },
            CallError::Refused { endpoint, why } | CallError::TooLarge { endpoint, why } => {
                DirectoryError::Refused { endpoint, why }
            }
        }
    }
}

impl Connection {
    /// Dials nothing yet.
    pub fn new(config: EtcdConfig) -> Result<Connection, DirectoryError> {
        let client = EtcdClient::new(config.checked()?, &config.cluster, config.options(), config.who());
        Ok(Connection { keys: Keys::new(&config.cluster), client, config })
    }

    /// Asks the endpoints in turn until one has an answer. `op` may reach etcd more than once: it must bear that.
    pub async fn call<T, F>(&self, op: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        Ok(self.client.call(self.config.attempt(), op).await?)
    }

    /// For what is large, or what everybody asks for at once after an outage: giving up early would only ask for it again.
    pub(super) async fn call_patiently<T, F>(&self, op: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        Ok(self.client.call(self.config.attempt() * 4, op).await?)
    }

    pub(super) fn unfit(&self) -> bool {
        self.client.unfit()
    }

    /// The longest that a call can take.
    pub fn patience(&self) -> Duration {
        self.config.attempt() * u32::try_from(self.client.members()).unwrap_or(u32::MAX)
    }

    /// The member to ask next, for a stream.
    pub(super) async fn pick(&self) -> Result<(usize, Client), DirectoryError> {
        Ok(self.client.pick(self.config.attempt()).await?)
    }

    /// A stream of this member ended: the next call goes to another one.
    pub(super) async fn failed(&self, at: usize) {
        self.client.failed(at);
    }

    /// The error that a failed stream of this member stands for.
    pub(super) async fn stream_failed(&self, at: usize, error: &Error) -> DirectoryError {
        self.client.stream_failed(at, error).into()
    }

    pub(super) async fn silent(&self, at: usize, limit: Duration) -> DirectoryError {
        self.client.silent(at, limit).into()
    }
}
