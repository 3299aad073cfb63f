//! The layers put on one another: defaults < file < environment < flags.

use super::cluster::Fault;
use super::keys::{self, KEYS, Key, SECTIONS};
use super::values::expand_home;
use super::{Config, ConfigError, Source, documented, lotus};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The values of the command line: (key, flag, text).
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--repo`.
    pub repo: Option<PathBuf>,
    /// `--config`; else `<repo>/config.toml`, which need not exist.
    pub file: Option<PathBuf>,
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// A role of the flags that this node does without where a [[cluster.peer]] has it: without etcd nothing decides
    /// between two holders.
    pub left_to_peers: Option<&'static str>,
}

impl Overrides {
    pub fn flag(mut self, key: &'static str, flag: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.flags.push((key, flag, value.to_string()));
        }
        self
    }
}

/// A configuration and where each value that is not a default came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub sources: BTreeMap<&'static str, Source>,
}

/// The folder of a node: `--repo`, `BULKHEAD_PATH`, `LOTUS_MINER_PATH`, `LOTUS_STORAGE_PATH` (unless lotus-miner's own data
/// lie there), `~/.bulkhead`.
pub fn repo(flag: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, ConfigError> {
    let ours = env("BULKHEAD_PATH").filter(|p| !p.is_empty()).map(PathBuf::from);
    let path = match flag.map(PathBuf::from).or(ours) {
        Some(path) => expand_home(path, env),
        None => lotus::repo(env).or_else(|| expand_home("~/.bulkhead".into(), env)),
    };
    path.ok_or(ConfigError::NoHome)
}

/// Reads file and environment. `env` is `|name| std::env::var(name).ok()` outside of tests.
pub fn load(overrides: &Overrides, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
    let repo = repo(overrides.repo.as_deref(), env)?;
    let (file, required) = match &overrides.file {
        Some(file) => (file.clone(), true),
        None => (repo.join("config.toml"), false),
    };
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => String::new(),
        Err(e) => return Err(ConfigError::Read { path: file, why: e.to_string() }),
    };
    let mut layers = vec![file_layer(&file, &text)?];
    layers.push(env_layer(env)?);
    layers.push(flag_layer(&overrides.flags)?);

    let mut merged = default_table();
    let mut sources = BTreeMap::new();
    for (key, value, source) in layers.into_iter().flatten() {
        put(&mut merged, key, value);
        sources.insert(key.path, source);
    }
    let mut config = typed(merged);
    config.repo = repo;
    if let Some(role) = overrides.left_to_peers.filter(|role| config.cluster.peer_with(role).is_some()) {
        config.cluster.roles.retain(|held| held != role);
    }
    check(&config, &sources)?;
    Ok(Loaded { config, sources })
}

/// The sources of a configuration, to read it again: the file as it is then, environment and flags as they were.
#[derive(Clone, Debug)]
pub struct Reading {
    overrides: Overrides,
    env: BTreeMap<String, String>,
}

impl Reading {
    pub fn of_process(overrides: Overrides) -> Reading {
        let texts = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Reading { overrides, env: std::env::vars_os().filter_map(texts).collect() }
    }

    pub fn read(&self) -> Result<Loaded, ConfigError> {
        load(&self.overrides, &|name| self.env.get(name).cloned())
    }
}

impl Default for Config {
    fn default() -> Config {
        defaults()
    }
}

/// The table of keys, read as a file would be.
pub fn defaults() -> Config {
    typed(default_table())
}

fn default_table() -> Table {
    let mut table = Table::new();
    for key in KEYS {
        let value = toml::from_str::<Table>(&format!("v = {}", key.default)).ok().and_then(|mut t| t.remove("v"));
        let value = value.and_then(|v| key.kind.accept(&v));
        put(&mut table, key, value.unwrap_or_else(|| panic!("the default of {} is not one of its values", key.path)));
    }
    table
}

/// Never fails on input: every value in the table has passed its key's check; a test holds table and types together.
pub(super) fn typed(table: Table) -> Config {
    table.try_into().unwrap_or_else(|e| panic!("the table of keys and the types differ: {e}"))
}

pub(super) fn put(table: &mut Table, key: &Key, value: Value) {
    let section = table.entry(key.section()).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(key.name().to_string(), value);
    }
}

type Layer = Vec<(&'static Key, Value, Source)>;

fn file_layer(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let table: Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        ConfigError::Syntax { path: path.to_path_buf(), line, why: e.message().replace('\n', ", ") }
    })?;
    let origin = || Source::File(path.to_path_buf());
    let mut layer = Layer::new();
    for (section, content) in &table {
        let of_others = |t| documented::translate(&origin(), section, t);
        let is_ours = SECTIONS.iter().any(|(name, _)| name == section);
        if let Some(known) = content.as_table().filter(|_| !is_ours).and_then(of_others) {
            layer.extend(known?.into_iter().map(|(key, value)| (key, value, origin())));
            continue;
        }
        if !is_ours {
            return Err(unknown(origin(), section));
        }
        let Value::Table(content) = content else {
            let allowed = format!("[{section}] is a section");
            return Err(ConfigError::BadValue {
                origin: origin(),
                key: section.clone(),
                value: content.to_string(),
                allowed,
            });
        };
        for (name, value) in content {
            let path = format!("{section}.{name}");
            let Some(key) = keys::find(&path) else {
                match lotus::key(&origin(), section, name, value) {
                    Some(entry) => layer.extend(entry?.map(|(key, value)| (key, value, origin()))),
                    None => return Err(unknown(origin(), &path)),
                }
                continue;
            };
            let accepted = key.kind.accept(value).ok_or_else(|| bad(origin(), key, value.to_string()))?;
            layer.push((key, accepted, origin()));
        }
    }
    Ok(layer)
}

/// An empty variable counts as not set.
fn env_layer(env: &dyn Fn(&str) -> Option<String>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for key in KEYS {
        let name = key.env();
        if let Some(text) = env(&name).filter(|t| !t.trim().is_empty()) {
            let origin = Source::Env(name);
            let value = key.kind.parse(&text).ok_or_else(|| bad(origin.clone(), key, quoted(key, &text)))?;
            layer.push((key, value, origin));
        }
    }
    Ok(layer)
}

fn flag_layer(flags: &[(&'static str, &'static str, String)]) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (path, flag, text) in flags {
        let origin = Source::Flag(flag.to_string());
        let key = keys::find(path).ok_or_else(|| unknown(origin.clone(), path))?;
        let value = key.kind.parse(text).ok_or_else(|| bad(origin.clone(), key, quoted(key, text)))?;
        layer.push((key, value, origin));
    }
    Ok(layer)
}

/// Checks that span several keys.
fn check(config: &Config, sources: &BTreeMap<&'static str, Source>) -> Result<(), ConfigError> {
    let fail = |key: &'static str, value: String, why: String| {
        let origin = sources.get(key).cloned().unwrap_or(Source::Default);
        Err(ConfigError::Inconsistent { origin, key: key.to_string(), value, why })
    };
    let d = &config.devnet;
    if d.challenge_lookback >= d.proving_period() {
        return fail(
            "devnet.challenge_lookback",
            d.challenge_lookback.to_string(),
            format!("it must be below the proving period of {} epochs", d.proving_period()),
        );
    }
    if d.fault_cutoff >= d.proving_period() {
        return fail(
            "devnet.fault_cutoff",
            d.fault_cutoff.to_string(),
            format!("it must be below the proving period of {} epochs", d.proving_period()),
        );
    }
    let dispute_room = d.proving_period() - d.challenge_window;
    if d.dispute_window > dispute_room {
        return fail(
            "devnet.dispute_window",
            d.dispute_window.to_string(),
            format!("it must be at most {dispute_room} epochs, so that it ends before the deadline opens again"),
        );
    }
    if let Some(Fault { key, value, why, flag }) = config.cluster.faults() {
        return match (sources.get(key), flag) {
            // the roles come from several flags: the one that gives this role
            (Some(Source::Flag(_)), Some(flag)) => Err(ConfigError::Inconsistent {
                origin: Source::Flag(flag.to_string()),
                key: key.to_string(),
                value,
                why,
            }),
            _ => fail(key, value, why),
        };
    }
    let listens = [("admin.listen", config.admin.listen), ("api.listen", config.api.listen)];
    if listens[0].1 == listens[1].1 && listens[0].1.port() != 0 {
        return fail("admin.listen", listens[0].1.to_string(), "api.listen has the same address and port".to_string());
    }
    Ok(())
}

fn quoted(key: &Key, text: &str) -> String {
    if keys::is_secret(key.path) { "(not shown: it may hold a secret)".to_string() } else { format!("{text:?}") }
}

fn bad(origin: Source, key: &Key, value: String) -> ConfigError {
    let value = if keys::is_secret(key.path) { quoted(key, "") } else { value };
    ConfigError::BadValue {
        origin,
        key: key.path.to_string(),
        value,
        allowed: format!("it takes {}", key.kind.allowed()),
    }
}

fn unknown(origin: Source, key: &str) -> ConfigError {
    if let Some((name, _)) = SECTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
        return ConfigError::UnknownKey { origin, key: key.to_string(), hint: format!("write [{name}]") };
    }
    let near = KEYS.iter().map(|k| (distance(key, k.path), k.path)).min().filter(|(d, path)| *d <= path.len() / 3);
    let section = key.split('.').next().unwrap_or(key);
    let siblings: Vec<&str> = KEYS.iter().filter(|k| k.section() == section).map(|k| k.name()).collect();
    let hint = match near {
        Some((_, path)) if key.contains('.') => format!("did you mean {path}?"),
        _ if siblings.is_empty() => {
            format!("the sections are {}", SECTIONS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
        }
        _ => format!("[{section}] has {}", siblings.join(", ")),
    };
    ConfigError::UnknownKey { origin, key: key.to_string(), hint }
}

/// Edits between two names: letters added, left out or replaced, and neighbours swapped.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // rows of the table for the two letters of `a` before this one, and for this one
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (vec![0; b.len() + 1], (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(row[j - 1] + 1).min(last[j] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
