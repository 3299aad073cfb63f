//! Bodies of messages and replies: bincode 2, limited, nothing after the end.

use crate::supervisor::Message;
use crate::supervisor::wire::{WireCode, WireError, WireForm, WireLane};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No body is longer: sector files and the like go other ways. A length field that claims more is refused before
/// anything is allocated for it.
pub const BODY_LIMIT: usize = 1 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BODY_LIMIT>()
}

/// The form of a message that waits in the message lane.
pub const fn form<M>(id: u32, schema: u16) -> WireForm<M>
where
    M: Message + Serialize + DeserializeOwned,
    M::Reply: Serialize + DeserializeOwned,
{
    form_on(WireLane::Message, id, schema)
}

/// The form of a message that overtakes those of [`form`].
pub const fn control<M>(id: u32, schema: u16) -> WireForm<M>
where
    M: Message + Serialize + DeserializeOwned,
    M::Reply: Serialize + DeserializeOwned,
{
    form_on(WireLane::Control, id, schema)
}

/// As [`form`], with the reply in JSON: for reports whose stable shape is their JSON's, and which gain fields over time.
pub const fn report<M>(id: u32, schema: u16) -> WireForm<M>
where
    M: Message + Serialize + DeserializeOwned,
    M::Reply: Serialize + DeserializeOwned,
{
    let code = WireCode {
        encode: encode::<M>,
        decode: decode::<M>,
        encode_reply: |reply, into| serde_json::to_writer(into, reply).map_err(|e| WireError(e.to_string())),
        decode_reply: |bytes| serde_json::from_slice(bytes).map_err(|e| WireError(e.to_string())),
    };
    WireForm { id, schema, lane: WireLane::Message, code, previous: None }
}

/// A message as it was one schema before `M`, fields and reply.
pub trait Earlier<M: Message>: Serialize + DeserializeOwned {
    type Reply: Serialize + DeserializeOwned;
    fn upgrade(self) -> M;
    /// Refuses a message that means something else without what is new in it.
    fn downgrade(message: &M) -> Result<Self, WireError>;
    fn upgrade_reply(reply: Self::Reply) -> M::Reply;
    fn downgrade_reply(reply: &M::Reply) -> Result<Self::Reply, WireError>;
}

/// The schema before that of a [`form`] or [`control`], for [`WireForm::with_previous`].
pub const fn previous<M: Message, E: Earlier<M>>() -> WireCode<M> {
    WireCode {
        encode: |message, into| encode(&E::downgrade(message)?, into),
        decode: |bytes| decode::<E>(bytes).map(E::upgrade),
        encode_reply: |reply, into| encode(&E::downgrade_reply(reply)?, into),
        decode_reply: |bytes| decode::<E::Reply>(bytes).map(E::upgrade_reply),
    }
}

const fn form_on<M>(lane: WireLane, id: u32, schema: u16) -> WireForm<M>
where
    M: Message + Serialize + DeserializeOwned,
    M::Reply: Serialize + DeserializeOwned,
{
    let code = WireCode {
        encode: encode::<M>,
        decode: decode::<M>,
        encode_reply: encode::<M::Reply>,
        decode_reply: decode::<M::Reply>,
    };
    WireForm { id, schema, lane, code, previous: None }
}

/// Appends the value's bytes.
pub fn encode<T: Serialize>(value: &T, into: &mut Vec<u8>) -> Result<(), WireError> {
    let before = into.len();
    let written = bincode::serde::encode_into_std_write(value, into, config());
    let refused = match written {
        Ok(written) if written <= BODY_LIMIT => return Ok(()),
        Ok(written) => format!("{written} bytes, more than the {BODY_LIMIT} that a message may have"),
        Err(e) => e.to_string(),
    };
    into.truncate(before);
    Err(WireError(refused))
}

/// The whole of `bytes` must be the value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, config()).map_err(|e| WireError(e.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        more => Err(WireError(format!("{more} bytes too many"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_end_where_its_value_ends() {
        let mut bytes = vec![7];
        encode(&("boat".to_string(), 3u64), &mut bytes).unwrap();
        let body = &bytes[1..];
        assert_eq!(decode::<(String, u64)>(body), Ok(("boat".to_string(), 3)));
        assert!(decode::<(String, u64)>(&body[..body.len() - 1]).is_err());
        assert!(decode::<(String, u64)>(&[body, &[0]].concat()).is_err());
    }

    #[test]
    fn a_length_that_claims_too_much_is_refused_before_allocation() {
        // a byte string of 2^40 bytes
        let claim = [253, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(decode::<Vec<u8>>(&claim).is_err());
    }

    #[test]
    fn a_value_over_the_limit_leaves_the_buffer_as_it_was() {
        let mut bytes = vec![1, 2, 3];
        assert!(encode(&"x".repeat(BODY_LIMIT + 1), &mut bytes).is_err());
        assert_eq!(bytes, [1, 2, 3]);
    }
}
