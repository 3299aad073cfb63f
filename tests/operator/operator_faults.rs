//! What goes wrong around a node, with the real binary: one clear sentence and an exit code, or a retry that `tree`
//! shows; and nothing is lost: the same command goes on once the fault is over.

mod disk;

use crate::support::operator::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().expect("a folder") }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// A chain, a miner on it, and the repo that is its home.
    fn initialised(&self) -> (Chain, PathBuf) {
        let chain = Chain::start(&self.at("devnet"));
        let repo = self.at("repo");
        chain.init(&repo);
        (chain, repo)
    }
}

#[track_caller]
fn in_trouble(repo: &Path, actor: &str, parts: &[&str]) {
    until(&format!("{actor} to try again: {parts:?}"), || {
        trouble(repo, actor).filter(|why| parts.iter().all(|part| why.contains(part)))
    });
}

#[track_caller]
fn well_again(repo: &Path, actor: &str) {
    until("the end of the trouble", || trouble(repo, actor).is_none().then_some(()));
}

/// What `/health/ready` answers, by itself.
fn ready(repo: &Path) -> (u16, Value) {
    let admin = std::fs::read_to_string(repo.join("admin")).expect("the node wrote it");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let answer = reqwest::get(format!("http://{admin}/health/ready")).await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    })
}

/// The text that a person sees.
fn screen(repo: &Path, command: &[&str]) -> String {
    say(&[command, &["--repo", text(repo)]].concat(), &[]).ok().out
}

#[test]
fn a_port_in_use_is_named_and_another_one_works() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let addr = taken.local_addr().expect("address").to_string();
    let devnet = ["devnet", "--chain-only", "--dir", text(&place.at("devnet")), "--listen", &addr].map(String::from);
    let devnet: Vec<&str> = devnet.iter().map(String::as_str).collect();
    say(&devnet, &[]).refused(1, &[&addr, "in use"]);

    // A node's own ports: see `starts`.
    let (chain, repo) = place.initialised();
    up(&repo, &chain.api_info()).stopped();
}

#[test]
fn a_second_node_on_one_repo_is_refused_and_the_first_lives_on() {
    let place = Place::new();
    let (mut chain, repo) = place.initialised();
    let mut first = up(&repo, &chain.api_info());
    let holder = format!("process {}", first.pid());
    run(&repo, &chain.api_info(), &[]).ended().refused(1, &[text(&repo), "in use", &holder]);
    let again =
        ["devnet", "--chain-only", "--dir", text(&place.at("devnet")), "--listen", "127.0.0.1:0"].map(String::from);
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    let holder = format!("process {}", chain.process.pid());
    say(&again, &[]).refused(1, &[text(&place.at("devnet")), "in use", &holder]);
    assert!(first.lives() && chain.process.lives());
    assert_eq!(ask(&repo, &["info"])["miner"], "t01000");
    first.stopped();
    chain.process.stopped();
}

#[test]
fn a_wrong_or_missing_token_is_refused_at_every_start() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    let tokens = [format!("wrong.token.here:{}", chain.without_token()), chain.without_token()];
    for start in ["first", "later"] {
        for token in &tokens {
            let said = run(&repo, token, &[]).ended();
            said.refused(1, &[&format!("127.0.0.1:{}", chain.port), "check the token in FULLNODE_API_INFO"]);
            assert!(!said.err.contains("wrong.token"), "{start}: a token in an error text: {said}");
        }
        up(&repo, &chain.api_info()).stopped();
    }
    let said = say(
        &["init", "--actor", "t01000", "--repo", text(&place.at("other"))],
        &[("FULLNODE_API_INFO", &chain.without_token())],
    );
    said.refused(1, &["check the token in FULLNODE_API_INFO"]);
    assert!(!place.at("other").join("config.toml").exists());
}

