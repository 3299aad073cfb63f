//! `bulkhead keys list|generate|check`: proving keys. Generated ones are for 2 KiB test sectors only.

use super::render::table::{Align, table};
use super::render::time::elapsed;
use super::wiring::{self, KeyRow};
use super::{CliError, Context};
use crate::config::values::{format_size, parse_sector_size};
use crate::util::lock;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Instant;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Which keys a 2 KiB sector needs, and whether they are there
    List,
    /// Make the missing keys of 2 KiB test sectors; other sizes are refused
    Generate {
        /// Of the sectors to be proven; only 2KiB keys can be made
        #[arg(long, value_name = "SIZE", default_value = "2KiB", value_parser = parse_sector_size)]
        sector_size: u64,
    },
    /// Read every key in full: structure, points, and the proofs library's own loader
    Check,
}

pub fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let cache = cx.config.proving.parameter_cache.clone();
    match command {
        Command::List => {
            let keys = wiring::keys_list(&cache)?;
            cx.out.answer(&keys, |keys| rows(keys));
        }
        Command::Generate { sector_size } => {
            let started = Instant::now();
            let bar = Bar::new();
            let keys = wiring::keys_generate(&cache, sector_size, &|step| bar.show(&step))?;
            bar.done();
            cx.out.answer(&keys, |keys| {
                format!(
                    "{}\n{} in {} ({}); for 2 KiB test sectors only",
                    rows(keys),
                    "keys are ready",
                    cache.display(),
                    elapsed(started.elapsed())
                )
            });
        }
        Command::Check => {
            let keys = wiring::keys_check(&cache)?;
            cx.out.answer(&keys, |keys| rows(keys));
            let bad: Vec<&str> = keys.iter().filter(|k| !k.ok).map(|k| k.key.as_str()).collect();
            if !bad.is_empty() {
                return Err(CliError::Failed(format!(
                    "{}: not good: {}; `bulkhead keys generate` makes them",
                    cache.display(),
                    bad.join(", ")
                )));
            }
        }
    }
    Ok(())
}

fn rows(keys: &[KeyRow]) -> String {
    let columns = [("KEY", Align::Left), ("SIZE", Align::Right), ("STATE", Align::Left), ("FILE", Align::Left)];
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|k| {
            vec![
                k.key.clone(),
                if k.bytes > 0 { format_size(k.bytes) } else { "-".to_string() },
                k.state.clone(),
                k.file.clone(),
            ]
        })
        .collect();
    table(&columns, &rows)
}

/// The progress of key generation: `done` of `total` curve points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStep {
    pub key: String,
    pub phase: String,
    pub done: u64,
    pub total: u64,
}

/// A bar in a terminal, a line for each tenth elsewhere.
struct Bar {
    bar: ProgressBar,
    last: std::sync::Mutex<(String, u64)>,
}

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        if std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            if let Ok(style) = ProgressStyle::with_template("{msg:30} {wide_bar} {percent:>3} %  {eta}") {
                bar.set_style(style);
            }
        }
        Bar { bar, last: Default::default() }
    }

    fn show(&self, step: &KeyStep) {
        let name = format!("{} {}", step.key, step.phase);
        let tenth = (step.done * 10).checked_div(step.total).unwrap_or(0);
        let mut last = lock(&self.last);
        let changed = *last != (name.clone(), tenth);
        if last.0 != name {
            self.bar.reset();
            self.bar.set_message(name.clone());
        }
        self.bar.set_length(step.total);
        self.bar.set_position(step.done);
        if changed && self.bar.is_hidden() {
            super::output::print_error(&format!(
                "{name} {}",
                if step.total > 0 { format!("{} %", tenth * 10) } else { String::new() }
            ));
        }
        *last = (name, tenth);
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
