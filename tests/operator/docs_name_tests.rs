//! The pages in docs/guarantees name tests: each of them exists, and each guarantee has one.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each page, how many guarantees it has at least, and the folders of its modules besides `src`.
const PAGES: [(&str, usize, &[&str]); 4] = [
    ("supervision", 30, &["src/supervisor"]),
    ("bridge", 20, &["src/supervisor", "src/rpc/bridge"]),
    ("directory", 15, &["src/rpc/directory", "src/rpc/directory/etcd"]),
    ("cluster-state", 22, &["src/actors/seal_scheduler"]),
];

/// The files that may hold the tests of that path: `file`, a module with its tests, or a folder of tests.
fn places(module: &str, folders: &[&str]) -> Vec<PathBuf> {
    let path = module.replace("::", "/");
    let mut places = vec![format!("tests/{path}.rs")];
    for above in ["src"].iter().chain(folders) {
        places.extend(["", "/tests", "_tests"].map(|end| format!("{above}/{path}{end}.rs")));
        places.extend(path.rsplit_once('/').map(|(folder, file)| format!("{above}/{folder}/tests/{file}.rs")));
    }
    places.into_iter().map(|place| root().join(place)).filter(|place| place.is_file()).collect()
}

fn is_a_test(file: &Path, name: &str) -> bool {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            let head = lines.find(|l| l.contains("fn ")).unwrap_or_default();
            if head.split("fn ").nth(1).and_then(|f| f.split('(').next()) == Some(name) {
                return true;
            }
        }
    }
    false
}

/// The names of tests in a sentence, in full: `::name` goes on from the one before it. A path with a type is none.
fn named(sentence: &str) -> Vec<(String, String)> {
    let mut module = String::new();
    let mut names = Vec::new();
    let is_name = |word: &&str| word.contains("::") && !word.contains(char::is_uppercase);
    for word in sentence.split('`').skip(1).step_by(2).filter(is_name) {
        let (path, name) = word.rsplit_once("::").unwrap();
        if !path.is_empty() {
            module = path.to_string();
        }
        names.push((module.clone(), name.to_string()));
    }
    names
}

/// The rows of a page's tables (promise, tests) and the items of its lists, each with the title that it stands under. An item
/// ends with an empty line.
fn items(page: &str) -> Vec<(String, String)> {
    let mut items: Vec<(String, String)> = Vec::new();
    let (mut title, mut open) = ("", false);
    for line in page.lines() {
        title = line.strip_prefix("## ").unwrap_or(title);
        if line.starts_with("- ") || line.starts_with("| ") {
            items.push((title.to_string(), line.to_string()));
            open = line.starts_with("- ");
        } else if line.is_empty() {
            open = false;
        } else if let Some((_, item)) = items.last_mut().filter(|_| open) {
            item.push(' ');
            item.push_str(line);
        }
    }
    items.retain(|(_, item)| item != "| promise | test |");
    items
}

#[test]
fn each_guarantee_names_tests_that_exist() {
    let folder = root().join("docs/guarantees");
    let mut files: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut known = PAGES.map(|(page, ..)| format!("{page}.md"));
    known.sort();
    assert_eq!(files, known, "a page without a row in PAGES is not checked");
    for (page, at_least, folders) in PAGES {
        let text = std::fs::read_to_string(folder.join(format!("{page}.md"))).unwrap();
        let mut guarantees = 0;
        for (title, sentence) in items(&text) {
            let names = named(&sentence);
            if title != "Not guaranteed" {
                guarantees += 1;
                assert!(!names.is_empty(), "{page}.md names no test: {sentence}");
            }
            for (module, name) in names {
                let found = places(&module, folders).iter().any(|file| is_a_test(file, &name));
                assert!(found, "{page}.md: no test {module}::{name}: {sentence}");
            }
        }
        assert!(guarantees >= at_least, "{page}.md: {guarantees} guarantees");
    }
}
