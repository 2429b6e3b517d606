//! The guarantees of replicas that store a part of the source.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use millrace_doctor::diagnosis::diagnose;
use millrace_doctor::template_reader;
use millrace_local::clients;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::invocation::Invocation;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::maintenance::replicas::{COPY, ReplicasScene, STAGING};
use crate::maintenance::scene::text;
use crate::maintenance::transforms::{
    MaskedScene, differences, everything_masked, outdated, replicate_people_observed,
};
use crate::replication::events::{EventBuilder, user};
use crate::replication::rig::{ReplicationRig, deliver_batch};

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_26_an_item_that_leaves_the_filter_leaves_the_replica() {
    for mut scene in MaskedScene::of_each_shape().await {
        scene.write("ada", "active").await;
        assert_eq!(scene.statuses().await.len(), 1);
        scene.write("ada", "draft").await;
        assert!(scene.statuses().await.is_empty());
        let tombstone = scene.replicas.scene.item(STAGING, "ada").await.unwrap();
        assert!(tombstone.contains_key("_tombstone_expires_at"));
        assert_eq!(scene.replicas.live(COPY).await.len(), 1);
    }
}

/// Delivers one batch in which an item goes through these statuses.
async fn deliver(scene: &MaskedScene, statuses: &[&str]) {
    let image = |status: &str| {
        let mut image = user("ada", "1", "Ada");
        image["status"] = json!({"S": status});
        image
    };
    let records: Vec<Value> = statuses
        .windows(2)
        .zip(1..)
        .map(|(pair, number)| {
            let change = EventBuilder::image("ada", number, &image(pair[1]).to_string());
            let mut record: Value = serde_json::from_str(&change.record()).unwrap();
            record["dynamodb"]["OldImage"] = image(pair[0]);
            scene.replicas.scene.shape.translate(&mut record);
            record
        })
        .collect();
    let event = RawValue::from_string(json!({ "Records": records }).to_string()).unwrap();
    let minute = std::time::Duration::from_mins(1);
    let invocation = Invocation::new(Clock::system().now(), Instant::now(), minute, "request-1".to_owned());
    assert_eq!(scene.replicator.handle(&event, &invocation).await.unwrap().identifier(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_27_a_write_is_omitted_only_if_no_image_of_the_batch_matches() {
    for scene in MaskedScene::of_each_shape().await {
        deliver(&scene, &["draft", "draft", "draft"]).await;
        assert!(scene.replicas.scene.item(STAGING, "ada").await.is_none(), "nothing to remove");
        // The last change has no image that matches; the first one took the item out of the filter.
        deliver(&scene, &["active", "draft", "draft"]).await;
        let tombstone = scene.replicas.scene.item(STAGING, "ada").await.unwrap();
        assert!(tombstone.contains_key("_tombstone_expires_at"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_28_a_key_attribute_is_never_changed() {
    for scene in ReplicasScene::of_each_shape().await {
        let keys = scene.key_paths();
        for rules in
            [json!({"hash": {(keys[0].clone()): "pii"}}), json!({"exclude": [keys[1]]}), json!({"include": ["name"]})]
        {
            let error = scene.replicator_in(&scene.masked(&rules)).check().await.unwrap_err().to_string();
            assert!(
                error.contains("REPLICATION /replicas/1/attributes/") && error.contains("key attribute"),
                "{error}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_29_equal_values_have_equal_hashes() {
    for mut scene in MaskedScene::of_each_shape().await {
        for (name, email) in [("ada", "a@example.com"), ("eve", "a@example.com"), ("bob", "b@example.com")] {
            let mut item = scene.person(name, "active");
            item.insert("email".to_owned(), text(email));
            assert_eq!(scene.replicas.write(&scene.replicator, item).await, None);
        }
        let live = scene.replicas.live(STAGING).await;
        assert_eq!(live["ada"]["email"], live["eve"]["email"]);
        assert_ne!(live["ada"]["email"], live["bob"]["email"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_30_every_task_applies_the_transformation() {
    for mut scene in MaskedScene::of_each_shape().await {
        scene.write("ada", "active").await;
        scene.write("bob", "draft").await;
        let before = scene.replicas.live(STAGING).await;
        assert_eq!(differences(&scene.verify().await, "staging"), 0);
        scene.replicas.lose(STAGING).await;
        scene.task(json!({"task": "backfill", "replica": "staging"})).await;
        assert_eq!(scene.replicas.live(STAGING).await, before);
        scene.replicas.lose(STAGING).await;
        scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
        assert_eq!(scene.replicas.live(STAGING).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_31_no_masked_value_is_found_outside_the_source() {
    for mut scene in MaskedScene::of_each_shape().await {
        let (personal, observed) = replicate_people_observed(&mut scene, 20).await;
        let all = everything_masked(&scene).await + &observed;
        let found: Vec<&String> = personal.iter().filter(|value| all.contains(*value)).collect();
        // The value of a key attribute is not masked.
        let key = scene.replicas.scene.key("u0004").remove(scene.replicas.scene.shape.key[0].0).unwrap();
        let key = key.as_s().or(key.as_n()).unwrap();
        assert!(found.is_empty() && all.contains(key), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_32_a_value_that_cannot_be_masked_is_quarantined() {
    for replicas in ReplicasScene::of_each_shape().await {
        let mut rules = replicas.including(&["status", "email"]);
        rules["hash"] = json!({"email.domain": "pii"});
        let environment = replicas.masked(&rules);
        let mut scene = MaskedScene::over(replicas, &environment).await;
        scene.write("ada", "active").await;
        assert!(scene.statuses().await.is_empty());
        assert_eq!(scene.replicas.scene.objects("quarantine/replicator/staging/").await.len(), 1);
        assert_eq!(scene.replicas.live(COPY).await.len(), 1);
    }
}

#[tokio::test]
async fn guarantee_33_without_rules_an_image_keeps_its_bytes() {
    for rig in ReplicationRig::of_each_shape().await {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&bodies);
        let plan = move |call: &ProxiedCall<'_>| {
            if call.operation == "PutItem" {
                sent.lock().unwrap().push(call.body.to_owned());
            }
            HttpFault::None
        };
        let client = clients::dynamodb(&proxy::before(&rig.dynamodb_url, plan).await);
        let mut image = user("ada", "1", "Ada");
        // A parser of JSON would write these values in another form.
        image["number"] = json!({"N": "1.2300"});
        image["note"] = json!({"S": "a/b"});
        let event = rig.event(&[EventBuilder::image("ada", 1, &image.to_string())]);
        let event = RawValue::from_string(event.get().replace("a/b", "a\\/\\u0062")).unwrap();
        assert_eq!(deliver_batch(&rig.replicator_through(client), &event).await.identifier(), None);
        let batch: BTreeMap<&str, Vec<BTreeMap<&str, &RawValue>>> = serde_json::from_str(event.get()).unwrap();
        let change: BTreeMap<&str, &RawValue> = serde_json::from_str(batch["Records"][0]["dynamodb"].get()).unwrap();
        let image = change["NewImage"].get();
        let image = &image[1..image.len() - 1];
        assert!(image.contains(r"a\/\u0062") && image.contains("1.2300"), "{image}");
        let bodies = bodies.lock().unwrap();
        assert!(matches!(&bodies[..], [body] if body.contains(image)), "{image}: {bodies:?}");
    }
}

async fn repair(scene: &mut MaskedScene, environment: &Environment, segments: &[(u32, u32)]) {
    let document = environment.get("REPLICATION").unwrap();
    scene.maintenance = scene.replicas.maintenance_in(environment, document).await;
    for (segment, total) in segments {
        scene.repair(*segment, *total).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_34_changed_rules_are_reported_until_a_complete_repair() {
    for mut scene in MaskedScene::of_each_shape().await {
        let replicas = &scene.replicas;
        let first = replicas.masked(&replicas.usual_rules());
        let next = replicas.masked(&replicas.including(&["status"]));
        scene.write("ada", "active").await;
        assert_eq!(outdated(&scene, &first).await, ["staging"], "the replica may have had items before");
        repair(&mut scene, &first, &[(0, 2)]).await;
        assert_eq!(outdated(&scene, &first).await, ["staging"], "half of the table");
        repair(&mut scene, &first, &[(1, 2)]).await;
        assert!(outdated(&scene, &first).await.is_empty());

        // The times of objects in S3 are whole seconds.
        let second = std::time::Duration::from_millis(1_100);
        tokio::time::sleep(second).await;
        repair(&mut scene, &next, &[(0, 1)]).await;
        assert_eq!(outdated(&scene, &next).await, ["staging"], "the replicator had not started with these rules");
        repair(&mut scene, &next, &[(0, 1)]).await;
        assert!(outdated(&scene, &next).await.is_empty());
        tokio::time::sleep(second).await;
        assert_eq!(outdated(&scene, &first).await, ["staging"], "the former repair does not count");
        assert_eq!(outdated(&scene, &first).await, ["staging"], "nor does it after the start");
    }
}

/// The text of the template that replicates a table.
fn replication_template() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/replication.yaml")).unwrap()
}

#[test]
fn guarantee_37_a_filter_over_images_in_front_of_a_replicator_is_reported() {
    let template = replication_template();
    let finds = |filter: &str| {
        let mapping = "            Stream: !Ref SourceStreamArn\n            StartingPosition: TRIM_HORIZON\n            BatchSize: 1000\n";
        assert_eq!(template.matches(mapping).count(), 1, "the mapping of the replicator");
        let criteria = format!("{mapping}            FilterCriteria: {{Filters: [{{Pattern: '{filter}'}}]}}\n");
        let text = template.replace(mapping, &criteria);
        let reading = template_reader::read(&text, "replication.yaml", None, &BTreeMap::new()).unwrap();
        let findings = diagnose(&reading.deployment).findings;
        findings.iter().any(|finding| finding.rule.id == "replicator-filters-images")
    };
    assert!(finds(r#"{"dynamodb":{"NewImage":{"status":{"S":["paid"]}}}}"#));
    assert!(finds(r#"{"dynamodb":{"OldImage":{"status":{"S":["paid"]}}}}"#));
    assert!(!finds(r#"{"dynamodb":{"Keys":{"pk":{"S":[{"prefix":"order#"}]}}}}"#), "a key never changes");
    assert!(!finds(r#"{"userIdentity":{"type":["Service"]}}"#));
}

#[test]
fn guarantee_38_original_items_stay_in_the_account_of_the_stack() {
    let template = replication_template();
    let variables: Vec<(&str, &str)> = template
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| name.ends_with("_BUCKET"))
        .collect();
    assert!(variables.len() >= 6, "each function that writes a bucket: {variables:?}");
    for (name, value) in variables {
        let (_, reference) =
            value.rsplit_once("!Ref ").filter(|(_, name)| !name.contains("AWS::")).unwrap_or_else(|| {
                let (before, _) = value.split_once(", !Ref AWS::NoValue]").unwrap();
                before.rsplit_once("!Ref ").unwrap()
            });
        let declared = format!("\n  {reference}:\n    Type: AWS::S3::Bucket\n");
        assert!(template.contains(&declared), "{name} is {value}, and not a bucket of the stack");
    }
}
