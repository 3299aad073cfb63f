//! Serde adaptors for Lotus' JSON: use with `#[serde(with = "lotus_json::cid")]`.
//!
//! Shapes: CID `{"/": "bafy…"}`; big integers and token amounts decimal strings (attoFIL); bytes base64 (null = empty);
//! bitfields RLE+ run lengths starting with the zeros (`[0]` empty, `[0,2]` = {0,1}); addresses `f…`/`t…` strings.
//! Source: lotus `chain/types`, go-bitfield `rle` (JSON), go-address.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A CID on the wire.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub struct CidJson {
    #[serde(rename = "/", with = "as_str")]
    pub cid: ::cid::Cid,
}

impl From<::cid::Cid> for CidJson {
    fn from(cid: ::cid::Cid) -> Self {
        CidJson { cid }
    }
}

/// Display / FromStr as a JSON string.
pub mod as_str {
    use super::*;
    pub fn serialize<T: std::fmt::Display, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }
    pub fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
        D: Deserializer<'de>,
    {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(|e| D::Error::custom(format!("{text:?}: {e}")))
    }
}

pub mod cid {
    use super::*;
    pub fn serialize<S: Serializer>(v: &::cid::Cid, s: S) -> Result<S::Ok, S::Error> {
        CidJson::from(*v).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<::cid::Cid, D::Error> {
        Ok(CidJson::deserialize(d)?.cid)
    }
}

pub mod opt_cid {
    use super::*;
    pub fn serialize<S: Serializer>(v: &Option<::cid::Cid>, s: S) -> Result<S::Ok, S::Error> {
        v.map(CidJson::from).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<::cid::Cid>, D::Error> {
        Ok(Option::<CidJson>::deserialize(d)?.map(|c| c.cid))
    }
}

pub mod cids {
    use super::*;
    pub fn serialize<S: Serializer>(v: &[::cid::Cid], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(|c| CidJson::from(*c)))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<::cid::Cid>, D::Error> {
        let list = Option::<Vec<CidJson>>::deserialize(d)?.unwrap_or_default();
        Ok(list.into_iter().map(|c| c.cid).collect())
    }
}

/// `t…`/`f…` strings, printed for the network the process is on (`fvm_shared::address::set_current_network`).
pub mod address {
    use super::*;
    use fvm_shared::address::{Address, Network};
    pub fn parse(text: &str) -> Result<Address, String> {
        Network::Mainnet
            .parse_address(text)
            .or_else(|_| Network::Testnet.parse_address(text))
            .map_err(|e| format!("{text:?} is not an address: {e}"))
    }
    pub fn serialize<S: Serializer>(v: &Address, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Address, D::Error> {
        parse(&std::borrow::Cow::<'de, str>::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// `null`, the empty string and Lotus' `<empty>` are none; none is written `<empty>` (Go's `address.Undef`).
pub mod opt_address {
    use super::*;
    use fvm_shared::address::Address;
    pub fn serialize<S: Serializer>(v: &Option<Address>, s: S) -> Result<S::Ok, S::Error> {
        match v {
            Some(a) => s.collect_str(a),
            None => s.serialize_str("<empty>"),
        }
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Address>, D::Error> {
        match Option::<String>::deserialize(d)?.as_deref() {
            None | Some("") | Some("<empty>") => Ok(None),
            Some(text) => super::address::parse(text).map(Some).map_err(D::Error::custom),
        }
    }
}

/// Go's `*address.Address`: reads as [`opt_address`], but none is written `null`.
pub mod null_address {
    pub use super::opt_address::deserialize;
    use super::*;
    use fvm_shared::address::Address;
    pub fn serialize<S: Serializer>(v: &Option<Address>, s: S) -> Result<S::Ok, S::Error> {
        v.map(|a| a.to_string()).serialize(s)
    }
}

pub mod addresses {
    use super::*;
    use fvm_shared::address::Address;
    pub fn serialize<S: Serializer>(v: &[Address], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(v.iter().map(|a| a.to_string()))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Address>, D::Error> {
        let list = Option::<Vec<String>>::deserialize(d)?.unwrap_or_default();
        list.iter().map(|t| super::address::parse(t).map_err(D::Error::custom)).collect()
    }
}

/// attoFIL as a decimal string.
pub mod token {
    use super::*;
    use fvm_shared::econ::TokenAmount;
    pub fn serialize<S: Serializer>(v: &TokenAmount, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v.atto())
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TokenAmount, D::Error> {
        super::bigint::deserialize(d).map(TokenAmount::from_atto)
    }
}

/// `null` where a node leaves the amount out.
pub mod opt_token {
    use super::*;
    use fvm_shared::econ::TokenAmount;
    pub fn serialize<S: Serializer>(v: &Option<TokenAmount>, s: S) -> Result<S::Ok, S::Error> {
        v.as_ref().map(|t| t.atto().to_string()).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<TokenAmount>, D::Error> {
        match Option::<String>::deserialize(d)? {
            None => Ok(None),
            Some(t) if t.is_empty() => Ok(None),
            Some(t) => super::bigint::parse(&t).map(|n| Some(TokenAmount::from_atto(n))).map_err(D::Error::custom),
        }
    }
}

pub mod bigint {
    use super::*;
    use num_bigint::BigInt;
    pub fn serialize<S: Serializer>(v: &BigInt, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BigInt, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(d)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(BigInt::from(0)); // Go's unset big.Int
        }
        parse(&text).map_err(D::Error::custom)
    }

    /// Refuses what the chain cannot encode, before the work of reading its digits, which grows with their square.
    pub fn parse(text: &str) -> Result<BigInt, String> {
        // The chain's 128 bytes are one of sign and 127 of magnitude.
        const MOST_BITS: u64 = 127 * 8;
        const MOST_DIGITS: usize = 306;
        let too_large = || format!("an integer of {} digits is more than the chain can encode", text.len());
        if text.len() > MOST_DIGITS + "-".len() {
            return Err(too_large());
        }
        let number: BigInt = text.parse().map_err(|_| format!("{text:?} is not a decimal integer"))?;
        if number.bits() > MOST_BITS { Err(too_large()) } else { Ok(number) }
    }
}

/// base64 (standard alphabet, padded); empty is `null`, as Go writes a byte slice that was read from CBOR.
pub mod bytes {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    pub fn serialize<S: Serializer>(v: &[u8], s: S) -> Result<S::Ok, S::Error> {
        if v.is_empty() {
            return s.serialize_none();
        }
        s.serialize_str(&STANDARD.encode(v))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        match Option::<String>::deserialize(d)? {
            None => Ok(Vec::new()),
            Some(t) => STANDARD.decode(t).map_err(|e| D::Error::custom(format!("not base64: {e}"))),
        }
    }
}

/// Run lengths, zeros first.
pub mod bitfield {
    use super::*;
    use fvm_ipld_bitfield::BitField;
    pub fn to_runs(v: &BitField) -> Vec<u64> {
        let mut runs = Vec::new();
        let mut at = 0;
        for range in v.ranges() {
            runs.push(range.start - at);
            runs.push(range.end - range.start);
            at = range.end;
        }
        if runs.is_empty() { vec![0] } else { runs }
    }
    pub fn from_runs(runs: &[u64]) -> Result<BitField, String> {
        let mut ranges: Vec<std::ops::Range<u64>> = Vec::new();
        let mut at = 0u64;
        for (i, len) in runs.iter().enumerate() {
            let end = at.checked_add(*len).ok_or("bitfield longer than 2^64")?;
            if i % 2 == 1 && *len > 0 {
                match ranges.last_mut() {
                    // a run of no zeros between two runs of ones
                    Some(std::ops::Range { end: last, .. }) if *last == at => *last = end,
                    _ => ranges.push(at..end),
                }
            }
            at = end;
        }
        Ok(BitField::from_ranges(fvm_ipld_bitfield::iter::Ranges::new(ranges)))
    }
    pub fn serialize<S: Serializer>(v: &BitField, s: S) -> Result<S::Ok, S::Error> {
        to_runs(v).serialize(s)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<BitField, D::Error> {
        let runs = Option::<Vec<u64>>::deserialize(d)?.unwrap_or_default();
        from_runs(&runs).map_err(D::Error::custom)
    }
}

/// Go writes an empty slice as `null`.
pub mod nullable {
    use super::*;
    pub fn serialize<T: Serialize, S: Serializer>(v: &T, s: S) -> Result<S::Ok, S::Error> {
        v.serialize(s)
    }
    pub fn deserialize<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
    }
}

macro_rules! whole_values {
    ($($(#[$doc:meta])* $name:ident($ty:ty) as $with:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = $with)] pub $ty);
    )*};
}

// Values that are a whole parameter or answer by themselves, where no field can carry `#[serde(with)]`.
whole_values! {
    WholeCid(::cid::Cid) as "cid";
    WholeAddress(fvm_shared::address::Address) as "address";
    WholeOptAddress(Option<fvm_shared::address::Address>) as "opt_address";
    WholeAddresses(Vec<fvm_shared::address::Address>) as "addresses";
    WholeToken(fvm_shared::econ::TokenAmount) as "token";
    WholeBigInt(num_bigint::BigInt) as "bigint";
    WholeBytes(Vec<u8>) as "bytes";
    WholeBitField(fvm_ipld_bitfield::BitField) as "bitfield";
}
