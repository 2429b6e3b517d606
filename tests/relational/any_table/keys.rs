//! Keys of every type: they are read back, scanned and written as the keys of the source.

use std::collections::BTreeSet;
use std::time::Duration;

use millrace_shared::change::CanonicalKey;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::Replica as _;
use serde_json::{Value, json};

use super::TableStore;
use crate::relational::store::apply_within;
use crate::replication::events::{LABEL, event_of};

fn record(keys: &Value, number: u64) -> String {
    let mut image = keys.clone();
    image["note"] = json!({"S": "x"});
    let arn = format!("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/{LABEL}");
    json!({"eventID": number.to_string(), "eventName": "INSERT", "eventSource": "aws:dynamodb", "eventSourceARN": arn,
        "dynamodb": {"Keys": keys, "NewImage": image, "SequenceNumber": number.to_string(),
            "StreamViewType": "NEW_AND_OLD_IMAGES"}})
    .to_string()
}

#[tokio::test]
async fn a_key_of_any_schema_is_the_key_of_its_row() {
    let store = TableStore::start(&json!({"note": {"path": "note", "type": "text"}})).await;
    let keys = [
        json!({"pk": {"S": "a \"quoted\" é\u{1F600}"}}),
        json!({"size": {"N": "-1.50"}}),
        json!({"_id": {"B": "AAH/"}}),
        json!({"user.id": {"S": "a"}, "order": {"S": ""}}),
        json!({"Größe": {"S": "L"}, "sort key": {"N": "1E+10"}}),
        json!({"version": {"S": "1"}, "data": {"B": "AA=="}}),
        json!({"n": {"N": "12345678901234567890123456789012345678"}, "m": {"N": "0"}}),
    ];
    let records: Vec<String> = keys.iter().zip(1..).map(|(key, number)| record(key, number)).collect();
    let outcome = apply_within(&store.sink, &event_of(&records), Duration::from_secs(30)).await;
    assert_eq!(outcome.applied, keys.len(), "{outcome:?}");
    let canonical: Vec<CanonicalKey> = keys.iter().map(|key| CanonicalKey::parse(&key.to_string()).unwrap()).collect();
    let read = store.sink.read(&canonical).await.unwrap().items;
    for (key, held) in keys.iter().zip(&read) {
        let held = held.as_ref().unwrap();
        assert!(held.item().is_some() && !held.columns_differ, "{key}");
    }
    let mut scanned = BTreeSet::new();
    for segment in 0..3 {
        let page = store.sink.scan(ScanSegment { segment, total_segments: 3 }, None).await.unwrap();
        assert_eq!(page.next, None);
        scanned.extend(page.items.into_iter().map(|(key, _)| key));
    }
    assert_eq!(scanned, canonical.into_iter().collect());
}

#[tokio::test]
async fn a_scan_continues_after_its_last_key() {
    let store = TableStore::start(&json!({"note": {"path": "note", "type": "text"}})).await;
    let records: Vec<String> =
        (1..=600).map(|number| record(&json!({"pk": {"N": number.to_string()}}), number)).collect();
    assert_eq!(apply_within(&store.sink, &event_of(&records), Duration::from_secs(30)).await.applied, 600);
    let (mut after, mut found, mut pages) = (None, BTreeSet::new(), 0);
    loop {
        let segment = ScanSegment { segment: 0, total_segments: 1 };
        let page = store.sink.scan(segment, after.as_ref()).await.unwrap();
        pages += 1;
        for (key, _) in page.items {
            assert!(found.insert(key), "no key comes twice");
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (600, 3));
}
