//! The state machine that runs a task: it calls the maintenance function with valid requests, and its retriers use the
//! names of the function's errors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millrace_maintenance::TaskError;
use millrace_maintenance::mapping::MappingNotReadyError;
use millrace_maintenance::source::SourceTableError;
use millrace_maintenance::task::TaskRequest;
use millrace_maintenance::task::registry::TASKS;
use millrace_maintenance::task::replica::backfill::BackfillError;
use millrace_maintenance::task::replica::verify::VerifyError;
use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::ScanSegment;
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::source;

/// The state machine's properties as JSON; a `CloudFormation` tag becomes the text `!Tag value`.
fn machine() -> Value {
    let text = source("infra/replication.yaml");
    let documents = Yaml::load_from_str(&text).unwrap();
    json_of(&documents[0]["Resources"]["MaintenanceMachine"]["Properties"])
}

pub(super) fn json_of(node: &Yaml<'_>) -> Value {
    match node {
        Yaml::Tagged(tag, inner) => match json_of(inner) {
            Value::String(text) => json!(format!("!{} {text}", tag.suffix)),
            other => other,
        },
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Mapping(entries) => {
            entries.iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), json_of(value))).collect()
        }
        scalar => match (scalar.as_str(), scalar.as_integer(), scalar.as_bool()) {
            (Some(text), ..) => json!(text),
            (_, Some(number), _) => json!(number),
            (.., Some(truth)) => json!(truth),
            _ => json!(scalar.as_floating_point().unwrap_or_else(|| panic!("{scalar:?} has no place in a template"))),
        },
    }
}

/// Every state by its name, including those inside the map; each name occurs once.
fn states(definition: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (name, state) in definition["States"].as_object().unwrap() {
        assert!(found.insert(name.clone(), state.clone()).is_none(), "two states are called {name}");
        if let Some(inner) = state.get("ItemProcessor") {
            found.extend(states(inner));
        }
    }
    found
}

/// The states that may follow, and whether the execution may end here.
fn after(state: &Value) -> (Vec<String>, bool) {
    let mut next: Vec<String> = Vec::new();
    let mut follow = |target: &Value| next.extend(target.as_str().map(str::to_owned));
    follow(&state["Next"]);
    follow(&state["Default"]);
    state["Choices"].as_array().into_iter().flatten().for_each(|choice| follow(&choice["Next"]));
    follow(&state["ItemProcessor"]["StartAt"]);
    (next, state["End"] == true || state["Type"] == "Succeed" || state["Type"] == "Fail")
}

fn tasks() -> Vec<Value> {
    let tasks: Vec<Value> =
        states(&machine()["Definition"]).into_values().filter(|state| state["Type"] == "Task").collect();
    assert_eq!(tasks.len(), 2, "one that works and one that sums up");
    tasks
}

fn parsed(payload: &Value) -> TaskRequest {
    let payload = RawValue::from_string(payload.to_string()).unwrap();
    let time = Duration::from_mins(15);
    let invocation = Invocation::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), time, "request-1".to_owned());
    TaskRequest::parse(&payload, &invocation).unwrap()
}

#[test]
fn every_state_is_reached_and_every_way_ends() {
    let definition = &machine()["Definition"];
    assert_eq!(definition["QueryLanguage"], "JSONata");
    let states = states(definition);
    let mut reached = BTreeSet::new();
    let mut open = vec![definition["StartAt"].as_str().unwrap().to_owned()];
    while let Some(name) = open.pop() {
        let state = states.get(&name).unwrap_or_else(|| panic!("{name} is no state"));
        if reached.insert(name.clone()) {
            let (next, ends) = after(state);
            assert!(ends || !next.is_empty(), "{name} leads nowhere");
            open.extend(next);
        }
    }
    assert_eq!(reached, states.keys().cloned().collect());
    assert!(reached.iter().any(|name| after(&states[name]).1), "it never ends");
    // The loop returns to the task while it is not done, and continues once it is.
    let choice = &states["IsDone"];
    assert_eq!(states[choice["Default"].as_str().unwrap()]["Type"], "Task");
    assert_eq!(choice["Choices"][0]["Condition"], "{% $states.input.done %}");
}

