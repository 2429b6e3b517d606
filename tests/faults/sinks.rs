//! Faults of one sink while the other sinks are healthy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_local::clients;
use millrace_replicator::ReplicatorHandler;
use millrace_shared::invocation::Invocation;
use millrace_shared::quarantine::Quarantine;
use millrace_shared::stream::BatchResponse;
use millrace_sinks::document::ReplicationDocument;
use millrace_sinks::dynamodb::DynamoDbSink;

use millrace_sinks::{DeduplicatedBatch, Sink, SinkMisconfiguredError, SinkOutcome, TransformedSink};
use millrace_transform::ItemTransform;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::troubled::{FaultySink, SinkFault};
use crate::replication::events::{EventBuilder, LABEL, event, event_of, user};
use crate::replication::rig::{REPLICA, ReplicationRig, deliver_batch, invocation_within};

const SECOND: &str = "SecondReplica";

/// The replicator with two sinks: the replica with the first list of faults, and a second table with the other list.
async fn between(rig: &ReplicationRig, first: &[SinkFault], second: &[SinkFault]) -> ReplicatorHandler {
    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(FaultySink::new(sink(REPLICA), first.iter().cloned())),
        Box::new(FaultySink::new(sink(SECOND), second.iter().cloned())),
    ];
    rig.replicator_with(sinks)
}

fn users(numbers: impl IntoIterator<Item = u64>) -> Vec<EventBuilder> {
    numbers.into_iter().map(|number| EventBuilder::named(&format!("u{number}"), number, "Ada")).collect()
}

async fn counts(rig: &ReplicationRig) -> (i32, i32) {
    let second = rig.dynamodb.scan().table_name(SECOND).consistent_read(true).send().await.unwrap().count;
    (rig.item_count().await, second)
}

fn position(response: &BatchResponse) -> Option<&str> {
    response.identifier()
}

#[tokio::test]
async fn the_lowest_position_of_all_sinks_is_answered() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::Rejects(vec![10, 11])], &[SinkFault::Rejects(vec![12, 9])]).await;
    let events = users(7..=13);
    let response = deliver_batch(&replicator, &event(&events)).await;
    assert_eq!(position(&response), Some("9"), "as numbers: as text 10 would be lower");
    assert_eq!(counts(&rig).await, (5, 5), "neither waits for the other");

    let response = deliver_batch(&replicator, &event(&events[2..])).await;
    assert_eq!(position(&response), None);
    assert_eq!(counts(&rig).await, (7, 7));
}

/// A tombstone that the replica rejects and the failure bucket does not accept. Alone, the last change shows no image
/// that matches the filter.
#[tokio::test]
async fn tombstone_that_is_not_quarantined_is_redelivered_with_the_change_that_left_the_filter() {
    let rig = ReplicationRig::start().await;
    let replica = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 8, time::Duration::days(8));
    let document = r#"{"version":1,"replicas":[
        {"name":"paid","sink":"dynamodb","table":"Paid","where":[{"status":{"S":["paid"]}}]}]}"#;
    let settings = ReplicationDocument::parse(document).unwrap().replicas()[0].transform.clone();
    let transform = Arc::new(ItemTransform::new(&settings, &BTreeMap::new()).unwrap());
    let sink =
        TransformedSink::new(FaultySink::new(replica, [SinkFault::CannotHold(vec![3])]), transform, String::new());
    let image = |status: &str| {
        let mut image = user("ada", "1", "Ada");
        image["status"] = json!({"S": status});
        image
    };
    let record = |number: u64, old: &str, new: &str| {
        let change = EventBuilder::image("ada", number, &image(new).to_string());
        let mut record: Value = serde_json::from_str(&change.record()).unwrap();
        record["dynamodb"]["OldImage"] = image(old);
        record.to_string()
    };
    let other = EventBuilder::named("bob", 1, "Bob").record();
    let event = event_of(&[other, record(2, "paid", "draft"), record(3, "draft", "draft")]);
    // No server listens on port 1; without retries the failure is immediate.
    let s3 = clients::s3("http://127.0.0.1:1").config().to_builder().retry_config(RetryConfig::disabled());
    let s3 = aws_sdk_s3::Client::from_conf(s3.build());
    let quarantine = Quarantine::new(s3, "failures".to_owned(), "replicator");
    let replicator = ReplicatorHandler::new(vec![Box::new(sink)], quarantine);
    assert_eq!(deliver_batch(&replicator, &event).await.identifier(), Some("2"));
}

