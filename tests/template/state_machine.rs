//! The state machine that runs a task: it calls the maintenance function with orders that the function takes, and goes by
//! the names that the function's faults have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use maintenance::Fault;
use maintenance::mapping::Unfed;
use maintenance::source::SourceFault;
use maintenance::task::backfill::BackfillFault;
use maintenance::task::verify::VerifyFault;
use maintenance::task::{Mend, Order, Task, Verify};
use saphyr::{LoadableYamlNode, Yaml};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::invocation::Invocation;
use shared::raw_table::Segment;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::source;

/// The machine's properties as JSON; a tag of `CloudFormation` is told as `!Tag value`.
fn machine() -> Value {
    let text = source("template.yaml");
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
            _ => panic!("{scalar:?} has no place in a template"),
        },
    }
}

/// Every state by its name, those inside the map as well; each name once.
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

/// The states that may come after, and whether the flow may end there.
fn after(state: &Value) -> (Vec<String>, bool) {
    let mut next: Vec<String> = Vec::new();
    let mut follow = |place: &Value| next.extend(place.as_str().map(str::to_owned));
    follow(&state["Next"]);
    follow(&state["Default"]);
    state["Choices"].as_array().into_iter().flatten().for_each(|choice| follow(&choice["Next"]));
    follow(&state["ItemProcessor"]["StartAt"]);
    (next, state["End"] == true || state["Type"] == "Succeed")
}

fn tasks() -> Vec<Value> {
    let tasks: Vec<Value> =
        states(&machine()["Definition"]).into_values().filter(|state| state["Type"] == "Task").collect();
    assert_eq!(tasks.len(), 2, "one that works and one that sums up");
    tasks
}

fn parsed(payload: &Value) -> Order {
    let payload = RawValue::from_string(payload.to_string()).unwrap();
    let time = Duration::from_mins(15);
    let invocation = Invocation::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), time, "request-1".to_owned());
    Order::parse(&payload, &invocation).unwrap()
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
    // Back to the work as long as it is not done, and forward once it is.
    let choice = states.values().find(|state| state["Type"] == "Choice").unwrap();
    assert_eq!(states[choice["Default"].as_str().unwrap()]["Type"], "Task");
    assert_eq!(choice["Choices"][0]["Condition"], "{% $states.input.done %}");
}

