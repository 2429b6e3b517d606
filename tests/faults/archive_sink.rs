//! The archive as a sink of the replicator, beside a replica, with faults in either: no removal by TTL is acknowledged
//! before S3 has confirmed its object, also if a later change of the batch superseded it, and a fault of one sink costs
//! the other no write.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_archive::writer::ArchiveWriter;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::environment::Environment;
use millrace_sinks::Sink;
use millrace_sinks::archive::ArchiveSink;
use millrace_sinks::dynamodb::DynamoDbSink;
use serde_json::Value;

use super::buckets::{ARCHIVE, BucketPair, LATE, MISHAPS, TIME};
use super::proxy::HttpFault;
use super::sinks::{RecordingSink, taken};
use super::troubled::{FaultySink, SinkFault};
use crate::archival::harness::rows;
use crate::replication::events::{EventBuilder, LABEL, event, event_of};
use crate::replication::rig::{FAILURES, REPLICA, ReplicationRig, deliver_batch, invocation_within, without_digests};

type GivenChanges = Arc<Mutex<Vec<Vec<u64>>>>;

fn archive_of(buckets: &BucketPair) -> ArchiveSink {
    let store = ArchiveStore::new(buckets.troubled.clone(), ARCHIVE.to_owned());
    ArchiveSink::new(ArchiveWriter::new(store, Compression::Zstd))
}

/// The replicator with a replica and the archive, each with these faults; also returns the recorded input of the replica.
fn replicator(
    rig: &ReplicationRig,
    buckets: &BucketPair,
    of_replica: Vec<SinkFault>,
    of_archive: Vec<SinkFault>,
) -> (ReplicatorHandler, GivenChanges) {
    let given = GivenChanges::default();
    let sink = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 4, time::Duration::days(8));
    let recorded = RecordingSink { inner: FaultySink::new(sink, of_replica), given: Arc::clone(&given) };
    let sinks: Vec<Box<dyn Sink>> =
        vec![Box::new(recorded), Box::new(FaultySink::new(archive_of(buckets), of_archive))];
    (ReplicatorHandler::new(sinks, buckets.quarantine("replicator")), given)
}

async fn numbers(buckets: &BucketPair) -> Vec<String> {
    rows(&buckets.s3).await.iter().map(|row| row.revision.sequence().to_string()).collect()
}

/// An item that expires and is created again, among changes that do not concern the archive.
fn expired_and_created_again() -> [EventBuilder; 4] {
    [
        EventBuilder::named("x", 3, "Xi"),
        EventBuilder::expired("a", 4),
        EventBuilder::named("a", 5, "Ada"),
        EventBuilder::named("y", 6, "Yu"),
    ]
}

#[tokio::test]
async fn a_superseded_removal_is_not_acknowledged_before_it_is_archived() {
    for mishap in MISHAPS {
        let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(mishap, 1).await);
        let (replicator, given) = replicator(&rig, &buckets, vec![], vec![]);
        let records = expired_and_created_again();
        let response = replicator.handle(&event(&records), &invocation_within(TIME)).await.unwrap();
        assert_eq!(response.identifier(), Some("4"), "{mishap:?}: the removal, and not what superseded it");
        assert_eq!(taken(&given), [[3, 5, 6]], "{mishap:?}");
        assert_eq!(deliver_batch(&replicator, &event(&records[1..])).await.identifier(), None, "{mishap:?}");
        assert_eq!(taken(&given), [[0_u64; 0]; 0], "{mishap:?}: the replica is not written again");
        tokio::time::sleep(LATE).await;
        assert_eq!(buckets.keys(ARCHIVE).await.len(), 1, "{mishap:?}: the same row is the same object");
        assert_eq!(numbers(&buckets).await, ["4"], "{mishap:?}");
        assert_eq!(rig.item("a", "1").await.unwrap()["name"].as_s().unwrap(), "Ada");
        assert!(buckets.keys(FAILURES).await.is_empty(), "{mishap:?}: an outage is nobody's poison");
    }
}

#[tokio::test]
async fn an_archive_that_hangs_holds_the_position_of_each_removal_and_of_nothing_else() {
    for (fault, archived) in [(SinkFault::Hangs, 0), (SinkFault::HangsAfterLanding, 1)] {
        let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
        let (replicator, given) = replicator(&rig, &buckets, vec![], vec![fault]);
        let records = expired_and_created_again();
        let response =
            replicator.handle(&event(&records), &invocation_within(Duration::from_millis(400))).await.unwrap();
        assert_eq!(response.identifier(), Some("4"));
        assert_eq!(numbers(&buckets).await.len(), archived);
        assert_eq!(deliver_batch(&replicator, &event(&records[1..])).await.identifier(), None);
        assert_eq!(numbers(&buckets).await, ["4"]);
        assert_eq!(taken(&given), [[3, 5, 6]], "once");
    }
}

