//! Merges the many small objects of a day, or of an hour, into a few large ones, sorted and deduplicated.
//!
//! ```text
//! plan     select the objects to merge next                 plan.rs, pure
//! merge    read, merge, write, and read back completely     super::merge and ndjson_writer.rs, in bounded memory
//! record   write a manifest of the inputs and outputs       superseded/manifests/…
//! retire   move the inputs below superseded/
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

use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_archive::{ArchiveDay, ArchiveHour, CompactedKey, Compression, KeyNames};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::runtime::Handle;

use self::manifest::MergeManifest;
use self::ndjson_writer::NdjsonFormat;
use self::plan::MergePeriod;
use super::belongs_to_segment;
use super::merge::{MergeError, MergeJob, MergeResult};
use super::task_run::TaskRun;
use crate::catalog;
use crate::progress::CountOutcome;

/// Maximum number of corrupt objects of a day: their names are in the cursor, which the state machine passes on.
pub const MAX_CORRUPT_OBJECTS: usize = 500;

/// Parameters of a compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRequest {
    /// Only items that were removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only items that were removed before this time.
    pub to: OffsetDateTime,
    /// If true, the objects of each hour are merged separately; otherwise those of a day, together with its compacted
    /// objects.
    pub hourly: bool,
    /// The target size of an object in bytes, before compression.
    pub target_bytes: u64,
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

/// Dependencies of a compaction.
pub struct CompactContext<'w> {
    /// The archive.
    pub archive: &'w ArchiveStore,
    /// The compression of the objects.
    pub compression: Compression,
    /// The table that the rows were removed from.
    pub table: &'w str,
    /// The names of the table's key attributes.
    pub key_names: KeyNames,
}

/// A report entry.
#[derive(Serialize)]
#[serde(untagged)]
enum CompactEntry<'a> {
    Merged { day: String, run: &'a str, inputs: usize, outputs: Vec<&'a str>, rows: u64, duplicates_dropped: u64 },
    Kept { object: &'a str, outcome: &'static str, reason: String },
}

/// Continues a compaction; returns `true` when it is done.
///
/// # Errors
/// [`MergeError`]; every row is still in an object that readers read.
pub async fn run(
    task_run: &mut TaskRun<CompactCursor>,
    context: &CompactContext<'_>,
    compact: &CompactRequest,
) -> Result<bool, MergeError> {
    let found = catalog::days(context.archive, context.table).await?;
    if !task_run.cursor().reported && task_run.segment().segment == 0 {
        keep(task_run, &found.unrecognized);
    }
    let done = task_run.cursor().day.as_deref().and_then(ArchiveDay::parse);
    let segment = task_run.segment();
    let period = |day: &ArchiveDay| {
        compact.from.is_none_or(|from| day.end() > from)
            && day.start() < compact.to
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
            match step(task_run, context, compact, day).await? {
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

fn keep(task_run: &mut TaskRun<CompactCursor>, unrecognized: &[String]) {
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
async fn retired_objects(
    task_run: &mut TaskRun<CompactCursor>,
    retired: usize,
    fault: Option<StoreError>,
) -> Result<(), MergeError> {
    if retired > 0 {
        task_run.count("compact.superseded", retired);
        task_run.checkpoint(CompactCursor { reported: true, ..task_run.cursor().clone() }).await?;
    }
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

async fn step(
    task_run: &mut TaskRun<CompactCursor>,
    context: &CompactContext<'_>,
    compact: &CompactRequest,
    day: ArchiveDay,
) -> Result<StepResult, MergeError> {
    let mut listing = catalog::list_day(context.archive, context.table, day).await?;
    let left = manifest::left(context.archive, context.table, day, &listing).await?;
    let (retired, fault) =
        manifest::retire(context.archive, &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    retired_objects(task_run, retired, fault).await?;
    listing.objects.retain(|object| !left.contains(&object.key) && !task_run.cursor().corrupt.contains(&object.key));
    let period = MergePeriod { from: compact.from.map(ArchiveHour::of), to: compact.to, hourly: compact.hourly };
    let Some(runs) = plan::next(&listing.objects, &period) else {
        keep(task_run, &listing.unrecognized);
        return Ok(StepResult::Done);
    };
    let inputs: Vec<String> = runs.iter().flatten().cloned().collect();
    let run = CompactedKey::run_of(inputs.iter().map(String::as_str), compact.target_bytes, context.compression);
    let lines = NdjsonFormat {
        store: context.archive.clone(),
        table: context.table.to_owned(),
        day,
        run: run.clone(),
        compression: context.compression,
        runtime: Handle::current(),
    };
    let merging = MergeJob {
        store: context.archive.clone(),
        key_names: context.key_names.clone(),
        runs,
        target_bytes: compact.target_bytes,
        deadline: task_run.deadline,
    };
    let (outputs, rows, repeated) = match merging.run(lines).await? {
        MergeResult::Complete { outputs, rows, repeated } => (outputs, rows, repeated),
        MergeResult::Stopped => return Ok(StepResult::Stopped),
        MergeResult::Corrupt(damage) => {
            task_run.count_as(CountOutcome::NotProcessed, "compact.skipped", 1);
            task_run.report(&CompactEntry::Kept {
                object: &damage.object,
                outcome: "skipped",
                reason: damage.to_string(),
            });
            let mut at = CompactCursor { reported: true, ..task_run.cursor().clone() };
            if at.corrupt.len() >= MAX_CORRUPT_OBJECTS {
                return Err(MergeError::TooManyCorruptObjects(day));
            }
            at.corrupt.insert(damage.object);
            task_run.checkpoint(at).await?;
            return Ok(StepResult::Corrupt);
        }
    };
    let manifest = MergeManifest::of(context.table, day, run, rows, inputs, outputs);
    manifest.put(context.archive).await?;
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
    let (retired, fault) = manifest::retire(context.archive, &inputs).await;
    retired_objects(task_run, retired, fault).await?;
    Ok(StepResult::Merged)
}
