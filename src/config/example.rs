//! The annotated example, and how `init` writes a miner into a repo's own file without touching the rest of it.

use super::keys::{KEYS, SECTIONS};
use super::{Config, ConfigError};
use crate::util::{Mode, write_durably};
use std::path::Path;

/// Every key with its default, what it takes and its environment variable. `config/bulkhead.toml` is this text.
pub fn annotated() -> String {
    let mut text = String::from(
        "# Bulkhead's configuration: every key, with its default. `bulkhead config default` prints this file.\n\
         # A node reads <repo>/config.toml, or the file given with --config. Flags beat the environment, the\n\
         # environment beats the file, the file beats the defaults. Keys that are left out keep their default.\n\
         # A node that runs takes over keys marked (hot) on `bulkhead config reload` or SIGHUP; others need a restart.\n",
    );
    for (section, about) in SECTIONS {
        text += &format!("\n# {about}\n[{section}]\n");
        for key in KEYS.iter().filter(|k| k.section() == *section) {
            let hot = if key.hot { " (hot)" } else { "" };
            text += &format!("# {}\n# Takes {}. Environment: {}{hot}\n", key.help, key.kind.allowed(), key.env());
            text += &format!("{} = {}\n", key.name(), key.default);
        }
    }
    text
}

/// `text` with `node.miner = "<miner>"`, everything else as it was.
pub fn with_miner(text: &str, miner: &str) -> String {
    with_entries(text, "node", &[("miner", miner.into())])
}

/// `text` with these entries in that section, everything else as it was.
pub fn with_entries(text: &str, wanted: &str, entries: &[(&str, toml::Value)]) -> String {
    let written: Vec<String> = entries.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let replaced =
        |line: &str| line.split('=').next().is_some_and(|name| entries.iter().any(|(n, _)| *n == name.trim()));
    let (mut lines, mut section, mut done) = (Vec::<String>::new(), String::new(), false);
    for line in text.lines() {
        let bare = line.split('#').next().unwrap_or("").trim();
        if bare.starts_with('[') {
            // [[tables]] keep their brackets: they are no section
            section = bare.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(bare).trim().to_string();
            lines.push(line.to_string());
            if section == wanted && !done {
                lines.extend(written.iter().cloned());
                done = true;
            }
        } else if section == wanted && replaced(bare) {
            // the entry stands above, right under its section
        } else {
            lines.push(line.to_string());
        }
    }
    if !done {
        let mut head = vec!["# This repo's node; every key: `bulkhead config default`.".to_string()];
        head.retain(|line| !lines.contains(line));
        head.push(format!("[{wanted}]"));
        head.extend(written);
        head.push(String::new());
        lines.splice(0..0, head);
    }
    lines.join("\n").trim_end().to_string() + "\n"
}

/// The file's text; empty where there is none.
pub fn read_or_empty(path: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// Writes the miner into `<repo>/config.toml`: durable, atomic, with the mode that the file has (0600 for a
/// new one: a token may be written into it), and never over another miner.
pub fn set_miner(config: &Config, miner: &str) -> Result<(), ConfigError> {
    let path = config.config_file();
    let fail = |e: std::io::Error| ConfigError::Write { path: path.clone(), why: e.to_string() };
    if let Some(found) = config.node.miner.as_ref().filter(|found| *found != miner) {
        return Err(ConfigError::OtherMiner { path, found: found.clone(), wanted: miner.to_string() });
    }
    std::fs::create_dir_all(&config.repo).map_err(fail)?;
    let before = read_or_empty(&path).map_err(fail)?;
    write_durably(&path, with_miner(&before, miner).as_bytes(), Mode::Keep).map_err(fail)
}
