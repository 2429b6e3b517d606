//! Tasks over several DynamoDB replicas, as a replication document declares them: the story of a replica that fails, is
//! lost, filled, verified, repaired and redriven, while the other one is not touched.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::routing::get;
use millrace_local::clients;
use millrace_maintenance::config::MaintenanceConfig;
use millrace_maintenance::deployment::DeployedReplicator;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use millrace_replicator::config::ReplicatorConfig;
use millrace_replicator::{ReplicatorError, ReplicatorHandler};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::invocation::Invocation;
use millrace_shared::stream::BatchResponse;
use millrace_sinks::SINK_SETTINGS;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::scene::{
    ARCHIVE, ArchiveMode, FAILURES, MaintenanceScene, SOURCE, SceneItem, invoke, key, to_its_end, user,
};
use crate::replication::events::EventBuilder;
use crate::replication::rig::create_table;
use crate::table_shape::{GUARANTEED, TableShape, USERS};

pub(crate) const COPY: &str = "UsersCopy";
pub(crate) const STAGING: &str = "UsersStaging";

fn replica(name: &str, table: &str) -> Value {
    json!({"name": name, "sink": "dynamodb", "table": table})
}

fn document(replicas: &[Value]) -> String {
    json!({"version": 1, "replicas": replicas}).to_string()
}