#[tokio::test]
async fn write_that_failed_after_landing_is_redelivered_without_effect() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::FailsAfterLanding(vec![2])], &[]).await;
    let events = users(1..=3);
    assert_eq!(position(&deliver_batch(&replicator, &event(&events)).await), Some("2"));
    let landed = rig.item("u2", "1").await;
    assert!(landed.is_some());
    assert_eq!(position(&deliver_batch(&replicator, &event(&events[1..])).await), None);
    assert_eq!(rig.item("u2", "1").await, landed);
}

#[tokio::test]
async fn a_hanging_sink_costs_the_deadline_and_holds_the_position() {
    for trouble in [SinkFault::Hangs, SinkFault::HangsAfterLanding] {
        let rig = ReplicationRig::start().await;
        let replicator = between(&rig, &[trouble], &[]).await;
        let (started, time) = (Instant::now(), Duration::from_millis(400));
        let response = replicator.handle(&event(&users(4..=6)), &invocation_within(time)).await.unwrap();
        assert!(started.elapsed() < time + Duration::from_millis(300), "{:?}", started.elapsed());
        assert_eq!(position(&response), Some("4"));
        assert_eq!(counts(&rig).await.1, 3, "the other sink is up to date");
        assert_eq!(position(&deliver_batch(&replicator, &event(&users(4..=6))).await), None);
        assert_eq!(counts(&rig).await, (3, 3));
    }
}

#[tokio::test]
async fn a_throttled_sink_gets_on_by_what_it_can_take() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::Throttles(2), SinkFault::Throttles(1)], &[]).await;
    let events = users(1..=4);
    assert_eq!(position(&deliver_batch(&replicator, &event(&events)).await), Some("3"));
    assert_eq!(position(&deliver_batch(&replicator, &event(&events[2..])).await), Some("4"));
    assert_eq!(counts(&rig).await, (3, 4));
    assert_eq!(position(&deliver_batch(&replicator, &event(&events[3..])).await), None);
    assert_eq!(counts(&rig).await, (4, 4));
    assert!(rig.quarantined().await.is_empty(), "a throttle is nobody's poison");
}

#[tokio::test]
async fn a_slow_sink_is_waited_for() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::IsSlow(Duration::from_millis(200))], &[]).await;
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=3))).await), None);
    assert_eq!(counts(&rig).await, (3, 3));
}

#[tokio::test]
async fn change_rejected_by_one_sink_is_applied_to_the_other() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[], &[SinkFault::CannotHold(vec![2])]).await;
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=3))).await), None);
    assert_eq!(counts(&rig).await, (3, 2));
    assert_eq!(rig.quarantined_positions().await, [format!("quarantine/replicator/dynamodb/Users/{LABEL}-2.json")]);
}

#[tokio::test]
async fn poison_in_one_sink_and_trouble_in_another_are_both_answered_for() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::Rejects(vec![3])], &[SinkFault::CannotHold(vec![1])]).await;
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=3))).await), Some("3"));
    assert_eq!(rig.quarantined().await.len(), 1);
}

#[tokio::test]
async fn a_settled_change_that_failed_is_reported_by_its_own_position() {
    let rig = ReplicationRig::start().await;
    let replicator = between(&rig, &[SinkFault::Rejects(vec![4])], &[]).await;
    let events =
        [EventBuilder::named("a", 1, "One"), EventBuilder::named("b", 2, "Bob"), EventBuilder::named("a", 4, "Four")];
    assert_eq!(
        position(&deliver_batch(&replicator, &event(&events)).await),
        Some("4"),
        "what it superseded needs no resend"
    );
    assert_eq!(position(&deliver_batch(&replicator, &event(&events[2..])).await), None);
    assert_eq!(rig.item("a", "1").await.unwrap()["name"].as_s().unwrap(), "Four");
}

