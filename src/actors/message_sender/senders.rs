//! Which addresses may send a message, and how each stands at this head: asked for once a head and address.

use super::addresses::{self, Candidate, Purpose};
use super::effects::parse_address;
use super::record::Open;
use super::round::{Held, Round};
use crate::chain::types::MinerInfo;
use crate::chain::{Address, TokenAmount};
use crate::rpc::full_node::FullNodeError;
use num_traits::Zero;

impl Round<'_> {
    async fn miner_info(&mut self, miner: &Address) -> Result<MinerInfo, FullNodeError> {
        if let Some(info) = &self.info {
            return Ok(info.clone());
        }
        let info = self.engine.node.state_miner_info(miner, &self.head.key()).await?;
        Ok(self.info.insert(info).clone())
    }

    async fn key_of(&self, id: &Address) -> Result<Address, FullNodeError> {
        if let Some(key) = self.engine.memory.key_of(id) {
            return Ok(key);
        }
        let key = self.engine.node.state_account_key(id, &self.head.key()).await?;
        self.engine.memory.set_key(*id, key);
        Ok(key)
    }

    /// The named control addresses as IDs; one that cannot be looked up is passed over, with an alert, and asked about again
    /// at the next head.
    async fn look_up_named(&mut self) -> Result<(), FullNodeError> {
        let engine = self.engine;
        for named in engine.settings.addresses.named() {
            if engine.memory.id_of(named).is_some() {
                continue;
            }
            if named.id().is_ok() {
                engine.memory.set_id(*named, *named);
                continue;
            }
            let why = match engine.memory.missed(named, self.head.height) {
                Some(why) => why,
                None => match engine.node.state_lookup_id(named, &self.head.key()).await {
                    Ok(id) => {
                        engine.memory.set_id(*named, id);
                        continue;
                    }
                    Err(e @ (FullNodeError::Rpc { .. } | FullNodeError::NoSuchMethod { .. })) => {
                        engine.memory.miss(*named, self.head.height, e.to_string());
                        e.to_string()
                    }
                    Err(e) => return Err(e),
                },
            };
            self.alert(format!("address {named}"), format!("[addresses] names {named}: {why}"));
        }
        Ok(())
    }

    /// The addresses that may send it, the preferred first.
    pub(super) async fn senders(&mut self, key: &str, open: &Open, purpose: Purpose) -> Result<Vec<Address>, Held> {
        if let Some(from) = &open.from {
            return Ok(vec![parse_address(key, from)?]);
        }
        let Some(miner) = self.engine.miner else { return Err(Held::Why("it names no sender".into())) };
        let info = self.miner_info(&miner).await?;
        self.look_up_named().await?;
        let engine = self.engine;
        for named in engine.settings.addresses.named() {
            let strange = engine.memory.id_of(named).filter(|id| !addresses::is_of(&info, id));
            if strange.is_some() {
                let text = format!("[addresses] names {named}, which is no control address of {miner} on chain");
                self.alert(format!("address {named}"), text);
            }
        }
        Ok(engine.settings.addresses.candidates(purpose, &info, |named| engine.memory.id_of(named)))
    }

    /// One that the node does not know, or that has no key, sends nothing. It is asked about again at the next head.
    async fn candidate(&mut self, id: Address, purpose: Purpose, named: bool) -> Result<Candidate, Held> {
        if let Some(unusable) = self.engine.memory.unusable(&id, self.head.height) {
            return Ok(unusable);
        }
        let unusable = |key| Candidate { id, key, available: TokenAmount::zero(), has_key: false, is_free: false };
        let key = match self.key_of(&id).await {
            Err(FullNodeError::Rpc { .. }) => return Ok(self.passed_over(unusable(id))),
            key => key?,
        };
        if !self.engine.memory.has_key(&key) {
            if !self.engine.wallet.has_key(&key).await? {
                return Ok(self.passed_over(unusable(key)));
            }
            self.engine.memory.set_has_key(key);
        }
        match self.line(&key).await {
            Err(FullNodeError::Rpc { .. }) => return Ok(self.passed_over(unusable(key))),
            line => line?,
        };
        let reserve = match named || purpose == Purpose::Proving {
            true => TokenAmount::zero(),
            false => self.reserve(&id, &key),
        };
        let line = &self.lines[&key];
        let available = (line.available() - reserve).max(TokenAmount::zero());
        // Sealing waits in a line that stands; it does not turn to the owner's money.
        let is_free = purpose != Purpose::Proving || line.is_free(&self.base_fee);
        Ok(Candidate { id, key, available, has_key: true, is_free })
    }

    fn passed_over(&self, candidate: Candidate) -> Candidate {
        self.engine.memory.pass_over(candidate.clone(), self.head.height);
        candidate
    }

    /// The amount that stays on an address for proving's messages: their bound, and a fifth of the balance at most.
    fn reserve(&self, id: &Address, key: &Address) -> TokenAmount {
        let engine = self.engine;
        let may_prove = self.info.as_ref().is_some_and(|info| {
            let named = |address: &Address| engine.memory.id_of(address);
            engine.settings.addresses.candidates(Purpose::Proving, info, named).contains(id)
        });
        match may_prove {
            true => self.lines[key].balance().div_floor(5).min(engine.settings.window_post_fee.clone()),
            false => TokenAmount::zero(),
        }
    }

    /// Adds candidates until one is good enough.
    pub(super) async fn look_at(
        &mut self,
        senders: &mut impl Iterator<Item = Address>,
        candidates: &mut Vec<Candidate>,
        purpose: Purpose,
        named: bool,
        need: &TokenAmount,
    ) -> Result<(), Held> {
        while !candidates.iter().any(|c| c.is_good(need)) {
            let Some(id) = senders.next() else { break };
            let candidate = self.candidate(id, purpose, named).await?;
            candidates.push(candidate);
        }
        Ok(())
    }
}
