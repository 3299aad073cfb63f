//! `info` on one screen: health first, then chain, proving, sealing, markets, balances.

use super::proving::{fact, health, outcome, restart};
use super::time::elapsed;
use crate::actors::deal_handler::MarketReport;
use crate::actors::seal_scheduler::messages::Slots;
use crate::actors::winning_post::messages::RoundReport;
use crate::config::values::format_size;
use crate::node::provider_report::Worker;
use crate::node::proving_report::{DeadlineRow, OpenDeadline, Restart, Trouble};
use crate::rpc::admin::provider::{
    BlocksPart, ChainPart, F3Part, FullNodePart, MessagesPart, NetworkPart, PowerPart, ProviderReport, ProvingPart,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const SHOWN: usize = 5;

/// The fields of `Bulkhead.Info` that this screen shows; a node that sends more, or less, is shown all the same.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Info {
    miner: String,
    sector_size: u64,
    network: String,
    version: String,
    full_node: Value,
    winning_post: Value,
    troubles: Vec<Trouble>,
    restart: Option<Restart>,
    open_deadline: Option<OpenDeadline>,
    next_deadline: Option<DeadlineRow>,
    next_opens_in_seconds: Option<u64>,
    workers: Vec<Worker>,
    market: Value,
    provider: ProviderReport,
}

/// `now` in Unix seconds; `all`: nothing is cut.
pub fn info(info: &Info, now: u64, all: bool) -> String {
    let shown = if all { usize::MAX } else { SHOWN };
    let provider = &info.provider;
    let (size, network, version) = (format_size(info.sector_size), &info.network, &info.version);
    let mut text = format!("{} on {network}, {size} sectors, bulkhead {version}\n\n", info.miner);
    text += &health(&info.troubles, "ok", shown);
    let known = info.restart.as_ref().map(restart);
    text += &fact("Restart now?", &known.unwrap_or("unknown: the deadlines cannot be read".to_string()));
    text += "\n";
    let part = |name: &str, value: Option<String>, key: &str| {
        let why = provider.unavailable.get(key).map(|why| format!("unknown: {}", line(why)));
        value.or(why).map(|value| fact(name, &value)).unwrap_or_default()
    };
    text += &part("Chain", provider.chain.as_ref().map(|part| chain(part, &info.full_node, now)), "chain");
    text += &full_nodes(provider.chain.as_ref().map(|part| part.pool.as_slice()).unwrap_or_default(), shown);
    text += &part("Network", provider.network.as_ref().map(upgrades), "network");
    text += &part("Proving", provider.proving.as_ref().map(|part| proving(part, info)), "deadlines");
    text += &part("Blocks", provider.blocks.as_ref().map(|part| blocks(part, &info.winning_post)), "winning_post");
    text += &part("Finality", provider.f3.as_ref().map(finality), "f3");
    text += &part("Power", provider.power.as_ref().map(power), "power");
    text += &part("Sealing", provider.sectors.as_ref().map(|sectors| sealing(sectors, provider)), "sealing");
    for (i, worker) in info.workers.iter().take(shown).enumerate() {
        text += &fact(if i == 0 { "Workers" } else { "" }, &one_worker(worker));
    }
    if info.workers.len() > shown {
        text += &fact("", &format!("and {} more: bulkhead sealing workers", info.workers.len() - shown));
    }
    let market = serde_json::from_value::<MarketReport>(info.market.clone()).ok();
    text += &part("Markets", market.as_ref().map(markets), "market");
    text += &part("Miner funds", funds(&provider.balances), "balances");
    let accounts = accounts(&provider.balances);
    text += &part("Balances", (!accounts.is_empty()).then_some(accounts), "balances");
    text += &part("Messages", provider.messages.as_ref().map(messages), "messages");
    text
}

fn chain(part: &ChainPart, full_node: &Value, now: u64) -> String {
    let mut text = match (part.epoch, part.head_at) {
        (Some(epoch), Some(at)) => {
            let age = now.saturating_sub(at);
            let behind = part.block_delay_secs.map(|delay| age / delay.max(1)).filter(|epochs| *epochs > 1);
            let behind = behind.map(|epochs| format!(" ({epochs} epochs behind the clock)")).unwrap_or_default();
            format!("epoch {epoch}, {} old{behind}", elapsed(Duration::from_secs(age)))
        }
        (Some(epoch), None) => format!("epoch {epoch}"),
        (None, _) => "no head yet".to_string(),
    };
    if let Some(delay) = part.block_delay_secs {
        text += &format!(", a block every {delay} s");
    }
    if let Some(node) = full_node["node"].as_str() {
        text += &format!("; from {node}{}", if part.subscribed { "" } else { " (asked for, not pushed)" });
    }
    text + &format!("; {} of {} full nodes usable", part.usable, part.full_nodes)
}

