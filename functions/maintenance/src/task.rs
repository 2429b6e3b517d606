//! Task requests: an invocation runs one JSON task, parsed by [`TaskRequest::parse`]. Each task has a module of its
//! own.
//!
//! A task that does not fit into one invocation stops before the deadline and returns a cursor; invoked again with this
//! cursor, it resumes. A table is processed in segments, which run concurrently. Each segment is a task run of its own,
//! with its own cursors.

pub mod audit;
pub mod backfill;
pub mod capacity_budget;
pub mod compact;
mod corrupt_objects;
pub mod export;
pub mod export_parquet;
pub mod merge;
pub mod migrate;
pub mod redrive;
mod request;
pub mod restore;
pub mod summary;
pub mod task_run;
pub mod verify;

use millrace_shared::invocation::Invocation;
use millrace_shared::table_reader::ScanSegment;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use self::audit::AuditRequest;
use self::compact::CompactRequest;
use self::export::ExportRequest;
use self::export_parquet::ParquetRequest;
use self::request::{RawTaskRequest, in_range, task};
use self::restore::RestoreRequest;
use self::summary::SummaryRequest;
use crate::progress::TaskProgress;

/// The names of all tasks, as used in requests and reports.
pub const TASK_NAMES: [&str; 11] = [
    "backfill",
    "verify",
    "repair",
    "redrive",
    "compact",
    "export-parquet",
    "restore",
    "export-import-table",
    "audit",
    "migrate",
    "summary",
];

/// The longest list of numbers that `AWS Step Functions` generates for its map state.
const MAX_SEGMENTS: u32 = 1_000;

/// An invalid task request. The message names the field and the fix.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The payload is not JSON, or has a field that no task has, or a field of another type.
    #[error("invalid task request: {0}")]
    MalformedJson(#[source] serde_json::Error),
    /// The task is unknown.
    #[error("unknown task {0:?}: expected one of {names}", names = TASK_NAMES.join(", "))]
    Unknown(String),
    /// The task does not accept this field.
    #[error("{field} is not a field of {task}: expected one of {fields}", fields = listed(known))]
    Field {
        /// The task.
        task: &'static str,
        /// The field.
        field: &'static str,
        /// The task's own fields.
        known: &'static [&'static str],
    },
    /// One of these fields is required.
    #[error("{0} needs {1}")]
    MissingField(&'static str, &'static str),
    /// A value is out of its range.
    #[error("{field} is {found}: set it to {wanted}")]
    Value {
        /// The field.
        field: &'static str,
        /// The given value.
        found: String,
        /// The allowed values.
        wanted: String,
    },
    /// The cursor belongs to another task or another segment.
    #[error(
        "the cursor belongs to {0} but this is {1}: pass the cursor returned by this task, or omit it to start over"
    )]
    CursorMismatch(String, String),
    /// The cursor was not returned by this version.
    #[error("the cursor is not a cursor of {0}: {1}; omit it to start over")]
    Cursor(&'static str, #[source] serde_json::Error),
}

/// The fields that every task accepts.
const COMMON_FIELDS: [&str; 4] = ["run_id", "segments", "segment", "cursor"];

fn listed(known: &[&str]) -> String {
    known.iter().chain(&COMMON_FIELDS).copied().collect::<Vec<_>>().join(", ")
}

/// A task, and the cursor from which to resume it.
#[derive(Debug)]
pub struct TaskRequest {
    /// The task.
    pub task: TaskSpec,
    /// Identifies the task over all of its segments and invocations; part of the keys of its reports.
    pub run_id: String,
    /// The segment of the table.
    pub segment: ScanSegment,
    /// The cursor that the previous invocation returned.
    pub cursor: Option<TaskCursor>,
}

/// A task with its parameters.
#[derive(Debug, PartialEq)]
pub enum TaskSpec {
    /// Writes the items that a replica does not have.
    Backfill {
        /// Maximum number of read capacity units per second consumed from the source, for all segments together.
        capacity_units: Option<u32>,
    },
    /// Compares the replicas with the source, and repairs differences if requested.
    Verify(VerifyRequest),
    /// Processes failed records again.
    Redrive(RedriveRequest),
    /// Merges the archive's objects.
    Compact(CompactRequest),
    /// Writes the compacted rows as Parquet files.
    Columns(ParquetRequest),
    /// Restores archived items.
    Restore(RestoreRequest),
    /// Exports the archive for import as a new table.
    Export(ExportRequest),
    /// Verifies that no row is missing in the archive.
    Audit(AuditRequest),
    /// Creates the tables of the relational replica.
    Migrate,
    /// Adds up the counts of a task's segments.
    Summary(SummaryRequest),
}

