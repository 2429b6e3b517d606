//! The cost model: the prices and counts of docs/cost.md, which a test compares with them, and the estimate of what the
//! replication of a table costs per million changes ([`CostEstimate`]).
//!
//! `millrace attach` prints the estimate for a table that exists, and `millrace plan` computes capacity and cost per month
//! from the same prices and counts.

use millrace_local::table_description::TableDescription;

/// The prices: list prices of US East (N. Virginia) of 2025, from the pages that docs/cost.md links to.
pub(crate) mod prices {
    /// S3 Standard: dollars per thousand PUT requests.
    pub(crate) const THOUSAND_PUTS: f64 = 0.005;
    /// S3 Standard: dollars per GB and month.
    pub(crate) const GB_MONTH: f64 = 0.023;
    /// Lambda on arm64: dollars per GB-second.
    pub(crate) const GB_SECOND: f64 = 0.000_013_333_4;
    /// Lambda: dollars per million invocations.
    pub(crate) const MILLION_INVOCATIONS: f64 = 0.20;
    /// DynamoDB on demand: dollars per million write request units.
    pub(crate) const MILLION_WRITE_UNITS: f64 = 0.625;
    /// DynamoDB on demand: dollars per million read request units.
    pub(crate) const MILLION_READ_UNITS: f64 = 0.125;
    /// DynamoDB: dollars per GB and month of a table.
    pub(crate) const TABLE_GB_MONTH: f64 = 0.25;
    /// DynamoDB: dollars per GB and month of point-in-time recovery.
    pub(crate) const RECOVERY_GB_MONTH: f64 = 0.20;
    /// `CloudWatch` Logs: dollars per GB of ingestion.
    pub(crate) const LOG_GB: f64 = 0.50;
}

/// The counts of docs/benchmarks.md: the CPU time of the functions from `scripts/bench-peers`, over TLS, and the rest from
/// `scripts/bench` and `scripts/bench-archive`.
pub(crate) mod counts {
    /// Bytes that a revision adds to an item in a replica.
    pub(crate) const REVISION_BYTES: u64 = 27;
    /// Seconds that a second of CPU time takes in a function of 512 MB, which has 512/1769 of a core.
    pub(crate) const SECONDS_PER_CPU_SECOND: f64 = 1769.0 / 512.0;
    /// The memory of a function in GB.
    pub(crate) const FUNCTION_GB: f64 = 0.5;
    /// GB-seconds that a second of CPU time takes in a function of 512 MB.
    pub(crate) const GB_SECONDS_PER_CPU_SECOND: f64 = FUNCTION_GB * SECONDS_PER_CPU_SECOND;
    /// Seconds of CPU time of the replicator per million changes.
    pub(crate) const REPLICATOR_CPU_SECONDS: f64 = 24.0;
    /// Invocations of the replicator per million changes.
    pub(crate) const REPLICATOR_INVOCATIONS: f64 = 1_000.0;
    /// Seconds of CPU time of the archiver per million items.
    pub(crate) const ARCHIVER_CPU_SECONDS: f64 = 3.4;
    /// Batches of the archiver per million items: one invocation and one PUT each.
    pub(crate) const ARCHIVER_BATCHES: f64 = 334.0;
    /// GB-seconds of waiting per batch of the archiver, 100 ms in 512 MB.
    pub(crate) const WAITING_GB_SECONDS: f64 = 0.05;
    /// Bytes of an archived item of [`ARCHIVED_ITEM_BYTES`].
    pub(crate) const ARCHIVED_BYTES: f64 = 244.0;
    /// Bytes of an item of the archive's benchmark in the table.
    pub(crate) const ARCHIVED_ITEM_BYTES: f64 = 1_100.0;
}

/// The size of a write request unit in bytes.
const WRITE_UNIT_BYTES: u64 = 1024;
/// The size of a read request unit with strong consistency in bytes.
pub(crate) const READ_UNIT_BYTES: u64 = 4096;
const MILLION: u64 = 1_000_000;

