//! The guarantees of replication.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::maintenance::scene::{MaintenanceScene, REPLICA, SOURCE, key, text, user};
use crate::replication::events::{EventBuilder, event};
use crate::replication::rig::{ReplicationRig, create_table, deliver_batch, sample};

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_01_a_replica_ends_with_what_the_source_holds() {
    let scene = MaintenanceScene::start().await;
    let past = (millrace_shared::clock::Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    for n in 0..80 {
        let mut item = user(&format!("u{n}"), "Created");
        if n % 10 == 0 {
            item.insert("expires_at".to_owned(), AttributeValue::N(past.to_string()));
        }
        scene.put(SOURCE, item).await;
    }
    for n in 0..40 {
        scene.put(SOURCE, user(&format!("u{}", n * 2 + 1), "Renamed")).await;
        scene.delete(SOURCE, &format!("u{}", n * 2 + 1 - n % 2)).await;
    }
    assert!(scene.stack.run_ttl_sweep().await.unwrap() > 0);
    scene.put(SOURCE, user("u1", "Created again")).await;
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    assert!(scene.objects("").await.is_empty(), "and nothing had to be put aside for it");
}

#[tokio::test]
async fn guarantee_02_an_old_delivery_changes_nothing() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    let stories = ["user-created", "user-renamed", "user-many-times", "user-deleted"];
    for name in stories {
        deliver_batch(&replicator, &sample(name)).await;
    }
    let end = rig.dynamodb.scan().table_name(REPLICA).send().await.unwrap().items;
    for name in stories.iter().rev().chain(&stories) {
        assert_eq!(deliver_batch(&replicator, &sample(name)).await.identifier(), None, "a refusal is success");
        assert_eq!(rig.dynamodb.scan().table_name(REPLICA).send().await.unwrap().items, end, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_03_a_deleted_item_stays_deleted() {
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    deliver_batch(&replicator, &event(&[EventBuilder::named("ada", 1, "Ada"), EventBuilder::named("bob", 2, "Bob")]))
        .await;
    deliver_batch(&replicator, &event(&[EventBuilder::deleted("ada", 3), EventBuilder::expired("bob", 4)])).await;
    deliver_batch(&replicator, &event(&[EventBuilder::named("ada", 1, "Ada"), EventBuilder::named("bob", 2, "Bob")]))
        .await;
    for user_id in ["ada", "bob"] {
        let tombstone = rig.item(user_id, "1").await.unwrap();
        assert!(tombstone.contains_key("_tombstone_expires_at") && !tombstone.contains_key("name"), "{user_id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_04_items_arrive_whole() {
    let scene = MaintenanceScene::start().await;
    let number = |text: &str| AttributeValue::N(text.to_owned());
    let mut item = user("ada", "");
    let more = [
        ("b", AttributeValue::B(Blob::new([0, 255]))),
        ("bool", AttributeValue::Bool(false)),
        ("bs", AttributeValue::Bs(vec![Blob::new([1]), Blob::new([2])])),
        ("l", AttributeValue::L(vec![number("1"), AttributeValue::Null(true)])),
        ("m", AttributeValue::M(key("deep"))),
        ("n", number("0.12345678901234567890123456789012345678")),
        ("ns", AttributeValue::Ns(vec!["1".to_owned(), "-2.5".to_owned()])),
        ("ss", AttributeValue::Ss(vec!["a".to_owned(), "é".to_owned()])),
    ];
    item.extend(more.map(|(name, value)| (name.to_owned(), value)));
    scene.put(SOURCE, item).await;
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    let answer = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    assert_eq!(answer.progress.get("dynamodb.equal"), 1);
}

#[tokio::test]
async fn guarantee_05_nothing_is_acknowledged_that_is_not_safe() {
    let rig = ReplicationRig::start().await;
    let out = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&out);
    let plan = move |call: &ProxiedCall<'_>| {
        let struck = call.body.contains("u3.") || call.body.contains("u5.");
        let hit = struck && call.operation == "PutItem" && still.load(Ordering::Relaxed);
        if hit { HttpFault::Error(500, "InternalServerError") } else { HttpFault::None }
    };
    let replica = millrace_local::clients::dynamodb(&proxy::before(&rig.dynamodb_url, plan).await);
    let replicator = rig.replicator_through(replica);
    let told: Vec<EventBuilder> = (1..=6).map(|n| EventBuilder::named(&format!("u{n}."), n, "Ada")).collect();
    assert_eq!(
        deliver_batch(&replicator, &event(&told)).await.identifier(),
        Some("3"),
        "the lowest that may be lacking"
    );
    out.store(false, Ordering::Relaxed);
    assert_eq!(deliver_batch(&replicator, &event(&told[2..])).await.identifier(), None);
    assert_eq!(rig.item_count().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_06_a_poison_record_blocks_nothing_and_is_not_lost() {
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("ada", "Ada")).await;
    let mut poison = user("mallory", "Mallory");
    poison.insert("_rev".to_owned(), text("mine"));
    scene.put(SOURCE, poison).await;
    scene.put(SOURCE, user("bob", "Bob")).await;
    scene.stack.wait_until_drained().await;
    assert_eq!((scene.name("ada").await.as_deref(), scene.name("bob").await.as_deref()), (Some("Ada"), Some("Bob")));
    let objects = scene.objects("quarantine/").await;
    let body: serde_json::Value = serde_json::from_slice(&scene.object(&objects[0]).await).unwrap();
    assert_eq!((objects.len(), &body["record"]["dynamodb"]["NewImage"]["name"]["S"]), (1, &json!("Mallory")));
    assert!(body["reason"].as_str().unwrap().contains("_rev"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_17_an_outage_holds_the_position() {
    // The replica's table is missing while its source is written to, so no change of any batch can be applied.
    let scene = MaintenanceScene::start().await;
    scene.put(SOURCE, user("before", "Ada")).await;
    scene.stack.wait_until_drained().await;
    scene.dynamodb.delete_table().table_name(REPLICA).send().await.unwrap();
    for n in 0..20 {
        scene.put(SOURCE, user(&format!("u{n}"), "Written in the outage")).await;
    }
    scene.delete(SOURCE, "u7").await;
    assert!(
        tokio::time::timeout(Duration::from_secs(1), scene.stack.wait_until_drained()).await.is_err(),
        "the records wait"
    );
    assert!(scene.objects("").await.is_empty(), "an outage is no poison");
    create_table(&scene.dynamodb, REPLICA, &[("user_id", "S"), ("timestamp", "N")]).await;
    tokio::time::timeout(Duration::from_mins(1), scene.stack.wait_until_drained()).await.unwrap();
    let written = scene.live(REPLICA).await;
    assert_eq!(written.len(), 19);
    assert!(scene.item(REPLICA, "u7").await.unwrap().contains_key("_tombstone_expires_at"));
}
