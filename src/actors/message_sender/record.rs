//! The message sender's records on disk: messages on their way, their outcomes, and each sender address' next nonce.

use crate::chain::ChainEpoch;
use crate::chain::miner_messages::method;
use crate::store::{Record, read_body};
use serde::{Deserialize, Serialize};

/// A message on its way. Text forms, because the store's encoding is not self-describing.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Open {
    /// Order of arrival.
    pub seq: u64,
    pub to: String,
    /// `None`: chosen at signing, by what the message is for.
    pub from: Option<String>,
    pub method: u64,
    pub params: Vec<u8>,
    /// attoFIL, decimal.
    pub value: String,
    /// attoFIL, decimal; "0": the bound that the settings give for such messages, as they are at each look.
    pub max_fee: String,
    /// Epoch from which the message is of no use (a deadline's Close); `None`: it never loses its use.
    pub closes: Option<ChainEpoch>,
    /// Heads in a row on which the node refused (not: failed) to estimate it.
    pub refusals: u32,
    /// The head of the last of them.
    pub refused_at: Option<ChainEpoch>,
    /// The operator's order that has not been carried out yet.
    pub order: Option<Order>,
    pub signed: Option<Signed>,
}

impl Record for Open {
    const TABLE: &'static str = "messages";
    const SCHEMA: u16 = 2;

    fn read_older(schema: u16, body: &[u8]) -> Option<Result<Open, String>> {
        (schema == 1).then(|| OpenV1::read(body))
    }
}

/// An operator's order about an open message.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Raise the fee at the next look, however short the message has waited.
    Replace,
    /// Put a self-transfer into the message's place, and never send it again.
    Cancel,
}

/// A signed message. Its bytes are stored before the first push; pushes only ever repeat them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Signed {
    /// `SignedMessage` in Lotus' JSON: the latest bytes that use this nonce.
    pub json: String,
    pub cid: String,
    pub nonce: u64,
    /// Full address form that signed it.
    pub from: String,
    /// The last push of these bytes that a node took; `None`: no node holds them as far as is known.
    pub pushed_at: Option<ChainEpoch>,
    /// When these bytes were signed.
    pub signed_at: ChainEpoch,
    /// Earlier versions with the same nonce and another fee: any of them may land.
    pub replaced: Vec<String>,
    /// The epoch at which the chain first showed the nonce used with none of our versions found.
    pub nonce_gone_since: Option<ChainEpoch>,
    /// Some node has held these bytes or an earlier version.
    pub held: bool,
    /// CIDs of self-transfers that were signed to free the nonce. The last of them may be `cid`.
    pub fillers: Vec<String>,
}

impl Signed {
    /// The latest bytes are a self-transfer that frees the nonce, not the message.
    pub fn is_filler(&self) -> bool {
        self.fillers.last() == Some(&self.cid)
    }

    /// Every version of the message that may land, the latest first.
    pub fn versions(&self) -> impl Iterator<Item = &String> {
        let latest = (!self.is_filler()).then_some(&self.cid);
        latest.into_iter().chain(self.replaced.iter().rev())
    }
}

/// Schema 1: before there were urgency, orders and self-transfers.
#[derive(Serialize, Deserialize)]
pub(super) struct OpenV1 {
    seq: u64,
    to: String,
    from: Option<String>,
    method: u64,
    params: Vec<u8>,
    value: String,
    max_fee: String,
    why_waiting: String,
    seen_at: ChainEpoch,
    refusals: u32,
    signed: Option<SignedV1>,
}

#[derive(Serialize, Deserialize)]
struct SignedV1 {
    json: String,
    cid: String,
    nonce: u64,
    from: String,
    pushed_at: Option<ChainEpoch>,
    signed_at: ChainEpoch,
    replaced: Vec<String>,
    nonce_gone_since: Option<ChainEpoch>,
}

