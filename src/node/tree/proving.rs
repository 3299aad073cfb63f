//! `proving`: WindowPoSt and WinningPoSt, each on a thread of its own.

use super::{Children, MINUTE, Parts};
use crate::actors::sector_files::SectorDirs;
use crate::actors::window_post::{WindowPost, WindowPostDeps};
use crate::actors::winning_post::settings::SystemClock;
use crate::actors::winning_post::{WinningPost, WinningPostDeps};
use crate::node::concern::Concern;
use crate::proofs::FencedProver;
use crate::supervisor::{ChildSpec, Shutdown, SupervisorSpec, Thread};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    let files = Arc::new(SectorDirs::of_repo(&parts.settings.repo, parts.miner_id()));
    SupervisorSpec::new("proving")
        .intensity(10, MINUTE * 5)
        .children([window_post(parts, files.clone()), winning_post(parts, files)])
}

fn window_post(parts: &Parts, files: Arc<SectorDirs>) -> Option<ChildSpec> {
    let deps = WindowPostDeps {
        miner: parts.miner,
        node: parts.links.proving.clone(),
        prover: parts.prover.clone(),
        files,
        outbox: Arc::new(parts.refs.messages.clone()),
        store: parts.store.clone(),
        jobs: Some(parts.settings.repo.join("jobs")),
        settings: parts.settings.window_post.clone(),
    };
    let child = parts.seated(Concern::WindowPost, &parts.refs.window_post, move |cx, store| {
        let prover = FencedProver::shared(&deps.prover, cx.pass());
        let deps = WindowPostDeps { prover, store, ..deps.clone() };
        async move { WindowPost::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated).shutdown(Shutdown::Timeout(Duration::from_secs(30))))
}

fn winning_post(parts: &Parts, files: Arc<SectorDirs>) -> Option<ChildSpec> {
    let deps = WinningPostDeps {
        miner: parts.miner,
        node: parts.links.proving.clone(),
        prover: parts.prover.clone(),
        files,
        store: parts.store.clone(),
        clock: Arc::new(SystemClock),
        settings: parts.settings.winning_post.clone(),
    };
    let child = parts.seated(Concern::WinningPost, &parts.refs.winning_post, move |cx, store| {
        let prover = FencedProver::shared(&deps.prover, cx.pass());
        let deps = WinningPostDeps { prover, store, ..deps.clone() };
        async move { WinningPost::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated))
}
