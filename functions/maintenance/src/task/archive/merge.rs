//! Merges sorted runs of rows and writes them in parts of a target size; shared by compaction and Parquet export.
//! `MergeJob::run`
//!
//! The output is spooled to a temporary file, one part at a time: an upload requires the object's metadata at its
//! beginning, but row count, times and digest are known only at its end. In memory, a part that does not compress would
//! take up its whole size. The file is deleted once the part is uploaded.

use std::io;
use std::sync::Arc;

use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_archive::{ArchiveDay, ArchivedRow, CorruptObject, KeyNames, MergeIterator};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::compact::MAX_CORRUPT_OBJECTS;
use crate::archive_objects::{ArchiveRowError, ChainedReader, ObjectReadError};
use crate::failure_bucket::BucketError;
use crate::task::error::{ArchiveOffError, ClassifiedError, TaskErrorKind};

/// Maximum number of runs that are merged at a time: each needs a decoder and up to two chunks of its object, together
/// 2.5 MB.
pub(super) const FAN_IN: usize = 32;
/// Number of rows merged between two deadline checks.
const ROWS_PER_DEADLINE_CHECK: u64 = 1_024;

/// Objects that are read one after another, because together they form one sorted sequence of rows.
pub(super) type SortedRun = Vec<String>;

/// Error of a merge. Objects that were written before the error remain.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The deployment has no archive.
    #[error(transparent)]
    ArchiveOff(#[from] ArchiveOffError),
    /// The archive cannot be read or written.
    #[error("ARCHIVE_BUCKET: {0}")]
    Store(#[from] StoreError),
    /// An object was deleted while it was being read: another compaction is running.
    #[error("ARCHIVE_BUCKET: {0} was deleted while it was being read: another compaction is running")]
    Gone(String),
    /// The temporary file cannot be created or written.
    #[error("cannot create the temporary file: {0}")]
    TempFile(#[from] io::Error),
    /// The object read back differs from the object written.
    #[error("verification failed: the object read back differs from the object written; no input was removed: {0}")]
    VerificationFailed(String),
    /// A merge does not fit into one invocation.
    #[error(
        "merging {0} exceeds one invocation: compact with \"granularity\": \"hour\", or raise the function timeout"
    )]
    NoTime(ArchiveDay),
    /// More objects are corrupt than a cursor can list.
    #[error(
        "more than {MAX_CORRUPT_OBJECTS} objects of {0} are corrupt: move them to another prefix, then compact again"
    )]
    TooManyCorruptObjects(ArchiveDay),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for MergeError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::ArchiveOff(error) => error.kind(),
            Self::NoTime(_) | Self::TooManyCorruptObjects(_) => TaskErrorKind::Invalid,
            Self::Store(_) | Self::Gone(_) | Self::TempFile(_) | Self::VerificationFailed(_) | Self::Bucket(_) => {
                TaskErrorKind::Failed
            }
        }
    }

    /// A part of the objects may have been merged.
    fn is_rejection(&self) -> bool {
        matches!(self, Self::ArchiveOff(_))
    }
}

impl From<ObjectReadError> for MergeError {
    fn from(unread: ObjectReadError) -> Self {
        match unread {
            ObjectReadError::Store(error) => Self::Store(error),
            ObjectReadError::NotFound(key) => Self::Gone(key),
        }
    }
}

/// Output format of a merge: NDJSON or Parquet.
pub(super) trait OutputFormat {
    /// A part that is being written.
    type Part;

    fn begin(&self) -> Result<Self::Part, MergeError>;

    /// Adds a row; returns the size of the part's content so far, in bytes.
    fn push(&self, part: &mut Self::Part, row: &ArchivedRow) -> Result<u64, MergeError>;

    /// Uploads the part with this index and reads it back. `is_last` marks the last part, whose existence shows that
    /// the output is complete.
    fn put(&self, part: Self::Part, position: u32, is_last: bool) -> Result<MergeOutput, MergeError>;
}

/// An object that was written and read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MergeOutput {
    pub(super) key: String,
    pub(super) rows: u64,
}

/// A merge: its inputs, its target size and its deadline.
pub(super) struct MergeJob {
    pub(super) store: ArchiveStore,
    pub(super) key_names: KeyNames,
    pub(super) runs: Vec<SortedRun>,
    /// The target size of a part's content in bytes.
    pub(super) target_bytes: u64,
    pub(super) deadline: Instant,
}

/// Result of a merge.
pub(super) enum MergeResult {
    Complete {
        outputs: Vec<MergeOutput>,
        rows: u64,
        repeated: u64,
    },
    /// An input is corrupt.
    Corrupt(CorruptObject),
    /// The deadline was reached.
    Stopped,
}

impl MergeJob {
    /// Runs the merge on a thread that may block.
    pub(super) async fn run<K: OutputFormat + Send + 'static>(self, kind: K) -> Result<MergeResult, MergeError> {
        let runtime = Handle::current();
        let merging = tokio::task::spawn_blocking(move || self.merge(&kind, &runtime));
        merging.await.map_err(|error| MergeError::TempFile(io::Error::other(error)))?
    }

    fn merge<K: OutputFormat>(self, kind: &K, runtime: &Handle) -> Result<MergeResult, MergeError> {
        let names = Arc::new(self.key_names);
        let chain = |run: SortedRun| ChainedReader::new(run, self.store.clone(), Arc::clone(&names), runtime.clone());
        let mut merge = MergeIterator::new(self.runs.into_iter().map(chain).collect());
        let (mut outputs, mut rows, mut position) = (Vec::new(), 0_u64, 0);
        let mut open: Option<(K::Part, u64)> = None;
        for row in &mut merge {
            let row = match row {
                Ok(row) => row,
                Err(ArchiveRowError::Corrupt(corrupt)) => return Ok(MergeResult::Corrupt(corrupt)),
                Err(ArchiveRowError::Unread(unread)) => return Err(unread.into()),
            };
            if rows.is_multiple_of(ROWS_PER_DEADLINE_CHECK) && Instant::now() >= self.deadline {
                return Ok(MergeResult::Stopped);
            }
            rows += 1;
            // A part is uploaded only when another one follows, because only then is it known not to be the last one.
            if let Some((full, _)) = open.take_if(|(_, bytes)| *bytes >= self.target_bytes) {
                outputs.push(kind.put(full, position, false)?);
                position += 1;
            }
            let (part, bytes) = match &mut open {
                Some(open) => open,
                none => none.insert((kind.begin()?, 0)),
            };
            *bytes = kind.push(part, &row)?;
        }
        if let Some((part, _)) = open {
            outputs.push(kind.put(part, position, true)?);
        }
        Ok(MergeResult::Complete { outputs, rows, repeated: merge.duplicates_dropped() })
    }
}
