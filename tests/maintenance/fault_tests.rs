//! Maintenance tasks with injected faults: a task may take longer and may have to be run again, but it loses nothing.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::{MaintenanceHandler, TaskError};
use millrace_shared::table_reader::TableReader;
use millrace_sinks::dynamodb::DynamoDbSink;
use serde_json::json;

use super::scene::{FAILURES, FORMER, MaintenanceScene, REPLICA, SOURCE, record as record_of, to_its_end};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::EventBuilder;

/// The maintenance function whose requests to DynamoDB and S3 meet the faults of `plan`.
async fn amid(
    scene: &MaintenanceScene,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Clone + Send + Sync + 'static,
) -> MaintenanceHandler {
    let (dynamodb, s3) = (
        proxy::before(scene.stack.dynamodb_url(), plan.clone()).await,
        proxy::before(scene.stack.s3_url(), plan).await,
    );
    let retries = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(Duration::from_millis(1));
    let config =
        millrace_local::clients::dynamodb(&dynamodb).config().to_builder().retry_config(retries.clone()).build();
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(config);
    let config = millrace_local::clients::s3(&s3).config().to_builder().retry_config(retries).build();
    let mut maintenance = scene.maintenance();
    maintenance.source = TableReader::new(dynamodb.clone(), SOURCE);
    maintenance.replicas = vec![Box::new(DynamoDbSink::new(dynamodb, REPLICA, 32, time::Duration::days(8)))];
    maintenance.failures = FailureBucket::new(aws_sdk_s3::Client::from_conf(config), FAILURES.to_owned());
    maintenance
}

/// Runs a task like the state machine: a task that fails for a transient reason is retried.
async fn retried(maintenance: &MaintenanceHandler, order: serde_json::Value) -> TaskResponse {
    for _ in 0..200 {
        match to_its_end(maintenance, order.clone(), Duration::from_mins(2)).await {
            Ok(response) => return response,
            Err(fault) => assert_eq!(TaskError::kind(&fault).as_str(), "TaskFailed", "{fault}"),
        }
    }
    panic!("it never passes: {order}");
}

/// Fails one of every `every` calls, in turn in each of the ways that a call can fail.
fn now_and_then(every: usize) -> impl Fn(&ProxiedCall<'_>) -> HttpFault + Clone + Send + Sync + 'static {
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    move |_: &ProxiedCall<'_>| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        if call % every != every - 1 {
            return HttpFault::None;
        }
        match (call / every) % 4 {
            0 => HttpFault::Error(503, "ServiceUnavailable"),
            1 => HttpFault::ResponseLost,
            2 => HttpFault::Error(400, "ProvisionedThroughputExceededException"),
            _ => HttpFault::Error(500, "InternalServerError"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_of_ten_thousand_records_loses_none_amid_faults() {
    let scene = MaintenanceScene::start().await;
    // One user of ten still exists; the others have been deleted since.
    scene.fill(1_000, 10).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    for batch in 0..20_u64 {
        let records = (0..500).map(|n| {
            let n = batch * 500 + n;
            record_of(EventBuilder::named(&format!("u{n:05}"), n + 1, "Then"), FORMER)
        });
        scene.give_up("replicator", records.collect(), batch % 2 == 0).await;
    }
    let maintenance = amid(&scene, now_and_then(23)).await;
    let mut redriven = 0;
    while !scene.objects("aws/").await.is_empty() {
        redriven +=
            retried(&maintenance, json!({"task": "redrive", "dry_run": false})).await.progress.get("redrive.redriven");
    }
    assert!(redriven <= 20);
    assert_eq!(scene.objects("redriven/").await.len(), 20);
    let items = scene.items(REPLICA).await;
    assert_eq!(items.len(), 10_000, "every record has left its mark");
    assert_eq!(items.iter().filter(|item| item.contains_key("_tombstone_expires_at")).count(), 9_000);
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_and_a_backfill_end_right_amid_faults() {
    let scene = MaintenanceScene::start().await;
    scene.fill(600, 10).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let maintenance = amid(&scene, now_and_then(7)).await;
    retried(&maintenance, json!({"task": "backfill"})).await;
    scene.replica_is_source().await;
    for n in 0..300 {
        scene.delete(REPLICA, &format!("u{n:05}")).await;
    }
    retried(&maintenance, json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_the_failure_bucket_before_its_copy_is_confirmed() {
    let scene = MaintenanceScene::start().await;
    let object =
        scene.give_up("replicator", vec![record_of(EventBuilder::named("ada", 1, "Ada"), FORMER)], false).await;
    let refuse_copies = |call: &ProxiedCall<'_>| {
        let is_copy = call.method == "PUT" && call.path.contains("/redriven/");
        if is_copy { HttpFault::Error(503, "SlowDown") } else { HttpFault::None }
    };
    let maintenance = amid(&scene, refuse_copies).await;
    let response = retried(&maintenance, json!({"task": "redrive", "run_id": "kept", "dry_run": false})).await;
    assert_eq!(response.progress.get("redrive.skipped"), 1);
    assert_eq!(scene.objects("aws/").await, [object.as_str()]);
    assert!(scene.report("kept").await[0]["reason"].as_str().unwrap().contains("is not confirmed"));

    let deletes = Mutex::new(HashSet::new());
    let deletes = std::sync::Arc::new(deletes);
    let seen = std::sync::Arc::clone(&deletes);
    let first_delete_lost = move |call: &ProxiedCall<'_>| {
        let first = call.method == "DELETE" && seen.lock().unwrap().insert(call.path.to_owned());
        if first { HttpFault::ResponseLost } else { HttpFault::None }
    };
    let maintenance = amid(&scene, first_delete_lost).await;
    retried(&maintenance, json!({"task": "redrive", "dry_run": false})).await;
    assert!(scene.objects("aws/").await.is_empty());
    assert_eq!(scene.objects("redriven/").await, [format!("redriven/{object}")]);
    assert_eq!(deletes.lock().unwrap().len(), 1);
}
