//! Verifies that the archive is complete: it must contain a row for every removal for which the replica retains a
//! tombstone, or for every key of a list.
//!
//! A removal by TTL leaves a tombstone in the replica that is marked as such and has the removal's revision. The
//! archive must contain the row with that key and revision. Tombstone and row are written by separate functions, so a
//! removal that one of them lost is still recorded by the other. Tombstones expire after some days, so an audit covers
//! the removals of those days.

use std::collections::BTreeMap;

use millrace_archive::ArchivedRow;
use millrace_shared::change::CanonicalKey;
use millrace_shared::revision::Revision;
use millrace_sinks::ReplicaReadError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::report_corrupt_objects;
use crate::archive_scan::{ArchiveReader, ArchiveScanError, MemoryBudget, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::progress::CountOutcome;
use crate::source::OtherKeyError;
use crate::task::belongs_to_segment;
use crate::task::context::TaskContext;
use crate::task::error::{ArchiveOffError, ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, key, time};
use crate::task::task_run::TaskRun;

/// Number of removals that are looked up in one scan of the archive.
const LOOKUP_BATCH: usize = 50_000;

/// Fields of the request of an audit.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct AuditRequest {
    /// Search only rows of items that were removed at this time or later, such as 2026-11-22T00:00:00Z
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    from: Option<String>,
    /// Search only rows of items that were removed before this time
    #[cfg_attr(feature = "cli", arg(long, value_name = "TIME"))]
    to: Option<String>,
    /// Search for any row of this key, in DynamoDB JSON; may be repeated (default: the tombstones of TTL removals in the
    /// replicas)
    #[cfg_attr(feature = "cli", arg(long, value_name = "JSON", value_parser = crate::task::options::json_text))]
    keys: Option<Vec<Box<RawValue>>>,
}

/// The task `audit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditTask {
    /// Only rows that were removed at or after this time are searched.
    from: Option<OffsetDateTime>,
    /// Only rows that were removed before this time are searched.
    to: Option<OffsetDateTime>,
    /// The keys that the archive must contain; without a list, the replica's tombstones are used.
    keys: Option<Vec<CanonicalKey>>,
}

impl MaintenanceTask for AuditTask {
    const NAME: &'static str = "audit";
    const SUMMARY: &'static str =
        "verifies that the archive has the row of every removal by TTL that the replicator recorded in a replica";
    const REPORTS_DIFFERENCES: bool = true;
    type Request = AuditRequest;

    fn parse(request: AuditRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let keys = request.keys.map(|keys| keys.iter().map(|json| key("keys", json)).collect());
        Ok(Self {
            from: time("from", request.from.as_deref())?,
            to: time("to", request.to.as_deref())?,
            keys: keys.transpose()?,
        })
    }
}

/// Error of an audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The deployment has no archive.
    #[error(transparent)]
    ArchiveOff(#[from] ArchiveOffError),
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] ArchiveScanError),
    /// A key is not a key of the table.
    #[error(transparent)]
    OtherKey(#[from] OtherKeyError),
    /// The replica cannot be read.
    #[error(transparent)]
    Replica(#[from] ReplicaReadError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for AuditError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::ArchiveOff(error) => error.kind(),
            Self::OtherKey(error) => error.kind(),
            Self::Sweep(error) => error.kind(),
            Self::Replica(_) | Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }

    /// The archive may have been searched for a part of the rows.
    fn is_rejection(&self) -> bool {
        matches!(self, Self::ArchiveOff(_) | Self::OtherKey(_))
    }
}

/// Cursor of an audit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditCursor {
    /// The index of the replica.
    replica: usize,
    /// The key of that replica after which the scan continues.
    after: Option<CanonicalKey>,
    /// True if corrupt objects have been reported.
    reported: bool,
}

/// A report entry.
#[derive(Serialize)]
struct AuditEntry<'a> {
    kind: &'static str,
    key: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    objects: usize,
}

