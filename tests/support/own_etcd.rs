//! Real etcd members for a test: started on free ports, killed, frozen, started again; gone with the test.
#![allow(dead_code)] // each test uses some of it

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Member {
    name: String,
    dir: PathBuf,
    client: String,
    peer: String,
    cluster: String,
    child: Option<Child>,
}

pub struct Etcd {
    pub members: Vec<Member>,
    _dir: tempfile::TempDir,
}

fn free_ports(n: usize) -> Vec<u16> {
    let sockets: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|s| s.local_addr().unwrap().port()).collect()
}

impl Etcd {
    pub fn start(n: usize) -> Etcd {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * n);
        let peer = |i: usize| format!("http://127.0.0.1:{}", ports[2 * i + 1]);
        let cluster: Vec<_> = (0..n).map(|i| format!("m{i}={}", peer(i))).collect();
        let member = |i: usize| Member {
            name: format!("m{i}"),
            dir: dir.path().join(format!("m{i}")),
            client: format!("http://127.0.0.1:{}", ports[2 * i]),
            peer: peer(i),
            cluster: cluster.join(","),
            child: None,
        };
        let mut etcd = Etcd { members: (0..n).map(member).collect(), _dir: dir };
        etcd.members.iter_mut().for_each(Member::start);
        etcd.wait();
        etcd
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.client.clone()).collect()
    }

    /// Until a write goes through.
    pub fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.ctl(&["put", "ready", "yes"]).1 {
            assert!(Instant::now() < deadline, "etcd does not come up");
        }
    }

    /// etcdctl against the members that run; what it says, and whether it went well.
    pub fn ctl(&self, args: &[&str]) -> (String, bool) {
        let up: Vec<_> = self.members.iter().filter(|m| m.child.is_some()).map(|m| m.client.clone()).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(up.join(","));
        let out = command.args(["--command-timeout", "3s", "--dial-timeout", "3s"]).args(args).output().unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.success())
    }
}

impl Member {
    pub fn start(&mut self) {
        let child = Command::new("etcd")
            .args(["--name", &self.name, "--data-dir", self.dir.to_str().unwrap()])
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &self.cluster])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("etcd is installed (Debian: etcd-server, etcd-client)"));
    }
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }
    fn signal(&self, signal: i32) {
        let pid = self.child.as_ref().expect("it runs").id() as i32;
        // SAFETY: a signal to a child that we have not waited for.
        unsafe { libc::kill(pid, signal) };
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
