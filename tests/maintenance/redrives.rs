//! Redrives: failed records are retried in the function in which they failed.

use std::collections::HashMap;
use std::time::Duration;

use millrace_archive::{KeyNames, RowReader};
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_shared::revision::Revision;
use serde_json::{Value, json};

use super::scene::{
    ARCHIVE, FAILURES, FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record as record_of, revision, text, user,
};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::EventBuilder;

/// The users of all rows in the archive, once for each row.
async fn archived(scene: &MaintenanceScene) -> Vec<String> {
    let listed = scene.s3.list_objects_v2().bucket(ARCHIVE).prefix("archive/").send().await.unwrap();
    let mut users = Vec::new();
    for key in listed.contents().iter().map(|object| object.key().unwrap()) {
        let object = scene.s3.get_object().bucket(ARCHIVE).key(key).send().await.unwrap();
        let metadata: HashMap<String, String> = object.metadata().cloned().unwrap();
        let bytes = object.body.collect().await.unwrap().to_vec();
        let names = KeyNames::new(["user_id", "timestamp"]);
        let rows = RowReader::open(key, &metadata, names, bytes.as_slice()).unwrap();
        users.extend(rows.map(|row| {
            let item: Value = serde_json::from_str(row.unwrap().item.get()).unwrap();
            item["user_id"]["S"].as_str().unwrap().to_owned()
        }));
    }
    users.sort();
    users
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_brings_its_key_to_the_source_s_state_and_never_its_own_image() {
    let scene = MaintenanceScene::start().await;
    for name in ["renamed", "deleted", "kept"] {
        scene.put(SOURCE, user(name, "Now")).await;
    }
    scene.delete(SOURCE, "deleted").await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let records = vec![
        record_of(EventBuilder::named("renamed", 5, "Then"), FORMER),
        record_of(EventBuilder::named("deleted", 6, "Then"), FORMER),
        record_of(EventBuilder::deleted("kept", 7), FORMER),
    ];
    let object = scene.give_up("replicator", records, false).await;

    let dry = scene.task(json!({"task": "redrive", "run_id": "dry"})).await;
    assert_eq!(dry.progress.to_string(), "redrive.objects 1, redrive.records 3, redrive.would_redrive 1");
    assert_eq!(scene.report("dry").await[0]["outcome"], "would_redrive");
    assert!(scene.items(REPLICA).await.is_empty(), "showing it changes nothing");

    let real = scene.task(json!({"task": "redrive", "run_id": "real", "dry_run": false})).await;
    let expected = "redrive.objects 1, redrive.records 3, redrive.redriven 1, redrive.written 3";
    assert_eq!(real.progress.to_string(), expected);
    assert_eq!(
        (scene.name("renamed").await.as_deref(), scene.name("kept").await.as_deref()),
        (Some("Now"), Some("Now"))
    );
    assert!(scene.item(REPLICA, "deleted").await.unwrap().contains_key("_tombstone_expires_at"));
    scene.replica_is_source().await;
    assert_eq!(scene.objects("aws/").await, [""; 0]);
    assert_eq!(scene.objects("redriven/").await, [format!("redriven/{object}")], "it is moved, whole");

    let before = scene.items(REPLICA).await.len();
    let again = scene.task(json!({"task": "redrive", "run_id": "again", "dry_run": false})).await;
    assert_eq!((again.progress.to_string().as_str(), scene.items(REPLICA).await.len()), ("", before));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_object_redriven_twice_changes_nothing() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.stack.wait_until_drained().await;
    let records = vec![record_of(EventBuilder::named("ada", 5, "Then"), FORMER)];
    let object = scene.give_up("replicator", records, true).await;
    let body = scene.object(&object).await;
    scene.task(json!({"task": "redrive", "dry_run": false})).await;
    let once = scene.item(REPLICA, "ada").await;
    // As if the invocation had ended after the write and before the object was moved.
    scene.put_object(&object, body).await;
    let again = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!((again.progress.get("redrive.redriven"), again.progress.get("redrive.written")), (1, 0));
    assert_eq!(scene.item(REPLICA, "ada").await, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_redriven_by_its_key() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let mut record = record_of(EventBuilder::named("ada", 5, "Then"), FORMER);
    record["eventName"] = json!("RENAME");
    let body = json!({"format": 1, "reason": "eventName is \"RENAME\"", "record": record}).to_string();
    scene.put_object("quarantine/replicator/read/Users/x-5.json", body).await;
    let response = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(response.progress.get("redrive.redriven"), 1);
    assert_eq!(scene.name("ada").await.as_deref(), Some("Now"));
    let least = Revision::parse(&format!("{FORMER}#5")).unwrap();
    assert!(revision(&scene.item(REPLICA, "ada").await.unwrap()) > least);
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_archives_ttl_deletes_once_and_skips_user_deletes() {
    let scene = MaintenanceScene::start().await;
    let expired = |name: &str, number| record_of(EventBuilder::expired(name, number), FORMER);
    let records = vec![expired("ada", 1), record_of(EventBuilder::deleted("bob", 2), FORMER), expired("cleo", 3)];
    scene.give_up("archiver", records.clone(), false).await;
    scene.give_up("archiver", vec![expired("dan", 4)], true).await;
    let record = json!({"format": 1, "reason": "once", "record": expired("eve", 5)});
    scene.put_object("quarantine/archiver/s3/Users/x-5.json", record.to_string()).await;
    let response = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    let expected = "redrive.objects 3, redrive.records 5, redrive.redriven 3, redrive.rows 4";
    assert_eq!(response.progress.to_string(), expected);
    assert_eq!(archived(&scene).await, ["ada", "cleo", "dan", "eve"]);
    assert!(scene.items(REPLICA).await.is_empty(), "an archiver's record is none of the replica's business");
    // The same rows result in the same object.
    scene.give_up("archiver", records, false).await;
    scene.task(json!({"task": "redrive", "dry_run": false})).await;
    let mut users = archived(&scene).await;
    users.dedup();
    assert_eq!(users, ["ada", "cleo", "dan", "eve"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_redrives_are_kept_and_explained_and_the_rest_continues() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Now")).await;
    let mut poison = user("eve", "Eve");
    poison.insert("_deleted_by_ttl".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let good = scene.give_up("replicator", vec![record_of(EventBuilder::named("ada", 5, "Then"), FORMER)], false).await;
    let stranger =
        scene.give_up("somebody", vec![record_of(EventBuilder::named("ada", 5, "Then"), FORMER)], false).await;
    let mut other = record_of(EventBuilder::named("ada", 6, "Then"), FORMER);
    other["eventSourceARN"] = json!("arn:aws:dynamodb:eu-west-1:1:table/Orders/stream/2026-01-01T00:00:00.000");
    let other = scene.give_up("replicator", vec![other.clone()], false).await;
    let keyless = scene
        .give_up(
            "replicator",
            vec![json!({"eventSourceARN": record_of(EventBuilder::deleted("a", 1), FORMER)["eventSourceARN"]})],
            false,
        )
        .await;
    let timeless = {
        let mut record = record_of(EventBuilder::expired("ada", 7), FORMER);
        record["dynamodb"]["ApproximateCreationDateTime"] = json!(0);
        scene.give_up("archiver", vec![record_of(EventBuilder::expired("bob", 8), FORMER), record], false).await
    };
    let contradicting = "quarantine/archiver/contradicting/Users/x-8-0f.json".to_owned();
    let record = json!({"format": 1, "reason": "twice", "record": record_of(EventBuilder::expired("bob", 8), FORMER)});
    scene.put_object(&contradicting, record.to_string()).await;
    let no_envelope = "aws/lambda/mapping/shardId-1/2026/11/24/readme.txt".to_owned();
    scene.put_object(&no_envelope, "hello").await;
    let later = "quarantine/replicator/dynamodb/Users/later.json".to_owned();
    scene.put_object(&later, r#"{"format":9,"reason":"","record":{}}"#).await;
    let own =
        scene.objects("quarantine/replicator/dynamodb/Users/").await.into_iter().find(|key| *key != later).unwrap();

    for _ in 0..2 {
        let run = format!("run-{}", scene.objects("reports/").await.len());
        let response = scene.task(json!({"task": "redrive", "run_id": run, "dry_run": false})).await;
        assert_eq!((response.progress.get("redrive.skipped"), response.problems), (8, 8), "{}", response.progress);
        let report = scene.report(&run).await;
        let why = |object: &str| {
            let line = report.iter().find(|line| line["object"] == object).unwrap();
            assert_eq!(line["outcome"], "skipped");
            line["reason"].as_str().unwrap().to_owned()
        };
        assert!(why(&stranger).contains("function:somebody"));
        assert!(why(&other).contains("table/Orders"));
        assert!(why(&keyless).contains("record 1: cannot read the key"));
        assert!(why(&timeless).contains("record 2: dynamodb.ApproximateCreationDateTime"));
        assert!(why(&contradicting).contains("another record of this item and sequence number"));
        assert!(why(&no_envelope).contains("not Lambda's envelope"));
        assert!(why(&later).contains("format 9"));
        assert!(why(&own).contains("sink dynamodb: the image contains the attribute _deleted_by_ttl"), "{}", why(&own));
        for key in [&stranger, &other, &keyless, &timeless, &contradicting, &no_envelope, &later, &own] {
            assert_eq!(scene.objects(key).await, [key.as_str()], "nothing is removed that is not done");
        }
    }
    assert!(scene.objects(&good).await.is_empty());
    assert_eq!(archived(&scene).await, ["bob"], "its neighbour is archived");
    assert_eq!(scene.name("ada").await.as_deref(), Some("Now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_selects_objects_by_prefix_error_period_and_segment() {
    let scene = MaintenanceScene::start().await;
    let record = |name: &str, number| record_of(EventBuilder::named(name, number, "Then"), FORMER);
    scene.give_up("replicator", vec![record("ada", 1)], false).await;
    for (sink, reason, number) in [("dynamodb", "too large", 2), ("dynamodb", "reserved", 3), ("read", "too large", 4)]
    {
        let body = json!({"format": 1, "reason": reason, "record": record("bob", number)}).to_string();
        scene.put_object(&format!("quarantine/replicator/{sink}/Users/x-{number}.json"), body).await;
    }
    let count = async |mut order: Value| {
        order["task"] = json!("redrive");
        scene.task(order).await.progress.get("redrive.would_redrive")
    };
    assert_eq!(count(json!({})).await, 4);
    assert_eq!(count(json!({"prefix": "quarantine/replicator/dynamodb/"})).await, 2);
    assert_eq!(count(json!({"error_contains": "too large"})).await, 2);
    assert_eq!(count(json!({"error_contains": "RecordAge"})).await, 1);
    assert_eq!(count(json!({"error_contains": "large", "prefix": "quarantine/replicator/read/"})).await, 1);
    assert_eq!(count(json!({"to": "2026-01-01T00:00:00Z"})).await, 0);
    assert_eq!(count(json!({"from": "2026-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z"})).await, 4);
    let mut parts = 0;
    for segment in 0..3 {
        parts += count(json!({"segment": segment, "segments": 3})).await;
    }
    assert_eq!(parts, 4, "each object is one segment's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_unprocessed_at_the_deadline_are_kept() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let object =
        scene.give_up("replicator", vec![record_of(EventBuilder::named("ada", 1, "Then"), FORMER)], false).await;
    let slow = |call: &ProxiedCall<'_>| {
        if call.method == "GET" && call.path.contains("/aws/lambda/") {
            return HttpFault::Slow(Duration::from_secs(4));
        }
        HttpFault::None
    };
    let mut maintenance = scene.maintenance();
    let client = millrace_local::clients::s3(&proxy::before(scene.stack.s3_url(), slow).await);
    maintenance.failures = FailureBucket::new(client, FAILURES.to_owned());
    let order = json!({"task": "redrive", "run_id": "late", "dry_run": false});
    let response = invoke(&maintenance, &order, Duration::from_secs(3)).await.unwrap();
    assert_eq!((response.progress.get("redrive.skipped"), response.progress.get("redrive.redriven")), (1, 0));
    assert_eq!(scene.objects("aws/").await, [object.as_str()], "its record was not looked at");
    let report = scene.report("late").await;
    assert!(
        report[0]["reason"].as_str().unwrap().contains("the deadline passed before it was processed"),
        "{report:?}"
    );
}
