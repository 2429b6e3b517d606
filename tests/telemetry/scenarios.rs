//! The scenario that each function runs while its standard output is read: it emits every metric, and logs warnings and
//! errors.

use std::time::Duration;

use millrace_api::cache::CacheTimeouts;
use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_archive::writer::ArchiveWriter;
use millrace_local::cache::CacheServer;
use millrace_shared::change::CanonicalKey;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::raw_item::RawItem;
use millrace_shared::revision::Revision;
use millrace_shared::s3::S3Bucket;
use millrace_shared::telemetry;
use millrace_sinks::archive::ArchiveSink;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::postgres::PostgresSink;
use millrace_sinks::transform_history::TransformHistory;
use millrace_sinks::{Replica as _, ReplicaCondition, ReplicaWrite, Sink, SinkName, WriteResult, WriteTarget};
use serde_json::{Value, json};

use super::{FUNCTIONS, printed};
use crate::archival::harness::{self, ArchiverHarness, expired, payload};
use crate::cache::servers::at;
use crate::faults::troubled::{FaultySink, SinkFault};
use crate::maintenance::scene::{self, MaintenanceScene, user};
use crate::relational::any_table::{declared, table_sink};
use crate::replication::events::{EventBuilder, event, event_of};
use crate::replication::rig::{self, ReplicationRig, deliver_batch, invocation, sample};
use crate::search::scene::{nobody, over};
use crate::users_api::service::{ApiHandle, NOW, UsersService, config};

/// The environment variable that names the function whose scenario a child process runs.
pub(super) const FUNCTION: &str = "MILLRACE_TELEMETRY_OF";
pub(super) const REQUEST_ID: &str = "request-1";

#[tokio::test]
async fn every_function_prints_metrics_and_logs() {
    let environment = Environment::from_env();
    let Some(name) = environment.get(FUNCTION) else {
        for function in FUNCTIONS {
            let printed = printed(function);
            assert!(!printed.metrics.is_empty() && !printed.logs.is_empty(), "{function} prints both");
        }
        return;
    };
    let function = FUNCTIONS.into_iter().find(|function| *function == name).unwrap();
    let telemetry = telemetry::init(function, &environment).unwrap();
    match function {
        "api" => api().await,
        "search" => search().await,
        "replicator" => replicator().await,
        "archiver" => archiver().await,
        _ => maintenance().await,
    }
    telemetry.flush(REQUEST_ID);
}

/// A miss, a hit, a request over the quota, an unavailable cache, and a table that does not exist.
async fn api() {
    let server = CacheServer::start().await.unwrap();
    let url = server.url();
    let patience = CacheTimeouts { call: Duration::from_secs(5), cooldown: Duration::from_millis(1) };
    let service = UsersService::with_cache(at(&url), patience).await;
    let api = service.api_with(&[("CACHE_URL", &url), ("RATE_LIMIT", "10/60s burst 3")]);
    api.created("ada", 7).await;
    for (source, status) in [(Some("database"), 200), (Some("cache"), 200), (None, 429)] {
        let response = api.get("/users/ada/7").await;
        assert_eq!((response.json["source"].as_str(), response.status), (source, status));
    }
    drop(server);
    assert_eq!(api.get("/users/ada/7").await.status, 200);
    let elsewhere =
        ApiHandle(millrace_api::app(&config("Elsewhere"), service.dynamodb.clone(), None, Clock::fixed(NOW)));
    assert_eq!(elsewhere.get("/users/ada/7").await.status, 500);
}

/// A request that does not need the database, and one while the database is unavailable.
async fn search() {
    let (writer, reader) = (nobody().await, nobody().await);
    let search = over(&[("POSTGRES_URL", &writer), ("POSTGRES_READER_URL", &reader)]);
    assert_eq!(search.get("/nowhere").await.status, 404);
    assert_eq!(search.get("/search/users").await.status, 503);
}

/// A table in a database that is unavailable, whose column stores no name.
async fn unfit() -> PostgresSink {
    let columns = json!({"name": {"path": "name", "type": "bigint"}});
    table_sink(&nobody().await, &declared("orders", &columns, "null"))
}

