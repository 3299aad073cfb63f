//! How a command reaches a running node: its StorageMiner JSON-RPC and its admin HTTP.
//!
//! The node is the one in the repo (files `api`, `admin`, `token`), or the one that MINER_API_INFO names, or
//! STORAGE_API_INFO, which is the same under its older name.

use super::{CliError, Context};
use crate::config::Config;
use crate::rpc::api_info::ApiInfo;
use crate::rpc::client::{CallErrorKind, RpcClient};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A node's answers come from memory or its store; a call to its full node inside has this long too.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Name a node of another repo; the older name second.
const API_VARIABLES: [&str; 2] = ["MINER_API_INFO", "STORAGE_API_INFO"];
/// No answer of the admin HTTP is this large; more is not read.
const MAX_ANSWER: usize = 64 << 20;

pub struct NodeClient {
    http: reqwest::Client,
    place: NodeAddress,
    token: Option<String>,
    api: Option<RpcClient>,
    admin: Option<String>,
}

/// The node's address, for error texts.
enum NodeAddress {
    Repo(PathBuf),
    Remote { url: String, variable: &'static str },
}

impl NodeClient {
    pub fn open(cx: &Context) -> Result<NodeClient, CliError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
        let http = http_client()?;
        let named = API_VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)));
        if let (false, Some((name, info))) = (cx.repo_given, named) {
            let info = ApiInfo::parse(&format!("environment variable {name}"), &info).map_err(|e| failed(&e))?;
            let admin = match variable("BULKHEAD_ADMIN_INFO") {
                Some(text) => Some(admin_url(&text).ok_or_else(|| {
                    failed(&"environment variable BULKHEAD_ADMIN_INFO: write it as host:port or http://host:port")
                })?),
                None => None,
            };
            let api = RpcClient::new(&info, "v0").map_err(|e| failed(&e))?;
            return Ok(NodeClient {
                http,
                place: NodeAddress::Remote { url: info.name(), variable: name },
                token: info.token,
                api: Some(api),
                admin,
            });
        }
        NodeClient::at_repo(&cx.config)
    }

    /// The node of this repo, whatever the environment says.
    pub fn at_repo(config: &Config) -> Result<NodeClient, CliError> {
        let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
        let http = http_client()?;
        let repo = &config.repo;
        let (api_file, admin_file) = (config.api_file(), config.admin_file());
        let token = read_optional(&config.token_file())?;
        let api = match read_optional(&api_file)? {
            Some(text) => {
                let info = ApiInfo::parse(&api_file.display().to_string(), &text).map_err(|e| failed(&e))?;
                Some(RpcClient::new(&ApiInfo { token: token.clone(), ..info }, "v0").map_err(|e| failed(&e))?)
            }
            None => None,
        };
        let admin = match read_optional(&admin_file)? {
            Some(text) => Some(admin_url(&text).ok_or_else(|| {
                let (file, text) = (admin_file.display(), short(text.as_bytes()));
                CliError::Failed(format!(
                    "{file}: {text:?} is not host:port; restart the node, it writes the file anew"
                ))
            })?),
            None => None,
        };
        if api.is_none() && admin.is_none() {
            return Err(no_node(repo));
        }
        Ok(NodeClient { http, place: NodeAddress::Repo(repo.clone()), token, api, admin })
    }

    /// An agent has none, nor has a node of which only MINER_API_INFO is known.
    pub fn has_admin(&self) -> bool {
        self.admin.is_some()
    }

    /// One `Filecoin.*` or `Bulkhead.*` call.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Vec<Value>) -> Result<T, CliError> {
        let Some(api) = &self.api else { return Err(self.missing("api")) };
        api.call(method, params, CALL_TIMEOUT).await.map_err(|e| match (e.kind, &self.place) {
            (CallErrorKind::Unreachable(_), NodeAddress::Repo(repo)) => no_node(repo),
            (CallErrorKind::Unauthorized(why), _) => {
                self.fail(method, &format!("refused: {why}; {}", self.token_hint()))
            }
            (CallErrorKind::NoSuchMethod, _) => self.fail(method, "it has no such method; is it another version?"),
            (kind, _) => self.fail(method, &kind.to_string()),
        })
    }

    pub async fn admin_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let Some(admin) = &self.admin else { return Err(self.missing("admin")) };
        let bytes = self.send(self.http.get(format!("{admin}{path}")), path).await?;
        self.parse(&bytes, path)
    }

    pub async fn admin_post(&self, path: &str) -> Result<(), CliError> {
        let Some(admin) = &self.admin else { return Err(self.missing("admin")) };
        self.send(self.http.post(format!("{admin}{path}")), path).await.map(|_| ())
    }

    pub async fn admin_post_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let Some(admin) = &self.admin else { return Err(self.missing("admin")) };
        let bytes = self.send(self.http.post(format!("{admin}{path}")), path).await?;
        self.parse(&bytes, path)
    }

    /// Nothing accepts connections there any more.
    pub async fn is_gone(&self) -> bool {
        let Some(admin) = &self.admin else { return true };
        matches!(self.http.get(format!("{admin}/health/live")).send().await, Err(e) if e.is_connect())
    }

    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>, CliError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let mut answer = request.send().await.map_err(|e| self.transport(what, e))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| self.transport(what, e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                return Err(self.fail(what, "the answer is larger than 64 MiB"));
            }
        }
        match status.as_u16() {
            200..=299 => Ok(bytes),
            401 | 403 => Err(self.fail(what, &format!("refused ({}); {}", status.as_u16(), self.token_hint()))),
            // a refusal is told by its reason alone
            code => Err(match told(&bytes) {
                Some(why) if code < 500 => self.fail(what, &why),
                why => self.fail(what, &format!("HTTP status {code}: {}", why.unwrap_or_else(|| short(&bytes)))),
            }),
        }
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, CliError> {
        serde_json::from_slice(bytes).map_err(|e| {
            self.fail(what, &format!("the answer is not the JSON that a node gives ({e}): {}", short(bytes)))
        })
    }

    fn transport(&self, what: &str, error: reqwest::Error) -> CliError {
        if error.is_timeout() && !error.is_connect() {
            return self.fail(what, &format!("no answer within {} s", CALL_TIMEOUT.as_secs()));
        }
        match &self.place {
            NodeAddress::Repo(repo) if error.is_connect() => no_node(repo),
            _ => self.fail(what, &format!("cannot reach it: {}", root_cause(&error))),
        }
    }

    fn fail(&self, method: &str, why: &str) -> CliError {
        let node = match &self.place {
            NodeAddress::Repo(repo) => format!("the node in {}", repo.display()),
            NodeAddress::Remote { url, .. } => format!("the node at {url}"),
        };
        CliError::Node { node, method: method.to_string(), why: why.to_string() }
    }

    fn token_hint(&self) -> String {
        match &self.place {
            NodeAddress::Repo(repo) => format!("check {}", repo.join("token").display()),
            NodeAddress::Remote { variable, .. } => format!("check the token in {variable}"),
        }
    }

    fn missing(&self, file: &str) -> CliError {
        match &self.place {
            NodeAddress::Repo(repo) => CliError::Failed(format!(
                "{} is missing: the node that runs there does not serve it",
                repo.join(file).display()
            )),
            NodeAddress::Remote { url, .. } => CliError::Failed(format!(
                "the admin address of the node at {url} is not known: set BULKHEAD_ADMIN_INFO=host:port"
            )),
        }
    }
}

