//! An archiver with its own embedded S3 engine, and batches for it.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use millrace_archive::{ArchivedRow, KeyNames, MergeIterator, RowReader};
use millrace_archiver::config::ArchiverConfig;
use millrace_archiver::{ArchiverError, ArchiverHandler};
use millrace_local::template::BucketResource;
use millrace_shared::environment::Environment;
use millrace_shared::hash::{sha256, to_hex};
use millrace_shared::invocation::Invocation;
use millrace_shared::stream::BatchResponse;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub(crate) const ARCHIVE: &str = "users-archive";
pub(crate) const FAILURES: &str = "users-failures";

pub(crate) struct ArchiverHarness {
    pub(crate) root: tempfile::TempDir,
    pub(crate) s3: Client,
    pub(crate) archiver: ArchiverHandler,
    engine: millrace_local::s3::S3Engine,
}

impl ArchiverHarness {
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = millrace_local::s3::S3Engine::start(listener, root.path()).await.unwrap();
        let bucket = |name: &str| BucketResource { logical_id: String::new(), name: name.to_owned() };
        engine.create_buckets(&[bucket(ARCHIVE), bucket(FAILURES)]).unwrap();
        let s3 = client(engine.endpoint());
        let archiver = archiver(&[], s3.clone());
        Self { root, s3, archiver, engine }
    }

    pub(crate) fn with(self, variables: &[(&str, &str)]) -> Self {
        Self { archiver: archiver(variables, self.s3.clone()), ..self }
    }

    /// Stops S3; returns the archiver.
    pub(crate) async fn without_s3(self) -> ArchiverHandler {
        self.engine.stop().await;
        self.archiver
    }

    /// Makes every put into this bucket fail: a file is at the path at which the engine needs a directory.
    pub(crate) fn refuse(&self, bucket: &str) {
        let folder = self.root.path().join(bucket);
        std::fs::remove_dir(&folder).unwrap();
        std::fs::write(&folder, "").unwrap();
    }

    /// Lets puts into this bucket succeed again.
    pub(crate) fn accept(&self, bucket: &str) {
        let folder = self.root.path().join(bucket);
        std::fs::remove_file(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
    }

    pub(crate) async fn handle(&self, batch: &Value) -> Result<BatchResponse, ArchiverError> {
        handle(&self.archiver, batch, Duration::from_secs(30)).await
    }

    pub(crate) async fn objects(&self) -> Vec<String> {
        self.keys(ARCHIVE).await
    }

    pub(crate) async fn quarantined(&self) -> Vec<String> {
        self.keys(FAILURES).await
    }

    pub(crate) async fn quarantine(&self, key: &str) -> Value {
        serde_json::from_slice(&self.get(FAILURES, key).await.0).unwrap()
    }

    pub(crate) async fn bytes(&self, key: &str) -> Vec<u8> {
        self.get(ARCHIVE, key).await.0
    }

    pub(crate) async fn rows(&self) -> Vec<ArchivedRow> {
        rows(&self.s3).await
    }

    async fn keys(&self, bucket: &str) -> Vec<String> {
        keys(&self.s3, bucket).await
    }

    async fn get(&self, bucket: &str, key: &str) -> (Vec<u8>, HashMap<String, String>) {
        get(&self.s3, bucket, key).await
    }
}

/// The rows of the complete archive.
pub(crate) async fn rows(s3: &Client) -> Vec<ArchivedRow> {
    let mut readers = Vec::new();
    let of_rows = |key: &String| key.starts_with("archive/") || key.starts_with("compacted/");
    for key in keys(s3, ARCHIVE).await.into_iter().filter(of_rows) {
        let (bytes, metadata) = get(s3, ARCHIVE, &key).await;
        readers.push(open(&key, &metadata, bytes));
    }
    MergeIterator::new(readers).map(Result::unwrap).collect()
}

pub(crate) async fn keys(s3: &Client, bucket: &str) -> Vec<String> {
    let listed = s3.list_objects_v2().bucket(bucket).send().await.unwrap();
    let mut keys: Vec<_> = listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect();
    keys.sort();
    keys
}

pub(crate) async fn get(s3: &Client, bucket: &str, key: &str) -> (Vec<u8>, HashMap<String, String>) {
    let object = s3.get_object().bucket(bucket).key(key).send().await.unwrap();
    let metadata = object.metadata().cloned().unwrap_or_default();
    (object.body.collect().await.unwrap().to_vec(), metadata)
}

/// Reads an object as downloaded.
pub(crate) fn open(key: &str, metadata: &HashMap<String, String>, bytes: Vec<u8>) -> RowReader<Cursor<Vec<u8>>> {
    RowReader::open(key, metadata, KeyNames::new(["user_id", "timestamp"]), Cursor::new(bytes)).unwrap()
}

/// A client with one attempt per call: these tests retry explicitly.
pub(crate) fn client(endpoint: &str) -> Client {
    let config = millrace_local::clients::s3(endpoint).config().to_builder().retry_config(RetryConfig::disabled());
    Client::from_conf(config.build())
}

pub(crate) fn archiver(variables: &[(&str, &str)], s3: Client) -> ArchiverHandler {
    let environment: Environment = [("ARCHIVE_BUCKET", ARCHIVE), ("FAILURE_BUCKET", FAILURES)]
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    millrace_archiver::connect(&ArchiverConfig::parse(&environment).unwrap(), s3)
}

pub(crate) async fn handle(
    archiver: &ArchiverHandler,
    batch: &Value,
    time: Duration,
) -> Result<BatchResponse, ArchiverError> {
    let event = RawValue::from_string(batch.to_string()).unwrap();
    // Spawned, because the Lambda runtime may poll the future on several threads.
    let archiver = archiver.clone();
    let invoked = tokio::spawn(async move {
        let deadline = Instant::now() + time;
        let invocation = Invocation { now: OffsetDateTime::UNIX_EPOCH, deadline, request_id: "1".to_owned() };
        archiver.handle(&event, &invocation).await
    });
    invoked.await.unwrap()
}

/// A payload of `events/`.
pub(crate) fn event(story: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events").join(story).with_extension("json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub(crate) fn payload(records: impl IntoIterator<Item = Value>) -> Value {
    json!({"Records": records.into_iter().collect::<Vec<_>>()})
}

/// The sequence number of the `n`th record in these tests; as text, the numbers do not sort correctly.
pub(crate) fn sequence(n: u32) -> String {
    (99_999_999_999_999_999_998_u128 + u128::from(n)).to_string()
}

/// The record of the `n`th user's removal by TTL, the given number of seconds after 09:30.
pub(crate) fn expired(n: u32, seconds: i64) -> Value {
    let mut record = event("user-expired")["Records"][0].take();
    let change = &mut record["dynamodb"];
    change["SequenceNumber"] = json!(sequence(n));
    change["ApproximateCreationDateTime"] = json!(1_795_339_800 + seconds);
    for part in ["Keys", "OldImage"] {
        change[part]["user_id"]["S"] = json!(format!("user-{n:03}"));
    }
    record
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(&sha256(bytes))
}
