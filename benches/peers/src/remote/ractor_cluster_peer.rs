//! ractor_cluster: a remote actor found in a process group, over plain TCP and over mutual TLS.

use super::load::{Caller, Lost};
use super::secrets;
use bytes::Bytes;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::node::NodeConnectionMode;
use ractor_cluster::{
    IncomingEncryptionMode, NodeServer, NodeServerMessage, RactorClusterMessage, client_connect, client_connect_enc,
};
use std::path::Path;
use std::time::Duration;

const GROUP: &str = "echo";

#[derive(RactorClusterMessage)]
pub enum Message {
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
    Tell(Vec<u8>),
    #[rpc]
    Seen(RpcReplyPort<u64>),
    #[rpc]
    Hang(RpcReplyPort<u64>),
}

struct Echo;

impl Actor for Echo {
    type Msg = Message;
    type State = (u64, Vec<RpcReplyPort<u64>>);
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<Message>, _: ()) -> Result<Self::State, ActorProcessingErr> {
        ractor::pg::join(GROUP.into(), vec![me.get_cell()]);
        Ok((0, Vec::new()))
    }
    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        (seen, hung): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ask(payload, reply) => drop(reply.send(payload)),
            Message::Tell(_) => *seen += 1,
            Message::Seen(reply) => drop(reply.send(*seen)),
            Message::Hang(reply) => hung.push(reply),
        }
        Ok(())
    }
}

async fn node(port: u16, name: &str, mode: IncomingEncryptionMode) -> ActorRef<NodeServerMessage> {
    let isolated = NodeConnectionMode::Isolated;
    let node = NodeServer::new(port, "cookie".into(), name.into(), secrets::HOST.into(), Some(mode), Some(isolated));
    let node = node.with_listen_addr(std::net::IpAddr::from([0, 0, 0, 0]));
    Actor::spawn(None, node, ()).await.expect("a node").0
}

pub async fn serve(bind: &str, secrets: &Path, tls: bool, ready: impl FnOnce(String)) {
    let port = bind.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT");
    let mode = match tls {
        true => IncomingEncryptionMode::Tls(secrets::acceptor(secrets)),
        false => IncomingEncryptionMode::Raw,
    };
    Actor::spawn(None, Echo, ()).await.expect("an actor");
    let _node = node(port, "server", mode).await;
    ready(bind.to_string());
    std::future::pending().await
}

#[derive(Clone)]
pub struct Client(ActorRef<Message>);

pub async fn connect(address: &str, secrets: &Path, tls: bool) -> Result<Client, Lost> {
    let node = node(0, &format!("client-{}", std::process::id()), IncomingEncryptionMode::Raw).await;
    match tls {
        false => client_connect(&node, address).await?,
        true => client_connect_enc(&node, address, secrets::connector(secrets), secrets::host()).await?,
    }
    loop {
        if let Some(cell) = ractor::pg::get_members(&GROUP.to_string()).pop() {
            return Ok(Client(cell.into()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Client {
    async fn call<R: Send + 'static>(&self, make: impl FnOnce(RpcReplyPort<R>) -> Message) -> Result<R, Lost> {
        match self.0.call(make, None).await? {
            CallResult::Success(reply) => Ok(reply),
            CallResult::Timeout => Err(Lost("timeout".into())),
            CallResult::SenderError => Err(Lost("the call was dropped".into())),
        }
    }
}

impl Caller for Client {
    async fn ask(&self, payload: Bytes) -> Result<usize, Lost> {
        Ok(self.call(|reply| Message::Ask(payload.into(), reply)).await?.len())
    }
    async fn tell(&self, payload: Bytes) -> Result<u64, Lost> {
        self.0.cast(Message::Tell(payload.into()))?;
        Ok(0)
    }
    async fn seen(&self) -> Result<u64, Lost> {
        self.call(Message::Seen).await
    }
    async fn hang(&self) -> Lost {
        match self.call(Message::Hang).await {
            Err(lost) => lost,
            Ok(_) => Lost("answered".into()),
        }
    }
}
