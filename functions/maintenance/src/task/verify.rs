//! Compares the source with its replicas, and mends what is really different if told so.
//!
//! Both sides are scanned in the same segment, side by side. Tables of one key hand their items out in the same order as a
//! rule, so nearly every item meets its like at once; what has met nothing by the next resting place is looked up by its
//! key on the other side. Nothing rests on the order but the price.
//!
//! A replica is behind its source by nature. So a difference is looked at again after a while: it is *real* only if
//! neither the source's item nor the replica's revision has moved meanwhile, and *in flux* if either has.
//!
//! | real difference | the source has | the replica has |
//! | --- | --- | --- |
//! | `missing` | the item | nothing, or a tombstone |
//! | `different` | the item | another one; the attributes are named, their values are not |
//! | `resurrected` | nothing | an item that was replicated once |
//! | `extra` | nothing | an item that somebody else wrote there |
//! | `quarantined` | | any of these, of a key with an object in the failure bucket: redrive it |

mod difference;
mod merge_join;

use std::time::Duration;

use futures::future::try_join;
use replicator::sink::Replica;
use serde::{Deserialize, Serialize};
use shared::change::CanonicalKey;
use shared::invocation::Invocation;
use tokio::time::Instant;

use super::capacity_budget::CapacityBudget;
use super::task_run::TaskRun;
use super::{RepairMode, VerifyRequest};
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::failure_index::{self, FailureIndex};
use crate::failure_record::FunctionNames;
use crate::progress::CountOutcome;
use crate::repair::{ReconcileError, RepairOutcome, StaleKey, predict, reconcile_keys};
use difference::{CandidateDifference, ConfirmedDifference, DifferenceKind};
use merge_join::{MergeJoin, ScanPosition};

/// So many pages are read of a side between two resting places, where a cursor may be taken. A page has 1 MB at most, so no
/// more than twice this of items wait for their like.
const PAGES_PER_CHECKPOINT: usize = 24;

/// At most so much of an invocation is kept free for reading the failure bucket, once something differs.
const FAILURES_READ_WITHIN: Duration = Duration::from_secs(30);

/// Why a comparison stops before its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// One side cannot be read.
    #[error(transparent)]
    Read(#[from] ReconcileError),
    /// A difference cannot be watched within one invocation.
    #[error(
        "recheck_after_seconds is {0}, longer than this invocation: set a lower value, or a longer timeout of the function"
    )]
    NoTime(u64),
    /// The failure bucket cannot be read, or the report not be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Where a comparison is: at which replica, and how far on both sides.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyCursor {
    sink: usize,
    source: ScanPosition,
    replica: ScanPosition,
}

/// What a comparison works on.
pub struct VerifyContext<'w> {
    /// The table that counts.
    pub source: &'w crate::source::SourceTable,
    /// Its replicas.
    pub replicas: &'w [Box<dyn Replica>],
    /// Where the report goes, and what failed lies.
    pub bucket: &'w FailureBucket,
    /// What the functions are called.
    pub functions: &'w FunctionNames,
}

/// Goes on with a comparison; tells whether it is done.
///
/// # Errors
/// [`VerifyError`]; what was mended until then is right and stays.
pub async fn run(
    course: &mut TaskRun<VerifyCursor>,
    world: &VerifyContext<'_>,
    verify: VerifyRequest,
    invocation: &Invocation,
) -> Result<bool, VerifyError> {
    let mut pace = CapacityBudget::new(verify.capacity_units, course.segment().total_segments, Instant::now());
    let scan_until = course.stop_at.checked_sub(verify.lag).filter(|until| *until > Instant::now());
    let scan_until = scan_until.ok_or(VerifyError::NoTime(verify.lag.as_secs()))?;
    let left = scan_until.saturating_duration_since(Instant::now());
    let scan_until = scan_until - FAILURES_READ_WITHIN.min(left / 4);
    let any_failed = failure_index::any(world.bucket).await?;
    while let Some(replica) = world.replicas.get(course.cursor().sink) {
        let replica = &**replica;
        let from = course.cursor().clone();
        let mut sides = MergeJoin::new(world.source, replica, course.segment(), from.source, from.replica);
        while sides.pages() < PAGES_PER_CHECKPOINT && !sides.is_exhausted() {
            if pace.next_permit_at().max(Instant::now()) >= scan_until {
                break;
            }
            tokio::time::sleep_until(pace.next_permit_at()).await;
            let spent = sides.advance().await?;
            pace.spend(spent, Instant::now());
        }
        // At the end of the time the stretch is cut short, and what is open is looked at any resting place.
        let (candidates, counts) = sides.resolve_unmatched().await?;
        let sink = replica.name();
        let Some(findings) = recheck_after_lag(course, world, replica, verify, candidates).await? else {
            return Ok(false);
        };
        report_findings(course, world, replica, verify, findings, any_failed, invocation).await?;
        course.count("source.items", if from.sink == 0 { counts.source } else { 0 });
        course.count(format!("{sink}.items"), counts.items);
        course.count(format!("{sink}.tombstones"), counts.tombstones);
        course.count(format!("{sink}.equal"), counts.equal);
        let (source, replica) = sides.positions();
        let reached = if sides.is_exhausted() {
            VerifyCursor { sink: from.sink + 1, ..VerifyCursor::default() }
        } else {
            VerifyCursor { sink: from.sink, source, replica }
        };
        course.checkpoint(reached).await?;
        if Instant::now() >= scan_until {
            return Ok(course.cursor().sink == world.replicas.len());
        }
    }
    Ok(true)
}

