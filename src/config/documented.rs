//! Names of configuration files that operators bring along (`[SealAgent]`, `[API]`), in terms of our own keys.

use super::cluster::is_endpoint;
use super::keys::Key;
use super::translated::{bad, ours, unknown};
use super::{ConfigError, Source, lotus};
use std::net::{IpAddr, SocketAddr};
use toml::{Table, Value};

/// (key of ours, value) for a section that we know under another name; `None` where it is not one of these.
pub fn translate(
    origin: &Source,
    section: &str,
    content: &Table,
) -> Option<Result<Vec<(&'static Key, Value)>, ConfigError>> {
    match section {
        "SealAgent" => Some(seal_agent(origin, content)),
        "API" => Some(api(origin, content)),
        _ => lotus::section(origin, section, content),
    }
}

/// etcd's endpoints, and the address at which the bridge is reached. One port is enough here.
fn seal_agent(origin: &Source, content: &Table) -> Result<Vec<(&'static Key, Value)>, ConfigError> {
    let (mut endpoints, mut ip, mut port) = (None, None, None);
    for (name, value) in content {
        match name.as_str() {
            "EtcdAddrs" => {
                let sound = |v: &Value| v.as_str().is_some_and(is_endpoint);
                if !value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(sound)) {
                    let allowed =
                        "a list of etcd endpoints such as [\"10.0.0.1:2379\"] (client: no endpoints available)";
                    return Err(bad(origin, "SealAgent.EtcdAddrs", value, allowed));
                }
                endpoints = Some(value.clone());
            }
            "ServeIP" => {
                let parsed = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
                ip = Some(parsed.ok_or_else(|| {
                    bad(origin, "SealAgent.ServeIP", value, "the IP address at which the other hosts reach this one")
                })?);
            }
            "ServePort" => {
                let parsed = value.as_integer().and_then(|n| u16::try_from(n).ok()).filter(|port| *port != 0);
                port = Some(parsed.ok_or_else(|| {
                    bad(origin, "SealAgent.ServePort", value, "a port, a whole number from 1 to 65535")
                })?);
            }
            other => {
                let hint = "[SealAgent] has EtcdAddrs, ServeIP, ServePort";
                return Err(unknown(origin, format!("SealAgent.{other}"), hint));
            }
        }
    }
    let mut entries = Vec::new();
    // Who writes this section has agents.
    entries.extend(endpoints.is_some().then(|| ours("sealing.place", "agents".into())).flatten());
    entries.extend(endpoints.and_then(|list| ours("cluster.etcd", list)));
    if let Some(port) = port {
        let at = |ip: IpAddr| {
            let version = if ip.is_ipv4() { "ip4" } else { "ip6" };
            Value::Array(vec![format!("/{version}/{ip}/tcp/{port}").into()])
        };
        let any: IpAddr = match ip {
            Some(IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            Some(IpAddr::V4(_)) | None => std::net::Ipv4Addr::UNSPECIFIED.into(),
        };
        entries.extend(ours("cluster.listen", at(any)));
        // 0.0.0.0 is nowhere to dial: such a node is reached only by what it dials itself
        entries.extend(ip.filter(|ip| !ip.is_unspecified()).and_then(|ip| ours("cluster.announce", at(ip))));
    } else if let Some(ip) = ip {
        let why = "SealAgent.ServePort must be set too".to_string();
        let key = "SealAgent.ServeIP".to_string();
        return Err(ConfigError::Inconsistent { origin: origin.clone(), key, value: format!("\"{ip}\""), why });
    }
    Ok(entries)
}

/// `ListenAddress = "/ip4/10.0.0.1/tcp/2345/http"`.
fn api(origin: &Source, content: &Table) -> Result<Vec<(&'static Key, Value)>, ConfigError> {
    let mut entries = Vec::new();
    for (name, value) in content {
        match name.as_str() {
            "ListenAddress" => {
                let socket = value.as_str().and_then(socket_of).ok_or_else(|| {
                    bad(origin, "API.ListenAddress", value, "a multiaddr such as /ip4/127.0.0.1/tcp/2345/http")
                })?;
                entries.extend(ours("api.listen", socket.to_string().into()));
            }
            "RemoteListenAddress" | "Timeout" => {
                return Err(unknown(origin, format!("API.{name}"), "nothing here needs it: take it out"));
            }
            other => return Err(unknown(origin, format!("API.{other}"), "[API] has ListenAddress")),
        }
    }
    Ok(entries)
}

fn socket_of(text: &str) -> Option<SocketAddr> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["", "ip4" | "ip6", ip, "tcp", port] | ["", "ip4" | "ip6", ip, "tcp", port, "http"] => {
            Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
        }
        _ => None,
    }
}
