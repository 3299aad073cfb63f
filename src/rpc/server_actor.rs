//! An HTTP server as a child of a tree: it has threads of its own; when they end by themselves, so does the incarnation, and
//! the next one listens at the same port.

use super::listener::SharedListener;
use crate::supervisor::{Actor, Cx, Exit, Handler, Message};
use futures::future::BoxFuture;
use std::net::SocketAddr;

/// A server that runs.
pub trait RunningServer: 'static {
    /// The listen address, with the real port.
    fn addr(&self) -> SocketAddr;
    /// Completes when the server's thread has ended, for whatever reason.
    fn ended(&self) -> BoxFuture<'static, ()>;
    /// Lets answers under way finish, and waits for the end.
    fn stop(self) -> impl Future<Output = ()>;
}

pub struct ServerActor<S> {
    /// Taken when it is stopped.
    pub(crate) server: Option<S>,
    addr: SocketAddr,
    door: SharedListener,
    /// Its name, for the reason of an exit.
    name: &'static str,
    /// The reason why others do not find it, for the tree.
    trouble: Option<String>,
}

impl<S: RunningServer> ServerActor<S> {
    /// `door`: the socket on which `server` listens.
    pub fn new(name: &'static str, server: S, door: &SharedListener) -> ServerActor<S> {
        ServerActor { addr: server.addr(), server: Some(server), door: door.clone(), name, trouble: None }
    }

    /// It serves, but the files by which tools on this host find it could not be written.
    pub fn not_found_by_tools(mut self, why: Option<String>) -> ServerActor<S> {
        if let Some(why) = &why {
            tracing::error!(why, "the {} serves, but tools on this host do not find it", self.name);
        }
        self.trouble = why;
        self
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// The address that it listens on now.
#[derive(Clone, Copy, Debug)]
pub struct WhereIs;

impl Message for WhereIs {
    type Reply = SocketAddr;
}

/// Its server ended by itself.
struct ThreadEnded;

impl Message for ThreadEnded {
    type Reply = ();
}

impl<S: RunningServer> Actor for ServerActor<S> {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.trouble(self.trouble.clone());
        if let Some(ended) = self.server.as_ref().map(S::ended) {
            cx.spawn(async move {
                ended.await;
                ThreadEnded
            });
        }
        Ok(())
    }

    async fn stopping(&mut self, _cx: &Cx<Self>) {
        self.door.close();
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

impl<S: RunningServer> Handler<ThreadEnded> for ServerActor<S> {
    async fn handle(&mut self, _: ThreadEnded, _cx: &Cx<Self>) -> Result<(), Exit> {
        Err(Exit::failed(format!("the {}'s thread ended", self.name)))
    }
}

impl<S: RunningServer> Handler<WhereIs> for ServerActor<S> {
    async fn handle(&mut self, _: WhereIs, _cx: &Cx<Self>) -> Result<SocketAddr, Exit> {
        Ok(self.addr)
    }
}
