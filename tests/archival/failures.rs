//! No record is acknowledged before S3 has confirmed its object.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;

use super::harness::{self, ArchiverHarness, expired, handle, payload, sequence};

const LONG: Duration = Duration::from_secs(30);

fn poison(n: u32) -> serde_json::Value {
    let mut record = expired(n, 0);
    record["dynamodb"]["Keys"] = json!("eve");
    record
}

#[tokio::test]
async fn without_s3_nothing_is_acknowledged() {
    let archiver = ArchiverHarness::start().await.without_s3().await;
    let batch = payload([expired(1, 0), expired(2, 3600), poison(3)]);
    let response = handle(&archiver, &batch, LONG).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(1).as_str()));
}

#[tokio::test]
async fn the_batch_that_s3_refused_is_archived_when_it_comes_again() {
    let harness = ArchiverHarness::start().await;
    harness.refuse(harness::ARCHIVE);
    let batch = payload([expired(1, 0), expired(2, 0), poison(3)]);
    let response = harness.handle(&batch).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(1).as_str()), "a bucket's fault is no reason to put rows aside");
    assert_eq!(harness.quarantined().await.len(), 1);

    harness.accept(harness::ARCHIVE);
    assert_eq!(harness.handle(&batch).await.unwrap().identifier(), None);
    assert_eq!(harness.rows().await.len(), 2);
}

#[tokio::test]
async fn a_record_that_quarantine_did_not_take_is_reported() {
    let harness = ArchiverHarness::start().await;
    harness.refuse(harness::FAILURES);
    let response = harness.handle(&payload([expired(1, 0), expired(2, 0), poison(3), expired(4, 0)])).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(3).as_str()));
    assert_eq!(harness.rows().await.len(), 3, "the others are archived all the same");
}

#[tokio::test]
async fn a_record_without_a_number_that_quarantine_did_not_take_is_reported_by_its_neighbour() {
    let harness = ArchiverHarness::start().await;
    harness.refuse(harness::FAILURES);
    let mut nameless = expired(2, 0);
    nameless["dynamodb"]["SequenceNumber"] = json!(null);
    let response = harness.handle(&payload([expired(1, 0), nameless.clone(), expired(3, 0)])).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(1).as_str()));
    let fault = harness.handle(&payload([nameless, expired(3, 0)])).await.unwrap_err();
    assert!(fault.to_string().contains("no record up to it has a sequence number"), "{fault}");
}

#[tokio::test]
async fn an_hour_that_could_not_be_written_is_reported_by_its_lowest_number() {
    let harness = ArchiverHarness::start().await;
    // A file at the path at which the engine needs a directory for the hour from 10:00.
    let day = harness.root.path().join(harness::ARCHIVE).join("archive/Users/dt=2026-11-22");
    std::fs::create_dir_all(&day).unwrap();
    std::fs::write(day.join("hr=10"), "").unwrap();
    let batch = payload([expired(1, 0), expired(2, 3600), expired(3, 1), expired(4, 3601)]);
    let response = harness.handle(&batch).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(2).as_str()));

    std::fs::remove_file(day.join("hr=10")).unwrap();
    assert_eq!(harness.rows().await.len(), 2, "the other hour was written");
    // Lambda redelivers from the second record on.
    let rest = payload([expired(2, 3600), expired(3, 1), expired(4, 3601)]);
    assert_eq!(harness.handle(&rest).await.unwrap().identifier(), None);
    assert_eq!(harness.rows().await.len(), 4);
}

#[tokio::test]
async fn records_unfinished_at_the_deadline_are_reported_as_failed() {
    // A server that accepts connections and never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let s3 = harness::client(&format!("http://{}", silent.local_addr().unwrap()));
    let archiver = harness::archiver(&[], s3);
    let started = tokio::time::Instant::now();
    let batch = payload((1..40).map(|n| expired(n, i64::from(n) * 3600)));
    let response = handle(&archiver, &batch, Duration::from_millis(300)).await.unwrap();
    assert_eq!(response.identifier(), Some(sequence(1).as_str()));
    assert!(started.elapsed() < Duration::from_secs(3), "it left in time");
}

#[tokio::test]
async fn stream_without_old_images_fails_invocation_without_quarantine() {
    let harness = ArchiverHarness::start().await;
    for view in ["KEYS_ONLY", "NEW_IMAGE"] {
        let mut imageless = expired(2, 0);
        imageless["dynamodb"]["StreamViewType"] = json!(view);
        imageless["dynamodb"].as_object_mut().unwrap().remove("OldImage");
        let fault = harness.handle(&payload([expired(1, 0), imageless])).await.unwrap_err().to_string();
        for part in
            [view, "--table-name Users --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"]
        {
            assert!(fault.contains(part), "{part}: {fault}");
        }
    }
    assert_eq!((harness.objects().await.len(), harness.quarantined().await.len()), (0, 0));
}

