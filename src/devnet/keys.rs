//! Keys and signatures: BLS and secp256k1, as wallets and actors use them.

use crate::chain::randomness::blake2b256;
use crate::chain::types::Signature;
use bls_signatures::Serialize as _;
use fvm_shared::address::{Address, Payload};
use k256::ecdsa::{RecoveryId, SigningKey, VerifyingKey};

pub const SECP256K1: u8 = 1;
pub const BLS: u8 = 2;

/// A private key.
#[derive(Clone)]
pub enum Secret {
    Bls(bls_signatures::PrivateKey),
    Secp256k1(SigningKey),
}

impl Secret {
    /// `bls` or `secp256k1`, as Lotus names them.
    pub fn generate(kind: &str) -> Result<Self, String> {
        let mut rng = rand::rngs::OsRng;
        match kind {
            "bls" => Ok(Secret::Bls(bls_signatures::PrivateKey::generate(&mut rng))),
            "secp256k1" => Ok(Secret::Secp256k1(SigningKey::random(&mut rng))),
            other => Err(format!("unknown key type {other:?}: use bls or secp256k1")),
        }
    }

    pub fn from_bytes(kind: &str, bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != 32 {
            return Err(format!("a private key has 32 bytes, not {}", bytes.len()));
        }
        match kind {
            "bls" => bls_signatures::PrivateKey::from_bytes(bytes)
                .map(Secret::Bls)
                .map_err(|e| format!("not a BLS private key: {e}")),
            "secp256k1" => SigningKey::from_slice(bytes)
                .map(Secret::Secp256k1)
                .map_err(|e| format!("not a secp256k1 private key: {e}")),
            other => Err(format!("unknown key type {other:?}: use bls or secp256k1")),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Secret::Bls(_) => "bls",
            Secret::Secp256k1(_) => "secp256k1",
        }
    }

    /// BLS scalars little-endian, as Lotus exports them.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Secret::Bls(key) => key.as_bytes(),
            Secret::Secp256k1(key) => key.to_bytes().to_vec(),
        }
    }

    pub fn address(&self) -> Address {
        let address = match self {
            Secret::Bls(key) => Address::new_bls(&key.public_key().as_bytes()),
            Secret::Secp256k1(key) => Address::new_secp256k1(key.verifying_key().to_encoded_point(false).as_bytes()),
        };
        address.expect("a public key has the length of its address")
    }

    pub fn sign(&self, bytes: &[u8]) -> Result<Signature, String> {
        match self {
            Secret::Bls(key) => Ok(Signature { kind: BLS, data: key.sign(bytes).as_bytes() }),
            Secret::Secp256k1(key) => {
                let (signature, recovery) =
                    key.sign_prehash_recoverable(&blake2b256(bytes)).map_err(|e| format!("cannot sign: {e}"))?;
                let mut data = signature.to_bytes().to_vec();
                data.push(recovery.to_byte());
                Ok(Signature { kind: SECP256K1, data })
            }
        }
    }
}

/// Whether `signer` (a key address) signed `bytes`.
pub fn verify(signature: &Signature, signer: &Address, bytes: &[u8]) -> Result<(), String> {
    match (signature.kind, signer.payload()) {
        (BLS, Payload::BLS(key)) => verify_bls(&signature.data, key, bytes),
        (SECP256K1, Payload::Secp256k1(_)) => {
            let recovered = recover_secp256k1(&signature.data, bytes)?;
            if recovered == *signer { Ok(()) } else { Err("secp256k1 signature does not match the signer".into()) }
        }
        (kind, _) => Err(format!("a signature of type {kind} cannot be of {signer}")),
    }
}

fn verify_bls(signature: &[u8], key: &[u8], bytes: &[u8]) -> Result<(), String> {
    let key = bls_signatures::PublicKey::from_bytes(key).map_err(|e| format!("not a BLS public key: {e}"))?;
    let signature = bls_signatures::Signature::from_bytes(signature).map_err(|_| "not a BLS signature".to_string())?;
    if key.verify(signature, bytes) { Ok(()) } else { Err("bls signature failed to verify".into()) }
}

