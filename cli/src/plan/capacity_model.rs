//! The capacity model, pure: from a [`TableWorkload`] to a [`CapacityPlan`].
//!
//! All keys are written equally often, and the load is the same at all times; a table with a hot key or with peaks is
//! planned by its peak. The functions have the settings of infra/replication.yaml.

use serde::Serialize;

use crate::cost::{READ_UNIT_BYTES, counts, prices, replica_write_units, write_units};

use super::SECONDS_PER_DAY;

/// Days of a month, as in docs/cost.md.
const DAYS_PER_MONTH: f64 = 30.0;
const SECONDS_PER_MONTH: f64 = DAYS_PER_MONTH * SECONDS_PER_DAY;
const GB: f64 = 1e9;
const MILLION: f64 = 1e6;

/// Behaviour of DynamoDB and Lambda, from their documentation.
mod service {
    /// Partitions of a new table with on-demand capacity. A partition has one open shard.
    pub(super) const FIRST_PARTITIONS: f64 = 4.0;
    /// Bytes of a partition.
    pub(super) const PARTITION_BYTES: f64 = 10e9;
    /// Write units per second of a partition.
    pub(super) const PARTITION_WRITE_UNITS: f64 = 1_000.0;
    /// Seconds between two polls of a shard by an event source mapping.
    pub(super) const POLL_SECONDS: f64 = 0.25;
    /// Bytes of the payload of an invocation.
    pub(super) const PAYLOAD_BYTES: f64 = 6_291_456.0;
    /// Bytes of the largest item.
    pub(super) const ITEM_BYTES: f64 = 409_600.0;
    /// Write units per second of a table, the default quota.
    pub(super) const TABLE_WRITE_UNITS: f64 = 40_000.0;
    /// Concurrent executions of all functions of an account and Region, the default quota.
    pub(super) const CONCURRENCY: f64 = 1_000.0;
    /// PUT requests per second of a prefix.
    pub(super) const PREFIX_PUTS: f64 = 3_500.0;
}

/// The settings of infra/replication.yaml.
mod settings {
    /// Concurrent batches of the replicator per shard.
    pub(super) const LANES: f64 = 4.0;
    /// Records of the largest batch of the replicator.
    pub(super) const REPLICATOR_BATCH: f64 = 1_000.0;
    /// Records of the largest batch of the archiver.
    pub(super) const ARCHIVER_BATCH: f64 = 3_000.0;
    /// Seconds for which a batch of the archiver waits for further records.
    pub(super) const ARCHIVER_WINDOW: f64 = 60.0;
    /// Memory of a function in MB.
    pub(super) const MEMORY_MB: f64 = 512.0;
    /// Segments that the state machine works on concurrently.
    pub(super) const SEGMENTS: f64 = 10.0;
    /// Invocations of an execution of the state machine, whose history is limited.
    pub(super) const INVOCATIONS: f64 = 3_000.0;
    /// Seconds of an invocation of maintenance.
    pub(super) const MAINTENANCE_SECONDS: f64 = 885.0;
    /// Concurrent writes to a replica.
    pub(super) const REPLICA_CONCURRENCY: f64 = 128.0;
}

/// Figures of docs/benchmarks.md that are not counts of docs/cost.md.
mod measured {
    /// Seconds of CPU time to read and deduplicate a record and to send it to PostgreSQL, at most.
    pub(super) const READ_CPU_SECONDS: f64 = 3.9e-6;
    /// Bytes of the event of a record in the benchmark.
    pub(super) const EVENT_BYTES: f64 = 1_334.0;
    /// Peak memory in MB of a batch of 100 records, and what each MB of a batch adds: 49 MB at 4.67 MB.
    pub(super) const BASE_MB: f64 = 27.0;
    pub(super) const MB_PER_BATCH_MB: f64 = 4.9;
    /// Items that `verify` compares per second of CPU time: 0.57 of 23,376 scanned items per second, on two cores.
    pub(super) const VERIFIED_PER_CPU_SECOND: f64 = 23_376.0 * 0.57 / 2.0;
}

