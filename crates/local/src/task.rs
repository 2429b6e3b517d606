//! `millrace task`: runs a maintenance task to completion, as the state machine does on AWS.
//!
//! The request is one of the maintenance function. Its segments run concurrently; each is a loop of invocations
//! in which every invocation continues from the cursor that the previous one returned (`segments`). Afterwards their
//! counts are added up and printed (`outcome`). The target is a running `millrace`, or the data folder of a
//! stopped one (`target`).
//!
//! Unlike the state machine it retries nothing: on one machine an error is unlikely to be transient.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use millrace_maintenance::TaskError;
use millrace_maintenance::task::registry::TaskDefinition;
use millrace_maintenance::task::request::InvalidRequest;
use millrace_maintenance::task::summary::is_result;
use millrace_maintenance::task::{TaskRequest, TaskResponse};
use millrace_shared::clock::{Clock, new_uuid};
use millrace_shared::invocation::Invocation;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::stack::StartError;

mod display;
mod outcome;
mod segments;
mod target;
#[cfg(test)]
mod tests;

use display::ProgressDisplay;
pub use outcome::TaskOutcome;
use target::ConnectedTarget;
pub use target::{StackPorts, TaskTarget};

/// Duration of an invocation, in addition to the time for which `verify` watches differences: long enough to process a
/// page of small items without optimization, short enough for progress output.
const TURN: Duration = Duration::from_mins(2);
/// The longest duration of an invocation: that of Lambda.
const MAX_TURN: Duration = Duration::from_mins(15);

/// A task that does not complete.
#[derive(Debug, thiserror::Error)]
pub enum RunTaskError {
    /// The request is invalid.
    #[error(transparent)]
    InvalidRequest(#[from] InvalidRequest),
    /// The request contains a segment number or a cursor, which this command sets itself for every segment.
    #[error("{0} is for a single invocation, and this command runs all segments: omit it")]
    OneInvocation(&'static str),
    /// The task has no segments of its own: it adds up those of another task.
    #[error("{0} runs automatically after the last segment of a task: run that task instead")]
    RunsAutomatically(&'static str),
    /// No local stack is running.
    #[error(
        "nothing listens on port {port} of 127.0.0.1: start it with `cargo run`, name another port with {option}, or a data folder with --data"
    )]
    NotListening {
        /// The port.
        port: u16,
        /// The option that changes the port.
        option: &'static str,
    },
    /// A program listens on the port that is not a local stack.
    #[error(
        "port {port} of 127.0.0.1 is not the API of a running millrace ({reason}): name its port with --port, or a data \
         folder with --data"
    )]
    NotMillrace {
        /// The port.
        port: u16,
        /// The error of the request.
        reason: String,
    },
    /// A replica is a table in PostgreSQL, and the URL of the database is not given.
    #[error(
        "the replica {replica:?} is a table in PostgreSQL: pass the URL of its database with --postgres URL, as the start \
         of millrace prints it"
    )]
    NoPostgresUrl {
        /// The name of the replica.
        replica: String,
    },
    /// The data folder does not exist.
    #[error("{} is not a directory: pass the directory given to `millrace --data`", .0.display())]
    NoFolder(PathBuf),
    /// The template has no maintenance function.
    #[error("the stack has no function whose binary is maintenance")]
    NoFunction,
    /// The function's environment, the template or the stack is invalid.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The function rejected the request before it started.
    #[error(transparent)]
    Rejected(TaskError),
    /// The task failed after it started.
    #[error(transparent)]
    Failed(TaskError),
}

impl RunTaskError {
    /// Returns whether the task failed after it started; every other error is a rejection.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// Classifies the error that ended a task; `started` is true if a segment had made progress by then.
    fn from_fault(fault: TaskError, started: bool) -> Self {
        if fault.is_rejection() && !started { Self::Rejected(fault) } else { Self::Failed(fault) }
    }
}

/// A task request that is run in all of its segments.
#[derive(Debug)]
struct SegmentedTask {
    definition: &'static TaskDefinition,
    request: Map<String, Value>,
    run: String,
    segments: u32,
    turn: Duration,
}

