//! The stores of a scenario ([`SimStage`]): with the fault injector for the functions, and without it for the
//! simulation. They are in memory ([`MemoryStage`]) or on the embedded engines.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_config::SdkConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, IdentityCache, Region, StalledStreamProtectionConfig};
use millrace_maintenance::lambda_client::LambdaClient;
use millrace_shared::replica_item::ReplicaState;
use millrace_sinks::Replica;

use super::cloud::{FAILURES, SimBucket, SimCloud, SimObject};
use super::fault_injector::{FaultInjector, FaultPoint};
use super::http_connector::{ConnectorTarget, SimHttpConnector};
use super::memory_replica::{MemoryItems, MemoryReplica};
use super::table::SimTable;

/// The clients of the source, of the buckets and of Lambda.
pub(super) type SimClients = (aws_sdk_dynamodb::Client, aws_sdk_s3::Client, LambdaClient);

/// The stores of one scenario.
pub(super) trait SimStage {
    /// Returns the two replicas, behind the fault injector.
    fn replicas(&self) -> [Arc<dyn Replica>; 2];
    /// Returns the clients of the source, of the buckets and of Lambda, behind the fault injector.
    fn clients(&self) -> SimClients;
    /// Returns the source table.
    fn table(&self) -> Arc<SimTable>;
    /// Sets the label of the source's latest stream.
    fn relabel(&self, label: &str);
    /// Sets whether the archive is a sink of the deployed replicator.
    fn deploy(&self, archive_is_sink: bool);
    /// Puts the source's item, or deletes it.
    async fn write(&self, item: usize, image: Option<String>);
    /// Returns the contents of a replica.
    async fn held(&self, sink: usize) -> MemoryItems;
    /// Deletes the contents of a replica.
    async fn lose(&self, sink: usize);
    /// Deletes the tombstones of a replica; returns their number.
    async fn forget_tombstones(&self, sink: usize) -> usize;
    /// Returns the objects of a bucket.
    async fn objects(&self, bucket: &str) -> SimBucket;
    /// Puts an object as Lambda does.
    async fn put_object(&self, bucket: &str, key: &str, bytes: Vec<u8>);
    /// Advances the clock of the functions.
    async fn pass(&self, time: std::time::Duration);
}

/// All stores in memory. Clients are costly to create, so one stage serves many scenarios in turn.
pub(super) struct MemoryStage {
    shelves: [MemoryReplica; 2],
    cloud: Arc<Mutex<SimCloud>>,
    archive_is_sink: Arc<AtomicBool>,
    clients: SimClients,
}

impl MemoryStage {
    pub(super) fn new(injector: &FaultInjector) -> Self {
        let cloud = Arc::new(Mutex::new(SimCloud::new(Arc::new(SimTable::users()))));
        let archive_is_sink = Arc::default();
        let line = SimHttpConnector {
            injector: injector.clone(),
            behind: ConnectorTarget::Memory(Arc::clone(&cloud)),
            archive_is_sink: Arc::clone(&archive_is_sink),
        };
        let shelf = |sink| MemoryReplica::new(injector.clone(), FaultPoint::Sink(sink));
        let clients = clients(&line, "http://memory", "http://memory");
        Self { shelves: [shelf(0), shelf(1)], cloud, archive_is_sink, clients }
    }

    /// Empties all stores for the next scenario.
    pub(super) fn reset(&self, table: &Arc<SimTable>) {
        *self.cloud.lock().unwrap() = SimCloud::new(Arc::clone(table));
        self.shelves.iter().for_each(|shelf| shelf.items.lock().unwrap().clear());
    }
}

/// Clients whose requests go through this connector: one attempt per call, and no timeout except the invocation's.
pub(super) fn clients(line: &SimHttpConnector, dynamodb: &str, s3: &str) -> SimClients {
    let credentials = || Credentials::new("local", "local", None, None, "local");
    let of_dynamodb = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(credentials())
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .endpoint_url(dynamodb)
        .http_client(line.clone())
        .build();
    let of_s3 = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(credentials())
        .identity_cache(aws_sdk_s3::config::IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .endpoint_url(s3)
        .force_path_style(true)
        .http_client(line.clone())
        .build();
    let of_lambda = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials()))
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .endpoint_url(dynamodb)
        .http_client(line.clone())
        .build();
    (
        aws_sdk_dynamodb::Client::from_conf(of_dynamodb),
        aws_sdk_s3::Client::from_conf(of_s3),
        LambdaClient::new(&of_lambda),
    )
}

impl SimStage for MemoryStage {
    fn replicas(&self) -> [Arc<dyn Replica>; 2] {
        [Arc::new(self.shelves[0].clone()), Arc::new(self.shelves[1].clone())]
    }

    fn clients(&self) -> SimClients {
        self.clients.clone()
    }

    fn table(&self) -> Arc<SimTable> {
        Arc::clone(&self.cloud.lock().unwrap().table)
    }

    fn relabel(&self, label: &str) {
        label.clone_into(&mut self.cloud.lock().unwrap().label);
    }

    fn deploy(&self, archive_is_sink: bool) {
        self.archive_is_sink.store(archive_is_sink, Ordering::Relaxed);
    }

    async fn write(&self, item: usize, image: Option<String>) {
        let mut cloud = self.cloud.lock().unwrap();
        let key = cloud.table.key(item).clone();
        match image {
            Some(image) => drop(cloud.items.insert(key, image)),
            None => drop(cloud.items.remove(&key)),
        }
    }

    async fn held(&self, sink: usize) -> MemoryItems {
        self.shelves[sink].items.lock().unwrap().clone()
    }

    async fn lose(&self, sink: usize) {
        self.shelves[sink].items.lock().unwrap().clear();
    }

    async fn forget_tombstones(&self, sink: usize) -> usize {
        let mut items = self.shelves[sink].items.lock().unwrap();
        let before = items.len();
        items.retain(|_, held| !matches!(held.state, ReplicaState::Tombstone { .. }));
        before - items.len()
    }

    async fn objects(&self, bucket: &str) -> SimBucket {
        let cloud = self.cloud.lock().unwrap();
        if bucket == FAILURES { cloud.failures.clone() } else { cloud.archive.clone() }
    }

    async fn put_object(&self, bucket: &str, key: &str, bytes: Vec<u8>) {
        let mut cloud = self.cloud.lock().unwrap();
        let bucket = if bucket == FAILURES { &mut cloud.failures } else { &mut cloud.archive };
        bucket.insert(key.to_owned(), SimObject { bytes, ..SimObject::default() });
    }

    async fn pass(&self, time: std::time::Duration) {
        tokio::time::advance(time).await;
    }
}
