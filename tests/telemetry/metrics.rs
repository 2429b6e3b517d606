//! The metrics that the functions print and those that docs/metrics.md lists are the metrics of the registry.

use std::collections::BTreeSet;
use std::fs;

use millrace_shared::metric::{MetricKind, REGISTRY};
use millrace_shared::telemetry::{DIMENSIONS, NAMESPACE};
use serde_json::{Value, json};

use super::scenarios::REQUEST_ID;
use super::{FUNCTIONS, STACK, names, printed, table};
use crate::architecture;
use crate::template::alarms;

/// The metrics of a document in the embedded metric format: names, and the names of the dimensions.
fn directive(document: &Value) -> (Vec<&Value>, Vec<&str>) {
    let [directive] = &document["_aws"]["CloudWatchMetrics"].as_array().unwrap()[..] else { panic!("{document}") };
    assert_eq!(directive["Namespace"], NAMESPACE, "{document}");
    let [dimensions] = &directive["Dimensions"].as_array().unwrap()[..] else { panic!("{document}") };
    let dimensions = dimensions.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    (directive["Metrics"].as_array().unwrap().iter().collect(), dimensions)
}

/// The metrics that a function prints: their names, and the names of the dimensions that not every metric has.
pub(crate) fn printed_by(function: &str) -> BTreeSet<(String, BTreeSet<String>)> {
    let mut metrics = BTreeSet::new();
    for document in &printed(function).metrics {
        let (printed, dimensions) = directive(document);
        let own: BTreeSet<String> =
            dimensions.into_iter().filter(|name| !DIMENSIONS.contains(name)).map(str::to_owned).collect();
        metrics.extend(printed.into_iter().map(|metric| (metric["Name"].as_str().unwrap().to_owned(), own.clone())));
    }
    metrics
}

#[test]
fn every_printed_metric_has_the_dimensions_function_and_stack_and_is_registered() {
    let mut names = BTreeSet::new();
    for function in FUNCTIONS {
        for document in &printed(function).metrics {
            let (metrics, dimensions) = directive(document);
            assert_eq!(dimensions[..2], DIMENSIONS, "{document}");
            assert_eq!((&document["function"], &document["stack"]), (&json!(function), &json!(STACK)), "{document}");
            assert_eq!((&document["request_id"], &document["requestId"]), (&json!(REQUEST_ID), &Value::Null));
            assert!(dimensions.iter().all(|name| document[*name].is_string()), "{document}");
            for metric in metrics {
                let name = metric["Name"].as_str().unwrap();
                let registered = REGISTRY.iter().find(|registered| registered.name == name);
                let registered = registered.unwrap_or_else(|| panic!("{name} is not in the registry: {document}"));
                assert_eq!(dimensions[2..], *registered.dimensions, "{name}");
                assert_eq!(metric["Unit"], format!("{:?}", registered.unit), "{name}");
                let is_list = document[name].is_array();
                assert_eq!(is_list, registered.kind == MetricKind::Histogram, "{name}: {}", document[name]);
                names.insert(name);
            }
        }
    }
    let registered: BTreeSet<&str> = REGISTRY.iter().map(|metric| metric.name).collect();
    assert_eq!(names, registered, "the scenarios emit every metric of the registry");
    assert_eq!(registered.len(), REGISTRY.len(), "a name is registered once");
}

#[test]
fn documented_metrics_are_those_of_the_registry_with_their_functions_and_alarms() {
    let document = fs::read_to_string(architecture::root().join("docs/metrics.md")).unwrap();
    let rows = table(&document, "## Reference");
    let names_of = |row: &Vec<String>| row[0].trim_matches('`').to_owned();
    let documented: Vec<String> = rows.iter().map(names_of).collect();
    let registered: Vec<&str> = REGISTRY.iter().map(|metric| metric.name).collect();
    assert_eq!(documented, registered, "docs/metrics.md and the registry have the same metrics in the same order");
    let printed: Vec<_> = FUNCTIONS.into_iter().map(|function| (function, printed_by(function))).collect();
    for (row, metric) in rows.iter().zip(REGISTRY) {
        let name = metric.name;
        assert_eq!(row[1], format!("{:?}", metric.unit), "{name}");
        assert_eq!(names(&row[2]), metric.dimensions.iter().map(|own| (*own).to_owned()).collect(), "{name}");
        let emit = printed.iter().filter(|(_, own)| own.iter().any(|(emitted, _)| emitted == name));
        assert_eq!(names(&row[3]), emit.map(|(function, _)| (*function).to_owned()).collect(), "{name}");
        assert!(row[4].len() > 10, "{name}: the document says when it is recorded");
        assert_eq!(names(&row[5]), alarms::on_metric(NAMESPACE, name), "{name}");
    }
    let (_, sample) = document.split_once("```json\n").unwrap();
    let sample: Value = serde_json::from_str(sample.split("\n```").next().unwrap()).unwrap();
    let (metrics, dimensions) = directive(&sample);
    assert!(metrics.iter().all(|metric| registered.contains(&metric["Name"].as_str().unwrap())), "{sample}");
    assert!(dimensions.iter().all(|name| sample[*name].is_string()) && sample["request_id"].is_string(), "{sample}");
}
