//! The shared part of the translations of other programs' keys: a value in terms of ours, and why one is refused.

use super::keys::{self, Key};
use super::{ConfigError, Source};
use toml::Value;

pub(super) fn bad(origin: &Source, key: &str, value: &Value, allowed: &str) -> ConfigError {
    ConfigError::BadValue {
        origin: origin.clone(),
        key: key.to_string(),
        value: value.to_string(),
        allowed: format!("it takes {allowed}"),
    }
}

pub(super) fn unknown(origin: &Source, key: String, hint: &str) -> ConfigError {
    ConfigError::UnknownKey { origin: origin.clone(), key, hint: hint.to_string() }
}

/// `None`: our key does not take that value.
pub(super) fn ours(path: &'static str, value: Value) -> Option<(&'static Key, Value)> {
    let key = keys::find(path)?;
    Some((key, key.kind.accept(&value)?))
}
