//! A sink in trouble, beside one that is well.

use std::time::Duration;

use replicator::Replicator;
use replicator::sink::Sink;
use replicator::sink::dynamodb::DynamoDbSink;
use shared::stream::Answer;
use tokio::time::Instant;

use super::troubled::{Trouble, Troubled};
use crate::replication::rig::{REPLICA, Rig, hand_over, invocation_within};
use crate::replication::story::{LABEL, Told, event};

const SECOND: &str = "SecondReplica";

/// The function over the replica, in these troubles, and a second one, in those.
async fn between(rig: &Rig, first: &[Trouble], second: &[Trouble]) -> Replicator {
    rig.create_table(SECOND, &[("user_id", "S"), ("timestamp", "N")]).await;
    let sink = |table: &str| DynamoDbSink::new(rig.dynamodb.clone(), table, 8, time::Duration::days(8));
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Troubled::new(sink(REPLICA), first.iter().cloned())),
        Box::new(Troubled::new(sink(SECOND), second.iter().cloned())),
    ];
    rig.replicator_with(sinks)
}

fn users(numbers: impl IntoIterator<Item = u64>) -> Vec<Told> {
    numbers.into_iter().map(|number| Told::named(&format!("u{number}"), number, "Ada")).collect()
}

async fn counts(rig: &Rig) -> (i32, i32) {
    let second = rig.dynamodb.scan().table_name(SECOND).consistent_read(true).send().await.unwrap().count;
    (rig.item_count().await, second)
}

fn position(answer: &Answer) -> Option<&str> {
    answer.identifier()
}

#[tokio::test]
async fn the_lowest_position_of_all_sinks_is_answered() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::Rejects(vec![10, 11])], &[Trouble::Rejects(vec![12, 9])]).await;
    let told = users(7..=13);
    let answer = hand_over(&replicator, &event(&told)).await;
    assert_eq!(position(&answer), Some("9"), "as numbers: as text 10 would be lower");
    assert_eq!(counts(&rig).await, (5, 5), "neither waits for the other");

    let answer = hand_over(&replicator, &event(&told[2..])).await;
    assert_eq!(position(&answer), None);
    assert_eq!(counts(&rig).await, (7, 7));
}

#[tokio::test]
async fn what_failed_after_it_landed_is_delivered_again_and_changes_nothing() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::FailsAfterLanding(vec![2])], &[]).await;
    let told = users(1..=3);
    assert_eq!(position(&hand_over(&replicator, &event(&told)).await), Some("2"));
    let landed = rig.item("u2", "1").await;
    assert!(landed.is_some());
    assert_eq!(position(&hand_over(&replicator, &event(&told[1..])).await), None);
    assert_eq!(rig.item("u2", "1").await, landed);
}

#[tokio::test]
async fn a_hanging_sink_costs_the_deadline_and_holds_the_position() {
    for trouble in [Trouble::Hangs, Trouble::HangsAfterLanding] {
        let rig = Rig::start().await;
        let replicator = between(&rig, &[trouble], &[]).await;
        let (started, time) = (Instant::now(), Duration::from_millis(400));
        let answer = replicator.handle(&event(&users(4..=6)), &invocation_within(time)).await.unwrap();
        assert!(started.elapsed() < time + Duration::from_millis(300), "{:?}", started.elapsed());
        assert_eq!(position(&answer), Some("4"));
        assert_eq!(counts(&rig).await.1, 3, "the other sink is up to date");
        assert_eq!(position(&hand_over(&replicator, &event(&users(4..=6))).await), None);
        assert_eq!(counts(&rig).await, (3, 3));
    }
}

#[tokio::test]
async fn a_throttled_sink_gets_on_by_what_it_can_take() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::Throttles(2), Trouble::Throttles(1)], &[]).await;
    let told = users(1..=4);
    assert_eq!(position(&hand_over(&replicator, &event(&told)).await), Some("3"));
    assert_eq!(position(&hand_over(&replicator, &event(&told[2..])).await), Some("4"));
    assert_eq!(counts(&rig).await, (3, 4));
    assert_eq!(position(&hand_over(&replicator, &event(&told[3..])).await), None);
    assert_eq!(counts(&rig).await, (4, 4));
    assert!(rig.quarantined().await.is_empty(), "a throttle is nobody's poison");
}

#[tokio::test]
async fn a_slow_sink_is_waited_for() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::IsSlow(Duration::from_millis(200))], &[]).await;
    assert_eq!(position(&hand_over(&replicator, &event(&users(1..=3))).await), None);
    assert_eq!(counts(&rig).await, (3, 3));
}

#[tokio::test]
async fn what_one_sink_cannot_hold_is_in_the_other() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[], &[Trouble::CannotHold(vec![2])]).await;
    assert_eq!(position(&hand_over(&replicator, &event(&users(1..=3))).await), None);
    assert_eq!(counts(&rig).await, (3, 2));
    assert_eq!(rig.quarantined().await, [format!("quarantine/replicator/dynamodb/Users/{LABEL}-2.json")]);
}

#[tokio::test]
async fn poison_in_one_sink_and_trouble_in_another_are_both_answered_for() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::Rejects(vec![3])], &[Trouble::CannotHold(vec![1])]).await;
    assert_eq!(position(&hand_over(&replicator, &event(&users(1..=3))).await), Some("3"));
    assert_eq!(rig.quarantined().await.len(), 1);
}

#[tokio::test]
async fn a_settled_change_that_failed_is_reported_by_its_own_position() {
    let rig = Rig::start().await;
    let replicator = between(&rig, &[Trouble::Rejects(vec![4])], &[]).await;
    let told = [Told::named("a", 1, "One"), Told::named("b", 2, "Bob"), Told::named("a", 4, "Four")];
    assert_eq!(position(&hand_over(&replicator, &event(&told)).await), Some("4"), "what it superseded needs no resend");
    assert_eq!(position(&hand_over(&replicator, &event(&told[2..])).await), None);
    assert_eq!(rig.item("a", "1").await.unwrap()["name"].as_s().unwrap(), "Four");
}
