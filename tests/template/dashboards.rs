//! The dashboards. Every metric on them is one that the functions print or one of AWS about a resource of the template, and
//! every alarm is next to a graph of its metrics.

use std::collections::{BTreeMap, BTreeSet};

use millrace_shared::telemetry;
use serde_json::Value;

use super::alarms::{WITH_ALARMS, metrics_of, resources_of_type};
use super::tiers::section;
use crate::telemetry::FUNCTIONS;
use crate::telemetry::metrics::printed_by;

/// The metrics of AWS on the dashboards, from the documentation of each service.
const AWS_METRICS: [(&str, &[&str]); 7] = [
    ("AWS/ApiGateway", &["4xx", "5xx", "Count", "Latency"]),
    (
        "AWS/DynamoDB",
        &["ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "ReadThrottleEvents", "WriteThrottleEvents"],
    ),
    (
        "AWS/ElastiCache",
        &[
            "CurrConnections",
            "DatabaseMemoryUsagePercentage",
            "EngineCPUUtilization",
            "Evictions",
            "ReplicationLag",
            "ThrottledCmds",
        ],
    ),
    (
        "AWS/Lambda",
        &[
            "ConcurrentExecutions",
            "DestinationDeliveryFailures",
            "DroppedEventCount",
            "Duration",
            "Errors",
            "FailedInvokeEventCount",
            "InvokedEventCount",
            "Invocations",
            "IteratorAge",
            "OnFailureDestinationDeliveredEventCount",
            "PolledEventCount",
            "Throttles",
        ],
    ),
    (
        "AWS/RDS",
        &[
            "ACUUtilization",
            "AuroraReplicaLag",
            "CPUUtilization",
            "DatabaseConnections",
            "FreeStorageSpace",
            "FreeableMemory",
            "ReplicaLag",
        ],
    ),
    ("AWS/S3", &["BucketSizeBytes", "NumberOfObjects"]),
    ("AWS/States", &["ExecutionsFailed", "ExecutionsStarted", "ExecutionsSucceeded"]),
];

/// A metric on a graph.
struct GraphMetric {
    namespace: String,
    name: String,
    /// The values that the dimensions have; `None` for any.
    dimensions: BTreeMap<String, Option<String>>,
}

/// Returns the body of a dashboard with all optional parts, or without them. References to resources remain.
fn body(dashboard: &Value, with_options: bool) -> Value {
    let text_of = |node: &Value| match node {
        Value::Array(parts) => parts[0].as_str().unwrap().to_owned(),
        text => {
            let text = text.as_str().unwrap();
            text.strip_prefix("!Sub ").unwrap_or(text).to_owned()
        }
    };
    let body = &dashboard["Properties"]["DashboardBody"];
    let mut text = text_of(body);
    for (name, value) in
        body.get(1).and_then(Value::as_object).into_iter().flatten().filter(|(name, _)| *name != "Stack")
    {
        let [_, then, otherwise] = &value.as_array().unwrap()[..] else { panic!("{name}: {value}") };
        let variable = format!("${{{name}}}");
        assert_eq!(text.matches(&variable).count(), 1, "{name} is used once");
        text = text.replace(&variable, &text_of(if with_options { then } else { otherwise }));
    }
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn parsed(entry: &Value) -> GraphMetric {
    let entry = entry.as_array().unwrap_or_else(|| panic!("{entry} is not a list"));
    if let Some(expression) = entry[0]["expression"].as_str() {
        let (_, schema) = expression.split_once("SEARCH('{").unwrap_or_else(|| panic!("{expression}"));
        let (schema, query) = schema.split_once("} ").unwrap();
        let query = query.split('\'').next().unwrap();
        let mut given: BTreeMap<&str, String> = query
            .split(' ')
            .map(|part| part.split_once('=').unwrap())
            .map(|(name, value)| (name, value.trim_matches('"').to_owned()))
            .collect();
        let name = given.remove("MetricName").unwrap();
        let mut schema = schema.split(',');
        let namespace = schema.next().unwrap().to_owned();
        let dimensions: BTreeMap<String, Option<String>> =
            schema.map(|dimension| (dimension.to_owned(), given.remove(dimension))).collect();
        assert_eq!(given, BTreeMap::new(), "{expression} names dimensions that it does not search");
        return GraphMetric { namespace, name, dimensions };
    }
    let texts: Vec<&str> = entry.iter().filter_map(Value::as_str).collect();
    let (names, dimensions) = texts.split_at(2);
    let dimensions = dimensions.chunks(2).map(|pair| (pair[0].to_owned(), Some(pair[1].to_owned()))).collect();
    GraphMetric { namespace: names[0].to_owned(), name: names[1].to_owned(), dimensions }
}

/// The names in `${…}` of a text, without attributes.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).map(|rest| rest.split(['}', '.']).next().unwrap())
}

fn dashboards() -> impl Iterator<Item = (&'static str, String, Value)> {
    let of = |file: &'static str| {
        resources_of_type(file, "AWS::CloudWatch::Dashboard").into_iter().map(move |(id, of)| (file, id, of))
    };
    WITH_ALARMS.into_iter().flat_map(move |(file, _)| of(file))
}

