//! The storage ask: its shapes on the wire (`/fil/storage/ask/1.1.0`), and when a new one has to be signed.
//!
//! Maps in DAG-CBOR with the fields' Go names; what is signed is the bare `StorageAsk` map in canonical key order, as
//! clients encode it again to check the signature.

use fvm_ipld_encoding::Error as CborError;
use fvm_shared::address::Address;
use fvm_shared::clock::ChainEpoch;
use fvm_shared::crypto::signature::Signature;
use fvm_shared::econ::TokenAmount;
use serde::{Deserialize, Serialize};

pub const PROTOCOL: &str = "/fil/storage/ask/1.1.0";

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct AskRequest {
    pub miner: Address,
}

/// `Ask` is null when the miner is not ours, or there is no ask yet.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct AskResponse {
    pub ask: Option<SignedStorageAsk>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct SignedStorageAsk {
    pub ask: StorageAsk,
    pub signature: Signature,
}

/// Prices in attoFIL per GiB and epoch, piece sizes padded.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct StorageAsk {
    pub price: TokenAmount,
    pub verified_price: TokenAmount,
    pub min_piece_size: u64,
    pub max_piece_size: u64,
    pub miner: Address,
    pub timestamp: ChainEpoch,
    pub expiry: ChainEpoch,
    pub seq_no: u64,
}

impl StorageAsk {
    pub fn signing_bytes(&self) -> Result<Vec<u8>, CborError> {
        fvm_ipld_encoding::to_vec(self)
    }
}

/// The operator's terms for storage deals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskTerms {
    pub price: TokenAmount,
    pub verified_price: TokenAmount,
    pub min_piece_size: u64,
    pub max_piece_size: u64,
    /// Epochs for which an ask holds.
    pub duration: ChainEpoch,
}

/// A signed ask and the key that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAsk {
    pub signed: SignedStorageAsk,
    pub signer: Address,
}

/// The chain's state when an ask is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskBasis {
    pub height: ChainEpoch,
    /// The worker's key address.
    pub worker: Address,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskStep {
    Keep,
    Sign(StorageAsk),
}

/// A new ask is due when there is none, the terms or the worker's key changed, nine tenths of its time are over, or it
/// is from a later epoch than the chain has reached (another chain under the same repo).
pub fn next_ask(kept: Option<&StoredAsk>, miner: Address, terms: &AskTerms, now: &AskBasis) -> AskStep {
    let seq_no = match kept {
        None => 0,
        Some(StoredAsk { signed: SignedStorageAsk { ask, .. }, signer }) => {
            let same_terms = ask.price == terms.price
                && ask.verified_price == terms.verified_price
                && ask.min_piece_size == terms.min_piece_size
                && ask.max_piece_size == terms.max_piece_size
                && ask.expiry.saturating_sub(ask.timestamp) == terms.duration;
            let fresh = ask.timestamp <= now.height && ask.expiry.saturating_sub(now.height) > terms.duration / 10;
            if ask.miner == miner && same_terms && *signer == now.worker && fresh {
                return AskStep::Keep;
            }
            ask.seq_no.saturating_add(1)
        }
    };
    AskStep::Sign(StorageAsk {
        price: terms.price.clone(),
        verified_price: terms.verified_price.clone(),
        min_piece_size: terms.min_piece_size,
        max_piece_size: terms.max_piece_size,
        miner,
        timestamp: now.height,
        expiry: now.height.saturating_add(terms.duration),
        seq_no,
    })
}

