//! `sealing`: sector numbers, and the sectors that this node seals.

use super::parts::{Children, HELD_DOWN_RETRY, MINUTE, Parts, holding_down};
use crate::actors::seal_scheduler::{SealDeps, SealScheduler};
use crate::actors::sector_allocator::{AllocatorDeps, AllocatorSettings, SectorAllocator};
use crate::actors::sector_files::SectorDirs;
use crate::node::concern::Concern;
use crate::node::first_number::first_deployment;
use crate::proofs::FencedProver;
use crate::supervisor::{ChildSpec, StartError, SupervisorSpec, Thread};

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let children = [allocator(parts), scheduler(parts)].map(|child| child.map(ChildSpec::may_start_later));
    holding_down("sealing", 20, MINUTE * 15, HELD_DOWN_RETRY).children(children)
}

fn allocator(parts: &Parts) -> Option<ChildSpec> {
    let (node, miner, repo) = (parts.links.sealing.clone(), parts.miner, parts.settings.repo.clone());
    let child = parts.leased_child(Concern::Allocator, &parts.refs.allocator, move |cx, store| {
        let (node, begin_after) = (node.clone(), first_deployment(&repo));
        async move {
            let begin_after = begin_after.map_err(|e| StartError(e.to_string()))?;
            let settings = AllocatorSettings { begin_after, ..AllocatorSettings::default() };
            SectorAllocator::start(cx, AllocatorDeps { node, store, miner, settings }).await
        }
    });
    child.map(|child| child.on(Thread::Dedicated))
}

fn scheduler(parts: &Parts) -> Option<ChildSpec> {
    let (node, prover, miner) = (parts.links.sealing.clone(), parts.prover.clone(), parts.miner);
    let (refs, live, heads) = (parts.refs.clone(), parts.live(), parts.heads.others.clone());
    let (dirs, agents) = (SectorDirs::of_repo(&parts.settings.repo, parts.miner_id()), parts.settings.agents.clone());
    let child = parts.leased_child(Concern::SealScheduler, &parts.refs.sealing, move |cx, store| {
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
