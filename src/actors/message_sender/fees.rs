//! The fees that a message may pay, as pure functions: the first fee, when a fee is raised, and how far.
//!
//! A block pays the base fee from the cap first and the premium from what is left (FIP-0115 moves the base fee by at most
//! an eighth an epoch). A mempool takes another message of the same nonce only for a premium of at least
//! old x 1.10 + 1 (Lotus, Forest: `ReplaceByFeePercentageMinimum`); nodes raise by 1.25 of themselves.

use crate::chain::{ChainEpoch, TokenAmount};
use num_bigint::BigInt;
use num_traits::Zero;

/// attoFIL per unit of gas, and the units.
#[derive(Clone, Debug, PartialEq)]
pub struct Fee {
    pub cap: TokenAmount,
    pub premium: TokenAmount,
    pub limit: i64,
}

impl Fee {
    /// The most that the gas may cost: what a mempool wants to see on the sender's account.
    pub fn cost(&self) -> TokenAmount {
        self.cap.clone() * self.limit.max(0)
    }
}

/// Bounds on a message's fee.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Bound on fee cap x limit, from the message or the settings.
    pub max_fee: TokenAmount,
    /// The sender's balance without the message's value and without what its other open messages may cost.
    pub available: TokenAmount,
    /// Lotus' MaximizeFeeCap: the cap is the bound, and half of the balance at most, so that the next one is paid too.
    pub maximize: bool,
    pub base_fee: TokenAmount,
}

impl Bounds {
    fn most_cap(&self, limit: i64) -> BigInt {
        let cost = self.max_fee.clone().min(self.available.clone());
        (cost.atto() / limit.max(1)).max(BigInt::zero())
    }

    fn maximal(&self, limit: i64) -> BigInt {
        match self.maximize {
            true => self.max_fee.atto().min(&(self.available.atto() / 2)) / limit.max(1),
            false => BigInt::zero(),
        }
    }
}

/// Why no fee is possible: the message is not signed, because it would stand in front of others and could not be mined.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoFee {
    #[error("its fee is bounded at {}, which is below the base fee for its gas", fil(.0))]
    Bound(TokenAmount),
    #[error("its sender has {} to spend and the base fee alone is {}", fil(.has), fil(.needs))]
    Balance { has: TokenAmount, needs: TokenAmount },
}

/// Decimal FIL, for people.
pub fn fil(amount: &TokenAmount) -> String {
    format!("{amount} FIL")
}

/// The base fee for that much gas is within the bound.
pub fn may_pay(base_fee: &TokenAmount, limit: i64, max_fee: &TokenAmount) -> bool {
    base_fee.clone() * limit.max(1) <= *max_fee
}

/// A node's estimate, held within the bounds; not every node takes the bound itself. The flag: the balance lowered the cap.
pub fn first_fee(estimate: &Fee, bounds: &Bounds) -> Result<(Fee, bool), NoFee> {
    let limit = estimate.limit;
    let base_fee = bounds.base_fee.clone() * limit.max(1);
    if base_fee > bounds.max_fee {
        return Err(NoFee::Bound(bounds.max_fee.clone()));
    }
    if base_fee > bounds.available {
        return Err(NoFee::Balance { has: bounds.available.clone(), needs: base_fee });
    }
    let most = bounds.most_cap(limit);
    let wanted = estimate.cap.atto().max(&bounds.maximal(limit)).clone();
    let lowered = estimate.cost().min(bounds.max_fee.clone()) > bounds.available;
    let cap = wanted.min(most);
    let premium = estimate.premium.atto().min(&cap).clone();
    Ok((fee(cap, premium, limit), lowered))
}

/// How much a message matters now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    Ordinary,
    /// A WindowPoSt, or a message in front of one: epochs until its deadline closes.
    Closes(ChainEpoch),
}

impl Urgency {
    pub fn of(closes: Option<ChainEpoch>, head: ChainEpoch) -> Urgency {
        match closes {
            Some(closes) if closes > head => Urgency::Closes(closes - head),
            _ => Urgency::Ordinary,
        }
    }

    /// Times which a fresh estimate's premium is offered: blocks are filled by what they earn.
    pub fn factor(self) -> u8 {
        match self {
            Urgency::Ordinary => 1,
            Urgency::Closes(left) if left > 20 => 1,
            Urgency::Closes(left) if left > 8 => 2,
            Urgency::Closes(_) => 4,
        }
    }
}

