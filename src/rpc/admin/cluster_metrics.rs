//! Leases and bridge peers in Prometheus' text format.

use super::cluster::{ClusterReport, PeersReport};
use super::metrics::{head, label};
use std::fmt::Write;

const STATES: [&str; 4] = ["connecting", "up", "suspect", "down"];

pub fn render(report: &ClusterReport, peers: &PeersReport) -> String {
    let mut out = String::new();
    head(&mut out, "bulkhead_cluster_in_contact", "gauge", "1 while the directory's changes reach this node.");
    let _ = writeln!(out, "bulkhead_cluster_in_contact {}", u8::from(report.in_contact));
    if let Some(bytes) = report.etcd_bytes {
        head(&mut out, "bulkhead_etcd_database_bytes", "gauge", "Size of etcd's database.");
        let _ = writeln!(out, "bulkhead_etcd_database_bytes {bytes}");
    }
    head(&mut out, "bulkhead_cluster_nodes", "gauge", "Nodes that are registered.");
    let _ = writeln!(out, "bulkhead_cluster_nodes {}", report.nodes.len());
    head(&mut out, "bulkhead_lease_held", "gauge", "1 for a concern that this node holds.");
    for lease in &report.leases {
        let _ = writeln!(out, "bulkhead_lease_held{{concern=\"{}\"}} {}", label(&lease.concern), u8::from(lease.here));
    }
    head(&mut out, "bulkhead_lease_proven", "gauge", "1 while it is certain that nobody else can hold it.");
    for lease in report.leases.iter().filter(|lease| lease.here) {
        let proven = u8::from(lease.state.as_deref() == Some("proven"));
        let _ = writeln!(out, "bulkhead_lease_proven{{concern=\"{}\"}} {proven}", label(&lease.concern));
    }
    head(&mut out, "bulkhead_lease_epoch", "gauge", "The fencing epoch: it grows with every holder.");
    for lease in &report.leases {
        let (concern, node) = (label(&lease.concern), label(&lease.node));
        let _ = writeln!(out, "bulkhead_lease_epoch{{concern=\"{concern}\",node=\"{node}\"}} {}", lease.epoch);
    }
    peer_families(&mut out, peers);
    out
}

fn peer_families(out: &mut String, report: &PeersReport) {
    let name = |row: &super::cluster::PeerRow| label(row.node.as_deref().unwrap_or(&row.peer_id));
    head(out, "bulkhead_peer_state", "gauge", "1 for the state that the connection to the peer is in.");
    for row in &report.peers {
        for state in STATES {
            let is = u8::from(row.state == state);
            let _ = writeln!(out, "bulkhead_peer_state{{peer=\"{}\",state=\"{state}\"}} {is}", name(row));
        }
    }
    head(out, "bulkhead_peer_rtt_seconds", "gauge", "Time to the peer and back.");
    for row in &report.peers {
        if let Some(us) = row.rtt_us {
            let _ = writeln!(out, "bulkhead_peer_rtt_seconds{{peer=\"{}\"}} {}", name(row), us as f64 / 1e6);
        }
    }
    head(out, "bulkhead_peer_pending_asks", "gauge", "Asks that have no answer yet.");
    for row in &report.peers {
        let _ = writeln!(out, "bulkhead_peer_pending_asks{{peer=\"{}\"}} {}", name(row), row.pending);
    }
    head(out, "bulkhead_peer_queued_bytes", "gauge", "Bytes that wait to be sent.");
    for row in &report.peers {
        for (lane, bytes) in [("control", row.queued_control), ("message", row.queued_messages)] {
            let _ = writeln!(out, "bulkhead_peer_queued_bytes{{peer=\"{}\",lane=\"{lane}\"}} {bytes}", name(row));
        }
    }
    head(
        out,
        "bulkhead_refused_frames_total",
        "counter",
        "What the bridge did not take; peer stranger: whoever is not let in.",
    );
    let strangers = report.strangers.iter().map(|(reason, count)| ("stranger".to_string(), reason, count));
    let known = report.peers.iter().flat_map(|row| row.refused.iter().map(move |(reason, n)| (name(row), reason, n)));
    for (peer, reason, count) in known.chain(strangers) {
        let reason = label(reason);
        let _ = writeln!(out, "bulkhead_refused_frames_total{{peer=\"{peer}\",reason=\"{reason}\"}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{LeaseRow, PeerRow};
    use super::*;

    #[test]
    fn leases_and_peers_have_their_lines() {
        let lease = |node: &str, here| LeaseRow {
            concern: "/t01000/window-post".into(),
            node: node.into(),
            epoch: 41,
            here,
            state: here.then(|| "unproven".to_string()),
        };
        let peer = PeerRow {
            peer_id: "12D3".into(),
            node: Some("host-b".into()),
            state: "suspect".into(),
            boot: Some(3),
            rtt_us: Some(1500),
            pending: 2,
            queued_control: 0,
            queued_messages: 77,
            refused: [("fenced".to_string(), 4)].into(),
        };
        let peers = PeersReport { peers: vec![peer], strangers: [("unknown_peer".to_string(), 9)].into() };
        let report = ClusterReport {
            in_contact: true,
            leases: vec![lease("a", true)],
            etcd_bytes: Some(4096),
            ..ClusterReport::default()
        };
        let text = render(&report, &peers);
        for line in [
            "bulkhead_cluster_in_contact 1",
            "bulkhead_etcd_database_bytes 4096",
            "bulkhead_lease_held{concern=\"/t01000/window-post\"} 1",
            "bulkhead_lease_proven{concern=\"/t01000/window-post\"} 0",
            "bulkhead_lease_epoch{concern=\"/t01000/window-post\",node=\"a\"} 41",
            "bulkhead_peer_state{peer=\"host-b\",state=\"suspect\"} 1",
            "bulkhead_peer_state{peer=\"host-b\",state=\"up\"} 0",
            "bulkhead_peer_rtt_seconds{peer=\"host-b\"} 0.0015",
            "bulkhead_peer_pending_asks{peer=\"host-b\"} 2",
            "bulkhead_peer_queued_bytes{peer=\"host-b\",lane=\"message\"} 77",
            "bulkhead_refused_frames_total{peer=\"host-b\",reason=\"fenced\"} 4",
            "bulkhead_refused_frames_total{peer=\"stranger\",reason=\"unknown_peer\"} 9",
            "# TYPE bulkhead_refused_frames_total counter",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let other = ClusterReport { leases: vec![lease("b", false)], ..ClusterReport::default() };
        let text = render(&other, &PeersReport::default());
        assert!(text.contains("bulkhead_lease_held{concern=\"/t01000/window-post\"} 0\n"), "{text}");
        assert!(!text.contains("bulkhead_lease_proven{") && text.contains("bulkhead_cluster_in_contact 0\n"));
    }
}
