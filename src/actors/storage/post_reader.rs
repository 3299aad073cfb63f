//! Reads challenged sectors wherever their files are: from this node's disks, and through the storages of other nodes,
//! which send what the challenges read, small. A node that is slow or gone costs its own sectors only.

use super::index::{Location, SectorIndex, StorageNode};
use super::local_reader::LocalReader;
use super::messages::{Challenged, Vanilla, VanillaAnswer};
use crate::actors::sector_reads::{Answers, ReadRequest, SectorRead, SectorReader, WantedSector};
use crate::proofs::ActorId;
use crate::util::Backoff;
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::join_all;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions for the same sectors; doubles while the node does not answer.
const ASK_AGAIN: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(5));
/// Challenged places in one question: an answer must fit a message, and a place of a 32 GiB sector takes about 2.5 KB.
const PLACES: usize = 160;
/// Questions to one node at a time.
const AT_ONCE: usize = 8;

pub struct PostReader {
    pub local: LocalReader,
    pub index: SectorIndex,
}

#[async_trait]
impl SectorReader for PostReader {
    async fn read(&self, request: ReadRequest, answers: &Answers) {
        let numbers: Vec<u64> = request.sectors.iter().map(|s| s.number).collect();
        let homes = self.index.find(&self.local, &numbers).await;
        self.read_at(homes, request, answers).await;
    }
}

impl PostReader {
    /// As [`SectorReader::read`], once the sectors' homes are known.
    pub(super) async fn read_at(&self, homes: BTreeMap<u64, Location>, request: ReadRequest, answers: &Answers) {
        let ReadRequest { miner, proof_type, sectors, until } = request;
        let mut here = Vec::new();
        let mut remote: BTreeMap<String, (StorageNode, Vec<WantedSector>)> = BTreeMap::new();
        for sector in sectors {
            let tell = |read| drop(answers.send((sector.number, read)));
            match homes.get(&sector.number) {
                Some(Location::Here) => here.push(sector),
                Some(Location::Node(node)) => {
                    remote.entry(node.name.clone()).or_insert_with(|| (node.clone(), Vec::new())).1.push(sector);
                }
                Some(Location::Unknown(why)) => tell(SectorRead::Late(why.clone())),
                None => tell(SectorRead::Late("it was not looked for".to_string())),
            }
        }
        let question = Question { miner, proof_type, until };
        let theirs = join_all(remote.into_values().map(|(node, sectors)| self.ask(node, sectors, question, answers)));
        let ours = async {
            if !here.is_empty() {
                self.local.read(ReadRequest { miner, proof_type, sectors: here, until }, answers).await;
            }
        };
        futures::join!(ours, theirs);
    }

    /// Asks one node for all of its sectors; those that it does not send before `until` are late.
    async fn ask(&self, node: StorageNode, sectors: Vec<WantedSector>, question: Question, answers: &Answers) {
        let places = sectors.iter().map(|sector| sector.places.len()).max().unwrap_or(1).max(1);
        let node = &node;
        let batches = sectors.chunks((PLACES / places).max(1)).map(|batch| async move {
            let numbers: Vec<u64> = batch.iter().map(|sector| sector.number).collect();
            let read = tokio::time::timeout_at(question.until, ask_until_ready(node, question, batch)).await;
            let mut read: HashMap<u64, Result<Vec<u8>, String>> = read.unwrap_or_default().into_iter().collect();
            for number in numbers {
                let answer = match read.remove(&number) {
                    Some(Ok(proof)) => SectorRead::Proof(proof),
                    Some(Err(why)) => SectorRead::Unreadable(format!("{why} (at {})", node.name)),
                    None => SectorRead::Late(format!("the storage of {} did not send it in time", node.name)),
                };
                if !matches!(answer, SectorRead::Proof(_)) {
                    self.index.forget(number);
                }
                drop(answers.send((number, answer)));
            }
        });
        futures::stream::iter(batches.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }
}

#[derive(Clone, Copy)]
struct Question {
    miner: ActorId,
    proof_type: i64,
    until: Instant,
}

/// Asks again until the answer is ready; the caller sets the limit.
async fn ask_until_ready(
    node: &StorageNode,
    question: Question,
    batch: &[WantedSector],
) -> Vec<(u64, Result<Vec<u8>, String>)> {
    let challenged = |sector: &WantedSector| {
        let WantedSector { number, comm_r, places } = sector.clone();
        Challenged { number, comm_r, places }
    };
    let Question { miner, proof_type, .. } = question;
    let ask = Vanilla { miner, proof_type, sectors: batch.iter().map(challenged).collect() };
    let mut delay = ASK_AGAIN.first;
    let mut told = false;
    loop {
        match node.storage.ask(ask.clone(), ASK_TIMEOUT).await {
            Ok(VanillaAnswer::Ready(answers)) => return answers,
            Ok(VanillaAnswer::NotYet) => delay = ASK_AGAIN.first,
            Err(e) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(node = node.name, "its storage: {e}; asking again");
                }
                delay = ASK_AGAIN.next(delay);
            }
        }
        tokio::time::sleep(delay).await;
    }
}
