//! Whatever is wrong, the real binary says it in one sentence on stderr, with an exit code, and never panics.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs the binary with nothing in the environment but what is given.
fn bulkhead(args: &[&str], env: &[(&str, &str)]) -> Said {
    let home = tempfile::tempdir().expect("home");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(args).env_clear().env("HOME", home.path());
    let output = command.envs(env.iter().copied()).output().expect("the binary starts");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// One sentence with all of `parts`, and that exit code.
#[track_caller]
fn refuses(args: &[&str], env: &[(&str, &str)], code: i32, parts: &[&str]) {
    let said = bulkhead(args, env);
    let about = format!("{args:?} {env:?}: exit {}\nstdout: {}\nstderr: {}", said.code, said.out, said.err);
    assert_eq!(said.code, code, "{about}");
    assert_eq!(said.err.lines().count(), 1, "one sentence: {about}");
    assert!(said.err.starts_with("error: ") && said.out.is_empty(), "{about}");
    assert!(!said.err.contains("panicked") && !said.err.contains("RUST_BACKTRACE"), "{about}");
    for part in parts {
        assert!(said.err.contains(part), "{part:?} is missing: {about}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Answers every connection with these bytes.
fn answering(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// A port on which nothing listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address").port()
}

fn http(status: &str, body: &str) -> &'static str {
    let length = body.len();
    Box::leak(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_boxed_str(),
    )
}

/// A repo as a node leaves it whose API and admin HTTP are at that port.
fn repo_of_node(port: u16) -> tempfile::TempDir {
    let repo = tempfile::tempdir().expect("repo");
    std::fs::write(repo.path().join("api"), format!("/ip4/127.0.0.1/tcp/{port}/http")).expect("api");
    std::fs::write(repo.path().join("admin"), format!("127.0.0.1:{port}")).expect("admin");
    std::fs::write(repo.path().join("token"), "t.o.k").expect("token");
    repo
}

#[test]
fn usage_errors_are_exit_2() {
    refuses(&[], &[], 2, &["a command is missing"]);
    refuses(&["sectors"], &[], 2, &["a command is missing"]);
    refuses(&["devnet", "--blok-delay", "1s"], &[], 2, &["unexpected argument '--blok-delay'", "--block-delay"]);
    refuses(&["frobnicate"], &[], 2, &["unrecognized subcommand 'frobnicate'"]);
    refuses(&["wallet"], &[], 2, &["'wallet'", "the full node's wallet"]);
    refuses(&["inof"], &[], 2, &["did you mean 'info'?"]);
    refuses(&["devnet", "--exit-after", "lunch"], &[], 2, &["'lunch'", "--exit-after", "sector-proving", "all"]);
    refuses(&["devnet", "--chain-only", "--exit-after", "all"], &[], 2, &["--chain-only", "--exit-after"]);
    refuses(&["devnet", "--block-delay", "soon"], &[], 2, &["flag --block-delay", "\"soon\"", "100ms"]);
    refuses(&["devnet", "--listen", "localhost"], &[], 2, &["flag --listen", "ip:port"]);
    refuses(&["sectors", "status", "minus-one"], &[], 2, &["minus-one"]);
    refuses(&["init"], &[], 2, &["--sector-size"]);
    refuses(&["init", "--sector-size", "3KiB"], &[], 2, &["--sector-size", "3KiB", "2KiB, 8MiB"]);
    refuses(&["init", "--sector-size", "2KiB", "--owner", "t1nonsense"], &[], 2, &["--owner", "t1nonsense"]);
    refuses(&["init", "--actor", "t01000", "--sector-size", "2KiB"], &[], 2, &["--actor", "--sector-size"]);
    refuses(&["stop", "--wait", "long"], &[], 2, &["--wait", "long"]);
    refuses(&["run", "--log-level", "a=b=c"], &[], 2, &["flag --log-level"]);
    refuses(&["tree", "--log-level", "a=b=c"], &[], 2, &["--log-level"]);
    refuses(&["run", "--log-format", "xml"], &[], 2, &["flag --log-format", "pretty, json"]);
}

#[test]
fn a_bad_configuration_names_file_and_key() {
    let repo = tempfile::tempdir().expect("repo");
    let file = repo.path().join("config.toml");
    let with = |content: &str, parts: &[&str]| {
        std::fs::write(&file, content).expect("config");
        let parts: Vec<&str> = parts.iter().copied().chain([text(&file)]).collect();
        refuses(&["run", "--repo", text(repo.path())], &[], 1, &parts);
    };
    with("[sealing]\nmax_sealin = 3\n", &["unknown key sealing.max_sealin", "did you mean sealing.max_sealing?"]);
    with("[sealing]\npc1 = 0\n", &["sealing.pc1 = 0", "from 1 to 256"]);
    with("[sealing\n", &["line 1", "not valid TOML"]);
    refuses(&["run", "--config", "/nonexistent.toml"], &[], 1, &["/nonexistent.toml", "cannot read"]);
    let variable = [("BULKHEAD_API_LISTEN", "nowhere")];
    refuses(&["run"], &variable, 1, &["environment variable BULKHEAD_API_LISTEN", "ip:port"]);
    refuses(&["run"], &[("HOME", "")], 1, &["--repo", "BULKHEAD_PATH"]);
    let secret = bulkhead(&["run"], &[("FULLNODE_API_INFO", "s3cr3t:nowhere")]);
    assert!(secret.code == 1 && secret.err.contains("FULLNODE_API_INFO") && !secret.err.contains("s3cr3t"));
}

#[test]
fn sizes_without_keys_are_refused_before_anything_costs_gas() {
    let cache = tempfile::tempdir().expect("cache");
    let env = [("FIL_PROOFS_PARAMETER_CACHE", text(cache.path())), ("FULLNODE_API_INFO", "/ip4/127.0.0.1/tcp/1/http")];
    let init = |size: &'static str| ["init", "--sector-size", size];
    refuses(&init("32GiB"), &env, 1, &["32GiB", text(cache.path()), "fetch the published keys"]);
    refuses(&init("2KiB"), &env, 1, &["2KiB", text(cache.path()), "bulkhead keys generate"]);
    refuses(&["keys", "generate", "--sector-size", "32GiB"], &env, 1, &["32 GiB", "2 KiB test sectors only"]);
    refuses(&["keys", "generate", "--sector-size", "64GiB"], &env, 1, &["64 GiB"]);
    assert_eq!(std::fs::read_dir(cache.path()).expect("cache").count(), 0, "nothing was made");
}

#[test]
fn a_repo_that_is_not_ready_says_what_to_do() {
    let repo = tempfile::tempdir().expect("repo");
    let run = ["run", "--repo", text(repo.path())];
    refuses(&run, &[], 1, &[text(repo.path()), "has no miner yet", "bulkhead init"]);
    std::fs::write(repo.path().join("config.toml"), "[node]\nminer = \"t01000\"\n").expect("config");
    refuses(&run, &[], 1, &["no full node", "FULLNODE_API_INFO", "config.toml"]);
}

#[test]
fn two_nodes_on_one_repo_are_refused() {
    let repo = tempfile::tempdir().expect("repo");
    std::fs::write(repo.path().join("config.toml"), "[node]\nminer = \"t01000\"\n").expect("config");
    let _held = bulkhead::config::RepoLock::take(repo.path()).expect("the first");
    let env = [("FULLNODE_API_INFO", "/ip4/127.0.0.1/tcp/1/http")];
    let holder = format!("process {}", std::process::id());
    refuses(&["run", "--repo", text(repo.path())], &env, 1, &[text(repo.path()), "in use", &holder]);
    refuses(&["devnet", "--dir", text(repo.path())], &[], 1, &[text(repo.path()), "in use"]);
}

#[test]
fn no_node_is_running() {
    let repo = tempfile::tempdir().expect("repo");
    let at = text(repo.path());
    let commands: [&[&str]; 8] = [
        &["tree"],
        &["info"],
        &["stop"],
        &["sectors", "list"],
        &["sectors", "pledge"],
        &["sectors", "status", "1"],
        &["proving", "info"],
        &["proving", "deadlines"],
    ];
    for command in commands {
        let args: Vec<&str> = command.iter().copied().chain(["--repo", at]).collect();
        refuses(&args, &[], 1, &["no node is running in", at, "bulkhead run"]);
        // a node that was killed left its files behind
        let stale = repo_of_node(closed_port());
        let args: Vec<&str> = command.iter().copied().chain(["--repo", text(stale.path())]).collect();
        refuses(&args, &[], 1, &["no node is running in", text(stale.path())]);
    }
    std::fs::create_dir_all(repo.path().join("devnet/node")).expect("devnet");
    std::fs::write(repo.path().join("devnet/node/api"), "/ip4/127.0.0.1/tcp/1/http").expect("api");
    refuses(&["tree"], &[("BULKHEAD_PATH", at)], 1, &["--repo", "devnet/node"]);
}

#[test]
fn a_broken_configuration_does_not_hide_a_running_node() {
    let repo = repo_of_node(answering(http("200 OK", "[]")));
    std::fs::write(repo.path().join("config.toml"), "[nonsense]\n").expect("config");
    let said = bulkhead(&["tree", "--repo", text(repo.path()), "--json"], &[]);
    assert_eq!((said.code, said.out.trim()), (0, "[]"), "{}", said.err);
}

#[test]
fn a_node_that_answers_nonsense_is_named() {
    let ask = |answer: &'static str, command: &[&str], parts: &[&str]| {
        let repo = repo_of_node(answering(answer));
        let args: Vec<&str> = command.iter().copied().chain(["--repo", text(repo.path())]).collect();
        let parts: Vec<&str> = parts.iter().copied().chain([text(repo.path())]).collect();
        refuses(&args, &[], 1, &parts);
    };
    ask(http("200 OK", "<html>hello</html>"), &["tree"], &["/actors", "not the JSON", "<html>hello"]);
    ask(http("200 OK", "<html>hello</html>"), &["info"], &["Bulkhead.Info"]);
    ask(http("200 OK", ""), &["tree"], &["(empty)"]);
    ask(http("401 Unauthorized", "no"), &["stop"], &["refused", "token"]);
    ask(http("401 Unauthorized", "no"), &["sectors", "list"], &["Bulkhead.Sectors", "refused", "token"]);
    ask(http("500 Oh", "{\"error\":\"the snapshot broke\"}"), &["tree"], &["500", "the snapshot broke"]);
    ask("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[", &["tree"], &["/actors", "cannot reach"]);
    ask("garbage\r\n\r\n", &["tree"], &["/actors"]);
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"sector 7 is\nnot known"}}"#;
    ask(http("200 OK", error), &["sectors", "status", "7"], &["sector 7 is not known"]);
}

