//! A scenario's stores on the embedded engines ([`SimEngines`]): the same DynamoDB and S3 engines that `millrace` runs.
//!
//! The tables and buckets serve one scenario after another and are emptied in between. The scenario simulates the
//! stream itself, so it also sets the stream label in the source's description. The second replica is a table like the
//! first, or is in PostgreSQL.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement};
use aws_sdk_s3::primitives::ByteStream;
use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::{ReplicaItem, ReservedNames, TOMBSTONE_EXPIRES_AT};
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::Replica;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::postgres::{PostgresSink, migrate};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::cloud::{ARCHIVE, FAILURES, SOURCE, SimBucket, SimObject};
use super::fault_injector::{FaultInjector, FaultPoint};
use super::http_connector::{ConnectorTarget, SimHttpConnector};
use super::memory_replica::MemoryItems;
use super::relational::FaultyReplica;
use super::stage::{SimClients, SimStage, clients};
use super::table::SimTable;
use crate::relational::store;

const REPLICAS: [&str; 2] = ["replica-0", "replica-1"];
const TOMBSTONE: time::Duration = time::Duration::days(8);
/// Tombstones never expire by time: the scenario decides when they are removed.
const FOREVER: time::Duration = time::Duration::days(36_500);
const IN_FLIGHT: usize = 3;
/// The longest real time that one pass waits: the longest pause between two tries of a task, but no invocation timeout.
const PATIENCE: Duration = Duration::from_millis(250);

/// The engines with their tables and buckets.
pub(super) struct SimEngines {
    root: TempDir,
    /// The simulation's own clients, which bypass the fault injector.
    dynamodb: aws_sdk_dynamodb::Client,
    s3: aws_sdk_s3::Client,
    /// The source table, and the label of its latest stream.
    source: Arc<Mutex<(Arc<SimTable>, String)>>,
    archive_is_sink: Arc<AtomicBool>,
    clients: SimClients,
    injector: FaultInjector,
    relational: Option<Arc<PostgresSink>>,
    _running: (millrace_local::dynamodb::DynamoDbEngine, millrace_local::s3::S3Engine),
}

impl SimEngines {
    pub(super) async fn start(injector: &FaultInjector, relational: bool) -> Self {
        let relational = if relational {
            let sink = store::sink_that_keeps(&store::empty().await, FOREVER);
            migrate(sink.database(), store::soon()).await.unwrap();
            Some(Arc::new(sink))
        } else {
            None
        };
        let root = TempDir::new().unwrap();
        let listener = || TcpListener::bind(("127.0.0.1", 0));
        let dynamodb = millrace_local::dynamodb::DynamoDbEngine::start(listener().await.unwrap(), None).await.unwrap();
        let s3 = millrace_local::s3::S3Engine::start(listener().await.unwrap(), root.path()).await.unwrap();
        let source = Arc::new(Mutex::new((Arc::new(SimTable::users()), String::new())));
        let archive_is_sink = Arc::default();
        let behind = ConnectorTarget::engine(REPLICAS, Arc::clone(&source));
        let connector =
            SimHttpConnector { injector: injector.clone(), behind, archive_is_sink: Arc::clone(&archive_is_sink) };
        let engines = Self {
            root,
            dynamodb: millrace_local::clients::dynamodb(dynamodb.endpoint()),
            s3: millrace_local::clients::s3(s3.endpoint()),
            source,
            archive_is_sink,
            clients: clients(&connector, dynamodb.endpoint(), s3.endpoint()),
            injector: injector.clone(),
            relational,
            _running: (dynamodb, s3),
        };
        for table in [SOURCE, REPLICAS[0], REPLICAS[1]] {
            engines.create_table(table).await;
        }
        engines
    }

    async fn create_table(&self, table: &str) {
        let mut create = self.dynamodb.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        for (name, kind, role) in self.table().key_schema() {
            let attribute = AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap();
            let element = KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap();
            create = create.attribute_definitions(attribute).key_schema(element);
        }
        create.send().await.unwrap();
    }

    /// Empties everything for the next scenario, which has this source table.
    pub(super) async fn reset(&self, table: &Arc<SimTable>) {
        let schema = |table: &SimTable| table.key_schema().map(|(name, kind, _)| (name.to_owned(), kind)).collect();
        let schemas: [Vec<_>; 2] = [schema(&self.table()), schema(table)];
        let former = std::mem::replace(&mut *self.source.lock().unwrap(), (Arc::clone(table), String::new())).0;
        for name in [SOURCE, REPLICAS[0], REPLICAS[1]] {
            if schemas[0] == schemas[1] {
                self.delete(name, &former, |_| true).await;
            } else {
                self.dynamodb.delete_table().table_name(name).send().await.unwrap();
                self.create_table(name).await;
            }
        }
        if let Some(sink) = &self.relational {
            rows(sink, "delete from users").await;
        }
        // The engine's own directories remain: it creates them only when it starts.
        for bucket in [FAILURES, ARCHIVE].map(|bucket| self.root.path().join(bucket)) {
            if bucket.exists() {
                fs::remove_dir_all(&bucket).unwrap();
            }
            fs::create_dir(bucket).unwrap();
        }
    }

