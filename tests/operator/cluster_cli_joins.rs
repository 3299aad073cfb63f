//! How a host becomes a node of a cluster, and what is refused on the way: the real binary, no node running.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn bulkhead(repo: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.env_clear().env("HOME", repo).arg("--repo").arg(repo).args(args).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn says(repo: &Path, args: &[&str]) -> String {
    let (code, out, err) = bulkhead(repo, args);
    assert_eq!(code, 0, "{args:?}: {err}");
    out
}

#[track_caller]
fn refuses(repo: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let (got, out, err) = bulkhead(repo, args);
    let about = format!("{args:?}: exit {got}\nstdout: {out}\nstderr: {err}");
    assert!(got == code && out.is_empty() && err.lines().count() == 1 && err.starts_with("error: "), "{about}");
    for part in parts {
        assert!(err.contains(part), "{part:?} is missing: {about}");
    }
}

fn repo_with(config: &str) -> tempfile::TempDir {
    let repo = tempfile::tempdir().expect("repo");
    std::fs::write(repo.path().join("config.toml"), config).expect("config");
    repo
}

#[test]
fn a_token_of_one_host_makes_another_a_node() {
    let certificate = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    let first = repo_with("");
    let ca = first.path().join("ca.pem");
    std::fs::write(&ca, certificate).expect("ca");
    let config = format!(
        "[cluster]\nname = \"main\"\netcd = [\"https://10.0.0.10:2379\"]\netcd_user = \"u\"\netcd_password = \"hidden\"\netcd_ca = \"{}\"\n",
        ca.display()
    );
    std::fs::write(first.path().join("config.toml"), config).expect("config");
    let token = says(first.path(), &["cluster", "join-token"]);
    assert!(token.starts_with("bulkhead-join-1.") && !token.contains("hidden"));

    let second = repo_with("[node]\nminer = \"t01000\" # ours\n[cluster]\nheartbeat = \"2s\"\n");
    let joined = says(
        second.path(),
        &["cluster", "join", &token, "--node", "host-b", "--roles", "window-post,daemon-link", "--json"],
    );
    let joined: Value = serde_json::from_str(&joined).expect("JSON");
    assert_eq!((joined["cluster"].as_str(), joined["node"].as_str()), (Some("main"), Some("host-b")));
    assert_eq!(joined["peer_id"].as_str(), Some(says(second.path(), &["cluster", "id"]).as_str()), "the id stays");
    let file = second.path().join("config.toml");
    let text = std::fs::read_to_string(&file).expect("config");
    for part in ["miner = \"t01000\" # ours", "heartbeat = \"2s\"", "etcd_password = \"hidden\"", "node = \"host-b\""] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(std::fs::metadata(&file).expect("config").permissions().mode() & 0o777, 0o600, "it holds a password");
    assert_eq!(std::fs::read_to_string(second.path().join("etcd-ca.pem")).expect("ca"), certificate);
    let shown = says(second.path(), &["config", "show"]);
    assert!(shown.contains("[\"https://10.0.0.10:2379\"]") && !shown.contains("hidden"), "{shown}");
    assert_eq!(says(second.path(), &["cluster", "join-token"]), token, "each node hands on the same");
    // again, with the same token: nothing changes
    says(second.path(), &["cluster", "join", &token, "--node", "host-b", "--roles", "window-post,daemon-link"]);
    assert_eq!(std::fs::read_to_string(&file).expect("config"), text);

    let other = repo_with("[cluster]\nname = \"other\"\netcd = [\"10.0.0.9:2379\"]\n");
    refuses(other.path(), &["cluster", "join", &token], 1, &["config.toml", "cluster other already"]);
    refuses(second.path(), &["cluster", "join", &token, "--node", "a/b"], 2, &["--node", "a/b"]);
    refuses(second.path(), &["cluster", "join", &token, "--roles", "mining"], 2, &["--roles", "mining", "window-post"]);
    refuses(second.path(), &["cluster", "join", &token[..40]], 1, &["no join token", "cluster join-token"]);
}

#[test]
fn what_cannot_be_joined_moved_or_transferred_says_why() {
    let alone = repo_with("");
    refuses(alone.path(), &["cluster", "join-token"], 1, &["cluster.etcd", "[[cluster.peer]]"]);
    refuses(alone.path(), &["cluster", "status"], 1, &["no node is running"]);
    refuses(alone.path(), &["tree", "--all"], 1, &["no node is running"]);
    refuses(alone.path(), &["cluster", "move", "window-post"], 2, &["<NODE>"]);
    refuses(alone.path(), &["cluster"], 2, &["a command is missing"]);
    let transfer = if cfg!(feature = "cluster") { "cluster.etcd names no endpoint" } else { "--features cluster" };
    refuses(alone.path(), &["cluster", "import"], 1, &[transfer]);
    refuses(alone.path(), &["cluster", "export"], 1, &[transfer]);
    let broken = repo_with("[SealAgent]\nEtcdAddrs = [\"218.78,187.146:2379\"]\n");
    refuses(
        broken.path(),
        &["cluster", "id"],
        1,
        &["config.toml", "SealAgent.EtcdAddrs", "client: no endpoints available"],
    );
}

