//! Deduplication of a batch: for every item, the single change that a replica has to end with.
//!
//! A batch may contain many changes of one item, and after a replay also old ones. A replica must end with the latest,
//! so only that one is written: the others would be rejected by the revision guard, or overwritten. Pure and total: no
//! clock, no client, no failure.
//!
//! Two different changes of one item with the same sequence number cannot come from a DynamoDB stream. The first of
//! them is applied; every replica would treat the other as a redelivery of the first, so it is reported here and
//! quarantined.
//!
//! The trade-off: if a sink cannot store the latest change of an item, the changes that it superseded are not applied
//! either. The latest record is quarantined as a whole, and a redrive brings the item to the source's state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use millrace_shared::change::Change;
use millrace_shared::stream::is_same_change;

/// The result of a deduplication, as indexes into the batch's changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatestChanges {
    /// For every item, the change with the highest revision; ascending.
    pub survivors: Vec<usize>,
    /// The changes that have the same item and revision as an earlier survivor but differ in content; ascending.
    pub contradicting: Vec<usize>,
}

/// Returns the indexes in `changes` of the survivors, ascending: for every item, the change with the highest revision.
///
/// Items are distinguished by their canonical key, in which `1`, `1.0` and `1e0` are the same number. If a change was
/// delivered twice, the earlier index survives, so that the response never names a position after one that failed.
#[must_use]
pub fn latest_per_key(changes: &[&Change<'_>]) -> Vec<usize> {
    decide(changes).survivors
}

/// Same as [`latest_per_key`], but also returns the changes that contradict the survivors.
///
/// A change that contradicts a superseded one is superseded, too. The decision therefore depends on the changes alone:
/// it is the same for a redelivered batch, whether longer, shorter or split in two, as long as the changes of each item
/// come in their order.
#[must_use]
pub fn decide(changes: &[&Change<'_>]) -> LatestChanges {
    let mut contradicting = Vec::new();
    let mut latest = HashMap::with_capacity(changes.len());
    for (position, change) in changes.iter().enumerate() {
        match latest.entry(change.key.canonical()) {
            Entry::Vacant(entry) => {
                entry.insert(position);
            }
            Entry::Occupied(mut entry) => {
                let known = changes[*entry.get()];
                if change.revision > known.revision {
                    entry.insert(position);
                } else if change.revision == known.revision && !is_same_change(known, change) {
                    contradicting.push(position);
                }
            }
        }
    }
    let is_of_a_survivor = |position: &usize| {
        let change = changes[*position];
        latest.get(change.key.canonical()).is_some_and(|survivor| changes[*survivor].revision == change.revision)
    };
    contradicting.retain(is_of_a_survivor);
    let mut survivors: Vec<usize> = latest.into_values().collect();
    survivors.sort_unstable();
    LatestChanges { survivors, contradicting }
}

#[cfg(test)]
mod tests {
    use millrace_shared::revision::Revision;
    use millrace_shared::stream;
    use proptest::prelude::*;
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    /// One delivered change: the stream's label, the sequence number, and the item.
    type ChangeSpec = (u8, u64, u8);

    fn payload(specs: &[ChangeSpec]) -> Box<RawValue> {
        let records: Vec<_> = specs
            .iter()
            .map(|(label, number, item)| {
                // The same number is written in different formats, as can happen if different callers write to the
                // source.
                let spelling = if number % 2 == 0 { format!("{item}") } else { format!("{item}.0") };
                json!({
                    "eventName": "MODIFY",
                    "eventSourceARN": format!("arn:aws:dynamodb:r:1:table/Users/stream/201{label}-01-01T00:00:00.000"),
                    "dynamodb": {
                        "Keys": {"id": {"N": spelling}}, "NewImage": {"id": {"N": spelling}},
                        "SequenceNumber": number.to_string(),
                    },
                })
            })
            .collect();
        RawValue::from_string(json!({ "Records": records }).to_string()).unwrap()
    }

    /// Returns the surviving indexes, and the item and the revision of each.
    fn survivors(specs: &[ChangeSpec]) -> (Vec<usize>, Vec<(String, Revision)>) {
        let payload = payload(specs);
        let records = stream::read(&payload).unwrap().records;
        let changes: Vec<_> = records.iter().map(|record| record.read.as_ref().unwrap()).collect();
        let positions = latest_per_key(&changes);
        let mut revisions: Vec<_> =
            positions.iter().map(|at| (changes[*at].key.canonical().to_string(), changes[*at].revision)).collect();
        revisions.sort();
        (positions, revisions)
    }

    fn batches() -> impl Strategy<Value = Vec<ChangeSpec>> {
        proptest::collection::vec((0..3_u8, 0..40_u64, 0..6_u8), 0..60)
    }

    proptest! {
        #[test]
        fn the_order_of_delivery_does_not_matter((specs, shuffled) in batches().prop_flat_map(|specs| {
            (Just(specs.clone()), Just(specs).prop_shuffle())
        })) {
            prop_assert_eq!(survivors(&specs).1, survivors(&shuffled).1);
        }

        #[test]
        fn nothing_is_lost(specs in batches()) {
            let (positions, revisions) = survivors(&specs);
            prop_assert!(positions.is_sorted_by(|one, next| one < next), "ascending, each once");
            // Every item has one survivor, and no change of the item is later.
            let mut items: Vec<_> = specs.iter().map(|(_, _, item)| *item).collect();
            items.sort_unstable();
            items.dedup();
            prop_assert_eq!(items.len(), revisions.len());
            for at in &positions {
                let (label, number, item) = specs[*at];
                let latest = specs.iter().filter(|other| other.2 == item).map(|other| (other.0, other.1)).max();
                prop_assert_eq!(Some((label, number)), latest);
            }
        }

        #[test]
        fn settling_twice_is_settling_once(specs in batches()) {
            let (positions, revisions) = survivors(&specs);
            let settled: Vec<_> = positions.iter().map(|at| specs[*at]).collect();
            let (again, still) = survivors(&settled);
            prop_assert_eq!(again, (0..settled.len()).collect::<Vec<_>>());
            prop_assert_eq!(still, revisions);
        }

        #[test]
        fn a_batch_settles_as_its_parts_do(specs in batches(), cut in 0..60_usize) {
            // Bisecting a batch relies on this: deduplicating the halves and then the survivors of both gives the same
            // result.
            let (head, tail) = specs.split_at(cut.min(specs.len()));
            let left = |part: &[ChangeSpec]| survivors(part).0.iter().map(|at| part[*at]).collect::<Vec<_>>();
            let rest = [left(head), left(tail)].concat();
            prop_assert_eq!(survivors(&rest).1, survivors(&specs).1);
        }
    }

    /// Returns a record of the item `a` with this event name, images and sequence number.
    fn record(name: &str, number: u64, images: &str) -> String {
        let arn = "arn:aws:dynamodb:r:1:table/Users/stream/2015-01-01T00:00:00.000";
        format!(
            r#"{{"eventName":"{name}","eventSourceARN":"{arn}","dynamodb":{{"Keys":{{"k":{{"S":"a"}}}},{images}"SequenceNumber":"{number}"}}}}"#
        )
    }

    fn latest(records: &[String]) -> LatestChanges {
        let payload = RawValue::from_string(format!(r#"{{"Records":[{}]}}"#, records.join(","))).unwrap();
        let batch = stream::read(&payload).unwrap();
        let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
        decide(&changes)
    }

    const NEW: &str = r#""NewImage":{"k":{"S":"a"},"n":{"N":"1"},"s":{"SS":["x","y"]}},"#;
    const SPELLED: &str = r#""NewImage":{"s":{"SS":["y","x"]},"n":{"N":"1.0"},"k":{"S":"\u0061"}},"#;
    const OTHER: &str = r#""NewImage":{"k":{"S":"a"},"n":{"N":"2"}},"#;
    const OLD: &str = r#""OldImage":{"k":{"S":"a"}},"#;

    #[test]
    fn two_changes_of_one_number_contradict_each_other_unless_they_are_equal_by_value() {
        let found = |one: &str, other: &str| latest(&[one.to_owned(), other.to_owned()]);
        let duplicate = LatestChanges { survivors: vec![0], contradicting: vec![] };
        let contradiction = LatestChanges { survivors: vec![0], contradicting: vec![1] };
        assert_eq!(found(&record("MODIFY", 5, NEW), &record("MODIFY", 5, NEW)), duplicate);
        assert_eq!(found(&record("MODIFY", 5, NEW), &record("MODIFY", 5, SPELLED)), duplicate);
        assert_eq!(found(&record("REMOVE", 5, OLD), &record("REMOVE", 5, OLD)), duplicate);
        assert_eq!(found(&record("MODIFY", 5, NEW), &record("MODIFY", 5, OTHER)), contradiction);
        assert_eq!(found(&record("INSERT", 5, NEW), &record("MODIFY", 5, &format!("{NEW}{OLD}"))), contradiction);
        assert_eq!(found(&record("MODIFY", 5, NEW), &record("REMOVE", 5, OLD)), contradiction);
        assert_eq!(found(&record("REMOVE", 5, OLD), &record("REMOVE", 5, "")), contradiction);
    }

    #[test]
    fn a_contradiction_that_a_later_change_superseded_is_superseded_with_it_in_any_order() {
        let (one, other, later) = (record("MODIFY", 5, NEW), record("MODIFY", 5, OTHER), record("MODIFY", 6, NEW));
        for (batch, survivor) in [
            ([one.clone(), other.clone(), later.clone()], 2),
            ([one.clone(), later.clone(), other.clone()], 1),
            ([later, one, other], 0),
        ] {
            assert_eq!(latest(&batch), LatestChanges { survivors: vec![survivor], contradicting: vec![] });
        }
    }

    #[test]
    fn every_further_contradiction_is_named() {
        let (one, other) = (record("MODIFY", 5, NEW), record("MODIFY", 5, OTHER));
        let third = record("MODIFY", 5, r#""NewImage":{"k":{"S":"a"}},"#);
        let found = latest(&[one.clone(), other, one, third]);
        assert_eq!(found, LatestChanges { survivors: vec![0], contradicting: vec![1, 3] });
    }

    #[test]
    fn of_a_change_delivered_twice_the_earlier_place_survives() {
        assert_eq!(survivors(&[(0, 2, 1), (0, 2, 1), (0, 1, 1)]).0, [0]);
    }

    #[test]
    fn a_later_stream_outranks_a_higher_number() {
        assert_eq!(survivors(&[(1, 3, 1), (0, 39, 1)]).0, [0]);
    }
}
