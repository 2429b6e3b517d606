//! The properties that every sink must have, as functions over a sink and a way to read its replica.
//!
//! A new sink that stores the latest state implements [`ContractReplica`] for its store and calls
//! [`assert_sink_contract`]; no property may be relaxed for it. The changes are complete user records, which every kind of
//! replica can store, and each property uses its own users, so that they can all share one store.
//!
//! The archive stores removals instead of states, so [`assert_archive_contract`] decides for each property what it means
//! for the archive. Five of them order the states of one key, and have no counterpart because the rows of a key coexist:
//! `an_older_change_after_a_newer_is_stale`, `a_delete_leaves_a_tombstone_that_no_late_write_passes`,
//! `a_delete_that_comes_first_still_counts`, `a_record_created_again_replaces_its_tombstone` and
//! `numbers_are_compared_as_numbers`. In their place, `every_removal_is_a_row` demands that none of the rows is lost.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_archive::writer::ArchiveWriter;
use millrace_replicator::deduplicate::latest_per_key;
use millrace_shared::revision::Revision;
use millrace_shared::stream;
use millrace_sinks::archive::ArchiveSink;
use millrace_sinks::dynamodb::DynamoDbSink;
use millrace_sinks::{DeduplicatedBatch, FailureKind, Sink, SinkOutcome};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::value::RawValue;
use time::Duration;
use tokio::runtime::Runtime;

use crate::archival::harness::{ARCHIVE, keys, rows};
use crate::replication::events::{EventBuilder, LABEL, RecordKind, event, event_of, user};
use crate::replication::rig::{REPLICA, ReplicationRig, invocation_within};

/// A stream of the same table that began after that of [`LABEL`].
const LATER_LABEL: &str = "2026-11-01T08:00:00.001";

/// A replica whose contents the contract suite can read.
pub(crate) trait ContractReplica: Sync {
    /// Returns the item that is stored for a user's record with the timestamp 1.
    fn read<'r>(&'r self, user_id: &'r str) -> BoxFuture<'r, Option<ContractItem>>;

