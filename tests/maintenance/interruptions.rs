//! Transient errors in the middle of an invocation: the cursor, the counts and the report are preserved.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_archive::store::ArchiveStore;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::failure_bucket::FailureBucket;
use millrace_maintenance::task::TaskResponse;
use millrace_shared::table::RestoreTable;
use millrace_shared::table_reader::TableReader;
use millrace_sinks::SinkName;
use millrace_sinks::dynamodb::DynamoDbSink;
use serde_json::{Value, json};

use super::compactions::archived;
use super::restores::expired;
use super::scene::{ARCHIVE, FAILURES, FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record, to_its_end};
use crate::archival::harness;
use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::EventBuilder;
use crate::replication::rig::create_table;

const LATER: &str = "Later";
const UNAVAILABLE: HttpFault = HttpFault::Error(500, "InternalServerError");

fn when(hit: bool) -> HttpFault {
    if hit { UNAVAILABLE } else { HttpFault::None }
}

async fn table_behind(
    scene: &MaintenanceScene,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync + 'static,
) -> aws_sdk_dynamodb::Client {
    millrace_local::clients::dynamodb(&proxy::before(scene.stack.dynamodb_url(), plan).await)
}

async fn buckets_behind(
    scene: &MaintenanceScene,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync + 'static,
) -> aws_sdk_s3::Client {
    harness::client(&proxy::before(scene.stack.s3_url(), plan).await)
}

/// The maintenance function with a second replica whose table does not exist yet.
fn with_a_later_replica(scene: &MaintenanceScene) -> MaintenanceHandler {
    let mut maintenance = scene.maintenance();
    let sink = DynamoDbSink::new(scene.dynamodb.clone(), LATER, 8, time::Duration::days(8));
    let name = SinkName::parse("later").unwrap();
    maintenance.replicas.push(Box::new(sink.with_name(name, "REPLICATION".to_owned())));
    maintenance
}

async fn make_the_later_replica(scene: &MaintenanceScene) {
    create_table(&scene.dynamodb, LATER, &[("user_id", "S"), ("timestamp", "N")]).await;
}

/// Runs one invocation that is interrupted after some progress; checks that its response and its cursor contain the
/// progress.
async fn interrupted(maintenance: &MaintenanceHandler, order: &Value) -> TaskResponse {
    let response = invoke(maintenance, order, Duration::from_mins(1)).await.unwrap();
    assert!(!response.done, "{order}");
    let cursor = response.cursor.as_ref().unwrap();
    assert_eq!(cursor.progress, response.progress);
    assert_ne!(response.progress.to_string(), "", "{order}: counts are lost");
    response
}

