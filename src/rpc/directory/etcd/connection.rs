//! Calls to etcd: one endpoint at a time, the next one when it does not answer, an error that says which did what.
//!
//! Not the client's own balancing: that keeps sending a share of the calls to a member that is frozen.

use super::config::EtcdConfig;
use super::keys::Keys;
use crate::rpc::directory::DirectoryError;
use etcd_client::{Client, Error};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

pub struct Connection {
    pub(super) config: EtcdConfig,
    pub(super) keys: Keys,
    members: Vec<Member>,
    /// The member that answered last.
    current: AtomicUsize,
}

struct Member {
    url: String,
    client: Mutex<Option<Client>>,
    answered: AtomicBool,
    /// Its last failure was one that waiting does not mend.
    unfit: AtomicBool,
}

/// What an error of one endpoint means for the call.
enum Verdict {
    /// Another endpoint may do better.
    Next(String),
    /// Every endpoint would say the same.
    Final(DirectoryError),
}

impl Connection {
    /// Dials nothing yet.
    pub fn new(config: EtcdConfig) -> Result<Connection, DirectoryError> {
        let members = config
            .checked()?
            .into_iter()
            .map(|url| Member {
                url,
                client: Mutex::default(),
                answered: AtomicBool::default(),
                unfit: AtomicBool::default(),
            })
            .collect();
        Ok(Connection { keys: Keys::new(&config.cluster), members, current: AtomicUsize::new(0), config })
    }

    /// Asks the endpoints in turn until one has an answer. `op` may reach etcd more than once: it must bear that.
    pub async fn call<T, F>(&self, op: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_within(self.config.attempt(), op).await
    }

    /// For what is large, or what everybody asks for at once after an outage: giving up early would only ask for it again.
    pub(super) async fn call_patiently<T, F>(&self, op: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call_within(self.config.attempt() * 4, op).await
    }

    async fn call_within<T, F>(&self, limit: Duration, op: impl Fn(Client) -> F) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut whys = Vec::new();
        for _ in 0..self.members.len() {
            let at = self.at();
            match self.attempt(at, limit, &op).await {
                Ok(answer) => {
                    self.members[at].answered.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(Verdict::Final(error)) => return Err(error),
                Err(Verdict::Next(why)) => {
                    whys.push(format!("{}: {why}", self.members[at].url));
                    self.failed(at).await;
                }
            }
        }
        Err(DirectoryError::Unreachable { why: whys.join("; ") })
    }

    /// Whether none of them answered yet and each failed by its certificate or ours: that comes right by the configuration only.
    pub(super) fn unfit(&self) -> bool {
        let of = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.members.iter().all(|member| of(&member.unfit) && !of(&member.answered))
    }

    /// The longest that a call can take.
    pub fn patience(&self) -> Duration {
        self.config.attempt() * u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    async fn attempt<T, F>(&self, at: usize, limit: Duration, op: &impl Fn(Client) -> F) -> Result<T, Verdict>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let all = async {
            let client = self.client(at).await?;
            op(client).await.map_err(|e| self.judge(at, &e))
        };
        timeout(limit, all).await.unwrap_or_else(|_| Err(Verdict::Next(no_answer(limit))))
    }

    async fn client(&self, at: usize) -> Result<Client, Verdict> {
        let member = &self.members[at];
        let mut client = member.client.lock().await;
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        let made = Client::connect([&member.url], Some(self.config.options())).await;
        let made = made.map_err(|e| self.judge(at, &e))?;
        Ok(client.insert(made).clone())
    }

    /// The member to ask next, for a stream.
    pub(super) async fn pick(&self) -> Result<(usize, Client), DirectoryError> {
        let at = self.at();
        let limit = self.config.attempt();
        let client = timeout(limit, self.client(at)).await.unwrap_or_else(|_| Err(Verdict::Next(no_answer(limit))));
        match client {
            Ok(client) => Ok((at, client)),
            Err(Verdict::Final(error)) => Err(error),
            Err(Verdict::Next(why)) => {
                self.failed(at).await;
                Err(self.unreachable(at, why))
            }
        }
    }

