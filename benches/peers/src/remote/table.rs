//! The tables of the network rows, in markdown.

use super::Peer;
use super::plan::{Ask, Sample};
use super::rows::{IN_FLIGHT, LIMIT, Record, SIZES};
use std::collections::BTreeMap;

/// Median, lowest and highest of what the repetitions gave.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

fn spread(figures: impl Iterator<Item = f64>) -> Option<Spread> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let median = *figures.get(figures.len() / 2)?;
    Some(Spread { median, low: *figures.first()?, high: *figures.last()? })
}

fn short(x: f64) -> String {
    match x {
        x if x >= 1e6 => format!("{:.2}M", x / 1e6),
        x if x >= 1e4 => format!("{:.1}k", x / 1e3),
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or("–".into(), |s| format!("{} ({}–{})", short(s.median), short(s.low), short(s.high)))
}

fn ratio(of: Option<Spread>, to: Option<Spread>) -> String {
    match (of, to) {
        (Some(of), Some(to)) if to.median > 0.0 => format!("{:.2}", of.median / to.median),
        _ => "–".into(),
    }
}

pub fn print(
    machine: &str,
    reps: usize,
    ms: u64,
    gauges: &[f64],
    peers: &[Peer],
    records: &[Record],
    namespaces: bool,
) {
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    let date = date.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string()).unwrap_or_default();
    println!("{date}; {machine}; gauge {} ms.", cell(spread(gauges.iter().copied())));
    println!("{reps} repetitions, {ms} ms a cell of R1. Cells are median (min–max).");
    let of = |row: &'static str, peer: Peer| records.iter().filter(move |r| r.row == row && r.peer == peer);
    let has = |row: &str| records.iter().any(|r| r.row.starts_with(row));
    if records.iter().any(|r| matches!(r.sample, Sample::Ask { .. })) {
        SIZES.iter().for_each(|size| asks(*size, peers, records));
    }
    if records.iter().any(|r| matches!(r.sample, Sample::Tell { .. })) {
        tells(peers, records);
    }
    if has("r3") {
        detection(peers, records, namespaces);
    }
    if has("r4") {
        println!("\n### R4: 100 clients after their server was killed and started again\n");
        println!("Milliseconds from its first line until a client's call is answered.\n");
        println!("| peer | median client | last client |\n|---|---|---|");
        for peer in peers {
            let storms = || {
                of("r4", *peer).filter_map(|r| match &r.sample {
                    Sample::Storm { answered_ms } if !answered_ms.is_empty() => Some(answered_ms),
                    _ => None,
                })
            };
            let middle = spread(storms().filter_map(|all| spread(all.iter().copied())).map(|s| s.median));
            let last = spread(storms().filter_map(|all| spread(all.iter().copied())).map(|s| s.high));
            println!("| {} | {} | {} |", peer.name(), cell(middle), cell(last));
        }
    }
    if has("r5") {
        moved(records);
    }
    for record in records {
        if let Sample::Failed { why } = &record.sample {
            println!("\n{} {} of repetition {}: {why}", record.row, record.peer.name(), record.rep);
        }
    }
}

fn asks(size: usize, peers: &[Peer], records: &[Record]) {
    let figures = |peer: Peer, in_flight: usize, figure: fn(&Sample) -> f64| {
        let wanted = Ask { size, in_flight };
        spread(records.iter().filter(|r| r.peer == peer).filter_map(|r| match &r.sample {
            sample @ Sample::Ask { ask, .. } if *ask == wanted => Some(figure(sample)),
            _ => None,
        }))
    };
    let rate: fn(&Sample) -> f64 = |s| if let Sample::Ask { per_second, .. } = s { *per_second } else { 0.0 };
    let p50: fn(&Sample) -> f64 = |s| if let Sample::Ask { p50_us, .. } = s { *p50_us } else { 0.0 };
    let p99: fn(&Sample) -> f64 = |s| if let Sample::Ask { p99_us, .. } = s { *p99_us } else { 0.0 };
    let client: fn(&Sample) -> f64 = |s| if let Sample::Ask { client_cpu_us, .. } = s { *client_cpu_us } else { 0.0 };
    let server: fn(&Sample) -> f64 = |s| if let Sample::Ask { server_cpu_us, .. } = s { *server_cpu_us } else { 0.0 };
    let title = if size < 1024 { format!("{size} B") } else { format!("{} KiB", size >> 10) };
    println!("\n### R1: ask over loopback, {title} echoed\n");
    println!("Asks/s by calls in flight; `p50` and `p99` in µs at 1; CPU in µs a call at 64, client + server;");
    println!("`×` is bulkhead against the peer, over 1 means bulkhead is the better.\n");
    println!("| peer | p50 at 1 | p99 at 1 | 1 | 16 | 64 | 256 | CPU at 64 | × p50 at 1 | × at 64 |");
    println!("|{}", "---|".repeat(10));
    for peer in peers {
        let (at1, at64) = (figures(*peer, 1, p50), figures(*peer, 64, rate));
        print!("| {} | {} | {} |", peer.name(), cell(at1), cell(figures(*peer, 1, p99)));
        IN_FLIGHT.iter().for_each(|n| print!(" {} |", cell(figures(*peer, *n, rate))));
        let cpu = |f| figures(*peer, 64, f).map_or("–".into(), |s| short(s.median));
        print!(" {} + {} |", cpu(client), cpu(server));
        let ours = Peer::Bulkhead;
        println!(" {} | {} |", ratio(at1, figures(ours, 1, p50)), ratio(figures(ours, 64, rate), at64));
    }
}