/// A line for each node of a pool; what one node alone is like stands in the chain's line and in the troubles.
fn full_nodes(pool: &[FullNodePart], shown: usize) -> String {
    if pool.len() < 2 {
        return String::new();
    }
    let one = |node: &FullNodePart| {
        let mut parts = vec![match (node.used, &node.why) {
            (false, why) => format!("not used: {}", line(why.as_deref().unwrap_or_default())),
            (true, Some(why)) => format!("used for want of a better one: {}", line(why)),
            (true, None) => "used".to_string(),
        }];
        parts.extend(node.primary.then(|| "asked first".to_string()));
        parts.extend(node.head.map(|head| format!("epoch {head}")));
        parts.extend(node.behind.filter(|behind| *behind > 0).map(|behind| format!("{behind} behind")));
        fact("", &format!("{}: {}", node.host, parts.join(", ")))
    };
    let mut text: String = pool.iter().take(shown).map(one).collect();
    if pool.len() > shown {
        text += &fact("", &format!("and {} more: bulkhead daemons nodes", pool.len() - shown));
    }
    text
}

fn upgrades(part: &NetworkPart) -> String {
    let known = if part.known { part.name.as_str() } else { "not known to this version of bulkhead" };
    let mut text = format!("version {} ({known})", part.version);
    if let Some(next) = &part.next_upgrade {
        let time = next.seconds.map(|s| format!(" in {}", elapsed(Duration::from_secs(s)))).unwrap_or_default();
        text += &format!("; next upgrade{time}: {}", line(&next.line()));
    }
    text
}

fn proving(part: &ProvingPart, info: &Info) -> String {
    let faults = match part.faulty {
        0 => "none faulty".to_string(),
        faulty => format!("{faulty} FAULTY ({} recovering)", part.recovering),
    };
    let mut text = format!("{}, {faulty}", count(part.live, "sector"), faulty = faults);
    if let Some(unrecorded) = part.unrecorded.filter(|unrecorded| *unrecorded > 0) {
        text += &format!(", {unrecorded} of them not sealed here");
    }
    if part.left_out > 0 {
        text += &format!(", {} left out of proofs lately", part.left_out);
    }
    if let Some(open) = &info.open_deadline {
        let state = match (open.row.to_prove, open.row.proven) {
            (0, _) => "nothing to prove".to_string(),
            (all, done) => format!("{done} of {all} proven"),
        };
        let closes = open.closes_in_seconds.map(|s| format!(", closes in {}", elapsed(Duration::from_secs(s))));
        text += &format!("; deadline {} of {}: {state}{}", open.row.index, open.of, closes.unwrap_or_default());
    }
    if let Some(next) = &info.next_deadline {
        let opens = info.next_opens_in_seconds.map(|s| format!(" in {}", elapsed(Duration::from_secs(s))));
        text += &format!("; next {}{}", next.index, opens.unwrap_or_default());
    }
    text + &format!("; lately {} met, {} missed", count(part.met, "deadline"), part.missed)
}

fn blocks(part: &BlocksPart, winning: &Value) -> String {
    let last = serde_json::from_value::<Option<RoundReport>>(winning["last_round"].clone()).ok().flatten();
    let last = last.map(|round| format!("; round {}: {}", round.round, outcome(&round.outcome)));
    let (won, on_chain, lost) = (part.accepted, part.on_chain, part.lost);
    format!("{won} won, {on_chain} on chain, {lost} lost{}", last.unwrap_or_default())
}

fn finality(part: &F3Part) -> String {
    let lease = part.lease_to.map(|to| format!(", lease to instance {to}")).unwrap_or_default();
    let error = part.error.as_ref().filter(|_| part.failures > 0).map(|why| format!(": {}", line(why)));
    format!("F3 {}{lease}{}", part.state.replace('_', " "), error.unwrap_or_default())
}

