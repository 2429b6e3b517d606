//! A local stack with its maintenance function, and methods that create differences and failures.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures::{StreamExt as _, stream};
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::template::SourceTable;
use millrace_local::tier::TierServer;
use millrace_maintenance::task::TaskResponse;
use millrace_maintenance::task::summary::is_result;
use millrace_maintenance::{MaintenanceHandler, TaskError};
use millrace_shared::change::CanonicalKey;
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::Revision;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::replication::events::EventBuilder;
use crate::table_shape::{GUARANTEED, ShapeItem, TableShape, USERS};

pub(crate) const SOURCE: &str = USERS.table;
pub(crate) const REPLICA: &str = "UsersReplica";
pub(crate) const FAILURES: &str = "users-failures";
pub(crate) const ARCHIVE: &str = "users-archive";
/// The label of a former stream of the source.
pub(crate) const FORMER: &str = "2020-11-01T08:00:00.000";

pub(crate) type SceneItem = ShapeItem;

pub(crate) struct MaintenanceScene {
    pub(crate) shape: TableShape,
    /// The replica, which this machine names after the source table, as it does the buckets.
    pub(crate) replica: String,
    pub(crate) archive: String,
    failures: String,
    pub(crate) stack: LocalStack,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) s3: aws_sdk_s3::Client,
}

/// The function that archives the items that TTL removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveMode {
    /// The archiver reads the stream.
    Separate,
    /// The archive is a sink of the replicator, and no archiver reads the stream.
    InReplicator,
}

impl ArchiveMode {
    pub(crate) const BOTH: [Self; 2] = [Self::Separate, Self::InReplicator];

    /// The value of the template's parameter `Archive`.
    fn parameter(self) -> &'static str {
        match self {
            Self::Separate => "separate",
            Self::InReplicator => "in-replicator",
        }
    }

    /// The function whose failures concern the archive.
    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::Separate => "archiver",
            Self::InReplicator => "replicator",
        }
    }
}

pub(crate) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn key(user_id: &str) -> SceneItem {
    USERS.key(user_id, "1")
}

pub(crate) fn user(user_id: &str, name: &str) -> SceneItem {
    let mut item = key(user_id);
    item.insert("name".to_owned(), text(name));
    item
}

impl MaintenanceScene {
    pub(crate) async fn start() -> Self {
        Self::with_postgres(TierServer::Off).await
    }

    pub(crate) async fn with_postgres(postgres: TierServer) -> Self {
        Self::with(USERS, StackOptions { postgres, ..StackOptions::default() }).await
    }

    pub(crate) async fn archiving(mode: ArchiveMode) -> Self {
        Self::with_shape(USERS, mode).await
    }

    /// Starts a scene for each table over which the guarantees are tested.
    pub(crate) async fn of_each_shape() -> Vec<Self> {
        futures::future::join_all(GUARANTEED.map(|shape| Self::with_shape(shape, ArchiveMode::Separate))).await
    }

    /// Starts a scene for each table over which the guarantees are tested, and each way to archive its items.
    pub(crate) async fn of_each_shape_and_mode() -> Vec<(ArchiveMode, Self)> {
        let scenes = ArchiveMode::BOTH.into_iter().flat_map(|mode| GUARANTEED.map(|shape| (mode, shape)));
        let start = scenes.map(|(mode, shape)| async move { (mode, Self::with_shape(shape, mode).await) });
        futures::future::join_all(start).await
    }

    /// Starts a stack for a table of this shape: the users service, or the replication of another table by itself.
    pub(crate) async fn with_shape(shape: TableShape, mode: ArchiveMode) -> Self {
        let mut options = Self::options_of(shape);
        options.parameters.insert("Archive".to_owned(), mode.parameter().to_owned());
        Self::with(shape, options).await
    }

    /// The options of a stack for a table of this shape.
    pub(crate) fn options_of(shape: TableShape) -> StackOptions {
        if shape == USERS {
            return StackOptions::default();
        }
        let mut parameters = BTreeMap::from([("SourceTableName".to_owned(), shape.table.to_owned())]);
        for ((name, kind), parameter) in shape.key.iter().zip(["PartitionKey", "SortKey"]) {
            parameters.insert(parameter.to_owned(), format!("{name}:{kind}"));
        }
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/replication.yaml");
        let source = SourceTable { description: None, ttl_attribute: Some(shape.ttl_attribute.to_owned()) };
        StackOptions { template, parameters, source, ..StackOptions::default() }
    }

