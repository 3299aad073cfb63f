//! The address and token of a node's API: the `<token>:<address>` strings of `FULLNODE_API_INFO` and its kin.
//!
//! The whole line that `lotus auth api-info` prints is taken, too, as are quotes and an `export` around it.

use reqwest::Url;
use std::net::{IpAddr, SocketAddr};

/// One API endpoint. Its debug form hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiInfo {
    pub token: Option<String>,
    pub tls: bool,
    /// A name or an address, IPv6 in brackets.
    pub host: String,
    pub port: u16,
    /// The path before `/rpc/v1`; mostly empty.
    pub prefix: String,
}

#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error(
    "{variable}: {address:?} {why}; give <token>:/ip4/127.0.0.1/tcp/1234/http or an http://, https://, ws:// or wss:// URL"
)]
pub struct ApiInfoError {
    /// The environment variable or setting that held the string.
    pub variable: String,
    /// The address part only: the token stays secret.
    pub address: String,
    pub why: String,
}

impl std::fmt::Debug for ApiInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = if self.token.is_some() { "<token>:" } else { "" };
        write!(f, "{token}{}", self.url("http", ""))
    }
}

impl ApiInfo {
    /// `variable` is the name that errors show, such as `FULLNODE_API_INFO`.
    pub fn parse(variable: &str, text: &str) -> Result<ApiInfo, ApiInfoError> {
        let (token, address) = split_token(pasted(text));
        let fail = |why: &str| ApiInfoError { variable: variable.into(), address: address.into(), why: why.into() };
        if token.is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic() && !QUOTES.contains(&b))) {
            return Err(fail("has a token with characters that no token has"));
        }
        let place = if address.is_empty() {
            return Err(fail("has no address"));
        } else if address.starts_with('/') {
            from_multiaddr(address)
        } else {
            from_url(address)
        };
        Ok(ApiInfo { token: token.map(str::to_string), ..place.map_err(|why| fail(&why))? })
    }

    /// The text inside a line of a shell that sets a variable.
    pub fn pasted(text: &str) -> &str {
        pasted(text)
    }

    /// Our own API, for a client on this machine.
    pub fn local(addr: SocketAddr, token: Option<String>) -> ApiInfo {
        ApiInfo { token, tls: false, host: host_of(addr.ip()), port: addr.port(), prefix: String::new() }
    }

    /// As `FULLNODE_API_INFO` takes it, token included: for a private file, never for a log.
    pub fn secret_text(&self) -> String {
        let token = self.token.as_ref().map(|token| format!("{token}:")).unwrap_or_default();
        match self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) if !self.tls && self.prefix.is_empty() => {
                let version = if ip.is_ipv4() { "ip4" } else { "ip6" };
                format!("{token}/{version}/{ip}/tcp/{}/http", self.port)
            }
            _ => format!("{token}{}", self.url("http", "")),
        }
    }

    /// `host:port`, as logs and errors name the node.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// `version` is `v0` or `v1`.
    pub fn http_url(&self, version: &str) -> String {
        self.url("http", &format!("/rpc/{version}"))
    }

    pub fn ws_url(&self, version: &str) -> String {
        self.url("ws", &format!("/rpc/{version}"))
    }

    /// Loopback traffic never goes through a proxy.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        let s = if self.tls { "s" } else { "" };
        format!("{scheme}{s}://{}:{}{}{path}", self.host, self.port, self.prefix)
    }
}

fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

const QUOTES: [u8; 3] = [b'"', b'\'', b'`'];

/// The string inside a line of a shell: `export FULLNODE_API_INFO="<token>:<address>"`.
fn pasted(text: &str) -> &str {
    let text = unquoted(text);
    let text = text.strip_prefix("export ").map_or(text, |rest| unquoted(rest));
    let is_variable = |name: &str| {
        name.ends_with("INFO") && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    match text.split_once('=') {
        Some((name, value)) if is_variable(name.trim()) => unquoted(value),
        _ => text,
    }
}

/// Without a pair of quotes around it.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = QUOTES.iter().find_map(|quote| {
        let quote = char::from(*quote);
        text.strip_prefix(quote)?.strip_suffix(quote)
    });
    inner.map_or(text, str::trim)
}

