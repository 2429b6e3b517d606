//! Processes failed records again after the cause of the failure has been fixed: records of the replicator by
//! reconciling their keys, records of the archiver by archiving them.
//!
//! A record of the replicator is never applied as it is: its image may be outdated, and its item may have been deleted
//! since. Instead, its key is reconciled in every sink: the source's state is written with a revision above the
//! record's own, which is correct whatever the record's age. A record of the archiver becomes a row of the archive: an
//! item that TTL removed stays removed, and readers deduplicate. Running a redrive twice therefore changes nothing.
//!
//! An object that failed in a sink for which this function is not configured is skipped, as is a batch that failed as a
//! whole while the deployment has such a sink. The report names the setting that configures the sink.
//!
//! An object is retired (moved below `redriven/`) only after the effect of each of its records is confirmed. All other
//! objects stay where they are, and the report contains the reason.

mod archive;
mod replicate;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_shared::invocation::Invocation;
use millrace_shared::stream::StreamRecord;
use millrace_sinks::Replica;
use serde::{Deserialize, Serialize};

use super::task_run::TaskRun;
use super::{RedriveRequest, belongs_to_segment};
use crate::deployment::{DeployedReplicator, SinksUnknownError};
use crate::failure_bucket::{BucketError, FailureBucket, FailureObject};
use crate::failure_record::{self, FailedFunction, FailureRecord, FunctionNames};
use crate::progress::CountOutcome;
use crate::repair::ReconcileError;
use crate::source::SourceTable;

/// Maximum number of objects that are processed together, so that their keys are reconciled in one pass.
const OBJECTS: i32 = 100;
/// Maximum total size of the objects that are processed together. A batch in the on-failure destination may have 6 MB.
const OBJECTS_BYTES: u64 = 16 * 1024 * 1024;
const IN_FLIGHT: usize = 16;

/// Prefix of the archiver's records whose rows would overwrite others (`millrace_shared::quarantine::CONTRADICTING`).
const CONTRADICTING_ROWS: &str = "quarantine/archiver/contradicting/";

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

/// Cursor of a redrive: the index of the prefix, and the last object that was processed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedriveCursor {
    prefix: usize,
    after: Option<String>,
}

/// Dependencies of a redrive.
pub struct RedriveContext<'w> {
    /// The source table.
    pub source: &'w SourceTable,
    /// The replicas.
    pub replicas: &'w [Box<dyn Replica>],
    /// The archive, to which rows are written.
    pub archive: &'w ArchiveStore,
    /// The compression of the rows.
    pub compression: Compression,
    /// The failure bucket.
    pub bucket: &'w FailureBucket,
    /// The names of the deployed functions.
    pub functions: &'w FunctionNames,
    /// The deployed replicator, whose configuration names its sinks.
    pub deployment: &'w DeployedReplicator,
}

/// A failure object that is being processed.
struct OpenFailure {
    key: String,
    body: Vec<u8>,
    failure: FailureRecord,
    /// The reason why the object is skipped; `None` as long as nothing prevents its retirement.
    kept: Option<String>,
}

