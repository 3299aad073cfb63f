//! Gas estimates: the message is run on a copy of the state that the next block will see.

use super::base_fee;
use super::core::Core;
use super::error::{ChainError, ChainResult};
use super::mempool::BLOCK_GAS_LIMIT;
use super::rand::ChainRand;
use super::vm::{Applied, Env, Vm};
use super::wire;
use crate::chain::types::{Message, TipSetKey};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use num_traits::Zero;

/// attoFIL per unit of gas that a message offers when it names none.
const DEFAULT_PREMIUM: u64 = 100_000;

impl Core {
    /// Runs a message after the sender's pending ones on the state after `key`; nothing is kept.
    pub fn simulate(&mut self, message: &Message, key: &TipSetKey) -> ChainResult<Applied> {
        self.check_verifier(message)?;
        let ts = self.find(key)?;
        if ts.height == self.settings.upgrade_epoch {
            return Err(expensive_fork(ts.height));
        }
        let root = self.executed(&ts)?.state;
        let rand = ChainRand::new(&self.store, &self.beacon, &ts);
        let env = Env { rand: &rand, ..self.read_env() };
        let mut vm = Vm::new(&self.store.scratch(), &root, env, ts.height + 1)?;
        let base_fee = self.base_fee_after(&ts)?;
        let from = vm.resolve(&message.from)?;
        let from =
            from.ok_or_else(|| ChainError::refused(format!("getting key address: actor not found: {}", message.from)))?;
        for pending in self.pool.of(from) {
            // What cannot be applied now cannot come before this message either.
            let _ = vm.apply(&wire::to_fvm(&pending.message)?, &base_fee);
        }
        let mut message = wire::to_fvm(message)?;
        message.sequence = vm.actor(from)?.sequence;
        message.gas_limit = BLOCK_GAS_LIMIT;
        message.gas_fee_cap = TokenAmount::zero();
        message.gas_premium = TokenAmount::zero();
        vm.apply(&message, &base_fee).map_err(|e| ChainError::refused(format!("message execution failed: {}", e.msg())))
    }

    /// Fills the limit, the fee cap and the premium where the message leaves them out.
    pub fn estimate(&mut self, message: &Message, max_fee: &TokenAmount, key: &TipSetKey) -> ChainResult<Message> {
        if self.switches.refuse_gas {
            return Err(ChainError::refused("estimating gas used: the devnet was told to refuse gas estimates"));
        }
        let mut filled = message.clone();
        if filled.gas_limit == 0 {
            let applied = self.simulate(message, key)?;
            let code = applied.receipt.exit_code;
            if !code.is_success() {
                return Err(ChainError::refused(format!(
                    "estimating gas used: message execution failed: exit {}, reason: {}",
                    exit_text(code.value()),
                    applied.error.unwrap_or_default()
                )));
            }
            filled.gas_limit = (applied.receipt.gas_used as i64 * 5 / 4).min(BLOCK_GAS_LIMIT as i64);
        }
        if filled.gas_premium.is_zero() {
            filled.gas_premium = TokenAmount::from_atto(DEFAULT_PREMIUM);
        }
        if filled.gas_fee_cap.is_zero() {
            // As Lotus, from the tipset's own base fee: the next one may be higher.
            let base_fee = self.find(key)?.min_ticket_block().parent_base_fee.clone();
            filled.gas_fee_cap = base_fee::with_room(&base_fee) + &filled.gas_premium;
        }
        cap_fee(&mut filled, max_fee);
        Ok(filled)
    }
}

/// Lotus (`chain/stmgr/call.go`) and Forest run no migration for a caller: a call on the tipset of an upgrade is refused.
fn expensive_fork(epoch: ChainEpoch) -> ChainError {
    const RESOURCE_UNAVAILABLE: i64 = -32002;
    let message =
        format!("required historical state unavailable: refusing explicit call due to state fork at epoch {epoch}");
    ChainError::Coded { code: RESOURCE_UNAVAILABLE, message }
}

/// Keeps fee cap × limit within `max_fee`; zero is no bound.
fn cap_fee(message: &mut Message, max_fee: &TokenAmount) {
    if max_fee.is_zero() || message.gas_limit <= 0 {
        return;
    }
    let most = max_fee.div_floor(message.gas_limit);
    if message.gas_fee_cap > most {
        message.gas_fee_cap = most;
    }
    if message.gas_premium > message.gas_fee_cap {
        message.gas_premium = message.gas_fee_cap.clone();
    }
}

/// `ErrIllegalArgument(16)`, as go-state-types prints exit codes.
fn exit_text(code: u32) -> String {
    let name = match code {
        0 => "Ok",
        1 => "SysErrSenderInvalid",
        2 => "SysErrSenderStateInvalid",
        5 => "SysErrInvalidReceiver",
        6 => "SysErrInsufficientFunds",
        7 => "SysErrOutOfGas",
        10 => "SysErrReserved1",
        16 => "ErrIllegalArgument",
        17 => "ErrNotFound",
        18 => "ErrForbidden",
        19 => "ErrInsufficientFunds",
        20 => "ErrIllegalState",
        21 => "ErrSerialization",
        22 => "ErrUnhandledMessage",
        23 => "ErrUnspecified",
        _ => return code.to_string(),
    };
    format!("{name}({code})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::address::Address;

    #[test]
    fn the_fee_bound_holds_at_its_boundary() {
        let message = |cap: u64, premium: u64| Message {
            version: 0,
            to: Address::new_id(1),
            from: Address::new_id(2),
            nonce: 0,
            value: TokenAmount::zero(),
            gas_limit: 10,
            gas_fee_cap: TokenAmount::from_atto(cap),
            gas_premium: TokenAmount::from_atto(premium),
            method: 0,
            params: vec![],
        };
        for (max, want) in [(0, (100, 50)), (1001, (100, 50)), (1000, (100, 50)), (999, (99, 50)), (300, (30, 30))] {
            let mut m = message(100, 50);
            cap_fee(&mut m, &TokenAmount::from_atto(max));
            let (cap, premium) = want;
            assert_eq!(m, message(cap, premium), "{max}");
        }
    }
}