/// The cost of replicating a table, in dollars, rounded to nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CostEstimate {
    /// The average size of an item in bytes.
    pub(crate) item_bytes: u64,
    /// The read request units of a backfill, which reads the whole table.
    pub(crate) backfill_read_units: u64,
    /// The write request units of a backfill, which writes each item to the replica.
    pub(crate) backfill_write_units: u64,
    /// The dollars of a backfill.
    pub(crate) backfill: f64,
    /// The write request units of a million changes.
    pub(crate) change_write_units: u64,
    /// The dollars of a million changes.
    pub(crate) million_changes: f64,
    /// The dollars of a million archived items, without their storage.
    pub(crate) million_archived: f64,
    /// The dollars per month of storing a million archived items.
    pub(crate) archive_month: f64,
}

impl CostEstimate {
    /// Estimates the cost from the number and the average size of the items; `None` if one is not known, or the table
    /// is empty.
    pub(crate) fn new(table: &TableDescription) -> Option<Self> {
        let (items, bytes) = (table.item_count.filter(|items| *items > 0)?, table.size_bytes?);
        let item_bytes = bytes / items;
        let units_per_write = replica_write_units(item_bytes);
        let backfill_read_units = bytes.div_ceil(READ_UNIT_BYTES);
        let backfill_write_units = items * units_per_write;
        let change_write_units = MILLION * units_per_write;
        Some(Self {
            item_bytes,
            backfill_read_units,
            backfill_write_units,
            backfill: cost_of_units(backfill_read_units, prices::MILLION_READ_UNITS)
                + cost_of_units(backfill_write_units, prices::MILLION_WRITE_UNITS),
            change_write_units,
            million_changes: cost_of_units(change_write_units, prices::MILLION_WRITE_UNITS) + replicator(),
            million_archived: archiver(),
            archive_month: counts::ARCHIVED_BYTES * 1e6 / 1e9 * prices::GB_MONTH,
        })
    }
}

/// Returns the write request units of a write of an item of this size in bytes.
pub(crate) fn write_units(item_bytes: u64) -> u64 {
    item_bytes.div_ceil(WRITE_UNIT_BYTES).max(1)
}

/// Returns the write request units of a write of an item of this size in bytes to a replica, which stores the revision,
/// too. A tombstone takes as many, since DynamoDB counts the larger of the two items.
pub(crate) fn replica_write_units(item_bytes: u64) -> u64 {
    write_units(item_bytes.saturating_add(counts::REVISION_BYTES))
}

#[expect(clippy::cast_precision_loss, reason = "units are far below 2^53")]
fn cost_of_units(units: u64, price: f64) -> f64 {
    units as f64 / 1e6 * price
}

/// Returns the dollars of the replicator's function for a million changes.
fn replicator() -> f64 {
    counts::REPLICATOR_CPU_SECONDS * counts::GB_SECONDS_PER_CPU_SECOND * prices::GB_SECOND
        + counts::REPLICATOR_INVOCATIONS / 1e6 * prices::MILLION_INVOCATIONS
}

/// Returns the dollars of the archiver for a million items: PUTs, CPU time, invocations and waiting.
fn archiver() -> f64 {
    counts::ARCHIVER_BATCHES / 1e3 * prices::THOUSAND_PUTS
        + counts::ARCHIVER_CPU_SECONDS * counts::GB_SECONDS_PER_CPU_SECOND * prices::GB_SECOND
        + counts::ARCHIVER_BATCHES / 1e6 * prices::MILLION_INVOCATIONS
        + counts::ARCHIVER_BATCHES * counts::WAITING_GB_SECONDS * prices::GB_SECOND
}

/// Formats an amount in dollars: whole cents, or the first significant digit of less than a cent.
pub(crate) fn dollars(amount: f64) -> String {
    // Half a cent is rounded up.
    let cents = (amount * 100.0).round() / 100.0;
    if amount >= 0.01 { format!("${cents:.2}") } else { format!("${amount:.3}") }
}

