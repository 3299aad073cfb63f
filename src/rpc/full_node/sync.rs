//! What a node says of its own sync and of its peers, as Lotus writes it (`api/api_full.go`, `api/api_net.go`).

use super::GossipPeers;
use crate::chain::ChainEpoch;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SyncState {
    #[serde(default)]
    active_syncs: Option<Vec<ActiveSync>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ActiveSync {
    base: Option<Height>,
    target: Option<Height>,
    stage: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Height {
    height: ChainEpoch,
}

/// Lotus' `api.SyncStateStage`: fetching headers, persisting them, checking messages, fetching messages.
const AT_WORK: [i64; 4] = [1, 2, 3, 6];

impl SyncState {
    /// Of the syncs at work, the most epochs from the tipset that it stands on to the one that it syncs to.
    pub(super) fn behind(&self) -> ChainEpoch {
        let syncs = self.active_syncs.iter().flatten().filter(|sync| AT_WORK.contains(&sync.stage));
        let behind = syncs.filter_map(|sync| Some(sync.target.as_ref()?.height - sync.base.as_ref()?.height));
        behind.max().unwrap_or(0).max(0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PubsubScore {
    score: Option<Score>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Score {
    #[serde(default)]
    topics: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

/// A peer that is scored in a topic passes on what the topic is for.
pub(super) fn gossip_peers(scores: &[PubsubScore]) -> GossipPeers {
    let in_topic = |start: &str| {
        let topics = |score: &PubsubScore| {
            let topics = score.score.as_ref().and_then(|score| score.topics.as_ref());
            topics.is_some_and(|topics| topics.keys().any(|topic| topic.starts_with(start)))
        };
        scores.iter().filter(|score| topics(score)).count() as u64
    };
    GossipPeers { messages: in_topic("/fil/msgs/"), blocks: in_topic("/fil/blocks/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_syncs_at_work_count() {
        let behind = |text: &str| serde_json::from_str::<SyncState>(text).expect(text).behind();
        for (syncs, expected) in [
            ("null", 0),
            ("[]", 0),
            (r#"[{"Base":null,"Target":null,"Stage":0}]"#, 0),
            (r#"[{"Base":{"Height":5},"Target":{"Height":95},"Stage":4}]"#, 0), // complete
            (r#"[{"Base":{"Height":5},"Target":{"Height":95},"Stage":5}]"#, 0), // given up
            (
                r#"[{"Base":{"Height":90},"Target":{"Height":95},"Stage":3},{"Base":{"Height":88},"Target":{"Height":95},"Stage":1}]"#,
                7,
            ),
        ] {
            assert_eq!(behind(&format!(r#"{{"ActiveSyncs":{syncs},"VMApplied":0}}"#)), expected, "{syncs}");
        }
    }

    #[test]
    fn peers_are_counted_by_topic() {
        let scores = r#"[
            {"ID":"a","Score":{"Score":1,"Topics":{"/fil/blocks/mainnet":{},"/fil/msgs/mainnet":{}}}},
            {"ID":"b","Score":{"Score":1,"Topics":{"/fil/msgs/mainnet":{}}}},
            {"ID":"c","Score":{"Score":1,"Topics":{"/drand/pubsub/v0.0.0/1":{}}}},
            {"ID":"d","Score":{"Score":1,"Topics":null}},
            {"ID":"e","Score":null}]"#;
        let scores: Vec<PubsubScore> = serde_json::from_str(scores).expect("scores");
        assert_eq!(gossip_peers(&scores), GossipPeers { messages: 2, blocks: 1 });
    }
}
