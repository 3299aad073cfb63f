//! The reading of a batch: every sector is asked for, those that are late again and again while there is time; what was
//! read is kept over the attempts of its window.

use crate::actors::sector_reads::{Answers, ReadRequest, SectorRead, SectorReader};
use crate::chain::ChainEpoch;
use crate::proofs::Bytes32;
use crate::util::Backoff;
use crate::util::lock;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Before what is late is asked for again; doubles.
const PAUSES: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(10));

/// Vanilla proofs of open windows, in memory: about 25 KB for each sector of 32 GiB.
#[derive(Default)]
pub struct KeptReads {
    /// By Close.
    windows: Mutex<BTreeMap<ChainEpoch, BTreeMap<u64, KeptRead>>>,
}

struct KeptRead {
    comm_r: Bytes32,
    places: Vec<u64>,
    proof: Vec<u8>,
}

impl KeptReads {
    pub fn has(&self, close: ChainEpoch, number: u64, comm_r: &Bytes32, places: &[u64]) -> bool {
        let windows = lock(&self.windows);
        let kept = windows.get(&close).and_then(|window| window.get(&number));
        kept.is_some_and(|kept| kept.comm_r == *comm_r && kept.places == places)
    }

    pub fn keep(&self, close: ChainEpoch, number: u64, comm_r: Bytes32, places: Vec<u64>, proof: Vec<u8>) {
        lock(&self.windows).entry(close).or_default().insert(number, KeptRead { comm_r, places, proof });
    }

    /// The kept ones of `numbers`.
    pub fn proofs(&self, close: ChainEpoch, numbers: &[u64]) -> Vec<(u64, Vec<u8>)> {
        let windows = lock(&self.windows);
        let window = windows.get(&close);
        numbers.iter().filter_map(|n| Some((*n, window?.get(n)?.proof.clone()))).collect()
    }

    pub fn drop_sectors(&self, close: ChainEpoch, numbers: impl Iterator<Item = u64>) {
        if let Some(window) = lock(&self.windows).get_mut(&close) {
            numbers.for_each(|number| drop(window.remove(&number)));
        }
    }

    /// Windows that are closed at `height`.
    pub fn drop_closed(&self, height: ChainEpoch) {
        lock(&self.windows).retain(|close, _| *close > height);
    }
}

/// Asks until every sector has an answer or the time is over. Returns those that are late to the end, with the reason.
pub async fn read_all(reader: &dyn SectorReader, mut request: ReadRequest, out: &Answers) -> BTreeMap<u64, String> {
    let mut pause = PAUSES.first;
    let mut late: BTreeMap<u64, String> = BTreeMap::new();
    loop {
        let (tell, mut answers) = mpsc::unbounded_channel();
        let mut answered = BTreeSet::new();
        let round = request.clone();
        let read = async {
            let tell = tell;
            reader.read(round, &tell).await;
        };
        let sort = async {
            while let Some((number, answer)) = answers.recv().await {
                if let SectorRead::Late(why) = &answer {
                    late.insert(number, why.clone());
                } else {
                    late.remove(&number);
                    answered.insert(number);
                }
                let _ = out.send((number, answer)); // the asker is gone with its own future
            }
        };
        // The reader keeps to the time itself; one that does not is left.
        let _ = tokio::time::timeout_at(request.until, async { futures::join!(read, sort) }).await;
        request.sectors.retain(|sector| !answered.contains(&sector.number));
        if request.sectors.is_empty() {
            return BTreeMap::new();
        }
        if Instant::now() + pause >= request.until {
            let why = |number: u64| late.remove(&number).unwrap_or_else(|| "it was not read in time".to_string());
            let numbers: Vec<u64> = request.sectors.iter().map(|sector| sector.number).collect();
            return numbers.into_iter().map(why_of(why)).collect();
        }
        // Files that hang at the head of a path would keep the others from every round.
        request.sectors.shuffle(&mut rand::thread_rng());
        tokio::time::sleep(pause).await;
        pause = PAUSES.next(pause);
    }
}

fn why_of(mut why: impl FnMut(u64) -> String) -> impl FnMut(u64) -> (u64, String) {
    move |number| (number, why(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::sector_reads::WantedSector;
    use async_trait::async_trait;

    const READERS: usize = 16;
    const BATCH: usize = 128;

    /// One storage path: each of its files 0..16 takes a reader for good; without readers nothing more is answered.
    struct HungInFront;

    #[async_trait]
    impl SectorReader for HungInFront {
        async fn read(&self, request: ReadRequest, answers: &Answers) {
            let mut gives_up = false;
            for batch in request.sectors.chunks(BATCH) {
                let mut stuck = 0; // each batch has a process of its own
                let mut read = 0;
                for sector in batch {
                    stuck += usize::from(sector.number < READERS as u64);
                    let answer = match gives_up || stuck >= READERS || sector.number < READERS as u64 {
                        true => SectorRead::Late("hangs".into()),
                        false => SectorRead::Proof(vec![]),
                    };
                    read += usize::from(!matches!(answer, SectorRead::Late(_)));
                    answers.send((sector.number, answer)).unwrap();
                }
                gives_up |= read == 0;
            }
        }
    }

    #[tokio::test]
    async fn files_that_hang_at_the_head_of_a_path_do_not_keep_the_others_from_every_round() {
        let sectors = (0..1000).map(|number| WantedSector { number, comm_r: [0; 32], places: vec![] }).collect();
        let until = Instant::now() + PAUSES.first * 2; // for two rounds
        let (tell, _answers) = mpsc::unbounded_channel();
        let late = read_all(&HungInFront, ReadRequest { miner: 1, proof_type: 10, sectors, until }, &tell).await;
        assert_eq!(late.into_keys().collect::<Vec<_>>(), (0..READERS as u64).collect::<Vec<_>>());
    }
}
