//! Writes the rows of a batch to the bucket: [`ArchiveWriter`], which the archiver, the replicator's archive sink and a
//! redrive share.
//!
//! The object of an hour is named by its rows, so a batch that is written again overwrites its own objects. A row counts
//! as archived only when S3 has confirmed its object.

use std::io;
use std::ops::ControlFlow;

use millrace_shared::concurrency::for_each_until;
use millrace_shared::metric;
use tokio::time::Instant;

use super::store::{ArchiveStore, StoreError};
use super::{ArchiveHour, ArchiveRow, Compression, EncodedObject, HourPartition};

/// Maximum number of concurrent puts to S3. A batch is usually one object, or a few after an outage.
const PUTS_IN_FLIGHT: usize = 16;

/// The reason why an object is not confirmed. All of these errors are temporary: Lambda redelivers the records.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveWriteError {
    /// The object cannot be encoded.
    #[error("cannot create the object: {0}")]
    Object(#[from] io::Error),
    /// S3 did not confirm the object.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object was not confirmed before the deadline.
    #[error("the deadline has passed")]
    Deadline,
}

/// Totals of the confirmed objects.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct WriteTotals {
    /// Number of objects.
    pub objects: u64,
    /// Number of rows in them.
    pub rows: u64,
    /// Their size, compressed, in bytes.
    pub bytes: u64,
}

/// The result of writing the rows of a batch.
#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// The confirmed part.
    pub totals: WriteTotals,
    /// The objects that S3 has not confirmed.
    pub unconfirmed: Vec<UnconfirmedObject>,
}

/// An object that S3 has not confirmed. It may have been stored.
#[derive(Debug)]
pub struct UnconfirmedObject {
    /// The index in the batch of each of its records.
    pub records: Vec<usize>,
    /// The reason.
    pub error: ArchiveWriteError,
}

/// Writes archive objects.
#[derive(Debug, Clone)]
pub struct ArchiveWriter {
    store: ArchiveStore,
    compression: Compression,
}

impl ArchiveWriter {
    /// Creates a writer of objects with this compression.
    #[must_use]
    pub fn new(store: ArchiveStore, compression: Compression) -> Self {
        Self { store, compression }
    }

    /// Returns the store that the objects are written to.
    #[must_use]
    pub fn store(&self) -> &ArchiveStore {
        &self.store
    }

    /// Writes one object for each partition, until the deadline. An object is encoded only when its put starts, so only
    /// the objects in flight are in memory.
    pub async fn write_all(&self, partitions: Vec<HourPartition<'_>>, deadline: Instant) -> WriteOutcome {
        let records: Vec<Vec<usize>> = partitions.iter().map(|partition| partition.records.clone()).collect();
        let (mut totals, mut failed) = (WriteTotals::default(), Vec::new());
        let write = |partition| self.write_partition(partition);
        let puts = for_each_until(deadline, PUTS_IN_FLIGHT, partitions, write, |index, outcome| {
            match outcome {
                Ok(object) => totals.add(object),
                Err(error) => {
                    failed.push((index, error));
                }
            }
            ControlFlow::Continue(())
        });
        let unfinished = puts.await;
        totals.count();
        let late = unfinished.into_iter().map(|index| (index, ArchiveWriteError::Deadline));
        let unconfirmed = failed.into_iter().chain(late);
        let unconfirmed =
            unconfirmed.map(|(index, error)| UnconfirmedObject { records: records[index].clone(), error }).collect();
        WriteOutcome { totals, unconfirmed }
    }

    async fn write_partition(&self, partition: HourPartition<'_>) -> Result<WriteTotals, ArchiveWriteError> {
        let HourPartition { table, hour, rows, .. } = partition;
        self.write(table, hour, rows).await
    }

    /// Writes one table's rows of one hour as an object. When this returns, S3 has confirmed it.
    ///
    /// # Errors
    /// [`ArchiveWriteError`] if the object may not have been stored.
    pub async fn write(
        &self,
        table: &str,
        hour: ArchiveHour,
        rows: Vec<ArchiveRow<'_>>,
    ) -> Result<WriteTotals, ArchiveWriteError> {
        let EncodedObject { key, description, bytes } = super::write(table, hour, rows, self.compression)?;
        let (size, metadata) = (bytes.len() as u64, description.encode().map_err(io::Error::other)?);
        self.store.put(&key.to_string(), bytes, description.sha256, metadata).await?;
        Ok(WriteTotals { objects: 1, rows: description.rows, bytes: size })
    }
}

impl WriteTotals {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }

    fn count(self) {
        metric::ARCHIVED_ROWS.increment([], self.rows);
        metric::ARCHIVED_BYTES.increment([], self.bytes);
    }
}
