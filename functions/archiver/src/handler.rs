//! The processing of a stream batch: parse the event, select rows, put objects, return the response.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use millrace_shared::checkpoint::{self, MissingSequenceNumber};
use millrace_shared::concurrency::for_each_until;
use millrace_shared::invocation::Invocation;
use millrace_shared::metric;
use millrace_shared::quarantine::{CONTRADICTING, ObjectNaming, Quarantine, QuarantineError};
use millrace_shared::stream::{BatchResponse, EventParseError, StreamRecord};
use serde_json::value::RawValue;

use millrace_archive::store::{ArchiveStore, StoreError};
use millrace_archive::{ArchiveBatch, Compression, EncodedObject, HourPartition, MissingOldImageError, RejectedRecord};

/// The sink name in the key of a quarantined record, where the replicator uses a replica's name.
const SINK: &str = "s3";
/// Maximum number of concurrent puts to S3. A batch is usually one object, or a few after an outage; it may contain
/// many poison records.
const PUTS_IN_FLIGHT: usize = 16;

/// The error of a failed invocation; Lambda redelivers the whole batch.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverError {
    /// The payload is not a stream batch.
    #[error(transparent)]
    Event(#[from] EventParseError),
    /// The event source mapping's stream does not carry the images that the archive needs.
    #[error(transparent)]
    Mapping(#[from] MissingOldImageError),
    /// A put failed and the record has no sequence number to report.
    #[error(transparent)]
    Position(#[from] MissingSequenceNumber),
}

impl ArchiverError {
    /// Returns the name that Lambda shows as `errorType`; docs/operations.md lists them.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Event(_) => "NotAStreamEvent",
            Self::Mapping(_) => "StreamViewWithoutImages",
            // A readable record always has a sequence number, so this is an unreadable one that could not be written to
            // the failure bucket.
            Self::Position(_) => "QuarantineUnavailable",
        }
    }
}

/// Archives batches.
#[derive(Debug, Clone)]
pub struct ArchiverHandler {
    store: ArchiveStore,
    quarantine: Quarantine,
    compression: Compression,
}

/// The reason why a put is not confirmed. All of these errors are temporary: Lambda redelivers the records.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error("cannot create the object: {0}")]
    Object(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

/// One put: an object of rows, or a record to quarantine.
enum PutJob<'a> {
    Archive(HourPartition<'a>),
    Quarantine(RejectedRecord),
}

impl PutJob<'_> {
    /// The index in the batch to retry from if this put fails; no two jobs share one.
    fn place(&self) -> usize {
        match self {
            Self::Archive(partition) => partition.lowest,
            Self::Quarantine(record) => record.index,
        }
    }

    fn pending(&self) -> PendingPuts {
        match self {
            Self::Archive(partition) => PendingPuts { records: partition.rows.len(), is_quarantine: false },
            Self::Quarantine(_) => PendingPuts { records: 1, is_quarantine: true },
        }
    }
}

/// A put that S3 has not confirmed.
#[derive(Debug, Clone, Copy)]
struct PendingPuts {
    /// Number of stream records in the put.
    records: usize,
    is_quarantine: bool,
}

/// Totals of the confirmed puts.
#[derive(Debug, Default, Clone, Copy)]
struct PutStats {
    objects: u64,
    rows: u64,
    bytes: u64,
    quarantined: u64,
}

impl ArchiverHandler {
    /// Creates an archiver that writes to this store.
    #[must_use]
    pub fn new(store: ArchiveStore, quarantine: Quarantine, compression: Compression) -> Self {
        Self { store, quarantine, compression }
    }

    /// Archives a batch. If S3 has not confirmed all of it by the deadline, the response contains the position to retry
    /// from.
    ///
    /// # Errors
    /// [`ArchiverError`] if Lambda must redeliver the whole batch.
    pub async fn handle(&self, event: &RawValue, invocation: &Invocation) -> Result<BatchResponse, ArchiverError> {
        let handled = self.handle_batch(event, invocation).await;
        handled.inspect_err(|fault| {
            tracing::error!(
                request_id = invocation.request_id,
                batch.retry_all = true,
                error.kind = fault.name(),
                error = %fault,
                "batch failed"
            );
        })
    }

