//! The event source mapping on the embedded engines, with functions that fail as specified.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodbstreams::config::interceptors::BeforeSerializationInterceptorContextRef;
use aws_sdk_dynamodbstreams::config::{ConfigBag, Intercept};
use aws_sdk_dynamodbstreams::error::BoxError;
use futures::future::LocalBoxFuture;
use millrace_event_source_mapping::checkpoints::CheckpointFile;
use millrace_event_source_mapping::filter::RecordFilter;
use millrace_event_source_mapping::invoke::{InvokeError, StreamFunction};
use millrace_event_source_mapping::settings::MappingSettings;
use millrace_event_source_mapping::{EventSourceMapping, MappingConfig};
use millrace_local::template::{AttributeType, BucketResource, KeyDefinition, TableResource};
use millrace_local::{clients, dynamodb, s3};
use millrace_shared::clock::Clock;
use millrace_shared::invocation::Invocation;
use millrace_shared::s3::S3Bucket;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Returns a function's response to records with these keys, or `None` to panic.
type FunctionBehavior = fn(&[String]) -> Option<String>;

/// Records the keys of each batch, and responds with the result of `behaviour`; `None` is a panic.
struct RecordingFunction {
    seen: Mutex<Vec<Vec<String>>>,
    behaviour: FunctionBehavior,
}

impl StreamFunction for RecordingFunction {
    fn invoke<'a>(&'a self, event: &'a RawValue, _: Invocation) -> LocalBoxFuture<'a, Result<String, InvokeError>> {
        let event: Value = serde_json::from_str(event.get()).unwrap();
        let key = |record: &Value| record["dynamodb"]["Keys"]["id"]["S"].as_str().unwrap().to_owned();
        let keys: Vec<_> = event["Records"].as_array().unwrap().iter().map(key).collect();
        self.seen.lock().unwrap().push(keys.clone());
        Box::pin(async move { Ok((self.behaviour)(&keys).expect("the function panics")) })
    }
}

/// Counts the requests of a client.
#[derive(Debug, Default)]
struct RequestCounter(AtomicUsize);

#[derive(Debug)]
struct CountRequests(Arc<RequestCounter>);

