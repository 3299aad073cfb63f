//! The first frame on a connection: who speaks, in which versions, since when. Pure.

use super::frame::VERSIONS;
use crate::supervisor::wire::Schemas;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Hellos longer than this are not read.
pub const MAX_HELLO: u32 = 64 * 1024;

/// Fields are only ever added, at the end: an older node reads those it knows and leaves the rest.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version of frames that the sender speaks.
    pub versions: (u8, u8),
    /// Grows from start to start of one node: tells its present process from an earlier one.
    pub boot: u64,
    pub cluster: String,
    /// Counts what the sender has dialled since it started; of two connections that it dialled, the later counts.
    pub serial: u64,
    pub max_frame: u32,
    /// Message id, lowest and highest schema that the sender reads.
    pub schemas: Vec<(u32, u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("its first frame is no greeting")]
    Unreadable,
    #[error("it speaks versions {theirs:?} of the bridge, this node {ours:?}: update the older of the two first")]
    Versions { ours: RangeInclusive<u8>, theirs: RangeInclusive<u8> },
    #[error("it belongs to cluster {theirs:?}, this node to {ours:?}: set the same cluster name or remove its PeerId")]
    Cluster { ours: String, theirs: String },
}

/// The terms that two nodes have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    pub version: u8,
    pub boot: u64,
    pub serial: u64,
    /// The largest frame that the other side takes.
    pub max_frame: u32,
    /// Schemas by message number: looked up for every message that is sent.
    schemas: Vec<(u32, Schemas)>,
}

impl Terms {
    /// The schema to send this message in; ours if the peer lists none, since it may export it later.
    pub fn schema(&self, message: u32, ours: Schemas) -> Result<u16, String> {
        let Ok(at) = self.schemas.binary_search_by_key(&message, |it| it.0) else { return Ok(ours.highest) };
        let theirs = self.schemas[at].1;
        ours.shared(theirs).ok_or_else(|| {
            format!("the other node reads message {message:#x} in {theirs}, this one has it in {ours}: update the older node")
        })
    }
}

const BINCODE: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<65536>,
> = bincode::config::standard().with_limit::<65536>();

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        bincode::serde::encode_to_vec(self, BINCODE).unwrap_or_default() // too many schemas: refused as unreadable there
    }

    pub fn decode(body: &[u8]) -> Result<Hello, HelloError> {
        bincode::serde::decode_from_slice(body, BINCODE).map(|(hello, _)| hello).map_err(|_| HelloError::Unreadable)
    }

    /// The highest version both speak, if the two belong together.
    pub fn agree(&self, theirs: &Hello) -> Result<Terms, HelloError> {
        if self.cluster != theirs.cluster {
            return Err(HelloError::Cluster { ours: self.cluster.clone(), theirs: theirs.cluster.clone() });
        }
        let lowest = self.versions.0.max(theirs.versions.0);
        let highest = self.versions.1.min(theirs.versions.1);
        if lowest > highest {
            let range = |v: (u8, u8)| v.0..=v.1;
            return Err(HelloError::Versions { ours: range(self.versions), theirs: range(theirs.versions) });
        }
        let listed =
            theirs.schemas.iter().map(|(id, lowest, highest)| (*id, Schemas { lowest: *lowest, highest: *highest }));
        let schemas = listed.collect::<BTreeMap<u32, Schemas>>().into_iter().collect();
        Ok(Terms { version: highest, boot: theirs.boot, serial: theirs.serial, max_frame: theirs.max_frame, schemas })
    }
}

/// The versions of this build.
pub fn our_versions() -> (u8, u8) {
    (*VERSIONS.start(), *VERSIONS.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(versions: (u8, u8)) -> Hello {
        Hello { versions, boot: 5, cluster: "c".into(), serial: 3, max_frame: 1 << 20, schemas: vec![(7, 2, 3)] }
    }

    #[test]
    fn neighbouring_versions_agree_on_the_highest_they_share() {
        let cases = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 2), (2, 3), Some(2)),
            ((1, 3), (2, 4), Some(3)),
            ((2, 3), (1, 1), None),
            ((1, 1), (2, 3), None),
        ];
        for (ours, theirs, version) in cases {
            let agreed = hello(ours).agree(&hello(theirs)).map(|terms| terms.version);
            assert_eq!(agreed.ok(), version, "{ours:?} and {theirs:?}");
        }
    }

    #[test]
    fn another_cluster_is_refused_by_name() {
        let theirs = Hello { cluster: "other".into(), ..hello((1, 1)) };
        let error = hello((1, 1)).agree(&theirs).unwrap_err();
        assert!(error.to_string().contains("cluster \"other\", this node to \"c\""), "{error}");
    }

    #[test]
    fn a_message_goes_in_the_highest_schema_that_both_have_or_not_at_all() {
        let terms = hello((1, 1)).agree(&hello((1, 1))).unwrap();
        let cases = [
            (7, 1, 1, None),
            (7, 1, 2, Some(2)),
            (7, 2, 3, Some(3)),
            (7, 3, 4, Some(3)),
            (7, 4, 5, None),
            (8, 8, 9, Some(9)),
        ];
        for (message, lowest, highest, expected) in cases {
            let schema = terms.schema(message, Schemas { lowest, highest });
            assert_eq!(schema.ok(), expected, "{message} in {lowest} to {highest}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_left_unread() {
        let mut bytes = hello((1, 1)).encode();
        bytes.extend_from_slice(b"a field of the next version");
        assert_eq!(Hello::decode(&bytes).unwrap(), hello((1, 1)));
        assert_eq!(Hello::decode(&bytes[..3]), Err(HelloError::Unreadable));
    }
}
