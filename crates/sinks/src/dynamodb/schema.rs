//! The schema of a replica's table: its identity and its key.
//!
//! A record whose key does not match the table's key schema shows an error of the table, not of the record: every
//! record of the stream would fail in the same way, and all of them would end in quarantine. Therefore keys are
//! compared before a write is attempted. It is an error of the record only if other records of the stream match: all
//! keys of a stream have the same schema.

use std::collections::BTreeMap;
use std::fmt;

use millrace_shared::revision::StreamLabel;
use millrace_shared::table_reader::{IndexSchema, SourceDescription, TableReadError, TableReader};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::request::TopLevelName;

/// A table's identity and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaSchema {
    pub(super) arn: String,
    /// Name and type (`S`, `N` or `B`) of the one or two key attributes, the partition key first.
    pub(super) key: Vec<(String, String)>,
    /// The table's stream, if it is enabled.
    pub(super) stream: Option<ReplicaStream>,
    /// The table's secondary indexes.
    pub(super) indexes: Vec<IndexSchema>,
}

/// The stream of a replica's table, from which another replicator may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaStream {
    pub(super) arn: String,
    pub(super) label: StreamLabel,
}

impl ReplicaSchema {
    /// Reads the schema from the table.
    pub(super) async fn read(table: &TableReader) -> Result<Self, TableReadError> {
        let description = table.describe().await?;
        let label = description.stream_label();
        let SourceDescription { arn, key, stream_arn, stream_view, indexes, .. } = description;
        let stream = stream_view.and(stream_arn).zip(label).map(|(arn, label)| ReplicaStream { arn, label });
        Ok(Self { arn, key, stream, indexes })
    }

    /// Checks whether the table can store an item with this key, which is given as the stream's JSON.
    pub(super) fn check_key(&self, key: &str) -> Result<(), String> {
        let mut json = serde_json::Deserializer::from_str(key);
        match KeyMatcher(&self.key).deserialize(&mut json) {
            Ok(true) => Ok(()),
            _ => Err(format!("the replica's key is {self}, but the source's key is {}", schema_of(key))),
        }
    }
}

impl fmt::Display for ReplicaSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_key(&self.key))
    }
}

/// Formats the names and types of key attributes.
pub(super) fn format_key(key: &[(String, String)]) -> String {
    key.iter().map(|(name, kind)| format!("{name} ({kind})")).collect::<Vec<_>>().join(", ")
}

/// Formats the names and types of the attributes of a key, without their values.
fn schema_of(key: &str) -> String {
    let attributes: Result<BTreeMap<String, TypedValue>, _> = serde_json::from_str(key);
    let Ok(attributes) = attributes else { return "not a map of attributes".to_owned() };
    let kind = |value: &TypedValue| ["S", "N", "B"].into_iter().find(|kind| value.is(kind)).unwrap_or("unknown type");
    let key: Vec<_> = attributes.into_iter().map(|(name, value)| (name, kind(&value).to_owned())).collect();
    format_key(&key)
}

/// Checks whether a key has exactly the expected attributes, by name and type.
struct KeyMatcher<'s>(&'s [(String, String)]);

impl<'de> DeserializeSeed<'de> for KeyMatcher<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for KeyMatcher<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of key attributes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        let (mut seen, mut fits) = (0, true);
        while let Some((TopLevelName(name), value)) = map.next_entry::<_, TypedValue>()? {
            seen += 1;
            fits &= self.0.iter().any(|(expected, kind)| *expected == name && value.is(kind));
        }
        Ok(fits && seen == self.0.len())
    }
}

/// The type of a key attribute's value.
#[derive(Deserialize)]
struct TypedValue {
    #[serde(rename = "S")]
    text: Option<IgnoredAny>,
    #[serde(rename = "N")]
    number: Option<IgnoredAny>,
    #[serde(rename = "B")]
    binary: Option<IgnoredAny>,
}

impl TypedValue {
    fn is(&self, kind: &str) -> bool {
        match kind {
            "S" => self.text.is_some(),
            "N" => self.number.is_some(),
            "B" => self.binary.is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(key: &str) -> bool {
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let key_schema = vec![pair("user_id", "S"), pair("timestamp", "N")];
        let schema = ReplicaSchema { arn: String::new(), key: key_schema, stream: None, indexes: Vec::new() };
        schema.check_key(key).is_ok()
    }

    #[test]
    fn a_key_fits_by_names_and_types_in_any_order() {
        assert!(fits(r#"{"user_id":{"S":"a"},"timestamp":{"N":"1"}}"#));
        assert!(fits(r#"{"timestamp": {"N": "1"}, "user\u005fid": {"S": ""}}"#));
    }

    #[test]
    fn a_mismatch_names_both_key_schemas_and_no_value() {
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let key = vec![pair("user_id", "S")];
        let schema = ReplicaSchema { arn: String::new(), key, stream: None, indexes: Vec::new() };
        let error = schema.check_key(r#"{"sk":{"N":"7"},"pk":{"S":"secret"}}"#).unwrap_err();
        assert_eq!(error, "the replica's key is user_id (S), but the source's key is pk (S), sk (N)");
    }

    #[test]
    fn another_table_s_key_does_not_fit() {
        for key in [
            r#"{"user_id":{"S":"a"}}"#,
            r#"{"user_id":{"S":"a"},"timestamp":{"S":"1"}}"#,
            r#"{"user_id":{"S":"a"},"at":{"N":"1"}}"#,
            r#"{"user_id":{"S":"a"},"timestamp":{"N":"1"},"more":{"S":""}}"#,
            "{}",
            "[]",
        ] {
            assert!(!fits(key), "{key}");
        }
    }
}
