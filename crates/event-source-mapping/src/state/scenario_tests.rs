//! Scenario tests of behaviour that AWS documents or that was recorded on AWS, one scenario per test.

use super::*;

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn number(number: u32) -> SequenceNumber {
    SequenceNumber::parse(&number.to_string()).unwrap()
}

/// Returns a record of the item `item`, with the same number as sequence number and body.
fn entry(item: u32) -> RecordEntry<u32> {
    let key_hash = hash_key(&item.to_string());
    RecordEntry { number: number(item), key_hash, at: Some(START), size_bytes: 10, wanted: true, body: item }
}

fn machine(settings: MappingSettings, records: impl IntoIterator<Item = u32>) -> MappingState<u32> {
    let mut machine = MappingState::new(settings);
    machine.open("a".into(), None, None);
    machine.receive("a", records.into_iter().map(entry), START);
    machine
}

fn partial(batch_size: usize) -> MappingSettings {
    let first_back_off = std::time::Duration::ZERO;
    MappingSettings { batch_size, partial_responses: true, first_back_off, ..MappingSettings::default() }
}

type DeliveredBatches = Vec<Vec<u32>>;
type DiscardedBatches = Vec<(Vec<u32>, DiscardReason, u32)>;

/// Runs to completion; returns the delivered batches, and the discarded batches with their numbers of invocations.
fn run(
    machine: &mut MappingState<u32>,
    function: impl Fn(&[u32]) -> Option<FunctionResponse>,
) -> (DeliveredBatches, DiscardedBatches) {
    let (mut delivered, mut discarded) = (Vec::new(), Vec::new());
    while let Some(step) = machine.next(START) {
        let records: Vec<_> = step.records.iter().map(|entry| entry.body).collect();
        match step.work {
            ActionKind::Deliver => {
                assert!(machine.invocation_completed(step.ticket, function(&records).as_ref(), START));
                delivered.push(records);
            }
            ActionKind::Discard(reason) => {
                assert!(machine.discard_completed(step.ticket, true, START));
                discarded.push((records, reason, step.invocations));
            }
        }
        assert!(delivered.len() < 1000, "it does not end");
    }
    (delivered, discarded)
}

fn failing_at(bad: u32) -> impl Fn(&[u32]) -> Option<FunctionResponse> {
    move |records| {
        Some(if records.contains(&bad) {
            FunctionResponse::Failures(vec![bad.to_string()])
        } else {
            FunctionResponse::Done
        })
    }
}

fn throwing_at(bad: u32) -> impl Fn(&[u32]) -> Option<FunctionResponse> {
    move |records| (!records.contains(&bad)).then_some(FunctionResponse::Done)
}

#[test]
fn one_bad_record_of_three_with_three_retries_is_delivered_five_times_and_its_neighbours_once() {
    let mut machine = machine(MappingSettings { max_retries: Some(3), ..partial(3) }, 1..=3);
    let (delivered, discarded) = run(&mut machine, failing_at(3));
    assert_eq!(delivered, [vec![1, 2, 3], vec![3], vec![3], vec![3], vec![3]]);
    assert_eq!(discarded, [(vec![3], DiscardReason::RetryAttemptsExhausted, 5)]);
    assert!(machine.is_idle());
}

#[test]
fn bounded_retries_without_bisect_drop_the_good_neighbours_that_follow() {
    let mut machine = machine(MappingSettings { max_retries: Some(1), ..partial(3) }, 1..=3);
    let (delivered, discarded) = run(&mut machine, failing_at(2));
    assert_eq!(delivered, [vec![1, 2, 3], vec![2, 3], vec![2, 3]]);
    assert_eq!(discarded, [(vec![2, 3], DiscardReason::RetryAttemptsExhausted, 3)]);
}

#[test]
fn bisect_isolates_the_record_that_throws_without_using_up_retries() {
    let mut machine = machine(MappingSettings { max_retries: Some(2), bisect: true, ..partial(4) }, 1..=4);
    let (delivered, discarded) = run(&mut machine, throwing_at(3));
    assert_eq!(delivered, [vec![1, 2, 3, 4], vec![1, 2], vec![3, 4], vec![3], vec![3], vec![3], vec![4]]);
    assert_eq!(discarded, [(vec![3], DiscardReason::RetryAttemptsExhausted, 5)]);
}

#[test]
fn bisect_saves_the_neighbours_after_a_reported_record() {
    let mut machine = machine(MappingSettings { max_retries: Some(1), bisect: true, ..partial(4) }, 1..=4);
    let (delivered, discarded) = run(&mut machine, failing_at(2));
    assert_eq!(delivered, [vec![1, 2, 3, 4], vec![2, 3, 4], vec![2], vec![2], vec![3, 4]]);
    assert_eq!(discarded, [(vec![2], DiscardReason::RetryAttemptsExhausted, 4)]);
}

