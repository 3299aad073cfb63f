//! R1 to R5: calls between processes, beside the peers that have them. Each peer is a file; they share the rest.

mod bulkhead;
mod kameo_remote;
mod load;
mod mux;
mod plan;
mod processes;
mod ractor_cluster_peer;
mod raw_tcp;
mod rows;
mod secrets;
mod substream;
mod table;
pub mod tonic_peer;

use load::{drive, say};
use plan::Plan;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Peer {
    Bulkhead,
    RawTcp,
    RawTls,
    Substream,
    Kameo,
    Ractor,
    RactorTls,
    Tonic,
    TonicTls,
}

impl Peer {
    pub const ALL: [Peer; 9] = [
        Peer::Bulkhead,
        Peer::RawTcp,
        Peer::RawTls,
        Peer::Substream,
        Peer::Kameo,
        Peer::Ractor,
        Peer::RactorTls,
        Peer::Tonic,
        Peer::TonicTls,
    ];

    pub fn key(self) -> &'static str {
        match self {
            Peer::Bulkhead => "bulkhead",
            Peer::RawTcp => "tcp",
            Peer::RawTls => "mtls",
            Peer::Substream => "substream",
            Peer::Kameo => "kameo",
            Peer::Ractor => "ractor",
            Peer::RactorTls => "ractor-mtls",
            Peer::Tonic => "tonic",
            Peer::TonicTls => "tonic-mtls",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Peer::Bulkhead => "**bulkhead**",
            Peer::RawTcp => "raw TCP (floor)",
            Peer::RawTls => "raw TCP mTLS (floor)",
            Peer::Substream => "libp2p substream",
            Peer::Kameo => "kameo remote",
            Peer::Ractor => "ractor_cluster TCP",
            Peer::RactorTls => "ractor_cluster mTLS",
            Peer::Tonic => "tonic h2c",
            Peer::TonicTls => "tonic mTLS",
        }
    }

    pub fn of(key: &str) -> Option<Peer> {
        Peer::ALL.into_iter().find(|peer| peer.key() == key)
    }

    /// kameo has one swarm a process, ractor_cluster one registry.
    pub fn clients_per_process(self) -> u64 {
        match self {
            Peer::Kameo | Peer::Ractor | Peer::RactorTls => 1,
            _ => 100,
        }
    }
}

pub fn main(args: Vec<String>) {
    // Two providers are compiled in, by two of the peers; all take this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arg = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    match arg(0) {
        "server" => serve(Peer::of(arg(1)).expect("a peer"), arg(2), Path::new(arg(3))),
        "client" => {
            let samples = call(serde_json::from_str(arg(1)).expect("a plan"));
            say(&serde_json::to_string(&samples).expect("samples are JSON"));
            std::process::exit(0); // whatever threads the peer still has
        }
        _ => rows::run(&args[1..]),
    }
}

fn serve(peer: Peer, bind: &str, secrets: &Path) {
    let ready = |address: String| say(&format!("ready {address}"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the bench");
    runtime.block_on(async {
        match peer {
            Peer::Bulkhead => bulkhead::serve(bind, ready).await,
            Peer::RawTcp => raw_tcp::serve(bind, secrets, false, ready).await,
            Peer::RawTls => raw_tcp::serve(bind, secrets, true, ready).await,
            Peer::Substream => substream::serve(bind, ready).await,
            Peer::Kameo => kameo_remote::serve(bind, ready).await,
            Peer::Ractor => ractor_cluster_peer::serve(bind, secrets, false, ready).await,
            Peer::RactorTls => ractor_cluster_peer::serve(bind, secrets, true, ready).await,
            Peer::Tonic => tonic_peer::serve(bind, secrets, false, ready).await,
            Peer::TonicTls => tonic_peer::serve(bind, secrets, true, ready).await,
        }
    });
}

fn call(plan: Plan) -> Vec<plan::Sample> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the bench");
    let (address, secrets): (String, PathBuf) = (plan.address.clone(), plan.secrets.clone());
    /// A connect that may be called again and again: with its own copies of what it needs.
    macro_rules! connecting {
        ($connect:path $(, $rest:expr)*) => {
            move |_| {
                let (address, secrets) = (address.clone(), secrets.clone());
                async move { $connect(&address, &secrets $(, $rest)*).await }
            }
        };
    }
    runtime.block_on(async {
        match plan.peer {
            Peer::Bulkhead => bulkhead::call(plan).await,
            Peer::RawTcp => drive(plan, connecting!(raw_tcp::connect, false)).await,
            Peer::RawTls => drive(plan, connecting!(raw_tcp::connect, true)).await,
            Peer::Substream => drive(plan, connecting!(substream::connect)).await,
            Peer::Kameo => drive(plan, connecting!(kameo_remote::connect)).await,
            Peer::Ractor => drive(plan, connecting!(ractor_cluster_peer::connect, false)).await,
            Peer::RactorTls => drive(plan, connecting!(ractor_cluster_peer::connect, true)).await,
            Peer::Tonic => drive(plan, connecting!(tonic_peer::connect, false)).await,
            Peer::TonicTls => drive(plan, connecting!(tonic_peer::connect, true)).await,
        }
    })
}
