//! What an invocation is told to do: one JSON task, [`TaskRequest::parse`]; and how it is gone about, a file a task.
//!
//! A task that does not fit into an invocation stops before the deadline and answers with a cursor; called again with it,
//! it goes on. A table is worked on in segments, each a task of its own with cursors of its own, side by side.

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

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::invocation::Invocation;
use shared::table_reader::ScanSegment;
use time::OffsetDateTime;

use self::audit::AuditRequest;
use self::compact::CompactRequest;
use self::export::ExportRequest;
use self::export_parquet::ParquetRequest;
use self::request::{RawTaskRequest, in_range, task};
use self::restore::RestoreRequest;
use self::summary::SummaryRequest;
use crate::progress::TaskProgress;

/// The names of all tasks, as requests and reports have them.
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

/// `AWS Step Functions` makes no longer list of numbers for its map.
const MAX_SEGMENTS: u32 = 1_000;

/// Why an invocation is not a task; each names the field and the fix.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// Not JSON, a field that no task has, or a field of another type.
    #[error("invalid task request: {0}")]
    MalformedJson(#[source] serde_json::Error),
    /// No task has this name.
    #[error("unknown task {0:?}: expected one of {names}", names = TASK_NAMES.join(", "))]
    Unknown(String),
    /// A field that this task does not take.
    #[error("{field} is not a field of {task}: expected one of {fields}", fields = listed(known))]
    Field {
        /// The task.
        task: &'static str,
        /// The field.
        field: &'static str,
        /// The task's own fields.
        known: &'static [&'static str],
    },
    /// Of these, one is needed.
    #[error("{0} needs {1}")]
    MissingField(&'static str, &'static str),
    /// A value out of its range.
    #[error("{field} is {found}: set it to {wanted}")]
    Value {
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        wanted: String,
    },
    /// The cursor is another task's, or another segment's.
    #[error(
        "the cursor belongs to {0} but this is {1}: pass the cursor returned by this task, or omit it to start over"
    )]
    CursorMismatch(String, String),
    /// The cursor was not answered by this version.
    #[error("the cursor is not a cursor of {0}: {1}; omit it to start over")]
    Cursor(&'static str, #[source] serde_json::Error),
}

/// The fields that every task takes.
const COMMON_FIELDS: [&str; 4] = ["run_id", "segments", "segment", "cursor"];

fn listed(known: &[&str]) -> String {
    known.iter().chain(&COMMON_FIELDS).copied().collect::<Vec<_>>().join(", ")
}

/// A task and where to go on with it.
#[derive(Debug)]
pub struct TaskRequest {
    /// What to do.
    pub task: TaskSpec,
    /// Identifies the task over all of its segments and invocations; part of the keys of its reports.
    pub run_id: String,
    /// Which part of the table.
    pub segment: ScanSegment,
    /// Where the last invocation stopped.
    pub cursor: Option<TaskCursor>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum TaskSpec {
    /// Fill replicas with what they lack.
    Backfill {
        /// Read capacity units a second that it may take of the source, all segments together.
        capacity_units: Option<u32>,
    },
    /// Compare, and mend if told so.
    Verify(VerifyRequest),
    /// Give what failed another try.
    Redrive(RedriveRequest),
    /// Merge the archive's objects.
    Compact(CompactRequest),
    /// Write the compacted rows as Parquet files.
    Columns(ParquetRequest),
    /// Bring archived items back.
    Restore(RestoreRequest),
    /// Make a new table of the archive.
    Export(ExportRequest),
    /// Prove that nothing is missing in the archive.
    Audit(AuditRequest),
    /// Make the tables of the relational replica.
    Migrate,
    /// Add up what the segments of a task have counted.
    Summary(SummaryRequest),
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyRequest {
    /// How long a difference must last, unmoved on both sides, to be real.
    pub lag: std::time::Duration,
    /// Read capacity units a second that it may take of the source, all segments together.
    pub capacity_units: Option<u32>,
    /// Whether to mend what is real.
    pub mend: RepairMode,
}

/// What to do about a real difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepairMode {
    /// Report it.
    No,
    /// Report that it would be mended.
    DryRun,
    /// Mend it.
    Yes,
}

/// What to redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveRequest {
    /// Only report what would be done.
    pub dry_run: bool,
    /// The prefixes of the failure bucket to go through.
    pub prefixes: Vec<String>,
    /// Only what was put there at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only what was put there before this time.
    pub to: Option<OffsetDateTime>,
    /// Only records whose error contains this text.
    pub reason: Option<String>,
}

