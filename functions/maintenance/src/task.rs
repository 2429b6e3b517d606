//! What an invocation is told to do: one JSON task, [`Order::parse`]; and how it is gone about, a file a task.
//!
//! A task that does not fit into an invocation stops before the deadline and answers with a cursor; called again with it,
//! it goes on. A table is worked on in segments, each a task of its own with cursors of its own, side by side.

pub mod backfill;
pub mod course;
pub mod pace;
pub mod redrive;
pub mod verify;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::invocation::Invocation;
use shared::raw_table::Segment;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::{GIVEN_UP, QUARANTINE};
use crate::progress::Progress;

/// `AWS Step Functions` makes no longer list of numbers for its map.
const SEGMENTS_MOST: u32 = 1_000;
/// Between two looks at a difference: a replica is behind by far less as a rule.
const LAG_SECONDS: u32 = 5;
/// A difference is watched within one invocation.
const LAG_SECONDS_MOST: u32 = 300;

/// Why an invocation is not a task; each names the field and the fix.
#[derive(Debug, thiserror::Error)]
pub enum BadOrder {
    /// Not JSON, a field that no task has, or a field of another type.
    #[error("not a task ({{\"task\":\"verify\",…}}): {0}")]
    Shape(#[source] serde_json::Error),
    /// Nobody knows it.
    #[error("task {0:?} is none of backfill, verify, repair, redrive, summary")]
    Unknown(String),
    /// A field that this task does not take.
    #[error("{field} is not a field of {task}: leave it out")]
    Field {
        /// The task.
        task: &'static str,
        /// The field.
        field: &'static str,
    },
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
        "the cursor is of {0}, this task is {1}: give each task the cursor that it answered itself, or none to begin anew"
    )]
    OtherCursor(String, String),
    /// The cursor was not answered by this version.
    #[error("the cursor is not one of {0}: {1}; give none to begin anew")]
    Cursor(&'static str, #[source] serde_json::Error),
}

/// A task and where to go on with it.
#[derive(Debug)]
pub struct Order {
    /// What to do.
    pub task: Task,
    /// Names the whole task, over all of its segments and invocations: its reports stand under it.
    pub run: String,
    /// Which part of the table.
    pub segment: Segment,
    /// Where the last invocation stopped.
    pub cursor: Option<Cursor>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Task {
    /// Fill replicas with what they lack.
    Backfill {
        /// Read capacity units a second that it may take of the source, all segments together.
        capacity_units: Option<u32>,
    },
    /// Compare, and mend if told so.
    Verify(Verify),
    /// Give what failed another try.
    Redrive(Redrive),
    /// Add up what the segments of a task have counted.
    Summary(Vec<Progress>),
}

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// How long a difference must last, unmoved on both sides, to be real.
    pub lag: std::time::Duration,
    /// Read capacity units a second that it may take of the source, all segments together.
    pub capacity_units: Option<u32>,
    /// Whether to mend what is real.
    pub mend: Mend,
}

/// What to do about a real difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Report it.
    No,
    /// Report that it would be mended.
    DryRun,
    /// Mend it.
    Yes,
}

/// What to redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Only report what would be done.
    pub dry_run: bool,
    /// The prefixes of the failure bucket to go through.
    pub prefixes: Vec<String>,
    /// Only what was put there at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only what was put there before this time.
    pub to: Option<OffsetDateTime>,
    /// Only what failed for a reason that holds this text.
    pub reason: Option<String>,
}

impl Task {
    /// Its name in orders, answers and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backfill { .. } => "backfill",
            Self::Verify(Verify { mend: Mend::No, .. }) => "verify",
            Self::Verify(_) => "repair",
            Self::Redrive(_) => "redrive",
            Self::Summary(_) => "summary",
        }
    }
}

/// Where a segment of a task stopped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The task's name.
    pub task: String,
    /// The run's name.
    pub run: String,
    /// The segment.
    pub segment: u32,
    /// Of how many.
    pub segments: u32,
    /// The next part of its report.
    pub part: u32,
    /// All that was counted so far.
    pub progress: Progress,
    /// The place; its shape is the task's own.
    pub at: Box<RawValue>,
}

/// What an invocation answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The task's name.
    pub task: String,
    /// The run's name.
    pub run: String,
    /// The segment.
    pub segment: u32,
    /// Of how many.
    pub segments: u32,
    /// Whether the segment is done.
    pub done: bool,
    /// If it is not: what to call again with.
    pub cursor: Option<Cursor>,
    /// All that was counted in this segment so far.
    pub progress: Progress,
}

/// An order as it comes: every field of any task.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    task: String,
    run: Option<String>,
    segment: Option<u32>,
    segments: Option<u32>,
    cursor: Option<Box<RawValue>>,
    dry_run: Option<bool>,
    lag_seconds: Option<u32>,
    capacity_units: Option<u32>,
    prefix: Option<String>,
    from: Option<String>,
    to: Option<String>,
    reason: Option<String>,
    parts: Option<Vec<Progress>>,
}

