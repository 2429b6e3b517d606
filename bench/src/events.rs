//! Payloads in the format of Lambda's events.

use std::fmt::Write as _;

use serde_json::json;

const TIME: u64 = 1_795_334_400;
/// Sequence numbers of DynamoDB have at least 21 digits.
const FIRST_NUMBER: u128 = 4_421_584_500_000_000_017_450_439_091;

/// Returns `records` changes of users with distinct keys, each of about 1.4 KB with both images.
pub(crate) fn changes(records: usize) -> String {
    batch(records, |index| {
        let (old, new) = (image(index, 2), image(index, 3));
        format!(r#""eventName":"MODIFY","dynamodb":{{{},"NewImage":{new},"OldImage":{old}}}"#, position(index))
    })
}

/// Returns `records` changes of items with 13 attributes and distinct keys, each of about 1.6 KB with both images.
pub(crate) fn orders(records: usize) -> String {
    batch(records, |index| {
        let (old, new) = (order(index, "open"), order(index, "paid"));
        format!(r#""eventName":"MODIFY","dynamodb":{{{},"NewImage":{new},"OldImage":{old}}}"#, position(index))
    })
}

/// Returns an item with 13 attributes of all common types.
fn order(index: usize, status: &str) -> String {
    json!({
        "user_id": {"S": format!("user-{index:08}")}, "timestamp": {"N": TIME.to_string()},
        "name": {"S": format!("User {index}")}, "email": {"S": format!("user-{index:08}@example.com")},
        "status": {"S": status}, "total": {"N": format!("{}.{:02}", index * 7, index % 100)},
        "quantity": {"N": (index % 9).to_string()}, "paid": {"BOOL": status == "paid"},
        "created_at": {"S": "2026-11-22T08:00:00Z"}, "due": {"S": "2026-12-22"},
        "address": {"M": {"city": {"S": "Łódź"}, "street": {"S": format!("a street of some length {index:08}")}}},
        "tags": {"SS": ["gift", "new"]}, "note": {"S": format!("a note of some length {index:08}")},
    })
    .to_string()
}

/// Returns `records` removals by TTL with distinct keys, each of about 1.4 KB with the old image.
pub(crate) fn expiries(records: usize) -> String {
    batch(records, |index| {
        let identity = r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#;
        let old = image(index, 12);
        format!(r#""eventName":"REMOVE",{identity},"dynamodb":{{{},"OldImage":{old}}}"#, position(index))
    })
}

fn batch(records: usize, record: impl Fn(usize) -> String) -> String {
    let mut payload = String::from(r#"{"Records":["#);
    for index in 0..records {
        let separator = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(
            payload,
            r#"{separator}{{"eventID":"{index:032x}","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"eu-west-1","eventSourceARN":"arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-01T08:00:00.000",{}}}"#,
            record(index),
        );
    }
    payload.push_str("]}");
    payload
}

fn position(index: usize) -> String {
    let number = FIRST_NUMBER + index as u128;
    format!(
        r#""ApproximateCreationDateTime":{TIME},"Keys":{},"SequenceNumber":"{number}","SizeBytes":1024,"StreamViewType":"NEW_AND_OLD_IMAGES""#,
        json!({"user_id": {"S": format!("user-{index:08}")}, "timestamp": {"N": TIME.to_string()}}),
    )
}

/// Returns a user's item, with `labels` additional attributes that bring a record to its size.
fn image(index: usize, labels: usize) -> String {
    let more: serde_json::Map<_, _> = (0..labels)
        .map(|label| (format!("label-{label}"), json!({"S": format!("a value of some length {index:08}")})))
        .collect();
    json!({
        "user_id": {"S": format!("user-{index:08}")}, "timestamp": {"N": TIME.to_string()},
        "name": {"S": format!("User {index}")}, "email": {"S": format!("user-{index:08}@example.com")},
        "status": {"S": "active"}, "attributes": {"M": more}, "version": {"N": format!("{TIME}000000")},
        "created_at": {"S": "2026-11-22T08:00:00Z"}, "updated_at": {"S": "2026-11-22T08:00:00Z"},
    })
    .to_string()
}

/// Returns a request event of an API Gateway HTTP API (payload version 2.0).
pub(crate) fn request(method: &str, path: &str, body: Option<&serde_json::Value>) -> String {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "",
        "headers": {"content-type": "application/json", "host": "api.example.com"},
        "requestContext": {
            "accountId": "123456789012", "apiId": "api", "domainName": "api.example.com", "domainPrefix": "api",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench"},
            "requestId": "bench", "routeKey": "$default", "stage": "$default", "time": "22/Nov/2026:08:00:00 +0000",
            "timeEpoch": TIME * 1000,
        },
        "body": body.map(ToString::to_string), "isBase64Encoded": false,
    })
    .to_string()
}
