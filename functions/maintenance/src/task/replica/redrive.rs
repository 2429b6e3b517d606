//! Processes failed records again after the cause of the failure has been fixed: records of the replicator by
//! reconciling their keys, records of the archiver by archiving them.
//!
//! A record of the replicator is never applied as it is: its image may be outdated, and its item may have been deleted
//! since. Instead, its key is reconciled in every sink: the source's state is written with a revision above the
//! record's own, which is correct whatever the record's age. A record of the archiver becomes a row of the archive: an
//! item that TTL removed stays removed, and readers deduplicate. Running a redrive twice therefore changes nothing.
//!
//! If the archive is a sink of the replicator, a record that failed in this sink alone becomes a row, and the records
//! of a batch that failed as a whole are both reconciled and archived.
//!
//! An object that failed in a sink for which this function is not configured is skipped, as is a batch that failed as a
//! whole while the deployment has such a sink. The report names the setting that configures the sink.
//!
//! An object is moved below `redriven/` only after the effect of each of its records is confirmed. All other objects
//! stay where they are, and the report contains the reason.

mod archive;
mod replicate;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use millrace_shared::invocation::Invocation;
use millrace_shared::stream::{CONTRADICTION, StreamRecord};
use millrace_sinks::SinkName;
use millrace_sinks::archive::NAME as ARCHIVE_SINK;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::deployment::{SinksUnknownError, UnknownSinkError};
use crate::failure_bucket::{BucketError, FailureObject};
use crate::failure_record::{self, FailedFunction, FailureRecord, ON_FAILURE_PREFIX, QUARANTINE};
use crate::progress::CountOutcome;
use crate::repair::ReconcileError;
use crate::source::SourceTable;
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::error::{ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, replica_name, time};
use crate::task::task_run::TaskRun;

/// Maximum number of objects that are processed together, so that their keys are reconciled in one pass.
const OBJECTS: i32 = 100;
/// Maximum total size of the objects that are processed together. A batch in the on-failure destination may have 6 MB.
const OBJECTS_BYTES: u64 = 16 * 1024 * 1024;
const IN_FLIGHT: usize = 16;

/// Prefix of the archiver's records whose rows would overwrite others (`millrace_shared::quarantine::CONTRADICTING`).
const CONTRADICTING_ROWS: &str = "quarantine/archiver/contradicting/";

/// Fields of the request of a redrive.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct RedriveRequest {
    /// Process only the objects of records that failed in the replica of this name, and only this replica (default: all
    /// objects and replicas)
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    replica: Option<String>,
    /// Reports the outcome that each object would have, without writing (default: true)
    #[cfg_attr(feature = "cli", arg(skip))]
    dry_run: Option<bool>,
    /// Process only the failure objects below this prefix, which begins with aws/lambda/ or quarantine/ (default: both)
    #[cfg_attr(feature = "cli", arg(long, value_name = "PREFIX"))]
    prefix: Option<String>,
    /// Process only objects that were written at this time or later, such as 2026-11-24T08:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    from: Option<String>,
    /// Process only objects that were written before this time
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    to: Option<String>,
    /// Process only objects whose recorded failure reason contains this text
    #[cfg_attr(feature = "cli", arg(long, value_name = "TEXT"))]
    error_contains: Option<String>,
}

/// The task `redrive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedriveTask {
    /// The only replica to process, with the objects of records that failed in it; `None` for all.
    pub(crate) replica: Option<SinkName>,
    /// If true, the task only reports the actions that it would take.
    pub(crate) dry_run: bool,
    /// The prefixes of the failure bucket to process.
    pub(crate) prefixes: Vec<String>,
    /// Only objects that were written at or after this time.
    pub(crate) from: Option<OffsetDateTime>,
    /// Only objects that were written before this time.
    pub(crate) to: Option<OffsetDateTime>,
    /// Only objects whose reason contains this text.
    pub(crate) reason: Option<String>,
}

impl MaintenanceTask for RedriveTask {
    const NAME: &'static str = "redrive";
    const SUMMARY: &'static str = "processes the records of the failure objects again";
    type Request = RedriveRequest;

    fn parse(request: RedriveRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let replica = replica_name(request.replica)?;
        let prefixes = prefixes(request.prefix, replica.as_ref())?;
        Ok(Self {
            replica,
            dry_run: request.dry_run.unwrap_or(true),
            prefixes,
            from: time("from", request.from.as_deref())?,
            to: time("to", request.to.as_deref())?,
            reason: request.error_contains,
        })
    }
}