pub(crate) fn environment(document: &str) -> Environment {
    let variables = [
        ("REPLICATION", document),
        ("SOURCE_TABLE", SOURCE),
        ("FAILURE_BUCKET", FAILURES),
        ("ARCHIVE_BUCKET", ARCHIVE),
        ("REPLICATOR_FUNCTION", "replicator"),
        ("ARCHIVER_FUNCTION", "archiver"),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A local stack, and two more tables: the replicas `copy` and `staging` of a document.
pub(crate) struct ReplicasScene {
    pub(crate) scene: MaintenanceScene,
    number: u64,
    /// The time that is added to that of the replicator's invocations.
    pub(crate) ahead: Duration,
}

impl ReplicasScene {
    pub(crate) async fn start() -> Self {
        Self::with_shape(USERS).await
    }

    /// Starts a scene for each table over which the guarantees are tested.
    pub(crate) async fn of_each_shape() -> Vec<Self> {
        futures::future::join_all(GUARANTEED.map(Self::with_shape)).await
    }

    async fn with_shape(shape: TableShape) -> Self {
        let scene = MaintenanceScene::with_shape(shape, ArchiveMode::Separate).await;
        for table in [COPY, STAGING] {
            create_table(&scene.dynamodb, table, shape.key).await;
        }
        Self { scene, number: 0, ahead: Duration::ZERO }
    }

    /// The environment of the functions for the table of the scene, with this document.
    pub(crate) fn environment(&self, document: &str) -> Environment {
        let source = self.scene.source();
        let bucket = |purpose: &str| format!("{}-{purpose}", source.to_lowercase());
        let environment = environment(document).with("SOURCE_TABLE", source.to_owned());
        environment.with("FAILURE_BUCKET", bucket("failures")).with("ARCHIVE_BUCKET", bucket("archive"))
    }

    fn both() -> String {
        document(&[replica("copy", COPY), replica("staging", STAGING)])
    }

    /// The replicator with this document.
    fn replicator(&self, document: &str) -> ReplicatorHandler {
        self.replicator_in(&environment(document))
    }

    pub(crate) fn replicator_in(&self, environment: &Environment) -> ReplicatorHandler {
        let config = ReplicatorConfig::parse(environment).unwrap();
        millrace_replicator::connect(&config, self.scene.dynamodb.clone(), None, None, self.scene.s3.clone())
    }

    /// The maintenance function with this document, for which Lambda returns `deployed` as that of the replicator.
    async fn maintenance(&self, document: &str, deployed: &str) -> MaintenanceHandler {
        self.maintenance_in(&environment(document), deployed).await
    }

    pub(crate) async fn maintenance_in(&self, environment: &Environment, deployed: &str) -> MaintenanceHandler {
        let config = MaintenanceConfig::parse(environment).unwrap();
        let configuration = json!({"Environment": {"Variables": {"REPLICATION": deployed}}});
        let respond = move || async move { axum::Json(configuration) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replicator = clients::lambda(&format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(get(respond))).await });
        let clients = AwsClients {
            source: self.scene.dynamodb.clone(),
            replicas: self.scene.dynamodb.clone().into(),
            signer: None,
            s3: self.scene.s3.clone(),
            // The mappings are those of the stack.
            lambda: clients::lambda(self.scene.stack.api_url()),
        };
        let mut maintenance = millrace_maintenance::connect(&config, clients);
        maintenance.deployment = DeployedReplicator::new(replicator, "replicator".to_owned(), SINK_SETTINGS.to_vec())
            .with_documents(self.scene.s3.clone());
        maintenance
    }

    /// Writes an item to the source and delivers its change to the replicator; returns the position of the response.
    pub(crate) async fn write(&mut self, replicator: &ReplicatorHandler, item: SceneItem) -> Option<String> {
        self.scene.put(self.scene.source(), item.clone()).await;
        self.deliver(replicator, &item).await
    }

    /// Delivers the change that this item has been written to the source; returns the position of the response.
    pub(crate) async fn deliver(&mut self, replicator: &ReplicatorHandler, item: &SceneItem) -> Option<String> {
        self.invoke(replicator, item).await.unwrap().identifier().map(str::to_owned)
    }

    /// Delivers the change that this item has been written to the source; returns the error of the invocation.
    pub(crate) async fn refused(&mut self, replicator: &ReplicatorHandler, item: &SceneItem) -> String {
        self.invoke(replicator, item).await.unwrap_err().to_string()
    }

    async fn invoke(
        &mut self,
        replicator: &ReplicatorHandler,
        item: &SceneItem,
    ) -> Result<BatchResponse, ReplicatorError> {
        self.number += 1;
        let shape = self.scene.shape;
        let user_id = shape.user_id(item);
        // The image has the key of a user until the scene translates the record.
        let mut image = item.clone();
        image.retain(|name, _| shape.key.iter().all(|(key, _)| key != name));
        image.extend(USERS.key(&user_id, "1"));
        let image =
            json!(image.iter().map(|(name, value)| (name.clone(), attribute(value))).collect::<HashMap<_, _>>());
        let label = self.label().await;
        let change = self.scene.record(EventBuilder::image(&user_id, self.number, &image.to_string()), &label);
        let event = RawValue::from_string(json!({"Records": [change]}).to_string()).unwrap();
        let time = Duration::from_mins(1);
        let invocation =
            Invocation::new(Clock::system().now() + self.ahead, Instant::now(), time, "request-1".to_owned());
        replicator.handle(&event, &invocation).await
    }

    /// The label of the source's stream.
    pub(crate) async fn label(&self) -> String {
        let table = self.scene.dynamodb.describe_table().table_name(self.scene.source()).send().await;
        let table = table.unwrap().table.unwrap();
        table.latest_stream_label.unwrap()
    }

    /// The live items of a table by user, without the attributes that replication adds.
    pub(crate) async fn live(&self, table: &str) -> HashMap<String, SceneItem> {
        self.scene.live(table).await
    }

    pub(crate) async fn lose(&self, table: &str) {
        for item in self.scene.items(table).await {
            self.scene.delete(table, &self.scene.shape.user_id(&item)).await;
        }
    }

    /// The revisions in a table, which show whether it was written.
    async fn revisions(&self, table: &str) -> HashMap<String, AttributeValue> {
        let items = self.scene.items(table).await.into_iter();
        items.map(|item| (item["user_id"].as_s().unwrap().clone(), item["_rev"].clone())).collect()
    }
}

/// A value in DynamoDB JSON.
fn attribute(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        other => panic!("{other:?}"),
    }
}

