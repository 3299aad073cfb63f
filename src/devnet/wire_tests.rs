//! Headers and messages against the network's published serialization vectors, and round trips.

use super::*;
use serde_json::Value;

/// From filecoin-project/serialization-vectors.
const HEADER: &str = include_str!("vectors/block_header.json");
const MESSAGE: &str = include_str!("vectors/unsigned_message.json");

#[test]
fn a_published_header_has_the_published_bytes_and_cid() {
    let vector: Value = serde_json::from_str(HEADER).unwrap();
    let header: BlockHeader = serde_json::from_value(vector["block"].clone()).unwrap();
    let bytes = header_bytes(&header).unwrap();
    assert_eq!(hex::encode(&bytes), vector["cbor_hex"].as_str().unwrap());
    assert_eq!(header_cid(&header).unwrap().to_string(), vector["cid"].as_str().unwrap());
    assert_eq!(header_from_bytes(&bytes).unwrap(), header);
}

#[test]
fn a_published_message_has_the_published_bytes() {
    let vector: Value = serde_json::from_str(MESSAGE).unwrap();
    let message: Message = serde_json::from_value(vector["message"].clone()).unwrap();
    let bytes = message_bytes(&message).unwrap();
    assert_eq!(hex::encode(&bytes), vector["hex_cbor"].as_str().unwrap());
    let fvm: FvmMessage = fvm_ipld_encoding::from_slice(&bytes).unwrap();
    assert_eq!(from_fvm(&fvm), message);
}

#[test]
fn garbage_is_an_error() {
    assert!(header_from_bytes(&[]).is_err());
    assert!(header_from_bytes(&[0x90, 1, 2, 3]).is_err());
    assert!(signed_from_bytes(b"\xff\xff").is_err());
    assert!(key_from_bytes(&[0x81]).is_err());
    assert!(tip_set(vec![]).is_err());
}
