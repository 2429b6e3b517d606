//! DynamoDB and DynamoDB Streams on this machine: the dynoxide engine behind an HTTP proxy of this crate.
//!
//! Without a data folder the database is in memory and is lost at the end. With a data folder it is stored in the
//! folder's file `dynamodb.sqlite`. A folder that another process uses, a corrupt file, and a table whose schema
//! differs from the template's are each rejected before anything is written.
//!
//! The engine's own server listens on a second port. The proxy on the public port forwards requests to it and
//! implements the operations that it lacks or that differ from AWS, above all those of streams (`front`, `streams`).
//!
//! Two differences from AWS remain, which the event source mapping simulator handles: a stream has one shard that never
//! closes, and TTL removes items only when [`DynamoDbEngine::sweep_ttl`] is called (`ttl`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dynoxide::Database;
use dynoxide::storage::Storage;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::serve::serve;
use crate::template::TableResource;

mod file;
mod front;
mod schema;
mod streams;
mod table_arn;
mod ttl;

use front::EngineSignals;
pub(crate) use table_arn::table_arn;

/// Time limit for requests in progress at a stop; afterwards they are cut off.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// An error of starting or using the DynamoDB engine.
#[derive(Debug, thiserror::Error)]
pub enum DynamoDbEngineError {
    /// The folder cannot be created, read or written.
    #[error("data folder {}: {source}: choose another with --data", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another process uses the folder.
    #[error("data folder {} is in use by another millrace: stop that one, or choose another with --data", .0.display())]
    InUse(PathBuf),
    /// The file is not a database of the engine, or is corrupt.
    #[error("data file {} is {reason}; nothing was written: move it away, or choose another folder with --data", path.display())]
    Unusable {
        /// The path of the file.
        path: PathBuf,
        /// The problem with the file.
        reason: String,
    },
    /// The schema of a table in the data folder differs from the template's.
    #[error("table {table} in the data folder has {found}, this start has {wanted}: {fix}")]
    OtherShape {
        /// The local table name.
        table: String,
        /// The schema in the data folder.
        found: String,
        /// The schema in the template or the description.
        wanted: String,
        /// The fix.
        fix: String,
    },
    /// The engine rejected a table or failed.
    #[error("dynamodb engine: {0}")]
    Engine(String),
    /// The listener's socket address cannot be determined.
    #[error("dynamodb listener: {0}")]
    Listener(std::io::Error),
}

impl From<dynoxide::DynoxideError> for DynamoDbEngineError {
    fn from(error: dynoxide::DynoxideError) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<rusqlite::Error> for DynamoDbEngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

/// A running engine. Dropping it also stops it, without waiting.
pub struct DynamoDbEngine {
    endpoint: String,
    database: Database,
    /// A second connection to the database, for TTL.
    second: Arc<Mutex<Storage>>,
    signals: EngineSignals,
    stop: oneshot::Sender<()>,
    /// The task that runs the proxy and the engine's own server behind it.
    server: JoinHandle<()>,
    /// The lock of the data folder, held until the database is closed.
    lock_file: Option<std::fs::File>,
}

impl DynamoDbEngine {
    /// Serves on `listener` a new in-memory database, or the one in the folder `data`.
    ///
    /// # Errors
    ///
    /// A [`DynamoDbEngineError`] if the folder cannot be used, is in use, or contains a corrupt file.
    pub async fn start(listener: TcpListener, data: Option<&Path>) -> Result<Self, DynamoDbEngineError> {
        let address = listener.local_addr().map_err(DynamoDbEngineError::Listener)?;
        let folder = data.map(Path::to_path_buf);
        let opened = tokio::task::spawn_blocking(move || match folder {
            Some(folder) => file::open(&folder).map(|(database, second, lock)| (database, second, Some(lock))),
            None => file::memory().map(|(database, second)| (database, second, None)),
        });
        let (database, second, lock_file) =
            opened.await.map_err(|panic| DynamoDbEngineError::Engine(panic.to_string()))??;
        let behind = TcpListener::bind("127.0.0.1:0").await.map_err(DynamoDbEngineError::Listener)?;
        let engine = behind.local_addr().map_err(DynamoDbEngineError::Listener)?;
        let engine =
            engine.to_string().parse().map_err(|_| DynamoDbEngineError::Engine(format!("no address: {engine}")))?;
        let signals = EngineSignals::default();
        let front = front::EngineFront::new(database.clone(), engine, signals.clone());
        let front = hyper::service::service_fn(move |request| front.clone().respond(request));
        let ((stop, stopped), (end, ended)) = (oneshot::channel(), oneshot::channel::<()>());
        let shared = database.clone();
        let server = tokio::spawn(async move {
            let behind = dynoxide::server::serve_with_shutdown(behind, shared, async {
                // The sender is dropped when the proxy has ended: no more requests will arrive then.
                let _ = ended.await;
            });
            let front = async {
                serve("dynamodb", listener, front, stopped).await;
                drop(end);
            };
            if let (Err(error), ()) = tokio::join!(behind, front) {
                tracing::warn!(error, "dynamodb engine stopped");
            }
        });
        let second = Arc::new(Mutex::new(second));
        Ok(Self { endpoint: format!("http://{address}"), database, second, signals, stop, server, lock_file })
    }

