//! Exports the archive in the format that DynamoDB imports as a table: items only, one row per key, a single
//! compression, and the import command.
//!
//! `aws dynamodb import-table` creates a new table from objects of `{"Item":…}` lines. Of several lines with the same
//! key it retains an arbitrary one, so the export contains each key once: with its latest row, or with the latest row
//! at a point in time. Keys are assigned to segments by a hash of their text. A segment writes its items in key order,
//! as a few objects of the target size. Objects are named by the run, the segment and their index, so an export that is
//! restarted overwrites its own objects; objects with a higher index than the new last one are deleted. An export is
//! rejected if the run contains objects of another number of segments or another compression, because an import reads
//! all objects of the prefix.

use std::fs::File;
use std::io;

use millrace_archive::store::{ROWS_TYPE, StoreError};
use millrace_archive::{ArchivedRow, Compression, ItemWriter};
use millrace_shared::hash::sha256;
use millrace_shared::shell;
use millrace_shared::table_reader::ScanSegment;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;
use time::OffsetDateTime;

use super::{report_corrupt_objects, target_bytes};
use crate::archive_scan::{ArchiveScanError, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::row_versions::{VersionFilter, VersionsByKey};
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::error::{ArchiveOffError, ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, time};
use crate::task::task_run::TaskRun;

/// Maximum number of objects that the import service accepts.
const MAX_OBJECTS: u32 = 50_000;

/// Fields of the request of an export.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct ExportRequest {
    /// Export the rows of items that were removed at this time or before, such as 2026-11-22T00:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    as_of: Option<String>,
    /// Name of the new table in the import command (default: the table's name with -imported)
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    table: Option<String>,
    /// Uncompressed size at which an object is complete, 1024 to 201326592 (default: 134217728)
    #[cfg_attr(feature = "cli", arg(long, value_name = "BYTES"))]
    target_file_size_bytes: Option<u64>,
}

/// The task `export-import-table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportTask {
    /// Only rows of items that were removed at or before this time.
    at: Option<OffsetDateTime>,
    /// The name of the table that the command creates; `<table>-imported` by default.
    table: Option<String>,
    /// The target size of an object in bytes, before compression.
    target_bytes: u64,
}

impl MaintenanceTask for ExportTask {
    const NAME: &'static str = "export-import-table";
    const SUMMARY: &'static str = "writes files for aws dynamodb import-table, and the command";
    type Request = ExportRequest;

    fn parse(request: ExportRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        Ok(Self {
            at: time("as_of", request.as_of.as_deref())?,
            table: request.table,
            target_bytes: target_bytes(request.target_file_size_bytes)?,
        })
    }

    fn command_key(run_id: &str) -> Option<String> {
        Some(import_command_key(run_id))
    }
}

/// Error of an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The deployment has no archive.
    #[error(transparent)]
    ArchiveOff(#[from] ArchiveOffError),
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] ArchiveScanError),
    /// The archive cannot be written.
    #[error("ARCHIVE_BUCKET: {0}")]
    Store(#[from] StoreError),
    /// The temporary file cannot be created or written.
    #[error("cannot create the temporary file: {0}")]
    Spool(#[from] io::Error),
    /// The export has more objects than an import accepts.
    #[error("an import accepts at most {MAX_OBJECTS} objects: use fewer segments or a larger target_file_size_bytes")]
    Objects,
    /// The run contains an export with another number of segments or another compression.
    #[error(
        "run {run} already contains {there} from a different export, and the import would include it: choose another run_id or delete it"
    )]
    RunIdConflict {
        /// The run ID.
        run: String,
        /// An object of the other export.
        there: String,
    },
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for ExportError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::ArchiveOff(error) => error.kind(),
            Self::Sweep(error) => error.kind(),
            Self::Objects | Self::RunIdConflict { .. } => TaskErrorKind::Invalid,
            Self::Store(_) | Self::Spool(_) | Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }

    /// The objects of the run are checked before anything is written.
    fn is_rejection(&self) -> bool {
        matches!(self, Self::RunIdConflict { .. } | Self::ArchiveOff(_))
    }
}

/// Cursor of an export. It is empty, because an interrupted export restarts from the beginning.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ExportCursor {}

#[derive(Serialize)]
struct ExportEntry<'a> {
    object: &'a str,
    items: u64,
}

#[derive(Serialize)]
struct ImportCommandEntry<'a> {
    object: &'a str,
    command: &'a str,
}

impl SegmentTask for ExportTask {
    type Cursor = ExportCursor;
    type Error = ExportError;

