//! The endpoint as a child of the tree.

use super::{AdminConfig, AdminHandle, AdminViews, start_at};
use crate::rpc::listener::SharedListener;
use crate::rpc::server_actor::ServerActor;
use crate::supervisor::{ChildSpec, Ref, StartError};
use std::net::SocketAddr;
use std::sync::Arc;

pub type AdminHttp = ServerActor<AdminHandle>;

/// Called at each start: with the address that the endpoint listens on, `None` if it cannot.
pub type Announce = Arc<dyn Fn(Option<SocketAddr>) + Send + Sync>;

pub fn child(config: AdminConfig, views: AdminViews, address: &Ref<AdminHttp>) -> ChildSpec {
    child_announcing(config, views, address, Arc::new(|_| {}))
}

/// As [`child`], for one that others have to find.
pub fn child_announcing(
    config: AdminConfig,
    views: AdminViews,
    address: &Ref<AdminHttp>,
    announce: Announce,
) -> ChildSpec {
    let door = SharedListener::new(config.listen, super::SETTING);
    ChildSpec::actor("admin_http", address, move |_cx| {
        let started = start_at(&door, config.allow.clone(), views.clone());
        announce(started.as_ref().ok().map(AdminHandle::addr));
        let actor = started.map(|http| ServerActor::new("admin HTTP", http, &door));
        async move { actor.map_err(|e| StartError(e.to_string())) }
    })
}
