//! A doc comment begins with its subject: not with a bare relative ("What ..", "Of ..", "Since when ..").

use std::path::{Path, PathBuf};

const BARE: [&str; 16] = [
    "What",
    "Who",
    "Whoever",
    "Whom",
    "Whose",
    "Where",
    "Those",
    "Of",
    "By which",
    "In which",
    "Under which",
    "Since when",
    "Until when",
    "From when",
    "So many",
    "So far",
];
/// The help of commands is written for a prompt.
const FREE: [&str; 1] = ["src/cli/"];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.extend(path.extension().is_some_and(|ext| ext == "rs").then_some(path)),
        }
    }
}

#[test]
fn doc_comments_begin_with_their_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut bare = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if FREE.iter().any(|free| name.starts_with(free)) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let mut inside = false;
        for (at, line) in text.lines().map(str::trim_start).enumerate() {
            let doc = line.strip_prefix("/// ").or(line.strip_prefix("//! "));
            let begins = doc.filter(|_| !inside);
            inside = line.starts_with("///") || line.starts_with("//!");
            let Some(begins) = begins else { continue };
            if BARE.iter().any(|bare| begins.strip_prefix(bare).is_some_and(|rest| rest.starts_with(' '))) {
                bare.push(format!("{name}:{}: {begins}", at + 1));
            }
        }
    }
    assert!(bare.is_empty(), "begin with the subject:\n{}", bare.join("\n"));
}
