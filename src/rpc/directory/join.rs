//! The text that a new host needs to join a cluster: which cluster, which etcd, and what to prove there.
//!
//! Access to the cluster's keys in etcd is what makes a member: whoever can write its record there is let in by the bridges
//! of the others. So the token is a secret where etcd asks for a password or a client certificate, and none where it does not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;

const PREFIX: &str = "bulkhead-join-1.";

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub cluster: String,
    pub endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<(String, String)>,
    /// PEM of the authority that signed etcd's certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// PEM of a client certificate and its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<(String, String)>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token ({why}): print one with `bulkhead cluster join-token` on a node of the cluster")]
pub struct NoToken {
    why: &'static str,
}

impl JoinToken {
    pub fn encode(&self) -> String {
        // A struct of texts always has a JSON form.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    pub fn decode(text: &str) -> Result<JoinToken, NoToken> {
        let body =
            text.trim().strip_prefix(PREFIX).ok_or(NoToken { why: "it does not begin with bulkhead-join-1." })?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| NoToken { why: "a part of it is missing or changed" })?;
        serde_json::from_slice(&json).map_err(|_| NoToken { why: "a part of it is missing or changed" })
    }

    /// Whether it must be kept secret.
    pub fn is_secret(&self) -> bool {
        self.user.is_some() || self.identity.is_some()
    }
}

/// Without what is secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {} at {}", self.cluster, self.endpoints.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_damaged_one_says_what_to_do() {
        let token = JoinToken {
            cluster: "main".into(),
            endpoints: vec!["https://10.0.0.1:2379".into()],
            user: Some(("bulkhead".into(), "s3cret".into())),
            ca: Some("-----BEGIN CERTIFICATE-----".into()),
            identity: None,
        };
        let text = token.encode();
        assert_eq!(JoinToken::decode(&format!(" {text}\n")), Ok(token.clone()));
        assert!(token.is_secret() && !JoinToken { user: None, ..token.clone() }.is_secret());
        assert!(!format!("{token:?}").contains("s3cret"));
        for bad in ["", "main", &text[1..], &text[..text.len() - 3], &format!("{PREFIX}e30")] {
            assert!(JoinToken::decode(bad).unwrap_err().to_string().contains("cluster join-token"), "{bad:?}");
        }
    }
}
