//! Three incidents outside of the guarantees, and the recovery from each.

use serde_json::json;

use super::scene::{MaintenanceScene, REPLICA, SOURCE, record as record_of, revision, text, user};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_replica_is_rebuilt_while_the_table_is_written_to() {
    let scene = MaintenanceScene::start().await;
    scene.fill(300, 100).await;
    scene.stack.wait_until_drained().await;
    scene.lose_replica().await;
    let backfill = scene.task(json!({"task": "backfill", "run_id": "rebuild"}));
    let life = async {
        for n in (0..300).step_by(7) {
            scene.put(SOURCE, user(&format!("u{n:05}"), "Renamed")).await;
            scene.delete(SOURCE, &format!("u{:05}", n + 1)).await;
        }
    };
    tokio::join!(backfill, life);
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    let response = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let differences = [".missing", ".different", ".extra", ".resurrected"].map(|kind| response.progress.sum(kind));
    assert_eq!((differences, response.progress.get("dynamodb.equal")), ([0; 4], 300 - 43));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_record_is_redriven_once_its_cause_is_gone() {
    let scene = MaintenanceScene::start().await;
    let mut poison = user("mallory", "Mallory");
    poison.insert("_rev".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.stack.wait_until_drained().await;
    assert_eq!(scene.objects("quarantine/").await.len(), 1);

    let too_early = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!((too_early.progress.get("redrive.skipped"), scene.objects("quarantine/").await.len()), (1, 1));

    scene.put(SOURCE, user("mallory", "Mallory")).await;
    scene.stack.wait_until_drained().await;
    let in_time = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(in_time.progress.get("redrive.redriven"), 1);
    assert!(scene.objects("quarantine/").await.is_empty());
    assert_eq!(scene.objects("redriven/quarantine/").await.len(), 1);
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_weeks_late_brings_no_deleted_item_back() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("edsger", "Edsger")).await;
    scene.stack.wait_until_drained().await;
    let of_the_life = revision(&scene.item(REPLICA, "edsger").await.unwrap());
    scene.delete(SOURCE, "edsger").await;
    scene.stack.wait_until_drained().await;
    // Weeks later the tombstone has expired too, and only an object in the failure bucket still contains edsger.
    scene.delete(REPLICA, "edsger").await;
    let counts = crate::replication::events::EventBuilder::named("edsger", 1, "Edsger");
    let mut record = record_of(counts, &of_the_life.label().to_string());
    record["dynamodb"]["SequenceNumber"] = json!(of_the_life.sequence().to_string());
    scene.give_up("replicator", vec![record.clone()], false).await;

    scene.task(json!({"task": "redrive", "dry_run": false})).await;
    let tombstone = scene.item(REPLICA, "edsger").await.unwrap();
    assert!(tombstone.contains_key("_tombstone_expires_at") && !tombstone.contains_key("name"));
    assert!(revision(&tombstone) > of_the_life, "every delivery of that life is stale from now on");
    assert!(scene.objects("aws/").await.is_empty());
    scene.replica_is_source().await;
}
