//! How progress is shown: live in a terminal, plain lines without one, JSON lines with `--json`.

use super::progress::{Progress, ProgressEvent, screen};
use super::timeline::{Row, summary};
use crate::cli::output::print;
use crate::cli::render::time::utc;
use crate::util::lock;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

pub enum Show {
    Live(Box<LiveScreen>),
    Lines,
    Json,
    /// For tests.
    Record(std::sync::Arc<std::sync::Mutex<Vec<String>>>),
}

pub struct LiveScreen {
    all: MultiProgress,
    keys: Option<ProgressBar>,
    lines: Vec<ProgressBar>,
}

impl Show {
    pub fn pick(json: bool) -> Show {
        match (json, std::io::stdout().is_terminal() && std::env::var("TERM").is_ok_and(|t| t != "dumb")) {
            (true, _) => Show::Json,
            (false, true) => Show::Live(Box::new(LiveScreen {
                all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(5)),
                keys: None,
                lines: vec![],
            })),
            (false, false) => Show::Lines,
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self, Show::Live(_))
    }

    /// `now` in Unix milliseconds.
    pub fn event(&mut self, event: &ProgressEvent, now: u64) {
        match self {
            Show::Live(live) if event.is_news() => live.print(&format!("{} {event}", time_of_day(now))),
            Show::Live(_) => {}
            Show::Lines => print(&format!("{} {event}", time_of_day(now))),
            Show::Json => {
                let mut json = serde_json::to_value(event).unwrap_or_default();
                json["at_ms"] = now.into();
                print(&json.to_string());
            }
            Show::Record(lines) => lock(lines).push(event.to_string()),
        }
    }

    /// The state as it is now; only the live screen shows what did not change.
    pub fn progress(&mut self, p: &Progress, now: u64) {
        if let Show::Live(live) = self {
            live.draw(p, now);
        }
    }

    pub fn summary(&mut self, rows: &[Row]) {
        match self {
            Show::Live(live) => {
                live.clear();
                print(&format!("\n{}", summary(rows)));
            }
            Show::Lines => print(&format!("\n{}", summary(rows))),
            Show::Json => print(&serde_json::json!({ "event": "summary", "phases": rows }).to_string()),
            Show::Record(lines) => lock(lines).push("summary".to_string()),
        }
    }

    /// Leaves the terminal clean, for an error that follows.
    pub fn end(&mut self) {
        if let Show::Live(live) = self {
            live.clear();
        }
    }
}

fn time_of_day(now: u64) -> String {
    utc(now / 1000).split_off(11)
}

impl LiveScreen {
    fn print(&self, line: &str) {
        // a terminal that went away is no reason to stop
        let _ = self.all.println(line);
    }

    fn draw(&mut self, p: &Progress, now: u64) {
        match (&p.keys, &self.keys) {
            (Some(k), _) => {
                let bar = self.keys.get_or_insert_with(|| {
                    let bar = self.all.insert(0, ProgressBar::new(k.total));
                    let style = ProgressStyle::with_template("keys       {msg} {wide_bar} {percent:>3} %  {eta} left");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar
                });
                if bar.message() != k.name {
                    bar.reset();
                    bar.set_message(k.name.clone());
                }
                bar.set_length(k.total);
                bar.set_position(k.done);
            }
            (None, Some(bar)) => {
                bar.finish_and_clear();
                self.keys = None;
            }
            (None, None) => {}
        }
        let lines = screen(p, now);
        while self.lines.len() < lines.len() {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            self.lines.push(bar);
        }
        for gone in self.lines.drain(lines.len()..) {
            gone.finish_and_clear();
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            bar.set_message(line);
            bar.tick();
        }
    }

    fn clear(&mut self) {
        let _ = self.all.clear();
    }
}
