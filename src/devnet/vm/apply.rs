//! A message's frame: nonce, gas, value, dispatch, receipt; a failed message leaves nothing but its fee.

use super::super::error::ActorResult;
use super::super::state_tree::Kind;
use super::{Call, Vm, miner, power, returns};
use fil_actor_account_state::v19 as account;
use fil_actors_shared::actor_error_v19 as actor_error;
use fil_actors_shared::v19::{ActorError, BURNT_FUNDS_ACTOR_ID, REWARD_ACTOR_ID};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::METHOD_SEND;
use fvm_shared::econ::TokenAmount;
use fvm_shared::error::ExitCode;
use fvm_shared::message::Message;
use fvm_shared::receipt::Receipt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The outcome of a message.
#[derive(Debug, Clone)]
pub struct Applied {
    pub receipt: Receipt,
    /// Why the exit code is not 0.
    pub error: Option<String>,
    /// The reward of its block's miner.
    pub tip: TokenAmount,
}

/// Gas that a call uses; the figures that the network shows for such messages.
pub fn gas_of(kind: Option<Kind>, method: u64, params: &[u8]) -> u64 {
    let size = params.len() as u64 * 1_300;
    let base = match (kind, method) {
        (_, METHOD_SEND) => 500_000,
        (Some(Kind::Power), _) => 30_000_000,
        (Some(Kind::Miner), miner::PRE_COMMIT_BATCH2) => 13_000_000,
        (Some(Kind::Miner), miner::PROVE_COMMIT3) => 87_000_000,
        (Some(Kind::Miner), miner::SUBMIT_WINDOWED_POST) => 20_000_000,
        (Some(Kind::Miner), miner::DISPUTE_WINDOWED_POST) => 30_000_000,
        (Some(Kind::Miner), _) => 10_000_000,
        _ => 2_000_000,
    };
    base + size
}

impl Vm<'_> {
    /// Runs a message whose signature was checked. `Err`: no valid block contains it; nothing changed.
    pub fn apply(&mut self, message: &Message, base_fee: &TokenAmount) -> ActorResult<Applied> {
        let invalid = |code: ExitCode, why: String| Err(ActorError::unchecked(code, why));
        let Some(from) = self.resolve(&message.from)? else {
            return invalid(ExitCode::SYS_SENDER_INVALID, format!("sender {} does not exist", message.from));
        };
        let mut sender = self.actor(from)?;
        if Kind::of(&sender.code) != Some(Kind::Account) {
            return invalid(ExitCode::SYS_SENDER_INVALID, format!("sender {} is not an account", message.from));
        }
        if sender.sequence != message.sequence {
            let why = format!("nonce {} of {}, expected {}", message.sequence, message.from, sender.sequence);
            return invalid(ExitCode::SYS_SENDER_STATE_INVALID, why);
        }
        let locked = &message.gas_fee_cap * message.gas_limit;
        if sender.balance < locked {
            let why = format!("{} holds {}, gas may cost {locked}", message.from, sender.balance);
            return invalid(ExitCode::SYS_SENDER_STATE_INVALID, why);
        }
        sender.balance -= &locked;
        sender.sequence += 1;
        self.tree.set(from, sender);

        let before = self.tree.snapshot();
        let (gas_used, outcome) = self.run(from, message);
        let (exit_code, return_data, error) = match outcome {
            Ok(data) => (ExitCode::OK, data, None),
            Err(e) => {
                self.tree.roll_back(before);
                (e.exit_code(), RawBytes::default(), Some(e.msg().to_string()))
            }
        };
        let tip = self.charge(from, message, gas_used, base_fee, locked)?;
        let receipt = Receipt { exit_code, return_data, gas_used, events_root: None };
        Ok(Applied { receipt, error, tip })
    }

    /// Burns the base fee, hands the tip to the reward actor, gives the rest back.
    fn charge(
        &mut self,
        from: u64,
        message: &Message,
        gas_used: u64,
        base_fee: &TokenAmount,
        locked: TokenAmount,
    ) -> ActorResult<TokenAmount> {
        let fee_rate = std::cmp::min(base_fee, &message.gas_fee_cap).clone();
        let premium = std::cmp::min(message.gas_premium.clone(), &message.gas_fee_cap - &fee_rate);
        let burnt = fee_rate * gas_used;
        let tip = premium * message.gas_limit;
        let rest = locked - &burnt - &tip;
        for (id, amount) in [(from, &rest), (BURNT_FUNDS_ACTOR_ID, &burnt), (REWARD_ACTOR_ID, &tip)] {
            let mut actor = self.actor(id)?;
            actor.balance += amount;
            self.tree.set(id, actor);
        }
        Ok(tip)
    }

    fn run(&mut self, from: u64, message: &Message) -> (u64, ActorResult<RawBytes>) {
        let to = match self.account(&message.to) {
            Ok(to) => to,
            Err(e) => return (gas_of(None, METHOD_SEND, &[]).min(message.gas_limit), Err(e)),
        };
        let kind = self.kind(to).ok().flatten();
        let gas = gas_of(kind, message.method_num, message.params.bytes());
        if gas > message.gas_limit {
            let why = format!("out of gas: the message uses {gas}, its limit is {}", message.gas_limit);
            return (message.gas_limit, Err(ActorError::unchecked(ExitCode::SYS_OUT_OF_GAS, why)));
        }
        let call =
            Call { from, to, value: message.value.clone(), method: message.method_num, params: message.params.clone() };
        // The state crates assert what valid state implies: a panic is this message's failure, not the chain's.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.call(kind, &call)));
        let outcome = outcome.unwrap_or_else(|_| {
            let why = "the actor panicked".to_string();
            Err(ActorError::unchecked(ExitCode::SYS_ASSERTION_FAILED, why))
        });
        (gas, outcome)
    }

    fn call(&mut self, kind: Option<Kind>, call: &Call) -> ActorResult<RawBytes> {
        if !call.value.is_zero() {
            self.transfer(call.from, call.to, &call.value)?;
        }
        let Some(kind) = kind else {
            let why = format!("actor t0{} does not exist", call.to);
            return Err(ActorError::unchecked(ExitCode::SYS_INVALID_RECEIVER, why));
        };
        if call.method == METHOD_SEND {
            return Ok(RawBytes::default());
        }
        match kind {
            Kind::Miner => miner::call(self, call),
            Kind::Power => power::call(self, call),
            Kind::Account if call.method == account::Method::PubkeyAddress as u64 => {
                returns(&self.load::<account::State>(call.to)?.address)
            }
            Kind::System | Kind::Init | Kind::Cron | Kind::Market | Kind::Reward | Kind::Account => Err(actor_error!(
                unhandled_message,
                "method {} of the {} actor is not served here",
                call.method,
                kind.name()
            )),
        }
    }
}
