//! Messages in JSON: the fields, then the CID, which Lotus writes and nobody reads.

use super::cbor::{message_cid, signed_message_cid};
use super::lotus_json as lj;
use super::types::{Message, SignedMessage};
use cid::Cid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Lotus' `mCid` / `smCid`: the derived fields of `T`, then the CID.
macro_rules! json_with_cid {
    ($ty:ident, $cid:path) => {
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                struct Fields<'a>(&'a $ty);
                impl Serialize for Fields<'_> {
                    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                        $ty::serialize(self.0, s) // the derived one
                    }
                }
                #[derive(Serialize)]
                struct WithCid<'a> {
                    #[serde(flatten)]
                    fields: Fields<'a>,
                    #[serde(rename = "CID", with = "lj::cid")]
                    cid: Cid,
                }
                let cid = $cid(self).map_err(serde::ser::Error::custom)?;
                WithCid { fields: Fields(self), cid }.serialize(s)
            }
        }
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $ty::deserialize(d) // the derived one
            }
        }
    };
}
json_with_cid!(Message, message_cid);
json_with_cid!(SignedMessage, signed_message_cid);
