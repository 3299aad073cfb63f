//! The balances of the miner and of its accounts.

use super::part;
use crate::chain::TokenAmount;
use crate::chain::types::TipSetKey;
use crate::node::backend::NodeBackend;
use crate::rpc::api::MinerBackend;
use std::collections::BTreeMap;

/// attoFIL of the miner's accounts; an account whose balance could not be had is left out, and the error told.
pub(super) async fn balances(node: &NodeBackend) -> (BTreeMap<String, String>, Option<String>) {
    let (full, miner, head) = (node.full_node(), node.miner(), TipSetKey::default());
    let (mut found, mut error) = (BTreeMap::new(), None);
    let mut take = |account: &str, answer: Result<TokenAmount, String>| match answer {
        Ok(amount) => drop(found.insert(account.to_string(), amount.atto().to_string())),
        Err(e) => error = Some(e),
    };
    let available = part("the miner's balance", full.state_miner_available_balance(&miner, &head));
    let funds = part("the miner's funds", full.state_miner_funds(&miner, &head));
    let info = part("the miner's accounts", full.state_miner_info(&miner, &head));
    let (available, funds, info) = tokio::join!(available, funds, info);
    take("miner_available", available);
    match funds {
        Ok(funds) => {
            take("miner_total", Ok(funds.balance));
            take("miner_pledge", Ok(funds.initial_pledge));
            take("miner_pre_commit", Ok(funds.pre_commit_deposits));
            take("miner_vesting", Ok(funds.vesting));
            take("miner_fee_debt", Ok(funds.fee_debt));
        }
        Err(e) => take("miner_total", Err(e)),
    }
    match info {
        Ok(info) => {
            let mut accounts = vec![("worker".to_string(), info.worker)];
            if info.owner != info.worker {
                accounts.push(("owner".to_string(), info.owner));
            }
            accounts.extend(info.control_addresses.iter().enumerate().map(|(i, c)| (format!("control-{i}"), *c)));
            let asked = accounts.iter().map(|(_, address)| part("a balance", full.wallet_balance(address)));
            let answers = futures::future::join_all(asked).await;
            accounts.iter().zip(answers).for_each(|((name, _), answer)| take(name, answer));
        }
        Err(e) => error = Some(e),
    }
    (found, error)
}