    /// Starts a stack whose TTL removes items only when a test does so.
    pub(crate) async fn with(shape: TableShape, options: StackOptions) -> Self {
        let never = Duration::from_hours(24);
        let stack = Box::pin(LocalStack::start(StackOptions { ttl_interval: never, ..options })).await.unwrap();
        let bucket = |purpose| format!("{}-{purpose}", shape.table.to_lowercase());
        Self {
            shape,
            replica: format!("{}Replica", shape.table),
            archive: bucket("archive"),
            failures: bucket("failures"),
            dynamodb: stack.dynamodb(),
            s3: stack.s3(),
            stack,
        }
    }

    /// The name of the source table.
    pub(crate) fn source(&self) -> &'static str {
        self.shape.table
    }

    /// The key of the item of a user.
    pub(crate) fn key(&self, user_id: &str) -> SceneItem {
        self.shape.key(user_id, "1")
    }

    /// The item of a user, with a name.
    pub(crate) fn user(&self, user_id: &str, name: &str) -> SceneItem {
        let mut item = self.key(user_id);
        item.insert("name".to_owned(), text(name));
        item
    }

    /// The same item with an expiry 30 days ago.
    pub(crate) fn expired(&self, user_id: &str, name: &str) -> SceneItem {
        let past = (Clock::system().now() - time::Duration::days(30)).unix_timestamp();
        let mut item = self.user(user_id, name);
        item.insert(self.shape.ttl_attribute.to_owned(), AttributeValue::N(past.to_string()));
        item
    }

    /// A record of the source, as its stream with this label delivers it.
    pub(crate) fn record(&self, event: EventBuilder, label: &str) -> Value {
        let mut record = record(event, label);
        self.shape.translate(&mut record);
        record
    }

    /// Returns whether DynamoDB JSON is the key of the item of a user.
    pub(crate) fn is_key(&self, key: &Value, user_id: &str) -> bool {
        let expected = self.shape.canonical_key(&self.key(user_id));
        CanonicalKey::parse(&key.to_string()).is_ok_and(|key| key == expected)
    }

    pub(crate) async fn put(&self, table: &str, item: SceneItem) {
        self.dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }

    /// Puts this number of users, each with an attribute of the given size, into the source.
    pub(crate) async fn fill(&self, count: usize, filling: usize) {
        let puts = (0..count).map(|n| {
            let mut item = self.user(&format!("u{n:05}"), "Filled");
            item.insert("filling".to_owned(), text(&"x".repeat(filling)));
            self.put(self.source(), item)
        });
        stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(32).collect::<()>().await;
    }

    pub(crate) async fn delete(&self, table: &str, user_id: &str) {
        self.dynamodb.delete_item().table_name(table).set_key(Some(self.key(user_id))).send().await.unwrap();
    }

    pub(crate) async fn item(&self, table: &str, user_id: &str) -> Option<SceneItem> {
        let get = self.dynamodb.get_item().table_name(table).set_key(Some(self.key(user_id)));
        get.consistent_read(true).send().await.unwrap().item
    }

    pub(crate) async fn name(&self, user_id: &str) -> Option<String> {
        self.item(&self.replica, user_id).await?.get("name").map(|name| name.as_s().unwrap().clone())
    }

    pub(crate) async fn items(&self, table: &str) -> Vec<SceneItem> {
        let pages = self.dynamodb.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        pages.collect::<Result<Vec<_>, _>>().await.unwrap()
    }

    /// All live items of a table by user, without the attributes that replication adds.
    pub(crate) async fn live(&self, table: &str) -> HashMap<String, SceneItem> {
        let live = self.items(table).await.into_iter().filter(|item| !item.contains_key("_tombstone_expires_at")).map(
            |mut item| {
                item.remove("_rev");
                (self.shape.user_id(&item), item)
            },
        );
        live.collect()
    }

    /// Deletes everything in the replica, including its tombstones.
    pub(crate) async fn lose_replica(&self) {
        let keys: Vec<SceneItem> = self.items(&self.replica).await.iter().map(|item| self.shape.key_of(item)).collect();
        let delete = |key| self.dynamodb.delete_item().table_name(&self.replica).set_key(Some(key)).send();
        stream::iter(keys).map(delete).buffer_unordered(32).map(Result::unwrap).for_each(async |_| ()).await;
    }

    pub(crate) async fn replica_is_source(&self) {
        assert_eq!(self.live(&self.replica).await, self.live(self.source()).await);
    }

    pub(crate) fn maintenance(&self) -> MaintenanceHandler {
        self.stack.maintenance().unwrap()
    }

    /// Runs a task to completion, as the state machine does.
    pub(crate) async fn task(&self, order: Value) -> TaskResponse {
        to_its_end(&self.maintenance(), order, Duration::from_mins(1)).await.unwrap()
    }

    /// The entries of a run's reports.
    pub(crate) async fn report(&self, run: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        let reports = self.objects(&format!("reports/{run}/")).await;
        for key in reports.into_iter().filter(|key| !is_result(key)) {
            let body = String::from_utf8(self.object(&key).await).unwrap();
            lines.extend(body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        lines
    }

    /// The keys in the failure bucket below a prefix.
    pub(crate) async fn objects(&self, prefix: &str) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(&self.failures).prefix(prefix).send().await.unwrap();
        let mut keys: Vec<String> = listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
        keys.sort();
        keys
    }

    pub(crate) async fn object(&self, key: &str) -> Vec<u8> {
        let object = self.s3.get_object().bucket(&self.failures).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    pub(crate) async fn put_object(&self, key: &str, body: impl Into<Vec<u8>>) {
        let body = aws_sdk_s3::primitives::ByteStream::from(body.into());
        self.s3.put_object().bucket(&self.failures).key(key).body(body).send().await.unwrap();
    }

    /// Puts the object that Lambda writes for a discarded batch; returns its key.
    pub(crate) async fn give_up(&self, function: &str, records: Vec<Value>, as_text: bool) -> String {
        let event = json!({"Records": records});
        let payload = if as_text { json!(event.to_string()) } else { event };
        let envelope = json!({
            "requestContext": {
                "requestId": "1", "condition": "RecordAgeExceeded", "approximateInvokeCount": 0,
                "functionArn": format!("arn:aws:lambda:us-east-1:000000000000:function:{function}"),
            },
            "version": "1.0", "timestamp": "2026-11-24T08:00:00.000Z",
            "DDBStreamBatchInfo": {"shardId": "shardId-1", "batchSize": 1},
            "payload": payload,
        });
        let nth = self.objects("").await.len();
        let key = format!("aws/lambda/mapping/shardId-1/2026/11/24/2026-11-24T08.00.00-{nth:04}");
        self.put_object(&key, envelope.to_string()).await;
        key
    }
}

/// A record of the source, as its stream with this label delivers it.
pub(crate) fn record(event: EventBuilder, label: &str) -> Value {
    let mut record: Value = serde_json::from_str(&event.with_stream(label).record()).unwrap();
    record["eventSourceARN"] = json!(format!("arn:aws:dynamodb:dynoxide:000000000000:table/{SOURCE}/stream/{label}"));
    record
}

/// The revision of a replica item.
pub(crate) fn revision(item: &SceneItem) -> Revision {
    Revision::decode(item["_rev"].as_b().unwrap().as_ref()).unwrap()
}

/// Runs one invocation with the given time limit.
pub(crate) async fn invoke(
    maintenance: &MaintenanceHandler,
    order: &Value,
    time: Duration,
) -> Result<TaskResponse, TaskError> {
    invoke_at(Clock::system().now(), maintenance, order, time).await
}

/// Runs one invocation that begins at this time.
async fn invoke_at(
    now: OffsetDateTime,
    maintenance: &MaintenanceHandler,
    order: &Value,
    time: Duration,
) -> Result<TaskResponse, TaskError> {
    let payload = RawValue::from_string(order.to_string()).unwrap();
    let invocation = Invocation::new(now, Instant::now(), time, "request-1".to_owned());
    maintenance.handle(&payload, &invocation).await
}

/// Runs invocations with the given time limit until the task is done.
pub(crate) async fn to_its_end(
    maintenance: &MaintenanceHandler,
    order: Value,
    time: Duration,
) -> Result<TaskResponse, TaskError> {
    to_its_end_after(Duration::ZERO, maintenance, order, time).await
}

/// Like [`to_its_end`], for a task that begins after this delay; nothing waits for it.
pub(crate) async fn to_its_end_after(
    delay: Duration,
    maintenance: &MaintenanceHandler,
    mut order: Value,
    time: Duration,
) -> Result<TaskResponse, TaskError> {
    for _ in 0..1_000 {
        let response = invoke_at(Clock::system().now() + delay, maintenance, &order, time).await?;
        if response.done {
            assert!(response.cursor.is_none());
            return Ok(response);
        }
        order["cursor"] = serde_json::to_value(response.cursor.expect("what is not done has a cursor")).unwrap();
    }
    panic!("it does not end: {order}");
}