fn power(part: &PowerPart) -> String {
    let size = |text: &str| text.parse::<u64>().map_or(format!("{text} B"), format_size);
    let blocks = match part.expected_blocks_per_day {
        _ if !part.has_min_power => "; too little to win blocks".to_string(),
        Some(blocks) => format!("; about {} blocks a day", figure(blocks)),
        None => String::new(),
    };
    format!(
        "{} raw, {} quality-adjusted, {} % of the network{blocks}",
        size(&part.raw),
        size(&part.quality_adjusted),
        figure(100.0 * part.share()),
    )
}

/// Two decimals, or of a small number its first three digits: a share of a large network is never shown as none.
fn figure(number: f64) -> String {
    match number {
        0.0 => "0".to_string(),
        small if small < 0.1 => format!("{small:.0$}", (2 - small.log10().floor() as i32).clamp(2, 12) as usize),
        number => format!("{number:.2}"),
    }
}

fn sealing(sectors: &BTreeMap<String, u64>, provider: &ProviderReport) -> String {
    let all: u64 = sectors.values().sum();
    let states: Vec<String> = sectors.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let mut text = count(all, "sector");
    if !states.is_empty() {
        text += &format!(": {}", states.join(", "));
    }
    if let Some(sealing) = &provider.sealing {
        let running: Vec<String> = sealing.running.iter().map(|(task, n)| format!("{n} {task}")).collect();
        if !running.is_empty() {
            text += &format!("; running {} (a restart begins them again)", running.join(", "));
        }
        if sealing.unnumbered > 0 {
            text += &format!("; {} without a number", count(sealing.unnumbered, "pledge"));
        }
    }
    text
}

/// `this node: pc1 0/1, pc2 1/1`, with what waits there.
pub fn one_worker(worker: &Worker) -> String {
    let name = match worker.kind.as_str() {
        "worker" => format!("  worker {}", worker.name),
        "agent" => format!("agent {}", worker.name),
        _ => worker.name.clone(),
    };
    if let Some(error) = &worker.error {
        return format!("{name}: {}", line(error));
    }
    let slot = |(task, Slots { used, all }): (&String, &Slots)| match all {
        0 => format!("{used} {task}"),
        all => format!("{task} {used}/{all}"),
    };
    let mut parts: Vec<String> = worker.slots.iter().map(slot).collect();
    if parts.is_empty() {
        parts.push("idle".to_string());
    }
    if worker.queued > 0 {
        parts.push(format!("{} queued", worker.queued));
    }
    parts.extend(worker.free_disk.map(|bytes| format!("{} of disk free", format_size(bytes))));
    format!("{name}: {}", parts.join(", "))
}

fn markets(market: &MarketReport) -> String {
    let ask = match (&market.ask, &market.ask_error) {
        (Some(ask), _) => format!("asks {} attoFIL per GiB and epoch", ask.price),
        (None, Some(why)) => format!("no ask: {}", line(why)),
        (None, None) => "no ask yet".to_string(),
    };
    format!("up, {}, {ask}; peer {}", count(market.connections, "connection"), market.peer_id)
}

/// Four decimals of an amount in attoFIL.
fn fil(atto: &str) -> String {
    format!("{:.4} FIL", atto.parse::<f64>().unwrap_or_default() / 1e18)
}

