//! Carries out one action of one sector and says what happened. Every action may be carried out again after a crash:
//! messages have keys, proofs have job folders, and the chain is asked before anything is sent to it.

mod on_chain;

use super::driver::ActionRun;
use super::head_answers::{AnswersByHead, HeadAnswers};
use super::machine::Event;
use super::phase::Action;
use super::ports::Agents;
use super::remote::{self, Remote};
use super::room::{self, Began};
use super::sector::{Drawn, Sector};
use super::settings::{Place, SealSettings};
use crate::actors::message_sender::Outbox;
use crate::actors::seal_agent::memory_of;
use crate::actors::seal_jobs::{self, JobFailed, SealJob, SealStep, Sealed, StepKind};
use crate::actors::sector_files::SectorDirs;
use crate::chain::miner_messages::EncodeError;
use crate::chain::types::TipSet;
use crate::chain::{Address, proof_types};
use crate::proofs::{Job, Output, Prover, Task};
use crate::rpc::full_node::rules::RulesAt;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::supervisor::Fence;
use crate::util::host::{Memory, free_disk};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub struct Effects {
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub outbox: Arc<dyn Outbox>,
    pub miner: Address,
    pub dirs: SectorDirs,
    pub settings: SealSettings,
    pub agents: Arc<dyn Agents>,
    /// The network's version at the head in hand.
    pub rules: Rc<RulesAt>,
    /// The fence of the incarnation that these effects belong to.
    pub fence: Option<Arc<dyn Fence>>,
    pub answers: AnswersByHead,
    /// The host's memory now.
    pub memory: Arc<dyn Fn() -> Memory + Send + Sync>,
}

impl Effects {
    pub(super) fn with_settings(&self, settings: SealSettings) -> Effects {
        Effects {
            node: self.node.clone(),
            prover: self.prover.clone(),
            outbox: self.outbox.clone(),
            miner: self.miner,
            dirs: self.dirs.clone(),
            settings,
            agents: self.agents.clone(),
            rules: self.rules.clone(),
            fence: self.fence.clone(),
            answers: AnswersByHead::default(),
            memory: self.memory.clone(),
        }
    }
}

/// Why an action came to nothing, as the machine wants it.
struct Stop(Event);

impl From<FullNodeError> for Stop {
    fn from(e: FullNodeError) -> Stop {
        Stop(Event::NoAnswer(e.to_string()))
    }
}
impl From<EncodeError> for Stop {
    fn from(e: EncodeError) -> Stop {
        Stop(Event::NoAnswer(e.to_string()))
    }
}

impl From<JobFailed> for Stop {
    fn from(JobFailed { error, transient }: JobFailed) -> Stop {
        Stop(Event::TaskFailed { error, transient })
    }
}

type Done = Result<Event, Stop>;

impl Effects {
    /// `head` is the newest known; actions that need one are not started without.
    pub async fn run(&self, work: &ActionRun, head: Option<&TipSet>) -> Event {
        let s = &work.sector;
        let done = match (work.action, head) {
            (Action::Describe, head) => self.describe(head).await,
            (Action::AddPiece, _) => self.add_piece(work).await,
            (Action::Pc1, head) => self.pc1(work, head).await,
            (Action::Pc2, _) => self.pc2(work).await,
            (Action::C1, _) => self.c1(s).await,
            (Action::C2, _) => self.c2(work).await,
            (Action::Verify, _) => self.verify(s).await,
            (Action::Finalize, _) => self.finalize(s).await,
            (Action::RemoveFiles, _) => self.remove_files(s).await,
            (Action::DrawTicket, Some(head)) => self.draw_ticket(head).await,
            (Action::SendPreCommit, Some(head)) => self.send_pre_commit(s, head).await,
            (Action::PollPreCommit, Some(head)) => self.poll_pre_commit(s, head).await,
            (Action::PollSeed, Some(head)) => self.poll_seed(s, head).await,
            (Action::SendCommit, Some(head)) => self.send_commit(s, head).await,
            (Action::PollCommit, Some(head)) => self.poll_commit(s, head, work.may_read).await,
            (Action::Retry | Action::Nothing, _) => Ok(Event::RetryDue),
            (
                Action::DrawTicket
                | Action::SendPreCommit
                | Action::PollPreCommit
                | Action::PollSeed
                | Action::SendCommit
                | Action::PollCommit,
                None,
            ) => Ok(Event::NoAnswer("no head of the chain is known yet".into())),
        };
        done.unwrap_or_else(|Stop(event)| event)
    }

