//! lotus-miner's variables and sections, row by row.

use super::super::load;
use super::*;
use std::collections::BTreeMap;

fn file(text: &str) -> Result<crate::config::Config, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), text).unwrap();
    let over = load::Overrides { repo: Some(dir.path().to_path_buf()), ..Default::default() };
    load::load(&over, &|_| None).map(|loaded| loaded.config).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = file(text).map(|_| ()).expect_err(text);
    assert!(!error.contains('\n'), "one sentence: {error}");
    for part in parts {
        assert!(error.contains(part), "{part:?} in {error:?}");
    }
}

/// As printed in a mining manual and in a guide for split miners, values changed.
#[test]
fn what_means_the_same_is_read() {
    let config = file(
        "[Fees]\nMaxPreCommitGasFee = \"0.04 FIL\"\nMaxCommitGasFee = \"0.06 fil\"\nMaxWindowPoStGasFee = \"50\"\n\
         [Sealing]\nMaxSealingSectors = 7\nWaitDealsDelay = \"\"\nCommittedCapacitySectorLifetime = \"12960h0m0s\"\n\
         [libp2p]\nListenAddresses = [\"/ip4/0.0.0.0/tcp/24001\"]\nAnnounceAddresses = []\nConnMgrHigh = 180\n\
         [Storage]\nAllowAddPiece = true\nAllowPreCommit1 = true\nAllowPreCommit2 = true\nAllowCommit = true\nAllowUnseal = true\n\
         [Subsystems]\nEnableMining = true\nEnableSealing = true\nEnableSectorStorage = true\nEnableMarkets = true\n",
    )
    .unwrap();
    let fees = &config.fees;
    assert_eq!((fees.pre_commit.as_str(), fees.commit.as_str(), fees.window_post.as_str()), ("0.04", "0.06", "50"));
    assert_eq!((config.sealing.max_sealing, config.sealing.sector_lifetime), (7, 1_555_200));
    assert_eq!((config.market.listen.as_str(), config.market.max_connections), ("/ip4/0.0.0.0/tcp/24001", 180));
    let default = crate::config::Config::default();
    assert_eq!((config.sealing.place, &config.cluster), (default.sealing.place, &default.cluster));
}

#[test]
fn control_addresses_and_the_maximized_cap_are_read() {
    let config = file(
        "[Addresses]\nPreCommitControl = [\"f01001\", \"f01002\"]\nCommitControl = []\nTerminateControl = [\"f01003\"]\n\
         DisableOwnerFallback = true\nDisableWorkerFallback = false\n[Fees]\nMaximizeWindowPoStFeeCap = false\n",
    )
    .unwrap();
    let addresses = &config.addresses;
    assert_eq!((addresses.pre_commit_control.len(), addresses.commit_control.len()), (2, 0));
    assert_eq!(addresses.terminate_control, ["f01003"]);
    assert_eq!((addresses.disable_owner_fallback, addresses.disable_worker_fallback), (true, false));
    assert!(!config.fees.maximize_window_post_fee_cap);
    assert!(crate::config::Config::default().fees.maximize_window_post_fee_cap, "as in Lotus");
}

