//! Calls to etcd, for the directory and for the cluster's store: one endpoint at a time, the next one when it does not answer,
//! an error that says which did what, whether it may have been carried out, and what to do.
//!
//! Not the client's own balancing: that keeps sending a share of the calls to a member that is frozen.

use etcd_client::{Client, ConnectOptions, Error};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No endpoint answered. `sent`: the request may have been carried out, or may still be.
    #[error("{why}")]
    Unreachable { why: String, sent: bool },
    /// The endpoint as it is configured cannot be dialled.
    #[error("{endpoint}: {why}")]
    Endpoint { endpoint: String, why: String },
    /// User, password or rights.
    #[error("{endpoint}: {why}")]
    Credentials { endpoint: String, why: String },
    /// It answered and did nothing, and every other endpoint would say the same.
    #[error("{endpoint}: {why}")]
    Refused { endpoint: String, why: String },
    /// As `Refused`: this very request is over one of etcd's limits.
    #[error("{endpoint}: {why}")]
    TooLarge { endpoint: String, why: String },
}

/// The caller as etcd knows it: its refusals mean different things for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    pub user: Option<String>,
    /// We show a certificate, whose common name etcd takes for the user.
    pub certified: bool,
}

pub struct EtcdClient {
    options: ConnectOptions,
    who: Who,
    /// `/bulkhead/<cluster>/`: what we must be allowed to read and write.
    prefix: String,
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

/// An error's meaning for the call.
enum Verdict {
    /// Another endpoint may do better.
    Next {
        why: String,
        sent: bool,
    },
    Final(CallError),
}

impl EtcdClient {
    /// Dials nothing yet. There must be a URL.
    pub fn new(urls: Vec<String>, cluster: &str, options: ConnectOptions, who: Who) -> EtcdClient {
        let member = |url| Member {
            url,
            client: Mutex::default(),
            answered: AtomicBool::default(),
            unfit: AtomicBool::default(),
        };
        let members = urls.into_iter().map(member).collect();
        EtcdClient { options, who, prefix: format!("/bulkhead/{cluster}/"), members, current: AtomicUsize::new(0) }
    }