    async fn items(&self, table: &str) -> Vec<HashMap<String, AttributeValue>> {
        self.dynamodb.scan().table_name(table).consistent_read(true).send().await.unwrap().items.unwrap_or_default()
    }

    async fn delete(
        &self,
        table: &str,
        shape: &SimTable,
        which: impl Fn(&HashMap<String, AttributeValue>) -> bool,
    ) -> usize {
        let doomed: Vec<_> = self.items(table).await.into_iter().filter(which).collect();
        for item in &doomed {
            let key = shape.key_names().into_iter().map(|name| (name.clone(), item[&name].clone())).collect();
            self.dynamodb.delete_item().table_name(table).set_key(Some(key)).send().await.unwrap();
        }
        doomed.len()
    }

    /// Returns the replica if it is in PostgreSQL.
    fn relational(&self, sink: usize) -> Option<&PostgresSink> {
        self.relational.as_deref().filter(|_| sink == 1)
    }
}

/// Executes a statement without the fault injector; returns the number of affected rows.
async fn rows(sink: &PostgresSink, sql: &'static str) -> usize {
    let done = sink.database().run(store::soon(), |session| async move { session.client().execute(sql, &[]).await });
    usize::try_from(done.await.unwrap()).unwrap()
}

impl SimStage for SimEngines {
    fn replicas(&self) -> [Arc<dyn Replica>; 2] {
        let table = |table| Arc::new(DynamoDbSink::new(self.clients.0.clone(), table, IN_FLIGHT, TOMBSTONE));
        let second: Arc<dyn Replica> = match &self.relational {
            Some(sink) => Arc::new(FaultyReplica {
                injector: self.injector.clone(),
                point: FaultPoint::Sink(1),
                inner: Arc::clone(sink),
            }),
            None => table(REPLICAS[1]),
        };
        [table(REPLICAS[0]), second]
    }

    fn clients(&self) -> SimClients {
        self.clients.clone()
    }

    fn table(&self) -> Arc<SimTable> {
        Arc::clone(&self.source.lock().unwrap().0)
    }

    fn relabel(&self, label: &str) {
        label.clone_into(&mut self.source.lock().unwrap().1);
    }

    fn deploy(&self, archive_is_sink: bool) {
        self.archive_is_sink.store(archive_is_sink, Ordering::Relaxed);
    }

    async fn write(&self, item: usize, image: Option<String>) {
        if let Some(image) = image {
            let item = RawItem::parse(&image).unwrap().into_attributes();
            self.dynamodb.put_item().table_name(SOURCE).set_item(Some(item)).send().await.unwrap();
        } else {
            let key = RawItem::parse(self.table().key(item).as_str()).unwrap().into_attributes();
            self.dynamodb.delete_item().table_name(SOURCE).set_key(Some(key)).send().await.unwrap();
        }
    }

    async fn held(&self, sink: usize) -> MemoryItems {
        if let Some(replica) = self.relational(sink) {
            return replica.scan(ScanSegment::WHOLE, None).await.unwrap().items.into_iter().collect();
        }
        let names = self.table().key_names();
        let items = self.items(REPLICAS[sink]).await.into_iter().map(RawItem::new);
        items.map(|item| (item.key(&names).unwrap(), ReplicaItem::decode(item, &ReservedNames::default()))).collect()
    }

    async fn lose(&self, sink: usize) {
        match self.relational(sink) {
            Some(replica) => drop(rows(replica, "delete from users").await),
            None => drop(self.delete(REPLICAS[sink], &self.table(), |_| true).await),
        }
    }

    async fn forget_tombstones(&self, sink: usize) -> usize {
        if let Some(replica) = self.relational(sink) {
            return rows(replica, "delete from users where deleted_at is not null").await;
        }
        let is_tombstone = |item: &HashMap<_, _>| item.contains_key(TOMBSTONE_EXPIRES_AT);
        self.delete(REPLICAS[sink], &self.table(), is_tombstone).await
    }

    async fn objects(&self, bucket: &str) -> SimBucket {
        let mut objects = SimBucket::new();
        if !holds_a_file(&self.root.path().join(bucket)) {
            return objects;
        }
        let listed = self.s3.list_objects_v2().bucket(bucket).send().await.unwrap();
        for key in listed.contents().iter().filter_map(|object| object.key()) {
            let object = self.s3.get_object().bucket(bucket).key(key).send().await.unwrap();
            let metadata = object.metadata().cloned().unwrap_or_default();
            let bytes = object.body.collect().await.unwrap().to_vec();
            objects.insert(key.to_owned(), SimObject { bytes, metadata });
        }
        objects
    }

    async fn put_object(&self, bucket: &str, key: &str, bytes: Vec<u8>) {
        self.s3.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes)).send().await.unwrap();
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time.min(PATIENCE)).await;
    }
}

/// Most scenarios leave a bucket empty, and reading the directory is cheap.
fn holds_a_file(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}
