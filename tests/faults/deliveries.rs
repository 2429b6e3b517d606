//! Random faults in random order: if a stream is redelivered until every record is acknowledged, the replica ends in
//! the last states, and no response on the way acknowledges a change that the replica lacks.

use std::collections::BTreeMap;

use millrace_shared::revision::Revision;
use millrace_sinks::dynamodb::DynamoDbSink;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use time::Duration;
use tokio::runtime::Runtime;

use super::troubled::{FaultySink, SinkFault};
use crate::replication::events::{EventBuilder, RecordKind, event};
use crate::replication::rig::{REPLICA, ReplicationRig, deliver_batch};

/// Changes of four users, in the order of their sequence numbers.
fn streams() -> impl Strategy<Value = Vec<EventBuilder>> {
    let step = (0..4_u8, prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)]);
    proptest::collection::vec(step, 1..16).prop_map(|steps| {
        let tell = |(number, (user, what)): (u64, (u8, u8))| match what {
            0 => EventBuilder::named(&format!("u{user}"), number, &format!("n{number}")),
            1 => EventBuilder::deleted(&format!("u{user}"), number),
            _ => EventBuilder::expired(&format!("u{user}"), number),
        };
        (98..).zip(steps).map(tell).collect()
    })
}

fn troubles() -> impl Strategy<Value = Vec<SinkFault>> {
    let numbers = || proptest::collection::vec(98..114_u64, 0..5);
    let one = prop_oneof![
        numbers().prop_map(SinkFault::Rejects),
        numbers().prop_map(SinkFault::FailsAfterLanding),
        (0..4_usize).prop_map(SinkFault::Throttles),
        Just(SinkFault::IsSlow(std::time::Duration::from_millis(1))),
    ];
    proptest::collection::vec(one, 0..4)
}

/// The revision that the replica stores for a user, and whether it is a tombstone.
async fn held(rig: &ReplicationRig, user_id: &str) -> Option<(Revision, bool)> {
    let item = rig.item(user_id, "1").await?;
    let revision = Revision::decode(item["_rev"].as_b().unwrap().as_ref()).unwrap();
    Some((revision, item.contains_key("_tombstone_expires_at")))
}

fn number(revision: Revision) -> u64 {
    revision.sequence().to_string().parse().unwrap()
}

#[test]
fn nothing_is_acknowledged_that_was_not_applied_and_retries_end_right() {
    let runtime = Runtime::new().unwrap();
    let rig = runtime.block_on(ReplicationRig::start());
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let holds = runner.run(&(streams(), troubles()), |(mut changes, troubles)| {
        case.set(case.get() + 1);
        for one in &mut changes {
            one.user_id = format!("{}-{}", one.user_id, case.get());
        }
        let sink = DynamoDbSink::new(rig.dynamodb.clone(), REPLICA, 4, Duration::days(8));
        let replicator = rig.replicator_with(vec![Box::new(FaultySink::new(sink, troubles.clone()))]);

        let mut rest = &changes[..];
        for _ in 0..=troubles.len() {
            let response = runtime.block_on(deliver_batch(&replicator, &event(rest)));
            let from = response.identifier().map_or(u64::MAX, |text| text.parse().unwrap());
            for one in changes.iter().filter(|one| one.number < from) {
                let held = runtime.block_on(held(&rig, &one.user_id));
                // A change that is superseded in its batch by one that is still to be redelivered is acknowledged
                // without being stored.
                let superseded = changes.iter().any(|other| other.user_id == one.user_id && other.number >= from);
                let is_held = held.is_some_and(|(revision, _)| number(revision) >= one.number);
                prop_assert!(is_held || superseded, "{:?} is acknowledged, the replica has {:?}", one, held);
            }
            rest = &changes[changes.iter().position(|one| one.number >= from).unwrap_or(changes.len())..];
        }
        prop_assert!(rest.is_empty(), "once the trouble is over, all is answered for");

        let last: BTreeMap<_, _> = changes.iter().map(|one| (&one.user_id, one)).collect();
        for (user_id, one) in last {
            let (revision, gone) = runtime.block_on(held(&rig, user_id)).unwrap();
            prop_assert_eq!(number(revision), one.number);
            prop_assert_eq!(gone, !matches!(one.what, RecordKind::Named(_)));
        }
        Ok(())
    });
    holds.unwrap();
    assert!(runtime.block_on(rig.quarantined()).is_empty());
}
