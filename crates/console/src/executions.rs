//! The task runs of a deployed stack: the executions of its state machine.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use millrace_shared::clock::new_uuid;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::deployed_stack::StackConnection;
use crate::stack_calls::{DESCRIBE_EXECUTION, LIST_EXECUTIONS, START_EXECUTION};
use crate::task_runs::{RunState, TaskRunView, report};

/// The number of executions that are listed.
pub(crate) const SHOWN: usize = 20;
/// The number of executions that are described at once.
const IN_FLIGHT: usize = 5;
/// The longest name of an execution.
const MAX_NAME_LENGTH: usize = 80;

/// Returns the latest runs, the newest first.
///
/// # Errors
/// The call and, if it was denied, the permission.
pub(crate) async fn list(connection: &StackConnection) -> Result<Vec<TaskRunView>, String> {
    let machine = connection.resources.state_machine()?;
    let listed = connection.account.call(&LIST_EXECUTIONS, &[("stateMachineArn", machine)]).await;
    let listed = listed.map_err(|error| error.reason)?;
    let arns = listed["executions"].as_array().into_iter().flatten();
    let arns: Vec<String> = arns.filter_map(|own| Some(own["executionArn"].as_str()?.to_owned())).take(SHOWN).collect();
    let described = stream::iter(arns).map(|arn| async move {
        let described = connection.account.call(&DESCRIBE_EXECUTION, &[("executionArn", &arn)]).await;
        described.map(|described| Execution::read(&described).view).map_err(|error| error.reason)
    });
    described.buffered(IN_FLIGHT).try_collect().await
}

/// Returns a run, with its report if it has ended; `None` if there is no execution of this name.
///
/// # Errors
/// The call and, if it was denied, the permission.
pub(crate) async fn get(connection: &StackConnection, name: &str) -> Result<Option<TaskRunView>, String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.chars().all(is_name) {
        return Ok(None);
    }
    let arn = arn(connection, name)?;
    let described = match connection.account.call(&DESCRIBE_EXECUTION, &[("executionArn", &arn)]).await {
        Ok(described) => described,
        Err(error) if error.is_absent => return Ok(None),
        Err(error) => return Err(error.reason),
    };
    let Execution { mut view, run_id } = Execution::read(&described);
    if view.state != RunState::Running {
        view.report = match &connection.maintenance {
            Ok(maintenance) => report(maintenance, &run_id).await,
            Err(reason) => vec![format!("the report cannot be read: {reason}")],
        };
    }
    Ok(Some(view))
}

/// Returns the ARN of an execution.
///
/// # Errors
/// The missing state machine.
pub(crate) fn arn(connection: &StackConnection, name: &str) -> Result<String, String> {
    let machine = connection.resources.state_machine()?;
    Ok(format!("{}:{name}", machine.replacen(":stateMachine:", ":execution:", 1)))
}

/// Starts a task and returns the name of its execution.
///
/// # Errors
/// The call and, if it was denied, the permission.
pub(crate) async fn start(
    connection: &StackConnection,
    task: &str,
    request: &Map<String, Value>,
    now: OffsetDateTime,
) -> Result<String, String> {
    let machine = connection.resources.state_machine()?;
    let name = format!("console-{}", new_uuid(now));
    let mut input = Map::from_iter([("task".to_owned(), Value::from(task))]);
    input.extend(request.iter().filter(|(name, _)| *name != "task").map(|(name, value)| (name.clone(), value.clone())));
    let input = Value::Object(input).to_string();
    let parameters = [("input", input.as_str()), ("name", &name), ("stateMachineArn", machine)];
    connection.account.call(&START_EXECUTION, &parameters).await.map_err(|error| error.reason)?;
    Ok(name)
}

/// An execution.
struct Execution {
    view: TaskRunView,
    /// The name of the run in the keys of its reports.
    run_id: String,
}

impl Execution {
    fn read(described: &Value) -> Self {
        let text = |member: &str| described[member].as_str().unwrap_or_default();
        let name = text("name").to_owned();
        let mut input: Map<String, Value> = serde_json::from_str(text("input")).unwrap_or_default();
        let task = input.remove("task").and_then(|task| task.as_str().map(str::to_owned));
        let run_id = input.get("run_id").and_then(Value::as_str).unwrap_or(&name).to_owned();
        // The output is the sum of the segments.
        let output: Value = serde_json::from_str(text("output")).unwrap_or_default();
        let counts = output["progress"].as_object().into_iter().flatten();
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        let number = |member: &str| output[member].as_u64().unwrap_or_default();
        // Seconds since 1970, with a fraction.
        let seconds = described["startDate"].as_f64().or_else(|| text("startDate").parse().ok()).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "the time is shown in seconds")]
        let started = OffsetDateTime::from_unix_timestamp(seconds as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let failure = || match (text("error"), text("cause")) {
            ("", "") => text("status").to_owned(),
            (error, "") => error.to_owned(),
            (error, cause) => format!("{error}: {cause}"),
        };
        let state = match text("status") {
            "RUNNING" | "PENDING_REDRIVE" => RunState::Running,
            "SUCCEEDED" => RunState::Done,
            "ABORTED" => RunState::Cancelled,
            _ => RunState::Failed(failure()),
        };
        let view = TaskRunView {
            id: name,
            task: task.unwrap_or_else(|| "unknown task".to_owned()),
            request: Value::Object(input).to_string(),
            started,
            state,
            progress: counts.join(", "),
            differences: number("differences"),
            problems: number("problems"),
            report: Vec::new(),
            cancelled: false,
        };
        Self { view, run_id }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_execution_is_a_run_with_its_counts_or_its_cause() {
        let Execution { view, run_id } = Execution::read(&json!({
            "name": "monday",
            "status": "SUCCEEDED",
            "startDate": 1_795_341_600.5,
            "input": r#"{"task":"repair","dry_run":true,"run_id":"r1"}"#,
            "output": r#"{"progress":{"equal":3,"would_repair":1},"differences":0,"problems":0}"#,
        }));
        assert_eq!(
            (view.task.as_str(), run_id.as_str(), view.started.unix_timestamp()),
            ("repair", "r1", 1_795_341_600)
        );
        assert_eq!((view.progress.as_str(), &view.state), ("equal 3, would_repair 1", &RunState::Done));
        assert_eq!(view.for_real().unwrap()["dry_run"], json!(false));
        let failed =
            Execution::read(&json!({"name": "x", "status": "FAILED", "error": "DifferencesFound", "cause": "2",
            "input": "no JSON"}));
        assert_eq!(failed.view.state, RunState::Failed("DifferencesFound: 2".to_owned()));
        assert_eq!((failed.view.task.as_str(), failed.run_id.as_str()), ("unknown task", "x"));
        for (status, state) in [("RUNNING", RunState::Running), ("ABORTED", RunState::Cancelled)] {
            assert_eq!(Execution::read(&json!({"status": status})).view.state, state);
        }
        let timed_out = Execution::read(&json!({"status": "TIMED_OUT"})).view.state;
        assert_eq!(timed_out, RunState::Failed("TIMED_OUT".to_owned()));
    }
}