#[test]
fn state_machine_invokes_the_maintenance_function_and_nothing_else() {
    for task in tasks() {
        assert_eq!(task["Resource"], "!Sub arn:${AWS::Partition}:states:::lambda:invoke");
        assert_eq!(task["Arguments"]["FunctionName"], "!GetAtt MaintenanceFunction.Arn");
        let function_s = i64::from(super::function("maintenance").timeout_s);
        assert!(task["TimeoutSeconds"].as_i64().unwrap() > function_s, "it would not wait for a response");
    }
    let text = source("infra/replication.yaml");
    let documents = Yaml::load_from_str(&text).unwrap();
    let role = json_of(&documents[0]["Resources"]["MaintenanceMachineRole"]["Properties"]);
    let statements = role["Policies"][0]["PolicyDocument"]["Statement"].as_array().unwrap().clone();
    let invoking: Vec<&Value> = statements.iter().filter(|of| of.to_string().contains("lambda:")).collect();
    let [invoking] = invoking[..] else { panic!("one statement is about Lambda") };
    assert_eq!(invoking["Action"], "lambda:InvokeFunction");
    assert_eq!(invoking["Resource"], "!GetAtt MaintenanceFunction.Arn");
    assert_eq!(machine()["Role"], "!GetAtt MaintenanceMachineRole.Arn");
    assert_eq!(role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"], "states.amazonaws.com");
}

/// The requests are written by hand in this test; the same test checks that the definition contains the expressions for
/// them.
#[test]
fn state_machine_payloads_are_valid_task_requests() {
    let definition = &machine()["Definition"];
    let states = states(definition);
    let request = r#"{% $merge([{"segments": 1, "run_id": $states.context.Execution.Name}, $states.input]) %}"#;
    assert_eq!(states["PrepareRequest"]["Assign"], json!({"request": request}));
    let payload = r#"{% $merge([$request, {"segment": $states.input.segment, "cursor": $states.input.cursor}]) %}"#;
    assert_eq!(states["Work"]["Arguments"]["Payload"], payload);
    let carried: Vec<&str> = states["Work"]["Output"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(carried, ["cursor", "done", "segment"], "the loop grows by what else it carries");

    let first =
        parsed(&json!({"segments": 8, "run_id": "monday", "task": "verify", "recheck_after_seconds": 2, "segment": 7}));
    assert_eq!((first.definition.name, first.run_id.as_str()), ("verify", "monday"));
    assert_eq!(first.extra_time(), Duration::from_secs(2), "the time after which a difference is read again");
    assert_eq!((first.segment, first.cursor.is_none()), (ScanSegment { segment: 7, total_segments: 8 }, true));
    let cursor = json!({
        "task": "verify", "run_id": "monday", "segment": 7, "segments": 8, "part": 1, "progress": {"source.items": 3},
        "differences": 0, "problems": 0, "at": {},
    });
    let next = json!({"segments": 8, "run_id": "monday", "task": "verify", "segment": 7, "cursor": cursor});
    assert_eq!(parsed(&next).cursor.unwrap().part, 1);

    let sum = json!({
        "task": "summary", "run_id": "{% $request.run_id %}", "of_task": "{% $request.task %}", "segments": "{% $request.segments %}",
    });
    assert_eq!(states["Summary"]["Arguments"]["Payload"], sum);
    let sum = parsed(&json!({"task": "summary", "run_id": "monday", "of_task": "verify", "segments": 8}));
    assert_eq!((sum.run_id.as_str(), sum.segment.total_segments, sum.definition.name), ("monday", 8, "summary"));
    assert!(format!("{sum:?}").contains("SegmentsOf(\"verify\")"), "{sum:?}");
    // One item per segment, and at least one: a summary of no segments would report success.
    assert_eq!(states["Segments"]["Items"], "{% [0..$max([$request.segments - 1, 0])] %}");
}

/// The maximum size of a state's payload (<https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>).
const PAYLOAD_BYTES: usize = 256 * 1024;

/// The variables of an expression.
struct Scope<'s> {
    request: &'s Value,
    input: &'s Value,
    result: &'s Value,
    index: u32,
}

/// An execution of the definition, whose function is a closure; records the largest payload of each state.
struct Execution<F> {
    states: BTreeMap<String, Value>,
    function: F,
    largest: BTreeMap<String, usize>,
}

impl<F: FnMut(&Value) -> Value> Execution<F> {
    /// Runs a request to completion; returns the last state, its output, and the largest payloads.
    fn play(request: &Value, function: F) -> (String, Value, BTreeMap<String, usize>) {
        let definition = &machine()["Definition"];
        let mut execution = Self { states: states(definition), function, largest: BTreeMap::new() };
        let start = definition["StartAt"].as_str().unwrap();
        let (last, output) = execution.run(start, request.clone(), &Value::Null, 0);
        (last, output, execution.largest)
    }

    /// Runs the states from this one on, until one ends the execution.
    fn run(&mut self, start: &str, input: Value, request: &Value, index: u32) -> (String, Value) {
        let (mut name, mut input, mut request) = (start.to_owned(), input, request.clone());
        loop {
            let state = self.states[&name].clone();
            self.carry(&name, &input);
            let mut result = Value::Null;
            match state["Type"].as_str().unwrap() {
                "Map" => {
                    let scope = Scope { request: &request, input: &input, result: &Value::Null, index };
                    let items = evaluated(&state["Items"], &scope);
                    let start = state["ItemProcessor"]["StartAt"].as_str().unwrap().to_owned();
                    let mut outputs = Vec::new();
                    for item in items.as_array().unwrap().clone() {
                        let index = u32::try_from(item.as_u64().unwrap()).unwrap();
                        let scope = Scope { request: &request, input: &input, result: &Value::Null, index };
                        let selected = evaluated(&state["ItemSelector"], &scope);
                        outputs.push(self.run(&start, selected, &request, index).1);
                    }
                    result = Value::Array(outputs);
                }
                "Task" => {
                    let scope = Scope { request: &request, input: &input, result: &Value::Null, index };
                    let payload = evaluated(&state["Arguments"]["Payload"], &scope);
                    self.carry(&name, &payload);
                    result = json!({"Payload": (self.function)(&payload)});
                    self.carry(&name, &result);
                }
                _ => {}
            }
            let scope = Scope { request: &request, input: &input, result: &result, index };
            let next = state["Choices"].as_array().into_iter().flatten().find_map(|choice| {
                let holds = evaluated(&choice["Condition"], &scope);
                (holds == true).then(|| choice["Next"].clone())
            });
            let next = next.or(state.get("Default").cloned()).or(state.get("Next").cloned());
            let output = match state.get("Output") {
                Some(output) => evaluated(output, &scope),
                None if state["Type"] == "Map" => result.clone(),
                None if state["Type"] == "Fail" => {
                    json!({"Error": state["Error"], "Cause": evaluated(&state["Cause"], &scope)})
                }
                None => input.clone(),
            };
            self.carry(&name, &output);
            if let Some(assigned) = state["Assign"].get("request") {
                let assigned = evaluated(assigned, &scope);
                self.carry(&name, &assigned);
                request = assigned;
            }
            match next {
                Some(next) => (name, input) = (next.as_str().unwrap().to_owned(), output),
                None => return (name, output),
            }
        }
    }

    fn carry(&mut self, state: &str, payload: &Value) {
        let bytes = payload.to_string().len();
        let largest = self.largest.entry(state.to_owned()).or_default();
        *largest = bytes.max(*largest);
    }
}

/// Evaluates the definition's expressions, and JSON that contains them. Missing values are left out, as in `JSONata`.
fn evaluated(template: &Value, scope: &Scope<'_>) -> Value {
    let text = match template {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), evaluated(value, scope)));
            return Value::Object(fields.filter(|(_, value)| !value.is_null()).collect());
        }
        Value::String(text) => text,
        other => return other.clone(),
    };
    let Some(expression) = text.strip_prefix("{% ").and_then(|text| text.strip_suffix(" %}")) else {
        return template.clone();
    };
    let merged = |parts: &[&Value]| {
        let fields = parts.iter().flat_map(|part| part.as_object().unwrap().clone());
        Value::Object(fields.filter(|(_, value)| !value.is_null()).collect())
    };
    match expression {
        r#"$merge([{"segments": 1, "run_id": $states.context.Execution.Name}, $states.input])"# => {
            merged(&[&json!({"segments": 1, "run_id": "e".repeat(80)}), scope.input])
        }
        r#"$merge([$request, {"segment": $states.input.segment, "cursor": $states.input.cursor}])"# => {
            merged(&[scope.request, &json!({"segment": scope.input["segment"], "cursor": scope.input["cursor"]})])
        }
        "[0..$max([$request.segments - 1, 0])]" => {
            (0..scope.request["segments"].as_u64().unwrap().max(1)).collect::<Vec<_>>().into()
        }
        "$states.context.Map.Item.Value" => scope.index.into(),
        "$states.input.differences > 0" => (scope.input["differences"].as_u64().unwrap() > 0).into(),
        cause if cause.starts_with("$states.input.of_task & ") => {
            let text = |name: &str| scope.input[name].to_string().replace('"', "");
            format!(
                "{} found {} differences: {}; the report is below reports/{}/",
                text("of_task"),
                text("differences"),
                scope.input["progress"],
                text("run_id")
            )
            .into()
        }
        path => {
            let (root, rest) = match path.strip_prefix("$states.") {
                Some(rest) if rest.starts_with("input.") => (scope.input, &rest[6..]),
                Some(rest) if rest.starts_with("result.") => (scope.result, &rest[7..]),
                _ => (
                    scope.request,
                    path.strip_prefix("$request.").unwrap_or_else(|| panic!("{path} is not known here")),
                ),
            };
            rest.split('.').fold(root.clone(), |value, name| value[name].clone())
        }
    }
}

