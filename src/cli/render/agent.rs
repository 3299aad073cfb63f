//! `info` of a seal agent.

use super::info::one_worker;
use super::proving::{fact, line};
use crate::config::values::format_size;
use crate::node::provider_report::Worker;
use serde_json::Value;

pub fn info(info: &Value) -> String {
    let text_of = |name: &str| info[name].as_str().unwrap_or_default().to_string();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut text = format!("Agent {}, bulkhead {}\n\n", text_of("agent"), text_of("version"));
    let troubles: Vec<&str> = info["troubles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match troubles.as_slice() {
        [] => text += &fact("Health", "ok"),
        troubles => {
            text += &fact("Health", &format!("{} wrong", troubles.len()));
            troubles.iter().for_each(|trouble| text += &format!("  ! {}\n", line(trouble)));
        }
    }
    let miner = match (info["miner"].as_str(), info["sector_size"].as_u64()) {
        (Some(miner), Some(size)) => format!("{miner}, {} sectors", format_size(size)),
        (Some(miner), None) => miner.to_string(),
        (None, _) => "none yet: whoever sends the first sector".to_string(),
    };
    text += &fact("Works for", &miner);
    let tasks = &info["tasks"];
    let (all, queued, failed) = (number(&tasks["all"]), number(&tasks["queued"]), number(&tasks["failed"]));
    text += &fact("Sectors", &number(&info["sectors"]).to_string());
    text += &fact("Tasks", &format!("{all}: {queued} queued, {failed} failed; see `bulkhead sealing jobs`"));
    text += &fact("Free disk", &format_size(number(&info["free_disk"])));
    let workers: Vec<Worker> = serde_json::from_value(info["workers"].clone()).unwrap_or_default();
    for (i, worker) in workers.iter().enumerate() {
        text += &fact(if i == 0 { "Workers" } else { "" }, &one_worker(worker));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_says_whom_it_works_for_and_what_it_has_to_do() {
        let value = serde_json::json!({
            "agent": "agent-a", "version": "0.1.0", "miner": "t01000", "sector_size": 2048, "troubles": [],
            "sectors": 2, "tasks": { "queued": 1, "failed": 0, "all": 3 }, "free_disk": 1073741824u64, "works_itself": true,
            "workers": [{ "at": "agent-a", "kind": "agent", "name": "agent-a", "slots": { "pc1": { "used": 1, "all": 2 } }, "queued": 1 }],
        });
        let expected = "\
Agent agent-a, bulkhead 0.1.0

Health         ok
Works for      t01000, 2 KiB sectors
Sectors        2
Tasks          3: 1 queued, 0 failed; see `bulkhead sealing jobs`
Free disk      1 GiB
Workers        agent agent-a: pc1 1/2, 1 queued
";
        assert_eq!(info(&value), expected);
        let new = serde_json::json!({ "agent": "a", "version": "1", "troubles": ["etcd is away"], "miner": null });
        let text = info(&new);
        assert!(text.contains("1 wrong\n  ! etcd is away") && text.contains("none yet"), "{text}");
    }
}
