//! Runs the rows: who comes when, with which fault, how often.

use super::Peer;
use super::load::epoch_ms;
use super::plan::{Ask, Plan, Sample, Work};
use super::processes::{Client, Namespace, Server};
use super::secrets::Secrets;
use super::table;
use crate::measure::{machine, noise};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub const SIZES: [usize; 3] = [32, 1 << 10, 64 << 10];
pub const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
const ROWS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
const TELLS: u64 = 1_000_000;
const CLIENTS: u64 = 100;
/// How long R3 waits for a client to notice.
pub const LIMIT: Duration = Duration::from_secs(16);

/// One figure of one peer in one repetition.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Record {
    pub row: String,
    pub peer: Peer,
    pub rep: usize,
    pub sample: Sample,
}

struct Orders {
    reps: usize,
    ms: u64,
    peers: Vec<Peer>,
    rows: Vec<String>,
    json: Option<String>,
}

fn orders(args: &[String]) -> Result<Orders, String> {
    let mut orders = Orders { reps: 5, ms: 200, peers: Vec::new(), rows: Vec::new(), json: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        match arg.as_str() {
            "--quick" => (orders.reps, orders.ms) = (2, 100),
            "--reps" => orders.reps = value()?.parse().ok().filter(|n| *n > 0).ok_or("--reps N")?,
            "--ms" => orders.ms = value()?.parse().map_err(|_| "--ms N")?,
            "--peer" => {
                let key = value()?;
                orders.peers.push(Peer::of(key).ok_or(format!("{key}: no such peer: {:?}", Peer::ALL.map(Peer::key)))?);
            }
            "--json" => orders.json = Some(value()?.clone()),
            row if ROWS.contains(&row) => orders.rows.push(row.to_string()),
            other => return Err(format!("{other}: not a row of {ROWS:?}")),
        }
    }
    if orders.rows.is_empty() {
        orders.rows = ROWS.map(String::from).to_vec();
    }
    if orders.peers.is_empty() {
        orders.peers = Peer::ALL.to_vec();
    }
    Ok(orders)
}

pub fn run(args: &[String]) {
    let orders = match orders(args) {
        Ok(orders) => orders,
        Err(why) => {
            eprintln!(
                "{why}\npeers remote [--quick] [--reps N] [--ms N] [--peer KEY].. [--json FILE] [r1 r2 r3 r4 r5]"
            );
            std::process::exit(2);
        }
    };
    let machine = machine();
    let secrets = Secrets::make();
    let run = Run { orders: &orders, secrets: &secrets, space: Namespace::make() };
    let wants = |row: &str| orders.rows.iter().any(|r| r == row);
    let (mut records, mut gauges) = (Vec::new(), Vec::new());
    for rep in 0..orders.reps {
        gauges.push(noise());
        if wants("r1") || wants("r2") {
            run.load(rep, wants("r1"), wants("r2"), &mut records);
        }
        if wants("r5") && orders.peers.contains(&Peer::Bulkhead) {
            run.moved(rep, &mut records);
        }
    }
    if wants("r3") {
        for rep in 0..orders.reps.min(3) {
            run.faults(rep, "r3 kill -9", &mut records);
        }
        run.faults(0, "r3 SIGSTOP", &mut records);
        if run.space.is_some() {
            run.faults(0, "r3 dropped packets", &mut records);
        }
    }
    if wants("r4") {
        for rep in 0..orders.reps.min(2) {
            run.storms(rep, &mut records);
        }
    }
    if let Some(path) = &orders.json
        && let Err(why) = std::fs::write(path, serde_json::to_vec_pretty(&records).unwrap_or_default())
    {
        eprintln!("{path}: {why}");
    }
    table::print(&machine, orders.reps, orders.ms, &gauges, &orders.peers, &records, run.space.is_some());
}

struct Run<'a> {
    orders: &'a Orders,
    secrets: &'a Secrets,
    /// `None`: not root.
    space: Option<Namespace>,
}

