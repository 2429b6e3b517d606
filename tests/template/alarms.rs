//! The alarms. Alarms on the functions' own metrics name metrics that the functions emit, of their own stack only. Each
//! event source mapping has an alarm that goes off when nothing is delivered, although no invocation can fail then.

use std::collections::{BTreeMap, BTreeSet};

use millrace_shared::telemetry;
use serde_json::{Value, json};

use super::tiers::section;
use super::{FunctionResource, TEMPLATES, source};
use crate::telemetry::metrics::printed_by;

/// Every alarm of the template and of the nested templates, by its id.
fn alarms() -> BTreeMap<String, Value> {
    let nested = ["infra/network.yaml", "infra/relational.yaml", "infra/cache.yaml"];
    let resources = TEMPLATES.into_iter().chain(nested).flat_map(|file| section(file, "Resources"));
    let alarms = resources.filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    alarms.map(|(id, alarm)| (id, alarm["Properties"].clone())).collect()
}

/// The metrics of an alarm: namespace, name and dimensions.
fn metrics_of(alarm: &Value) -> Vec<(String, String, BTreeMap<String, Value>)> {
    let listed = alarm["Metrics"].as_array().into_iter().flatten();
    let mut looked_at: Vec<&Value> =
        listed.map(|entry| &entry["MetricStat"]["Metric"]).filter(|metric| !metric.is_null()).collect();
    if looked_at.is_empty() {
        looked_at.push(alarm);
    }
    let dimension = |of: &Value| (of["Name"].as_str().unwrap().to_owned(), of["Value"].clone());
    let metric = |of: &Value| {
        let text = |name: &str| of[name].as_str().unwrap_or_else(|| panic!("no {name} in {of}")).to_owned();
        (text("Namespace"), text("MetricName"), of["Dimensions"].as_array().unwrap().iter().map(dimension).collect())
    };
    looked_at.into_iter().map(metric).collect()
}

#[test]
fn every_alarm_on_a_metric_of_the_functions_is_its_stack_s_own_and_names_what_they_print() {
    let mut checked = 0;
    for (id, alarm) in alarms() {
        for (namespace, name, mut dimensions) in metrics_of(&alarm) {
            if namespace != telemetry::NAMESPACE {
                // A metric of AWS belongs to one stack through the resources that its dimensions name.
                let names_resources = dimensions.values().any(|value| value.as_str().unwrap().starts_with('!'));
                assert!(names_resources, "{id}: {name} {dimensions:?} is that of every stack");
                continue;
            }
            let [function, stack] = telemetry::DIMENSIONS.map(|own| dimensions.remove(own));
            let own = json!(["HasDeploymentName", "!Ref DeploymentName", "!Ref AWS::StackName"]);
            assert_eq!(stack, Some(own), "{id} rings for other stacks, too");
            let function = function.unwrap_or_else(|| panic!("{id}: every metric has a function"));
            let own = printed_by(function.as_str().unwrap());
            let labels: BTreeSet<String> = dimensions.into_keys().collect();
            assert!(own.contains(&(name.clone(), labels.clone())), "{id}: {name} {labels:?} is not among {own:?}");
            checked += 1;
        }
    }
    assert!(checked >= 3, "what is quarantined rings for both functions of the stream, a difference for maintenance");
    for FunctionResource { name, environment, .. } in super::template().functions {
        assert_eq!(environment[telemetry::STACK_NAME], millrace_local::clients::STACK_NAME, "{name}");
    }
    let nested = &section("template.yaml", "Resources")["Replication"]["Properties"]["Parameters"];
    assert_eq!(nested["DeploymentName"], "!Ref AWS::StackName", "the functions of one deployment have one dimension");
    let variable = "STACK_NAME: !If [HasDeploymentName, !Ref DeploymentName, !Ref AWS::StackName]\n";
    assert!(source("infra/replication.yaml").contains(variable), "the alarms are on what the functions print");
}

/// The ids of the alarms on a metric.
pub(crate) fn on_metric(namespace: &str, name: &str) -> BTreeSet<String> {
    let looks_at = |alarm: &Value| metrics_of(alarm).iter().any(|(of, is, _)| of == namespace && is == name);
    alarms().into_iter().filter(|(_, alarm)| looks_at(alarm)).map(|(id, _)| id).collect()
}

/// An evaluator of `CloudWatch` metric math, as far as the alarms of the mappings use it, for one period: a series has
/// a value in the period or none, and a missing value is compared as 0.
struct MetricMath<'a> {
    rest: Vec<&'a str>,
    values: &'a BTreeMap<&'a str, Option<f64>>,
}

