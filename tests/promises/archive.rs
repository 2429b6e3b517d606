//! The promises of the archive.

use std::collections::HashMap;

use archiver::archive::{ArchivedRow, KeyNames, Merge, Reader};
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::maintenance::scene::{ARCHIVE, FORMER, SOURCE, Scene, record, user};
use crate::replication::story::Told;

/// How many objects there are, and the rows of all as a reader takes them.
async fn archived(scene: &Scene) -> (usize, Vec<ArchivedRow>) {
    let listed = scene.s3.list_objects_v2().bucket(ARCHIVE).prefix("archive/").send().await.unwrap();
    let mut objects: Vec<(String, HashMap<String, String>, Vec<u8>)> = Vec::new();
    for key in listed.contents().iter().map(|object| object.key().unwrap().to_owned()) {
        let object = scene.s3.get_object().bucket(ARCHIVE).key(&key).send().await.unwrap();
        let metadata = object.metadata().cloned().unwrap();
        objects.push((key, metadata, object.body.collect().await.unwrap().to_vec()));
    }
    let readers = objects.iter().map(|(key, metadata, bytes)| {
        Reader::open(key, metadata, KeyNames::new(["user_id", "timestamp"]), bytes.as_slice()).unwrap()
    });
    let rows = Merge::new(readers.collect()).map(Result::unwrap).collect();
    (objects.len(), rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_07_what_ttl_removes_is_archived_and_nothing_else() {
    let scene = Scene::start().await;
    let past = (shared::clock::Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    for name in ["alive", "deleted", "expired-1", "expired-2"] {
        let mut item = user(name, "Ada");
        if name.starts_with("expired") {
            item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
        }
        scene.put(SOURCE, item).await;
    }
    scene.delete(SOURCE, "deleted").await;
    assert_eq!(scene.stack.expire_now().await.unwrap(), 2);
    scene.stack.drained().await;
    let (_, rows) = archived(&scene).await;
    let keys: Vec<_> = rows.iter().map(|row| row.key.as_str()).collect();
    let key = |name| format!(r#"{{"timestamp":{{"N":"1"}},"user_id":{{"S":"{name}"}}}}"#);
    assert_eq!(keys, [key("expired-1"), key("expired-2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_08_archiving_twice_is_archiving_once() {
    let scene = Scene::start().await;
    let expired = |name: &str, number| record(Told::expired(name, number), FORMER);
    let whole = || vec![expired("ada", 1), expired("bob", 2), expired("cleo", 3)];
    // The same batch twice, and a slice of it.
    for records in [whole(), whole(), whole()[1..].to_vec()] {
        scene.give_up("archiver", records, false).await;
        scene.task(json!({"task": "redrive", "dry_run": false})).await;
    }
    let (objects, rows) = archived(&scene).await;
    assert_eq!((objects, rows.len()), (2, 3), "the slice is an object of its own, and its rows are read once");
}
