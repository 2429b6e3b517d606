//! The whole archive of a table, or a period of it, read object by object. [`scan_archive`]
//!
//! Rows are handed over by the object, once it has been read to its end and is sound: of a damaged one nothing is, and it
//! is told. What lies in both layouts comes twice; whoever takes the rows drops repetitions. Objects that were moved while
//! they were looked for make the sweep fail, to be begun anew: a compaction is at work.

use std::sync::Arc;

use archiver::archive::{ArchivedRow, CorruptObject, KeyNames};
use archiver::store::ArchiveStore;
use time::OffsetDateTime;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::archive_objects::{ArchiveRowError, ChainedReader, ObjectReadError};
use crate::catalog;

/// How many rows are read between two looks at the clock.
const ROWS_A_LOOK: u64 = 1_024;
/// What a task holds of the archive at a time, with what it costs to hold a row.
const HELD_BYTES: usize = 96 * 1024 * 1024;
const ROW_COST_BYTES: usize = 256;

/// What is read.
#[derive(Debug, Clone)]
pub struct TimeRange {
    /// Rows that were removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Rows that were removed before this time.
    pub to: Option<OffsetDateTime>,
}

impl TimeRange {
    /// Whether a row is of it.
    #[must_use]
    pub fn holds(&self, removed_at: OffsetDateTime) -> bool {
        self.from.is_none_or(|from| removed_at >= from) && self.to.is_none_or(|to| removed_at < to)
    }
}

/// Whose archive is read, and until when.
#[derive(Debug, Clone)]
pub struct ArchiveReader {
    /// The archive.
    pub store: ArchiveStore,
    /// The table whose rows they are.
    pub table: String,
    /// Its key.
    pub key_names: KeyNames,
}

/// Why a sweep has no end.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveScanError {
    /// The archive cannot be read.
    #[error("ARCHIVE_BUCKET: {0}")]
    Unread(#[from] ObjectReadError),
    /// It takes longer than an invocation.
    #[error("reading this period takes longer than one invocation: set a shorter range with from and to")]
    DeadlineExceeded,
    /// It takes more memory than there is.
    #[error(
        "the requested rows exceed {HELD_BYTES} bytes of memory: use more segments, or a shorter range with from and to"
    )]
    MemoryLimitExceeded,
    /// The reading thread ended.
    #[error("cannot read the archive: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl ArchiveScanError {
    /// Whether the same order would meet with it again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::MemoryLimitExceeded)
    }
}

/// What a sweep came across.
#[derive(Debug, Default)]
pub struct ScanStats {
    /// How many objects were read.
    pub objects: usize,
    /// What could not be read.
    pub damaged: Vec<CorruptObject>,
    /// Keys that neither the archiver nor a merge wrote.
    pub foreign: Vec<String>,
}

/// How much of the memory that a task may take is taken.
#[derive(Debug, Default)]
pub struct MemoryBudget(usize);

impl MemoryBudget {
    /// Takes a row's worth.
    ///
    /// # Errors
    /// [`ArchiveScanError::TooMuch`].
    pub fn try_grow(&mut self, row: &ArchivedRow) -> Result<(), ArchiveScanError> {
        self.0 += cost(row);
        if self.0 > HELD_BYTES { Err(ArchiveScanError::MemoryLimitExceeded) } else { Ok(()) }
    }

    /// Gives a row's worth back.
    pub fn shrink(&mut self, row: &ArchivedRow) {
        self.0 = self.0.saturating_sub(cost(row));
    }
}

fn cost(row: &ArchivedRow) -> usize {
    row.item.get().len() + row.key.as_str().len() + row.event_id.as_ref().map_or(0, String::len) + ROW_COST_BYTES
}

/// Reads all of a period, hands the rows that are `wanted` to `take`, an object at a time, and answers what became of
/// `state`.
///
/// # Errors
/// [`ArchiveScanError`].
pub async fn scan_archive<T: Send + 'static>(
    library: &ArchiveReader,
    period: &TimeRange,
    stop_at: Instant,
    mut state: T,
    wanted: impl Fn(&ArchivedRow) -> bool + Send + 'static,
    mut take: impl FnMut(&mut T, Vec<ArchivedRow>, &mut MemoryBudget) -> Result<(), ArchiveScanError> + Send + 'static,
) -> Result<(T, ScanStats), ArchiveScanError> {
    let (mut seen, mut objects) = (ScanStats::default(), Vec::new());
    let found = catalog::days(&library.store, &library.table).await.map_err(ObjectReadError::from)?;
    seen.foreign = found.foreign;
    for day in found.days {
        let outside =
            period.from.is_some_and(|from| day.end() <= from) || period.to.is_some_and(|to| day.start() >= to);
        if !outside {
            let shelf = catalog::list_day(&library.store, &library.table, day).await.map_err(ObjectReadError::from)?;
            seen.foreign.extend(shelf.unrecognized);
            objects.extend(shelf.objects.into_iter().map(|object| object.key));
        }
    }
    let (runtime, library, period) = (Handle::current(), library.clone(), period.clone());
    let names = Arc::new(library.key_names.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut held = MemoryBudget::default();
        for object in objects {
            let chain = ChainedReader::new(vec![object], library.store.clone(), Arc::clone(&names), runtime.clone());
            seen.objects += 1;
            let (mut rows, mut read) = (Vec::new(), 0_u64);
            let mut damage = None;
            for row in chain {
                if read.is_multiple_of(ROWS_A_LOOK) && Instant::now() >= stop_at {
                    return Err(ArchiveScanError::DeadlineExceeded);
                }
                read += 1;
                match row {
                    Ok(row) if period.holds(row.removed_at) && wanted(&row) => {
                        held.try_grow(&row)?;
                        rows.push(row);
                    }
                    Ok(_) => {}
                    Err(ArchiveRowError::Damaged(found)) => damage = Some(found),
                    Err(ArchiveRowError::Unread(unread)) => return Err(unread.into()),
                }
            }
            match damage {
                Some(damage) => {
                    for row in &rows {
                        held.shrink(row);
                    }
                    seen.damaged.push(damage);
                }
                None => take(&mut state, rows, &mut held)?,
            }
        }
        Ok((state, seen))
    });
    reading.await?
}
