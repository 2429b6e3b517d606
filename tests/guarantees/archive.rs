//! The guarantees of the archive.

use std::collections::HashMap;

use millrace_archive::{ArchivedRow, KeyNames, MergeIterator, RowReader};
use serde_json::json;

use crate::archival::harness::keys;
use crate::maintenance::scene::{FORMER, MaintenanceScene};
use crate::replication::events::EventBuilder;

/// The number of objects, and the rows of all objects as a reader returns them.
async fn archived(scene: &MaintenanceScene) -> (usize, Vec<ArchivedRow>) {
    let mut objects: Vec<(String, HashMap<String, String>, Vec<u8>)> = Vec::new();
    let there = keys(&scene.s3, &scene.archive).await;
    for key in there.into_iter().filter(|key| key.starts_with("archive/") || key.starts_with("compacted/")) {
        let object = scene.s3.get_object().bucket(&scene.archive).key(&key).send().await.unwrap();
        let metadata = object.metadata().cloned().unwrap();
        objects.push((key, metadata, object.body.collect().await.unwrap().to_vec()));
    }
    let readers = objects.iter().map(|(key, metadata, bytes)| {
        RowReader::open(key, metadata, KeyNames::new(scene.shape.key_names()), bytes.as_slice()).unwrap()
    });
    let rows = MergeIterator::new(readers.collect()).map(Result::unwrap).collect();
    (objects.len(), rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_07_what_ttl_removes_is_archived_and_nothing_else() {
    for (mode, scene) in MaintenanceScene::of_each_shape_and_mode().await {
        for name in ["alive", "deleted", "expired-1", "expired-2"] {
            let expired = name.starts_with("expired");
            let item = if expired { scene.expired(name, "Ada") } else { scene.user(name, "Ada") };
            scene.put(scene.source(), item).await;
        }
        scene.delete(scene.source(), "deleted").await;
        assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 2);
        // An item that is created again at once expired all the same.
        scene.put(scene.source(), scene.user("expired-2", "Again")).await;
        scene.stack.wait_until_drained().await;
        let (_, rows) = archived(&scene).await;
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let key = |name| scene.shape.canonical_key(&scene.key(name));
        assert_eq!(keys, [key("expired-1"), key("expired-2")], "{mode:?}");
        scene.replica_is_source().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_08_archiving_twice_is_archiving_once() {
    for (mode, scene) in MaintenanceScene::of_each_shape_and_mode().await {
        let expired = |name: &str, number| scene.record(EventBuilder::expired(name, number), FORMER);
        let whole = || vec![expired("ada", 1), expired("bob", 2), expired("cleo", 3)];
        // The same batch twice, and a slice of it.
        for records in [whole(), whole(), whole()[1..].to_vec()] {
            scene.give_up(mode.function(), records, false).await;
            scene.task(json!({"task": "redrive", "dry_run": false})).await;
        }
        let (objects, rows) = archived(&scene).await;
        assert_eq!((objects, rows.len()), (2, 3), "the slice is an object of its own, and its rows are read once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_21_a_compaction_loses_and_doubles_no_row() {
    for scene in MaintenanceScene::of_each_shape().await {
        let expired = |name: &str, number| scene.record(EventBuilder::expired(name, number), FORMER);
        for records in [vec![expired("ada", 1), expired("bob", 2)], vec![expired("bob", 2), expired("cleo", 3)]] {
            scene.give_up("archiver", records, false).await;
            scene.task(json!({"task": "redrive", "dry_run": false})).await;
        }
        let named = |rows: &[ArchivedRow]| rows.iter().map(|row| (row.key.clone(), row.revision)).collect::<Vec<_>>();
        let before = archived(&scene).await;
        for objects in [1, 1] {
            scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
            let after = archived(&scene).await;
            assert_eq!((before.0, after.0), (2, objects), "twice is once");
            assert_eq!(named(&after.1), named(&before.1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_22_restore_is_a_create_that_overwrites_nothing() {
    for scene in MaintenanceScene::of_each_shape().await {
        for name in ["back", "taken"] {
            scene.put(scene.source(), scene.expired(name, "Then")).await;
        }
        assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), 2);
        scene.put(scene.source(), scene.user("taken", "Now")).await;
        scene.stack.wait_until_drained().await;
        let order = json!({"task": "restore", "from": "2026-01-01T00:00:00Z", "never_expires": true, "dry_run": false});
        let response = scene.task(order).await;
        assert_eq!((response.progress.get("restore.restored"), response.progress.get("restore.refused")), (1, 1));
        scene.stack.wait_until_drained().await;
        assert_eq!(
            (scene.name("back").await.as_deref(), scene.name("taken").await.as_deref()),
            (Some("Then"), Some("Now"))
        );
        scene.replica_is_source().await;
    }
}
