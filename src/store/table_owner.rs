//! Every table: which concern it belongs to, and up to which schema this version reads its records. By the first, rows of one
//! node's repo are spread over the cluster's scopes and merged back; by the second, what a later version wrote is refused.

/// How a row's key names its miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MinerIn {
    /// `t01000/…`, or `t01000` alone.
    Prefix,
    /// `1000`: the actor id.
    Id,
    /// It does not: the row goes to every miner of the repo.
    Nothing,
}

/// When several scopes have a row for the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// They must agree.
    Same,
    /// The highest number counts: nonces of an address that several miners use.
    Highest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableOwner {
    /// One of the miner's singletons.
    Concern { concern: &'static str, miner: MinerIn, merge: Merge },
    /// A shard per node: on the way in all of it goes to one node's, on the way out all shards are merged.
    Sharded { concern: &'static str },
    /// The node's own, not the cluster's: found out again by each node, or about files that only it has.
    Node,
    /// The cluster's own; a single node has no use for it.
    ClusterOnly,
}

const fn prefixed(concern: &'static str) -> TableOwner {
    TableOwner::Concern { concern, miner: MinerIn::Prefix, merge: Merge::Same }
}

/// Every table. A table that is not here is refused by name, never left out.
const TABLES: [(&str, u16, TableOwner); 15] = [
    ("agent_master", 1, TableOwner::Node),
    ("identity", 1, TableOwner::Node),
    ("market_ask", 1, TableOwner::Concern { concern: "deal-handler", miner: MinerIn::Id, merge: Merge::Same }),
    ("messages", 2, prefixed("message-sender")),
    ("messages_done", 1, prefixed("message-sender")),
    ("nonces", 1, TableOwner::Concern { concern: "message-sender", miner: MinerIn::Nothing, merge: Merge::Highest }),
    ("pledges", 1, TableOwner::Sharded { concern: "seal-scheduler" }),
    ("seal_jobs", 1, TableOwner::Node),
    ("sector_number_leases", 1, TableOwner::ClusterOnly),
    ("sector_number_requests", 1, prefixed("sector-allocator")),
    ("sector_numbers", 1, prefixed("sector-allocator")),
    ("sectors", 2, TableOwner::Sharded { concern: "seal-scheduler" }),
    ("window_post", 1, prefixed("window-post")),
    ("winning_post_blocks", 1, prefixed("winning-post")),
    ("winning_post_totals", 1, prefixed("winning-post")),
];

impl TableOwner {
    /// Rows that only one of the cluster's concerns may have.
    pub(super) fn is_of_a_concern(self) -> bool {
        matches!(self, TableOwner::Concern { .. } | TableOwner::Sharded { .. })
    }
}

pub(super) fn home(table: &str) -> Option<TableOwner> {
    TABLES.iter().find(|(name, ..)| *name == table).map(|(_, _, home)| *home)
}

/// A row that cannot be read is left out, with a warning, rather than that its concern stands still: what is lost is how a
/// message ended (the chain tells), a second proof of a window, or a count.
pub(super) fn may_be_lost(table: &str) -> bool {
    ["messages_done", "window_post", "winning_post_totals"].contains(&table)
}

/// A row that cannot be read is taken over as it is: the actor leaves it alone, with an alert, and goes on with the others.
/// A nonce beside it is not reused: each address' next one is in a row of its own, and is made again from readable messages.
pub(super) fn may_stay_unread(table: &str) -> bool {
    ["messages", "nonces"].contains(&table)
}

/// The tables whose rows a cluster has.
#[cfg(test)]
pub(crate) fn cluster_tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|(_, _, home)| *home != TableOwner::Node).map(|(name, ..)| *name)
}

/// The latest schema of the table's records that this version reads: `Record::SCHEMA`. `None`: a table of a later version.
pub(super) fn schema(table: &str) -> Option<u16> {
    TABLES.iter().find(|(name, ..)| *name == table).map(|(_, schema, _)| *schema)
}

/// `t01000` of `t01000/…`; `None` if that is no ID address.
pub(super) fn miner_of(key: &str) -> Option<&str> {
    let miner = key.split('/').next().unwrap_or_default();
    let id = miner.strip_prefix("t0").or_else(|| miner.strip_prefix("f0"))?;
    is_id(id).then_some(miner)
}

pub(super) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miners_are_read_from_keys() {
        for (key, miner) in [
            ("t01000/7", Some("t01000")),
            ("f01000", Some("f01000")),
            ("t01000/a/b", Some("t01000")),
            ("t3abc/7", None),
            ("t0/7", None),
            ("t0x1/7", None),
            ("01000/7", None),
            ("", None),
            ("/t01000", None),
        ] {
            assert_eq!(miner_of(key), miner, "{key:?}");
        }
    }

    /// A new record type is not forgotten on the way between a repo and a cluster.
    #[test]
    fn every_record_of_the_actors_has_a_home() {
        let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut found = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
                continue;
            }
            if path.parent().is_some_and(|dir| dir.ends_with("store") || dir.ends_with("transfer")) {
                continue; // its own tests
            }
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines = source.lines().peekable();
            while let Some(line) = lines.next() {
                let Some((_, rest)) = line.split_once("const TABLE: &'static str = \"") else { continue };
                let Some((table, _)) = rest.split_once('"') else { continue };
                found += 1;
                assert!(home(table).is_some(), "{}: table {table} is not in TABLES", path.display());
                let written = lines.peek().and_then(|next| next.trim().strip_prefix("const SCHEMA: u16 = "));
                let written = written.map_or("1", |rest| rest.trim_end_matches(';')).parse().ok();
                assert_eq!(schema(table), written, "{}: the schema of {table} in TABLES", path.display());
            }
        }
        assert!(found >= 12, "{found} tables: the search is wrong");
    }
}