impl OpenV1 {
    fn read(body: &[u8]) -> Result<Open, String> {
        let old: OpenV1 = read_body(body)?;
        // Their bounds were copied from the configuration when they came; from now on it is looked at each time.
        let by_settings = matches!(
            old.method,
            method::SUBMIT_WINDOWED_POST
                | method::DECLARE_FAULTS
                | method::DECLARE_FAULTS_RECOVERED
                | method::PRE_COMMIT_SECTOR_BATCH2
                | method::PROVE_COMMIT_SECTORS3
        );
        Ok(Open {
            seq: old.seq,
            to: old.to,
            from: old.from,
            method: old.method,
            params: old.params,
            value: old.value,
            max_fee: if by_settings { "0".into() } else { old.max_fee },
            closes: None,
            refusals: old.refusals,
            refused_at: None,
            order: None,
            signed: old.signed.map(|s| Signed {
                json: s.json,
                cid: s.cid,
                nonce: s.nonce,
                from: s.from,
                pushed_at: s.pushed_at,
                signed_at: s.signed_at,
                held: s.pushed_at.is_some() || !s.replaced.is_empty(),
                replaced: s.replaced,
                nonce_gone_since: s.nonce_gone_since,
                fillers: Vec::new(),
            }),
        })
    }
}

/// The epoch of what ended before any head was known; it gets one at the next look.
pub const UNDATED: ChainEpoch = 0;

/// How a message ended.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Done {
    /// [`UNDATED`]: no head was known.
    pub at: ChainEpoch,
    pub outcome: MessageOutcome,
}

impl Record for Done {
    const TABLE: &'static str = "messages_done";
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum MessageOutcome {
    Landed { cid: String, epoch: ChainEpoch, tipset: Vec<String>, return_data: Vec<u8> },
    Failed { exit_code: i64, error: String },
}

/// The next nonce of a sender address; shared by every miner that uses the address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NextNonce(pub u64);

impl Record for NextNonce {
    const TABLE: &'static str = "nonces";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_schema_before_is_read() {
        let old = |method, signed| OpenV1 {
            seq: 7,
            to: "t01000".into(),
            from: None,
            method,
            params: vec![0x80],
            value: "5".into(),
            max_fee: "200".into(),
            why_waiting: "in the mempool".into(),
            seen_at: 90,
            refusals: 2,
            signed,
        };
        let signed = |replaced: Vec<String>| SignedV1 {
            json: "{}".into(),
            cid: "c".into(),
            nonce: 3,
            from: "t3x".into(),
            pushed_at: None,
            signed_at: 80,
            replaced,
            nonce_gone_since: None,
        };
        let read = |old: &OpenV1| {
            let bytes = bincode::serde::encode_to_vec(old, bincode::config::standard()).unwrap();
            assert!(Open::read_older(1, &bytes[1..]).is_some_and(|read| read.is_err()));
            assert_eq!(Open::read_older(0, &bytes), None);
            Open::read_older(1, &bytes).unwrap().unwrap()
        };
        for (method, max_fee) in [(5, "0"), (28, "0"), (34, "0"), (0, "200"), (16, "200")] {
            let open = read(&old(method, None));
            assert_eq!((open.max_fee.as_str(), open.closes, open.order), (max_fee, None, None), "{method}");
            assert_eq!((open.seq, open.refusals, open.signed), (7, 2, None));
        }
        for (replaced, held) in [(vec![], false), (vec!["b".to_string()], true)] {
            let signed = read(&old(28, Some(signed(replaced)))).signed.unwrap();
            assert_eq!((signed.held, signed.is_filler(), signed.nonce), (held, false, 3));
        }
    }

    #[test]
    fn a_filler_is_no_version_of_its_message() {
        let mut signed = Signed {
            json: String::new(),
            cid: "c".into(),
            nonce: 3,
            from: "t3x".into(),
            pushed_at: None,
            signed_at: 80,
            replaced: vec!["a".into(), "b".into()],
            nonce_gone_since: None,
            held: false,
            fillers: vec![],
        };
        assert_eq!(signed.versions().collect::<Vec<_>>(), ["c", "b", "a"]);
        signed.fillers = vec!["c".into()];
        assert_eq!(signed.versions().collect::<Vec<_>>(), ["b", "a"]);
        assert!(signed.is_filler());
    }
}
