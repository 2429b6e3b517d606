//! The replicator between two real engines, without a stream: tests pass it the batches directly.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_s3::config::retry::RetryConfig;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::hash::{sha256, to_hex};
use millrace_shared::invocation::Invocation;
use millrace_shared::quarantine::Quarantine;
use millrace_shared::stream::BatchResponse;
use millrace_sinks::Sink;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::events::{EventBuilder, event};
use crate::table_shape::{GUARANTEED, TableShape, USERS};

pub(crate) const REPLICA: &str = "UsersReplica";
pub(crate) const FAILURES: &str = "users-failures";
/// The time of every invocation, in seconds since the epoch.
pub(crate) const NOW: i64 = 1_800_000_000;

/// An item as the SDK reads it.
pub(crate) type RigItem = HashMap<String, AttributeValue>;

pub(crate) struct ReplicationRig {
    pub(crate) shape: TableShape,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) s3: aws_sdk_s3::Client,
    pub(crate) dynamodb_url: String,
    _engines: (millrace_local::dynamodb::DynamoDbEngine, millrace_local::s3::S3Engine, TempDir),
}

impl ReplicationRig {
    /// Starts two engines with the replica of the users table, and the failure bucket.
    pub(crate) async fn start() -> Self {
        Self::with_shape(USERS).await
    }

    /// Starts a rig for each table over which the guarantees are tested.
    pub(crate) async fn of_each_shape() -> Vec<Self> {
        futures::future::join_all(GUARANTEED.map(Self::with_shape)).await
    }

    /// Starts two engines with the replica of a table of this shape, and the failure bucket.
    pub(crate) async fn with_shape(shape: TableShape) -> Self {
        let root = TempDir::new().unwrap();
        let dynamodb = millrace_local::dynamodb::DynamoDbEngine::start(listener().await, None).await.unwrap();
        let s3 = millrace_local::s3::S3Engine::start(listener().await, root.path()).await.unwrap();
        let rig = Self {
            shape,
            dynamodb: clients::dynamodb(dynamodb.endpoint()),
            s3: clients::s3(s3.endpoint()),
            dynamodb_url: dynamodb.endpoint().to_owned(),
            _engines: (dynamodb, s3, root),
        };
        rig.create_table(REPLICA, shape.key).await;
        rig.s3.create_bucket().bucket(FAILURES).send().await.unwrap();
        rig
    }

    /// Creates a table with this key and returns its ARN.
    pub(crate) async fn create_table(&self, table: &str, key: &[(&str, &str)]) -> String {
        create_table(&self.dynamodb, table, key).await
    }

    /// The function as its environment configures it.
    pub(crate) fn replicator(&self) -> ReplicatorHandler {
        self.replicator_over(REPLICA)
    }

    /// The function with another table as its replica.
    pub(crate) fn replicator_over(&self, table: &str) -> ReplicatorHandler {
        connect(table, self.dynamodb.clone(), self.s3.clone())
    }

    /// The function with a modified client for the replica.
    pub(crate) fn replicator_through(&self, dynamodb: aws_sdk_dynamodb::Client) -> ReplicatorHandler {
        connect(REPLICA, dynamodb, self.s3.clone())
    }

    /// The function with a failure bucket that cannot be reached.
    pub(crate) fn replicator_without_a_bucket(&self) -> ReplicatorHandler {
        // No server listens on port 1; without retries the failure is immediate.
        let s3 = clients::s3("http://127.0.0.1:1").config().to_builder().retry_config(RetryConfig::disabled());
        connect(REPLICA, self.dynamodb.clone(), aws_sdk_s3::Client::from_conf(s3.build()))
    }

    /// The function with the given sinks.
    pub(crate) fn replicator_with(&self, sinks: Vec<Box<dyn Sink>>) -> ReplicatorHandler {
        ReplicatorHandler::new(sinks, Quarantine::new(self.s3.clone(), FAILURES.to_owned(), "replicator"))
    }

    /// The function in an environment of these variables, with a client for its replicas.
    pub(crate) fn replicator_of(
        &self,
        variables: &[(&str, &str)],
        dynamodb: aws_sdk_dynamodb::Client,
    ) -> ReplicatorHandler {
        millrace_replicator::connect(&config(variables), dynamodb, None, None, self.s3.clone())
    }

    /// The item in the replica under the key of a user.
    pub(crate) async fn item(&self, user_id: &str, timestamp: &str) -> Option<RigItem> {
        self.item_in(REPLICA, user_id, timestamp).await
    }

