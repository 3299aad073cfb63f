//! The directory as an actor: connects, makes this node known, and shows when the cluster is out of reach.

use super::{ConnectedDirectory, Net};
use crate::node::concern::Concern;
use crate::node::error::NodeError;
use crate::node::mailbox::MAILBOX;
use crate::node::refs::Refs;
use crate::node::roles::Roles;
use crate::node::settings::{ClusterSettings, DirectorySettings, StaticPeer};
use crate::rpc::directory::{Directory, DirectoryError, Fixed, Local, NodeRecord};
use crate::rpc::{admin, api};
use crate::store::Store;
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, StartError, Thread};
use libp2p::Multiaddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Our own servers answer at once, or they are being started.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub struct DirectoryActor {
    net: Arc<Net>,
    refs: Refs,
    roles: Roles,
    /// As it was last told to the cluster.
    known: Option<NodeRecord>,
    telling: bool,
    failed: Option<String>,
}

pub fn child(net: &Arc<Net>, refs: &Refs, roles: &Roles) -> ChildSpec {
    let (net, refs, roles) = (net.clone(), refs.clone(), roles.clone());
    ChildSpec::actor("directory", &Ref::new("/directory", MAILBOX), move |_| {
        let (net, refs, roles) = (net.clone(), refs.clone(), roles.clone());
        async move { DirectoryActor::start(net, refs, roles).await }
    })
    .on(Thread::Shared("net"))
}

/// The store of each concern's state.
pub fn stores(settings: &ClusterSettings, store: &Store) -> Result<BTreeMap<Concern, Store>, NodeError> {
    match &settings.directory {
        // Nobody else ever takes over what is here.
        DirectorySettings::Local | DirectorySettings::Static(_) => {
            Ok(Concern::ALL.map(|concern| (concern, store.clone())).into())
        }
        DirectorySettings::Etcd(etcd) => in_etcd::stores(settings, etcd, store),
    }
}

async fn connect(net: &Net) -> Result<Arc<dyn Directory>, DirectoryError> {
    match &net.settings.directory {
        DirectorySettings::Local => Ok(Arc::new(Local::new())),
        DirectorySettings::Static(peers) => {
            let peer = |p: &StaticPeer| Fixed::peer(&p.name, p.peer_id, p.addrs.clone(), p.roles.set());
            let others = Fixed { peers: peers.iter().map(peer).collect(), placement: net.placement.clone() };
            Ok(Arc::new(Local::among(others)))
        }
        DirectorySettings::Etcd(etcd) => in_etcd::connect(&net.settings, etcd).await,
    }
}

#[cfg(feature = "cluster")]
mod in_etcd {
    use super::*;
    use crate::node::settings::EtcdSettings;
    use crate::rpc::directory::etcd::{Etcd, EtcdConfig, Tls};
    use crate::store::Policy;
    use crate::store::etcd::EtcdReplica;
    use crate::store::replica::Replica;

    pub fn config(settings: &ClusterSettings, etcd: &EtcdSettings) -> Result<EtcdConfig, DirectoryError> {
        let tls = match &etcd.tls {
            None => None,
            Some(files) => {
                let identity = files.cert.as_deref().zip(files.key.as_deref());
                let ca = files.ca.as_deref().ok_or_else(|| DirectoryError::Tls {
                    file: "cluster.etcd_ca".into(),
                    why: "it is not set: TLS to etcd needs the authority that signed its certificate".into(),
                })?;
                Some(Tls::from_files(ca, identity)?)
            }
        };
        let config = EtcdConfig::new(settings.name.as_str(), etcd.endpoints.iter().cloned());
        Ok(EtcdConfig { user: etcd.user.clone(), tls, ttl: settings.lease_ttl, ..config })
    }

    pub async fn connect(
        settings: &ClusterSettings,
        etcd: &EtcdSettings,
    ) -> Result<Arc<dyn Directory>, DirectoryError> {
        Ok(Arc::new(Etcd::connect_or_wait(config(settings, etcd)?).await?))
    }

    /// This node's store is a mirror of what each concern has in etcd.
    pub fn stores(
        settings: &ClusterSettings,
        etcd: &EtcdSettings,
        store: &Store,
    ) -> Result<BTreeMap<Concern, Store>, NodeError> {
        let replica: Arc<dyn Replica> = Arc::new(EtcdReplica::new(config(settings, etcd)?.store()?)?);
        let policy = |concern: Concern| if concern.journals() { Policy::Journal } else { Policy::Refuse };
        Ok(Concern::ALL.map(|concern| (concern, store.replicated(replica.clone(), policy(concern)))).into())
    }
}