impl Run<'_> {
    /// Another peer begins in each repetition, so that what else the machine does hits all of them.
    fn turns(&self, rep: usize) -> Vec<Peer> {
        let mut peers = self.orders.peers.clone();
        let first = rep % peers.len();
        peers.rotate_left(first);
        peers
    }

    fn plan(&self, peer: Peer, server: &Server, work: Work) -> Plan {
        let (address, secrets) = (server.address.clone(), self.secrets.folder().to_path_buf());
        Plan { peer, address, server: server.pid(), secrets, work }
    }

    fn load(&self, rep: usize, asks: bool, tells: bool, records: &mut Vec<Record>) {
        let cells = SIZES.iter().flat_map(|size| IN_FLIGHT.map(|in_flight| Ask { size: *size, in_flight }));
        let cells: Vec<Ask> = if asks { cells.collect() } else { Vec::new() };
        for peer in self.turns(rep) {
            let server = Server::start(peer, self.secrets.folder(), None);
            let tells = if tells { TELLS } else { 0 };
            let work = Work::Load { asks: cells.clone(), ms: self.orders.ms, tells };
            let samples = Client::start(&self.plan(peer, &server, work)).results();
            eprintln!("load {rep} {}", peer.key());
            records.extend(samples.into_iter().map(|sample| record("load", peer, rep, sample)));
        }
    }

    fn moved(&self, rep: usize, records: &mut Vec<Record>) {
        let peer = Peer::Bulkhead;
        for space in std::iter::once(None).chain(self.space.as_ref().map(Some)) {
            let server = Server::start(peer, self.secrets.folder(), space);
            let work = Work::Moved { times: 2_000, other_node: space.is_some() };
            let samples = Client::start(&self.plan(peer, &server, work)).results();
            records.extend(samples.into_iter().map(|sample| record("r5", peer, rep, sample)));
        }
    }

    /// All peers at once, each with a server and a client of its own: this row waits, it does not work.
    fn faults(&self, rep: usize, fault: &str, records: &mut Vec<Record>) {
        let space = self.space.as_ref().filter(|_| fault == "r3 dropped packets");
        let limit_ms = LIMIT.as_millis() as u64;
        let mut waiting = Vec::new();
        for peer in self.turns(rep) {
            let server = Server::start(peer, self.secrets.folder(), space);
            let mut client = Client::start(&self.plan(peer, &server, Work::Pending { limit_ms }));
            match client.said("waiting") {
                Ok(()) => waiting.push((peer, server, client)),
                Err(samples) => records.extend(samples.into_iter().map(|s| record(fault, peer, rep, s))),
            }
        }
        if let Some(space) = space {
            space.cut();
        }
        let struck: Vec<_> = waiting
            .into_iter()
            .map(|(peer, server, client)| {
                let at = epoch_ms();
                match fault {
                    "r3 kill -9" => server.signal(Signal::SIGKILL),
                    "r3 SIGSTOP" => server.signal(Signal::SIGSTOP),
                    _ => {}
                }
                std::thread::sleep(Duration::from_millis(if fault == "r3 kill -9" { 100 } else { 0 }));
                (peer, server, client, at)
            })
            .collect();
        for (peer, _server, client, at) in struck {
            let samples = client.results().into_iter().map(|sample| match sample {
                Sample::Pending { failed_at_ms, said } => {
                    Sample::Pending { failed_at_ms: failed_at_ms.map(|ms| ms - at), said }
                }
                other => other,
            });
            records.extend(samples.map(|sample| record(fault, peer, rep, sample)));
        }
        if let Some(space) = space {
            space.heal();
        }
        eprintln!("{fault} {rep}");
    }

    fn storms(&self, rep: usize, records: &mut Vec<Record>) {
        for peer in self.turns(rep) {
            let server = Server::start(peer, self.secrets.folder(), None);
            let clients = peer.clients_per_process();
            let plan = self.plan(peer, &server, Work::Storm { clients });
            let mut all: Vec<_> = (0..CLIENTS / clients).map(|_| Client::start(&plan)).collect();
            let up: Vec<_> = all.iter_mut().filter_map(|client| client.said("connected").err()).flatten().collect();
            let bind = server.bind.clone();
            drop(server); // SIGKILL
            let _again = Server::start_on(peer, self.secrets.folder(), None, &bind);
            all.iter_mut().for_each(Client::go);
            let mut answered = Vec::new();
            let mut failed = up;
            for sample in all.into_iter().flat_map(Client::results) {
                match sample {
                    Sample::Storm { answered_ms } => answered.extend(answered_ms),
                    other => failed.push(other),
                }
            }
            records.extend(failed.into_iter().take(1).map(|sample| record("r4", peer, rep, sample)));
            records.push(record("r4", peer, rep, Sample::Storm { answered_ms: answered }));
            eprintln!("r4 {rep} {}", peer.key());
        }
    }
}

fn record(row: &str, peer: Peer, rep: usize, sample: Sample) -> Record {
    Record { row: row.to_string(), peer, rep, sample }
}