#[test]
fn subsystems_are_roles() {
    let roles = |text: &str| file(&format!("[Subsystems]\n{text}")).unwrap().cluster.roles;
    let table: [(&str, &[&str]); 6] = [
        ("EnableMarkets = true", &["all"]),
        ("EnableMining = false\nEnableSealing = false\nEnableSectorStorage = false", &["markets", "daemon-link"]),
        ("EnableMarkets = false", &["window-post", "winning-post", "sealing", "allocator", "storage", "daemon-link"]),
        ("enablemining = false\nEnableMarkets = false", &["sealing", "allocator", "storage", "daemon-link"]),
        ("EnableSealing = false\nEnableMarkets = false", &["window-post", "winning-post", "storage", "daemon-link"]),
        (
            "DisableWindowPoSt = true\nDisableWinningPoSt = false",
            &["winning-post", "sealing", "markets", "allocator", "storage", "daemon-link"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(roles(text), expected, "{text}");
    }
    let off =
        "[Subsystems]\nEnableMining = false\nEnableSealing = false\nEnableSectorStorage = false\nEnableMarkets = false";
    refused(off, &["nothing to do", "leave one subsystem on"]);
    refused("[Subsystems]\nEnableMining = 1", &["Subsystems.EnableMining = 1", "true or false"]);
    refused("[Subsystems]\nEnableFun = true", &["Subsystems.EnableFun", "EnableMining", "cluster.roles"]);
    refused("[Subsystems]\nSealerApiInfo = \"x\"", &["[cluster]", "docs/cluster.md"]);
}

#[test]
fn a_node_seals_all_steps_or_leaves_all_to_agents() {
    let steps = ["AllowAddPiece", "AllowPreCommit1", "AllowPreCommit2", "AllowCommit"];
    let text = |off: usize| {
        let lines = steps.iter().enumerate().map(|(i, step)| format!("{step} = {}\n", i >= off));
        format!("[Storage]\n{}", lines.collect::<String>())
    };
    assert_eq!(file(&text(0)).unwrap().sealing.place, crate::config::SealPlace::Here);
    assert_eq!(file(&text(4)).unwrap().sealing.place, crate::config::SealPlace::Agents);
    for off in [1, 3] {
        refused(&text(off), &["Storage.AllowAddPiece", "sealing.place", "sealing.pc1"]);
    }
    refused("[Storage]\nParallelFetchLimit = 10", &["Storage.ParallelFetchLimit", "AllowCommit"]);
}

#[test]
fn the_rest_is_answered_with_the_key_to_use() {
    for (text, parts) in [
        ("[Fees]\nMaxTerminateGasFee = \"0.5 FIL\"", &["Fees.MaxTerminateGasFee", "fees.other"][..]),
        ("[Fees]\nMaxCommitGasFee = \"much\"", &["Fees.MaxCommitGasFee = \"much\"", "0.05 FIL", "fees.commit"]),
        ("[Fees]\nMaxCommitGasFee = \"0.05 fiß\"", &["fees.commit"]),
        ("[Fees]\nMaxPreCommitBatchGasFee = {Base = \"0 FIL\"}", &["fees.pre_commit", "take it out"]),
        ("[Fees]\npre_commit = \"1\"", &["Fees.pre_commit", "write it in [fees]: fees.pre_commit"]),
        ("[Fees]\nMaxFun = \"1\"", &["MaxPreCommitGasFee", "[fees] with window_post"]),
        ("[Sealing]\nMaxSealingSectors = -1", &["Sealing.MaxSealingSectors = -1", "sealing.max_sealing"]),
        ("[sealing]\nMaxSealingSectorsForDeals = 1", &["sealing.MaxSealingSectorsForDeals", "no deals"]),
        (
            "[Libp2p]\nListenAddresses = [\"/ip4/0.0.0.0/tcp/1\", \"/ip6/::/tcp/1\"]",
            &["market.listen", "one multiaddr"],
        ),
        ("[Libp2p]\nAnnounceAddresses = [\"/ip4/1.2.3.4/tcp/1\"]", &["Libp2p.AnnounceAddresses", "on chain"]),
        ("[PubSub]\nBootstrapper = false", &["PubSub", "take the section out"]),
        ("[DealMaking]\nConsiderOnlineStorageDeals = true", &["DealMaking", "no deals", "market.price"]),
        (
            "[Addresses]\nPreCommitControl = [\"nobody\"]",
            &["Addresses.PreCommitControl", "addresses.pre_commit_control"],
        ),
        ("[Addresses]\nDisableOwnerFallback = \"no\"", &["Addresses.DisableOwnerFallback", "true or false"]),
    ] {
        refused(text, parts);
    }
    // Lotus' keys in our spelling of the section mean the same
    assert_eq!(file("[sealing]\nMaxSealingSectors = 3").unwrap().sealing.max_sealing, 3);
    assert_eq!(file("[fees]\nMaxCommitGasFee = \"1 FIL\"\n").unwrap().fees.commit, "1");
}

/// A row that names no key of ours would be a panic or a silent loss.
#[test]
fn every_row_leads_to_a_key_and_is_in_the_docs() {
    let page = include_str!("../../docs/operations.md");
    let (_, page) = page.split_once("## Coming from lotus-miner").expect("the section of the docs");
    for (section, name, meaning) in KNOWN {
        if let Is(path, ..) = meaning {
            assert!(KEYS.iter().any(|key| key.path == *path), "{path}");
            assert!(page.contains(&format!("`[{section}] {name}`")) && page.contains(&format!("`{path}`")), "{name}");
        }
    }
    for variable in REPO_VARIABLES.iter().chain(NOT_READ.iter().map(|(name, _)| name)) {
        assert!(page.contains(&format!("`{variable}`")), "{variable}");
    }
}

fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let pairs: BTreeMap<String, String> = pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    move |name| pairs.get(name).cloned()
}

#[test]
fn the_repo_is_where_lotus_miners_variables_say() {
    let dir = tempfile::tempdir().unwrap();
    let lotus = dir.path().join("lotusminer");
    for folder in ["datastore", "keystore"] {
        std::fs::create_dir_all(lotus.join(folder)).unwrap();
    }
    let lotus = lotus.to_str().unwrap();
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let table: [(Variables, &str, usize); 7] = [
        (&[("HOME", "/h"), ("LOTUS_MINER_PATH", "/m"), ("LOTUS_STORAGE_PATH", "/s")], "/m", 0),
        (&[("HOME", "/h"), ("LOTUS_STORAGE_PATH", "~/s")], "/h/s", 0),
        (&[("HOME", "/h"), ("LOTUS_MINER_PATH", "")], "/h/.bulkhead", 0),
        (&[("LOTUS_MINER_PATH", "/m"), ("BULKHEAD_PATH", "/b")], "/b", 0),
        (&[("HOME", "/h"), ("LOTUS_MINER_PATH", lotus)], "/h/.bulkhead", 1),
        (&[("HOME", "/h"), ("LOTUS_MINER_PATH", lotus), ("LOTUS_STORAGE_PATH", "/s")], "/s", 1),
        (&[("LOTUS_MINER_PATH", lotus), ("BULKHEAD_PATH", "/b")], "/b", 0),
    ];
    for (pairs, repo, warnings) in table {
        let env = env(pairs);
        assert_eq!(load::repo(None, &env).unwrap(), PathBuf::from(repo), "{pairs:?}");
        assert_eq!(unread_repo_variables(&env, false).len(), warnings, "{pairs:?}");
        assert!(unread_repo_variables(&env, true).is_empty());
    }
    assert_eq!(load::repo(Some(Path::new("/f")), &env(&[("LOTUS_MINER_PATH", "/m")])).unwrap(), PathBuf::from("/f"));
    // a node that once began there goes on there
    std::fs::write(Path::new(lotus).join("bulkhead.redb"), "").unwrap();
    assert_eq!(load::repo(None, &env(&[("LOTUS_MINER_PATH", lotus)])).unwrap(), PathBuf::from(lotus));
}

#[test]
fn a_variable_without_effect_is_named_once_with_what_to_use() {
    let env =
        env(&[("LOTUS_WORKER_PATH", "/w"), ("LOTUS_FD_MAX", "100000"), ("MARKETS_API_INFO", " "), ("HOME", "/h")]);
    let said = unread_variables(&env);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("LOTUS_WORKER_PATH is set and not read") && said[0].contains("WORKER_PATH"),
        "{said:?}"
    );
    assert!(said[1].contains("ulimit -n"), "{said:?}");
}