#[test]
fn the_lowest_reported_number_is_the_checkpoint() {
    let mut machine = machine(partial(5), 1..=5);
    let step = machine.next(START).unwrap();
    let response = FunctionResponse::Failures(vec!["4".to_owned(), "2".to_owned(), "5".to_owned()]);
    assert!(machine.invocation_completed(step.ticket, Some(&response), START));
    assert_eq!(machine.checkpoints()["a"].lanes, [Some(number(1))]);
    assert_eq!(run(&mut machine, |_| Some(FunctionResponse::Done)).0, [vec![2, 3, 4, 5]]);
}

#[test]
fn an_identifier_that_is_not_in_the_batch_fails_the_whole_batch() {
    for response in [
        FunctionResponse::Malformed,
        FunctionResponse::Failures(vec!["2".into(), "9".into()]),
        FunctionResponse::Failures(vec!["x".into()]),
    ] {
        let mut machine = machine(MappingSettings { max_retries: Some(0), ..partial(3) }, 1..=3);
        let (delivered, discarded) = run(&mut machine, |_| Some(response.clone()));
        assert_eq!(delivered, [vec![1, 2, 3]], "{response:?}");
        assert_eq!(discarded[0].0, [1, 2, 3], "{response:?}");
    }
}

#[test]
fn without_report_batch_item_failures_the_answer_is_ignored() {
    let mut machine = machine(MappingSettings { partial_responses: false, ..partial(3) }, 1..=3);
    assert_eq!(run(&mut machine, failing_at(1)), (vec![vec![1, 2, 3]], vec![]));
}

#[test]
fn a_second_answer_changes_nothing() {
    let mut machine = machine(partial(1), 1..=2);
    let step = machine.next(START).unwrap();
    assert!(machine.invocation_completed(step.ticket, Some(&FunctionResponse::Done), START));
    assert!(!machine.invocation_completed(step.ticket, None, START));
    assert!(!machine.discard_completed(step.ticket, true, START));
    assert_eq!(machine.next(START).unwrap().records[0].body, 2);
}

#[test]
fn a_batch_waits_for_its_window_unless_it_is_full() {
    let window = std::time::Duration::from_mins(1);
    let mut machine = machine(MappingSettings { window, ..partial(3) }, 1..=2);
    assert!(machine.next(START).is_none());
    assert_eq!(machine.wake_at(), Some(START + window));
    machine.receive("a", [entry(3), entry(4)], START + window / 2);
    let step = machine.next(START + window / 2).unwrap();
    assert_eq!(step.records.len(), 3);
    machine.invocation_completed(step.ticket, Some(&FunctionResponse::Done), START + window / 2);
    assert!(machine.next(START + window).is_none(), "the fourth was read half a window later");
    assert_eq!(machine.next(START + window * 3 / 2).unwrap().records[0].body, 4);
}

#[test]
fn records_that_arrive_while_a_batch_waits_for_its_retry_share_the_next_one() {
    let first_back_off = std::time::Duration::from_secs(1);
    let mut machine = machine(MappingSettings { first_back_off, ..partial(10) }, [1]);
    let step = machine.next(START).unwrap();
    machine.invocation_completed(step.ticket, None, START);
    for number in [2, 3] {
        machine.receive("a", [entry(number)], START);
        assert!(machine.next(START).is_none());
    }
    let mut batches = Vec::new();
    while let Some(step) = machine.next(START + first_back_off) {
        batches.push(step.records.iter().map(|entry| entry.body).collect::<Vec<_>>());
        machine.invocation_completed(step.ticket, Some(&FunctionResponse::Done), START + first_back_off);
    }
    assert_eq!(batches, [vec![1], vec![2, 3]]);
}

#[test]
fn a_batch_holds_no_more_bytes_than_a_payload() {
    let mut machine = machine(MappingSettings { batch_bytes: 25, ..partial(10) }, 1..=5);
    assert_eq!(run(&mut machine, |_| Some(FunctionResponse::Done)).0, [vec![1, 2], vec![3, 4], vec![5]]);
}

#[test]
fn a_record_larger_than_a_payload_goes_alone() {
    let mut machine = machine(MappingSettings { batch_bytes: 5, ..partial(10) }, 1..=2);
    assert_eq!(run(&mut machine, |_| Some(FunctionResponse::Done)).0, [vec![1], vec![2]]);
}

#[test]
fn records_past_their_age_are_discarded_and_the_rest_is_delivered() {
    let max_age = Some(std::time::Duration::from_mins(1));
    let mut machine = machine(MappingSettings { max_age, ..partial(3) }, []);
    let at =
        |number: u32, seconds: i64| RecordEntry { at: Some(START - time::Duration::seconds(seconds)), ..entry(number) };
    machine.receive("a", [at(1, 90), at(2, 61), at(3, 60)], START);
    let (delivered, discarded) = run(&mut machine, |_| Some(FunctionResponse::Done));
    assert_eq!(delivered, [vec![3]]);
    assert_eq!(discarded, [(vec![1, 2], DiscardReason::RecordAgeExceeded, 0)]);
}

