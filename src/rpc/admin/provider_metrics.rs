//! The provider in Prometheus' text format. A part that is not known has no lines, and `bulkhead_part_unavailable` names it.
//! The number of lines does not grow with sectors, messages or deadlines: at most one for each state, outcome or account.

use super::metrics::{head, label};
use super::provider::ProviderReport;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// `now`: Unix seconds. Ages are taken at the scrape, so that they grow also when nothing comes any more.
pub fn render(report: &ProviderReport, now: u64) -> String {
    let mut out = Families(String::new());
    if report.at > 0 {
        let age = now.saturating_sub(report.at);
        out.one("bulkhead_provider_report_age_seconds", "Since the figures of the provider were put together.", age);
    }
    let unavailable = report.unavailable.keys().map(|part| (part.clone(), 1u64));
    out.each("bulkhead_part_unavailable", "1 for a part whose figures could not be had.", "part", unavailable);
    chain(&mut out, report, now);
    if let Some(network) = &report.network {
        out.one("bulkhead_network_version", "Version of the network at its head.", network.version);
        if let Some(next) = &network.next_upgrade {
            out.one("bulkhead_next_upgrade_epoch", "Epoch of the network's next upgrade.", next.epoch);
            let help = "1 when this provider and its full node are ready for the next upgrade.";
            out.one("bulkhead_next_upgrade_ready", help, u8::from(next.ready));
        }
    }
    if let Some(power) = &report.power {
        let own = [("raw", &power.raw), ("quality_adjusted", &power.quality_adjusted)];
        out.each("bulkhead_power_bytes", "Power of the miner.", "kind", own);
        let all = [("raw", &power.network_raw), ("quality_adjusted", &power.network_quality_adjusted)];
        out.each("bulkhead_network_power_bytes", "Power of the network.", "kind", all);
        out.one("bulkhead_has_min_power", "1 when the miner may win blocks.", u8::from(power.has_min_power));
        if let Some(blocks) = power.expected_blocks_per_day {
            out.one("bulkhead_expected_blocks_per_day", "Blocks that the miner's power wins on average.", blocks);
        }
    }
    let balances = report.balances.iter().map(|(account, atto)| (account, fil(atto)));
    out.each("bulkhead_balance_fil", "FIL of the miner's accounts.", "account", balances);
    proving(&mut out, report);
    if let Some(blocks) = &report.blocks {
        let help = "Blocks that the full node accepted, and those seen on chain, over restarts.";
        let won = [("accepted", blocks.accepted), ("on_chain", blocks.on_chain)];
        out.counter("bulkhead_blocks_won_total", help, "stage", won);
        out.one(
            "bulkhead_blocks_lost",
            "Blocks of the last 900 epochs that were made and are not on chain.",
            blocks.lost,
        );
        out.each("bulkhead_rounds_recent", "The last 50 rounds of WinningPoSt.", "outcome", &blocks.rounds);
    }
    if let Some(f3) = &report.f3 {
        let participates = u8::from(f3.state == "participating");
        out.one("bulkhead_f3_participating", "1 while a lease for fast finality is held.", participates);
        out.one("bulkhead_f3_failures", "Tries for a lease that failed in a row.", f3.failures);
    }
    if let Some(messages) = &report.messages {
        let open = [("queued", messages.queued), ("pushed", messages.pushed)];
        out.each("bulkhead_messages_open", "Messages that are not final on chain.", "state", open);
        if let Some(age) = messages.oldest_epochs {
            out.one("bulkhead_message_oldest_epochs", "Epochs since the oldest signed message was pushed last.", age);
        }
    }
    sealing(&mut out, report);
    out.0
}

fn chain(out: &mut Families, report: &ProviderReport, now: u64) {
    let Some(chain) = &report.chain else { return };
    if let Some(epoch) = chain.epoch {
        out.one("bulkhead_chain_head_epoch", "Epoch of the newest head.", epoch);
    }
    if let Some(at) = chain.head_at {
        let lag = now.saturating_sub(at);
        out.one("bulkhead_chain_head_lag_seconds", "Since the time of the newest head's blocks.", lag);
    }
    if let Some(offset) = chain.clock_offset_ms {
        let help = "Least time from a head's block time to its arrival; negative: this host's clock is behind.";
        out.one("bulkhead_chain_clock_offset_seconds", help, offset as f64 / 1000.0);
    }
    if let Some(delay) = chain.block_delay_secs {
        out.one("bulkhead_chain_block_delay_seconds", "Between two epochs of the network.", delay);
    }
    out.one("bulkhead_chain_subscribed", "1 while the full node pushes its heads.", u8::from(chain.subscribed));
    out.one("bulkhead_full_nodes", "Full nodes that are configured.", chain.full_nodes);
    out.one("bulkhead_full_nodes_usable", "Full nodes that answer, fit the network and are not behind.", chain.usable);
    let used = chain.pool.iter().map(|node| (&node.addr, u8::from(node.used)));
    out.each("bulkhead_full_node_used", "1 while the full node is used.", "node", used);
    let behind = chain.pool.iter().filter_map(|node| Some((&node.addr, node.behind?)));
    out.each("bulkhead_full_node_behind_epochs", "Epochs that the full node is behind the best one.", "node", behind);
    let calls = chain.pool.iter().map(|node| (&node.addr, node.calls));
    out.counter("bulkhead_full_node_calls_total", "Calls to the full node.", "node", calls);
}

