//! The alarms. Each has an urgency and a drill, with which its description and docs/operations.md agree. Alarms on the
//! functions' own metrics name metrics that the functions emit, of their own stack only. Each
//! event source mapping has an alarm that goes off when nothing is delivered, although no invocation can fail then.

use std::collections::{BTreeMap, BTreeSet};

use millrace_shared::telemetry;
use serde_json::{Value, json};

use super::tiers::section;
use super::{FunctionResource, source};
use crate::telemetry::metrics::printed_by;

/// The templates with alarms, and the names of their composite alarms without the urgency.
pub(super) const WITH_ALARMS: [(&str, &str); 4] = [
    ("template.yaml", "Api"),
    ("infra/replication.yaml", "Replication"),
    ("infra/relational.yaml", "Database"),
    ("infra/cache.yaml", "Cache"),
];
const URGENCIES: [&str; 2] = ["Page", "Ticket"];
/// The address of the drills.
const DRILLS: &str = "https://github.com/millrace/millrace/blob/main/docs/operations.md#";

/// The resources of a type in a template, by id.
pub(super) fn resources_of_type(file: &str, kind: &str) -> BTreeMap<String, Value> {
    section(file, "Resources").into_iter().filter(|(_, resource)| resource["Type"] == kind).collect()
}

/// Every alarm of the template and of the nested templates, by its id.
fn alarms() -> BTreeMap<String, Value> {
    let alarms = WITH_ALARMS.into_iter().flat_map(|(file, _)| resources_of_type(file, "AWS::CloudWatch::Alarm"));
    alarms.map(|(id, alarm)| (id, alarm["Properties"].clone())).collect()
}

/// The alarms that a composite alarm combines, each with the condition under which it exists.
fn combined(composite: &Value) -> BTreeMap<String, Option<String>> {
    let [separator, rule] = &composite["Properties"]["AlarmRule"].as_array().unwrap()[..] else {
        panic!("{composite}: a rule joins its alarms")
    };
    assert_eq!(separator, " OR ");
    let name = |text: &Value| {
        let text = text.as_str().and_then(|text| text.strip_prefix("!Sub ALARM(\"${")?.strip_suffix("}\")"));
        text.unwrap_or_else(|| panic!("{composite}: ALARM(\"${{Name}}\")")).to_owned()
    };
    let entry = |entry: &Value| match entry.as_array().map(Vec::as_slice) {
        None => (name(entry), None),
        Some([condition, then, otherwise]) => {
            assert_eq!(otherwise, "FALSE", "{composite}");
            (name(then), condition.as_str().map(str::to_owned))
        }
        Some(other) => panic!("{composite}: {other:?}"),
    };
    rule.as_array().unwrap().iter().map(entry).collect()
}

#[test]
fn every_alarm_has_one_urgency_whose_topic_is_notified() {
    for (file, name) in WITH_ALARMS {
        let own = resources_of_type(file, "AWS::CloudWatch::Alarm");
        let mut seen = BTreeSet::new();
        for (id, composite) in resources_of_type(file, "AWS::CloudWatch::CompositeAlarm") {
            let urgency = URGENCIES.into_iter().find(|urgency| id == format!("{name}{urgency}Alarm"));
            let urgency = urgency.unwrap_or_else(|| panic!("{file}: {id} has no urgency"));
            let actions =
                json!([format!("Has{urgency}Topic"), [format!("!Ref {urgency}TopicArn")], "!Ref AWS::NoValue"]);
            assert_eq!(composite["Properties"]["AlarmActions"], actions, "{file}: {id}");
            let description = composite["Properties"]["AlarmDescription"].as_str().unwrap();
            assert!(description.ends_with(&format!("{DRILLS}urgency")), "{file}: {id}");
            for (alarm, condition) in combined(&composite) {
                assert!(seen.insert(alarm.clone()), "{file}: {alarm} has two urgencies");
                let alarm =
                    own.get(&alarm).unwrap_or_else(|| panic!("{file}: {id} names {alarm}, which does not exist"));
                assert_eq!(alarm["Condition"].as_str(), condition.as_deref(), "{file}: {id}");
            }
        }
        let missing: Vec<&String> = own.keys().filter(|alarm| !seen.contains(*alarm)).collect();
        assert!(missing.is_empty(), "{file}: {missing:?} have no urgency");
    }
}

/// The drills of docs/operations.md: title and text.
fn drills() -> Vec<(String, String)> {
    let document = source("docs/operations.md");
    let (_, drills) = document.split_once("\n## Drills\n").unwrap();
    let drills = drills.split("\n## ").next().unwrap();
    let drills = drills.split("\n### ").skip(1).map(|drill| drill.split_once('\n').unwrap());
    drills.map(|(title, text)| (title.to_owned(), text.trim().to_owned())).collect()
}

/// The anchor of a heading on GitHub.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-' || *letter == '_').collect()
}

#[test]
fn every_alarm_has_a_drill_that_begins_with_it_and_that_its_description_links_to() {
    let mut led: BTreeMap<String, String> = BTreeMap::new();
    for (title, text) in drills() {
        let begin = text.lines().next().unwrap();
        assert!(
            begin.starts_with("**Alarm.** "),
            "the drill {title:?} begins with its alarms, or says that none leads to it"
        );
        let names: Vec<&str> = begin.split('`').skip(1).step_by(2).filter(|name| name.ends_with("Alarm")).collect();
        assert_eq!(names.is_empty(), begin.starts_with("**Alarm.** None"), "{title}");
        for name in names {
            assert_eq!(led.insert(name.to_owned(), anchor(&title)), None, "{name} leads to two drills");
        }
    }
    for (id, alarm) in alarms() {
        let description = alarm["AlarmDescription"].as_str().unwrap();
        let drill = led.remove(&id).unwrap_or_else(|| panic!("no drill begins with {id}"));
        let (what, to) = description.split_once(DRILLS).unwrap_or_else(|| panic!("{id} links to no drill"));
        assert_eq!(to, drill, "{id}");
        assert!(what.matches(". ").count() >= 2, "{id}: the description says what happens and what to do");
        // The limit of CloudWatch.
        assert!(description.len() <= 1024, "{id}");
    }
    assert_eq!(led, BTreeMap::new(), "drills begin with alarms that do not exist");
}

#[test]
fn every_drill_ends_with_a_command_that_checks_the_result() {
    let drills = drills();
    assert!(drills.len() > 10, "{drills:?}");
    for (title, text) in drills {
        assert!(text.ends_with("\n```"), "the drill {title:?} ends with a command");
        let (_, check) = text.rsplit_once("**Check.** ").unwrap_or_else(|| panic!("the drill {title:?} has no check"));
        assert_eq!(check.matches("```sh\n").count(), 1, "the drill {title:?} checks with one block of commands");
        let (_, commands) = check.split_once("```sh\n").unwrap();
        let is_command = |line: &str| ["aws ", "task ", "sam "].iter().any(|program| line.starts_with(program));
        assert!(commands.lines().next().is_some_and(is_command), "{title}: {commands}");
    }
}

/// The metrics of an alarm: namespace, name and dimensions.
pub(super) fn metrics_of(alarm: &Value) -> Vec<(String, String, BTreeMap<String, Value>)> {
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