/// As lotus `cli/util/apiinfo.go`: the colon of a URL's scheme, or one inside a multiaddress, ends no token.
fn split_token(text: &str) -> (Option<&str>, &str) {
    if text.starts_with('/') {
        return (None, text);
    }
    match text.split_once(':') {
        Some((token, address)) if !address.starts_with("//") => (Some(token).filter(|t| !t.is_empty()), address),
        _ => (None, text),
    }
}

fn from_multiaddr(text: &str) -> Result<ApiInfo, String> {
    let parts: Vec<&str> = text.trim_end_matches('/').split('/').skip(1).collect();
    let [kind, host, "tcp", port, rest @ ..] = parts.as_slice() else {
        return Err("is not /<ip4|ip6|dns|dns4|dns6>/<host>/tcp/<port>[/http|/https|/ws|/wss]".into());
    };
    let host = match *kind {
        "ip4" => host
            .parse::<std::net::Ipv4Addr>()
            .map_err(|_| format!("names {host:?}, which is no IPv4 address"))?
            .to_string(),
        "ip6" => format!(
            "[{}]",
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("names {host:?}, which is no IPv6 address"))?
        ),
        "dns" | "dns4" | "dns6" if !host.is_empty() => host.to_string(),
        other => return Err(format!("starts with {other:?} instead of ip4, ip6, dns, dns4 or dns6")),
    };
    let port = port_of(port)?;
    let tls = match rest {
        [] | ["http"] | ["ws"] => false,
        ["https"] | ["wss"] | ["tls"] | ["tls", "http" | "ws"] => true,
        other => return Err(format!("ends with {:?} instead of http, https, ws or wss", other.join("/"))),
    };
    Ok(ApiInfo { token: None, tls, host, port, prefix: String::new() })
}

fn port_of(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("names {text:?}, which is no port from 1 to 65535")),
    }
}

