//! Carries out one action of one sector and says what happened. Every action may be carried out again after a crash:
//! messages have keys, proofs have job folders, and the chain is asked before anything is sent to it.

use super::driver::ActionRun;
use super::head_answers::{AnswersByHead, HeadAnswers};
use super::machine::Event;
use super::phase::Action;
use super::ports::{Agents, Outbox};
use super::remote::{self, Remote};
use super::room;
use super::sector::{Drawn, Sector};
use super::settings::{Place, SealSettings, attach};
use crate::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use crate::actors::seal_jobs::{self, JobFailed, SealJob, SealStep, Sealed};
use crate::actors::sector_files::SectorDirs;
use crate::chain::miner_messages::{self, EncodeError, MinerCall, PreCommit};
use crate::chain::network_rules::PledgeRpc;
use crate::chain::types::{SectorOnChainInfo, SectorPreCommitInfo, SectorPreCommitOnChainInfo, TipSet};
use crate::chain::{Address, ChainEpoch, TokenAmount, proof_types};
use crate::proofs::{Bytes32, Job, Output, Prover, Task};
use crate::rpc::full_node::rules::RulesAt;
use crate::rpc::full_node::{FullNode, FullNodeError};
use crate::supervisor::Fence;
use crate::util::host::free_disk;
use cid::Cid;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub struct Effects {
    pub node: Arc<dyn FullNode>,
    pub prover: Arc<dyn Prover>,
    pub outbox: Rc<dyn Outbox>,
    pub miner: Address,
    pub dirs: SectorDirs,
    pub settings: SealSettings,
    pub agents: Arc<dyn Agents>,
    /// The network's version at the head in hand.
    pub rules: Rc<RulesAt>,
    /// The fence of the incarnation that these effects belong to.
    pub fence: Option<Arc<dyn Fence>>,
    pub answers: AnswersByHead,
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
            (Action::Pc2, _) => self.pc2(s).await,
            (Action::C1, _) => self.c1(s).await,
            (Action::C2, _) => self.c2(s).await,
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
        self.work_begun_by(s, step, attempt, max_runtime, None).await
    }

    async fn work_begun_by(
        &self,
        s: &Sector,
        step: SealStep,
        attempt: u32,
        max_runtime: Duration,
        begin_by: Option<Instant>,
    ) -> Result<Output, Stop> {
        let proof_type = s.seal_proof.unwrap_or_default();
        let job = SealJob { miner: self.dirs.miner, number: s.number, proof_type, attempt, step, max_runtime };
        match &s.location {
            None => {
                let fence = self.fence.as_deref();
                Ok(seal_jobs::carry_out(&job, &self.dirs, self.prover.as_ref(), fence).await?)
            }
            Some(agent) => match remote::run(self.agents.as_ref(), agent, &job, begin_by).await {
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
            let none = self.no_room(s, work.promised.here).await?;
            return none.map_or(Ok(None), |why| Err(Stop(Event::NoAnswer(why))));
        }
        match remote::choose(self.agents.as_ref(), self.dirs.miner, proof_type(s)?, &work.promised).await {
            Ok(agent) => Ok(Some(Event::Placed(agent))),
            Err(why) => Err(Stop(Event::NoAnswer(why))),
        }
    }

    /// Why this node's disk cannot take the sector now. A piece that is there already has its room.
    async fn no_room(&self, s: &Sector, promised: u64) -> Result<Option<String>, Stop> {
        let size = proof_types::sector_size(proof_type(s)?).unwrap_or(0);
        let (dirs, number, keep) = (self.dirs.clone(), s.number, self.settings.keep_free);
        let looked = tokio::task::spawn_blocking(move || {
            if dirs.unsealed(number).exists() {
                return None;
            }
            room::no_room(size, free_disk(&dirs.sectors), promised, keep)
        });
        looked.await.map_err(|e| Stop(Event::NoAnswer(format!("free disk: {e}"))))
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
            Some(head) => self.begin_by(work, ticket, head).await?,
            None => None, // the chain is away: sealing goes on
        };
        let (step, attempt) = (SealStep::Pc1 { ticket: ticket.value }, s.attempts.pc1);
        match self.work_begun_by(s, step, attempt, self.settings.runtimes.pc1, begin_by).await? {
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
        let Ok(network) = self.node.state_get_network_params().await else { return Ok(None) };
        let delay = Duration::from_secs(network.block_delay_secs);
        let took = work.last_took.map(Duration::from_millis);
        let left = room::epochs_left(ticket.epoch, head.height, max_age, took, delay);
        let begun = s.location.is_none() && self.dirs.job(s.number, "pc1", s.attempts.pc1).exists();
        match u32::try_from(left) {
            _ if begun => Ok(None),
            Ok(epochs) if epochs > 0 => Ok(Some(Instant::now() + delay * epochs)),
            // At an agent it may have begun: that is asked.
            _ if s.location.is_some() => Ok(Some(Instant::now())),
            _ => Err(Stop(Event::TicketTooOld)),
        }
    }

    async fn pc2(&self, s: &Sector) -> Done {
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

    async fn c2(&self, s: &Sector) -> Done {
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

    // ---- the chain

    async fn draw_ticket(&self, head: &TipSet) -> Done {
        let epoch = (head.height - self.settings.ticket_lookback).max(0);
        let value = self.at(head).ticket(epoch).await?;
        Ok(Event::TicketDrawn(Drawn { value: bytes32(value)?, epoch }))
    }

    async fn on_chain(&self, s: &Sector, head: &TipSet) -> Result<Option<SectorOnChainInfo>, Stop> {
        let info = self.node.state_sector_get_info(&self.miner, s.number, &head.key()).await?;
        match info {
            Some(info) if !is_ours(s, &info.sealed_cid)? => Err(foreign("sector", &info.sealed_cid)),
            info => Ok(info),
        }
    }

    async fn pre_committed(&self, s: &Sector, head: &TipSet) -> Result<Option<SectorPreCommitOnChainInfo>, Stop> {
        let info = self.node.state_sector_pre_commit_info(&self.miner, s.number, &head.key()).await?;
        match info {
            Some(info) if !is_ours(s, &info.info.sealed_cid)? => Err(foreign("pre-commit", &info.info.sealed_cid)),
            info => Ok(info),
        }
    }

    /// The proven sector once it is deep enough; nothing before is final.
    async fn proven(&self, s: &Sector, head: &TipSet) -> Result<Option<Event>, Stop> {
        Ok(self.on_chain(s, head).await?.map(|info| {
            let deep = info.activation + self.settings.commit_confidence;
            if head.height >= deep {
                Event::CommitOnChain { activation: info.activation }
            } else {
                Event::NotBefore { epoch: deep, why: format!("proven on chain, final at epoch {deep}") }
            }
        }))
    }

    async fn status(&self, key: &str) -> Result<MessageStatus, Stop> {
        self.outbox.status(key).await.map_err(|why| Stop(Event::NoAnswer(why)))
    }

    async fn enqueue(&self, key: String, call: MinerCall, value: TokenAmount) -> Result<(), Stop> {
        let message = Enqueue {
            key,
            to: self.miner,
            method: call.method,
            params: call.params,
            value,
            max_fee: TokenAmount::default(), // what the sender's settings allow, as they are when it is sent
            from: None,
            closes: None,
        };
        match self.outbox.enqueue(message).await {
            Ok(EnqueueAnswer::Accepted | EnqueueAnswer::Known(_)) => Ok(()),
            Ok(EnqueueAnswer::Refused(why)) | Err(why) => Err(Stop(Event::NoAnswer(why))),
        }
    }

    fn pre_commit_of(&self, s: &Sector, head: &TipSet) -> Result<PreCommit, Stop> {
        Ok(PreCommit {
            seal_proof: proof_type(s)?,
            number: s.number,
            comm_r: have(s.comm_r, "CommR")?,
            ticket_epoch: have(s.ticket, "ticket")?.epoch,
            expiration: head.height + self.settings.expiration,
        })
    }

    /// Collateral that goes with a message.
    async fn collateral(&self, need: TokenAmount, head: &TipSet) -> Result<TokenAmount, Stop> {
        let available = match self.settings.use_miner_balance {
            true => self.node.state_miner_available_balance(&self.miner, &head.key()).await?,
            false => TokenAmount::from_atto(0),
        };
        Ok(attach(&need, &available))
    }

    /// The initial pledge of a pre-committed sector, with the node's margin: from the call of the network's version, else
    /// from that of the others (a node that is older than the network, or just before or after an upgrade).
    async fn pledge(&self, pre_commit: &SectorPreCommitInfo, head: &TipSet) -> Result<TokenAmount, Stop> {
        let rules = self.rules.rules(self.node.as_ref(), &head.key()).await?;
        let asked = match rules.pledge {
            PledgeRpc::ForPreCommit => [PledgeRpc::ForPreCommit, PledgeRpc::ForSector],
            PledgeRpc::ForSector => [PledgeRpc::ForSector, PledgeRpc::ForPreCommit],
        };
        let size = proof_types::sector_size(pre_commit.seal_proof).unwrap_or_default();
        // A sector of ours is empty: it has no verified bytes.
        let verified = rules.quality.verified_size(size, 0);
        let duration = (pre_commit.expiration - head.height).max(1);
        let key = head.key();
        for call in asked {
            let answer = match call {
                PledgeRpc::ForPreCommit => {
                    self.node.state_miner_initial_pledge_collateral(&self.miner, pre_commit, &key).await
                }
                PledgeRpc::ForSector => {
                    self.node.state_miner_initial_pledge_for_sector(duration, size, verified, &key).await
                }
            };
            match answer {
                Err(e) if e.is_missing_method() => {}
                answer => return Ok(answer?),
            }
        }
        Ok(TokenAmount::default())
    }

    async fn send_pre_commit(&self, s: &Sector, head: &TipSet) -> Done {
        let taken = self.at(head).allocated().await?.contains(s.number);
        if taken {
            if let Some(event) = self.proven(s, head).await? {
                return Ok(event);
            }
            if let Some(found) = self.pre_committed(s, head).await? {
                return Ok(Event::PreCommitOnChain { epoch: found.pre_commit_epoch });
            }
        }
        // After a crash the message may be with the sender already.
        if !matches!(self.status(&s.pre_commit_key()).await?, MessageStatus::Unknown) {
            return Ok(Event::PreCommitSent);
        }
        let pre_commit = self.pre_commit_of(s, head)?;
        if head.height - pre_commit.ticket_epoch > self.settings.max_ticket_age - self.settings.ticket_margin {
            return Ok(Event::TicketTooOld);
        }
        if taken {
            let why = "the chain has the number as used, and neither a pre-commit nor a sector under it";
            return Ok(Event::NumberSpent(why.into()));
        }
        let info = chain_info(&pre_commit)?;
        let deposit = self.node.state_miner_pre_commit_deposit_for_power(&self.miner, &info, &head.key()).await;
        let value = self.collateral(zero_if_unknown(deposit)?, head).await?;
        let call = miner_messages::pre_commit_sector_batch2(&[pre_commit])?;
        self.enqueue(s.pre_commit_key(), call, value).await?;
        Ok(Event::PreCommitSent)
    }

    async fn poll_pre_commit(&self, s: &Sector, head: &TipSet) -> Done {
        if self.at(head).allocated().await?.contains(s.number) {
            if let Some(found) = self.pre_committed(s, head).await? {
                return Ok(Event::PreCommitOnChain { epoch: found.pre_commit_epoch });
            }
            if let Some(event) = self.proven(s, head).await? {
                return Ok(event);
            }
        }
        match self.status(&s.pre_commit_key()).await? {
            MessageStatus::Failed { exit_code, error } => Ok(Event::PreCommitRefused { exit_code, error }),
            MessageStatus::Unknown => {
                Ok(Event::PreCommitRefused { exit_code: -1, error: "the message sender does not know it".into() })
            }
            MessageStatus::Landed { epoch, .. } if head.height > epoch + self.settings.landed_grace => {
                Ok(Event::NumberSpent("its pre-commit landed and is not there any more".into()))
            }
            status => Ok(Event::NotYet(waiting(&status))),
        }
    }

    async fn poll_seed(&self, s: &Sector, head: &TipSet) -> Done {
        let answers = self.at(head);
        let delay = answers.challenge_delay().await?;
        if delay <= 0 {
            let node = self.node.name();
            return Ok(Event::NotYet(format!(
                "full node {node} does not tell PreCommitChallengeDelay; use a newer one"
            )));
        }
        let too_early = |pre_commit_epoch: ChainEpoch| {
            let at = pre_commit_epoch + delay + self.settings.seed_confidence;
            (head.height < at).then(|| Event::NotBefore { epoch: at, why: format!("seed at epoch {at}") })
        };
        // What the chain shows of the pre-commit until then decides nothing: it is read when the seed can be drawn.
        if s.gone_since.is_none()
            && let Some(wait) = s.pre_commit_epoch.and_then(too_early)
        {
            return Ok(wait);
        }
        let Some(found) = self.pre_committed(s, head).await? else {
            return Ok(self.proven(s, head).await?.unwrap_or(Event::PreCommitGone { head: head.height }));
        };
        if let Some(wait) = too_early(found.pre_commit_epoch) {
            return Ok(wait);
        }
        let epoch = found.pre_commit_epoch + delay;
        let seed = Drawn { value: bytes32(answers.seed(epoch).await?)?, epoch };
        Ok(Event::SeedDrawn { seed, pre_commit_epoch: found.pre_commit_epoch })
    }

    async fn send_commit(&self, s: &Sector, head: &TipSet) -> Done {
        if let Some(event) = self.proven(s, head).await? {
            return Ok(event);
        }
        if !matches!(self.status(&s.commit_key()).await?, MessageStatus::Unknown) {
            return Ok(Event::CommitSent);
        }
        let Some(found) = self.pre_committed(s, head).await? else {
            return Ok(Event::PreCommitGone { head: head.height });
        };
        if Some(found.pre_commit_epoch) != s.pre_commit_epoch {
            return Ok(Event::PreCommitOnChain { epoch: found.pre_commit_epoch });
        }
        let value = self.collateral(self.pledge(&found.info, head).await? - found.pre_commit_deposit, head).await?;
        let call = miner_messages::prove_commit_sectors3(&[(s.number, s.proof.clone())])?;
        self.enqueue(s.commit_key(), call, value).await?;
        Ok(Event::CommitSent)
    }

    /// The chain is read once there is word of the message, and before that in turn: also without word the sector may be
    /// proven, by a message that the sender lost sight of.
    async fn poll_commit(&self, s: &Sector, head: &TipSet, may_read: bool) -> Done {
        let status = self.status(&s.commit_key()).await?;
        let on_its_way = matches!(status, MessageStatus::Queued { .. } | MessageStatus::Pushed { .. });
        if (may_read || !on_its_way)
            && let Some(event) = self.proven(s, head).await?
        {
            return Ok(event);
        }
        match status {
            MessageStatus::Failed { exit_code, error } => Ok(Event::CommitRefused { exit_code, error }),
            MessageStatus::Unknown => {
                Ok(Event::CommitRefused { exit_code: -1, error: "the message sender does not know it".into() })
            }
            MessageStatus::Landed { epoch, .. } if head.height > epoch + self.settings.landed_grace => {
                Ok(Event::CommitRefused { exit_code: 0, error: "it landed and the sector is not there".into() })
            }
            status => Ok(Event::NotYet(waiting(&status))),
        }
    }
}

/// A node that cannot compute a deposit: nothing is sent along, the miner actor's own balance must cover it.
fn zero_if_unknown(amount: Result<TokenAmount, FullNodeError>) -> Result<TokenAmount, FullNodeError> {
    match amount {
        Err(e) if e.is_missing_method() => Ok(TokenAmount::default()),
        amount => amount,
    }
}

fn waiting(status: &MessageStatus) -> String {
    match status {
        MessageStatus::Queued { why_waiting } => format!("message queued: {why_waiting}"),
        MessageStatus::Pushed { cid, nonce, since } => format!("message {cid} (nonce {nonce}) pushed at epoch {since}"),
        MessageStatus::Landed { epoch, .. } => format!("message landed at epoch {epoch}"),
        MessageStatus::Failed { .. } | MessageStatus::Unknown => "message".into(),
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

fn bytes32(value: Vec<u8>) -> Result<Bytes32, Stop> {
    let len = value.len();
    value.try_into().map_err(|_| Stop(Event::NoAnswer(format!("the node gave {len} bytes of randomness, not 32"))))
}

fn is_ours(s: &Sector, sealed: &Cid) -> Result<bool, Stop> {
    let Some(comm_r) = s.comm_r else { return Ok(false) };
    Ok(miner_messages::sealed_cid(&comm_r)? == *sealed)
}

fn foreign(what: &str, sealed: &Cid) -> Stop {
    Stop(Event::NumberSpent(format!("the chain has a {what} of it with another sealed CID, {sealed}")))
}

/// The form in which a node computes deposits.
fn chain_info(p: &PreCommit) -> Result<SectorPreCommitInfo, Stop> {
    Ok(SectorPreCommitInfo {
        seal_proof: p.seal_proof,
        sector_number: p.number,
        sealed_cid: miner_messages::sealed_cid(&p.comm_r)?,
        seal_rand_epoch: p.ticket_epoch,
        deal_ids: Vec::new(),
        expiration: p.expiration,
        unsealed_cid: None,
    })
}