/// Looks at the candidates again after the lag. Nothing if there is no time for it: the stretch is then gone over again.
async fn recheck_after_lag(
    course: &mut TaskRun<VerifyCursor>,
    world: &VerifyContext<'_>,
    replica: &dyn Replica,
    verify: VerifyRequest,
    candidates: Vec<CandidateDifference>,
) -> Result<Option<Vec<ConfirmedDifference>>, VerifyError> {
    if candidates.is_empty() {
        return Ok(Some(Vec::new()));
    }
    if !course.wait_until(Instant::now() + verify.lag).await {
        return Ok(None);
    }
    let keys: Vec<CanonicalKey> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
    let replica_now = async { replica.read(&keys).await.map_err(ReconcileError::from) };
    let source_now = async { world.source.read(&keys).await.map_err(ReconcileError::from) };
    let (held, (items, _)) = try_join(replica_now, source_now).await?;
    let mut findings = Vec::new();
    let mut moving = 0;
    for ((candidate, held), item) in candidates.into_iter().zip(held.held).zip(items) {
        match candidate.confirm(held.as_ref(), item.as_ref()) {
            Some(finding) => findings.push(finding),
            None => moving += 1,
        }
    }
    course.count(format!("{}.in_flux", replica.name()), moving);
    Ok(Some(findings))
}

/// Counts, mends if told so, and reports what is real.
async fn report_findings(
    course: &mut TaskRun<VerifyCursor>,
    world: &VerifyContext<'_>,
    replica: &dyn Replica,
    verify: VerifyRequest,
    findings: Vec<ConfirmedDifference>,
    any_failed: bool,
    invocation: &Invocation,
) -> Result<(), VerifyError> {
    if findings.is_empty() {
        return Ok(());
    }
    let sink = replica.name();
    let ailing = |finding: &ConfirmedDifference| StaleKey { key: finding.key.clone(), record_revision: None };
    let ailing = || findings.iter().map(ailing).collect::<Vec<_>>();
    let mended: Vec<Option<RepairOutcome>> = match verify.mend {
        RepairMode::No => vec![None; findings.len()],
        RepairMode::DryRun => {
            predict(world.source, replica, &ailing(), invocation).await?.into_iter().map(Some).collect()
        }
        RepairMode::Yes => {
            reconcile_keys(world.source, replica, &ailing(), invocation).await?.into_iter().map(Some).collect()
        }
    };
    let dry_run = verify.mend == RepairMode::DryRun;
    // A repair counts what it found by the outcome of the repair.
    let found = if verify.mend == RepairMode::No { CountOutcome::Difference } else { CountOutcome::Success };
    let outstanding = if any_failed {
        let keys = findings.iter().map(|finding| &finding.key);
        match failure_index::of_keys(keys, sink, world.bucket, world.functions, course.report_by()).await {
            // What was mended is told all the same: another invocation would find it equal.
            Err(fault) if verify.mend == RepairMode::Yes => {
                tracing::warn!(error = %fault, "the failure bucket was not read");
                FailureIndex::unread()
            }
            read => read?,
        }
    } else {
        FailureIndex::none()
    };
    for (finding, mended) in findings.iter().zip(mended) {
        let objects = outstanding.of(&finding.key);
        let unattributed = objects.is_empty() && !outstanding.is_complete;
        course.count(format!("{sink}.unattributed"), usize::from(unattributed));
        let kind = if objects.is_empty() { finding.kind } else { DifferenceKind::Quarantined };
        course.count_as(found, format!("{sink}.{}", kind.as_str()), 1);
        let (outcome, reason) = match &mended {
            Some(RepairOutcome::Written | RepairOutcome::InSync) => {
                (Some(if dry_run { "would_repair" } else { "repaired" }), None)
            }
            Some(RepairOutcome::Failed(reason)) => {
                (Some(if dry_run { "would_fail" } else { "failed" }), Some(reason.as_str()))
            }
            None => (None, None),
        };
        if let Some(outcome) = outcome {
            let count = if reason.is_some() { CountOutcome::NotProcessed } else { CountOutcome::Success };
            course.count_as(count, format!("{sink}.{outcome}"), 1);
        }
        let (kind, key) = (kind.as_str(), &*finding.key.to_raw());
        course.report(&VerifyEntry {
            sink,
            kind,
            key,
            attributes: &finding.attributes,
            objects,
            unattributed,
            outcome,
            reason,
        });
    }
    Ok(())
}

/// A line of the report.
#[derive(Serialize)]
struct VerifyEntry<'a> {
    sink: &'static str,
    kind: &'static str,
    key: &'a serde_json::value::RawValue,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    attributes: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    objects: &'a [String],
    /// The deadline passed before the failure bucket was read to its end: it may have an object of the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unattributed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}
