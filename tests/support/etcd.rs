//! Real etcd: members as child processes on free ports, in a folder of their own; killed, frozen, started again, and never
//! left behind.

use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig, Tls};
use bulkhead::rpc::directory::{Directory, NodeRecord, View};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use libp2p::PeerId;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For a loaded machine; what is waited for comes within a few seconds on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Of a node's lease.
pub const TTL: Duration = Duration::from_secs(3);

pub struct Etcds {
    members: Vec<Member>,
    pki: Option<Pki>,
    user: Option<(String, String)>,
    dir: TempDir,
}

struct Member {
    name: String,
    /// The network namespace that it runs in.
    netns: Option<String>,
    client: String,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// A certificate authority, a certificate for the servers, one for clients; PEM files.
struct Pki {
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    client: (PathBuf, PathBuf),
}

#[derive(Clone, Copy, Default)]
pub struct Options {
    pub tls: bool,
    /// Asks for `root`'s password, and lets `bulkhead`/`s3cret` into the keys of cluster `main` only.
    pub users: bool,
}

impl Etcds {
    pub async fn single() -> Etcds {
        Etcds::start(1, Options::default()).await
    }

    pub async fn three() -> Etcds {
        Etcds::start(3, Options::default()).await
    }

    pub async fn start(count: usize, options: Options) -> Etcds {
        Etcds::start_at(&vec![(None, Ipv4Addr::LOCALHOST); count], options).await
    }

    /// A member on each of these hosts: a network namespace and its address.
    pub async fn on_hosts(hosts: impl IntoIterator<Item = (String, Ipv4Addr)>) -> Etcds {
        let hosts: Vec<_> = hosts.into_iter().map(|(netns, addr)| (Some(netns), addr)).collect();
        Etcds::start_at(&hosts, Options::default()).await
    }

    async fn start_at(hosts: &[(Option<String>, Ipv4Addr)], options: Options) -> Etcds {
        // Another process may take a port between our look and the member's start.
        for _ in 0..5 {
            if let Some(mut etcds) = Etcds::try_start(hosts, options.tls).await {
                if options.users {
                    etcds.make_users().await;
                }
                return etcds;
            }
        }
        panic!("etcd does not start: is etcd-server installed?");
    }