/// Assumptions that no benchmark on one machine can measure.
mod assumed {
    /// Bytes of a record's event without the images, and bytes of JSON per byte of an image.
    pub(super) const ENVELOPE_BYTES: f64 = 600.0;
    pub(super) const JSON_PER_BYTE: f64 = 1.5;
    /// Images of a record: old and new.
    pub(super) const IMAGES: f64 = 2.0;
    /// Seconds that an invocation of the replicator waits for DynamoDB and for Lambda.
    pub(super) const REPLICATOR_WAIT: f64 = 0.02;
    /// Seconds of a write to a replica.
    pub(super) const WRITE_SECONDS: f64 = 0.005;
    /// Bytes of log lines and metrics per invocation, with those of Lambda.
    pub(super) const LOG_BYTES: f64 = 3_000.0;
}

/// A table and its load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct TableWorkload {
    /// The number of items, at most 10^12.
    pub(super) items: f64,
    /// The average size of an item in bytes, 1 to 409,600.
    pub(super) item_bytes: u64,
    /// Creates, updates and deletes per second, at most 10^6.
    pub(super) writes_per_second: f64,
    /// Removals by TTL per day.
    pub(super) expired_per_day: f64,
    /// The number of DynamoDB replicas, at least 1.
    pub(super) replicas: u32,
}

/// The resources that a function needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct FunctionPlan {
    /// Records per second.
    pub(super) records_per_second: f64,
    /// Invocations per second.
    pub(super) invocations_per_second: f64,
    /// The average number of records of a batch.
    pub(super) batch_records: f64,
    /// The average number of concurrent invocations.
    pub(super) concurrency: f64,
    /// The largest number of concurrent invocations that its event source mapping starts.
    pub(super) most_concurrency: f64,
    /// Peak memory in MB.
    pub(super) peak_memory_mb: f64,
    /// GB-seconds per month.
    pub(super) gb_seconds_per_month: f64,
}

/// The time from a write to its arrival in the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ReplicationLag {
    /// Of an average change, in seconds.
    pub(super) typical_seconds: f64,
    /// Of a change that waits for a whole poll and is in a large batch, in seconds.
    pub(super) longest_seconds: f64,
}

/// The archive of the items that TTL removes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ArchivePlan {
    /// PUT requests per second.
    pub(super) puts_per_second: f64,
    /// PUT requests per month.
    pub(super) puts_per_month: f64,
    /// Bytes that are added per month and stay.
    pub(super) bytes_per_month: f64,
}

/// A part of the cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CostLine {
    /// The resource that is paid for.
    pub(super) name: &'static str,
    /// Dollars per month.
    pub(super) dollars: f64,
}

/// A limit, how much of it the load needs, and what raises it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct CapacityLimit {
    /// The limited quantity, with its unit.
    pub(super) name: &'static str,
    /// The value that the load needs.
    pub(super) needed: f64,
    /// The value that is allowed.
    pub(super) allowed: f64,
    /// The part of the limit that is needed: above 1, the limit is exceeded.
    pub(super) used: f64,
    /// The fix when the limit is reached.
    pub(super) action: &'static str,
}

impl CapacityLimit {
    fn new(name: &'static str, needed: f64, allowed: f64, action: &'static str) -> Self {
        Self { name, needed, allowed, used: needed / allowed, action }
    }
}

/// Capacity, cost and limits of a workload. Every figure is finite.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CapacityPlan {
    /// The number of open shards of the stream.
    pub(super) shards: f64,
    /// Write units per second of the source table.
    pub(super) source_write_units_per_second: f64,
    /// Write units per second of each replica.
    pub(super) replica_write_units_per_second: f64,
    /// Bytes of each replica.
    pub(super) replica_bytes: f64,
    /// Read units of a backfill, which reads the whole table once.
    pub(super) backfill_read_units: f64,
    /// Write units of a backfill, in all replicas.
    pub(super) backfill_write_units: f64,
    /// Dollars of a backfill, without the maintenance function.
    pub(super) backfill_dollars: f64,
    /// Read units of a `verify`, which reads the table and each replica once.
    pub(super) verify_read_units: f64,
    /// Dollars of a `verify`.
    pub(super) verify_dollars: f64,
    /// Hours of a `verify` in ten segments, if DynamoDB does not limit it.
    pub(super) verify_hours: f64,
    /// The replicator.
    pub(super) replicator: FunctionPlan,
    /// The archiver.
    pub(super) archiver: FunctionPlan,
    /// The lag; `None` if the replicator cannot keep up.
    pub(super) lag: Option<ReplicationLag>,
    /// The archive.
    pub(super) archive: ArchivePlan,
    /// The parts of the cost.
    pub(super) costs: Vec<CostLine>,
    /// Dollars per month in total.
    pub(super) dollars_per_month: f64,
    /// The limits, the one with the least room first.
    pub(super) limits: Vec<CapacityLimit>,
}

