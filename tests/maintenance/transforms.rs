//! Replicas that store transformed items: replication, backfill, verify, repair and redrive apply the same function.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use aws_sdk_s3::config::retry::RetryConfig;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use millrace_local::clients;
use millrace_maintenance::MaintenanceHandler;
use millrace_replicator::ReplicatorHandler;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::environment::Environment;
use serde_json::{Value, json};

use super::replicas::{COPY, ReplicasScene, STAGING, environment};
use super::scene::{SOURCE, SceneItem, text, to_its_end, to_its_end_after, user};
use crate::faults::proxy::{self, HttpFault, ProxiedCall};
use crate::log_capture::logged;
use crate::replication::events::EventBuilder;
use crate::replication::rig::create_table;
use crate::table_shape::USERS;

pub(super) const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";

/// The replica `staging`: no drafts, four attributes, one of them hashed; and the replica `copy`, which has everything.
pub(crate) fn masked(attributes: &Value) -> Environment {
    masked_with("a key for the hashes of tests", attributes)
}

fn masked_with(key: &str, attributes: &Value) -> Environment {
    let document = json!({
        "version": 1, "hash_keys": {"pii": SECRET},
        "replicas": [
            {"name": "copy", "sink": "dynamodb", "table": COPY},
            {
                "name": "staging", "sink": "dynamodb", "table": STAGING, "attributes": attributes,
                "where": [{"status": {"S": [{"anything-but": ["draft"]}]}}],
            },
        ],
    });
    environment(&document.to_string()).with(SECRET, key.to_owned())
}

pub(crate) fn usual_rules() -> Value {
    json!({"include": ["user_id", "timestamp", "status", "email"], "hash": {"email": "pii"}})
}

pub(crate) fn person(name: &str, status: &str) -> SceneItem {
    let mut item = user(name, &format!("The name of {name}"));
    item.insert("status".to_owned(), text(status));
    item.insert("email".to_owned(), text(&format!("{name}@example.com")));
    item
}

/// The functions with a masked replica, and its tables.
pub(crate) struct MaskedScene {
    pub(crate) replicas: ReplicasScene,
    pub(crate) replicator: ReplicatorHandler,
    pub(crate) maintenance: MaintenanceHandler,
}

impl ReplicasScene {
    /// The paths of the key attributes, as rules name them.
    pub(crate) fn key_paths(&self) -> Vec<String> {
        self.scene.shape.key_names().iter().map(|name| name.replace('.', "\\.")).collect()
    }

    /// The environment of [`masked`] for the table of the scene.
    pub(crate) fn masked(&self, attributes: &Value) -> Environment {
        let users = masked(attributes);
        self.environment(users.get("REPLICATION").unwrap()).with(SECRET, users.get(SECRET).unwrap().to_owned())
    }

    /// Rules that store the key and these attributes.
    pub(crate) fn including(&self, attributes: &[&str]) -> Value {
        let attributes = attributes.iter().map(|name| (*name).to_owned());
        json!({"include": self.key_paths().into_iter().chain(attributes).collect::<Vec<_>>()})
    }

    /// The rules of [`usual_rules`] for the table of the scene.
    pub(crate) fn usual_rules(&self) -> Value {
        let mut rules = self.including(&["status", "email"]);
        rules["hash"] = json!({"email": "pii"});
        rules
    }
}

impl MaskedScene {
    pub(crate) async fn start(environment: &Environment) -> Self {
        Self::over(ReplicasScene::start().await, environment).await
    }

    /// Starts a scene with the usual rules for each table over which the guarantees are tested.
    pub(crate) async fn of_each_shape() -> Vec<Self> {
        let start = ReplicasScene::of_each_shape().await.into_iter().map(async |replicas| {
            let environment = replicas.masked(&replicas.usual_rules());
            Self::over(replicas, &environment).await
        });
        futures::future::join_all(start).await
    }

    pub(crate) async fn over(replicas: ReplicasScene, environment: &Environment) -> Self {
        let replicator = replicas.replicator_in(environment);
        let document = environment.get("REPLICATION").unwrap();
        let maintenance = replicas.maintenance_in(environment, document).await;
        replicator.check().await.unwrap();
        Self { replicas, replicator, maintenance }
    }