/// Every outcome of a change, a removal by TTL that is archived, a value that no column stores, a sink that fails, a
/// batch that is redelivered, rules that no repair has applied, and a failure bucket that is unavailable.
async fn replicator() {
    const SECOND: &str = "SecondReplica";
    let rig = ReplicationRig::start().await;
    let replicator = rig.replicator();
    deliver_batch(&replicator, &sample("unreadable-in-the-middle")).await;
    let named = EventBuilder::named("ada", 7, "Ada");
    for change in [named.clone(), named, EventBuilder::named("ada", 6, "Eve"), EventBuilder::deleted("ada", 8)] {
        assert_eq!(deliver_batch(&replicator, &event(&[change])).await.identifier(), None);
    }

    rig.s3.create_bucket().bucket(harness::ARCHIVE).send().await.unwrap();
    let store = ArchiveStore::new(rig.s3.clone(), harness::ARCHIVE.to_owned());
    let archive = ArchiveSink::new(ArchiveWriter::new(store, Compression::default()));
    let archiving = rig.replicator_with(vec![Box::new(archive)]);
    assert_eq!(deliver_batch(&archiving, &event(&[EventBuilder::expired("ada", 9)])).await.identifier(), None);

    let relational = rig.replicator_with(vec![Box::new(unfit().await)]);
    let batch = event(&[EventBuilder::named("zoe", 9, "Zoe")]);
    assert_eq!(deliver_batch(&relational, &batch).await.identifier(), Some("9"));

    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let first = FaultySink::new(sink(rig::REPLICA), [SinkFault::Rejects(vec![9])]);
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(first), Box::new(sink(SECOND))];
    let replicator = rig.replicator_with(sinks);
    let batch = event(&[EventBuilder::named("bob", 9, "Bob")]);
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), Some("9"));
    assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), None);

    let history = TransformHistory::new(S3Bucket::new(rig.s3.clone(), rig::FAILURES.to_owned()));
    let rules = vec![(SinkName::parse("staging").unwrap(), Some("digest".to_owned()))];
    rig.replicator_with(Vec::new()).with_rules(history, rules).check().await.unwrap();

    let replicator = rig.replicator_without_a_bucket();
    let record = |number: u64| EventBuilder::image("eve", number, r#"{"user_id":{"N":"eve"}}"#).record();
    assert_eq!(deliver_batch(&replicator, &event_of(&[record(10)])).await.identifier(), Some("10"));
    let nameless = record(11).replace(r#""SequenceNumber":"11""#, r#""SequenceNumber":null"#);
    assert!(replicator.handle(&event_of(&[nameless]), &invocation()).await.is_err());
}

/// Rows, poison records, and buckets that refuse them.
async fn archiver() {
    let poison = |n: u32| {
        let mut record = expired(n, 0);
        record["dynamodb"]["Keys"] = "eve".into();
        record
    };
    let batch = |n: u32| payload([expired(n, 0), poison(n + 1)]);
    let harness = ArchiverHarness::start().await;
    assert_eq!(harness.handle(&batch(1)).await.unwrap().identifier(), None);
    for bucket in [harness::ARCHIVE, harness::FAILURES] {
        let harness = ArchiverHarness::start().await;
        harness.refuse(bucket);
        assert!(harness.handle(&batch(3)).await.unwrap().identifier().is_some());
    }
    let harness = ArchiverHarness::start().await;
    harness.refuse(harness::FAILURES);
    let mut nameless = poison(5);
    nameless["dynamodb"]["SequenceNumber"] = Value::Null;
    assert!(harness.handle(&payload([nameless])).await.is_err());
}

/// A value that no column stores, a difference, and a task that does not exist.
async fn maintenance() {
    let scene = MaintenanceScene::start().await;
    // Written without the source, whose stream would lead to metrics of the stack's own replicator.
    let key = CanonicalKey::parse(r#"{"timestamp":{"N":"1"},"user_id":{"S":"zoe"}}"#).unwrap();
    let item = RawItem::new(user("zoe", "Zoe"));
    let revision = Revision::parse("2026-01-01T00:00:00.000#1").unwrap();
    let write =
        ReplicaWrite { key: &key, target: WriteTarget::Item(&item), revision, over: ReplicaCondition::IfAbsent };
    let results = unfit().await.put(&[write], &invocation()).await;
    assert!(matches!(&results[..], [WriteResult::Transient(_)]), "{results:?}");
    scene.put(scene::REPLICA, user("ghost", "Extra")).await;
    scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let unknown = json!({"task": "unknown"});
    assert!(scene::invoke(&scene.maintenance(), &unknown, Duration::from_secs(30)).await.is_err());
}
