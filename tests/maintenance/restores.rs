//! Restores: archived items are written to the table again, as creates, and never replace a live item.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_shared::clock::Clock;
use serde_json::{Value, json};

use super::scene::{MaintenanceScene, REPLICA, SOURCE, SceneItem, invoke, key, text, user};

fn number(item: &SceneItem, name: &str) -> i64 {
    item[name].as_n().unwrap().parse().unwrap()
}

/// A user that has expired, with the attributes that the API adds to an item.
fn expiring(user_id: &str, name: &str) -> SceneItem {
    let past = (Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    let mut item = user(user_id, name);
    item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
    item.insert("version".to_owned(), AttributeValue::N("7".to_owned()));
    item.insert("score".to_owned(), AttributeValue::N("0.12345678901234567890123456789012345678".to_owned()));
    item
}

/// Lets these users expire, be archived and be replaced by tombstones in the replica.
pub(super) async fn expired(scene: &MaintenanceScene, users: &[&str], name: &str) {
    for user in users {
        scene.put(SOURCE, expiring(user, name)).await;
    }
    assert_eq!(scene.stack.run_ttl_sweep().await.unwrap(), users.len());
    scene.stack.wait_until_drained().await;
}

fn order(more: Value) -> Value {
    let mut order = json!({"task": "restore", "expires_in_seconds": 3600, "dry_run": false});
    let Value::Object(more) = more else { panic!("fields") };
    order.as_object_mut().unwrap().extend(more);
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_is_the_default_and_shows_what_would_come_back() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob"], "Then").await;
    scene.put(SOURCE, user("bob", "Now")).await;
    let order = json!({"task": "restore", "run_id": "dry", "from": "2026-01-01T00:00:00Z", "never_expires": true});
    let response = scene.task(order).await;
    let expected = "restore.objects 1, restore.rows 2, restore.would_refuse 1, restore.would_restore 1";
    assert_eq!(response.progress.to_string(), expected);
    assert_eq!((response.differences, response.problems), (0, 1));
    let report = scene.report("dry").await;
    assert_eq!((&report[0]["key"]["user_id"]["S"], &report[0]["outcome"]), (&json!("ada"), &json!("would_restore")));
    assert!(report[1]["reason"].as_str().unwrap().contains("a live item exists"), "{report:?}");
    assert!(scene.item(SOURCE, "ada").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_item_is_a_new_one_that_lasts_and_reaches_the_replica() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob", "cleo"], "Then").await;
    let before = Clock::system().now();
    let response = scene.task(order(json!({"user_id": "ada"}))).await;
    assert_eq!((response.progress.get("restore.restored"), response.progress.get("restore.refused")), (1, 0));
    let ada = scene.item(SOURCE, "ada").await.unwrap();
    assert!(i128::from(number(&ada, "version")) >= before.unix_timestamp_nanos() / 1_000);
    let lasts = number(&ada, "expires_at") - before.unix_timestamp();
    assert!((3_600..3_700).contains(&lasts), "{lasts}");
    let mut rest = ada.clone();
    let mut archived = expiring("ada", "Then");
    for changed in ["version", "expires_at"] {
        rest.remove(changed);
        archived.remove(changed);
    }
    assert_eq!(rest, archived, "nothing else has changed, to the digit");
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    assert!(scene.item(REPLICA, "bob").await.unwrap().contains_key("_deleted_by_ttl"), "others stay where they are");

    let key = json!({"user_id": {"S": "bob"}, "timestamp": {"N": "1.0"}});
    let mut forever = order(json!({"key": key}));
    forever.as_object_mut().unwrap().remove("expires_in_seconds");
    forever["never_expires"] = json!(true);
    assert_eq!(scene.task(forever).await.progress.get("restore.restored"), 1);
    assert!(!scene.item(SOURCE, "bob").await.unwrap().contains_key("expires_at"));
    assert!(scene.item(SOURCE, "cleo").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_overwrites_existing_items_only_if_requested() {
    let scene = MaintenanceScene::start().await;
    expired(&scene, &["ada", "bob"], "Then").await;
    scene.put(SOURCE, user("ada", "Now")).await;
    scene.put(SOURCE, expiring("bob", "Expired again")).await;
    let since = json!({"run_id": "careful", "from": "2026-01-01T00:00:00Z"});
    let response = scene.task(order(since.clone())).await;
    assert_eq!((response.progress.get("restore.restored"), response.progress.get("restore.refused")), (0, 2));
    assert_eq!(response.problems, 2);
    let report = scene.report("careful").await;
    assert!(report[0]["reason"].as_str().unwrap().contains("a live item"), "{report:?}");
    assert!(report[1]["reason"].as_str().unwrap().contains("an expired item is still in the table"), "{report:?}");
    assert_eq!(scene.item(SOURCE, "ada").await.unwrap()["name"], text("Now"));

    let mut newer = expiring("ada", "Now");
    newer.insert("version".to_owned(), AttributeValue::N("9000000000000000".to_owned()));
    newer.remove("expires_at");
    scene.put(SOURCE, newer).await;
    let mut bold = order(since);
    bold["overwrite"] = json!(true);
    bold["run_id"] = json!("bold");
    assert_eq!(scene.task(bold).await.progress.get("restore.restored"), 2);
    let ada = scene.item(SOURCE, "ada").await.unwrap();
    assert_eq!((&ada["name"], number(&ada, "version")), (&text("Then"), 9_000_000_000_000_001), "above what was there");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_facts_of_a_key_the_latest_comes_back_and_a_second_restore_changes_nothing() {
    let scene = MaintenanceScene::start().await;
    for name in ["First", "Second", "Third"] {
        expired(&scene, &["ada"], name).await;
    }
    scene.task(json!({"task": "compact", "to": "2999-01-01T00:00:00Z"})).await;
    scene.task(order(json!({"user_id": "ada"}))).await;
    let ada = scene.item(SOURCE, "ada").await.unwrap();
    assert_eq!(ada["name"], text("Third"));
    let again = scene.task(order(json!({"user_id": "ada", "run_id": "again"}))).await;
    assert_eq!((again.progress.get("restore.already_restored"), again.progress.get("restore.refused")), (1, 0));
    assert_eq!(again.problems, 0);
    assert_eq!(scene.item(SOURCE, "ada").await.unwrap(), ada);

    scene.delete(SOURCE, "ada").await;
    let all = scene.task(order(json!({"user_id": "ada", "versions": "all", "run_id": "all"}))).await;
    assert_eq!((all.progress.get("restore.rows"), all.progress.get("restore.restored")), (3, 1));
    assert_eq!(scene.item(SOURCE, "ada").await.unwrap()["name"], text("Third"));
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_restore_everything_and_report_a_corrupt_object() {
    let scene = MaintenanceScene::start().await;
    let users: Vec<String> = (0..50).map(|n| format!("u{n:02}")).collect();
    expired(&scene, &users.iter().map(String::as_str).collect::<Vec<_>>(), "Then").await;
    let corrupt = "archive/Users/dt=2026-11-22/hr=09/00000000000000000000000000000000.ndjson.zst";
    let put = scene.s3.put_object().bucket(super::scene::ARCHIVE).key(corrupt);
    put.body(b"mine".to_vec().into()).send().await.unwrap();
    let mut restored = 0;
    for segment in 0..3 {
        let more = json!({"from": "2026-01-01T00:00:00Z", "segment": segment, "segments": 3, "run_id": "parts"});
        let response = scene.task(order(more)).await;
        restored += response.progress.get("restore.restored");
        assert_eq!(response.progress.get("restore.corrupt"), u64::from(segment == 0));
        assert_eq!(response.problems, u64::from(segment == 0));
    }
    assert_eq!((restored, scene.live(SOURCE).await.len()), (50, 50));
    let report = scene.report("parts").await;
    assert!(report.iter().any(|line| line["object"] == corrupt && line["outcome"] == "corrupt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_restore_request_is_rejected() {
    let scene = MaintenanceScene::start().await;
    let past = json!("2026-01-01T00:00:00Z");
    for (order, message) in [
        (json!({"task": "restore", "user_id": "ada"}), "restore needs either expires_in_seconds"),
        (
            json!({"task": "restore", "user_id": "ada", "expires_in_seconds": 1, "never_expires": true}),
            "either expires_in_seconds",
        ),
        (json!({"task": "restore", "never_expires": true}), "restore needs key, user_id, from or to"),
        (json!({"task": "restore", "from": past, "never_expires": true, "versions": "some"}), "\"latest\" or \"all\""),
        (json!({"task": "restore", "key": {}, "never_expires": true}), "key is not a valid key"),
        (
            json!({"task": "restore", "from": past, "never_expires": true, "recheck_after_seconds": 1}),
            "recheck_after_seconds is not a field",
        ),
    ] {
        let fault = invoke(&scene.maintenance(), &order, Duration::from_mins(1)).await.unwrap_err();
        assert!(fault.to_string().contains(message), "{fault}");
        assert_eq!(fault.kind().as_str(), "TaskInvalid");
    }
    assert_eq!(key("ada").len(), 2);
}