    /// A person as an item of the scene's table.
    pub(crate) fn person(&self, name: &str, status: &str) -> SceneItem {
        let mut item = person(name, status);
        item.retain(|name, _| USERS.key.iter().all(|(key, _)| key != name));
        item.extend(self.replicas.scene.key(name));
        item
    }

    pub(crate) async fn write(&mut self, name: &str, status: &str) {
        let item = self.person(name, status);
        assert_eq!(self.replicas.write(&self.replicator, item).await, None);
    }

    pub(crate) async fn task(&self, request: Value) -> HashMap<String, u64> {
        self.task_after(Duration::ZERO, request).await
    }

    /// Repairs a segment, so long after the last start of the replicator that no function has the former rules.
    pub(crate) async fn repair(&self, segment: u32, segments: u32) -> HashMap<String, u64> {
        let request = json!({
            "task": "repair", "dry_run": false, "recheck_after_seconds": 0, "segment": segment, "segments": segments,
        });
        self.task_after(Duration::from_mins(21), request).await
    }

    async fn task_after(&self, delay: Duration, request: Value) -> HashMap<String, u64> {
        let response = to_its_end_after(delay, &self.maintenance, request, Duration::from_mins(1)).await.unwrap();
        let text = response.progress.to_string();
        let counts = text.split(", ").filter_map(|count| count.rsplit_once(' '));
        counts.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
    }

    /// The names and statuses of the masked replica's items.
    pub(crate) async fn statuses(&self) -> Vec<(String, String)> {
        let live = self.replicas.live(STAGING).await.into_iter();
        let mut statuses: Vec<_> = live.map(|(name, item)| (name, item["status"].as_s().unwrap().clone())).collect();
        statuses.sort();
        statuses
    }

