//! A provider that runs only one of the two kinds of proofs: `proving info` shows that one, says of the other that it is off,
//! and takes neither for a trouble.

use crate::support::operator::*;

#[test]
fn the_part_that_runs_is_shown_where_the_other_is_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let chain = Chain::start(&dir.path().join("devnet"));
    let repo = dir.path().join("repo");
    chain.init(&repo);
    for (flag, off, on) in [
        ("--winning-post=false", "winning-post", "window-post"),
        ("--window-post=false", "window-post", "winning-post"),
    ] {
        let mut node = run(&repo, &chain.api_info(), &[flag]);
        node.says("the node is up");
        let info = &ask(&repo, &["proving", "info"])["proving"];
        assert_eq!(info["off"], serde_json::json!([off]), "{flag}: {info}");
        assert!(
            info["deadlines_unknown"].is_null() && !info["deadline"].as_str().unwrap_or_default().is_empty(),
            "{info}"
        );
        let words = info["troubles"].to_string();
        assert!(!words.contains("does not answer") && !words.contains("unavailable"), "{flag}: {words}");
        assert!(!words.contains(if off == "winning-post" { "WinningPoSt" } else { "WindowPoSt" }), "{flag}: {words}");
        // WinningPoSt tells its rounds as heads come.
        if on == "winning-post" {
            until("a round", || {
                let info = &ask(&repo, &["proving", "info"])["proving"];
                info["rounds"].as_array().is_some_and(|rounds| !rounds.is_empty()).then_some(())
            });
        } else {
            assert_eq!(info["rounds"], serde_json::json!([]));
        }
        let text = say(&["proving", "info", "--repo", text(&repo)], &[]).ok().out;
        assert!(text.contains(&format!("{off}: no node of this provider has the role")), "{text}");
        assert!(ask(&repo, &["proving", "deadlines"]).as_array().is_some_and(|rows| !rows.is_empty()));
        node.stopped();
    }
    chain.process.stopped();
}