impl Intercept for CountRequests {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_execution(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

struct DriverHarness {
    reads: Arc<RequestCounter>,
    dynamodb: dynamodb::DynamoDbEngine,
    s3: s3::S3Engine,
    folder: TempDir,
}

impl DriverHarness {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = || TcpListener::bind("127.0.0.1:0");
        let dynamodb = dynamodb::DynamoDbEngine::start(listener().await.unwrap(), None).await.unwrap();
        let s3 = s3::S3Engine::start(listener().await.unwrap(), &folder.path().join("s3")).await.unwrap();
        let table = TableResource {
            logical_id: "ItemsTable".into(),
            name: "Items".into(),
            keys: vec![KeyDefinition { name: "id".into(), role: "HASH".into() }],
            attributes: vec![AttributeType { name: "id".into(), kind: "S".into() }],
            indexes: vec![],
            local_indexes: vec![],
            ttl_attribute: None,
            stream_view: Some("NEW_AND_OLD_IMAGES".into()),
        };
        dynamodb.create_tables(&[table]).unwrap();
        s3.create_buckets(&[BucketResource { logical_id: "FailureBucket".into(), name: "failures".into() }]).unwrap();
        Self { reads: Arc::default(), dynamodb, s3, folder }
    }

    async fn put(&self, ids: &[&str]) {
        for id in ids {
            let put = clients::dynamodb(self.dynamodb.endpoint()).put_item().table_name("Items");
            put.item("id", AttributeValue::S((*id).to_owned())).send().await.unwrap();
        }
    }

    async fn pump(
        &self,
        settings: MappingSettings,
        behaviour: FunctionBehavior,
    ) -> (EventSourceMapping, Arc<RecordingFunction>) {
        let client = clients::dynamodb(self.dynamodb.endpoint());
        let table = client.describe_table().table_name("Items").send().await.unwrap().table.unwrap();
        let function = Arc::new(RecordingFunction { seen: Mutex::default(), behaviour });
        let first_back_off = Duration::from_millis(1);
        let stream_arn = table.latest_stream_arn.unwrap();
        let checkpoints = CheckpointFile::new(&self.folder.path().join("checkpoints"), "Items");
        let pump = EventSourceMapping::start(MappingConfig {
            name: "Items".into(),
            settings: MappingSettings { partial_responses: true, first_back_off, ..settings },
            filter: RecordFilter::parse("Items", &[]).unwrap(),
            from: checkpoints.load(&stream_arn).unwrap(),
            stream_arn,
            from_latest: false,
            streams: self.counted_streams(),
            function: "noting".into(),
            function_arn: "arn:aws:lambda:us-east-1:000000000000:function:noting".into(),
            invoke: Arc::<RecordingFunction>::clone(&function),
            timeout: Duration::from_secs(5),
            on_failure: Some(S3Bucket::new(clients::s3(self.s3.endpoint()), "failures".into())),
            checkpoints: Some(checkpoints),
            clock: Clock::system(),
            writes: Some(self.dynamodb.writes()),
        });
        (pump, function)
    }

    fn counted_streams(&self) -> aws_sdk_dynamodbstreams::Client {
        let config = clients::streams(self.dynamodb.endpoint()).config().to_builder();
        aws_sdk_dynamodbstreams::Client::from_conf(config.interceptor(CountRequests(Arc::clone(&self.reads))).build())
    }

    async fn given_up(&self) -> Vec<(String, Value)> {
        let s3 = clients::s3(self.s3.endpoint());
        let list = s3.list_objects_v2().bucket("failures").send().await.unwrap();
        let mut found = Vec::new();
        for object in list.contents() {
            let key = object.key().unwrap();
            let body = s3.get_object().bucket("failures").key(key).send().await.unwrap().body.collect().await.unwrap();
            found.push((key.to_owned(), serde_json::from_slice(&body.to_vec()).unwrap()));
        }
        found
    }
}

fn seen(function: &RecordingFunction) -> Vec<Vec<String>> {
    function.seen.lock().unwrap().clone()
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_run_left_off() {
    let world = DriverHarness::new().await;
    let well: FunctionBehavior = |_| Some(String::new());
    world.put(&["a", "b"]).await;
    let (pump, function) = world.pump(MappingSettings::default(), well).await;
    pump.wait_until_drained().await;
    pump.stop().await;
    assert_eq!(seen(&function).concat(), ["a", "b"]);
    world.put(&["c"]).await;
    let (pump, function) = world.pump(MappingSettings::default(), well).await;
    pump.wait_until_drained().await;
    pump.stop().await;
    assert_eq!(seen(&function).concat(), ["c"]);
}

/// Twenty reads per second of two idle streams cost a tenth of a core.
#[tokio::test]
async fn idle_stream_is_read_at_each_write_and_rarely_otherwise() {
    let world = DriverHarness::new().await;
    let (pump, function) = world.pump(MappingSettings::default(), |_| Some(String::new())).await;
    pump.wait_until_drained().await;
    let before = world.reads.0.load(Ordering::Relaxed);
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reads = world.reads.0.load(Ordering::Relaxed) - before;
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!(reads <= 2 * (seconds + 1), "{reads} requests in {seconds} s without a write");
    for id in ["a", "b", "c"] {
        let written = Instant::now();
        world.put(&[id]).await;
        while seen(&function).concat().last().is_none_or(|last| last != id) {
            assert!(written.elapsed() < Duration::from_millis(900), "{id} is read after a signal, not by a poll");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    pump.stop().await;
}

#[tokio::test]
async fn a_function_that_panics_loses_only_the_record_it_panics_at_and_that_one_is_kept() {
    let world = DriverHarness::new().await;
    world.put(&["a", "b", "bad", "c"]).await;
    let settings = MappingSettings { bisect: true, max_retries: Some(1), ..MappingSettings::default() };
    let (pump, function) =
        world.pump(settings, |keys| (!keys.contains(&"bad".to_owned())).then(|| "null".to_owned())).await;
    pump.wait_until_drained().await;
    pump.stop().await;
    assert_eq!(seen(&function).last().unwrap(), &["c"]);
    let given_up = world.given_up().await;
    let [(key, body)] = &given_up[..] else { panic!("{given_up:?}") };
    assert!(key.starts_with("aws/lambda/Items/"), "{key}");
    assert_eq!(body["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(body["DDBStreamBatchInfo"]["batchSize"], 1);
    assert_eq!(body["payload"]["Records"][0]["dynamodb"]["Keys"]["id"]["S"], "bad");
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_not_delivered() {
    let world = DriverHarness::new().await;
    world.put(&["a", "a"]).await;
    let (pump, function) = world.pump(MappingSettings::default(), |_| Some("{}".to_owned())).await;
    pump.wait_until_drained().await;
    pump.stop().await;
    assert_eq!(seen(&function).concat(), ["a"]);
}
