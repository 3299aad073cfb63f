//! `bulkhead config default|show`: the annotated defaults, or what holds now and where each value comes from.

use super::CliError;
use super::args::Global;
use super::output::{print, print_json};
use super::render::table::{Align, table};
use crate::config::keys::{KEYS, is_secret};
use crate::config::{Overrides, Source, example, load};
use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print an annotated configuration file with every key at its default
    Default,
    /// Print what holds now, and where each value comes from
    Show,
}

pub fn run(command: Command, global: &Global, overrides: Overrides) -> Result<(), CliError> {
    match command {
        Command::Default => print(&example::annotated()),
        Command::Show => {
            let loaded = load(&overrides, &|name| std::env::var(name).ok())?;
            let values = toml::Table::try_from(&loaded.config)
                .map_err(|e| CliError::Bug(format!("the configuration cannot be written: {e}")))?;
            let rows: Vec<(String, String, String)> = KEYS
                .iter()
                .map(|key| {
                    let value = values.get(key.section()).and_then(|s| s.get(key.name()));
                    let value = match (key.path, value) {
                        (path, Some(v)) if is_secret(path) && v.as_str() != Some("") => "(set)".to_string(),
                        (_, Some(v)) => v.to_string(),
                        (_, None) => String::new(),
                    };
                    (key.path.to_string(), value, loaded.sources.get(key.path).unwrap_or(&Source::Default).to_string())
                })
                .collect();
            if global.json {
                let json: Vec<_> =
                    rows.iter().map(|(k, v, s)| serde_json::json!({"key": k, "value": v, "source": s})).collect();
                print_json(&serde_json::json!({ "repo": loaded.config.repo, "keys": json }));
            } else {
                let rows = rows.into_iter().map(|(k, v, s)| vec![k, v, s]).collect::<Vec<_>>();
                print(&format!(
                    "repo: {}\n\n{}",
                    loaded.config.repo.display(),
                    table(&[("KEY", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)], &rows)
                ));
            }
        }
    }
    Ok(())
}