    /// Returns the image of a user record that this kind of replica cannot store.
    fn poison(&self, user_id: &str) -> String;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContractItem {
    pub(crate) revision: Revision,
    pub(crate) state: ContractState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContractState {
    Named(String),
    Gone,
}

/// Runs all properties.
pub(crate) fn assert_sink_contract(runtime: &Runtime, sink: &dyn Sink, replica: &dyn ContractReplica) {
    runtime.block_on(async {
        sink.check().await.unwrap();
        a_late_replay_changes_nothing(sink, replica).await;
        an_older_change_after_a_newer_is_stale(sink, replica).await;
        a_delete_leaves_a_tombstone_that_no_late_write_passes(sink, replica).await;
        a_delete_that_comes_first_still_counts(sink, replica).await;
        a_record_created_again_replaces_its_tombstone(sink, replica).await;
        a_later_stream_outranks_a_higher_number(sink, replica).await;
        numbers_are_compared_as_numbers(sink, replica).await;
        a_change_the_sink_cannot_hold_spares_its_neighbours(sink, replica).await;
        a_sink_without_time_claims_nothing(sink, replica).await;
        nothing_comes_of_nothing(sink).await;
    });
    the_order_of_writes_is_free(runtime, sink, replica);
}

/// Deduplicates the changes and applies them, with a minute left.
async fn apply(sink: &dyn Sink, events: &[EventBuilder]) -> SinkOutcome {
    apply_within(sink, events, std::time::Duration::from_mins(1)).await
}

async fn apply_within(sink: &dyn Sink, events: &[EventBuilder], time: std::time::Duration) -> SinkOutcome {
    apply_event(sink, &event(events), time).await
}

async fn apply_event(sink: &dyn Sink, event: &RawValue, time: std::time::Duration) -> SinkOutcome {
    let batch = stream::read(event).unwrap();
    let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
    let settled: Vec<_> = latest_per_key(&changes).into_iter().map(|position| changes[position]).collect();
    let outcome = sink
        .apply(DeduplicatedBatch { changes: &changes, latest_per_key: &settled }, &invocation_within(time))
        .await
        .unwrap();
    let named = outcome.filtered.len() + outcome.failures.len();
    let counted = outcome.applied + outcome.duplicate + outcome.stale + named;
    let required = sink.required_changes(DeduplicatedBatch { changes: &changes, latest_per_key: &settled });
    assert_eq!(counted, required.len(), "each required change is counted once: {outcome:?}");
    let is_required = |index| required.iter().any(|change| change.index == index);
    assert!(outcome.failures.iter().all(|failure| is_required(failure.index)), "{outcome:?}");
    outcome
}

fn applied(count: usize) -> SinkOutcome {
    SinkOutcome { applied: count, ..SinkOutcome::default() }
}

fn buried(count: usize) -> SinkOutcome {
    SinkOutcome { applied: count, tombstones: count, ..SinkOutcome::default() }
}

fn duplicate(count: usize) -> SinkOutcome {
    SinkOutcome { duplicate: count, ..SinkOutcome::default() }
}

fn stale(count: usize) -> SinkOutcome {
    SinkOutcome { stale: count, ..SinkOutcome::default() }
}

fn named(name: &str) -> ContractState {
    ContractState::Named(name.to_owned())
}

async fn state(replica: &dyn ContractReplica, user_id: &str) -> Option<ContractState> {
    replica.read(user_id).await.map(|held| held.state)
}

async fn a_late_replay_changes_nothing(sink: &dyn Sink, replica: &dyn ContractReplica) {
    let events = [
        EventBuilder::named("replay-a", 1, "Ada"),
        EventBuilder::named("replay-b", 2, "Bob"),
        EventBuilder::deleted("replay-c", 3),
    ];
    assert_eq!(apply(sink, &events).await, SinkOutcome { applied: 3, tombstones: 1, ..SinkOutcome::default() });
    let mut before = Vec::new();
    for one in &events {
        before.push(replica.read(&one.user_id).await);
    }
    assert_eq!(apply(sink, &events).await, duplicate(3), "the very same revisions are duplicates, not stale");
    for (one, before) in events.iter().zip(before) {
        assert!(before.is_some());
        assert_eq!(replica.read(&one.user_id).await, before);
    }
}

async fn an_older_change_after_a_newer_is_stale(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::named("older", 5, "New")]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::named("older", 4, "Old")]).await, stale(1));
    assert_eq!(state(replica, "older").await, Some(named("New")));
}

async fn a_delete_leaves_a_tombstone_that_no_late_write_passes(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::named("deleted", 1, "Ada")]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::deleted("deleted", 2)]).await, buried(1));
    assert_eq!(apply(sink, &[EventBuilder::named("deleted", 1, "Ada")]).await, stale(1));
    assert_eq!(state(replica, "deleted").await, Some(ContractState::Gone));
}

async fn a_delete_that_comes_first_still_counts(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::expired("unborn", 2)]).await, buried(1));
    assert_eq!(apply(sink, &[EventBuilder::named("unborn", 1, "Ada")]).await, stale(1));
    assert_eq!(state(replica, "unborn").await, Some(ContractState::Gone));
}

async fn a_record_created_again_replaces_its_tombstone(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::deleted("again", 1)]).await, buried(1));
    assert_eq!(apply(sink, &[EventBuilder::named("again", 2, "Ada")]).await, applied(1));
    assert_eq!(state(replica, "again").await, Some(named("Ada")));
}

async fn a_later_stream_outranks_a_higher_number(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::named("stream", 900, "Before")]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::named("stream", 1, "After").with_stream(LATER_LABEL)]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::named("stream", 901, "Before")]).await, stale(1));
    assert_eq!(state(replica, "stream").await, Some(named("After")));
}

async fn numbers_are_compared_as_numbers(sink: &dyn Sink, replica: &dyn ContractReplica) {
    assert_eq!(apply(sink, &[EventBuilder::named("number", 9, "Nine")]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::named("number", 10, "Ten")]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::named("number", 9, "Nine")]).await, stale(1));
    assert_eq!(state(replica, "number").await, Some(named("Ten")));
}