#[test]
fn a_failing_record_is_retried_until_it_is_too_old() {
    let seconds = std::time::Duration::from_secs;
    let max_age = Some(seconds(60));
    let mut machine = machine(
        MappingSettings { max_age, first_back_off: seconds(25), longest_back_off: seconds(25), ..partial(1) },
        [1],
    );
    let (mut now, mut invocations) = (START, 0);
    let last = loop {
        let Some(step) = machine.next(now) else {
            now = machine.wake_at().unwrap();
            continue;
        };
        if let ActionKind::Discard(reason) = step.work {
            assert!(machine.discard_completed(step.ticket, true, now));
            break (reason, step.invocations);
        }
        invocations += 1;
        machine.invocation_completed(step.ticket, None, now);
    };
    assert_eq!((last, invocations), ((DiscardReason::RecordAgeExceeded, 3), 3));
    assert!(machine.is_idle());
}

#[test]
fn a_discarded_batch_is_settled_only_when_it_is_recorded() {
    let mut machine = machine(MappingSettings { max_retries: Some(0), ..partial(1) }, 1..=2);
    let step = machine.next(START).unwrap();
    machine.invocation_completed(step.ticket, None, START);
    let step = machine.next(START).unwrap();
    assert_eq!(step.work, ActionKind::Discard(DiscardReason::RetryAttemptsExhausted));
    assert!(machine.discard_completed(step.ticket, false, START));
    assert_eq!(machine.checkpoints()["a"].lanes, [None]);
    let again = machine.next(START).unwrap();
    assert_eq!((again.work, again.records[0].body), (step.work, 1));
    assert!(machine.discard_completed(again.ticket, true, START));
    assert_eq!(machine.checkpoints()["a"].lanes, [Some(number(1))]);
}

#[test]
fn lanes_run_side_by_side_and_checkpoint_separately() {
    let mut machine = machine(MappingSettings { lanes: 2, ..partial(10) }, []);
    let of = |number: u32, key_hash: u64| RecordEntry { key_hash, ..entry(number) };
    machine.receive("a", [of(1, 0), of(2, 1), of(3, 0), of(4, 1)], START);
    let (even, odd) = (machine.next(START).unwrap(), machine.next(START).unwrap());
    assert!(machine.next(START).is_none());
    assert_eq!(even.records.iter().map(|entry| entry.body).collect::<Vec<_>>(), [1, 3]);
    machine.invocation_completed(odd.ticket, Some(&FunctionResponse::Done), START);
    assert_eq!(machine.checkpoints()["a"].lanes, [None, Some(number(4))]);

    let mut restarted = MappingState::new(MappingSettings { lanes: 2, ..partial(10) });
    restarted.open("a".into(), None, Some(&machine.checkpoints()["a"]));
    assert_eq!(restarted.readable(), [("a".into(), None)]);
    restarted.receive("a", [of(1, 0), of(2, 1), of(3, 0), of(4, 1), of(5, 1)], START);
    assert_eq!(run(&mut restarted, |_| Some(FunctionResponse::Done)).0, [vec![1, 3], vec![5]]);
}

#[test]
fn a_child_shard_waits_until_its_parent_is_drained() {
    let mut machine = machine(partial(1), [1]);
    machine.open("b".into(), Some("a".into()), None);
    machine.open("orphan".into(), Some("trimmed".into()), None);
    let readable = |machine: &MappingState<u32>| machine.readable().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!(readable(&machine), [Arc::from("a"), "orphan".into()]);
    machine.close("a");
    machine.receive("b", [entry(7)], START);
    assert_eq!(readable(&machine), [Arc::from("orphan")]);
    assert_eq!(run(&mut machine, |_| Some(FunctionResponse::Done)).0, [vec![1]]);
    assert_eq!(readable(&machine), [Arc::from("b"), "orphan".into()]);
    assert!(machine.checkpoints()["a"].drained);
}

#[test]
fn filtered_records_are_skipped_and_advance_the_checkpoint() {
    let mut machine = machine(partial(10), []);
    let dropped = |number| RecordEntry { wanted: false, ..entry(number) };
    machine.receive("a", [dropped(1), entry(2), dropped(3)], START);
    assert_eq!(machine.checkpoints()["a"].lanes, [Some(number(1))]);
    assert_eq!(run(&mut machine, |_| Some(FunctionResponse::Done)).0, [vec![2]]);
    assert_eq!(machine.checkpoints()["a"].lanes, [Some(number(3))]);
}

#[test]
fn reading_stops_while_two_batches_wait_in_a_lane() {
    let mut machine = machine(partial(2), 1..=4);
    assert!(machine.readable().is_empty());
    run(&mut machine, |_| Some(FunctionResponse::Done));
    assert_eq!(machine.readable(), [("a".into(), Some(number(4)))]);
}
