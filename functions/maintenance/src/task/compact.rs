//! Merges the many small objects of a day, or of an hour, into few large ones: sorted, each row once.
//!
//! ```text
//! plan    which objects are merged next                     plan.rs, pure
//! merge   read, merged, written, and read back as a whole   super::merge and lines.rs, in bounded memory
//! tell    a manifest: what went in, what came out           superseded/manifests/…
//! retire  what went in moves below superseded/
//! ```
//!
//! Nothing is retired before the rows of it stand in an object that was read back and a manifest that says so. So at
//! every point each row stands in `archive/` or `compacted/`: in both for a while, and readers drop repetitions. Whoever
//! begins anew finishes what manifests tell of, and plans by what lies there: a merge that was cut off has written
//! objects that go into the next merge like any other. An archiver may write beside it; what comes late is merged by the
//! next run. Where an object cannot be read, the rest is merged without it, and it stays and is reported.
//!
//! Memory does not grow with the day: a merge reads at most 32 runs at a time, and what is more takes
//! several rounds, each a step that stands for itself.

mod manifest;
mod ndjson_writer;
mod plan;

use std::collections::BTreeSet;

use archiver::archive::{ArchiveDay, ArchiveHour, CompactedKey, Compression, KeyNames};
use archiver::store::{ArchiveStore, StoreError};
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

/// So many objects of a day may be left unread: their names are in the cursor, which a state machine carries.
pub const DAMAGED_MOST: usize = 500;

/// What to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactRequest {
    /// Only what was removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only what was removed before this time.
    pub to: OffsetDateTime,
    /// Whether an hour's objects are merged by themselves, instead of a day's with what is compacted of it.
    pub hourly: bool,
    /// How much content goes into an object, before it is compressed.
    pub target_bytes: u64,
}

/// Where a compaction is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompactCursor {
    /// The last day that is done.
    day: Option<String>,
    /// Of the day under way: the objects that cannot be read.
    damaged: BTreeSet<String>,
    /// Whether what lies beside the days has been told.
    told: bool,
}

/// What a compaction works on.
pub struct CompactContext<'w> {
    /// The archive.
    pub archive: &'w ArchiveStore,
    /// How it is compressed.
    pub compression: Compression,
    /// The table whose rows they are.
    pub table: &'w str,
    /// Its key.
    pub key_names: KeyNames,
}

/// A line of the report.
#[derive(Serialize)]
#[serde(untagged)]
enum CompactEntry<'a> {
    Merged { day: String, run: &'a str, inputs: usize, outputs: Vec<&'a str>, rows: u64, duplicates_dropped: u64 },
    Kept { object: &'a str, outcome: &'static str, reason: String },
}

/// Goes on with a compaction; tells whether it is done.
///
/// # Errors
/// [`MergeError`]; every row still stands where readers look.
pub async fn run(
    course: &mut TaskRun<CompactCursor>,
    world: &CompactContext<'_>,
    compact: &CompactRequest,
) -> Result<bool, MergeError> {
    let found = catalog::days(world.archive, world.table).await?;
    if !course.cursor().told && course.segment().segment == 0 {
        keep(course, &found.foreign);
    }
    let done = course.cursor().day.as_deref().and_then(ArchiveDay::parse);
    let segment = course.segment();
    let period = |day: &ArchiveDay| {
        compact.from.is_none_or(|from| day.end() > from)
            && day.start() < compact.to
            && done.is_none_or(|done| *day > done)
            && belongs_to_segment(segment, &day.to_string())
    };
    // One step at least is to be finished by each invocation: else no number of them comes to the end.
    let mut advanced = false;
    for day in found.days.into_iter().filter(period) {
        loop {
            if course.deadline_reached() {
                return Ok(false);
            }
            match step(course, world, compact, day).await? {
                StepResult::Merged => advanced = true,
                StepResult::Damaged => {}
                StepResult::Stopped if advanced => return Ok(false),
                StepResult::Stopped => return Err(MergeError::NoTime(day)),
                StepResult::Done => break,
            }
        }
        course.checkpoint(CompactCursor { day: Some(day.to_string()), damaged: BTreeSet::new(), told: true }).await?;
    }
    Ok(true)
}

