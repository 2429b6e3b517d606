//! The members of an object in the order of the text, with duplicates, each with its raw value.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one JSON object. No map has removed duplicates, so the caller decides how to treat them.
#[derive(Debug)]
pub struct JsonMembers<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = JsonMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(JsonMembers(members))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_their_duplicates_and_their_text() {
        let JsonMembers(members) = serde_json::from_str(r#"{"b": 1.0, "a\n": [1, 2], "b": null}"#).unwrap();
        let texts: Vec<_> = members.iter().map(|(name, value)| (name.as_str(), value.get())).collect();
        assert_eq!(texts, [("b", "1.0"), ("a\n", "[1, 2]"), ("b", "null")]);
    }

    #[test]
    fn non_object_json_is_a_data_error() {
        let error = serde_json::from_str::<JsonMembers<'_>>("[]").unwrap_err();
        assert!(error.is_data(), "{error}");
    }
}