/// Formats a whole number with separators.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::orders;

    fn document() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cost.md");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn prices_and_counts_are_those_of_the_document() {
        let document = document();
        let gb_seconds = |cpu_seconds: f64| cpu_seconds * counts::GB_SECONDS_PER_CPU_SECOND;
        for row in [
            format!("| S3 Standard: PUT, COPY, LIST | ${} per thousand |", prices::THOUSAND_PUTS),
            format!("| S3 Standard: storage | ${} per GB and month |", prices::GB_MONTH),
            format!(
                "| Lambda, arm64 | ${:.10} per GB-second, ${:.2} per million invocations |",
                prices::GB_SECOND,
                prices::MILLION_INVOCATIONS
            ),
            format!("write request unit, 1 KB | ${} per million |", prices::MILLION_WRITE_UNITS),
            format!("with strong consistency | ${} per million |", prices::MILLION_READ_UNITS),
            format!(
                "| DynamoDB: storage, point-in-time recovery | ${:.2}, ${:.2} per GB and month |",
                prices::TABLE_GB_MONTH,
                prices::RECOVERY_GB_MONTH
            ),
            format!("| CloudWatch Logs: ingestion | ${:.2} per GB |", prices::LOG_GB),
            format!("takes 3.46 s and {:.2} GB-seconds", counts::GB_SECONDS_PER_CPU_SECOND),
            format!("because of its revision ({} bytes", counts::REVISION_BYTES),
            format!(
                "| replicator: {} µs of CPU time per change, {} invocations of 1,000 | {:.0} GB-s | ${:.4} |",
                counts::REPLICATOR_CPU_SECONDS,
                grouped(1_000),
                gb_seconds(counts::REPLICATOR_CPU_SECONDS),
                replicator()
            ),
            format!("| archiver: one PUT per batch of up to 3,000 | {} PUT |", counts::ARCHIVER_BATCHES),
            format!(
                "| archiver: {} µs of CPU time per item, {} invocations | {:.0} GB-s |",
                counts::ARCHIVER_CPU_SECONDS,
                counts::ARCHIVER_BATCHES,
                gb_seconds(counts::ARCHIVER_CPU_SECONDS)
            ),
            format!("which take {} bytes each in the archive", counts::ARCHIVED_BYTES),
            format!("| **archived** | | **{}** |", dollars(archiver())),
        ] {
            assert!(document.contains(&row), "docs/cost.md does not contain {row:?}");
        }
    }

    /// One million items of 1.1 KB, as in the document.
    #[test]
    fn estimate_of_a_million_items_is_that_of_the_document() {
        let mut table = orders();
        (table.item_count, table.size_bytes) = (Some(MILLION), Some(1_100_000_000));
        let cost = CostEstimate::new(&table).unwrap();
        let document = document();
        for row in [
            format!(
                "| read the table, 4 KB for each unit | {} read units | {} |",
                grouped(cost.backfill_read_units),
                dollars(cost_of_units(cost.backfill_read_units, prices::MILLION_READ_UNITS))
            ),
            format!(
                "| write the replica, 2 write units for each item | {} write units | {} |",
                grouped(cost.backfill_write_units),
                dollars(cost_of_units(cost.backfill_write_units, prices::MILLION_WRITE_UNITS))
            ),
            format!("| **backfilled** | | **{}** |", dollars(cost.backfill)),
            format!("| storage, per month | 0.24 GB | ${:.3} |", cost.archive_month),
        ] {
            assert!(document.contains(&row), "docs/cost.md does not contain {row:?}");
        }
        (table.item_count, table.size_bytes) = (Some(MILLION), Some(1_000_000 * 997));
        let cost = CostEstimate::new(&table).unwrap();
        assert_eq!((cost.item_bytes, cost.change_write_units), (997, MILLION), "with the revision, a full KB");
        assert_eq!(dollars(cost_of_units(MILLION, prices::MILLION_WRITE_UNITS)), "$0.63");
        (table.item_count, table.size_bytes) = (Some(MILLION), Some(1_000_000 * 998));
        assert_eq!(CostEstimate::new(&table).unwrap().change_write_units, 2 * MILLION);
    }

    #[test]
    fn an_empty_or_uncounted_table_has_no_estimate() {
        let mut table = orders();
        table.item_count = Some(0);
        assert_eq!(CostEstimate::new(&table), None);
        table.item_count = None;
        assert_eq!(CostEstimate::new(&table), None);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let formatted = [0, 12, 999, 1_000, 61_204_418].map(grouped);
        assert_eq!(formatted, ["0", "12", "999", "1,000", "61,204,418"]);
    }
}
