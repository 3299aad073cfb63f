//! The messages of one sender address that are signed and not final: its nonce line, and what they may cost.

use super::fees::Fee;
use crate::chain::{ChainEpoch, TokenAmount};

/// A signed message in its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub key: String,
    pub nonce: u64,
    pub fee: Fee,
    pub value: TokenAmount,
    pub proving: bool,
    /// Proving's only: the epoch at which its deadline closes.
    pub closes: Option<ChainEpoch>,
}

#[derive(Debug, Default)]
pub(super) struct Line {
    account: Option<Account>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Account {
    nonce: u64,
    balance: TokenAmount,
    pool_nonce: Option<u64>,
}

impl Line {
    pub fn put(&mut self, member: Member) {
        self.leave(&member.key);
        self.members.push(member);
    }

    pub fn leave(&mut self, key: &str) {
        self.members.retain(|member| member.key != key);
    }

    pub fn is_known(&self) -> bool {
        self.account.is_some()
    }

    pub fn know(&mut self, nonce: u64, balance: TokenAmount, pool_nonce: Option<u64>) {
        self.account = Some(Account { nonce, balance, pool_nonce });
    }

    /// The next nonce on chain; 0 while the account is not known.
    pub fn chain_nonce(&self) -> u64 {
        self.account.as_ref().map_or(0, |account| account.nonce)
    }

    /// The first nonce that the mempool does not hold; `None`: the node does not tell.
    pub fn pool_nonce(&self) -> Option<u64> {
        self.account.as_ref()?.pool_nonce
    }

    /// After something was pushed.
    pub fn set_pool_nonce(&mut self, pool_nonce: Option<u64>) {
        if let Some(account) = &mut self.account {
            account.pool_nonce = pool_nonce;
        }
    }

    pub fn balance(&self) -> TokenAmount {
        self.account.as_ref().map(|account| account.balance.clone()).unwrap_or_default()
    }

    fn waiting(&self) -> impl Iterator<Item = &Member> {
        let next = self.chain_nonce();
        self.members.iter().filter(move |member| member.nonce >= next)
    }

    /// The balance without what these messages may cost and carry.
    pub fn available(&self) -> TokenAmount {
        let spent = self.waiting().map(|member| member.fee.cost() + member.value.clone());
        (self.balance() - spent.sum::<TokenAmount>()).max(TokenAmount::default())
    }

    /// The same for a new version of that message: the one before is not paid.
    pub fn available_to(&self, key: &str) -> TokenAmount {
        let others = self.waiting().filter(|member| member.key != key);
        let spent = others.map(|member| member.fee.cost() + member.value.clone());
        let own = self.members.iter().find(|member| member.key == key).map(|member| member.value.clone());
        (self.balance() - spent.sum::<TokenAmount>() - own.unwrap_or_default()).max(TokenAmount::default())
    }

    /// No message of another purpose stands here that no block can take at this base fee.
    pub fn is_free(&self, base_fee: &TokenAmount) -> bool {
        self.waiting().all(|member| member.proving || member.fee.cap >= *base_fee)
    }

    /// The first deadline that closes on a message of proving behind that nonce.
    pub fn closes_behind(&self, nonce: u64) -> Option<ChainEpoch> {
        self.waiting().filter(|member| member.proving && member.nonce > nonce).filter_map(|member| member.closes).min()
    }

    fn is_ours(&self, nonce: u64) -> bool {
        self.members.iter().any(|member| member.nonce == nonce)
    }

    /// A nonce that ours wait for and that is none of ours: the first that the mempool lacks, else the first from the chain's
    /// next one on.
    pub fn in_front(&self) -> Option<u64> {
        let (chain, pool) = (self.chain_nonce(), self.pool_nonce()?);
        let waits = |nonce: &u64| *nonce >= chain && !self.is_ours(*nonce) && self.has_behind(*nonce);
        let first = (chain..).find(|nonce| !self.is_ours(*nonce));
        Some(pool).filter(waits).or(first.filter(waits))
    }

    /// Whether anything of ours waits behind that nonce.
    pub fn has_behind(&self, nonce: u64) -> bool {
        self.waiting().any(|member| member.nonce > nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_what_waits_and_sees_what_stands_behind() {
        let t = |n: u64| TokenAmount::from_atto(n);
        let member = |nonce, cap, closes: Option<ChainEpoch>| Member {
            key: format!("k{nonce}"),
            nonce,
            fee: Fee { cap: t(cap), premium: t(1), limit: 10 },
            value: t(3),
            proving: closes.is_some(),
            closes,
        };
        let mut line = Line::default();
        [member(4, 5, None), member(5, 5, None), member(6, 7, Some(90)), member(7, 7, Some(80))]
            .into_iter()
            .for_each(|member| line.put(member));
        line.know(5, t(300), Some(8));
        assert_eq!(line.available(), t(300 - 53 - 73 - 73), "nonce 4 is on chain");
        assert!(line.is_free(&t(5)) && !line.is_free(&t(6)));
        assert_eq!([4, 5, 6, 7].map(|nonce| line.closes_behind(nonce)), [Some(80), Some(80), Some(80), None]);
        assert!(line.has_behind(6) && !line.has_behind(7));
        line.put(Member { fee: Fee { cap: t(10), premium: t(1), limit: 10 }, ..member(5, 0, None) });
        assert!(line.is_free(&t(8)), "a new version takes the place of the one before");
        line.know(5, t(10), None);
        assert_eq!(line.available(), t(0));
        // Ours are 4, 5, 6 and 7.
        for (chain, pool, front) in [
            (3, Some(3), Some(3)), // nobody has 3
            (3, Some(4), Some(3)), // somebody else has it
            (3, Some(8), Some(3)),
            (4, Some(8), None),
            (5, Some(5), None), // ours, to be pushed again
            (8, Some(8), None),
            (3, None, None),
        ] {
            line.know(chain, t(10), pool);
            assert_eq!(line.in_front(), front, "{chain} {pool:?}");
        }
        line.leave("k6");
        for pool in [5, 6, 8] {
            line.know(5, t(10), Some(pool));
            assert_eq!(line.in_front(), Some(6), "7 waits for it: {pool}");
        }
    }
}