/// Runs the rest of the task with a function that meets no faults.
async fn continued(maintenance: &MaintenanceHandler, order: &Value, interrupted: TaskResponse) -> TaskResponse {
    let mut order = order.clone();
    order["cursor"] = json!(interrupted.cursor);
    to_its_end(maintenance, order, Duration::from_mins(1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backfill_keeps_its_cursor_and_its_counts() {
    let scene = MaintenanceScene::start().await;
    scene.fill(1_200, 2_000).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let mut maintenance = scene.maintenance();
    let pages = AtomicUsize::new(0);
    let second_page =
        move |call: &ProxiedCall<'_>| when(call.operation == "Scan" && pages.fetch_add(1, Ordering::Relaxed) > 0);
    maintenance.source = TableReader::new(table_behind(&scene, second_page).await, SOURCE);
    let order = json!({"task": "backfill", "run_id": "cut"});
    let cut = interrupted(&maintenance, &order).await;
    assert!(cut.progress.get("source.items") > 0 && cut.progress.get("source.items") < 1_200, "{}", cut.progress);
    let response = continued(&scene.maintenance(), &order, cut).await;
    assert_eq!(response.progress.to_string(), "dynamodb.written 1200, source.items 1200");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_verify_or_repair_keeps_its_cursor_its_counts_and_its_report() {
    for order in [
        json!({"task": "verify", "run_id": "verify", "recheck_after_seconds": 0}),
        json!({"task": "repair", "run_id": "repair", "recheck_after_seconds": 0, "dry_run": false}),
    ] {
        let scene = MaintenanceScene::start().await;
        scene.fill(3, 10).await;
        scene.stack.wait_until_drained().await;
        scene.delete(REPLICA, "u00001").await;
        let maintenance = with_a_later_replica(&scene);
        let cut = interrupted(&maintenance, &order).await;
        assert_eq!((cut.progress.get("source.items"), cut.progress.get("dynamodb.missing")), (3, 1));
        assert_eq!(scene.report(&cut.run_id).await.len(), 1, "the report is kept");
        make_the_later_replica(&scene).await;
        let response = continued(&maintenance, &order, cut).await;
        assert_eq!((response.progress.get("source.items"), response.progress.get("dynamodb.missing")), (3, 1));
        assert_eq!(response.progress.get("later.missing"), 3);
        // A repair counts the items that it could not repair.
        let found = if order["task"] == "verify" { 4 } else { 0 };
        assert_eq!((response.differences, response.problems), (found, found));
        assert_eq!(scene.report(&response.run_id).await.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_redrive_keeps_its_cursor_its_counts_and_its_report() {
    let scene = MaintenanceScene::start().await;
    scene.give_up("replicator", vec![record(EventBuilder::named("ada", 1, "Then"), FORMER)], false).await;
    let body = json!({"format": 1, "reason": "once", "record": record(EventBuilder::named("bob", 2, "Then"), FORMER)});
    scene.put_object("quarantine/replicator/dynamodb/Users/x-2.json", body.to_string()).await;
    let mut maintenance = scene.maintenance();
    let listings = AtomicUsize::new(0);
    // The failures that Lambda wrote are listed twice, once with an object and once without; the next listing is that
    // of the quarantine.
    let quarantine = move |call: &ProxiedCall<'_>| {
        let lists = call.method == "GET" && call.path.trim_matches('/') == FAILURES;
        when(lists && listings.fetch_add(1, Ordering::Relaxed) > 1)
    };
    maintenance.failures = FailureBucket::new(buckets_behind(&scene, quarantine).await, FAILURES.to_owned());
    let order = json!({"task": "redrive", "run_id": "cut", "dry_run": false});
    let cut = interrupted(&maintenance, &order).await;
    assert_eq!(cut.progress.get("redrive.redriven"), 1);
    assert_eq!(scene.report("cut").await.len(), 1);
    let response = continued(&scene.maintenance(), &order, cut).await;
    assert_eq!((response.progress.get("redrive.redriven"), response.progress.get("redrive.objects")), (2, 2));
    assert_eq!(scene.report("cut").await.len(), 2);
}

/// The maintenance function, whose writes to the archive below the prefix `below` fail for the second day.
async fn without_a_second_day(scene: &MaintenanceScene, below: &'static str) -> MaintenanceHandler {
    let second_day = move |call: &ProxiedCall<'_>| {
        let path = call.path.replace("%3D", "=");
        when(call.method == "PUT" && path.contains(below) && path.contains("dt=2026-11-23"))
    };
    let mut maintenance = scene.maintenance();
    maintenance.archive = Some(ArchiveStore::new(buckets_behind(scene, second_day).await, ARCHIVE.to_owned()));
    maintenance
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_compaction_keeps_its_cursor_its_counts_and_its_report() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20)]).await;
    archived(&scene, 24, &[(20, 30), (30, 40)]).await;
    let maintenance = without_a_second_day(&scene, "/compacted/").await;
    let order = json!({"task": "compact", "run_id": "cut", "to": "2026-12-01T00:00:00Z"});
    let cut = interrupted(&maintenance, &order).await;
    assert_eq!((cut.progress.get("compact.rows"), cut.progress.get("compact.superseded")), (20, 2));
    assert_eq!(scene.report("cut").await.len(), 1);
    let response = continued(&scene.maintenance(), &order, cut).await;
    let whole = "compact.objects 4, compact.rows 40, compact.superseded 4, compact.written 2";
    assert_eq!(response.progress.to_string(), whole);
    assert_eq!(scene.report("cut").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_was_interrupted_while_it_supersedes_objects_counts_each_of_them_once() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20), (20, 30)]).await;
    let removed = AtomicUsize::new(0);
    let one =
        move |call: &ProxiedCall<'_>| when(call.method == "DELETE" && removed.fetch_add(1, Ordering::Relaxed) > 0);
    let mut maintenance = scene.maintenance();
    maintenance.archive = Some(ArchiveStore::new(buckets_behind(&scene, one).await, ARCHIVE.to_owned()));
    let order = json!({"task": "compact", "run_id": "cut", "to": "2026-12-01T00:00:00Z"});
    let cut = interrupted(&maintenance, &order).await;
    assert_eq!(cut.progress.to_string(), "compact.objects 3, compact.rows 30, compact.superseded 1, compact.written 1");
    let response = continued(&scene.maintenance(), &order, cut).await;
    assert_eq!(
        response.progress.to_string(),
        "compact.objects 3, compact.rows 30, compact.superseded 3, compact.written 1"
    );
    assert_eq!(scene.report("cut").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_columns_keep_their_cursor_their_counts_and_their_report() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10)]).await;
    archived(&scene, 24, &[(10, 20)]).await;
    scene.task(json!({"task": "compact", "to": "2026-12-01T00:00:00Z"})).await;
    let maintenance = without_a_second_day(&scene, "/parquet/").await;
    let order = json!({"task": "export-parquet", "run_id": "cut", "to": "2026-12-01T00:00:00Z"});
    let cut = interrupted(&maintenance, &order).await;
    assert_eq!(cut.progress.to_string(), "export-parquet.rows 10, export-parquet.written 1");
    let response = continued(&scene.maintenance(), &order, cut).await;
    assert_eq!(response.progress.to_string(), "export-parquet.rows 20, export-parquet.written 2");
    assert_eq!(scene.report("cut").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_keeps_what_it_has_put_its_cursor_and_its_report() {
    let scene = MaintenanceScene::start().await;
    let users: Vec<String> = (0..150).map(|n| format!("u{n:03}")).collect();
    expired(&scene, &users.iter().map(String::as_str).collect::<Vec<_>>(), "Then").await;
    let one = |call: &ProxiedCall<'_>| when(call.operation == "PutItem" && call.body.contains("\"u120\""));
    let mut maintenance = scene.maintenance();
    maintenance.restore_table = RestoreTable::new(table_behind(&scene, one).await, SOURCE.to_owned());
    let order = json!({
        "task": "restore", "run_id": "cut", "from": "2026-01-01T00:00:00Z", "never_expires": true, "dry_run": false,
    });
    let cut = interrupted(&maintenance, &order).await;
    assert_eq!(cut.progress.get("restore.restored"), 120, "all before the one that cannot be put");
    assert_eq!(scene.report("cut").await.len(), 120);
    let response = continued(&scene.maintenance(), &order, cut).await;
    // Items that were restored concurrently with the failed one exist already.
    assert_eq!(response.progress.get("restore.restored") + response.progress.get("restore.already_restored"), 150);
    let report = scene.report("cut").await;
    let keys: HashSet<String> = report.iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((report.len(), keys.len(), scene.live(SOURCE).await.len()), (150, 150, 150), "each is reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_audit_keeps_its_cursor_its_counts_and_its_report() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob"], "Then").await;
    let corrupt = "archive/Users/dt=2026-11-22/hr=09/00000000000000000000000000000000.ndjson.zst";
    scene.s3.put_object().bucket(ARCHIVE).key(corrupt).body(b"mine".to_vec().into()).send().await.unwrap();
    let maintenance = with_a_later_replica(&scene);
    let order = json!({"task": "audit", "run_id": "cut"});
    let cut = interrupted(&maintenance, &order).await;
    let counts = "audit.corrupt 1, audit.found 2, audit.objects";
    assert!(cut.progress.to_string().starts_with(counts), "{}", cut.progress);
    assert_eq!(scene.report("cut").await.len(), 1);
    let objects = cut.progress.get("audit.objects");
    make_the_later_replica(&scene).await;
    let response = continued(&maintenance, &order, cut).await;
    assert_eq!(response.progress.to_string(), format!("{counts} {objects}"), "what is corrupt is reported once");
}

