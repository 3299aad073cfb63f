//! How etcd is reached, checked before anything is dialled.

use crate::etcd::Who;
use crate::rpc::directory::DirectoryError;
use crate::rpc::directory::is_name;
use crate::rpc::directory::join::JoinToken;
use crate::store::etcd::EtcdOptions;
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use std::fmt;
use std::path::Path;
use std::time::Duration;

#[derive(Clone)]
pub struct EtcdConfig {
    /// `https://10.0.0.1:2379`; `10.0.0.1:2379` is http, or https if there is a [`Tls`].
    pub endpoints: Vec<String>,
    pub cluster: String,
    pub user: Option<(String, String)>,
    pub tls: Option<Tls>,
    /// After how long without a keep-alive a node's leases end. Whole seconds; etcd grants no less than 2.
    pub ttl: Duration,
}

/// PEM texts.
#[derive(Clone, Default)]
pub struct Tls {
    /// The authority that signed etcd's certificates.
    pub ca: String,
    /// A client certificate and its key, where etcd asks for one.
    pub identity: Option<(String, String)>,
}

impl Tls {
    pub fn from_files(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Tls, DirectoryError> {
        let identity = match identity {
            Some((certificate, key)) => Some((pem(certificate, "CERTIFICATE")?, pem(key, "PRIVATE KEY")?)),
            None => None,
        };
        Ok(Tls { ca: pem(ca, "CERTIFICATE")?, identity })
    }
}

fn pem(file: &Path, kind: &str) -> Result<String, DirectoryError> {
    let fail = |why: String| DirectoryError::Tls { file: file.display().to_string(), why };
    let text = std::fs::read_to_string(file).map_err(|e| fail(format!("cannot be read: {e}")))?;
    let there = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{kind}-----")));
    if there { Ok(text) } else { Err(fail(format!("has no PEM {kind}"))) }
}

pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

impl EtcdConfig {
    pub fn new(cluster: impl Into<String>, endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            cluster: cluster.into(),
            user: None,
            tls: None,
            ttl: DEFAULT_TTL,
        }
    }

    pub fn from_token(token: JoinToken) -> EtcdConfig {
        let tls = token.ca.map(|ca| Tls { ca, identity: token.identity });
        EtcdConfig { user: token.user, tls, ..EtcdConfig::new(token.cluster, token.endpoints) }
    }

    pub fn token(&self) -> JoinToken {
        JoinToken {
            cluster: self.cluster.clone(),
            endpoints: self.endpoints.clone(),
            user: self.user.clone(),
            ca: self.tls.as_ref().map(|tls| tls.ca.clone()),
            identity: self.tls.as_ref().and_then(|tls| tls.identity.clone()),
        }
    }

    /// Each endpoint as a URL.
    pub fn checked(&self) -> Result<Vec<String>, DirectoryError> {
        if !is_name(&self.cluster) {
            return Err(DirectoryError::BadName { what: "cluster", name: self.cluster.clone() });
        }
        if self.endpoints.is_empty() {
            return Err(DirectoryError::Unreachable { why: "none is configured; set cluster.etcd".to_string() });
        }
        self.endpoints.iter().map(|endpoint| self.url(endpoint)).collect()
    }

    fn url(&self, endpoint: &str) -> Result<String, DirectoryError> {
        let fail = |why: &str| Err(DirectoryError::Endpoint { endpoint: endpoint.to_string(), why: why.to_string() });
        let (scheme, at) = match endpoint.split_once("://") {
            Some((scheme, at)) => (scheme, at.trim_end_matches('/')),
            None if self.tls.is_some() => ("https", endpoint),
            None => ("http", endpoint),
        };
        let port = at.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        match (scheme, &self.tls, port) {
            ("http" | "https", _, None | Some(0)) => fail("write it as host:port, such as 10.0.0.1:2379"),
            ("http", Some(_), _) => fail("certificates are configured for it: write it as https://"),
            ("https", None, _) => {
                fail("set cluster.etcd_ca: the PEM file of the authority that signed its certificate")
            }
            ("http" | "https", _, Some(_)) => Ok(format!("{scheme}://{at}")),
            _ => fail("it must begin with http:// or https://"),
        }
    }

