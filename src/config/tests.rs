//! Layers, bad input, and the checked-in example against the table of keys.

use super::super::{example, values};
use super::*;
use std::time::Duration;

fn none(_: &str) -> Option<String> {
    None
}

fn from(text: &str) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    load(&Overrides { repo: Some(dir.path().to_path_buf()), ..Default::default() }, &none)
}

fn sentence(text: &str) -> String {
    let error = from(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one sentence: {error}");
    assert!(error.contains("config.toml"), "names the file: {error}");
    error
}

#[test]
fn types_and_keys_name_the_same_settings() {
    let table = Table::try_from(Config::default()).unwrap();
    let mut typed: Vec<String> =
        table.iter().flat_map(|(s, t)| t.as_table().unwrap().keys().map(move |k| format!("{s}.{k}"))).collect();
    let mut described: Vec<String> = KEYS.iter().map(|k| k.path.to_string()).collect();
    typed.sort();
    described.sort();
    assert_eq!(typed, described);
    assert_eq!(Table::try_from(Config::default()).unwrap(), default_table(), "defaults survive a round trip");
    let mut envs: Vec<String> = KEYS.iter().map(|k| k.env()).collect();
    envs.sort();
    envs.dedup();
    assert_eq!(envs.len(), KEYS.len(), "one variable per key");
}

#[test]
fn the_example_in_the_tree_is_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bulkhead.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        text,
        example::annotated(),
        "write it anew: cargo run --release -- config default > config/bulkhead.toml"
    );
    let loaded = from(&text).unwrap();
    assert_eq!(Config { repo: PathBuf::new(), ..loaded.config }, Config::default());
}

#[test]
fn later_layers_win() {
    let dir = tempfile::tempdir().unwrap();
    let over = |flag: Option<&str>| {
        Overrides { repo: Some(dir.path().to_path_buf()), ..Default::default() }.flag(
            "devnet.block_delay",
            "--block-delay",
            flag,
        )
    };
    let env = |name: &str| (name == "BULKHEAD_DEVNET_BLOCK_DELAY").then(|| "3s".to_string());
    let delay = |o: &Overrides, e: &dyn Fn(&str) -> Option<String>| {
        let loaded = load(o, e).unwrap();
        (loaded.config.devnet.block_delay, loaded.sources.get("devnet.block_delay").cloned())
    };
    assert_eq!(delay(&over(None), &none), (Duration::from_secs(10), None));
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[devnet]\nblock_delay = 4\n").unwrap();
    assert_eq!(delay(&over(None), &none), (Duration::from_secs(4), Some(Source::File(file))));
    let from_env = Some(Source::Env("BULKHEAD_DEVNET_BLOCK_DELAY".into()));
    assert_eq!(delay(&over(None), &env), (Duration::from_secs(3), from_env));
    assert_eq!(delay(&over(Some("2")), &env), (Duration::from_secs(2), Some(Source::Flag("--block-delay".into()))));
    let empty = |_: &str| Some(" ".to_string());
    assert_eq!(delay(&over(None), &empty).0, Duration::from_secs(4), "an empty variable is not set");
}

#[test]
fn the_repo_comes_from_flag_then_environment_then_home() {
    let env = |name: &str| match name {
        "BULKHEAD_PATH" => Some("/b".to_string()),
        "HOME" => Some("/h".to_string()),
        _ => None,
    };
    let home = |name: &str| (name == "HOME").then(|| "/h".to_string());
    let tilde = |name: &str| Some(if name == "HOME" { "/h" } else { "~/x" }.to_string());
    assert_eq!(repo(Some(Path::new("/f")), &env), Ok("/f".into()));
    assert_eq!(repo(None, &env), Ok("/b".into()));
    assert_eq!(repo(None, &home), Ok("/h/.bulkhead".into()));
    assert_eq!(repo(None, &tilde), Ok("/h/x".into()));
    assert_eq!(repo(None, &none), Err(ConfigError::NoHome));
}

