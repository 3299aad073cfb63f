//! Callers that behave badly, over real sockets, and what they cost the process that they call.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// For an answer that comes at once, on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

pub fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Connections that say nothing. A surface may refuse or close them.
pub fn silent(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).filter_map(|_| TcpStream::connect_timeout(&addr, SOON).ok()).collect()
}

/// As [`silent`], each with some bytes sent: as many as the other side takes without a pause.
pub fn sending(addr: SocketAddr, count: usize, head: &str, body: &[u8]) -> Vec<TcpStream> {
    let mut open = silent(addr, count);
    for stream in &mut open {
        let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        drop(sent); // a surface may close it meanwhile
    }
    open
}

pub const UPGRADE: &str = "GET /rpc/v1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Sends `bytes` and reads to the end of the answer; `None`: none came in time.
pub fn answer(addr: SocketAddr, bytes: &[u8], within: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&addr, within).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    stream.write_all(bytes).ok()?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
            Err(_) if answer.is_empty() => return None,
            Err(_) => break,
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if length.is_some_and(|length: usize| body.len() >= length) {
            break;
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The status of an HTTP request with these headers and this body.
#[track_caller]
pub fn status(addr: SocketAddr, line: &str, headers: &[&str], body: &str) -> u16 {
    let answer = http(addr, line, headers, body);
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{line}: no status in {answer:?}"))
}

#[track_caller]
pub fn http(addr: SocketAddr, line: &str, headers: &[&str], body: &str) -> String {
    try_http(addr, line, headers, body).unwrap_or_else(|| panic!("no answer to {line}"))
}

fn try_http(addr: SocketAddr, line: &str, headers: &[&str], body: &str) -> Option<String> {
    let length = format!("Content-Length: {}", body.len());
    let lines = [line]
        .iter()
        .chain(headers)
        .copied()
        .chain(["Content-Type: application/json", length.as_str(), "", body])
        .collect::<Vec<_>>();
    answer(addr, lines.join("\r\n").as_bytes(), SOON)
}

/// Calls a method of a JSON-RPC server; the answer's text.
#[track_caller]
pub fn call(addr: SocketAddr, token: Option<&str>, method: &str, params: &str) -> String {
    try_call(addr, token, method, params).unwrap_or_else(|| panic!("no answer to {method}"))
}

/// `None`: the connection was closed without an answer, as a full surface may close any stranger's.
pub fn try_call(addr: SocketAddr, token: Option<&str>, method: &str, params: &str) -> Option<String> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"Filecoin.{method}","params":{params}}}"#);
    let bearer = token.map(|token| format!("Authorization: Bearer {token}"));
    let headers: Vec<&str> = ["Host: localhost"].into_iter().chain(bearer.as_deref()).collect();
    try_http(addr, "POST /rpc/v1 HTTP/1.1", &headers, &body)
}

/// Files that a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

/// The resident memory of a process, in MB.
pub fn resident_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") / 1024
}

/// So that this process can hold many sockets.
pub fn raise_own_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).expect("raised");
}