fn keep(course: &mut TaskRun<CompactCursor>, foreign: &[String]) {
    for object in foreign {
        let reason = "not written by the archiver or a compaction".to_owned();
        course.count_as(CountOutcome::NotProcessed, "compact.skipped", 1);
        course.report(&CompactEntry::Kept { object, outcome: "skipped", reason });
    }
}

enum StepResult {
    Merged,
    /// An object turned out damaged; the next step leaves it out.
    Damaged,
    Stopped,
    Done,
}

/// Counts what has moved below `superseded/`, though not all of it may have.
async fn retired_objects(
    course: &mut TaskRun<CompactCursor>,
    retired: usize,
    fault: Option<StoreError>,
) -> Result<(), MergeError> {
    if retired > 0 {
        course.count("compact.superseded", retired);
        course.checkpoint(CompactCursor { told: true, ..course.cursor().clone() }).await?;
    }
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}

async fn step(
    course: &mut TaskRun<CompactCursor>,
    world: &CompactContext<'_>,
    compact: &CompactRequest,
    day: ArchiveDay,
) -> Result<StepResult, MergeError> {
    let mut shelf = catalog::list_day(world.archive, world.table, day).await?;
    let left = manifest::left(world.archive, world.table, day, &shelf).await?;
    let (retired, fault) = manifest::retire(world.archive, &left.iter().map(String::as_str).collect::<Vec<_>>()).await;
    retired_objects(course, retired, fault).await?;
    shelf.objects.retain(|object| !left.contains(&object.key) && !course.cursor().damaged.contains(&object.key));
    let period = MergePeriod { from: compact.from.map(ArchiveHour::of), to: compact.to, hourly: compact.hourly };
    let Some(runs) = plan::next(&shelf.objects, &period) else {
        keep(course, &shelf.unrecognized);
        return Ok(StepResult::Done);
    };
    let inputs: Vec<String> = runs.iter().flatten().cloned().collect();
    let run = CompactedKey::run_of(inputs.iter().map(String::as_str), compact.target_bytes, world.compression);
    let lines = NdjsonFormat {
        store: world.archive.clone(),
        table: world.table.to_owned(),
        day,
        run: run.clone(),
        compression: world.compression,
        runtime: Handle::current(),
    };
    let merging = MergeJob {
        store: world.archive.clone(),
        key_names: world.key_names.clone(),
        runs,
        target_bytes: compact.target_bytes,
        stop_at: course.stop_at,
    };
    let (outputs, rows, repeated) = match merging.run(lines).await? {
        MergeResult::Complete { outputs, rows, repeated } => (outputs, rows, repeated),
        MergeResult::Stopped => return Ok(StepResult::Stopped),
        MergeResult::Damaged(damage) => {
            course.count_as(CountOutcome::NotProcessed, "compact.skipped", 1);
            course.report(&CompactEntry::Kept {
                object: &damage.object,
                outcome: "skipped",
                reason: damage.to_string(),
            });
            let mut at = CompactCursor { told: true, ..course.cursor().clone() };
            if at.damaged.len() >= DAMAGED_MOST {
                return Err(MergeError::TooDamaged(day));
            }
            at.damaged.insert(damage.object);
            course.checkpoint(at).await?;
            return Ok(StepResult::Damaged);
        }
    };
    let manifest = MergeManifest::of(world.table, day, run, rows, inputs, outputs);
    manifest.put(world.archive).await?;
    let inputs: Vec<&str> = manifest.inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = manifest.outputs.iter().map(|output| output.key.as_str()).collect();
    course.count("compact.objects", inputs.len());
    course.count("compact.written", outputs.len());
    course.count("compact.rows", usize::try_from(rows).unwrap_or(usize::MAX));
    course.count("compact.duplicates_dropped", usize::try_from(repeated).unwrap_or(usize::MAX));
    let run = manifest.run.as_str();
    course.report(&CompactEntry::Merged {
        day: day.to_string(),
        run,
        inputs: inputs.len(),
        outputs,
        rows,
        duplicates_dropped: repeated,
    });
    // Whoever begins again finishes what the manifest tells of, and neither merges nor counts it a second time.
    course.checkpoint(CompactCursor { told: true, ..course.cursor().clone() }).await?;
    let (retired, fault) = manifest::retire(world.archive, &inputs).await;
    retired_objects(course, retired, fault).await?;
    Ok(StepResult::Merged)
}