/// The expected rows, by key and revision, or by key alone (`None`), with the number of objects in which each was
/// found.
type ExpectedRows = BTreeMap<(CanonicalKey, Option<Revision>), usize>;

impl SegmentTask for AuditTask {
    type Cursor = AuditCursor;
    type Error = AuditError;
    const USES_REPLICAS: bool = true;

    fn needs_all_replicas(&self) -> bool {
        self.keys.is_none()
    }

    async fn run(&self, task_run: &mut TaskRun<AuditCursor>, context: &TaskContext<'_>) -> Result<bool, AuditError> {
        let archive = context.archive_reader()?;
        if let Some(keys) = &self.keys {
            keys.iter().try_for_each(|key| context.source.check_key("keys", Self::NAME, key))?;
            let segment = task_run.segment();
            let own = keys.iter().filter(|key| belongs_to_segment(segment, key.as_str()));
            let sought = own.map(|key| ((key.clone(), None), 0)).collect();
            check_archive(task_run, &archive, self, sought).await?;
            return Ok(true);
        }
        while let Some(replica) = context.replicas.get(task_run.cursor().replica) {
            if task_run.deadline_reached() {
                return Ok(false);
            }
            let (mut sought, mut after) = (ExpectedRows::new(), task_run.cursor().after.clone());
            let ended = loop {
                let page = replica.scan(task_run.segment(), after.as_ref()).await?;
                for (key, held) in page.items {
                    // A tombstone without a valid revision cannot be matched with a row, and a revision written by a repair
                    // is not that of a removal by TTL.
                    if let (true, Some(Ok(revision))) = (held.expired(), held.revision.clone())
                        && revision.reconciled().is_none()
                    {
                        sought.insert((key, Some(revision)), 0);
                    }
                }
                after = page.next;
                if after.is_none() || sought.len() >= LOOKUP_BATCH || task_run.deadline_reached() {
                    break after.is_none();
                }
            };
            check_archive(task_run, &archive, self, sought).await?;
            let replica = task_run.cursor().replica + usize::from(ended);
            task_run.checkpoint(AuditCursor { replica, after, reported: true }).await?;
        }
        Ok(true)
    }
}

async fn check_archive(
    task_run: &mut TaskRun<AuditCursor>,
    archive: &ArchiveReader,
    audit: &AuditTask,
    sought: ExpectedRows,
) -> Result<(), AuditError> {
    let period = TimeRange { from: audit.from, to: audit.to };
    let keys: std::collections::BTreeSet<CanonicalKey> = sought.keys().map(|(key, _)| key.clone()).collect();
    let wanted = move |row: &ArchivedRow| keys.contains(&row.key);
    let take = |sought: &mut ExpectedRows, rows: Vec<ArchivedRow>, held: &mut MemoryBudget| {
        for row in rows {
            held.shrink(&row);
            for name in [(row.key.clone(), None), (row.key, Some(row.revision))] {
                if let Some(found) = sought.get_mut(&name) {
                    *found += 1;
                }
            }
        }
        Ok(())
    };
    let (sought, seen) = scan_archive(archive, &period, task_run.deadline, sought, wanted, take).await?;
    if !task_run.cursor().reported {
        report_corrupt_objects(task_run, "audit", &seen);
    }
    for ((key, revision), objects) in sought {
        let (kind, outcome) = match (objects, revision) {
            (0, _) => ("missing", CountOutcome::Difference),
            // A key alone may have several rows, each of a separate removal.
            (2.., Some(_)) => ("duplicated", CountOutcome::Success),
            _ => ("found", CountOutcome::Success),
        };
        task_run.count_as(outcome, format!("audit.{kind}"), 1);
        if kind != "found" {
            let revision = revision.map(|revision| revision.to_string());
            task_run.report(&AuditEntry { kind, key: &key.to_raw(), revision, objects });
        }
    }
    Ok(())
}