impl Order {
    /// Reads an invocation's payload. A run without a name takes the invocation's.
    ///
    /// # Errors
    /// [`BadOrder`], which names the field and the fix.
    pub fn parse(payload: &RawValue, invocation: &Invocation) -> Result<Self, BadOrder> {
        let told: Told = serde_json::from_str(payload.get()).map_err(BadOrder::Shape)?;
        let segments = within("segments", told.segments, 1..=SEGMENTS_MOST)?.unwrap_or(1);
        let segment = within("segment", told.segment, 0..=segments - 1)?.unwrap_or(0);
        let segment = Segment { segment, of: segments };
        let task = task(&told)?;
        let cursor = told.cursor.as_deref().filter(|json| json.get() != "null");
        let cursor = cursor.map(|json| cursor_of(&task, segment, json)).transpose()?;
        let run = told.run.or_else(|| cursor.as_ref().map(|cursor| cursor.run.clone()));
        let run = run.unwrap_or_else(|| invocation.request_id.clone());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if run.is_empty() || run.len() > 128 || !run.chars().all(plain) {
            let wanted = "1 to 128 letters, digits, dots, dashes or underscores".to_owned();
            return Err(BadOrder::Value { field: "run", found: format!("{run:?}"), wanted });
        }
        Ok(Self { task, run, segment, cursor })
    }
}

fn task(told: &Told) -> Result<Task, BadOrder> {
    let capacity_units = || within("capacity_units", told.capacity_units, 1..=1_000_000);
    let lag = within("lag_seconds", told.lag_seconds, 0..=LAG_SECONDS_MOST)?.unwrap_or(LAG_SECONDS);
    let lag = std::time::Duration::from_secs(lag.into());
    match told.task.as_str() {
        "backfill" => {
            only(told, "backfill", &["capacity_units"])?;
            Ok(Task::Backfill { capacity_units: capacity_units()? })
        }
        "verify" => {
            only(told, "verify", &["lag_seconds", "capacity_units"])?;
            Ok(Task::Verify(Verify { lag, capacity_units: capacity_units()?, mend: Mend::No }))
        }
        "repair" => {
            only(told, "repair", &["lag_seconds", "capacity_units", "dry_run"])?;
            let mend = if told.dry_run.unwrap_or(true) { Mend::DryRun } else { Mend::Yes };
            Ok(Task::Verify(Verify { lag, capacity_units: capacity_units()?, mend }))
        }
        "redrive" => {
            only(told, "redrive", &["dry_run", "prefix", "from", "to", "reason"])?;
            Ok(Task::Redrive(redrive(told)?))
        }
        "summary" => {
            only(told, "summary", &["parts"])?;
            Ok(Task::Summary(told.parts.clone().unwrap_or_default()))
        }
        other => Err(BadOrder::Unknown(other.to_owned())),
    }
}

fn redrive(told: &Told) -> Result<Redrive, BadOrder> {
    let prefixes = match &told.prefix {
        None => vec![GIVEN_UP.to_owned(), QUARANTINE.to_owned()],
        Some(prefix) if prefix.starts_with(QUARANTINE) || prefix.starts_with(GIVEN_UP) => vec![prefix.clone()],
        Some(other) => {
            let wanted = format!("a prefix that begins with {QUARANTINE} or {GIVEN_UP}");
            return Err(BadOrder::Value { field: "prefix", found: format!("{other:?}"), wanted });
        }
    };
    let time = |field, text: &Option<String>| {
        let parsed = |text: &String| {
            let wanted = || "an RFC 3339 time such as 2026-11-24T08:00:00Z".to_owned();
            let wrong = |_| BadOrder::Value { field, found: format!("{text:?}"), wanted: wanted() };
            OffsetDateTime::parse(text, &Rfc3339).map_err(wrong)
        };
        text.as_ref().map(parsed).transpose()
    };
    Ok(Redrive {
        dry_run: told.dry_run.unwrap_or(true),
        prefixes,
        from: time("from", &told.from)?,
        to: time("to", &told.to)?,
        reason: told.reason.clone(),
    })
}

/// Refuses the fields of other tasks: to pass one over would be to do something else than was asked.
fn only(told: &Told, task: &'static str, fields: &[&str]) -> Result<(), BadOrder> {
    let given = [
        ("dry_run", told.dry_run.is_some()),
        ("lag_seconds", told.lag_seconds.is_some()),
        ("capacity_units", told.capacity_units.is_some()),
        ("prefix", told.prefix.is_some()),
        ("from", told.from.is_some()),
        ("to", told.to.is_some()),
        ("reason", told.reason.is_some()),
        ("parts", told.parts.is_some()),
    ];
    let stray = given.into_iter().find(|(field, is_given)| *is_given && !fields.contains(field));
    stray.map_or(Ok(()), |(field, _)| Err(BadOrder::Field { task, field }))
}

fn within(
    field: &'static str,
    number: Option<u32>,
    range: std::ops::RangeInclusive<u32>,
) -> Result<Option<u32>, BadOrder> {
    match number {
        Some(number) if !range.contains(&number) => {
            let wanted = format!("a number from {} to {}", range.start(), range.end());
            Err(BadOrder::Value { field, found: number.to_string(), wanted })
        }
        number => Ok(number),
    }
}

fn cursor_of(task: &Task, segment: Segment, json: &RawValue) -> Result<Cursor, BadOrder> {
    let cursor: Cursor = serde_json::from_str(json.get()).map_err(|error| BadOrder::Cursor(task.name(), error))?;
    let of = |task: &str, segment: u32, of: u32| format!("{task}, segment {segment} of {of}");
    let (its, ours) = (of(&cursor.task, cursor.segment, cursor.segments), of(task.name(), segment.segment, segment.of));
    if its == ours { Ok(cursor) } else { Err(BadOrder::OtherCursor(its, ours)) }
}

#[cfg(test)]
mod tests;
