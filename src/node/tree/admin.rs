//! `admin`: the admin HTTP, the API server, and what they read. They answer when all else hangs.

use super::parts::{HELD_DOWN_RETRY, MINUTE, Parts, holding_down};
use crate::actors::daemon_link::pool_heads::PoolHeads;
use crate::node::admin_view::ProcessTrees;
use crate::node::api_views::{InfoPublisher, Published};
use crate::node::cluster_status::ClusterStatus;
use crate::node::exit_log::{ExitLog, ExitLogActor};
use crate::node::mailbox::MAILBOX;
use crate::node::remote_nodes::RemoteNodes;
use crate::rpc::admin::{self, AdminConfig, AdminViews};
use crate::rpc::api::{self, ApiConfig};
use crate::rpc::auth::Perm;
use crate::rpc::pool_api;
use crate::supervisor::{ChildSpec, Ref, SupervisorSpec, Thread};
use crate::util::{Mode, write_durably};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let published = Published::default();
    let (backend, place, heads) = (parts.backend.clone(), published.clone(), parts.heads.others.clone());
    let info = ChildSpec::actor("info", &parts.refs.info, move |cx| {
        let publisher = InfoPublisher::new(backend.clone(), place.clone());
        cx.join(&heads);
        async move { Ok(publisher) }
    });
    let (verifier, stop) = (parts.auth.clone(), parts.stop.clone());
    let config = AdminConfig {
        listen: parts.settings.admin_listen,
        allow: Arc::new(move |token| {
            let perms = verifier.opened().and_then(|auth| auth.verify(token).ok());
            perms.is_some_and(|perms| perms.contains(&Perm::Admin))
        }),
    };
    let journal: Arc<ExitLog> = Arc::default();
    let (tree, book) = (parts.tree.clone(), journal.clone());
    let keeper = ChildSpec::actor("journal", &Ref::new("/journal", MAILBOX), move |_| {
        let keeper = ExitLogActor::new(tree.clone(), book.clone());
        async move { Ok(keeper) }
    });
    let views = AdminViews {
        tree: Arc::new(ProcessTrees {
            node: parts.tree.clone(),
            beside: parts.settings.beside.clone(),
            journal: journal.clone(),
            reloader: parts.reloader.clone(),
            groups: parts.groups.clone(),
            provider: published.provider,
            cluster: parts.net.clone().map(|net| -> Arc<dyn admin::ClusterView> {
                let remote = RemoteNodes::of(&net);
                Arc::new(ClusterStatus { net, slots: parts.slots.clone(), refs: parts.refs.clone(), remote })
            }),
        }),
        info: published.info,
        critical: vec!["root/chain".into(), "root/proving".into()],
        stop: Arc::new(move || stop.notify_one()),
    };
    let api =
        ApiConfig { listen: parts.settings.api_listen, repo: parts.settings.repo.clone(), auth: parts.auth.clone() };
    let file = parts.settings.repo.join("admin");
    let announce = Arc::new(move |addr| leave_address(&file, addr));
    let http = admin::child_announcing(config, views, &parts.refs.admin, announce);
    let api = api::child(api, parts.backend.clone(), &parts.refs.api);
    [info, keeper, http, api]
        .into_iter()
        .chain(pool_api(parts))
        .map(|child| child.on(Thread::Shared("admin")).may_start_later())
        .fold(holding_down("admin", 10, MINUTE * 5, HELD_DOWN_RETRY), SupervisorSpec::child)
}

/// The pool of full nodes, served as one, and its heads.
fn pool_api(parts: &Parts) -> Vec<ChildSpec> {
    let (Some(api), Some(listen)) = (&parts.pool_api, parts.settings.pool_listen) else { return vec![] };
    let (fan, heads) = (api.heads(), parts.heads.others.clone());
    let heads = ChildSpec::actor("pool_heads", &Ref::new("/pool-heads", MAILBOX), move |cx| {
        let actor = PoolHeads::new(fan.clone());
        cx.join(&heads);
        async move { Ok(actor) }
    });
    vec![heads, pool_api::child(listen, api.clone(), &Ref::new("/pool-api", MAILBOX))]
}

/// `<repo>/admin`: where the command line finds the admin HTTP. Without one, another program may have its port: nobody is
/// led there.
fn leave_address(file: &Path, addr: Option<SocketAddr>) {
    let left = match addr.map(|addr| addr.to_string()) {
        Some(text) if std::fs::read_to_string(file).is_ok_and(|found| found == text) => Ok(()),
        Some(text) => write_durably(file, text.as_bytes(), Mode::Public),
        None => match std::fs::remove_file(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        },
    };
    if let Err(error) = left {
        tracing::error!(file = %file.display(), %error, "the command line does not find this node's admin HTTP");
    }
}
