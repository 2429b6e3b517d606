//! The cache sink: the invalidation markers that it sets in a real server, and the outcome that it reports.
//!
//! Of the properties of `sink_contract`, the cache sink has those of any sink: each deduplicated change is counted once
//! or fails, an empty batch has an empty outcome, and a change is not counted as applied if the time did not suffice.
//! The other properties concern the items of a replica: a cache stores no revisions, so no change is stale or a
//! duplicate, and it can process every change.

use std::time::Duration;

use millrace_local::cache::CacheServer;
use millrace_shared::cache::{CacheConnection, CacheEntry, CacheSlot};
use millrace_shared::stream;
use millrace_sinks::cache::CacheSink;
use millrace_sinks::{DeduplicatedBatch, FailureKind, Sink, SinkOutcome};
use serde_json::json;
use serde_json::value::RawValue;

use super::servers::{at, cache, cached_version};
use crate::replication::events::event_of;
use crate::replication::rig::{self, ReplicationRig, deliver_batch, invocation_within};
use crate::users_api::service::NOW;

/// A change of a record from one version to another; `None` if the item does not exist.
fn change(user: &str, number: u64, old: Option<u64>, new: Option<u64>) -> String {
    change_at(user, number, old, new, rig::NOW - 1)
}

fn change_at(user: &str, number: u64, old: Option<u64>, new: Option<u64>, at: i64) -> String {
    let keys = json!({"user_id": {"S": user}, "timestamp": {"N": "1"}});
    let image = |version: Option<u64>| {
        version.map(
            |version| json!({"user_id": {"S": user}, "timestamp": {"N": "1"}, "version": {"N": version.to_string()}}),
        )
    };
    let name = match (old, new) {
        (None, _) => "INSERT",
        (_, None) => "REMOVE",
        _ => "MODIFY",
    };
    let mut dynamodb = json!({
        "ApproximateCreationDateTime": at, "Keys": keys, "SequenceNumber": number.to_string(), "StreamViewType": "NEW_AND_OLD_IMAGES",
    });
    if let Some(old) = image(old) {
        dynamodb["OldImage"] = old;
    }
    if let Some(new) = image(new) {
        dynamodb["NewImage"] = new;
    }
    json!({
        "eventID": number.to_string(), "eventName": name, "dynamodb": dynamodb,
        "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-11-01T08:00:00.000",
    })
    .to_string()
}

fn key(user: &str) -> String {
    format!("millrace:1:{{Users/{user}/1}}")
}

async fn apply(sink: &dyn Sink, event: &RawValue, time: Duration) -> SinkOutcome {
    let batch = stream::read(event).unwrap();
    let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
    let settled: Vec<_> = millrace_replicator::deduplicate::latest_per_key(&changes)
        .into_iter()
        .map(|position| changes[position])
        .collect();
    let outcome = sink
        .apply(DeduplicatedBatch { changes: &changes, latest_per_key: &settled }, &invocation_within(time))
        .await
        .unwrap();
    assert_eq!(outcome.applied + outcome.failures.len(), settled.len(), "each is counted once: {outcome:?}");
    outcome
}

async fn marked(changes: &[String]) -> (CacheConnection, SinkOutcome) {
    let cache = cache().await;
    let connection = cache.connection().await.unwrap();
    for user in ["ada", "bob"] {
        let entry = CacheEntry { version: 7, expires_at: None, json: b"{}".to_vec() };
        assert!(connection.put(&key(user), &entry, NOW).await.unwrap());
    }
    let outcome = apply(&CacheSink::new(cache), &event_of(changes), Duration::from_mins(1)).await;
    (connection, outcome)
}

#[tokio::test]
async fn changed_entry_is_invalidated_and_current_entry_stays() {
    let (connection, outcome) = marked(&[change("ada", 1, Some(7), Some(8)), change("bob", 2, Some(6), Some(7))]).await;
    assert_eq!(outcome, SinkOutcome { applied: 2, ..SinkOutcome::default() });
    assert_eq!(
        (cached_version(&connection, &key("ada")).await, cached_version(&connection, &key("bob")).await),
        (None, Some(7))
    );
}

#[tokio::test]
async fn a_record_is_marked_by_the_highest_floor_of_all_its_changes() {
    // A writer whose clock is behind created the record again: the last change has the lower version.
    let (connection, _) = marked(&[change("ada", 1, Some(7), None), change("ada", 2, None, Some(3))]).await;
    assert_eq!(connection.get(&key("ada")).await.unwrap(), CacheSlot::Fenced);
}

#[tokio::test]
async fn a_writer_that_counts_no_versions_is_noticed() {
    for new in [7, 3, 0] {
        let (connection, _) = marked(&[change("ada", 1, Some(7), Some(new))]).await;
        assert_eq!(connection.get(&key("ada")).await.unwrap(), CacheSlot::Fenced, "{new}");
    }
}