/// Returns the prefixes of the objects to process. Only the quarantine objects of a replica name it: a batch that
/// failed as a whole may be missing in every replica.
fn prefixes(requested: Option<String>, replica: Option<&SinkName>) -> Result<Vec<String>, InvalidRequest> {
    let own = replica.map(|name| format!("{QUARANTINE}{}/{name}/", FailedFunction::Replicator.as_str()));
    let allowed = own.map_or_else(|| vec![ON_FAILURE_PREFIX.to_owned(), QUARANTINE.to_owned()], |own| vec![own]);
    match requested {
        None => Ok(allowed),
        Some(prefix) if allowed.iter().any(|allowed| prefix.starts_with(allowed)) => Ok(vec![prefix]),
        // The prefix of all quarantine objects, or of all those of the replicator, contains the replica's.
        Some(prefix) if replica.is_some() && prefix.ends_with('/') && allowed[0].starts_with(&prefix) => Ok(allowed),
        Some(other) => {
            let of_replica = replica.map(|name| format!(" (replica is {:?})", name.as_str())).unwrap_or_default();
            let wanted = format!("a prefix that begins with {}{of_replica}", allowed.join(" or "));
            Err(InvalidRequest::Value { field: "prefix", found: format!("{other:?}"), wanted })
        }
    }
}

/// Error of a redrive.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// The failure bucket cannot be read, or the report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The sinks of the deployment cannot be determined at the moment.
    #[error(transparent)]
    Sinks(SinksUnknownError),
    /// The source or a replica cannot be read.
    #[error(transparent)]
    Read(#[from] ReconcileError),
}

impl ClassifiedError for RedriveError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::Sinks(error) => error.kind(),
            Self::Read(error) => error.kind(),
            Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }
}

/// Cursor of a redrive: the index of the prefix, and the last object that was processed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCursor {
    prefix: usize,
    after: Option<String>,
}

/// A failure object that is being processed.
struct OpenFailure {
    key: String,
    body: Vec<u8>,
    failure: FailureRecord,
    targets: RedriveTargets,
    /// The reason why the object is skipped; `None` as long as nothing prevents the move below `redriven/`.
    skip_reason: Option<String>,
}

/// The stores that the records of a failure object may be missing in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RedriveTargets {
    replicas: bool,
    archive: bool,
}

impl RedriveTargets {
    /// Returns the targets of an object. `archives` says whether the archive is a sink of the deployed replicator.
    fn from_failure(failure: &FailureRecord, archives: bool) -> Self {
        match (failure.function, failure.sink.as_deref()) {
            (FailedFunction::Archiver, _) | (FailedFunction::Replicator, Some(ARCHIVE_SINK)) => {
                Self { replicas: false, archive: true }
            }
            (FailedFunction::Replicator, Some(_)) => Self { replicas: true, archive: false },
            // The archive sink has processed a record that contradicts another one: it could be read.
            (FailedFunction::Replicator, None) => {
                Self { replicas: true, archive: archives && !failure.reason.starts_with(CONTRADICTION) }
            }
        }
    }
}

impl OpenFailure {
    /// Skips the object. Of several reasons, the first is reported.
    fn skip(&mut self, reason: impl Into<String>) {
        self.skip_reason.get_or_insert(reason.into());
    }
}

