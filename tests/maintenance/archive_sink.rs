//! Redrives of failures of the replicator while the archive is one of its sinks: the records that the archive may lack
//! become rows, and no others.

use serde_json::{Value, json};

use super::scene::{ARCHIVE, ArchiveMode, FORMER, MaintenanceScene, REPLICA, SOURCE, record, user};
use crate::archival::harness::{keys, rows};
use crate::replication::events::EventBuilder;

async fn archived(scene: &MaintenanceScene) -> Vec<String> {
    let keys = rows(&scene.s3).await.into_iter().map(|row| serde_json::from_str::<Value>(row.key.as_str()).unwrap());
    keys.map(|key| key["user_id"]["S"].as_str().unwrap().to_owned()).collect()
}

/// Puts a quarantined record into the failure bucket; returns the name of the object.
async fn quarantined(scene: &MaintenanceScene, stage: &str, reason: &str, record: &Value) -> String {
    let name = format!("quarantine/replicator/{stage}/Users/x-{}.json", scene.objects("").await.len());
    let body = json!({"format": 1, "reason": reason, "record": record});
    scene.put_object(&name, body.to_string()).await;
    name
}

fn expired(name: &str, number: u64) -> Value {
    record(EventBuilder::expired(name, number), FORMER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_failed_in_the_archive_alone_becomes_a_row_and_touches_no_replica() {
    let scene = MaintenanceScene::archiving(ArchiveMode::InReplicator).await;
    let object = quarantined(&scene, "archive", "once", &expired("ada", 5)).await;
    let dry = scene.task(json!({"task": "redrive"})).await;
    assert_eq!(dry.progress.to_string(), "redrive.objects 1, redrive.records 1, redrive.would_redrive 1");
    assert!(keys(&scene.s3, ARCHIVE).await.is_empty(), "a dry run writes nothing");
    let real = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(real.progress.to_string(), "redrive.objects 1, redrive.records 1, redrive.redriven 1, redrive.rows 1");
    assert_eq!(archived(&scene).await, ["ada"]);
    assert!(scene.items(REPLICA).await.is_empty(), "the replica has processed the record");
    assert_eq!(scene.objects("redriven/").await, [format!("redriven/{object}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_the_replicator_gave_up_is_reconciled_and_its_removals_are_archived() {
    for mode in ArchiveMode::BOTH {
        let scene = MaintenanceScene::archiving(mode).await;
        scene.put(SOURCE, user("bob", "Now")).await;
        scene.stack.wait_until_drained().await;
        scene.lose_replica().await;
        let created_again = record(EventBuilder::named("ada", 6, "Again"), FORMER);
        let records = vec![expired("ada", 5), created_again, record(EventBuilder::deleted("bob", 7), FORMER)];
        scene.give_up("replicator", records, true).await;
        let redriven = scene.task(json!({"task": "redrive", "dry_run": false})).await;
        assert_eq!((redriven.problems, redriven.progress.get("redrive.written")), (0, 2));
        scene.replica_is_source().await;
        let expected: &[&str] = if mode == ArchiveMode::InReplicator { &["ada"] } else { &[] };
        assert_eq!(archived(&scene).await, expected, "{mode:?}: with an archiver, the archive is its business");
        assert!(scene.objects("aws/").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_is_kept_only_if_it_may_be_a_removal_by_ttl() {
    let scene = MaintenanceScene::archiving(ArchiveMode::InReplicator).await;
    let (mut removal, mut write) = (expired("ada", 5), record(EventBuilder::named("bob", 6, "Bob"), FORMER));
    removal["eventName"] = json!("RENAME");
    write["eventName"] = json!("RENAME");
    let kept = quarantined(&scene, "read", "unknown eventName", &removal).await;
    quarantined(&scene, "read", "unknown eventName", &write).await;
    let order = json!({"task": "redrive", "run_id": "unreadable", "dry_run": false});
    let redriven = scene.task(order).await;
    assert_eq!((redriven.progress.get("redrive.redriven"), redriven.progress.get("redrive.skipped")), (1, 1));
    assert_eq!(scene.objects("quarantine/").await, [kept.as_str()]);
    let report = scene.report("unreadable").await;
    let entry = report.iter().find(|entry| entry["object"] == kept).unwrap();
    assert!(entry["reason"].as_str().unwrap().contains("unknown eventName \"RENAME\""), "{entry}");
    assert!(archived(&scene).await.is_empty());
    assert_eq!(scene.items(REPLICA).await.len(), 2, "the keys of both are reconciled: neither item exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_contradicts_an_archived_one_is_never_archived() {
    let scene = MaintenanceScene::archiving(ArchiveMode::InReplicator).await;
    scene.give_up("replicator", vec![expired("ada", 5)], false).await;
    scene.task(json!({"task": "redrive", "dry_run": false})).await;
    let mut other = expired("ada", 5);
    other["dynamodb"]["OldImage"]["name"]["S"] = json!("Somebody else");
    let reason = format!("{}: that one was archived", millrace_shared::stream::CONTRADICTION);
    let kept = quarantined(&scene, "archive", &reason, &other).await;
    quarantined(&scene, "read", &reason, &other).await;
    let redriven = scene.task(json!({"task": "redrive", "run_id": "contradicting", "dry_run": false})).await;
    assert_eq!((redriven.progress.get("redrive.redriven"), redriven.progress.get("redrive.skipped")), (1, 1));
    assert_eq!(scene.objects("quarantine/").await, [kept.as_str()]);
    assert!(
        scene
            .report("contradicting")
            .await
            .iter()
            .any(|entry| { entry["reason"].as_str().is_some_and(|reason| reason.contains("compare them manually")) })
    );
    let rows = rows(&scene.s3).await;
    assert!(rows.len() == 1 && rows[0].item.get().contains("Old"), "{rows:?}");
}