fn proving(out: &mut Families, report: &ProviderReport) {
    let Some(proving) = &report.proving else { return };
    let sectors = [("live", proving.live), ("faulty", proving.faulty), ("recovering", proving.recovering)];
    out.each("bulkhead_proving_sectors", "Sectors by the chain's partitions.", "status", sectors);
    if let Some(index) = proving.deadline {
        out.one("bulkhead_deadline_open", "Index of the open deadline.", index);
    }
    if let Some(close) = proving.closes_at {
        out.one("bulkhead_deadline_close_epoch", "Epoch at which the open deadline closes.", close);
    }
    let partitions = [("to_prove", proving.to_prove), ("proven", proving.proven)];
    out.each("bulkhead_deadline_partitions", "Partitions of the open deadline.", "status", partitions);
    let closed = [("met", proving.met), ("missed", proving.missed)];
    let help = "Deadlines that closed in the last 1800 epochs with something to prove.";
    out.each("bulkhead_deadlines_recent", help, "result", closed);
    let help = "Sectors that the window proofs of the last 1800 epochs leave out.";
    out.one("bulkhead_window_post_left_out", help, proving.left_out);
    if let Some(unrecorded) = proving.unrecorded {
        let help = "Live sectors of the chain that this provider has no sealing record of.";
        out.one("bulkhead_sectors_unrecorded", help, unrecorded);
    }
}

fn sealing(out: &mut Families, report: &ProviderReport) {
    if let Some(sectors) = &report.sectors {
        out.each("bulkhead_sectors", "Sectors by the state of their sealing.", "state", sectors);
    }
    let Some(sealing) = &report.sealing else { return };
    out.one("bulkhead_sectors_failing", "Sectors that failed and wait to be tried again.", sealing.failing);
    out.one("bulkhead_pledges_without_number", "Pledges that have no sector number yet.", sealing.unnumbered);
    out.each("bulkhead_sealing_tasks_running", "Sealing tasks under way.", "task", &sealing.running);
    out.one("bulkhead_sealing_tasks_queued", "Sealing tasks that wait at agents.", sealing.queued);
    out.one("bulkhead_agents", "Agents that answer.", sealing.agents);
    out.one("bulkhead_workers", "Worker processes that agents have.", sealing.workers);
}

/// The text so far.
struct Families(String);

impl Families {
    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        head(&mut self.0, name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn each<K: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        of: impl IntoIterator<Item = (K, V)>,
    ) {
        self.family(name, "gauge", help, key, of);
    }

    fn counter<K: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        key: &str,
        of: impl IntoIterator<Item = (K, V)>,
    ) {
        self.family(name, "counter", help, key, of);
    }

    fn family<K: Display, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        key: &str,
        of: impl IntoIterator<Item = (K, V)>,
    ) {
        let mut of = of.into_iter().peekable();
        if of.peek().is_some() {
            head(&mut self.0, name, kind, help);
        }
        for (value, number) in of {
            let _ = writeln!(self.0, "{name}{{{key}=\"{}\"}} {number}", label(&value.to_string()));
        }
    }
}

/// attoFIL as FIL; a gauge is a float, so what is lost at the end is lost there too.
fn fil(atto: &str) -> f64 {
    atto.parse::<f64>().unwrap_or_default() / 1e18
}

fn full_node(addr: &str) -> super::provider::FullNodePart {
    let used = addr == "10.0.0.1:1234";
    let (host, addr, behind) = (addr.to_string(), addr.to_string(), used.then_some(0));
    let why = (!used).then(|| "refused".to_string());
    super::provider::FullNodePart { host, addr, used, why, behind, calls: 7, ..Default::default() }
}

