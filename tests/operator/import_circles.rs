//! Files of `src` do not import each other in a circle: what two files need is declared in a third, or in the lower one.
//!
//! Reads the sources: `use` declarations and paths in the code, through re-exports, down to the file that declares the name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Ties that may stand although they close a circle: from, to, and why. One that closes none any more fails the test.
const ALLOWED: [(&str, &str, &str); 25] = [
    ("actors::message_sender::effects", "actors::message_sender::round", "a round is the engine's longest method"),
    ("actors::window_post::effects", "actors::window_post::trials", "a trial is an effect in a file of its own"),
    ("actors::window_post::proving", "actors::window_post::parts", "the proofs of one attempt, in a file of their own"),
    ("devnet::core", "devnet::mempool", "the pool is a part of the chain and reads its state"),
    ("devnet::vm::power", "devnet::vm::miner", "the power actor makes miner actors, as on the network"),
    ("node::backend", "node::api_views", "the backend's answers, a file a kind"),
    ("node::backend", "node::provider_report", "the backend's answers, a file a kind"),
    ("node::backend", "node::sealing_report", "the backend's answers, a file a kind"),
    ("node::provider_report", "node::provider_report::accounts", "a report's parts, a file a kind"),
    ("node::refs", "node::api_views", "an address is typed by its actor, and the publisher of reports asks the others"),
    (
        "rpc::full_node::node_client",
        "rpc::full_node::capabilities",
        "a node keeps what it was found to lack, and is asked for that",
    ),
    ("supervisor::actor", "supervisor::shell::context", "the trait of an actor names the context that names the trait"),
    ("supervisor::actor", "supervisor::wire", "a message knows its form between processes"),
    ("supervisor::cell", "supervisor::monitor", "a cell holds its watchers, which are addresses"),
    ("supervisor::monitor", "supervisor::shell::address", "a watcher is an address, and an address can be watched"),
    ("supervisor::wire", "supervisor::shell::address", "a watcher is an address, and an address can be watched"),
    ("supervisor::shell::address", "supervisor::shell::batch", "the methods of an address, a file a kind"),
    (
        "supervisor::shell::address",
        "supervisor::shell::context",
        "an address leads to the running actor, which has addresses",
    ),
    ("supervisor::shell::address", "supervisor::shell::deliver", "the methods of an address, a file a kind"),
    (
        "supervisor::shell::deliver",
        "supervisor::shell::context",
        "a delivery runs in the actor's context, which delivers",
    ),
    ("supervisor::node", "supervisor::supervise", "a node of the tree leads to its supervisor, which holds the nodes"),
    (
        "supervisor::node",
        "supervisor::supervise::combiner",
        "a node of the tree leads to its supervisor, which holds the nodes",
    ),
    ("supervisor::spec", "supervisor::node", "what comes before a child is found in the tree, which holds the specs"),
    (
        "supervisor::supervise",
        "supervisor::supervise::control",
        "a supervisor orders what the control thread does for it",
    ),
    (
        "supervisor::supervise::control",
        "supervisor::supervise::combiner",
        "a supervisor orders what the control thread does for it",
    ),
];

/// A file as a module path without `crate`; the crate's own is empty.
type Module = Vec<String>;

#[derive(Debug, Default)]
struct File {
    /// Paths as they are written, from `use` declarations and code; with the names that re-exports give.
    paths: Vec<Vec<String>>,
    reexports: Vec<Vec<String>>,
}

