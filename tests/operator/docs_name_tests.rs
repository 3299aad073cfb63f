//! The page of guarantees names tests: each of them exists, and each guarantee has one.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where tests of that path may be: `file`, a module with its tests, or a folder of tests.
fn places(module: &str) -> Vec<PathBuf> {
    let path = module.replace("::", "/");
    let mut places = vec![format!("tests/{path}.rs")];
    for above in ["src", "src/supervisor"] {
        places.extend([format!("{above}/{path}.rs"), format!("{above}/{path}/tests.rs")]);
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

/// The names of tests in a sentence, in full: `::name` goes on from the one before it.
fn named(sentence: &str) -> Vec<(String, String)> {
    let mut module = String::new();
    let mut names = Vec::new();
    for word in sentence.split('`').skip(1).step_by(2).filter(|word| word.contains("::")) {
        let (path, name) = word.rsplit_once("::").unwrap();
        if !path.is_empty() {
            module = path.to_string();
        }
        names.push((module.clone(), name.to_string()));
    }
    names
}

#[test]
fn each_guarantee_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/supervision.md")).unwrap();
    let (guarantees, _) = page.split_once("## Not guaranteed").unwrap();
    let sentences: Vec<&str> = guarantees.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(sentences.len() > 30, "{}", sentences.len());
    for sentence in sentences {
        let names = named(sentence);
        assert!(!names.is_empty(), "names no test: {sentence}");
        for (module, name) in names {
            let found = places(&module).iter().any(|file| is_a_test(file, &name));
            assert!(found, "no test {module}::{name}: {sentence}");
        }
    }
}
