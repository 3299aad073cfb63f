//! Which of the methods that a provider uses a full node has, and what is done without each.
//!
//! A method is probed by a call without parameters: a node that has it complains of their number, one that lacks it says
//! so. None of them changes anything without parameters. `ChainNotify` is not probed: it exists on WebSockets only, and
//! the head feed says whether it is subscribed.

use super::node_client::{HttpFullNode, Missing};
use super::{FullNodeError, Result};
use crate::util::lock;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const NO_MESSAGES: &str = "no message can be sent";
const NO_WINDOW_POST: &str = "WindowPoSt stops";
const NO_SEALING: &str = "sealing stops";
const NO_PLEDGE: &str =
    "asked of the method for the network's other versions, else nothing is sent along with a proof of replication";
const NO_FINALITY: &str = "the miner's power takes no part in fast finality (F3)";
const NO_BLOCKS: &str = "no block can be made";

/// Everything that the provider asks for, with the consequence.
const USED: &[(&str, &str)] = &[
    ("Filecoin.Version", "StateGetNetworkParams must tell the block delay"),
    ("Filecoin.ChainHead", "the chain cannot be followed"),
    ("Filecoin.ChainGetTipSet", "gaps in the head feed stay open"),
    ("Filecoin.ChainReadObj", "StateMinerAllocated cannot be replaced"),
    ("Filecoin.StateNetworkName", "StateGetNetworkParams must tell the name"),
    ("Filecoin.StateNetworkVersion", "init and sealing stop: proof types follow from the network's version"),
    (
        "Filecoin.StateGetNetworkParams",
        "name and block delay come from other calls; seeds wait: the challenge delay is unknown",
    ),
    ("Filecoin.StateGetActor", NO_MESSAGES),
    ("Filecoin.StateLookupID", "init cannot resolve the miner's address"),
    ("Filecoin.StateAccountKey", NO_MESSAGES),
    ("Filecoin.StateReadState", "StateMinerAllocated cannot be replaced, info shows no pledge and no fee debt"),
    ("Filecoin.StateMinerInfo", "nothing works: the worker and the proof types are unknown"),
    ("Filecoin.StateMinerPower", "info shows no power"),
    ("Filecoin.StateMinerAvailableBalance", "info shows no balance, and none is used for deposits"),
    ("Filecoin.StateMinerProvingDeadline", NO_WINDOW_POST),
    ("Filecoin.StateMinerDeadlines", NO_WINDOW_POST),
    ("Filecoin.StateMinerPartitions", NO_WINDOW_POST),
    ("Filecoin.StateMinerSectors", NO_WINDOW_POST),
    ("Filecoin.StateMinerAllocated", "read from the miner's state (StateReadState, ChainReadObj)"),
    ("Filecoin.StateMinerCreationDeposit", "init sends no deposit with CreateMiner"),
    ("Filecoin.StateMinerPreCommitDepositForPower", "nothing is sent along: the miner's own balance must cover it"),
    ("Filecoin.StateMinerInitialPledgeCollateral", NO_PLEDGE),
    ("Filecoin.StateMinerInitialPledgeForSector", NO_PLEDGE),
    ("Filecoin.StateSectorPreCommitInfo", NO_SEALING),
    ("Filecoin.StateSectorGetInfo", NO_SEALING),
    ("Filecoin.StateGetRandomnessFromTickets", NO_SEALING),
    ("Filecoin.StateGetRandomnessFromBeacon", NO_WINDOW_POST),
    ("Filecoin.StateSearchMsg", "no message's receipt can be found"),
    ("Filecoin.MpoolGetNonce", "the nonce is taken from the actor's state and the pending messages"),
    ("Filecoin.MpoolPush", NO_MESSAGES),
    ("Filecoin.MpoolPending", "no loss, unless MpoolGetNonce is missing too: then no message is sent"),
    ("Filecoin.MpoolSelect", "blocks go without messages"),
    ("Filecoin.GasEstimateMessageGas", NO_MESSAGES),
    ("Filecoin.WalletHas", "a wallet without the key is noticed when it is to sign"),
    ("Filecoin.WalletDefaultAddress", "init needs --owner"),
    ("Filecoin.WalletSign", NO_BLOCKS),
    ("Filecoin.WalletSignMessage", NO_MESSAGES),
    ("Filecoin.MinerGetBaseInfo", NO_BLOCKS),
    ("Filecoin.MinerCreateBlock", NO_BLOCKS),
    ("Filecoin.SyncSubmitBlock", NO_BLOCKS),
    ("Filecoin.F3GetOrRenewParticipationTicket", NO_FINALITY),
    ("Filecoin.F3Participate", NO_FINALITY),
    ("Filecoin.F3GetManifest", NO_FINALITY),
    ("Filecoin.F3GetProgress", NO_FINALITY),
];

