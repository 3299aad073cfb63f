//! A sector in each phase while the devnet's chain migrates its actors from v18 to v19; the prover is scripted.

use crate::support::devnet::{GOOD, Net, settings};
use crate::support::world::Outside;
use bulkhead::actors::message_sender::{Engine, NodeWallet, SenderSettings};
use bulkhead::actors::seal_scheduler::{NumberSource, Phase, allocation_key};
use bulkhead::devnet::DevnetSettings;
use bulkhead::proofs::Output;
use bulkhead::rpc::full_node::FullNode;
use std::collections::BTreeMap;
use std::sync::Arc;

/// FULL_QA_POWER of `SectorOnChainInfo`'s flags.
const FULL_QA_POWER: u64 = 2;

/// Seals one sector, one action a block. Gives the phase at each height, and whether the sector counts ten-fold.
async fn seal(upgrade_epoch: i64) -> (BTreeMap<i64, Phase>, bool) {
    let net = Net::start_with(DevnetSettings { upgrade_epoch, ..settings() }).await;
    let node: Arc<dyn FullNode> = net.devnet.clone();
    let mut o = Outside::new();
    o.settings.expiration = 400;
    o.prover.then("C2", Ok(Output::Proof(GOOD.to_vec())));
    o.prover.then("VerifySeal", Ok(Output::Verified(true)));
    let mut w = o.boot();
    let engine = Arc::new(Engine {
        scope: w.engine.scope.clone(),
        miner: w.engine.miner,
        node: node.clone(),
        wallet: Arc::new(NodeWallet(node.clone())),
        store: w.engine.store.clone(),
        token: w.engine.token.clone(),
        fence: None,
        settings: SenderSettings { rules: w.engine.settings.rules, ..SenderSettings::default() },
        memory: Arc::default(),
    });
    (w.effects.node, w.effects.outbox, w.effects.settings.ticket_lookback) = (node, engine.clone(), 2);
    w.driver.pledge("first", o.now).unwrap();
    let number = NumberSource::allocate(&w.book, &allocation_key(None, "first")).await.unwrap();
    w.driver.numbered("first", number, o.now).unwrap();
    let mut phases = BTreeMap::new();
    for _ in 0..150 {
        let head = net.devnet.chain_head().await.unwrap();
        let phase = w.phase(number).unwrap();
        phases.insert(head.height, phase);
        let crossed = head.height > upgrade_epoch || upgrade_epoch == NEVER;
        if phase == Phase::Proving && crossed {
            let sector = net.devnet.state_sector_get_info(&net.miner, number, &head.key()).await.unwrap().unwrap();
            return (phases, sector.flags & FULL_QA_POWER != 0);
        }
        if let Some(run) = w.driver.due(o.now, Some(head.height)).pop() {
            let event = w.effects.run(&run, Some(&head)).await;
            w.driver.done(number, run.run, event, o.now).unwrap();
        }
        engine.round(&head).await.unwrap();
        net.step().await;
        o.now += 1000;
    }
    panic!("upgrade at {upgrade_epoch}: {:#?}", w.sector(number));
}

const NEVER: i64 = 100_000;

#[tokio::test]
async fn a_sector_reaches_proving_over_the_migration_in_every_phase() {
    let (phases, _) = seal(NEVER).await;
    use Phase::*;
    for (phase, ten_fold) in [
        (PreCommit1, true),
        (PreCommitting, true),
        (PreCommitWait, true),
        (WaitSeed, true),
        (Commit2, true),
        (SubmitCommit, true),
        // Executed in the epoch after it was sent, which is the last one of version 28.
        (CommitWait, false),
        (FinalizeSector, false),
        (Proving, false),
    ] {
        let (height, _) = phases.iter().find(|(_, at)| **at == phase).unwrap_or_else(|| panic!("{phase}: {phases:?}"));
        let (crossing, counts) = seal(*height).await;
        assert_eq!(crossing[height], phase, "{crossing:?}");
        assert_eq!(counts, ten_fold, "{phase} at the upgrade: {crossing:?}");
    }
}