async fn a_change_the_sink_cannot_hold_spares_its_neighbours(sink: &dyn Sink, replica: &dyn ContractReplica) {
    let poison = EventBuilder::image("poison", 2, &replica.poison("poison"));
    let outcome =
        apply(sink, &[EventBuilder::named("spared-a", 1, "Ada"), poison, EventBuilder::named("spared-b", 3, "Bob")])
            .await;
    assert_eq!(outcome.applied, 2);
    let [failure] = &outcome.failures[..] else { panic!("one failure: {outcome:?}") };
    assert_eq!(failure.index, 1);
    assert!(matches!(failure.kind, FailureKind::Permanent(_)), "{failure:?}");
    assert_eq!(replica.read("poison").await, None);
    assert_eq!(state(replica, "spared-b").await, Some(named("Bob")));
}

async fn a_sink_without_time_claims_nothing(sink: &dyn Sink, replica: &dyn ContractReplica) {
    let events: Vec<_> = (1..=50).map(|n| EventBuilder::named(&format!("late-{n}"), n, "Late")).collect();
    let outcome = apply_within(sink, &events, std::time::Duration::ZERO).await;
    for failure in &outcome.failures {
        assert!(matches!(failure.kind, FailureKind::Transient(_)), "{failure:?}");
    }
    for (index, one) in events.iter().enumerate() {
        if outcome.failures.iter().all(|failure| failure.index != index) {
            assert_eq!(state(replica, &one.user_id).await, Some(named("Late")), "claimed but not there");
        }
    }
    let again = apply(sink, &events).await;
    assert_eq!((again.applied + again.duplicate, again.failures.len()), (50, 0), "the rest is applied next time");
}

async fn nothing_comes_of_nothing(sink: &dyn Sink) {
    assert_eq!(apply(sink, &[]).await, SinkOutcome::default());
}

/// The changes of one item, each with its own revision, and the order of their deliveries.
fn delivered_changes() -> impl Strategy<Value = (Vec<EventBuilder>, Vec<usize>)> {
    let step = ((any::<bool>(), 1..30_u64), prop_oneof![2 => Just(0), 1 => Just(1), 1 => Just(2)]);
    let history = proptest::collection::vec(step, 1..8).prop_map(|steps| {
        let by_revision: BTreeMap<(bool, u64), u8> = steps.into_iter().collect();
        let tell = |((later, number), what): ((bool, u64), u8)| {
            let events = match what {
                0 => EventBuilder::named("", number, &format!("{later}-{number}")),
                1 => EventBuilder::deleted("", number),
                _ => EventBuilder::expired("", number),
            };
            events.with_stream(if later { LATER_LABEL } else { LABEL })
        };
        by_revision.into_iter().map(tell).collect::<Vec<_>>()
    });
    // Every change is delivered at least once, in any order, and some are delivered again.
    history.prop_flat_map(|events| {
        let count = events.len();
        let once = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
        let again = proptest::collection::vec(0..count, 0..6);
        let deliveries = (once, again).prop_map(|(once, again)| [once, again].concat()).prop_shuffle();
        (Just(events), deliveries)
    })
}

fn the_order_of_writes_is_free(runtime: &Runtime, sink: &dyn Sink, replica: &dyn ContractReplica) {
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let count = std::cell::Cell::new(0);
    let holds = runner.run(&delivered_changes(), |(mut events, deliveries)| {
        count.set(count.get() + 1);
        let user_id = format!("order-{}", count.get());
        for one in &mut events {
            one.user_id.clone_from(&user_id);
        }
        let mut total = SinkOutcome::default();
        for chunk in deliveries.chunks(2) {
            let chunk: Vec<_> = chunk.iter().map(|position| events[*position].clone()).collect();
            let outcome = runtime.block_on(apply(sink, &chunk));
            prop_assert_eq!(&outcome.failures, &[]);
            total.applied += outcome.applied;
        }
        let last = events.last().unwrap();
        let expected = match &last.what {
            crate::replication::events::RecordKind::Named(name) => named(name),
            _ => ContractState::Gone,
        };
        let held = runtime.block_on(replica.read(&user_id)).unwrap();
        prop_assert_eq!(held.state, expected);
        prop_assert_eq!(held.revision.to_string(), format!("{}#{}", last.label, last.number));
        prop_assert!(total.applied >= 1 && total.applied <= events.len(), "each change is applied at most once");
        Ok(())
    });
    holds.unwrap();
}

