//! The output format of a Parquet export: a file is spooled, read back, uploaded, and read back again.
//! [`ParquetFormat`]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_archive::{ArchiveDay, ArchivedRow, ObjectMetadata};
use millrace_shared::hash::Sha256Hasher;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use crate::parquet::{ColumnBatch, ParquetKey, ParquetSchema, RowsChecksum};
use crate::task::archive::merge::{MergeError, MergeOutput, OutputFormat};

/// The metadata key under which a run's last file records the number of files.
pub(super) const PARTS: &str = "parts";
/// The media type of Parquet: <https://www.iana.org/assignments/media-types/application/vnd.apache.parquet>
const CONTENT_TYPE: &str = "application/vnd.apache.parquet";
/// Maximum number of rows that are converted to columns at a time, and maximum total length of their items.
const BATCH_ROWS: usize = 1_024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const BLOCK_BYTES: usize = 64 * 1024;

/// The settings that all files of a run share.
pub(super) struct ParquetFormat {
    pub(super) store: ArchiveStore,
    pub(super) table: String,
    pub(super) day: ArchiveDay,
    pub(super) run: String,
    pub(super) schema: ParquetSchema,
    pub(super) unfit: Arc<UnfitCounts>,
    pub(super) runtime: Handle,
}

/// The number of values that each column of the document could not store, over all files of a run.
pub(super) struct UnfitCounts(Vec<(String, AtomicU64)>);

impl UnfitCounts {
    /// Creates the counts of the columns of these names, all of them 0.
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().map(|name| (name, AtomicU64::new(0))).collect())
    }

    fn add(&self, counts: &[u64]) {
        for ((_, sum), count) in self.0.iter().zip(counts) {
            sum.fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// Returns the counts above 0, by the name of the column.
    pub(super) fn by_column(&self) -> BTreeMap<String, u64> {
        let counts = self.0.iter().map(|(name, count)| (name.clone(), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// A file that is being written.
pub(super) struct ParquetPart {
    writer: ArrowWriter<File>,
    file: NamedTempFile,
    batch: ColumnBatch,
    written: RowsChecksum,
    bytes: u64,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
}

/// Converts an error of the Parquet writer, which concerns the temporary file.
fn spool(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MergeError {
    MergeError::TempFile(io::Error::other(error))
}

impl ParquetPart {
    fn write(&mut self) -> Result<(), MergeError> {
        let columns = self.batch.take().map_err(spool)?;
        self.writer.write(&columns).map_err(spool)
    }
}

impl OutputFormat for ParquetFormat {
    type Part = ParquetPart;

    fn begin(&self) -> Result<ParquetPart, MergeError> {
        let file = NamedTempFile::new()?;
        let (columns, properties) = (self.schema.arrow(), self.schema.properties());
        let writer = ArrowWriter::try_new(file.reopen()?, columns, Some(properties)).map_err(spool)?;
        let (batch, written) = (self.schema.batch(), RowsChecksum::default());
        Ok(ParquetPart { writer, file, batch, written, bytes: 0, times: None })
    }

    fn push(&self, part: &mut ParquetPart, row: &ArchivedRow) -> Result<u64, MergeError> {
        part.written.push(row);
        part.batch.push(row);
        part.bytes += row.item.get().len() as u64;
        let (first, last) = part.times.unwrap_or((row.removed_at, row.removed_at));
        part.times = Some((first.min(row.removed_at), last.max(row.removed_at)));
        if part.batch.rows() >= BATCH_ROWS || part.batch.bytes() >= BATCH_BYTES {
            part.write()?;
        }
        Ok(part.bytes)
    }

    fn put(&self, mut part: ParquetPart, position: u32, is_last: bool) -> Result<MergeOutput, MergeError> {
        part.write()?;
        self.unfit.add(part.batch.unfit());
        let ParquetPart { writer, file, written, times, .. } = part;
        writer.close().map_err(spool)?;
        let key = ParquetKey { table: self.table.clone(), day: self.day, run: self.run.clone(), part: position };
        let key = key.to_string();
        let (rows, digest) = written.finish();
        if read_back(file.reopen()?).map_err(|why| MergeError::VerificationFailed(format!("{key}: {why}")))?
            != (rows, digest)
        {
            return Err(MergeError::VerificationFailed(format!("{key}: the rows differ")));
        }
        let sha256 = sha256(file.reopen()?)?;
        let (first, last) = times.unwrap_or((self.day.start(), self.day.start()));
        let metadata = ObjectMetadata { rows, first, last, sha256 }.encode().map_err(io::Error::other)?;
        let parts = is_last.then(|| (PARTS, (position + 1).to_string()));
        let metadata = metadata.into_iter().chain(parts).collect();
        self.store.blocking_put_file(&key, CONTENT_TYPE, file.path(), sha256, metadata, &self.runtime)?;
        let Some(stored) = self.store.blocking_open(&key, &self.runtime)? else {
            return Err(MergeError::Gone(key));
        };
        match self::sha256(stored) {
            Ok(stored) if stored == sha256 => Ok(MergeOutput { key, rows }),
            Ok(_) => Err(MergeError::VerificationFailed(format!("{key}: the SHA-256 differs"))),
            Err(error) => match error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>()) {
                Some(of_the_bucket) => Err(of_the_bucket.clone().into()),
                None => Err(error.into()),
            },
        }
    }
}

/// Reads a file as a query engine would; returns the number of rows, and their digest.
fn read_back(file: File) -> Result<(u64, [u8; 32]), Box<dyn std::error::Error>> {
    let mut read = RowsChecksum::default();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build()?;
    for columns in reader {
        read.read(&columns?)?;
    }
    Ok(read.finish())
}

fn sha256(mut source: impl Read) -> io::Result<[u8; 32]> {
    let (mut digest, mut block) = (Sha256Hasher::new(), vec![0; BLOCK_BYTES]);
    loop {
        match source.read(&mut block)? {
            0 => return Ok(digest.finish()),
            read => digest.update(&block[..read]),
        }
    }
}