impl TaskSpec {
    /// Its name in orders, answers and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backfill { .. } => "backfill",
            Self::Verify(VerifyRequest { mend: RepairMode::No, .. }) => "verify",
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

/// Where a segment of a task stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCursor {
    /// The task's name.
    pub task: String,
    /// The run's ID.
    pub run_id: String,
    /// The segment.
    pub segment: u32,
    /// Of how many.
    pub segments: u32,
    /// The next part of its report.
    pub part: u32,
    /// All that was counted so far.
    pub progress: TaskProgress,
    /// How many differences were found so far.
    pub differences: u64,
    /// How many problems were found so far.
    pub problems: u64,
    /// The place; its shape is the task's own.
    pub at: Box<RawValue>,
}

/// What an invocation answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskResponse {
    /// The task's name.
    pub task: String,
    /// The run's ID.
    pub run_id: String,
    /// The segment.
    pub segment: u32,
    /// Of how many.
    pub segments: u32,
    /// Whether the segment is done.
    pub done: bool,
    /// If it is not: what to call again with.
    pub cursor: Option<TaskCursor>,
    /// All that was counted in this segment so far.
    pub progress: TaskProgress,
    /// The sinks that it worked on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<String>,
    /// The differences that a `verify` or an `audit` has found so far.
    pub differences: u64,
    /// The differences, and the items and objects that were not processed so far: the task succeeds if there are none.
    pub problems: u64,
    /// Of a sum: the task whose segments were added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_task: Option<String>,
}

impl TaskResponse {
    /// The answer of a segment that is done and has counted nothing.
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
    /// Reads an invocation's payload. Without a run ID, the request ID of the invocation is used.
    ///
    /// # Errors
    /// [`InvalidRequest`], which names the field and the fix.
    pub fn parse(payload: &RawValue, invocation: &Invocation) -> Result<Self, InvalidRequest> {
        let told: RawTaskRequest = serde_json::from_str(payload.get()).map_err(InvalidRequest::MalformedJson)?;
        let segments = in_range("segments", told.segments, 1..=MAX_SEGMENTS)?.unwrap_or(1);
        let segment = in_range("segment", told.segment, 0..=segments - 1)?.unwrap_or(0);
        let segment = ScanSegment { segment, total_segments: segments };
        let task = task(&told, invocation.now)?;
        let cursor = told.cursor.as_deref().filter(|json| json.get() != "null");
        let cursor = cursor.map(|json| cursor_of(&task, segment, json)).transpose()?;
        let run_id = told.run_id.or_else(|| cursor.as_ref().map(|cursor| cursor.run_id.clone()));
        let run_id = run_id.unwrap_or_else(|| invocation.request_id.clone());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if run_id.is_empty() || run_id.len() > 128 || !run_id.chars().all(plain) {
            let wanted = "1 to 128 letters, digits, dots, dashes or underscores".to_owned();
            return Err(InvalidRequest::Value { field: "run_id", found: format!("{run_id:?}"), wanted });
        }
        Ok(Self { task, run_id, segment, cursor })
    }
}

/// Whether what has this name is a segment's business: for work that no scan of a table deals out. FNV-1a, because a
/// cursor may outlive the build that answered it.
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
