//! A record type and its table.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record type and where it lives.
pub trait Record: Serialize + DeserializeOwned {
    const TABLE: &'static str;
    const SCHEMA: u16 = 1;

    /// Reads the body of an older schema with [`super::read_body`]; `None`: not known, which is refused.
    fn read_older(_schema: u16, _body: &[u8]) -> Option<Result<Self, String>> {
        None
    }
}

/// Says why a row of that table cannot be read. (table, key, value with its schema number.)
pub type RowCheck = fn(&str, &str, &[u8]) -> Result<(), String>;
