//! The variables and configuration sections of lotus-miner, in terms of our own keys. A setting that means the same is
//! read, the rest is answered with the key to use instead.

use super::keys::{KEYS, Key};
use super::translated::{bad, ours, unknown};
use super::values::expand_home;
use super::values::{parse_duration, parse_fil};
use super::{ConfigError, Source};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

// --- Variables --------------------------------------------------------------------------------------------------------

/// Name the node's folder where neither `--repo` nor `BULKHEAD_PATH` does; the newer name first.
pub const REPO_VARIABLES: [&str; 2] = ["LOTUS_MINER_PATH", "LOTUS_STORAGE_PATH"];

/// (variable, what to use instead).
const NOT_READ: &[(&str, &str)] = &[
    ("LOTUS_WORKER_PATH", "a worker works in its agent's folder: give that as WORKER_PATH or --storage"),
    ("LOTUS_MARKETS_PATH", "the market host has no folder of its own; this node's is BULKHEAD_PATH"),
    ("MARKETS_API_INFO", "one API serves the markets too: MINER_API_INFO"),
    ("LOTUS_FD_MAX", "the limit is the system's: `ulimit -n`, LimitNOFILE in the unit"),
    ("LOTUS_BACKUP_BASE_PATH", "stop the node and copy its folder"),
];

/// lotus-miner's own data lie there, which another program must not write into.
pub fn is_lotus_repo(folder: &Path) -> bool {
    let is_dir = |name: &str| folder.join(name).is_dir();
    is_dir("datastore") && is_dir("keystore") && !folder.join("bulkhead.redb").exists()
}

/// The first of [`REPO_VARIABLES`] that names a folder which is not lotus-miner's own.
pub fn repo(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    REPO_VARIABLES.iter().filter_map(|name| folder_of(name, env)).find(|folder| !is_lotus_repo(folder))
}

fn folder_of(variable: &str, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    expand_home(env(variable).filter(|path| !path.is_empty())?.into(), env)
}

/// One sentence for each of [`REPO_VARIABLES`] that is passed over. `repo_given`: by `--repo`.
pub fn unread_repo_variables(env: &dyn Fn(&str) -> Option<String>, repo_given: bool) -> Vec<String> {
    let given = repo_given || env("BULKHEAD_PATH").is_some_and(|path| !path.is_empty());
    let mut unread = Vec::new();
    for name in REPO_VARIABLES.iter().filter(|_| !given) {
        if let Some(folder) = folder_of(name, env).filter(|folder| is_lotus_repo(folder)) {
            let folder = folder.display();
            unread.push(format!(
                "{name} is not read: {folder} holds lotus-miner's own data; name ours with BULKHEAD_PATH"
            ));
        }
    }
    unread
}

/// One sentence for each variable that is set and has no effect.
pub fn unread_variables(env: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let set = |name: &str| env(name).is_some_and(|value| !value.trim().is_empty());
    let unread = NOT_READ.iter().filter(|(name, _)| set(name));
    unread.map(|(name, instead)| format!("{name} is set and not read: {instead}")).collect()
}

// --- The configuration file -------------------------------------------------------------------------------------------

