//! Orders and reports over a full node that fails to answer about one account.

use super::*;
use crate::chain::types::TipSet;
use async_trait::async_trait;

type Answer<T> = crate::rpc::full_node::Result<T>;

/// Owner t0100 and worker t0101 have keys, control t0102 is a multisig; nothing is told of t0103.
struct Node;

fn failed_once(method: &'static str) -> FullNodeError {
    let message = "loading tipset: blockstore: block not found".into();
    FullNodeError::Rpc { node: "n".into(), method, code: 1, message }
}

fn info() -> MinerInfo {
    MinerInfo {
        owner: Address::new_id(100),
        worker: Address::new_id(101),
        new_worker: None,
        control_addresses: vec![Address::new_id(102), Address::new_id(103)],
        worker_change_epoch: -1,
        peer_id: None,
        multiaddrs: vec![],
        window_post_proof_type: 10,
        sector_size: 2048,
        window_post_partition_sectors: 2,
        consensus_fault_elapsed: -1,
        pending_owner_address: None,
        beneficiary: None,
    }
}

fn bls(n: u8) -> Address {
    Address::new_bls(&[n; 48]).unwrap()
}

#[async_trait]
impl FullNode for Node {
    fn name(&self) -> String {
        "n".into()
    }
    async fn chain_head(&self) -> Answer<TipSet> {
        Ok(TipSet { cids: vec![], blocks: vec![], height: 7 })
    }
    async fn state_miner_info(&self, _: &Address, _: &TipSetKey) -> Answer<MinerInfo> {
        Ok(info())
    }
    async fn state_lookup_id(&self, who: &Address, _: &TipSetKey) -> Answer<Address> {
        match who.id() {
            Ok(_) => Ok(*who),
            Err(_) => Err(failed_once("StateLookupID")),
        }
    }
    async fn state_account_key(&self, who: &Address, _: &TipSetKey) -> Answer<Address> {
        let text = "failed to get account actor state for t0102: actor code is not account: multisig";
        match who.id().unwrap() {
            102 => {
                Err(FullNodeError::Rpc { node: "n".into(), method: "StateAccountKey", code: 1, message: text.into() })
            }
            103 => Err(failed_once("StateAccountKey")),
            id => Ok(bls(id as u8)),
        }
    }
    async fn wallet_has(&self, _: &Address) -> Answer<bool> {
        Ok(true)
    }
    async fn wallet_balance(&self, _: &Address) -> Answer<TokenAmount> {
        Ok(TokenAmount::from_atto(5))
    }
}

#[tokio::test]
async fn a_failure_of_the_node_is_not_taken_for_an_account_without_a_key() {
    let multisig = look_up(&Node, &Address::new_id(102)).await.unwrap().unwrap();
    assert_eq!((multisig.key, multisig.in_wallet), (None, None));
    let e = look_up(&Node, &Address::new_id(103)).await.unwrap_err();
    assert!(e.to_string().contains("block not found"), "{e}");
    // So the order names the node's failure, not the account's kind.
    let order = Order::ProposeWorker { worker: "t0103".into() };
    let why = facts(&Node, &Address::new_id(1000), &order).await.err().unwrap().to_string();
    assert!(why.contains("block not found"), "{why}");
}

#[tokio::test]
async fn an_account_that_cannot_be_looked_up_takes_no_other_along() {
    let rules = AddressRules { pre_commit: vec![bls(9), Address::new_id(102)], ..AddressRules::default() };
    let report = report(&Node, &Address::new_id(1000), &rules).await.unwrap();
    let rows: Vec<_> = report.accounts.iter().map(|a| (a.name.as_str(), a.key.is_some(), a.error.is_some())).collect();
    assert_eq!(
        rows,
        [("owner", true, false), ("worker", true, false), ("control-0", false, false), ("control-1", false, true)]
    );
    assert_eq!(report.accounts[2].uses, ["precommit"]);
    assert!(report.warnings.len() == 1 && report.warnings[0].contains(&bls(9).to_string()), "{:?}", report.warnings);
}