    /// The item in a table under the key of a user.
    pub(crate) async fn item_in(&self, table: &str, user_id: &str, timestamp: &str) -> Option<RigItem> {
        let read = self.dynamodb.get_item().table_name(table).consistent_read(true);
        read.set_key(Some(self.shape.key(user_id, timestamp))).send().await.unwrap().item
    }

    /// A batch with these changes of users, as changes of the items of these users.
    pub(crate) fn event(&self, events: &[EventBuilder]) -> Box<RawValue> {
        self.translated(&event(events))
    }

    /// One of the sample payloads, as changes of the items of its users.
    pub(crate) fn sample(&self, name: &str) -> Box<RawValue> {
        self.translated(&sample(name))
    }

    fn translated(&self, event: &RawValue) -> Box<RawValue> {
        let mut event: Value = serde_json::from_str(event.get()).unwrap();
        event["Records"].as_array_mut().unwrap().iter_mut().for_each(|record| self.shape.translate(record));
        RawValue::from_string(event.to_string()).unwrap()
    }

    pub(crate) async fn item_count(&self) -> i32 {
        self.dynamodb.scan().table_name(REPLICA).consistent_read(true).send().await.unwrap().count
    }

    /// The keys in the failure bucket, sorted.
    pub(crate) async fn quarantined(&self) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(FAILURES).send().await.unwrap();
        let mut keys: Vec<_> = listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
        keys.sort();
        keys
    }

    /// The keys in the failure bucket without the digests of their records, sorted.
    pub(crate) async fn quarantined_positions(&self) -> Vec<String> {
        without_digests(&self.quarantined().await)
    }

    pub(crate) async fn quarantine_body(&self, key: &str) -> Value {
        let object = self.s3.get_object().bucket(FAILURES).key(key).send().await.unwrap();
        serde_json::from_slice(&object.body.collect().await.unwrap().into_bytes()).unwrap()
    }
}

/// The names of quarantine objects without the digests of their records, which every name ends with.
pub(crate) fn without_digests(keys: &[String]) -> Vec<String> {
    let name = |key: &String| {
        let (name, digest) = key.strip_suffix(".json").and_then(|name| name.rsplit_once('-')).unwrap();
        assert!(digest.len() == 32 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{key}");
        format!("{name}.json")
    };
    keys.iter().map(name).collect()
}

/// The digest in the name of a record's quarantine object.
pub(crate) fn record_digest(record: &str) -> String {
    to_hex(&sha256(record)[..16])
}

fn connect(table: &str, dynamodb: aws_sdk_dynamodb::Client, s3: aws_sdk_s3::Client) -> ReplicatorHandler {
    millrace_replicator::connect(&config(&[("REPLICA_TABLE", table)]), dynamodb, None, None, s3)
}

/// The configuration of the function in an environment of these variables and the failure bucket.
pub(crate) fn config(variables: &[(&str, &str)]) -> ReplicatorConfig {
    let variables = variables.iter().chain(&[("FAILURE_BUCKET", FAILURES)]);
    let environment = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ReplicatorConfig::parse(&environment).unwrap()
}

/// Creates a table with this key and returns its ARN.
pub(crate) async fn create_table(client: &aws_sdk_dynamodb::Client, table: &str, key: &[(&str, &str)]) -> String {
    let mut create = client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
    for ((name, kind), role) in key.iter().zip([KeyType::Hash, KeyType::Range]) {
        let kind = ScalarAttributeType::from(*kind);
        let definition = AttributeDefinition::builder().attribute_name(*name).attribute_type(kind).build();
        let element = KeySchemaElement::builder().attribute_name(*name).key_type(role).build();
        create = create.attribute_definitions(definition.unwrap()).key_schema(element.unwrap());
    }
    create.send().await.unwrap().table_description.unwrap().table_arn.unwrap()
}

async fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

/// An invocation with a minute left.
pub(crate) fn invocation() -> Invocation {
    invocation_within(Duration::from_mins(1))
}

pub(crate) fn invocation_within(remaining: Duration) -> Invocation {
    let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
    Invocation { now, deadline: Instant::now() + remaining, request_id: "request-1".to_owned() }
}

/// Invokes the function with a batch; panics if the invocation fails.
pub(crate) async fn deliver_batch(replicator: &ReplicatorHandler, event: &RawValue) -> BatchResponse {
    replicator.handle(event, &invocation()).await.unwrap()
}

/// One of the sample payloads.
pub(crate) fn sample(name: &str) -> Box<RawValue> {
    let path = format!("{}/../events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