    /// The answers that all sectors share at a head.
    fn at(&self, head: &TipSet) -> Rc<HeadAnswers> {
        self.answers.at(&self.node, self.miner, head)
    }

    async fn describe(&self, head: Option<&TipSet>) -> Done {
        if let Some(seal_proof) = self.settings.seal_proof {
            return Ok(Event::Described { seal_proof });
        }
        let seal_proof = match head {
            Some(head) => self.at(head).seal_proof().await?,
            None => {
                let info = self.node.state_miner_info(&self.miner, &Default::default()).await?;
                let version = self.node.state_network_version(&Default::default()).await?;
                proof_types::seal_proof(info.sector_size, version)
            }
        };
        let none = || Stop(Event::NoAnswer("the network has no seal proof for the miner's sector size".into()));
        Ok(Event::Described { seal_proof: seal_proof.ok_or_else(none)? })
    }

    // ---- steps on the sector's files

    /// Here, or at the agent that has the files.
    async fn work(&self, s: &Sector, step: SealStep, attempt: u32, max_runtime: Duration) -> Result<Output, Stop> {
        self.work_begun_by(s, step, attempt, max_runtime, None, &Began::default()).await
    }

    async fn work_begun_by(
        &self,
        s: &Sector,
        step: SealStep,
        attempt: u32,
        max_runtime: Duration,
        begin_by: Option<Instant>,
        began: &Began,
    ) -> Result<Output, Stop> {
        let proof_type = s.seal_proof.unwrap_or_default();
        let job = SealJob { miner: self.dirs.miner, number: s.number, proof_type, attempt, step, max_runtime };
        match &s.location {
            None => {
                let fence = self.fence.as_deref();
                Ok(seal_jobs::carry_out(&job, &self.dirs, self.prover.as_ref(), fence).await?)
            }
            Some(agent) => match remote::run(self.agents.as_ref(), agent, &job, begin_by, began).await {
                Remote::Done(output) => Ok(output),
                Remote::Failed(failed) => Err(failed.into()),
                Remote::NoAnswer(why) => Err(Stop(Event::NoAnswer(why))),
                Remote::Refused(why) => Err(Stop(Event::AgentRefused(why))),
                Remote::Late => Err(Stop(Event::TicketTooOld)),
            },
        }
    }

    /// A sector that has no files yet gets its place for good.
    async fn place(&self, work: &ActionRun) -> Result<Option<Event>, Stop> {
        let s = &work.sector;
        if s.location.is_some() {
            return Ok(None);
        }
        if self.settings.place == Place::Here {
            let none = self.no_room(work).await?;
            return none.map_or(Ok(None), |why| Err(Stop(Event::NoRoom(why))));
        }
        match remote::choose(self.agents.as_ref(), self.dirs.miner, proof_type(s)?, &work.promised).await {
            Ok(agent) => Ok(Some(Event::Placed(agent))),
            Err(why) => Err(Stop(Event::NoRoom(why))),
        }
    }

