//! The bytes of a conditional `PutItem`, assembled around an image that stays undecoded.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::replica_item::RESERVED;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use time::{Duration, OffsetDateTime};

use crate::{ReplicaCondition, ReplicaWrite, WriteTarget};

/// The reserved names as they are written in JSON, unless with escapes.
const RESERVED_IN_JSON: [&str; 3] = ["\"_rev\"", "\"_tombstone_expires_at\"", "\"_deleted_by_ttl\""];

/// The first characters of an escaped ASCII letter in JSON.
const ESCAPED_ASCII: &str = "\\u00";

/// The revision guard: the stored item has no revision or a lower one. If it rejects the write, the response contains
/// the stored item.
const REVISION_CONDITION: &str = concat!(
    r#","ReturnValuesOnConditionCheckFailure":"ALL_OLD","#,
    r#""ConditionExpression":"attribute_not_exists(#r) OR #r < :r","#,
    r##""ExpressionAttributeNames":{"#r":"_rev"},"ExpressionAttributeValues":{":r":{"B":""##
);

/// The length of 31 bytes, the longest revision, in base64.
const REVISION_TEXT_BYTES: usize = 44;

/// A change that cannot be encoded as a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("the image contains the attribute {0}, which is reserved for replicas: rename it in the source")]
    Reserved(&'static str),
    #[error("the image is not a map of attributes")]
    NotAMap,
    #[error("the image's attribute names are not valid JSON strings")]
    Names,
    #[error("the stream contains no new images: set its view type to NEW_IMAGE or NEW_AND_OLD_IMAGES")]
    View,
}

/// Encodes the requests to one table.
#[derive(Debug)]
pub(super) struct RequestEncoder {
    /// The table's name as JSON.
    table: String,
    /// The body up to the revision's text, the same for every change.
    head: String,
    tombstone: Duration,
}

impl RequestEncoder {
    pub(super) fn new(table: &str, tombstone: Duration) -> Self {
        let table = serde_json::Value::from(table).to_string();
        Self { head: format!("{{\"TableName\":{table}{REVISION_CONDITION}"), table, tombstone }
    }

