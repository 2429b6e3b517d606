//! The archive of expired items as a sink, for a table whose stream has no room for a second reader: [`ArchiveSink`].
//!
//! The sink selects and writes rows with the code of the archiver ([`millrace_archive::writer`]): every TTL removal of
//! the batch is a row, also one that a later change of the batch superseded, and nothing else is. A removal is confirmed
//! only after S3 has confirmed its object. The objects are named by their rows, so a batch that is delivered again
//! overwrites its own objects; if it comes in another composition, readers of the archive drop the repeated rows.
//!
//! Pitfall: reporting only the deduplicated changes as failed. Of an item that expired and was created again in one
//! batch, the deduplicated change is the creation; its position is above the removal's, which would be acknowledged
//! without being archived.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_archive::writer::ArchiveWriter;
use millrace_archive::{ArchiveBatch, MissingOldImageError, require_old_images, rows_from_changes};
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::invocation::Invocation;
use millrace_shared::s3::BucketState;
use tokio::time::timeout;

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};

/// The sink's name.
pub const NAME: &str = "archive";

/// The environment variable of the replicator that enables the sink and names the bucket.
pub const SETTING: &str = "ARCHIVE_BUCKET";

/// The check must not use up the time that Lambda allows for the start.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A sink that archives the items that TTL removes.
#[derive(Debug)]
pub struct ArchiveSink {
    writer: ArchiveWriter,
}

impl ArchiveSink {
    /// Creates a sink that writes with this writer.
    #[must_use]
    pub fn new(writer: ArchiveWriter) -> Self {
        Self { writer }
    }

    async fn archive(
        &self,
        changes: &[&Change<'_>],
        invocation: &Invocation,
    ) -> Result<SinkOutcome, SinkMisconfiguredError> {
        require_old_images(changes).map_err(|error| misconfigured(wrong_view(&error)))?;
        let selection = rows_from_changes(changes).map_err(|error| misconfigured(wrong_view(&error)))?;
        let ArchiveBatch { partitions, unarchivable, .. } = selection;
        let removals: usize = partitions.iter().map(|partition| partition.records.len()).sum();
        let written = self.writer.write_all(partitions, invocation.deadline).await;
        let mut failures = Vec::new();
        for object in written.unconfirmed {
            let kind = FailureKind::Transient(object.error.to_string());
            failures.extend(object.records.into_iter().map(|index| FailedChange { index, kind: kind.clone() }));
        }
        let applied = removals - failures.len();
        let permanent = |reason| FailureKind::Permanent(reason);
        let rejected = unarchivable.into_iter();
        failures.extend(rejected.map(|record| FailedChange { index: record.index, kind: permanent(record.reason) }));
        Ok(SinkOutcome { applied, failures, ..SinkOutcome::default() })
    }

    async fn check_bucket(&self) -> Result<(), SinkMisconfiguredError> {
        let bucket = self.writer.store().bucket();
        let error = match timeout(CHECK_TIMEOUT, self.writer.store().state()).await {
            Ok(BucketState::Present) => return Ok(()),
            Ok(BucketState::Absent) => {
                return Err(misconfigured(format!(
                    "{SETTING} is {bucket:?}, which does not exist: create the bucket, or set {SETTING} to the name of \
                     the archive bucket"
                )));
            }
            Ok(BucketState::OtherRegion) => {
                return Err(misconfigured(format!(
                    "{SETTING} is {bucket:?}, which is in another Region: set {SETTING} to a bucket in the Region of \
                     the function"
                )));
            }
            Ok(BucketState::Denied) => format!("{SETTING} {bucket}: allow s3:ListBucket on it"),
            Ok(BucketState::Unknown(error)) => format!("{SETTING} {error}"),
            Err(_) => format!("{SETTING} {bucket} did not respond in time"),
        };
        tracing::warn!(sink = NAME, error, "the bucket was not checked at start: batches are archived all the same");
        Ok(())
    }
}

fn misconfigured(reason: String) -> SinkMisconfiguredError {
    SinkMisconfiguredError { sink: NAME.to_owned(), reason }
}

fn wrong_view(error: &MissingOldImageError) -> String {
    format!("{error}; or unset {SETTING}")
}

impl Sink for ArchiveSink {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Verifies that the bucket exists, in this Region.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        self.check_bucket().boxed()
    }

    /// The outcome counts the TTL removals of the batch, and no other change.
    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.archive(batch.changes, invocation).boxed()
    }

    /// Returns the TTL removals, including superseded ones.
    fn required_changes<'b>(&self, batch: DeduplicatedBatch<'b>) -> Vec<&'b Change<'b>> {
        let is_expiry = |change: &&Change<'_>| matches!(change.effect, ChangeKind::Remove { expired: true, .. });
        batch.changes.iter().copied().filter(is_expiry).collect()
    }
}