#[test]
fn bad_input_is_one_sentence_with_file_key_and_what_is_allowed() {
    let table = [
        ("[devnet]\nblok_delay = 4", vec!["unknown key devnet.blok_delay", "did you mean devnet.block_delay?"]),
        ("[devnett]\n", vec!["unknown key devnett", "the sections are node, full_node"]),
        ("[sealing]\nzzzzzzzzzz = 1", vec!["unknown key sealing.zzzzzzzzzz", "[sealing] has max_sealing"]),
        ("[devnet]\nblock_delay = \"soon\"", vec!["devnet.block_delay = \"soon\"", "a duration from 100ms to 1h"]),
        ("[devnet]\nblock_delay = true", vec!["devnet.block_delay = true", "duration"]),
        ("[devnet]\ndeadlines = \"6\"", vec!["devnet.deadlines = \"6\"", "a whole number from 3 to 48"]),
        ("[node]\nminer = \"t1abc\"", vec!["node.miner", "an ID address"]),
        ("[node]\nlog_format = \"xml\"", vec!["node.log_format = \"xml\"", "one of pretty, json"]),
        ("[api]\nlisten = \"localhost\"", vec!["api.listen", "ip:port"]),
        ("[market]\nlisten = \"127.0.0.1:1\"", vec!["market.listen", "a multiaddr"]),
        ("node = 3", vec!["node = 3", "is a section"]),
        ("[node]\nmin er = 3", vec!["line 2", "not valid TOML"]),
        (
            "[devnet]\nchallenge_lookback = 12\ndeadlines = 3\nchallenge_window = 4",
            vec!["devnet.challenge_lookback = 12", "below the proving period of 12"],
        ),
        ("[api]\nlisten = \"127.0.0.1:2346\"", vec![]),
    ];
    for (text, parts) in table {
        if parts.is_empty() {
            assert!(from(text).unwrap_err().to_string().contains("same address and port"));
            continue;
        }
        let error = sentence(text);
        for part in parts {
            assert!(error.contains(part), "{part:?} in {error:?}");
        }
    }
    let secret = sentence("[full_node]\napi_info = \"s3cr3t:/ip9/1\"");
    assert!(!secret.contains("s3cr3t"), "{secret}");
}

#[test]
fn edits_are_counted() {
    for (a, b, edits) in [
        ("", "", 0),
        ("info", "info", 0),
        ("inof", "info", 1),
        ("inf", "info", 1),
        ("infoo", "info", 1),
        ("", "info", 4),
        ("ab", "ba", 1),
        ("wallet", "agent", 4),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
    }
}

#[test]
fn numbers_hit_their_bounds() {
    for (text, ok) in
        [("99ms", false), ("100ms", true), ("101ms", true), ("3599s", true), ("1h", true), ("1h1ms", false)]
    {
        assert_eq!(from(&format!("[devnet]\nblock_delay = \"{text}\"")).is_ok(), ok, "{text}");
    }
    for (n, ok) in [(2, false), (3, true), (4, true), (47, true), (48, true), (49, false)] {
        assert_eq!(from(&format!("[devnet]\ndispute_window = 20\ndeadlines = {n}")).is_ok(), ok, "{n}");
    }
}

#[test]
fn a_file_that_was_named_must_exist() {
    let file = PathBuf::from("/nonexistent/bulkhead.toml");
    let over = Overrides { repo: Some("/nonexistent".into()), file: Some(file.clone()), ..Default::default() };
    assert!(matches!(load(&over, &none), Err(ConfigError::Read { path, .. }) if path == file));
    assert!(load(&Overrides { file: None, ..over }, &none).is_ok());
}