/// A report entry.
#[derive(Serialize)]
struct RedriveEntry<'a> {
    object: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl SegmentTask for RedriveTask {
    type Cursor = RedriveCursor;
    type Error = RedriveError;
    const USES_REPLICAS: bool = true;

    fn replica(&self) -> Option<&SinkName> {
        self.replica.as_ref()
    }

    fn writes_replicas(&self) -> bool {
        !self.dry_run
    }

    /// Records that failed in a sink that is not configured are skipped, and the report names the setting.
    fn needs_all_replicas(&self) -> bool {
        false
    }

    /// Records that were redriven before an error are confirmed, and their objects are moved below `redriven/`, at the
    /// latest by another run.
    async fn run(
        &self,
        task_run: &mut TaskRun<RedriveCursor>,
        context: &TaskContext<'_>,
    ) -> Result<bool, RedriveError> {
        let known: Vec<&str> = context.replicas.iter().map(|replica| replica.name()).collect();
        // The objects of one replica do not depend on the others.
        let deployed = match &self.replica {
            Some(_) => Ok((Vec::new(), false)),
            None => deployed_sinks(context, &known).await,
        };
        let (unserved, archives) = match deployed {
            Ok((unserved, archives)) => (unserved.first().map(ToString::to_string), archives),
            Err(unknown) if unknown.retryable() => return Err(RedriveError::Sinks(unknown)),
            // No object that may concern any sink is redriven then.
            Err(unknown) => (Some(unknown.to_string()), false),
        };
        // The time after this deadline is reserved for retiring objects and reporting the results.
        let working = Invocation { deadline: task_run.deadline, ..context.invocation.clone() };
        while let Some(prefix) = self.prefixes.get(task_run.cursor().prefix) {
            if task_run.deadline_reached() {
                return Ok(false);
            }
            let mut page = context.bucket.list(prefix, task_run.cursor().after.as_deref(), OBJECTS).await?;
            let mut size_bytes = 0;
            let within = page.iter().take_while(|object| {
                let first = size_bytes == 0;
                size_bytes += object.size_bytes.max(1);
                first || size_bytes <= OBJECTS_BYTES
            });
            page.truncate(within.count());
            let Some(last) = page.last().map(|object| object.key.clone()) else {
                let prefix = task_run.cursor().prefix + 1;
                task_run.checkpoint(RedriveCursor { prefix, after: None }).await?;
                continue;
            };
            let segment = task_run.segment();
            let wanted = |object: &FailureObject| {
                belongs_to_segment(segment, &object.key)
                    && self.from.is_none_or(|from| object.modified.is_some_and(|at| at >= from))
                    && self.to.is_none_or(|to| object.modified.is_some_and(|at| at < to))
            };
            let mut objects = read(task_run, context, self, archives, page.into_iter().filter(wanted)).await?;
            for object in objects.iter_mut().filter(|object| object.failure.function == FailedFunction::Replicator) {
                let unknown = match &object.failure.sink {
                    Some(sink) => context.deployment.refusal(sink, &known),
                    // The record may be missing in any sink.
                    None => unserved.clone(),
                };
                if let Some(reason) = unknown {
                    object.skip(reason);
                }
            }
            if let Some(reason) = &self.reason {
                objects.retain(|object| object.failure.reason.contains(reason.as_str()));
            }
            process_page(task_run, context, self, objects, &working).await?;
            let prefix = task_run.cursor().prefix;
            task_run.checkpoint(RedriveCursor { prefix, after: Some(last) }).await?;
        }
        Ok(true)
    }
}

/// Reads the objects. One that is not a failure record is reported and skipped. `archives` says whether the archive is
/// a sink of the deployed replicator.
async fn read(
    task_run: &mut TaskRun<RedriveCursor>,
    context: &TaskContext<'_>,
    redrive: &RedriveTask,
    archives: bool,
    listed: impl Iterator<Item = FailureObject>,
) -> Result<Vec<OpenFailure>, BucketError> {
    let (listed, too_large): (Vec<FailureObject>, Vec<FailureObject>) =
        listed.partition(|object| object.size_bytes <= failure_record::MAX_OBJECT_BYTES);
    for FailureObject { key, size_bytes, .. } in &too_large {
        let reason = format!(
            "the object has {size_bytes} bytes: a failure object has at most {}",
            failure_record::MAX_OBJECT_BYTES
        );
        skip_unread(task_run, redrive, key, &reason);
    }
    let bodies = stream::iter(listed).map(|FailureObject { key, .. }| async move {
        let body = context.bucket.get(&key).await?;
        Ok::<_, BucketError>((key, body))
    });
    let bodies: Vec<_> = bodies.buffered(IN_FLIGHT).try_collect().await?;
    let mut objects = Vec::new();
    for (key, body) in bodies {
        // Another run has redriven the object in the meantime.
        let Some(body) = body else { continue };
        match failure_record::read(&key, &body, context.functions) {
            Ok(failure) => {
                let targets = RedriveTargets::from_failure(&failure, archives);
                objects.push(OpenFailure { key, body, failure, targets, skip_reason: None });
            }
            Err(reason) => skip_unread(task_run, redrive, &key, &reason.to_string()),
        }
    }
    Ok(objects)
}