#[tokio::test]
async fn a_slow_archive_is_waited_for() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::Slow(LATE), 1).await);
    let (replicator, _) = replicator(&rig, &buckets, vec![], vec![]);
    assert_eq!(deliver_batch(&replicator, &event(&expired_and_created_again())).await.identifier(), None);
    assert_eq!(numbers(&buckets).await, ["4"]);
}

#[tokio::test]
async fn a_replica_that_fails_costs_the_archive_no_further_write() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
    let (replicator, given) = replicator(&rig, &buckets, vec![SinkFault::Rejects((1..=9).collect()); 5], vec![]);
    let records = expired_and_created_again();
    for delivery in 0..5 {
        assert_eq!(deliver_batch(&replicator, &event(&records)).await.identifier(), Some("3"), "delivery {delivery}");
        assert_eq!(buckets.puts.load(Ordering::Relaxed), 1, "delivery {delivery}");
    }
    assert_eq!(deliver_batch(&replicator, &event(&records)).await.identifier(), None);
    assert_eq!((buckets.puts.load(Ordering::Relaxed), taken(&given).len()), (1, 6));
    assert_eq!(numbers(&buckets).await, ["4"]);
    // Acknowledged changes are not remembered: a replay writes the same object again.
    assert_eq!(deliver_batch(&replicator, &event(&records)).await.identifier(), None);
    assert_eq!((buckets.puts.load(Ordering::Relaxed), buckets.keys(ARCHIVE).await.len()), (2, 1));
}

#[tokio::test]
async fn an_archive_that_fails_costs_the_replica_no_further_write() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::Error(503, "SlowDown"), 5).await);
    let (replicator, given) = replicator(&rig, &buckets, vec![], vec![]);
    let records = expired_and_created_again();
    for delivery in 0..5 {
        let response = deliver_batch(&replicator, &event(&records[delivery.min(1)..])).await;
        assert_eq!(response.identifier(), Some("4"), "delivery {delivery}");
    }
    assert_eq!(deliver_batch(&replicator, &event(&records[1..])).await.identifier(), None);
    assert_eq!((taken(&given), numbers(&buckets).await), (vec![vec![3, 5, 6]], vec!["4".to_owned()]));
}

#[tokio::test]
async fn both_sinks_failing_in_turn_end_with_all_of_it() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::ResponseLost, 2).await);
    let faults = vec![SinkFault::Rejects(vec![5]), SinkFault::FailsAfterLanding(vec![3, 5]), SinkFault::Hangs];
    let (replicator, _) = replicator(&rig, &buckets, faults, vec![]);
    let records = expired_and_created_again();
    for _ in 0..6 {
        let response =
            replicator.handle(&event(&records), &invocation_within(Duration::from_millis(800))).await.unwrap();
        if response.identifier().is_none() {
            break;
        }
    }
    assert_eq!(deliver_batch(&replicator, &event(&records)).await.identifier(), None);
    assert_eq!((rig.item_count().await, numbers(&buckets).await), (3, vec!["4".to_owned()]));
}

#[tokio::test]
async fn superseded_unarchivable_record_is_quarantined_under_archive() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
    let (replicator, _) = replicator(&rig, &buckets, vec![], vec![]);
    let timeless = EventBuilder::expired("a", 4).record().replace("1799999999", "1799999999000");
    let records = [
        timeless,
        EventBuilder::named("a", 5, "Ada").record(),
        EventBuilder::expired("b", 6).record(),
        EventBuilder::deleted("c", 7).record(),
    ];
    for _ in 0..2 {
        assert_eq!(deliver_batch(&replicator, &event_of(&records)).await.identifier(), None);
        let expected = [format!("quarantine/replicator/archive/Users/{LABEL}-4.json")];
        assert_eq!(without_digests(&buckets.keys(FAILURES).await), expected);
        assert_eq!(numbers(&buckets).await, ["6"]);
        assert_eq!(rig.item_count().await, 3);
    }
}