#[test]
fn a_full_node_that_goes_away_is_waited_for_and_the_tree_says_so() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    let (api_info, port) = (chain.api_info(), chain.port);
    let name = format!("127.0.0.1:{port}");
    // the first start has to know network and sector size
    let other = place.at("never-started");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::copy(repo.join("config.toml"), other.join("config.toml")).expect("its miner");

    let mut node = up(&repo, &api_info);
    until("the first head", || ask(&repo, &["info"])["full_node"]["subscribed"].as_bool().filter(|up| *up));
    assert_eq!(trouble(&repo, "head_feed"), None);
    until("a ready node", || (ready(&repo).0 == 200).then_some(()));
    assert!(screen(&repo, &["info"]).contains("1 of 1 full nodes usable"), "{}", screen(&repo, &["info"]));
    chain.process.killed();
    in_trouble(&repo, "head_feed", &[&name, "cannot reach it"]);
    let (status, why) = ready(&repo);
    assert_eq!(status, 503, "without its only full node it is not ready: {why}");
    assert!(
        why["waiting_for"].to_string().contains("root/chain/head_feed") && why["reasons"].to_string().contains(&name)
    );
    in_trouble(&repo, "daemon_pool", &["no full node can be used", &name]);
    let info = screen(&repo, &["info"]);
    assert!(info.contains("! the full node is away: ") && info.contains("0 of 1 full nodes usable"), "{info}");
    assert!(info.contains("Restart now?   unknown"), "{info}");
    run(&other, &api_info, &[]).ended().refused(1, &[&name, "cannot reach it"]);
    assert!(node.lives());
    // stop works while nobody answers; so does the next start
    say(&["stop", "--repo", text(&repo)], &[]).ok();
    assert!(node.ended().ok().out.is_empty());
    let mut node = up(&repo, &api_info);
    in_trouble(&repo, "head_feed", &[&name, "cannot reach it"]);
    let info = ask(&repo, &["info"]);
    assert!(info["full_node"]["last_error"].as_str().is_some_and(|e| e.contains("cannot reach it")), "{info}");
    let tree = say(&["tree", "--repo", text(&repo)], &[]).ok();
    assert!(tree.out.contains("trying again: "), "{tree}");

    let chain = Chain::start_at(&place.at("devnet"), port, FAST, &[]);
    well_again(&repo, "head_feed");
    node.says("the head feed is back");
    let height = || ask(&repo, &["info"])["full_node"]["height"].as_i64();
    let seen = until("a head", height);
    until("the next heads", || height().filter(|now| *now > seen + 1));
    until("a ready node again", || (ready(&repo).0 == 200).then_some(()));
    assert!(screen(&repo, &["info"]).contains("Health         ok"), "{}", screen(&repo, &["info"]));
    assert!(node.lives());
    node.stopped();
    chain.process.stopped();
}

#[test]
fn a_full_node_of_another_network_is_refused_by_both_names() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    up(&repo, &chain.api_info()).stopped();
    let before = std::fs::read(repo.join("config.toml")).expect("config");
    let env = [("BULKHEAD_DEVNET_NETWORK_NAME", "another-devnet")];
    let another = Chain::start_at(&place.at("another"), 0, FAST, &env);
    let said = run(&repo, &another.api_info(), &[]).ended();
    said.refused(
        1,
        &[
            &format!("127.0.0.1:{}", another.port),
            "is on network another-devnet",
            "is for bulkhead-devnet-1",
            "FULLNODE_API_INFO",
        ],
    );
    assert_eq!(std::fs::read(repo.join("config.toml")).expect("config"), before);

    // put in the place of the right one while a node runs: not followed
    let mut node = up(&repo, &chain.api_info());
    let (port, secret) = (chain.port, "chain/jwt-secret");
    chain.process.stopped();
    another.process.stopped();
    std::fs::copy(place.at("devnet").join(secret), place.at("another").join(secret)).expect("the same tokens");
    let another = Chain::start_at(&place.at("another"), port, FAST, &[]);
    in_trouble(&repo, "head_feed", &["is on network another-devnet", "is for bulkhead-devnet-1"]);
    assert!(node.lives());
    another.process.stopped();
    let _chain = Chain::start_at(&place.at("devnet"), port, FAST, &[]);
    well_again(&repo, "head_feed");
    node.stopped();
}

/// Answers every connection with these bytes.
fn answering(answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // a client that has gone is fine
            let _ = stream.read(&mut [0; 8192]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[test]
fn a_full_node_that_answers_garbage_is_named_at_the_first_start_and_waited_for_later() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    let fresh = place.at("fresh");
    std::fs::create_dir(&fresh).expect("a folder");
    std::fs::copy(repo.join("config.toml"), fresh.join("config.toml")).expect("its miner");
    up(&repo, &chain.api_info()).stopped();
    let http =
        |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let null = json!({ "jsonrpc": "2.0", "id": 1, "result": null }).to_string();
    let answers =
        [http("<html>not a node</html>"), http(""), http(&null), http("{\"jsonrpc\":"), "\u{1}\u{2}garbage".into()];
    for answer in answers {
        let port = answering(answer.clone());
        let (name, api_info) = (format!("127.0.0.1:{port}"), format!("t.o.k:/ip4/127.0.0.1/tcp/{port}/http"));
        run(&fresh, &api_info, &[]).ended().refused(1, &[&name]);
        let mut node = up(&repo, &api_info);
        in_trouble(&repo, "head_feed", &[&name]);
        assert!(node.lives(), "{answer:?}");
        node.stopped();
    }
    up(&repo, &chain.api_info()).stopped();
}

/// Ways in which a file can be broken.
fn broken(good: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        bytes
    };
    vec![
        ("its first bytes", with(&|b| b[3] ^= 0xff)),
        ("a byte of every page", with(&|b| b.iter_mut().skip(4096 + 700).step_by(4096).for_each(|byte| *byte ^= 0x5a))),
        ("cut in half", with(&|b| b.truncate(b.len() / 2))),
        (
            "garbage",
            with(&|b| (0u32..).zip(b.iter_mut()).for_each(|(n, b)| *b = (n.wrapping_mul(2_654_435_761) >> 13) as u8)),
        ),
        ("text", b"this is no database\n".to_vec()),
    ]
}