/// The failure bucket refuses a put of a report during an invocation: the entries are written by the invocation's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_refused_once_is_written_all_the_same() {
    let scene = MaintenanceScene::start().await;
    // Keys that fill more than one part of the report, so that a part is written before the end.
    let filling = "k".repeat(1_000);
    let users: Vec<String> = (0..4_300).map(|n| format!("{filling}{n:05}")).collect();
    for user in &users {
        scene.put(REPLICA, super::scene::user(user, "Stranger")).await;
    }
    let refused = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&refused);
    // Only the first put fails.
    let once = move |call: &ProxiedCall<'_>| {
        let report = call.method == "PUT" && call.path.contains("/reports/");
        when(report && seen.fetch_add(1, Ordering::Relaxed) < 1)
    };
    let mut maintenance = scene.maintenance();
    maintenance.failures = FailureBucket::new(buckets_behind(&scene, once).await, FAILURES.to_owned());
    let order = json!({"task": "verify", "run_id": "large", "recheck_after_seconds": 0});
    let response = to_its_end(&maintenance, order, Duration::from_mins(2)).await.unwrap();
    assert!(refused.load(Ordering::Relaxed) > 1);
    assert_eq!(response.progress.get("dynamodb.extra"), 4_300);
    assert_eq!(scene.report("large").await.len(), 4_300);
}