    async fn handle_batch(&self, event: &RawValue, invocation: &Invocation) -> Result<BatchResponse, ArchiverError> {
        let batch = millrace_shared::stream::read(event)?;
        let records = batch.records.as_slice();
        let ArchiveBatch { partitions, unarchivable, skipped } = millrace_archive::rows_from_removals(records)?;
        let tasks = partitions.into_iter().map(PutJob::Archive);
        let tasks: Vec<_> = tasks.chain(unarchivable.into_iter().map(PutJob::Quarantine)).collect();

        let pending: Vec<(usize, PendingPuts)> = tasks.iter().map(|task| (task.place(), task.pending())).collect();
        let mut done = PutStats::default();
        let (mut failed, mut failure) = (Vec::new(), None);
        // An object is encoded only when its put starts, so only the objects in flight are in memory.
        let perform = |task| self.perform(task, records);
        let puts = for_each_until(invocation.deadline, PUTS_IN_FLIGHT, tasks, perform, |index, outcome| {
            match outcome {
                Ok(confirmed) => done.add(confirmed),
                Err(error) => {
                    failed.push(index);
                    failure.get_or_insert(error);
                }
            }
            ControlFlow::Continue(())
        });
        let unfinished = puts.await;
        let unconfirmed: BTreeMap<usize, PendingPuts> =
            unfinished.into_iter().chain(failed).map(|index| pending[index]).collect();

        let answer = checkpoint::batch_response(records, unconfirmed.keys().copied());
        done.count();
        metric::PARTIAL_BATCH_FAILURES.increment([], u64::from(!unconfirmed.is_empty()));
        report(&invocation.request_id, records.len(), skipped, done, &unconfirmed, failure, &answer);
        Ok(answer?)
    }

    async fn perform(&self, task: PutJob<'_>, records: &[StreamRecord<'_>]) -> Result<PutStats, PutError> {
        match task {
            PutJob::Archive(partition) => self.archive(partition).await,
            PutJob::Quarantine(RejectedRecord { index, reason, contradicts }) => {
                let (sink, naming) =
                    if contradicts { (CONTRADICTING, ObjectNaming::Content) } else { (SINK, naming(index, records)) };
                let put = self.quarantine.put(sink, &records[index], naming, &reason).await;
                put.map(|()| PutStats { quarantined: 1, ..PutStats::default() }).map_err(Into::into)
            }
        }
    }

    async fn archive(&self, partition: HourPartition<'_>) -> Result<PutStats, PutError> {
        let EncodedObject { key, description, bytes } =
            millrace_archive::write(partition.table, partition.hour, partition.rows, self.compression)?;
        let (size, metadata) = (bytes.len() as u64, description.encode().map_err(io::Error::other)?);
        self.store.put(&key.to_string(), bytes, description.sha256, metadata).await?;
        Ok(PutStats { objects: 1, rows: description.rows, bytes: size, ..PutStats::default() })
    }
}

/// Returns the naming scheme of a quarantined record. It includes the content if an earlier, different record of the
/// batch has the same sequence number, because that record may be in quarantine under the position.
fn naming(index: usize, records: &[StreamRecord<'_>]) -> ObjectNaming {
    let (record, earlier) = (&records[index], &records[..index]);
    let is_namesake = |other: &StreamRecord<'_>| {
        other.number.is_some() && other.number == record.number && other.raw.get() != record.raw.get()
    };
    if earlier.iter().any(is_namesake) { ObjectNaming::Content } else { ObjectNaming::Position }
}

impl PutStats {
    fn add(&mut self, other: Self) {
        self.objects += other.objects;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.quarantined += other.quarantined;
    }

    fn count(self) {
        metric::ARCHIVED_ROWS.increment([], self.rows);
        metric::ARCHIVED_BYTES.increment([], self.bytes);
        metric::QUARANTINED.increment([], self.quarantined);
    }
}

/// Logs one entry for the batch.
fn report(
    request_id: &str,
    records: usize,
    skipped: usize,
    done: PutStats,
    unconfirmed: &BTreeMap<usize, PendingPuts>,
    failure: Option<PutError>,
    answer: &Result<BatchResponse, MissingSequenceNumber>,
) {
    if unconfirmed.is_empty() {
        tracing::info!(
            request_id,
            batch.records = records,
            batch.skipped = skipped,
            archive.objects = done.objects,
            archive.rows = done.rows,
            archive.bytes = done.bytes,
            batch.quarantined = done.quarantined,
            "batch archived"
        );
        return;
    }
    let error = failure.map_or_else(|| "the deadline has passed".to_owned(), |failure| failure.to_string());
    tracing::warn!(
        request_id,
        batch.records = records,
        batch.skipped = skipped,
        archive.objects = done.objects,
        archive.rows = done.rows,
        archive.bytes = done.bytes,
        batch.quarantined = done.quarantined,
        batch.quarantine_failed = unconfirmed.values().filter(|pending| pending.is_quarantine).count(),
        batch.failed = unconfirmed.values().map(|pending| pending.records).sum::<usize>(),
        batch.retry_from_sequence = answer.as_ref().ok().and_then(BatchResponse::identifier),
        batch.retry_all = answer.is_err(),
        error,
        "batch not fully processed"
    );
}
