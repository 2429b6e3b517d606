//! Converts the compacted rows to Parquet, a columnar format of which query engines can read parts.
//!
//! The compacted runs of a day are merged, as another compaction would do, and written below `parquet/`. Each file is
//! read back twice: row by row before it is uploaded, and byte by byte afterwards. The last file of a run records the
//! number of files. The files that the day had before are deleted only when this last file exists. At every point in
//! time, the former files of a day, its new files or both are therefore present, and readers deduplicate. Files are
//! named by their inputs and their schema, so a day with unchanged objects is skipped, and an interrupted day is
//! restarted and overwrites its own files.
//!
//! Objects that the archiver has written and no compaction has merged yet are not converted. They are counted, and
//! converted by the next run after the next compaction.

mod parquet_writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_archive::ArchiveDay;
use millrace_archive::store::ObjectMeta;
use millrace_shared::metric;
use millrace_sinks::archive;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::runtime::Handle;

use self::parquet_writer::{PARTS, ParquetFormat, UnfitCounts};
use super::merge::{FAN_IN, MergeError, MergeJob, MergeResult};
use super::target_bytes;
use crate::catalog;
use crate::parquet::{ParquetKey, ParquetSchema};
use crate::progress::CountOutcome;
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, time};
use crate::task::task_run::TaskRun;

/// Fields of the request of a Parquet export.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct ParquetRequest {
    /// Export the days from this time on, such as 2026-11-22T00:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    from: Option<String>,
    /// Export the days before this time (default: the start of the current day)
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    to: Option<String>,
    /// Size of the items at which a file is complete, 1024 to 201326592 (default: 134217728)
    #[cfg_attr(feature = "cli", arg(long, value_name = "BYTES"))]
    target_file_size_bytes: Option<u64>,
}

/// The task `export-parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParquetTask {
    /// Only days that contain this time or a later one.
    from: Option<OffsetDateTime>,
    /// Only days that begin before this time.
    to: OffsetDateTime,
    /// The target size of a file: the total length of its items in bytes.
    target_bytes: u64,
}

impl MaintenanceTask for ParquetTask {
    const NAME: &'static str = "export-parquet";
    const SUMMARY: &'static str = "writes the compacted rows as typed Parquet files for Athena and DuckDB";
    type Request = ParquetRequest;

    fn parse(request: ParquetRequest, now: OffsetDateTime) -> Result<Self, InvalidRequest> {
        Ok(Self {
            from: time("from", request.from.as_deref())?,
            // A day that is not over yet still grows, and would be exported again and again.
            to: time("to", request.to.as_deref())?.unwrap_or(ArchiveDay::from_datetime(now).start()),
            target_bytes: target_bytes(request.target_file_size_bytes)?,
        })
    }
}

/// Cursor of a Parquet export.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ParquetCursor {
    /// The last day that is done.
    day: Option<String>,
}

/// A report entry.
#[derive(Serialize)]
#[serde(untagged)]
enum ParquetEntry<'a> {
    Written {
        day: String,
        run: &'a str,
        inputs: usize,
        outputs: Vec<&'a str>,
        rows: u64,
        /// The number of values that each column of the document cannot store.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        unfit_values: BTreeMap<String, u64>,
    },
    Left {
        object: &'a str,
        outcome: &'static str,
        reason: String,
    },
}

impl SegmentTask for ParquetTask {
    type Cursor = ParquetCursor;
    type Error = MergeError;

    /// After an error, the former files of a day remain until its new ones are complete.
    async fn run(&self, task_run: &mut TaskRun<ParquetCursor>, context: &TaskContext<'_>) -> Result<bool, MergeError> {
        let (segment, done) = (task_run.segment(), task_run.cursor().day.as_deref().and_then(ArchiveDay::parse));
        let wanted = |day: &ArchiveDay| {
            self.from.is_none_or(|from| day.end() > from)
                && day.start() < self.to
                && done.is_none_or(|done| *day > done)
                && belongs_to_segment(segment, &day.to_string())
        };
        let days = catalog::days(context.archive()?, context.table()).await?.days;
        // Each invocation must complete at least one day, because otherwise no number of invocations would complete the
        // task.
        let mut advanced = false;
        for day in days.into_iter().filter(wanted) {
            if task_run.deadline_reached() {
                return Ok(false);
            }
            if !written(task_run, context, self, day).await? {
                return if advanced { Ok(false) } else { Err(MergeError::NoTime(day)) };
            }
            advanced = true;
            task_run.checkpoint(ParquetCursor { day: Some(day.to_string()) }).await?;
        }
        Ok(true)
    }
}

