//! The `DynamoDB` replica: one conditional `PutItem` for each deduplicated change.
//!
//! `BatchWriteItem` supports no conditions, and a transaction consumes twice the write capacity, so each change is a
//! request of its own, with many in flight at once. The revision guard makes all of them safe to repeat: a retry by the
//! SDK, a redelivery, and a write that arrives after its invocation has stopped waiting are rejected or change nothing.
//!
//! A written item is the source's image with `_rev`. A deleted item leaves a tombstone: its key with `_rev`,
//! `_tombstone_expires_at` (epoch seconds, the replica's TTL attribute) and, if TTL deleted it, `_deleted_by_ttl`.
//! Without the tombstone, a late delivery would restore the item.
//!
//! Pitfalls: counting a rejection by the guard as a failure (a replay would never be acknowledged), or quarantining
//! records for an error of the table (an outage would empty a stream into the failure bucket).

mod replica;
mod request;
mod role;
mod schema;
mod write_outcome;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_dynamodb_client::TableClient;
use millrace_shared::change::{Change, ChangeKind};
use millrace_shared::concurrency::for_each_until;
use millrace_shared::invocation::Invocation;
use millrace_shared::replica_item::ReservedNames;
use millrace_shared::table_reader::{IndexSchema, TableReadError, TableReader};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkName, SinkOutcome};
use crate::document::with_parameter;
use request::{EncodeError, RequestEncoder};
use role::RoleCheck;
use schema::{ReplicaSchema, ReplicaStream};
use write_outcome::WriteOutcome;

pub use role::AssumedRole;

/// The name of the replica that the variable `REPLICA_TABLE` configures.
pub const NAME: &str = "dynamodb";

/// The variable that names the table of the replica [`NAME`].
const SETTING: &str = "REPLICA_TABLE";

const UNFINISHED: &str = "not finished before the deadline";

/// The time limit of the check at start; Lambda limits the whole start to 10 seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for assuming the role, after the check of the table has failed.
const ROLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit for preparing the first write at start.
const WARM_TIMEOUT: Duration = Duration::from_secs(1);

/// A table that mirrors the source's items.
#[derive(Debug)]
pub struct DynamoDbSink {
    name: SinkName,
    /// The setting that names the table, for errors.
    setting: String,
    /// The role that the client assumes for the table.
    role: Option<AssumedRole>,
    /// The ARN of the source table, if it is known before the first batch.
    source_arn: Option<String>,
    table: TableReader,
    /// The client of the writes, whose body is the image's own bytes: decoding it into the SDK's attribute values, only
    /// to serialize them again, would cost more than everything else, and each type is a chance to change a value.
    writer: TableClient,
    in_flight: usize,
    requests: RequestEncoder,
    /// The table's schema, read once, and again after an error.
    schema: Mutex<Option<Arc<ReplicaSchema>>>,
    /// The stream of which a key has matched this schema.
    fitting: Mutex<Option<Box<str>>>,
}

