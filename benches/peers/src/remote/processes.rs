//! Server and client as processes of their own: this executable again, with other arguments.

use super::Peer;
use super::plan::{Plan, Sample};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    pub bind: String,
}

impl Server {
    /// `within`: the network namespace it runs in, and its address there; without one, loopback.
    pub fn start(peer: Peer, secrets: &Path, within: Option<&Namespace>) -> Server {
        let host = within.map_or("127.0.0.1", |namespace| namespace.inside.as_str());
        Server::start_on(peer, secrets, within, &format!("{host}:{}", free_port()))
    }

    pub fn start_on(peer: Peer, secrets: &Path, within: Option<&Namespace>, bind: &str) -> Server {
        let mut command = myself(within);
        command.args(["server", peer.key(), bind]).arg(secrets).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this executable starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let _ = lines.read_line(&mut line);
        let Some(address) = line.trim().strip_prefix("ready ") else {
            panic!("the server of {} did not start", peer.name());
        };
        Server { child, address: address.to_string(), bind: bind.to_string() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, SIGSTOP: a fault, as seen from its clients.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Client {
    pub fn start(plan: &Plan) -> Client {
        let plan = serde_json::to_string(plan).expect("a plan is JSON");
        let mut command = myself(None);
        let mut child = command
            .args(["client", &plan])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this executable starts");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Client { child, stdin, lines: BufReader::new(stdout).lines() }
    }

    /// Waits until it says so; `false`: it ended before.
    pub fn said(&mut self, what: &str) -> Result<(), Vec<Sample>> {
        match self.lines.next() {
            Some(Ok(line)) if line == what => Ok(()),
            Some(Ok(line)) => Err(samples(&line)),
            _ => Err(vec![Sample::Failed { why: "its client ended".into() }]),
        }
    }

    pub fn go(&mut self) {
        let _ = self.stdin.write_all(b"go\n");
    }

    /// Waits for its results.
    pub fn results(mut self) -> Vec<Sample> {
        let line = self.lines.next().and_then(Result::ok).unwrap_or_default();
        samples(&line)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn samples(line: &str) -> Vec<Sample> {
    serde_json::from_str(line)
        .unwrap_or_else(|_| vec![Sample::Failed { why: format!("its client ended with {line:?}") }])
}

fn myself(within: Option<&Namespace>) -> Command {
    let this = std::env::current_exe().expect("this executable");
    let mut command = match within {
        None => Command::new(this),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &namespace.name]).arg(this);
            command
        }
    };
    // SAFETY: prctl is async-signal-safe; the child dies with us, whatever we die of.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_or(0, |address| address.port())
}

/// A network namespace behind a veth pair; removed when dropped. Needs root.
pub struct Namespace {
    name: String,
    outside: String,
    pub inside: String,
}

impl Namespace {
    pub fn make() -> Option<Namespace> {
        let pid = std::process::id();
        let (name, here, there) = (format!("peers-{pid}"), format!("pa{pid}"), format!("pb{pid}"));
        // A network of its own: one that a killed run left behind would be found in its place.
        let net = format!("10.{}.{}", 214 + pid / 250 % 40, pid % 250);
        let made = Namespace { name: name.clone(), outside: format!("{net}.1"), inside: format!("{net}.2") };
        let (outside, inside) = (format!("{}/30", made.outside), format!("{}/30", made.inside));
        let steps: [&[&str]; 6] = [
            &["netns", "add", &name],
            &["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name],
            &["address", "add", &outside, "dev", &here],
            &["link", "set", &here, "up"],
            &["-n", &name, "address", "add", &inside, "dev", &there],
            &["-n", &name, "link", "set", &there, "up"],
        ];
        steps.iter().all(|step| ip(step)).then_some(made)
    }

    /// Nothing that is sent inside arrives outside any more; nobody is told.
    pub fn cut(&self) {
        ip(&["-n", &self.name, "route", "add", "blackhole", &format!("{}/32", self.outside)]);
    }
    pub fn heal(&self) {
        ip(&["-n", &self.name, "route", "del", "blackhole", &format!("{}/32", self.outside)]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]); // its end of the pair goes with it, and so does ours
    }
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