#[test]
fn addresses_that_are_none_are_named() {
    let repo = repo_of_node(1);
    std::fs::write(repo.path().join("admin"), "nowhere at all").expect("admin");
    refuses(&["tree", "--repo", text(repo.path())], &[], 1, &["admin", "nowhere at all"]);
    let env = [("MINER_API_INFO", "t0k3n:nowhere")];
    refuses(&["info"], &env, 1, &["MINER_API_INFO"]);
    assert!(!bulkhead(&["info"], &env).err.contains("t0k3n"), "a token in an error text");
    let port = closed_port().to_string();
    let remote = format!("t:/ip4/127.0.0.1/tcp/{port}/http");
    refuses(&["info"], &[("MINER_API_INFO", &remote)], 1, &["127.0.0.1", &port, "cannot reach"]);
    refuses(&["tree"], &[("MINER_API_INFO", &remote)], 1, &["127.0.0.1", &port, "cannot reach"]);
}

#[test]
fn a_full_node_that_is_away_or_talks_nonsense_is_named() {
    let repo = tempfile::tempdir().expect("repo");
    let adopt = ["init", "--actor", "t01000", "--repo", text(repo.path())];
    let at = |port: u16| format!("t:/ip4/127.0.0.1/tcp/{port}/http");
    let away = closed_port();
    refuses(&adopt, &[], 1, &["no full node is named", "FULLNODE_API_INFO"]);
    let name = format!("127.0.0.1:{away}");
    refuses(&adopt, &[("FULLNODE_API_INFO", &at(away))], 1, &[&name, "cannot reach"]);
    let nonsense = answering(http("200 OK", "I am a teapot"));
    refuses(&adopt, &[("FULLNODE_API_INFO", &at(nonsense))], 1, &["StateGetNetworkParams"]);
    let refusing = answering(http("401 Unauthorized", "token"));
    refuses(&adopt, &[("FULLNODE_API_INFO", &at(refusing))], 1, &["token in FULLNODE_API_INFO"]);
    assert!(!repo.path().join("config.toml").exists(), "nothing was written");
}