fn http_client() -> Result<reqwest::Client, CliError> {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(CALL_TIMEOUT)
        .build()
        .map_err(|e| CliError::Failed(format!("cannot make an HTTP client: {e}")))
}

fn no_node(repo: &Path) -> CliError {
    let devnet = repo.join("devnet").join("node");
    let hint = match devnet.join("admin").exists() || devnet.join("api").exists() {
        true => format!("; the devnet's node is in --repo {}", devnet.display()),
        false => String::new(),
    };
    CliError::NoNode { repo: repo.to_path_buf(), hint }
}

/// `host:port`, or a URL, as a URL without a slash at its end.
fn admin_url(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('/');
    let url = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
    let parsed = reqwest::Url::parse(&url).ok()?;
    (matches!(parsed.scheme(), "http" | "https") && parsed.port_or_known_default().is_some()).then_some(url)
}

fn read_optional(path: &Path) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_string()).filter(|t| !t.is_empty())),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(CliError::Failed(format!("{}: {e}", path.display()))),
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The admin HTTP says why in `{"error": ".."}`. `None`: something else answered.
fn told(bytes: &[u8]) -> Option<String> {
    let value = serde_json::from_slice::<serde_json::Value>(bytes).ok()?;
    Some(value.get("error")?.as_str()?.to_string())
}

/// The first words of an answer, for an error text.
fn short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}..", &line[..end]),
        None if line.is_empty() => "(empty)".to_string(),
        None => line,
    }
}