#[expect(clippy::cast_precision_loss, reason = "sizes and units of an item are far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Returns the number of batches per second of `lanes` with these arrivals, if a batch is taken every `interval` seconds:
/// an interval without a record has no batch (records arrive independently of each other).
fn batches_per_second(records_per_second: f64, lanes: f64, interval: f64) -> f64 {
    let expected = records_per_second / lanes * interval;
    lanes / interval * -(-expected).exp_m1()
}

/// The time that a batch of the replicator takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BatchDuration {
    /// Seconds of an invocation without its records.
    pub(super) base: f64,
    /// Seconds per record.
    pub(super) record: f64,
}

impl BatchDuration {
    /// Returns the seconds of a batch.
    pub(super) fn seconds(self, records: f64) -> f64 {
        self.base + self.record * records
    }
}

impl TableWorkload {
    fn event_bytes(&self) -> f64 {
        assumed::ENVELOPE_BYTES + assumed::IMAGES * assumed::JSON_PER_BYTE * float(self.item_bytes)
    }

    fn most_records(&self, batch: f64) -> f64 {
        (service::PAYLOAD_BYTES / self.event_bytes()).floor().clamp(1.0, batch)
    }

    /// Returns the open shards of the stream: those of the partitions that size and writes require.
    pub(super) fn shards(&self) -> f64 {
        let of_bytes = (self.items * float(self.item_bytes) / service::PARTITION_BYTES).ceil();
        let units = self.writes_per_second * float(write_units(self.item_bytes));
        of_bytes.max((units / service::PARTITION_WRITE_UNITS).ceil()).max(service::FIRST_PARTITIONS)
    }

    /// Returns the records of the stream per second.
    pub(super) fn records_per_second(&self) -> f64 {
        self.writes_per_second + self.expired_per_day / SECONDS_PER_DAY
    }

    /// Returns the duration of a batch of the replicator. The CPU time of a record is that of the benchmark for each
    /// replica, and reading a larger event takes proportionally longer; writes to DynamoDB run concurrently.
    pub(super) fn batch_duration(&self) -> BatchDuration {
        let call = counts::REPLICATOR_CPU_SECONDS / MILLION - measured::READ_CPU_SECONDS;
        let reading = measured::READ_CPU_SECONDS * (self.event_bytes() / measured::EVENT_BYTES).max(1.0);
        let cpu = (reading + call * f64::from(self.replicas)) * counts::SECONDS_PER_CPU_SECOND;
        let writing = assumed::WRITE_SECONDS / settings::REPLICA_CONCURRENCY;
        BatchDuration { base: assumed::REPLICATOR_WAIT, record: cpu.max(writing) }
    }

    /// Returns the largest batch of the replicator, in records.
    pub(super) fn largest_batch(&self) -> f64 {
        self.most_records(settings::REPLICATOR_BATCH)
    }

    /// Returns the seconds between two batches of a lane, and the average number of records that arrive in them. A lane
    /// that is still busy at the next poll takes its next batch when it is free.
    fn lane_cycle(&self, arrivals: f64) -> (f64, f64) {
        let duration = self.batch_duration();
        let polled = arrivals * service::POLL_SECONDS;
        if duration.seconds(polled) <= service::POLL_SECONDS {
            return (service::POLL_SECONDS, polled);
        }
        let room = 1.0 - arrivals * duration.record;
        let records = if room > 0.0 { arrivals * duration.base / room } else { f64::INFINITY };
        let records = records.min(self.largest_batch());
        (duration.seconds(records), records)
    }
}

fn peak_memory(batch_bytes: f64) -> f64 {
    measured::BASE_MB + measured::MB_PER_BATCH_MB * batch_bytes / MILLION
}