#[tokio::test]
async fn removal_with_an_image_of_another_item_is_quarantined_not_archived() {
    let harness = ArchiverHarness::start().await;
    let (mut foreign, mut keyless, mut spelled) = (expired(2, 0), expired(3, 0), expired(4, 0));
    foreign["dynamodb"]["OldImage"]["user_id"]["S"] = json!("intruder");
    keyless["dynamodb"]["OldImage"].as_object_mut().unwrap().remove("user_id");
    let second = spelled["dynamodb"]["Keys"]["timestamp"]["N"].as_str().unwrap().to_owned();
    spelled["dynamodb"]["OldImage"]["timestamp"]["N"] = json!(format!("{second}.0"));
    let batch = payload([expired(1, 0), foreign, keyless, spelled]);
    assert_eq!(harness.handle(&batch).await.unwrap().identifier(), None);
    assert_eq!(harness.rows().await.len(), 2, "the neighbour, and the same key in another spelling");
    let quarantined = harness.quarantined().await;
    assert_eq!(quarantined.len(), 2, "{quarantined:?}");
    let reason = harness.quarantine(&quarantined[0]).await["reason"].to_string();
    assert!(reason.contains("dynamodb.OldImage and dynamodb.Keys differ") && reason.contains("user_id"), "{reason}");
}

#[tokio::test]
async fn of_two_different_removals_of_one_number_neither_disappears() {
    let harness = ArchiverHarness::start().await;
    let mut other = expired(1, 0);
    other["dynamodb"]["OldImage"]["name"]["S"] = json!("Somebody else");
    let batch = payload([expired(1, 0), other.clone(), expired(1, 0), expired(2, 0)]);
    for delivery in 1..=2 {
        assert_eq!(harness.handle(&batch).await.unwrap().identifier(), None);
        assert_eq!(harness.rows().await.len(), 2, "delivery {delivery}");
        let quarantined = harness.quarantined().await;
        assert_eq!(quarantined.len(), 1, "the same name each time: {quarantined:?}");
        assert!(quarantined[0].starts_with("quarantine/archiver/contradicting/Users/"), "{quarantined:?}");
        let body = harness.quarantine(&quarantined[0]).await;
        assert_eq!(body["record"], other);
        assert!(body["reason"].as_str().unwrap().contains("same sequence number"), "{body}");
    }
}

#[tokio::test]
async fn a_failed_invocation_is_named_by_words_of_our_own() {
    let harness = ArchiverHarness::start().await;
    harness.refuse(harness::FAILURES);
    let mut keys_only = expired(1, 0);
    keys_only["dynamodb"]["StreamViewType"] = json!("KEYS_ONLY");
    keys_only["dynamodb"].as_object_mut().unwrap().remove("OldImage");
    for (batch, name) in [
        (json!({"Message": "hello"}), "NotAStreamEvent"),
        (payload([keys_only]), "StreamViewWithoutImages"),
        (payload([json!({"eventName": "REMOVE"})]), "QuarantineUnavailable"),
    ] {
        let fault = harness.handle(&batch).await.unwrap_err();
        let shown = serde_json::to_value(millrace_shared::runtime::diagnostic(fault.name(), &fault)).unwrap();
        assert_eq!((&shown["errorType"], &shown["errorMessage"]), (&json!(name), &json!(fault.to_string())));
    }
}

#[tokio::test]
async fn batch_of_another_table_s_stream_fails_and_is_neither_archived_nor_quarantined() {
    const USERS: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users";
    let orders = USERS.replace("Users", "Orders");
    let harness = ArchiverHarness::start().await.with(&[("SOURCE_TABLE_ARN", &orders)]);
    let unreadable = json!({"eventName": "REMOVE", "eventSourceARN": expired(1, 0)["eventSourceARN"].clone()});
    for batch in [payload([expired(1, 0)]), payload([unreadable])] {
        let fault = harness.handle(&batch).await.unwrap_err();
        assert_eq!(fault.name(), "StreamOfAnotherTable");
        for part in [USERS, "SOURCE_TABLE_ARN (parameter SourceTableArn)", &orders, "aws dynamodb describe-table"] {
            assert!(fault.to_string().contains(part), "{part}: {fault}");
        }
    }
    assert_eq!((harness.objects().await, harness.quarantined().await), (Vec::new(), Vec::new()));
    let harness = harness.with(&[("SOURCE_TABLE_ARN", USERS)]);
    assert_eq!(harness.handle(&payload([expired(1, 0)])).await.unwrap().identifier(), None);
    assert_eq!(harness.rows().await.len(), 1);
}

#[tokio::test]
async fn non_batch_payload_fails_the_invocation() {
    let harness = ArchiverHarness::start().await;
    assert!(harness.handle(&json!({"Message": "hello"})).await.is_err());
    assert_eq!(harness.handle(&payload([])).await.unwrap().identifier(), None);
}
