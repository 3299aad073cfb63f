//! Answers of several nodes compared: two that agree where one alone is not believed, and a head that never goes back when
//! another node gives it. Pure.

use crate::rpc::json_text::JsonText;
use num_bigint::BigInt;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// A wrong answer to these costs a block or a proof, and nobody else tells that it is wrong.
const AGREED: [&str; 3] = ["MinerGetBaseInfo", "StateGetRandomnessFromBeacon", "StateGetRandomnessFromTickets"];

/// `method` without its namespace.
pub fn is_agreed(method: &str) -> bool {
    AGREED.contains(&method)
}

/// An answer in the caller's type, and as it came: for a caller from outside the two are the same text.
pub struct Answer<R> {
    pub raw: JsonText,
    pub read: R,
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for Answer<R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = JsonText::deserialize(from)?;
        let read = serde_json::from_str(raw.as_str()).map_err(D::Error::custom)?;
        Ok(Answer { raw, read })
    }
}

/// Without what one kind of node leaves out and another writes as `null` or as an empty list.
fn plain(value: &Value) -> Value {
    let is_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !is_nothing(value));
            Value::Object(fields.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// Two nodes give the same answer.
pub fn is_same(one: &JsonText, other: &JsonText) -> bool {
    let plain = |text: &JsonText| serde_json::from_str(text.as_str()).ok().as_ref().map(plain);
    one == other || plain(one).is_some_and(|one| Some(one) == plain(other))
}

/// For how long a caller's head stands against lower ones of other nodes: a block delay of mainnet. After it the others are
/// right, and the node that gave it is not.
const STANDS: Duration = Duration::from_secs(30);

/// The last head that a caller got.
pub struct SeenHead {
    /// The node's id.
    node: String,
    rank: Option<(BigInt, usize)>,
    at: Instant,
    pub head: JsonText,
}

/// The weight of what a head stands on, and its blocks: the heavier of two heads is the one with the more of it, since a head's
/// own weight is not in it.
fn rank(head: &JsonText) -> Option<(BigInt, usize)> {
    let head: Value = serde_json::from_str(head.as_str()).ok()?;
    let blocks = head.get("Blocks")?.as_array()?;
    let weight = blocks.first()?.get("ParentWeight")?.as_str()?.parse().ok()?;
    Some((weight, blocks.len()))
}

impl SeenHead {
    pub fn new(node: &str, head: JsonText, now: Instant) -> SeenHead {
        SeenHead { node: node.to_string(), rank: rank(&head), at: now, head }
    }

    /// True: the caller may get `head` from `node` after this one. A node may take its own head back: then the chain did.
    pub fn may_be_followed(&self, node: &str, head: &JsonText, now: Instant) -> bool {
        let is_lower = || self.rank.as_ref().zip(rank(head).as_ref()).is_some_and(|(seen, new)| new < seen);
        self.node == node || now.saturating_duration_since(self.at) > STANDS || !is_lower()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: Value) -> JsonText {
        JsonText::of(&value).unwrap()
    }

    #[test]
    fn an_answer_is_passed_on_in_the_order_in_which_it_came() {
        let came = r#"{"b":1,"a":[null]}"#;
        let answer: Answer<JsonText> = serde_json::from_str(came).unwrap();
        assert_eq!((answer.raw.as_str(), answer.read.as_str()), (came, came));
        assert!(serde_json::from_str::<Answer<u64>>(came).is_err(), "not what the caller reads");
    }

    #[test]
    fn nodes_of_other_kinds_agree_in_what_they_say() {
        let base =
            json!({"MinerPower": "5", "Sectors": [{"SectorNumber": 1, "SectorKey": null}], "BeaconEntries": null});
        for (other, same) in [
            (base.clone(), true),
            (json!({"MinerPower": "5", "Sectors": [{"SectorNumber": 1}], "BeaconEntries": []}), true),
            (json!({"MinerPower": "6", "Sectors": [{"SectorNumber": 1}], "BeaconEntries": []}), false),
            (json!({"MinerPower": "5", "Sectors": [], "BeaconEntries": []}), false),
            (json!(null), false),
        ] {
            assert_eq!(is_same(&text(base.clone()), &text(other.clone())), same, "{other}");
        }
        let same = |one: Value, other: Value| is_same(&text(one), &text(other));
        assert!(same(json!(null), json!(null)) && !same(json!("AAA="), json!("AAB=")));
    }

    #[test]
    fn a_head_goes_back_only_at_its_own_node_or_after_a_while() {
        let head = |weight: &str, blocks: usize| text(json!({"Blocks": vec![json!({"ParentWeight": weight}); blocks]}));
        let now = Instant::now();
        let seen = SeenHead::new("a", head("1000", 2), now);
        for (what, node, head, after, follows) in [
            ("one epoch further", "b", head("1010", 1), 0, true),
            ("the same", "b", head("1000", 2), 0, true),
            ("one epoch back", "b", head("990", 5), 0, false),
            ("a block fewer", "b", head("1000", 1), 0, false),
            ("its own reorganisation", "a", head("990", 5), 0, true),
            ("nobody else has it for a while", "b", head("990", 5), 30, false),
            ("nobody else has it for longer", "b", head("990", 5), 31, true),
            ("more digits", "b", head("10000", 1), 0, true),
            ("no weight: nothing to compare", "b", text(json!({"Height": 5})), 0, true),
        ] {
            assert_eq!(seen.may_be_followed(node, &head, now + Duration::from_secs(after)), follows, "{what}");
        }
    }
}