fn recover_secp256k1(signature: &[u8], bytes: &[u8]) -> Result<Address, String> {
    let bad = |_| "not a secp256k1 signature".to_string();
    let (Some(rs), Some(recovery)) = (signature.get(..64), signature.get(64).and_then(|v| RecoveryId::from_byte(*v)))
    else {
        return Err("not a secp256k1 signature".into());
    };
    let rs = k256::ecdsa::Signature::from_slice(rs).map_err(bad)?;
    let key = VerifyingKey::recover_from_prehash(&blake2b256(bytes), &rs, recovery).map_err(bad)?;
    Address::new_secp256k1(key.to_encoded_point(false).as_bytes()).map_err(|e| e.to_string())
}

/// One signature over all BLS messages of a block; without messages it is the identity.
pub fn aggregate(signatures: &[Vec<u8>]) -> Result<Signature, String> {
    if signatures.is_empty() {
        // The compressed point at infinity.
        let mut data = vec![0; 96];
        data[0] = 0xc0;
        return Ok(Signature { kind: BLS, data });
    }
    let parsed: Result<Vec<_>, _> = signatures.iter().map(|s| bls_signatures::Signature::from_bytes(s)).collect();
    let all = parsed.map_err(|e| format!("not a BLS signature: {e}"))?;
    let sum = bls_signatures::aggregate(&all).map_err(|e| format!("cannot aggregate: {e}"))?;
    Ok(Signature { kind: BLS, data: sum.as_bytes() })
}

/// Checks a block's aggregate over `(signer, signed bytes)`.
pub fn verify_aggregate(signature: &Signature, signed: &[(Address, Vec<u8>)]) -> Result<(), String> {
    if signed.is_empty() {
        return Ok(());
    }
    let mut keys = Vec::new();
    for (signer, _) in signed {
        let Payload::BLS(key) = signer.payload() else { return Err(format!("{signer} is not a BLS key")) };
        keys.push(bls_signatures::PublicKey::from_bytes(key).map_err(|e| format!("not a BLS public key: {e}"))?);
    }
    let texts: Vec<&[u8]> = signed.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let parsed =
        bls_signatures::Signature::from_bytes(&signature.data).map_err(|_| "not a BLS signature".to_string())?;
    if bls_signatures::verify_messages(&parsed, &texts, &keys) {
        Ok(())
    } else {
        Err("bls aggregate signature was invalid".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_verify_and_one_flipped_byte_does_not() {
        for kind in ["bls", "secp256k1"] {
            let key = Secret::generate(kind).unwrap();
            let again = Secret::from_bytes(kind, &key.to_bytes()).unwrap();
            assert_eq!(key.address(), again.address());
            let signature = again.sign(b"text").unwrap();
            verify(&signature, &key.address(), b"text").unwrap();
            assert!(verify(&signature, &key.address(), b"tex!").is_err(), "{kind}");
            for at in [0, 31, 63] {
                let mut bad = signature.clone();
                bad.data[at] ^= 1;
                assert!(verify(&bad, &key.address(), b"text").is_err(), "{kind} byte {at}");
            }
            let short = Signature { kind: signature.kind, data: vec![1, 2, 3] };
            assert!(verify(&short, &key.address(), b"text").is_err());
        }
    }

    #[test]
    fn an_aggregate_covers_all_messages() {
        let keys: Vec<_> = (0..3).map(|_| Secret::generate("bls").unwrap()).collect();
        let signed: Vec<_> = keys.iter().enumerate().map(|(i, k)| (k.address(), vec![i as u8])).collect();
        let each: Vec<_> = keys.iter().zip(&signed).map(|(k, (_, bytes))| k.sign(bytes).unwrap().data).collect();
        verify_aggregate(&aggregate(&each).unwrap(), &signed).unwrap();
        assert!(verify_aggregate(&aggregate(&each[..2]).unwrap(), &signed).is_err());
        verify_aggregate(&aggregate(&[]).unwrap(), &[]).unwrap();
    }
}
