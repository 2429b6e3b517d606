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
use millrace_sinks::{Replica, ReplicaReadError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::belongs_to_segment;
use super::corrupt_objects::report_corrupt_objects;
use super::task_run::TaskRun;
use crate::archive_scan::{ArchiveReader, ArchiveScanError, MemoryBudget, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::progress::CountOutcome;

/// Number of removals that are looked up in one scan of the archive.
const LOOKUP_BATCH: usize = 50_000;

/// Parameters of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRequest {
    /// Only rows that were removed at or after this time are searched.
    pub from: Option<OffsetDateTime>,
    /// Only rows that were removed before this time are searched.
    pub to: Option<OffsetDateTime>,
    /// The keys that the archive must contain; without a list, the replica's tombstones are used.
    pub keys: Option<Vec<CanonicalKey>>,
}

/// Error of an audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The archive cannot be read.
    #[error(transparent)]
    Sweep(#[from] ArchiveScanError),
    /// The replica cannot be read.
    #[error(transparent)]
    Replica(#[from] ReplicaReadError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
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

/// Dependencies of an audit.
pub struct AuditContext<'w> {
    /// The archive.
    pub archive_reader: ArchiveReader,
    /// The replicas, whose tombstones are checked.
    pub replicas: &'w [Box<dyn Replica>],
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

/// Continues an audit; returns `true` when it is done.
///
/// # Errors
/// [`AuditError`] if the archive or a replica cannot be read, or the report cannot be written.
pub async fn run(
    task_run: &mut TaskRun<AuditCursor>,
    context: &AuditContext<'_>,
    audit: &AuditRequest,
) -> Result<bool, AuditError> {
    if let Some(keys) = &audit.keys {
        let segment = task_run.segment();
        let own = keys.iter().filter(|key| belongs_to_segment(segment, key.as_str()));
        let sought = own.map(|key| ((key.clone(), None), 0)).collect();
        check_archive(task_run, context, audit, sought).await?;
        return Ok(true);
    }
    while let Some(replica) = context.replicas.get(task_run.cursor().replica) {
        if task_run.deadline_reached() {
            return Ok(false);
        }
        let (mut sought, mut after) = (ExpectedRows::new(), task_run.cursor().after.clone());
        let ended = loop {
            let page = replica.scan(task_run.segment(), after.as_ref()).await?;
            for (key, held) in page.held {
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
        check_archive(task_run, context, audit, sought).await?;
        let replica = task_run.cursor().replica + usize::from(ended);
        task_run.checkpoint(AuditCursor { replica, after, reported: true }).await?;
    }
    Ok(true)
}

async fn check_archive(
    task_run: &mut TaskRun<AuditCursor>,
    context: &AuditContext<'_>,
    audit: &AuditRequest,
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
    let (sought, seen) =
        scan_archive(&context.archive_reader, &period, task_run.deadline, sought, wanted, take).await?;
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
