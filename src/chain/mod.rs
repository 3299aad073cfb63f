//! The Filecoin domain without I/O: types and arithmetic. Imports nothing of ours.
//!
//! * [`lotus_json`] — serde adaptors for the JSON shapes that Lotus gives CIDs, big integers, bitfields, bytes.
//! * [`miner_messages`] — the messages of a provider as CBOR, and message CIDs.
//! * [`types`] — what a full node tells and takes: tipsets, miner state, messages, blocks.
//! * [`election`], [`randomness`] — who may make a block; how randomness is drawn.

pub mod deadlines;
pub mod election;
pub mod lotus_json;
pub mod miner_messages;
pub mod randomness;
pub mod types;

pub use fvm_shared::address::Address;
pub use fvm_shared::clock::ChainEpoch;
pub use fvm_shared::econ::TokenAmount;
pub use fvm_shared::sector::SectorNumber;
