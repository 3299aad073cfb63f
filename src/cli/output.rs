//! Prints a command's answer. A reader that went away (`bulkhead tree | head -1`) is no error.

use serde::Serialize;
use std::io::Write;

/// How this command answers.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    pub json: bool,
}

impl Out {
    /// The answer as pretty JSON with `--json`, else as the text that `render` makes.
    pub fn answer<T: Serialize>(&self, value: &T, render: impl FnOnce(&T) -> String) {
        if self.json { print_json(value) } else { print(&render(value)) }
    }
}

pub fn print_json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(e) => print_error(&format!("error: the answer cannot be written as JSON: {e}")),
    }
}

/// To stdout, with a newline at the end.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
}

/// To stderr, as one line.
pub fn print_error(text: &str) {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
