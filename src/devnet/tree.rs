//! The chain as supervised actors: its clock and its JSON-RPC server, each restarted alone.
//!
//! Both work on the one [`Devnet`], whose memory follows its database in whole commits: a panic in either leaves nothing
//! half done, and the next incarnation goes on from there.

use super::Devnet;
use crate::rpc::auth::Auth;
use crate::rpc::listener::SharedListener;
use crate::rpc::server::{self, ExtraMethods, ServerHandle, Service};
use crate::rpc::server_actor::ServerActor;
use crate::supervisor::{Actor, ChildSpec, Cx, Ref, StartError, SupervisorSpec, Thread};
use crate::util::{Mode, write_where_it_differs};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Holds the whole `FULLNODE_API_INFO`, token included (0600): what is printed ends up in logs.
pub const API_INFO_FILE: &str = "api-info";

/// Makes the chain tick.
pub struct ChainClock;

impl Actor for ChainClock {}

/// Serves `Filecoin.*` for the chain.
pub type ChainServer = ServerActor<ServerHandle>;

#[derive(Clone)]
pub struct ServerConfig {
    /// `127.0.0.1:1234` by default; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The folder for `token` and `api`, as in a full node's repo, and for [`API_INFO_FILE`].
    pub dir: PathBuf,
    pub auth: Arc<Auth>,
}

fn start(chain: Arc<Devnet>, config: &ServerConfig, door: &SharedListener) -> Result<ChainServer, StartError> {
    let extras: Arc<dyn ExtraMethods> = Arc::new(super::extra_rpc::DevnetMethods(chain.clone()));
    let service = Service { extras: Some(extras), ..Service::of_node(chain, config.auth.clone()) };
    let server = server::serve_at(door, service).map_err(|e| StartError(e.to_string()))?;
    let path = config.dir.join(API_INFO_FILE);
    let left = config.auth.write_repo_files(&config.dir, server.addr()).map_err(|e| e.to_string()).and_then(|info| {
        write_where_it_differs(&path, info.secret_text().as_bytes(), Mode::Private)
            .map_err(|e| format!("{}: {e}", path.display()))
    });
    Ok(ServerActor::new("chain's JSON-RPC server", server, door).not_found_by_tools(left.err()))
}

/// `devnet` and its children. `server` is the address under which [`WhereIs`] is asked.
pub fn spec(chain: Arc<Devnet>, config: ServerConfig, server: &Ref<ChainServer>) -> SupervisorSpec {
    let clock = Ref::<ChainClock>::new("/devnet/clock", 16);
    let ticking = chain.clone();
    let clock = ChildSpec::actor("clock", &clock, move |cx: Cx<ChainClock>| {
        let chain = ticking.clone();
        async move {
            let clock = cx.clone();
            cx.spawn_detached(async move { chain.run(|why| clock.trouble(why)).await });
            Ok(ChainClock)
        }
    });
    let door = SharedListener::new(config.listen, "--listen or devnet.listen");
    let server = ChildSpec::actor("json_rpc", server, move |_cx| {
        let started = start(chain.clone(), &config, &door);
        async move { started }
    });
    SupervisorSpec::new("devnet")
        .intensity(10, Duration::from_secs(60))
        .child(clock.on(Thread::Shared("devnet")))
        .child(server.on(Thread::Shared("devnet")))
}
