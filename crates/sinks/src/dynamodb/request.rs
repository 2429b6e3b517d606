//! The bytes of a conditional `PutItem`, assembled around an image that stays undecoded.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use millrace_json_scanner::JsonScanner;
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::ReservedNames;
use millrace_shared::revision::Revision;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use time::{Duration, OffsetDateTime};

use crate::{ReplicaCondition, ReplicaWrite, WriteTarget};

/// The first characters of an escaped ASCII letter in JSON.
const ESCAPED_ASCII: &str = "\\u00";

/// The revision guard: the stored item has no revision or a lower one. If it rejects the write, the response contains
/// the stored item.
const REVISION_CONDITION: &str = concat!(
    r#","ReturnValuesOnConditionCheckFailure":"ALL_OLD","#,
    r#""ConditionExpression":"attribute_not_exists(#r) OR #r < :r","#
);

/// The length of 31 bytes, the longest revision, in base64.
const REVISION_TEXT_BYTES: usize = 44;

/// A change that cannot be encoded as a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EncodeError {
    #[error(
        "the image contains the attribute {0}, which is reserved for replicas: rename it in the source, or set the \
         parameter ReservedPrefix (RESERVED_PREFIX of the replicator and of maintenance) to another prefix, such as \
         mr_, for an empty replica: millrace attach TABLE --reserved-prefix mr_ writes the files to deploy"
    )]
    Reserved(String),
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
    names: ReservedNames,
    /// The reserved names as they are written in JSON, unless with escapes.
    quoted: [String; 3],
}

impl RequestEncoder {
    /// Creates an encoder with the default names of reserved attributes.
    pub(super) fn new(table: &str, tombstone: Duration) -> Self {
        Self::from_parts(serde_json::Value::from(table).to_string(), tombstone, ReservedNames::default())
    }

    /// Sets the names of reserved attributes.
    pub(super) fn with_names(self, names: ReservedNames) -> Self {
        Self::from_parts(self.table, self.tombstone, names)
    }