impl SegmentedTask {
    /// Parses the request as the function would. A run without an ID gets one that sorts by time.
    fn parse(text: &str, clock: &Clock) -> Result<Self, RunTaskError> {
        let payload: &RawValue = serde_json::from_str(text).map_err(InvalidRequest::MalformedJson)?;
        let invocation = invocation(TURN, clock);
        let parsed = TaskRequest::parse(payload, &invocation)?;
        if !parsed.definition.has_segments {
            return Err(RunTaskError::RunsAutomatically(parsed.definition.name));
        }
        let mut request: Map<String, Value> = serde_json::from_str(text).map_err(InvalidRequest::MalformedJson)?;
        for field in ["segment", "cursor"] {
            if request.contains_key(field) {
                return Err(RunTaskError::OneInvocation(field));
            }
        }
        request.insert("run_id".to_owned(), parsed.run_id.clone().into());
        let (turn, segments) = (TURN + parsed.extra_time(), parsed.segment.total_segments);
        Ok(Self { definition: parsed.definition, request, run: parsed.run_id, segments, turn })
    }
}

fn invocation(turn: Duration, clock: &Clock) -> Invocation {
    let now = clock.now();
    Invocation::new(now, Instant::now(), turn, new_uuid(now).to_string())
}

/// Runs the task to completion, prints its progress on standard error, and returns the outcome.
///
/// # Errors
/// [`RunTaskError`]; work that was confirmed before the error is not undone.
pub async fn run(text: &str, target: TaskTarget, clock: &Clock) -> Result<TaskOutcome, RunTaskError> {
    let task = SegmentedTask::parse(text, clock)?;
    let target = Box::pin(target.open()).await?;
    let outcome = Box::pin(run_task(&task, &target, clock)).await;
    target.close().await;
    outcome
}

async fn run_task(task: &SegmentedTask, target: &ConnectedTarget, clock: &Clock) -> Result<TaskOutcome, RunTaskError> {
    let (started, maintenance) = (Instant::now(), &target.maintenance);
    // An estimate that only affects the length of the progress bar.
    let items = if task.definition.scans_source {
        maintenance.source.describe().await.map(|description| description.items).ok()
    } else {
        None
    };
    let display = ProgressDisplay::new(task.segments, items);
    let invoke = async |payload: Box<RawValue>, factor: u32| {
        let turn = task.turn.saturating_mul(factor).min(MAX_TURN);
        let invocation = invocation(turn, clock);
        Box::pin(maintenance.handle(&payload, &invocation)).await
    };
    let started_segments = Cell::new(false);
    let report = |response: &TaskResponse| {
        started_segments.set(true);
        display.report(response);
    };
    let response = segments::run(&task.request, task.segments, invoke, report).await;
    display.end();
    let response = response.map_err(|fault| RunTaskError::from_fault(fault, started_segments.get()))?;
    let TaskResponse { progress, sinks, differences, problems, .. } = response;
    let reports = reports(task, target).await?;
    // Nothing can be imported from an export without items.
    let is_empty = progress.get(&format!("{}.items", task.definition.name)) == 0;
    let command = match (task.definition.command_key(&task.run), &maintenance.archive) {
        (Some(key), Some(archive)) if !is_empty => archive.text(&key).await.ok().flatten(),
        _ => None,
    };
    let command = command.map(|text| String::from_utf8_lossy(&text).into_owned());
    let (name, run, took) = (task.definition.name, task.run.clone(), started.elapsed());
    Ok(TaskOutcome { task: name, run, progress, sinks, differences, problems, reports, command, took })
}

/// Returns the URLs of the run's reports, listed page by page. The objects with each segment's result, which have the
/// same prefix, are left out.
async fn reports(task: &SegmentedTask, target: &ConnectedTarget) -> Result<Vec<String>, RunTaskError> {
    let (prefix, mut after, mut reports) = (format!("reports/{}/", task.run), None::<String>, Vec::new());
    loop {
        let page = target.maintenance.failures.list(&prefix, after.as_deref(), 1_000).await;
        let page = page.map_err(|fault| RunTaskError::Failed(fault.into()))?;
        let Some(last) = page.last() else { return Ok(reports) };
        after = Some(last.key.clone());
        let own = page.into_iter().filter(|object| !is_result(&object.key));
        reports.extend(own.map(|object| format!("s3://{}/{}", target.failure_bucket, object.key)));
    }
}
