//! A JSON-RPC surface of the real binary, under callers without a token that take what they can get: it serves others
//! meanwhile, keeps descriptors for provers, and gives the memory back.

use crate::support::operator::*;
use crate::support::sockets::*;
use std::time::{Duration, Instant};

/// What the process may open: small, so that few sockets would be enough to take it all.
const FILES: u64 = 400;

#[track_caller]
fn serves(chain: &Chain, what: &str) {
    for token in [Some(chain.token.as_str()), None] {
        let began = Instant::now();
        // A client whose connection is taken for a quiet stranger's while the attackers' are still accepted connects again.
        let answers =
            || try_call(at(chain.port), token, "ChainHead", "[]").filter(|answer| answer.contains(r#""Height""#));
        until_within(Duration::from_secs(10), &format!("{what}, token {}", token.is_some()), answers);
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
    }
}

#[track_caller]
fn keeps_files(pid: u32, what: &str) {
    let open = open_files(pid) as u64;
    assert!(open <= FILES * 5 / 8, "{what}: {open} of {FILES} files are open");
}

#[test]
fn idle_sockets_take_neither_the_descriptors_nor_the_turns_of_others() {
    raise_own_limit();
    let dir = tempfile::tempdir().expect("a folder");
    let mut chain = Chain::limited(&dir.path().join("devnet"), FILES);
    let attacks: [(&str, &str, &[u8]); 3] = [
        ("idle WebSockets", UPGRADE, b""),
        ("silent connections", "", b""),
        ("heads without an end", "GET /rpc/v1 HTTP/1.1\r\nX: ", b"xxxx"),
    ];
    for (what, head, body) in attacks {
        let held = sending(at(chain.port), FILES as usize, head, body);
        keeps_files(chain.process.pid(), what);
        serves(&chain, what);
        drop(held);
    }
    assert!(chain.process.lives());
    let said = chain.process.stopped();
    assert!(!said.err.contains("Too many open files"), "{}", said.err);
}

#[test]
fn unfinished_requests_without_a_token_cost_no_memory() {
    const MORE_MB: u64 = 50;
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let pid = chain.process.pid();
    serves(&chain, "before");
    let before = resident_mb(pid);
    let body = vec![b' '; 4 << 20];
    let frame = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4], &vec![b' '; 4 << 20]].concat();
    let attacks: [(&str, String, Vec<u8>); 4] = [
        (
            "declared bodies",
            "POST /rpc/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n".into(),
            body.clone(),
        ),
        (
            "chunked bodies",
            "POST /rpc/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nF00000\r\n".into(),
            body,
        ),
        ("unfinished frames", UPGRADE.into(), frame(15 << 20)),
        (
            "nested values",
            {
                let json = "[[],".repeat(15_000);
                format!("POST /rpc/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60001\r\n\r\n{json}")
            },
            Vec::new(),
        ),
    ];
    for (what, head, body) in attacks {
        let held = sending(at(chain.port), 60, &head, &body);
        let during = resident_mb(pid);
        assert!(during < before + MORE_MB, "{what}: {before} MB before, {during} MB during");
        serves(&chain, what);
        drop(held);
        until("the memory to come back", || (resident_mb(pid) < before + MORE_MB).then_some(()));
    }
}

#[test]
fn the_token_is_looked_at_before_the_body_and_a_body_has_its_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let ask = |token: &str, length: usize, rest: &str, within: u64| {
        let head = format!(
            "POST /rpc/v1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{token}Content-Length: {length}\r\n\r\n{rest}"
        );
        answer(at(chain.port), head.as_bytes(), Duration::from_secs(within))
            .and_then(|answer| answer.split_whitespace().nth(1).map(str::to_string))
    };
    let ours = format!("Authorization: Bearer {}\r\n", chain.token);
    for (what, token, length, within, want) in [
        ("a wrong token", "Authorization: Bearer x\r\n", 1_000_000, 4, "401"),
        ("a body larger than without a token", "", 65_537, 4, "413"),
        ("a body larger than with one", ours.as_str(), (16 << 20) + 1, 4, "413"),
        ("a body that does not come", "", 65_536, 20, "408"),
    ] {
        assert_eq!(ask(token, length, "{", within).as_deref(), Some(want), "{what}");
    }
    let long = format!(r#"{{"id":1,"method":"Filecoin.ChainHead","params":[]{}}}"#, " ".repeat(100_000));
    assert_eq!(ask(&ours, long.len(), &long, 20).as_deref(), Some("200"), "a long body with a token");
}

#[test]
fn web_pages_of_others_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.ChainHead","params":[]}"#;
    let bearer = format!("Authorization: Bearer {}", chain.token);
    for (headers, want) in [
        (&["Host: localhost"][..], 200),
        (&["Host: 127.0.0.1", "Origin: http://127.0.0.1"], 200),
        (&["Host: rebound.example"], 403),
        (&["Host: localhost", "Origin: http://evil.example"], 403),
        (&["Host: localhost", "Origin: null"], 403),
        (&["Host: rebound.example", "Origin: http://evil.example", bearer.as_str()], 200),
    ] {
        assert_eq!(status(at(chain.port), "POST /rpc/v1 HTTP/1.1", headers, body), want, "{headers:?}");
        let upgrade = UPGRADE.replace("Host: localhost\r\n", &format!("{}\r\n", headers.join("\r\n")));
        let answer = answer(at(chain.port), upgrade.as_bytes(), Duration::from_secs(2)).expect("an answer");
        let want = if want == 200 { "101" } else { "403" };
        assert_eq!(answer.split_whitespace().nth(1), Some(want), "{headers:?}");
    }
}

#[test]
fn values_that_have_no_encoding_are_refused_without_a_panic() {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let message = |value: &str, gas: i64| {
        format!(
            r#"[{{"Version":0,"To":"t0101","From":"t0101","Nonce":0,"Value":"{value}","GasLimit":{gas},"GasFeeCap":"0","GasPremium":"0","Method":0,"Params":null}},null]"#
        )
    };
    let digits = "9".repeat(5_000);
    for (value, gas, what) in [
        (digits.as_str(), 0, "more than the chain can encode"),
        (&digits[..306], 0, "more than the chain can encode"),
        (&digits[..305], 0, r#""result""#),
        ("-1", 0, ""),
        ("0", -1, ""),
        ("0", i64::MAX, ""),
    ] {
        let answer = call(at(chain.port), Some(&chain.token), "StateCall", &message(value, gas));
        assert!(answer.contains(what) && answer.contains(r#""id":1"#), "{} digits, gas {gas}: {answer}", value.len());
    }
    let said = chain.process.stopped();
    assert!(!said.err.contains("panicked"), "{}", said.err);
}