    /// Why this node's disk cannot take the sector now. A piece that is there already has its room.
    async fn no_room(&self, work: &ActionRun) -> Result<Option<String>, Stop> {
        let s = &work.sector;
        let size = proof_types::sector_size(proof_type(s)?).unwrap_or(0);
        let (dirs, number, keep) = (self.dirs.clone(), s.number, self.settings.keep_free);
        let promised = work.promised.clone();
        let looked = tokio::task::spawn_blocking(move || {
            if dirs.unsealed(number).exists() {
                return None;
            }
            room::no_room(size, free_disk(&dirs.sectors), promised.unwritten_here(&dirs), keep)
        });
        looked.await.map_err(|e| Stop(Event::NoAnswer(format!("free disk: {e}"))))
    }

    /// Whether this host has the memory for a step; at an agent its workers look for themselves.
    async fn has_memory(&self, work: &ActionRun, kind: StepKind) -> Result<(), Stop> {
        if work.sector.location.is_some() {
            return Ok(());
        }
        let need = memory_of(kind, proof_types::sector_size(proof_type(&work.sector)?).unwrap_or(0));
        let memory = self.memory.clone();
        let memory = tokio::task::spawn_blocking(move || memory()).await;
        let memory = memory.map_err(|e| Stop(Event::NoAnswer(format!("free memory: {e}"))))?;
        room::no_memory(need, &memory, work.memory).map_or(Ok(()), |why| Err(Stop(Event::NoRoom(why))))
    }

    async fn add_piece(&self, work: &ActionRun) -> Done {
        let s = &work.sector;
        if let Some(placed) = self.place(work).await? {
            return Ok(placed);
        }
        let runtime = self.settings.runtimes.add_piece;
        match self.work(s, SealStep::AddPiece, s.attempts.add_piece, runtime).await? {
            Output::Piece { .. } => Ok(Event::PieceAdded),
            other => Err(odd("AddPiece", &other)),
        }
    }

    /// A ticket that ages while sectors wait for their turn would make PC1 in vain: hours of work on a ticket that no
    /// pre-commit may have any more. Before PC1 another one costs nothing.
    async fn pc1(&self, work: &ActionRun, head: Option<&TipSet>) -> Done {
        let s = &work.sector;
        let ticket = have(s.ticket, "ticket")?;
        let begin_by = match head {
            Some(head) if s.pre_commit_epoch.is_none() => self.begin_by(work, ticket, head).await?,
            // Pre-committed: the chain has the CommR of this ticket, and PC1 is made again to get it.
            Some(_) => None,
            None => None, // the chain is away: sealing goes on
        };
        self.has_memory(work, StepKind::Pc1).await?;
        let (step, attempt) = (SealStep::Pc1 { ticket: ticket.value }, s.attempts.pc1);
        match self.work_begun_by(s, step, attempt, self.settings.runtimes.pc1, begin_by, &work.began).await? {
            Output::Phase1(bytes) => Ok(Event::Pc1Done(bytes)),
            other => Err(odd("PC1", &other)),
        }
    }

    /// The moment by which PC1 of this ticket must begin. An error: it is past, and PC1 has not begun.
    async fn begin_by(&self, work: &ActionRun, ticket: Drawn, head: &TipSet) -> Result<Option<Instant>, Stop> {
        let s = &work.sector;
        let max_age = self.settings.max_ticket_age - self.settings.ticket_margin;
        // What no pre-commit may have now is of no use, whatever has been made of it.
        if head.height - ticket.epoch > max_age {
            return Err(Stop(Event::TicketTooOld));
        }
        let Ok(delay) = self.at(head).block_delay().await else { return Ok(None) };
        let took = work.last_took.map(Duration::from_millis);
        let lookback = self.settings.ticket_lookback;
        let left = room::epochs_left(ticket.epoch, head.height, max_age, lookback, took, delay);
        let begun = s.location.is_none() && self.dirs.job(s.number, "pc1", s.attempts.pc1).exists();
        match u32::try_from(left) {
            _ if begun => Ok(None),
            // A delay that the clock cannot hold sets no limit.
            Ok(epochs) if epochs > 0 => Ok(delay.checked_mul(epochs).and_then(|left| Instant::now().checked_add(left))),
            // At an agent it may have begun: that is asked.
            _ if s.location.is_some() => Ok(Some(Instant::now())),
            _ => Err(Stop(Event::TicketTooOld)),
        }
    }

