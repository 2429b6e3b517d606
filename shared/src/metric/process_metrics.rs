//! The metrics of a process that writes them itself: recorded values, grouped by the values of their dimensions.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::MetricDefinition;

/// The values of a histogram that one document can contain.
const MAX_VALUES: usize = 100;

/// The metrics of this process. Empty in a process whose recorder is that of the `metrics` crate.
static PROCESS_METRICS: OnceLock<Mutex<ProcessMetrics>> = OnceLock::new();

/// Everything that a process recorded since it was written last.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    /// The series, in the order of their first values.
    pub series: Vec<MetricSeries>,
}

/// The metrics with the same dimensions and the same values of them.
#[derive(Debug)]
pub struct MetricSeries {
    /// The names of the dimensions, without those that every metric has.
    pub dimensions: &'static [&'static str],
    /// The values of the dimensions.
    pub values: Vec<String>,
    /// The metrics, in the order of their first values.
    pub metrics: Vec<RecordedMetric>,
}

/// The recorded values of a metric of a series.
#[derive(Debug)]
pub struct RecordedMetric {
    /// The metric.
    pub definition: MetricDefinition,
    /// The sum of a counter.
    pub count: u64,
    /// The values of a histogram, in the order in which they were recorded.
    pub values: Vec<f64>,
}

impl RecordedMetric {
    /// Returns whether nothing was recorded since the metric was reset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.values.is_empty()
    }

    /// Removes what was recorded.
    pub fn reset(&mut self) {
        self.count = 0;
        self.values.clear();
    }
}

impl ProcessMetrics {
    /// Records metrics in this process from now on, instead of with the recorder of the `metrics` crate. Returns
    /// whether this is the first call.
    pub fn start() -> bool {
        PROCESS_METRICS.set(Mutex::default()).is_ok()
    }

    /// Returns the metrics of this process; `None` before [`Self::start`].
    #[must_use]
    pub fn lock() -> Option<MutexGuard<'static, Self>> {
        PROCESS_METRICS.get().map(|metrics| metrics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds to a counter.
    pub(super) fn increment(&mut self, definition: &MetricDefinition, values: &[&str], count: u64) {
        self.metric(definition, values).count += count;
    }

    /// Records a value of a histogram. Returns false if it has too many values since it was written last.
    pub(super) fn record(&mut self, definition: &MetricDefinition, values: &[&str], value: f64) -> bool {
        let recorded = &mut self.metric(definition, values).values;
        let has_space = recorded.len() < MAX_VALUES;
        if has_space {
            recorded.push(value);
        }
        has_space
    }

    fn metric(&mut self, definition: &MetricDefinition, values: &[&str]) -> &mut RecordedMetric {
        let MetricDefinition { name, dimensions, .. } = *definition;
        let is_series = |series: &MetricSeries| series.dimensions == dimensions && series.values == values;
        let series = self.series.iter().position(is_series).unwrap_or_else(|| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            self.series.push(MetricSeries { dimensions, values, metrics: Vec::new() });
            self.series.len() - 1
        });
        let metrics = &mut self.series[series].metrics;
        let metric = metrics.iter().position(|metric| metric.definition.name == name).unwrap_or_else(|| {
            metrics.push(RecordedMetric { definition: *definition, count: 0, values: Vec::new() });
            metrics.len() - 1
        });
        &mut metrics[metric]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{APPLIED_CHANGES, QUARANTINED, REPLICATION_LAG, TOMBSTONES};
    use super::*;

    #[test]
    fn metrics_of_the_same_dimension_values_are_one_series() {
        let mut metrics = ProcessMetrics::default();
        metrics.increment(&QUARANTINED.0, &[], 1);
        for (sink, count) in [("dynamodb", 2), ("postgres", 3), ("dynamodb", 4)] {
            metrics.increment(&APPLIED_CHANGES.0, &[sink], count);
        }
        metrics.increment(&TOMBSTONES.0, &["postgres"], 1);
        let series: Vec<_> = metrics
            .series
            .iter()
            .map(|series| {
                let counts = series.metrics.iter().map(|metric| (metric.definition.name, metric.count));
                (series.dimensions, series.values.join(" "), counts.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(series[0], (&[][..], String::new(), vec![("Quarantined", 1)]));
        assert_eq!(series[1], (&["sink"][..], "dynamodb".to_owned(), vec![("AppliedChanges", 6)]));
        assert_eq!(series[2].2, [("AppliedChanges", 3), ("Tombstones", 1)]);
        assert_eq!(series.len(), 3);
    }

    #[test]
    fn histogram_has_at_most_the_values_of_a_document() {
        let mut metrics = ProcessMetrics::default();
        let recorded = (0..=MAX_VALUES).map(|_| metrics.record(&REPLICATION_LAG.0, &["dynamodb"], 1.0));
        assert_eq!(recorded.filter(|recorded| *recorded).count(), MAX_VALUES);
        let metric = &mut metrics.series[0].metrics[0];
        assert!(metric.values.len() == MAX_VALUES && !metric.is_empty());
        metric.reset();
        assert!(metric.is_empty() && metrics.record(&REPLICATION_LAG.0, &["dynamodb"], 1.0));
    }
}
