//! Task requests: an invocation runs one JSON task, parsed by [`TaskRequest::parse`]. Each task has a module of its
//! own, below [`replica`] or [`archive`], and one line in the [`registry`].
//!
//! A task that does not fit into one invocation stops before the deadline and returns a cursor; invoked again with this
//! cursor, it resumes. A table is processed in segments, which run concurrently. Each segment is a task run of its own,
//! with its own cursors.

pub mod archive;
pub mod capacity_budget;
pub mod context;
pub mod error;
#[cfg(feature = "cli")]
pub mod options;
pub mod registry;
pub mod replica;
pub mod replicas;
pub mod request;
pub mod summary;
pub mod task_run;

use std::time::Duration;

use millrace_shared::hash::fnv1a;
use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::ScanSegment;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::error::TaskError;
use self::registry::{RunTask, TaskDefinition};
use self::request::{InvalidRequest, RequestFields, in_range};
use crate::handler::MaintenanceHandler;
use crate::progress::TaskProgress;

/// The longest list of numbers that `AWS Step Functions` generates for its map state.
const MAX_SEGMENTS: u32 = 1_000;

/// A task, and the cursor from which to resume it.
#[derive(Debug)]
pub struct TaskRequest {
    /// The task.
    pub definition: &'static TaskDefinition,
    /// The task with its validated parameters.
    task: Box<dyn RunTask>,
    /// Identifies the task over all of its segments and invocations; part of the keys of its reports.
    pub run_id: String,
    /// The segment of the table.
    pub segment: ScanSegment,
    /// The cursor that the previous invocation returned.
    pub cursor: Option<TaskCursor>,
}

/// The cursor of a segment of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCursor {
    /// The task's name.
    pub task: String,
    /// The run's ID.
    pub run_id: String,
    /// The segment's index.
    pub segment: u32,
    /// The number of segments.
    pub segments: u32,
    /// The number of the next part of the report.
    pub part: u32,
    /// All counts so far.
    pub progress: TaskProgress,
    /// The number of differences found so far.
    pub differences: u64,
    /// The number of problems found so far.
    pub problems: u64,
    /// The names of the replicas that the run processes, in this order: those of its first invocation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<String>,
    /// The task's own cursor; its format depends on the task.
    pub at: Box<RawValue>,
}

/// The response of an invocation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskResponse {
    /// The task's name.
    pub task: String,
    /// The run's ID.
    pub run_id: String,
    /// The segment's index.
    pub segment: u32,
    /// The number of segments.
    pub segments: u32,
    /// True if the segment is done.
    pub done: bool,
    /// The cursor for the next invocation, if the segment is not done.
    pub cursor: Option<TaskCursor>,
    /// All counts of this segment so far.
    pub progress: TaskProgress,
    /// The sinks that the task processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<String>,
    /// The number of differences that a `verify` or an `audit` has found so far.
    pub differences: u64,
    /// The number of differences, plus the items and objects that were not processed so far. The task succeeds if it is
    /// 0.
    pub problems: u64,
    /// In the response of `summary`, the task whose segments were added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_task: Option<String>,
}

impl TaskResponse {
    /// Creates the response of a segment that is done and has counted nothing.
    #[must_use]
    pub fn done(task: &str, run: &str, ScanSegment { segment, total_segments: of }: ScanSegment) -> Self {
        Self {
            task: task.to_owned(),
            run_id: run.to_owned(),
            segment,
            segments: of,
            done: true,
            cursor: None,
            progress: TaskProgress::default(),
            sinks: Vec::new(),
            differences: 0,
            problems: 0,
            of_task: None,
        }
    }
}

impl TaskRequest {
    /// Parses an invocation's payload. Without a run ID, that of the cursor is used, or else the request ID of the
    /// invocation.
    ///
    /// # Errors
    /// [`InvalidRequest`], which names the field and the fix.
    pub fn parse(payload: &RawValue, invocation: &Invocation) -> Result<Self, InvalidRequest> {
        let mut fields = RequestFields::parse(payload)?;
        let name: String = fields.take("task")?.ok_or(InvalidRequest::MissingTask)?;
        let definition = TaskDefinition::find(&name)?;
        let segments = in_range("segments", fields.take("segments")?, 1..=MAX_SEGMENTS)?.unwrap_or(1);
        let segment = in_range("segment", fields.take("segment")?, 0..=segments - 1)?.unwrap_or(0);
        let segment = ScanSegment { segment, total_segments: segments };
        let (run_id, cursor): (Option<String>, Option<Box<RawValue>>) =
            (fields.take("run_id")?, fields.take("cursor")?);
        let task = definition.parse(fields, invocation.now)?;
        let cursor = cursor.map(|json| cursor_of(definition.name, segment, &json)).transpose()?;
        let run_id = run_id.or_else(|| cursor.as_ref().map(|cursor| cursor.run_id.clone()));
        let run_id = run_id.unwrap_or_else(|| invocation.request_id.clone());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if run_id.is_empty() || run_id.len() > 128 || !run_id.chars().all(plain) {
            let wanted = "1 to 128 letters, digits, dots, dashes or underscores".to_owned();
            return Err(InvalidRequest::Value { field: "run_id", found: format!("{run_id:?}"), wanted });
        }
        Ok(Self { definition, task, run_id, segment, cursor })
    }

    /// Returns the time that an invocation of the task needs in addition to the time for making progress.
    #[must_use]
    pub fn extra_time(&self) -> Duration {
        self.task.extra_time()
    }

    /// Runs the task until it is done or the deadline is reached.
    ///
    /// # Errors
    /// [`TaskError`], whose message says what to fix.
    pub(crate) async fn respond(
        &self,
        handler: &MaintenanceHandler,
        invocation: &Invocation,
    ) -> Result<TaskResponse, TaskError> {
        self.task.respond(handler, self, invocation).await
    }
}

/// Returns whether a name is assigned to a segment, for work that is not distributed by a table scan. The hash never
/// changes, because a cursor may be used by another build than the one that returned it.
fn belongs_to_segment(segment: ScanSegment, name: &str) -> bool {
    fnv1a(name) % u64::from(segment.total_segments) == u64::from(segment.segment)
}

fn cursor_of(task: &'static str, segment: ScanSegment, json: &RawValue) -> Result<TaskCursor, InvalidRequest> {
    let cursor: TaskCursor = serde_json::from_str(json.get()).map_err(|error| InvalidRequest::Cursor(task, error))?;
    let of = |task: &str, segment: u32, of: u32| format!("{task}, segment {segment} of {of}");
    let (its, ours) =
        (of(&cursor.task, cursor.segment, cursor.segments), of(task, segment.segment, segment.total_segments));
    if its == ours { Ok(cursor) } else { Err(InvalidRequest::CursorMismatch(its, ours)) }
}

#[cfg(test)]
mod tests;
