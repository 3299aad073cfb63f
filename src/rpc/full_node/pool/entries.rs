//! The full nodes that a provider is told of: the lists of `FULLNODE_API_INFO` and `FULLNODE_API_POOL_INFO`.

use crate::rpc::api_info::{ApiInfo, ApiInfoError};

/// One full node of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEntry {
    pub info: ApiInfo,
    /// How an operator knows it: the third part of an entry, else `host:port`.
    pub host: String,
}

impl PoolEntry {
    pub fn of(info: ApiInfo) -> PoolEntry {
        PoolEntry { host: info.name(), info }
    }

    /// `<token>:<address>` or `<token>:<address>:<hostname>`.
    pub fn parse(variable: &str, text: &str) -> Result<PoolEntry, ApiInfoError> {
        let (text, host) = split_hostname(text.trim());
        let info = ApiInfo::parse(variable, text)?;
        Ok(PoolEntry { host: host.map_or_else(|| info.name(), str::to_string), info })
    }

    /// A list with `,` or `;` between its entries; empty entries are passed over, and of two with the same address the
    /// first counts.
    pub fn parse_list(variable: &str, text: &str) -> Result<Vec<PoolEntry>, ApiInfoError> {
        let text = ApiInfo::pasted(text);
        let parts = text.split([',', ';']).map(str::trim).filter(|part| !part.is_empty());
        let mut entries: Vec<PoolEntry> = Vec::new();
        for part in parts {
            let entry = PoolEntry::parse(variable, part)?;
            if !entries.iter().any(|other| other.info.name() == entry.info.name()) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// As `FULLNODE_API_POOL_INFO` takes it, token included: for a private file, never for a log.
    pub fn secret_text(&self) -> String {
        match self.host == self.info.name() {
            true => self.info.secret_text(),
            false => format!("{}:{}", self.info.secret_text(), self.host),
        }
    }
}

/// The hostname behind the address: after the last colon, where that is no part of the address itself.
fn split_hostname(text: &str) -> (&str, Option<&str>) {
    let Some((before, last)) = text.rsplit_once(':') else { return (text, None) };
    let is_name = !last.is_empty()
        && last.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !last.bytes().all(|b| b.is_ascii_digit());
    // `/ip4/…` of a multiaddress, or `http://host:port` of a URL, stands whole before the name.
    let address = before.find("://").map(|at| &before[at + 3..]);
    let is_whole = match address {
        Some(authority) => {
            authority.split('/').next().is_some_and(|host| host.contains(':')) || authority.contains('/')
        }
        None => before.contains("/tcp/"),
    };
    if is_name && is_whole { (before, Some(last)) } else { (text, None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_the_pools_manual_writes_them() {
        let list = |text| PoolEntry::parse_list("FULLNODE_API_POOL_INFO", text).map_err(|e| e.to_string());
        let told = |text| -> Vec<(String, String, Option<String>)> {
            list(text).unwrap().into_iter().map(|e| (e.host, e.info.http_url("v1"), e.info.token)).collect()
        };
        let row = |host: &str, url: &str, token: Option<&str>| (host.into(), url.into(), token.map(str::to_string));
        for (text, expected) in [
            (
                "a.b.c:/ip4/192.168.2.205/tcp/1234/http:daemon_01,d:/ip4/192.168.2.206/tcp/1234/http:daemon_02",
                vec![
                    row("daemon_01", "http://192.168.2.205:1234/rpc/v1", Some("a.b.c")),
                    row("daemon_02", "http://192.168.2.206:1234/rpc/v1", Some("d")),
                ],
            ),
            (
                "FULLNODE_API_POOL_INFO=t:/ip4/10.0.0.1/tcp/1/http:x;t:/ip4/10.0.0.2/tcp/1/http:y",
                vec![row("x", "http://10.0.0.1:1/rpc/v1", Some("t")), row("y", "http://10.0.0.2:1/rpc/v1", Some("t"))],
            ),
            ("t:http://node:1234", vec![row("node:1234", "http://node:1234/rpc/v1", Some("t"))]),
            ("t:http://node:1234:n1", vec![row("n1", "http://node:1234/rpc/v1", Some("t"))]),
            ("t:wss://node:443/x:n1", vec![row("n1", "https://node:443/x/rpc/v1", Some("t"))]),
            ("http://[::1]:2", vec![row("[::1]:2", "http://[::1]:2/rpc/v1", None)]),
            ("t:/dns4/n/tcp/443/wss", vec![row("n:443", "https://n:443/rpc/v1", Some("t"))]),
            (
                "t:/ip4/1.1.1.1/tcp/1/http,,u:/ip4/1.1.1.1/tcp/1/http:twice;",
                vec![row("1.1.1.1:1", "http://1.1.1.1:1/rpc/v1", Some("t"))],
            ),
            ("", vec![]),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        for text in ["t:/ip4/1.1.1.1/tcp/1/http:a,nonsense", "t:daemon_01", "t:/ip4/1.1.1.1/tcp/1/http:a b"] {
            let said = list(text).expect_err(text);
            assert!(said.starts_with("FULLNODE_API_POOL_INFO: ") && !said.contains("t:/"), "{text}: {said}");
        }
        let entry = &list("sesame:/ip4/1.1.1.1/tcp/1/http:n").unwrap()[0];
        assert_eq!(entry.secret_text(), "sesame:/ip4/1.1.1.1/tcp/1/http:n");
        assert!(!format!("{entry:?}").contains("sesame"));
    }
}
