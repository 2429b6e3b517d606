//! The capacity model against a discrete simulation: shards that are polled, the event source mapping's state machine and
//! a limited number of concurrent invocations, in steps of one millisecond.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use millrace_event_source_mapping::response::FunctionResponse;
use millrace_event_source_mapping::settings::MappingSettings;
use millrace_event_source_mapping::state::{ActionId, ActionKind, MappingState, RecordEntry};
use millrace_shared::revision::SequenceNumber;
use time::{Duration, OffsetDateTime};

use super::capacity_model::{CapacityPlan, TableWorkload};

const POLL_MS: u64 = 250;
/// The start, which is not measured.
const WARM_UP_MS: u64 = 2_000;

/// Measurements of the simulation.
#[derive(Debug)]
struct SimulatedLoad {
    batch_records: f64,
    invocations_per_second: f64,
    concurrency: f64,
    mean_lag_seconds: f64,
    longest_lag_seconds: f64,
    /// Records that waited at the end.
    waiting: usize,
}

/// Pseudo-random numbers (splitmix64), so that each run is the same.
struct Randomness(u64);

impl Randomness {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between 0 and 1, neither included.
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    fn fraction(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
fn whole(value: f64) -> usize {
    value.round() as usize
}

#[expect(clippy::cast_precision_loss, reason = "small")]
fn float(value: usize) -> f64 {
    value as f64
}

fn at(ms: u64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(i64::try_from(ms).unwrap())
}

/// Simulates the replicator under a load for some seconds, with at most `concurrency` invocations at once.
fn simulate(workload: &TableWorkload, seconds: u64, concurrency: usize) -> SimulatedLoad {
    let shards = whole(workload.shards());
    let duration = workload.batch_duration();
    let settings = MappingSettings {
        batch_size: whole(workload.largest_batch()),
        lanes: 4,
        partial_responses: true,
        ..MappingSettings::default()
    };
    let mut mapping = MappingState::new(settings);
    let names: Vec<String> = (0..shards).map(|shard| format!("shard-{shard:04}")).collect();
    for name in &names {
        mapping.open(name.as_str().into(), None, None);
    }
    let mut randomness = Randomness(7);
    let mut written: Vec<Vec<RecordEntry<u64>>> = vec![Vec::new(); shards];
    let mut running: BinaryHeap<Reverse<(u64, ActionId)>> = BinaryHeap::new();
    let mut batches: std::collections::BTreeMap<ActionId, Vec<u64>> = std::collections::BTreeMap::new();
    let (mut sequence, mut next_write) = (0_u64, 0.0_f64);
    let (mut count, mut records, mut busy_ms) = (0_usize, 0_usize, 0_usize);
    let mut started = 0_usize;
    let (mut lag_sum, mut lag_count, mut longest) = (0.0_f64, 0_usize, 0.0_f64);
    let end = seconds * 1_000;
    for now in 0..end {
        let time = f64::from(u32::try_from(now).unwrap());
        while next_write <= time {
            sequence += 1;
            let (key, shard) = (randomness.next(), randomness.next() % u64::try_from(shards).unwrap());
            written[usize::try_from(shard).unwrap()].push(RecordEntry {
                number: SequenceNumber::parse(&sequence.to_string()).unwrap(),
                key_hash: key,
                at: Some(at(now)),
                size_bytes: 1,
                wanted: true,
                body: now,
            });
            next_write += -randomness.fraction().ln() * 1_000.0 / workload.records_per_second();
        }
        for (shard, name) in names.iter().enumerate() {
            // The shards are polled one after the other.
            let offset = u64::try_from(shard).unwrap() * 7 % POLL_MS;
            if now % POLL_MS == offset {
                mapping.receive(name, written[shard].drain(..), at(now));
            }
        }
        while let Some(Reverse((finished, ticket))) = running.peek().copied().filter(|Reverse((end, _))| *end <= now) {
            running.pop();
            mapping.invocation_completed(ticket, Some(&FunctionResponse::Done), at(now));
            for write in batches.remove(&ticket).unwrap() {
                let lag = f64::from(u32::try_from(finished - write).unwrap()) / 1_000.0;
                if write >= WARM_UP_MS {
                    lag_sum += lag;
                    lag_count += 1;
                    longest = longest.max(lag);
                }
            }
        }
        while running.len() < concurrency {
            let Some(action) = mapping.next(at(now)) else { break };
            assert_eq!(action.work, ActionKind::Deliver);
            let length = action.records.len();
            started += length;
            let took = u64::try_from(whole(duration.seconds(float(length)) * 1_000.0)).unwrap().max(1);
            running.push(Reverse((now + took, action.ticket)));
            batches.insert(action.ticket, action.records.iter().map(|record| record.body).collect());
            if now >= WARM_UP_MS {
                count += 1;
                records += length;
            }
        }
        if now >= WARM_UP_MS {
            busy_ms += running.len();
        }
    }
    let measured_ms = float(usize::try_from(end - WARM_UP_MS).unwrap());
    SimulatedLoad {
        batch_records: float(records) / float(count.max(1)),
        invocations_per_second: float(count) / measured_ms * 1_000.0,
        concurrency: float(busy_ms) / measured_ms,
        mean_lag_seconds: lag_sum / float(lag_count.max(1)),
        longest_lag_seconds: longest,
        waiting: usize::try_from(sequence).unwrap() - started,
    }
}

fn workload(writes_per_second: f64, replicas: u32) -> TableWorkload {
    TableWorkload { items: 1e6, item_bytes: 1_000, writes_per_second, expired_per_day: 0.0, replicas }
}

#[test]
fn model_is_the_simulation_within_a_tenth_where_lanes_keep_up() {
    for (workload, seconds) in [
        (workload(2.0, 1), 300),
        (workload(40.0, 1), 40),
        (workload(400.0, 1), 20),
        (workload(4_000.0, 1), 8),
        (workload(4_000.0, 8), 8),
        (workload(20_000.0, 1), 5),
        (TableWorkload { items: 1e9, ..workload(1_000.0, 1) }, 8),
    ] {
        let (plan, simulated) = (CapacityPlan::new(&workload), simulate(&workload, seconds, usize::MAX));
        let lag = plan.lag.unwrap();
        println!("{workload:?}\n  {:?}\n  {:?}\n  {simulated:?}", plan.replicator, plan.lag);
        for (name, model, simulation) in [
            ("batch", plan.replicator.batch_records, simulated.batch_records),
            ("invocations", plan.replicator.invocations_per_second, simulated.invocations_per_second),
            ("concurrency", plan.replicator.concurrency, simulated.concurrency),
            ("lag", lag.typical_seconds, simulated.mean_lag_seconds),
        ] {
            let ratio = model / simulation;
            assert!((0.9..=1.1).contains(&ratio), "{name}: {model} and {simulation} of {workload:?}");
        }
        assert!(simulated.longest_lag_seconds <= lag.longest_seconds * 1.1, "{lag:?} and {simulated:?}");
    }
}

/// Lanes that are busy most of the time: a lane that gets more than its share of the records falls behind the others, and
/// the batches are longer than a poll, so there are fewer of them than the model says.
#[test]
fn model_is_below_the_simulated_lag_where_lanes_are_almost_always_busy() {
    let workload = workload(4_000.0, 51);
    let (plan, simulated) = (CapacityPlan::new(&workload), simulate(&workload, 20, usize::MAX));
    println!("{:?}\n  {:?}\n  {simulated:?}", plan.replicator, plan.lag);
    let concurrency = plan.replicator.concurrency / simulated.concurrency;
    assert!((0.9..=1.1).contains(&concurrency), "{plan:?} and {simulated:?}");
    let lag = plan.lag.unwrap().typical_seconds / simulated.mean_lag_seconds;
    assert!((0.3..=1.1).contains(&lag), "{plan:?} and {simulated:?}");
}

/// The account's concurrency is not part of the model's lag: at the need that the model computes, the lag is that of the
/// model, and below it, records accumulate.
#[test]
fn records_wait_only_if_the_concurrency_is_below_the_need_of_the_model() {
    let workload = workload(4_000.0, 21);
    let plan = CapacityPlan::new(&workload);
    let need = plan.replicator.concurrency;
    let enough = simulate(&workload, 10, whole((need * 1.3).ceil()));
    let scarce = simulate(&workload, 10, whole((need * 0.6).floor()));
    println!("{need}\n  {enough:?}\n  {scarce:?}");
    assert!(enough.waiting < 3_000, "{enough:?}");
    assert!(enough.mean_lag_seconds < plan.lag.unwrap().typical_seconds * 1.5, "{enough:?}");
    assert!(
        scarce.waiting > 3 * enough.waiting && scarce.mean_lag_seconds > 2.0 * enough.mean_lag_seconds,
        "{scarce:?}"
    );
}

/// Above the capacity of a lane the lag grows with time, as the model says by giving none.
#[test]
fn lag_grows_with_time_where_the_model_gives_none() {
    let workload = TableWorkload { expired_per_day: 1e8, ..workload(4_000.0, 54) };
    assert_eq!(CapacityPlan::new(&workload).lag, None);
    let [early, late] = [6, 12].map(|seconds| simulate(&workload, seconds, usize::MAX));
    println!("{early:?}\n{late:?}");
    assert!(late.waiting > early.waiting * 3 / 2, "{early:?} and {late:?}");
}