/// Every count of a task, with the largest value that a count can have.
fn most_progress() -> Value {
    let of_a_sink = [
        "items",
        "tombstones",
        "equal",
        "in_flux",
        "missing",
        "different",
        "resurrected",
        "extra",
        "quarantined",
        "repaired",
        "would_repair",
        "failed",
        "would_fail",
        "unattributed",
        "written",
        "skipped",
    ];
    let sinks = ["dynamodb", "postgres", "cache"];
    let names = sinks.iter().flat_map(|sink| of_a_sink.map(|name| format!("{sink}.{name}")));
    names.chain(["source.items".to_owned()]).map(|name| (name, json!(u64::MAX))).collect()
}

/// A function with the largest responses: a segment takes three invocations, and its cursors have the maximum length.
fn talkative(task: &'static str, at: Value) -> impl FnMut(&Value) -> Value {
    move |payload: &Value| {
        let sinks = json!(["dynamodb", "postgres"]);
        let mut response = json!({
            "task": payload["task"], "run_id": payload["run_id"], "segments": payload["segments"], "done": true,
            "progress": most_progress(), "sinks": sinks, "differences": 0, "problems": 0,
        });
        if payload["task"] == "summary" {
            assert_eq!((&payload["of_task"], &payload["segments"]), (&json!(task), &json!(1_000)));
            response["of_task"] = json!(task);
            return response;
        }
        assert_eq!(payload["task"], task);
        response["segment"] = payload["segment"].clone();
        // Only a few segments have cursors: more would only make the test slower.
        let turn = payload["cursor"]["part"].as_u64().unwrap_or(0);
        if turn < 2 && payload["segment"].as_u64().unwrap().is_multiple_of(100) {
            response["done"] = json!(false);
            response["cursor"] = json!({
                "task": task, "run_id": payload["run_id"], "segment": payload["segment"], "segments": 1_000,
                "part": turn + 1, "progress": most_progress(), "differences": u64::MAX, "problems": u64::MAX, "at": at,
            });
        }
        response
    }
}

