//! The effect of a new reading of the configuration: keys that a running node takes over, and keys that need a restart.

use super::keys::{KEYS, Key};
use super::{Config, load};
use toml::{Table, Value};

/// Keys whose values differ, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub hot: Vec<&'static str>,
    pub needs_restart: Vec<&'static str>,
}

/// Compares the running and the new config.
pub fn between(running: &Config, read: &Config) -> Change {
    let (running, read) = (table(running), table(read));
    let mut change = Change::default();
    for key in KEYS.iter().filter(|key| value(&running, key) != value(&read, key)) {
        if key.hot { &mut change.hot } else { &mut change.needs_restart }.push(key.path);
    }
    change
}

/// `running` with the hot keys of `read`.
pub fn taken_over(running: &Config, read: &Config) -> Config {
    let (mut next, read) = (table(running), table(read));
    for key in KEYS.iter().filter(|key| key.hot) {
        if let Some(value) = value(&read, key) {
            load::put(&mut next, key, value.clone());
        }
    }
    Config { repo: running.repo.clone(), ..load::typed(next) }
}

fn value<'a>(table: &'a Table, key: &Key) -> Option<&'a Value> {
    table.get(key.section())?.get(key.name())
}

/// Every value came out of such a table.
fn table(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_else(|e| panic!("the types of the configuration are not TOML: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hot_keys_are_taken_over_and_the_others_named() {
        let running = Config { repo: "/r".into(), ..Config::default() };
        let mut read = Config { repo: "/r".into(), ..Config::default() };
        assert_eq!(between(&running, &read), Change::default());
        assert_eq!(taken_over(&running, &read), running);
        read.sealing.pc1 = 7;
        read.market.price = "1".into();
        read.node.log = "warn".into();
        read.api.listen = "127.0.0.1:9".parse().unwrap();
        read.cluster.roles = vec!["sealing".into()];
        let change = between(&running, &read);
        assert_eq!(change.hot, ["node.log", "sealing.pc1", "market.price"]);
        assert_eq!(change.needs_restart, ["cluster.roles", "api.listen"]);
        let next = taken_over(&running, &read);
        assert_eq!((next.sealing.pc1, next.market.price.as_str(), next.node.log.as_str()), (7, "1", "warn"));
        assert_eq!((next.api.listen, &next.cluster), (running.api.listen, &running.cluster));
        assert_eq!(between(&next, &read), Change { hot: vec![], needs_restart: change.needs_restart });
    }

    /// A key that is hot by mistake would be said to be in force and not be.
    #[test]
    fn hot_keys_are_those_that_the_docs_name() {
        let page = include_str!("../../docs/operations.md");
        let (_, after) = page.split_once("### Without a restart").unwrap();
        let section = after.split("\n#").next().unwrap();
        for key in KEYS {
            assert_eq!(section.contains(&format!("`{}`", key.path)), key.hot, "{}", key.path);
        }
    }
}