    /// Returns the URL that SDKs use as their DynamoDB (and streams) endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the signals of writes: one after each request that may have written, and after TTL has removed items.
    #[must_use]
    pub fn writes(&self) -> watch::Receiver<()> {
        self.signals.writes.subscribe()
    }

    /// Forwards the requests of Lambda's API to its server. Only the first call has an effect.
    pub fn serve_lambda_at(&self, address: SocketAddr) {
        if let Ok(address) = address.to_string().parse() {
            let _ = self.signals.lambda.set(address);
        }
    }

    /// Creates the tables with their indexes, streams and TTL. An existing table with the same schema is left
    /// unchanged, so that a data folder can be opened again.
    ///
    /// # Errors
    ///
    /// [`DynamoDbEngineError::OtherShape`] if an existing table differs from the template,
    /// [`DynamoDbEngineError::Engine`] if the engine rejects a table.
    pub fn create_tables(&self, tables: &[TableResource]) -> Result<(), DynamoDbEngineError> {
        tables.iter().try_for_each(|table| schema::create(&self.database, table))
    }

    /// Removes every item whose TTL has passed at `now`, as DynamoDB does eventually, and returns the number of removed
    /// items.
    ///
    /// # Errors
    ///
    /// [`DynamoDbEngineError::Engine`] if the engine fails.
    pub async fn sweep_ttl(&self, now: OffsetDateTime) -> Result<usize, DynamoDbEngineError> {
        let second = Arc::clone(&self.second);
        // The deletion waits for the engine's writes, so it must not block a thread of the runtime.
        let swept = tokio::task::spawn_blocking(move || {
            ttl::sweep(&second.lock().unwrap_or_else(PoisonError::into_inner), now)
        });
        let removed = swept.await.map_err(|panic| DynamoDbEngineError::Engine(panic.to_string()))?;
        // Items that were removed before an error are in the stream, too.
        if !matches!(removed, Ok(0)) {
            self.signals.writes.send_replace(());
        }
        removed
    }

    /// Stops serving, waits for requests in progress, and closes the database.
    pub async fn stop(self) {
        let Self { database, second, stop, mut server, lock_file, .. } = self;
        // The server may already have ended: there is nothing to stop then.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_TIMEOUT, &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
        drop((database, second));
        drop(lock_file);
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, LocalSecondaryIndex, Projection,
        ProjectionType, ScalarAttributeType, TimeToLiveSpecification,
    };

    use millrace_shared::clock::Clock;

    use super::*;
    use crate::clients;
    use crate::template::{AttributeType, KeyDefinition, SecondaryIndex};

    fn users() -> TableResource {
        let key = |name: &str, role: &str| KeyDefinition { name: name.to_owned(), role: role.to_owned() };
        let attribute = |name: &str, kind: &str| AttributeType { name: name.to_owned(), kind: kind.to_owned() };
        TableResource {
            logical_id: "UsersTable".to_owned(),
            name: "Users".to_owned(),
            keys: vec![key("user_id", "HASH"), key("timestamp", "RANGE")],
            attributes: vec![attribute("user_id", "S"), attribute("timestamp", "N"), attribute("email", "S")],
            indexes: vec![SecondaryIndex {
                name: "EmailIndex".to_owned(),
                keys: vec![key("email", "HASH"), key("timestamp", "RANGE")],
                projection: "ALL".to_owned(),
                non_key_attributes: Vec::new(),
            }],
            local_indexes: Vec::new(),
            ttl_attribute: Some("expires_at".to_owned()),
            stream_view: Some("NEW_AND_OLD_IMAGES".to_owned()),
        }
    }

    async fn start(data: Option<&Path>) -> DynamoDbEngine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        DynamoDbEngine::start(listener, data).await.unwrap()
    }

    async fn put(engine: &DynamoDbEngine, id: &str, expires_at: &str) {
        let client = clients::dynamodb(engine.endpoint());
        let put = client.put_item().table_name("Users").item("user_id", AttributeValue::S(id.to_owned()));
        let put = put.item("timestamp", AttributeValue::N("1".to_owned()));
        put.item("expires_at", AttributeValue::N(expires_at.to_owned())).send().await.unwrap();
    }

