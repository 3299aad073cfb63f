//! Blocks and messages as CBOR, and their CIDs: what is hashed and signed on the network.

use super::error::{ChainError, ChainResult};
use super::keys;
use super::store::ChainStore;
use crate::chain::types::{
    BeaconEntry, BlockHeader, ElectionProof, Message, PoStProof, Signature, SignedMessage, Ticket, TipSet, TipSetKey,
};
use cid::Cid;
use fvm_ipld_amt::Amtv0;
use fvm_ipld_encoding::tuple::*;
use fvm_ipld_encoding::{CborStore, DAG_CBOR, RawBytes, strict_bytes};
use fvm_shared::address::Address;
use fvm_shared::bigint::{BigInt, bigint_ser};
use fvm_shared::clock::ChainEpoch;
use fvm_shared::econ::TokenAmount;
use fvm_shared::message::Message as FvmMessage;
use fvm_shared::sector::PoStProof as FvmPoStProof;
use multihash_codetable::{Code, MultihashDigest};

#[derive(Serialize_tuple, Deserialize_tuple)]
struct BytesTuple {
    #[serde(with = "strict_bytes")]
    bytes: Vec<u8>,
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct ElectionTuple {
    win_count: i64,
    #[serde(with = "strict_bytes")]
    vrf_proof: Vec<u8>,
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct BeaconTuple {
    round: u64,
    #[serde(with = "strict_bytes")]
    data: Vec<u8>,
}

#[derive(Serialize_tuple, Deserialize_tuple)]
struct HeaderTuple {
    miner: Address,
    ticket: Option<BytesTuple>,
    election_proof: Option<ElectionTuple>,
    beacon_entries: Vec<BeaconTuple>,
    win_post_proof: Vec<FvmPoStProof>,
    parents: Vec<Cid>,
    #[serde(with = "bigint_ser")]
    parent_weight: BigInt,
    height: ChainEpoch,
    parent_state_root: Cid,
    parent_message_receipts: Cid,
    messages: Cid,
    bls_aggregate: Option<fvm_shared::crypto::signature::Signature>,
    timestamp: u64,
    block_sig: Option<fvm_shared::crypto::signature::Signature>,
    fork_signaling: u64,
    parent_base_fee: TokenAmount,
}

/// The block's messages: one array of CIDs for each signature type.
#[derive(Serialize_tuple, Deserialize_tuple)]
struct TxMeta {
    bls: Cid,
    secp256k1: Cid,
}

/// A secp256k1 message is stored with its signature, a BLS one without: its signature is in the aggregate.
#[derive(Serialize_tuple, Deserialize_tuple)]
struct SignedTuple {
    message: FvmMessage,
    signature: fvm_shared::crypto::signature::Signature,
}

pub fn cid_of(bytes: &[u8]) -> Cid {
    Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(bytes))
}

fn to_fvm_signature(s: &Signature) -> ChainResult<fvm_shared::crypto::signature::Signature> {
    use fvm_shared::crypto::signature::Signature as Fvm;
    match s.kind {
        keys::SECP256K1 => Ok(Fvm::new_secp256k1(s.data.clone())),
        keys::BLS => Ok(Fvm::new_bls(s.data.clone())),
        other => Err(ChainError::refused(format!("unknown signature type {other}"))),
    }
}

fn from_fvm_signature(s: fvm_shared::crypto::signature::Signature) -> Signature {
    Signature { kind: s.sig_type as u8, data: s.bytes }
}

pub fn header_bytes(h: &BlockHeader) -> ChainResult<Vec<u8>> {
    let signature = |s: &Option<Signature>| s.as_ref().map(to_fvm_signature).transpose();
    let tuple = HeaderTuple {
        miner: h.miner,
        ticket: h.ticket.as_ref().map(|t| BytesTuple { bytes: t.vrf_proof.clone() }),
        election_proof: h
            .election_proof
            .as_ref()
            .map(|e| ElectionTuple { win_count: e.win_count, vrf_proof: e.vrf_proof.clone() }),
        beacon_entries: h.beacon_entries.iter().map(|b| BeaconTuple { round: b.round, data: b.data.clone() }).collect(),
        win_post_proof: h
            .win_post_proof
            .iter()
            .map(|p| FvmPoStProof { post_proof: p.post_proof.into(), proof_bytes: p.proof_bytes.clone() })
            .collect(),
        parents: h.parents.clone(),
        parent_weight: h.parent_weight.clone(),
        height: h.height,
        parent_state_root: h.parent_state_root,
        parent_message_receipts: h.parent_message_receipts,
        messages: h.messages,
        bls_aggregate: signature(&h.bls_aggregate)?,
        timestamp: h.timestamp,
        block_sig: signature(&h.block_sig)?,
        fork_signaling: h.fork_signaling,
        parent_base_fee: h.parent_base_fee.clone(),
    };
    fvm_ipld_encoding::to_vec(&tuple).map_err(|e| ChainError::refused(format!("block header: {e}")))
}

pub fn header_from_bytes(bytes: &[u8]) -> ChainResult<BlockHeader> {
    let t: HeaderTuple = fvm_ipld_encoding::from_slice(bytes)?;
    Ok(BlockHeader {
        miner: t.miner,
        ticket: t.ticket.map(|t| Ticket { vrf_proof: t.bytes }),
        election_proof: t.election_proof.map(|e| ElectionProof { win_count: e.win_count, vrf_proof: e.vrf_proof }),
        beacon_entries: t.beacon_entries.into_iter().map(|b| BeaconEntry { round: b.round, data: b.data }).collect(),
        win_post_proof: t
            .win_post_proof
            .into_iter()
            .map(|p| PoStProof { post_proof: p.post_proof.into(), proof_bytes: p.proof_bytes })
            .collect(),
        parents: t.parents,
        parent_weight: t.parent_weight,
        height: t.height,
        parent_state_root: t.parent_state_root,
        parent_message_receipts: t.parent_message_receipts,
        messages: t.messages,
        bls_aggregate: t.bls_aggregate.map(from_fvm_signature),
        timestamp: t.timestamp,
        block_sig: t.block_sig.map(from_fvm_signature),
        fork_signaling: t.fork_signaling,
        parent_base_fee: t.parent_base_fee,
    })
}

pub fn header_cid(h: &BlockHeader) -> ChainResult<Cid> {
    Ok(cid_of(&header_bytes(h)?))
}

/// The bytes that the worker signs: the header without its signature.
pub fn header_signing_bytes(h: &BlockHeader) -> ChainResult<Vec<u8>> {
    header_bytes(&BlockHeader { block_sig: None, ..h.clone() })
}

/// Sorts blocks by the hash of their ticket, as every node does, and puts them together.
pub fn tip_set(mut blocks: Vec<BlockHeader>) -> ChainResult<TipSet> {
    let hash = |b: &BlockHeader| {
        crate::chain::randomness::blake2b256(b.ticket.as_ref().map_or(&[][..], |t| t.vrf_proof.as_slice()))
    };
    blocks.sort_by_key(hash);
    let Some(height) = blocks.first().map(|b| b.height) else {
        return Err(ChainError::refused("a tipset has at least one block"));
    };
    let cids = blocks.iter().map(header_cid).collect::<ChainResult<_>>()?;
    Ok(TipSet { cids, blocks, height })
}

/// A tipset key as database key: its CIDs, each with its length.
pub fn key_bytes(key: &TipSetKey) -> Vec<u8> {
    fvm_ipld_encoding::to_vec(&key.0).unwrap_or_default()
}

pub fn key_from_bytes(bytes: &[u8]) -> ChainResult<TipSetKey> {
    Ok(TipSetKey(fvm_ipld_encoding::from_slice(bytes)?))
}

pub fn to_fvm(m: &Message) -> ChainResult<FvmMessage> {
    let gas_limit = u64::try_from(m.gas_limit)
        .map_err(|_| ChainError::refused(format!("gas limit {} is negative", m.gas_limit)))?;
    Ok(FvmMessage {
        version: m.version,
        from: m.from,
        to: m.to,
        sequence: m.nonce,
        value: m.value.clone(),
        method_num: m.method,
        params: RawBytes::new(m.params.clone()),
        gas_limit,
        gas_fee_cap: m.gas_fee_cap.clone(),
        gas_premium: m.gas_premium.clone(),
    })
}

pub fn from_fvm(m: &FvmMessage) -> Message {
    Message {
        version: m.version,
        to: m.to,
        from: m.from,
        nonce: m.sequence,
        value: m.value.clone(),
        gas_limit: m.gas_limit as i64,
        gas_fee_cap: m.gas_fee_cap.clone(),
        gas_premium: m.gas_premium.clone(),
        method: m.method_num,
        params: m.params.bytes().to_vec(),
    }
}

pub fn message_bytes(m: &Message) -> ChainResult<Vec<u8>> {
    fvm_ipld_encoding::to_vec(&to_fvm(m)?).map_err(|e| ChainError::refused(format!("message: {e}")))
}

/// The CID of the unsigned message: what is signed.
pub fn message_cid(m: &Message) -> ChainResult<Cid> {
    Ok(cid_of(&message_bytes(m)?))
}

pub fn signed_bytes(m: &SignedMessage) -> ChainResult<Vec<u8>> {
    let tuple = SignedTuple { message: to_fvm(&m.message)?, signature: to_fvm_signature(&m.signature)? };
    fvm_ipld_encoding::to_vec(&tuple).map_err(|e| ChainError::refused(format!("message: {e}")))
}

pub fn signed_from_bytes(bytes: &[u8]) -> ChainResult<SignedMessage> {
    let t: SignedTuple = fvm_ipld_encoding::from_slice(bytes)?;
    Ok(SignedMessage { message: from_fvm(&t.message), signature: from_fvm_signature(t.signature) })
}

/// How the chain calls a signed message: without the signature for BLS, with it for secp256k1.
pub fn signed_cid(m: &SignedMessage) -> ChainResult<Cid> {
    match m.signature.kind {
        keys::BLS => message_cid(&m.message),
        _ => Ok(cid_of(&signed_bytes(m)?)),
    }
}

/// Stores a message as a block refers to it.
pub fn put_message(store: &ChainStore, m: &SignedMessage) -> ChainResult<Cid> {
    use fvm_ipld_blockstore::Blockstore;
    let bytes = match m.signature.kind {
        keys::BLS => message_bytes(&m.message)?,
        _ => signed_bytes(m)?,
    };
    let cid = cid_of(&bytes);
    store.put_keyed(&cid, &bytes)?;
    Ok(cid)
}

/// The CIDs that a block's `Messages` field stands for.
pub fn put_messages(store: &ChainStore, bls: &[Cid], secp256k1: &[Cid]) -> ChainResult<Cid> {
    let array = |cids: &[Cid]| Amtv0::new_from_iter(store, cids.iter().copied()).map_err(ChainError::store);
    let meta = TxMeta { bls: array(bls)?, secp256k1: array(secp256k1)? };
    Ok(store.put_cbor(&meta, Code::Blake2b256)?)
}

/// The CIDs of a block's messages: BLS, then secp256k1.
pub fn block_messages(store: &ChainStore, messages: &Cid) -> ChainResult<(Vec<Cid>, Vec<Cid>)> {
    let meta: TxMeta = load(store, messages)?;
    let array = |root: &Cid| -> ChainResult<Vec<Cid>> {
        let amt = Amtv0::<Cid, _>::load(root, store).map_err(ChainError::store)?;
        let mut cids = Vec::new();
        amt.for_each(|_, c| {
            cids.push(*c);
            Ok(())
        })
        .map_err(ChainError::store)?;
        Ok(cids)
    };
    Ok((array(&meta.bls)?, array(&meta.secp256k1)?))
}

/// The message behind a CID of a block, signed or not.
pub fn load_message(store: &ChainStore, cid: &Cid) -> ChainResult<Message> {
    if let Ok(Some(m)) = store.get_cbor::<FvmMessage>(cid) {
        return Ok(from_fvm(&m));
    }
    Ok(from_fvm(&load::<SignedTuple>(store, cid)?.message))
}

/// An object that must be there.
pub fn load<T: serde::de::DeserializeOwned>(store: &ChainStore, cid: &Cid) -> ChainResult<T> {
    store.get_cbor(cid)?.ok_or_else(|| ChainError::refused(format!("blockstore: block not found: {cid}")))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
