//! Questions to a full node that take more than one call.

use super::{FullNode, Result};
use crate::chain::types::{SectorOnChainInfo, TipSetKey};
use fvm_ipld_bitfield::BitField;
use fvm_shared::address::Address;

/// The sectors of `numbers` that are on chain. A node refuses a whole list for one number that it does not know, so
/// a refused list is halved until the unknown numbers stand alone: about `2 · unknown · log2(numbers)` calls, one when all
/// are known.
pub async fn sectors_on_chain(
    node: &dyn FullNode,
    miner: &Address,
    numbers: &BitField,
    key: &TipSetKey,
) -> Result<Vec<SectorOnChainInfo>> {
    let mut found = Vec::new();
    let mut lists = vec![numbers.iter().collect::<Vec<u64>>()];
    while let Some(mut list) = lists.pop().filter(|list| !list.is_empty()) {
        // A part of a bitfield is never longer than the whole.
        let Ok(asked) = BitField::try_from_bits(list.iter().copied()) else { continue };
        match node.state_miner_sectors(miner, Some(&asked), key).await {
            Ok(sectors) => found.extend(sectors),
            Err(e) if e.names_unknown_sector() && list.len() == 1 => {}
            Err(e) if e.names_unknown_sector() => {
                let upper = list.split_off(list.len() / 2);
                lists.extend([list, upper]);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}
