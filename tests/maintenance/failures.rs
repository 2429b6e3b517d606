//! A comparison stays within its memory and its deadline, however large the failure bucket is.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use millrace_maintenance::failure_bucket::FailureBucket;
use serde_json::json;
use tokio::time::Instant;

use super::scene::{FAILURES, FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record, user};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::EventBuilder;

const OBJECTS: usize = 3_000;

/// A replica that lacks ada, and thousands of failure objects, of which the last one contains her record.
async fn with_many_failures() -> MaintenanceScene {
    let scene = MaintenanceScene::start().await;
    for name in ["ada", "bob"] {
        scene.put(SOURCE, user(name, "Now")).await;
    }
    scene.stack.wait_until_drained().await;
    scene.delete(REPLICA, "ada").await;
    let puts = (0..OBJECTS).map(|n| {
        let name = if n == OBJECTS - 1 { "ada".to_owned() } else { format!("u{n:05}") };
        let body =
            json!({"format": 1, "reason": "once", "record": record(EventBuilder::named(&name, 1, "Then"), FORMER)});
        let key = format!("quarantine/replicator/dynamodb/Users/x-{n:05}.json");
        let scene = &scene;
        async move { scene.put_object(&key, body.to_string()).await }
    });
    stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(32).collect::<()>().await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn verify_reads_failure_bucket_until_its_deadline_and_reports_the_cut() {
    let scene = with_many_failures().await;
    // Reading an object takes a while, so that reading all of them takes longer than the invocation has.
    let slow = |call: &ProxiedCall<'_>| {
        if call.method == "GET" && call.path.contains("/quarantine/") {
            std::thread::sleep(Duration::from_millis(20));
        }
        HttpFault::None
    };
    let mut maintenance = scene.maintenance();
    let client = millrace_local::clients::s3(&proxy::before(scene.stack.s3_url(), slow).await);
    maintenance.failures = FailureBucket::new(client, FAILURES.to_owned());
    let time = Duration::from_secs(8);
    let started = Instant::now();
    let hurried = json!({"task": "verify", "run_id": "hurried", "recheck_after_seconds": 0});
    let response = invoke(&maintenance, &hurried, time).await.unwrap();
    assert!(started.elapsed() < time, "{:?}", started.elapsed());
    assert!(response.done, "the comparison itself is done");
    let counts = "dynamodb.equal 1, dynamodb.items 1, dynamodb.missing 1, dynamodb.unattributed 1, source.items 2";
    assert_eq!(response.progress.to_string(), counts);
    let report = scene.report("hurried").await;
    assert_eq!((&report[0]["kind"], &report[0]["unattributed"]), (&json!("missing"), &json!(true)));

    let patient = json!({"task": "verify", "run_id": "patient", "recheck_after_seconds": 0});
    let response = invoke(&scene.maintenance(), &patient, Duration::from_mins(2)).await.unwrap();
    assert_eq!((response.progress.get("dynamodb.quarantined"), response.progress.get("dynamodb.unattributed")), (1, 0));
    let report = scene.report("patient").await;
    let object = format!("quarantine/replicator/dynamodb/Users/x-{:05}.json", OBJECTS - 1);
    assert_eq!((&report[0]["objects"], report[0].get("unattributed")), (&json!([object]), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_no_failure_can_be_is_not_read() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.stack.wait_until_drained().await;
    scene.delete(REPLICA, "ada").await;
    let dump = "quarantine/replicator/dynamodb/Users/dump.json";
    scene.put_object(dump, vec![b' '; 17 * 1024 * 1024]).await;
    let never = |call: &ProxiedCall<'_>| {
        if call.path.contains("dump") { HttpFault::Error(500, "InternalError") } else { HttpFault::None }
    };
    let mut maintenance = scene.maintenance();
    let client = millrace_local::clients::s3(&proxy::before(scene.stack.s3_url(), never).await);
    maintenance.failures = FailureBucket::new(client, FAILURES.to_owned());
    let time = Duration::from_mins(1);
    let response = invoke(&maintenance, &json!({"task": "verify", "recheck_after_seconds": 0}), time).await.unwrap();
    assert_eq!((response.progress.get("dynamodb.missing"), response.progress.get("dynamodb.unattributed")), (1, 0));
    let order = json!({"task": "redrive", "run_id": "large", "dry_run": false});
    assert_eq!(invoke(&maintenance, &order, time).await.unwrap().progress.get("redrive.skipped"), 1);
    assert!(scene.report("large").await[0]["reason"].as_str().unwrap().contains("17825792 bytes"));
}
