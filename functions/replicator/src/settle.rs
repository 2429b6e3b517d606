//! What a batch comes to: of every item the one change that a replica would end with.
//!
//! A batch may hold many changes of one item, and after a replay also old ones. A replica must end with the latest,
//! so only that one is written: the others would be refused by the guard or overwritten. Pure and total: no clock, no
//! client, no failure.
//!
//! What it costs: where a sink cannot hold the latest change of an item, the changes it superseded are not applied
//! either. The latest is quarantined whole, and a redrive brings the item to the source's state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use shared::change::Change;

/// The places in `changes` of the survivors, ascending: for every item the change with the highest revision.
///
/// Items are told apart by their canonical key, in which `1`, `1.0` and `1e0` are one number. Of a change that was
/// delivered twice the earlier place survives, so that the answer never names a position after one that failed.
#[must_use]
pub fn settle(changes: &[&Change<'_>]) -> Vec<usize> {
    let mut latest = HashMap::with_capacity(changes.len());
    for (place, change) in changes.iter().enumerate() {
        match latest.entry(change.key.canonical()) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(mut entry) => {
                if change.revision > changes[*entry.get()].revision {
                    entry.insert(place);
                }
            }
        }
    }
    let mut survivors: Vec<usize> = latest.into_values().collect();
    survivors.sort_unstable();
    survivors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use serde_json::value::RawValue;
    use shared::revision::Revision;
    use shared::stream;

    use super::*;

    /// One delivered change: which of the stream's labels, which number in it, which item.
    type Told = (u8, u64, u8);

    fn payload(told: &[Told]) -> Box<RawValue> {
        let records: Vec<_> = told
            .iter()
            .map(|(label, number, item)| {
                // The same number is spelled differently, as a source that was written by different callers may do.
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

    /// The places that survive, and what they tell: the item and its revision.
    fn survivors(told: &[Told]) -> (Vec<usize>, Vec<(String, Revision)>) {
        let payload = payload(told);
        let records = stream::read(&payload).unwrap().records;
        let changes: Vec<_> = records.iter().map(|record| record.read.as_ref().unwrap()).collect();
        let places = settle(&changes);
        let mut tells: Vec<_> =
            places.iter().map(|at| (changes[*at].key.canonical().to_string(), changes[*at].revision)).collect();
        tells.sort();
        (places, tells)
    }

    fn batches() -> impl Strategy<Value = Vec<Told>> {
        proptest::collection::vec((0..3_u8, 0..40_u64, 0..6_u8), 0..60)
    }

    proptest! {
        #[test]
        fn the_order_of_delivery_does_not_matter((told, shuffled) in batches().prop_flat_map(|told| {
            (Just(told.clone()), Just(told).prop_shuffle())
        })) {
            prop_assert_eq!(survivors(&told).1, survivors(&shuffled).1);
        }

        #[test]
        fn nothing_is_lost(told in batches()) {
            let (places, tells) = survivors(&told);
            prop_assert!(places.is_sorted_by(|one, next| one < next), "ascending, each once");
            // Of every item there is one survivor, and no change of the item is later.
            let mut items: Vec<_> = told.iter().map(|(_, _, item)| *item).collect();
            items.sort_unstable();
            items.dedup();
            prop_assert_eq!(items.len(), tells.len());
            for at in &places {
                let (label, number, item) = told[*at];
                let latest = told.iter().filter(|other| other.2 == item).map(|other| (other.0, other.1)).max();
                prop_assert_eq!(Some((label, number)), latest);
            }
        }

        #[test]
        fn settling_twice_is_settling_once(told in batches()) {
            let (places, tells) = survivors(&told);
            let settled: Vec<_> = places.iter().map(|at| told[*at]).collect();
            let (again, still) = survivors(&settled);
            prop_assert_eq!(again, (0..settled.len()).collect::<Vec<_>>());
            prop_assert_eq!(still, tells);
        }

        #[test]
        fn a_batch_settles_as_its_parts_do(told in batches(), cut in 0..60_usize) {
            // What bisecting relies on: settling the halves and then what is left of both comes to the same.
            let (head, tail) = told.split_at(cut.min(told.len()));
            let left = |part: &[Told]| survivors(part).0.iter().map(|at| part[*at]).collect::<Vec<_>>();
            let rest = [left(head), left(tail)].concat();
            prop_assert_eq!(survivors(&rest).1, survivors(&told).1);
        }
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