fn modules(folder: &Path, at: &Module, into: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let child = [at.as_slice(), std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            if name != "library" {
                modules(&path, &child, into);
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") && name != "main" {
            let module = if name == "mod" || name == "lib" { at.clone() } else { child };
            into.insert(module, std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn of_tests(module: &Module) -> bool {
    module.iter().any(|name| name.ends_with("tests"))
}

/// Identifiers, `::` and single characters; comments, texts and lifetimes left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut out) = (0, Vec::new());
    while at < chars.len() {
        let rest = &chars[at..];
        let word = |c: &char| c.is_alphanumeric() || *c == '_';
        let quoted = |from: usize, end: char| {
            let mut at = from;
            while at < rest.len() && rest[at] != end {
                at += if rest[at] == '\\' { 2 } else { 1 };
            }
            at + 1
        };
        at += match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['r', '#', '"', ..] => rest.windows(2).skip(3).position(|two| two == ['"', '#']).unwrap_or(rest.len()) + 5,
            ['"', ..] => quoted(1, '"'),
            ['\'', '\\', ..] => quoted(1, '\''),
            ['\'', _, '\'', ..] => 3,
            ['\'', ..] => 1 + rest[1..].iter().take_while(|c| word(c)).count(),
            [':', ':', ..] => {
                out.push("::".to_string());
                2
            }
            [c, ..] if word(c) => {
                let ident: String = rest.iter().take_while(|c| word(c)).collect();
                let len = ident.chars().count();
                out.push(ident);
                len
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    out.push(c.to_string());
                }
                1
            }
            [] => unreachable!(),
        };
    }
    out
}

/// The end of what begins with the brace at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        depth += i32::from(token == "{") - i32::from(token == "}");
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// The paths of a `use` tree that begins at `at`, and where it ends.
fn use_tree(tokens: &[String], mut at: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens[at] != "}" {
                    at = use_tree(tokens, at, &path, out);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            Some("::") => at += 1,
            Some("as") => at += 2,
            Some("," | "}" | ";") | None => {
                out.push(path);
                return at;
            }
            Some(name) => {
                path.push(name.to_string());
                at += 1;
            }
        }
    }
}

fn read(tokens: &[String], inside: usize, file: &mut File) {
    // In a module within the file, `super` is the file.
    let outer = |mut path: Vec<String>| {
        for _ in 0..inside {
            match path.first().map(String::as_str) {
                Some("super") => drop(path.remove(0)),
                _ => return if path.is_empty() { path } else { [vec!["self".to_string()], path].concat() },
            }
        }
        if inside > 0 && path.first().is_none_or(|first| first != "super") {
            path.insert(0, "self".into());
        }
        path
    };
    let rebased = |path: Vec<String>| match path.first().map(String::as_str) {
        Some("super" | "self") => outer(path),
        _ => path,
    };
    let mut at = 0;
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].as_str());
        match tokens[at].as_str() {
            "pub" if tokens.get(at + 1).is_some_and(|next| next == "(") => {
                // `pub(in crate::x)` names no file that is needed
                at += tokens[at..].iter().position(|token| token == ")").unwrap_or(0);
            }
            "mod" if tokens.get(at + 2).is_some_and(|next| next == "{") => {
                let end = closing(tokens, at + 2);
                let tests = tokens[..at].ends_with(&["#", "[", "cfg", "(", "test", ")", "]"].map(String::from));
                if !tests {
                    read(&tokens[at + 3..end], inside + 1, file);
                }
                at = end;
            }
            "use" if tokens[at + 1] != "<" => {
                let mut paths = Vec::new();
                let reexport = before(1) == "pub" || before(1) == ")";
                at = use_tree(tokens, at + 1, &[], &mut paths);
                let paths = paths.into_iter().map(rebased);
                match reexport {
                    true => file.reexports.extend(paths),
                    false => file.paths.extend(paths),
                }
            }
            name if name.starts_with(|c: char| c.is_alphabetic()) && before(1) != "::" && before(1) != "." => {
                let mut path = vec![name.to_string()];
                while tokens.get(at + 1).is_some_and(|next| next == "::")
                    && tokens.get(at + 2).is_some_and(|next| next.starts_with(|c: char| c.is_alphabetic()))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                if path.len() > 1 {
                    file.paths.push(rebased(path));
                }
            }
            _ => {}
        }
        at += 1;
    }
}

struct Sources {
    files: BTreeMap<Module, File>,
    /// (module, name) -> the path that it re-exports.
    reexports: BTreeMap<(Module, String), Module>,
}

