//! Backfills: a replica receives the items that it lacks, and nothing else.

use std::collections::HashMap;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use millrace_maintenance::mapping::ReplicatorMappings;
use millrace_shared::revision::SequenceNumber;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, key, revision, text, user};

#[tokio::test(flavor = "multi_thread")]
async fn backfill_writes_missing_items_below_every_stream_revision() {
    let scene = MaintenanceScene::start().await;
    for name in ["ada", "bob", "cleo"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.delete(SOURCE, "cleo").await;
    scene.stack.wait_until_drained().await;
    scene.delete(REPLICA, "bob").await;
    let before = scene.item(REPLICA, "ada").await.unwrap();

    let response = scene.task(json!({"task": "backfill"})).await;
    assert_eq!(response.progress.to_string(), "dynamodb.skipped 1, dynamodb.written 1, source.items 2");
    assert_eq!(response.problems, 0, "an item that the replica has is no problem");
    let bob = scene.item(REPLICA, "bob").await.unwrap();
    assert_eq!(bob["name"], text("Created"));
    assert_eq!(revision(&bob).sequence(), SequenceNumber::ZERO);
    assert_eq!(revision(&bob).label(), revision(&before).label(), "of the latest stream");
    assert_eq!(scene.item(REPLICA, "ada").await.unwrap(), before, "the replica is unchanged");
    assert!(scene.item(REPLICA, "cleo").await.unwrap().contains_key("_tombstone_expires_at"));

    scene.put(SOURCE, user("bob", "Renamed")).await;
    scene.stack.wait_until_drained().await;
    assert_eq!(scene.name("bob").await.as_deref(), Some("Renamed"), "any streamed change wins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_goes_on_where_the_last_invocation_stopped() {
    let scene = MaintenanceScene::start().await;
    scene.fill(1_200, 2_000).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    // A rate at which no invocation of this length can finish: a page of 1 MB costs 250 units.
    let mut order = json!({"task": "backfill", "run_id": "slow", "max_read_capacity_units": 250});
    let (maintenance, mut interrupted) = (scene.maintenance(), 0);
    let response = loop {
        let response = invoke(&maintenance, &order, Duration::from_secs(4)).await.unwrap();
        if response.done {
            break response;
        }
        interrupted += 1;
        order["cursor"] = json!(response.cursor);
    };
    assert!(interrupted > 0);
    assert_eq!((response.progress.get("source.items"), response.run_id.as_str()), (1_200, "slow"));
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_together_are_the_whole_table() {
    let scene = MaintenanceScene::start().await;
    scene.fill(200, 10).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let mut parts = Vec::new();
    for segment in 0..4 {
        let order = json!({"task": "backfill", "run_id": "parts", "segment": segment, "segments": 4});
        parts.push(scene.task(order).await);
    }
    assert!(parts.iter().all(|part| part.progress.get("source.items") < 200), "{parts:?}");
    let summary = scene.task(json!({"task": "summary", "run_id": "parts", "segment_results": parts})).await;
    assert_eq!(summary.progress.to_string(), "dynamodb.written 200, source.items 200");
    let kept: Value = serde_json::from_slice(&scene.object("reports/parts/summary.json").await).unwrap();
    assert_eq!(kept["progress"]["dynamodb.written"], 200);
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_reports_rejected_items_and_writes_their_neighbours() {
    let scene = MaintenanceScene::start().await;
    let mut poison = user("eve", "Eve");
    poison.insert("_tombstone_expires_at".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let response = scene.task(json!({"task": "backfill", "run_id": "poison"})).await;
    assert_eq!(response.progress.to_string(), "dynamodb.failed 1, dynamodb.written 1, source.items 2");
    assert_eq!((response.differences, response.problems), (0, 1));
    let report = scene.report("poison").await;
    assert_eq!((report.len(), &report[0]["key"]["user_id"]["S"]), (1, &json!("eve")));
    assert_eq!(report[0]["outcome"], "failed");
    assert!(report[0]["reason"].as_str().unwrap().contains("_tombstone_expires_at"), "{report:?}");
}

/// Runs a task while Lambda reports these event source mappings; returns the error.
async fn refused(scene: &MaintenanceScene, task: &str, mappings: Value) -> (String, &'static str) {
    // A mapping that names its stream is listed only for that stream.
    let listed = move |Query(asked): Query<HashMap<String, String>>| async move {
        let mut mappings = mappings;
        let stream = asked.get("EventSourceArn");
        let is_listed = |mapping: &Value| match (mapping["EventSourceArn"].as_str(), stream) {
            (Some(reads), Some(stream)) => reads == stream,
            _ => true,
        };
        mappings.as_array_mut().unwrap().retain(is_listed);
        axum::Json(json!({"EventSourceMappings": mappings}))
    };
    let router = Router::new().fallback(get(listed));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut maintenance = scene.maintenance();
    maintenance.mappings = ReplicatorMappings::new(millrace_local::clients::lambda(&url), "replicator".to_owned());
    let fault = invoke(&maintenance, &json!({"task": task}), Duration::from_mins(1)).await.unwrap_err();
    (fault.to_string(), fault.kind().as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mapping_that_brings_every_change_nothing_is_filled_in() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    scene.delete(REPLICA, "ada").await;
    let mapping = |function: &str, state: &str, position: &str| {
        let arn = format!("arn:aws:lambda:us-east-1:000000000000:function:{function}");
        json!([{"UUID": "u-1", "FunctionArn": arn, "State": state, "StartingPosition": position}])
    };
    let described = scene.dynamodb.describe_table().table_name(SOURCE).send().await.unwrap().table.unwrap();
    let latest = described.latest_stream_arn.unwrap();
    let mut former = mapping("replicator:live", "Enabled", "TRIM_HORIZON");
    former[0]["EventSourceArn"] = json!(format!("{}/stream/{FORMER}", latest.split_once("/stream/").unwrap().0));
    let mut elsewhere = mapping("replicator", "Enabled", "TRIM_HORIZON");
    elsewhere[0]["EventSourceArn"] = json!(latest.replace(SOURCE, "Others"));
    for (mappings, message) in [
        (former.clone(), "u-1 of replicator reads"),
        (elsewhere.clone(), "u-1 of replicator reads"),
        (json!([]), "replicator has no event source mapping"),
        (mapping("archiver", "Enabled", "TRIM_HORIZON"), "replicator has no event source mapping"),
        (mapping("replicator", "Disabled", "TRIM_HORIZON"), "u-1 of replicator is Disabled"),
        (mapping("replicator:live", "Enabled", "LATEST"), "started from LATEST"),
    ] {
        let (fault, name) = refused(&scene, "backfill", mappings).await;
        assert!(fault.contains(message), "{fault}");
        assert_eq!(name, "TaskPreconditionFailed");
        if message.ends_with("reads") {
            assert!([&latest, "SourceStreamArn"].iter().all(|part| fault.contains(part)), "{fault}");
        }
        if message.ends_with("Disabled") {
            assert!(fault.contains("aws lambda update-event-source-mapping --uuid u-1 --enabled"), "{fault}");
        }
    }
    let command = format!("--table-name {SOURCE} --query Table.LatestStreamArn --output text");
    for task in ["backfill", "verify", "repair", "redrive", "audit"] {
        for (mappings, reads) in [(&former, FORMER), (&elsewhere, "stream of another table")] {
            let (fault, name) = refused(&scene, task, mappings.clone()).await;
            for part in ["mapping u-1 of replicator reads", reads, &latest, "SourceStreamArn", &command] {
                assert!(fault.contains(part), "{task}: {part}: {fault}");
            }
            assert_eq!(name, "TaskPreconditionFailed", "{task}");
        }
    }
    assert_eq!(scene.item(REPLICA, "ada").await, None);
    assert!(
        scene.item(SOURCE, "ada").await.is_some_and(|item| key("ada").iter().all(|(name, its)| item[name] == *its))
    );
}
