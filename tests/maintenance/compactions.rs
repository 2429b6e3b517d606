//! Compactions: many small objects are merged into a few large ones, and no reader misses a row at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_archive::store::ArchiveStore;
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use serde_json::{Value, json};

use super::scene::{ARCHIVE, MaintenanceScene, invoke, to_its_end};
use crate::archival::harness::{self, expired, get, keys, payload};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};

/// A `compact` request for the day of the records that [`expired`] creates.
pub(super) fn order(run: &str) -> Value {
    json!({"task": "compact", "run_id": run, "from": "2026-11-22T00:00:00Z", "to": "2026-11-23T00:00:00Z"})
}

/// Archives batches of users by number, in the `hour`th hour after the first.
pub(super) async fn archived(scene: &MaintenanceScene, hour: i64, batches: &[(u32, u32)]) {
    let archiver = harness::archiver(&[], scene.s3.clone());
    for (first, end) in batches {
        let records = payload((*first..*end).map(|n| expired(n, hour * 3_600)));
        harness::handle(&archiver, &records, Duration::from_secs(30)).await.unwrap();
    }
}

pub(super) async fn below(scene: &MaintenanceScene, prefix: &str) -> Vec<String> {
    keys(&scene.s3, ARCHIVE).await.into_iter().filter(|key| key.starts_with(prefix)).collect()
}

/// The number of rows in all objects of both layouts according to their metadata, including duplicates.
async fn rows_told(scene: &MaintenanceScene) -> u64 {
    let mut rows = 0;
    for key in below(scene, "archive/").await.into_iter().chain(below(scene, "compacted/").await) {
        rows += get(&scene.s3, ARCHIVE, &key).await.1["rows"].parse::<u64>().unwrap();
    }
    rows
}