/// A sink that records its input: the sequence numbers of the deduplicated changes of each call.
pub(super) struct RecordingSink<S> {
    pub(super) inner: S,
    pub(super) given: Arc<Mutex<Vec<Vec<u64>>>>,
}

impl<S: Sink> Sink for RecordingSink<S> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        self.inner.check()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        let number =
            |change: &&millrace_shared::change::Change<'_>| change.revision.sequence().to_string().parse().unwrap();
        self.given.lock().unwrap().push(batch.latest_per_key.iter().map(number).collect());
        self.inner.apply(batch, invocation).boxed()
    }

    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b millrace_shared::change::Change<'b>> {
        self.inner.required_changes(batch)
    }
}

/// The replicator with a healthy sink, and one with these faults; also returns the recorded input of the healthy one.
async fn well_beside(rig: &ReplicationRig, troubles: Vec<SinkFault>) -> (ReplicatorHandler, Arc<Mutex<Vec<Vec<u64>>>>) {
    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let given = Arc::default();
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(RecordingSink { inner: sink(REPLICA), given: Arc::clone(&given) }),
        Box::new(FaultySink::new(sink(SECOND), troubles)),
    ];
    (rig.replicator_with(sinks), given)
}

pub(super) fn taken(given: &Mutex<Vec<Vec<u64>>>) -> Vec<Vec<u64>> {
    std::mem::take(&mut *given.lock().unwrap())
}

#[tokio::test]
async fn a_healthy_sink_writes_a_batch_once_however_often_it_is_redelivered_for_another() {
    let rig = ReplicationRig::start().await;
    let (replicator, given) = well_beside(&rig, vec![SinkFault::Rejects((1..=20).collect()); 11]).await;
    for delivery in 0..11 {
        assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=20))).await), Some("1"));
        let expected = if delivery == 0 { vec![(1..=20).collect()] } else { Vec::<Vec<u64>>::new() };
        assert_eq!(taken(&given), expected, "delivery {delivery}");
    }
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=20))).await), None);
    assert_eq!(taken(&given), Vec::<Vec<u64>>::new());
    assert_eq!(counts(&rig).await, (20, 20));
    // Acknowledged changes are not remembered: only the conditional write protects against a replay.
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=20))).await), None);
    assert_eq!(taken(&given).concat().len(), 20);
}

#[tokio::test]
async fn a_batch_that_is_redelivered_in_other_slices_is_compared_change_by_change() {
    let rig = ReplicationRig::start().await;
    let (replicator, given) = well_beside(&rig, vec![SinkFault::Rejects((1..=20).collect()); 5]).await;
    for (delivered, expected) in
        [(1..=4, vec![vec![1, 2, 3, 4]]), (1..=2, vec![]), (3..=6, vec![vec![5, 6]]), (1..=7, vec![vec![7]])]
    {
        deliver_batch(&replicator, &event(&users(delivered.clone()))).await;
        assert_eq!(taken(&given), expected, "{delivered:?}");
    }
    // A later change of a confirmed item is written.
    let renamed =
        [EventBuilder::named("u1", 1, "Ada"), EventBuilder::named("u2", 2, "Ada"), EventBuilder::named("u1", 8, "Eve")];
    deliver_batch(&replicator, &event(&renamed)).await;
    assert_eq!(taken(&given), [[8]]);
    assert_eq!(rig.item("u1", "1").await.unwrap()["name"].as_s().unwrap(), "Eve");
}

#[tokio::test]
async fn confirmations_below_the_returned_position_are_not_retained() {
    let rig = ReplicationRig::start().await;
    let (replicator, given) = well_beside(&rig, vec![SinkFault::Rejects(vec![3]); 2]).await;
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=4))).await), Some("3"));
    assert_eq!(taken(&given), [[1, 2, 3, 4]]);
    assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=4))).await), Some("3"));
    assert_eq!(taken(&given), [[1, 2]]);
}