/// A report in which every part is there: for the test that holds the documentation against what is printed.
pub fn example() -> ProviderReport {
    use super::provider::*;
    let counts = |names: &[&str]| names.iter().map(|name| (name.to_string(), 2)).collect::<BTreeMap<String, u64>>();
    ProviderReport {
        at: 90,
        miner: "t01000".into(),
        chain: Some(ChainPart {
            epoch: Some(40),
            head_at: Some(70),
            block_delay_secs: Some(30),
            clock_offset_ms: Some(-1500),
            subscribed: true,
            full_nodes: 2,
            usable: 1,
            pool: ["10.0.0.1:1234", "10.0.0.2:1234"].map(full_node).into(),
        }),
        network: Some(NetworkPart {
            version: 28,
            name: "FireHorse".into(),
            known: true,
            next_upgrade: Some(UpgradePart {
                name: "Solstice".into(),
                epoch: 100,
                seconds: Some(1800),
                ready: true,
                because: vec![],
            }),
        }),
        power: Some(PowerPart {
            raw: "2048".into(),
            quality_adjusted: "4096".into(),
            network_raw: "8192".into(),
            network_quality_adjusted: "16384".into(),
            has_min_power: true,
            expected_blocks_per_day: Some(0.25),
        }),
        balances: [("worker".to_string(), "1500000000000000000".to_string())].into(),
        sectors: Some(counts(&["Proving", "PreCommit1"])),
        sealing: Some(SealingPart {
            failing: 1,
            unnumbered: 1,
            running: counts(&["pc1"]),
            queued: 3,
            agents: 1,
            workers: 2,
        }),
        proving: Some(ProvingPart {
            live: 5,
            faulty: 1,
            recovering: 0,
            deadline: Some(7),
            closes_at: Some(60),
            to_prove: 2,
            proven: 1,
            met: 9,
            missed: 1,
            left_out: 3,
            unrecorded: Some(2),
        }),
        blocks: Some(BlocksPart { accepted: 4, on_chain: 3, lost: 1, rounds: counts(&["lost", "won"]) }),
        f3: Some(F3Part { state: "participating".into(), lease_to: Some(9), instance: Some(7), ..F3Part::default() }),
        messages: Some(MessagesPart { queued: 1, pushed: 2, oldest_epochs: Some(5), waiting: None }),
        unavailable: [("balances".to_string(), "no answer".to_string())].into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_line() {
        let text = render(&example(), 100);
        for line in [
            "bulkhead_provider_report_age_seconds 10",
            "bulkhead_part_unavailable{part=\"balances\"} 1",
            "bulkhead_chain_head_epoch 40",
            "bulkhead_chain_head_lag_seconds 30",
            "bulkhead_chain_clock_offset_seconds -1.5",
            "bulkhead_full_nodes_usable 1",
            "bulkhead_full_node_used{node=\"10.0.0.1:1234\"} 1",
            "bulkhead_full_node_used{node=\"10.0.0.2:1234\"} 0",
            "bulkhead_full_node_behind_epochs{node=\"10.0.0.1:1234\"} 0",
            "bulkhead_full_node_calls_total{node=\"10.0.0.2:1234\"} 7",
            "bulkhead_network_version 28",
            "bulkhead_next_upgrade_epoch 100",
            "bulkhead_next_upgrade_ready 1",
            "bulkhead_power_bytes{kind=\"quality_adjusted\"} 4096",
            "bulkhead_network_power_bytes{kind=\"raw\"} 8192",
            "bulkhead_expected_blocks_per_day 0.25",
            "bulkhead_balance_fil{account=\"worker\"} 1.5",
            "bulkhead_proving_sectors{status=\"faulty\"} 1",
            "bulkhead_deadline_open 7",
            "bulkhead_deadline_partitions{status=\"proven\"} 1",
            "bulkhead_deadlines_recent{result=\"missed\"} 1",
            "bulkhead_window_post_left_out 3",
            "bulkhead_sectors_unrecorded 2",
            "# TYPE bulkhead_blocks_won_total counter",
            "bulkhead_blocks_won_total{stage=\"on_chain\"} 3",
            "bulkhead_blocks_lost 1",
            "bulkhead_rounds_recent{outcome=\"won\"} 2",
            "bulkhead_f3_participating 1",
            "bulkhead_f3_failures 0",
            "bulkhead_messages_open{state=\"pushed\"} 2",
            "bulkhead_message_oldest_epochs 5",
            "bulkhead_sectors{state=\"Proving\"} 2",
            "bulkhead_sealing_tasks_running{task=\"pc1\"} 2",
            "bulkhead_workers 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let names: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let distinct: std::collections::BTreeSet<&&str> = names.iter().collect();
        assert_eq!(names.len(), distinct.len(), "a family stands once");
    }

    #[test]
    fn what_is_not_known_has_no_line_and_no_heading() {
        assert_eq!(render(&ProviderReport::default(), 100), "");
    }

    /// A scrape of a large provider costs what one of a small provider costs.
    #[test]
    fn the_size_does_not_grow_with_the_numbers() {
        let mut large = example();
        large.sectors.as_mut().unwrap().values_mut().for_each(|n| *n = 1_000_000);
        large.messages.as_mut().unwrap().pushed = 1_000_000;
        assert_eq!(render(&large, 100).lines().count(), render(&example(), 100).lines().count());
    }
}
