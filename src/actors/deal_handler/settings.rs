//! Operator settings of the market host, checked before anything starts.

use super::ask::AskTerms;
use crate::chain::lotus_json as lj;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};

/// The `[market]` section.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct MarketSettings {
    /// Multiaddrs to listen on; port 0 takes any free one.
    pub listen: Vec<String>,
    /// Established connections, all peers together.
    pub max_connections: u32,
    pub max_connections_per_peer: u32,
    /// Connections whose handshake is under way.
    pub max_pending_connections: u32,
    /// For one ask, from the first byte of the request to the last of the answer.
    pub request_timeout_secs: u64,
    /// A connection that nobody uses is closed after this time.
    pub idle_timeout_secs: u64,
    pub ask: AskSettings,
}

/// The `[market.ask]` section: prices in attoFIL per GiB and epoch, piece sizes in padded bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct AskSettings {
    #[serde(with = "lj::token")]
    pub price: TokenAmount,
    #[serde(with = "lj::token")]
    pub verified_price: TokenAmount,
    pub min_piece_size: u64,
    /// The sector size when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_piece_size: Option<u64>,
    /// Epochs for which an ask holds; a new one is signed before it ends.
    pub duration: ChainEpoch,
}

impl Default for MarketSettings {
    fn default() -> Self {
        MarketSettings {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_string()],
            max_connections: 128,
            max_connections_per_peer: 4,
            max_pending_connections: 32,
            request_timeout_secs: 10,
            idle_timeout_secs: 60,
            ask: AskSettings::default(),
        }
    }
}

impl Default for AskSettings {
    fn default() -> Self {
        AskSettings {
            price: TokenAmount::from_atto(500_000_000),
            verified_price: TokenAmount::from_atto(50_000_000),
            min_piece_size: 256,
            max_piece_size: None,
            duration: 1_000_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("market.{field}: {why}")]
pub struct SettingError {
    pub field: &'static str,
    pub why: String,
}

fn refuse<T>(field: &'static str, why: impl Into<String>) -> Result<T, SettingError> {
    Err(SettingError { field, why: why.into() })
}

impl MarketSettings {
    pub fn listen_addrs(&self) -> Result<Vec<Multiaddr>, SettingError> {
        if self.listen.is_empty() {
            return refuse("listen", "give at least one address, such as /ip4/127.0.0.1/tcp/0");
        }
        let parse = |text: &String| match text.parse::<Multiaddr>() {
            Ok(addr) => Ok(addr),
            Err(e) => refuse("listen", format!("{text:?} is not a multiaddr: {e}")),
        };
        self.listen.iter().map(parse).collect()
    }

    pub fn terms(&self, sector_size: u64) -> Result<AskTerms, SettingError> {
        let ask = &self.ask;
        let max = ask.max_piece_size.unwrap_or(sector_size);
        let zero = TokenAmount::from_atto(0);
        for (field, price) in [("ask.price", &ask.price), ("ask.verified_price", &ask.verified_price)] {
            if *price < zero {
                return refuse(field, "a price is not negative");
            }
        }
        // The smallest padded piece that the network knows is 128 bytes.
        for (field, size) in [("ask.min_piece_size", ask.min_piece_size), ("ask.max_piece_size", max)] {
            if size < 128 || !size.is_power_of_two() {
                return refuse(field, format!("{size} is not a padded piece size: a power of two from 128 up"));
            }
        }
        if ask.min_piece_size > max {
            return refuse("ask.min_piece_size", format!("{} is above the largest piece, {max}", ask.min_piece_size));
        }
        if max > sector_size {
            return refuse("ask.max_piece_size", format!("{max} does not fit a sector of {sector_size}"));
        }
        if ask.duration < 1 {
            return refuse("ask.duration", "at least one epoch");
        }
        Ok(AskTerms {
            price: ask.price.clone(),
            verified_price: ask.verified_price.clone(),
            min_piece_size: ask.min_piece_size,
            max_piece_size: max,
            duration: ask.duration,
        })
    }

    /// Everything that can be told to be wrong without starting.
    pub fn check(&self, sector_size: u64) -> Result<(), SettingError> {
        self.listen_addrs()?;
        for (field, limit) in [
            ("max_connections", self.max_connections),
            ("max_connections_per_peer", self.max_connections_per_peer),
            ("max_pending_connections", self.max_pending_connections),
        ] {
            if limit == 0 {
                return refuse(field, "at least 1");
            }
        }
        if self.request_timeout_secs == 0 {
            return refuse("request_timeout_secs", "at least 1");
        }
        self.terms(sector_size).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_settings_are_named() {
        type Change = fn(&mut MarketSettings);
        let cases: &[(Change, Option<&str>)] = &[
            (|_| {}, None),
            (|s| s.listen.clear(), Some("listen")),
            (|s| s.listen = vec!["127.0.0.1:80".into()], Some("listen")),
            (|s| s.max_connections = 0, Some("max_connections")),
            (|s| s.max_connections = 1, None),
            (|s| s.max_connections_per_peer = 0, Some("max_connections_per_peer")),
            (|s| s.max_pending_connections = 0, Some("max_pending_connections")),
            (|s| s.request_timeout_secs = 0, Some("request_timeout_secs")),
            (|s| s.ask.price = TokenAmount::from_atto(-1), Some("ask.price")),
            (|s| s.ask.price = TokenAmount::from_atto(0), None),
            (|s| s.ask.verified_price = TokenAmount::from_atto(-1), Some("ask.verified_price")),
            (|s| s.ask.min_piece_size = 127, Some("ask.min_piece_size")),
            (|s| s.ask.min_piece_size = 128, None),
            (|s| s.ask.min_piece_size = 129, Some("ask.min_piece_size")),
            (|s| s.ask.min_piece_size = 2048, None),
            (|s| s.ask.min_piece_size = 4096, Some("ask.min_piece_size")),
            (|s| s.ask.max_piece_size = Some(1024), None),
            (|s| s.ask.max_piece_size = Some(4096), Some("ask.max_piece_size")),
            (|s| s.ask.duration = 0, Some("ask.duration")),
            (|s| s.ask.duration = 1, None),
        ];
        for (i, (change, want)) in cases.iter().enumerate() {
            let mut settings = MarketSettings::default();
            change(&mut settings);
            assert_eq!(settings.check(2048).err().map(|e| e.field), *want, "case {i}");
        }
    }

    #[test]
    fn settings_go_through_toml() {
        let text = toml::to_string(&MarketSettings::default()).unwrap();
        assert_eq!(toml::from_str::<MarketSettings>(&text).unwrap(), MarketSettings::default());
        assert!(toml::from_str::<MarketSettings>("lisen = []").unwrap_err().to_string().contains("lisen"));
    }
}
