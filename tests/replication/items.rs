//! Items are replicated unchanged, whatever table they are from: types, numbers, number formats and unknown attributes.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::events::{EventBuilder, LABEL, event, event_of};
use super::rig::{ReplicationRig, RigItem, deliver_batch};

/// Every type of DynamoDB, with values that would be lost if a number passed through a float, a set through an ordered
/// list, or an empty value through a check.
fn every_type() -> RigItem {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let n = |text: &str| AttributeValue::N(text.to_owned());
    let b = |bytes: &[u8]| AttributeValue::B(Blob::new(bytes));
    RigItem::from([
        ("text".to_owned(), s("é \" \\ \u{1} / 😀 </script> \u{2028}")),
        ("empty".to_owned(), s("")),
        ("big".to_owned(), n("12345678901234567890123456789012345678")),
        ("small".to_owned(), n("-0.00000000000000000000000000000000000012345678901234567890123456789012345678")),
        ("binary".to_owned(), b(&[0, 1, 0xfe, 0xff])),
        ("no_bytes".to_owned(), b(&[])),
        ("yes".to_owned(), AttributeValue::Bool(true)),
        ("no".to_owned(), AttributeValue::Bool(false)),
        ("nothing".to_owned(), AttributeValue::Null(true)),
        ("texts".to_owned(), AttributeValue::Ss(vec!["a".to_owned(), "b".to_owned()])),
        ("numbers".to_owned(), AttributeValue::Ns(vec!["1".to_owned(), "2.5".to_owned()])),
        ("binaries".to_owned(), AttributeValue::Bs(vec![Blob::new([1]), Blob::new([2])])),
        ("list".to_owned(), AttributeValue::L(vec![s(""), n("0"), AttributeValue::L(vec![]), b(b"x")])),
        (
            "map".to_owned(),
            AttributeValue::M(RigItem::from([
                ("_rev".to_owned(), s("data, since it is not at the top")),
                ("deeper".to_owned(), AttributeValue::M(RigItem::from([(" odd \"key\"\n".to_owned(), n("1e100"))]))),
                ("none".to_owned(), AttributeValue::M(RigItem::new())),
            ])),
        ),
    ])
}

/// The item as the engine stores it when the SDK writes it: the engine normalizes numbers, as DynamoDB does.
async fn written_by_the_sdk(rig: &ReplicationRig, table: &str, item: RigItem) -> RigItem {
    let key = ["user_id", "timestamp"].map(|name| (name.to_owned(), item[name].clone()));
    rig.dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    let read = rig.dynamodb.get_item().table_name(table).consistent_read(true).set_key(Some(key.into()));
    read.send().await.unwrap().item.unwrap()
}

/// The stream's JSON of an item, as the service writes it.
fn json_of(value: &AttributeValue) -> serde_json::Value {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;
    let base64 = |blob: &Blob| BASE64_STANDARD.encode(blob);
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::B(bytes) => json!({"B": base64(bytes)}),
        AttributeValue::Bool(value) => json!({"BOOL": value}),
        AttributeValue::Null(value) => json!({"NULL": value}),
        AttributeValue::Ss(texts) => json!({"SS": texts}),
        AttributeValue::Ns(numbers) => json!({"NS": numbers}),
        AttributeValue::Bs(blobs) => json!({"BS": blobs.iter().map(base64).collect::<Vec<_>>()}),
        AttributeValue::L(values) => json!({"L": values.iter().map(json_of).collect::<Vec<_>>()}),
        AttributeValue::M(map) => json!({"M": image_of(map)}),
        other => panic!("{other:?} is a type that this test does not know"),
    }
}

fn image_of(item: &RigItem) -> serde_json::Value {
    item.iter().map(|(name, value)| (name.clone(), json_of(value))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn all_ten_types_pass_untouched() {
    let rig = ReplicationRig::start().await;
    rig.create_table("Source", &[("user_id", "S"), ("timestamp", "N")]).await;
    let key = [("user_id", AttributeValue::S("a".into())), ("timestamp", AttributeValue::N("1".into()))];
    let mut item = every_type();
    item.extend(key.map(|(name, value)| (name.to_owned(), value)));
    let source = written_by_the_sdk(&rig, "Source", item).await;

    let image = image_of(&source).to_string();
    assert_eq!(
        deliver_batch(&rig.replicator(), &event(&[EventBuilder::image("a", 1, &image)])).await.identifier(),
        None
    );

    let mut replica = rig.item("a", "1").await.unwrap();
    assert!(replica.remove("_rev").is_some());
    assert_eq!(replica, source);
}

#[tokio::test]
async fn a_key_of_bytes_names_its_item() {
    let rig = ReplicationRig::start().await;
    rig.create_table("Bytes", &[("id", "B")]).await;
    let replicator = rig.replicator_over("Bytes");
    let record = |number: u64, name: &str, images: &str| {
        format!(
            r#"{{"eventName":"{name}","eventSourceARN":"arn:aws:dynamodb:r:1:table/Source/stream/{LABEL}",
            "dynamodb":{{"Keys":{{"id":{{"B":"AAH+/w=="}}}},{images}"SequenceNumber":"{number}"}}}}"#
        )
    };
    let image = r#""NewImage":{"id":{"B":"AAH+/w=="},"x":{"N":"1"}},"#;
    deliver_batch(&replicator, &event_of(&[record(1, "INSERT", image)])).await;
    let read = || async {
        let key = AttributeValue::B(Blob::new([0, 1, 0xfe, 0xff]));
        rig.dynamodb.get_item().table_name("Bytes").key("id", key).send().await.unwrap().item.unwrap()
    };
    assert_eq!(read().await["x"], AttributeValue::N("1".to_owned()));
    deliver_batch(&replicator, &event_of(&[record(2, "REMOVE", "")])).await;
    assert!(read().await.contains_key("_tombstone_expires_at"));
}

#[tokio::test]
async fn a_number_key_is_one_key_however_it_is_spelled() {
    let rig = ReplicationRig::start().await;
    let events = [EventBuilder::named("a", 1, "First").at("10"), EventBuilder::named("a", 2, "Second").at("1e1")];
    deliver_batch(&rig.replicator(), &event(&events)).await;
    let item = rig.item("a", "10").await.unwrap();
    assert_eq!(item["name"], AttributeValue::S("Second".to_owned()));
    assert_eq!(rig.item_count().await, 1);
}

#[tokio::test]
async fn image_with_a_reserved_attribute_is_quarantined() {
    let rig = ReplicationRig::start().await;
    let image = |user: &str, extra: &str| format!(r#"{{"user_id":{{"S":"{user}"}},"timestamp":{{"N":"1"}},{extra}}}"#);
    let events = [
        EventBuilder::image("a", 1, &image("a", r#""_tombstone_expires_at":{"N":"1"}"#)),
        EventBuilder::image("b", 2, &image("b", r#""\u005frev":{"S":"x"}"#)),
        EventBuilder::named("c", 3, "Cleo"),
    ];
    assert_eq!(deliver_batch(&rig.replicator(), &event(&events)).await.identifier(), None);
    let key = |number| format!("quarantine/replicator/dynamodb/Users/{LABEL}-{number}.json");
    assert_eq!(rig.quarantined_positions().await, [key(1), key(2)]);
    let reason = rig.quarantine_body(&rig.quarantined().await[1]).await["reason"].to_string();
    assert!(reason.contains("_rev"), "{reason}");
    assert_eq!(rig.item_count().await, 1);
}