#[cfg(not(feature = "cluster"))]
mod in_etcd {
    use super::*;
    use crate::node::settings::EtcdSettings;

    pub async fn connect(_: &ClusterSettings, _: &EtcdSettings) -> Result<Arc<dyn Directory>, DirectoryError> {
        Err(DirectoryError::Alone) // refused before: see `stores`
    }

    pub fn stores(_: &ClusterSettings, _: &EtcdSettings, _: &Store) -> Result<BTreeMap<Concern, Store>, NodeError> {
        Err(NodeError::NoClusterSupport)
    }
}

impl DirectoryActor {
    async fn start(net: Arc<Net>, refs: Refs, roles: Roles) -> Result<DirectoryActor, StartError> {
        // What hangs on the one of an earlier incarnation (leases) goes on.
        if net.directory.load().is_none() {
            let directory = connect(&net).await.map_err(|e| StartError(e.to_string()))?;
            net.directory.store(Some(Arc::new(ConnectedDirectory(directory))));
        }
        Ok(DirectoryActor { net, refs, roles, known: None, telling: false, failed: None })
    }

    /// Tells the cluster of this node when there is something new to tell.
    fn tell(&mut self, cx: &Cx<Self>) {
        if std::mem::replace(&mut self.telling, true) {
            return;
        }
        let (net, refs, roles) = (self.net.clone(), self.refs.clone(), self.roles.clone());
        let known = self.known.clone();
        cx.spawn(async move {
            let Some(record) = record(&net, &refs, &roles).await.filter(|record| known.as_ref() != Some(record)) else {
                return Told(None);
            };
            let Some(found) = net.directory.load_full() else { return Told(None) };
            let told = found.0.register(record.clone()).await;
            Told(Some(told.map(|()| Box::new(record))))
        });
    }
}

/// This node, as far as its parts are up. `None`: nobody could reach it yet.
async fn record(net: &Net, refs: &Refs, roles: &Roles) -> Option<NodeRecord> {
    let bridge = net.bridge.load_full()?;
    let listening = bridge.listening();
    if listening.is_empty() && !net.settings.listen.is_empty() {
        return None;
    }
    let announced: Vec<Multiaddr> = net.settings.announce.iter().filter_map(|text| text.parse().ok()).collect();
    let mut record = NodeRecord::new(net.settings.node.as_str(), bridge.peer_id(), net.boot);
    record.addrs = if announced.is_empty() { listening } else { announced };
    record.roles = roles.set();
    record.serves.insert(refs.storage.path().to_owned());
    let api = refs.api.ask(api::WhereIs, ASK_TIMEOUT).await.ok();
    record.api =
        api.map(|at| format!("/{}/{}/tcp/{}/http", if at.is_ipv4() { "ip4" } else { "ip6" }, at.ip(), at.port()));
    record.admin = refs.admin.ask(admin::WhereIs, ASK_TIMEOUT).await.ok().map(|at| at.to_string());
    Some(record)
}

struct CheckDirectory;
impl Message for CheckDirectory {
    type Reply = ();
}

/// `None`: there was nothing new.
struct Told(Option<Result<Box<NodeRecord>, DirectoryError>>);
impl Message for Told {
    type Reply = ();
}

impl Actor for DirectoryActor {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        self.tell(cx);
        cx.tell_after(CHECK_INTERVAL, CheckDirectory);
        Ok(())
    }
}

impl Handler<Told> for DirectoryActor {
    async fn handle(&mut self, Told(told): Told, _: &Cx<Self>) -> Result<(), Exit> {
        self.telling = false;
        match told {
            None => {}
            Some(Ok(record)) => {
                self.failed = None;
                self.known = Some(*record);
            }
            Some(Err(error)) => {
                let error = error.to_string();
                // Once for each reason: it is tried every second.
                if self.failed.as_ref() != Some(&error) {
                    tracing::warn!(error, "this node is not known to the cluster");
                }
                self.failed = Some(error);
            }
        }
        Ok(())
    }
}

impl Handler<CheckDirectory> for DirectoryActor {
    async fn handle(&mut self, _: CheckDirectory, cx: &Cx<Self>) -> Result<(), Exit> {
        let contact = self.net.directory.load_full().map(|found| found.0.view().borrow().in_contact);
        let away = (contact == Some(false)).then(|| "the cluster is out of reach".to_string());
        cx.trouble(away.or_else(|| self.failed.clone()));
        self.tell(cx);
        cx.tell_after(CHECK_INTERVAL, CheckDirectory);
        Ok(())
    }
}