/// The number of times that a reader of both layouts finds each user.
async fn read(scene: &MaintenanceScene) -> BTreeMap<String, usize> {
    let mut users = BTreeMap::new();
    for row in harness::rows(&scene.s3).await {
        let item: Value = serde_json::from_str(row.item.get()).unwrap();
        *users.entry(item["user_id"]["S"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    users
}

pub(super) fn each_once(count: u32) -> BTreeMap<String, usize> {
    (0..count).map(|n| (format!("user-{n:03}"), 1)).collect()
}

async fn empty(scene: &MaintenanceScene) {
    for key in keys(&scene.s3, ARCHIVE).await {
        scene.s3.delete_object().bucket(ARCHIVE).key(key).send().await.unwrap();
    }
}

fn counts(response: &TaskResponse) -> String {
    response.progress.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_becomes_one_sorted_run_and_what_it_was_made_of_is_kept_with_a_manifest() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 40), (30, 60)]).await;
    archived(&scene, 3, &[(60, 100)]).await;
    let before = below(&scene, "archive/").await;
    let response = scene.task(order("first")).await;
    let expected =
        "compact.duplicates_dropped 10, compact.objects 3, compact.rows 100, compact.superseded 3, compact.written 1";
    assert_eq!(counts(&response), expected);
    assert!(below(&scene, "archive/").await.is_empty());
    let [object] = &below(&scene, "compacted/").await[..] else { panic!("one object") };
    assert!(object.starts_with("compacted/Users/dt=2026-11-22/"), "{object}");
    let (bytes, metadata) = get(&scene.s3, ARCHIVE, object).await;
    assert_eq!((metadata["format"].as_str(), metadata["rows"].as_str()), ("1", "100"));
    assert_eq!(
        (metadata["first"].as_str(), metadata["last"].as_str()),
        ("2026-11-22T09:30:00Z", "2026-11-22T12:30:00Z")
    );
    assert_eq!(metadata["sha256"], harness::sha256_hex(&bytes));
    assert_eq!(read(&scene).await, each_once(100));

    let kept: Vec<String> = before.iter().map(|key| format!("superseded/{key}")).collect();
    assert_eq!(below(&scene, "superseded/archive/").await, kept);
    let [manifest] = &below(&scene, "superseded/manifests/Users/dt=2026-11-22/").await[..] else { panic!("one") };
    let manifest: Value = serde_json::from_slice(&get(&scene.s3, ARCHIVE, manifest).await.0).unwrap();
    assert_eq!((&manifest["rows"], &manifest["outputs"][0]["key"]), (&json!(100), &json!(object)));
    assert_eq!(manifest["inputs"].as_array().unwrap().len(), 3);

    let again = scene.task(order("again")).await;
    assert_eq!(counts(&again), "", "there is nothing left to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_merged_by_the_next_run_and_repeats_are_superseded() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 40), (40, 60)]).await;
    scene.task(order("first")).await;
    archived(&scene, 0, &[(60, 70), (0, 40)]).await;
    assert_eq!(read(&scene).await, each_once(70), "a reader takes both layouts for one");
    let response = scene.task(order("late")).await;
    assert_eq!((response.progress.get("compact.rows"), response.progress.get("compact.duplicates_dropped")), (70, 0));
    assert_eq!((read(&scene).await, rows_told(&scene).await), (each_once(70), 70));
    assert!(below(&scene, "archive/").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_are_read_at_a_time_take_rounds_and_end_as_one_run_of_parts_of_the_target_size() {
    let scene = MaintenanceScene::start().await;
    let batches: Vec<_> = (0..70).map(|n| (n * 5, n * 5 + 6)).collect();
    archived(&scene, 0, &batches).await;
    let mut order = order("rounds");
    order["target_file_size_bytes"] = json!(40_000);
    let response = scene.task(order).await;
    assert_eq!(response.progress.get("compact.skipped"), 0);
    let objects = below(&scene, "compacted/").await;
    let runs: std::collections::BTreeSet<&str> = objects.iter().map(|key| key.split('-').nth(2).unwrap()).collect();
    assert!(objects.len() > 2 && runs.len() == 1, "{objects:?}");
    let mut last = String::new();
    for object in &objects {
        let (bytes, metadata) = get(&scene.s3, ARCHIVE, object).await;
        for row in harness::open(object, &metadata, bytes) {
            let key = row.unwrap().key.to_string();
            assert!(last < key, "the parts are sorted as one");
            last = key;
        }
    }
    assert_eq!((read(&scene).await, rows_told(&scene).await), (each_once(351), 351));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_is_merged_by_itself_and_the_day_later() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20)]).await;
    archived(&scene, 1, &[(20, 30), (30, 40)]).await;
    let mut hourly = order("hour");
    hourly["granularity"] = json!("hour");
    hourly["to"] = json!("2026-11-22T10:00:00Z");
    assert_eq!(scene.task(hourly).await.progress.get("compact.rows"), 20);
    assert_eq!((below(&scene, "archive/").await.len(), below(&scene, "compacted/").await.len()), (2, 1));
    assert_eq!(scene.task(order("day")).await.progress.get("compact.rows"), 40);
    assert_eq!((below(&scene, "archive/").await.len(), below(&scene, "compacted/").await.len()), (0, 1));
    assert_eq!(read(&scene).await, each_once(40));
}

