//! The real binary's `devnet --json` as a child process: started, watched by its event lines, asked, killed.

use bulkhead::rpc::api_info::ApiInfo;
use bulkhead::rpc::client::RpcClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// For any one step; a C2 on a machine that does five other things takes minutes.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Where, and with what beside the folder.
pub struct Devnet {
    pub dir: PathBuf,
    pub flags: Vec<String>,
}

pub struct Running {
    child: Child,
    events: Receiver<Value>,
    seen: Vec<Value>,
    dir: PathBuf,
    stderr: PathBuf,
}

impl Devnet {
    pub fn start(&self, failpoint: &str, extra: &[&str]) -> Running {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let run = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stderr = self.dir.join(format!("stderr-{run:02}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command.args(["devnet", "--json", "--listen", "127.0.0.1:0", "--dir"]).arg(&self.dir);
        command.args(["--api-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(&self.flags).args(extra).env("BULKHEAD_FAILPOINT", failpoint);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr).unwrap());
        let mut child = command.spawn().unwrap();
        let (tell, events) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Running { child, events, seen: vec![], dir: self.dir.clone(), stderr }
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn context(&self) -> String {
        let log = self.log();
        let tail = &log[log.floor_char_boundary(log.len().saturating_sub(4000))..];
        format!(
            "events {:#?}\nlog {}: ...{tail}",
            self.seen.iter().rev().take(12).collect::<Vec<_>>(),
            self.stderr.display()
        )
    }

    /// Reads events until one is wanted; that one.
    pub fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            match self.events.recv_timeout(LIMIT.saturating_sub(started.elapsed())) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if wanted(&event) {
                        return event;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("never: {what}\n{}", self.context()),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended before: {what}\n{}", self.context()),
            }
        }
    }

    /// Waits for the end, which came by itself.
    pub fn ended(&mut self, what: &str) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.seen.extend(self.events.try_iter());
                return status;
            }
            if started.elapsed() > LIMIT {
                panic!("never: {what}\n{}", self.context());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the failpoint has killed it, and nothing of it is left.
    pub fn falls(mut self, failpoint: &str) {
        let pid = self.child.id();
        let mut known = Vec::new();
        let started = Instant::now();
        let status = loop {
            known.extend(provers(pid, ""));
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < LIMIT, "never at failpoint {failpoint}\n{}", self.context());
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.signal(), Some(9), "failpoint {failpoint}: {status}\n{}", self.context());
        assert!(self.log().contains(&format!("failpoint {failpoint}\n")), "{failpoint}\n{}", self.context());
        all_gone(&known);
    }

    /// `kill -9` of the node's process alone; its provers must follow it by themselves.
    pub fn kill_nine(mut self) {
        let children = provers(self.child.id(), "");
        assert!(!children.is_empty(), "this kill is for when a prover works");
        signal(self.child.id(), Signal::SIGKILL);
        self.child.wait().unwrap();
        all_gone(&children);
    }

    /// A prover of that pool, and that is not `but`, as soon as there is one.
    pub fn prover(&mut self, pool: &str, but: &[u32]) -> u32 {
        let started = Instant::now();
        loop {
            if let Some(pid) = provers(self.child.id(), pool).into_iter().find(|pid| !but.contains(pid)) {
                return pid;
            }
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended before a {pool} prover came\n{}",
                self.context()
            );
            assert!(started.elapsed() < LIMIT, "never a {pool} prover\n{}", self.context());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    /// One call to the node (`node`) or the chain (`chain`), as any client makes it. A proof may begin before the API
    /// listens; until then `api` names the address of the process before.
    pub async fn call(&self, place: &str, method: &str, params: Vec<Value>) -> Value {
        let started = Instant::now();
        loop {
            let info = format!("{}:{}", self.file(&format!("{place}/token")), self.file(&format!("{place}/api")));
            let info = ApiInfo::parse(place, &info).unwrap();
            let version = if place == "chain" { "v1" } else { "v0" };
            let client = RpcClient::new(&info, version).unwrap();
            match client.call(method, params.clone(), Duration::from_secs(60)).await {
                Ok(answer) => return answer,
                Err(e) if e.to_string().contains("cannot reach") && started.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(e) => panic!("{e}\n{}", self.context()),
            }
        }
    }

    /// Asks until the answer is what is waited for.
    pub async fn until(
        &mut self,
        what: &str,
        method: &str,
        params: Vec<Value>,
        done: impl Fn(&Value) -> bool,
    ) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.call("node", method, params.clone()).await;
            if done(&answer) {
                return answer;
            }
            assert!(started.elapsed() < LIMIT, "never {what}: {answer:#}\n{}", self.context());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Sends the signal until the process is gone: a prover that is only now starting does not yet take a SIGSEGV from outside.
pub fn fell(pid: u32, with: Signal) {
    let started = Instant::now();
    while state_and_parent(pid).is_some_and(|(state, _)| state != 'Z') {
        let _ = kill(Pid::from_raw(pid as i32), with);
        assert!(started.elapsed() < LIMIT, "{pid} does not die of {with}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `bulkhead prover <pool>` children of that process that are not zombies.
pub fn provers(parent: u32, pool: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let Some((state, ppid)) = state_and_parent(*pid) else { return false };
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let args: Vec<&[u8]> = command.split(|b| *b == 0).collect();
        let is_prover = args.get(1) == Some(&b"prover".as_slice());
        let of_pool = pool.is_empty() || args.get(2) == Some(&pool.as_bytes());
        ppid == parent && state != 'Z' && is_prover && of_pool
    })
    .collect()
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Within a second none of these is there any more (whoever reaps them).
fn all_gone(pids: &[u32]) {
    let started = Instant::now();
    let alive = |pid: &&u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let prover = command.split(|b| *b == 0).nth(1) == Some(b"prover".as_slice());
        prover && state_and_parent(**pid).is_some_and(|(state, _)| state != 'Z')
    };
    while let Some(left) = pids.iter().find(alive) {
        assert!(started.elapsed() < Duration::from_secs(1), "prover {left} outlived its node by a second");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every message on chain: who it is to, its method, its exit code.
pub async fn messages(chain: &Running) -> Vec<(String, u64, i64)> {
    let mut tipset = chain.call("chain", "Filecoin.ChainHead", vec![]).await;
    let mut found = Vec::new();
    while tipset["Height"].as_i64().unwrap() > 0 {
        let block = tipset["Cids"][0].clone();
        let messages = chain.call("chain", "Filecoin.ChainGetParentMessages", vec![block.clone()]).await;
        let receipts = chain.call("chain", "Filecoin.ChainGetParentReceipts", vec![block]).await;
        for (message, receipt) in
            messages.as_array().into_iter().flatten().zip(receipts.as_array().into_iter().flatten())
        {
            let message = &message["Message"];
            let to = message["To"].as_str().unwrap().to_string();
            found.push((to, message["Method"].as_u64().unwrap(), receipt["ExitCode"].as_i64().unwrap()));
        }
        let parents = tipset["Blocks"][0]["Parents"].clone();
        tipset = chain.call("chain", "Filecoin.ChainGetTipSet", vec![parents]).await;
    }
    found
}