fn replicator(workload: &TableWorkload) -> FunctionPlan {
    let lanes = workload.shards() * settings::LANES;
    let records = workload.records_per_second();
    // If batches are long, there are fewer of them: the estimate is then too high.
    let invocations = batches_per_second(records, lanes, service::POLL_SECONDS).max(records / workload.largest_batch());
    let duration = workload.batch_duration();
    let busy = invocations * duration.base + records * duration.record;
    FunctionPlan {
        records_per_second: records,
        invocations_per_second: invocations,
        batch_records: if records > 0.0 { records / invocations } else { 0.0 },
        concurrency: busy,
        most_concurrency: lanes,
        peak_memory_mb: peak_memory(workload.largest_batch() * workload.event_bytes()),
        gb_seconds_per_month: busy * counts::FUNCTION_GB * SECONDS_PER_MONTH,
    }
}

fn archiver(workload: &TableWorkload) -> FunctionPlan {
    let shards = workload.shards();
    let records = workload.expired_per_day / SECONDS_PER_DAY;
    let largest = workload.most_records(settings::ARCHIVER_BATCH);
    // Full batches do not wait for the window.
    let invocations = batches_per_second(records, shards, settings::ARCHIVER_WINDOW).max(records / largest);
    let wait = counts::WAITING_GB_SECONDS / counts::FUNCTION_GB;
    let cpu = counts::ARCHIVER_CPU_SECONDS / MILLION * counts::SECONDS_PER_CPU_SECOND;
    let busy = invocations * wait + records * cpu;
    FunctionPlan {
        records_per_second: records,
        invocations_per_second: invocations,
        batch_records: if records > 0.0 { records / invocations } else { 0.0 },
        concurrency: busy,
        most_concurrency: if records > 0.0 { shards } else { 0.0 },
        peak_memory_mb: peak_memory(largest * workload.event_bytes()),
        gb_seconds_per_month: busy * counts::FUNCTION_GB * SECONDS_PER_MONTH,
    }
}

fn lag(workload: &TableWorkload) -> Option<ReplicationLag> {
    let arrivals = workload.records_per_second() / (workload.shards() * settings::LANES);
    let duration = workload.batch_duration();
    if lane_use(workload) >= 1.0 {
        return None;
    }
    let (cycle, records) = workload.lane_cycle(arrivals);
    let large = (records + 3.0 * records.sqrt()).clamp(1.0, workload.largest_batch());
    Some(ReplicationLag {
        typical_seconds: cycle / 2.0 + duration.seconds(records.max(1.0)),
        longest_seconds: cycle + duration.seconds(large),
    })
}

/// Returns the part of a lane's capacity, full batches one after the other, that the load needs.
fn lane_use(workload: &TableWorkload) -> f64 {
    let arrivals = workload.records_per_second() / (workload.shards() * settings::LANES);
    let largest = workload.largest_batch();
    arrivals * workload.batch_duration().seconds(largest) / largest
}

impl CapacityPlan {
    /// Computes the plan of a workload.
    pub(super) fn new(workload: &TableWorkload) -> Self {
        let replicas = f64::from(workload.replicas);
        let bytes = workload.items * float(workload.item_bytes);
        let replica_bytes = workload.items * float(workload.item_bytes + counts::REVISION_BYTES);
        let units = float(replica_write_units(workload.item_bytes));
        let (replicator, archiver) = (replicator(workload), archiver(workload));
        let archived_bytes = counts::ARCHIVED_BYTES / counts::ARCHIVED_ITEM_BYTES * float(workload.item_bytes);
        let archive = ArchivePlan {
            puts_per_second: archiver.invocations_per_second,
            puts_per_month: archiver.invocations_per_second * SECONDS_PER_MONTH,
            bytes_per_month: workload.expired_per_day * DAYS_PER_MONTH * archived_bytes,
        };
        let replica_write_units_per_second = workload.records_per_second() * units;
        let read = (bytes / float(READ_UNIT_BYTES)).ceil();
        let verify_read_units = read + replicas * (replica_bytes / float(READ_UNIT_BYTES)).ceil();
        let backfill_write_units = workload.items * units * replicas;
        let verify_seconds = workload.items * replicas / measured::VERIFIED_PER_CPU_SECOND;
        let verify_seconds = verify_seconds * counts::SECONDS_PER_CPU_SECOND;
        let mut plan = Self {
            shards: workload.shards(),
            source_write_units_per_second: workload.writes_per_second * float(write_units(workload.item_bytes)),
            replica_write_units_per_second,
            replica_bytes,
            backfill_read_units: read,
            backfill_write_units,
            backfill_dollars: read / MILLION * prices::MILLION_READ_UNITS
                + backfill_write_units / MILLION * prices::MILLION_WRITE_UNITS,
            verify_read_units,
            verify_dollars: verify_read_units / MILLION * prices::MILLION_READ_UNITS
                + verify_seconds * counts::FUNCTION_GB * prices::GB_SECOND,
            verify_hours: verify_seconds / settings::SEGMENTS / 3_600.0,
            replicator,
            archiver,
            lag: lag(workload),
            archive,
            costs: Vec::new(),
            dollars_per_month: 0.0,
            limits: limits(workload, &replicator, &archiver, verify_seconds),
        };
        plan.costs = plan.costs(replicas);
        plan.dollars_per_month = plan.costs.iter().map(|line| line.dollars).sum();
        plan
    }

