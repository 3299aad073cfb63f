//! The bridge as an actor: started with the node's identity, shown with the peers that it cannot reach.

use super::Net;
use crate::node::refs::{MAILBOX, Refs};
use crate::rpc::bridge::{Bridge, BridgeConfig, PeerState, Timing, identity};
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, StartError, Thread};
use libp2p::Multiaddr;
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct BridgeKeeper {
    net: Arc<Net>,
}

pub fn child(net: &Arc<Net>, refs: &Refs) -> ChildSpec {
    let (net, refs) = (net.clone(), refs.clone());
    ChildSpec::actor("bridge", &Ref::new("/bridge", MAILBOX), move |_| {
        let (net, refs) = (net.clone(), refs.clone());
        async move { BridgeKeeper::start(net, &refs) }
    })
    .on(Thread::Shared("net"))
}

impl BridgeKeeper {
    fn start(net: Arc<Net>, refs: &Refs) -> Result<BridgeKeeper, StartError> {
        // An earlier one frees its port first.
        drop(net.bridge.swap(None));
        let bridge = Bridge::start(config(&net)?).map_err(|e| StartError(e.to_string()))?;
        net.export(&bridge, refs).map_err(|e| StartError(e.to_string()))?;
        tracing::info!(peer = %bridge.peer_id(), node = net.settings.node, "bridge");
        net.bridge.store(Some(Arc::new(bridge)));
        Ok(BridgeKeeper { net })
    }
}

fn config(net: &Net) -> Result<BridgeConfig, StartError> {
    let settings = &net.settings;
    let parsed = settings.listen.iter().map(|text| {
        let why = |e| StartError(format!("cluster.listen {text}: {e}; write it as /ip4/0.0.0.0/tcp/2347"));
        text.parse::<Multiaddr>().map_err(why)
    });
    let listen = parsed.collect::<Result<Vec<_>, _>>()?;
    let quic = settings.listen.iter().any(|at| at.contains("/quic-v1"));
    let key = identity::load_or_make(&net.repo).map_err(|e| StartError(e.to_string()))?;
    let timing =
        Timing { heartbeat: settings.heartbeat, suspect: settings.suspect, down: settings.down, ..Timing::default() };
    Ok(BridgeConfig { listen, quic, timing, boot: net.start, ..BridgeConfig::new(key, settings.name.as_str()) })
}

struct Look;
impl Message for Look {
    type Reply = ();
}

impl Actor for BridgeKeeper {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(LOOK_EVERY, Look);
        Ok(())
    }

    async fn stopping(&mut self, _: &Cx<Self>) {
        if let Some(bridge) = self.net.bridge.swap(None)
            && let Ok(bridge) = Arc::try_unwrap(bridge)
        {
            bridge.shutdown().await;
        }
    }
}

impl Handler<Look> for BridgeKeeper {
    async fn handle(&mut self, _: Look, cx: &Cx<Self>) -> Result<(), Exit> {
        let down = self.net.bridge.load_full().map(|bridge| {
            let peers = bridge.peers().into_iter().filter(|peer| peer.state == PeerState::Down);
            peers.map(|peer| peer.peer.to_string()).collect::<Vec<_>>()
        });
        cx.trouble(down.filter(|down| !down.is_empty()).map(|down| format!("not reached: {}", down.join(", "))));
        cx.tell_after(LOOK_EVERY, Look);
        Ok(())
    }
}
