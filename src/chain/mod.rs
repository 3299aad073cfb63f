//! The Filecoin domain without I/O: types and arithmetic. Imports nothing of ours.
//!
//! * [`lotus_json`] — serde adaptors for the JSON shapes that Lotus gives CIDs, big integers, bitfields, bytes.
//! * [`compact`] — serde adaptors for encodings that do not describe themselves.
//! * [`cbor`] — the chain's own encoding of messages and block headers, and their CIDs.
//! * [`miner_messages`] — the messages of a provider: methods and params.
//! * [`proof_types`] — sector sizes and the numbers of their proof types.
//! * [`deadlines`], [`election`], [`randomness`] — the network's arithmetic that both sides of a proof need.
//! * [`network`] — which prefix addresses have in this process.
//! * [`types`] — what a full node tells and takes: tipsets, miner state, messages, blocks.

pub mod cbor;
pub mod compact;
pub mod deadlines;
pub mod election;
pub mod f3;
pub mod lotus_json;
mod message_json;
pub mod miner_messages;
pub mod network;
pub mod network_rules;
pub mod proof_types;
pub mod randomness;
pub mod types;

pub use fvm_shared::address::Address;
pub use fvm_shared::clock::ChainEpoch;
pub use fvm_shared::econ::TokenAmount;
pub use fvm_shared::sector::SectorNumber;
