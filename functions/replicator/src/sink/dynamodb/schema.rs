//! What a replica's table says of itself: who it is and what its keys are.
//!
//! A record whose key does not fit the table is the table's fault, not the record's: it would be so for every record
//! of the stream, and all of them would end in quarantine. So keys are compared before a write is tried. Only beside
//! others that fit is it the record's: a stream's keys are all alike.

use std::fmt;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::request::Name;
use super::verdict::{FAULTS, causes};

/// A table's identity and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) arn: String,
    /// Name and type (`S`, `N` or `B`) of the one or two key attributes, the partition key first.
    key: Vec<(String, String)>,
}

/// Why a table's schema is not known.
#[derive(Debug)]
pub(super) struct Unknown {
    /// Whether asking again may help without anything being mended: a throttle, an outage, an answer that did not come.
    pub(super) may_pass: bool,
    pub(super) reason: String,
}

impl Unknown {
    fn because<R: fmt::Debug>(table: &str, error: &SdkError<DescribeTableError, R>) -> Self {
        let may_pass = match error {
            SdkError::TimeoutError(_) => true,
            SdkError::ServiceError(refusal) => {
                let code = refusal.err().code().unwrap_or_default();
                code != "ValidationException" && !FAULTS.contains(&code)
            }
            _ => false,
        };
        let reason = match error.as_service_error() {
            Some(refusal) => {
                format!("{}: {}", refusal.code().unwrap_or("unknown error"), refusal.message().unwrap_or_default())
            }
            None => causes(error),
        };
        Self { may_pass, reason: format!("REPLICA_TABLE {table} cannot be described: {reason}") }
    }
}

impl Schema {
    /// Asks the table.
    pub(super) async fn of_table(client: &Client, table: &str) -> Result<Self, Unknown> {
        let described = client.describe_table().table_name(table).send().await;
        let described = described.map_err(|error| Unknown::because(table, &error))?;
        let missing = || Unknown { may_pass: false, reason: format!("REPLICA_TABLE {table} has no description") };
        let described = described.table.ok_or_else(missing)?;
        let type_of = |name: &str| {
            let definition = described.attribute_definitions().iter().find(|one| one.attribute_name() == name);
            definition.map(|one| one.attribute_type().as_str().to_owned()).unwrap_or_default()
        };
        let names = described.key_schema().iter().map(aws_sdk_dynamodb::types::KeySchemaElement::attribute_name);
        Ok(Self {
            key: names.map(|name| (name.to_owned(), type_of(name))).collect(),
            arn: described.table_arn.unwrap_or_default(),
        })
    }

    /// Whether the table can hold an item of this key, given as the stream's JSON.
    pub(super) fn admits(&self, key: &RawValue) -> Result<(), String> {
        let mut json = serde_json::Deserializer::from_str(key.get());
        match Fit(&self.key).deserialize(&mut json) {
            Ok(true) => Ok(()),
            _ => Err(format!(
                "the replica's key is {self}, which the stream's is not: set REPLICA_TABLE to a table with the key \
                 schema of the source"
            )),
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, kind)) in self.key.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name} ({kind})")?;
        }
        Ok(())
    }
}

/// Whether a key's attributes are those expected: each by name and type, none missing, none more.
struct Fit<'s>(&'s [(String, String)]);

impl<'de> DeserializeSeed<'de> for Fit<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fit<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of key attributes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        let (mut seen, mut fits) = (0, true);
        while let Some((Name(name), value)) = map.next_entry::<_, Typed>()? {
            seen += 1;
            fits &= self.0.iter().any(|(expected, kind)| *expected == name && value.is(kind));
        }
        Ok(fits && seen == self.0.len())
    }
}

/// The type of a key attribute's value.
#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "S")]
    text: Option<IgnoredAny>,
    #[serde(rename = "N")]
    number: Option<IgnoredAny>,
    #[serde(rename = "B")]
    binary: Option<IgnoredAny>,
}

impl Typed {
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

    fn admits(key: &str) -> bool {
        let key = serde_json::from_str::<&RawValue>(key).unwrap();
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        let schema = Schema { arn: String::new(), key: vec![pair("user_id", "S"), pair("timestamp", "N")] };
        schema.admits(key).is_ok()
    }

    #[test]
    fn a_key_fits_by_names_and_types_in_any_order() {
        assert!(admits(r#"{"user_id":{"S":"a"},"timestamp":{"N":"1"}}"#));
        assert!(admits(r#"{"timestamp": {"N": "1"}, "user\u005fid": {"S": ""}}"#));
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
            assert!(!admits(key), "{key}");
        }
    }
}
