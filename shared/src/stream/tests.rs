use serde_json::json;

use super::*;

const ARN: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2015-06-27T00:48:05.899";

fn raw(json: &serde_json::Value) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap()
}

fn created(number: &str) -> serde_json::Value {
    json!({
        "eventID": "e1", "eventName": "INSERT", "eventSourceARN": ARN,
        "dynamodb": {
            "ApproximateCreationDateTime": 1_732_283_949, "Keys": {"k": {"S": "a"}},
            "NewImage": {"k": {"S": "a"}}, "SequenceNumber": number, "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    })
}

fn with(path: &str, value: serde_json::Value) -> serde_json::Value {
    let mut record = created("100");
    let (parent, field) = path.rsplit_once('/').unwrap();
    record.pointer_mut(parent).unwrap()[field] = value;
    record
}

/// Returns a change of the item in `created`, from one image to another.
fn changed(name: &str, old: serde_json::Value, new: serde_json::Value) -> serde_json::Value {
    let mut record = created("100");
    record["eventName"] = json!(name);
    record["dynamodb"]["OldImage"] = old;
    record["dynamodb"]["NewImage"] = new;
    record
}

#[test]
fn a_record_with_an_image_of_another_item_is_unreadable_whichever_image_it_is() {
    let (own, foreign) = (json!({"k": {"S": "a"}, "n": {"N": "1"}}), json!({"k": {"S": "b"}, "n": {"N": "1"}}));
    for (record, field) in [
        (changed("INSERT", json!(null), foreign.clone()), "dynamodb.NewImage"),
        (changed("MODIFY", own.clone(), foreign.clone()), "dynamodb.NewImage"),
        (changed("MODIFY", foreign.clone(), own.clone()), "dynamodb.OldImage"),
        (changed("REMOVE", foreign, json!(null)), "dynamodb.OldImage"),
        (changed("MODIFY", own, json!({"n": {"N": "1"}})), "dynamodb.NewImage has no attribute"),
    ] {
        let (message, position, source) = middle(&record);
        assert!(message.contains(field) && message.contains("\"k\""), "{message}");
        assert_eq!((position.as_deref(), source), (Some("100"), true), "{message}");
    }
}

#[test]
fn an_old_image_without_the_key_shows_nothing() {
    for old in [json!({}), json!({"n": {"N": "1"}})] {
        for name in ["MODIFY", "REMOVE"] {
            let payload = raw(&json!({"Records": [changed(name, old.clone(), json!({"k": {"S": "a"}}))]}));
            let batch = read(&payload).unwrap();
            let change = batch.records[0].read.as_ref().unwrap();
            assert!(matches!(change.before, OldImage::Unknown), "{name} {old}");
            assert!(!matches!(change.effect, ChangeKind::Remove { image: Some(_), .. }), "{name} {old}");
        }
    }
}

/// Returns the reason, the position and the source of the middle one of three records.
fn middle(record: &serde_json::Value) -> (String, Option<String>, bool) {
    let payload = raw(&json!({"Records": [created("1"), record, created("3")]}));
    let batch = read(&payload).unwrap();
    assert!(batch.records[0].read.is_ok() && batch.records[2].read.is_ok(), "its neighbours are parsed");
    let record = &batch.records[1];
    let reason = record.read.as_ref().unwrap_err().to_string();
    (reason, record.sequence.as_deref().map(str::to_owned), record.source.is_some())
}

#[test]
fn a_record_becomes_a_change() {
    let payload = raw(&json!({"Records": [created("4421584500000000017450439091")]}));
    let batch = read(&payload).unwrap();
    let change = batch.records[0].read.as_ref().unwrap();
    assert_eq!(change.revision.to_string(), "2015-06-27T00:48:05.899#4421584500000000017450439091");
    assert_eq!(change.key.canonical().as_str(), r#"{"k":{"S":"a"}}"#);
    assert_eq!(change.source.table(), "Users");
    assert_eq!(change.approximate_creation_time.unwrap().unix_timestamp(), 1_732_283_949);
    assert!(matches!(change.effect, ChangeKind::Write { image: Some(image) } if image.get() == r#"{"k":{"S":"a"}}"#));
}

#[test]
fn an_image_keeps_its_own_text() {
    let image =
        r#"{ "k":{"S":"\u0061"}, "n" : {"N":"12345678901234567890123456789012345678"}, "u":{"S":"\u00e9 / \/"} }"#;
    let text = format!(
        r#"{{"Records":[{{"eventName":"MODIFY","eventSourceARN":"{ARN}","dynamodb":
        {{"Keys":{{"k":{{"S":"a"}}}},"NewImage":{image},"SequenceNumber":"5"}}}}]}}"#
    );
    let payload = RawValue::from_string(text).unwrap();
    let batch = read(&payload).unwrap();
    let ChangeKind::Write { image: Some(read) } = batch.records[0].read.as_ref().unwrap().effect else { panic!() };
    assert_eq!(read.get(), image);
}

#[test]
fn an_unreadable_record_is_a_value_with_its_position() {
    for (record, reason) in [
        (with("/eventName", json!("RENAME")), "eventName"),
        (with("/eventName", json!(null)), "eventName"),
        (with("/dynamodb/Keys", json!(null)), "dynamodb.Keys"),
        (with("/dynamodb/Keys", json!({"k": {"N": "x"}})), "dynamodb.Keys.k"),
        (with("/dynamodb/NewImage", json!(null)), "dynamodb.NewImage"),
        (with("/dynamodb/NewImage", json!([1])), "dynamodb.NewImage"),
        (with("/userIdentity", json!("TTL")), "not a DynamoDB stream record"),
        (with("/eventID", json!({})), "not a DynamoDB stream record"),
    ] {
        let (message, position, source) = middle(&record);
        assert!(message.contains(reason), "{message}");
        assert_eq!((position.as_deref(), source), (Some("100"), true), "{message}");
    }
}

#[test]
fn a_record_without_number_or_source_is_still_a_value() {
    for (record, reason) in [
        (with("/dynamodb/SequenceNumber", json!(null)), "dynamodb.SequenceNumber is missing"),
        (with("/dynamodb/SequenceNumber", json!("soon")), "sequence number \"soon\""),
        (with("/dynamodb/SequenceNumber", json!(7)), "not a DynamoDB stream record"),
        (with("/eventSourceARN", json!("arn:aws:sqs:x")), "eventSourceARN"),
        (with("/eventSourceARN", json!(null)), "eventSourceARN is missing"),
        (json!({}), "is missing"),
        (json!(null), "not a DynamoDB stream record"),
        (json!("poison"), "not a DynamoDB stream record"),
    ] {
        let (message, _, _) = middle(&record);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn only_the_service_s_removals_are_expiries() {
    let service = json!({"type": "Service", "principalId": "dynamodb.amazonaws.com"});
    let spelled = json!({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"});
    for (identity, wanted) in [
        (service, true),
        (spelled, true),
        (json!(null), false),
        (json!({}), false),
        (json!({"type": "Service", "principalId": "replication.dynamodb.amazonaws.com"}), false),
        (json!({"type": "User", "principalId": "dynamodb.amazonaws.com"}), false),
    ] {
        let mut record = with("/userIdentity", identity);
        record["eventName"] = json!("REMOVE");
        record["dynamodb"]["OldImage"] = json!({"k": {"S": "a"}});
        let payload = raw(&json!({"Records": [record]}));
        let batch = read(&payload).unwrap();
        let ChangeKind::Remove { expired, image } = batch.records[0].read.as_ref().unwrap().effect else { panic!() };
        assert_eq!((expired, image.is_some()), (wanted, true));
    }
}

#[test]
fn a_view_without_images_is_not_a_damaged_record() {
    for view in ["KEYS_ONLY", "OLD_IMAGE"] {
        let mut record = with("/dynamodb/StreamViewType", json!(view));
        record["dynamodb"]["NewImage"] = json!(null);
        let payload = raw(&json!({"Records": [record]}));
        let batch = read(&payload).unwrap();
        let change = batch.records[0].read.as_ref().unwrap();
        assert!(matches!(change.effect, ChangeKind::Write { image: None }));
        assert_eq!(change.view.as_deref(), Some(view));
    }
}

#[test]
fn times_are_read_in_every_spelling() {
    let millis = |json| time_of(json).map(|time| time.unix_timestamp_nanos() / 1_000_000);
    assert_eq!(millis("1732283949"), Some(1_732_283_949_000));
    assert_eq!(millis("1732283949.25"), Some(1_732_283_949_250));
    assert_eq!(millis("1.73228394925E9"), Some(1_732_283_949_250));
    assert_eq!(millis("1.5e9"), Some(1_500_000_000_000));
    // As milliseconds, this would be in the year 56,000; DynamoDB did not exist before 1970.
    for json in ["1732283949000", "-1", "\"1732283949\"", "null", "1e400"] {
        assert_eq!(millis(json), None, "{json}");
    }
}

#[test]
fn payload_without_records_is_an_error() {
    for payload in [json!({}), json!([]), json!({"Records": null}), json!({"records": []})] {
        assert!(read(&raw(&payload)).is_err(), "{payload}");
    }
    assert!(read(&raw(&json!({"Records": []}))).unwrap().records.is_empty());
}

#[test]
fn a_response_names_one_position_or_none() {
    let text = |response: &BatchResponse| serde_json::to_string(response).unwrap();
    assert_eq!(text(&BatchResponse::success()), r#"{"batchItemFailures":[]}"#);
    let resend = BatchResponse::retry_from("4421584500000000017450439091");
    assert_eq!(text(&resend), r#"{"batchItemFailures":[{"itemIdentifier":"4421584500000000017450439091"}]}"#);
    assert_eq!(
        (resend.identifier(), BatchResponse::success().identifier()),
        (Some("4421584500000000017450439091"), None)
    );
}

#[test]
fn key_is_read_from_an_otherwise_unreadable_record() {
    let of = |record: &str| stream_key(record).map(|key| key.to_string());
    let record = r#"{"eventName":7,"dynamodb":{"Keys":{"k":{"N":"1.0"}},"SequenceNumber":null}}"#;
    assert_eq!(of(record).unwrap(), r#"{"k":{"N":"1"}}"#);
    for (record, field) in [("{}", "dynamodb.Keys"), (r#"{"dynamodb":{"Keys":{"k":{"N":"x"}}}}"#, "dynamodb.Keys.k")] {
        assert!(of(record).unwrap_err().to_string().contains(field), "{record}");
    }
}

fn stream_key(record: &str) -> Result<CanonicalKey, RecordParseError> {
    key_of(&RawValue::from_string(record.to_owned()).unwrap())
}

#[test]
fn an_unreadable_record_may_be_an_expiry_only_if_it_names_the_principal_of_ttl() {
    let with_identity = |identity: serde_json::Value| raw(&json!({"eventName": "RENAME", "userIdentity": identity}));
    for (record, expected) in [
        (with_identity(json!({"type": "Service", "principalId": TTL_PRINCIPAL})), true),
        (with_identity(json!([TTL_PRINCIPAL])), true),
        (with_identity(json!({"type": "User", "principalId": "AIDA"})), false),
        (with_identity(json!(null)), false),
        (raw(&json!({"eventName": "RENAME"})), false),
        (raw(&json!("not a record")), true),
    ] {
        assert_eq!(may_be_expiry(&record), expected, "{}", record.get());
    }
}