#[test]
fn init_writes_the_miner_and_leaves_the_rest() {
    let table = [
        ("", "# This repo's node; every key: `bulkhead config default`.\n[node]\nminer = \"t01000\"\n"),
        ("[node]\nlog = \"debug\" # noisy\n", "[node]\nminer = \"t01000\"\nlog = \"debug\" # noisy\n"),
        ("[api]\n[node] # x\nminer = \"\"\n\n[devnet]\n", "[api]\n[node] # x\nminer = \"t01000\"\n\n[devnet]\n"),
    ];
    for (before, after) in table {
        assert_eq!(example::with_miner(before, "t01000"), after);
    }
    let peers = "[[cluster.peer]]\nname = \"b\"\n[cluster] # x\nname = \"old\"\n";
    let joined = example::with_entries(peers, "cluster", &[("name", "new".into()), ("etcd", vec!["h:1"].into())]);
    assert_eq!(joined, "[[cluster.peer]]\nname = \"b\"\n[cluster] # x\nname = \"new\"\netcd = [\"h:1\"]\n");
    let dir = tempfile::tempdir().unwrap();
    let over = Overrides { repo: Some(dir.path().join("node")), ..Default::default() };
    for _ in 0..2 {
        let config = load(&over, &none).unwrap().config;
        example::set_miner(&config, "t01000").unwrap();
        assert_eq!(load(&over, &none).unwrap().config.node.miner.as_deref(), Some("t01000"));
    }
    let config = load(&over, &none).unwrap().config;
    assert!(matches!(example::set_miner(&config, "t01001"), Err(ConfigError::OtherMiner { .. })));
}

/// A token may be in it.
#[test]
fn init_keeps_the_mode_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    for (before, after) in [(None, 0o600), (Some(0o600), 0o600), (Some(0o640), 0o640), (Some(0o644), 0o644)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        if let Some(mode) = before {
            std::fs::write(&file, "[node]\nlog = \"debug\"\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let over = Overrides { repo: Some(dir.path().to_path_buf()), ..Default::default() };
        example::set_miner(&load(&over, &none).unwrap().config, "t01000").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, after, "{before:?}");
    }
}

#[test]
fn the_annotated_text_takes_a_miner_too() {
    let with = example::with_miner(&example::annotated(), "t01000");
    assert_eq!(from(&with).unwrap().config.node.miner.as_deref(), Some("t01000"));
    assert_eq!(values::format_duration(Config::default().devnet.block_delay), "10s");
}

const ID: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

