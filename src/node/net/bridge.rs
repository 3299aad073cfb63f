//! The bridge as an actor: started with the node's identity, shown with the peers that it cannot reach.

use super::Net;
use crate::node::mailbox::MAILBOX;
use crate::node::refs::Refs;
use crate::rpc::bridge::{Bridge, BridgeConfig, PeerState, SessionTiming, identity};
use crate::supervisor::{Actor, ChildSpec, Cx, Exit, Handler, Message, Ref, StartError, Thread};
use libp2p::Multiaddr;
use std::sync::Arc;
use std::time::Duration;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub struct BridgeActor {
    net: Arc<Net>,
}

pub fn child(net: &Arc<Net>, refs: &Refs) -> ChildSpec {
    let (net, refs) = (net.clone(), refs.clone());
    ChildSpec::actor("bridge", &Ref::new("/bridge", MAILBOX), move |_| {
        let (net, refs) = (net.clone(), refs.clone());
        async move { BridgeActor::start(net, &refs) }
    })
    .on(Thread::Shared("net"))
}

impl BridgeActor {
    fn start(net: Arc<Net>, refs: &Refs) -> Result<BridgeActor, StartError> {
        // An earlier one frees its port first.
        drop(net.bridge.swap(None));
        let bridge = Bridge::start(config(&net)?).map_err(|e| StartError(e.to_string()))?;
        net.export(&bridge, refs).map_err(|e| StartError(e.to_string()))?;
        tracing::info!(peer = %bridge.peer_id(), node = net.settings.node, "bridge");
        net.bridge.store(Some(Arc::new(bridge)));
        Ok(BridgeActor { net })
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
    let timing = SessionTiming {
        heartbeat: settings.heartbeat,
        suspect: settings.suspect,
        down: settings.down,
        ..SessionTiming::default()
    };
    Ok(BridgeConfig { listen, quic, timing, boot: net.start, ..BridgeConfig::new(key, settings.name.as_str()) })
}

struct CheckBridge;
impl Message for CheckBridge {
    type Reply = ();
}

impl Actor for BridgeActor {
    async fn started(&mut self, cx: &Cx<Self>) -> Result<(), Exit> {
        cx.tell_after(CHECK_INTERVAL, CheckBridge);
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

impl Handler<CheckBridge> for BridgeActor {
    async fn handle(&mut self, _: CheckBridge, cx: &Cx<Self>) -> Result<(), Exit> {
        let down = self.net.bridge.load_full().map(|bridge| {
            let peers = bridge.peers().into_iter().filter(|peer| peer.state == PeerState::Down);
            peers.map(|peer| peer.peer.to_string()).collect::<Vec<_>>()
        });
        cx.trouble(down.filter(|down| !down.is_empty()).map(|down| format!("not reached: {}", down.join(", "))));
        cx.tell_after(CHECK_INTERVAL, CheckBridge);
        Ok(())
    }
}