#[test]
fn segments_run_concurrently_as_the_capacity_is_divided() {
    let concurrency = &states(&machine()["Definition"])["Segments"]["MaxConcurrency"];
    assert_eq!(concurrency.as_u64(), Some(millrace_maintenance::task::capacity_budget::MAX_CONCURRENT_SEGMENTS.into()));
}

#[test]
fn a_thousand_segments_carry_no_more_than_a_state_may() {
    let key = || json!({"user_id": {"S": "\u{1}".repeat(2_048)}, "timestamp": {"B": "k".repeat(1_368)}});
    let corrupt = format!("archive/{}/dt=2026-11-22/hr=05/{:032x}.ndjson.zst", "T".repeat(255), 7);
    let positions = [
        ("verify", json!({"sink": 1, "source": {"After": key()}, "replica": {"After": key()}})),
        ("redrive", json!({"prefix": 1, "after": "k".repeat(1_024)})),
        (
            "compact",
            json!({"day": "2026-11-22", "reported": true, "corrupt": vec![corrupt; millrace_maintenance::task::archive::compact::MAX_CORRUPT_OBJECTS]}),
        ),
    ];
    for (task, at) in positions {
        let request = json!({"task": task, "segments": 1_000, "run_id": "r".repeat(128)});
        let mut calls = 0;
        let mut function = talkative(task, at);
        let (last, output, largest) = Execution::play(&request, |payload: &Value| {
            calls += 1;
            function(payload)
        });
        assert_eq!((last.as_str(), calls), ("Summed", 1_021), "{task}");
        assert_eq!(output["progress"], most_progress());
        for (state, bytes) in largest {
            assert!(bytes < PAYLOAD_BYTES, "{task}: {state} carries {bytes} bytes");
        }
    }
}

