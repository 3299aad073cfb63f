//! Which agent gets a new sector: pure.

use crate::actors::seal_agent::disk;
use crate::actors::seal_agent::messages::AgentReport;
use crate::proofs::ActorId;

/// An agent that the directory names, and what it says of itself.
#[derive(Clone, Debug)]
pub struct AgentLoad {
    pub name: String,
    pub drained: bool,
    pub report: Result<AgentReport, String>,
}

/// The least busy of those that can take it: sectors in hand for each slot, then free disk, then name. Else why not.
pub fn choose(offers: &[AgentLoad], miner: ActorId, sector_size: u64) -> Result<String, String> {
    if offers.is_empty() {
        return Err("can not found any server: no agent is registered; start one with `bulkhead agent`".into());
    }
    let mut why = Vec::new();
    let mut able: Vec<(&AgentLoad, &AgentReport)> = Vec::new();
    for offer in offers {
        match unfit(offer, miner, sector_size) {
            Ok(report) => able.push((offer, report)),
            Err(reason) => why.push(format!("{} {reason}", offer.name)),
        }
    }
    // Fractions compared crosswise: a.sectors / a.slots < b.sectors / b.slots.
    able.sort_by(|(a, x), (b, y)| {
        let busy = (x.sectors * y.slots).cmp(&(y.sectors * x.slots));
        busy.then(y.free_disk.cmp(&x.free_disk)).then(a.name.cmp(&b.name))
    });
    match able.first() {
        Some((offer, _)) => Ok(offer.name.clone()),
        None => Err(format!("can not found any server: {}", why.join("; "))),
    }
}

fn unfit(offer: &AgentLoad, miner: ActorId, sector_size: u64) -> Result<&AgentReport, String> {
    if offer.drained {
        return Err("is drained".into());
    }
    let report = offer.report.as_ref().map_err(|e| format!("does not answer: {e}"))?;
    let need = disk(sector_size);
    match report {
        r if r.miner.is_some_and(|m| m != miner) => Err(format!("works for miner t0{}", r.miner.unwrap_or_default())),
        r if r.sector_size.is_some_and(|s| s != sector_size) => {
            Err(format!("has sectors of {} bytes", r.sector_size.unwrap_or_default()))
        }
        r if r.slots == 0 => Err("has no worker, and does not work itself".into()),
        r if r.free_disk < need => Err(format!("has {} bytes of free disk, a sector needs {need}", r.free_disk)),
        r => Ok(r),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: u64 = 2048 * 15;

    fn agent(name: &str, sectors: u64, slots: u64) -> AgentLoad {
        let report = AgentReport { sectors, slots, free_disk: DISK, ..AgentReport::default() };
        AgentLoad { name: name.into(), drained: false, report: Ok(report) }
    }
    fn with(mut offer: AgentLoad, change: impl FnOnce(&mut AgentReport)) -> AgentLoad {
        offer.report.as_mut().map(change).unwrap();
        offer
    }

    #[test]
    fn the_least_busy_for_its_size() {
        let choice = |offers: &[AgentLoad]| choose(offers, 1000, 2048).unwrap();
        assert_eq!(choice(&[agent("b", 0, 1), agent("a", 0, 1)]), "a", "equal: by name");
        assert_eq!(choice(&[agent("a", 1, 1), agent("b", 3, 4)]), "b");
        assert_eq!(choice(&[agent("a", 1, 1), agent("b", 4, 4)]), "a");
        assert_eq!(choice(&[agent("a", 1, 1), agent("b", 5, 4)]), "a");
        assert_eq!(choice(&[agent("a", 1, 1), with(agent("b", 4, 4), |r| r.free_disk += 1)]), "b", "then by disk");
    }

    #[test]
    fn each_reason_not_to_take_it_is_named() {
        for (offer, part) in [
            (AgentLoad { drained: true, ..agent("a", 0, 1) }, "a is drained"),
            (AgentLoad { report: Err("no answer".into()), ..agent("a", 0, 1) }, "does not answer: no answer"),
            (with(agent("a", 0, 1), |r| r.miner = Some(1001)), "works for miner t01001"),
            (with(agent("a", 0, 1), |r| r.sector_size = Some(2049)), "2049 bytes"),
            (agent("a", 0, 0), "no worker"),
            (with(agent("a", 0, 1), |r| r.free_disk = DISK - 1), "free disk"),
        ] {
            let why = choose(std::slice::from_ref(&offer), 1000, 2048).unwrap_err();
            assert!(why.starts_with("can not found any server: ") && why.contains(part), "{why}");
            assert_eq!(choose(&[offer, agent("b", 9, 1)], 1000, 2048).unwrap(), "b");
        }
        let same = with(agent("a", 0, 1), |r| (r.miner, r.sector_size) = (Some(1000), Some(2048)));
        assert_eq!(choose(&[same], 1000, 2048).unwrap(), "a");
        assert!(choose(&[], 1000, 2048).unwrap_err().starts_with("can not found any server"));
    }
}