impl ContractReplica for ReplicationRig {
    fn read<'r>(&'r self, user_id: &'r str) -> BoxFuture<'r, Option<ContractItem>> {
        async move {
            let item = self.item(user_id, "1").await?;
            let state = match item.get("name") {
                Some(name) => named(name.as_s().unwrap()),
                None => ContractState::Gone,
            };
            assert_eq!(
                item.contains_key("_tombstone_expires_at"),
                state == ContractState::Gone,
                "a tombstone holds nothing else"
            );
            Some(ContractItem { revision: Revision::decode(item["_rev"].as_b().unwrap().as_ref()).unwrap(), state })
        }
        .boxed()
    }

    fn poison(&self, user_id: &str) -> String {
        user(user_id, "1", &"x".repeat(410 * 1024)).to_string()
    }
}

#[test]
fn the_dynamodb_sink_passes_the_contract_suite() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(ReplicationRig::start());
    let sink = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 8, Duration::days(8));
    assert_sink_contract(&runtime, &sink, &rig);
}

#[test]
fn one_write_at_a_time_passes_the_contract_suite() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(ReplicationRig::start());
    let sink = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 1, Duration::days(8));
    assert_sink_contract(&runtime, &sink, &rig);
}

/// The archive, as the contract suite reads it: the revisions of the rows of a user's record, sorted.
async fn archived(s3: &aws_sdk_s3::Client, user_id: &str) -> Vec<String> {
    let key = format!(r#"{{"timestamp":{{"N":"1"}},"user_id":{{"S":"{user_id}"}}}}"#);
    let rows = rows(s3).await.into_iter().filter(|row| row.key.as_str() == key);
    rows.map(|row| row.revision.to_string()).collect()
}

fn revision(number: u64) -> String {
    format!("{LABEL}#{number}")
}

/// Runs the properties of the archive.
fn assert_archive_contract(runtime: &Runtime, sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    runtime.block_on(async {
        sink.check().await.unwrap();
        a_late_replay_archives_nothing_new(sink, s3).await;
        every_removal_is_a_row(sink, s3).await;
        a_removal_that_cannot_be_archived_spares_its_neighbours(sink, s3).await;
        an_archive_without_time_claims_nothing(sink, s3).await;
        nothing_comes_of_nothing(sink).await;
    });
    the_order_of_removals_is_free(runtime, sink, s3);
}

async fn a_late_replay_archives_nothing_new(sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    let events = [
        EventBuilder::named("replay-a", 1, "Ada"),
        EventBuilder::expired("replay-b", 2),
        EventBuilder::deleted("replay-c", 3),
    ];
    assert_eq!(apply(sink, &events).await, applied(1));
    let (objects, before) = (keys(s3, ARCHIVE).await, rows(s3).await.len());
    assert_eq!(apply(sink, &events).await, applied(1), "the object is written again, under the same name");
    assert_eq!(apply(sink, &events[1..]).await, applied(1));
    assert_eq!((keys(s3, ARCHIVE).await, rows(s3).await.len()), (objects, before));
    assert_eq!(archived(s3, "replay-b").await, [revision(2)]);
    assert_eq!(archived(s3, "replay-a").await.len() + archived(s3, "replay-c").await.len(), 0);
}

async fn every_removal_is_a_row(sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    // Expired, created again, deleted, created again, expired: two rows, whichever change is the latest of the batch.
    let events = [
        EventBuilder::expired("again", 9),
        EventBuilder::named("again", 10, "Ada"),
        EventBuilder::deleted("again", 11),
        EventBuilder::named("again", 12, "Ada"),
        EventBuilder::expired("again", 13),
        EventBuilder::named("again", 14, "Ada"),
    ];
    assert_eq!(apply(sink, &events).await, applied(2));
    assert_eq!(archived(s3, "again").await, [revision(9), revision(13)]);
    // A late one is a row too, and so is one of a later stream with a lower number.
    assert_eq!(apply(sink, &[EventBuilder::expired("again", 5)]).await, applied(1));
    assert_eq!(apply(sink, &[EventBuilder::expired("again", 1).with_stream(LATER_LABEL)]).await, applied(1));
    let later = format!("{LATER_LABEL}#1");
    assert_eq!(archived(s3, "again").await, [revision(5), revision(9), revision(13), later]);
}

async fn a_removal_that_cannot_be_archived_spares_its_neighbours(sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    let timeless = EventBuilder::expired("poison", 2).record().replace("1799999999", "1799999999000");
    let neighbours = [EventBuilder::expired("spared-a", 1).record(), EventBuilder::expired("spared-b", 3).record()];
    // The item is created again in the same batch: the removal is reported all the same.
    let again = EventBuilder::named("poison", 4, "Ada").record();
    let event = event_of(&[&neighbours[0], &timeless, &neighbours[1], &again]);
    let outcome = apply_event(sink, &event, std::time::Duration::from_mins(1)).await;
    assert_eq!(outcome.applied, 2);
    let [failure] = &outcome.failures[..] else { panic!("one failure: {outcome:?}") };
    assert_eq!(failure.index, 1);
    assert!(matches!(failure.kind, FailureKind::Permanent(_)), "{failure:?}");
    assert_eq!(archived(s3, "poison").await, [""; 0]);
    assert_eq!(archived(s3, "spared-b").await, [revision(3)]);
}

async fn an_archive_without_time_claims_nothing(sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    let events: Vec<_> = (1..=50).map(|n| EventBuilder::expired(&format!("late-{n}"), n)).collect();
    let outcome = apply_within(sink, &events, std::time::Duration::ZERO).await;
    for failure in &outcome.failures {
        assert!(matches!(failure.kind, FailureKind::Transient(_)), "{failure:?}");
    }
    for (index, one) in events.iter().enumerate() {
        if outcome.failures.iter().all(|failure| failure.index != index) {
            assert_eq!(archived(s3, &one.user_id).await.len(), 1, "claimed but not there");
        }
    }
    assert_eq!(apply(sink, &events).await, applied(50), "the rest is archived next time");
}

/// In whatever order and batches the changes of an item come, its rows are its removals by TTL.
fn the_order_of_removals_is_free(runtime: &Runtime, sink: &dyn Sink, s3: &aws_sdk_s3::Client) {
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let count = std::cell::Cell::new(0);
    let holds = runner.run(&delivered_changes(), |(mut events, deliveries)| {
        count.set(count.get() + 1);
        let user_id = format!("order-{}", count.get());
        for one in &mut events {
            one.user_id.clone_from(&user_id);
        }
        for chunk in deliveries.chunks(2) {
            let chunk: Vec<_> = chunk.iter().map(|position| events[*position].clone()).collect();
            let outcome = runtime.block_on(apply(sink, &chunk));
            prop_assert_eq!(&outcome.failures, &[]);
        }
        let is_expiry = |one: &&EventBuilder| matches!(one.what, RecordKind::Expired);
        let expected: Vec<_> =
            events.iter().filter(is_expiry).map(|one| format!("{}#{}", one.label, one.number)).collect();
        prop_assert_eq!(runtime.block_on(archived(s3, &user_id)), expected);
        Ok(())
    });
    holds.unwrap();
}

#[test]
fn the_archive_sink_passes_the_contract_suite() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(ReplicationRig::start());
    runtime.block_on(rig.s3.create_bucket().bucket(ARCHIVE).send()).unwrap();
    let store = ArchiveStore::new(rig.s3.clone(), ARCHIVE.to_owned());
    let sink = ArchiveSink::new(ArchiveWriter::new(store, Compression::Zstd));
    assert_archive_contract(&runtime, &sink, &rig.s3);
}