#[test]
fn documented_names_mean_our_keys() {
    let agent =
        "[SealAgent]\nEtcdAddrs = [\"10.0.0.1:2379\", \"10.0.0.2:2379\"]\nServeIP = \"172.16.8.35\"\nServePort = 40001";
    let loaded = from(agent).unwrap();
    let cluster = &loaded.config.cluster;
    assert_eq!(cluster.kind(), crate::config::DirectoryKind::Etcd);
    assert_eq!(cluster.etcd, ["10.0.0.1:2379", "10.0.0.2:2379"]);
    assert_eq!(cluster.listen, ["/ip4/0.0.0.0/tcp/40001"]);
    assert_eq!(cluster.announce, ["/ip4/172.16.8.35/tcp/40001"]);
    let anywhere = from("[SealAgent]\nServeIP = \"0.0.0.0\"\nServePort = 40001").unwrap().config.cluster;
    assert_eq!((anywhere.listen.len(), anywhere.announce.len()), (1, 0), "0.0.0.0 is nowhere to dial");
    let api = from("[API]\nListenAddress = \"/ip4/10.0.99.12/tcp/2345/http\"").unwrap().config.api;
    assert_eq!(api.listen.to_string(), "10.0.99.12:2345");
    let refused = [
        ("[SealAgent]\nEtcdAddrs = [\"218.78,187.146:2379\"]", "client: no endpoints available"),
        ("[SealAgent]\nEtcdAddrs = []", "client: no endpoints available"),
        ("[SealAgent]\nServePort = 0", "SealAgent.ServePort = 0 is not allowed"),
        ("[SealAgent]\nServePort = 65536", "from 1 to 65535"),
        ("[SealAgent]\nServeIP = \"here\"", "SealAgent.ServeIP"),
        ("[SealAgent]\nServeIP = \"10.0.0.1\"", "SealAgent.ServePort must be set too"),
        ("[SealAgent]\nEtcdAddr = []", "[SealAgent] has EtcdAddrs"),
        ("[API]\nListenAddress = \"10.0.0.1:2345\"", "/ip4/127.0.0.1/tcp/2345/http"),
        ("[API]\nTimeout = \"30s\"", "take it out"),
    ];
    for (text, part) in refused {
        let error = sentence(text);
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

#[test]
fn lists_and_peers_are_read_from_file_and_environment() {
    let peer = format!(
        "[[cluster.peer]]\nname = \"b\"\npeer_id = \"{ID}\"\naddrs = [\"/ip4/10.0.0.2/tcp/2347\"]\nroles = [\"allocator\"]\n"
    );
    let mine = "[cluster]\nnode = \"a\"\nroles = [\"window-post\"]\n";
    let loaded = from(&format!("{mine}{peer}[placement]\nwindow-post = [\"a\", \"b\"]")).unwrap().config;
    assert_eq!(loaded.cluster.kind(), crate::config::DirectoryKind::Static);
    assert_eq!((loaded.cluster.node_name().as_str(), loaded.cluster.peer[0].name.as_str()), ("a", "b"));
    assert_eq!(loaded.placement.window_post, ["a", "b"], "hyphens as everywhere else");
    let env = |name: &str| match name {
        "BULKHEAD_CLUSTER_ETCD" => Some("10.0.0.1:2379, 10.0.0.2:2379".to_string()),
        "BULKHEAD_CLUSTER_PEER" => Some(format!("[{{name = \"b\", peer_id = \"{ID}\"}}]")),
        "HOME" => Some("/nonexistent".to_string()),
        _ => None,
    };
    let cluster = load(&Overrides::default(), &env).unwrap().config.cluster;
    assert_eq!((cluster.etcd.len(), cluster.peer.len()), (2, 1));
    let broken = |name: &str| (name == "BULKHEAD_CLUSTER_PEER").then(|| "[{name = \"b\"}]".to_string());
    assert!(load(&Overrides { repo: Some("/nonexistent".into()), ..Default::default() }, &broken).is_err());
}

#[test]
fn a_cluster_that_cannot_be_is_refused() {
    let peer = |name: &str, roles: &str| {
        format!("\n[[cluster.peer]]\nname = \"{name}\"\npeer_id = \"{ID}\"\nroles = [{roles}]\n")
    };
    let a = "[cluster]\nnode = \"a\"\n";
    let table = [
        (format!("{a}roles = [\"mining\"]"), "cluster.roles"),
        ("[cluster]\nnode = \"a/b\"".to_string(), "letters, digits"),
        (format!("{a}directory = \"etcd\""), "cluster.etcd names no endpoint"),
        (format!("{a}directory = \"static\""), "every other node is listed as [[cluster.peer]]"),
        (format!("{a}allocator_at = \"10.0.0.1:1357\""), "bulkhead cluster id"),
        (format!("{a}{}", peer("a", "")), "two nodes have this name"),
        (format!("{a}{}{}", peer("b", ""), peer("c", "")), "two nodes have this name or peer_id"),
        (format!("{a}roles = [\"window-post\"]{}", peer("b", "\"all\"")), "a and b would all run window-post"),
        (format!("{a}{}", peer("b", "\"pilot\"")), "name, peer_id"),
        (
            format!("{a}roles = [\"sealing\"]\nallocator_at = \"10.0.0.1:1\"{}", peer("b", "\"window-post\"")),
            "no [[cluster.peer]] has the role allocator",
        ),
        (format!("{a}suspect = \"1s\""), "above cluster.heartbeat (1s)"),
        (format!("{a}down = \"3s\""), "above cluster.suspect (3s)"),
        (format!("{a}etcd_cert = \"/c.pem\""), "cluster.etcd_key must be set too"),
        (format!("{a}etcd_user = \"root\""), "belong together"),
        (format!("{a}lease_ttl = \"1s\""), "a duration from 2s"),
    ];
    for (text, part) in table {
        let error = sentence(&text);
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
    assert!(from(&format!("{a}roles = [\"sealing\"]{}", peer("b", "\"allocator\""))).is_ok());
    let secret = sentence("[cluster]\netcd_password = [\"s3cr3t\"]");
    assert!(!secret.contains("s3cr3t"), "{secret}");
}
