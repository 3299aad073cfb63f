//! Tokens and permissions of a node's API, as Lotus has them: JWT (HS256) with the claim `{"Allow": ["read", …]}`; and one
//! permission that Lotus lacks, for the workers of an agent.

use crate::rpc::api_info::ApiInfo;
use crate::util::time::since_epoch;
use crate::util::{Mode, write_durably, write_where_it_differs};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::RngCore;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A caller's permissions. A token lists each one that it gives; none implies another.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Perm {
    Read,
    Write,
    Sign,
    Admin,
    /// The permissions that a seal worker needs of its agent, and no others; an admin has them too.
    Worker,
}

impl Perm {
    /// Lotus' own.
    pub const ALL: [Perm; 4] = [Perm::Read, Perm::Write, Perm::Sign, Perm::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Perm::Read => "read",
            Perm::Write => "write",
            Perm::Sign => "sign",
            Perm::Admin => "admin",
            Perm::Worker => "worker",
        }
    }

    /// Whether a token with `perms` may do what needs this.
    pub fn is_given_by(self, perms: &[Perm]) -> bool {
        perms.contains(&self) || (self == Perm::Worker && perms.contains(&Perm::Admin))
    }

    /// `Perm::Write` and all below it, as `auth create-token --perm write` gives them.
    pub fn up_to(self) -> Vec<Perm> {
        let mut perms = Vec::new();
        for perm in Perm::ALL {
            perms.push(perm);
            if perm == self {
                break;
            }
        }
        perms
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("token secret {}: {error}", path.display())]
    Secret { path: PathBuf, error: io::Error },
    #[error("token secret {}: it holds something else than 32 bytes in hex; move it away and start again (old tokens end)", path.display())]
    BadSecret { path: PathBuf },
    #[error("{}: {error}", path.display())]
    RepoFile { path: PathBuf, error: io::Error },
    #[error("the token is not valid: {0}")]
    BadToken(String),
    #[error("the token could not be made: {0}")]
    Sign(String),
}

/// A claim that is absent is `None`; one that is there and `null` is `Some(Null)`.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "Allow")]
    allow: Vec<Perm>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    nbf: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl Claims {
    /// `now`: Unix seconds. Lotus' tokens carry neither claim; one that is there must be a time, and is honoured.
    fn check(&self, now: f64) -> Result<(), &'static str> {
        let time = |claim: &Option<Value>, why| match claim {
            None => Ok(None),
            Some(claim) => claim.as_f64().filter(|at| *at >= 0.0).map(Some).ok_or(why),
        };
        if time(&self.exp, "its exp is no time")?.is_some_and(|exp| now >= exp) {
            return Err("it has expired");
        }
        if time(&self.nbf, "its nbf is no time")?.is_some_and(|nbf| now < nbf) {
            return Err("it is not valid yet");
        }
        Ok(())
    }
}

/// Makes and checks one node's tokens.
pub struct Auth {
    secret: Vec<u8>,
    without_token: Vec<Perm>,
}

const SECRET_FILE: &str = "jwt-secret";

impl Auth {
    /// The secret of the repo in `dir`, made on first use (mode 0600). Without a token a caller may read, as on Lotus.
    pub fn open(dir: &Path) -> Result<Auth, AuthError> {
        Auth::of_file(&dir.join(SECRET_FILE))
    }

