//! `bulkhead config default|show|reload`: the annotated defaults; what holds now and where each value comes from; have a
//! running node read it anew.

use super::client::NodeClient;
use super::context::Global;
use super::output::{print, print_json};
use super::render::table::{Align, table};
use super::{CliError, Context};
use crate::config::keys::{KEYS, is_secret};
use crate::config::{Overrides, Source, example, load};
use clap::Subcommand;
use serde_json::Value;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print an annotated configuration file with every key at its default
    Default,
    /// Print what holds now, and where each value comes from
    Show,
    /// Have the running node read its configuration anew
    Reload,
}

/// Reloads the configuration: changed hot keys are in force, others that differ are named.
pub async fn reload(cx: Context) -> Result<(), CliError> {
    let done: Value = NodeClient::open(&cx)?.admin_post_for("/config/reload").await?;
    cx.out.answer(&done, |done| {
        let keys = |name: &str| {
            let list = done[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
            if list.is_empty() { "nothing".to_string() } else { list.join(", ") }
        };
        let concerns = done["concerns"].as_object().into_iter().flatten();
        let rows: String = concerns.map(|(name, taken)| format!("  {name}: {}\n", words(taken))).collect();
        match done["under_way"] == true {
            true => "under way; the node's log says what comes of it\n".to_string(),
            false => format!("in force: {}\n{rows}needs a restart: {}\n", keys("changed"), keys("needs_restart")),
        }
    });
    Ok(())
}

/// `at_its_next_start`, or `{"refused": why}`.
fn words(taken: &Value) -> String {
    match taken.as_str() {
        Some(taken) => taken.replace('_', " "),
        None => format!("refused: {}", taken["refused"].as_str().unwrap_or("no reason given")),
    }
}

pub fn run(command: Command, global: &Global, overrides: Overrides) -> Result<(), CliError> {
    match command {
        Command::Reload => return Err(CliError::Bug("config reload asks a running node".into())),
        Command::Default => print(&example::annotated()),
        Command::Show => {
            let loaded = load(&overrides, &|name| std::env::var(name).ok())?;
            let values = toml::Table::try_from(&loaded.config)
                .map_err(|e| CliError::Bug(format!("the configuration cannot be written: {e}")))?;
            let rows: Vec<(String, String, String, bool)> = KEYS
                .iter()
                .map(|key| {
                    let value = values.get(key.section()).and_then(|s| s.get(key.name()));
                    let value = match (key.path, value) {
                        (path, Some(v)) if is_secret(path) && v.as_str() != Some("") => "(set)".to_string(),
                        (_, Some(v)) => v.to_string(),
                        (_, None) => String::new(),
                    };
                    let source = loaded.sources.get(key.path).unwrap_or(&Source::Default).to_string();
                    (key.path.to_string(), value, source, key.hot)
                })
                .collect();
            if global.json {
                let json: Vec<_> = rows
                    .iter()
                    .map(|(k, v, s, hot)| serde_json::json!({"key": k, "value": v, "source": s, "hot": hot}))
                    .collect();
                print_json(&serde_json::json!({ "repo": loaded.config.repo, "keys": json }));
            } else {
                let rows = rows
                    .into_iter()
                    .map(|(k, v, s, hot)| vec![k, v, if hot { "hot".to_string() } else { String::new() }, s])
                    .collect::<Vec<_>>();
                print(&format!(
                    "repo: {}\n\n{}",
                    loaded.config.repo.display(),
                    table(&["KEY", "VALUE", "RELOAD", "FROM"].map(|name| (name, Align::Left)), &rows)
                ));
            }
        }
    }
    Ok(())
}
