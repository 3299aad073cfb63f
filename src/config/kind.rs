//! The type of a key's value, and its parsing from text or from a file.

use super::{cluster, values};
use std::time::Duration;

/// The type of a key's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Between these, both included.
    Duration(Duration, Duration),
    Int(i64, i64),
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// `ip:port`.
    Socket,
    Path,
    /// A text that the check accepts; the first field says what is allowed.
    Text(&'static str, fn(&str) -> bool),
    /// Texts that the check accepts each; in the environment separated by commas.
    List(&'static str, fn(&str) -> bool),
    /// `[[cluster.peer]]`; in the environment a TOML array of tables.
    Peers,
}

impl Kind {
    /// The allowed values, for error texts and the example.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Duration(min, max) => {
                let f = values::format_duration;
                format!("a duration from {} to {}, such as 10s, 1m30s, 500ms", f(*min), f(*max))
            }
            Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Choice(names) => format!("one of {}", names.join(", ")),
            Kind::Bool => "true or false".to_string(),
            Kind::Socket => "ip:port, such as 127.0.0.1:2345".to_string(),
            Kind::Path => "a path".to_string(),
            Kind::Text(allowed, _) | Kind::List(allowed, _) => allowed.to_string(),
            Kind::Peers => "tables of name, peer_id, addrs (multiaddrs), roles".to_string(),
        }
    }

    /// Text from the environment or a flag.
    pub fn parse(&self, text: &str) -> Option<toml::Value> {
        let text = text.trim();
        match self {
            Kind::Duration(min, max) => {
                let d = values::parse_duration(text).filter(|d| (min..=max).contains(&d))?;
                Some(toml::Value::String(values::format_duration(d)))
            }
            Kind::Int(min, max) => {
                text.parse::<i64>().ok().filter(|n| (min..=max).contains(&n)).map(toml::Value::Integer)
            }
            Kind::Choice(names) => names.contains(&text).then(|| text.into()),
            Kind::Bool => text.parse::<bool>().ok().map(toml::Value::Boolean),
            Kind::Socket => text.parse::<std::net::SocketAddr>().ok().map(|at| at.to_string().into()),
            Kind::Path => (!text.is_empty() && !text.contains('\0')).then(|| text.into()),
            Kind::Text(_, check) => check(text).then(|| text.into()),
            Kind::List(_, check) => {
                let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                items.iter().all(|item| check(item)).then(|| items.into())
            }
            Kind::Peers => {
                let mut table = toml::from_str::<toml::Table>(&format!("v = {text}")).ok()?;
                self.accept(&table.remove("v")?)
            }
        }
    }

    /// A value from a file.
    pub fn accept(&self, value: &toml::Value) -> Option<toml::Value> {
        match (self, value) {
            (Kind::Int(..), toml::Value::Integer(n)) => self.parse(&n.to_string()),
            (Kind::Duration(..), toml::Value::Integer(n)) => self.parse(&n.to_string()),
            (Kind::Duration(..), toml::Value::Float(n)) => self.parse(&format!("{n}s")),
            (Kind::Int(..), _) => None,
            (Kind::Bool, toml::Value::Boolean(_)) => Some(value.clone()),
            (Kind::Bool, _) => None,
            (Kind::List(_, check), toml::Value::Array(items)) => {
                items.iter().all(|item| item.as_str().is_some_and(check)).then(|| value.clone())
            }
            (Kind::List(..), _) => None,
            (Kind::Peers, _) => toml::Value::try_from(cluster::accept_peers(value)?).ok(),
            (_, toml::Value::String(text)) => self.parse(text),
            _ => None,
        }
    }
}
