//! The lifecycle of one item, from its creation to its second expiry.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use super::restores::expired;
use super::scene::{ARCHIVE, ArchiveMode, MaintenanceScene, REPLICA, SOURCE, revision};
use crate::archival::harness::{keys, rows};

async fn below(scene: &MaintenanceScene, prefix: &str) -> usize {
    keys(&scene.s3, ARCHIVE).await.iter().filter(|key| key.starts_with(prefix)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn created_expired_archived_compacted_restored_replicated_and_expired_again() {
    for mode in ArchiveMode::BOTH {
        lives_and_expires_twice(&MaintenanceScene::archiving(mode).await).await;
    }
}

async fn lives_and_expires_twice(scene: &MaintenanceScene) {
    // Ada is created, expires, and is archived; the replica stores a tombstone with the reason of the delete.
    expired(scene, &["ada"], "Ada Lovelace").await;
    assert!(scene.item(SOURCE, "ada").await.is_none());
    let first = revision(&scene.item(REPLICA, "ada").await.unwrap());
    assert_eq!((below(scene, "archive/").await, rows(&scene.s3).await.len()), (1, 1));

    // The archive is compacted, and an audit confirms that it is complete.
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    assert_eq!((below(scene, "archive/").await, below(scene, "compacted/").await), (0, 1));
    let audit = scene.task(json!({"task": "audit"})).await;
    assert_eq!((audit.progress.get("audit.found"), audit.progress.get("audit.missing")), (1, 0));

    // Ada is restored for an hour, and the replica item gets a revision above the tombstone's.
    let restored =
        scene.task(json!({"task": "restore", "user_id": "ada", "expires_in_seconds": 3600, "dry_run": false})).await;
    assert_eq!(restored.progress.get("restore.restored"), 1);
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    assert_eq!(scene.name("ada").await.as_deref(), Some("Ada Lovelace"));
    assert!(revision(&scene.item(REPLICA, "ada").await.unwrap()) > first);
    let verified = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    assert_eq!((verified.differences, verified.progress.get("dynamodb.equal")), (0, 1));

    // The hour passes, and the item expires again: a second archive row with the same key.
    let mut ada = scene.item(SOURCE, "ada").await.unwrap();
    let past = (millrace_shared::clock::Clock::system().now() - time::Duration::days(1)).unix_timestamp();
    ada.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
    scene.put(SOURCE, ada).await;
    assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 1);
    scene.stack.wait_until_drained().await;
    let facts = rows(&scene.s3).await;
    assert_eq!((facts.len(), &facts[0].key), (2, &facts[1].key));
    assert_eq!(revision(&scene.item(REPLICA, "ada").await.unwrap()), facts[1].revision);
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    assert_eq!((below(scene, "compacted/").await, rows(&scene.s3).await.len()), (1, 2));
    let audit = scene.task(json!({"task": "audit"})).await;
    assert_eq!((audit.progress.get("audit.missing"), audit.problems), (0, 0));
}