    async fn try_start(hosts: &[(Option<String>, Ipv4Addr)], tls: bool) -> Option<Etcds> {
        let count = hosts.len();
        let dir = tempfile::tempdir().expect("a folder");
        let pki = tls.then(|| Pki::make(dir.path()));
        let scheme = if tls { "https" } else { "http" };
        let ports = free_ports(count * 2);
        let peer = |i: usize| format!("http://{}:{}", hosts[i].1, ports[count + i]);
        let all: Vec<_> = (0..count).map(|i| format!("m{i}={}", peer(i))).collect();
        let members = (0..count).map(|i| {
            let (name, client) = (format!("m{i}"), format!("{scheme}://{}:{}", hosts[i].1, ports[i]));
            let data = dir.path().join(&name);
            let mut args = vec!["--name", &name, "--data-dir", data.to_str().expect("UTF-8")];
            let (peer, all) = (peer(i), all.join(","));
            args.extend(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            args.extend(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            args.extend(["--initial-cluster", &all, "--logger", "zap", "--log-level", "warn"]);
            let mut args: Vec<_> = args.into_iter().map(String::from).collect();
            if let Some(pki) = &pki {
                let path = |path: &Path| path.to_str().expect("UTF-8").to_string();
                args.extend(["--cert-file".into(), path(&pki.server.0), "--key-file".into(), path(&pki.server.1)]);
                args.extend(["--client-cert-auth".into(), "--trusted-ca-file".into(), path(&pki.ca)]);
            }
            let log = dir.path().join(format!("{name}.log"));
            Member { name, netns: hosts[i].0.clone(), client, args, log, child: None }
        });
        let mut etcds = Etcds { members: members.collect(), pki, user: None, dir };
        for member in &mut etcds.members {
            member.start();
        }
        for i in 0..count {
            if !etcds.answers(i).await {
                return None;
            }
        }
        Some(etcds)
    }

    async fn answers(&mut self, i: usize) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let member = &mut self.members[i];
            if member.child.as_mut().is_none_or(|child| child.try_wait().expect("a child").is_some()) {
                eprintln!("{} ended: {}", member.name, std::fs::read_to_string(&member.log).unwrap_or_default());
                return false;
            }
            if let Ok(mut client) = self.member_client(i).await
                && client.get("ready", None).await.is_ok()
            {
                return true;
            }
            // Nothing tells us when another process is ready.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    async fn make_users(&mut self) {
        use etcd_client::{Permission, PermissionType};
        let mut client = self.client().await;
        client.user_add("root", "r00t", None).await.expect("root");
        client.role_add("root").await.expect("root's role");
        client.user_grant_role("root", "root").await.expect("root's grant");
        client.role_add("main").await.expect("a role");
        let prefix = Permission::new(PermissionType::Readwrite, "/bulkhead/main/").with_prefix();
        client.role_grant_permission("main", prefix).await.expect("its permission");
        client.user_add("bulkhead", "s3cret", None).await.expect("a user");
        client.user_grant_role("bulkhead", "main").await.expect("its grant");
        client.auth_enable().await.expect("authentication");
        self.user = Some(("root".into(), "r00t".into()));
    }

    fn options(&self) -> ConnectOptions {
        let second = Duration::from_secs(1);
        let mut options = ConnectOptions::new().with_connect_timeout(second).with_timeout(second * 5);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        if let Some(pki) = &self.pki {
            let read = |path: &Path| std::fs::read(path).expect("PEM");
            let identity = Identity::from_pem(read(&pki.client.0), read(&pki.client.1));
            options = options
                .with_tls(TlsOptions::new().ca_certificate(Certificate::from_pem(read(&pki.ca))).identity(identity));
        }
        options
    }

    async fn member_client(&self, i: usize) -> Result<Client, etcd_client::Error> {
        Client::connect([&self.members[i].client], Some(self.options())).await
    }

    /// For what a test does behind the directory's back.
    pub async fn client(&self) -> Client {
        let started = Instant::now();
        loop {
            // A handshake and a password take a loaded machine longer than a call may.
            match Client::connect(self.endpoints(), Some(self.options())).await {
                Ok(client) => return client,
                Err(error) => assert!(started.elapsed() < PATIENCE, "no client: {error}"),
            }
        }
    }

    /// Of these members only.
    pub async fn client_of(&self, members: &[usize]) -> Client {
        let endpoints: Vec<_> = members.iter().map(|&i| self.members[i].client.clone()).collect();
        Client::connect(endpoints, Some(self.options())).await.expect("a client")
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    pub fn tls(&self) -> Option<Tls> {
        self.pki.as_ref().map(|pki| Tls::from_files(&pki.ca, Some((&pki.client.0, &pki.client.1))).expect("PEM"))
    }

    /// How a node of cluster `main` gets in.
    pub fn config(&self) -> EtcdConfig {
        let user = self.user.as_ref().map(|_| ("bulkhead".to_string(), "s3cret".to_string()));
        EtcdConfig { tls: self.tls(), user, ttl: TTL, ..EtcdConfig::new("main", self.endpoints()) }
    }

    /// The same, as a `[cluster]` section says it: a key and its value each.
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let mut keys =
            vec![("etcd", format!("{:?}", self.endpoints())), ("lease_ttl", format!("\"{}s\"", TTL.as_secs()))];
        if let Some(pki) = &self.pki {
            let (cert, key) = &pki.client;
            let files = [("etcd_ca", &pki.ca), ("etcd_cert", cert), ("etcd_key", key)];
            keys.extend(files.map(|(name, file)| (name, format!("{file:?}"))));
        }
        if self.user.is_some() {
            keys.extend([("etcd_user", "\"bulkhead\"".into()), ("etcd_password", "\"s3cret\"".into())]);
        }
        keys
    }

    pub async fn connect(&self) -> Etcd {
        Etcd::connect(self.config()).await.expect("a directory")
    }

    /// A registered node.
    pub async fn node(&self, name: &str) -> Etcd {
        let etcd = self.connect().await;
        etcd.register(record(name)).await.expect("a registration");
        etcd
    }

    pub fn kill(&mut self, i: usize) {
        if let Some(mut child) = self.members[i].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Started again with its data, and waited for; others may have to be there for it to answer.
    pub async fn restart(&mut self, indices: &[usize]) {
        for &i in indices {
            self.kill(i);
            self.members[i].start();
        }
        for &i in indices {
            assert!(self.answers(i).await, "m{i} does not come back");
        }
    }

    /// What the only member has on its disk now, for [`Etcds::put_back`]. It is away for a moment.
    pub async fn back_up(&mut self) -> TempDir {
        self.kill(0);
        let copy = tempfile::tempdir().expect("a folder");
        copy_folder(&self.dir.path().join(&self.members[0].name), copy.path());
        self.restart(&[0]).await;
        copy
    }

    /// The same etcd, as it was then.
    pub async fn put_back(&mut self, copy: &TempDir) {
        self.kill(0);
        let data = self.dir.path().join(&self.members[0].name);
        std::fs::remove_dir_all(&data).expect("its data");
        std::fs::create_dir(&data).expect("its folder");
        copy_folder(copy.path(), &data);
        self.restart(&[0]).await;
    }

    /// Raises the revision by as much.
    pub async fn write_on(&self, times: usize) {
        let mut client = self.client().await;
        for i in 0..times {
            client.put("written-on", i.to_string(), None).await.expect("written");
        }
    }

    pub fn freeze(&self, i: usize) {
        self.signal(i, libc::SIGSTOP);
    }

    pub fn thaw(&self, i: usize) {
        self.signal(i, libc::SIGCONT);
    }

    fn signal(&self, i: usize, signal: i32) {
        let child = self.members[i].child.as_ref().expect("it runs");
        // SAFETY: our own child, not yet waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    /// Which member leads.
    pub async fn leader(&self) -> usize {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            for i in 0..self.members.len() {
                let Ok(mut client) = self.member_client(i).await else { continue };
                if let Ok(status) = client.status().await
                    && status.leader() != 0
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return i;
                }
            }
        }
        panic!("nobody leads");
    }
}

impl Member {
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let mut command = match &self.netns {
            None => Command::new("etcd"),
            Some(netns) => {
                // Becomes etcd itself: signals reach it.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns, "etcd"]);
                command
            }
        };
        command.args(&self.args).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // SAFETY: only a system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        self.child = Some(command.spawn().expect("etcd, of Debian's etcd-server"));
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|i| self.kill(i));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    // With the modes: etcd wants its folder for itself.
    let done = Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(to).status();
    assert!(done.is_ok_and(|status| status.success()), "{} is not copied", from.display());
}

impl Pki {
    fn make(dir: &Path) -> Pki {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            std::fs::write(&path, pem).expect("written");
            path
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        let ca = write("ca.pem", params.self_signed(&key).expect("signed").pem());
        let authority = Issuer::new(params, key);
        let issue = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).expect("names");
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &authority).expect("signed");
            let certificate = write(&format!("{name}.pem"), certificate.pem());
            (certificate, write(&format!("{name}-key.pem"), key.serialize_pem()))
        };
        Pki { ca, server: issue("server"), client: issue("client") }
    }
}

/// Ports that were free a moment ago.
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

pub fn record(name: &str) -> NodeRecord {
    NodeRecord::new(name, PeerId::random(), 1)
}

/// Waits for a view of which this holds.
#[track_caller]
pub fn see<'a>(
    directory: &'a impl Directory,
    what: &'a str,
    holds: impl Fn(&View) -> bool + 'a,
) -> impl Future<Output = Arc<View>> + 'a {
    let mut view = directory.view();
    async move {
        let found = tokio::time::timeout(PATIENCE, view.wait_for(|view| holds(view))).await;
        found.unwrap_or_else(|_| panic!("never seen: {what}")).expect("a directory").clone()
    }
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Tries until it is acquired.
pub async fn acquire(directory: &impl Directory, concern: &str) -> bulkhead::rpc::directory::Lease {
    let started = Instant::now();
    loop {
        match directory.acquire(concern).await {
            Ok(lease) => return lease,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{concern}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