    fn costs(&self, replicas: f64) -> Vec<CostLine> {
        let function = |plan: &FunctionPlan| {
            plan.gb_seconds_per_month * prices::GB_SECOND
                + plan.invocations_per_second * SECONDS_PER_MONTH / MILLION * prices::MILLION_INVOCATIONS
        };
        let invocations = self.replicator.invocations_per_second + self.archiver.invocations_per_second;
        let writes = self.replica_write_units_per_second * SECONDS_PER_MONTH * replicas;
        let stored = self.replica_bytes * replicas / GB;
        let lines = [
            ("writes of the replicas", writes / MILLION * prices::MILLION_WRITE_UNITS),
            (
                "storage and point-in-time recovery of the replicas",
                stored * (prices::TABLE_GB_MONTH + prices::RECOVERY_GB_MONTH),
            ),
            ("replicator", function(&self.replicator)),
            ("archiver", function(&self.archiver)),
            ("PUT requests of the archive", self.archive.puts_per_month / 1e3 * prices::THOUSAND_PUTS),
            ("storage of one month's archive", self.archive.bytes_per_month / GB * prices::GB_MONTH),
            ("logs", invocations * SECONDS_PER_MONTH * assumed::LOG_BYTES / GB * prices::LOG_GB),
        ];
        lines.into_iter().map(|(name, dollars)| CostLine { name, dollars }).collect()
    }

    /// Returns the limit with the least room.
    pub(super) fn first_limit(&self) -> Option<&CapacityLimit> {
        self.limits.first()
    }

    /// Returns whether the load needs no more than each limit allows.
    pub(super) fn is_within_limits(&self) -> bool {
        self.first_limit().is_none_or(|limit| limit.used <= 1.0)
    }
}

