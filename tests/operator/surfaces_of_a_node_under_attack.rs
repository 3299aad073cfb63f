//! All surfaces of a real node at once, held by callers that use none of them: health, API and admin answer others, and
//! the descriptors that provers need stay free.

use crate::support::operator::*;
use crate::support::sockets::*;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const FILES: u64 = 800;

/// Where the node in `repo` listens: API, admin HTTP.
fn surfaces(repo: &Path) -> (SocketAddr, SocketAddr) {
    let read = |name: &str| std::fs::read_to_string(repo.join(name)).expect(name);
    let port = |multiaddr: &str| -> u16 {
        let after = multiaddr.split("/tcp/").nth(1).expect("a TCP port");
        after.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
    };
    let admin = read("admin");
    let admin = admin.trim().trim_start_matches("http://").parse().unwrap_or_else(|_| panic!("{admin}"));
    (at(port(&read("api"))), admin)
}

#[test]
fn callers_that_hold_every_surface_keep_nobody_out() {
    raise_own_limit();
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let repo = dir.path().join("repo");
    chain.init(&repo);
    let market = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let listen = format!("/ip4/127.0.0.1/tcp/{}", market.port());
    let command = run_command(&repo, &chain.api_info(), &["--market-listen", &listen]);
    let mut node = Running::of(with_few_files(command, FILES));
    node.says("the node is up");
    let (api, admin) = surfaces(&repo);
    let token = std::fs::read_to_string(repo.join("token")).expect("its token");

    let held = [
        silent(market, 120),
        silent(admin, 300),
        sending(admin, 100, "GET /metrics HTTP/1.1\r\nX: ", b"x"),
        sending(admin, 40, "", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200).as_bytes()),
        sending(api, 300, UPGRADE, b""),
        silent(api, 100),
    ];
    let began = Instant::now();
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(status(admin, &format!("GET {path} HTTP/1.1"), &["Host: localhost"], ""), 200, "{path}");
    }
    let answer = call(api, Some(&token), "ActorAddress", "[]");
    assert!(answer.contains("01000"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let open = open_files(node.pid()) as u64;
    assert!(open <= FILES * 5 / 8, "{open} of {FILES} files are open");
    // A prover starts, with its pipes, files and threads, and gives its result.
    ask(&repo, &["sectors", "pledge"]);
    until("a sector past its first prover", || {
        let sectors = ask(&repo, &["sectors", "list"]).to_string();
        assert!(!sectors.contains("Too many open files"), "{sectors}");
        ["PC2", "PreCommit", "Committed", "WaitSeed"].iter().any(|phase| sectors.contains(phase)).then_some(())
    });
    drop(held);

    // Host, Origin; health is for every prober.
    for (line, headers, want) in [
        ("GET /info HTTP/1.1", &["Host: localhost"][..], 200),
        ("GET /info HTTP/1.1", &["Host: rebound.example"], 403),
        ("GET /info HTTP/1.1", &["Host: localhost", "Origin: http://evil.example"], 403),
        ("GET /info HTTP/1.1", &["Host: rebound.example", &format!("Authorization: Bearer {token}")], 200),
        ("GET /health/live HTTP/1.1", &["Host: node.probed.example"], 200),
    ] {
        assert_eq!(status(admin, line, headers, ""), want, "{line} {headers:?}");
    }

    // What is asked without a token does not fill the log.
    let before = node.err().len();
    let line = format!("POST /actors/{}/kill HTTP/1.1", "x".repeat(8_000));
    for _ in 0..300 {
        assert_eq!(status(admin, &line, &["Host: localhost"], ""), 401);
    }
    let written = node.err().len() - before;
    assert!(written < 64 << 10, "{written} bytes of log");
    let row: Value = ask(&repo, &["info"]);
    assert_eq!(row["miner"], "t01000");
    node.stopped();
}
