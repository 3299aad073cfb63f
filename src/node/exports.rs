//! The exports to other nodes: each concern's messages, in one place.

use super::api_views::TreeSnapshot;
use super::concern::Concern;
use super::refs::Refs;
use crate::actors::daemon_link::messages::{FeedInfo, PoolInfo};
use crate::actors::deal_handler::MarketInfo;
use crate::actors::f3::messages::F3Status;
use crate::actors::message_sender::messages::{
    Cancel as CancelMessage, Enqueue, ListMessages, Pending, Replace as ReplaceMessage, Status as MessageStatus,
    Summary as MessageSummary, Withdraw,
};
use crate::actors::seal_scheduler::messages::{
    List, Pledge, Remove, Status as SectorStatus, Summary as SealingSummary, Tasks as SealingTasks,
};
use crate::actors::sector_allocator::messages::{Allocate, Allocated, Free, Reserve, ReserveCount};
use crate::actors::window_post::messages::{WindowPostInfo, WindowPostSummary};
use crate::actors::winning_post::messages::WinningInfo;
use crate::supervisor::{Export, ExportError};

pub fn export(concern: Concern, refs: &Refs) -> Result<Export, ExportError> {
    match concern {
        Concern::MessageSender => Export::of(&refs.messages)
            .message::<Enqueue>()
            .message::<Withdraw>()
            .message::<MessageStatus>()
            .message::<Pending>()
            .message::<MessageSummary>()
            .message::<ListMessages>()
            .message::<ReplaceMessage>()
            .message::<CancelMessage>()
            .done(),
        Concern::WindowPost => {
            Export::of(&refs.window_post).message::<WindowPostInfo>().message::<WindowPostSummary>().done()
        }
        Concern::WinningPost => Export::of(&refs.winning_post).message::<WinningInfo>().done(),
        Concern::Allocator => Export::of(&refs.allocator)
            .message::<Allocate>()
            .message::<Allocated>()
            .message::<Reserve>()
            .message::<ReserveCount>()
            .message::<Free>()
            .done(),
        Concern::SealScheduler => Export::of(&refs.sealing)
            .message::<Pledge>()
            .message::<List>()
            .message::<SectorStatus>()
            .message::<SealingSummary>()
            .message::<SealingTasks>()
            .message::<Remove>()
            .done(),
        Concern::DealHandler => Export::of(&refs.market).message::<MarketInfo>().done(),
    }
}

/// The actors that run under a concern's lease beside it.
pub fn beside(refs: &Refs) -> Result<[(Concern, Export); 1], ExportError> {
    Ok([(Concern::WinningPost, Export::of(&refs.f3).message::<F3Status>().done()?)])
}

/// The actors that every node has for itself.
pub fn of_node(refs: &Refs) -> Result<[Export; 3], ExportError> {
    Ok([
        Export::of(&refs.info).message::<TreeSnapshot>().done()?,
        Export::of(&refs.feed).message::<FeedInfo>().done()?,
        Export::of(&refs.pool).message::<PoolInfo>().done()?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Address;

    #[test]
    fn every_concern_takes_its_messages_under_its_own_path() {
        let miner = Address::new_id(1000);
        let refs = Refs::new(&miner, Some("host-a"));
        for concern in Concern::ALL {
            let export = export(concern, &refs).unwrap();
            assert_eq!(**export.path(), concern.path(&miner, Some("host-a")));
            assert!(export.messages().count() > 0, "{concern:?}");
        }
    }
}
