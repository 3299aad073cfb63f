//! The real binary as an operator meets it: started, waited for by what it says, stopped or killed; never left behind.

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// For a loaded machine; what is waited for comes within a second or two on an idle one.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for a condition outside of this process, which nothing here can be told of.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, condition)
}

#[track_caller]
pub fn until_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The binary with nothing in its environment but the keys' folder and what is given.
pub fn bulkhead(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.args(args).env_clear().env("HOME", "/nonexistent");
    if let Some(keys) = std::env::var_os("FIL_PROOFS_PARAMETER_CACHE") {
        command.env("FIL_PROOFS_PARAMETER_CACHE", keys);
    }
    command.envs(env.iter().copied());
    command
}

/// How a command ended, and what it said.
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Said {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Ended with that exit code and with one sentence on stderr, after its log lines, that has all of `parts`.
    #[track_caller]
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{self}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && self.err.trim_end().ends_with(errors[0]), "one sentence: {self}");
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{self}");
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is missing: {self}");
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout: {}\nstderr: {}", self.status, self.out, self.err)
    }
}

/// May open at most `files` files at once: a limit that the process cannot raise.
pub fn with_few_files(mut command: Command, files: u64) -> Command {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let file = nix::sys::resource::Resource::RLIMIT_NOFILE;
        nix::sys::resource::setrlimit(file, files, files).map_err(std::io::Error::from)
    };
    // SAFETY: setrlimit is async-signal-safe, and nothing else runs between fork and exec.
    unsafe { command.pre_exec(limit) };
    command
}

/// To its end.
pub fn say(args: &[&str], env: &[(&str, &str)]) -> Said {
    Running::start(args, env).ended()
}

/// A process that is up. Killed when dropped.
pub struct Running {
    child: Child,
    said: tempfile::TempDir,
}

impl Running {
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Running {
        Running::of(bulkhead(args, env))
    }

    pub fn of(mut command: Command) -> Running {
        let said = tempfile::tempdir().expect("a folder");
        let file = |name: &str| std::fs::File::create(said.path().join(name)).expect("a file");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        Running { child: command.spawn().expect("the binary starts"), said }
    }

    pub fn out(&self) -> String {
        std::fs::read_to_string(self.said.path().join("out")).expect("stdout")
    }