    /// The objects that were written before an error are overwritten by the next attempt.
    async fn run(&self, task_run: &mut TaskRun<ExportCursor>, context: &TaskContext<'_>) -> Result<bool, ExportError> {
        let (run, archive) = (context.run_id, context.archive()?);
        let there = archive.list(&data(run)).await?;
        let ours = |key: &str| is_of(key, run, task_run.segment().total_segments, context.compression);
        if let Some(other) = there.iter().find(|stored| !ours(&stored.key)) {
            return Err(ExportError::RunIdConflict { run: run.to_owned(), there: other.key.clone() });
        }
        let to = self.at.map(|at| at + time::Duration::NANOSECOND);
        let (segment, period) = (task_run.segment(), TimeRange { from: None, to });
        let wanted = move |row: &ArchivedRow| belongs_to_segment(segment, row.key.as_str());
        let take = |facts: &mut VersionsByKey, rows, held: &mut _| facts.add(rows, VersionFilter::Latest, held);
        let (facts, seen) = scan_archive(
            &context.archive_reader()?,
            &period,
            task_run.deadline,
            VersionsByKey::default(),
            wanted,
            take,
        )
        .await?;
        report_corrupt_objects(task_run, "export-import-table", &seen);
        let rows = facts.into_keys().into_iter().filter_map(|(_, mut rows)| rows.pop());
        let mut rows = rows.peekable();
        let mut part = 0;
        while rows.peek().is_some() {
            if part >= MAX_OBJECTS / segment.total_segments {
                return Err(ExportError::Objects);
            }
            let file = NamedTempFile::new()?;
            let mut writer: ItemWriter<File> = ItemWriter::new(context.compression, file.reopen()?)?;
            while writer.content_bytes() < self.target_bytes
                && let Some(row) = rows.next()
            {
                writer.push(&row.item)?;
            }
            let (items, sha256) = writer.finish()?;
            let key = object(run, segment, part, context.compression);
            archive.put_file(&key, ROWS_TYPE, file.path(), sha256, []).await?;
            task_run.count("export-import-table.written", 1);
            task_run.count("export-import-table.items", usize::try_from(items).unwrap_or(usize::MAX));
            task_run.report(&ExportEntry { object: &key, items });
            part += 1;
        }
        let own = prefix(run, segment);
        let next = object(run, segment, part, context.compression);
        for stored in there.iter().filter(|stored| stored.key.starts_with(&own) && stored.key >= next) {
            archive.remove(&stored.key).await?;
            task_run.count("export-import-table.removed", 1);
        }
        if segment.segment == 0 {
            let key = import_command_key(run);
            let command = command(context, self, run, archive.bucket());
            let sha256 = sha256(&command);
            archive.put_text(&key, "text/x-shellscript", command.clone(), sha256).await?;
            task_run.report(&ImportCommandEntry { object: &key, command: &command });
        }
        Ok(true)
    }
}

/// Returns the prefix of an export's objects.
fn data(run: &str) -> String {
    format!("export/{run}/data/")
}

fn object(run: &str, segment: ScanSegment, part: u32, compression: Compression) -> String {
    format!("{}{part:05}.json.{}", prefix(run, segment), compression.extension())
}

/// Returns the prefix of a segment's objects.
fn prefix(run: &str, ScanSegment { segment, total_segments: of }: ScanSegment) -> String {
    format!("{}{segment:04}-of-{of:04}-", data(run))
}

/// Returns whether a key is that of an object of an export with this number of segments and this compression.
fn is_of(key: &str, run: &str, of: u32, compression: Compression) -> bool {
    let name =
        key.strip_prefix(&data(run)).and_then(|name| name.strip_suffix(&format!(".json.{}", compression.extension())));
    name.and_then(|name| name.split_once('-')).is_some_and(|(_, rest)| rest.starts_with(&format!("of-{of:04}-")))
}

/// Returns the key of an export's import command.
fn import_command_key(run: &str) -> String {
    format!("export/{run}/import-table.sh")
}

/// Returns the command that imports the export as a new table.
fn command(context: &TaskContext<'_>, export: &ExportTask, run: &str, bucket: &str) -> String {
    let types = ["HASH", "RANGE"];
    let key = &context.source.description().key;
    let element = |((name, _), kind): (&(String, String), &str)| json!({"AttributeName": name, "KeyType": kind});
    let schema: Vec<_> = key.iter().zip(types).map(element).collect();
    let attribute = |(name, of): &(String, String)| json!({"AttributeName": name, "AttributeType": of});
    let attributes: Vec<_> = key.iter().map(attribute).collect();
    let table = export.table.clone().unwrap_or_else(|| format!("{}-imported", context.table()));
    let parameters = json!({
        "TableName": table, "KeySchema": schema, "AttributeDefinitions": attributes, "BillingMode": "PAY_PER_REQUEST",
    });
    let compression = context.compression.to_string().to_uppercase();
    format!(
        "aws dynamodb import-table \\\n  --s3-bucket-source S3Bucket={bucket},S3KeyPrefix=export/{run}/data/ \\\n  \
         --input-format DYNAMODB_JSON --input-compression-type {compression} \\\n  \
         --table-creation-parameters {}\n",
        shell::quote(&parameters.to_string()),
    )
}