impl<'a> MetricMath<'a> {
    fn evaluate(expression: &'a str, values: &'a BTreeMap<&'a str, Option<f64>>) -> f64 {
        let mut words = Vec::new();
        let mut rest = expression.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '(' | ')' | ',' => 1,
                _ if first.is_alphanumeric() => rest.find(|of: char| !of.is_alphanumeric()).unwrap_or(rest.len()),
                _ => rest.find(|of: char| !"=<>!".contains(of)).unwrap_or(rest.len()),
            };
            let (word, after) = rest.split_at(length);
            words.push(word);
            rest = after.trim_start();
        }
        words.reverse();
        let mut math = Self { rest: words, values };
        let value = math.either();
        assert_eq!(math.rest, [""; 0], "{expression}");
        value.unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        self.rest.pop().expect("an expression goes on")
    }

    fn skip(&mut self, word: &str) {
        assert_eq!(self.next(), word);
    }

    fn goes_on_with(&mut self, word: &str) -> bool {
        let goes_on = self.rest.last() == Some(&word);
        if goes_on {
            self.rest.pop();
        }
        goes_on
    }

    fn either(&mut self) -> Option<f64> {
        let mut left = self.both();
        while self.goes_on_with("OR") {
            let right = self.both();
            left = Some(truth(is_true(left) || is_true(right)));
        }
        left
    }

    fn both(&mut self) -> Option<f64> {
        let mut left = self.compared();
        while self.goes_on_with("AND") {
            let right = self.compared();
            left = Some(truth(is_true(left) && is_true(right)));
        }
        left
    }

    fn compared(&mut self) -> Option<f64> {
        let left = self.value();
        for (sign, holds) in [("==", f64::eq as fn(&f64, &f64) -> bool), (">=", f64::ge), (">", f64::gt)] {
            if self.goes_on_with(sign) {
                let right = self.value();
                return Some(truth(holds(&left.unwrap_or_default(), &right.unwrap_or_default())));
            }
        }
        left
    }

    fn value(&mut self) -> Option<f64> {
        match self.next() {
            "(" => {
                let value = self.either();
                self.skip(")");
                value
            }
            "FILL" => {
                self.skip("(");
                let value = self.either();
                self.skip(",");
                let otherwise = self.either();
                self.skip(")");
                value.or(otherwise)
            }
            "IF" => {
                self.skip("(");
                let condition = self.either();
                self.skip(",");
                let then = self.either();
                self.skip(",");
                let otherwise = self.either();
                self.skip(")");
                if is_true(condition) { then } else { otherwise }
            }
            word => match word.parse() {
                Ok(number) => Some(number),
                Err(_) => *self.values.get(word).unwrap_or_else(|| panic!("{word} is no metric of the alarm")),
            },
        }
    }
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn is_true(value: Option<f64>) -> bool {
    value.is_some_and(|value| value != 0.0)
}

/// A mapping reports 0 for an empty poll, and nothing while it is disabled or deleted.
#[test]
fn alarm_of_a_mapping_rings_if_it_polls_nothing_or_delivers_nothing() {
    let alarms = alarms();
    for (id, own) in [
        ("ReplicatorMappingAlarm", "!Ref ReplicatorFunctionChanges"),
        ("ArchiverMappingAlarm", "!Ref ArchiverFunctionExpiries"),
    ] {
        let alarm = &alarms[id];
        let entries = alarm["Metrics"].as_array().unwrap();
        let of: BTreeMap<&str, (&str, &str)> = entries
            .iter()
            .filter(|entry| entry["Expression"].is_null())
            .map(|entry| {
                let metric = &entry["MetricStat"]["Metric"];
                assert_eq!(
                    (&entry["ReturnData"], &metric["Dimensions"][0]["Value"]),
                    (&false.into(), &own.into()),
                    "{id}"
                );
                let text = Value::as_str;
                let stat = &entry["MetricStat"]["Stat"];
                (text(&entry["Id"]).unwrap(), (text(&metric["MetricName"]).unwrap(), text(stat).unwrap()))
            })
            .collect();
        assert_eq!(of["polls"], ("PolledEventCount", "SampleCount"), "{id}");
        assert_eq!(of["invoked"], ("InvokedEventCount", "Sum"), "{id}");
        assert_eq!(of["failed"], ("FailedInvokeEventCount", "Sum"), "{id}");
        let expression = entries.iter().find_map(|entry| entry["Expression"].as_str()).unwrap();
        let rings = |polls, invoked, failed| {
            let values = [("polls", polls), ("invoked", invoked), ("failed", failed)];
            MetricMath::evaluate(expression, &BTreeMap::from(values)) > alarm["Threshold"].as_f64().unwrap()
        };
        let (none, zero) = (None, Some(0.0));
        assert!(!rings(Some(1_200.0), none, none), "{id}: nothing happens");
        assert!(!rings(Some(1_200.0), zero, zero), "{id}: nothing happens, or all that was read is filtered out");
        assert!(!rings(Some(9.0), Some(9.0), zero), "{id}: all goes well");
        assert!(!rings(Some(9.0), Some(9.0), Some(3.0)), "{id}: some of it fails");
        assert!(rings(none, none, none), "{id}: it is disabled or gone");
        assert!(rings(zero, none, none), "{id}: it polls nothing");
        assert!(rings(Some(9.0), zero, Some(9.0)), "{id}: it may not invoke the function");
        // One period may pass without polls while Lambda moves a poller.
        let periods = alarm["EvaluationPeriods"].as_i64().unwrap();
        assert!(periods >= 3 && alarm["DatapointsToAlarm"].is_null(), "{id}");
        assert_eq!(alarm["TreatMissingData"], "breaching", "{id}");
        assert!(alarm["AlarmDescription"].as_str().unwrap().contains("list-event-source-mappings"), "{id}");
    }
}

#[test]
fn each_mapping_has_an_alarm_of_its_own() {
    let alarms = alarms();
    let mappings = super::template().functions.into_iter().flat_map(|function| {
        function.mappings.into_iter().map(move |mapping| format!("!Ref {}{}", function.logical_id, mapping.name))
    });
    for mapping in mappings {
        let watched = |alarm: &Value| {
            metrics_of(alarm).first().is_some_and(|(_, name, dimensions)| {
                name == "PolledEventCount" && dimensions["EventSourceMappingUUID"] == mapping.as_str()
            })
        };
        assert_eq!(alarms.values().filter(|alarm| watched(alarm)).count(), 1, "{mapping}");
    }
}