    pub fn err(&self) -> String {
        std::fs::read_to_string(self.said.path().join("err")).expect("stderr")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).expect("it runs");
    }

    pub fn ended(mut self) -> Said {
        let status = until("the end of the process", || self.child.try_wait().expect("wait"));
        Said { status, out: self.out(), err: self.err() }
    }

    pub fn lives(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    pub fn killed(self) {
        self.signal(nix::sys::signal::Signal::SIGKILL);
        assert_eq!(self.ended().status.signal(), Some(9));
    }

    /// SIGTERM, and an orderly end with exit 0.
    #[track_caller]
    pub fn stopped(self) -> Said {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended().ok()
    }

    /// Waits until its logs say that.
    #[track_caller]
    pub fn says(&mut self, what: &str) {
        until(what, || {
            let said = self.err();
            assert!(said.contains(what) || self.lives(), "it ended before it said {what:?}: {said}");
            said.contains(what).then_some(())
        });
    }

    /// The first JSON event of that kind.
    #[track_caller]
    pub fn event(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        until(what, || {
            let out = self.out();
            let found = out.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|event| condition(event));
            assert!(found.is_some() || self.lives(), "it ended before {what}: {out}\n{}", self.err());
            found
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// `devnet --chain-only`: a full node without proofs.
pub struct Chain {
    pub process: Running,
    pub port: u16,
    pub token: String,
}

/// Its blocks come five times a second.
pub const FAST: &[&str] = &["--block-delay", "200ms", "--warmup-delay", "200ms"];

impl Chain {
    pub fn start(dir: &Path) -> Chain {
        Chain::start_at(dir, 0, FAST, &[])
    }

    pub fn start_at(dir: &Path, port: u16, args: &[&str], env: &[(&str, &str)]) -> Chain {
        let listen = format!("127.0.0.1:{port}");
        let first = ["devnet", "--chain-only", "--json", "--dir", text(dir), "--listen", &listen];
        let all: Vec<&str> = first.iter().chain(args).copied().collect();
        Chain::of(dir, Running::start(&all, env))
    }

    /// With few files: see [`with_few_files`].
    pub fn limited(dir: &Path, files: u64) -> Chain {
        let all = ["devnet", "--chain-only", "--json", "--dir", text(dir), "--listen", "127.0.0.1:0"];
        let args: Vec<&str> = all.iter().chain(FAST).copied().collect();
        Chain::of(dir, Running::of(with_few_files(bulkhead(&args, &[]), files)))
    }

    fn of(dir: &Path, mut process: Running) -> Chain {
        process.event("the chain", |e| e["event"] == "ready" && e["what"] == "chain");
        let info = std::fs::read_to_string(dir.join("chain/api-info")).expect("its address");
        let (token, address) = info.split_once(':').expect("a token");
        let port = address.split('/').nth(4).and_then(|port| port.parse().ok()).expect("a port");
        Chain { process, port, token: token.to_string() }
    }

    pub fn api_info(&self) -> String {
        format!("{}:/ip4/127.0.0.1/tcp/{}/http", self.token, self.port)
    }

    pub fn without_token(&self) -> String {
        format!("/ip4/127.0.0.1/tcp/{}/http", self.port)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/rpc/v1", self.port)
    }

    /// One call of a client, with its parameters in JSON.
    pub fn call(&self, method: &str, params: &str) -> Value {
        let params: Vec<Value> = serde_json::from_str(params).expect("a list");
        let info = bulkhead::rpc::api_info::ApiInfo::parse("test", &self.api_info()).expect("its address");
        let client = bulkhead::rpc::client::RpcClient::new(&info, "v1").expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let method = format!("Filecoin.{method}");
        let answer = runtime.block_on(client.call(&method, params, PATIENCE));
        answer.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    pub fn height(&self) -> i64 {
        self.call("ChainHead", "[]")["Height"].as_i64().expect("a height")
    }

    /// A miner, and the repo that is its home.
    pub fn init(&self, repo: &Path) {
        let args = ["init", "--repo", text(repo), "--sector-size", "2KiB"];
        let said = say(&args, &[("FULLNODE_API_INFO", &self.api_info())]).ok();
        assert!(said.out.contains("t01000"), "{said}");
    }
}

/// `bulkhead run` on any free ports, with a stderr that is full and that nobody reads until it is dropped.
pub struct Unread {
    pub process: Child,
    _stderr: std::io::PipeReader,
}

impl Unread {
    pub fn start(repo: &Path, api_info: &str) -> Unread {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let flags = |flags| nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).expect("flags");
        flags(nix::fcntl::OFlag::O_NONBLOCK);
        while std::io::Write::write(&mut &writer, b".").is_ok() {}
        flags(nix::fcntl::OFlag::empty());
        let args = ["run", "--repo", text(repo), "--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut command = bulkhead(&args, &[("FULLNODE_API_INFO", api_info), ANY_POOL_PORT]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).spawn().expect("started");
        Unread { process, _stderr: reader }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has ended
        let _ = self.process.wait();
    }
}

/// The pool of full nodes is served on any free port.
pub const ANY_POOL_PORT: (&str, &str) = ("BULKHEAD_FULL_NODE_LISTEN", "127.0.0.1:0");

/// `bulkhead run` on any free ports.
pub fn run(repo: &Path, api_info: &str, more: &[&str]) -> Running {
    Running::of(run_command(repo, api_info, more))
}

pub fn run_command(repo: &Path, api_info: &str, more: &[&str]) -> Command {
    let args = ["run", "--repo", text(repo), "--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    // a flag may come only once: `more` replaces
    let mut all: Vec<&str> = args.to_vec();
    for pair in more.chunks(2) {
        match all.iter().position(|a| *a == pair[0]) {
            Some(at) => all[at + 1] = pair[1],
            None => all.extend(pair),
        }
    }
    bulkhead(&all, &[("FULLNODE_API_INFO", api_info), ANY_POOL_PORT])
}

pub fn up(repo: &Path, api_info: &str) -> Running {
    let mut node = run(repo, api_info, &[]);
    node.says("the node is up");
    node
}

/// A command to the node in `repo`, as it is typed.
pub fn typed(repo: &Path, args: &[&str]) -> Said {
    say(&[args, &["--repo", text(repo)]].concat(), &[])
}

#[track_caller]
pub fn shows(said: &Said, parts: &[&str]) {
    for part in parts {
        assert!(said.out.contains(part), "{part:?} is missing: {said}");
    }
}

/// The JSON answer of a command to the node in `repo`.
#[track_caller]
pub fn ask(repo: &Path, command: &[&str]) -> Value {
    let args: Vec<&str> = command.iter().copied().chain(["--json", "--repo", text(repo)]).collect();
    let said = say(&args, &[]).ok();
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// What the tree says that an actor tries again.
#[track_caller]
pub fn trouble(repo: &Path, actor: &str) -> Option<String> {
    let tree = ask(repo, &["tree"]);
    let rows = tree.as_array().expect("rows");
    let row = rows.iter().find(|row| row["path"].as_str().is_some_and(|path| path.ends_with(actor)));
    row.unwrap_or_else(|| panic!("no {actor} in {tree}"))["trouble"].as_str().map(str::to_string)
}