    #[tokio::test]
    async fn a_table_of_the_template_streams_and_expires_what_the_sdk_writes() {
        let engine = start(None).await;
        engine.create_tables(&[users()]).unwrap();
        put(&engine, "stays", "99999999999").await;
        let now = Clock::system().now();
        put(&engine, "goes", &(now.unix_timestamp() - 1).to_string()).await;
        assert_eq!(engine.sweep_ttl(now).await.unwrap(), 1);

        let streams = clients::streams(engine.endpoint());
        let listed = streams.list_streams().table_name("Users").send().await.unwrap();
        let arn = listed.streams()[0].stream_arn().unwrap().to_owned();
        let described = streams.describe_stream().stream_arn(&arn).send().await.unwrap();
        let shard = described.stream_description().unwrap().shards()[0].shard_id().unwrap().to_owned();
        let iterator = streams.get_shard_iterator().stream_arn(arn).shard_id(shard);
        let iterator = iterator.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
        let read = streams.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap();
        let events: Vec<&str> = read
            .records()
            .iter()
            .filter_map(|record| record.event_name())
            .map(aws_sdk_dynamodbstreams::types::OperationType::as_str)
            .collect();
        assert_eq!(events, ["INSERT", "INSERT", "REMOVE"]);
        let service = read.records()[2].user_identity().unwrap();
        assert_eq!((service.r#type(), service.principal_id()), (Some("Service"), Some("dynamodb.amazonaws.com")));
        engine.stop().await;
    }

    #[tokio::test]
    async fn ttl_sweep_removes_rows_of_local_secondary_indexes() {
        let engine = start(None).await;
        let client = clients::dynamodb(engine.endpoint());
        let key = |name: &str, role: KeyType| {
            KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap()
        };
        let attribute = |name: &str, kind: ScalarAttributeType| {
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
        };
        let index = LocalSecondaryIndex::builder()
            .index_name("ByEmail")
            .key_schema(key("user_id", KeyType::Hash))
            .key_schema(key("email", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()
            .unwrap();
        client
            .create_table()
            .table_name("Users")
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key("user_id", KeyType::Hash))
            .key_schema(key("timestamp", KeyType::Range))
            .attribute_definitions(attribute("user_id", ScalarAttributeType::S))
            .attribute_definitions(attribute("timestamp", ScalarAttributeType::N))
            .attribute_definitions(attribute("email", ScalarAttributeType::S))
            .local_secondary_indexes(index)
            .send()
            .await
            .unwrap();
        let ttl = TimeToLiveSpecification::builder().attribute_name("expires_at").enabled(true).build().unwrap();
        client.update_time_to_live().table_name("Users").time_to_live_specification(ttl).send().await.unwrap();
        let now = Clock::system().now();
        let past = (now.unix_timestamp() - 1).to_string();
        for (timestamp, email, expires_at) in
            [("1", "gone@example.com", past.as_str()), ("2", "kept@example.com", "99999999999")]
        {
            let put = client.put_item().table_name("Users").item("user_id", AttributeValue::S("one".to_owned()));
            let put = put.item("timestamp", AttributeValue::N(timestamp.to_owned()));
            let put = put.item("email", AttributeValue::S(email.to_owned()));
            put.item("expires_at", AttributeValue::N(expires_at.to_owned())).send().await.unwrap();
        }
        let emails = async || {
            let query = client.query().table_name("Users").index_name("ByEmail");
            let query = query.key_condition_expression("user_id = :id");
            let query = query.expression_attribute_values(":id", AttributeValue::S("one".to_owned()));
            let rows = query.send().await.unwrap().items.unwrap_or_default();
            rows.iter().map(|row| row["email"].as_s().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(emails().await, ["gone@example.com", "kept@example.com"]);
        assert_eq!(engine.sweep_ttl(now).await.unwrap(), 1);
        assert_eq!(emails().await, ["kept@example.com"]);
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_stream_is_described_as_aws_does_and_another_one_after_its_table_is_made_again() {
        let engine = start(None).await;
        engine.create_tables(&[users()]).unwrap();
        let (tables, streams) = (clients::dynamodb(engine.endpoint()), clients::streams(engine.endpoint()));
        let table = tables.describe_table().table_name("Users").send().await.unwrap().table.unwrap();
        let (arn, label) = (table.latest_stream_arn().unwrap(), table.latest_stream_label().unwrap());
        assert!(
            arn.ends_with(label) && millrace_shared::revision::StreamLabel::parse(label).unwrap().to_string() == label
        );
        let described = streams.describe_stream().stream_arn(arn).send().await.unwrap().stream_description.unwrap();
        let keys: Vec<_> =
            described.key_schema().iter().map(|key| (key.attribute_name(), key.key_type().as_str())).collect();
        assert_eq!(keys, [("user_id", "HASH"), ("timestamp", "RANGE")]);
        assert_eq!((described.stream_label(), described.table_name()), (Some(label), Some("Users")));
        let shard = described.shards()[0].shard_id().unwrap();
        assert!((28..=65).contains(&shard.len()), "botocore takes no other: {shard}");
        let rest = streams.describe_stream().stream_arn(arn).exclusive_start_shard_id(shard).send().await.unwrap();
        assert_eq!(rest.stream_description.unwrap().shards(), []);
        let iterate = |arn: &str, shard: &str| {
            let iterate = streams.get_shard_iterator().stream_arn(arn).shard_id(shard);
            iterate.shard_iterator_type("TRIM_HORIZON".into()).send()
        };
        put(&engine, "old", "99999999999").await;
        let iterator = iterate(arn, shard).await.unwrap().shard_iterator.unwrap();
        assert!(
            iterate(arn, "shardId-00000001-Users")
                .await
                .unwrap_err()
                .into_service_error()
                .is_resource_not_found_exception()
        );
        assert!(tables.describe_continuous_backups().table_name("Users").send().await.is_ok());

        tables.delete_table().table_name("Users").send().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        engine.create_tables(&[users()]).unwrap();
        let again = tables.describe_table().table_name("Users").send().await.unwrap().table.unwrap();
        assert_ne!(again.latest_stream_arn(), Some(arn));
        let gone = streams.describe_stream().stream_arn(arn).send().await.unwrap_err();
        assert!(gone.into_service_error().is_resource_not_found_exception());
        let gone = streams.get_records().shard_iterator(iterator).send().await.unwrap_err();
        assert!(gone.into_service_error().is_resource_not_found_exception());
        put(&engine, "new", "99999999999").await;
        let arn = again.latest_stream_arn().unwrap();
        let described = streams.describe_stream().stream_arn(arn).send().await.unwrap().stream_description.unwrap();
        let iterator = iterate(arn, described.shards()[0].shard_id().unwrap()).await.unwrap().shard_iterator;
        let read = streams.get_records().set_shard_iterator(iterator).send().await.unwrap();
        assert_eq!(read.records().len(), 1, "the former stream's records are none of this one's");
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_data_folder_opens_again_with_its_items_and_refuses_a_table_of_another_shape() {
        let folder = tempfile::tempdir().unwrap();
        let engine = start(Some(folder.path())).await;
        engine.create_tables(&[users()]).unwrap();
        put(&engine, "kept", "99999999999").await;
        engine.stop().await;

        let engine = start(Some(folder.path())).await;
        engine.create_tables(&[users()]).unwrap();
        let scanned = clients::dynamodb(engine.endpoint()).scan().table_name("Users").send().await.unwrap();
        assert_eq!(scanned.count(), 1);
        let mut changed = [users(), users(), users(), users()];
        changed[0].attributes[1].kind = "S".to_owned();
        changed[1].indexes[0].projection = "KEYS_ONLY".to_owned();
        changed[2].stream_view = None;
        changed[3].ttl_attribute = None;
        for (table, part) in changed.into_iter().zip(["attributes", "indexes", "stream", "ttl"]) {
            let refused = engine.create_tables(&[table]).unwrap_err().to_string();
            assert!(refused.contains(part) && refused.contains("Users"), "{refused}");
        }
        engine.stop().await;
    }

    #[tokio::test]
    async fn each_write_is_signalled_and_a_read_is_not() {
        let engine = start(None).await;
        engine.create_tables(&[users()]).unwrap();
        let mut writes = engine.writes();
        let client = clients::dynamodb(engine.endpoint());
        client.scan().table_name("Users").send().await.unwrap();
        client.describe_table().table_name("Users").send().await.unwrap();
        assert!(!writes.has_changed().unwrap());
        put(&engine, "one", "1").await;
        assert!(writes.has_changed().unwrap());
        writes.mark_unchanged();
        assert_eq!(engine.sweep_ttl(Clock::system().now()).await.unwrap(), 0, "too long ago for TTL");
        let now = Clock::system().now();
        put(&engine, "one", &(now.unix_timestamp() - 1).to_string()).await;
        writes.mark_unchanged();
        assert_eq!(engine.sweep_ttl(now).await.unwrap(), 1);
        assert!(writes.has_changed().unwrap(), "a removal by TTL is in the stream, too");
        engine.stop().await;
    }

    #[tokio::test]
    async fn two_engines_in_one_process_share_nothing() {
        let (one, other) = (start(None).await, start(None).await);
        one.create_tables(&[users()]).unwrap();
        let listed = clients::dynamodb(other.endpoint()).list_tables().send().await.unwrap();
        assert!(listed.table_names().is_empty());
    }
}