#[test]
fn differences_end_it_in_a_state_of_their_own_and_nothing_else_does() {
    for (differences, end) in [(0, "Summed"), (3, "DifferencesFound")] {
        let request = json!({"task": "verify", "segments": 2});
        let (last, output, _) = Execution::play(&request, |payload: &Value| {
            json!({"task": payload["task"], "run_id": payload["run_id"], "of_task": "verify", "done": true, "differences": differences,
                "problems": differences,
                "progress": {"dynamodb.missing": differences}})
        });
        assert_eq!(last, end);
        if differences > 0 {
            assert_eq!(output["Error"], "DifferencesFound");
            let cause = output["Cause"].as_str().unwrap();
            assert!(
                cause.starts_with(r#"verify found 3 differences: {"dynamodb.missing":3}; the report is below"#),
                "{cause}"
            );
        }
    }
    let alarm = alarm_of("DifferencesAlarm");
    assert_eq!((alarm["MetricName"].as_str(), alarm["Namespace"].as_str()), (Some("Differences"), Some("Millrace")));
    assert_eq!(alarm["MetricName"], millrace_shared::metric::DIFFERENCES.name());
}

#[test]
fn schedule_starts_the_state_machine_with_a_verify_and_its_alarm_misses_two() {
    let properties = alarm_of("ScheduledVerification");
    let target = &properties["Target"];
    assert_eq!(target["Arn"], "!Ref MaintenanceMachine");
    assert_eq!(target["RoleArn"], "!GetAtt ScheduledVerificationRole.Arn");
    let mut request: Value = serde_json::from_str(target["Input"].as_str().unwrap()).unwrap();
    let definition = request.as_object_mut().unwrap();
    definition.extend([("run_id".to_owned(), json!("scheduled")), ("segment".to_owned(), json!(0))]);
    let request = parsed(&request);
    assert_eq!((request.definition.name, request.segment.total_segments), ("verify", 8));
    let role = alarm_of("ScheduledVerificationRole");
    let statement = &role["Policies"][0]["PolicyDocument"]["Statement"][0];
    assert_eq!((&statement["Action"], &statement["Resource"]), (&"states:StartExecution".into(), &target["Arn"]));
    assert_eq!(role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"], "scheduler.amazonaws.com");
    let alarm = alarm_of("VerifyOverdueAlarm");
    assert_eq!(alarm["MetricName"], millrace_shared::metric::VERIFIED_SEGMENTS.name());
    assert_eq!((&alarm["EvaluationPeriods"], &alarm["TreatMissingData"]), (&2.into(), &"breaching".into()));
    assert_eq!(alarm["Period"], json!(["VerifiesHourly", 3600, 86400]));
    let expression = &properties["ScheduleExpression"];
    assert_eq!(
        *expression,
        json!(["VerifiesHourly", "rate(1 hour)", ["VerifiesDaily", "rate(1 day)", "rate(7 days)"]])
    );
}

fn alarm_of(id: &str) -> Value {
    let text = source("infra/replication.yaml");
    let documents = Yaml::load_from_str(&text).unwrap();
    json_of(&documents[0]["Resources"][id]["Properties"])
}

/// The names of the errors that only an operator can resolve, and of a transient one.
fn names_of_faults() -> (BTreeSet<&'static str>, &'static str) {
    let payload = RawValue::from_string("[]".to_owned()).unwrap();
    let now = OffsetDateTime::UNIX_EPOCH;
    let invocation = Invocation::new(now, Instant::now(), Duration::from_mins(1), "request-1".to_owned());
    let missing = MappingNotReadyError::Missing { function: "replicator".to_owned(), stream: "stream".to_owned() };
    let lasting = [
        TaskError::from(TaskRequest::parse(&payload, &invocation).unwrap_err()),
        TaskError::from(VerifyError::NoTime(300)),
        TaskError::from(BackfillError::from(missing)),
        TaskError::from(SourceTableError::NoStream("Users".to_owned())),
    ];
    let passing =
        BackfillError::Sink { sink: "dynamodb".to_owned(), failed: 1, writes: 2, reason: "throttled".to_owned() };
    (lasting.iter().map(|error| error.kind().as_str()).collect(), TaskError::from(passing).kind().as_str())
}

/// The retrier that Step Functions uses for an error: the first one whose list contains the name.
fn retrier<'a>(task: &'a Value, error: &str) -> Option<&'a Value> {
    let named = |retrier: &&Value| retrier["ErrorEquals"].as_array().unwrap().iter().any(|name| name == error);
    task["Retry"].as_array().unwrap().iter().find(named)
}

