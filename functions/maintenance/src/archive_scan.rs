//! Scan of a table's archive, or of a time range of it, object by object: [`scan_archive`].
//!
//! Rows are delivered one object at a time, after the whole object has been read and its checksum verified. A corrupt
//! object yields no rows and is reported. A row that is present in both layouts (`archive/` and `compacted/`) is
//! delivered twice; callers must deduplicate. If a concurrent compaction moves an object before it is read, the scan
//! fails and must be restarted from the beginning.

use std::sync::Arc;

use millrace_archive::store::ArchiveStore;
use millrace_archive::{ArchivedRow, CorruptObject, KeyNames};
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::archive_objects::{ArchiveRowError, ChainedReader, ObjectReadError};
use crate::catalog;

/// Number of rows read between two deadline checks.
const ROWS_PER_DEADLINE_CHECK: u64 = 1_024;
/// Maximum size of the archive rows that a task retains in memory, and the overhead that is added for each row.
const MEMORY_LIMIT_BYTES: usize = 96 * 1024 * 1024;
const ROW_COST_BYTES: usize = 256;

/// Time range of a scan.
#[derive(Debug, Clone)]
pub struct TimeRange {
    /// Only rows that were removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only rows that were removed before this time.
    pub to: Option<OffsetDateTime>,
}

impl TimeRange {
    /// Returns whether a removal time is within the range.
    #[must_use]
    pub fn holds(&self, removed_at: OffsetDateTime) -> bool {
        self.from.is_none_or(|from| removed_at >= from) && self.to.is_none_or(|to| removed_at < to)
    }
}

/// The archive of one table.
#[derive(Debug, Clone)]
pub struct ArchiveReader {
    /// The archive bucket.
    pub store: ArchiveStore,
    /// The table that the rows were removed from.
    pub table: String,
    /// The names of the table's key attributes.
    pub key_names: KeyNames,
}

/// Error of an archive scan.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveScanError {
    /// The archive cannot be read.
    #[error("ARCHIVE_BUCKET: {0}")]
    Unread(#[from] ObjectReadError),
    /// The scan takes longer than one invocation.
    #[error("reading this period takes longer than one invocation: set a shorter range with from and to")]
    DeadlineExceeded,
    /// The rows exceed the memory limit.
    #[error(
        "the requested rows exceed {MEMORY_LIMIT_BYTES} bytes of memory: use more segments, or a shorter range with from and to"
    )]
    MemoryLimitExceeded,
    /// The reading thread ended unexpectedly.
    #[error("cannot read the archive: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl ArchiveScanError {
    /// Returns whether the same request would fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::MemoryLimitExceeded)
    }
}

/// Statistics of a scan.
#[derive(Debug, Default)]
pub struct ScanStats {
    /// Number of objects read.
    pub objects: usize,
    /// The corrupt objects.
    pub corrupt: Vec<CorruptObject>,
    /// Unrecognized keys: neither the archiver nor a compaction wrote them.
    pub unrecognized: Vec<String>,
}

/// The part of a task's memory limit that is in use.
#[derive(Debug, Default)]
pub struct MemoryBudget(usize);

impl MemoryBudget {
    /// Adds the size of a row.
    ///
    /// # Errors
    /// [`ArchiveScanError::MemoryLimitExceeded`] if the limit is exceeded.
    pub fn try_grow(&mut self, row: &ArchivedRow) -> Result<(), ArchiveScanError> {
        self.0 += cost(row);
        if self.0 > MEMORY_LIMIT_BYTES { Err(ArchiveScanError::MemoryLimitExceeded) } else { Ok(()) }
    }

    /// Subtracts the size of a row that has been dropped.
    pub fn shrink(&mut self, row: &ArchivedRow) {
        self.0 = self.0.saturating_sub(cost(row));
    }
}

fn cost(row: &ArchivedRow) -> usize {
    row.item.get().len() + row.key.as_str().len() + row.event_id.as_ref().map_or(0, String::len) + ROW_COST_BYTES
}

/// Reads all rows of a time range, passes those that are `wanted` to `take`, one object at a time, and returns the
/// final `state` and the scan's statistics.
///
/// # Errors
/// [`ArchiveScanError`] if the archive cannot be read, or a limit of time or memory is exceeded.
pub async fn scan_archive<T: Send + 'static>(
    archive_reader: &ArchiveReader,
    period: &TimeRange,
    deadline: Instant,
    mut state: T,
    wanted: impl Fn(&ArchivedRow) -> bool + Send + 'static,
    mut take: impl FnMut(&mut T, Vec<ArchivedRow>, &mut MemoryBudget) -> Result<(), ArchiveScanError> + Send + 'static,
) -> Result<(T, ScanStats), ArchiveScanError> {
    let (mut seen, mut objects) = (ScanStats::default(), Vec::new());
    let found = catalog::days(&archive_reader.store, &archive_reader.table).await.map_err(ObjectReadError::from)?;
    seen.unrecognized = found.unrecognized;
    for day in found.days {
        let outside =
            period.from.is_some_and(|from| day.end() <= from) || period.to.is_some_and(|to| day.start() >= to);
        if !outside {
            let listing = catalog::list_day(&archive_reader.store, &archive_reader.table, day)
                .await
                .map_err(ObjectReadError::from)?;
            seen.unrecognized.extend(listing.unrecognized);
            objects.extend(listing.objects.into_iter().map(|object| object.key));
        }
    }
    let (runtime, archive_reader, period) = (Handle::current(), archive_reader.clone(), period.clone());
    let names = Arc::new(archive_reader.key_names.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut held = MemoryBudget::default();
        for object in objects {
            let chain =
                ChainedReader::new(vec![object], archive_reader.store.clone(), Arc::clone(&names), runtime.clone());
            seen.objects += 1;
            let (mut rows, mut read) = (Vec::new(), 0_u64);
            let mut corruption = None;
            for row in chain {
                if read.is_multiple_of(ROWS_PER_DEADLINE_CHECK) && Instant::now() >= deadline {
                    return Err(ArchiveScanError::DeadlineExceeded);
                }
                read += 1;
                match row {
                    Ok(row) if period.holds(row.removed_at) && wanted(&row) => {
                        held.try_grow(&row)?;
                        rows.push(row);
                    }
                    Ok(_) => {}
                    Err(ArchiveRowError::Corrupt(found)) => corruption = Some(found),
                    Err(ArchiveRowError::Unread(unread)) => return Err(unread.into()),
                }
            }
            match corruption {
                Some(corruption) => {
                    for row in &rows {
                        held.shrink(row);
                    }
                    seen.corrupt.push(corruption);
                }
                None => take(&mut state, rows, &mut held)?,
            }
        }
        Ok((state, seen))
    });
    reading.await?
}
