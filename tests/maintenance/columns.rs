//! Parquet exports: compacted rows are also written to Parquet files, each row once and typed, and no reader ever sees
//! fewer rows than before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{RecordBatch, cast::AsArray as _};
use bytes::Bytes;
use millrace_archive::store::ArchiveStore;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use super::compactions::{archived, below, each_once, order as compaction};
use super::scene::{ARCHIVE, MaintenanceScene, invoke, to_its_end};
use crate::archival::harness::{self, get};
use crate::faults::proxy::{self, HttpFault};

const DAY: &str = "parquet/Users/dt=2026-11-22/";

fn order(run: &str) -> serde_json::Value {
    json!({"task": "export-parquet", "run_id": run, "to": "2999-01-01T00:00:00Z"})
}

async fn sheets(scene: &MaintenanceScene) -> Vec<RecordBatch> {
    let mut sheets = Vec::new();
    for key in below(scene, "parquet/").await.into_iter().filter(|key| key.ends_with(".parquet")) {
        let (bytes, metadata) = get(&scene.s3, ARCHIVE, &key).await;
        assert_eq!(metadata["sha256"], harness::sha256_hex(&bytes));
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap().build().unwrap();
        sheets.extend(reader.map(Result::unwrap));
    }
    sheets
}

/// The number of times that the files contain each user.
async fn read(scene: &MaintenanceScene) -> BTreeMap<String, usize> {
    let mut users = BTreeMap::new();
    for sheet in sheets(scene).await {
        for user in sheet.column_by_name("user_id").unwrap().as_string::<i32>() {
            *users.entry(user.unwrap().to_owned()).or_default() += 1;
        }
    }
    users
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_day_becomes_files_of_typed_columns_that_hold_the_same_rows() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 40), (30, 60)]).await;
    scene.task(compaction("merged")).await;
    archived(&scene, 3, &[(60, 70)]).await;
    let mut small = order("first");
    small["target_file_size_bytes"] = json!(2_000);
    let response = scene.task(small).await;
    assert_eq!(
        (response.progress.get("export-parquet.rows"), response.progress.get("export-parquet.not_compacted")),
        (60, 1),
        "what is not compacted yet is counted"
    );
    let files = below(&scene, DAY).await;
    assert_eq!(
        (files.len() as u64, files.len() > 2),
        (response.progress.get("export-parquet.written"), true),
        "{files:?}"
    );
    assert_eq!(read(&scene).await, each_once(60));

    let mut columns = BTreeMap::new();
    for sheet in sheets(&scene).await {
        let text = |name: &str| sheet.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (keys, revisions, items) = (text("key"), text("revision"), text("item"));
        let times = sheet.column_by_name("removed_at").unwrap().as_primitive::<TimestampMicrosecondType>();
        let integers = |name: &str| sheet.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        let seconds = integers("timestamp");
        assert_eq!((text("partition_key"), integers("sort_key_integer")), (text("user_id"), seconds.clone()));
        for row in 0..sheet.num_rows() {
            let value = (items.value(row).to_owned(), times.value(row), seconds.value(row));
            columns.insert((keys.value(row).to_owned(), revisions.value(row).to_owned()), value);
        }
    }
    for row in harness::rows(&scene.s3).await.into_iter().filter(|row| !row.key.as_str().contains("user-06")) {
        let (item, time, second) = &columns[&(row.key.to_string(), row.revision.to_string())];
        assert_eq!(item, row.item.get(), "to the byte");
        assert_eq!(i128::from(*time) * 1_000, row.removed_at.unix_timestamp_nanos());
        assert!(row.key.as_str().contains(&format!("\"{second}\"")), "{} {second}", row.key);
    }

    let again = scene
        .task(json!({"task": "export-parquet", "to": "2999-01-01T00:00:00Z", "target_file_size_bytes": 2_000}))
        .await;
    assert_eq!(again.progress.to_string(), "export-parquet.not_compacted 1", "what is there is not written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn day_is_rewritten_after_a_compaction_and_old_files_are_removed() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10)]).await;
    scene.task(compaction("first")).await;
    scene.task(order("first")).await;
    let before = below(&scene, DAY).await;
    archived(&scene, 1, &[(10, 20)]).await;
    scene.task(compaction("late")).await;
    let response = scene.task(order("late")).await;
    assert_eq!(
        response.progress.to_string(),
        "export-parquet.removed 1, export-parquet.rows 20, export-parquet.written 1"
    );
    let after = below(&scene, DAY).await;
    assert!(after.len() == 1 && after != before, "{after:?}");
    assert_eq!(read(&scene).await, each_once(20));
    let report = scene.report("late").await;
    let [_compaction, export] = &report[..] else { panic!("an entry of each task: {report:?}") };
    assert_eq!((&export["outputs"][0], &export["rows"]), (&json!(after[0]), &json!(20)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_leaves_a_day_as_it_was_or_as_it_is_and_the_next_run_ends_it() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 20)]).await;
    scene.task(compaction("first")).await;
    let mut order = order("crash");
    order["target_file_size_bytes"] = json!(2_000);
    scene.task(order.clone()).await;
    let former = below(&scene, DAY).await;
    let kept = {
        let mut kept = Vec::new();
        for key in &former {
            kept.push((key, get(&scene.s3, ARCHIVE, key).await));
        }
        kept
    };
    archived(&scene, 1, &[(20, 30)]).await;
    scene.task(compaction("late")).await;
    let mut steps = 0;
    for last in [HttpFault::Error(503, "SlowDown"), HttpFault::ResponseLost] {
        for crash in 0.. {
            for key in below(&scene, "parquet/").await {
                scene.s3.delete_object().bucket(ARCHIVE).key(key).send().await.unwrap();
            }
            for (key, (bytes, metadata)) in &kept {
                let put = scene.s3.put_object().bucket(ARCHIVE).key(*key).set_metadata(Some(metadata.clone()));
                put.body(bytes.clone().into()).send().await.unwrap();
            }
            let writes = Arc::new(AtomicUsize::new(0));
            let url = proxy::before(scene.stack.s3_url(), move |call| {
                if !matches!(call.method, "PUT" | "DELETE") || call.path.contains("/reports/") {
                    return HttpFault::None;
                }
                match writes.fetch_add(1, Ordering::Relaxed).cmp(&crash) {
                    std::cmp::Ordering::Less => HttpFault::None,
                    std::cmp::Ordering::Equal => last,
                    std::cmp::Ordering::Greater => HttpFault::Error(503, "SlowDown"),
                }
            })
            .await;
            let mut maintenance = scene.maintenance();
            maintenance.archive = Some(ArchiveStore::new(harness::client(&url), ARCHIVE.to_owned()));
            let ended = to_its_end(&maintenance, order.clone(), Duration::from_mins(1)).await;
            let there = read(&scene).await;
            assert!(each_once(20).keys().all(|user| there.contains_key(user)), "crash {crash}: nothing is missing");
            if ended.is_ok() {
                break;
            }
            steps += 1;
            scene.task(order.clone()).await;
            assert_eq!(read(&scene).await, each_once(30), "crash {crash}");
        }
    }
    assert!(steps >= 12, "files written, and files that go: {steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_and_unrecognized_objects_are_reported_and_the_day_is_kept() {
    let scene = MaintenanceScene::start().await;
    archived(&scene, 0, &[(0, 10)]).await;
    scene.task(compaction("first")).await;
    scene.task(order("first")).await;
    let [compacted] = &below(&scene, "compacted/").await[..] else { panic!("one object") };
    let (bytes, metadata) = get(&scene.s3, ARCHIVE, compacted).await;
    let corrupt = compacted.replace("-00000", "-00001");
    for (key, body) in [(corrupt.clone(), bytes[..bytes.len() / 2].to_vec()), (format!("{DAY}mine.csv"), vec![1])] {
        let put = scene.s3.put_object().bucket(ARCHIVE).key(key).set_metadata(Some(metadata.clone()));
        put.body(body.into()).send().await.unwrap();
    }
    let response = scene.task(order("bad")).await;
    assert_eq!(response.progress.to_string(), "export-parquet.corrupt 1, export-parquet.unrecognized 1");
    assert_eq!((response.differences, response.problems), (0, 2));
    let report = scene.report("bad").await;
    assert_eq!(
        (&report[0]["object"], &report[0]["outcome"]),
        (&json!(format!("{DAY}mine.csv")), &json!("unrecognized"))
    );
    assert_eq!((&report[1]["object"], &report[1]["outcome"]), (&json!(corrupt), &json!("corrupt")));
    assert_eq!(read(&scene).await, each_once(10), "the day is unchanged");

    scene.s3.delete_object().bucket(ARCHIVE).key(&corrupt).send().await.unwrap();
    for run in 0..40 {
        let key = format!("compacted/Users/dt=2026-11-22/{run:032x}-00000.ndjson.zst");
        let put = scene.s3.put_object().bucket(ARCHIVE).key(key).set_metadata(Some(metadata.clone()));
        put.body(bytes.clone().into()).send().await.unwrap();
    }
    let response = scene.task(order("many")).await;
    assert_eq!((response.progress.get("export-parquet.failed"), response.problems), (1, 1));
    assert!(scene.report("many").await[0]["reason"].as_str().unwrap().contains("compact the whole day first"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writing_of_columns_goes_on_where_its_last_invocation_stopped() {
    let scene = MaintenanceScene::start().await;
    for day in 0..3 {
        archived(&scene, day * 24, &[(0, 5)]).await;
    }
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    let hurried = invoke(&scene.maintenance(), &order("days"), Duration::ZERO).await.unwrap();
    assert!(!hurried.done && below(&scene, "parquet/").await.is_empty());
    let response = to_its_end(&scene.maintenance(), order("days"), Duration::from_mins(1)).await.unwrap();
    assert_eq!((response.progress.get("export-parquet.rows"), below(&scene, "parquet/").await.len()), (15, 3));
    let half = json!({"task": "export-parquet", "to": "2026-11-22T12:00:00Z", "target_file_size_bytes": 1_024});
    assert_eq!(scene.task(half).await.progress.get("export-parquet.rows"), 5, "a period is whole days");
}
