//! A sector's steps on chain: tickets and seeds, its two messages with their collateral, and what became of them.

use super::super::machine::Event;
use super::super::sector::{Drawn, Sector};
use super::super::settings::attach;
use super::{Done, Effects, Stop, have, proof_type};
use crate::actors::message_sender::messages::{Enqueue, EnqueueAnswer, MessageStatus};
use crate::chain::miner_messages::{self, MinerCall, PreCommit};
use crate::chain::network_rules::{self, NetworkRules, PledgeRpc};
use crate::chain::types::{SectorOnChainInfo, SectorPreCommitInfo, SectorPreCommitOnChainInfo, TipSet};
use crate::chain::{ChainEpoch, TokenAmount, proof_types};
use crate::proofs::Bytes32;
use crate::rpc::full_node::FullNodeError;
use cid::Cid;

/// Epochs before an announced upgrade from which on a message may be executed only after it: an hour on mainnet.
const UPGRADE_IN_SIGHT: ChainEpoch = 120;

impl Effects {
    pub(super) async fn draw_ticket(&self, head: &TipSet) -> Done {
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

    /// The initial pledge of a pre-committed sector, with the node's margin. Close to an upgrade that is announced it is the
    /// greater one of both versions: the message may land on either side, and what is too much stays with the miner.
    async fn pledge(&self, pre_commit: &SectorPreCommitInfo, head: &TipSet) -> Result<TokenAmount, Stop> {
        let now = self.rules.rules(self.node.as_ref(), &head.key()).await?;
        let pledge = self.pledge_by(now, pre_commit, head).await?;
        let upgrades = self.at(head).upgrades().await?;
        let next = network_rules::version_within(&upgrades, head.height, UPGRADE_IN_SIGHT).map(NetworkRules::of);
        match next.filter(|next| (next.pledge, next.quality) != (now.pledge, now.quality)) {
            Some(next) => Ok(pledge.max(self.pledge_by(next, pre_commit, head).await?)),
            None => Ok(pledge),
        }
    }

    /// By the rules of a version: from its call, else from that of the others (a node that is older than the network, or
    /// just before or after an upgrade).
    async fn pledge_by(
        &self,
        rules: &NetworkRules,
        pre_commit: &SectorPreCommitInfo,
        head: &TipSet,
    ) -> Result<TokenAmount, Stop> {
        let asked = match rules.pledge {
            PledgeRpc::ForPreCommit => [PledgeRpc::ForPreCommit, PledgeRpc::ForSector],
            PledgeRpc::ForSector => [PledgeRpc::ForSector, PledgeRpc::ForPreCommit],
        };
        let size = have(proof_types::sector_size(pre_commit.seal_proof), "sector size that is known")?;
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

    pub(super) async fn send_pre_commit(&self, s: &Sector, head: &TipSet) -> Done {
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
        if taken {
            let why = "the chain has the number as used, and neither a pre-commit nor a sector under it";
            return Ok(Event::NumberSpent(why.into()));
        }
        let pre_commit = self.pre_commit_of(s, head)?;
        if head.height - pre_commit.ticket_epoch > self.settings.max_ticket_age - self.settings.ticket_margin {
            return Ok(Event::TicketTooOld);
        }
        let info = chain_info(&pre_commit)?;
        let deposit = self.node.state_miner_pre_commit_deposit_for_power(&self.miner, &info, &head.key()).await;
        let value = self.collateral(zero_if_unknown(deposit)?, head).await?;
        let call = miner_messages::pre_commit_sector_batch2(&[pre_commit])?;
        self.enqueue(s.pre_commit_key(), call, value).await?;
        Ok(Event::PreCommitSent)
    }

    pub(super) async fn poll_pre_commit(&self, s: &Sector, head: &TipSet) -> Done {
        let taken = self.at(head).allocated().await?.contains(s.number);
        if taken {
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
            MessageStatus::Landed { epoch, .. } if !taken && head.height > epoch + self.settings.landed_grace => {
                let error = "it landed, and the chain has not taken the number".to_string();
                Ok(Event::PreCommitRefused { exit_code: 0, error })
            }
            MessageStatus::Landed { epoch, .. } if head.height > epoch + self.settings.landed_grace => {
                Ok(Event::NumberSpent("its pre-commit landed and is not there any more".into()))
            }
            status => Ok(Event::NotYet(waiting(&status))),
        }
    }

    pub(super) async fn poll_seed(&self, s: &Sector, head: &TipSet) -> Done {
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

    pub(super) async fn send_commit(&self, s: &Sector, head: &TipSet) -> Done {
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
    pub(super) async fn poll_commit(&self, s: &Sector, head: &TipSet, may_read: bool) -> Done {
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
