//! Levels of the log by subsystem, changed while the process runs: the subsystems' names, as in Lotus where it has one for the
//! same, and the filter that follows. Such a change ends with the process; what is to stay belongs into `node.log`.

use super::lock;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;

/// Subsystems by name, each with the modules whose lines are its own. `fullpool` is the pool manual's; `rpc`, `wdpost`, `miner`,
/// `messagepool`, `sectors`, `advmgr`, `stores` and `markets` are Lotus' names.
pub const SYSTEMS: [(&str, &[&str]); 22] = [
    ("fullpool", &["bulkhead::rpc::full_node::pool", "bulkhead::rpc::pool_api", "bulkhead::actors::daemon_link"]),
    ("full_node", &["bulkhead::rpc::full_node"]),
    ("rpc", &["bulkhead::rpc"]),
    ("bridge", &["bulkhead::rpc::bridge"]),
    ("directory", &["bulkhead::rpc::directory"]),
    ("admin", &["bulkhead::rpc::admin"]),
    ("wdpost", &["bulkhead::actors::window_post"]),
    ("miner", &["bulkhead::actors::winning_post"]),
    ("f3", &["bulkhead::actors::f3"]),
    ("messagepool", &["bulkhead::actors::message_sender"]),
    ("sectors", &["bulkhead::actors::seal_scheduler", "bulkhead::actors::sector_allocator"]),
    ("advmgr", &["bulkhead::actors::seal_agent"]),
    ("stores", &["bulkhead::actors::storage"]),
    ("markets", &["bulkhead::actors::deal_handler"]),
    ("supervisor", &["bulkhead::supervisor"]),
    ("node", &["bulkhead::node"]),
    ("store", &["bulkhead::store"]),
    ("proofs", &["bulkhead::proofs"]),
    ("devnet", &["bulkhead::devnet"]),
    ("cli", &["bulkhead::cli"]),
    ("audit", &["audit"]),
    ("panic", &["bulkhead::panic"]),
];
/// Modules whose level is set at most.
const MOST: usize = 256;
/// All subsystems.
pub const ALL: &str = "*";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogLevelError {
    #[error("{0:?} is no subsystem of the log; `bulkhead log list` shows those that are")]
    NoSystem(String),
    #[error("{0:?} is no level of the log; there are trace, debug, info, warn, error, off")]
    NoLevel(String),
    #[error("{0}")]
    Filter(String),
}

/// A level by our name or one of Lotus'.
fn level(text: &str) -> Result<LevelFilter, LogLevelError> {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "warning" => Ok(LevelFilter::WARN),
        "dpanic" | "panic" | "fatal" => Ok(LevelFilter::ERROR),
        // Numbers are levels to the parser, too.
        _ if text.starts_with(|c: char| c.is_ascii_digit()) || text.is_empty() => Err(LogLevelError::NoLevel(text)),
        _ => LevelFilter::from_str(&text).map_err(|_| LogLevelError::NoLevel(text)),
    }
}

/// The configured filter, and the levels that were set after it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Levels {
    /// `node.log`.
    configured: String,
    /// By module.
    set: BTreeMap<String, LevelFilter>,
}

impl Levels {
    /// `system`: a name of [`SYSTEMS`], [`ALL`], or a module such as `bulkhead::rpc::bridge`.
    fn set(&mut self, system: &str, level: LevelFilter) -> Result<(), LogLevelError> {
        let known = SYSTEMS.iter().find(|(name, _)| *name == system).map(|(_, modules)| *modules);
        let is_module = system.starts_with("bulkhead")
            && system.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b));
        match known {
            Some(modules) => self.set.extend(modules.iter().map(|module| (module.to_string(), level))),
            None if system == ALL => {
                self.set.clear();
                let modules = SYSTEMS.iter().flat_map(|(_, modules)| *modules).chain(&["bulkhead"]);
                self.set.extend(modules.map(|module| (module.to_string(), level)));
            }
            None if is_module && self.set.len() < MOST => self.set.extend([(system.to_string(), level)]),
            None => return Err(LogLevelError::NoSystem(system.to_string())),
        }
        Ok(())
    }

    /// As a filter is written; of two lines about the same module the last counts.
    fn filter(&self) -> String {
        let set = self.set.iter().map(|(module, level)| format!("{module}={level}"));
        std::iter::once(self.configured.clone())
            .filter(|text| !text.is_empty())
            .chain(set)
            .collect::<Vec<_>>()
            .join(",")
    }
}