/// The miner actor's own money. `None`: the full node told nothing of it.
fn funds(balances: &BTreeMap<String, String>) -> Option<String> {
    let part = |name: &str| balances.get(&format!("miner_{name}"));
    let available = part("available").map(|atto| format!("{} available", fil(atto)));
    let locked = ["pledge", "pre_commit", "vesting"].map(part);
    let sum = || locked.iter().flatten().map(|atto| atto.parse::<f64>().unwrap_or_default()).sum::<f64>();
    let all = locked.iter().all(Option::is_some).then(|| {
        let [pledge, deposits, vesting] = locked.map(|atto| fil(atto.map_or("0", String::as_str)));
        let sum = fil(&sum().to_string());
        format!("{sum} locked ({pledge} pledge, {deposits} pre-commit deposits, {vesting} vesting)")
    });
    let debt = part("fee_debt").map(|atto| match atto.as_str() {
        "0" => "no fee debt".to_string(),
        atto => format!("{} FEE DEBT", fil(atto)),
    });
    let parts: Vec<String> = [available, all, debt].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Worker, owner and control addresses.
fn accounts(balances: &BTreeMap<String, String>) -> String {
    let own = balances.iter().filter(|(account, _)| !account.starts_with("miner_"));
    own.map(|(account, atto)| format!("{account} {}", fil(atto))).collect::<Vec<_>>().join(", ")
}

fn messages(part: &MessagesPart) -> String {
    if part.queued + part.pushed == 0 {
        return "none open".to_string();
    }
    let oldest = part.oldest_epochs.map(|epochs| format!(", the oldest for {}", count(epochs, "epoch")));
    let waits = part.waiting.as_ref().map(|w| format!("; {} waits: {}", w.key, line(&w.why)));
    let (oldest, waits) = (oldest.unwrap_or_default(), waits.unwrap_or_default());
    format!("{} to send, {} sent and not final{oldest}{waits}", part.queued, part.pushed)
}

fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

fn line(text: &str) -> String {
    super::proving::line(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::admin::provider_metrics::example;
    use serde_json::json;

    fn of(value: Value) -> Info {
        serde_json::from_value(value).unwrap()
    }

    fn healthy() -> Value {
        let mut provider = ProviderReport { unavailable: BTreeMap::new(), ..example() };
        let whole = |n: u64| format!("{n}000000000000000000");
        for (name, fil) in [("available", 3), ("total", 10), ("pledge", 4), ("pre_commit", 1), ("vesting", 2)] {
            provider.balances.insert(format!("miner_{name}"), whole(fil));
        }
        provider.balances.insert("miner_fee_debt".into(), "0".into());
        let row = json!({ "index": 7, "open": 1180, "close": 1240, "to_prove": 2, "proven": 1, "of": 48, "batches": [],
            "closes_in_seconds": 1200, "error": null, "state": "open", "current": true });
        json!({
            "miner": "t01000", "sector_size": 2048, "network": "devnet", "version": "0.1.0",
            "full_node": { "node": "http://127.0.0.1:1234" },
            "winning_post": { "last_round": { "round": 39, "base": 38, "nulls": 0, "outcome": { "outcome": "lost" }, "took_ms": 3 } },
            "troubles": [], "restart": { "safe": true, "why": "deadline 8 opens at epoch 60", "seconds": 600 },
            "open_deadline": row, "next_deadline": { "index": 8 }, "next_opens_in_seconds": 600,
            "workers": [
                { "at": "this node", "kind": "node", "name": "this node", "slots": { "pc1": { "used": 1, "all": 2 } } },
                { "at": "a", "kind": "agent", "name": "a", "slots": {}, "queued": 3, "free_disk": 1073741824 },
                { "at": "a", "kind": "worker", "name": "h:7", "slots": { "c2": { "used": 1 } } },
                { "at": "b", "kind": "agent", "name": "b", "error": "no answer\nwithin 3 s" },
            ],
            "market": null,
            "provider": provider,
        })
    }

    #[test]
    fn a_healthy_node_on_one_screen() {
        let expected = "\
t01000 on devnet, 2 KiB sectors, bulkhead 0.1.0

Health         ok
Restart now?   yes, for 10 m 00 s: deadline 8 opens at epoch 60

Chain          epoch 40, 30.0 s old, a block every 30 s; from http://127.0.0.1:1234; 1 of 2 full nodes usable
               10.0.0.1:1234: used
               10.0.0.2:1234: not used: refused
Network        version 28 (FireHorse); next upgrade in 30 m 00 s: Solstice at epoch 100: ready
Proving        5 sectors, 1 FAULTY (0 recovering), 2 of them not sealed here, 3 left out of proofs lately; deadline 7 of 48: 1 of 2 proven, closes in 20 m 00 s; next 8 in 10 m 00 s; lately 9 deadlines met, 1 missed
Blocks         4 won, 3 on chain, 1 lost; round 39: no win drawn
Finality       F3 participating, lease to instance 9
Power          2 KiB raw, 4 KiB quality-adjusted, 25.00 % of the network; about 0.25 blocks a day
Sealing        4 sectors: 2 PreCommit1, 2 Proving; running 2 pc1 (a restart begins them again); 1 pledge without a number
Workers        this node: pc1 1/2
               agent a: idle, 3 queued, 1 GiB of disk free
                 worker h:7: 1 c2
               agent b: no answer within 3 s
Miner funds    3.0000 FIL available, 7.0000 FIL locked (4.0000 FIL pledge, 1.0000 FIL pre-commit deposits, 2.0000 FIL vesting), no fee debt
Balances       worker 1.5000 FIL
Messages       1 to send, 2 sent and not final, the oldest for 5 epochs
";
        assert_eq!(info(&of(healthy()), 100, false), expected);
    }

    #[test]
    fn what_is_wrong_comes_first_and_what_is_not_known_says_why() {
        let mut value = healthy();
        value["troubles"] = json!([{ "what": "the full node is away: refused", "fix": "check it" }]);
        value["restart"] = Value::Null;
        value["provider"] =
            json!({ "unavailable": { "power": "no\nanswer", "deadlines": "refused", "market": "down" } });
        let text = info(&of(value), 100, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2..5], ["Health         1 trouble", "  ! the full node is away: refused", "    check it"]);
        for line in [
            "Restart now?   unknown: the deadlines cannot be read",
            "Power          unknown: no answer",
            "Proving        unknown: refused",
            "Markets        unknown: down",
        ] {
            assert!(lines.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("Sealing"), "a part that nobody runs has no line");
    }

    #[test]
    fn a_fee_debt_stands_out_and_what_is_not_told_is_left_out() {
        let of = |parts: &[(&str, &str)]| {
            funds(&parts.iter().map(|(name, atto)| (name.to_string(), atto.to_string())).collect())
        };
        assert_eq!(of(&[("worker", "1")]), None);
        let half = "500000000000000000";
        assert_eq!(of(&[("miner_available", half)]), Some("0.5000 FIL available".into()));
        let debt = of(&[("miner_available", "0"), ("miner_fee_debt", half), ("miner_pledge", half)]);
        assert_eq!(debt, Some("0.0000 FIL available, 0.5000 FIL FEE DEBT".into()));
    }

    #[test]
    fn the_nodes_of_a_pool_are_shown_one_by_one() {
        let mut value = healthy();
        value["provider"]["chain"]["pool"] = json!([
            { "host": "daemon_01", "used": true, "primary": true, "head": 40, "behind": 0 },
            { "host": "daemon_02", "used": false, "why": "it is 9 epochs behind the best node", "head": 31, "behind": 9 },
            { "host": "daemon_03", "used": true, "why": "0 peers\npass on messages to it" },
        ]);
        let text = info(&of(value.clone()), 100, false);
        for line in [
            "               daemon_01: used, asked first, epoch 40",
            "               daemon_02: not used: it is 9 epochs behind the best node, epoch 31, 9 behind",
            "               daemon_03: used for want of a better one: 0 peers pass on messages to it",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let node = value["provider"]["chain"]["pool"][0].clone();
        value["provider"]["chain"]["pool"] = Value::Array(vec![node.clone(); 64]);
        let many = info(&of(value.clone()), 100, false);
        assert!(many.contains("and 59 more: bulkhead daemons nodes"), "{many}");
        value["provider"]["chain"]["pool"] = json!([node]);
        assert!(!info(&of(value), 100, false).contains("daemon_01"), "one alone");
    }

    #[test]
    fn it_is_one_screen_whatever_there_is() {
        let mut value = healthy();
        value["workers"] = Value::Array(vec![value["workers"][0].clone(); 100]);
        value["troubles"] = Value::Array(vec![json!({ "what": "w", "fix": "f" }); 50]);
        let text = info(&of(value.clone()), 100, false);
        assert!(text.lines().count() <= 40 && text.contains("and 95 more: bulkhead sealing workers"), "{text}");
        assert!(text.contains("50 troubles") && text.contains("and 45 more: --all"), "{text}");
        assert!(info(&of(value), 100, true).lines().count() > 200);
    }

    #[test]
    fn a_small_share_of_a_large_network_is_a_number_too() {
        let whole = |number, text: &str| assert_eq!(figure(number), text);
        whole(0.0, "0");
        whole(25.0, "25.00");
        whole(0.1, "0.10");
        whole(0.03125, "0.0312");
        whole(0.000_012_34, "0.0000123");
        let part = |has_min_power, blocks| {
            power(&PowerPart { has_min_power, expected_blocks_per_day: blocks, ..PowerPart::default() })
        };
        assert!(part(false, Some(0.0)).ends_with("0 % of the network; too little to win blocks"));
        assert!(part(true, None).ends_with("of the network"));
        assert!(part(true, Some(14.4)).ends_with("; about 14.40 blocks a day"));
    }
}