    /// Asks the endpoints in turn until one has an answer; each gets `limit`. `op` may reach etcd more than once: it must bear
    /// that.
    pub async fn call<T, F>(&self, limit: Duration, op: impl Fn(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (mut whys, mut maybe_done) = (Vec::new(), false);
        for _ in 0..self.members.len() {
            let at = self.at();
            let member = &self.members[at];
            match self.attempt(at, limit, &op).await {
                Ok(answer) => {
                    member.answered.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                // One that refuses says nothing of one that was asked before it and went silent.
                Err(Verdict::Final(error)) if maybe_done => {
                    whys.push(error.to_string());
                    return Err(CallError::Unreachable { why: whys.join("; "), sent: true });
                }
                Err(Verdict::Final(error)) => {
                    if matches!(error, CallError::Credentials { .. }) {
                        self.hang_up(at); // rights that were granted meanwhile come with a new token
                    }
                    return Err(error);
                }
                Err(Verdict::Next { why, sent }) => {
                    whys.push(format!("{}: {why}", member.url));
                    maybe_done |= sent;
                    self.failed(at);
                }
            }
        }
        Err(CallError::Unreachable { why: whys.join("; "), sent: maybe_done })
    }

    /// How many endpoints there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn urls(&self) -> String {
        self.members.iter().map(|member| member.url.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether none of them answered yet and each failed by its certificate or ours: that comes right by the configuration only.
    pub fn unfit(&self) -> bool {
        let of = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        self.members.iter().all(|member| of(&member.unfit) && !of(&member.answered))
    }

    async fn attempt<T, F>(&self, at: usize, limit: Duration, op: &impl Fn(Client) -> F) -> Result<T, Verdict>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let all = async {
            let client = self.client(at).await?;
            op(client).await.map_err(|e| self.judge(at, &e))
        };
        let silent = Verdict::Next { why: no_answer(limit), sent: true };
        timeout(limit, all).await.unwrap_or(Err(silent))
    }

    async fn client(&self, at: usize) -> Result<Client, Verdict> {
        let member = &self.members[at];
        let mut client = member.client.lock().await;
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        let made = Client::connect([&member.url], Some(self.options.clone())).await;
        let made = made.map_err(|e| match self.judge(at, &e) {
            Verdict::Next { why, .. } => Verdict::Next { why, sent: false },
            other => other,
        })?;
        Ok(client.insert(made).clone())
    }

    /// The member to ask next, for a stream.
    pub async fn pick(&self, limit: Duration) -> Result<(usize, Client), CallError> {
        let at = self.at();
        match timeout(limit, self.client(at)).await {
            Ok(Ok(client)) => Ok((at, client)),
            Ok(Err(Verdict::Final(error))) => Err(error),
            Ok(Err(Verdict::Next { why, .. })) => {
                self.failed(at);
                Err(self.unreachable(at, why))
            }
            Err(_) => Err(self.silent(at, limit)),
        }
    }

    /// A stream of this member ended: the next call goes to another one, and this one is dialled anew when its turn comes.
    pub fn failed(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self.current.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire); // else somebody went on already
        self.hang_up(at);
    }

    /// A new connection next time: this one may hang on a dead peer.
    fn hang_up(&self, at: usize) {
        // A lock that is held belongs to one that is dialling anew.
        if let Ok(mut client) = self.members[at].client.try_lock() {
            *client = None;
        }
    }

    /// The error that a failed stream of this member stands for.
    pub fn stream_failed(&self, at: usize, error: &Error) -> CallError {
        match self.judge(at, error) {
            Verdict::Final(error) => error,
            Verdict::Next { why, .. } => {
                self.failed(at);
                self.unreachable(at, why)
            }
        }
    }

    pub fn silent(&self, at: usize, limit: Duration) -> CallError {
        self.failed(at);
        self.unreachable(at, no_answer(limit))
    }

    fn unreachable(&self, at: usize, why: String) -> CallError {
        CallError::Unreachable { why: format!("{}: {why}", self.members[at].url), sent: true }
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
        let endpoint = self.members[at].url.clone();
        match error {
            Error::InvalidArgs(why) => Verdict::Final(CallError::Endpoint { endpoint, why: why.clone() }),
            Error::InvalidUri(why) => Verdict::Final(CallError::Endpoint { endpoint, why: why.to_string() }),
            Error::GRpcStatus(status) => {
                let text = status.message().trim_start_matches("etcdserver: ");
                match meaning(status.code() as i32, text, &self.who, &self.prefix) {
                    Meaning::Credentials(why) => Verdict::Final(CallError::Credentials { endpoint, why }),
                    Meaning::Refused => {
                        let why = explained(text);
                        Verdict::Final(CallError::Refused { endpoint, why })
                    }
                    Meaning::TooLarge => Verdict::Final(CallError::TooLarge { endpoint, why: text.to_string() }),
                    Meaning::NotDone => Verdict::Next { why: text.to_string(), sent: false },
                    Meaning::NoAnswer if status.source().is_some() => {
                        Verdict::Next { why: self.cause(at, status), sent: true }
                    }
                    Meaning::NoAnswer => Verdict::Next { why: text.to_string(), sent: true },
                }
            }
            other => Verdict::Next { why: self.cause(at, other), sent: true },
        }
    }
}

/// The meaning of a status of etcd.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Credentials(String),
    /// It certainly did nothing, and no other member would.
    Refused,
    TooLarge,
    /// It certainly did nothing; another member may, or this one after a new connection.
    NotDone,
    /// It may have been carried out.
    NoAnswer,
}

/// The one table of etcd's errors. `text` is without `etcdserver: `.
fn meaning(code: i32, text: &str, who: &Who, prefix: &str) -> Meaning {
    use tonic_code::*;
    match (code, &who.user) {
        (UNAUTHENTICATED | INVALID_ARGUMENT, Some(user)) if text.contains("authentication failed") => {
            Meaning::Credentials(format!("user {user:?} and its password are not accepted"))
        }
        (INVALID_ARGUMENT | UNAUTHENTICATED, None) if text.contains("user name is empty") => {
            Meaning::Credentials("it asks for a user: set cluster.etcd_user and its password".to_string())
        }
        (FAILED_PRECONDITION, Some(user)) if text.contains("authentication is not enabled") => {
            Meaning::Credentials(format!("it knows no users: take user {user:?} out of the configuration"))
        }
        (PERMISSION_DENIED, user) => Meaning::Credentials(match user {
            Some(user) => format!("user {user:?} may not read and write {prefix}: grant its role that prefix"),
            // etcd takes the certificate's common name for the user.
            None if who.certified => format!(
                "the user that cluster.etcd_cert names may not read and write {prefix}: grant its role that \
                 prefix, or set cluster.etcd_user and its password"
            ),
            None => format!("nobody may read and write {prefix} without a user: set cluster.etcd_user"),
        }),
        (INVALID_ARGUMENT, _) if text.contains("request is too large") || text.contains("too many operations") => {
            Meaning::TooLarge
        }
        (RESOURCE_EXHAUSTED, _) if text.contains("message larger than max") => Meaning::TooLarge,
        (RESOURCE_EXHAUSTED, _) if text.contains("too many requests") => Meaning::NotDone,
        (INVALID_ARGUMENT | NOT_FOUND | OUT_OF_RANGE | RESOURCE_EXHAUSTED | UNIMPLEMENTED, _) => Meaning::Refused,
        (UNAUTHENTICATED | FAILED_PRECONDITION, _) => Meaning::NotDone,
        _ => Meaning::NoAnswer,
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

/// etcd's words, with what to do about them where they mean something for an operator.
fn explained(message: &str) -> String {
    match message.contains("database space exceeded") {
        true => format!(
            "{message} (NOSPACE: its database is at its quota and takes no writes, no leases either: run `etcdctl compact REVISION`, `etcdctl defrag` on every member and `etcdctl alarm disarm`; then set --auto-compaction-retention=1h)"
        ),
        false => message.to_owned(),
    }
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

/// The remedy for a member that never answered: its configuration is the likely cause.
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

    #[test]
    fn the_table_of_etcds_errors() {
        let nobody = Who::default();
        let user = Who { user: Some("u".into()), certified: false };
        let certified = Who { user: None, certified: true };
        let credentials = |part: &'static str| Err(part);
        let table = [
            (&user, 3, "authentication failed, invalid user ID or password", credentials("\"u\" and its password")),
            (&nobody, 3, "user name is empty", credentials("set cluster.etcd_user")),
            (&user, 9, "authentication is not enabled", credentials("take user \"u\" out")),
            (&user, 7, "permission denied", credentials("grant its role that prefix")),
            (&certified, 7, "permission denied", credentials("cluster.etcd_cert")),
            (&nobody, 7, "permission denied", credentials("/bulkhead/main/")),
            (&nobody, 3, "request is too large", Ok(Meaning::TooLarge)),
            (&nobody, 3, "too many operations in txn request", Ok(Meaning::TooLarge)),
            (&nobody, 8, "grpc: received message larger than max (2098176 vs. 2097152)", Ok(Meaning::TooLarge)),
            (&nobody, 8, "mvcc: database space exceeded", Ok(Meaning::Refused)),
            (&nobody, 8, "too many requests", Ok(Meaning::NotDone)),
            (&nobody, 3, "key is not provided", Ok(Meaning::Refused)),
            (&nobody, 5, "requested lease not found", Ok(Meaning::Refused)),
            (&nobody, 11, "mvcc: required revision has been compacted", Ok(Meaning::Refused)),
            (&nobody, 12, "unknown service", Ok(Meaning::Refused)),
            (&user, 16, "invalid auth token", Ok(Meaning::NotDone)),
            (&nobody, 9, "rpc not supported for learner", Ok(Meaning::NotDone)),
            // A leader that was lost after it had taken the proposal says so as well.
            (&nobody, 14, "leader changed", Ok(Meaning::NoAnswer)),
            (&nobody, 14, "no leader", Ok(Meaning::NoAnswer)),
            (&nobody, 4, "request timed out", Ok(Meaning::NoAnswer)),
            (&nobody, 2, "raft: stopped", Ok(Meaning::NoAnswer)),
            (&nobody, 13, "internal", Ok(Meaning::NoAnswer)),
        ];
        for (who, code, text, expected) in table {
            match (meaning(code, text, who, "/bulkhead/main/"), expected) {
                (Meaning::Credentials(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (got, Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (got, Err(part)) => panic!("{text}: {got:?}, expected credentials with {part}"),
            }
        }
    }
}