#[test]
fn what_only_tools_read_does_not_stop_a_start() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    up(&repo, &chain.api_info()).stopped();
    // As on a disk that takes no new file: these cannot be written.
    for name in ["token", "api", "admin"] {
        let _ = std::fs::remove_file(repo.join(name)); // left by the first start, or taken away at its end
        std::fs::create_dir_all(repo.join(name).join("in the way")).expect("a folder");
    }
    let mut node = run(&repo, &chain.api_info(), &[]);
    until("a node that is up", || {
        assert!(node.lives(), "{}", node.err());
        node.err().contains("the node is up").then_some(())
    });
    for part in ["tools on this host do not find it", "the command line does not find this node's admin HTTP"] {
        until(part, || node.err().contains(part).then_some(()));
    }
    node.stopped();
}

#[test]
fn a_lost_store_is_not_silently_replaced() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    let api_info = chain.api_info();
    up(&repo, &api_info).stopped();
    let store = repo.join("bulkhead.redb");
    let good = std::fs::read(&store).expect("the store");
    for (how, lose) in [("missing", true), ("empty", false)] {
        if lose {
            std::fs::remove_file(&store).expect("removed");
        } else {
            std::fs::write(&store, "").expect("emptied");
        }
        let ways_back = [text(&store), how, "backup", "`bulkhead cluster export`", "--new-store"];
        run(&repo, &api_info, &[]).ended().refused(1, &ways_back);
        assert_eq!(std::fs::read(&store).ok().map(|left| left.len()), (!lose).then_some(0), "{how}: nothing was made");
        std::fs::write(&store, &good).expect("the backup");
        up(&repo, &api_info).stopped();
    }
    std::fs::remove_file(&store).expect("removed");
    let mut node = run(&repo, &api_info, &["--new-store"]);
    until("a node that is up", || {
        assert!(node.lives(), "{}", node.err());
        node.err().contains("the node is up").then_some(())
    });
    node.stopped();
    up(&repo, &api_info).stopped();
}

#[test]
fn a_damaged_database_is_refused_with_what_to_do_and_stays_as_it_is() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    up(&repo, &chain.api_info()).stopped();
    let api_info = chain.api_info();
    let store = repo.join("bulkhead.redb");
    let good = std::fs::read(&store).expect("the store");
    for (how, bytes) in broken(&good) {
        std::fs::write(&store, &bytes).expect("written");
        let said = run(&repo, &api_info, &[]).ended();
        said.refused(1, &[text(&store), "damaged", "move the file away"]);
        assert!(std::fs::read(&store).expect("the store") == bytes, "{how}: the file was changed");
    }
    std::fs::write(&store, &good).expect("restored");
    up(&repo, &api_info).stopped();

    chain.process.stopped();
    let file = place.at("devnet").join("chain/chain.redb");
    let good = std::fs::read(&file).expect("the chain");
    let dir = place.at("devnet");
    let start = ["devnet", "--chain-only", "--dir", text(&dir), "--listen", "127.0.0.1:0"];
    for (how, bytes) in broken(&good) {
        std::fs::write(&file, &bytes).expect("written");
        say(&start, &[]).refused(1, &[text(&file), "damaged", "move the folder away"]);
        assert!(std::fs::read(&file).expect("the chain") == bytes, "{how}: the file was changed");
    }
    std::fs::write(&file, &good).expect("restored");
    Chain::start(&dir).process.stopped();
}

