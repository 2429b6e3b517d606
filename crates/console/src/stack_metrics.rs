//! The metrics of a deployed stack in `CloudWatch`: [`StackMetrics`].
//!
//! One call reads all of them. A counter without a value was not written in that period, which means zero; a gauge
//! without one is not known.

use std::collections::BTreeMap;

use millrace_shared::metric;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::deployed_stack::StackConnection;
use crate::stack_calls::GET_METRIC_DATA;

/// The namespace of the functions' own metrics.
const OWN: &str = "Millrace";
const LAMBDA: &str = "AWS/Lambda";
/// The sinks that store no items, and have metrics if the stack has them.
const OTHER_SINKS: [&str; 2] = ["archive", "cache"];

/// The time before now that the page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricWindow {
    pub(crate) hours: i64,
    /// The period of a value.
    pub(crate) minutes: i64,
}

impl MetricWindow {
    /// All windows; the second is the default.
    pub(crate) const ALL: [Self; 3] =
        [Self { hours: 1, minutes: 1 }, Self { hours: 3, minutes: 5 }, Self { hours: 24, minutes: 30 }];

    /// Parses a number of hours; an empty text is the default.
    ///
    /// # Errors
    /// The value and the allowed ones.
    pub(crate) fn parse(hours: &str) -> Result<Self, String> {
        if hours.is_empty() {
            return Ok(Self::ALL[1]);
        }
        let known = Self::ALL.into_iter().find(|window| window.hours.to_string() == hours);
        known.ok_or_else(|| format!("hours: {hours:?} is not a window: expected 1, 3 or 24"))
    }

    /// Returns the number of periods.
    pub(crate) fn periods(self) -> usize {
        usize::try_from(self.hours * 60 / self.minutes).unwrap_or_default()
    }
}

/// A metric with its dimensions and statistic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MetricQuery {
    namespace: &'static str,
    name: &'static str,
    statistic: &'static str,
    dimensions: Vec<(&'static str, String)>,
}

/// The values of a metric, one for each period of the window; `None` where there is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MetricSeries(pub(crate) Vec<Option<f64>>);

impl MetricSeries {
    /// Returns the sum of the values.
    pub(crate) fn sum(&self) -> f64 {
        // The sum of no floating-point numbers is negative zero.
        self.0.iter().flatten().fold(0.0, |sum, value| sum + value)
    }

    /// Returns the largest value.
    pub(crate) fn max(&self) -> Option<f64> {
        self.0.iter().flatten().copied().reduce(f64::max)
    }

    /// Returns the value of the last period that has one.
    pub(crate) fn last(&self) -> Option<f64> {
        self.0.iter().rev().find_map(|value| *value)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// The metrics of a replica or another sink.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SinkMetrics {
    pub(crate) sink: String,
    /// The maximum of each period, in milliseconds.
    pub(crate) lag: MetricSeries,
    pub(crate) applied: MetricSeries,
    pub(crate) duplicate: MetricSeries,
    pub(crate) stale: MetricSeries,
    pub(crate) tombstones: MetricSeries,
}

/// The metrics of a function.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FunctionMetrics {
    pub(crate) function: &'static str,
    pub(crate) invocations: MetricSeries,
    pub(crate) errors: MetricSeries,
    pub(crate) throttles: MetricSeries,
    /// The age of the last record of a batch, in milliseconds.
    pub(crate) iterator_age: MetricSeries,
    pub(crate) quarantined: MetricSeries,
    pub(crate) redelivered: MetricSeries,
}

/// The metrics of a stack.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct StackMetrics {
    pub(crate) sinks: Vec<SinkMetrics>,
    pub(crate) functions: Vec<FunctionMetrics>,
    pub(crate) archived_rows: MetricSeries,
    pub(crate) differences: MetricSeries,
    pub(crate) verified_segments: MetricSeries,
}

/// The queries of one call, and their values.
struct MetricCall<'s> {
    stack: &'s str,
    /// The start of the first period, and the length of one.
    start: OffsetDateTime,
    window: MetricWindow,
    queries: Vec<MetricQuery>,
    values: BTreeMap<MetricQuery, MetricSeries>,
}

