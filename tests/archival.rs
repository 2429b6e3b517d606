//! Archiving: from the stream's batches to the archive's objects, on the embedded S3 engine.

mod failures;
pub(crate) mod harness;
mod range_reads;
mod stack;

use harness::{ArchiverHarness, expired, payload, sequence};
use serde_json::json;

use crate::replication::rig::without_digests;

#[tokio::test]
async fn an_expired_user_is_one_row_in_the_archive() {
    let harness = ArchiverHarness::start().await;
    let response = harness.handle(&harness::event("user-expired")).await.unwrap();
    assert_eq!(response.identifier(), None);

    let rows = harness.rows().await;
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row.key.as_str(), r#"{"timestamp":{"N":"1795334460"},"user_id":{"S":"bob"}}"#);
    assert_eq!(row.revision.to_string(), "2026-11-01T08:00:00.000#4421584500000000017450439095");
    assert_eq!(row.removed_at.unix_timestamp(), 1_795_339_800);
    assert_eq!(row.event_id.as_deref(), Some("00000000000000000000000000000004"));
    let item: serde_json::Value = serde_json::from_str(row.item.get()).unwrap();
    assert_eq!(item, harness::event("user-expired")["Records"][0]["dynamodb"]["OldImage"]);
    assert!(row.item.get().contains(r#""ratio":{"N":"0.12345678901234567890123456789012345678"}"#));
}

#[tokio::test]
async fn archived_object_has_metadata_and_no_content_encoding() {
    let harness = ArchiverHarness::start().await;
    harness.handle(&harness::event("user-expired")).await.unwrap();
    let [key] = harness.objects().await.try_into().unwrap();
    assert!(key.starts_with("archive/Users/dt=2026-11-22/hr=09/") && key.ends_with(".ndjson.zst"), "{key}");

    let head = harness.s3.head_object().bucket(harness::ARCHIVE).key(&key).send().await.unwrap();
    assert_eq!(head.content_type(), Some("application/x-ndjson"));
    assert_eq!(head.content_encoding(), None);
    let metadata = head.metadata().unwrap();
    let entry = |name: &str| metadata[name].as_str();
    assert_eq!((entry("format"), entry("rows")), ("1", "1"));
    assert_eq!((entry("first"), entry("last")), ("2026-11-22T09:30:00Z", "2026-11-22T09:30:00Z"));
    assert_eq!(entry("sha256"), harness::sha256_hex(&harness.bytes(&key).await));
}

#[tokio::test]
async fn changes_other_than_ttl_deletes_are_not_archived() {
    let harness = ArchiverHarness::start().await;
    for story in ["user-created", "user-renamed", "user-deleted", "user-many-times"] {
        let response = harness.handle(&harness::event(story)).await.unwrap();
        assert_eq!(response.identifier(), None, "{story}");
    }
    assert_eq!(harness.objects().await, [""; 0]);
    assert_eq!(harness.quarantined().await, [""; 0]);
}

#[tokio::test]
async fn a_redelivered_batch_overwrites_its_own_objects() {
    let harness = ArchiverHarness::start().await;
    let batch = payload((0..5).map(|n| expired(n, 0)));
    harness.handle(&batch).await.unwrap();
    let [key] = harness.objects().await.try_into().unwrap();
    let before = harness.bytes(&key).await;
    let mut again: Vec<_> = (0..5).map(|n| expired(n, 0)).collect();
    again.reverse();
    harness.handle(&payload(again)).await.unwrap();
    assert_eq!(harness.objects().await, [key.as_str()]);
    assert_eq!(harness.bytes(&key).await, before);
}

#[tokio::test]
async fn a_batch_that_is_redelivered_in_other_slices_is_read_without_repetitions() {
    let harness = ArchiverHarness::start().await;
    for slice in [0..5, 2..7, 4..5] {
        harness.handle(&payload(slice.map(|n| expired(n, 0)))).await.unwrap();
    }
    assert_eq!(harness.objects().await.len(), 3);
    let numbers: Vec<_> = harness.rows().await.iter().map(|row| row.revision.sequence().to_string()).collect();
    assert_eq!(numbers, (0..7).map(sequence).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_same_key_removed_twice_is_two_rows() {
    let harness = ArchiverHarness::start().await;
    let mut later = expired(8, 60);
    later["dynamodb"]["Keys"] = expired(3, 0)["dynamodb"]["Keys"].clone();
    later["dynamodb"]["OldImage"] = expired(3, 0)["dynamodb"]["OldImage"].clone();
    harness.handle(&payload([expired(3, 0), later])).await.unwrap();
    let rows = harness.rows().await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].key, rows[1].key);
    assert!(rows[0].revision < rows[1].revision);
}

#[tokio::test]
async fn a_batch_of_two_hours_is_two_objects() {
    let harness = ArchiverHarness::start().await;
    harness.handle(&payload([expired(1, 0), expired(2, 3600), expired(3, 1)])).await.unwrap();
    let hours: Vec<_> = harness.objects().await.iter().map(|key| key.split('/').nth(3).unwrap().to_owned()).collect();
    assert_eq!(hours, ["hr=09", "hr=10"]);
    assert_eq!(harness.rows().await.len(), 3);
}

#[tokio::test]
async fn gzip_is_written_where_it_is_configured() {
    let harness = ArchiverHarness::start().await.with(&[("ARCHIVE_COMPRESSION", "gzip")]);
    harness.handle(&payload((0..3).map(|n| expired(n, 0)))).await.unwrap();
    let [key] = harness.objects().await.try_into().unwrap();
    assert!(key.ends_with(".ndjson.gz"), "{key}");
    let mut text = String::new();
    let bytes = harness.bytes(&key).await;
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut text).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert_eq!(harness.rows().await.len(), 3);
}

#[tokio::test]
async fn a_poison_record_goes_to_quarantine_and_its_neighbours_to_the_archive() {
    let harness = ArchiverHarness::start().await;
    let mut poison = expired(2, 0);
    poison["dynamodb"]["Keys"] = json!("eve");
    let mut timeless = expired(3, 0);
    timeless["dynamodb"]["ApproximateCreationDateTime"] = json!(1_795_339_800_000_i64);
    let response = harness.handle(&payload([expired(1, 0), poison.clone(), timeless, expired(4, 0)])).await.unwrap();
    assert_eq!(response.identifier(), None, "a poison record blocks nothing");

    assert_eq!(harness.rows().await.len(), 2);
    let name = |n| format!("quarantine/archiver/s3/Users/2026-11-01T08:00:00.000-{}.json", sequence(n));
    let keys = harness.quarantined().await;
    assert_eq!(without_digests(&keys), [name(2), name(3)]);
    let kept = harness.quarantine(&keys[0]).await;
    assert_eq!((&kept["format"], &kept["record"]), (&json!(1), &poison));
    assert!(kept["reason"].as_str().unwrap().contains("dynamodb.Keys"), "{}", kept["reason"]);
    let kept = harness.quarantine(&keys[1]).await;
    assert!(kept["reason"].as_str().unwrap().contains("ApproximateCreationDateTime"), "{}", kept["reason"]);
}

#[tokio::test]
async fn redelivered_unreadable_record_is_quarantined_once() {
    let harness = ArchiverHarness::start().await;
    for _ in 0..2 {
        let response = harness.handle(&harness::event("unreadable-in-the-middle")).await.unwrap();
        assert_eq!(response.identifier(), None);
    }
    assert_eq!(harness.quarantined().await.len(), 1);
    assert_eq!(harness.objects().await, [""; 0], "its neighbours are no removals");
}

#[tokio::test]
async fn a_damaged_object_is_refused_by_its_name() {
    let harness = ArchiverHarness::start().await;
    harness.handle(&payload((0..50).map(|n| expired(n, 0)))).await.unwrap();
    let [key] = harness.objects().await.try_into().unwrap();
    let head = harness.s3.head_object().bucket(harness::ARCHIVE).key(&key).send().await.unwrap();
    let mut bytes = harness.bytes(&key).await;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;

    let mut rows = harness::open(&key, head.metadata().unwrap(), bytes);
    let corrupt = rows.find_map(Result::err).unwrap();
    assert_eq!(corrupt.object, key);
    assert!(corrupt.to_string().starts_with(&key), "{corrupt}");
}