impl Sources {
    fn of(folder: &Path) -> Sources {
        let mut texts = BTreeMap::new();
        modules(folder, &Vec::new(), &mut texts);
        let mut files: BTreeMap<Module, File> = BTreeMap::new();
        for (module, text) in texts {
            let mut file = File::default();
            read(&tokens(&text), 0, &mut file);
            files.insert(module, file);
        }
        let mut sources = Sources { files, reexports: BTreeMap::new() };
        for (module, file) in &sources.files {
            for path in &file.reexports {
                if let Some((path, name)) = sources.whole(module, path).zip(path.last()) {
                    sources.reexports.insert((module.clone(), name.clone()), path);
                }
            }
        }
        sources
    }

    /// The path from the crate's root; `None`: of another crate, or a name of the file itself.
    fn whole(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut base = module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                let child = [module.as_slice(), &[name.to_string()]].concat();
                self.files.contains_key(&child).then_some(())?;
            }
        }
        Some([base.as_slice(), rest].concat())
    }

    /// The file that declares it.
    fn declared_in(&self, path: &Module, depth: u32) -> Option<Module> {
        let module = (0..=path.len()).rev().map(|len| path[..len].to_vec()).find(|m| self.files.contains_key(m))?;
        let reexport = path.get(module.len()).and_then(|name| self.reexports.get(&(module.clone(), name.clone())));
        match reexport {
            Some(target) if depth < 8 => {
                let path = [target.as_slice(), &path[module.len() + 1..]].concat();
                self.declared_in(&path, depth + 1)
            }
            _ => Some(module),
        }
    }

    fn ties(&self) -> BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>> {
        let mut ties: BTreeMap<&Module, BTreeMap<Module, BTreeSet<String>>> = BTreeMap::new();
        for (module, file) in self.files.iter().filter(|(module, _)| !of_tests(module)) {
            let of = ties.entry(module).or_default();
            for path in &file.paths {
                let Some(whole) = self.whole(module, path) else { continue };
                let Some(to) = self.declared_in(&whole, 0).filter(|to| to != module && !of_tests(to)) else { continue };
                of.entry(to).or_default().insert(path.last().cloned().unwrap_or_default());
            }
        }
        ties
    }
}

fn reachable(ties: &BTreeMap<String, BTreeMap<String, String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_string()];
    while let Some(at) = todo.pop() {
        for to in ties.get(&at).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(to.clone()) {
                todo.push(to.clone());
            }
        }
    }
    seen
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    let sources = Sources::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let name = |module: &Module| module.join("::");
    let mut ties: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (from, tos) in sources.ties() {
        let tos = tos.iter().map(|(to, what)| (name(to), what.iter().cloned().collect::<Vec<_>>().join(", ")));
        ties.insert(name(from), tos.collect());
    }
    assert!(ties.len() > 300, "the sources were read: {}", ties.len());
    let whole = ties.clone();
    for (from, to, _) in ALLOWED {
        ties.get_mut(from).and_then(|tos| tos.remove(to));
    }
    let idle: Vec<_> = ALLOWED
        .iter()
        .filter(|(from, to, _)| {
            !whole.get(*from).is_some_and(|tos| tos.contains_key(*to)) || !reachable(&whole, to).contains(*from)
        })
        .collect();
    assert!(idle.is_empty(), "these close no circle any more: {idle:#?}");

    let reach: BTreeMap<&String, BTreeSet<String>> = ties.keys().map(|from| (from, reachable(&ties, from))).collect();
    let mut circles: BTreeSet<Vec<&String>> = BTreeSet::new();
    for (from, to) in &reach {
        if to.contains(*from) {
            circles.insert(
                to.iter()
                    .filter(|other| reach.get(other).is_some_and(|back| back.contains(*from)))
                    .filter_map(|m| ties.get_key_value(m))
                    .map(|(m, _)| m)
                    .collect(),
            );
        }
    }
    let mut found = String::new();
    for circle in circles {
        found += &format!("\n{} files:\n", circle.len());
        for from in &circle {
            let inside = ties[*from].iter().filter(|(to, _)| circle.contains(to));
            found += &inside.map(|(to, what)| format!("  {from} -> {to}: {what}\n")).collect::<String>();
        }
    }
    assert!(found.is_empty(), "files that import each other in a circle:{found}");
}