#[test]
fn a_prover_is_not_started_by_hand() {
    let said = bulkhead(&["prover"], &[]);
    assert_eq!(said.code, 2);
    assert_eq!(said.err.lines().count(), 1, "{}", said.err);
}

#[test]
fn asking_for_help_is_no_error() {
    for args in [&["--help"][..], &["--version"], &["devnet", "--help"]] {
        let said = bulkhead(args, &[]);
        assert!(said.code == 0 && said.err.is_empty() && !said.out.is_empty(), "{args:?}");
    }
    assert!(!bulkhead(&["--help"], &[]).out.contains("prover"), "it is not for people");
}

#[test]
fn keys_that_are_not_there_are_listed_as_missing() {
    let cache = tempfile::tempdir().expect("cache");
    let env = [("FIL_PROOFS_PARAMETER_CACHE", text(cache.path()))];
    let said = bulkhead(&["keys", "list", "--json"], &env);
    let keys: Vec<serde_json::Value> = serde_json::from_str(&said.out).expect("JSON");
    assert!(said.code == 0 && keys.len() == 3 && keys.iter().all(|k| k["ok"] == false && k["state"] == "missing"));
    let check = bulkhead(&["keys", "check"], &env);
    assert!(check.code == 1 && check.err.contains("bulkhead keys generate"), "{}", check.err);
}
