//! The properties of the recorded confirmations.

use std::collections::BTreeSet;

use millrace_shared::stream;
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;

/// An item, its revision, and whether the change comes from the other of two streams.
type ChangeSpec = (u8, u64, bool);

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn with<T>(specs: &[ChangeSpec], check: impl FnOnce(&[&Change<'_>]) -> T) -> T {
    let records: Vec<_> = specs
        .iter()
        .map(|(item, number, other)| {
            let keys = json!({"k": {"N": item.to_string()}});
            let arn = format!(
                "arn:aws:dynamodb:r:1:table/{}/stream/2026-01-01T00:00:00.000",
                if *other { "Other" } else { "Users" }
            );
            json!({
                "eventName": "MODIFY", "eventSourceARN": arn,
                "dynamodb": {"Keys": keys, "NewImage": keys, "SequenceNumber": number.to_string()},
            })
        })
        .collect();
    let payload = RawValue::from_string(json!({ "Records": records }).to_string()).unwrap();
    let batch = stream::read(&payload).unwrap();
    let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
    check(&changes)
}

/// Returns the changes of a batch that are passed to a sink.
fn given(memory: &ConfirmedChanges, sink: usize, specs: &[ChangeSpec]) -> Vec<ChangeSpec> {
    with(specs, |changes| {
        let lacking = memory.lacking(sink, changes);
        let is_given = |(change, _): &(&&Change<'_>, &ChangeSpec)| lacking.contains(change.key.canonical());
        changes.iter().zip(specs).filter(is_given).map(|(_, spec)| *spec).collect()
    })
}

fn confirm(memory: &mut ConfirmedChanges, sink: usize, specs: &[ChangeSpec], now: OffsetDateTime) {
    with(specs, |changes| memory.confirm(sink, changes.iter().copied(), now));
}

/// An operation on the recorded confirmations.
#[derive(Debug, Clone)]
enum BatchStep {
    Confirm(usize, Vec<ChangeSpec>),
    Acknowledge(Vec<ChangeSpec>),
    ForgetSink(usize),
    /// The confirmations of the changes that a sink receives are removed, as the handler does before passing them on.
    Give(usize, Vec<ChangeSpec>),
    Pass(i64),
}

fn batch() -> impl Strategy<Value = Vec<ChangeSpec>> {
    proptest::collection::vec((0..4_u8, 0..5_u64, proptest::bool::weighted(0.1)), 0..6)
}

fn steps() -> impl Strategy<Value = Vec<BatchStep>> {
    let sink = 0..3_usize;
    let step = prop_oneof![
        4 => (sink.clone(), batch()).prop_map(|(sink, specs)| BatchStep::Confirm(sink, specs)),
        2 => batch().prop_map(BatchStep::Acknowledge),
        1 => sink.clone().prop_map(BatchStep::ForgetSink),
        3 => (sink, batch()).prop_map(|(sink, specs)| BatchStep::Give(sink, specs)),
        1 => (0..1_200_i64).prop_map(BatchStep::Pass),
    ];
    proptest::collection::vec(step, 0..24)
}

proptest! {
    /// A change is withheld from a sink only if the sink confirmed this very change within `CONFIRMATION_TTL` and has
    /// not received the item since.
    #[test]
    fn a_sink_is_spared_exactly_what_it_confirmed(steps in steps(), batch in batch(), sink in 0..3_usize) {
        let mut memory = ConfirmedChanges::default();
        let mut now = START;
        let mut model: Vec<(usize, ChangeSpec, OffsetDateTime)> = Vec::new();
        for step in &steps {
            memory.expire(now);
            model.retain(|(_, _, at)| now - *at < CONFIRMATION_TTL);
            match step {
                BatchStep::Confirm(sink, specs) => {
                    confirm(&mut memory, *sink, specs, now);
                    for one in specs {
                        // The first confirmation by any sink determines how long it counts.
                        let first = model.iter().find(|(_, known, _)| known == one).map_or(now, |(_, _, at)| *at);
                        if !model.iter().any(|(of, known, _)| of == sink && known == one) {
                            model.push((*sink, *one, first));
                        }
                    }
                }
                BatchStep::Acknowledge(specs) => {
                    with(specs, |changes| memory.acknowledge(changes));
                    model.retain(|(_, known, _)| !specs.contains(known));
                }
                BatchStep::ForgetSink(sink) => {
                    memory.forget_sink(*sink);
                    model.retain(|(of, ..)| of != sink);
                }
                BatchStep::Give(sink, specs) => {
                    let given = given(&memory, *sink, specs);
                    with(specs, |changes| {
                        let lacking = memory.lacking(*sink, changes);
                        memory.forget_items(*sink, &lacking);
                    });
                    model.retain(|(of, known, _)| of != sink || !given.iter().any(|one| one.0 == known.0));
                }
                BatchStep::Pass(seconds) => now += Duration::seconds(*seconds),
            }
        }
        memory.expire(now);
        model.retain(|(_, _, at)| now - *at < CONFIRMATION_TTL);
        let is_confirmed = |one: &ChangeSpec| model.iter().any(|(of, known, _)| *of == sink && known == one);
        let lacking: BTreeSet<u8> = batch.iter().filter(|one| !is_confirmed(one)).map(|one| one.0).collect();
        let expected: Vec<ChangeSpec> = batch.iter().filter(|one| lacking.contains(&one.0)).copied().collect();
        prop_assert_eq!(given(&memory, sink, &batch), expected);
        prop_assert_eq!(memory.is_empty(), model.is_empty(), "unconfirmed changes use no space");
        prop_assert_eq!(memory.weight() == 0, model.is_empty());
    }

    /// With replicas that enforce the revision guard, and whichever writes fail, the result is the same as without
    /// recorded confirmations.
    #[test]
    fn skipping_confirmed_changes_does_not_alter_the_result(
        deliveries in proptest::collection::vec((0..8_usize, 0..8_usize, any::<[u8; 2]>()), 1..20),
    ) {
        let story: Vec<ChangeSpec> = [(0, 1), (1, 2), (0, 3), (2, 4), (1, 5), (0, 6), (3, 7), (1, 8)].map(|(item, number)| (item, number, false)).into();
        let mut memory = ConfirmedChanges::default();
        let (mut spared, mut plain) = ([[0_u64; 4]; 2], [[0_u64; 4]; 2]);
        for (from, count, failing) in deliveries {
            let delivered: Vec<ChangeSpec> = story.iter().skip(from).take(count + 1).copied().collect();
            let mut all_well = true;
            for sink in 0..2 {
                let given = given(&memory, sink, &delivered);
                with(&given, |changes| {
                    let items = changes.iter().map(|change| change.key.canonical()).collect();
                    memory.forget_items(sink, &items);
                });
                let fails = |one: &ChangeSpec| (failing[sink] >> (one.0 * 2)).is_multiple_of(4);
                for one in given.iter().filter(|one| !fails(one)) {
                    let held = &mut spared[sink][usize::from(one.0)];
                    *held = (*held).max(one.1);
                }
                for one in delivered.iter().filter(|one| !fails(one)) {
                    let held = &mut plain[sink][usize::from(one.0)];
                    *held = (*held).max(one.1);
                }
                let done: Vec<ChangeSpec> = given.iter().filter(|one| !fails(one)).copied().collect();
                all_well &= done.len() == given.len();
                confirm(&mut memory, sink, &done, START);
            }
            if all_well {
                with(&delivered, |changes| memory.acknowledge(changes));
            }
            prop_assert_eq!(spared, plain);
        }
    }
}

#[test]
fn confirmed_change_is_skipped_only_for_the_confirming_sink() {
    let mut memory = ConfirmedChanges::default();
    confirm(&mut memory, 0, &[(1, 1, false)], START);
    assert_eq!(given(&memory, 0, &[(1, 1, false)]), []);
    for (sink, spec) in [(1, (1, 1, false)), (0, (1, 2, false)), (0, (2, 1, false)), (0, (1, 1, true))] {
        assert_eq!(given(&memory, sink, &[spec]), [spec]);
    }
}

#[test]
fn a_change_that_is_new_takes_the_others_of_its_item_along() {
    let mut memory = ConfirmedChanges::default();
    confirm(&mut memory, 0, &[(1, 2, false), (2, 3, false)], START);
    let again = [(1, 1, false), (1, 2, false), (2, 3, false)];
    assert_eq!(given(&memory, 0, &again), [(1, 1, false), (1, 2, false)]);
}

#[test]
fn a_confirmation_lasts_from_the_first_delivery_on() {
    let mut memory = ConfirmedChanges::default();
    confirm(&mut memory, 0, &[(1, 1, false)], START);
    let later = START + CONFIRMATION_TTL - Duration::seconds(1);
    memory.expire(later);
    confirm(&mut memory, 0, &[(1, 1, false)], later);
    assert!(!memory.is_empty());
    memory.expire(START + CONFIRMATION_TTL);
    assert!(memory.is_empty(), "later confirmations do not extend it");
}

#[test]
fn there_is_room_for_so_much_and_what_is_new_goes_first() {
    let many = |from: u64| -> Vec<ChangeSpec> { (from..from + 20_000).map(|number| (1, number, false)).collect() };
    let mut memory = ConfirmedChanges::default();
    for batch in 0..4 {
        confirm(&mut memory, 0, &many(batch * 20_000), START + Duration::seconds(i64::try_from(batch).unwrap()));
        assert!(memory.weight() <= MAX_CONFIRMED_BYTES, "{}", memory.weight());
        assert_eq!(given(&memory, 0, &many(batch * 20_000)), [], "the latest batch is complete");
    }
    assert!(!given(&memory, 0, &many(0)).is_empty(), "the first batch is evicted");
    let too_many: Vec<ChangeSpec> = (0..70_000).map(|number| (2, number, false)).collect();
    confirm(&mut memory, 0, &too_many, START + Duration::minutes(1));
    assert!(memory.weight() <= MAX_CONFIRMED_BYTES);
}

#[test]
fn beyond_the_last_bit_nothing_is_remembered() {
    let mut memory = ConfirmedChanges::default();
    confirm(&mut memory, MAX_SINKS, &[(1, 1, false)], START);
    assert_eq!(given(&memory, MAX_SINKS, &[(1, 1, false)]), [(1, 1, false)]);
    assert_eq!(given(&memory, 0, &[(1, 1, false)]), [(1, 1, false)]);
}