#[test]
fn a_whole_devnet_stops_in_order_and_goes_on() {
    let place = Place::new();
    let dir = place.at("devnet");
    // so slow that no proof is begun
    let slow = ["--block-delay", "5m", "--warmup-delay", "2s"];
    let ports = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let start = || {
        let args: Vec<&str> = ["devnet", "--json", "--dir", text(&dir)].into_iter().chain(slow).chain(ports).collect();
        let mut devnet = Running::start(&args, &[]);
        devnet.event("the node", |e| e["event"] == "ready" && e["what"] == "node");
        devnet
    };
    let devnet = start();
    let repo = dir.join("node");
    assert_eq!(ask(&repo, &["info"])["miner"], "t01000");
    let stopped = say(&["stop", "--repo", text(&repo)], &[]).ok();
    assert!(stopped.out.contains("stopped"), "{stopped}");
    devnet.ended().ok();
    say(&["tree", "--repo", text(&repo)], &[]).refused(1, &["no node is running in"]);

    let devnet = start();
    let sectors = ask(&repo, &["sectors", "list"]);
    assert_eq!(sectors.as_array().map(Vec::len), Some(1), "the first run's sector and no other: {sectors}");
    devnet.stopped();
}

/// What the admin HTTP of the node in `repo` answers to that order.
fn kill(repo: &Path, actor: &str) -> u16 {
    let read = |name: &str| std::fs::read_to_string(repo.join(name)).expect(name).trim().to_string();
    let url = format!("http://{}/actors/{actor}/kill", read("admin").trim_start_matches("http://"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let request = reqwest::Client::new().post(url).bearer_auth(read("token"));
    runtime.block_on(request.send()).expect("an answer").status().as_u16()
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let place = Place::new();
    let (chain, repo) = place.initialised();
    let mut node = Unread::start(&repo, &chain.api_info());
    let rows = || {
        let said = say(&["tree", "--json", "--repo", text(&repo)], &[]);
        said.status.success().then(|| serde_json::from_str::<Value>(&said.out).expect("rows"))
    };
    let sender = || {
        let rows = rows()?;
        let mut rows = rows.as_array().expect("rows").iter();
        rows.find(|row| row["path"].as_str().is_some_and(|path| path.ends_with("message_sender"))).cloned()
    };
    let up = |row: &Value| row["state"] == "up";
    let first = until("the node", || sender().filter(up));
    // Each restart leaves lines in the log, of the supervisors' own thread too.
    let (path, mut incarnation) = (first["path"].as_str().expect("a path").to_string(), first["incarnation"].as_u64());
    for _ in 0..3 {
        assert_eq!(kill(&repo, &path), 200);
        let next =
            until("its successor", || sender().filter(|row| up(row) && row["incarnation"].as_u64() > incarnation));
        incarnation = next["incarnation"].as_u64();
    }
    assert!(node.process.try_wait().expect("a process").is_none(), "it runs on");
    say(&["stop", "--repo", text(&repo)], &[]).ok();
    until("its end", || node.process.try_wait().expect("a process"));
}

/// So many threads and processes for a user of its own. `None`: not as root, or the binary lies where no other user comes.
fn with_few_threads(mut command: std::process::Command, threads: u64) -> Option<std::process::Command> {
    use nix::sys::resource::{Resource, setrlimit};
    use std::os::unix::process::CommandExt;
    if !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    command.uid(54_321);
    let limit = move || setrlimit(Resource::RLIMIT_NPROC, threads, threads).map_err(std::io::Error::from);
    // SAFETY: setrlimit is async-signal-safe, and nothing else runs between fork and exec.
    unsafe { command.pre_exec(limit) };
    let mut tried = std::process::Command::new("test");
    tried.args(["-x", env!("CARGO_BIN_EXE_bulkhead")]).uid(54_321);
    tried.status().expect("it runs").success().then_some(command)
}

#[test]
#[ignore = "now and then a start under such a limit hangs instead of ending: an open fault"]
fn a_host_that_refuses_threads_is_told_at_once() {
    let place = Place::new();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(place.dir.path(), everybody).expect("permissions");
    for threads in 1..=8 {
        let dir = place.at(&format!("devnet-{threads}"));
        let args = ["devnet", "--chain-only", "--dir", text(&dir), "--listen", "127.0.0.1:0"];
        let Some(command) = with_few_threads(bulkhead(&args, &[]), threads) else { return };
        let began = std::time::Instant::now();
        let said = Running::of(command).ended();
        let last = said.err.trim_end().lines().last().unwrap_or_default();
        assert!(said.status.code() == Some(1) && last.starts_with("error: ") && last.contains("ulimit -u"), "{said}");
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{threads} threads: {:?}", began.elapsed());
    }
}
