//! Fast finality (FIP-0086) as a storage provider sees it: the lease under which a full node signs for a miner.
//!
//! A ticket is the lease in CBOR (lotus `chain/lf3/participation_lease.go`), so that who holds it knows how long it counts.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// The most instances that a node leases at a time (lotus `api/api_full.go`, forest `f3/types.rs`).
pub const MAX_INSTANCES: u64 = 5;

/// Error codes of the F3 calls (lotus `api/api_errors.go`).
pub mod code {
    pub const DISABLED: i64 = 4;
    pub const TICKET_INVALID: i64 = 5;
    pub const TICKET_EXPIRED: i64 = 6;
    pub const ISSUER_MISMATCH: i64 = 7;
    pub const TOO_MANY_INSTANCES: i64 = 8;
    pub const STARTS_BEFORE_EXISTING: i64 = 9;
    pub const NOT_READY: i64 = 10;
}

/// `F3ParticipationLease`; as an answer of `F3Participate` it begins at the present instance.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct F3Lease {
    pub network: String,
    /// The peer id of the node that gave it.
    pub issuer: String,
    #[serde(rename = "MinerID")]
    pub miner_id: u64,
    pub from_instance: u64,
    /// Instances from `from_instance` on.
    pub validity_term: u64,
}

impl F3Lease {
    /// The last instance for which it counts.
    pub fn to_instance(&self) -> u64 {
        self.from_instance.saturating_add(self.validity_term)
    }

    pub fn to_ticket(&self) -> Result<Vec<u8>, String> {
        let fields = (&self.network, &self.issuer, self.miner_id, self.from_instance, self.validity_term);
        fvm_ipld_encoding::to_vec(&fields).map_err(|e| e.to_string())
    }

    /// `None`: not a ticket as Lotus and Forest make it.
    pub fn of_ticket(ticket: &[u8]) -> Option<F3Lease> {
        let fields: (String, String, u64, u64, u64) = fvm_ipld_encoding::from_slice(ticket).ok()?;
        let (network, issuer, miner_id, from_instance, validity_term) = fields;
        Some(F3Lease { network, issuer, miner_id, from_instance, validity_term })
    }
}

/// `F3GetProgress`, its first member.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct F3Progress {
    #[serde(rename = "ID")]
    pub instance: u64,
}

/// `F3GetManifest`, as far as participation needs it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub struct F3Manifest {
    pub network_name: String,
    /// The time of one instance at least.
    #[serde(with = "nanoseconds")]
    pub catch_up_alignment: Duration,
}

/// Go's `time.Duration`: nanoseconds.
mod nanoseconds {
    use super::*;
    pub fn serialize<S: Serializer>(v: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(u64::try_from(v.as_nanos()).unwrap_or(u64::MAX))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    /// The ticket is one that a Lotus node on the calibration network gave.
    #[test]
    fn a_ticket_of_lotus_is_read_and_written() {
        let text =
            "hW5jYWxpYnJhdGlvbm5ldHg0MTJEM0tvb1dKV0VxZzRLcXpxQUJMeU0yMUtBbWFKYzNqdFBzWEJrNmJNNllyN1BLSGczSxkD6AAB";
        let ticket = STANDARD.decode(text).unwrap();
        let lease = F3Lease::of_ticket(&ticket).unwrap();
        assert_eq!((lease.network.as_str(), lease.miner_id), ("calibrationnet", 1000));
        assert_eq!((lease.from_instance, lease.validity_term, lease.to_instance()), (0, 1, 1));
        assert_eq!(lease.to_ticket().unwrap(), ticket);
        for cut in 0..ticket.len() {
            assert_eq!(F3Lease::of_ticket(&ticket[..cut]), None);
        }
    }

    #[test]
    fn leases_and_manifests_have_the_members_that_nodes_give() {
        let lease = r#"{"Network":"filecoin","Issuer":"12D3Koo","MinerID":1000,"FromInstance":7,"ValidityTerm":5}"#;
        let read: F3Lease = serde_json::from_str(lease).unwrap();
        assert_eq!(read.to_instance(), 12);
        assert_eq!(serde_json::to_string(&read).unwrap(), lease);
        let manifest = r#"{"NetworkName":"filecoin","Pause":false,"CatchUpAlignment":15000000000,"Gpbft":{"Delta":1}}"#;
        let read: F3Manifest = serde_json::from_str(manifest).unwrap();
        assert_eq!(read.catch_up_alignment, Duration::from_secs(15));
        assert_eq!(serde_json::from_str::<F3Progress>(r#"{"ID":9,"Round":0,"Phase":3}"#).unwrap().instance, 9);
    }
}
