//! The archive as a table can be made of it: items alone, one row a key, of one compression, and the command.
//!
//! `aws dynamodb import-table` makes a new table of objects of `{"Item":…}` lines. Of two lines with the same key it keeps
//! any, so each key stands there once: with its latest row, or the latest at a point in time. Keys are dealt out to segments
//! by their text; a segment writes its items in the order of their keys, a few objects of the target size. Objects are
//! named by the run, the segment and their place, so an export that is begun anew writes over what it wrote; what it wrote
//! beyond that goes, and one that was dealt out otherwise is refused, since an import takes all that lies there.

use std::fs::File;
use std::io;

use archiver::archive::{ArchivedRow, Compression, ItemWriter};
use archiver::store::{ROWS_TYPE, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shared::table_reader::{ScanSegment, SourceDescription};
use tempfile::NamedTempFile;
use time::OffsetDateTime;

use super::belongs_to_segment;
use super::corrupt_objects::report_corrupt_objects;
use super::task_run::TaskRun;
use crate::archive_scan::{ArchiveReader, ArchiveScanError, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::row_versions::{VersionFilter, VersionsByKey};

/// The service takes no more.
const MAX_OBJECTS: u32 = 50_000;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRequest {
    /// Only rows of items that were removed at this time or before.
    pub at: Option<OffsetDateTime>,
    /// The name of the table that the command makes; `<table>-imported` if there is none.
    pub table: Option<String>,
    /// How much content goes into an object, before it is compressed.
    pub target_bytes: u64,
}

/// Why an export stops before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] ArchiveScanError),
    /// The archive cannot be written.
    #[error("ARCHIVE_BUCKET: {0}")]
    Store(#[from] StoreError),
    /// No object can be made here.
    #[error("cannot create the temporary file: {0}")]
    Spool(#[from] io::Error),
    /// More objects than an import takes.
    #[error("an import accepts at most {MAX_OBJECTS} objects: use fewer segments or a larger target_file_size_bytes")]
    Objects,
    /// An export of this name, dealt out or compressed otherwise.
    #[error(
        "run {run} already contains {there} from a different export, and the import would include it: choose another run_id or delete it"
    )]
    RunIdConflict {
        /// The run.
        run: String,
        /// An object that is there.
        there: String,
    },
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// An export is begun anew where it did not come to its end: it has no place to go on from.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ExportCursor {}

/// What an export works on.
pub struct ExportContext<'w> {
    /// The archive.
    pub library: ArchiveReader,
    /// How the export is compressed.
    pub compression: Compression,
    /// The table, whose key the new one gets.
    pub description: &'w SourceDescription,
}

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

/// Exports a segment.
///
/// # Errors
/// [`ExportError`]; what was written is written over by the next try.
pub async fn run(
    course: &mut TaskRun<ExportCursor>,
    world: &ExportContext<'_>,
    export: &ExportRequest,
    run: &str,
) -> Result<bool, ExportError> {
    let there = world.library.store.list(&data(run)).await?;
    let ours = |key: &str| is_of(key, run, course.segment().total_segments, world.compression);
    if let Some(other) = there.iter().find(|stored| !ours(&stored.key)) {
        return Err(ExportError::RunIdConflict { run: run.to_owned(), there: other.key.clone() });
    }
    let to = export.at.map(|at| at + time::Duration::NANOSECOND);
    let (segment, period) = (course.segment(), TimeRange { from: None, to });
    let wanted = move |row: &ArchivedRow| belongs_to_segment(segment, row.key.as_str());
    let take = |facts: &mut VersionsByKey, rows, held: &mut _| facts.add(rows, VersionFilter::Latest, held);
    let (facts, seen) =
        scan_archive(&world.library, &period, course.stop_at, VersionsByKey::default(), wanted, take).await?;
    report_corrupt_objects(course, "export-import-table", &seen);
    let rows = facts.into_keys().into_iter().filter_map(|(_, mut rows)| rows.pop());
    let mut rows = rows.peekable();
    let mut part = 0;
    while rows.peek().is_some() {
        if part >= MAX_OBJECTS / segment.total_segments {
            return Err(ExportError::Objects);
        }
        let file = NamedTempFile::new()?;
        let mut writer: ItemWriter<File> = ItemWriter::new(world.compression, file.reopen()?)?;
        while writer.content_bytes() < export.target_bytes
            && let Some(row) = rows.next()
        {
            writer.push(&row.item)?;
        }
        let (items, sha256) = writer.finish()?;
        let key = object(run, segment, part, world.compression);
        world.library.store.put_file(&key, ROWS_TYPE, file.path(), sha256, []).await?;
        course.count("export-import-table.written", 1);
        course.count("export-import-table.items", usize::try_from(items).unwrap_or(usize::MAX));
        course.report(&ExportEntry { object: &key, items });
        part += 1;
    }
    let own = prefix(run, segment);
    let next = object(run, segment, part, world.compression);
    for stored in there.iter().filter(|stored| stored.key.starts_with(&own) && stored.key >= next) {
        world.library.store.remove(&stored.key).await?;
        course.count("export-import-table.removed", 1);
    }
    if segment.segment == 0 {
        let key = import_command_key(run);
        let command = command(world, export, run);
        let sha256 = Sha256::digest(command.as_bytes()).into();
        world.library.store.put_text(&key, "text/x-shellscript", command.clone(), sha256).await?;
        course.report(&ImportCommandEntry { object: &key, command: &command });
    }
    Ok(true)
}

/// Where the objects of an export lie.
fn data(run: &str) -> String {
    format!("export/{run}/data/")
}

fn object(run: &str, segment: ScanSegment, part: u32, compression: Compression) -> String {
    format!("{}{part:05}.json.{}", prefix(run, segment), compression.extension())
}

/// What the names of a segment's objects begin with.
fn prefix(run: &str, ScanSegment { segment, total_segments: of }: ScanSegment) -> String {
    format!("{}{segment:04}-of-{of:04}-", data(run))
}

/// Whether it is an object of an export that is dealt out and compressed so.
fn is_of(key: &str, run: &str, of: u32, compression: Compression) -> bool {
    let name =
        key.strip_prefix(&data(run)).and_then(|name| name.strip_suffix(&format!(".json.{}", compression.extension())));
    name.and_then(|name| name.split_once('-')).is_some_and(|(_, rest)| rest.starts_with(&format!("of-{of:04}-")))
}

/// Where the command of an export lies.
#[must_use]
pub fn import_command_key(run: &str) -> String {
    format!("export/{run}/import-table.sh")
}

/// The command that makes a table of the export.
fn command(world: &ExportContext<'_>, export: &ExportRequest, run: &str) -> String {
    let types = ["HASH", "RANGE"];
    let key = &world.description.key;
    let element = |((name, _), kind): (&(String, String), &str)| json!({"AttributeName": name, "KeyType": kind});
    let schema: Vec<_> = key.iter().zip(types).map(element).collect();
    let attribute = |(name, of): &(String, String)| json!({"AttributeName": name, "AttributeType": of});
    let attributes: Vec<_> = key.iter().map(attribute).collect();
    let table = export.table.clone().unwrap_or_else(|| format!("{}-imported", world.library.table));
    let parameters = json!({
        "TableName": table, "KeySchema": schema, "AttributeDefinitions": attributes, "BillingMode": "PAY_PER_REQUEST",
    });
    let compression = world.compression.to_string().to_uppercase();
    format!(
        "aws dynamodb import-table \\\n  --s3-bucket-source S3Bucket={},S3KeyPrefix=export/{run}/data/ \\\n  \
         --input-format DYNAMODB_JSON --input-compression-type {compression} \\\n  \
         --table-creation-parameters '{parameters}'\n",
        world.library.store.bucket(),
    )
}