/// The maintenance function whose requests to the archive meet the faults of `plan`.
async fn behind(
    scene: &MaintenanceScene,
    plan: impl Fn(&ProxiedCall<'_>) -> HttpFault + Send + Sync + 'static,
) -> MaintenanceHandler {
    let url = proxy::before(scene.stack.s3_url(), plan).await;
    let mut maintenance = scene.maintenance();
    maintenance.archive = Some(ArchiveStore::new(harness::client(&url), ARCHIVE.to_owned()));
    maintenance
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_loses_no_row_and_the_next_run_ends_it() {
    let scene = MaintenanceScene::start().await;
    let mut order = order("crash");
    order["target_file_size_bytes"] = json!(20_000);
    let mut steps = 0;
    for last in [HttpFault::Error(503, "SlowDown"), HttpFault::ResponseLost] {
        for crash in 0.. {
            empty(&scene).await;
            archived(&scene, 0, &[(0, 20), (15, 40)]).await;
            archived(&scene, 2, &[(40, 60)]).await;
            let written = Arc::new(AtomicUsize::new(0));
            // The `crash`th write ends with this fault, and every request after it fails.
            let maintenance = behind(&scene, move |call| {
                let nth = if matches!(call.method, "PUT" | "DELETE") {
                    written.fetch_add(1, Ordering::Relaxed)
                } else {
                    written.load(Ordering::Relaxed).saturating_sub(1)
                };
                match nth.cmp(&crash) {
                    std::cmp::Ordering::Less => HttpFault::None,
                    std::cmp::Ordering::Equal if matches!(call.method, "PUT" | "DELETE") => last,
                    _ if written.load(Ordering::Relaxed) > crash => HttpFault::Error(503, "SlowDown"),
                    _ => HttpFault::None,
                }
            })
            .await;
            let ended = to_its_end(&maintenance, order.clone(), Duration::from_mins(1)).await;
            assert_eq!(read(&scene).await, each_once(60), "crash {crash}: a reader misses nothing");
            if ended.is_ok() {
                break;
            }
            steps += 1;
            scene.task(order.clone()).await;
            assert_eq!((read(&scene).await, rows_told(&scene).await), (each_once(60), 60), "crash {crash}");
            assert!(below(&scene, "archive/").await.is_empty(), "crash {crash}");
        }
    }
    assert!(steps >= 18, "objects, a manifest, and a copy and a removal of each input: {steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_objects_are_kept_and_reported_and_the_rest_is_merged() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]).await;
    let objects = below(&scene, "archive/").await;
    let put = async |key: &str, bytes: Vec<u8>, metadata: std::collections::HashMap<String, String>| {
        let put = scene.s3.put_object().bucket(ARCHIVE).key(key).set_metadata(Some(metadata));
        put.body(bytes.into()).send().await.unwrap();
    };
    // A truncated object, one with a wrong digest, and one whose compression does not match its name.
    let (bytes, metadata) = get(&scene.s3, ARCHIVE, &objects[0]).await;
    put(&objects[0], bytes[..bytes.len() / 2].to_vec(), metadata).await;
    let (bytes, mut metadata) = get(&scene.s3, ARCHIVE, &objects[1]).await;
    metadata.insert("sha256".to_owned(), "00".repeat(32));
    put(&objects[1], bytes, metadata).await;
    let (bytes, metadata) = get(&scene.s3, ARCHIVE, &objects[2]).await;
    scene.s3.delete_object().bucket(ARCHIVE).key(&objects[2]).send().await.unwrap();
    // And an empty object.
    let (_, of_nothing) = get(&scene.s3, ARCHIVE, &objects[3]).await;
    put(&objects[3], Vec::new(), of_nothing).await;
    let mixed = objects[2].replace(".zst", ".gz");
    put(&mixed, bytes, metadata).await;
    for foreign in ["archive/notes.txt", "archive/Users/dt=2026-11-22/hr=09/mine.csv", "archive/Users/dt=soon/x.zst"] {
        put(foreign, b"mine".to_vec(), std::collections::HashMap::new()).await;
    }
    let response = scene.task(order("bad")).await;
    assert_eq!((response.progress.get("compact.skipped"), response.progress.get("compact.rows")), (7, 10));
    assert_eq!(response.problems, 7);
    let report = scene.report("bad").await;
    let why = |object: &str| {
        let line =
            report.iter().find(|line| line["object"] == object).unwrap_or_else(|| panic!("{object}: {report:?}"));
        line["reason"].as_str().unwrap().to_owned()
    };
    assert!(why(&objects[0]).contains("is truncated"));
    assert!(why(&objects[1]).contains("SHA-256"));
    assert!(why(&objects[3]).contains("is truncated"));
    assert!(why(&mixed).contains("cannot be decompressed"));
    for foreign in ["archive/notes.txt", "archive/Users/dt=2026-11-22/hr=09/mine.csv", "archive/Users/dt=soon/"] {
        assert!(why(foreign).contains("not written by the archiver or a compaction"));
    }
    let left = below(&scene, "archive/").await;
    assert_eq!(left.len(), 7, "what is not merged stays: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_its_key_is_named_by_object_and_row_and_kept() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20)]).await;
    let object = &below(&scene, "archive/").await[0];
    let (bytes, mut metadata) = get(&scene.s3, ARCHIVE, object).await;
    let content = zstd::decode_all(bytes.as_slice()).unwrap();
    let content = String::from_utf8(content).unwrap().replacen("\"user_id\"", "\"nobody\"", 3);
    let bytes = zstd::encode_all(content.as_bytes(), 3).unwrap();
    metadata.insert("sha256".to_owned(), harness::sha256_hex(&bytes));
    let put = scene.s3.put_object().bucket(ARCHIVE).key(object).set_metadata(Some(metadata));
    put.body(bytes.into()).send().await.unwrap();
    let response = scene.task(order("keyless")).await;
    assert_eq!((response.progress.get("compact.skipped"), response.progress.get("compact.rows")), (1, 10));
    let report = scene.report("keyless").await;
    let why = report.iter().find(|line| line["object"] == object.as_str()).unwrap()["reason"].as_str().unwrap();
    assert!(why.contains("row 1: Item has no key: user_id"), "{why}");
    assert_eq!(below(&scene, "archive/").await, std::slice::from_ref(object));
}

/// The users that a reader finds while objects are being moved: if an object has disappeared, the reader starts again.
async fn read_meanwhile(scene: &MaintenanceScene) -> std::collections::BTreeSet<String> {
    'anew: loop {
        let mut users = std::collections::BTreeSet::new();
        for key in below(scene, "archive/").await.into_iter().chain(below(scene, "compacted/").await) {
            let Ok(object) = scene.s3.get_object().bucket(ARCHIVE).key(&key).send().await else { continue 'anew };
            let metadata = object.metadata().cloned().unwrap();
            let Ok(bytes) = object.body.collect().await else { continue 'anew };
            for row in harness::open(&key, &metadata, bytes.to_vec()) {
                let item: Value = serde_json::from_str(row.unwrap().item.get()).unwrap();
                users.insert(item["user_id"]["S"].as_str().unwrap().to_owned());
            }
        }
        return users;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn during_writes_of_the_archiver_every_row_is_read_once_at_any_time() {
    const BATCHES: u32 = 60;
    let scene = MaintenanceScene::start().await;
    let acknowledged = AtomicUsize::new(0);
    let archiving = async {
        for batch in 0..BATCHES {
            // Every fifth batch is delivered once more, in different slices.
            let first = if batch % 5 == 4 { batch * 10 - 5 } else { batch * 10 };
            archived(&scene, i64::from(batch % 3), &[(first, batch * 10 + 10)]).await;
            acknowledged.store(batch as usize * 10 + 10, Ordering::Release);
        }
    };
    let compacting = async {
        let (mut runs, mut written) = (0, 0);
        while acknowledged.load(Ordering::Acquire) < BATCHES as usize * 10 {
            written += scene.task(order(&format!("run-{runs}"))).await.progress.get("compact.written");
            runs += 1;
        }
        written
    };
    let reading = async {
        let mut reads = 0;
        loop {
            let safe = acknowledged.load(Ordering::Acquire);
            let there = read_meanwhile(&scene).await;
            let missed: Vec<_> = (0..safe).map(|n| format!("user-{n:03}")).filter(|n| !there.contains(n)).collect();
            assert!(missed.is_empty(), "{missed:?} of {safe}");
            reads += 1;
            if safe == BATCHES as usize * 10 {
                return reads;
            }
        }
    };
    let ((), merged, reads) = Box::pin(async { tokio::join!(archiving, compacting, reading) }).await;
    assert!(merged > 2 && reads > 2, "{merged} merges, {reads} reads");
    scene.task(order("last")).await;
    assert_eq!((read(&scene).await, rows_told(&scene).await), (each_once(BATCHES * 10), u64::from(BATCHES) * 10));
    assert!(below(&scene, "archive/").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_goes_on_where_its_last_invocation_stopped() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10), (10, 20)]).await;
    archived(&scene, 24, &[(20, 30)]).await;
    archived(&scene, 48, &[(30, 40)]).await;
    let order = json!({"task": "compact", "to": "2026-12-01T00:00:00Z"});
    let hurried = invoke(&scene.maintenance(), &order, Duration::ZERO).await.unwrap();
    assert!(!hurried.done && below(&scene, "compacted/").await.is_empty());
    let response = to_its_end(&scene.maintenance(), order, Duration::from_mins(1)).await.unwrap();
    assert_eq!((response.progress.get("compact.rows"), below(&scene, "compacted/").await.len()), (40, 3));
}
