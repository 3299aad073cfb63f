//! Chain types in bytes, for encodings that do not describe themselves (bincode). JSON's forms are in `lotus_json`.
//!
//! An address is its bytes, not its text: the text's first letter follows a process-wide network setting.

use super::types::TipSetKey;
use super::{Address, TokenAmount};
use cid::Cid;
use num_bigint::BigInt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `#[serde(with = "compact::address")]`
pub mod address {
    use super::*;
    pub fn serialize<S: Serializer>(address: &Address, s: S) -> Result<S::Ok, S::Error> {
        address.to_bytes().serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Address, D::Error> {
        Address::from_bytes(&Vec::<u8>::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// `#[serde(with = "compact::address_opt")]`
pub mod address_opt {
    use super::*;
    pub fn serialize<S: Serializer>(address: &Option<Address>, s: S) -> Result<S::Ok, S::Error> {
        address.map(|a| a.to_bytes()).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Address>, D::Error> {
        let bytes = Option::<Vec<u8>>::deserialize(d)?;
        bytes.map(|b| Address::from_bytes(&b).map_err(de::Error::custom)).transpose()
    }
}

/// attoFIL, signed, big-endian two's complement.
pub mod token {
    use super::*;
    pub fn serialize<S: Serializer>(amount: &TokenAmount, s: S) -> Result<S::Ok, S::Error> {
        amount.atto().to_signed_bytes_be().serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TokenAmount, D::Error> {
        Ok(TokenAmount::from_atto(BigInt::from_signed_bytes_be(&Vec::<u8>::deserialize(d)?)))
    }
}

/// `#[serde(with = "compact::token_opt")]`
pub mod token_opt {
    use super::*;
    pub fn serialize<S: Serializer>(amount: &Option<TokenAmount>, s: S) -> Result<S::Ok, S::Error> {
        amount.as_ref().map(|a| a.atto().to_signed_bytes_be()).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<TokenAmount>, D::Error> {
        let bytes = Option::<Vec<u8>>::deserialize(d)?;
        Ok(bytes.map(|b| TokenAmount::from_atto(BigInt::from_signed_bytes_be(&b))))
    }
}

pub mod cid_bytes {
    use super::*;
    pub fn serialize<S: Serializer>(cid: &Cid, s: S) -> Result<S::Ok, S::Error> {
        cid.to_bytes().serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Cid, D::Error> {
        Cid::try_from(Vec::<u8>::deserialize(d)?).map_err(de::Error::custom)
    }
}

pub mod tipset_key {
    use super::*;
    pub fn serialize<S: Serializer>(key: &TipSetKey, s: S) -> Result<S::Ok, S::Error> {
        key.0.iter().map(Cid::to_bytes).collect::<Vec<_>>().serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TipSetKey, D::Error> {
        let cids = Vec::<Vec<u8>>::deserialize(d)?;
        let cids = cids.into_iter().map(|bytes| Cid::try_from(bytes).map_err(de::Error::custom));
        Ok(TipSetKey(cids.collect::<Result<_, _>>()?))
    }
}