fn from_url(text: &str) -> Result<ApiInfo, String> {
    let url = Url::parse(text).map_err(|e| format!("is neither a multiaddress nor a URL ({e})"))?;
    let tls = match url.scheme() {
        "http" | "ws" => false,
        "https" | "wss" => true,
        other => return Err(format!("has the scheme {other:?}")),
    };
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or("has no host")?.to_string();
    let port = url.port_or_known_default().filter(|p| *p > 0).ok_or("has no port")?;
    // people paste the whole endpoint; Lotus' own strings stop before /rpc/vN
    let path = url.path().trim_end_matches('/');
    let prefix = ["/rpc/v0", "/rpc/v1", "/rpc/v2"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    Ok(ApiInfo { token: None, tls, host, port, prefix: prefix.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_operators_use() {
        let cases = [
            ("tok:/ip4/127.0.0.1/tcp/1234/http", Some("tok"), "http://127.0.0.1:1234/rpc/v1"),
            (" tok:/ip4/127.0.0.1/tcp/1234/http \n", Some("tok"), "http://127.0.0.1:1234/rpc/v1"),
            ("/ip4/10.0.0.7/tcp/1/", None, "http://10.0.0.7:1/rpc/v1"),
            (":/ip4/10.0.0.7/tcp/65535/ws", None, "http://10.0.0.7:65535/rpc/v1"),
            ("a.b-c_d:/dns4/api.example.org/tcp/443/https", Some("a.b-c_d"), "https://api.example.org:443/rpc/v1"),
            ("/dns/node/tcp/443/tls/http", None, "https://node:443/rpc/v1"),
            ("t:/ip6/::1/tcp/1234/http", Some("t"), "http://[::1]:1234/rpc/v1"),
            ("/ip6/::1/tcp/1234", None, "http://[::1]:1234/rpc/v1"),
            ("http://127.0.0.1:1234", None, "http://127.0.0.1:1234/rpc/v1"),
            ("tok:http://[::1]:1234/", Some("tok"), "http://[::1]:1234/rpc/v1"),
            ("ws://localhost:1234/rpc/v0", None, "http://localhost:1234/rpc/v1"),
            ("https://api.node.glif.io/rpc/v1", None, "https://api.node.glif.io:443/rpc/v1"),
            ("wss://host/behind/proxy/rpc/v1/", None, "https://host:443/behind/proxy/rpc/v1"),
            ("FULLNODE_API_INFO=tok:/ip4/127.0.0.1/tcp/1234/http\n", Some("tok"), "http://127.0.0.1:1234/rpc/v1"),
            ("export FULLNODE_API_INFO=tok:/ip4/127.0.0.1/tcp/1234/http", Some("tok"), "http://127.0.0.1:1234/rpc/v1"),
            ("MINER_API_INFO=\"tok:/ip4/127.0.0.1/tcp/2345/http\"", Some("tok"), "http://127.0.0.1:2345/rpc/v1"),
            ("export MINER_API_INFO='tok:http://[::1]:2345'", Some("tok"), "http://[::1]:2345/rpc/v1"),
            ("\"FULLNODE_API_INFO=tok:/dns/node/tcp/443/wss\"", Some("tok"), "https://node:443/rpc/v1"),
            ("'tok:/ip4/127.0.0.1/tcp/1234/http'", Some("tok"), "http://127.0.0.1:1234/rpc/v1"),
            ("FULLNODE_API_INFO=/ip4/10.0.0.7/tcp/1", None, "http://10.0.0.7:1/rpc/v1"),
            ("b64=:/ip4/127.0.0.1/tcp/1234/http", Some("b64="), "http://127.0.0.1:1234/rpc/v1"),
            ("MINER_AGENT_APIINFO=t:http://h:1", Some("t"), "http://h:1/rpc/v1"),
        ];
        for (text, token, url) in cases {
            let info = ApiInfo::parse("FULLNODE_API_INFO", text).expect(text);
            assert_eq!(info.token.as_deref(), token, "{text}");
            assert_eq!(info.http_url("v1"), url, "{text}");
            assert_eq!(info.ws_url("v1"), url.replacen("http", "ws", 1), "{text}");
            assert_eq!(ApiInfo::parse("X", &info.secret_text()), Ok(info), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_variable_and_keep_the_token_secret() {
        let cases = [
            ("", "has no address"),
            ("sesame:", "has no address"),
            ("sesame", "neither a multiaddress nor a URL"),
            ("sesame:/ip4/127.0.0.1/tcp/0/http", "no port"),
            ("sesame:/ip4/127.0.0.1/tcp/65536/http", "no port"),
            ("sesame:/ip4/localhost/tcp/1234/http", "no IPv4 address"),
            ("sesame:/ip4/127.0.0.1/udp/1234/quic", "is not /<ip4"),
            ("sesame:/unix/tmp/tcp/1", "starts with"),
            ("sesame:/ip4/127.0.0.1/tcp/1234/ftp", "ends with"),
            ("sesame:ftp://host:1", "scheme"),
            ("ses ame:/ip4/127.0.0.1/tcp/1234/http", "token"),
            ("\"sesame:/ip4/127.0.0.1/tcp/1234/http", "token"),
            ("FULLNODE_API_INFO=sesame:", "has no address"),
            ("export FULLNODE_API_INFO=\"\"", "has no address"),
        ];
        for (text, why) in cases {
            let said = ApiInfo::parse("FULLNODE_API_INFO", text).expect_err(text).to_string();
            assert!(said.starts_with("FULLNODE_API_INFO: ") && said.contains(why), "{text}: {said}");
            assert!(text == "sesame" || !said.contains("sesame"), "{text}: {said}");
        }
        let shown = format!("{:?}", ApiInfo::parse("X", "sesame:/ip4/127.0.0.1/tcp/1/http").expect("valid"));
        assert!(!shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn loopback_is_known() {
        for (text, expected) in
            [("/ip4/127.0.0.1/tcp/1/http", true), ("http://[::1]:2", true), ("/dns4/far/tcp/3", false)]
        {
            assert_eq!(ApiInfo::parse("X", text).expect(text).is_loopback(), expected, "{text}");
        }
    }
}