#[test]
fn every_metric_on_a_dashboard_is_printed_or_is_one_of_aws_about_a_resource() {
    let mut shown = BTreeSet::new();
    for (file, id, dashboard) in dashboards() {
        let resources = section(file, "Resources");
        let known = |name: &str| {
            let is_mapping = name.ends_with("FunctionChanges") || name.ends_with("FunctionExpiries");
            resources.contains_key(name) || is_mapping || name == "SourceTableName"
        };
        let body = body(&dashboard, true);
        for widget in body["widgets"].as_array().unwrap().iter().filter(|widget| widget["type"] == "metric") {
            let metrics = widget["properties"]["metrics"].as_array().unwrap();
            assert!(!metrics.is_empty(), "{id}: {widget}");
            for entry in metrics {
                let GraphMetric { namespace, name, mut dimensions } = parsed(entry);
                if namespace != telemetry::NAMESPACE {
                    let (_, names) =
                        AWS_METRICS.iter().find(|(of, _)| *of == namespace).unwrap_or_else(|| panic!("{entry}"));
                    assert!(names.contains(&name.as_str()), "{id}: {entry} is not a metric of AWS");
                    let of: Vec<&str> = dimensions.values().flatten().flat_map(|value| references(value)).collect();
                    assert!(!of.is_empty() && of.iter().all(|name| known(name)), "{id}: {entry} is about no resource");
                    continue;
                }
                let [function, stack] = telemetry::DIMENSIONS.map(|own| dimensions.remove(own));
                assert_eq!(stack, Some(Some("${Stack}".to_owned())), "{id}: {entry} shows other stacks");
                let function = function.unwrap_or_else(|| panic!("{id}: {entry} has no function"));
                let metric = (name.clone(), dimensions.into_keys().collect());
                let prints =
                    |of: &&str| printed_by(of).contains(&metric) && function.as_deref().is_none_or(|is| is == *of);
                let by: Vec<&str> = FUNCTIONS.into_iter().filter(|of| prints(of)).collect();
                assert!(!by.is_empty(), "{id}: no function prints {entry}");
                shown.insert(name);
            }
        }
        // Without the optional parts, it is JSON, too.
        self::body(&dashboard, false);
    }
    let registered = millrace_shared::metric::REGISTRY.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(shown, registered, "every metric of the functions is on a dashboard");
}

#[test]
fn every_alarm_is_next_to_a_graph_of_its_metrics() {
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (file, id, dashboard) in dashboards() {
        let alarms = resources_of_type(file, "AWS::CloudWatch::Alarm");
        let body = body(&dashboard, true);
        let (mut used, mut row) = (0, BTreeSet::new());
        for widget in body["widgets"].as_array().unwrap() {
            let width = widget["width"].as_u64().unwrap();
            // CloudWatch fills rows of 24 columns.
            if used + width > 24 {
                (used, row) = (0, BTreeSet::new());
            }
            used += width;
            if widget["type"] == "metric" {
                let metrics = widget["properties"]["metrics"].as_array().unwrap().iter().map(parsed);
                row.extend(metrics.map(|metric| (metric.namespace, metric.name)));
                continue;
            }
            assert_eq!(widget["type"], "alarm", "{id}");
            for arn in widget["properties"]["alarms"].as_array().unwrap() {
                let name = arn.as_str().and_then(|arn| arn.strip_prefix("${")?.strip_suffix(".Arn}"));
                let name = name.unwrap_or_else(|| panic!("{id}: {arn}"));
                let alarm = alarms.get(name).unwrap_or_else(|| panic!("{id}: {name} is not an alarm of {file}"));
                for (namespace, metric, _) in metrics_of(&alarm["Properties"]) {
                    assert!(row.contains(&(namespace, metric.clone())), "{id}: no graph of {metric} is next to {name}");
                }
                assert!(shown.entry(file).or_default().insert(name.to_owned()), "{id}: {name} is shown twice");
            }
        }
    }
    for (file, _) in WITH_ALARMS {
        let alarms: BTreeSet<String> = resources_of_type(file, "AWS::CloudWatch::Alarm").into_keys().collect();
        assert_eq!(shown.get(file), Some(&alarms), "{file}");
    }
}
