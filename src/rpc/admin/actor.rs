//! The endpoint as a child of the tree: when its thread ends, so does the incarnation, and a new one listens.

use super::{AdminConfig, AdminHandle, AdminViews, start_at};
use crate::rpc::listener::SharedListener;
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, StartError};
use std::net::SocketAddr;
use std::sync::Arc;

pub struct AdminHttp {
    http: AdminHandle,
    door: SharedListener,
}

/// The address that it listens on now.
#[derive(Clone, Copy, Debug)]
pub struct WhereIs;

impl Message for WhereIs {
    type Reply = SocketAddr;
}

struct ThreadEnded;

impl Message for ThreadEnded {
    type Reply = ();
}

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
        let door = door.clone();
        async move { started.map(|http| AdminHttp { http, door }).map_err(|e| StartError(e.to_string())) }
    })
}

impl Actor for AdminHttp {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        let ended = self.http.ended();
        cx.spawn(async move {
            ended.await;
            ThreadEnded
        });
        Ok(())
    }

    async fn stopping(&mut self, _cx: &Cx<Self>) {
        self.door.close();
        self.http.stop().await;
    }
}

impl Handler<ThreadEnded> for AdminHttp {
    async fn handle(&mut self, _: ThreadEnded, _cx: &Cx<Self>) -> Result<(), Exit> {
        Err(Exit::failed("the admin HTTP thread ended"))
    }
}

impl Handler<WhereIs> for AdminHttp {
    async fn handle(&mut self, _: WhereIs, _cx: &Cx<Self>) -> Result<SocketAddr, Exit> {
        Ok(self.http.addr())
    }
}