type Refilter = Box<dyn Fn(&str) -> Result<(), String> + Send>;

/// The levels, and how the process' log takes a filter; `None`: it has no log whose filter could be changed.
static LOG: Mutex<(Option<Refilter>, Levels)> =
    Mutex::new((None, Levels { configured: String::new(), set: BTreeMap::new() }));

/// The process logs by `configured` now; `refilter` changes that.
pub fn begin(configured: &str, refilter: Refilter) {
    *lock(&LOG) = (Some(refilter), Levels { configured: configured.to_string(), set: BTreeMap::new() });
}

/// Changes the levels, unless the log refuses the filter that follows.
fn change(change: impl FnOnce(&mut Levels) -> Result<(), LogLevelError>) -> Result<(), LogLevelError> {
    let (refilter, levels) = &mut *lock(&LOG);
    let mut next = levels.clone();
    change(&mut next)?;
    let refilter = refilter.as_ref();
    let refilter =
        refilter.ok_or(LogLevelError::Filter("this process has no log whose filter could be changed".into()))?;
    refilter(&next.filter()).map_err(LogLevelError::Filter)?;
    *levels = next;
    Ok(())
}

/// Another configuration; levels that were set meanwhile hold on.
pub fn configure(filter: &str) -> Result<(), LogLevelError> {
    change(|levels| {
        levels.configured = filter.to_string();
        Ok(())
    })
}

/// Sets the level of a subsystem from now on.
pub fn set(system: &str, text: &str) -> Result<(), LogLevelError> {
    let level = level(text)?;
    change(|levels| levels.set(system, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_set_over_the_configured_filter() {
        let mut levels = Levels { configured: "warn,bulkhead::rpc=debug".into(), ..Levels::default() };
        levels.set("fullpool", level("warn").unwrap()).unwrap();
        levels.set("wdpost", level("DEBUG").unwrap()).unwrap();
        levels.set("wdpost", level("fatal").unwrap()).unwrap();
        levels.set("bulkhead::rpc::bridge", level("off").unwrap()).unwrap();
        assert_eq!(
            levels.filter(),
            "warn,bulkhead::rpc=debug,bulkhead::actors::daemon_link=warn,bulkhead::actors::window_post=error,\
             bulkhead::rpc::bridge=off,bulkhead::rpc::full_node::pool=warn,bulkhead::rpc::pool_api=warn"
        );
        levels.set(ALL, level("info").unwrap()).unwrap();
        let filter = levels.filter();
        assert!(filter.contains("bulkhead=info") && !filter.contains("off"), "{filter}");
        for system in ["fulpool", "", "libp2p", "bulkhead,trace", "bulkhead=trace", "bulkhead::[span]"] {
            assert_eq!(levels.set(system, LevelFilter::INFO), Err(LogLevelError::NoSystem(system.into())));
        }
        for text in ["loud", "", "3", "info,trace"] {
            assert!(level(text).unwrap_err().to_string().contains("trace, debug"), "{text}");
        }
    }

    /// A module that moves must take its name here with it.
    #[test]
    fn every_module_is_there() {
        for module in SYSTEMS.iter().flat_map(|(_, modules)| *modules) {
            let Some(path) = module.strip_prefix("bulkhead::").filter(|path| *path != "panic") else { continue };
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path.replace("::", "/"));
            assert!(path.is_dir() || path.with_extension("rs").is_file(), "{module}");
        }
    }
}