/// The longest pauses, in seconds, before each retry of a persistent error.
fn longest_pauses(retrier: &Value) -> Vec<f64> {
    let number = |name: &str| retrier[name].as_f64().unwrap_or_else(|| panic!("{name} is not set"));
    let attempts = retrier["MaxAttempts"].as_i64().unwrap();
    let grown = std::iter::successors(Some(number("IntervalSeconds")), |pause| Some(pause * number("BackoffRate")));
    grown.take(usize::try_from(attempts).unwrap()).map(|pause| pause.min(number("MaxDelaySeconds"))).collect()
}

/// The names that Step Functions uses for transient failures of the call itself: Lambda's invocation errors, as its API
/// defines them, and those of Step Functions' own client.
const PASSING: [&str; 19] = [
    "Lambda.AWSLambdaException",
    "Lambda.ClientExecutionTimeoutException",
    "Lambda.EC2ThrottledException",
    "Lambda.EC2UnexpectedException",
    "Lambda.ENILimitReachedException",
    "Lambda.ENINotReadyException",
    "Lambda.KMSAccessDeniedException",
    "Lambda.KMSDisabledException",
    "Lambda.KMSInvalidStateException",
    "Lambda.KMSNotFoundException",
    "Lambda.ResourceConflictException",
    "Lambda.ResourceNotReadyException",
    "Lambda.SdkClientException",
    "Lambda.ServiceException",
    "Lambda.SubnetIPAddressLimitReachedException",
    "Lambda.TooManyRequestsException",
    "Lambda.Unknown",
    "Sandbox.Timedout",
    "States.Timeout",
];

