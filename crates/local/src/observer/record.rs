//! The part of a stream record that the observer shows: [`RecordSummary`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::shorten;

/// The largest record whose images are compared, in bytes: the comparison must not slow replication down.
const COMPARED_BYTES: usize = 64 * 1024;
/// The maximum number of attribute names.
const ATTRIBUTES: usize = 12;

/// The kind of a stream record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The item was created.
    Insert,
    /// The item was modified.
    Modify,
    /// The item was removed by a caller.
    Remove,
    /// The item was removed by TTL.
    Expire,
    /// The record has no known kind.
    Unknown,
}

impl RecordKind {
    /// Returns the kind as DynamoDB Streams names it, or `TTL`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
            Self::Expire => "TTL",
            Self::Unknown => "unreadable",
        }
    }
}

/// The shown parts of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordSummary {
    pub(super) kind: RecordKind,
    /// The record's keys as delivered.
    pub(super) keys: String,
    pub(super) attributes: Vec<String>,
}

type Image<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "eventName", default)]
    name: Option<Cow<'a, str>>,
    #[serde(rename = "userIdentity", default)]
    identity: Option<Identity>,
    #[serde(borrow, default)]
    dynamodb: Option<Body<'a>>,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "principalId", default)]
    principal: Option<String>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "Keys", default)]
    keys: Option<&'a RawValue>,
    #[serde(borrow, rename = "NewImage", default)]
    new: Option<Image<'a>>,
    #[serde(borrow, rename = "OldImage", default)]
    old: Option<Image<'a>>,
}

pub(super) fn summarize(record: &RawValue) -> RecordSummary {
    let Ok(event) = serde_json::from_str::<Event<'_>>(record.get()) else {
        return RecordSummary { kind: RecordKind::Unknown, keys: shorten(record.get()), attributes: Vec::new() };
    };
    let is_ttl = event.identity.and_then(|identity| identity.principal).as_deref() == Some("dynamodb.amazonaws.com");
    let kind = match event.name.as_deref() {
        Some("INSERT") => RecordKind::Insert,
        Some("MODIFY") => RecordKind::Modify,
        Some("REMOVE") if is_ttl => RecordKind::Expire,
        Some("REMOVE") => RecordKind::Remove,
        _ => RecordKind::Unknown,
    };
    let body = event.dynamodb.unwrap_or(Body { keys: None, new: None, old: None });
    let keys = body.keys.map_or_else(String::new, |keys| shorten(keys.get()));
    let attributes = if record.get().len() > COMPARED_BYTES {
        vec!["(not compared: larger than 64 KB)".to_owned()]
    } else {
        changed(&body.old.unwrap_or_default(), &body.new.unwrap_or_default())
    };
    RecordSummary { kind, keys, attributes }
}

/// Returns the names of the attributes that differ.
fn changed(old: &Image<'_>, new: &Image<'_>) -> Vec<String> {
    let differs =
        |name: &&Cow<'_, str>| old.get(*name).map(|value| value.get()) != new.get(*name).map(|value| value.get());
    let added = new.keys().filter(|name| !old.contains_key(*name));
    let names: Vec<&Cow<'_, str>> = old.keys().chain(added).filter(differs).collect();
    let mut shown: Vec<String> = names.iter().take(ATTRIBUTES).map(|name| shorten(name)).collect();
    if names.len() > ATTRIBUTES {
        shown.push(format!("and {} more", names.len() - ATTRIBUTES));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(json: &str) -> RecordSummary {
        summarize(&RawValue::from_string(json.to_owned()).unwrap())
    }

    #[test]
    fn changed_attributes_are_named() {
        let summary = summary_of(
            r#"{"eventName":"MODIFY","dynamodb":{"Keys":{"id":{"S":"a"}},
                "OldImage":{"id":{"S":"a"},"x":{"N":"1"},"gone":{"S":""}},"NewImage":{"id":{"S":"a"},"x":{"N":"2"},"new\"":{"S":""}}}}"#,
        );
        assert_eq!(summary.kind, RecordKind::Modify);
        assert_eq!(summary.keys, r#"{"id":{"S":"a"}}"#);
        assert_eq!(summary.attributes, ["gone", "x", "new\""]);
    }

    #[test]
    fn removal_by_ttl_is_not_one_by_a_caller() {
        let ttl = r#"{"eventName":"REMOVE","userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}}"#;
        assert_eq!(summary_of(ttl).kind, RecordKind::Expire);
        assert_eq!(summary_of(r#"{"eventName":"REMOVE"}"#).kind, RecordKind::Remove);
        assert_eq!(summary_of(r#"{"eventName":"INSERT"}"#).kind, RecordKind::Insert);
        assert_eq!(summary_of("7").kind, RecordKind::Unknown);
    }

    #[test]
    fn number_of_names_is_bounded() {
        let image: Vec<String> = (0..40).map(|n| format!(r#""a{n:02}":{{"N":"1"}}"#)).collect();
        let summary =
            summary_of(&format!(r#"{{"eventName":"INSERT","dynamodb":{{"NewImage":{{{}}}}}}}"#, image.join(",")));
        assert_eq!((summary.attributes.len(), summary.attributes[ATTRIBUTES].as_str()), (13, "and 28 more"));
        let large =
            format!(r#"{{"eventName":"INSERT","dynamodb":{{"NewImage":{{"a":{{"S":"{}"}}}}}}}}"#, "x".repeat(70_000));
        assert_eq!(summary_of(&large).attributes.len(), 1);
    }
}