    /// Returns the body of the request that writes `change` to the replica, if the revision guard allows it.
    pub(super) fn put(&self, change: &Change<'_>, now: OffsetDateTime) -> Result<Bytes, EncodeError> {
        let mut buffer = [0; REVISION_TEXT_BYTES];
        let revision = text(change.revision.encode().as_ref(), &mut buffer);
        let (attributes, gone) = match change.effect {
            ChangeKind::Write { image: Some(image) } => (image.get(), None),
            ChangeKind::Write { image: None } => return Err(EncodeError::View),
            ChangeKind::Remove { expired, .. } => (change.key.raw().get(), Some((now + self.tombstone, expired))),
        };
        let attributes = own(attributes)?;
        let mut body = String::with_capacity(self.head.len() + attributes.len() + 2 * revision.len() + 128);
        body.push_str(&self.head);
        body.push_str(revision);
        body.push_str(r#""}},"Item":{"#);
        push_item(&mut body, attributes, revision, gone);
        Ok(Bytes::from(body))
    }

    /// Returns the body of the request for a write that does not come from the stream.
    pub(super) fn write(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Result<Bytes, EncodeError> {
        let mut buffer = [0; REVISION_TEXT_BYTES];
        let revision = text(write.revision.encode().as_ref(), &mut buffer);
        let (attributes, gone) = match write.target {
            WriteTarget::Item(item) => (Cow::Owned(item.encode()), None),
            WriteTarget::Tombstone { expired } => {
                (Cow::Borrowed(write.key.as_str()), Some((now + self.tombstone, expired)))
            }
        };
        let attributes = own(&attributes)?;
        let mut body = format!(r#"{{"TableName":{},"ConditionExpression":"#, self.table);
        match write.over {
            // Any key attribute is sufficient to check whether the key is absent.
            ReplicaCondition::IfAbsent => {
                let TopLevel { first, .. } =
                    serde_json::from_str(write.key.as_str()).map_err(|_| EncodeError::Names)?;
                let first = serde_json::Value::from(first).to_string();
                body.push_str(r##""attribute_not_exists(#k)","ExpressionAttributeNames":{"#k":"##);
                body.push_str(&first);
            }
            ReplicaCondition::Revision(None) => {
                body.push_str(r##""attribute_not_exists(#r)","ExpressionAttributeNames":{"#r":"_rev""##);
            }
            ReplicaCondition::Revision(Some(there)) => {
                let mut buffer = [0; REVISION_TEXT_BYTES];
                body.push_str(r##""#r = :r","ExpressionAttributeNames":{"#r":"_rev"},"##);
                body.push_str(r#""ExpressionAttributeValues":{":r":{"B":""#);
                body.push_str(text(there.encode().as_ref(), &mut buffer));
                body.push_str("\"}");
            }
        }
        body.push_str(r#"},"Item":{"#);
        push_item(&mut body, attributes, revision, gone);
        Ok(Bytes::from(body))
    }
}

/// Returns the text between the braces of an image, which must not contain a reserved attribute.
fn own(attributes: &str) -> Result<&str, EncodeError> {
    refuse_reserved(attributes)?;
    let inner = attributes.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    Ok(inner.ok_or(EncodeError::NotAMap)?.trim())
}

/// Appends the item's attributes and those that replication adds, and closes the item and the body.
fn push_item(body: &mut String, attributes: &str, revision: &str, gone: Option<(OffsetDateTime, bool)>) {
    if !attributes.is_empty() {
        body.push_str(attributes);
        body.push(',');
    }
    body.push_str(r#""_rev":{"B":""#);
    body.push_str(revision);
    body.push_str("\"}");
    if let Some((gone, expired)) = gone {
        body.push_str(r#","_tombstone_expires_at":{"N":""#);
        body.push_str(&gone.unix_timestamp().to_string());
        body.push_str("\"}");
        if expired {
            body.push_str(r#","_deleted_by_ttl":{"BOOL":true}"#);
        }
    }
    body.push_str("}}");
}

/// Returns the revision in base64, without an allocation.
fn text<'t>(revision: &[u8], buffer: &'t mut [u8; REVISION_TEXT_BYTES]) -> &'t str {
    let length = BASE64_STANDARD.encode_slice(revision, buffer.as_mut_slice()).unwrap_or_default();
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Fails if the image has a reserved attribute. The attribute names are parsed only if a cheap text search finds the
/// image suspect, which is rare.
fn refuse_reserved(image: &str) -> Result<(), EncodeError> {
    let suspect = RESERVED_IN_JSON.iter().any(|name| image.contains(name)) || image.contains(ESCAPED_ASCII);
    if !suspect {
        return Ok(());
    }
    let TopLevel { reserved, .. } = serde_json::from_str(image).map_err(|_| EncodeError::Names)?;
    reserved.map_or(Ok(()), |name| Err(EncodeError::Reserved(name)))
}

/// The first name and the first reserved name among an image's own attributes; nested names and values do not count.
struct TopLevel {
    first: String,
    reserved: Option<&'static str>,
}

impl<'de> Deserialize<'de> for TopLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = TopLevel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attributes")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<TopLevel, M::Error> {
                let mut top = TopLevel { first: String::new(), reserved: None };
                while let Some((TopLevelName(name), IgnoredAny)) = map.next_entry()? {
                    top.reserved = top.reserved.or_else(|| RESERVED.into_iter().find(|reserved| *reserved == name));
                    if top.first.is_empty() {
                        top.first = name.into_owned();
                    }
                }
                Ok(top)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// An attribute's name, borrowed unless it contains an escape.
#[derive(Deserialize)]
pub(super) struct TopLevelName<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use millrace_shared::stream;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn put(record: &str) -> Result<String, EncodeError> {
        let arn = "arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899";
        let payload = format!(r#"{{"Records":[{{"eventSourceARN":"{arn}",{record}}}]}}"#);
        let payload = RawValue::from_string(payload).unwrap();
        let batch = stream::read(&payload).unwrap();
        let change = batch.records[0].read.as_ref().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let body = RequestEncoder::new("Replica", Duration::days(8)).put(change, now)?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    fn written(image: &str) -> Result<String, EncodeError> {
        put(&format!(
            r#""eventName":"MODIFY","dynamodb":{{"Keys":{{"k":{{"S":"a"}}}},"NewImage":{image},"SequenceNumber":"111"}}"#
        ))
    }

    #[test]
    fn the_image_s_own_bytes_are_sent() {
        let inner = r#""k" : {"S":"a"}, "n":{"N":"12345678901234567890123456789012345678"},"e":{"S":"\u00e9 \" } {"}"#;
        let body = written(&format!("{{ {inner} }}")).unwrap();
        assert!(body.contains(&format!(r#""Item":{{{inner},"_rev":{{"B":""#)), "{body}");
    }

    #[test]
    fn the_write_is_guarded_by_the_revision_that_it_carries() {
        let body: Value = serde_json::from_str(&written(r#"{"k":{"S":"a"}}"#).unwrap()).unwrap();
        let revision = BASE64_STANDARD.encode([&1_435_366_085_899_u64.to_be_bytes()[2..], &[0; 16], &[111]].concat());
        assert_eq!(
            body,
            json!({
                "TableName": "Replica",
                "Item": {"k": {"S": "a"}, "_rev": {"B": revision}},
                "ConditionExpression": "attribute_not_exists(#r) OR #r < :r",
                "ExpressionAttributeNames": {"#r": "_rev"},
                "ExpressionAttributeValues": {":r": {"B": revision}},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            })
        );
    }

    #[test]
    fn a_removal_leaves_a_tombstone_of_its_key() {
        let keys =
            r#""dynamodb":{"Keys":{"k":{"S":"a"}},"OldImage":{"k":{"S":"a"},"x":{"S":"y"}},"SequenceNumber":"1"}"#;
        let item = |record: &str| {
            let mut body: Value = serde_json::from_str(&put(record).unwrap()).unwrap();
            body["Item"].as_object_mut().unwrap().remove("_rev").unwrap();
            body["Item"].take()
        };
        let gone = (NOW + 8 * 86_400).to_string();
        let deleted = item(&format!(r#""eventName":"REMOVE",{keys}"#));
        assert_eq!(deleted, json!({"k": {"S": "a"}, "_tombstone_expires_at": {"N": gone}}));
        let identity = r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
        let expired = item(&format!(r#""eventName":"REMOVE",{identity},{keys}"#));
        assert_eq!(
            expired,
            json!({"k": {"S": "a"}, "_tombstone_expires_at": {"N": gone}, "_deleted_by_ttl": {"BOOL": true}})
        );
    }

    #[test]
    fn a_reserved_attribute_is_refused_however_it_is_spelled() {
        for (name, image) in [
            ("_rev", r#"{"k":{"S":"a"},"_rev":{"B":""}}"#),
            ("_tombstone_expires_at", r#"{"_tombstone_expires_at":{"N":"1"},"k":{"S":"a"}}"#),
            ("_deleted_by_ttl", r#"{"_deleted_by_ttl" : {"BOOL":true},"k":{"S":"a"}}"#),
            ("_rev", r#"{"\u005frev":{"S":"a"},"k":{"S":"a"}}"#),
            ("_tombstone_expires_at", r#"{"k":{"S":"a"},"_tombst\u006Fne_expires_at":{"S":"a"}}"#),
        ] {
            assert_eq!(written(image), Err(EncodeError::Reserved(name)), "{image}");
        }
    }

    #[test]
    fn a_removal_of_a_reserved_key_is_refused_as_its_writes_are() {
        let removed = put(r#""eventName":"REMOVE","dynamodb":{"Keys":{"_rev":{"S":"a"}},"SequenceNumber":"1"}"#);
        assert_eq!(removed, Err(EncodeError::Reserved("_rev")));
    }

    #[test]
    fn a_reserved_name_elsewhere_than_at_the_top_is_data() {
        for image in [
            r#"{"k":{"S":"a"},"a":{"M":{"_rev":{"S":"x"},"_tombstone_expires_at":{"S":"x"}}}}"#,
            r#"{"k":{"S":"a"},"a":{"S":"_rev"}}"#,
            r#"{"k":{"S":"a"},"a":{"L":[{"S":"_deleted_by_ttl"}]}}"#,
            r#"{"k":{"S":"a"},"_reverse":{"S":"\u0000"}}"#,
            r#"{"k":{"S":"a"},"\\u005frev":{"S":"a"}}"#,
        ] {
            assert!(written(image).is_ok(), "{image}");
        }
    }
}