/// A signed message at a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    /// Epochs since its latest bytes were signed.
    pub epochs: ChainEpoch,
    /// Its cap is below the base fee: no block can take it.
    pub under_base_fee: bool,
    /// Its nonce is the sender's next on chain.
    pub is_next: bool,
    pub urgency: Urgency,
}

/// Whether it is time to raise a fee. `patience`: epochs that an ordinary message waits.
pub fn is_due(waits: &Waits, patience: ChainEpoch) -> bool {
    // A message behind others waits for them, unless its own fee could not be mined either.
    let alone = waits.is_next || waits.under_base_fee;
    match waits.urgency {
        Urgency::Ordinary => alone && waits.epochs >= patience,
        Urgency::Closes(_) if waits.under_base_fee => waits.epochs >= 1,
        Urgency::Closes(left) => waits.is_next && waits.epochs >= (left / 6).clamp(2, patience.max(2)),
    }
}

/// Why a fee is not raised.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoRaise {
    #[error("its fee is at the bound of {}", fil(.0))]
    Bound(TokenAmount),
    #[error("its fee is at what its sender can pay, {}", fil(.0))]
    Balance(TokenAmount),
}

/// A replacement's fee: a fresh estimate's, and at least what a mempool asks of a replacement. `bounds.available` counts
/// what the old version may cost as available.
pub fn raised(old: &Fee, fresh: &Fee, bounds: &Bounds, urgency: Urgency) -> Result<Fee, NoRaise> {
    let limit = fresh.limit;
    let least: BigInt = old.premium.atto() * 110u8 / 100u8 + 1u8;
    let raise: BigInt = (old.premium.atto() * 125u8 + 99u8) / 100u8 + 1u8;
    let most = bounds.most_cap(limit);
    let premium: BigInt = raise.max(fresh.premium.atto() * urgency.factor()).min(most.clone());
    if premium < least || most < *bounds.base_fee.atto() {
        return Err(match bounds.available < bounds.max_fee {
            true => NoRaise::Balance(bounds.available.clone()),
            false => NoRaise::Bound(bounds.max_fee.clone()),
        });
    }
    let mineable: BigInt = bounds.base_fee.atto() + &premium;
    let cap = fresh.cap.atto().clone().max(old.cap.atto().clone()).max(mineable).max(bounds.maximal(limit)).min(most);
    Ok(fee(cap, premium, limit))
}

