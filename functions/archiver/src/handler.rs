//! The processing of a stream batch: parse the event, select rows, put objects, return the response.
//!
//! The rows are selected and written by [`millrace_archive`], for both the archiver and the replicator's archive sink;
//! here the records that can never be archived are quarantined.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use futures::future::join;
use millrace_shared::change::OtherTableError;
use millrace_shared::checkpoint::{self, MissingSequenceNumberError};
use millrace_shared::concurrency::for_each_until;
use millrace_shared::invocation::Invocation;
use millrace_shared::metric;
use millrace_shared::quarantine::{CONTRADICTING, Quarantine, QuarantineError};
use millrace_shared::stream::{BatchResponse, EventParseError, StreamRecord};
use serde_json::value::RawValue;
use tokio::time::Instant;

use millrace_archive::writer::{ArchiveWriter, WriteOutcome};
use millrace_archive::{ArchiveBatch, MissingOldImageError, RejectedRecord};

/// The sink name in the key of a quarantined record, where the replicator uses a replica's name.
const SINK: &str = "s3";
/// Maximum number of concurrent puts to the failure bucket: a batch may contain many poison records.
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
    /// The event source mapping reads the stream of another table than the configured one.
    #[error(transparent)]
    OtherTable(#[from] OtherTableError),
    /// A put failed and the record has no sequence number to report.
    #[error(transparent)]
    Position(#[from] MissingSequenceNumberError),
}

impl ArchiverError {
    /// Returns the name that Lambda shows as `errorType`; docs/operations.md lists them.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Event(_) => "NotAStreamEvent",
            Self::Mapping(_) => "StreamViewWithoutImages",
            Self::OtherTable(_) => "StreamOfAnotherTable",
            // A readable record always has a sequence number, so this is an unreadable one that could not be written to
            // the failure bucket.
            Self::Position(_) => "QuarantineUnavailable",
        }
    }
}

/// Archives batches.
#[derive(Debug, Clone)]
pub struct ArchiverHandler {
    writer: ArchiveWriter,
    quarantine: Quarantine,
    /// The ARN of the source table, if it is configured.
    source_arn: Option<String>,
}

/// The result of quarantining the records that can never be archived.
#[derive(Debug, Default)]
struct QuarantineOutcome {
    quarantined: u64,
    /// The indexes in the batch of the records that are not in quarantine.
    failing: Vec<usize>,
    /// The first error.
    error: Option<QuarantineError>,
}

impl ArchiverHandler {
    /// Creates an archiver that writes with this writer.
    #[must_use]
    pub fn new(writer: ArchiveWriter, quarantine: Quarantine) -> Self {
        Self { writer, quarantine, source_arn: None }
    }

    /// Sets the ARN of the source table: a batch of another table's stream is refused.
    #[must_use]
    pub fn with_source(self, source_arn: Option<String>) -> Self {
        Self { source_arn, ..self }
    }

    /// Archives a batch. If S3 has not confirmed all of it by the deadline, the response contains the position to retry
    /// from.
    ///
    /// # Errors
    /// [`ArchiverError`] if Lambda must redeliver the whole batch.
    pub async fn handle(&self, event: &RawValue, invocation: &Invocation) -> Result<BatchResponse, ArchiverError> {
        self.handle_payload(event.get().as_bytes(), invocation).await
    }

    /// Like [`ArchiverHandler::handle`], for the bytes of a payload.
    ///
    /// # Errors
    /// As [`ArchiverHandler::handle`].
    pub async fn handle_payload(
        &self,
        payload: &[u8],
        invocation: &Invocation,
    ) -> Result<BatchResponse, ArchiverError> {
        let handled = self.handle_batch(payload, invocation).await;
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

    async fn handle_batch(&self, payload: &[u8], invocation: &Invocation) -> Result<BatchResponse, ArchiverError> {
        let batch = millrace_shared::stream::read_bytes(payload)?;
        batch.check_table(self.source_arn.as_deref())?;
        let records = batch.records.as_slice();
        let ArchiveBatch { partitions, unarchivable, skipped } = millrace_archive::rows_from_removals(records)?;
        let (written, quarantined) = join(
            self.writer.write_all(partitions, invocation.deadline),
            self.quarantine_records(records, unarchivable, invocation.deadline),
        )
        .await;
        let unarchived = written.unconfirmed.iter().flat_map(|object| &object.records);
        let failing: BTreeSet<usize> = unarchived.chain(&quarantined.failing).copied().collect();
        let response = checkpoint::batch_response(records, failing.iter().copied());
        metric::QUARANTINED.increment([], quarantined.quarantined);
        metric::PARTIAL_BATCH_FAILURES.increment([], u64::from(!failing.is_empty()));
        report(&invocation.request_id, records.len(), skipped, &written, &quarantined, failing.len(), &response);
        Ok(response?)
    }

    /// Quarantines the records that can never be archived, until the deadline.
    async fn quarantine_records(
        &self,
        records: &[StreamRecord<'_>],
        rejected: Vec<RejectedRecord>,
        deadline: Instant,
    ) -> QuarantineOutcome {
        let indexes: Vec<usize> = rejected.iter().map(|record| record.index).collect();
        let (mut outcome, mut failed) = (QuarantineOutcome::default(), Vec::new());
        let put = |record| self.quarantine_record(record, records);
        let puts = for_each_until(deadline, PUTS_IN_FLIGHT, rejected, put, |index, put| {
            match put {
                Ok(()) => outcome.quarantined += 1,
                Err(error) => {
                    failed.push(index);
                    outcome.error.get_or_insert(error);
                }
            }
            ControlFlow::Continue(())
        });
        let unfinished = puts.await;
        outcome.failing = unfinished.into_iter().chain(failed).map(|index| indexes[index]).collect();
        outcome
    }

    async fn quarantine_record(
        &self,
        rejected: RejectedRecord,
        records: &[StreamRecord<'_>],
    ) -> Result<(), QuarantineError> {
        let RejectedRecord { index, reason, contradicts } = rejected;
        let sink = if contradicts { CONTRADICTING } else { SINK };
        self.quarantine.put(sink, &records[index], &reason).await
    }
}

/// Logs one entry for the batch.
fn report(
    request_id: &str,
    records: usize,
    skipped: usize,
    written: &WriteOutcome,
    quarantined: &QuarantineOutcome,
    failing: usize,
    response: &Result<BatchResponse, MissingSequenceNumberError>,
) {
    let totals = written.totals;
    if failing == 0 {
        tracing::info!(
            request_id,
            batch.records = records,
            batch.skipped = skipped,
            archive.objects = totals.objects,
            archive.rows = totals.rows,
            archive.bytes = totals.bytes,
            batch.quarantined = quarantined.quarantined,
            "batch archived"
        );
        return;
    }
    let unarchived = written.unconfirmed.first().map(|object| object.error.to_string());
    let error = unarchived.or_else(|| quarantined.error.as_ref().map(ToString::to_string));
    tracing::warn!(
        request_id,
        batch.records = records,
        batch.skipped = skipped,
        archive.objects = totals.objects,
        archive.rows = totals.rows,
        archive.bytes = totals.bytes,
        batch.quarantined = quarantined.quarantined,
        batch.quarantine_failed = quarantined.failing.len(),
        batch.failed = failing,
        batch.retry_from_sequence = response.as_ref().ok().and_then(BatchResponse::identifier),
        batch.retry_all = response.is_err(),
        error = error.unwrap_or_else(|| "the deadline has passed".to_owned()),
        "batch not fully processed"
    );
}