/// Writes a day; returns `false` if the deadline is reached first.
async fn written(
    task_run: &mut TaskRun<ParquetCursor>,
    context: &TaskContext<'_>,
    columns: &ParquetTask,
    day: ArchiveDay,
) -> Result<bool, MergeError> {
    let listing = catalog::list_day(context.archive()?, context.table(), day).await?;
    let runs: Vec<Vec<String>> = catalog::group_by_run(&listing.objects).into_iter().map(|(_, parts)| parts).collect();
    let inputs: usize = runs.iter().map(Vec::len).sum();
    let uncompacted = listing.objects.len() - inputs;
    if runs.is_empty() {
        task_run.count("export-parquet.not_compacted", uncompacted);
        return Ok(true);
    }
    if runs.len() > FAN_IN {
        let reason = format!("{} compacted runs exceed the limit of {FAN_IN}: compact the whole day first", runs.len());
        leave(task_run, "failed", &ParquetKey::prefix(context.table(), day), reason);
        task_run.count("export-parquet.not_compacted", uncompacted);
        return Ok(true);
    }
    let schema = ParquetSchema::new(&context.source.description().key, context.parquet_columns)
        .with_declared(context.declared_columns.clone());
    let run = ParquetKey::run_of(runs.iter().flatten().map(String::as_str), columns.target_bytes, &schema.describe());
    let (there, unrecognized) = files(context, day).await?;
    let (own, former): (Vec<_>, Vec<_>) = there.into_iter().partition(|key| key.run == run);
    if !is_whole(context, &own).await? {
        let unfit = Arc::new(UnfitCounts::new(schema.declared_names()));
        let sheet = ParquetFormat {
            unfit: Arc::clone(&unfit),
            store: context.archive()?.clone(),
            table: context.table().to_owned(),
            day,
            run: run.clone(),
            schema,
            runtime: Handle::current(),
        };
        let merging = MergeJob {
            store: context.archive()?.clone(),
            key_names: context.key_names(),
            runs,
            target_bytes: columns.target_bytes,
            deadline: task_run.deadline,
        };
        let (outputs, rows) = match merging.run(sheet).await? {
            MergeResult::Complete { outputs, rows, .. } => (outputs, rows),
            MergeResult::Stopped => return Ok(false),
            MergeResult::Corrupt(corrupt) => {
                report_remaining(task_run, &unrecognized, uncompacted);
                leave(task_run, "corrupt", &corrupt.object, corrupt.to_string());
                return Ok(true);
            }
        };
        task_run.count("export-parquet.written", outputs.len());
        task_run.count("export-parquet.rows", usize::try_from(rows).unwrap_or(usize::MAX));
        let unfit_values = unfit.by_column();
        let unfit_sum: u64 = unfit_values.values().sum();
        task_run.count("export-parquet.unfit_values", usize::try_from(unfit_sum).unwrap_or(usize::MAX));
        if unfit_sum > 0 {
            metric::UNFIT_VALUES.increment([archive::NAME], unfit_sum);
        }
        let outputs = outputs.iter().map(|output| output.key.as_str()).collect();
        let day = day.to_string();
        task_run.report(&ParquetEntry::Written { day, run: &run, inputs, outputs, rows, unfit_values });
        // The files are complete: after a later error, the next invocation does not write them again, and would not
        // count them either.
        task_run.checkpoint(task_run.cursor().clone()).await?;
    }
    for key in former {
        context.archive()?.remove(&key.to_string()).await?;
        task_run.count("export-parquet.removed", 1);
    }
    report_remaining(task_run, &unrecognized, uncompacted);
    Ok(true)
}

/// Reports the objects of a day that are not part of its runs, once the day is done.
fn report_remaining(task_run: &mut TaskRun<ParquetCursor>, unrecognized: &[String], uncompacted: usize) {
    task_run.count("export-parquet.not_compacted", uncompacted);
    for object in unrecognized {
        leave(task_run, "unrecognized", object, "not written by export-parquet".to_owned());
    }
}

fn leave(task_run: &mut TaskRun<ParquetCursor>, outcome: &'static str, object: &str, reason: String) {
    task_run.count_as(CountOutcome::NotProcessed, format!("export-parquet.{outcome}"), 1);
    task_run.report(&ParquetEntry::Left { object, outcome, reason });
}

/// Lists the day's files, and the unrecognized keys next to them.
async fn files(context: &TaskContext<'_>, day: ArchiveDay) -> Result<(Vec<ParquetKey>, Vec<String>), MergeError> {
    let (mut own, mut unrecognized) = (Vec::new(), Vec::new());
    for ObjectMeta { key, .. } in context.archive()?.list(&ParquetKey::prefix(context.table(), day)).await? {
        match ParquetKey::parse(context.table(), day, &key) {
            Some(parsed) => own.push(parsed),
            None => unrecognized.push(key),
        }
    }
    Ok((own, unrecognized))
}

/// Returns whether all files of a run exist: the metadata of the last one contains their number.
async fn is_whole(context: &TaskContext<'_>, files: &[ParquetKey]) -> Result<bool, MergeError> {
    let Some(last) = files.iter().max_by_key(|key| key.part) else { return Ok(false) };
    let Some(metadata) = context.archive()?.metadata(&last.to_string()).await? else { return Ok(false) };
    Ok(metadata.get(PARTS).is_some_and(|parts| *parts == files.len().to_string()))
}