    fn of_file(path: &Path) -> Result<Auth, AuthError> {
        let path = path.to_path_buf();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mut fresh = [0u8; 32];
                rand::rngs::OsRng.fill_bytes(&mut fresh);
                write_durably(&path, hex::encode(fresh).as_bytes(), Mode::Private)
                    .map_err(|error| AuthError::Secret { path: path.clone(), error })?;
                hex::encode(fresh)
            }
            Err(error) => return Err(AuthError::Secret { path, error }),
        };
        match hex::decode(text.trim()) {
            Ok(secret) if secret.len() == 32 => Ok(Auth::with_secret(secret)),
            _ => Err(AuthError::BadSecret { path }),
        }
    }

    pub fn with_secret(secret: Vec<u8>) -> Auth {
        Auth { secret, without_token: vec![Perm::Read] }
    }

    /// The permissions of a caller without a token; empty: none. Give no more than read on an address that others
    /// reach.
    pub fn allow_without_token(mut self, perms: &[Perm]) -> Auth {
        self.without_token = perms.to_vec();
        self
    }

    pub fn without_token(&self) -> &[Perm] {
        &self.without_token
    }

    pub fn token(&self, perms: &[Perm]) -> Result<String, AuthError> {
        let claims = Claims { allow: perms.to_vec(), exp: None, nbf: None };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&self.secret))
            .map_err(|e| AuthError::Sign(e.to_string()))
    }

    pub fn verify(&self, token: &str) -> Result<Vec<Perm>, AuthError> {
        self.verify_at(token, since_epoch())
    }

    /// `now`: since the Unix epoch.
    fn verify_at(&self, token: &str, now: Duration) -> Result<Vec<Perm>, AuthError> {
        let mut rules = Validation::new(Algorithm::HS256);
        // The library passes over an exp or nbf that it cannot read: `Claims::check` does not.
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let claims = jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(&self.secret), &rules)
            .map_err(|e| AuthError::BadToken(e.to_string()))?
            .claims;
        claims.check(now.as_secs_f64()).map_err(|why| AuthError::BadToken(why.to_string()))?;
        Ok(claims.allow)
    }

    /// Leaves `token` (0600) and `api` in the repo, where Lotus' tools look for them; gives the admin's `ApiInfo`. A file that
    /// says so already is not touched, so that a full or read-only disk is no trouble while nothing changes.
    pub fn write_repo_files(&self, dir: &Path, addr: SocketAddr) -> Result<ApiInfo, AuthError> {
        let token = self.token(&Perm::ALL)?;
        let version = if addr.is_ipv4() { "ip4" } else { "ip6" };
        let api = format!("/{version}/{}/tcp/{}/http", addr.ip(), addr.port());
        for (name, text) in [("token", token.as_str()), ("api", api.as_str())] {
            let path = dir.join(name);
            write_where_it_differs(&path, text.as_bytes(), Mode::Private)
                .map_err(|error| AuthError::RepoFile { path, error })?;
        }
        Ok(ApiInfo::local(addr, Some(token)))
    }
}

/// The tokens of one repo, for a process that can do without them for a while: a secret that cannot be read stops nothing
/// but the API, which tries again.
pub struct RepoAuth {
    /// The file of the secret.
    path: PathBuf,
    opened: OnceLock<Arc<Auth>>,
}

impl RepoAuth {
    pub fn new(dir: &Path) -> RepoAuth {
        RepoAuth::of_file(&dir.join(SECRET_FILE))
    }

    /// The tokens of another secret than the repo's own.
    pub fn of_file(path: &Path) -> RepoAuth {
        RepoAuth { path: path.to_path_buf(), opened: OnceLock::new() }
    }

    /// Reads the secret, unless it has been read before.
    pub fn open(&self) -> Result<Arc<Auth>, AuthError> {
        if let Some(auth) = self.opened.get() {
            return Ok(auth.clone());
        }
        let auth = Arc::new(Auth::of_file(&self.path)?);
        Ok(self.opened.get_or_init(|| auth).clone())
    }

    /// `None`: the secret has not been read yet. Never reads.
    pub fn opened(&self) -> Option<&Auth> {
        self.opened.get().map(|auth| &**auth)
    }
}

/// The file in an agent's repo that holds a token of [`Perm::Worker`].
pub const WORKER_TOKEN: &str = "worker-token";