/// Parameters of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyRequest {
    /// The time for which a difference must persist, with both sides unchanged, to be real.
    pub lag: std::time::Duration,
    /// Maximum number of read capacity units per second consumed from the source, for all segments together.
    pub capacity_units: Option<u32>,
    /// The handling of real differences.
    pub repair_mode: RepairMode,
}

/// The handling of real differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairMode {
    /// Real differences are reported.
    No,
    /// Real differences are reported as ones that would be repaired.
    DryRun,
    /// Real differences are repaired.
    Yes,
}

/// Parameters of a redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveRequest {
    /// If true, the task only reports the actions that it would take.
    pub dry_run: bool,
    /// The prefixes of the failure bucket to process.
    pub prefixes: Vec<String>,
    /// Only objects that were written at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only objects that were written before this time.
    pub to: Option<OffsetDateTime>,
    /// Only objects whose reason contains this text.
    pub reason: Option<String>,
}

impl TaskSpec {
    /// Returns the task's name in requests, responses and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backfill { .. } => "backfill",
            Self::Verify(VerifyRequest { repair_mode: RepairMode::No, .. }) => "verify",
            Self::Verify(_) => "repair",
            Self::Redrive(_) => "redrive",
            Self::Compact(_) => "compact",
            Self::Columns(_) => "export-parquet",
            Self::Restore(_) => "restore",
            Self::Export(_) => "export-import-table",
            Self::Audit(_) => "audit",
            Self::Migrate => "migrate",
            Self::Summary(_) => "summary",
        }
    }
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
        let request: RawTaskRequest = serde_json::from_str(payload.get()).map_err(InvalidRequest::MalformedJson)?;
        let segments = in_range("segments", request.segments, 1..=MAX_SEGMENTS)?.unwrap_or(1);
        let segment = in_range("segment", request.segment, 0..=segments - 1)?.unwrap_or(0);
        let segment = ScanSegment { segment, total_segments: segments };
        let task = task(&request, invocation.now)?;
        let cursor = request.cursor.as_deref().filter(|json| json.get() != "null");
        let cursor = cursor.map(|json| cursor_of(&task, segment, json)).transpose()?;
        let run_id = request.run_id.or_else(|| cursor.as_ref().map(|cursor| cursor.run_id.clone()));
        let run_id = run_id.unwrap_or_else(|| invocation.request_id.clone());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if run_id.is_empty() || run_id.len() > 128 || !run_id.chars().all(plain) {
            let wanted = "1 to 128 letters, digits, dots, dashes or underscores".to_owned();
            return Err(InvalidRequest::Value { field: "run_id", found: format!("{run_id:?}"), wanted });
        }
        Ok(Self { task, run_id, segment, cursor })
    }
}

/// Returns whether a name is assigned to a segment, for work that is not distributed by a table scan. The hash is
/// FNV-1a, which never changes, because a cursor may be used by another build than the one that returned it.
fn belongs_to_segment(segment: ScanSegment, name: &str) -> bool {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step) % u64::from(segment.total_segments) == u64::from(segment.segment)
}

fn cursor_of(task: &TaskSpec, segment: ScanSegment, json: &RawValue) -> Result<TaskCursor, InvalidRequest> {
    let cursor: TaskCursor =
        serde_json::from_str(json.get()).map_err(|error| InvalidRequest::Cursor(task.name(), error))?;
    let of = |task: &str, segment: u32, of: u32| format!("{task}, segment {segment} of {of}");
    let (its, ours) =
        (of(&cursor.task, cursor.segment, cursor.segments), of(task.name(), segment.segment, segment.total_segments));
    if its == ours { Ok(cursor) } else { Err(InvalidRequest::CursorMismatch(its, ours)) }
}

#[cfg(test)]
mod tests;