async fn run(maintenance: &MaintenanceHandler, order: Value) -> millrace_maintenance::task::TaskResponse {
    to_its_end(maintenance, order, Duration::from_mins(1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_filled_verified_repaired_and_redriven_by_its_name() {
    let mut replicas = ReplicasScene::start().await;
    let both = ReplicasScene::both();
    let replicator = replicas.replicator(&both);
    replicator.check().await.unwrap();
    for user_id in ["ada", "bob", "cleo"] {
        assert_eq!(replicas.write(&replicator, user(user_id, "First")).await, None);
    }
    let source = replicas.live(SOURCE).await;
    assert_eq!((replicas.live(COPY).await, replicas.live(STAGING).await), (source.clone(), source.clone()));

    // One replica is lost. The other one is neither read nor written by a task for the lost one.
    let maintenance = replicas.maintenance(&both, &both).await;
    replicas.lose(STAGING).await;
    let before = replicas.revisions(COPY).await;
    let order = json!({"task": "backfill", "run_id": "fill", "replica": "staging"});
    let filled = run(&maintenance, order).await;
    assert_eq!(filled.progress.to_string(), "source.items 3, staging.written 3");
    assert_eq!(filled.sinks, ["staging"]);
    let verified = run(&maintenance, json!({"task": "verify", "run_id": "all", "recheck_after_seconds": 0})).await;
    assert_eq!((verified.differences, verified.sinks), (0, vec!["copy".to_owned(), "staging".to_owned()]));
    for name in ["copy.equal", "staging.equal", "source.items"] {
        assert_eq!(verified.progress.get(name), 3, "{}", verified.progress);
    }

    // A difference in each replica: a task for one finds and repairs its own only.
    replicas.scene.delete(COPY, "ada").await;
    replicas.scene.delete(STAGING, "bob").await;
    let verify =
        |name: Option<&str>| json!({"task": "verify", "run_id": "found", "recheck_after_seconds": 0, "replica": name});
    let of_copy = run(&maintenance, verify(Some("copy"))).await;
    assert_eq!((of_copy.differences, of_copy.progress.get("copy.missing")), (1, 1));
    let of_both = run(&maintenance, verify(None)).await;
    assert_eq!((of_both.differences, of_both.progress.get("staging.missing")), (2, 1));
    let order = json!({"task": "repair", "recheck_after_seconds": 0, "dry_run": false, "replica": "staging"});
    let repaired = run(&maintenance, order).await;
    assert_eq!((repaired.problems, repaired.progress.get("staging.repaired")), (0, 1));
    assert_eq!(replicas.live(STAGING).await, source);
    assert!(!replicas.live(COPY).await.contains_key("ada"), "the repair of staging leaves copy alone");
    let order = json!({"task": "repair", "recheck_after_seconds": 0, "dry_run": false});
    assert_eq!(run(&maintenance, order).await.progress.get("copy.repaired"), 1);
    let after = replicas.revisions(COPY).await;
    assert!(before.iter().filter(|(user_id, _)| *user_id != "ada").all(|(user_id, rev)| after[user_id] == *rev));

    // A record that only one replica cannot store is quarantined under its name, and redriven for it alone.
    let mut foreign = key("dan");
    foreign.insert("_rev".to_owned(), AttributeValue::S("7".to_owned()));
    replicas.scene.put(STAGING, foreign).await;
    assert_eq!(replicas.write(&replicator, user("dan", "Dan")).await, None);
    let [object] = &replicas.scene.objects("quarantine/replicator/staging/").await[..] else { panic!("one object") };
    assert!(replicas.scene.objects("quarantine/replicator/copy/").await.is_empty());
    replicas.scene.delete(STAGING, "dan").await;
    let redrive = |name: &str| json!({"task": "redrive", "run_id": name, "dry_run": false, "replica": name});
    let of_copy = run(&maintenance, redrive("copy")).await;
    assert_eq!(of_copy.progress.get("redrive.objects"), 0, "the object is not of copy");
    assert_eq!(replicas.scene.objects(object).await, [object.as_str()]);
    let of_staging = run(&maintenance, redrive("staging")).await;
    assert_eq!((of_staging.progress.get("redrive.redriven"), of_staging.progress.get("redrive.written")), (1, 1));
    assert!(replicas.scene.objects("quarantine/").await.is_empty());
    let verified = run(&maintenance, verify(None)).await;
    assert_eq!((verified.differences, verified.problems), (0, 0), "{}", verified.progress);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_replica_is_rejected_with_the_known_names() {
    let replicas = ReplicasScene::start().await;
    let both = ReplicasScene::both();
    let maintenance = replicas.maintenance(&both, &both).await;
    for task in ["backfill", "verify", "repair", "redrive"] {
        let order = json!({"task": task, "replica": "stagin"});
        let error = invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(error.kind().as_str(), "TaskInvalid");
        let expected =
            "replica is \"stagin\", which is not configured: set it to one of copy, staging; did you mean \"staging\"?";
        assert_eq!(error.to_string(), expected, "{task}");
        let order = json!({"task": task, "replica": "No such"});
        let error = invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap_err().to_string();
        assert!(error.contains("replica is \"No such\": set it to the name of a replica"), "{error}");
    }
    let order = json!({"task": "redrive", "replica": "copy", "prefix": "aws/lambda/"});
    let error = invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap_err().to_string();
    assert!(error.contains("set it to a prefix that begins with quarantine/replicator/copy/"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_continues_with_the_replicas_of_its_run_in_any_order_and_with_no_others() {
    let replicas = ReplicasScene::start().await;
    replicas.scene.fill(3, 10).await;
    let both = ReplicasScene::both();
    let maintenance = replicas.maintenance(&both, &both).await;
    run(&maintenance, json!({"task": "backfill"})).await;
    replicas.scene.delete(STAGING, "u00001").await;
    // The first invocation has compared `copy`, and continues with `staging`.
    let start = json!({"task": "verify", "run_id": "r", "segment": 0, "segments": 1, "part": 0, "progress": {},
        "differences": 0, "problems": 0, "replicas": ["copy", "staging"],
        "at": {"sink": 1, "source": "Start", "replica": "Start"}});
    let order = json!({"task": "verify", "recheck_after_seconds": 0, "cursor": start});
    let reordered = document(&[replica("staging", STAGING), replica("copy", COPY)]);
    for deployed in [&both, &reordered] {
        let maintenance = replicas.maintenance(deployed, deployed).await;
        let rest = run(&maintenance, order.clone()).await;
        assert_eq!(
            (rest.progress.get("staging.missing"), rest.progress.get("copy.items")),
            (1, 0),
            "{}",
            rest.progress
        );
    }
    let third = document(&[replica("copy", COPY), replica("staging", STAGING), replica("third", "UsersReplica")]);
    let renamed = document(&[replica("copy", COPY), replica("test", STAGING)]);
    for other in [&third, &renamed] {
        let maintenance = replicas.maintenance(other, other).await;
        let error = invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(error.kind().as_str(), "TaskInvalid");
        let text = error.to_string();
        assert!(
            text.contains("run over the replicas [\"copy\", \"staging\"]") && text.contains("start over"),
            "{text}"
        );
    }
    let mut filtered = order.clone();
    filtered["replica"] = json!("copy");
    let error = invoke(&maintenance, &filtered, Duration::from_mins(1)).await.unwrap_err().to_string();
    assert!(error.contains("would now process [\"copy\"]"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_the_deployment_that_is_not_configured_is_named_with_the_variable() {
    let replicas = ReplicasScene::start().await;
    let (both, one) = (ReplicasScene::both(), document(&[replica("copy", COPY)]));
    replicas.scene.s3.create_bucket().bucket("orders-config").send().await.unwrap();
    let put = replicas.scene.s3.put_object().bucket("orders-config").key("v1.json");
    put.body(both.clone().into_bytes().into()).send().await.unwrap();
    for deployed in [both.as_str(), "s3://orders-config/v1.json"] {
        let maintenance = replicas.maintenance(&one, deployed).await;
        for task in ["backfill", "verify", "repair"] {
            let order = json!({"task": task, "recheck_after_seconds": null});
            let error = invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap_err();
            assert_eq!(error.kind().as_str(), "TaskPreconditionFailed");
            let text = error.to_string();
            assert!(text.contains("sink staging") && text.contains("set REPLICATION"), "{text}");
        }
        // A task for one replica does not depend on the others.
        let order = json!({"task": "verify", "replica": "copy"});
        invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap();
    }
    for (deployed, reason) in [
        ("s3://orders-config/none.json", "bucket orders-config has no object none.json"),
        ("{\"version\":7}", "REPLICATION /version is 7"),
        ("s3://orders-config", "s3://<bucket>/<key>"),
    ] {
        let maintenance = replicas.maintenance(&one, deployed).await;
        let error = invoke(&maintenance, &json!({"task": "verify"}), Duration::from_mins(1)).await.unwrap_err();
        assert!(error.kind().as_str() == "TaskPreconditionFailed" && error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_replica_that_is_not_configured_is_skipped_with_the_reason() {
    let mut replicas = ReplicasScene::start().await;
    let replicator = replicas.replicator(&ReplicasScene::both());
    let poison = AttributeValue::S("x".to_owned());
    let mut item = user("eve", "Eve");
    item.insert("_rev".to_owned(), poison);
    // The replicator of the stack does not receive this record.
    assert_eq!(replicas.deliver(&replicator, &item).await, None);
    replicas.scene.put(SOURCE, user("eve", "Eve")).await;
    let one = document(&[replica("copy", COPY)]);
    let maintenance = replicas.maintenance(&one, &one).await;
    let redriven = run(&maintenance, json!({"task": "redrive", "run_id": "one", "dry_run": false})).await;
    assert_eq!((redriven.progress.get("redrive.redriven"), redriven.progress.get("redrive.skipped")), (1, 1));
    let [object] = &replicas.scene.objects("quarantine/").await[..] else { panic!("one object is left") };
    assert!(object.starts_with("quarantine/replicator/staging/"), "{object}");
    let report = replicas.scene.report("one").await;
    let entry = report.iter().find(|entry| entry["object"] == *object).unwrap();
    let reason = entry["reason"].as_str().unwrap();
    assert!(reason.contains("replica \"staging\", which is not configured: add it to REPLICATION"), "{reason}");
    assert_eq!(replicas.live(COPY).await["eve"], user("eve", "Eve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_cannot_mirror_the_source_is_rejected_before_the_task() {
    let replicas = ReplicasScene::start().await;
    create_table(&replicas.scene.dynamodb, "Other", &[("pk", "S")]).await;
    let other = replica("wrong", "Other");
    // The engine has one Region, so this is the source table.
    let own_source = json!({"name": "wrong", "sink": "dynamodb", "table": SOURCE, "region": "us-east-2"});
    for (wrong, reasons) in [
        (other, ["the replica's key is pk (S)", "the source's key is user_id (S), timestamp (N)"]),
        (
            own_source,
            ["is the source table", "set REPLICATION /replicas/1/table (parameter Replication) to another table"],
        ),
    ] {
        let document = document(&[replica("copy", COPY), wrong]);
        let maintenance = replicas.maintenance(&document, &document).await;
        for task in ["backfill", "verify", "repair", "redrive"] {
            let error = invoke(&maintenance, &json!({"task": task}), Duration::from_mins(1)).await.unwrap_err();
            assert_eq!(error.kind().as_str(), "TaskPreconditionFailed");
            let text = error.to_string();
            assert!(text.contains("sink wrong") && text.contains("REPLICATION /replicas/1/table"), "{text}");
            assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
        }
        let order = json!({"task": "verify", "replica": "copy"});
        invoke(&maintenance, &order, Duration::from_mins(1)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_a_replica_that_stores_items_is_not_verified() {
    let replicas = ReplicasScene::start().await;
    let document = document(&[json!({"name": "archive", "sink": "archive", "records": "expired"})]);
    let maintenance = replicas.maintenance(&document, &document).await;
    let error = invoke(&maintenance, &json!({"task": "verify"}), Duration::from_mins(1)).await.unwrap_err();
    assert_eq!(error.kind().as_str(), "TaskPreconditionFailed");
    assert!(error.to_string().contains("REPLICATION declares no replica to compare"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_prefix_admits_items_with_the_default_names_and_reserves_its_own() {
    let mut replicas = ReplicasScene::start().await;
    let document = document(&[replica("copy", COPY)]);
    let prefixed = environment(&document).with("RESERVED_PREFIX", "mr_".to_owned());
    let replicator = replicas.replicator_in(&prefixed);
    let with = |user_id: &str, name: &str| {
        let mut item = user(user_id, "Ada");
        item.insert(name.to_owned(), AttributeValue::S("mine".to_owned()));
        item
    };
    assert_eq!(replicas.write(&replicator, with("ada", "_rev")).await, None);
    assert_eq!(replicas.write(&replicator, with("bob", "_tombstone_expires_at")).await, None);
    let mut held = replicas.scene.item(COPY, "ada").await.unwrap();
    assert!(held.remove("mr_rev").is_some_and(|revision| revision.is_b()));
    assert_eq!(held, with("ada", "_rev"));
    // The replicator of the stack, with the default prefix, quarantines them under the name `dynamodb`.
    assert!(replicas.scene.objects("quarantine/replicator/copy/").await.is_empty());

    let maintenance = replicas.maintenance_in(&prefixed, &document).await;
    let verify = json!({"task": "verify", "run_id": "equal", "recheck_after_seconds": 0});
    let verified = run(&maintenance, verify.clone()).await;
    assert_eq!((verified.differences, verified.progress.get("copy.equal")), (0, 2), "{}", verified.progress);

    assert_eq!(replicas.deliver(&replicator, &with("eve", "mr_rev")).await, None);
    let [object] = &replicas.scene.objects("quarantine/replicator/copy/").await[..] else { panic!("one object") };
    let body: Value = serde_json::from_slice(&replicas.scene.object(object).await).unwrap();
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.contains("attribute mr_rev, which is reserved") && reason.contains("RESERVED_PREFIX"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_prefix_is_found_by_a_verify_and_corrected_by_a_repair() {
    let mut replicas = ReplicasScene::start().await;
    let document = document(&[replica("copy", COPY)]);
    let before = replicas.replicator(&document);
    for user_id in ["ada", "bob"] {
        assert_eq!(replicas.write(&before, user(user_id, "First")).await, None);
    }
    let maintenance = replicas.maintenance(&document, &document).await;
    replicas.scene.delete(SOURCE, "bob").await;
    let repair = json!({"task": "repair", "run_id": "gone", "recheck_after_seconds": 0, "dry_run": false});
    assert_eq!(run(&maintenance, repair.clone()).await.progress.get("copy.repaired"), 1, "bob has a tombstone");

    let prefixed = environment(&document).with("RESERVED_PREFIX", "mr_".to_owned());
    let maintenance = replicas.maintenance_in(&prefixed, &document).await;
    let verify = json!({"task": "verify", "run_id": "changed", "recheck_after_seconds": 0});
    let found = run(&maintenance, verify.clone()).await;
    assert_eq!((found.differences, found.progress.get("copy.different"), found.progress.get("copy.extra")), (2, 1, 1));
    let report = replicas.scene.report("changed").await;
    let different = report.iter().find(|entry| entry["kind"] == "different").unwrap();
    assert_eq!(different["attributes"], json!(["_rev"]), "the former revision counts as an attribute");
    assert_eq!(run(&maintenance, repair).await.progress.get("copy.repaired"), 2);
    assert_eq!(run(&maintenance, verify).await.differences, 0);
    let ada = replicas.scene.item(COPY, "ada").await.unwrap();
    assert!(ada.contains_key("mr_rev") && !ada.contains_key("_rev"), "{ada:?}");
}
