//! The chain's own encoding (DAG-CBOR tuples) of messages and block headers, and the CIDs over it.
//!
//! Field order and details: lotus `chain/types/cbor_gen.go`; a CID is CIDv1, dag-cbor, blake2b-256.

use super::types::{BlockHeader, Message, Signature, SignedMessage};
use cid::Cid;
use fvm_ipld_encoding::{BytesSer, DAG_CBOR, to_vec};
use fvm_shared::bigint::bigint_ser::BigIntSer;
use multihash_codetable::{Code, MultihashDigest};

/// A value that has no encoding (an integer that is too large for the chain).
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("this {what} has no encoding on the chain: {why}")]
pub struct EncodeError {
    what: &'static str,
    why: String,
}

fn encode(what: &'static str, value: &impl serde::Serialize) -> Result<Vec<u8>, EncodeError> {
    to_vec(value).map_err(|e| EncodeError { what, why: e.to_string() })
}

/// The CID of a DAG-CBOR block.
pub fn cid_of(bytes: &[u8]) -> Cid {
    Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(bytes))
}

/// A signature as the chain stores it: one byte of type, then the data.
pub fn signature_bytes(signature: &Signature) -> Vec<u8> {
    [&[signature.kind], signature.data.as_slice()].concat()
}

pub fn message_bytes(m: &Message) -> Result<Vec<u8>, EncodeError> {
    let params = BytesSer(&m.params);
    let gas = (m.gas_limit, &m.gas_fee_cap, &m.gas_premium);
    encode("message", &(m.version, m.to, m.from, m.nonce, &m.value, gas.0, gas.1, gas.2, m.method, params))
}

/// Also what a wallet signs: `message_cid(m)?.to_bytes()`.
pub fn message_cid(m: &Message) -> Result<Cid, EncodeError> {
    Ok(cid_of(&message_bytes(m)?))
}

/// The tuple (message, signature); only messages that are not signed with BLS are stored in this form.
pub fn signed_message_bytes(m: &SignedMessage) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0x82]; // a tuple of two
    bytes.extend(message_bytes(&m.message)?);
    bytes.extend(encode("signature", &BytesSer(&signature_bytes(&m.signature)))?);
    Ok(bytes)
}

/// The CID under which the mempool and the chain know the message.
pub fn signed_message_cid(m: &SignedMessage) -> Result<Cid, EncodeError> {
    const BLS: u8 = 2;
    if m.signature.kind == BLS { message_cid(&m.message) } else { Ok(cid_of(&signed_message_bytes(m)?)) }
}

pub fn block_header_bytes(b: &BlockHeader) -> Result<Vec<u8>, EncodeError> {
    let ticket = b.ticket.as_ref().map(|t| (BytesSer(&t.vrf_proof),));
    let election = b.election_proof.as_ref().map(|e| (e.win_count, BytesSer(&e.vrf_proof)));
    let beacon: Vec<_> = b.beacon_entries.iter().map(|e| (e.round, BytesSer(&e.data))).collect();
    let post: Vec<_> = b.win_post_proof.iter().map(|p| (p.post_proof, BytesSer(&p.proof_bytes))).collect();
    let aggregate = b.bls_aggregate.as_ref().map(signature_bytes);
    let block_sig = b.block_sig.as_ref().map(signature_bytes);
    encode(
        "block header",
        &(
            b.miner,
            ticket,
            election,
            beacon,
            post,
            &b.parents,
            BigIntSer(&b.parent_weight),
            b.height,
            b.parent_state_root,
            b.parent_message_receipts,
            b.messages,
            aggregate.as_deref().map(BytesSer),
            b.timestamp,
            block_sig.as_deref().map(BytesSer),
            b.fork_signaling,
            &b.parent_base_fee,
        ),
    )
}

pub fn block_cid(b: &BlockHeader) -> Result<Cid, EncodeError> {
    Ok(cid_of(&block_header_bytes(b)?))
}

/// The bytes that the worker signs: the header without its signature.
pub fn block_signing_bytes(b: &BlockHeader) -> Result<Vec<u8>, EncodeError> {
    block_header_bytes(&BlockHeader { block_sig: None, ..b.clone() })
}