    fn from_parts(table: String, tombstone: Duration, names: ReservedNames) -> Self {
        let mut head = format!("{{\"TableName\":{table}{REVISION_CONDITION}");
        let quoted = names.all().map(|name| format!("\"{name}\""));
        head.push_str(r##""ExpressionAttributeNames":{"#r":"##);
        head.push_str(&quoted[0]);
        head.push_str(r#"},"ExpressionAttributeValues":{":r":{"B":""#);
        Self { table, head, tombstone, names, quoted }
    }

    /// Returns the reserved names.
    pub(super) fn names(&self) -> &ReservedNames {
        &self.names
    }

    /// Returns the revision that an image of this change carries, as the items of a replica do.
    pub(super) fn carried_revision(&self, change: &Change<'_>) -> Option<Revision> {
        let image = match change.effect {
            ChangeKind::Write { image } | ChangeKind::Remove { image, .. } => image?.get(),
        };
        // Items are parsed only if they contain the name, which those of a source rarely do.
        if !image.contains(self.quoted[0].as_str()) {
            return None;
        }
        let item = RawItem::parse(image).ok()?;
        let bytes = item.get(&self.names.revision)?.as_b().ok()?;
        Revision::decode(bytes.as_ref()).ok()
    }

    /// Returns the body of the request that writes `change` to the replica, if the revision guard allows it.
    pub(super) fn put(&self, change: &Change<'_>, now: OffsetDateTime) -> Result<Bytes, EncodeError> {
        let mut buffer = [0; REVISION_TEXT_BYTES];
        let revision = text(change.revision.encode().as_ref(), &mut buffer);
        let (attributes, gone) = match change.effect {
            ChangeKind::Write { image: Some(image) } => (image.get(), None),
            ChangeKind::Write { image: None } => return Err(EncodeError::View),
            ChangeKind::Remove { expired, .. } => (change.key.text(), Some((now + self.tombstone, expired))),
        };
        let attributes = self.own_attributes(attributes)?;
        let mut body = String::with_capacity(self.head.len() + attributes.len() + 2 * revision.len() + 128);
        body.push_str(&self.head);
        body.push_str(revision);
        body.push_str(r#""}},"Item":{"#);
        self.push_item(&mut body, attributes, revision, gone);
        Ok(Bytes::from(body))
    }

    /// Returns the body of the request for a write that does not come from the stream.
    pub(super) fn write(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Result<Bytes, EncodeError> {
        let mut buffer = [0; REVISION_TEXT_BYTES];
        let revision = text(write.revision.encode().as_ref(), &mut buffer);
        let (attributes, gone) = match write.target {
            WriteTarget::Item(item) => (Cow::Owned(item.encode()), None),
            WriteTarget::Image(image) => (Cow::Borrowed(image.get()), None),
            WriteTarget::Tombstone { expired } => {
                (Cow::Borrowed(write.key.as_str()), Some((now + self.tombstone, expired)))
            }
        };
        let attributes = self.own_attributes(&attributes)?;
        let mut body = String::with_capacity(self.head.len() + attributes.len() + 2 * revision.len() + 128);
        body.extend(["{\"TableName\":", self.table.as_str(), ",\"ConditionExpression\":"]);
        match write.over {
            // Any key attribute is sufficient to check whether the key is absent.
            ReplicaCondition::IfAbsent => {
                let first = first_name(write.key.as_str()).ok_or(EncodeError::Names)?;
                body.push_str(r##""attribute_not_exists(#k)","ExpressionAttributeNames":{"#k":"##);
                body.extend(["\"", first, "\""]);
            }
            ReplicaCondition::Revision(None) => {
                body.push_str(r##""attribute_not_exists(#r)","ExpressionAttributeNames":{"#r":"##);
                body.push_str(&self.quoted[0]);
            }
            ReplicaCondition::Revision(Some(there)) => {
                let mut buffer = [0; REVISION_TEXT_BYTES];
                body.push_str(r##""#r = :r","ExpressionAttributeNames":{"#r":"##);
                body.push_str(&self.quoted[0]);
                body.push_str(r#"},"ExpressionAttributeValues":{":r":{"B":""#);
                body.push_str(text(there.encode().as_ref(), &mut buffer));
                body.push_str("\"}");
            }
        }
        body.push_str(r#"},"Item":{"#);
        self.push_item(&mut body, attributes, revision, gone);
        Ok(Bytes::from(body))
    }

    /// Returns the text between the braces of an image, which must not contain a reserved attribute.
    fn own_attributes<'t>(&self, attributes: &'t str) -> Result<&'t str, EncodeError> {
        self.refuse_reserved(attributes)?;
        let inner = attributes.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        Ok(inner.ok_or(EncodeError::NotAMap)?.trim())
    }

    /// Appends the item's attributes and those that replication adds, and closes the item and the body.
    fn push_item(&self, body: &mut String, attributes: &str, revision: &str, gone: Option<(OffsetDateTime, bool)>) {
        let [quoted_revision, quoted_tombstone, quoted_deleted] = &self.quoted;
        if !attributes.is_empty() {
            body.push_str(attributes);
            body.push(',');
        }
        body.push_str(quoted_revision);
        body.push_str(r#":{"B":""#);
        body.push_str(revision);
        body.push_str("\"}");
        if let Some((gone, expired)) = gone {
            body.push(',');
            body.push_str(quoted_tombstone);
            body.push_str(r#":{"N":""#);
            body.push_str(&gone.unix_timestamp().to_string());
            body.push_str("\"}");
            if expired {
                body.push(',');
                body.push_str(quoted_deleted);
                body.push_str(r#":{"BOOL":true}"#);
            }
        }
        body.push_str("}}");
    }

    /// Fails if the image has a reserved attribute. The attribute names are parsed only if a cheap text search finds
    /// the image suspect, which is rare.
    fn refuse_reserved(&self, image: &str) -> Result<(), EncodeError> {
        let suspect = self.quoted.iter().any(|name| image.contains(name.as_str())) || image.contains(ESCAPED_ASCII);
        if !suspect {
            return Ok(());
        }
        let mut json = serde_json::Deserializer::from_str(image);
        let reserved = ReservedNameSearch(&self.names).deserialize(&mut json).map_err(|_| EncodeError::Names)?;
        json.end().map_err(|_| EncodeError::Names)?;
        reserved.map_or(Ok(()), |name| Err(EncodeError::Reserved(name)))
    }
}

/// Returns the revision in base64, without an allocation.
fn text<'t>(revision: &[u8], buffer: &'t mut [u8; REVISION_TEXT_BYTES]) -> &'t str {
    let length = BASE64_STANDARD.encode_slice(revision, buffer.as_mut_slice()).unwrap_or_default();
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Returns the first attribute name of an image, as it is written between its quotes.
fn first_name(image: &str) -> Option<&str> {
    let mut scanner = JsonScanner::new(image);
    let mut members = scanner.object()?;
    scanner.member(&mut members)?.map(|(name, _)| name)
}

/// Finds the first of these reserved names among an image's own attributes; nested names and values do not count.
struct ReservedNameSearch<'n>(&'n ReservedNames);

impl<'de> DeserializeSeed<'de> for ReservedNameSearch<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReservedNameSearch<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attributes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<String>, M::Error> {
        let mut reserved = None;
        while let Some((TopLevelName(name), IgnoredAny)) = map.next_entry()? {
            if reserved.is_none() && self.0.all().contains(&&*name) {
                reserved = Some(name.into_owned());
            }
        }
        Ok(reserved)
    }
}

/// An attribute's name, borrowed unless it contains an escape.
#[derive(Deserialize)]
pub(super) struct TopLevelName<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use millrace_shared::change::{CanonicalKey, ItemImage};
    use millrace_shared::revision::StreamLabel;
    use millrace_shared::stream;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn put(record: &str) -> Result<String, EncodeError> {
        put_with(ReservedNames::default(), record)
    }

    fn put_with(names: ReservedNames, record: &str) -> Result<String, EncodeError> {
        let arn = "arn:aws:dynamodb:r:1:table/Users/stream/2015-06-27T00:48:05.899";
        let payload = format!(r#"{{"Records":[{{"eventSourceARN":"{arn}",{record}}}]}}"#);
        let payload = RawValue::from_string(payload).unwrap();
        let batch = stream::read(&payload).unwrap();
        let change = batch.records[0].read.as_ref().unwrap();
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let body = RequestEncoder::new("Replica", Duration::days(8)).with_names(names).put(change, now)?;
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

    fn backfilled(key: &str, image: &str) -> Result<String, EncodeError> {
        let (key, image) = (CanonicalKey::parse(key).unwrap(), RawValue::from_string(image.to_owned()).unwrap());
        let label = StreamLabel::parse("2015-06-27T00:48:05.899").unwrap();
        let write = ReplicaWrite {
            key: &key,
            target: WriteTarget::Image(ItemImage::parse(&image).unwrap()),
            revision: Revision::lowest(label),
            over: ReplicaCondition::IfAbsent,
        };
        let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
        let body = RequestEncoder::new("Replica", Duration::days(8)).write(&write, now)?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn backfilled_image_keeps_its_bytes_and_is_written_over_nothing_only() {
        let inner = r#""k" : {"S":"a"}, "n":{"N":"1.50"},"s":{"SS":["b","a"]},"e":{"S":"\u00e9 \" } {"}"#;
        let body = backfilled(r#"{"k":{"S":"a"}}"#, &format!("{{ {inner} }}")).unwrap();
        assert!(body.contains(&format!(r#""Item":{{{inner},"_rev":{{"B":""#)), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ConditionExpression"], "attribute_not_exists(#k)");
        assert_eq!(body["ExpressionAttributeNames"], json!({"#k": "k"}));
        assert_eq!(body.get("ExpressionAttributeValues"), None);
    }

    #[test]
    fn condition_of_a_backfill_names_a_key_attribute_of_any_name() {
        for name in ["k", "é", "a\"b", "\\", "a b\n", "#k"] {
            let key = json!({name: {"S": "a"}}).to_string();
            let body: Value = serde_json::from_str(&backfilled(&key, &key).unwrap()).unwrap();
            assert_eq!(body["ExpressionAttributeNames"], json!({"#k": name}));
        }
    }

    #[test]
    fn backfilled_image_with_a_reserved_attribute_is_refused() {
        for image in [r#"{"k":{"S":"a"},"_rev":{"S":"x"}}"#, r#"{"k":{"S":"a"},"\u005frev":{"S":"x"}}"#] {
            assert_eq!(backfilled(r#"{"k":{"S":"a"}}"#, image), Err(EncodeError::Reserved("_rev".to_owned())));
        }
    }

    #[test]
    fn another_prefix_renames_all_that_is_added_and_nothing_else() {
        let names = || ReservedNames::parse("mr_").unwrap();
        let write = |image: &str| {
            let keys = r#""Keys":{"k":{"S":"a"}}"#;
            let record =
                format!(r#""eventName":"MODIFY","dynamodb":{{{keys},"NewImage":{image},"SequenceNumber":"111"}}"#);
            put_with(names(), &record)
        };
        let body: Value = serde_json::from_str(&write(r#"{"k":{"S":"a"},"_rev":{"S":"mine"}}"#).unwrap()).unwrap();
        assert_eq!(body["Item"]["_rev"], json!({"S": "mine"}));
        assert_eq!(body["Item"]["mr_rev"], body["ExpressionAttributeValues"][":r"]);
        assert_eq!(body["ExpressionAttributeNames"], json!({"#r": "mr_rev"}));
        assert_eq!(write(r#"{"k":{"S":"a"},"mr_rev":{"S":"x"}}"#), Err(EncodeError::Reserved("mr_rev".to_owned())));
        let identity = r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
        let expired = format!(
            r#""eventName":"REMOVE",{identity},"dynamodb":{{"Keys":{{"k":{{"S":"a"}}}},"SequenceNumber":"1"}}"#
        );
        let body: Value = serde_json::from_str(&put_with(names(), &expired).unwrap()).unwrap();
        let added: Vec<&String> = body["Item"].as_object().unwrap().keys().collect();
        assert_eq!(added, ["k", "mr_deleted_by_ttl", "mr_rev", "mr_tombstone_expires_at"]);
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
            assert_eq!(written(image), Err(EncodeError::Reserved(name.to_owned())), "{image}");
        }
    }

    #[test]
    fn a_removal_of_a_reserved_key_is_refused_as_its_writes_are() {
        let removed = put(r#""eventName":"REMOVE","dynamodb":{"Keys":{"_rev":{"S":"a"}},"SequenceNumber":"1"}"#);
        assert_eq!(removed, Err(EncodeError::Reserved("_rev".to_owned())));
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