#[tokio::test]
async fn unconfirmed_changes_are_sent_to_the_sink_again() {
    let rig = ReplicationRig::start().await;
    let (replicator, _) = well_beside(
        &rig,
        vec![SinkFault::Rejects(vec![2]), SinkFault::FailsAfterLanding(vec![2, 3]), SinkFault::Throttles(1)],
    )
    .await;
    let events = users(1..=3);
    for delivery in 1..=3 {
        let response = deliver_batch(&replicator, &event(&events)).await;
        assert_eq!(position(&response), Some("2"), "delivery {delivery}");
    }
    assert_eq!(position(&deliver_batch(&replicator, &event(&events)).await), None);
    assert_eq!(counts(&rig).await, (3, 3));
    assert!(rig.quarantined().await.is_empty());
}

#[tokio::test]
async fn poison_in_a_sink_does_not_make_it_write_the_neighbours_again() {
    let rig = ReplicationRig::start().await;
    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let given = Arc::<Mutex<Vec<Vec<u64>>>>::default();
    let first = RecordingSink { inner: sink(REPLICA), given: Arc::clone(&given) };
    let replicator = rig.replicator_with(vec![
        Box::new(FaultySink::new(first, vec![SinkFault::CannotHold(vec![2]); 4])),
        Box::new(FaultySink::new(sink(SECOND), vec![SinkFault::Rejects(vec![1, 2, 3]); 4])),
    ]);
    for delivery in 0..4 {
        assert_eq!(position(&deliver_batch(&replicator, &event(&users(1..=3))).await), Some("1"));
        let written = taken(&given).concat();
        assert_eq!(written, if delivery == 0 { vec![1, 3] } else { vec![] }, "delivery {delivery}");
    }
}

#[tokio::test]
async fn a_sink_that_was_out_of_reach_is_given_all_of_it_again() {
    // The store that is reachable again may be a different one: a table that was re-created, or the other node of a
    // failover.
    let rig = ReplicationRig::start().await;
    let all = SinkFault::Rejects((1..=4).collect());
    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let given = Arc::<Mutex<Vec<Vec<u64>>>>::default();
    let first = RecordingSink { inner: sink(REPLICA), given: Arc::clone(&given) };
    let replicator = rig.replicator_with(vec![
        Box::new(FaultySink::new(first, [SinkFault::IsSlow(Duration::ZERO), all.clone()])),
        Box::new(FaultySink::new(sink(SECOND), vec![all; 3])),
    ]);
    deliver_batch(&replicator, &event(&users(1..=3))).await;
    assert_eq!(taken(&given), [[1, 2, 3]]);
    // The fourth change is new, and the sink fails for it: it confirmed none of the four.
    deliver_batch(&replicator, &event(&users(1..=4))).await;
    taken(&given);
    deliver_batch(&replicator, &event(&users(1..=4))).await;
    assert_eq!(taken(&given), [[1, 2, 3, 4]]);
}

#[tokio::test]
async fn mismatched_key_is_quarantined_even_if_its_neighbours_are_skipped() {
    let rig = ReplicationRig::start().await;
    let (replicator, _) = well_beside(&rig, vec![SinkFault::Rejects(vec![1, 3])]).await;
    let corrupt = EventBuilder::named("b", 2, "Bob").record().replace(r#""timestamp""#, r#""time""#);
    let records =
        [EventBuilder::named("u1", 1, "Ada").record(), corrupt, EventBuilder::named("u3", 3, "Cleo").record()];
    assert_eq!(position(&deliver_batch(&replicator, &event_of(&records)).await), Some("1"));
    let response = deliver_batch(&replicator, &event_of(&records)).await;
    assert_eq!(position(&response), None, "to the sink that is well the misfit comes alone");
    assert_eq!(counts(&rig).await, (2, 2));
}
