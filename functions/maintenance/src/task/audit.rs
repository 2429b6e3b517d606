//! Whether the archive has what it must: a row of every removal that the replica remembers, or of every key of a list.
//!
//! A removal by TTL leaves a tombstone in the replica that says so and carries the removal's revision; the archive must
//! have the row of that key and revision. The two come by separate functions, so what one of them lost the other tells.
//! Tombstones live for some days: an audit proves those.

use std::collections::BTreeMap;

use archiver::archive::ArchivedRow;
use replicator::sink::{Replica, ReplicaReadError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::change::CanonicalKey;
use shared::revision::Revision;
use time::OffsetDateTime;

use super::belongs_to_segment;
use super::corrupt_objects::report_corrupt_objects;
use super::task_run::TaskRun;
use crate::archive_scan::{ArchiveReader, ArchiveScanError, MemoryBudget, TimeRange, scan_archive};
use crate::failure_bucket::BucketError;
use crate::progress::CountOutcome;

/// Removals that are looked for in one sweep of the archive.
const LOOKUP_BATCH: usize = 50_000;

/// What to look for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRequest {
    /// Only in rows that were removed at or after this time.
    pub from: Option<OffsetDateTime>,
    /// Only in rows that were removed before this time.
    pub to: Option<OffsetDateTime>,
    /// The keys that must be there; the replica's tombstones if there is no list.
    pub keys: Option<Vec<CanonicalKey>>,
}

/// Why an audit stops before its end.
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

/// Where an audit is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditCursor {
    /// Of which replica.
    replica: usize,
    /// After which of its keys.
    after: Option<CanonicalKey>,
    /// Whether damage has been told.
    told: bool,
}

/// What an audit works on.
pub struct AuditContext<'w> {
    /// The archive.
    pub library: ArchiveReader,
    /// The replicas, whose tombstones remember.
    pub replicas: &'w [Box<dyn Replica>],
}

/// A line of the report.
#[derive(Serialize)]
struct AuditEntry<'a> {
    kind: &'static str,
    key: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    objects: usize,
}

/// What is sought: a revision of a key, or any; and in how many objects it was found.
type ExpectedRows = BTreeMap<(CanonicalKey, Option<Revision>), usize>;

/// Goes on with an audit; tells whether it is done.
///
/// # Errors
/// [`AuditError`].
pub async fn run(
    course: &mut TaskRun<AuditCursor>,
    world: &AuditContext<'_>,
    audit: &AuditRequest,
) -> Result<bool, AuditError> {
    if let Some(keys) = &audit.keys {
        let segment = course.segment();
        let own = keys.iter().filter(|key| belongs_to_segment(segment, key.as_str()));
        let sought = own.map(|key| ((key.clone(), None), 0)).collect();
        check_archive(course, world, audit, sought).await?;
        return Ok(true);
    }
    while let Some(replica) = world.replicas.get(course.cursor().replica) {
        if course.deadline_reached() {
            return Ok(false);
        }
        let (mut sought, mut after) = (ExpectedRows::new(), course.cursor().after.clone());
        let ended = loop {
            let page = replica.scan(course.segment(), after.as_ref()).await?;
            for (key, held) in page.held {
                // One that carries no revision is nobody's to prove; a repair's is no removal by TTL.
                if let (true, Some(Ok(revision))) = (held.expired(), held.revision.clone())
                    && revision.reconciled().is_none()
                {
                    sought.insert((key, Some(revision)), 0);
                }
            }
            after = page.next;
            if after.is_none() || sought.len() >= LOOKUP_BATCH || course.deadline_reached() {
                break after.is_none();
            }
        };
        check_archive(course, world, audit, sought).await?;
        let replica = course.cursor().replica + usize::from(ended);
        course.checkpoint(AuditCursor { replica, after, told: true }).await?;
    }
    Ok(true)
}

async fn check_archive(
    course: &mut TaskRun<AuditCursor>,
    world: &AuditContext<'_>,
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
    let (sought, seen) = scan_archive(&world.library, &period, course.stop_at, sought, wanted, take).await?;
    if !course.cursor().told {
        report_corrupt_objects(course, "audit", &seen);
    }
    for ((key, revision), objects) in sought {
        let (kind, outcome) = match (objects, revision) {
            (0, _) => ("missing", CountOutcome::Difference),
            // Of a key alone there may be several rows, each a removal of its own.
            (2.., Some(_)) => ("duplicated", CountOutcome::Success),
            _ => ("found", CountOutcome::Success),
        };
        course.count_as(outcome, format!("audit.{kind}"), 1);
        if kind != "found" {
            let revision = revision.map(|revision| revision.to_string());
            course.report(&AuditEntry { kind, key: &key.to_raw(), revision, objects });
        }
    }
    Ok(())
}
