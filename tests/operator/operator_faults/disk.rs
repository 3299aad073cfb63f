//! A full disk.

use super::{Place, well_again};
use crate::support::operator::*;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;

/// A disk that can be filled: a small tmpfs where this process may mount one.
struct Disk {
    at: PathBuf,
    fill: PathBuf,
}

impl Disk {
    fn mount(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir(&at).expect("a folder");
        let args = ["-t", "tmpfs", "-o", "size=24m", "tmpfs", text(&at)];
        let mounted = std::process::Command::new("mount").args(args).output();
        mounted.is_ok_and(|done| done.status.success()).then(|| Disk { fill: at.join("fill"), at })
    }
    /// To the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.fill).expect("a file");
        let block = vec![0xaa; 4096];
        while file.write_all(&block).is_ok() {}
    }
    fn free(&self) {
        std::fs::remove_file(&self.fill).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", text(&self.at)]).status(); // nothing else can be done
    }
}

#[test]
fn a_full_disk_stops_nothing_for_good_and_loses_nothing() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.at("disk")) else {
        eprintln!("SKIPPED: this user may not mount a tmpfs; the store's own tests cover a full disk without one");
        return;
    };
    let (dir, repo) = (disk.at.join("devnet"), disk.at.join("repo"));
    let mut chain = Chain::start(&dir);
    chain.init(&repo);
    let api_info = chain.api_info();
    let mut node = up(&repo, &api_info);

    disk.fill();
    // its file has some room left in itself; what is freed by others is taken again
    until("a chain that cannot move", || {
        let said = chain.process.err();
        if !said.contains("the chain cannot move") {
            disk.fill();
        }
        said.contains("no space left on the disk of").then_some(())
    });
    let number = |said: &Said| {
        let id: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said}"));
        Some(id["Number"].as_u64().unwrap_or_else(|| panic!("no number: {said}")))
    };
    let pledge = || say(&["sectors", "pledge", "--json", "--repo", text(&repo)], &[]);
    let mut pledged = vec![];
    // Sectors without room write nothing: pledges alone use up the room in the store's file, some hundred of them.
    let refused = until_within(std::time::Duration::from_secs(600), "a pledge that is refused", || {
        let said = pledge();
        if said.status.success() {
            pledged.extend(number(&said)); // there was room in the store's file
            disk.fill();
        }
        (!said.status.success()).then_some(said)
    });
    refused.refused(1, &["no space left on the disk of", "bulkhead.redb", "free some", "nothing was lost"]);
    assert!(node.lives() && chain.process.lives(), "{}", node.err());
    assert!(ask(&repo, &["tree"]).as_array().is_some_and(|rows| rows.iter().all(|row| row["state"] == "up")));
    // killed while it is full, and started again: one sentence, or it comes up and waits
    node.killed();
    let mut again = run(&repo, &api_info, &[]);
    let came_up = until("a start or a refusal", || match again.err().contains("the node is up") {
        true => Some(true),
        false => (!again.lives()).then_some(false),
    });
    match came_up {
        true => drop(again.stopped()),
        false => again.ended().refused(1, &["o space left on"]),
    }

    disk.free();
    let mut node = up(&repo, &api_info);
    well_again(&repo, "head_feed");
    let height = || ask(&repo, &["info"])["full_node"]["height"].as_i64();
    let seen = until("a head", height);
    until("the next heads", || height().filter(|now| *now > seen + 1));
    pledged.extend(number(&pledge().ok()));
    until("every sector that was pledged", || {
        let list = ask(&repo, &["sectors", "list"]);
        let numbers: Vec<u64> = list.as_array()?.iter().filter_map(|row| row["number"].as_u64()).collect();
        pledged.iter().all(|n| numbers.contains(n)).then_some(())
    });
    assert!(node.lives() && chain.process.lives());
    node.stopped();
    chain.process.stopped();
}
