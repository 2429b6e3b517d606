//! The guarantees of the maintenance tasks.

use serde_json::json;

use crate::maintenance::scene::{FORMER, MaintenanceScene, revision, text};
use crate::replication::events::EventBuilder;

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_12_a_redrive_resolves_a_failure() {
    for scene in MaintenanceScene::of_each_shape().await {
        let mut poison = scene.user("mallory", "Mallory");
        poison.insert("_rev".to_owned(), text("mine"));
        scene.put(scene.source(), poison).await;
        scene.stack.wait_until_drained().await;
        scene.put(scene.source(), scene.user("mallory", "Well")).await;
        scene.stack.wait_until_drained().await;
        scene.give_up("replicator", vec![scene.record(EventBuilder::named("nobody", 1, "Then"), FORMER)], true).await;
        let response = scene.task(json!({"task": "redrive", "dry_run": false})).await;
        assert_eq!((response.progress.get("redrive.redriven"), response.progress.get("redrive.skipped")), (2, 0));
        scene.replica_is_source().await;
        let before = scene.items(&scene.replica).await.len();
        let again = scene.task(json!({"task": "redrive", "dry_run": false})).await;
        assert_eq!((again.progress.get("redrive.objects"), scene.items(&scene.replica).await.len()), (0, before));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_13_a_failure_object_is_removed_only_after_its_effect() {
    for scene in MaintenanceScene::of_each_shape().await {
        scene.put(scene.source(), scene.user("ada", "Ada")).await;
        scene.stack.wait_until_drained().await;
        let whole =
            scene.give_up("replicator", vec![scene.record(EventBuilder::named("ada", 1, "Then"), FORMER)], false).await;
        let records = vec![scene.record(EventBuilder::named("ada", 2, "Then"), FORMER), json!({"eventName": "INSERT"})];
        let half = scene.give_up("replicator", records, false).await;
        let body = scene.object(&whole).await;
        let response = scene.task(json!({"task": "redrive", "run_id": "once", "dry_run": false})).await;
        assert_eq!((response.progress.get("redrive.redriven"), response.progress.get("redrive.skipped")), (1, 1));
        assert_eq!(scene.objects("aws/").await, [half.as_str()], "a record in it is not done");
        assert_eq!(scene.object(&format!("redriven/{whole}")).await, body, "what was done is kept, to the byte");
        let kept = scene.report("once").await.into_iter().find(|line| line["object"] == half.as_str()).unwrap();
        assert!(kept["reason"].as_str().unwrap().contains("record 2"), "{kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_14_a_backfill_undoes_nothing() {
    for scene in MaintenanceScene::of_each_shape().await {
        for name in ["kept", "lost"] {
            scene.put(scene.source(), scene.user(name, "Created")).await;
        }
        scene.stack.wait_until_drained().await;
        // The replica is ahead of the source: a backfill never changes an existing replica item.
        let mut ahead = scene.item(&scene.replica, "kept").await.unwrap();
        ahead.insert("name".to_owned(), text("Ahead"));
        scene.put(&scene.replica, ahead.clone()).await;
        scene.delete(&scene.replica, "lost").await;
        let response = scene.task(json!({"task": "backfill"})).await;
        assert_eq!((response.progress.get("dynamodb.written"), response.progress.get("dynamodb.skipped")), (1, 1));
        assert_eq!(scene.item(&scene.replica, "kept").await, Some(ahead));
        scene.delete(scene.source(), "lost").await;
        scene.stack.wait_until_drained().await;
        assert!(
            scene.item(&scene.replica, "lost").await.unwrap().contains_key("_tombstone_expires_at"),
            "the stream's next change wins"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_15_verify_finds_what_is_really_different() {
    for scene in MaintenanceScene::of_each_shape().await {
        scene.fill(200, 10).await;
        scene.stack.wait_until_drained().await;
        let clean = scene.task(json!({"task": "verify", "run_id": "clean", "recheck_after_seconds": 0})).await;
        assert_eq!(clean.progress.to_string(), "dynamodb.equal 200, dynamodb.items 200, source.items 200");
        scene.delete(&scene.replica, "u00017").await;
        let found = scene.task(json!({"task": "verify", "run_id": "found", "recheck_after_seconds": 0})).await;
        assert_eq!((found.progress.get("dynamodb.missing"), found.progress.get("dynamodb.equal")), (1, 199));
        let report = scene.report("found").await;
        assert_eq!((report.len(), scene.is_key(&report[0]["key"], "u00017")), (1, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_16_repair_removes_every_persistent_difference() {
    for scene in MaintenanceScene::of_each_shape().await {
        scene.fill(20, 10).await;
        scene.stack.wait_until_drained().await;
        scene.delete(&scene.replica, "u00003").await;
        let mut wrong = scene.item(&scene.replica, "u00004").await.unwrap();
        let before = revision(&wrong);
        wrong.insert("name".to_owned(), text("Wrong"));
        scene.put(&scene.replica, wrong).await;
        let response = scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
        assert_eq!((response.progress.get("dynamodb.repaired"), response.progress.get("dynamodb.failed")), (2, 0));
        scene.replica_is_source().await;
        assert!(revision(&scene.item(&scene.replica, "u00004").await.unwrap()) > before, "a late delivery is stale");
        scene.put(scene.source(), scene.user("u00004", "Renamed")).await;
        scene.stack.wait_until_drained().await;
        scene.replica_is_source().await;
    }
}