impl OpenFailure {
    /// Skips the object. Of several reasons, the first is reported.
    fn keep(&mut self, reason: impl Into<String>) {
        self.kept.get_or_insert(reason.into());
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

/// Continues a redrive; returns `true` when it is done.
///
/// # Errors
/// [`RedriveError`]; records that were redriven before the error are confirmed, and their objects are retired, at the
/// latest by another run.
pub async fn run(
    task_run: &mut TaskRun<RedriveCursor>,
    context: &RedriveContext<'_>,
    redrive: &RedriveRequest,
    invocation: &Invocation,
) -> Result<bool, RedriveError> {
    let known: Vec<&str> = context.replicas.iter().map(|replica| replica.name()).collect();
    let unserved = match context.deployment.unserved(&known).await {
        Ok(unserved) => unserved.first().map(ToString::to_string),
        Err(unknown) if unknown.retryable() => return Err(RedriveError::Sinks(unknown)),
        Err(unknown) => Some(unknown.to_string()),
    };
    // The time after this deadline is reserved for retiring objects and reporting the results.
    let working = Invocation { deadline: task_run.deadline, ..invocation.clone() };
    while let Some(prefix) = redrive.prefixes.get(task_run.cursor().prefix) {
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
                && redrive.from.is_none_or(|from| object.modified.is_some_and(|at| at >= from))
                && redrive.to.is_none_or(|to| object.modified.is_some_and(|at| at < to))
        };
        let mut objects = read(task_run, context, redrive, page.into_iter().filter(wanted)).await?;
        for object in of_function(&mut objects, FailedFunction::Replicator) {
            let unknown = match &object.failure.sink {
                Some(sink) => context.deployment.refusal(sink, &known),
                // The record may be missing in any sink.
                None => unserved.clone(),
            };
            if let Some(reason) = unknown {
                object.keep(reason);
            }
        }
        if let Some(reason) = &redrive.reason {
            objects.retain(|object| object.failure.reason.contains(reason.as_str()));
        }
        process_page(task_run, context, redrive, objects, &working).await?;
        let prefix = task_run.cursor().prefix;
        task_run.checkpoint(RedriveCursor { prefix, after: Some(last) }).await?;
    }
    Ok(true)
}

/// Reads the objects. One that is not a failure record is reported and skipped.
async fn read(
    task_run: &mut TaskRun<RedriveCursor>,
    context: &RedriveContext<'_>,
    redrive: &RedriveRequest,
    listed: impl Iterator<Item = FailureObject>,
) -> Result<Vec<OpenFailure>, BucketError> {
    let (listed, too_large): (Vec<FailureObject>, Vec<FailureObject>) =
        listed.partition(|object| object.size_bytes <= failure_record::OBJECT_BYTES_MOST);
    for FailureObject { key, size_bytes, .. } in &too_large {
        let reason = format!(
            "the object has {size_bytes} bytes: a failure object has at most {}",
            failure_record::OBJECT_BYTES_MOST
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
            Ok(failure) => objects.push(OpenFailure { key, body, failure, kept: None }),
            Err(reason) => skip_unread(task_run, redrive, &key, &reason.to_string()),
        }
    }
    Ok(objects)
}

/// Reports an object that is not a failure record.
fn skip_unread(task_run: &mut TaskRun<RedriveCursor>, redrive: &RedriveRequest, object: &str, reason: &str) {
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
    context: &RedriveContext<'_>,
    redrive: &RedriveRequest,
    mut objects: Vec<OpenFailure>,
    invocation: &Invocation,
) -> Result<(), RedriveError> {
    let mut records = BTreeMap::new();
    for object in &mut objects {
        match millrace_shared::stream::read(&object.failure.event).map(|batch| batch.records.len()) {
            Ok(count) => drop(records.insert(object.key.clone(), count)),
            Err(error) => object.keep(error.to_string()),
        }
        if object.key.starts_with(CONTRADICTING_ROWS) {
            object.keep("the archive contains another record of this item and sequence number: compare them manually");
        }
    }
    let written = replicate::redrive(context, &mut objects, invocation, redrive.dry_run).await?;
    let rows = archive::redrive(context, &mut objects, redrive.dry_run).await;
    if !redrive.dry_run {
        task_run.count("redrive.written", written);
        task_run.count("redrive.rows", rows);
        retire(context, &mut objects).await;
    }
    for object in &objects {
        let (outcome, count) = match (&object.kept, redrive.dry_run) {
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
            reason: object.kept.as_deref(),
        });
    }
    Ok(())
}

/// Retires the objects that are done. One that cannot be moved is redriven again by another run, which changes nothing.
async fn retire(context: &RedriveContext<'_>, objects: &mut [OpenFailure]) {
    let moves = stream::iter(objects.iter_mut().filter(|object| object.kept.is_none())).map(|object| async move {
        if let Err(fault) = context.bucket.retire(&object.key, std::mem::take(&mut object.body)).await {
            object.keep(fault.to_string());
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

/// Returns the objects that failed in this function and are not skipped.
fn of_function(objects: &mut [OpenFailure], function: FailedFunction) -> impl Iterator<Item = &mut OpenFailure> {
    objects.iter_mut().filter(move |object| object.failure.function == function && object.kept.is_none())
}