#[tokio::test]
async fn keys_of_no_valid_record_are_applied_without_invalidation() {
    let stray = change("a d a", 1, None, Some(8));
    let (_, outcome) = marked(&[stray, change("ada", 2, Some(7), Some(8))]).await;
    assert_eq!(outcome, SinkOutcome { applied: 2, ..SinkOutcome::default() });
}

#[tokio::test]
async fn failed_invalidation_is_reported_at_the_change_of_its_min_version() {
    let sink = CacheSink::new(at("redis://127.0.0.1:1"));
    let event = event_of(&[
        change("bob", 1, Some(7), Some(8)),
        change("ada", 2, Some(7), None),
        change("ada", 3, None, Some(3)),
    ]);
    let mut outcome = apply(&sink, &event, Duration::from_mins(1)).await;
    outcome.failures.sort_by_key(|failure| failure.index);
    let indexes: Vec<_> = outcome.failures.iter().map(|failure| failure.index).collect();
    assert_eq!(indexes, [0, 1], "resent from the third, the deletion's minimum version would be lost");
    let FailureKind::Transient(reason) = &outcome.failures[0].kind else { panic!("{outcome:?}") };
    assert!(reason.contains("CACHE_URL"), "{reason}");
}

#[tokio::test]
async fn a_change_that_outlived_all_that_was_cached_before_it_holds_nothing_up() {
    let sink = CacheSink::new(at("redis://127.0.0.1:1"));
    let old = rig::NOW - 20 * 60 - 1;
    let event = event_of(&[change_at("ada", 1, Some(7), Some(8), old), change_at("bob", 2, None, Some(3), old + 1)]);
    let outcome = apply(&sink, &event, Duration::from_mins(1)).await;
    assert_eq!(outcome.failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_sink_without_time_claims_nothing_and_nothing_comes_of_nothing() {
    let (server, changes) = (CacheServer::start().await.unwrap(), [change("ada", 1, None, Some(8))]);
    let sink = CacheSink::new(at(&server.url()));
    let outcome = apply(&sink, &event_of(&changes), Duration::ZERO).await;
    let connection = at(&server.url()).connection().await.unwrap();
    assert!(
        outcome.failures.len() == 1 || connection.get(&key("ada")).await.unwrap() == CacheSlot::Fenced,
        "claimed and not there"
    );
    assert_eq!(apply(&sink, &event_of(&[] as &[&str]), Duration::from_secs(1)).await, SinkOutcome::default());
    assert_eq!(apply(&sink, &event_of(&changes), Duration::from_secs(1)).await.failures, []);
}

#[tokio::test]
async fn a_cache_that_is_lost_holds_the_position_until_it_is_back_and_keeps_nothing_from_the_replica() {
    let rig = ReplicationRig::start().await;
    let mut server = CacheServer::start().await.unwrap();
    let url = server.url();
    let sinks = || -> Vec<Box<dyn Sink>> {
        let replica =
            millrace_sinks::dynamodb::DynamoDbSink::new(rig.dynamodb.clone(), rig::REPLICA, 8, time::Duration::days(8));
        vec![Box::new(replica), Box::new(CacheSink::new(at(&url)))]
    };
    let replicator = rig.replicator_with(sinks());
    let event = event_of(&[change("ada", 1, Some(7), Some(8)), change("bob", 2, None, Some(3))]);
    assert_eq!(deliver_batch(&replicator, &event).await.identifier(), None);
    server.kill();
    let event = event_of(&[change("ada", 3, Some(8), Some(9)), change("eve", 4, None, Some(3))]);
    assert_eq!(deliver_batch(&replicator, &event).await.identifier(), Some("3"));
    assert_eq!(rig.item_count().await, 3, "the replica has it all");
    server.restart().await.unwrap();
    assert_eq!(deliver_batch(&replicator, &event).await.identifier(), None);
    let connection = at(&server.url()).connection().await.unwrap();
    assert_eq!(connection.get(&key("ada")).await.unwrap(), CacheSlot::Fenced);
    assert!(rig.quarantined().await.is_empty());
}

#[tokio::test]
async fn a_cache_that_refuses_stops_the_start_and_one_out_of_reach_does_not() {
    assert!(CacheSink::new(at("redis://127.0.0.1:1")).check().await.is_ok());
    let mut server = CacheServer::spawn(&["--requirepass", "secret"]).unwrap();
    server.ready(&format!("redis://:secret@127.0.0.1:{}", server.port())).await.unwrap();
    let broken = CacheSink::new(at(&server.url())).check().await.unwrap_err().to_string();
    assert!(broken.contains("sink cache") && broken.contains("CACHE_AUTH"), "{broken}");
}