#[tokio::test]
async fn of_two_different_removals_of_one_number_neither_disappears_from_the_sink() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
    let (replicator, _) = replicator(&rig, &buckets, vec![], vec![]);
    let one = EventBuilder::expired("a", 4).record();
    let other = one.replace(r#""name":{"S":"Old"}"#, r#""name":{"S":"Older"}"#);
    for _ in 0..2 {
        let batch = event_of(&[&one, &other, &EventBuilder::named("a", 5, "Ada").record()]);
        assert_eq!(deliver_batch(&replicator, &batch).await.identifier(), None);
        let [key] = &buckets.keys(FAILURES).await[..] else { panic!("the same name each time") };
        assert!(key.starts_with(&format!("quarantine/replicator/archive/Users/{LABEL}-4-")), "{key}");
        let body =
            buckets.s3.get_object().bucket(FAILURES).key(key).send().await.unwrap().body.collect().await.unwrap();
        let body: Value = serde_json::from_slice(&body.into_bytes()).unwrap();
        assert_eq!(body["record"], serde_json::from_str::<Value>(&other).unwrap());
        assert!(rows(&buckets.s3).await[0].item.get().contains(r#""Old""#));
    }
}

#[tokio::test]
async fn a_stream_without_old_images_is_refused_with_the_command() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
    let (replicator, _) = replicator(&rig, &buckets, vec![], vec![]);
    let record = EventBuilder::named("a", 1, "Ada").record().replace("NEW_AND_OLD_IMAGES", "NEW_IMAGE");
    let fault = replicator.handle(&event_of(&[record]), &invocation_within(TIME)).await.unwrap_err();
    assert_eq!(fault.name(), "SinkMisconfigured");
    let message = fault.to_string();
    for part in [
        "sink archive",
        "StreamViewType NEW_IMAGE",
        "aws dynamodb update-table --table-name Users --stream-specification",
        "StreamViewType=NEW_AND_OLD_IMAGES",
        "ARCHIVE_BUCKET",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

/// The replicator as its environment configures it.
fn configured(rig: &ReplicationRig, variables: &[(&str, &str)], s3: aws_sdk_s3::Client) -> ReplicatorHandler {
    let usual = [("REPLICA_TABLE", REPLICA), ("FAILURE_BUCKET", FAILURES)];
    let environment: Environment =
        usual.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let config = ReplicatorConfig::parse(&environment).unwrap();
    millrace_replicator::connect(&config, rig.dynamodb.clone(), None, None, s3)
}

#[tokio::test]
async fn the_bucket_s_name_turns_the_sink_on_and_a_bucket_that_does_not_exist_is_named() {
    let (rig, buckets) = (ReplicationRig::start().await, BucketPair::start(HttpFault::None, 0).await);
    let removal = || event(&[EventBuilder::expired("a", 1)]);
    let off = configured(&rig, &[], buckets.s3.clone());
    assert_eq!(deliver_batch(&off, &removal()).await.identifier(), None);
    assert!(buckets.keys(ARCHIVE).await.is_empty());

    let variables = [("ARCHIVE_BUCKET", ARCHIVE), ("ARCHIVE_COMPRESSION", "gzip")];
    let on = configured(&rig, &variables, buckets.s3.clone());
    on.check().await.unwrap();
    assert_eq!(deliver_batch(&on, &removal()).await.identifier(), None);
    let [key] = &buckets.keys(ARCHIVE).await[..] else { panic!("one object") };
    assert!(key.ends_with(".ndjson.gz"), "{key}");

    let absent = configured(&rig, &[("ARCHIVE_BUCKET", "nowhere")], buckets.s3.clone());
    let message = absent.check().await.unwrap_err().to_string();
    assert!(message.contains("ARCHIVE_BUCKET is \"nowhere\", which does not exist: create the bucket"), "{message}");
    // A bucket out of reach is no reason not to replicate.
    let retries = aws_sdk_s3::config::retry::RetryConfig::disabled();
    let config = clients::s3("http://127.0.0.1:1").config().to_builder().retry_config(retries);
    let unreachable = configured(&rig, &variables, aws_sdk_s3::Client::from_conf(config.build()));
    unreachable.check().await.unwrap();
    let environment = [("REPLICA_TABLE", REPLICA), ("FAILURE_BUCKET", FAILURES), ("ARCHIVE_BUCKET", ARCHIVE)];
    let environment = environment.iter().chain(&[("ARCHIVE_COMPRESSION", "lzma")]);
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let message = ReplicatorConfig::parse(&environment).unwrap_err().to_string();
    assert!(message.contains("ARCHIVE_COMPRESSION is \"lzma\": set it to zstd or gzip"), "{message}");
}
