//! Encodes a stream record of the SDK as the JSON that Lambda passes to a function: [`encode`].
//!
//! This is the only module that handles one difference of the embedded engine: a write that changes nothing emits a
//! MODIFY record, which DynamoDB does not emit (`is_noop`).

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::types::{AttributeValue, OperationType, Record};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

/// Returns whether DynamoDB would have emitted no record: both images exist and are equal.
pub(super) fn is_noop(record: &Record) -> bool {
    let images = record.dynamodb().and_then(|change| Some((change.old_image()?, change.new_image()?)));
    record.event_name() == Some(&OperationType::Modify) && images.is_some_and(|(old, new)| old == new)
}

/// Returns the record's keys as DynamoDB JSON.
pub(super) fn keys(record: &Record) -> Option<Value> {
    record.dynamodb().and_then(|change| change.keys()).map(image)
}

/// Returns the record as an element of a Lambda event's `Records`.
#[must_use]
pub fn encode(record: &Record, stream_arn: &str) -> Value {
    let mut event = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.and_then(|value| event.insert(name.to_owned(), value));
    put("eventID", record.event_id().map(Value::from));
    put("eventName", record.event_name().map(|name| name.as_str().into()));
    put("eventVersion", record.event_version().map(Value::from));
    put("eventSource", record.event_source().map(Value::from));
    put("awsRegion", record.aws_region().map(Value::from));
    put("dynamodb", record.dynamodb().map(change));
    put("userIdentity", identity(record));
    put("eventSourceARN", Some(stream_arn.into()));
    Value::Object(event)
}

fn change(record: &aws_sdk_dynamodbstreams::types::StreamRecord) -> Value {
    let mut change = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.and_then(|value| change.insert(name.to_owned(), value));
    put("ApproximateCreationDateTime", record.approximate_creation_date_time().map(seconds));
    put("Keys", record.keys().map(image));
    put("NewImage", record.new_image().map(image));
    put("OldImage", record.old_image().map(image));
    put("SequenceNumber", record.sequence_number().map(Value::from));
    put("SizeBytes", record.size_bytes().map(Value::from));
    put("StreamViewType", record.stream_view_type().map(|view| view.as_str().into()));
    Value::Object(change)
}

/// Formats seconds as AWS does: as an integer, with a fraction only if there is one.
fn seconds(time: &aws_sdk_dynamodbstreams::primitives::DateTime) -> Value {
    if time.subsec_nanos() == 0 { time.secs().into() } else { time.as_secs_f64().into() }
}

fn identity(record: &Record) -> Option<Value> {
    let identity = record.user_identity()?;
    Some(json!({"type": identity.r#type(), "principalId": identity.principal_id()}))
}

/// Returns the attributes sorted by name, so that the same image always has the same text.
fn image(attributes: &HashMap<String, AttributeValue>) -> Value {
    let mut names: Vec<_> = attributes.iter().collect();
    names.sort_unstable_by_key(|(name, _)| *name);
    Value::Object(names.into_iter().map(|(name, value)| (name.clone(), attribute(value))).collect())
}

fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::B(bytes) => json!({"B": BASE64.encode(bytes)}),
        AttributeValue::Bool(flag) => json!({"BOOL": flag}),
        AttributeValue::Bs(set) => json!({"BS": set.iter().map(|bytes| BASE64.encode(bytes)).collect::<Vec<_>>()}),
        AttributeValue::L(list) => json!({"L": list.iter().map(attribute).collect::<Vec<_>>()}),
        AttributeValue::M(map) => json!({"M": image(map)}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::Ns(set) => json!({"NS": set}),
        AttributeValue::Null(flag) => json!({"NULL": flag}),
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::Ss(set) => json!({"SS": set}),
        // A type that this SDK does not know: the result is not a valid attribute value, so the function reports the
        // record as failed.
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodbstreams::primitives::{Blob, DateTime};
    use aws_sdk_dynamodbstreams::types::{Identity, StreamRecord, StreamViewType};

    use super::*;

    const ARN: &str = "arn:aws:dynamodb:dynoxide:000000000000:table/Users/stream/1700000000";

    fn record(name: OperationType) -> aws_sdk_dynamodbstreams::types::builders::RecordBuilder {
        Record::builder().event_name(name).event_id("1").event_version("1.1").event_source("aws:dynamodb")
    }

    #[test]
    fn every_attribute_type_keeps_its_spelling() {
        let values = [
            (AttributeValue::B(Blob::new([0, 255])), json!({"B": "AP8="})),
            (AttributeValue::Bool(false), json!({"BOOL": false})),
            (AttributeValue::Bs(vec![Blob::new([1])]), json!({"BS": ["AQ=="]})),
            (AttributeValue::L(vec![AttributeValue::S(String::new())]), json!({"L": [{"S": ""}]})),
            (
                AttributeValue::M([("a".to_owned(), AttributeValue::Null(true))].into()),
                json!({"M": {"a": {"NULL": true}}}),
            ),
            (AttributeValue::N("1.2300e-130".into()), json!({"N": "1.2300e-130"})),
            (AttributeValue::Ns(vec!["1".into()]), json!({"NS": ["1"]})),
            (AttributeValue::S("é".into()), json!({"S": "é"})),
            (AttributeValue::Ss(vec!["a".into()]), json!({"SS": ["a"]})),
        ];
        for (value, expected) in values {
            assert_eq!(attribute(&value), expected);
        }
    }

    #[test]
    fn a_record_has_lambda_s_shape() {
        let change = StreamRecord::builder()
            .approximate_creation_date_time(DateTime::from_secs(1_700_000_000))
            .keys("id", AttributeValue::S("a".into()))
            .new_image("id", AttributeValue::S("a".into()))
            .sequence_number("100000000000000000001")
            .size_bytes(7)
            .stream_view_type(StreamViewType::NewAndOldImages)
            .build();
        let event = encode(&record(OperationType::Insert).aws_region("dynoxide").dynamodb(change).build(), ARN);
        let expected = json!({
            "eventID": "1", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
            "awsRegion": "dynoxide", "eventSourceARN": ARN,
            "dynamodb": {
                "ApproximateCreationDateTime": 1_700_000_000, "Keys": {"id": {"S": "a"}}, "NewImage": {"id": {"S": "a"}},
                "SequenceNumber": "100000000000000000001", "SizeBytes": 7, "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_removal_s_identity_is_spelled_as_lambda_does() {
        let service = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
        let identity = Identity::builder().r#type("Service").principal_id("dynamodb.amazonaws.com").build();
        let removal = record(OperationType::Remove).user_identity(identity).build();
        assert_eq!(encode(&removal, ARN)["userIdentity"], service);
        assert_eq!(encode(&record(OperationType::Remove).build(), ARN).get("userIdentity"), None);
    }

    #[test]
    fn a_modify_between_equal_images_changes_nothing() {
        let of = |old: &str, new: &str, name| {
            let change = StreamRecord::builder()
                .old_image("a", AttributeValue::S(old.into()))
                .new_image("a", AttributeValue::S(new.into()))
                .build();
            is_noop(&record(name).dynamodb(change).build())
        };
        assert!(of("1", "1", OperationType::Modify));
        assert!(!of("1", "2", OperationType::Modify));
        assert!(!is_noop(&record(OperationType::Modify).dynamodb(StreamRecord::builder().build()).build()));
    }
}
