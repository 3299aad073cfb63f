//! JSON of values that may have none: an error where `serde_json::json!` panics.

/// A JSON object of named values: `try_json!({ "Name": value })` gives `Result<Value, serde_json::Error>`.
///
/// A message, for one, has no JSON when its amounts are larger than the chain can encode: its `CID` is part of it.
macro_rules! try_json {
    ({ $($name:literal: $value:expr),* $(,)? }) => {{
        #[allow(unused_mut)] // without members
        let mut members = serde_json::Map::new();
        #[allow(unused_mut)]
        let mut failed: Option<serde_json::Error> = None;
        $(
            match serde_json::to_value(&$value) {
                Ok(value) => drop(members.insert($name.to_string(), value)),
                Err(why) => failed = Some(why),
            }
        )*
        match failed {
            None => Ok(serde_json::Value::Object(members)),
            Some(why) => Err(why),
        }
    }};
}
pub(crate) use try_json;

#[cfg(test)]
mod tests {
    use crate::chain::types::Message;
    use fvm_shared::address::Address;
    use fvm_shared::econ::TokenAmount;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn a_value_without_json_is_an_error() {
        let none = serde_json::Map::new();
        assert_eq!(try_json!({}).expect("JSON"), serde_json::Value::Object(none));
        assert_eq!(try_json!({ "A": 1, "B": "x" }).expect("JSON"), json!({"A": 1, "B": "x"}));
        let message = Message {
            version: 0,
            to: Address::new_id(1),
            from: Address::new_id(2),
            nonce: 0,
            value: TokenAmount::from_atto(num_bigint::BigInt::from(1) << 2000),
            gas_limit: 0,
            gas_fee_cap: TokenAmount::default(),
            gas_premium: TokenAmount::default(),
            method: 0,
            params: Vec::new(),
        };
        let why = try_json!({ "A": 1, "Msg": message, "B": 2 }).expect_err("its CID cannot be computed");
        assert!(why.to_string().contains("no encoding on the chain"), "{why}");
    }

    /// Code that answers callers with values of the chain builds its JSON with `try_json!` or `to_value`.
    #[test]
    fn no_answer_of_an_api_is_made_with_the_macro_that_panics() {
        let mut files = Vec::new();
        for folder in ["src/devnet", "src/rpc/server", "src/rpc/api"] {
            rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
        }
        assert!(files.len() > 40, "{files:?}");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let found = line.match_indices("json!(").any(|(at, _)| !line[..at].ends_with("try_"));
                assert!(!found, "{}:{}: {line}", file.display(), number + 1);
            }
        }
    }

    fn rust_files(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                rust_files(&path, files);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
}
