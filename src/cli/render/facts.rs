//! Any JSON object as lines of "name  value": for answers that may grow fields without a new version of this command.

use serde_json::Value;

pub fn facts(value: &Value) -> String {
    let mut lines = Vec::new();
    collect(value, 0, &mut lines);
    let width = lines.iter().filter(|(_, v)| v.is_some()).map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines
        .into_iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name:width$}  {value}").trim_end().to_string() + "\n",
            None => name + "\n",
        })
        .collect()
}

fn collect(value: &Value, depth: usize, lines: &mut Vec<(String, Option<String>)>) {
    let Value::Object(fields) = value else {
        lines.push((String::new(), Some(plain(value))));
        return;
    };
    for (name, value) in fields {
        let name = format!("{}{}", "  ".repeat(depth), words(name));
        match value {
            Value::Null => {}
            Value::Object(inner) if inner.len() == 1 && inner.contains_key("/") => {
                lines.push((name, Some(plain(&inner["/"]))))
            }
            Value::Object(inner) if inner.is_empty() => lines.push((name, Some("none".to_string()))),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (i, item) in items.iter().enumerate() {
                    lines.push((format!("{name} {}", i + 1), None));
                    collect(item, depth + 1, lines);
                }
            }
            Value::Object(_) => {
                lines.push((name, None));
                collect(value, depth + 1, lines);
            }
            _ => lines.push((name, Some(plain(value)))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => "no".to_string(),
        Value::Array(items) if items.is_empty() => "none".to_string(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// `MinerPower`, `miner_power` -> `Miner power`; a run of capitals (`CID`) stays.
fn words(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let lower_next = chars.get(i + 1).is_some_and(|n| n.is_lowercase());
        let starts_word =
            i > 0 && c.is_uppercase() && (chars[i - 1].is_lowercase() || (chars[i - 1].is_uppercase() && lower_next));
        if c == '_' || starts_word {
            text.push(' ');
        }
        match c {
            '_' => {}
            c if i == 0 => text.extend(c.to_uppercase()),
            c if starts_word && lower_next => text.extend(c.to_lowercase()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_as_lines() {
        let value = json!({
            "Miner": "t01000", "SectorSize": 2048, "has_min_power": true, "None": null, "WorkerID": "t3x",
            "Sectors": {"Proving": 1, "WaitSeed": 2}, "Peers": [], "Blocks": [1, 2], "Empty": {}, "Root": {"/": "bafy"}
        });
        let text = facts(&value);
        for line in [
            "Miner          t01000",
            "Sector size    2048",
            "Has min power  yes",
            "Worker ID      t3x",
            "Sectors",
            "  Proving      1",
            "  Wait seed    2",
            "Peers          none",
            "Blocks         1, 2",
            "Empty          none",
            "Root           bafy",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} in\n{text}");
        }
        assert_eq!(facts(&json!({"Runs": [{"At": 1}, {"At": 2}]})), "Runs 1\n  At  1\nRuns 2\n  At  2\n");
        assert!(!text.contains("None"));
        assert_eq!(facts(&json!("just a text")), "  just a text\n");
    }
}
