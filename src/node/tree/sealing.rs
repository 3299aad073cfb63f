//! `sealing`: sector numbers, and the sectors that this node seals.

use super::{Children, MINUTE, Parts};
use crate::actors::seal_scheduler::{SealDeps, SealScheduler};
use crate::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use crate::actors::sector_files::SectorDirs;
use crate::node::concern::Concern;
use crate::proofs::FencedProver;
use crate::supervisor::{ChildSpec, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    SupervisorSpec::new("sealing").intensity(20, MINUTE * 15).children([allocator(parts), scheduler(parts)])
}

fn allocator(parts: &Parts) -> Option<ChildSpec> {
    let (node, miner) = (parts.links.sealing.clone(), parts.miner);
    let settings = AllocatorSettings { begin_after: parts.begin_after, ..AllocatorSettings::default() };
    let child = parts.seated(Concern::Allocator, &parts.refs.allocator, move |cx, store| {
        let deps = AllocatorDeps { node: node.clone(), store, miner, settings: settings.clone() };
        async move { SectorAllocator::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated))
}

fn scheduler(parts: &Parts) -> Option<ChildSpec> {
    let (node, prover, miner) = (parts.links.sealing.clone(), parts.prover.clone(), parts.miner);
    let (refs, live, heads) = (parts.refs.clone(), parts.live(), parts.heads.others.clone());
    let (dirs, agents) = (SectorDirs::of_repo(&parts.settings.repo, parts.miner_id()), parts.settings.agents.clone());
    let child = parts.seated(Concern::SealScheduler, &parts.refs.sealing, move |cx, store| {
        cx.join(&heads);
        let deps = SealDeps {
            node: node.clone(),
            prover: FencedProver::shared(&prover, cx.pass()),
            store,
            messages: refs.messages.clone(),
            allocator: refs.allocator.clone(),
            miner,
            settings: live.load().sealing.clone(),
            dirs: dirs.clone(),
            agents: agents.clone(),
        };
        async move { SealScheduler::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated))
}
