//! The metric registry: name, kind, unit and own dimensions of every metric that the functions emit.
//!
//! On Lambda the metrics are written in CloudWatch's embedded metric format (namespace `Millrace`), from
//! [`ProcessMetrics`]; on a single machine they are served by `GET /metrics`, from the recorder of the `metrics` crate.
//! No other module uses the macros of that crate, so a metric that is not in [`REGISTRY`] cannot be emitted. A test
//! compares docs/metrics.md, which describes the same metrics, with the registry.
//!
//! Dimensions have few values: the function and the stack, which every metric has
//! ([`DIMENSIONS`](crate::telemetry::DIMENSIONS)), a sink's name, a route's template, a status class. A key, a user or
//! a request id is never a dimension. Metrics are recorded once per batch or request, never once per record.

mod process_metrics;

use metrics::{Label, Unit};

pub use process_metrics::{MetricSeries, ProcessMetrics, RecordedMetric};

/// The kind of a metric, which determines how CloudWatch aggregates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number of occurrences, of which the sum is of interest.
    Counter,
    /// Individual values, of which average and percentiles are of interest.
    Histogram,
}

/// The entry of a metric in the [`REGISTRY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricDefinition {
    /// The name in CloudWatch and in `GET /metrics`.
    pub name: &'static str,
    /// Whether it is a counter or a histogram.
    pub kind: MetricKind,
    /// The unit.
    pub unit: Unit,
    /// The dimensions in addition to those of every metric.
    pub dimensions: &'static [&'static str],
    /// A description of the measured value.
    pub description: &'static str,
}

/// A counter with `N` dimensions of its own.
#[derive(Debug, Clone, Copy)]
pub struct CounterMetric<const N: usize>(MetricDefinition);

/// A histogram with `N` dimensions of its own.
#[derive(Debug, Clone, Copy)]
pub struct HistogramMetric<const N: usize>(MetricDefinition);

impl<const N: usize> CounterMetric<N> {
    /// Returns the name in CloudWatch and in `GET /metrics`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// Adds `count` to the counter with these values of its own dimensions.
    pub fn increment(&self, values: [&str; N], count: u64) {
        match ProcessMetrics::lock() {
            Some(mut metrics) => metrics.increment(&self.0, &values, count),
            None => metrics::counter!(self.0.name, labels(self.0.dimensions, values)).increment(count),
        }
    }
}

impl<const N: usize> HistogramMetric<N> {
    /// Returns the name in CloudWatch and in `GET /metrics`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// Records a value with these values of its own dimensions.
    pub fn record(&self, values: [&str; N], value: f64) {
        let is_recorded = if let Some(mut metrics) = ProcessMetrics::lock() {
            metrics.record(&self.0, &values, value)
        } else {
            metrics::histogram!(self.0.name, labels(self.0.dimensions, values)).record(value);
            true
        };
        if !is_recorded {
            tracing::error!("a metric has more values than one document can contain: the value is omitted");
        }
    }
}

fn labels<const N: usize>(dimensions: &[&'static str], values: [&str; N]) -> Vec<Label> {
    dimensions.iter().zip(values).map(|(name, value)| Label::new(*name, value.to_owned())).collect()
}

macro_rules! registry {
    ($($constant:ident: $kind:ident, $name:literal, $unit:ident, [$($dimension:literal),*], $description:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $description, ".")]
            pub const $constant: registry!(@type $kind, { <[&str]>::len(&[$($dimension),*]) }) =
                registry!(@new $kind, MetricDefinition {
                    name: $name,
                    kind: MetricKind::$kind,
                    unit: Unit::$unit,
                    dimensions: &[$($dimension),*],
                    description: $description,
                });
        )+

        /// Every metric that the functions emit.
        pub const REGISTRY: &[MetricDefinition] = &[$($constant.0),+];
    };
    (@type Counter, $dimensions:block) => { CounterMetric<$dimensions> };
    (@type Histogram, $dimensions:block) => { HistogramMetric<$dimensions> };
    (@new Counter, $definition:expr) => { CounterMetric($definition) };
    (@new Histogram, $definition:expr) => { HistogramMetric($definition) };
}

registry! {
    REPLICATION_LAG: Histogram, "ReplicationLag", Milliseconds, ["sink"],
        "age of a batch's oldest change when the sink had applied it, or failed to";
    APPLIED_CHANGES: Counter, "AppliedChanges", Count, ["sink"],
        "changes written to a replica";
    DUPLICATE_CHANGES: Counter, "DuplicateChanges", Count, ["sink"],
        "changes that a replica already had at the same revision";
    STALE_CHANGES: Counter, "StaleChanges", Count, ["sink"],
        "changes not written because the replica had a later one";
    PREVIOUSLY_CONFIRMED_CHANGES: Counter, "PreviouslyConfirmedChanges", Count, ["sink"],
        "changes of a redelivered batch that were not sent again to a sink that had confirmed them";
    TOMBSTONES: Counter, "Tombstones", Count, ["sink"],
        "deletes written as tombstones, included in `AppliedChanges`";
    UNFIT_VALUES: Counter, "UnfitValues", Count, ["sink"],
        "values that a typed column of a replica cannot store, written as null";
    OUTDATED_REPLICAS: Counter, "OutdatedReplicas", Count, ["sink"],
        "starts of the replicator with rules of a replica that no complete repair has applied";
    QUARANTINED: Counter, "Quarantined", Count, [],
        "records written to the failure bucket because they can never be applied";
    PARTIAL_BATCH_FAILURES: Counter, "PartialBatchFailures", Count, [],
        "batches of which Lambda redelivers a part, or all if no part can be named";
    ARCHIVED_ROWS: Counter, "ArchivedRows", Count, [],
        "rows written to the archive";
    ARCHIVED_BYTES: Counter, "ArchivedBytes", Bytes, [],
        "compressed bytes written to the archive";
    DIFFERENCES: Counter, "Differences", Count, [],
        "differences that a verify found, or rows that an audit found missing, per completed segment";
    VERIFIED_SEGMENTS: Counter, "VerifiedSegments", Count, [],
        "segments that a verify compared completely";
    REQUESTS: Counter, "Requests", Count, ["route", "status_class"],
        "HTTP requests";
    REQUEST_DURATION: Histogram, "RequestDuration", Milliseconds, ["route"],
        "time from a request's arrival to its response";
    CACHE_HITS: Counter, "CacheHits", Count, [],
        "reads of a single record that were served from the cache";
    CACHE_MISSES: Counter, "CacheMisses", Count, [],
        "reads of a single record that went to the table although a cache is configured";
    CACHE_ERRORS: Counter, "CacheErrors", Count, [],
        "calls to the cache that failed or timed out";
    RATE_LIMITED_REQUESTS: Counter, "RateLimitedRequests", Count, [],
        "requests rejected because the caller's quota was exhausted";
}

/// Registers units and descriptions with the installed recorder. Call it once, after the recorder is installed.
pub fn describe() {
    for MetricDefinition { name, kind, unit, description, .. } in REGISTRY.iter().copied() {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, description),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, description),
        }
    }
}