/// Returns the limits, the one with the least room first.
fn limits(
    workload: &TableWorkload,
    replicator: &FunctionPlan,
    archiver: &FunctionPlan,
    verify_seconds: f64,
) -> Vec<CapacityLimit> {
    let source = workload.writes_per_second * float(write_units(workload.item_bytes));
    let replica = workload.records_per_second() * float(replica_write_units(workload.item_bytes));
    let item = float(workload.item_bytes + counts::REVISION_BYTES);
    let memory = replicator.peak_memory_mb.max(archiver.peak_memory_mb);
    let execution = settings::INVOCATIONS * settings::MAINTENANCE_SECONDS;
    let mut limits = vec![
        CapacityLimit::new(
            "bytes of an item with its revision in a replica",
            item,
            service::ITEM_BYTES,
            "make the items smaller: DynamoDB rejects larger ones, and the replicator quarantines them",
        ),
        CapacityLimit::new(
            "write units per second of the source table",
            source,
            service::TABLE_WRITE_UNITS,
            "raise the table-level write quota of DynamoDB in Service Quotas",
        ),
        CapacityLimit::new(
            "write units per second of a replica",
            replica,
            service::TABLE_WRITE_UNITS,
            "raise the table-level write quota of DynamoDB in Service Quotas",
        ),
        CapacityLimit::new(
            "part of the time in which a lane of the replicator is busy",
            lane_use(workload),
            1.0,
            "raise ParallelizationFactor (at most 10) or MemorySize of the replicator, or split the replicas among stacks",
        ),
        CapacityLimit::new(
            "concurrent executions of the account's functions",
            replicator.concurrency + archiver.concurrency,
            service::CONCURRENCY,
            "raise the quota of Lambda's concurrent executions, or raise MaximumBatchingWindowInSeconds of the replicator",
        ),
        CapacityLimit::new(
            "PUT requests per second of the archive's prefix",
            archiver.invocations_per_second,
            service::PREFIX_PUTS,
            "raise MaximumBatchingWindowInSeconds of the archiver",
        ),
        CapacityLimit::new("MB of memory of a function", memory, settings::MEMORY_MB, "raise MemorySize"),
        CapacityLimit::new(
            "seconds of maintenance of one verify",
            verify_seconds,
            execution,
            "raise MemorySize of maintenance, or invoke it with the returned cursors instead of by the state machine",
        ),
    ];
    limits.sort_by(|left, right| right.used.total_cmp(&left.used));
    limits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workload() -> TableWorkload {
        TableWorkload { items: 1e8, item_bytes: 1_000, writes_per_second: 1_000.0, expired_per_day: 1e6, replicas: 1 }
    }

    fn any_workload() -> impl Strategy<Value = TableWorkload> {
        let exponent = |most: f64| (0.0..=most).prop_map(|exponent: f64| 10_f64.powf(exponent).floor());
        let number = move |most| prop_oneof![Just(0.0), exponent(most)];
        (number(12.0), 1_u64..=409_600, number(6.0), number(12.0), 1_u32..=20).prop_map(
            |(items, item_bytes, writes_per_second, expired_per_day, replicas)| TableWorkload {
                items,
                item_bytes,
                writes_per_second,
                expired_per_day,
                replicas,
            },
        )
    }

    /// All figures that may not sink when the load grows.
    fn figures(plan: &CapacityPlan) -> Vec<f64> {
        let mut figures = vec![
            plan.shards,
            plan.source_write_units_per_second,
            plan.replica_write_units_per_second,
            plan.replica_bytes,
            plan.backfill_read_units,
            plan.backfill_write_units,
            plan.backfill_dollars,
            plan.verify_read_units,
            plan.verify_dollars,
            plan.verify_hours,
            plan.replicator.invocations_per_second,
            plan.replicator.concurrency,
            plan.replicator.most_concurrency,
            plan.replicator.gb_seconds_per_month,
            plan.archiver.invocations_per_second,
            plan.archiver.concurrency,
            plan.archive.puts_per_month,
            plan.archive.bytes_per_month,
            plan.dollars_per_month,
        ];
        figures.extend(plan.costs.iter().map(|line| line.dollars));
        figures
    }

    #[test]
    fn cost_of_a_million_changes_matches_the_documentation() {
        // The CPU time of the documentation, and 1,000,000 write units.
        let per_second = 1e6 / SECONDS_PER_MONTH;
        // With its revision, one KB.
        let workload = TableWorkload { item_bytes: 997, writes_per_second: per_second, ..workload() };
        let plan = CapacityPlan::new(&workload);
        let changes = per_second + 1e6 / SECONDS_PER_DAY;
        assert!((plan.costs[0].dollars - changes * SECONDS_PER_MONTH / 1e6 * 0.625).abs() < 1e-6);
        let duration = workload.batch_duration();
        let gb_seconds = duration.record * 1e6 * counts::FUNCTION_GB;
        let reading = 3.9 * ((600.0 + 3.0 * 997.0) / 1_334.0 - 1.0) * counts::GB_SECONDS_PER_CPU_SECOND;
        assert!((gb_seconds - reading - 41.5).abs() < 0.1, "{gb_seconds}");
    }

    #[test]
    fn figures_of_benchmarks_and_settings_are_those_of_the_documents_and_the_template() {
        let read = |path: &str| std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let benchmarks = read("docs/benchmarks.md");
        for figure in [
            "including reading and deduplication | 3.9 |",
            "| CPU µs per record, 1,000 a batch | 23.5 |",
            "| CPU µs per record, 1,000 a batch | 7.4 | 3.4: 0.5x |",
            "CPU µs per record (1,334 bytes of event JSON)",
            "| replicator: peak memory, MB | 27 | 33 | 43 to 49 |",
            "relative to a plain parallel scan of the source only | 0.57 |",
            "23,376 scanned items per second",
        ] {
            assert!(benchmarks.contains(figure), "docs/benchmarks.md does not contain {figure:?}");
        }
        let template = read("infra/replication.yaml");
        for (setting, value) in [
            ("ParallelizationFactor", settings::LANES),
            ("BatchSize", settings::REPLICATOR_BATCH),
            ("BatchSize", settings::ARCHIVER_BATCH),
            ("MaximumBatchingWindowInSeconds", settings::ARCHIVER_WINDOW),
            ("MemorySize", settings::MEMORY_MB),
            ("MaxConcurrency", settings::SEGMENTS),
        ] {
            assert!(template.contains(&format!("{setting}: {value}\n")), "infra/replication.yaml: {setting}: {value}");
        }
    }

    #[test]
    fn first_limit_is_the_one_with_the_least_room() {
        let first = |workload: TableWorkload| CapacityPlan::new(&workload).first_limit().unwrap().name;
        let small = TableWorkload { items: 1e6, expired_per_day: 0.0, ..workload() };
        for (workload, part) in [
            (TableWorkload { item_bytes: 409_600, writes_per_second: 1.0, ..small }, "bytes of an item"),
            (TableWorkload { writes_per_second: 1e6, ..small }, "write units per second"),
            (
                TableWorkload { writes_per_second: 4_000.0, expired_per_day: 1e8, replicas: 54, ..small },
                "lane of the replicator",
            ),
            (TableWorkload { items: 1e12, writes_per_second: 1e4, ..small }, "one verify"),
        ] {
            let name = first(workload);
            assert!(name.contains(part), "{name}: expected {part}");
        }
        assert!(CapacityPlan::new(&small).is_within_limits());
        let busy = TableWorkload { writes_per_second: 4_000.0, expired_per_day: 1e8, replicas: 54, ..small };
        let lanes = CapacityPlan::new(&busy);
        assert!(lanes.lag.is_none() && !lanes.is_within_limits(), "{lanes:?}");
    }

    #[test]
    fn idle_table_costs_its_storage_alone() {
        let idle = TableWorkload { writes_per_second: 0.0, expired_per_day: 0.0, ..workload() };
        let plan = CapacityPlan::new(&idle);
        let storage = 1e8 * 1_027.0 / 1e9 * 0.45;
        assert!((plan.dollars_per_month - storage).abs() < 1e-6, "{}", plan.dollars_per_month);
        assert_eq!(plan.replicator.batch_records.to_bits(), 0.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn every_figure_is_finite_and_not_negative(workload in any_workload()) {
            let plan = CapacityPlan::new(&workload);
            let numbers = figures(&plan).into_iter().chain(plan.limits.iter().flat_map(|limit| [limit.needed, limit.used]));
            let lag = plan.lag.map(|lag| [lag.typical_seconds, lag.longest_seconds]);
            for number in numbers.chain(lag.into_iter().flatten()) {
                prop_assert!(number.is_finite() && number >= 0.0, "{number} of {plan:?}");
            }
            prop_assert!(plan.replicator.batch_records <= 1_000.001, "{plan:?}");
            if let Some(lag) = plan.lag {
                prop_assert!(lag.typical_seconds <= lag.longest_seconds, "{plan:?}");
            }
        }

        #[test]
        fn no_figure_sinks_when_the_load_grows(
            workload in any_workload(),
            more in any_workload(),
            member in 0_usize..5,
        ) {
            let mut larger = workload;
            match member {
                0 => larger.items += more.items,
                1 => larger.item_bytes = workload.item_bytes.max(more.item_bytes),
                2 => larger.writes_per_second += more.writes_per_second,
                3 => larger.expired_per_day += more.expired_per_day,
                _ => larger.replicas = workload.replicas.max(more.replicas),
            }
            let (before, after) = (CapacityPlan::new(&workload), CapacityPlan::new(&larger));
            for (index, (less, more)) in figures(&before).into_iter().zip(figures(&after)).enumerate() {
                prop_assert!(less <= more * (1.0 + 1e-9), "figure {index}: {less} and {more} of {workload:?} and {larger:?}");
            }
        }
    }
}