    pub(crate) async fn verify(&self) -> HashMap<String, u64> {
        self.task(json!({"task": "verify", "recheck_after_seconds": 0})).await
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

const DIFFERENCES: [&str; 4] = ["missing", "different", "resurrected", "extra"];

pub(crate) fn differences(counts: &HashMap<String, u64>, replica: &str) -> u64 {
    DIFFERENCES.iter().filter_map(|kind| counts.get(&format!("{replica}.{kind}"))).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn item_that_leaves_the_filter_leaves_the_replica_and_may_return() {
    let mut scene = MaskedScene::start(&masked(&usual_rules())).await;
    scene.write("ada", "active").await;
    scene.write("bob", "draft").await;
    assert_eq!(scene.statuses().await, owned(&[("ada", "active")]));
    assert_eq!(scene.replicas.live(COPY).await.len(), 2, "the other replica has every item");
    let ada = &scene.replicas.live(STAGING).await["ada"];
    let mut names: Vec<&String> = ada.keys().collect();
    names.sort();
    assert_eq!(names, ["email", "status", "timestamp", "user_id"]);
    assert_eq!(ada["email"].as_s().unwrap().len(), 64);
    scene.write("ada", "draft").await;
    scene.write("bob", "active").await;
    assert_eq!(scene.statuses().await, owned(&[("bob", "active")]));
    let tombstone = scene.replicas.scene.item(STAGING, "ada").await.unwrap();
    assert!(tombstone.contains_key("_tombstone_expires_at"), "{tombstone:?}");
    scene.write("ada", "active").await;
    assert_eq!(scene.statuses().await.len(), 2);
    let counts = scene.verify().await;
    assert_eq!((differences(&counts, "staging"), differences(&counts, "copy")), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_applies_the_same_function() {
    let mut scene = MaskedScene::start(&masked(&usual_rules())).await;
    for (name, status) in [("ada", "active"), ("bob", "draft"), ("eve", "active")] {
        scene.write(name, status).await;
    }
    let before = scene.replicas.live(STAGING).await;
    // A backfill of an empty replica writes what the stream wrote.
    scene.replicas.lose(STAGING).await;
    let filled = scene.task(json!({"task": "backfill", "replica": "staging"})).await;
    assert_eq!((filled["staging.written"], filled["staging.filtered"]), (2, 1));
    assert_eq!(scene.replicas.live(STAGING).await, before);
    // A masked item is not a difference, an unmasked one is, and so is an item that the filter leaves out.
    assert_eq!(differences(&scene.verify().await, "staging"), 0);
    let mut unmasked = scene.replicas.scene.item(STAGING, "ada").await.unwrap();
    unmasked.insert("email".to_owned(), text("ada@example.com"));
    scene.replicas.scene.put(STAGING, unmasked.clone()).await;
    let mut draft = unmasked;
    draft.extend(person("bob", "draft"));
    scene.replicas.scene.put(STAGING, draft).await;
    let found = scene.verify().await;
    assert_eq!((found["staging.different"], found["staging.resurrected"]), (1, 1), "{found:?}");
    let repaired = scene.task(json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0})).await;
    assert_eq!(repaired["staging.repaired"], 2);
    assert_eq!(scene.replicas.live(STAGING).await, before);
    assert_eq!(differences(&scene.verify().await, "staging"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn value_that_cannot_be_masked_is_quarantined_and_redriven_once_it_can() {
    let rules = json!({"include": ["user_id", "timestamp", "status", "name"], "truncate": {"name": 3}});
    let mut scene = MaskedScene::start(&masked(&rules)).await;
    let mut wrong = person("ada", "active");
    wrong.insert("name".to_owned(), aws_sdk_dynamodb::types::AttributeValue::N("7".to_owned()));
    assert_eq!(scene.replicas.write(&scene.replicator, wrong).await, None);
    let objects = scene.replicas.scene.objects("quarantine/replicator/staging/").await;
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert!(scene.statuses().await.is_empty());
    assert_eq!(scene.replicas.live(COPY).await.len(), 1, "the other replica has it");
    let found = scene.verify().await;
    assert_eq!(found.get("staging.quarantined"), Some(&1), "{found:?}");
    let kept = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(kept.get("redrive.skipped"), Some(&1), "{kept:?}");
    scene.replicas.scene.put(SOURCE, person("ada", "active")).await;
    let redriven = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(redriven.get("redrive.redriven"), Some(&1), "{redriven:?}");
    let ada = &scene.replicas.live(STAGING).await["ada"];
    assert_eq!(ada["name"].as_s().unwrap(), "The");
}

/// The change of an item of the source from one status to another, as the stream delivers it.
async fn status_change(scene: &MaskedScene, number: u64, name: &str, statuses: [Option<&str>; 2]) -> Value {
    let image = |status: Option<&str>| {
        status.map(|status| json!({
        "user_id": {"S": name}, "timestamp": {"N": "1"}, "status": {"S": status}, "email": {"S": "a@example.com"},
    }))
    };
    let label = scene.replicas.label().await;
    let event = EventBuilder::image(name, number, &image(statuses[1].or(statuses[0])).unwrap().to_string());
    let mut record = scene.replicas.scene.record(event, &label);
    record["eventName"] = json!(match statuses {
        [None, _] => "INSERT",
        [_, None] => "REMOVE",
        _ => "MODIFY",
    });
    let [before, after] = statuses.map(image);
    let change = record["dynamodb"].as_object_mut().unwrap();
    change.remove("NewImage");
    change.extend(before.map(|image| ("OldImage".to_owned(), image)));
    change.extend(after.map(|image| ("NewImage".to_owned(), image)));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_leaves_no_trace_of_an_item_that_the_filter_has_always_excluded() {
    let scene = MaskedScene::start(&masked(&usual_rules())).await;
    let (active, draft) = (Some("active"), Some("draft"));
    scene.replicas.scene.put(SOURCE, scene.person("draft", "draft")).await;
    scene.replicas.scene.put(SOURCE, scene.person("active", "active")).await;
    let mut records = Vec::new();
    for (number, (name, statuses)) in (1..).zip([
        ("draft", [None, draft]),
        ("draft", [draft, draft]),
        ("deleted-draft", [draft, None]),
        ("active", [draft, active]),
        // The next delivery of these would write the item, or its tombstone.
        ("deleted", [None, active]),
        ("left", [active, draft]),
    ]) {
        records.push(status_change(&scene, number, name, statuses).await);
    }
    scene.replicas.scene.give_up("replicator", records, false).await;
    let dry = scene.task(json!({"task": "redrive"})).await;
    assert_eq!(dry.get("redrive.would_redrive"), Some(&1), "{dry:?}");
    let redriven = scene.task(json!({"task": "redrive", "dry_run": false})).await;
    assert_eq!(redriven.get("redrive.redriven"), Some(&1), "{redriven:?}");
    let mut stored: Vec<String> =
        scene.replicas.scene.items(STAGING).await.iter().map(|item| item["user_id"].as_s().unwrap().clone()).collect();
    stored.sort();
    assert_eq!(stored, ["active", "deleted", "left"], "no tombstone shows the key of an excluded item");
    assert_eq!(scene.statuses().await, owned(&[("active", "active")]));
    assert_eq!(scene.replicas.scene.items(COPY).await.len(), 5, "the other replica has every item and tombstone");
    assert_eq!(differences(&scene.verify().await, "staging"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_for_a_key_attribute_prevents_the_start() {
    let scene = ReplicasScene::start().await;
    for (rules, part) in [
        (json!({"include": ["user_id"]}), "/replicas/1/attributes/include lacks timestamp"),
        (json!({"hash": {"user_id": "pii"}}), "/replicas/1/attributes/hash/user_id names user_id, a key attribute"),
    ] {
        let environment = masked(&rules);
        let error = scene.replicator_in(&environment).check().await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let document = environment.get("REPLICATION").unwrap();
        let maintenance = scene.maintenance_in(&environment, document).await;
        let refused = to_its_end(&maintenance, json!({"task": "verify"}), Duration::from_mins(1)).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(part), "{refused}");
    }
}

/// Creates the table of the replica `staging` again, with an index whose key has the attributes `email` and `total`.
async fn create_indexed_staging(dynamodb: &aws_sdk_dynamodb::Client) {
    dynamodb.delete_table().table_name(STAGING).send().await.unwrap();
    let definition =
        |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
    let key = |name: &str, role| KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap();
    let index = GlobalSecondaryIndex::builder()
        .index_name("by-total")
        .key_schema(key("email", KeyType::Hash))
        .key_schema(key("total", KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::All).build());
    let create = dynamodb.create_table().table_name(STAGING).billing_mode(BillingMode::PayPerRequest);
    let create = create.key_schema(key("user_id", KeyType::Hash)).key_schema(key("timestamp", KeyType::Range));
    let kinds = [
        ("user_id", ScalarAttributeType::S),
        ("timestamp", ScalarAttributeType::N),
        ("email", ScalarAttributeType::S),
        ("total", ScalarAttributeType::N),
    ];
    let definitions = kinds.map(|(name, kind)| definition(name, kind).unwrap());
    let create = create.set_attribute_definitions(Some(definitions.to_vec()));
    create.global_secondary_indexes(index.build().unwrap()).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_whose_values_an_index_of_the_replica_rejects_prevents_the_start() {
    let scene = ReplicasScene::start().await;
    create_indexed_staging(&scene.scene.dynamodb).await;
    let pointer = |rule: &str| format!("/replicas/1/attributes/{rule}");
    for (rules, rule) in [
        (json!({"hash": {"total": "pii"}}), "hash/total makes a string (S) of total"),
        (json!({"hash": {"sum": "pii"}, "rename": {"sum": "total"}}), "hash/sum makes a string (S) of sum"),
        (json!({"truncate": {"total": 4}}), "truncate/total cuts only a string (S)"),
        (json!({"truncate": {"email": 0}}), "truncate/email makes an empty string of email"),
    ] {
        let environment = masked(&rules);
        let error = scene.replicator_in(&environment).check().await.unwrap_err().to_string();
        let document = environment.get("REPLICATION").unwrap();
        let maintenance = scene.maintenance_in(&environment, document).await;
        let refused = to_its_end(&maintenance, json!({"task": "verify"}), Duration::from_mins(1)).await;
        for error_text in [error, refused.unwrap_err().to_string()] {
            assert!(
                error_text.contains(&pointer(rule)) && error_text.contains("of the index by-total of"),
                "{error_text}"
            );
            assert!(error_text.contains(STAGING) && error_text.contains("exclude"), "{error_text}");
        }
    }
    let rules = json!({"hash": {"email": "pii"}, "truncate": {"email": 8}, "exclude": ["total"]});
    scene.replicator_in(&masked(&rules)).check().await.unwrap();
    let renamed = json!({"hash": {"total": "pii"}, "rename": {"total": "total_hash"}});
    scene.replicator_in(&masked(&renamed)).check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_that_an_index_rejects_writes_nothing_although_the_table_was_out_of_reach_at_the_start() {
    let mut scene = MaskedScene::start(&masked(&usual_rules())).await;
    create_indexed_staging(&scene.replicas.scene.dynamodb).await;
    let failures_left = Arc::new(AtomicUsize::new(usize::MAX));
    let left = Arc::clone(&failures_left);
    let plan = move |call: &ProxiedCall<'_>| {
        let is_description = call.operation == "DescribeTable" && call.body.contains(STAGING);
        let fewer = |left: usize| left.checked_sub(1);
        if is_description && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            HttpFault::Error(500, "InternalServerError")
        } else {
            HttpFault::None
        }
    };
    let url = proxy::before(scene.replicas.scene.stack.dynamodb_url(), plan).await;
    let retries = RetryConfig::disabled();
    let dynamodb = clients::dynamodb(&url).config().to_builder().retry_config(retries).build();
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(dynamodb);
    let rules = json!({"include": ["user_id", "timestamp", "status", "email"], "truncate": {"email": 0}});
    let config = ReplicatorConfig::parse(&masked(&rules)).unwrap();
    scene.replicator = millrace_replicator::connect(&config, dynamodb, None, None, scene.replicas.scene.s3.clone());
    scene.replicator.check().await.unwrap();

    let ada = scene.person("ada", "active");
    assert!(scene.replicas.write(&scene.replicator, ada.clone()).await.is_some(), "the table is not described");
    // A description that succeeds after the rules could not be checked must not let the batch pass.
    failures_left.store(1, Ordering::Relaxed);
    assert!(scene.replicas.deliver(&scene.replicator, &ada).await.is_some(), "the rules are not checked");
    assert!(scene.statuses().await.is_empty(), "nothing is written before the rules are checked");
    failures_left.store(0, Ordering::Relaxed);
    let error = scene.replicas.refused(&scene.replicator, &ada).await;
    assert!(error.contains("/replicas/1/attributes/truncate/email makes an empty string of email"), "{error}");
    assert!(scene.statuses().await.is_empty(), "nothing is written with the rule");
    assert!(scene.replicas.scene.objects("quarantine/").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_rewrites_the_hashes_after_a_rotation_of_the_key() {
    let mut scene = MaskedScene::start(&masked(&usual_rules())).await;
    for (name, email) in [("ada", "same@example.com"), ("eve", "same@example.com"), ("bob", "other@example.com")] {
        let mut item = person(name, "active");
        item.insert("email".to_owned(), text(email));
        assert_eq!(scene.replicas.write(&scene.replicator, item).await, None);
    }
    scene.write("gone", "active").await;
    scene.write("gone", "draft").await;
    let former = scene.replicas.live(STAGING).await;
    let rotated = masked_with("the next key for the hashes of tests", &usual_rules());
    // The functions start again with the new key. Until a repair has passed, each start reports the replica.
    scene.maintenance = scene.replicas.maintenance_in(&rotated, rotated.get("REPLICATION").unwrap()).await;
    scene.replicator = scene.replicas.replicator_in(&rotated);
    assert_eq!(outdated(&scene, &rotated).await, ["staging"]);
    assert_eq!(differences(&scene.verify().await, "staging"), 3);
    scene.write("new", "active").await;
    assert_eq!(scene.repair(0, 1).await["staging.repaired"], 3);
    let now = scene.replicas.live(STAGING).await;
    for name in ["ada", "eve", "bob"] {
        assert_ne!(now[name]["email"], former[name]["email"], "{name}");
        assert_eq!(now[name]["status"], former[name]["status"], "{name}");
    }
    assert_eq!(now["ada"]["email"], now["eve"]["email"], "equal values still have equal hashes");
    assert_ne!(now["ada"]["email"], now["bob"]["email"]);
    assert!(!now.contains_key("gone") && now.contains_key("new"), "{now:?}");
    assert_eq!(differences(&scene.verify().await, "staging"), 0);
    assert!(outdated(&scene, &rotated).await.is_empty());
}

/// Starts the maintenance function in this environment, and repairs every replica completely.
async fn repair_completely(scene: &mut MaskedScene, environment: &Environment) {
    let document = environment.get("REPLICATION").unwrap();
    scene.maintenance = scene.replicas.maintenance_in(environment, document).await;
    scene.repair(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_that_a_function_with_the_former_rules_may_outlast_does_not_confirm_the_rules() {
    let (first, next) = (masked(&usual_rules()), masked(&json!({"include": ["user_id", "timestamp", "status"]})));
    let mut scene = MaskedScene::start(&first).await;
    scene.write("ada", "active").await;
    repair_completely(&mut scene, &first).await;
    assert!(outdated(&scene, &first).await.is_empty());
    // The times of objects in S3 are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // An execution environment with the first rules is still processing a batch.
    assert_eq!(outdated(&scene, &next).await, ["staging"]);
    scene.maintenance = scene.replicas.maintenance_in(&next, next.get("REPLICATION").unwrap()).await;
    let repair = json!({"task": "repair", "dry_run": false, "recheck_after_seconds": 0});
    let log = logged(async {
        let repaired = scene.task(repair.clone()).await;
        assert_eq!(repaired["staging.repaired"], 1, "it is made nevertheless: {repaired:?}");
        assert_eq!(repaired["staging.unconfirmed_segments"], 1, "{repaired:?}");
    });
    let log = log.await.join("\n");
    assert!(log.contains("repeat the repair at 20"), "{log}");
    scene.write("ada", "active").await;
    assert!(scene.replicas.live(STAGING).await["ada"].contains_key("email"), "by the first rules");
    assert_eq!(outdated(&scene, &next).await, ["staging"]);
    let repaired = scene.repair(0, 1).await;
    assert_eq!(repaired["staging.repaired"], 1, "{repaired:?}");
    assert!(!repaired.contains_key("staging.unconfirmed_segments"), "{repaired:?}");
    assert!(!scene.replicas.live(STAGING).await["ada"].contains_key("email"));
    assert!(outdated(&scene, &next).await.is_empty());
}

/// A hash key can be replaced, and an environment can start with it, long before the last one with the former key ends.
#[tokio::test(flavor = "multi_thread")]
async fn environment_that_continues_with_the_former_rules_prevents_the_confirmation_of_the_new_ones() {
    let (first, next) = (masked(&usual_rules()), masked(&json!({"include": ["user_id", "timestamp", "status"]})));
    let mut scene = MaskedScene::start(&first).await;
    scene.write("ada", "active").await;
    assert_eq!(outdated(&scene, &next).await, ["staging"]);
    // The times of objects in S3 are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    scene.maintenance = scene.replicas.maintenance_in(&next, next.get("REPLICATION").unwrap()).await;
    // Longer than the interval of the records.
    scene.replicas.ahead = Duration::from_mins(6);
    scene.write("ada", "active").await;
    assert_eq!(scene.repair(0, 1).await["staging.unconfirmed_segments"], 1, "the former rules are in use");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(outdated(&scene, &next).await, ["staging"]);
    let repaired = scene.repair(0, 1).await;
    assert!(!repaired.contains_key("staging.unconfirmed_segments"), "{repaired:?}");
    assert!(outdated(&scene, &next).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_of_a_task_than_those_of_the_replicator_require_a_repair() {
    let (first, next) = (masked(&usual_rules()), masked(&json!({"include": ["user_id", "timestamp", "status"]})));
    let mut scene = MaskedScene::start(&first).await;
    scene.write("ada", "active").await;
    repair_completely(&mut scene, &first).await;
    for task in ["repair", "backfill"] {
        assert!(outdated(&scene, &first).await.is_empty());
        // The times of objects in S3 are whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        scene.maintenance = scene.replicas.maintenance_in(&next, next.get("REPLICATION").unwrap()).await;
        if task == "repair" {
            let repaired = scene.repair(0, 1).await;
            assert_eq!((repaired["staging.repaired"], repaired["staging.unconfirmed_segments"]), (1, 1));
        } else {
            scene.replicas.lose(STAGING).await;
            assert_eq!(scene.task(json!({"task": "backfill"})).await["staging.written"], 1);
        }
        assert_eq!(outdated(&scene, &first).await, ["staging"], "the replica has an item of the next rules: {task}");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        repair_completely(&mut scene, &first).await;
    }
    // Tasks that write nothing do not matter.
    scene.maintenance = scene.replicas.maintenance_in(&next, next.get("REPLICATION").unwrap()).await;
    scene.verify().await;
    scene.task(json!({"task": "repair", "recheck_after_seconds": 0})).await;
    scene.task(json!({"task": "redrive"})).await;
    assert!(outdated(&scene, &first).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_with_rules_that_are_not_recorded() {
    let (first, next) = (masked(&usual_rules()), masked(&json!({"include": ["user_id", "timestamp", "status"]})));
    let mut scene = MaskedScene::start(&first).await;
    repair_completely(&mut scene, &first).await;
    assert!(outdated(&scene, &first).await.is_empty());

    let is_refusing = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&is_refusing);
    let plan = move |_: &ProxiedCall<'_>| {
        if refuses.load(Ordering::Relaxed) { HttpFault::Error(503, "SlowDown") } else { HttpFault::None }
    };
    let url = proxy::before(scene.replicas.scene.stack.s3_url(), plan).await;
    let s3 = clients::s3(&url).config().to_builder().retry_config(RetryConfig::disabled()).build();
    let (s3, dynamodb) = (aws_sdk_s3::Client::from_conf(s3), scene.replicas.scene.dynamodb.clone());
    let config = ReplicatorConfig::parse(&next).unwrap();
    scene.replicator = millrace_replicator::connect(&config, dynamodb, None, None, s3);
    scene.replicator.check().await.unwrap();
    let ada = scene.person("ada", "active");
    let log = logged(async {
        assert!(scene.replicas.write(&scene.replicator, ada.clone()).await.is_some(), "Lambda redelivers the change");
    });
    let log = log.await.join("\n");
    assert!(log.contains("before the rules of the replica are recorded in FAILURE_BUCKET"), "{log}");
    assert!(scene.statuses().await.is_empty(), "nothing is written with the next rules");
    assert!(outdated(&scene, &first).await.is_empty(), "the former rules still hold for every item");

    is_refusing.store(false, Ordering::Relaxed);
    assert_eq!(scene.replicas.deliver(&scene.replicator, &ada).await, None);
    assert_eq!(scene.statuses().await, owned(&[("ada", "active")]));
    assert_eq!(outdated(&scene, &first).await, ["staging"], "the replica has an item of the next rules");
}

#[tokio::test(flavor = "multi_thread")]
async fn same_rules_at_another_table_need_a_repair() {
    const OTHER: &str = "UsersStagingOther";
    let first = masked(&usual_rules());
    let mut scene = MaskedScene::start(&first).await;
    repair_completely(&mut scene, &first).await;
    assert!(outdated(&scene, &first).await.is_empty());
    create_table(&scene.replicas.scene.dynamodb, OTHER, USERS.key).await;
    let document = first.get("REPLICATION").unwrap().replace(STAGING, OTHER);
    let other = first.clone().with("REPLICATION", document);
    assert_eq!(outdated(&scene, &other).await, ["staging"], "that table may have items of other rules");
    repair_completely(&mut scene, &other).await;
    assert!(outdated(&scene, &other).await.is_empty());
    // The times of objects in S3 are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(outdated(&scene, &first).await, ["staging"], "the changes since then are in the other table");
}

/// Starts the replicator; returns the replicas that it reports as outdated.
pub(crate) async fn outdated(scene: &MaskedScene, environment: &Environment) -> Vec<String> {
    let log = logged(async { scene.replicas.replicator_in(environment).check().await.unwrap() }).await;
    let lines = log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let reported = lines.filter(|line| line["message"].as_str().unwrap().contains("items of other rules"));
    reported.map(|line| line["sink"].as_str().unwrap().to_owned()).collect()
}

/// Every byte that the masked replica, the reports and the results of tasks contain.
pub(crate) async fn everything_masked(scene: &MaskedScene) -> String {
    let mut all = format!("{:?}", scene.replicas.scene.items(STAGING).await);
    for key in scene.replicas.scene.objects("reports/").await {
        all.push_str(&key);
        all.push_str(&String::from_utf8_lossy(&scene.replicas.scene.object(&key).await));
    }
    all
}

/// A metrics recorder that keeps the names and the dimensions of everything that is recorded.
#[derive(Default)]
struct RecordedNames(Mutex<String>);

impl RecordedNames {
    fn keep(&self, key: &Key) {
        let mut names = self.0.lock().unwrap();
        writeln!(names, "{key:?}").unwrap();
    }
}

impl Recorder for RecordedNames {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.keep(key);
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.keep(key);
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.keep(key);
        Histogram::noop()
    }
}

/// Runs the future; returns the log lines and the metrics of the functions as one text.
pub(super) async fn observed(doing: impl Future<Output = ()>) -> String {
    let names = RecordedNames::default();
    let log = {
        let _recording = metrics::set_default_local_recorder(&names);
        logged(doing).await
    };
    let metrics = names.0.into_inner().unwrap();
    assert!(log.iter().any(|line| line.contains("batch handled")), "the log has been read");
    assert!(metrics.contains("AppliedChanges"), "the metrics have been read");
    log.join("\n") + &metrics
}

/// As [`replicate_people`]; also returns the log lines and the metrics of the functions as one text.
pub(crate) async fn replicate_people_observed(scene: &mut MaskedScene, count: usize) -> (Vec<String>, String) {
    let mut personal = Vec::new();
    let observed = observed(Box::pin(async { personal = replicate_people(scene, count).await })).await;
    (personal, observed)
}

/// Writes people with distinct personal values, lets some leave the filter, some fail and some be lost, and runs every
/// task; returns the values, none of which may be found.
async fn replicate_people(scene: &mut MaskedScene, count: usize) -> Vec<String> {
    let mut personal = Vec::new();
    for number in 0..count {
        let user_id = format!("u{number:04}");
        let mut item = scene.person(&user_id, if number % 7 == 0 { "draft" } else { "active" });
        for (position, name) in ["name", "email", "phone", "street", "note"].iter().enumerate() {
            let value = format!("personal-{position}-{number:04}-x");
            item.insert((*name).to_owned(), text(&value));
            personal.push(value);
        }
        assert_eq!(scene.replicas.write(&scene.replicator, item.clone()).await, None);
        if number % 5 == 0 {
            item.insert("status".to_owned(), text("draft"));
            assert_eq!(scene.replicas.write(&scene.replicator, item).await, None);
        }
    }
    // A poison record, a lost item and an unmasked status, so that reports have entries.
    let mut poison = scene.person("u0001", "active");
    poison.insert("email".to_owned(), text("personal-1-0001-x"));
    poison.insert("status".to_owned(), text("active"));
    poison.insert("_rev".to_owned(), text("mine"));
    assert_eq!(scene.replicas.write(&scene.replicator, poison).await, None);
    scene.replicas.scene.delete(STAGING, "u0002").await;
    let mut changed = scene.replicas.scene.item(STAGING, "u0003").await.unwrap();
    changed.insert("status".to_owned(), text("changed"));
    scene.replicas.scene.put(STAGING, changed).await;
    for task in [
        json!({"task": "verify", "run_id": "v1", "recheck_after_seconds": 0}),
        json!({"task": "repair", "run_id": "r1", "recheck_after_seconds": 0}),
        json!({"task": "repair", "run_id": "r2", "dry_run": false, "recheck_after_seconds": 0}),
        json!({"task": "redrive", "run_id": "d1", "dry_run": false}),
        json!({"task": "backfill", "run_id": "b1"}),
        json!({"task": "verify", "run_id": "v2", "recheck_after_seconds": 0}),
    ] {
        scene.task(task).await;
    }
    personal
}

#[tokio::test(flavor = "multi_thread")]
async fn no_personal_value_is_found_in_the_masked_replica_the_reports_the_logs_and_the_metrics() {
    let mut scene = MaskedScene::start(&masked(&usual_rules())).await;
    let (personal, observed) = replicate_people_observed(&mut scene, 200).await;
    assert_eq!(personal.len(), 1_000);
    let all = everything_masked(&scene).await + &observed;
    assert!(all.contains("u0004"), "the replica has been read");
    assert!(!scene.replicas.scene.objects("reports/").await.is_empty(), "the reports have been read");
    let found: Vec<&String> = personal.iter().filter(|value| all.contains(*value)).collect();
    assert!(found.is_empty(), "{found:?}");
}
