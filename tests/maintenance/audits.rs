//! Audits: the archive is verified against the tombstones of the replica.

use serde_json::json;

use super::restores::expired;
use super::scene::{ARCHIVE, MaintenanceScene};
use crate::archival::harness::keys;

#[tokio::test(flavor = "multi_thread")]
async fn every_removal_that_the_replica_remembers_has_its_row_in_either_layout() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob"], "Then").await;
    expired(&scene, &["cleo"], "Then").await;
    let response = scene.task(json!({"task": "audit"})).await;
    assert_eq!(response.progress.to_string(), "audit.found 3, audit.objects 2");
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    let response = scene.task(json!({"task": "audit", "run_id": "merged"})).await;
    assert_eq!(response.progress.to_string(), "audit.found 3, audit.objects 1");
    assert!(scene.report("merged").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_duplicated_rows_and_corrupt_objects_are_reported() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"], "Then").await;
    let [lost] = &keys(&scene.s3, ARCHIVE).await[..] else { panic!("one object") };
    expired(&scene, &["bob"], "Then").await;
    let doubled = keys(&scene.s3, ARCHIVE).await.into_iter().find(|key| key != lost).unwrap();
    // A copy in the other layout, as during a compaction.
    let (day, _) = doubled.strip_prefix("archive/").unwrap().split_once("/hr=").unwrap();
    let copy = format!("compacted/{day}/{:032x}-00000.ndjson.zst", 7);
    let source = format!("{ARCHIVE}/{}", doubled.replace('=', "%3D"));
    scene.s3.copy_object().bucket(ARCHIVE).key(&copy).copy_source(source).send().await.unwrap();
    scene.s3.delete_object().bucket(ARCHIVE).key(lost).send().await.unwrap();
    let corrupt = format!("archive/{day}/hr=00/{:032x}.ndjson.zst", 8);
    scene.s3.put_object().bucket(ARCHIVE).key(&corrupt).body(b"mine".to_vec().into()).send().await.unwrap();

    let response = scene.task(json!({"task": "audit", "run_id": "bad"})).await;
    let expected = "audit.corrupt 1, audit.duplicated 1, audit.missing 1, audit.objects 3";
    assert_eq!(response.progress.to_string(), expected);
    assert_eq!((response.differences, response.problems), (1, 2), "a duplicated row is no problem");
    let report = scene.report("bad").await;
    let of = |kind: &str| report.iter().find(|line| line["kind"] == kind).unwrap()["key"]["user_id"]["S"].clone();
    assert_eq!((of("missing"), of("duplicated")), (json!("ada"), json!("bob")));
    assert!(report.iter().any(|line| line["object"] == corrupt.as_str() && line["outcome"] == "corrupt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_keys_is_proven_by_any_row_of_each() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada"], "First").await;
    expired(&scene, &["ada"], "Second").await;
    let key = |user: &str| json!({"user_id": {"S": user}, "timestamp": {"N": "1"}});
    let order = json!({"task": "audit", "run_id": "list", "keys": [key("ada"), key("nobody")]});
    let response = scene.task(order).await;
    assert_eq!(response.progress.to_string(), "audit.found 1, audit.missing 1, audit.objects 2");
    assert_eq!(scene.report("list").await[0]["key"], key("nobody"));
}
