//! A file of columns: spooled, read back, put, and read back once more. [`Sheet`]

use std::fs::File;
use std::io::{self, Read};

use archiver::archive::{ArchivedRow, Day, Description};
use archiver::store::{Store, StoreError};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use crate::columns::{Batch, ColumnsKey, Fingerprint, properties, schema};
use crate::task::merge::{Kind, MergeFault, Output};

/// The metadata of a run's last file that says how many files it has.
pub(super) const PARTS: &str = "parts";
/// <https://www.iana.org/assignments/media-types/application/vnd.apache.parquet>
const CONTENT_TYPE: &str = "application/vnd.apache.parquet";
/// Rows that are turned into columns at a time, and how long their items may be together.
const BATCH_ROWS: usize = 1_024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
const BLOCK_BYTES: usize = 64 * 1024;

/// What the files of a run have in common.
pub(super) struct Sheet {
    pub(super) store: Store,
    pub(super) table: String,
    pub(super) day: Day,
    pub(super) run: String,
    pub(super) runtime: Handle,
}

/// A file being written.
pub(super) struct Part {
    writer: ArrowWriter<File>,
    file: NamedTempFile,
    batch: Batch,
    written: Fingerprint,
    bytes: u64,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
}

/// What the writer says is of the file that it writes to.
fn spool(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MergeFault {
    MergeFault::Spool(io::Error::other(error))
}

impl Part {
    fn write(&mut self) -> Result<(), MergeFault> {
        let columns = self.batch.take().map_err(spool)?;
        self.writer.write(&columns).map_err(spool)
    }
}

impl Kind for Sheet {
    type Part = Part;

    fn begin(&self) -> Result<Part, MergeFault> {
        let file = NamedTempFile::new()?;
        let writer = ArrowWriter::try_new(file.reopen()?, schema(), Some(properties())).map_err(spool)?;
        let (batch, written) = (Batch::default(), Fingerprint::default());
        Ok(Part { writer, file, batch, written, bytes: 0, times: None })
    }

    fn push(&self, part: &mut Part, row: &ArchivedRow) -> Result<u64, MergeFault> {
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

    fn put(&self, mut part: Part, place: u32, is_last: bool) -> Result<Output, MergeFault> {
        part.write()?;
        let Part { writer, file, written, times, .. } = part;
        writer.close().map_err(spool)?;
        let key = ColumnsKey { table: self.table.clone(), day: self.day, run: self.run.clone(), part: place };
        let key = key.to_string();
        let (rows, digest) = written.finish();
        if read_back(file.reopen()?).map_err(|why| MergeFault::Unproven(format!("{key}: {why}")))? != (rows, digest) {
            return Err(MergeFault::Unproven(format!("{key} contains other rows")));
        }
        let sha256 = sha256(file.reopen()?)?;
        let (first, last) = times.unwrap_or((self.day.start(), self.day.start()));
        let metadata = Description { rows, first, last, sha256 }.encode().map_err(io::Error::other)?;
        let parts = is_last.then(|| (PARTS, (place + 1).to_string()));
        let metadata = metadata.into_iter().chain(parts).collect();
        self.store.blocking_put_file(&key, CONTENT_TYPE, file.path(), sha256, metadata, &self.runtime)?;
        let Some(stored) = self.store.blocking_open(&key, &self.runtime)? else {
            return Err(MergeFault::Gone(key));
        };
        match self::sha256(stored) {
            Ok(stored) if stored == sha256 => Ok(Output { key, rows }),
            Ok(_) => Err(MergeFault::Unproven(format!("{key} has other bytes"))),
            Err(error) => match error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>()) {
                Some(of_the_bucket) => Err(of_the_bucket.clone().into()),
                None => Err(error.into()),
            },
        }
    }
}

/// What a query engine would read.
fn read_back(file: File) -> Result<(u64, [u8; 32]), Box<dyn std::error::Error>> {
    let mut read = Fingerprint::default();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build()?;
    for columns in reader {
        read.read(&columns?)?;
    }
    Ok(read.finish())
}

fn sha256(mut source: impl Read) -> io::Result<[u8; 32]> {
    let (mut digest, mut block) = (Sha256::new(), vec![0; BLOCK_BYTES]);
    loop {
        match source.read(&mut block)? {
            0 => return Ok(digest.finalize().into()),
            read => digest.update(&block[..read]),
        }
    }
}
