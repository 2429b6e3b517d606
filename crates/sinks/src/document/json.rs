//! A JSON document that keeps every member: [`JsonValue`], and the pointers to its values.
//!
//! `serde_json::Value` keeps only the last of two members with the same name, so a document that contradicts itself
//! would be accepted.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    Integer(i128),
    Fraction(f64),
    Text(String),
    List(Vec<JsonValue>),
    /// The members in the order of the text; a name may occur more than once.
    Object(Vec<(String, JsonValue)>),
}

impl JsonValue {
    /// Returns the value as `serde_json` has it. Of two members with the same name, the last one counts.
    pub(super) fn to_value(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Integer(number) => serde_json::Number::from_i128(*number).into(),
            Self::Fraction(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(values) => values.iter().map(Self::to_value).collect(),
            Self::Object(members) => members.iter().map(|(name, value)| (name.clone(), value.to_value())).collect(),
        }
    }

    /// Returns the value as an error quotes it: a text or a number itself, and the type of anything else.
    pub(super) fn quoted(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

/// Returns the JSON Pointer (RFC 6901) of a member of the value at `parent`.
pub(super) fn member_pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = JsonValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<JsonValue, E> {
                Ok(JsonValue::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
                Ok(JsonValue::Bool(value))
            }

            fn visit_u64<E>(self, number: u64) -> Result<JsonValue, E> {
                Ok(JsonValue::Integer(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<JsonValue, E> {
                Ok(JsonValue::Integer(number.into()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<JsonValue, E> {
                Ok(JsonValue::Fraction(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<JsonValue, E> {
                Ok(JsonValue::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<JsonValue, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = sequence.next_element()? {
                    values.push(value);
                }
                Ok(JsonValue::List(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonValue, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(JsonValue::Object(members))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_member_is_kept() {
        let value: JsonValue = serde_json::from_str(r#"{"a":1,"a":[null,"x",1.5,true]}"#).unwrap();
        let list =
            vec![JsonValue::Null, JsonValue::Text("x".to_owned()), JsonValue::Fraction(1.5), JsonValue::Bool(true)];
        let members = vec![("a".to_owned(), JsonValue::Integer(1)), ("a".to_owned(), JsonValue::List(list))];
        assert_eq!(value, JsonValue::Object(members));
    }

    #[test]
    fn pointer_escapes_the_separator() {
        assert_eq!(member_pointer("/replicas/0", "a/b~c"), "/replicas/0/a~1b~0c");
    }
}
