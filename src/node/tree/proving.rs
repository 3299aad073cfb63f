//! `proving`: WindowPoSt and WinningPoSt, each on a thread of its own.

use super::parts::{Children, MINUTE, Parts};
use crate::actors::path_checks::PathChecks;
use crate::actors::sector_files::{SectorDirs, SectorFiles};
use crate::actors::storage::{LocalReader, PostReader, RemoteSectorProver, SectorIndex};
use crate::actors::window_post::{WindowPost, WindowPostDeps};
use crate::actors::winning_post::settings::SystemClock;
use crate::actors::winning_post::{WinningPost, WinningPostDeps};
use crate::node::concern::Concern;
use crate::proofs::{FencedProver, Prover};
use crate::supervisor::{ChildSpec, Shutdown, SupervisorSpec, Thread};
use std::sync::Arc;
use std::time::Duration;

/// For the handler in hand and its write to the disk. One that is stuck is not waited for any longer: a kill loses nothing.
const STOP_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn group(parts: &Parts) -> SupervisorSpec {
    // Sectors whose files are on other nodes are proven from what their storages read.
    let files: Arc<dyn SectorFiles> = Arc::new(SectorDirs::of_repo(&parts.settings.repo, parts.miner_id()));
    let local = LocalReader::new(files.clone(), parts.prover.clone(), PathChecks::of_process());
    let index = SectorIndex::new(parts.miner_id(), parts.settings.storages.clone());
    let reader = Arc::new(PostReader { local, index });
    let prover: Arc<dyn Prover> = Arc::new(RemoteSectorProver { inner: parts.prover.clone(), reader: reader.clone() });
    SupervisorSpec::new("proving")
        .intensity(10, MINUTE * 5)
        .children([window_post(parts, reader), winning_post(parts, files, prover)])
}

fn window_post(parts: &Parts, reader: Arc<PostReader>) -> Option<ChildSpec> {
    let deps = WindowPostDeps {
        miner: parts.miner,
        node: parts.links.proving.clone(),
        prover: parts.prover.clone(),
        reader,
        outbox: Arc::new(parts.refs.messages.clone()),
        store: parts.store.clone(),
        jobs: Some(parts.settings.repo.join("jobs")),
        settings: parts.settings.window_post.clone(),
    };
    let (live, heads) = (parts.live(), parts.heads.proving.clone());
    let child = parts.leased_child(Concern::WindowPost, &parts.refs.window_post, move |cx, store| {
        cx.join(&heads);
        let prover = FencedProver::shared(&deps.prover, cx.pass());
        let settings = live.load().window_post.clone();
        let deps = WindowPostDeps { prover, store, settings, ..deps.clone() };
        async move { WindowPost::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated).shutdown(Shutdown::Timeout(STOP_WITHIN)))
}

fn winning_post(parts: &Parts, files: Arc<dyn SectorFiles>, prover: Arc<dyn Prover>) -> Option<ChildSpec> {
    let deps = WinningPostDeps {
        miner: parts.miner,
        node: parts.links.proving.clone(),
        prover,
        files,
        store: parts.store.clone(),
        clock: Arc::new(SystemClock),
        settings: parts.settings.winning_post.clone(),
    };
    let heads = parts.heads.proving.clone();
    let child = parts.leased_child(Concern::WinningPost, &parts.refs.winning_post, move |cx, store| {
        cx.join(&heads);
        let prover = FencedProver::shared(&deps.prover, cx.pass());
        let deps = WinningPostDeps { prover, store, ..deps.clone() };
        async move { WinningPost::start(cx, deps).await }
    });
    child.map(|child| child.on(Thread::Dedicated))
}
