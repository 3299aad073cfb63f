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

    /// The named control addresses as IDs; one that the chain does not know is passed over, with an alert, and asked about
    /// again at the next head. Where the question failed, messages wait that this address is named for, and no others.
    async fn look_up_named(&mut self, purpose: Purpose) -> Result<(), FullNodeError> {
        let engine = self.engine;
        let of_this_purpose = |named| engine.settings.addresses.listed(purpose).contains(named);
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
                    Err(e) if e.names_no_actor() || e.is_missing_method() || !of_this_purpose(named) => {
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
        self.look_up_named(purpose).await?;
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

    /// One that the chain does not know, or that has no key, sends nothing. It is asked about again at the next head.
    async fn candidate(&mut self, id: Address, purpose: Purpose, named: bool) -> Result<Candidate, Held> {
        if let Some(unusable) = self.engine.memory.unusable(&id, self.head.height) {
            return Ok(unusable);
        }
        let key = match self.key_of(&id).await {
            Ok(key) => key,
            Err(e) if e.names_no_account() || e.names_no_actor() => {
                return Ok(self.passed_over(id, id, format!("{id} is no account with a key: {e}")));
            }
            Err(e) => return self.not_told(id, id, purpose, e),
        };
        if !self.engine.memory.has_key(&key) {
            match self.engine.wallet.has_key(&key).await {
                Ok(true) => self.engine.memory.set_has_key(key),
                Ok(false) => return Ok(self.passed_over(id, key, format!("the wallet has no key of {id}"))),
                Err(e) => return self.not_told(id, key, purpose, e),
            }
        }
        if let Err(e) = self.line(&key).await {
            return self.not_told(id, key, purpose, e);
        }
        if let Err(why) = self.engine.next_nonce(&key)? {
            self.alert(format!("nonce {key}"), why.clone());
            return Ok(self.passed_over(id, key, why));
        }
        let reserve = match named || purpose == Purpose::Proving {
            true => TokenAmount::zero(),
            false => self.reserve(&id, &key),
        };
        let line = &self.lines[&key];
        let available = (line.available() - reserve).max(TokenAmount::zero());
        // Sealing waits in a line that stands; it does not turn to the owner's money.
        let is_free = purpose != Purpose::Proving || line.is_free(&self.base_fee);
        Ok(Candidate { id, key, available, cannot: None, is_free })
    }

    fn passed_over(&self, id: Address, key: Address, why: String) -> Candidate {
        let candidate = Candidate { id, key, available: TokenAmount::zero(), cannot: Some(why), is_free: false };
        self.engine.memory.pass_over(candidate.clone(), self.head.height);
        candidate
    }

    /// A node's refusal that says nothing of the address. Proving takes the next address; the others wait a head rather than
    /// spend from an address that is not theirs.
    fn not_told(&self, id: Address, key: Address, purpose: Purpose, e: FullNodeError) -> Result<Candidate, Held> {
        match (purpose, e) {
            (Purpose::Proving, e @ FullNodeError::Rpc { .. }) => {
                Ok(self.passed_over(id, key, format!("{id} cannot be looked up now: {e}")))
            }
            (_, e) => Err(e.into()),
        }
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