/// Lambda's invocation errors that retries do not resolve.
const LASTING: [&str; 10] = [
    "Lambda.EC2AccessDeniedException",
    "Lambda.InvalidParameterValueException",
    "Lambda.InvalidRequestContentException",
    "Lambda.InvalidRuntimeException",
    "Lambda.InvalidSecurityGroupIDException",
    "Lambda.InvalidSubnetIDException",
    "Lambda.InvalidZipFileException",
    "Lambda.RecursiveInvocationException",
    "Lambda.RequestTooLargeException",
    "Lambda.ResourceNotFoundException",
];

#[test]
fn transient_errors_are_retried_and_permanent_ones_fail_at_once() {
    let (lasting, passing) = names_of_faults();
    for task in tasks() {
        for error in &lasting {
            let retrier = retrier(&task, error).unwrap_or_else(|| panic!("{error} is in no list"));
            assert_eq!(retrier["MaxAttempts"], 0, "{error}");
        }
        for error in LASTING {
            assert_eq!(retrier(&task, error), None, "{error}");
        }
        for error in [&[passing][..], &PASSING].concat() {
            let retrier = retrier(&task, error).unwrap_or_else(|| panic!("{error} fails the task at once"));
            assert_eq!(retrier["JitterStrategy"], "FULL", "{error}");
            let pauses = longest_pauses(retrier);
            assert!(pauses.is_sorted() && pauses[0] * 2.0 <= pauses[1], "{error}: {pauses:?}");
            // Lambda may take minutes to create network interfaces.
            assert!(pauses.iter().sum::<f64>() >= 600.0, "{error}: {pauses:?}");
        }
        let listed: Vec<&str> = task["Retry"].as_array().unwrap().iter().flat_map(names_of).collect();
        let known: BTreeSet<&str> = lasting.iter().chain(&[passing]).chain(&PASSING).copied().collect();
        assert_eq!(listed.len(), known.len(), "a name twice, or one that is not known here: {listed:?}");
        assert!(task.get("Catch").is_none(), "what is caught is no failed execution, and no alarm");
    }
}

fn names_of(retrier: &Value) -> impl Iterator<Item = &str> {
    retrier["ErrorEquals"].as_array().unwrap().iter().filter_map(Value::as_str)
}

#[test]
fn keys_of_items_are_in_no_log() {
    let logging = &machine()["Logging"];
    assert_eq!(logging["IncludeExecutionData"], false);
    assert_eq!(machine()["Tracing"]["Enabled"], true);
}

/// The samples are the input of an execution, or of a single manual invocation.
#[test]
fn every_task_has_a_sample_event_that_is_a_valid_request() {
    let folder = super::workspace().join("events");
    let mut tasks = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(task) = name.strip_prefix("task-").and_then(|name| name.strip_suffix(".json")) {
            let request = parsed(&serde_json::from_str(&source(&format!("events/{name}"))).unwrap());
            assert_eq!(request.definition.name, task, "{name}");
            tasks.push(task.to_owned());
        }
    }
    tasks.sort();
    let mut registered: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
    registered.sort_unstable();
    assert_eq!(tasks, registered);
}