const AT_ONCE: usize = 4;

async fn has(node: &HttpFullNode, method: &'static str) -> Result<bool> {
    match node.call::<serde::de::IgnoredAny>(method, Ok(Vec::new())).await {
        Err(e) if e.is_missing_method() => Ok(false),
        Err(e) if e.is_transient() => Err(e),
        Ok(_) | Err(_) => Ok(true),
    }
}

/// A node's methods change when it is replaced by another version, or when the network's version does.
const PROBE_EVERY: Duration = Duration::from_secs(600);
/// A known answer is told for as long while a new probe is under way.
const KEPT_FOR: Duration = Duration::from_secs(1200);

type Found = Result<Vec<Missing>>;

/// The methods that a node was last found to lack. One probe runs at a time, and no caller that gives up cuts it short: the next one
/// finds its result.
#[derive(Clone, Default)]
pub(super) struct Probes(Arc<Mutex<Probed>>);

#[derive(Default)]
struct Probed {
    known: Option<(Instant, Vec<Missing>)>,
    /// The probe under way; without a sender, it was ended with its runtime.
    running: Option<watch::Receiver<Option<Found>>>,
}

impl Probes {
    pub async fn missing(&self, node: &HttpFullNode) -> Found {
        let (known, mut found) = {
            let mut probed = lock(&self.0);
            let known = probed.known.clone();
            if let Some((at, missing)) = &known
                && at.elapsed() < PROBE_EVERY
            {
                return Ok(missing.clone());
            }
            let running = probed.running.clone().filter(|found| found.has_changed().is_ok());
            let found = running.unwrap_or_else(|| self.begin(node, known.clone()));
            probed.running = Some(found.clone());
            (known, found)
        };
        if let Some((_, missing)) = known.filter(|(at, _)| at.elapsed() < KEPT_FOR) {
            return Ok(missing);
        }
        let found = found.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| {
            let why = "the question which methods it has was cut short".to_string();
            Err(FullNodeError::Unreachable { node: super::FullNode::name(node), why })
        })
    }

    fn begin(&self, node: &HttpFullNode, known: Option<(Instant, Vec<Missing>)>) -> watch::Receiver<Option<Found>> {
        let (tell, found) = watch::channel(None);
        let (probes, node) = (self.clone(), node.clone());
        let before = known.map(|(_, missing)| missing).unwrap_or_default();
        tokio::spawn(async move {
            let found = probe(&node, &before).await;
            let mut probed = lock(&probes.0);
            probed.running = None;
            if let Ok(missing) = &found {
                probed.known = Some((Instant::now(), missing.clone()));
            }
            drop(probed);
            drop(tell.send(Some(found)));
        });
        found
    }
}

/// Asks for each method. A node that does not answer gives no result at all: it is asked again another time. `before`: what
/// it lacked when it was last asked, which is not logged again.
async fn probe(node: &HttpFullNode, before: &[Missing]) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    for some in USED.chunks(AT_ONCE) {
        let asked = futures::future::try_join_all(some.iter().map(|&(method, _)| has(node, method))).await?;
        let lacking = some.iter().zip(asked).filter(|(_, has)| !has);
        missing.extend(
            lacking.map(|(&(method, instead), _)| Missing { method: method.trim_start_matches("Filecoin."), instead }),
        );
    }
    for Missing { method, instead } in missing.iter().filter(|missing| !before.contains(missing)) {
        tracing::warn!(node = super::FullNode::name(node), method, "the full node lacks a method: {instead}");
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::USED;

    #[test]
    fn every_method_is_listed_once_and_none_acts_without_parameters() {
        for (i, (method, instead)) in USED.iter().enumerate() {
            assert!(method.starts_with("Filecoin.") && !instead.is_empty(), "{method}");
            assert!(!USED[..i].iter().any(|(other, _)| other == method), "{method} twice");
            assert!(
                !["WalletNew", "MpoolPushMessage", "Shutdown"].iter().any(|acts| method.ends_with(acts)),
                "{method}"
            );
        }
    }
}
