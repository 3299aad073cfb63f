//! `admin`: the admin HTTP, the API server, and what they read. They answer when all else hangs.

use super::{MINUTE, Parts};
use crate::node::cluster_view::ClusterWindow;
use crate::node::far::FarNodes;
use crate::node::grove::Grove;
use crate::node::journal::{Journal, JournalKeeper};
use crate::node::refs::MAILBOX;
use crate::node::report::{InfoPublisher, Published};
use crate::rpc::admin::{self, AdminConfig, AdminViews};
use crate::rpc::api::{self, ApiConfig};
use crate::rpc::auth::Perm;
use crate::supervisor::{ChildSpec, Ref, SupervisorSpec, Thread};
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
        allow: Arc::new(move |token| verifier.verify(token).is_ok_and(|perms| perms.contains(&Perm::Admin))),
    };
    let journal: Arc<Journal> = Arc::default();
    let (tree, book) = (parts.tree.clone(), journal.clone());
    let keeper = ChildSpec::actor("journal", &Ref::new("/journal", MAILBOX), move |_| {
        let keeper = JournalKeeper::new(tree.clone(), book.clone());
        async move { Ok(keeper) }
    });
    let views = AdminViews {
        tree: Arc::new(Grove {
            node: parts.tree.clone(),
            beside: parts.settings.beside.clone(),
            journal: journal.clone(),
            reloader: parts.reloader.clone(),
            groups: parts.groups.clone(),
            provider: published.provider,
            cluster: parts.net.clone().map(|net| -> Arc<dyn admin::ClusterView> {
                let far = FarNodes::of(&net);
                Arc::new(ClusterWindow { net, seats: parts.seats.clone(), refs: parts.refs.clone(), far })
            }),
        }),
        info: published.info,
        critical: vec!["root/chain".into(), "root/proving".into()],
        stop: Arc::new(move || stop.notify_one()),
    };
    let api =
        ApiConfig { listen: parts.settings.api_listen, repo: parts.settings.repo.clone(), auth: parts.auth.clone() };
    SupervisorSpec::new("admin")
        .intensity(10, MINUTE * 5)
        .child(info.on(Thread::Shared("admin")))
        .child(keeper.on(Thread::Shared("admin")))
        .child(admin::child(config, views, &parts.refs.admin).on(Thread::Shared("admin")))
        .child(api::child(api, parts.backend.clone(), &parts.refs.api).on(Thread::Shared("admin")))
}