    async fn pc2(&self, work: &ActionRun) -> Done {
        self.has_memory(work, StepKind::Pc2).await?;
        let s = &work.sector;
        let step = SealStep::Pc2 { pc1: s.pc1.clone() };
        match self.work(s, step, s.attempts.pc2, self.settings.runtimes.pc2).await? {
            Output::Pc2 { comm_r, comm_d } => Ok(Event::Pc2Done { comm_r, comm_d }),
            other => Err(odd("PC2", &other)),
        }
    }

    async fn c1(&self, s: &Sector) -> Done {
        match self.work(s, SealStep::C1(sealed(s)?), s.attempts.c1, self.settings.runtimes.c1).await? {
            Output::Done => Ok(Event::C1Done),
            other => Err(odd("C1", &other)),
        }
    }

    async fn c2(&self, work: &ActionRun) -> Done {
        self.has_memory(work, StepKind::C2).await?;
        let s = &work.sector;
        let step = SealStep::C2 { sealed: sealed(s)?, c1_attempt: s.attempts.c1 };
        match self.work(s, step, s.attempts.c2, self.settings.runtimes.c2).await? {
            Output::Proof(proof) => Ok(Event::C2Done(proof)),
            other => Err(odd("C2", &other)),
        }
    }

    async fn finalize(&self, s: &Sector) -> Done {
        self.work(s, SealStep::Finalize, s.attempts.finalize, self.settings.runtimes.finalize).await?;
        Ok(Event::Finalized)
    }

    async fn remove_files(&self, s: &Sector) -> Done {
        self.work(s, SealStep::Remove, 0, self.settings.runtimes.finalize).await?;
        Ok(Event::FilesRemoved)
    }

    /// Needs no files, and decides what costs gas: always here.
    async fn verify(&self, s: &Sector) -> Done {
        let Sealed { ticket, seed, comm_r, comm_d } = sealed(s)?;
        let task = Task::VerifySeal {
            proof_type: proof_type(s)?,
            miner: self.dirs.miner,
            number: s.number,
            ticket,
            seed,
            comm_r,
            comm_d,
            proof: s.proof.clone(),
        };
        if let Some(fence) = &self.fence {
            fence.check().map_err(JobFailed::from)?;
        }
        let job_dir = Some(self.dirs.job(s.number, "verify", s.attempts.verify));
        let job = Job { task, job_dir, max_runtime: self.settings.runtimes.verify };
        match self.prover.run(job).await.map_err(JobFailed::from)? {
            Output::Verified(good) => Ok(Event::SealVerified(good)),
            other => Err(odd("VerifySeal", &other)),
        }
    }
}

fn proof_type(s: &Sector) -> Result<i64, Stop> {
    have(s.seal_proof, "seal proof type")
}

fn sealed(s: &Sector) -> Result<Sealed, Stop> {
    Ok(Sealed {
        ticket: have(s.ticket, "ticket")?.value,
        seed: have(s.seed, "seed")?.value,
        comm_r: have(s.comm_r, "CommR")?,
        comm_d: have(s.comm_d, "CommD")?,
    })
}

/// A field that an earlier phase must have left; without it the record is damaged and that is said, not unwrapped.
fn have<T>(field: Option<T>, what: &str) -> Result<T, Stop> {
    field.ok_or_else(|| {
        Stop(Event::TaskFailed { error: format!("the sector's record has no {what}"), transient: false })
    })
}

fn odd(task: &str, output: &Output) -> Stop {
    let text = format!("{output:?}");
    let kind = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    Stop(Event::TaskFailed { error: format!("{task}: the prover answered with {kind}"), transient: false })
}
