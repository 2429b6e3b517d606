//! Merges the many small objects of a day, or of an hour, into a few large ones, sorted and deduplicated.
//!
//! ```text
//! plan        select the objects to merge next                 plan.rs, pure
//! merge       read, merge, write, and read back completely     super::merge and ndjson_writer.rs, in bounded memory
//! record      write a manifest of the inputs and outputs       superseded/manifests/…
//! supersede   move the inputs below superseded/
//! ```
//!
//! No input is moved before its rows are in an object that was read back and a manifest records this. At every point in
//! time, each row is therefore in `archive/` or `compacted/`, for some time in both, and readers deduplicate. After an
//! interruption, the next invocation completes the work that manifests record, and plans by the objects that exist: the
//! objects that an interrupted merge has written are inputs of the next merge like any others. The archiver may write
//! concurrently; objects that arrive later are merged by the next run. An object that cannot be read is left out of the
//! merge, stays where it is and is reported.
//!
//! The memory used does not grow with the size of the day: a merge reads at most 32 runs at a time. More runs take
//! several rounds, each of which is a complete step.

mod manifest;
mod ndjson_writer;
mod plan;

use std::collections::BTreeSet;

use millrace_archive::store::StoreError;
use millrace_archive::{ArchiveDay, ArchiveHour, CompactedKey};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::runtime::Handle;

use self::manifest::MergeManifest;
use self::ndjson_writer::NdjsonFormat;
use self::plan::MergePeriod;
use super::merge::{MergeError, MergeJob, MergeResult};
use super::target_bytes;
use crate::catalog;
use crate::progress::CountOutcome;
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, one_of, time};
use crate::task::task_run::TaskRun;

/// Maximum number of corrupt objects of a day: their names are in the cursor, which the state machine passes on.
pub const MAX_CORRUPT_OBJECTS: usize = 500;

/// Fields of the request of a compaction.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct CompactRequest {
    /// Merge the days from this time on, such as 2026-11-22T00:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    from: Option<String>,
    /// Merge the days, or the hours, before this time (default: the start of the current day, or hour)
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    to: Option<String>,
    /// Period that is merged at once; hour is for days that are too large for one invocation (default: day)
    #[cfg_attr(feature = "cli", arg(long, value_name = "day|hour"))]
    granularity: Option<String>,
    /// Uncompressed size at which an object is complete, 1024 to 201326592 (default: 134217728)
    #[cfg_attr(feature = "cli", arg(long, value_name = "BYTES"))]
    target_file_size_bytes: Option<u64>,
}

/// The task `compact`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactTask {
    /// Only items that were removed at or after this time.
    from: Option<OffsetDateTime>,
    /// Only items that were removed before this time.
    to: OffsetDateTime,
    /// If true, the objects of each hour are merged separately; otherwise those of a day, together with its compacted
    /// objects.
    pub(crate) hourly: bool,
    /// The target size of an object in bytes, before compression.
    target_bytes: u64,
}

impl MaintenanceTask for CompactTask {
    const NAME: &'static str = "compact";
    const SUMMARY: &'static str =
        "merges a day's archive objects into few large, sorted objects without duplicate rows";
    type Request = CompactRequest;

    fn parse(request: CompactRequest, now: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let hourly = one_of("granularity", request.granularity.as_deref(), [("day", false), ("hour", true)])?;
        // A period that is not over yet still grows, and would be merged again and again.
        let over =
            if hourly { ArchiveHour::from_datetime(now).start() } else { ArchiveDay::from_datetime(now).start() };
        Ok(Self {
            from: time("from", request.from.as_deref())?,
            to: time("to", request.to.as_deref())?.unwrap_or(over),
            hourly,
            target_bytes: target_bytes(request.target_file_size_bytes)?,
        })
    }
}

/// Cursor of a compaction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompactCursor {
    /// The last day that is done.
    day: Option<String>,
    /// The objects of the current day that cannot be read.
    corrupt: BTreeSet<String>,
    /// True if the unrecognized keys next to the days have been reported.
    reported: bool,
}

/// A report entry.
#[derive(Serialize)]
#[serde(untagged)]
enum CompactEntry<'a> {
    Merged { day: String, run: &'a str, inputs: usize, outputs: Vec<&'a str>, rows: u64, duplicates_dropped: u64 },
    Kept { object: &'a str, outcome: &'static str, reason: String },
}

impl SegmentTask for CompactTask {
    type Cursor = CompactCursor;
    type Error = MergeError;

    /// After an error, every row is still in an object that readers read.
    async fn run(&self, task_run: &mut TaskRun<CompactCursor>, context: &TaskContext<'_>) -> Result<bool, MergeError> {
        let found = catalog::days(context.archive()?, context.table()).await?;
        if !task_run.cursor().reported && task_run.segment().segment == 0 {
            report_unrecognized(task_run, &found.unrecognized);
        }
        let done = task_run.cursor().day.as_deref().and_then(ArchiveDay::parse);
        let segment = task_run.segment();
        let period = |day: &ArchiveDay| {
            self.from.is_none_or(|from| day.end() > from)
                && day.start() < self.to
                && done.is_none_or(|done| *day > done)
                && belongs_to_segment(segment, &day.to_string())
        };
        // Each invocation must complete at least one step, because otherwise no number of invocations would complete the
        // task.
        let mut advanced = false;
        for day in found.days.into_iter().filter(period) {
            loop {
                if task_run.deadline_reached() {
                    return Ok(false);
                }
                match step(task_run, context, self, day).await? {
                    StepResult::Merged => advanced = true,
                    StepResult::Corrupt => {}
                    StepResult::Stopped if advanced => return Ok(false),
                    StepResult::Stopped => return Err(MergeError::NoTime(day)),
                    StepResult::Done => break,
                }
            }
            task_run
                .checkpoint(CompactCursor { day: Some(day.to_string()), corrupt: BTreeSet::new(), reported: true })
                .await?;
        }
        Ok(true)
    }
}

