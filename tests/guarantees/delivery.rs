//! The guarantees of replication.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::maintenance::scene::{MaintenanceScene, text};
use crate::replication::events::EventBuilder;
use crate::replication::rig::{REPLICA, ReplicationRig, create_table, deliver_batch};

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_01_a_replica_ends_with_what_the_source_holds() {
    for scene in MaintenanceScene::of_each_shape().await {
        for n in 0..80 {
            let id = format!("u{n}");
            let item = if n % 10 == 0 { scene.expired(&id, "Created") } else { scene.user(&id, "Created") };
            scene.put(scene.source(), item).await;
        }
        for n in 0..40 {
            scene.put(scene.source(), scene.user(&format!("u{}", n * 2 + 1), "Renamed")).await;
            scene.delete(scene.source(), &format!("u{}", n * 2 + 1 - n % 2)).await;
        }
        assert!(scene.stack.run_ttl_sweep().await.unwrap() > 0);
        scene.put(scene.source(), scene.user("u1", "Created again")).await;
        scene.stack.wait_until_drained().await;
        scene.replica_is_source().await;
        assert!(scene.objects("").await.is_empty(), "and nothing had to be put aside for it");
    }
}

#[tokio::test]
async fn guarantee_02_an_old_delivery_changes_nothing() {
    for rig in ReplicationRig::of_each_shape().await {
        let replicator = rig.replicator();
        let stories = ["user-created", "user-renamed", "user-many-times", "user-deleted"];
        for name in stories {
            deliver_batch(&replicator, &rig.sample(name)).await;
        }
        let end = rig.dynamodb.scan().table_name(REPLICA).send().await.unwrap().items;
        for name in stories.iter().rev().chain(&stories) {
            assert_eq!(deliver_batch(&replicator, &rig.sample(name)).await.identifier(), None, "a refusal is success");
            assert_eq!(rig.dynamodb.scan().table_name(REPLICA).send().await.unwrap().items, end, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_03_a_deleted_item_stays_deleted() {
    for rig in ReplicationRig::of_each_shape().await {
        let replicator = rig.replicator();
        deliver_batch(
            &replicator,
            &rig.event(&[EventBuilder::named("ada", 1, "Ada"), EventBuilder::named("bob", 2, "Bob")]),
        )
        .await;
        deliver_batch(&replicator, &rig.event(&[EventBuilder::deleted("ada", 3), EventBuilder::expired("bob", 4)]))
            .await;
        deliver_batch(
            &replicator,
            &rig.event(&[EventBuilder::named("ada", 1, "Ada"), EventBuilder::named("bob", 2, "Bob")]),
        )
        .await;
        for user_id in ["ada", "bob"] {
            let tombstone = rig.item(user_id, "1").await.unwrap();
            assert!(tombstone.contains_key("_tombstone_expires_at") && !tombstone.contains_key("name"), "{user_id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_04_items_arrive_whole() {
    for scene in MaintenanceScene::of_each_shape().await {
        let number = |text: &str| AttributeValue::N(text.to_owned());
        let mut item = scene.user("ada", "");
        let more = [
            ("b", AttributeValue::B(Blob::new([0, 255]))),
            ("bool", AttributeValue::Bool(false)),
            ("bs", AttributeValue::Bs(vec![Blob::new([1]), Blob::new([2])])),
            ("l", AttributeValue::L(vec![number("1"), AttributeValue::Null(true)])),
            ("m", AttributeValue::M(scene.key("deep"))),
            ("n", number("0.12345678901234567890123456789012345678")),
            ("ns", AttributeValue::Ns(vec!["1".to_owned(), "-2.5".to_owned()])),
            ("ss", AttributeValue::Ss(vec!["a".to_owned(), "é".to_owned()])),
        ];
        item.extend(more.map(|(name, value)| (name.to_owned(), value)));
        scene.put(scene.source(), item).await;
        scene.stack.wait_until_drained().await;
        scene.replica_is_source().await;
        let response = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
        assert_eq!(response.progress.get("dynamodb.equal"), 1);
    }
}

#[tokio::test]
async fn guarantee_05_nothing_is_acknowledged_that_is_not_safe() {
    for rig in ReplicationRig::of_each_shape().await {
        let out = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&out);
        let plan = move |call: &ProxiedCall<'_>| {
            let struck = call.body.contains("u3.") || call.body.contains("u5.");
            let hit = struck && call.operation == "PutItem" && still.load(Ordering::Relaxed);
            if hit { HttpFault::Error(500, "InternalServerError") } else { HttpFault::None }
        };
        let replica = millrace_local::clients::dynamodb(&proxy::before(&rig.dynamodb_url, plan).await);
        let replicator = rig.replicator_through(replica);
        let events: Vec<EventBuilder> =
            (1..=6).map(|n| EventBuilder::named(&format!("u{n}."), n, &format!("u{n}."))).collect();
        assert_eq!(
            deliver_batch(&replicator, &rig.event(&events)).await.identifier(),
            Some("3"),
            "the lowest that may be lacking"
        );
        out.store(false, Ordering::Relaxed);
        assert_eq!(deliver_batch(&replicator, &rig.event(&events[2..])).await.identifier(), None);
        assert_eq!(rig.item_count().await, 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_06_a_poison_record_blocks_nothing_and_is_not_lost() {
    for scene in MaintenanceScene::of_each_shape().await {
        scene.put(scene.source(), scene.user("ada", "Ada")).await;
        let mut poison = scene.user("mallory", "Mallory");
        poison.insert("_rev".to_owned(), text("mine"));
        scene.put(scene.source(), poison).await;
        scene.put(scene.source(), scene.user("bob", "Bob")).await;
        scene.stack.wait_until_drained().await;
        assert_eq!(
            (scene.name("ada").await.as_deref(), scene.name("bob").await.as_deref()),
            (Some("Ada"), Some("Bob"))
        );
        let objects = scene.objects("quarantine/").await;
        let body: serde_json::Value = serde_json::from_slice(&scene.object(&objects[0]).await).unwrap();
        assert_eq!((objects.len(), &body["record"]["dynamodb"]["NewImage"]["name"]["S"]), (1, &json!("Mallory")));
        let reason = body["reason"].as_str().unwrap();
        assert!(reason.contains("the attribute _rev,") && reason.contains("RESERVED_PREFIX"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_17_an_outage_holds_the_position() {
    // The replica's table is missing while its source is written to, so no change of any batch can be applied.
    for scene in MaintenanceScene::of_each_shape().await {
        scene.put(scene.source(), scene.user("before", "Ada")).await;
        scene.stack.wait_until_drained().await;
        scene.dynamodb.delete_table().table_name(&scene.replica).send().await.unwrap();
        for n in 0..20 {
            scene.put(scene.source(), scene.user(&format!("u{n}"), "Written in the outage")).await;
        }
        scene.delete(scene.source(), "u7").await;
        assert!(
            tokio::time::timeout(Duration::from_secs(1), scene.stack.wait_until_drained()).await.is_err(),
            "the records wait"
        );
        assert!(scene.objects("").await.is_empty(), "an outage is no poison");
        create_table(&scene.dynamodb, &scene.replica, scene.shape.key).await;
        tokio::time::timeout(Duration::from_mins(1), scene.stack.wait_until_drained()).await.unwrap();
        let written = scene.live(&scene.replica).await;
        assert_eq!(written.len(), 19);
        assert!(scene.item(&scene.replica, "u7").await.unwrap().contains_key("_tombstone_expires_at"));
    }
}
