//! Repairs: real differences are repaired by the reconciliation rules.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use super::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, record as record_of, revision, text, user};
use crate::replication::events::EventBuilder;

/// A scene in which ada is missing, bob is different, cleo is resurrected, and dan's item was written by another
/// program.
async fn seed_differences() -> MaintenanceScene {
    let scene = MaintenanceScene::start().await;
    for name in ["ada", "bob", "cleo"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.stack.wait_until_drained().await;
    let ghost = scene.item(REPLICA, "cleo").await.unwrap();
    scene.delete(SOURCE, "cleo").await;
    scene.stack.wait_until_drained().await;
    scene.put(REPLICA, ghost).await;
    scene.delete(REPLICA, "ada").await;
    let mut bob = scene.item(REPLICA, "bob").await.unwrap();
    bob.insert("name".to_owned(), text("Wrong"));
    scene.put(REPLICA, bob).await;
    scene.put(REPLICA, user("dan", "Stranger")).await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_first_shows_what_it_would_do() {
    let scene = seed_differences().await;
    let before = scene.items(REPLICA).await.len();
    let response = scene.task(json!({"task": "repair", "run_id": "dry", "recheck_after_seconds": 0})).await;
    assert_eq!((response.progress.sum(".repaired"), response.progress.sum(".missing")), (0, 1));
    assert_eq!((response.progress.get("dynamodb.would_repair"), response.problems), (4, 0));
    let report = scene.report("dry").await;
    assert_eq!(report.len(), 4);
    assert!(report.iter().all(|line| line["outcome"] == "would_repair"), "{report:?}");
    assert_eq!(scene.items(REPLICA).await.len(), before);
    assert_eq!(scene.name("bob").await.as_deref(), Some("Wrong"));
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_fixes_all_differences_and_a_second_one_finds_none() {
    let scene = seed_differences().await;
    let response =
        scene.task(json!({"task": "repair", "run_id": "real", "dry_run": false, "recheck_after_seconds": 0})).await;
    assert_eq!((response.progress.get("dynamodb.repaired"), response.progress.get("dynamodb.failed")), (4, 0));
    assert_eq!((response.differences, response.problems), (0, 0));
    scene.replica_is_source().await;
    for gone in ["cleo", "dan"] {
        assert!(
            scene.item(REPLICA, gone).await.unwrap().contains_key("_tombstone_expires_at"),
            "{gone} is remembered as deleted"
        );
    }
    let again =
        scene.task(json!({"task": "repair", "run_id": "again", "dry_run": false, "recheck_after_seconds": 0})).await;
    let expected = "dynamodb.equal 2, dynamodb.items 2, dynamodb.tombstones 2, source.items 2";
    assert_eq!(again.progress.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn repaired_item_outranks_every_replay_but_not_the_next_change() {
    let scene = seed_differences().await;
    let before = revision(&scene.item(REPLICA, "bob").await.unwrap());
    scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
    let mended = revision(&scene.item(REPLICA, "bob").await.unwrap());
    assert!(mended > before && mended.sequence() == before.sequence());
    assert_eq!(mended.reconciled(), Some(1));
    scene.put(SOURCE, user("bob", "Renamed")).await;
    scene.stack.wait_until_drained().await;
    assert_eq!(scene.name("bob").await.as_deref(), Some("Renamed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unrepairable_item_is_kept_and_reported_as_failed() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.put(SOURCE, user("bob", "Bob")).await;
    scene.stack.wait_until_drained().await;
    let mut foreign = user("ada", "Wrong");
    foreign.insert("_rev".to_owned(), AttributeValue::S("7".to_owned()));
    scene.put(REPLICA, foreign.clone()).await;
    scene.delete(REPLICA, "bob").await;
    let response =
        scene.task(json!({"task": "repair", "run_id": "left", "dry_run": false, "recheck_after_seconds": 0})).await;
    assert_eq!((response.progress.get("dynamodb.repaired"), response.progress.get("dynamodb.failed")), (1, 1));
    assert_eq!((response.differences, response.problems), (0, 1));
    let report = scene.report("left").await;
    let left = report.iter().find(|line| line["outcome"] == "failed").unwrap();
    assert!(left["reason"].as_str().unwrap().contains("_rev that is not a revision"), "{left}");
    assert_eq!(scene.item(REPLICA, "ada").await, Some(foreign), "somebody else's item is not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_a_former_stream_is_brought_above_it() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    scene.stack.wait_until_drained().await;
    // As if the stream had been disabled and re-enabled while ada was renamed: no stream contains the change.
    let mut old = user("ada", "Before the gap");
    let revision_then = format!("{FORMER}#900");
    let revision_then = millrace_shared::revision::Revision::parse(&revision_then).unwrap();
    let bytes = aws_sdk_dynamodb::primitives::Blob::new(revision_then.encode().as_ref());
    old.insert("_rev".to_owned(), AttributeValue::B(bytes));
    scene.put(REPLICA, old).await;
    scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
    assert_eq!(scene.name("ada").await.as_deref(), Some("Ada"));
    let mended = revision(&scene.item(REPLICA, "ada").await.unwrap());
    assert!(mended.label() > revision_then.label(), "a late record of the former stream is stale");
    let late =
        scene.give_up("replicator", vec![record_of(EventBuilder::named("ada", 901, "Late"), FORMER)], false).await;
    scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(scene.name("ada").await.as_deref(), Some("Ada"));
    assert!(scene.objects(&late).await.is_empty());
}
