//! The migration from actors v18 to v19 (FIP-0118; go-state-types `builtin/v19/migration`): code CIDs, and the states of the
//! market and of the reward actor.

use super::super::error::{ActorResult, ChainResult};
use super::super::state_tree::{ActorEntry, Actors, Kind};
use super::Vm;
use super::reward;
use fil_actor_market_state::{v18 as market18, v19 as market19};
use fvm_shared::ActorID;

/// Runs after the last epoch of network version 28, before anything of the next one.
pub fn migrate(vm: &mut Vm<'_>) -> ChainResult<()> {
    for id in vm.tree.ids()? {
        migrate_actor(vm, id)?;
    }
    tracing::info!(epoch = vm.epoch, "the chain's state is migrated to network version 29");
    Ok(())
}

fn migrate_actor(vm: &mut Vm<'_>, id: ActorID) -> ActorResult<()> {
    let actor = vm.actor(id)?;
    let Some((kind, Actors::V18)) = Kind::and_actors(&actor.code) else { return Ok(()) };
    let head = match kind {
        Kind::Market => {
            let old: market18::State = vm.load(id)?;
            vm.put(&market19::State {
                proposals: old.proposals,
                states: old.states,
                pending_proposals: old.pending_proposals,
                escrow_table: old.escrow_table,
                locked_table: old.locked_table,
                next_id: old.next_id,
                deal_ops_by_epoch: old.deal_ops_by_epoch,
                last_cron: old.last_cron,
                total_client_locked_collateral: old.total_client_locked_collateral,
                total_provider_locked_collateral: old.total_provider_locked_collateral,
                total_client_storage_fee: old.total_client_storage_fee,
                provider_sectors: old.provider_sectors,
            })?
        }
        Kind::Reward => reward::migrated(vm, id)?,
        // Their states keep their shapes.
        Kind::System | Kind::Init | Kind::Cron | Kind::Account | Kind::Power | Kind::Miner => actor.head,
    };
    vm.tree.set(id, ActorEntry { code: kind.code(Actors::V19), head, ..actor });
    Ok(())
}
