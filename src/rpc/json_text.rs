//! JSON that is passed on as it came: written down while it is read, without a tree of it in memory.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The text of one JSON value, without blanks between its parts.
///
/// Numbers are read as 64 bits, integer or floating: those of Lotus' API that are larger are strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of `value`.
    pub fn of(value: &impl serde::Serialize) -> serde_json::Result<JsonText> {
        serde_json::to_string(value).map(JsonText)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<JsonText, D::Error> {
        let mut text = Vec::new();
        serde_transcode::transcode(from, &mut serde_json::Serializer::new(&mut text)).map_err(D::Error::custom)?;
        String::from_utf8(text).map(JsonText).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_passed_on_as_it_came() {
        for text in [
            "null",
            "true",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            r#""a\"\n\u0007ä😀""#,
            r#"{"b":[],"a":{"/":"bafy"},"":[1,"2",null,{"c":-1.5e-7}]}"#,
        ] {
            let read: JsonText = serde_json::from_str(text).expect(text);
            assert_eq!(read.as_str(), text);
        }
        assert_eq!(serde_json::from_str::<JsonText>(" { \"a\" : [ 1 , 2 ] } ").unwrap().as_str(), r#"{"a":[1,2]}"#);
        assert_eq!(serde_json::from_value::<JsonText>(serde_json::Value::Null).unwrap().as_str(), "null");
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(serde_json::from_str::<JsonText>(&deep(100)).is_ok());
        for broken in ["", "[1", "{\"a\":}", "nul", &deep(100_000)] {
            assert!(serde_json::from_str::<JsonText>(broken).is_err(), "{:.20}", broken);
        }
    }
}