    /// A stream of this member ended: the next call goes to another one, and this one is dialled anew when its turn comes.
    pub(super) async fn failed(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire); // else somebody went on already
        // A lock that is held belongs to one that is dialling anew.
        if let Ok(mut client) = self.members[at].client.try_lock() {
            *client = None;
        }
    }

    /// What a failed stream of this member comes to.
    pub(super) async fn stream_failed(&self, at: usize, error: &Error) -> DirectoryError {
        match self.judge(at, error) {
            Verdict::Final(error) => error,
            Verdict::Next(why) => {
                self.failed(at).await;
                self.unreachable(at, why)
            }
        }
    }

    pub(super) async fn silent(&self, at: usize, limit: Duration) -> DirectoryError {
        self.failed(at).await;
        self.unreachable(at, no_answer(limit))
    }

    fn unreachable(&self, at: usize, why: String) -> DirectoryError {
        DirectoryError::Unreachable { why: format!("{}: {why}", self.members[at].url) }
    }

    fn at(&self) -> usize {
        self.current.load(Ordering::Acquire) % self.members.len()
    }

    fn cause(&self, at: usize, error: &(dyn StdError + 'static)) -> String {
        let (member, cause) = (&self.members[at], root_cause(error));
        member.unfit.store(unfit(&cause), Ordering::Relaxed);
        match remedy(&member.url, &cause).filter(|_| !member.answered.load(Ordering::Relaxed)) {
            Some(remedy) => format!("{cause} ({remedy})"),
            None => cause,
        }
    }

    fn judge(&self, at: usize, error: &Error) -> Verdict {
        use tonic_code::*;
        let endpoint = self.members[at].url.clone();
        let user = self.config.user.as_ref().map(|(name, _)| name.as_str());
        let Error::GRpcStatus(status) = error else {
            return match error {
                Error::InvalidArgs(why) => Verdict::Final(DirectoryError::Endpoint { endpoint, why: why.clone() }),
                other => Verdict::Next(self.cause(at, other)),
            };
        };
        let text = status.message().trim_start_matches("etcdserver: ");
        let credentials = |why: String| Verdict::Final(DirectoryError::Credentials { endpoint: endpoint.clone(), why });
        match (status.code() as i32, user) {
            (UNAUTHENTICATED | INVALID_ARGUMENT, Some(user)) if text.contains("authentication failed") => {
                credentials(format!("user {user:?} and its password are not accepted"))
            }
            (INVALID_ARGUMENT | UNAUTHENTICATED, None) if text.contains("user name is empty") => {
                credentials("it asks for a user: set cluster.etcd_user and its password".to_string())
            }
            (FAILED_PRECONDITION, Some(user)) if text.contains("authentication is not enabled") => {
                credentials(format!("it knows no users: take user {user:?} out of the configuration"))
            }
            (PERMISSION_DENIED, user) => {
                let prefix = format!("/bulkhead/{}/", self.config.cluster);
                let certified = self.config.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
                credentials(match user {
                    Some(user) => {
                        format!("user {user:?} may not read and write {prefix}: grant its role that prefix")
                    }
                    // etcd takes the certificate's common name for the user.
                    None if certified => format!(
                        "the user that cluster.etcd_cert names may not read and write {prefix}: grant its role that \
                         prefix, or set cluster.etcd_user and its password"
                    ),
                    None => format!("nobody may read and write {prefix} without a user: set cluster.etcd_user"),
                })
            }
            (INVALID_ARGUMENT | NOT_FOUND | OUT_OF_RANGE | RESOURCE_EXHAUSTED | UNIMPLEMENTED, _) => {
                Verdict::Final(DirectoryError::Refused { endpoint, why: crate::store::etcd::explained(text) })
            }
            _ if status.source().is_some() => Verdict::Next(self.cause(at, status)),
            _ => Verdict::Next(text.to_string()),
        }
    }
}

/// gRPC's status codes; the client does not give out the type that names them.
mod tonic_code {
    pub const INVALID_ARGUMENT: i32 = 3;
    pub const NOT_FOUND: i32 = 5;
    pub const PERMISSION_DENIED: i32 = 7;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const OUT_OF_RANGE: i32 = 11;
    pub const UNIMPLEMENTED: i32 = 12;
    pub const UNAUTHENTICATED: i32 = 16;
}

fn no_answer(limit: Duration) -> String {
    format!("no answer within {limit:?}")
}

/// "transport error" says nothing; what caused it does.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

/// Whether that is a certificate that the other side does not take, whatever it waits for. A connection that is closed without
/// a word may be an etcd that starts.
fn unfit(cause: &str) -> bool {
    cause.contains("invalid peer certificate") || cause.contains("fatal alert")
}

/// What to do about a member that never answered: its configuration is the likely cause.
fn remedy(url: &str, cause: &str) -> Option<&'static str> {
    let says = |signs: &[&str]| signs.iter().any(|sign| cause.contains(sign));
    let hung_up = says(&["broken pipe", "connection closed", "Connection reset", "connection error"]);
    match url.starts_with("https://") {
        true if says(&["invalid peer certificate"]) => {
            Some("the authority in cluster.etcd_ca did not sign it, or not for this host")
        }
        true if says(&["InvalidContentType", "handshake eof"]) => Some("it does not speak TLS: write it as http://"),
        true if hung_up || says(&["fatal alert"]) => {
            Some("it does not speak TLS, or wants a certificate of us: set cluster.etcd_cert and cluster.etcd_key")
        }
        false if hung_up => Some("perhaps it speaks TLS: write it as https:// and set cluster.etcd_ca"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_may_cause_has_its_remedy() {
        let table = [
            ("https://a:1", "invalid peer certificate: UnknownIssuer", Some("etcd_ca")),
            ("https://a:1", "received corrupt message of type InvalidContentType", Some("http://")),
            ("https://a:1", "tls handshake eof", Some("http://")),
            ("https://a:1", "received fatal alert: BadCertificate", Some("etcd_cert")),
            ("https://a:1", "connection closed", Some("etcd_cert")),
            ("http://a:1", "stream closed because of a broken pipe", Some("https://")),
            ("http://a:1", "Connection refused (os error 111)", None),
            ("https://a:1", "Connection refused (os error 111)", None),
        ];
        for (url, cause, hint) in table {
            let got = remedy(url, cause);
            assert_eq!(got.is_some(), hint.is_some(), "{url} {cause}");
            assert!(got.unwrap_or_default().contains(hint.unwrap_or_default()), "{got:?}");
            assert_eq!(unfit(cause), cause.contains("ertificate"), "{cause}");
        }
    }
}
