//! A node's end of the cluster: its bridge, its directory, and the concerns' state in the cluster's store.
//!
//! * [`bridge`], [`directory`] — actors that start each and show how it is; what they start outlives them where it can.
//! * [`crate::node::reconciler`] decides with both what runs here, and where everything else is.

pub mod bridge;
pub mod directory;

use super::concern::Concern;
use super::exports;
use super::lease_slot::LeaseSlots;
use super::settings::ClusterSettings;
use crate::chain::Address;
use crate::node::refs::Refs;
use crate::rpc::bridge::{Bridge, EpochGate};
use crate::rpc::directory::Directory;
use crate::rpc::directory::placement::{Placement, Wanted};
use crate::store::Store;
use arc_swap::ArcSwapOption;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The state that the actors of the group share.
pub struct Net {
    pub settings: ClusterSettings,
    pub repo: PathBuf,
    pub miner: Address,
    pub boot: u64,
    /// The number by which other nodes' bridges tell this process from its predecessors.
    pub start: u64,
    pub bridge: ArcSwapOption<Bridge>,
    pub directory: ArcSwapOption<ConnectedDirectory>,
    pub placement: Placement,
    /// The leases that this node holds.
    slots: LeaseSlots,
    stores: BTreeMap<Concern, Store>,
}

/// A directory that is connected.
pub struct ConnectedDirectory(pub Arc<dyn Directory>);

impl Net {
    pub fn new(
        settings: ClusterSettings,
        repo: PathBuf,
        miner: Address,
        boot: u64,
        start: u64,
        stores: BTreeMap<Concern, Store>,
        slots: LeaseSlots,
    ) -> Net {
        let wanted = |concern: Concern| -> Wanted { concern.wanted(&miner, &settings.node) };
        let placement = Placement {
            concerns: Concern::ALL.map(wanted).into(),
            prefer: settings.placement.clone(),
            ..Placement::default()
        };
        Net {
            settings,
            repo,
            miner,
            boot,
            start,
            bridge: ArcSwapOption::empty(),
            directory: ArcSwapOption::empty(),
            placement,
            slots,
            stores,
        }
    }

    /// The epoch under which other nodes may reach the concern.
    fn gate(&self, concern: Concern) -> EpochGate {
        self.slots.get(concern).map_or_else(EpochGate::none, |slot| EpochGate::of(slot.clone()))
    }

    /// The store of the concern's state.
    pub fn store(&self, concern: Concern) -> Option<Store> {
        self.stores.get(&concern).cloned()
    }

    /// Lets other nodes reach every concern, while it is held here.
    pub fn export(&self, bridge: &Bridge, refs: &Refs) -> Result<(), crate::supervisor::ExportError> {
        for concern in Concern::ALL {
            bridge.export(exports::export(concern, refs)?, self.gate(concern));
        }
        for (concern, export) in exports::beside(refs)? {
            bridge.export(export, self.gate(concern));
        }
        bridge.export(crate::actors::storage::export(&refs.storage).done()?, EpochGate::none());
        // Under no lease: they are this node's own.
        for own in exports::of_node(refs)? {
            bridge.export(own, EpochGate::none());
        }
        Ok(())
    }
}
