//! The actor tree in Prometheus' text format (0.0.4).

use super::views::{DeadLettersView, Vitals};
use crate::supervisor::{ActorInfo, ActorState, HANDLE_BOUNDS_US, HandleTimes};
use std::fmt::Write;

const STATES: [ActorState; 5] =
    [ActorState::Starting, ActorState::Up, ActorState::Restarting, ActorState::Stopping, ActorState::Stopped];

/// `rss` is left out where the system does not tell it, dead letters where the tree keeps none.
pub fn render(rows: &[ActorInfo], dead: Option<&DeadLettersView>, rss: Option<u64>) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&ActorInfo) -> u64| {
        head(&mut out, name, kind, help);
        for row in rows {
            let _ =
                writeln!(out, "{name}{{path=\"{}\",kind=\"{}\"}} {}", label(&row.path), label(&row.kind), value(row));
        }
    };
    family("bulkhead_actor_restarts_total", "counter", "Restarts since the node started.", &|r| r.restarts);
    family("bulkhead_actor_incarnation", "gauge", "The present incarnation.", &|r| r.incarnation);
    family("bulkhead_actor_mailbox_depth", "gauge", "Messages that wait.", &|r| r.mailbox_depth as u64);
    family("bulkhead_actor_mailbox_bound", "gauge", "Messages that may wait.", &|r| r.mailbox_bound as u64);
    head(&mut out, "bulkhead_actor_state", "gauge", "1 for the state that the actor is in.");
    for row in rows {
        for state in STATES {
            let is = u8::from(row.state == state);
            let _ =
                writeln!(out, "bulkhead_actor_state{{path=\"{}\",state=\"{}\"}} {is}", label(&row.path), state.name());
        }
    }
    head(&mut out, "bulkhead_actor_handle_seconds", "histogram", "How long messages took.");
    for row in rows {
        if let Some(times) = &row.handle_times {
            handle_times(&mut out, &label(&row.path), times);
        }
    }
    if let Some(dead) = dead {
        head(&mut out, "bulkhead_dead_letters_total", "counter", "Messages that nobody handled.");
        for (reason, count) in &dead.counts {
            let reason = serde_json::to_value(reason).unwrap_or_default();
            let reason = reason.as_str().unwrap_or("other");
            let _ = writeln!(out, "bulkhead_dead_letters_total{{reason=\"{}\"}} {count}", label(reason));
        }
    }
    if let Some(rss) = rss {
        head(&mut out, "process_resident_memory_bytes", "gauge", "Resident memory of the node, provers not included.");
        let _ = writeln!(out, "process_resident_memory_bytes {rss}");
    }
    out
}

fn handle_times(out: &mut String, path: &str, times: &HandleTimes) {
    let name = "bulkhead_actor_handle_seconds";
    let mut total = 0;
    let bounds = HANDLE_BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string()).chain(["+Inf".to_string()]);
    for (count, le) in times.buckets.iter().zip(bounds) {
        total += count;
        let _ = writeln!(out, "{name}_bucket{{path=\"{path}\",le=\"{le}\"}} {total}");
    }
    let sum = times.sum_us as f64 / 1e6;
    let _ = writeln!(out, "{name}_sum{{path=\"{path}\"}} {sum}\n{name}_count{{path=\"{path}\"}} {total}");
}

/// Metrics of the process as a whole; empty where they are not known.
pub fn render_vitals(vitals: Option<&Vitals>) -> String {
    let mut out = String::new();
    if let Some(vitals) = vitals {
        head(&mut out, "bulkhead_watchdog_ticks_total", "counter", "Rounds of the watchdog.");
        let _ = writeln!(out, "bulkhead_watchdog_ticks_total {}", vitals.watchdog_ticks);
        head(&mut out, "bulkhead_zombie_threads", "gauge", "Threads that were given up and have not ended since.");
        let _ = writeln!(out, "bulkhead_zombie_threads {}", vitals.zombie_threads);
    }
    out
}

pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(super) fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// From `/proc/self/status`.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::super::views::row;
    use super::*;
    use crate::supervisor::DeadReason;

    #[test]
    fn every_actor_has_its_lines() {
        let dead = DeadLettersView { counts: vec![(DeadReason::ActorEnded, 5)], recent: vec![] };
        let rows = [row("root/a", ActorState::Up), row("root/\"b\\\n", ActorState::Stopped)];
        let text = render(&rows, Some(&dead), Some(4096));
        for line in [
            "# TYPE bulkhead_actor_restarts_total counter",
            "bulkhead_actor_restarts_total{path=\"root/a\",kind=\"worker\"} 2",
            "bulkhead_actor_mailbox_depth{path=\"root/a\",kind=\"worker\"} 1",
            "bulkhead_actor_mailbox_bound{path=\"root/a\",kind=\"worker\"} 256",
            "bulkhead_actor_state{path=\"root/a\",state=\"up\"} 1",
            "bulkhead_actor_state{path=\"root/a\",state=\"stopped\"} 0",
            "bulkhead_actor_state{path=\"root/\\\"b\\\\\\n\",state=\"stopped\"} 1",
            "bulkhead_dead_letters_total{reason=\"actor_ended\"} 5",
            "process_resident_memory_bytes 4096",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let mut timed = row("root/t", ActorState::Up);
        timed.handle_times = Some(HandleTimes { buckets: vec![1, 0, 2, 0, 0, 0, 0, 4], sum_us: 2_500_000 });
        let text = render(&[timed], None, None);
        for line in [
            "# TYPE bulkhead_actor_handle_seconds histogram",
            "bulkhead_actor_handle_seconds_bucket{path=\"root/t\",le=\"0.00001\"} 1",
            "bulkhead_actor_handle_seconds_bucket{path=\"root/t\",le=\"0.001\"} 3",
            "bulkhead_actor_handle_seconds_bucket{path=\"root/t\",le=\"10\"} 3",
            "bulkhead_actor_handle_seconds_bucket{path=\"root/t\",le=\"+Inf\"} 7",
            "bulkhead_actor_handle_seconds_sum{path=\"root/t\"} 2.5",
            "bulkhead_actor_handle_seconds_count{path=\"root/t\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let vitals = render_vitals(Some(&Vitals { watchdog_ticks: 9, zombie_threads: 1, ..Vitals::default() }));
        assert!(vitals.contains("bulkhead_watchdog_ticks_total 9\n") && vitals.contains("bulkhead_zombie_threads 1\n"));
        let bare = render(&[], None, None);
        assert!(!bare.contains("process_resident") && !bare.contains("dead_letters"));
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