/// The answer to a client: only our own miner has an ask here.
pub fn answer(miner: Address, request: &AskRequest, ask: Option<&SignedStorageAsk>) -> AskResponse {
    AskResponse { ask: ask.filter(|_| request.miner == miner).cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::crypto::signature::SignatureType;

    fn terms() -> AskTerms {
        AskTerms {
            price: TokenAmount::from_atto(500_000_000),
            verified_price: TokenAmount::from_atto(0),
            min_piece_size: 256,
            max_piece_size: 2048,
            duration: 1000,
        }
    }
    fn at(height: ChainEpoch) -> AskBasis {
        AskBasis { height, worker: Address::new_id(7) }
    }
    fn kept() -> StoredAsk {
        let AskStep::Sign(ask) = next_ask(None, Address::new_id(1000), &terms(), &at(100)) else { panic!() };
        let signature = Signature { sig_type: SignatureType::BLS, bytes: vec![9; 96] };
        StoredAsk { signed: SignedStorageAsk { ask, signature }, signer: Address::new_id(7) }
    }

    #[test]
    fn a_new_ask_is_signed_only_when_due() {
        let miner = Address::new_id(1000);
        let other = |f: fn(&mut AskTerms)| {
            let mut t = terms();
            f(&mut t);
            t
        };
        let rekeyed = AskBasis { height: 100, worker: Address::new_id(8) };
        // (terms, standing, due); the ask is from epoch 100, holds 1000, is renewed with 100 left.
        let cases = [
            (terms(), at(99), true),
            (terms(), at(100), false),
            (terms(), at(999), false),
            (terms(), at(1000), true),
            (terms(), at(1001), true),
            (terms(), at(5000), true),
            (terms(), rekeyed, true),
            (other(|t| t.price += TokenAmount::from_atto(1)), at(100), true),
            (other(|t| t.verified_price += TokenAmount::from_atto(1)), at(100), true),
            (other(|t| t.min_piece_size = 128), at(100), true),
            (other(|t| t.max_piece_size = 1024), at(100), true),
            (other(|t| t.duration = 1001), at(100), true),
        ];
        for (terms, now, due) in cases {
            match next_ask(Some(&kept()), miner, &terms, &now) {
                AskStep::Keep => assert!(!due, "{terms:?} {now:?}"),
                AskStep::Sign(ask) => {
                    assert!(due, "{terms:?} {now:?}");
                    assert_eq!((ask.seq_no, ask.timestamp), (1, now.height));
                    assert_eq!(ask.expiry, now.height + terms.duration);
                }
            }
        }
    }

    #[test]
    fn only_our_own_miner_has_an_ask() {
        let signed = kept().signed;
        let ours = Address::new_id(1000);
        for (asked, have, want) in [(1000, true, true), (1001, true, false), (999, true, false), (1000, false, false)] {
            let request = AskRequest { miner: Address::new_id(asked) };
            assert_eq!(answer(ours, &request, have.then_some(&signed)).ask.is_some(), want, "{asked}");
        }
    }

    /// Clients encode the ask again to check the signature, with keys by length and then by bytes.
    #[test]
    fn the_wire_is_a_canonical_map_of_go_names() {
        let bytes = kept().signed.ask.signing_bytes().unwrap();
        let mut want = vec![0xa8];
        let mut entry = |name: &str, value: &[u8]| {
            want.push(0x60 | name.len() as u8);
            want.extend_from_slice(name.as_bytes());
            want.extend_from_slice(value);
        };
        entry("Miner", &[0x43, 0x00, 0xe8, 0x07]);
        entry("Price", &[0x45, 0x00, 0x1d, 0xcd, 0x65, 0x00]);
        entry("SeqNo", &[0x00]);
        entry("Expiry", &[0x19, 0x04, 0x4c]);
        entry("Timestamp", &[0x18, 0x64]);
        entry("MaxPieceSize", &[0x19, 0x08, 0x00]);
        entry("MinPieceSize", &[0x19, 0x01, 0x00]);
        entry("VerifiedPrice", &[0x40]);
        assert_eq!(hex::encode(&bytes), hex::encode(&want));

        let request = fvm_ipld_encoding::to_vec(&AskRequest { miner: Address::new_id(1000) }).unwrap();
        assert_eq!(hex::encode(request), "a1654d696e65724300e807");
        let none = fvm_ipld_encoding::to_vec(&AskResponse { ask: None }).unwrap();
        assert_eq!(hex::encode(none), "a16341736bf6");
        let some = fvm_ipld_encoding::to_vec(&AskResponse { ask: Some(kept().signed) }).unwrap();
        assert_eq!(&some[..10], b"\xa1\x63Ask\xa2\x63Ask", "{}", hex::encode(&some));
        let back: AskResponse = fvm_ipld_encoding::from_slice(&some).unwrap();
        assert_eq!(back.ask.unwrap(), kept().signed);
    }
}
