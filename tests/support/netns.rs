//! Several hosts on one machine: network namespaces on one Ethernet bridge, and ways to cut them off from one another.
//! Needs root and iproute2; where either is missing the tests that use it say SKIPPED.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts that see each other, until cut. Everything is taken down when it is dropped.
pub struct Lan {
    bridge: String,
    pub hosts: Vec<Host>,
}

/// One network namespace, with one address.
pub struct Host {
    pub name: String,
    pub addr: Ipv4Addr,
}

/// `None`, and a line that says so, where namespaces cannot be made.
pub fn lan(hosts: usize) -> Option<Lan> {
    match Lan::new(hosts) {
        Ok(lan) => Some(lan),
        Err(why) => {
            println!("SKIPPED: no network namespaces here: {why}");
            None
        }
    }
}

fn ip(line: &str) -> Result<(), String> {
    let done = Command::new("ip").args(line.split_whitespace()).output().map_err(|e| format!("ip: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {line}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

impl Lan {
    fn new(count: usize) -> Result<Lan, String> {
        // Interface names are short (15), and tests run beside each other and beside other processes.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let tag = format!("{:x}{next}", pid & 0xfffff);
        let id = pid.wrapping_mul(4).wrapping_add(next);
        let (net, subnet) = ((id / 200 % 50) as u8 + 200, (id % 200) as u8 + 20);
        let mut lan = Lan { bridge: format!("bk{tag}"), hosts: Vec::new() };
        ip(&format!("link add {} type bridge", lan.bridge))?;
        ip(&format!("link set {} up", lan.bridge))?;
        for n in 0..count {
            let name = format!("bk{tag}h{n}");
            let addr = Ipv4Addr::new(10, net, subnet, n as u8 + 1);
            ip(&format!("netns add {name}"))?;
            lan.hosts.push(Host { name: name.clone(), addr });
            let (outer, bridge) = (format!("v{tag}{n}"), &lan.bridge);
            ip(&format!("link add {outer} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {outer} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {addr}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(lan)
    }

    /// An address at which the hosts reach this process.
    pub fn uplink(&self) -> Ipv4Addr {
        self.uplink_at(254)
    }
    /// Another one, that a host can be cut off from alone.
    pub fn uplink_at(&self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.hosts[0].addr.octets();
        let addr = Ipv4Addr::new(a, b, c, last);
        ip(&format!("addr replace {addr}/24 dev {}", self.bridge)).unwrap();
        addr
    }
    /// Nothing of `host` reaches that address any more.
    pub fn cut_from(&self, host: usize, addr: Ipv4Addr) {
        ip(&format!("-n {} route replace blackhole {addr}/32", self.hosts[host].name)).unwrap();
    }
    pub fn heal_to(&self, host: usize, addr: Ipv4Addr) {
        ip(&format!("-n {} route del blackhole {addr}/32", self.hosts[host].name)).unwrap();
    }

    /// Nothing of `from` reaches `to` any more; the other direction is as before.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        let (from, to) = (&self.hosts[from], &self.hosts[to]);
        ip(&format!("-n {} route replace blackhole {}/32", from.name, to.addr)).unwrap();
    }
    /// Neither reaches the other.
    pub fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }
    pub fn heal(&self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            // not cut in this direction: nothing to take away
            let _ = ip(&format!("-n {} route del blackhole {}/32", self.hosts[from].name, self.hosts[to].addr));
        }
    }
    /// `host` reaches nobody, and nobody reaches it; its own loopback works.
    pub fn isolate(&self, host: usize) {
        (0..self.hosts.len()).filter(|other| *other != host).for_each(|other| self.cut(host, other));
    }
    /// `host` and those of `others` do not reach each other any more.
    pub fn isolate_among(&self, host: usize, others: std::ops::Range<usize>) {
        others.filter(|other| *other != host).for_each(|other| self.cut(host, other));
    }
    pub fn rejoin(&self, host: usize) {
        (0..self.hosts.len()).filter(|other| *other != host).for_each(|other| self.heal(host, other));
    }
}

/// A host behind a NAT: nobody reaches it, it has no cable at all; what is carried out for it is all that it reaches.
pub struct Inside(Host);

/// `None`, and a line that says so, where namespaces cannot be made.
pub fn inside() -> Option<Inside> {
    let name = format!("bk{:x}nat", std::process::id() & 0xfffff);
    let made = ip(&format!("netns add {name}")).map(|()| Inside(Host { name, addr: Ipv4Addr::LOCALHOST }));
    let up = made.and_then(|inside| ip(&format!("-n {} link set lo up", inside.0.name)).map(|()| inside));
    up.inspect_err(|why| println!("SKIPPED: no network namespaces here: {why}")).ok()
}

impl Inside {
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.0.command(program)
    }

    /// In there, `at` is the server that is at `to` out here.
    pub fn carry_out(&self, at: SocketAddr, to: SocketAddr) {
        ip(&format!("-n {} addr replace {}/32 dev lo", self.0.name, at.ip())).unwrap();
        let netns = std::fs::File::open(format!("/var/run/netns/{}", self.0.name)).unwrap();
        // A socket stays in the namespace of the thread that made it.
        let made = std::thread::spawn(move || {
            // SAFETY: only this thread, which ends with the listener, changes its namespace.
            assert_eq!(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            TcpListener::bind(at).unwrap()
        });
        let listener = made.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut to) = tokio::net::TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await; // either end may leave
                    }
                });
            }
        });
    }
}

/// What still runs there keeps the namespace alive.
fn remove(name: &str) {
    if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).output();
        }
    }
    let _ = ip(&format!("netns del {name}"));
}

impl Drop for Inside {
    fn drop(&mut self) {
        remove(&self.0.name);
    }
}

impl Host {
    /// The command, to be run on this host. Its process is the child itself: signals reach it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
    pub fn run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        self.command(words.next().unwrap()).args(words).output().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(&host.name);
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}
