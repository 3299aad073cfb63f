//! A worker: what it takes, reports and gives up.

use super::*;
use crate::actors::seal_agent::messages::Slots;
use crate::actors::seal_jobs::SealStep;
use crate::proofs::{Answer, ScriptedProver, Step};
use serde_json::json;
use tokio::sync::watch;

/// The scripted agent's answers to the next calls.
#[derive(Clone, Copy, Default, PartialEq)]
struct Mood {
    finish_hangs: bool,
    /// It does not know the worker, and does not answer who wants to join.
    forgot: bool,
    /// Heartbeats are never answered.
    silent: bool,
}

/// An agent in whose place the test answers; it gives two tasks.
struct Scripted {
    mood: watch::Receiver<Mood>,
    jobs: std::sync::Mutex<Vec<SealJob>>,
    beats: watch::Sender<u32>,
    finishes: watch::Sender<u32>,
    reported: std::sync::Mutex<Vec<Value>>,
}

#[async_trait]
impl AgentCalls for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn call(&self, method: &str, param: Value, _: Duration) -> Result<Value, RpcCallError> {
        let mood = *self.mood.borrow();
        let joined = serde_json::to_value(Ok::<_, String>(Joined { lease: 400 })).unwrap();
        let never = std::future::pending();
        Ok(match method {
            BEAT if mood.silent => never.await,
            JOIN if mood.forgot => never.await,
            JOIN => joined,
            BEAT => {
                self.beats.send_modify(|n| *n += 1);
                serde_json::to_value(HeartbeatAnswer { lost: vec![], join_first: mood.forgot }).unwrap()
            }
            FINISH => {
                self.reported.lock().unwrap().push(param);
                self.finishes.send_modify(|n| *n += 1);
                if mood.finish_hangs { never.await } else { json!(true) }
            }
            _ => {
                let job = self.jobs.lock().unwrap().pop();
                if let Some(job) = job {
                    return Ok(serde_json::to_value(TakeAnswer::Job(Box::new(job))).unwrap());
                }
                let mut mood = self.mood.clone();
                mood.wait_for(|mood| mood.forgot).await.unwrap();
                serde_json::to_value(TakeAnswer::JoinFirst).unwrap()
            }
        })
    }
}

struct Set {
    mood: watch::Sender<Mood>,
    prover: Arc<ScriptedProver>,
    hand: Worker<Scripted>,
    _dir: tempfile::TempDir,
}

/// The first task of its agent is done at once, the second hangs.
fn set() -> Set {
    set_with(Answer::Hang)
}

/// The same; `second`: what becomes of the second task.
fn set_with(second: Answer) -> Set {
    let dir = tempfile::tempdir().unwrap();
    let prover = Arc::new(ScriptedProver::new());
    prover.then("C1", Step { after: Duration::ZERO, answer: second });
    let sealed = crate::actors::seal_jobs::Sealed { ticket: [1; 32], seed: [2; 32], comm_r: [3; 32], comm_d: [4; 32] };
    let job = |number, step| SealJob {
        miner: 1000,
        number,
        proof_type: 5,
        attempt: 1,
        step,
        max_runtime: Duration::from_secs(3600),
    };
    let (mood, seen) = watch::channel(Mood::default());
    let agent = Scripted {
        mood: seen,
        jobs: vec![job(1, SealStep::C1(sealed)), job(2, SealStep::AddPiece)].into(),
        beats: watch::channel(0).0,
        finishes: watch::channel(0).0,
        reported: Default::default(),
    };
    let join = Join {
        id: "w".into(),
        name: "w".into(),
        miner: 1000,
        sector_size: 2048,
        storage: String::new(),
        slots: Slots::default(),
    };
    let hand = Worker { agent, join, storage: dir.path().into(), prover: prover.clone() };
    Set { mood, prover, hand, _dir: dir }
}

/// Runs the worker beside `test`.
async fn beside(hand: &Worker<Scripted>, test: impl Future<Output = ()>) {
    let limit = Duration::from_secs(60);
    tokio::select! {
        ended = hand.run() => panic!("the worker ended: {ended:?}"),
        done = tokio::time::timeout(limit, test) => done.expect("it does not come to that"),
    }
}

async fn grows(counter: &watch::Sender<u32>, by: u32) {
    let mut counter = counter.subscribe();
    let from = *counter.borrow();
    counter.wait_for(|n| *n >= from + by).await.unwrap();
}

/// Nothing tells when a task was dropped.
async fn ends(prover: &ScriptedProver) {
    while prover.running() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_report_that_hangs_holds_up_no_heartbeat() {
    let set = set();
    set.mood.send_modify(|mood| mood.finish_hangs = true);
    beside(&set.hand, async {
        set.prover.called("C1", 1).await;
        let mut finishes = set.hand.agent.finishes.subscribe();
        finishes.wait_for(|n| *n == 1).await.unwrap();
        grows(&set.hand.agent.beats, 8).await;
        assert_eq!(set.prover.running(), 1, "the other task goes on");
        set.mood.send_modify(|mood| mood.silent = true);
        ends(&set.prover).await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_joins_anew_beats_on_and_ends_its_tasks_in_silence() {
    let set = set();
    beside(&set.hand, async {
        set.prover.called("C1", 1).await;
        set.mood.send_modify(|mood| mood.forgot = true);
        grows(&set.hand.agent.beats, 8).await;
        assert_eq!(set.prover.running(), 1);
        set.mood.send_modify(|mood| mood.silent = true);
        ends(&set.prover).await;
    })
    .await;
}

/// Unreported, the agent would take it for running as long as this worker lives.
#[tokio::test]
async fn a_task_that_panics_is_reported_and_no_fault_of_its_sector() {
    let set = set_with(Answer::Panic);
    beside(&set.hand, async {
        let mut finishes = set.hand.agent.finishes.subscribe();
        finishes.wait_for(|n| *n >= 2).await.unwrap();
    })
    .await;
    let reported = set.hand.agent.reported.lock().unwrap();
    let c1 = reported.iter().find(|report| report["job"] == "s-t01000-1-c1-1").expect("it is reported");
    let failed: JobFailed = serde_json::from_value(c1["result"]["Err"].clone()).expect("a failure");
    assert!(failed.transient && failed.error.contains("panicked: as scripted"), "{failed:?}");
}
