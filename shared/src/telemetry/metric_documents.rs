//! Documents in CloudWatch's embedded metric format:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>.

use std::io::Write as _;

use metrics::Unit;

use super::{DIMENSIONS, NAMESPACE};
use crate::metric::{MetricKind, MetricSeries, ProcessMetrics, RecordedMetric};

/// The values that all documents of a flush share.
pub(super) struct MetricContext<'a> {
    /// The value of the dimension `function`.
    pub(super) function: &'a str,
    /// The value of the dimension `stack`.
    pub(super) stack: &'a str,
    /// The request ID of the invocation, which is a property.
    pub(super) request_id: &'a str,
    /// The time in milliseconds since 1970.
    pub(super) millis: i128,
}

/// Appends a line for each series with recorded values, and resets them.
pub(super) fn write_documents(metrics: &mut ProcessMetrics, context: &MetricContext<'_>, to: &mut Vec<u8>) {
    for series in &mut metrics.series {
        if !series.metrics.iter().all(RecordedMetric::is_empty) {
            write_document(series, context, to);
            series.metrics.iter_mut().for_each(RecordedMetric::reset);
        }
    }
}

fn write_document(series: &MetricSeries, context: &MetricContext<'_>, to: &mut Vec<u8>) {
    let recorded = || series.metrics.iter().filter(|metric| !metric.is_empty());
    to.extend_from_slice(br#"{"_aws":{"Timestamp":"#);
    // Writing to a vector does not fail.
    let _ = write!(to, "{}", context.millis);
    to.extend_from_slice(br#","CloudWatchMetrics":[{"Namespace":"#);
    write_text(NAMESPACE, to);
    to.extend_from_slice(br#","Dimensions":[["#);
    write_list(DIMENSIONS.iter().chain(series.dimensions), to, |name, to| write_text(name, to));
    to.extend_from_slice(br#"]],"Metrics":["#);
    write_list(recorded(), to, |metric, to| {
        to.extend_from_slice(br#"{"Name":"#);
        write_text(metric.definition.name, to);
        to.extend_from_slice(br#","Unit":"#);
        write_text(cloudwatch_unit(metric.definition.unit), to);
        to.push(b'}');
    });
    to.extend_from_slice(b"]}]}");
    for (name, value) in DIMENSIONS.iter().zip([context.function, context.stack]) {
        write_member(name, to, |to| write_text(value, to));
    }
    for (name, value) in series.dimensions.iter().zip(&series.values) {
        write_member(name, to, |to| write_text(value, to));
    }
    write_member("request_id", to, |to| write_text(context.request_id, to));
    for metric in recorded() {
        write_member(metric.definition.name, to, |to| match metric.definition.kind {
            MetricKind::Counter => write_json(&metric.count, to),
            MetricKind::Histogram => {
                to.push(b'[');
                write_list(&metric.values, to, write_json);
                to.push(b']');
            }
        });
    }
    to.extend_from_slice(b"}\n");
}

fn write_list<T>(items: impl IntoIterator<Item = T>, to: &mut Vec<u8>, write: impl Fn(T, &mut Vec<u8>)) {
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            to.push(b',');
        }
        write(item, to);
    }
}

/// Appends a member that is not the first of its object. The names of dimensions and metrics need no escapes.
fn write_member(name: &str, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    to.extend_from_slice(b",\"");
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b"\":");
    write(to);
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    write_json(text, to);
}

fn write_json<T: serde::Serialize + ?Sized>(value: &T, to: &mut Vec<u8>) {
    // A vector accepts all bytes, and texts and numbers can be serialized.
    let _ = serde_json::to_writer(to, value);
}

/// Returns CloudWatch's name of a unit.
fn cloudwatch_unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Count => "Count",
        Unit::Bytes => "Bytes",
        Unit::Milliseconds => "Milliseconds",
        Unit::Seconds => "Seconds",
        Unit::Percent => "Percent",
        _ => "None",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::REGISTRY;

    #[test]
    fn units_of_the_registry_are_those_of_cloudwatch() {
        for metric in REGISTRY {
            assert_eq!(cloudwatch_unit(metric.unit), format!("{:?}", metric.unit), "{}", metric.name);
        }
    }
}