#[test]
fn the_distributed_miners_flags_are_refused_by_name() {
    let repo = repo_with("[node]\nminer = \"t01000\"\n[cluster]\nnode = \"a\"\n");
    let run = |flags: &[&str], parts: &[&str]| refuses(repo.path(), &[&["run"], flags].concat(), 2, parts);
    run(&["--sctype=give"], &["--sctype", "alloce", "get"]);
    run(&["--sclisten=192.168.1.50:1357"], &["--sclisten needs --sctype"]);
    run(&["--sctype=alloce", "--sclisten=1357"], &["--sclisten", "192.168.1.50:1357"]);
    run(&["--window-post=maybe"], &["--window-post", "maybe"]);
    run(
        &["--sctype=get", "--window-post=false", "--winning-post=false", "--p2p=false"],
        &["--sctype=get", "nothing to do"],
    );
    run(&["--sctype=alloce", "--sclisten=192.168.1.50:1357"], &["--sclisten", "cluster.etcd", "[[cluster.peer]]"]);
    run(&["--sctype=get", "--sclisten=192.168.1.50:1357"], &["--sclisten", "[[cluster.peer]]", "bulkhead cluster id"]);
}

/// Document 0's line of a winning-post miner, on a host that does not have the allocator's address.
#[test]
fn an_address_that_is_not_this_hosts_is_refused_with_the_reason() {
    let repo = repo_with(
        "[node]\nminer = \"t01000\"\n[full_node]\napi_info = \"t:/ip4/127.0.0.1/tcp/1/http\"\n[cluster]\nnode = \"a\"\netcd = [\"127.0.0.1:1\"]\n",
    );
    let line = ["run", "--window-post=false", "--winning-post=true", "--p2p=false", "--sctype=alloce"];
    // TEST-NET-1, which no host has
    let line = [&line[..], &["--sclisten=192.0.2.1:1357"]].concat();
    refuses(repo.path(), &line, 2, &["--sclisten", "192.0.2.1 is no address of this host", "--sctype=get"]);
}

#[test]
fn variables_of_lotus_miner_name_the_repo() {
    let repo = repo_with("[node]\nminer = \"t01007\"\n");
    let run = |env: &[(&str, &Path)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.env_clear().env("HOME", "/nonexistent").envs(env.iter().copied()).args(args);
        let output = command.output().expect("it starts");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for name in ["LOTUS_MINER_PATH", "LOTUS_STORAGE_PATH"] {
        let (out, err) = run(&[(name, repo.path())], &["config", "show"]);
        assert!(out.contains("t01007"), "{name}: {out} {err}");
    }
    for folder in ["datastore", "keystore"] {
        std::fs::create_dir(repo.path().join(folder)).expect("folder");
    }
    let (_, err) = run(&[("LOTUS_MINER_PATH", repo.path())], &["info"]);
    assert!(err.contains("LOTUS_MINER_PATH is not read") && err.contains("lotus-miner's own data"), "{err}");
    assert!(err.contains("no node is running in /nonexistent/.bulkhead"), "{err}");
    let worker = [("LOTUS_WORKER_PATH", repo.path()), ("STORAGE_API_INFO", Path::new("t:/ip4/127.0.0.1/tcp/1/http"))];
    let (_, err) = run(&worker, &["info"]);
    assert!(err.contains("the node at 127.0.0.1:1") && !err.contains("LOTUS_WORKER_PATH"), "asks that node: {err}");
    let (_, err) = run(&worker, &["keys", "list"]);
    assert_eq!(err.matches("LOTUS_WORKER_PATH is set and not read").count(), 1, "{err}");
}

#[test]
fn a_cluster_needs_a_build_that_has_one() {
    let repo = repo_with(
        "[node]\nminer = \"t01000\"\n[full_node]\napi_info = \"t:/ip4/127.0.0.1/tcp/1/http\"\n[cluster]\netcd = [\"127.0.0.1:1\"]\n",
    );
    if !cfg!(feature = "cluster") {
        refuses(repo.path(), &["run"], 1, &["cargo run --release --features cluster"]);
    }
}

#[test]
fn the_examples_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cluster");
    let repo = repo_with("");
    let (mut placements, mut roles) = (Vec::new(), Vec::new());
    for name in ["host-a", "host-b", "host-c"] {
        let file = folder.join(format!("{name}.toml"));
        let shown = says(repo.path(), &["config", "show", "--json", "--config", file.to_str().expect("UTF-8")]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let value = |key: &str| {
            let keys = shown["keys"].as_array().expect("keys").iter();
            keys.clone().find(|row| row["key"] == key).expect(key)["value"].as_str().expect("text").to_string()
        };
        assert_eq!(value("cluster.node"), format!("\"{name}\""));
        placements.push(
            ["window_post", "winning_post", "message_sender", "sector_allocator", "deal_handler"]
                .map(|k| value(&format!("placement.{k}"))),
        );
        roles.push(value("cluster.roles"));
    }
    assert!(placements.iter().all(|placement| placement[2] == "[]"), "messages are sent where windows are proven");
    assert!(placements.windows(2).all(|two| two[0] == two[1]), "the placement is the same on every host");
    for role in ["window-post", "winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"] {
        assert!(roles.iter().any(|r| r.contains(role)), "somebody has {role}");
    }
}
