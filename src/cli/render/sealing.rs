//! Renders workers and the tasks under way.

use super::info::one_worker;
use super::proving::line;
use super::table::{Align, table};
use super::time::elapsed;
use crate::node::provider_report::Worker;
use crate::node::sealing_report::JobRow;
use std::time::Duration;

pub fn workers(workers: &[Worker]) -> String {
    if workers.is_empty() {
        return "nobody seals: give a node the role sealing, or start `bulkhead agent`\n".to_string();
    }
    let one = |worker: &Worker| {
        let silent = worker.silent_for.map(|ms| format!(", heard {} ago", elapsed(Duration::from_millis(ms))));
        format!("{}{}\n", one_worker(worker), silent.unwrap_or_default())
    };
    workers.iter().map(one).collect()
}

/// `now` in Unix seconds.
pub fn jobs(jobs: &[JobRow], now: u64) -> String {
    if jobs.is_empty() {
        return "no sealing task runs or waits\n".to_string();
    }
    let columns = [
        ("SECTOR", Align::Right),
        ("TASK", Align::Left),
        ("STATE", Align::Left),
        ("AT", Align::Left),
        ("WORKER", Align::Left),
        ("FOR", Align::Right),
        ("LEFT", Align::Right),
        ("ERROR", Align::Left),
    ];
    let row = |job: &JobRow| {
        let ran = Duration::from_millis((now * 1000).saturating_sub(job.since));
        let left = job.last_took_ms.filter(|_| job.state == "running").map(|took| left(took, ran));
        vec![
            job.sector.to_string(),
            job.task.clone(),
            job.state.clone(),
            job.at.clone(),
            job.worker.clone().unwrap_or("-".to_string()),
            elapsed(ran),
            left.unwrap_or("-".to_string()),
            job.error.as_deref().map(line).unwrap_or_default(),
        ]
    };
    table(&columns, &jobs.iter().map(row).collect::<Vec<_>>())
}

/// Time left of a task, if it takes as long as the last one of its kind did.
fn left(took_ms: u64, ran: Duration) -> String {
    match Duration::from_millis(took_ms).checked_sub(ran) {
        Some(left) => format!("about {}", elapsed(left)),
        None => "longer than the last".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_say_where_they_are_and_how_long_they_take() {
        let job = |sector, state: &str, worker: Option<&str>, took| JobRow {
            sector,
            task: "c2".to_string(),
            state: state.to_string(),
            at: "a".to_string(),
            worker: worker.map(Into::into),
            since: 90_000,
            last_took_ms: took,
            error: (state == "failed").then(|| "no\nspace".to_string()),
        };
        let rows = [
            job(1, "running", Some("h:7"), Some(30_000)),
            job(2, "running", None, Some(5_000)),
            job(3, "queued", None, Some(30_000)),
            job(4, "failed", None, None),
        ];
        let expected = "\
SECTOR  TASK  STATE    AT  WORKER     FOR                  LEFT  ERROR
     1  c2    running  a   h:7     10.0 s          about 20.0 s
     2  c2    running  a   -       10.0 s  longer than the last
     3  c2    queued   a   -       10.0 s                     -
     4  c2    failed   a   -       10.0 s                     -  no space
";
        assert_eq!(jobs(&rows, 100), expected);
        assert!(jobs(&[], 100).contains("no sealing task"));
        assert!(workers(&[]).contains("nobody seals"));
    }
}