#[test]
fn state_machine_invokes_the_maintenance_function_and_nothing_else() {
    for task in tasks() {
        assert_eq!(task["Resource"], "!Sub arn:${AWS::Partition}:states:::lambda:invoke");
        assert_eq!(task["Arguments"]["FunctionName"], "!GetAtt MaintenanceFunction.Arn");
        let function_s = i64::from(super::function("maintenance").timeout_s);
        assert!(task["TimeoutSeconds"].as_i64().unwrap() > function_s, "it would not wait for an answer");
    }
    let text = source("template.yaml");
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

/// The payloads of the definition are written out by hand here; that they are what stands there is checked beside it.
#[test]
fn what_it_calls_with_is_an_order() {
    let definition = &machine()["Definition"];
    let states = states(definition);
    let order = r#"{% $merge([{"segments": 1, "run": $states.context.Execution.Name}, $states.input]) %}"#;
    assert_eq!(states["Order"]["Assign"], json!({"order": order}));
    let payload = r#"{% $merge([$order, {"segment": $states.input.segment, "cursor": $states.input.cursor}]) %}"#;
    assert_eq!(states["Work"]["Arguments"]["Payload"], payload);
    let carried: Vec<&str> = states["Work"]["Output"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(carried, ["cursor", "done", "progress", "segment"], "the loop grows by what else it carries");

    let first = parsed(&json!({"segments": 8, "run": "monday", "task": "verify", "lag_seconds": 2, "segment": 7}));
    let verify = Verify { lag: Duration::from_secs(2), capacity_units: None, mend: Mend::No };
    assert_eq!((first.task, first.run.as_str()), (Task::Verify(verify), "monday"));
    assert_eq!((first.segment, first.cursor.is_none()), (Segment { segment: 7, of: 8 }, true));
    let cursor = json!({
        "task": "verify", "run": "monday", "segment": 7, "segments": 8, "part": 1, "progress": {"source.items": 3}, "at": {},
    });
    let next = json!({"segments": 8, "run": "monday", "task": "verify", "segment": 7, "cursor": cursor});
    assert_eq!(parsed(&next).cursor.unwrap().part, 1);

    let sum = json!({"task": "summary", "run": "{% $order.run %}", "parts": "{% $states.input %}"});
    assert_eq!(states["Summary"]["Arguments"]["Payload"], sum);
    let sum = parsed(&json!({"task": "summary", "run": "monday", "parts": [{"source.items": 3}, {}]}));
    let Task::Summary(parts) = sum.task else { panic!("a summary") };
    assert_eq!((sum.run.as_str(), parts.len()), ("monday", 2));
    // As many parts as segments, at least one: of none, the sum would say that all is well.
    assert_eq!(states["Segments"]["Items"], "{% [0..$max([$order.segments - 1, 0])] %}");
}

/// The faults that nobody but an operator can end, and one that may pass.
fn names_of_faults() -> (BTreeSet<&'static str>, &'static str) {
    let payload = RawValue::from_string("[]".to_owned()).unwrap();
    let now = OffsetDateTime::UNIX_EPOCH;
    let invocation = Invocation::new(now, Instant::now(), Duration::from_mins(1), "request-1".to_owned());
    let missing = Unfed::Missing { function: "replicator".to_owned(), stream: "stream".to_owned() };
    let lasting = [
        Fault::from(Order::parse(&payload, &invocation).unwrap_err()),
        Fault::from(VerifyFault::NoTime(300)),
        Fault::from(BackfillFault::from(missing)),
        Fault::from(SourceFault::NoStream("Users".to_owned())),
    ];
    let passing = BackfillFault::Sink { sink: "dynamodb", failed: 1, writes: 2, reason: "throttled".to_owned() };
    (lasting.iter().map(Fault::name).collect(), Fault::from(passing).name())
}

/// The retrier of a state that Step Functions takes for an error: the first, in their order, whose list has its name.
fn retrier<'a>(task: &'a Value, error: &str) -> Option<&'a Value> {
    let named = |retrier: &&Value| retrier["ErrorEquals"].as_array().unwrap().iter().any(|name| name == error);
    task["Retry"].as_array().unwrap().iter().find(named)
}

/// The longest pauses, in seconds, before each retry of an error that does not pass.
fn longest_pauses(retrier: &Value) -> Vec<f64> {
    let number = |name: &str| retrier[name].as_f64().unwrap_or_else(|| panic!("{name} is not set"));
    let attempts = retrier["MaxAttempts"].as_i64().unwrap();
    let grown = std::iter::successors(Some(number("IntervalSeconds")), |pause| Some(pause * number("BackoffRate")));
    grown.take(usize::try_from(attempts).unwrap()).map(|pause| pause.min(number("MaxDelaySeconds"))).collect()
}

/// What Step Functions calls a failure of the call itself that passes: Lambda's errors of an invocation, by its API, and
/// those of Step Functions' own client.
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

/// Lambda's errors of an invocation that are the same however often it is tried.
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
fn what_may_pass_is_tried_again_and_what_lasts_fails_at_once() {
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
            // Interfaces take minutes to make.
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

/// They are input of an execution, and of one invocation by hand.
#[test]
fn every_task_has_a_sample_which_is_an_order() {
    let folder = super::workspace().join("events");
    let mut tasks = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(task) = name.strip_prefix("task-").and_then(|name| name.strip_suffix(".json")) {
            let order = parsed(&serde_json::from_str(&source(&format!("events/{name}"))).unwrap());
            assert_eq!(order.task.name(), task, "{name}");
            tasks.push(task.to_owned());
        }
    }
    tasks.sort();
    assert_eq!(
        tasks,
        [
            "audit", "backfill", "columns", "compact", "export", "migrate", "redrive", "repair", "restore", "summary",
            "verify"
        ]
    );
}
