//! The base fee: what it is on the next tipset (FIP-0115; lotus `chain/store/basefee.go`), and what a test makes of it.

use super::core::Core;
use super::error::ChainResult;
use super::genesis::BASE_FEE;
use super::mempool::BLOCK_GAS_LIMIT;
use crate::chain::types::{Message, TipSet};
use fvm_shared::econ::TokenAmount;
use num_traits::Zero;
use std::cmp::{max, min};

/// The base fee changes by at most an eighth an epoch.
const MAX_CHANGE: u64 = 8;
/// The gas at which the premium is looked up, counted from the highest premium down: the 20th percentile of a full block.
const PERCENTILE: u64 = BLOCK_GAS_LIMIT / 100 * 80 - 1;
/// Epochs of highest rise that an estimated fee cap leaves room for (lotus `GasEstimateFeeCap`, 10 blocks).
const ROOM_EPOCHS: u32 = 10;

fn minimum() -> TokenAmount {
    TokenAmount::from_atto(BASE_FEE)
}

/// The next base fee. `paid`: each message's premium above the base fee, in attoFIL, and its gas limit.
fn next(base_fee: &TokenAmount, mut paid: Vec<(TokenAmount, u64)>) -> TokenAmount {
    paid.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut gas = 0u64;
    let premium = paid.into_iter().find_map(|(premium, limit)| {
        gas = gas.saturating_add(limit);
        (gas > PERCENTILE).then_some(premium)
    });
    let most = (base_fee + TokenAmount::from_atto(MAX_CHANGE - 1)).div_floor(MAX_CHANGE);
    let change = min(most.clone(), premium.unwrap_or_default() - most);
    max(minimum(), base_fee + change)
}

/// The amount that a message pays above the base fee.
fn effective_premium(m: &Message, base_fee: &TokenAmount) -> TokenAmount {
    let room = &m.gas_fee_cap - base_fee;
    max(TokenAmount::zero(), min(m.gas_premium.clone(), room))
}

/// A fee cap for a message that may have to wait.
pub fn with_room(base_fee: &TokenAmount) -> TokenAmount {
    let grown = base_fee.atto() * (MAX_CHANGE + 1).pow(ROOM_EPOCHS) / MAX_CHANGE.pow(ROOM_EPOCHS);
    TokenAmount::from_atto(grown)
}

impl Core {
    /// The base fee of the blocks on `ts`, which a test may hold at a figure.
    pub fn base_fee_after(&self, ts: &TipSet) -> ChainResult<TokenAmount> {
        if let Some(held) = &self.switches.base_fee {
            return Ok(max(minimum(), held.clone()));
        }
        let base_fee = &ts.min_ticket_block().parent_base_fee;
        let messages = self.messages_of(ts)?;
        let paid = messages.iter().map(|(_, m)| (effective_premium(m, base_fee), m.gas_limit.max(0) as u64));
        Ok(next(base_fee, paid.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atto(n: u64) -> TokenAmount {
        TokenAmount::from_atto(n)
    }

    #[test]
    fn the_base_fee_moves_by_an_eighth_at_most() {
        let full = PERCENTILE + 1;
        for (base, paid, want) in [
            // Nothing pays: down by an eighth, not below the minimum.
            (1_000, vec![], 875),
            (100, vec![], 100),
            (101, vec![], 100),
            // Blocks that are not four fifths full push nothing, whatever they pay.
            (1_000, vec![(1_000_000, full - 1)], 875),
            (1_000, vec![(1_000_000, full)], 1_125),
            // A premium of a quarter of the base fee and more is a full rise, an eighth of it holds the fee.
            (1_000, vec![(250, full)], 1_125),
            (1_000, vec![(125, full)], 1_000),
            (1_000, vec![(126, full)], 1_001),
            (1_000, vec![(0, full)], 875),
            // The cheapest of the dearest four fifths counts.
            (1_000, vec![(130, 10), (1_000_000, full - 10)], 1_005),
            (1_001, vec![(1_000_000, full)], 1_127),
        ] {
            let premiums = paid.iter().map(|(premium, limit)| (atto(*premium), *limit)).collect();
            assert_eq!(next(&atto(base), premiums), atto(want), "{base} {paid:?}");
        }
    }

    #[test]
    fn a_fee_cap_has_room_for_ten_epochs_of_rise() {
        let mut grown = atto(1_000_000);
        for _ in 0..ROOM_EPOCHS {
            grown = next(&grown, vec![(atto(1_000_000_000), PERCENTILE + 1)]);
        }
        let room = with_room(&atto(1_000_000));
        assert!(room <= grown && room > atto(3_200_000), "{room} {grown}");
    }
}