enum Meaning {
    /// Our key, what Lotus' key takes, and how to write its value our way.
    Is(&'static str, &'static str, fn(&Value) -> Option<Value>),
    /// Nothing here reads it: what to do instead.
    Instead(&'static str),
}
use Meaning::{Instead, Is};

const FIL: &str = "an amount such as \"0.05 FIL\"";
const ADDRESSES: &str = "a list of addresses";
const NO_DEALS: &str = "no deals are sealed here: take it out";
const OTHER_FEES: &str = "fees.other bounds every other message";
const NO_BATCHES: &str = "messages are not batched here; fees.pre_commit and fees.commit bound each: take it out";
const ONE_LIMIT: &str = "market.max_connections (ConnMgrHigh) is the one limit: take it out";
const NO_ANNOUNCE: &str = "clients dial the addresses on chain, no key announces others: take it out";

/// (section, key, meaning), in Lotus' spelling. Lotus ignores case, and so do we.
const KNOWN: &[(&str, &str, Meaning)] = &[
    ("Fees", "MaxPreCommitGasFee", Is("fees.pre_commit", FIL, fil)),
    ("Fees", "MaxCommitGasFee", Is("fees.commit", FIL, fil)),
    ("Fees", "MaxWindowPoStGasFee", Is("fees.window_post", FIL, fil)),
    ("Fees", "MaximizeWindowPoStFeeCap", Is("fees.maximize_window_post_fee_cap", "true or false", as_it_is)),
    ("Addresses", "PreCommitControl", Is("addresses.pre_commit_control", ADDRESSES, as_it_is)),
    ("Addresses", "CommitControl", Is("addresses.commit_control", ADDRESSES, as_it_is)),
    ("Addresses", "TerminateControl", Is("addresses.terminate_control", ADDRESSES, as_it_is)),
    ("Addresses", "DealPublishControl", Is("addresses.deal_publish_control", ADDRESSES, as_it_is)),
    ("Addresses", "DisableOwnerFallback", Is("addresses.disable_owner_fallback", "true or false", as_it_is)),
    ("Addresses", "DisableWorkerFallback", Is("addresses.disable_worker_fallback", "true or false", as_it_is)),
    ("Fees", "MaxTerminateGasFee", Instead(OTHER_FEES)),
    ("Fees", "MaxPublishDealsFee", Instead(OTHER_FEES)),
    ("Fees", "MaxMarketBalanceAddFee", Instead(OTHER_FEES)),
    ("Fees", "MaxPreCommitBatchGasFee", Instead(NO_BATCHES)),
    ("Fees", "MaxCommitBatchGasFee", Instead(NO_BATCHES)),
    ("Sealing", "MaxSealingSectors", Is("sealing.max_sealing", "a whole number from 0 to 10000", as_it_is)),
    ("Sealing", "MaxSealingSectorsForDeals", Instead(NO_DEALS)),
    ("Sealing", "WaitDealsDelay", Instead(NO_DEALS)),
    (
        "Sealing",
        "CommittedCapacitySectorLifetime",
        Is("sealing.sector_lifetime", "a duration such as \"12960h0m0s\"", epochs),
    ),
    ("Sealing", "BatchPreCommits", Instead(NO_BATCHES)),
    ("Sealing", "AggregateCommits", Instead(NO_BATCHES)),
    ("Libp2p", "ListenAddresses", Is("market.listen", "a list of one multiaddr, because market.listen is one", only)),
    ("Libp2p", "AnnounceAddresses", Instead(NO_ANNOUNCE)),
    ("Libp2p", "NoAnnounceAddresses", Instead(NO_ANNOUNCE)),
    ("Libp2p", "ConnMgrHigh", Is("market.max_connections", "a whole number from 1 to 100000", as_it_is)),
    ("Libp2p", "ConnMgrLow", Instead(ONE_LIMIT)),
    ("Libp2p", "ConnMgrGrace", Instead(ONE_LIMIT)),
];

/// Sections of which no key means anything here.
const SECTIONS_INSTEAD: &[(&str, &str)] = &[
    ("PubSub", "the full node gossips, nothing here does: take the section out"),
    (
        "Dealmaking",
        "no deals are taken here; the asking prices are market.price and market.verified_price: take the section out",
    ),
    ("IndexProvider", "no deals are taken here: take the section out"),
    ("DAGStore", "no deals are taken here: take the section out"),
    ("Logging", "node.log is the filter of log lines"),
    ("Backup", "stop the node and copy its folder: take the section out"),
];

fn fil(value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    let unit =
        text.len().checked_sub(3).filter(|at| text.is_char_boundary(*at) && text[*at..].eq_ignore_ascii_case("fil"));
    let amount = unit.map_or(text, |at| text[..at].trim_end());
    parse_fil(amount).map(|_| amount.into())
}

fn as_it_is(value: &Value) -> Option<Value> {
    Some(value.clone())
}

/// An epoch is 30 s on every network that Lotus runs on.
fn epochs(value: &Value) -> Option<Value> {
    let lifetime = parse_duration(value.as_str()?)?;
    i64::try_from(lifetime.as_secs() / 30).ok().map(Value::Integer)
}

fn only(value: &Value) -> Option<Value> {
    match value.as_array()?.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}

type Entries = Vec<(&'static Key, Value)>;

/// The entries of a section of lotus-miner's; `None` where it is not one of these.
pub fn section(origin: &Source, section: &str, content: &Table) -> Option<Result<Entries, ConfigError>> {
    let is = |name: &str| section.eq_ignore_ascii_case(name);
    if is("Subsystems") {
        return Some(subsystems(origin, section, content));
    }
    if is("Storage") {
        return Some(storage(origin, section, content));
    }
    if let Some((_, instead)) = SECTIONS_INSTEAD.iter().find(|(name, _)| is(name)) {
        return Some(Err(unknown(origin, section.to_string(), instead)));
    }
    if !KNOWN.iter().any(|(name, ..)| is(name)) {
        return None;
    }
    let entries = content.iter().map(|(name, value)| match key(origin, section, name, value) {
        Some(entry) => entry,
        None => Err(unknown(origin, format!("{section}.{name}"), &hint(section, name))),
    });
    Some(entries.collect::<Result<Vec<_>, _>>().map(|entries| entries.into_iter().flatten().collect()))
}

/// One key of lotus-miner's, also where it stands in a section of ours; `None` where it is not one. `Some(Ok(None))`: it
/// is empty and says nothing.
pub fn key(
    origin: &Source,
    section: &str,
    name: &str,
    value: &Value,
) -> Option<Result<Option<(&'static Key, Value)>, ConfigError>> {
    let is = |row: &&(&str, &str, Meaning)| section.eq_ignore_ascii_case(row.0) && name.eq_ignore_ascii_case(row.1);
    let (_, _, meaning) = KNOWN.iter().find(is)?;
    let path = format!("{section}.{name}");
    Some(match meaning {
        _ if value.as_array().is_some_and(Vec::is_empty) || value.as_str().is_some_and(str::is_empty) => Ok(None),
        Is(ours_path, takes, translate) => match translate(value).and_then(|value| ours(ours_path, value)) {
            Some(entry) => Ok(Some(entry)),
            None => Err(bad(origin, &path, value, &format!("{takes}; here it is {ours_path}"))),
        },
        Instead(instead) => Err(unknown(origin, path, instead)),
    })
}

/// For a key that neither program has, or that is ours and stands under Lotus' spelling of the section.
fn hint(section: &str, name: &str) -> String {
    let lower = section.to_ascii_lowercase();
    if let Some(key) = KEYS.iter().find(|key| key.section() == lower && key.name() == name) {
        return format!("write it in [{lower}]: {}", key.path);
    }
    let read = KNOWN.iter().filter(|(s, _, meaning)| s.eq_ignore_ascii_case(section) && matches!(meaning, Is(..)));
    let read: Vec<&str> = read.map(|(_, key, _)| *key).collect();
    let ours: Vec<&str> = KEYS.iter().filter(|key| key.section() == lower).map(|key| key.name()).collect();
    match ours.is_empty() {
        true => format!("of lotus-miner's [{section}] only {} are read", read.join(", ")),
        false => format!(
            "of lotus-miner's [{section}] only {} are read; ours is [{lower}] with {}",
            read.join(", "),
            ours.join(", ")
        ),
    }
}

fn switch(origin: &Source, path: &str, value: &Value) -> Result<bool, ConfigError> {
    value.as_bool().ok_or_else(|| bad(origin, path, value, "true or false"))
}

/// The roles of a node. All of them on, as they are by default, says nothing.
fn subsystems(origin: &Source, section: &str, content: &Table) -> Result<Entries, ConfigError> {
    // (Lotus' key, the value that takes the roles away, these roles)
    const SWITCHES: [(&str, bool, &[&str]); 6] = [
        ("EnableMining", false, &["window-post", "winning-post"]),
        ("EnableSealing", false, &["sealing", "allocator"]),
        ("EnableSectorStorage", false, &["storage"]),
        ("EnableMarkets", false, &["markets"]),
        ("DisableWindowPoSt", true, &["window-post"]),
        ("DisableWinningPoSt", true, &["winning-post"]),
    ];
    let mut roles: Vec<&str> = super::cluster::ROLES.iter().copied().filter(|role| *role != "all").collect();
    let all = roles.len();
    for (name, value) in content {
        let path = format!("{section}.{name}");
        if let Some((_, off, taken)) = SWITCHES.iter().find(|(key, ..)| name.eq_ignore_ascii_case(key)) {
            if switch(origin, &path, value)? == *off {
                roles.retain(|role| !taken.contains(role));
            }
        } else if ["SealerApiInfo", "SectorIndexApiInfo"].iter().any(|key| name.eq_ignore_ascii_case(key)) {
            let instead = "the nodes of one provider find one another by [cluster] (docs/cluster.md): take it out";
            return Err(unknown(origin, path, instead));
        } else {
            let known: Vec<&str> = SWITCHES.iter().map(|(key, ..)| *key).collect();
            return Err(unknown(
                origin,
                path,
                &format!("[{section}] has {}; here it is cluster.roles", known.join(", ")),
            ));
        }
    }
    // the link to the full node is there for the others
    if roles.iter().all(|role| *role == "daemon-link") {
        let why = "it leaves this node nothing to do: leave one subsystem on".to_string();
        let value = "(all off)".to_string();
        return Err(ConfigError::Inconsistent { origin: origin.clone(), key: section.to_string(), value, why });
    }
    match roles.len() == all {
        true => Ok(vec![]),
        false => Ok(ours("cluster.roles", roles.into()).into_iter().collect()),
    }
}

/// Which steps a node seals itself: all of them, or none, which leaves them to agents.
fn storage(origin: &Source, section: &str, content: &Table) -> Result<Entries, ConfigError> {
    const STEPS: [&str; 4] = ["AllowAddPiece", "AllowPreCommit1", "AllowPreCommit2", "AllowCommit"];
    let mut off = Vec::new();
    for (name, value) in content {
        let path = format!("{section}.{name}");
        if STEPS.iter().any(|step| name.eq_ignore_ascii_case(step)) {
            off.extend((!switch(origin, &path, value)?).then_some(path));
        } else if name.eq_ignore_ascii_case("AllowUnseal") {
            switch(origin, &path, value)?; // nothing unseals here
        } else {
            let hint = format!("[{section}] has {}; how many run at a time are sealing.pc1, pc2, c2", STEPS.join(", "));
            return Err(unknown(origin, path, &hint));
        }
    }
    match off.len() {
        0 => Ok(vec![]),
        n if n == STEPS.len() => Ok(ours("sealing.place", "agents".into()).into_iter().collect()),
        _ => Err(ConfigError::Inconsistent {
            origin: origin.clone(),
            key: off.join(", "),
            value: "false".to_string(),
            why: format!(
                "a node seals every step itself or leaves all of them to agents: set {} all to false, which is \
                 sealing.place = \"agents\", or take them out and set how many run at a time (sealing.pc1, pc2, c2)",
                STEPS.join(", ")
            ),
        }),
    }
}

#[cfg(test)]
#[path = "lotus_tests.rs"]
mod tests;