/// Reports an object that is not a failure record.
fn skip_unread(task_run: &mut TaskRun<RedriveCursor>, redrive: &RedriveTask, object: &str, reason: &str) {
    task_run.count("redrive.objects", 1);
    let outcome = skipped(redrive.dry_run);
    task_run.count_as(CountOutcome::NotProcessed, format!("redrive.{outcome}"), 1);
    let (function, records, failure_reason) = (None, None, None);
    task_run.report(&RedriveEntry { object, function, records, failure_reason, outcome, reason: Some(reason) });
}

/// Returns the outcome of an object that stays where it is.
fn skipped(dry_run: bool) -> &'static str {
    if dry_run { "would_skip" } else { "skipped" }
}

async fn process_page(
    task_run: &mut TaskRun<RedriveCursor>,
    context: &TaskContext<'_>,
    redrive: &RedriveTask,
    mut objects: Vec<OpenFailure>,
    invocation: &Invocation,
) -> Result<(), RedriveError> {
    let mut records = BTreeMap::new();
    for object in &mut objects {
        match millrace_shared::stream::read(&object.failure.event).map(|batch| batch.records.len()) {
            Ok(count) => drop(records.insert(object.key.clone(), count)),
            Err(error) => object.skip(error.to_string()),
        }
        let contradicts = object.targets == RedriveTargets { replicas: false, archive: true }
            && object.failure.reason.starts_with(CONTRADICTION);
        if contradicts || object.key.starts_with(CONTRADICTING_ROWS) {
            object.skip("the archive contains another record of this item and sequence number: compare them manually");
        }
    }
    let written = replicate::redrive(context, &mut objects, invocation, redrive.dry_run).await?;
    let rows = archive::redrive(context, &mut objects, redrive.dry_run).await;
    if !redrive.dry_run {
        task_run.count("redrive.written", written);
        task_run.count("redrive.rows", rows);
        move_to_redriven(context, &mut objects).await;
    }
    for object in &objects {
        let (outcome, count) = match (&object.skip_reason, redrive.dry_run) {
            (Some(_), dry_run) => (skipped(dry_run), CountOutcome::NotProcessed),
            (None, true) => ("would_redrive", CountOutcome::Success),
            (None, false) => ("redriven", CountOutcome::Success),
        };
        let its_records = records.get(&object.key).copied();
        task_run.count("redrive.objects", 1);
        task_run.count("redrive.records", its_records.unwrap_or_default());
        task_run.count_as(count, format!("redrive.{outcome}"), 1);
        task_run.report(&RedriveEntry {
            object: &object.key,
            function: Some(object.failure.function.as_str()),
            records: its_records,
            failure_reason: Some(&object.failure.reason),
            outcome,
            reason: object.skip_reason.as_deref(),
        });
    }
    Ok(())
}

/// Moves the objects that are done below `redriven/`. One that cannot be moved is redriven again by another run, which
/// changes nothing.
async fn move_to_redriven(context: &TaskContext<'_>, objects: &mut [OpenFailure]) {
    let moves =
        stream::iter(objects.iter_mut().filter(|object| object.skip_reason.is_none())).map(|object| async move {
            if let Err(fault) = context.bucket.move_to_redriven(&object.key, std::mem::take(&mut object.body)).await {
                object.skip(fault.to_string());
            }
        });
    moves.buffer_unordered(IN_FLIGHT).collect::<()>().await;
}

/// Returns an error message if a record does not belong to this deployment, because it is a record of another table.
fn wrong_table_reason(record: &StreamRecord<'_>, source: &SourceTable) -> Option<String> {
    let ours = &source.description().arn;
    match &record.source {
        Some(its) if its.table_arn() == ours => None,
        Some(its) => Some(format!("the record is from table {}, not from the source table {ours}", its.table_arn())),
        None => Some("eventSourceARN is missing, so the table of the record is unknown".to_owned()),
    }
}

/// Returns the objects with this target that are not skipped.
fn open_for(
    objects: &mut [OpenFailure],
    has_target: fn(RedriveTargets) -> bool,
) -> impl Iterator<Item = &mut OpenFailure> {
    objects.iter_mut().filter(move |object| has_target(object.targets) && object.skip_reason.is_none())
}

/// Returns the sinks of the deployment that this function does not know, and whether the archive is one of its sinks.
async fn deployed_sinks(
    context: &TaskContext<'_>,
    known: &[&str],
) -> Result<(Vec<UnknownSinkError>, bool), SinksUnknownError> {
    let unserved = context.deployment.unserved(known).await?;
    Ok((unserved, context.deployment.enables(ARCHIVE_SINK).await?))
}
