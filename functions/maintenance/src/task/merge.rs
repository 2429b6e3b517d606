//! Runs of rows, merged and written anew in parts of a target size: what a compaction and the columns have in common.
//! `MergeJob::run`
//!
//! What is written is spooled in a temporary file, a part at a time: an upload must be given the object's metadata at its
//! beginning, and count, times and digest are known at its end. Held in memory, a part that does not compress would cost
//! its whole size. The file is gone once the part is put.

use std::io;
use std::sync::Arc;

use archiver::archive::{ArchiveDay, ArchivedRow, CorruptObject, KeyNames, MergeIterator};
use archiver::store::{ArchiveStore, StoreError};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::compact::DAMAGED_MOST;
use crate::archive_objects::{ArchiveRowError, ChainedReader, ObjectReadError};
use crate::failure_bucket::BucketError;

/// Runs that are merged at a time: each costs a decoder and up to two pieces of its object, 2.5 MB together.
pub(super) const FAN_IN: usize = 32;
/// How many rows are merged between two looks at the clock.
const ROWS_PER_DEADLINE_CHECK: u64 = 1_024;

/// Objects that are read one after the other, because they are sorted as one.
pub(super) type SortedRun = Vec<String>;

/// Why a merge stops before its end. What was written until then stays.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The archive cannot be read or written.
    #[error("ARCHIVE_BUCKET: {0}")]
    Store(#[from] StoreError),
    /// An object went while it was read: a compaction is at it.
    #[error("ARCHIVE_BUCKET: {0} was deleted while it was being read: another compaction is running")]
    Gone(String),
    /// No object can be made here.
    #[error("cannot create the temporary file: {0}")]
    TempFile(#[from] io::Error),
    /// What was written is not what is read.
    #[error("verification failed: the object read back differs from the object written; no input was removed: {0}")]
    VerificationFailed(String),
    /// A merge does not fit into an invocation.
    #[error(
        "merging {0} exceeds one invocation: compact with \"granularity\": \"hour\", or raise the function timeout"
    )]
    NoTime(ArchiveDay),
    /// More objects cannot be read than a cursor names.
    #[error("more than {DAMAGED_MOST} objects of {0} are corrupt: move them to another prefix, then compact again")]
    TooDamaged(ArchiveDay),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl From<ObjectReadError> for MergeError {
    fn from(unread: ObjectReadError) -> Self {
        match unread {
            ObjectReadError::Store(error) => Self::Store(error),
            ObjectReadError::NotFound(key) => Self::Gone(key),
        }
    }
}

/// What rows are written as: lines, or columns.
pub(super) trait OutputFormat {
    /// A part being written.
    type Part;

    fn begin(&self) -> Result<Self::Part, MergeError>;

    /// Adds a row; answers how long the part's content is by now.
    fn push(&self, part: &mut Self::Part, row: &ArchivedRow) -> Result<u64, MergeError>;

    /// Puts the part of this place and reads it back. On the last one hangs that the whole is there.
    fn put(&self, part: Self::Part, place: u32, is_last: bool) -> Result<MergeOutput, MergeError>;
}

/// An object that was written and read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MergeOutput {
    pub(super) key: String,
    pub(super) rows: u64,
}

/// What is merged, and until when.
pub(super) struct MergeJob {
    pub(super) store: ArchiveStore,
    pub(super) key_names: KeyNames,
    pub(super) runs: Vec<SortedRun>,
    /// How much content goes into a part.
    pub(super) target_bytes: u64,
    pub(super) stop_at: Instant,
}

/// What came of it.
pub(super) enum MergeResult {
    Complete {
        outputs: Vec<MergeOutput>,
        rows: u64,
        repeated: u64,
    },
    /// An input is not to be read.
    Damaged(CorruptObject),
    /// The time is up.
    Stopped,
}

impl MergeJob {
    /// Merges on a thread that may block.
    pub(super) async fn run<K: OutputFormat + Send + 'static>(self, kind: K) -> Result<MergeResult, MergeError> {
        let runtime = Handle::current();
        let merging = tokio::task::spawn_blocking(move || self.merge(&kind, &runtime));
        merging.await.map_err(|error| MergeError::TempFile(io::Error::other(error)))?
    }

    fn merge<K: OutputFormat>(self, kind: &K, runtime: &Handle) -> Result<MergeResult, MergeError> {
        let names = Arc::new(self.key_names);
        let chain = |run: SortedRun| ChainedReader::new(run, self.store.clone(), Arc::clone(&names), runtime.clone());
        let mut merge = MergeIterator::new(self.runs.into_iter().map(chain).collect());
        let (mut outputs, mut rows, mut place) = (Vec::new(), 0_u64, 0);
        let mut open: Option<(K::Part, u64)> = None;
        for row in &mut merge {
            let row = match row {
                Ok(row) => row,
                Err(ArchiveRowError::Damaged(damage)) => return Ok(MergeResult::Damaged(damage)),
                Err(ArchiveRowError::Unread(unread)) => return Err(unread.into()),
            };
            if rows.is_multiple_of(ROWS_PER_DEADLINE_CHECK) && Instant::now() >= self.stop_at {
                return Ok(MergeResult::Stopped);
            }
            rows += 1;
            // A part is put when another is to follow: only so is it known which one is the last.
            if let Some((full, _)) = open.take_if(|(_, bytes)| *bytes >= self.target_bytes) {
                outputs.push(kind.put(full, place, false)?);
                place += 1;
            }
            let (part, bytes) = match &mut open {
                Some(open) => open,
                none => none.insert((kind.begin()?, 0)),
            };
            *bytes = kind.push(part, &row)?;
        }
        if let Some((part, _)) = open {
            outputs.push(kind.put(part, place, true)?);
        }
        Ok(MergeResult::Complete { outputs, rows, repeated: merge.duplicates_dropped() })
    }
}