impl MetricCall<'_> {
    /// Returns the values of a query; before the call, adds the query.
    fn series(&mut self, query: MetricQuery) -> MetricSeries {
        if let Some(series) = self.values.get(&query) {
            return series.clone();
        }
        self.queries.push(query);
        MetricSeries::default()
    }

    fn stack_series(
        &mut self,
        name: &'static str,
        statistic: &'static str,
        function: &str,
        sink: Option<&str>,
    ) -> MetricSeries {
        let mut dimensions = vec![("function", function.to_owned()), ("stack", self.stack.to_owned())];
        dimensions.extend(sink.map(|sink| ("sink", sink.to_owned())));
        self.series(MetricQuery { namespace: OWN, name, statistic, dimensions })
    }

    fn lambda_series(&mut self, name: &'static str, statistic: &'static str, function: &str) -> MetricSeries {
        let dimensions = vec![("FunctionName", function.to_owned())];
        self.series(MetricQuery { namespace: LAMBDA, name, statistic, dimensions })
    }

    fn metrics(&mut self, sinks: &[String], functions: &[(&'static str, &str)]) -> StackMetrics {
        let sinks = sinks.iter().map(|sink| {
            let mut own = |name, statistic| self.stack_series(name, statistic, "replicator", Some(sink));
            SinkMetrics {
                sink: sink.clone(),
                lag: own(metric::REPLICATION_LAG.name(), "Maximum"),
                applied: own(metric::APPLIED_CHANGES.name(), "Sum"),
                duplicate: own(metric::DUPLICATE_CHANGES.name(), "Sum"),
                stale: own(metric::STALE_CHANGES.name(), "Sum"),
                tombstones: own(metric::TOMBSTONES.name(), "Sum"),
            }
        });
        let sinks = sinks.collect();
        // Without an archiver, the archive is a sink of the replicator.
        let has_archiver = functions.iter().any(|(function, _)| *function == "archiver");
        let archiver = if has_archiver { "archiver" } else { "replicator" };
        let functions = functions.iter().map(|&(function, physical)| {
            let reads_stream = matches!(function, "replicator" | "archiver");
            let of_stream = |series: &mut dyn FnMut() -> MetricSeries| {
                if reads_stream { series() } else { MetricSeries::default() }
            };
            FunctionMetrics {
                function,
                invocations: self.lambda_series("Invocations", "Sum", physical),
                errors: self.lambda_series("Errors", "Sum", physical),
                throttles: self.lambda_series("Throttles", "Sum", physical),
                iterator_age: of_stream(&mut || self.lambda_series("IteratorAge", "Maximum", physical)),
                quarantined: of_stream(&mut || self.stack_series(metric::QUARANTINED.name(), "Sum", function, None)),
                redelivered: of_stream(&mut || {
                    self.stack_series(metric::PARTIAL_BATCH_FAILURES.name(), "Sum", function, None)
                }),
            }
        });
        let functions = functions.collect();
        StackMetrics {
            sinks,
            functions,
            archived_rows: self.stack_series(metric::ARCHIVED_ROWS.name(), "Sum", archiver, None),
            differences: self.stack_series(metric::DIFFERENCES.name(), "Sum", "maintenance", None),
            verified_segments: self.stack_series(metric::VERIFIED_SEGMENTS.name(), "Sum", "maintenance", None),
        }
    }

    /// Returns the queries as the parameter of the call.
    fn parameter(&self) -> String {
        let query = |(number, query): (usize, &MetricQuery)| {
            let dimensions = query.dimensions.iter().map(|(name, value)| json!({"Name": name, "Value": value}));
            json!({
                "Id": format!("m{number}"),
                "MetricStat": {
                    "Metric": {
                        "Namespace": query.namespace,
                        "MetricName": query.name,
                        "Dimensions": dimensions.collect::<Vec<_>>(),
                    },
                    "Period": (self.window.minutes * 60).to_string(),
                    "Stat": query.statistic,
                },
            })
        };
        self.queries.iter().enumerate().map(query).collect::<Value>().to_string()
    }

    /// Reads the values of a response.
    fn read(&mut self, response: &Value) {
        for query in &self.queries {
            self.values.insert(query.clone(), MetricSeries(vec![None; self.window.periods()]));
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for result in list(&response["MetricDataResults"]) {
            let number = result["Id"].as_str().and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok());
            let query = number.and_then(|number| self.queries.get(number));
            let Some(series) = query.and_then(|query| self.values.get_mut(query)) else { continue };
            for (time, value) in list(&result["Timestamps"]).iter().zip(list(&result["Values"])) {
                let time = time.as_str().and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
                let value = value.as_f64().or_else(|| value.as_str()?.parse().ok());
                let period = time.map(|time| (time - self.start).whole_minutes().div_euclid(self.window.minutes));
                let period = period.and_then(|period| usize::try_from(period).ok());
                if let (Some(slot), Some(value)) = (period.and_then(|period| series.0.get_mut(period)), value) {
                    *slot = Some(value);
                }
            }
        }
    }
}

impl StackMetrics {
    /// Reads the metrics of the window before `now`.
    ///
    /// # Errors
    /// The call and, if it was denied, the permission.
    pub(crate) async fn read(
        connection: &StackConnection,
        window: MetricWindow,
        now: OffsetDateTime,
    ) -> Result<Self, String> {
        let replicas = connection.maintenance.iter().flat_map(|maintenance| &maintenance.replicas);
        let mut sinks: Vec<String> = replicas.map(|replica| replica.name().to_owned()).collect();
        for name in OTHER_SINKS {
            if !sinks.iter().any(|own| own == name) {
                sinks.push(name.to_owned());
            }
        }
        let functions: Vec<_> = connection.resources.functions().collect();
        // Periods begin at multiples of their length. The current one is included.
        let seconds = window.minutes * 60;
        let end = (now.unix_timestamp().div_euclid(seconds) + 1) * seconds;
        let end = OffsetDateTime::from_unix_timestamp(end).map_err(|error| error.to_string())?;
        let start = end - Duration::hours(window.hours);
        let mut call =
            MetricCall { stack: &connection.metric_stack, start, window, queries: Vec::new(), values: BTreeMap::new() };
        call.metrics(&sinks, &functions);
        let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        let (start, end, queries) = (time(start), time(end), call.parameter());
        let parameters = [
            ("EndTime", end.as_str()),
            ("MetricDataQueries", queries.as_str()),
            ("ScanBy", "TimestampAscending"),
            ("StartTime", start.as_str()),
        ];
        let response = connection.account.call(&GET_METRIC_DATA, &parameters).await.map_err(|error| error.reason)?;
        call.read(&response);
        let mut metrics = call.metrics(&sinks, &functions);
        metrics.sinks.retain(|sink| {
            let is_other = OTHER_SINKS.contains(&sink.sink.as_str());
            !is_other || !sink.applied.is_empty() || !sink.lag.is_empty()
        });
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn values_are_placed_in_their_periods() {
        let window = MetricWindow::parse("").unwrap();
        let start = datetime!(2026-11-28 10:00 UTC);
        let mut call = MetricCall { stack: "users", start, window, queries: Vec::new(), values: BTreeMap::new() };
        call.metrics(&["dynamodb".to_owned()], &[("replicator", "f")]);
        let queries: Value = serde_json::from_str(&call.parameter()).unwrap();
        assert_eq!(queries[0]["MetricStat"]["Metric"]["Dimensions"][2], json!({"Name": "sink", "Value": "dynamodb"}));
        assert_eq!(queries.as_array().unwrap().len(), 5 + 6 + 3);
        // As XML and as JSON.
        call.read(&json!({"MetricDataResults": [
            {"Id": "m0", "Timestamps": ["2026-11-28T10:05:00Z", "2026-11-28T12:55:00Z"], "Values": ["120.5", 80]},
            {"Id": "m1", "Timestamps": ["2026-11-28T09:55:00Z", "2026-11-28T13:00:00Z", "soon"], "Values": [1, 1, 1]},
            {"Id": "m2", "Timestamps": "", "Values": ""},
            {"Id": "m99", "Timestamps": ["2026-11-28T10:05:00Z"], "Values": [1]},
        ]}));
        let metrics = call.metrics(&["dynamodb".to_owned()], &[("replicator", "f")]);
        let lag = &metrics.sinks[0].lag;
        assert_eq!((lag.0.len(), lag.0[1], lag.last(), lag.max()), (36, Some(120.5), Some(80.0), Some(120.5)));
        assert_eq!(
            (metrics.sinks[0].applied.sum().to_string(), metrics.sinks[0].duplicate.max()),
            ("0".to_owned(), None)
        );
    }

    #[test]
    fn window_of_another_length_is_rejected() {
        assert_eq!(MetricWindow::parse("24").unwrap().periods(), 48);
        assert!(MetricWindow::parse("2").unwrap_err().contains("expected 1, 3 or 24"));
    }
}