fn fee(cap: BigInt, premium: BigInt, limit: i64) -> Fee {
    Fee { cap: TokenAmount::from_atto(cap), premium: TokenAmount::from_atto(premium), limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(n: u64) -> TokenAmount {
        TokenAmount::from_atto(n)
    }
    fn f(cap: u64, premium: u64) -> Fee {
        Fee { cap: t(cap), premium: t(premium), limit: 1000 }
    }
    fn bounds(max_fee: u64, available: u64, base_fee: u64) -> Bounds {
        Bounds { max_fee: t(max_fee), available: t(available), maximize: false, base_fee: t(base_fee) }
    }

    #[test]
    fn an_estimate_stays_within_the_bound_and_the_balance() {
        let rich = 1_000_000_000;
        for (estimate, bounds, want) in [
            (f(100, 10), bounds(99_999, rich, 50), Ok((f(99, 10), false))),
            (f(100, 10), bounds(100_000, rich, 50), Ok((f(100, 10), false))),
            (f(100, 10), bounds(100_001, rich, 50), Ok((f(100, 10), false))),
            (f(100, 100), bounds(50_000, rich, 50), Ok((f(50, 50), false))),
            (f(100, 200), bounds(1_000_000, rich, 50), Ok((f(100, 100), false))),
            // below the base fee: not signed
            (f(100, 10), bounds(49_999, rich, 50), Err(NoFee::Bound(t(49_999)))),
            (f(100, 10), bounds(50_000, rich, 50), Ok((f(50, 10), false))),
            // the balance lowers the cap down to the base fee, and no further
            (f(100, 10), bounds(200_000, 100_000, 50), Ok((f(100, 10), false))),
            (f(100, 10), bounds(200_000, 99_999, 50), Ok((f(99, 10), true))),
            (f(100, 10), bounds(200_000, 50_000, 50), Ok((f(50, 10), true))),
            (f(100, 10), bounds(200_000, 49_999, 50), Err(NoFee::Balance { has: t(49_999), needs: t(50_000) })),
        ] {
            assert_eq!(first_fee(&estimate, &bounds), want, "{estimate:?} {bounds:?}");
        }
    }

    #[test]
    fn a_maximized_cap_is_the_bound_and_leaves_half_of_the_balance() {
        for (available, cap) in [(10_000_000, 500), (1_000_000, 500), (999_999, 499), (300_000, 150), (150_000, 100)] {
            let maximal = Bounds { maximize: true, ..bounds(500_000, available, 50) };
            let (fee, _) = first_fee(&f(100, 10), &maximal).unwrap();
            assert_eq!(fee, f(cap, 10), "{available}");
        }
    }

    #[test]
    fn a_raise_is_what_a_mempool_asks_or_the_fresh_estimate_if_that_is_more() {
        let raise =
            |old: &Fee, fresh: &Fee, max_fee, urgency| raised(old, fresh, &bounds(max_fee, 1_000_000_000, 50), urgency);
        let (old, same) = (f(100, 10), f(100, 10));
        assert_eq!(raise(&old, &same, 1_000_000, Urgency::Ordinary), Ok(f(100, 14)));
        assert_eq!(raise(&old, &f(1000, 90), 10_000_000, Urgency::Ordinary), Ok(f(1000, 90)));
        // The bound holds: caps x limit.
        assert_eq!(raise(&old, &f(1000, 90), 500_000, Urgency::Ordinary), Ok(f(500, 90)));
        for (left, premium) in [(21, 90), (20, 180), (9, 180), (8, 360), (1, 360)] {
            let got = raise(&old, &f(1000, 90), 10_000_000, Urgency::Closes(left));
            assert_eq!(got, Ok(f(1000, premium)), "{left} left");
        }
        // The least raise is 1.10 + 1, where the bound leaves no more.
        for (max_fee, want) in [
            (110_999, Err(NoRaise::Bound(t(110_999)))),
            (111_000, Ok(f(111, 111))),
            (126_000, Ok(f(126, 126))),
            (127_000, Ok(f(127, 126))),
        ] {
            assert_eq!(raise(&f(100, 100), &f(100, 100), max_fee, Urgency::Ordinary), want, "{max_fee}");
        }
        let zero = raise(&f(0, 0), &f(50, 0), 1_000_000, Urgency::Ordinary).unwrap();
        assert!(zero.premium > t(0), "a zero premium can be raised too");
        let poor = raised(&old, &f(1000, 90), &bounds(1_000_000, 49_999, 50), Urgency::Ordinary);
        assert_eq!(poor, Err(NoRaise::Balance(t(49_999))));
    }

    #[test]
    fn the_urgent_is_raised_early_and_the_ordinary_late() {
        let waits = |epochs, under_base_fee, is_next, urgency| Waits { epochs, under_base_fee, is_next, urgency };
        for (case, due) in [
            (waits(9, false, true, Urgency::Ordinary), false),
            (waits(10, false, true, Urgency::Ordinary), true),
            (waits(100, false, false, Urgency::Ordinary), false),
            (waits(9, true, false, Urgency::Ordinary), false),
            (waits(10, true, false, Urgency::Ordinary), true),
            (waits(0, true, false, Urgency::Closes(50)), false),
            (waits(1, true, false, Urgency::Closes(50)), true),
            (waits(7, false, true, Urgency::Closes(50)), false),
            (waits(8, false, true, Urgency::Closes(50)), true),
            (waits(9, false, true, Urgency::Closes(90)), false),
            (waits(10, false, true, Urgency::Closes(90)), true),
            (waits(1, false, true, Urgency::Closes(5)), false),
            (waits(2, false, true, Urgency::Closes(5)), true),
            (waits(50, false, false, Urgency::Closes(5)), false),
        ] {
            assert_eq!(is_due(&case, 10), due, "{case:?}");
        }
        assert_eq!(Urgency::of(Some(10), 9), Urgency::Closes(1));
        assert_eq!(Urgency::of(Some(10), 10), Urgency::Ordinary);
        assert_eq!(Urgency::of(None, 10), Urgency::Ordinary);
    }
}