impl DynamoDbSink {
    /// Creates a sink for `table`, with `in_flight` concurrent writes and tombstones that are retained for `tombstone`.
    ///
    /// The client determines connections, credentials, Region, retries and timeouts.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, in_flight: usize, tombstone: time::Duration) -> Self {
        let table = TableReader::new(client.clone(), table);
        Self {
            name: SinkName::from_static(NAME),
            setting: SETTING.to_owned(),
            role: None,
            source_arn: None,
            writer: TableClient::new(client, table.name(), in_flight),
            requests: RequestEncoder::new(table.name(), tombstone),
            table,
            in_flight: in_flight.max(1),
            schema: Mutex::new(None),
            fitting: Mutex::new(None),
        }
    }

    /// Sets the name, and the setting that names the table. The defaults are [`NAME`] and `REPLICA_TABLE`.
    #[must_use]
    pub fn with_name(self, name: SinkName, setting: String) -> Self {
        Self { name, setting, ..self }
    }

    /// Sets the role that the client assumes, so that the check at start can report a role that cannot be assumed.
    #[must_use]
    pub fn with_role(self, role: Option<AssumedRole>) -> Self {
        Self { role, ..self }
    }

    /// Sets the names of the attributes that replication adds to an item.
    #[must_use]
    pub fn with_reserved_names(self, names: ReservedNames) -> Self {
        Self { requests: self.requests.with_names(names), ..self }
    }

    /// Sets the ARN of the source table, so that the check at start rejects a replica that is the source itself.
    #[must_use]
    pub fn with_source(self, source_arn: Option<String>) -> Self {
        Self { source_arn, ..self }
    }

    /// Returns the table's schema as last read.
    async fn schema(&self) -> Result<Arc<ReplicaSchema>, TableReadError> {
        let known = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(schema) => Ok(schema),
            None => self.read_schema().await,
        }
    }

    async fn read_schema(&self) -> Result<Arc<ReplicaSchema>, TableReadError> {
        let schema = Arc::new(ReplicaSchema::read(&self.table).await?);
        *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&schema));
        Ok(schema)
    }

    /// Discards the schema, so that the next batch reads it again: the table may have been corrected by then.
    fn forget_schema(&self) {
        *self.fitting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns whether an earlier batch has shown that the keys of this stream match the table. All keys of a stream
    /// have the same schema, so a key that does not match is then the record's error, even if the batch contains no
    /// matching record.
    fn has_fitted(&self, change: &Change<'_>) -> bool {
        self.fitting.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(change.source.arn())
    }

    fn fits(&self, change: &Change<'_>) {
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if fitting.as_deref() != Some(change.source.arn()) {
            *fitting = Some(change.source.arn().into());
        }
    }

    /// Describes an error by the name of the setting to correct.
    fn describe_error(&self, fault: &TableReadError) -> String {
        format!("{} {} {}", self.setting, fault.table, fault.reason)
    }

    /// Checks, after the table could not be described, whether the role is the reason.
    async fn check_role(&self) -> RoleCheck {
        match &self.role {
            Some(role) => role.check(ROLE_TIMEOUT).await,
            None => RoleCheck::Usable,
        }
    }

    fn misconfigured(&self, reason: String) -> SinkMisconfiguredError {
        SinkMisconfiguredError { sink: self.name.to_string(), reason }
    }

    /// Fails if the replica is its own source: it would feed its writes back into the stream, forever.
    fn reject_self_replication(
        &self,
        schema: &ReplicaSchema,
        changes: &[&Change<'_>],
    ) -> Result<(), SinkMisconfiguredError> {
        if changes.iter().any(|change| change.source.table_arn() == schema.arn) {
            return Err(self.misconfigured(self.self_replication(schema)));
        }
        Ok(())
    }

    fn self_replication(&self, schema: &ReplicaSchema) -> String {
        format!(
            "the replica {} is the source table: set {} to another table; millrace attach {} --replica-table ARN \
             checks it and writes the files to deploy",
            schema.arn,
            with_parameter(&self.setting),
            schema.arn
        )
    }

    /// Fails if the source is fed by this replica: an item of the source carries a revision of the replica's own
    /// stream, so another replicator reads that stream and writes to the source.
    ///
    /// Such a record would be quarantined, because the revision is a reserved attribute, and every other record of that
    /// replicator, too.
    fn reject_loop(&self, schema: &ReplicaSchema, changes: &[&Change<'_>]) -> Result<(), SinkMisconfiguredError> {
        let Some(ReplicaStream { arn: stream_arn, label }) = &schema.stream else { return Ok(()) };
        let is_fed = |change: &&&Change<'_>| {
            self.requests.carried_revision(change).is_some_and(|revision| revision.label() == *label)
        };
        let Some(change) = changes.iter().find(is_fed) else { return Ok(()) };
        let region = stream_arn.split(':').nth(3).unwrap_or_default();
        Err(self.misconfigured(format!(
            "the replica {} feeds the source: an item of {} carries {} with a revision of the replica's stream \
             {stream_arn}, so another replicator writes the replica's changes to the source, and they would be \
             replicated in a loop: find its event source mapping with aws lambda list-event-source-mappings --region \
             {region} --event-source-arn {stream_arn}, and delete it with aws lambda delete-event-source-mapping --region \
             {region} --uuid UUID, or set {} to another table. If that replication has ended, set {} to another \
             prefix, such as mr_",
            schema.arn,
            change.source.table_arn(),
            self.requests.names().revision,
            with_parameter(&self.setting),
            with_parameter("RESERVED_PREFIX")
        )))
    }

    /// Returns an error if the table's key schema is not that of the record's key.
    fn key_mismatch(&self, schema: &ReplicaSchema, change: &Change<'_>) -> Option<String> {
        let error = schema.check_key(change.key.text()).err()?;
        Some(format!(
            "{error}: set {} to a table with the key schema of the source, which aws dynamodb describe-table \
             --table-name {} --query 'Table.[KeySchema,AttributeDefinitions]' prints",
            with_parameter(&self.setting),
            change.source.table()
        ))
    }

    async fn write(&self, change: &Change<'_>, misfit: Option<&String>, invocation: &Invocation) -> WriteOutcome {
        if let Some(misfit) = misfit {
            return WriteOutcome::Permanent(format!(
                "the record's key schema differs from that of the batch's other records: {misfit}"
            ));
        }
        let body = match self.requests.put(change, invocation.now) {
            Ok(body) => body,
            Err(EncodeError::View) => return WriteOutcome::Fault(EncodeError::View.to_string()),
            Err(poison) => return WriteOutcome::Permanent(poison.to_string()),
        };
        match self.writer.put_item(body).await {
            Ok(()) => WriteOutcome::Applied,
            Err(error) => match write_outcome::from_error(&error, change.revision, &self.requests.names().revision) {
                WriteOutcome::KeyRefused(reason) => Box::pin(self.classify_key_mismatch(change, &reason)).await,
                verdict => verdict,
            },
        }
    }

    /// Decides on a key that the table rejects although its schema, as last read, accepts it: either the table was
    /// recreated with another key schema, which is an error of the table, or the image does not contain the key that
    /// its record names.
    async fn classify_key_mismatch(&self, change: &Change<'_>, reason: &str) -> WriteOutcome {
        match self.read_schema().await.map(|schema| self.key_mismatch(&schema, change)) {
            Ok(None) => {
                WriteOutcome::Permanent(format!("the image does not contain the key that its record names: {reason}"))
            }
            Ok(Some(mismatch)) => WriteOutcome::Fault(mismatch),
            Err(fault) => WriteOutcome::Fault(self.describe_error(&fault)),
        }
    }

    async fn apply_all(
        &self,
        batch: DeduplicatedBatch<'_>,
        invocation: &Invocation,
    ) -> Result<SinkOutcome, SinkMisconfiguredError> {
        let changes = batch.latest_per_key;
        let schema = tokio::select! {
            // The deadline is polled first, because a schema that was read before is always ready.
            biased;
            () = sleep_until(invocation.deadline) => Err(UNFINISHED.to_owned()),
            schema = self.schema() => schema.map_err(|fault| self.describe_error(&fault)),
        };
        let schema = match schema {
            Ok(schema) => schema,
            Err(reason) => return Ok(SinkOutcome::all_failed(changes, &reason)),
        };
        self.reject_self_replication(&schema, batch.changes)?;
        self.reject_loop(&schema, batch.changes)?;
        let misfit = |change: &&Change<'_>| self.key_mismatch(&schema, change);
        let misfits: Vec<Option<String>> = changes.iter().map(misfit).collect();
        if let (Some(first), Some(Some(misfit))) = (changes.first(), misfits.first())
            && misfits.iter().all(Option::is_some)
            && !self.has_fitted(first)
        {
            self.forget_schema();
            return Ok(SinkOutcome::all_failed(changes, misfit));
        }
        if let Some(position) = misfits.iter().position(Option::is_none) {
            self.fits(changes[position]);
        }
        let mut tally = OutcomeBuilder { changes, outcome: SinkOutcome::default() };
        let mut fault = None;
        let write = |position: usize| self.write(changes[position], misfits[position].as_ref(), invocation);
        let writes =
            for_each_until(invocation.deadline, self.in_flight, 0..changes.len(), write, |position, verdict| {
                if let WriteOutcome::Fault(reason) = &verdict {
                    fault = Some(reason.clone());
                }
                tally.count(position, verdict);
                // An error of the table ends the batch. The writes in flight are dropped; if one of them still arrives,
                // the guard makes its redelivery a duplicate.
                if fault.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        let unfinished = writes.await;
        if fault.is_some() {
            self.forget_schema();
        }
        Ok(tally.close(&unfinished, fault.as_deref().unwrap_or(UNFINISHED)))
    }
}

impl Sink for DynamoDbSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            let reason = match timeout(CHECK_TIMEOUT, self.read_schema()).await {
                Ok(Ok(schema)) if self.source_arn.as_ref() == Some(&schema.arn) => {
                    return Err(self.misconfigured(self.self_replication(&schema)));
                }
                Ok(Ok(_)) => {
                    // A start that takes longer than this continues without a connection.
                    let _ = timeout(WARM_TIMEOUT, self.writer.warm()).await;
                    return Ok(());
                }
                Ok(Err(fault)) => match self.check_role().await {
                    RoleCheck::Usable if !fault.retryable => {
                        return Err(self.misconfigured(format!(
                            "{}: set {} to a table that exists, which aws dynamodb describe-table --table-name {} \
                             describes, and allow dynamodb:DescribeTable and dynamodb:PutItem on it",
                            self.describe_error(&fault),
                            with_parameter(&self.setting),
                            self.table.name()
                        )));
                    }
                    RoleCheck::Usable => self.describe_error(&fault),
                    RoleCheck::Denied(reason) => return Err(self.misconfigured(reason)),
                    RoleCheck::Unknown(reason) => reason,
                },
                // A network without a route drops the packets, so neither DynamoDB nor STS returns an error.
                Err(_) => match self.check_role().await {
                    RoleCheck::Usable => format!(
                        "{} {} did not respond to DescribeTable in time: a function in a network (VPC) needs a route \
                         to DynamoDB in the table's Region, and reaches another Region only through a NAT gateway",
                        self.setting,
                        self.table.name()
                    ),
                    RoleCheck::Denied(reason) => return Err(self.misconfigured(reason)),
                    RoleCheck::Unknown(reason) => reason,
                },
            };
            tracing::warn!(
                sink = %self.name,
                error = reason,
                "the replica was not checked at start: the first batch repeats the check"
            );
            Ok(())
        }
        .boxed()
    }

    fn load_shape(&self, deadline: Instant) -> BoxFuture<'_, Result<(), String>> {
        async move {
            match timeout_at(deadline, self.schema()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(fault)) => Err(self.describe_error(&fault)),
                Err(_) => Err(format!("{} did not respond to DescribeTable in time", self.table.name())),
            }
        }
        .boxed()
    }

    fn key_names(&self) -> Option<Vec<String>> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(schema.key.iter().map(|(name, _)| name.clone()).collect())
    }

    fn indexes(&self) -> Vec<IndexSchema> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        schema.map(|schema| schema.indexes.clone()).unwrap_or_default()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.apply_all(batch, invocation).boxed()
    }
}

