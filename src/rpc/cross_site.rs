//! Requests that a web page of another site makes a browser send: refused unless they show a token, which no such page has.
//!
//! A page can send to any address, and with a DNS name that it points at this host (rebinding) read the answer too. So the
//! `Host` must be one that no stranger can point elsewhere, and an `Origin` must be the surface itself.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use std::net::IpAddr;

/// Why a request without a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrossSite {
    #[error(
        "the Host header names a host that this API is not known by: call it by IP address, by localhost or by this host's own name, or send a token"
    )]
    Host,
    #[error("a web page of another origin may not call this API without a token")]
    Origin,
}

/// The check of a request without a valid token.
pub fn check(request: &HttpRequest) -> Result<(), CrossSite> {
    let own = own_name();
    check_headers(request.headers(), request.uri().host(), own.trim())
}

fn check_headers(headers: &HeaderMap, target: Option<&str>, own: &str) -> Result<(), CrossSite> {
    let all = |name: HeaderName| headers.get_all(name).map(|value| value.to_str().unwrap_or("not.text"));
    if !all(HOST).chain(target).all(|host| is_ours(name_of(host), own)) {
        return Err(CrossSite::Host);
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let same = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.zip(host).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host))
    };
    if !all(ORIGIN).all(same) {
        return Err(CrossSite::Origin);
    }
    Ok(())
}

/// Without the port; an IPv6 address without its brackets.
fn name_of(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

/// An address, this machine, or a name without a dot: public DNS has none of these.
fn is_ours(name: &str, own: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.eq_ignore_ascii_case(own)
}

fn own_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn only_names_that_no_stranger_controls() {
        let (ours, host, origin) = (Ok(()), Err(CrossSite::Host), Err(CrossSite::Origin));
        type Case<'a> = (&'a [&'a str], &'a [&'a str], Result<(), CrossSite>);
        let cases: [Case<'_>; 19] = [
            (&[], &[], ours),
            (&["127.0.0.1:2345"], &[], ours),
            (&["127.0.0.1"], &[], ours),
            (&["[::1]:2345"], &[], ours),
            (&["10.1.2.3:2345"], &[], ours),
            (&["localhost:2345"], &[], ours),
            (&["LOCALHOST."], &[], ours),
            (&["bulkhead:2345"], &[], ours),
            (&["sp1.example.com:2345"], &[], ours),
            (&["evil.example:2345"], &[], host),
            (&["127.0.0.1.nip.io"], &[], host),
            (&["127.0.0.1", "evil.example"], &[], host),
            (&["evil.example:2345"], &["http://evil.example:2345"], host),
            (&["127.0.0.1:2345"], &["http://127.0.0.1:2345"], ours),
            (&["127.0.0.1:2345"], &["http://127.0.0.1:8080"], origin),
            (&["127.0.0.1:2345"], &["http://evil.example"], origin),
            (&["127.0.0.1:2345"], &["null"], origin),
            (&["127.0.0.1:2345"], &["http://127.0.0.1:2345", "http://evil.example"], origin),
            (&[], &["http://127.0.0.1:2345"], origin),
        ];
        for (hosts, origins, want) in cases {
            let mut headers = HeaderMap::new();
            for (name, values) in [(HOST, hosts), (ORIGIN, origins)] {
                for value in values {
                    headers.append(name.clone(), HeaderValue::from_str(value).expect("a header"));
                }
            }
            assert_eq!(check_headers(&headers, None, "sp1.example.com"), want, "{hosts:?} {origins:?}");
        }
        assert_eq!(check_headers(&HeaderMap::new(), Some("evil.example"), ""), host, "an absolute request target");
    }
}
