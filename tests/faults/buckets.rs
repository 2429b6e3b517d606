//! Faults of the S3 buckets: a record to be quarantined or archived is not acknowledged before S3 has confirmed the
//! object, and a put that is repeated or late overwrites the same object.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_archive::writer::ArchiveWriter;
use millrace_archiver::ArchiverHandler;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_shared::quarantine::Quarantine;
use millrace_shared::stream::BatchResponse;
use millrace_sinks::dynamodb::DynamoDbSink;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::proxy::{self, HttpFault, ProxiedCall};
use crate::replication::events::{EventBuilder, LABEL, event};
use crate::replication::rig::{FAILURES, REPLICA, ReplicationRig, deliver_batch, invocation_within, without_digests};

pub(super) const ARCHIVE: &str = "users-archive";
pub(super) const LATE: Duration = Duration::from_millis(300);
/// The time that an invocation has, if a response may never arrive.
pub(super) const TIME: Duration = Duration::from_secs(2);

/// An S3 engine with faults in the first puts.
pub(super) struct BucketPair {
    /// A client without faults.
    pub(super) s3: aws_sdk_s3::Client,
    /// A client with faults and without retries.
    pub(super) troubled: aws_sdk_s3::Client,
    pub(super) puts: Arc<AtomicUsize>,
    _engine: (millrace_local::s3::S3Engine, TempDir),
}

impl BucketPair {
    pub(super) async fn start(mishap: HttpFault, struck: usize) -> Self {
        let root = TempDir::new().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let engine = millrace_local::s3::S3Engine::start(listener, root.path()).await.unwrap();
        let s3 = clients::s3(engine.endpoint());
        for bucket in [FAILURES, ARCHIVE] {
            s3.create_bucket().bucket(bucket).send().await.unwrap();
        }
        let puts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&puts);
        let plan = move |call: &ProxiedCall<'_>| {
            let hit = call.method == "PUT" && counted.fetch_add(1, Ordering::Relaxed) < struck;
            if hit { mishap } else { HttpFault::None }
        };
        let url = proxy::before(engine.endpoint(), plan).await;
        let retries = RetryConfig::disabled();
        let config = clients::s3(&url).config().to_builder().retry_config(retries).build();
        Self { s3, troubled: aws_sdk_s3::Client::from_conf(config), puts, _engine: (engine, root) }
    }

    pub(super) fn quarantine(&self, function: &'static str) -> Quarantine {
        Quarantine::new(self.troubled.clone(), FAILURES.to_owned(), function)
    }

    fn replicator(&self, rig: &ReplicationRig) -> ReplicatorHandler {
        let sink = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 4, time::Duration::days(8));
        ReplicatorHandler::new(vec![Box::new(sink)], self.quarantine("replicator"))
    }

    fn archiver(&self) -> ArchiverHandler {
        let store = ArchiveStore::new(self.troubled.clone(), ARCHIVE.to_owned());
        ArchiverHandler::new(ArchiveWriter::new(store, Compression::Zstd), self.quarantine("archiver"))
    }

    pub(super) async fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = self.s3.list_objects_v2().bucket(bucket).send().await.unwrap();
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }
}

/// The faults after which it is unknown whether the put took effect, or after which it must be repeated.
pub(super) const MISHAPS: [HttpFault; 6] = [
    HttpFault::Error(503, "SlowDown"),
    HttpFault::Error(500, "InternalError"),
    HttpFault::CutBefore,
    HttpFault::ResponseLost,
    HttpFault::Zombie(LATE),
    HttpFault::Silence,
];

async fn archive(archiver: &ArchiverHandler, events: &[EventBuilder]) -> BatchResponse {
    archiver.handle(&event(events), &invocation_within(TIME)).await.unwrap()
}

#[tokio::test]
async fn poison_is_not_acknowledged_before_it_is_safe() {
    for mishap in MISHAPS {
        let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(mishap, 1).await);
        let replicator = buckets.replicator(&rig);
        let poison = EventBuilder::image("b", 2, r#"{"user_id":{"S":"b"},"timestamp":{"N":"1"},"_rev":{"S":"x"}}"#);
        let events = [EventBuilder::named("a", 1, "Ada"), poison, EventBuilder::named("c", 3, "Cy")];
        let response = replicator.handle(&event(&events), &invocation_within(TIME)).await.unwrap();
        assert_eq!(response.identifier(), Some("2"), "{mishap:?}");
        assert_eq!(rig.item_count().await, 2, "{mishap:?}: its neighbours are applied");
        assert_eq!(deliver_batch(&replicator, &event(&events[1..])).await.identifier(), None, "{mishap:?}");
        tokio::time::sleep(LATE).await;
        let expected = [format!("quarantine/replicator/dynamodb/Users/{LABEL}-2.json")];
        assert_eq!(without_digests(&buckets.keys(FAILURES).await), expected, "{mishap:?}");
    }
}

#[tokio::test]
async fn ttl_delete_is_not_acknowledged_before_it_is_archived() {
    for mishap in MISHAPS {
        let buckets = BucketPair::start(mishap, 1).await;
        let archiver = buckets.archiver();
        let events = [EventBuilder::expired("a", 4), EventBuilder::expired("b", 5)];
        assert_eq!(archive(&archiver, &events).await.identifier(), Some("4"), "{mishap:?}");
        assert_eq!(archive(&archiver, &events).await.identifier(), None, "{mishap:?}");
        tokio::time::sleep(LATE).await;
        assert_eq!(buckets.keys(ARCHIVE).await.len(), 1, "{mishap:?}: the same rows are the same object");
        assert_eq!(buckets.puts.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn an_archive_in_trouble_does_not_keep_poison_from_quarantine() {
    // Both objects are written concurrently; the one whose put fails is the one that is redelivered.
    let buckets = BucketPair::start(HttpFault::Error(503, "SlowDown"), 1).await;
    let archiver = buckets.archiver();
    let timeless = EventBuilder::expired("b", 5).record().replace("1799999999", "1799999999000");
    let batch = crate::replication::events::event_of(&[EventBuilder::expired("a", 4).record(), timeless]);
    let response = archiver.handle(&batch, &invocation_within(TIME)).await.unwrap();
    assert!(matches!(response.identifier(), Some("4" | "5")), "{response:?}");
    assert_eq!(buckets.keys(FAILURES).await.len() + buckets.keys(ARCHIVE).await.len(), 1);
    assert_eq!(archiver.handle(&batch, &invocation_within(TIME)).await.unwrap().identifier(), None);
    assert_eq!((buckets.keys(FAILURES).await.len(), buckets.keys(ARCHIVE).await.len()), (1, 1));
}