fn report_unrecognized(task_run: &mut TaskRun<CompactCursor>, unrecognized: &[String]) {
    for object in unrecognized {
        let reason = "not written by the archiver or a compaction".to_owned();
        task_run.count_as(CountOutcome::NotProcessed, "compact.skipped", 1);
        task_run.report(&CompactEntry::Kept { object, outcome: "skipped", reason });
    }
}

enum StepResult {
    Merged,
    /// An object is corrupt; the next step leaves it out.
    Corrupt,
    Stopped,
    Done,
}

/// Counts the objects that were moved below `superseded/`, even if another could not be moved; returns the error of the
/// move.
async fn count_superseded(
    task_run: &mut TaskRun<CompactCursor>,
    superseded: usize,
    fault: Option<StoreError>,
) -> Result<(), MergeError> {
    if superseded > 0 {
        task_run.count("compact.superseded", superseded);
        task_run.checkpoint(CompactCursor { reported: true, ..task_run.cursor().clone() }).await?;
    }
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

async fn step(
    task_run: &mut TaskRun<CompactCursor>,
    context: &TaskContext<'_>,
    compact: &CompactTask,
    day: ArchiveDay,
) -> Result<StepResult, MergeError> {
    let archive = context.archive()?;
    let mut listing = catalog::list_day(archive, context.table(), day).await?;
    let left = manifest::remaining_inputs(archive, context.table(), day, &listing).await?;
    let (superseded, fault) = manifest::supersede(archive, &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    count_superseded(task_run, superseded, fault).await?;
    listing.objects.retain(|object| !left.contains(&object.key) && !task_run.cursor().corrupt.contains(&object.key));
    let period =
        MergePeriod { from: compact.from.map(ArchiveHour::from_datetime), to: compact.to, hourly: compact.hourly };
    let Some(runs) = plan::next(&listing.objects, &period) else {
        report_unrecognized(task_run, &listing.unrecognized);
        return Ok(StepResult::Done);
    };
    let inputs: Vec<String> = runs.iter().flatten().cloned().collect();
    let run = CompactedKey::run_of(inputs.iter().map(String::as_str), compact.target_bytes, context.compression);
    let lines = NdjsonFormat {
        store: archive.clone(),
        table: context.table().to_owned(),
        day,
        run: run.clone(),
        compression: context.compression,
        runtime: Handle::current(),
    };
    let merging = MergeJob {
        store: archive.clone(),
        key_names: context.key_names(),
        runs,
        target_bytes: compact.target_bytes,
        deadline: task_run.deadline,
    };
    let (outputs, rows, repeated) = match merging.run(lines).await? {
        MergeResult::Complete { outputs, rows, repeated } => (outputs, rows, repeated),
        MergeResult::Stopped => return Ok(StepResult::Stopped),
        MergeResult::Corrupt(corrupt) => {
            task_run.count_as(CountOutcome::NotProcessed, "compact.skipped", 1);
            task_run.report(&CompactEntry::Kept {
                object: &corrupt.object,
                outcome: "skipped",
                reason: corrupt.to_string(),
            });
            let mut at = CompactCursor { reported: true, ..task_run.cursor().clone() };
            if at.corrupt.len() >= MAX_CORRUPT_OBJECTS {
                return Err(MergeError::TooManyCorruptObjects(day));
            }
            at.corrupt.insert(corrupt.object);
            task_run.checkpoint(at).await?;
            return Ok(StepResult::Corrupt);
        }
    };
    let manifest = MergeManifest::new(context.table(), day, run, rows, inputs, outputs);
    manifest.put(archive).await?;
    let inputs: Vec<&str> = manifest.inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = manifest.outputs.iter().map(|output| output.key.as_str()).collect();
    task_run.count("compact.objects", inputs.len());
    task_run.count("compact.written", outputs.len());
    task_run.count("compact.rows", usize::try_from(rows).unwrap_or(usize::MAX));
    task_run.count("compact.duplicates_dropped", usize::try_from(repeated).unwrap_or(usize::MAX));
    let run = manifest.run.as_str();
    task_run.report(&CompactEntry::Merged {
        day: day.to_string(),
        run,
        inputs: inputs.len(),
        outputs,
        rows,
        duplicates_dropped: repeated,
    });
    // After an interruption, the next invocation completes the recorded merge, and neither merges nor counts it again.
    task_run.checkpoint(CompactCursor { reported: true, ..task_run.cursor().clone() }).await?;
    let (superseded, fault) = manifest::supersede(archive, &inputs).await;
    count_superseded(task_run, superseded, fault).await?;
    Ok(StepResult::Merged)
}