impl Auth {
    /// Leaves the token that workers need in the repo (0600), where they mount it.
    pub fn write_worker_token(&self, dir: &Path) -> Result<(), AuthError> {
        let path = dir.join(WORKER_TOKEN);
        let token = self.token(&[Perm::Worker])?;
        write_where_it_differs(&path, token.as_bytes(), Mode::Private)
            .map_err(|error| AuthError::RepoFile { path, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_gives_exactly_what_it_lists() {
        let auth = Auth::with_secret(vec![7; 32]);
        for perms in [&Perm::ALL[..], &[Perm::Read], &[Perm::Sign, Perm::Read], &[]] {
            assert_eq!(auth.verify(&auth.token(perms).expect("token")).expect("valid"), perms);
        }
        assert_eq!(Perm::Write.up_to(), [Perm::Read, Perm::Write]);
        assert_eq!(Perm::Admin.up_to(), Perm::ALL);
    }

    #[test]
    fn times_in_a_token_are_honoured_and_must_be_times() {
        use serde_json::json;
        let auth = Auth::with_secret(vec![7; 32]);
        let now = 1_700_000_000;
        for (claims, valid) in [
            (json!({}), true),
            (json!({"exp": now + 1}), true),
            (json!({"exp": now as f64 + 0.5}), true),
            (json!({"exp": now}), false),
            (json!({"exp": now - 1}), false),
            (json!({"exp": 0}), false),
            (json!({"exp": -1}), false),
            (json!({"exp": null}), false),
            (json!({"exp": (now + 1000).to_string()}), false),
            (json!({"exp": "never"}), false),
            (json!({"exp": [now + 1000]}), false),
            (json!({"exp": true}), false),
            (json!({"nbf": now}), true),
            (json!({"nbf": now - 1}), true),
            (json!({"nbf": now + 1}), false),
            (json!({"nbf": null}), false),
            (json!({"nbf": -1}), false),
            (json!({"nbf": "0"}), false),
            (json!({"exp": now + 1, "nbf": now + 1}), false),
            (json!({"iat": "whatever", "sub": 7}), true),
        ] {
            let mut all = json!({"Allow": ["admin"]});
            all.as_object_mut().expect("an object").extend(claims.as_object().cloned().expect("an object"));
            let key = EncodingKey::from_secret(&auth.secret);
            let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &all, &key).expect("a token");
            let verified = auth.verify_at(&token, Duration::from_secs(now));
            assert_eq!(verified.is_ok(), valid, "{claims}: {verified:?}");
        }
    }

    #[test]
    fn a_worker_may_work_and_nothing_else() {
        let dir = tempfile::tempdir().expect("dir");
        let auth = Auth::open(dir.path()).expect("made");
        auth.write_worker_token(dir.path()).expect("written");
        let path = dir.path().join(WORKER_TOKEN);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let perms = auth.verify(&fs::read_to_string(path).expect("a token")).expect("valid");
        assert!(Perm::Worker.is_given_by(&perms) && Perm::Worker.is_given_by(&Perm::ALL));
        assert!(Perm::ALL.iter().all(|perm| !perm.is_given_by(&perms)));
        assert!(!Perm::Worker.is_given_by(&[Perm::Read, Perm::Write, Perm::Sign]));
    }

    #[test]
    fn tokens_of_others_are_refused() {
        let (ours, theirs) = (Auth::with_secret(vec![7; 32]), Auth::with_secret(vec![8; 32]));
        let token = theirs.token(&Perm::ALL).expect("token");
        assert!(ours.verify(&token).is_err());
        for garbage in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJBbGxvdyI6WyJhZG1pbiJdfQ."] {
            assert!(ours.verify(garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_token_in_lotus_form_is_read() {
        // header {"alg":"HS256","typ":"JWT"}, payload {"Allow":["read","write"]}, signed with 32 zero bytes
        let auth = Auth::with_secret(vec![0; 32]);
        let token = auth.token(&[Perm::Read, Perm::Write]).expect("token");
        let payload = token.split('.').nth(1).expect("three parts");
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        assert_eq!(URL_SAFE_NO_PAD.decode(payload).expect("base64"), br#"{"Allow":["read","write"]}"#);
    }

    #[test]
    fn repo_files_are_written_only_where_they_differ() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("dir");
        let auth = Auth::with_secret(vec![7; 32]);
        let left = |port: u16| {
            auth.write_repo_files(dir.path(), SocketAddr::from(([127, 0, 0, 1], port))).expect("written");
            ["token", "api"].map(|name| fs::metadata(dir.path().join(name)).expect("there").ino())
        };
        let first = left(1234);
        assert_eq!(left(1234), first, "a full disk is no trouble while nothing changes");
        let moved = left(1235);
        assert_eq!((moved[0] == first[0], moved[1] == first[1]), (true, false));
    }

    #[test]
    fn the_secret_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().expect("dir");
        let token = Auth::open(dir.path()).expect("made").token(&[Perm::Read]).expect("token");
        let again = Auth::open(dir.path()).expect("read");
        assert_eq!(again.verify(&token).expect("the same secret"), [Perm::Read]);
        let info = again.write_repo_files(dir.path(), "127.0.0.1:1234".parse().expect("address")).expect("written");
        assert_eq!(fs::read_to_string(dir.path().join("api")).expect("api"), "/ip4/127.0.0.1/tcp/1234/http");
        assert_eq!(info.http_url("v1"), "http://127.0.0.1:1234/rpc/v1");
        for name in [SECRET_FILE, "token"] {
            let mode = fs::metadata(dir.path().join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        fs::write(dir.path().join(SECRET_FILE), "short").expect("write");
        assert!(matches!(Auth::open(dir.path()), Err(AuthError::BadSecret { .. })));
    }
}
