//! Builders for the stream events of tests.

use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The label of the stream of a test's changes, unless the test sets another one.
pub(crate) const LABEL: &str = "2026-11-01T08:00:00.000";

/// A change of a user record.
#[derive(Debug, Clone)]
pub(crate) struct EventBuilder {
    pub(crate) user_id: String,
    pub(crate) timestamp: String,
    pub(crate) number: u64,
    pub(crate) label: String,
    pub(crate) what: RecordKind,
}

#[derive(Debug, Clone)]
pub(crate) enum RecordKind {
    /// The record now has this name.
    Named(String),
    /// The record now has this image, given as the stream's JSON.
    Image(String),
    Deleted,
    Expired,
}

impl EventBuilder {
    fn new(user_id: &str, number: u64, what: RecordKind) -> Self {
        Self { user_id: user_id.to_owned(), timestamp: "1".to_owned(), number, label: LABEL.to_owned(), what }
    }

    pub(crate) fn named(user_id: &str, number: u64, name: &str) -> Self {
        Self::new(user_id, number, RecordKind::Named(name.to_owned()))
    }

    pub(crate) fn image(user_id: &str, number: u64, image: &str) -> Self {
        Self::new(user_id, number, RecordKind::Image(image.to_owned()))
    }

    pub(crate) fn deleted(user_id: &str, number: u64) -> Self {
        Self::new(user_id, number, RecordKind::Deleted)
    }

    pub(crate) fn expired(user_id: &str, number: u64) -> Self {
        Self::new(user_id, number, RecordKind::Expired)
    }

    /// Sets the label of the stream, which may be another stream of the table.
    pub(crate) fn with_stream(self, label: &str) -> Self {
        Self { label: label.to_owned(), ..self }
    }

    /// Sets the sort key, for example in another number format.
    pub(crate) fn at(self, timestamp: &str) -> Self {
        Self { timestamp: timestamp.to_owned(), ..self }
    }

    /// The record as Lambda delivers it.
    pub(crate) fn record(&self) -> String {
        let Self { user_id, timestamp, number, label, what } = self;
        let keys = json!({"user_id": {"S": user_id}, "timestamp": {"N": timestamp}});
        let (name, images, identity) = match what {
            RecordKind::Named(name) => {
                ("MODIFY", format!(r#""NewImage":{},"#, user(user_id, timestamp, name)), Value::Null)
            }
            RecordKind::Image(image) => ("MODIFY", format!(r#""NewImage":{image},"#), Value::Null),
            RecordKind::Deleted => {
                ("REMOVE", format!(r#""OldImage":{},"#, user(user_id, timestamp, "Old")), Value::Null)
            }
            RecordKind::Expired => (
                "REMOVE",
                format!(r#""OldImage":{},"#, user(user_id, timestamp, "Old")),
                json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"}),
            ),
        };
        format!(
            r#"{{"eventID":"{number}","eventName":"{name}","eventSource":"aws:dynamodb","userIdentity":{identity},
            "eventSourceARN":"arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/{label}","dynamodb":{{
            "ApproximateCreationDateTime":1799999999,"Keys":{keys},{images}"SequenceNumber":"{number}",
            "StreamViewType":"NEW_AND_OLD_IMAGES"}}}}"#
        )
    }
}

/// An image that every sink accepts: a complete user record.
pub(crate) fn user(user_id: &str, timestamp: &str, name: &str) -> Value {
    json!({
        "user_id": {"S": user_id}, "timestamp": {"N": timestamp}, "name": {"S": name},
        "email": {"S": "a@example.com"}, "status": {"S": "active"}, "attributes": {"M": {}},
        "version": {"N": "1"}, "created_at": {"S": "2026-11-22T08:00:00Z"}, "updated_at": {"S": "2026-11-22T08:00:00Z"},
    })
}

/// A batch with these changes.
pub(crate) fn event(events: &[EventBuilder]) -> Box<RawValue> {
    let records: Vec<_> = events.iter().map(EventBuilder::record).collect();
    event_of(&records)
}

/// A batch with these records, valid or not.
pub(crate) fn event_of(records: &[impl AsRef<str>]) -> Box<RawValue> {
    let records: Vec<_> = records.iter().map(AsRef::as_ref).collect();
    RawValue::from_string(format!(r#"{{"Records":[{}]}}"#, records.join(","))).unwrap()
}