fn tells(peers: &[Peer], records: &[Record]) {
    let figures = |peer: Peer, figure: fn(&Sample) -> f64| {
        spread(
            records
                .iter()
                .filter(|r| r.peer == peer && matches!(r.sample, Sample::Tell { .. }))
                .map(|r| figure(&r.sample)),
        )
    };
    let rate: fn(&Sample) -> f64 = |s| if let Sample::Tell { per_second, .. } = s { *per_second } else { 0.0 };
    let sent: fn(&Sample) -> f64 = |s| if let Sample::Tell { sent, .. } = s { *sent as f64 } else { 0.0 };
    let refused: fn(&Sample) -> f64 = |s| if let Sample::Tell { refused, .. } = s { *refused as f64 } else { 0.0 };
    let client: fn(&Sample) -> f64 = |s| if let Sample::Tell { client_cpu_us, .. } = s { *client_cpu_us } else { 0.0 };
    let server: fn(&Sample) -> f64 = |s| if let Sample::Tell { server_cpu_us, .. } = s { *server_cpu_us } else { 0.0 };
    println!("\n### R2: tells of 100 B, until the last was handled\n");
    println!("A million, or as many as are taken in 2 s; `waits` is how often the sender found no room.\n");
    println!("| peer | tells/s | sent | waits | CPU µs a tell, client + server | × |\n|---|---|---|---|---|---|");
    for peer in peers {
        let one = |f| figures(*peer, f).map_or("–".into(), |s| short(s.median));
        print!("| {} | {} | {} | {} |", peer.name(), cell(figures(*peer, rate)), one(sent), one(refused));
        println!(
            " {} + {} | {} |",
            one(client),
            one(server),
            ratio(figures(Peer::Bulkhead, rate), figures(*peer, rate))
        );
    }
}

fn detection(peers: &[Peer], records: &[Record], namespaces: bool) {
    println!("\n### R3: until a pending call fails\n");
    println!("Milliseconds after the fault, peers as they are configured by default.\n");
    if !namespaces {
        println!("Dropped packets: skipped, a network namespace needs root.\n");
    }
    println!("| peer | kill -9 | SIGSTOP | dropped packets | what the caller is told |\n|---|---|---|---|---|");
    for peer in peers {
        let mut told = BTreeMap::new();
        print!("| {} |", peer.name());
        for fault in ["r3 kill -9", "r3 SIGSTOP", "r3 dropped packets"] {
            let mut late = false;
            let mut found = Vec::new();
            for record in records.iter().filter(|r| r.row == fault && r.peer == *peer) {
                match &record.sample {
                    Sample::Pending { failed_at_ms: Some(ms), said } => {
                        found.push(*ms);
                        told.insert(said.chars().take(60).collect::<String>(), ());
                    }
                    Sample::Pending { failed_at_ms: None, .. } => late = true,
                    _ => {}
                }
            }
            match late {
                true => print!(" not in {} s |", LIMIT.as_secs()),
                false => print!(" {} |", cell(spread(found.into_iter()))),
            }
        }
        println!(" {} |", told.into_keys().collect::<Vec<_>>().join("; ").replace('|', "/"));
    }
}

fn moved(records: &[Record]) {
    let mut places: Vec<&String> = Vec::new();
    for record in records {
        if let Sample::Moved { place, .. } = &record.sample
            && !places.contains(&place)
        {
            places.push(place);
        }
    }
    println!("\n### R5: the same call, moved\n");
    println!("One test body, `to.ask(Echo(..), deadline)` on a `Ref`, 32 B; only where the actor runs differs.\n");
    println!("| the actor runs | p50 µs, one by one | p99 µs | asks/s, 64 in flight |\n|---|---|---|---|");
    for wanted in places {
        let figures = |figure: fn(&Sample) -> f64| {
            spread(records.iter().filter_map(|r| match &r.sample {
                sample @ Sample::Moved { place, .. } if place == wanted => Some(figure(sample)),
                _ => None,
            }))
        };
        let p50 = figures(|s| if let Sample::Moved { p50_us, .. } = s { *p50_us } else { 0.0 });
        let p99 = figures(|s| if let Sample::Moved { p99_us, .. } = s { *p99_us } else { 0.0 });
        let rate = figures(|s| if let Sample::Moved { per_second, .. } = s { *per_second } else { 0.0 });
        println!("| {wanted} | {} | {} | {} |", cell(p50), cell(p99), cell(rate));
    }
}