/// The outcome of the deduplicated changes so far.
struct OutcomeBuilder<'b> {
    changes: &'b [&'b Change<'b>],
    outcome: SinkOutcome,
}

impl OutcomeBuilder<'_> {
    fn count(&mut self, position: usize, verdict: WriteOutcome) {
        let (change, outcome) = (self.changes[position], &mut self.outcome);
        let kind = match verdict {
            WriteOutcome::Applied => {
                outcome.applied += 1;
                outcome.tombstones += usize::from(matches!(change.effect, ChangeKind::Remove { .. }));
                return;
            }
            WriteOutcome::Duplicate => return outcome.duplicate += 1,
            WriteOutcome::Stale => return outcome.stale += 1,
            WriteOutcome::Permanent(reason) => FailureKind::Permanent(reason),
            WriteOutcome::Transient(reason) | WriteOutcome::Fault(reason) | WriteOutcome::KeyRefused(reason) => {
                FailureKind::Transient(reason)
            }
        };
        outcome.failures.push(FailedChange { index: change.index, kind });
    }

    /// Returns the outcome, in which the changes at the positions `open` failed for `reason`.
    fn close(mut self, open: &[usize], reason: &str) -> SinkOutcome {
        self.outcome.failures.extend(open.iter().map(|position| FailedChange {
            index: self.changes[*position].index,
            kind: FailureKind::Transient(reason.to_owned()),
        }));
        self.outcome
    }
}