    /// How long one attempt at one endpoint may take: each of three can be tried within a lease's time.
    pub(super) fn attempt(&self) -> Duration {
        (self.ttl / 5).clamp(Duration::from_millis(500), Duration::from_secs(5))
    }

    /// The caller as etcd knows it.
    pub(super) fn who(&self) -> Who {
        let certified = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        Who { user: self.user.as_ref().map(|(name, _)| name.clone()), certified }
    }

    /// The cluster's store at the same endpoints, with the same times.
    pub fn store(&self) -> Result<EtcdOptions, DirectoryError> {
        let options = EtcdOptions::new(self.checked()?, self.cluster.as_str());
        Ok(EtcdOptions {
            connect: self.options(),
            who: self.who(),
            attempt: self.attempt(),
            deadline: self.attempt() * 2,
            pause: self.attempt(),
            ..options
        })
    }

    /// How often we send a keep-alive.
    pub(super) fn beat(&self) -> Duration {
        self.ttl / 4
    }

    /// For a client of ours at these endpoints.
    pub fn options(&self) -> ConnectOptions {
        // No HTTP/2 pings: etcd hangs up on who sends them more often than every 5 s. Every stream has its own deadlines.
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.attempt())
            .with_tcp_keepalive(self.beat())
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if let Some(tls) = &self.tls {
            let mut with = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                with = with.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(with);
        }
        options
    }
}

/// Without what is secret.
impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, lease {:?}", self.token(), self.ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_an_error_that_names_them() {
        let plain = EtcdConfig::new("main", ["x"]);
        let secure = EtcdConfig { tls: Some(Tls::default()), ..plain.clone() };
        let table = [
            (&plain, "10.0.0.1:2379", Ok("http://10.0.0.1:2379")),
            (&plain, "http://etcd-1:2379/", Ok("http://etcd-1:2379")),
            (&plain, "[::1]:2379", Ok("http://[::1]:2379")),
            (&secure, "10.0.0.1:2379", Ok("https://10.0.0.1:2379")),
            (&secure, "https://etcd-1:2379", Ok("https://etcd-1:2379")),
            (&plain, "", Err("host:port")),
            (&plain, "etcd-1", Err("host:port")),
            (&plain, ":2379", Err("host:port")),
            (&plain, "etcd-1:0", Err("host:port")),
            (&plain, "etcd-1:65536", Err("host:port")),
            (&plain, "ftp://etcd-1:2379", Err("http://")),
            (&plain, "https://etcd-1:2379", Err("cluster.etcd_ca")),
            (&secure, "http://etcd-1:2379", Err("https://")),
        ];
        for (config, endpoint, expected) in table {
            match (config.url(endpoint), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url, expected),
                (Err(error), Err(hint)) => {
                    let text = error.to_string();
                    assert!(text.contains(hint) && text.contains(endpoint), "{text}");
                }
                (got, expected) => panic!("{endpoint:?}: {got:?}, expected {expected:?}"),
            }
        }
        assert!(EtcdConfig::new("main", [""; 0]).checked().unwrap_err().to_string().contains("cluster.etcd"));
        assert!(EtcdConfig::new("a/b", ["x:1"]).checked().unwrap_err().to_string().contains("cluster"));
    }

    #[test]
    fn a_token_carries_all_of_it() {
        let tls = Tls { ca: "ca".into(), identity: Some(("cert".into(), "key".into())) };
        let config = EtcdConfig {
            user: Some(("u".into(), "hidden".into())),
            tls: Some(tls),
            ..EtcdConfig::new("main", ["https://etcd-1:2379"])
        };
        let back = EtcdConfig::from_token(config.token());
        assert_eq!(back.token(), config.token());
        assert!(!format!("{config:?}").contains("hidden"));
    }

    #[test]
    fn a_file_without_pem_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        assert!(pem(&file, "CERTIFICATE").unwrap_err().to_string().contains("ca.pem: cannot be read"));
        std::fs::write(&file, "hello").unwrap();
        assert!(pem(&file, "CERTIFICATE").unwrap_err().to_string().contains("no PEM CERTIFICATE"));
        std::fs::write(&file, "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
        assert!(pem(&file, "PRIVATE KEY").is_ok());
    }
}
