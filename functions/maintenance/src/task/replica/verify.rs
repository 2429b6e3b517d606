//! Compares the source with its replicas, and repairs real differences if requested.
//!
//! Both sides are scanned concurrently, in the same segment. Tables with the same key usually return their items in the
//! same order, so nearly every item is matched at once. Items that are unmatched at the next checkpoint are looked up
//! by key on the other side. The order affects only the cost, not the result.
//!
//! A replica lags behind its source by design. A difference is therefore checked again after a delay: it is *real* only
//! if neither the source's item nor the replica's revision has changed in the meantime, and *in flux* if either has.
//!
//! | real difference | the source contains | the replica contains |
//! | --- | --- | --- |
//! | `missing` | the item | no item, or a tombstone |
//! | `different` | the item | a different item; the report contains the attributes' names, not their values |
//! | `resurrected` | no item | an item that was replicated |
//! | `extra` | no item | an item that another program wrote |
//! | `quarantined` | | any of these, for a key with an object in the failure bucket: redrive it |

mod difference;
mod merge_join;

use std::time::Duration;

use futures::future::try_join;
use millrace_shared::change::CanonicalKey;
use millrace_sinks::{Replica, SinkName};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::failure_bucket::BucketError;
use crate::failure_index::{self, FailureIndex};
use crate::progress::CountOutcome;
use crate::repair::{ReconcileError, RepairOutcome, StaleKey, predict, reconcile_keys};
use crate::task::capacity_budget::CapacityBudget;
use crate::task::context::TaskContext;
use crate::task::error::{ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, in_range, replica_name};
use crate::task::task_run::TaskRun;
use difference::{CandidateDifference, ConfirmedDifference, DifferenceKind};
use merge_join::{MergeJoin, ScanPosition};

/// Maximum number of pages read of each side between two checkpoints. A page has at most 1 MB, so the items that wait
/// to be matched have at most twice this number of MB.
const PAGES_PER_CHECKPOINT: usize = 24;

/// Default time between the two checks of a difference: a replica usually lags by far less.
const DEFAULT_RECHECK_AFTER_SECONDS: u32 = 5;
/// Maximum time between the two checks, which are made within one invocation.
const MAX_RECHECK_AFTER_SECONDS: u32 = 300;

/// Maximum time of an invocation that is reserved for reading the failure bucket, in case there are differences.
const FAILURES_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Fields of the request of a comparison.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct VerifyRequest {
    /// Process only the replica of this name (default: all replicas)
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    replica: Option<String>,
    /// Time after which a difference is read again, 0 to 300; only a difference that persists is reported (default: 5)
    #[cfg_attr(feature = "cli", arg(long, value_name = "SECONDS"))]
    recheck_after_seconds: Option<u32>,
    /// Maximum number of read capacity units per second that the task consumes, for all concurrent segments together
    /// (default: no limit)
    #[cfg_attr(feature = "cli", arg(long, value_name = "UNITS"))]
    max_read_capacity_units: Option<u32>,
}

/// The task `verify`: a comparison that repairs nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct VerifyTask(pub(crate) ReplicaComparison);

impl MaintenanceTask for VerifyTask {
    const NAME: &'static str = "verify";
    const SUMMARY: &'static str = "compares the table with its replicas and reports every difference that persists";
    const REPORTS_DIFFERENCES: bool = true;
    const SCANS_SOURCE: bool = true;
    type Request = VerifyRequest;

    fn parse(request: VerifyRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        let VerifyRequest { replica, recheck_after_seconds, max_read_capacity_units } = request;
        ReplicaComparison::parse(replica, recheck_after_seconds, max_read_capacity_units, RepairMode::No).map(Self)
    }
}

impl SegmentTask for VerifyTask {
    type Cursor = VerifyCursor;
    type Error = VerifyError;
    const USES_REPLICAS: bool = true;

    fn replica(&self) -> Option<&SinkName> {
        self.0.replica.as_ref()
    }

    fn extra_time(&self) -> Duration {
        self.0.recheck_after
    }

    async fn run(&self, task_run: &mut TaskRun<VerifyCursor>, context: &TaskContext<'_>) -> Result<bool, VerifyError> {
        compare(task_run, context, &self.0).await
    }
}

/// Validated parameters of a comparison, of `verify` and of `repair`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaComparison {
    /// The only replica to compare, or `None` for all.
    pub(crate) replica: Option<SinkName>,
    /// The time for which a difference must persist, with both sides unchanged, to be real.
    pub(crate) recheck_after: Duration,
    /// Maximum number of read capacity units per second consumed from the source, for all segments together.
    pub(crate) capacity_units: Option<u32>,
    /// The handling of real differences.
    pub(crate) repair_mode: RepairMode,
}

/// The handling of real differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepairMode {
    /// Real differences are reported.
    No,
    /// Real differences are reported as ones that would be repaired.
    DryRun,
    /// Real differences are repaired.
    Yes,
}

impl ReplicaComparison {
    pub(super) fn parse(
        replica: Option<String>,
        recheck_after_seconds: Option<u32>,
        max_read_capacity_units: Option<u32>,
        repair_mode: RepairMode,
    ) -> Result<Self, InvalidRequest> {
        let recheck_after = in_range("recheck_after_seconds", recheck_after_seconds, 0..=MAX_RECHECK_AFTER_SECONDS)?;
        Ok(Self {
            replica: replica_name(replica)?,
            recheck_after: Duration::from_secs(recheck_after.unwrap_or(DEFAULT_RECHECK_AFTER_SECONDS).into()),
            capacity_units: CapacityBudget::parse(max_read_capacity_units)?,
            repair_mode,
        })
    }
}

/// Error of a comparison.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// One side cannot be read.
    #[error(transparent)]
    Read(#[from] ReconcileError),
    /// The time between the two checks of a difference does not fit into one invocation.
    #[error(
        "recheck_after_seconds is {0}, longer than this invocation: set a lower value, or a longer timeout of the function"
    )]
    NoTime(u64),
    /// The failure bucket cannot be read, or the report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for VerifyError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::Read(error) => error.kind(),
            Self::NoTime(_) => TaskErrorKind::Invalid,
            Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }
}

/// Cursor of a comparison: the index of the replica in [`TaskCursor::replicas`](crate::task::TaskCursor::replicas), and
/// the scan positions of both sides.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyCursor {
    sink: usize,
    source: ScanPosition,
    replica: ScanPosition,
    /// The first invocation that compared the segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<ComparisonStart>,
}

/// The start of the comparison of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ComparisonStart {
    /// The time in epoch seconds.
    at: i64,
    /// The digests of the replicas' rules.
    rules: String,
}

impl VerifyCursor {
    /// Returns whether nothing of the segment has been compared.
    fn is_at_start(&self) -> bool {
        self.sink == 0 && self.source == ScanPosition::default() && self.replica == ScanPosition::default()
    }

    /// Returns the time at which the comparison of the segment began, if the whole segment was compared with the rules
    /// that the replicas have now.
    pub(super) fn began_with_rules_of(&self, replicas: &[&dyn Replica]) -> Option<OffsetDateTime> {
        let began = self.began.as_ref().filter(|began| began.rules == rules_of(replicas))?;
        OffsetDateTime::from_unix_timestamp(began.at).ok()
    }
}

/// Returns the digests of the replicas' rules as one text.
fn rules_of(replicas: &[&dyn Replica]) -> String {
    let digests = replicas.iter().map(|replica| replica.rules_digest().unwrap_or_default());
    digests.collect::<Vec<_>>().join(",")
}

/// Continues a comparison; returns `true` when it is done.
///
/// # Errors
/// [`VerifyError`]; repairs that were made before the error are correct and remain.
pub(super) async fn compare(
    task_run: &mut TaskRun<VerifyCursor>,
    context: &TaskContext<'_>,
    verify: &ReplicaComparison,
) -> Result<bool, VerifyError> {
    let mut pace = CapacityBudget::new(verify.capacity_units, task_run.segment().total_segments, Instant::now());
    let scan_until = task_run.deadline.checked_sub(verify.recheck_after).filter(|until| *until > Instant::now());
    let scan_until = scan_until.ok_or(VerifyError::NoTime(verify.recheck_after.as_secs()))?;
    let left = scan_until.saturating_duration_since(Instant::now());
    let scan_until = scan_until - FAILURES_READ_TIMEOUT.min(left / 4);
    let any_failed = failure_index::any(context.bucket).await?;
    while let Some(replica) = context.replicas.get(task_run.cursor().sink) {
        let replica = *replica;
        let from = task_run.cursor().clone();
        let new_start =
            || ComparisonStart { at: context.invocation.now.unix_timestamp(), rules: rules_of(context.replicas) };
        // The start of a comparison that another release began is unknown.
        let began = from.began.clone().or_else(|| from.is_at_start().then(new_start));
        let mut sides = MergeJoin::new(context.source, replica, task_run.segment(), from.source, from.replica);
        while sides.pages() < PAGES_PER_CHECKPOINT && !sides.is_exhausted() {
            if pace.next_permit_at().max(Instant::now()) >= scan_until {
                break;
            }
            tokio::time::sleep_until(pace.next_permit_at()).await;
            let spent = sides.advance().await?;
            pace.spend(spent, Instant::now());
        }
        // The deadline may have ended the scan early; unmatched items can be looked up at any checkpoint.
        let (candidates, counts) = sides.resolve_unmatched().await?;
        let sink = replica.name();
        let Some(findings) = recheck_after_lag(task_run, context, replica, verify, candidates).await? else {
            return Ok(false);
        };
        report_findings(task_run, context, replica, verify, findings, any_failed).await?;
        task_run.count("source.items", if from.sink == 0 { counts.source } else { 0 });
        task_run.count(format!("{sink}.items"), counts.items);
        task_run.count(format!("{sink}.tombstones"), counts.tombstones);
        task_run.count(format!("{sink}.equal"), counts.equal);
        let (source, replica) = sides.positions();
        let reached = if sides.is_exhausted() {
            VerifyCursor { sink: from.sink + 1, began, ..VerifyCursor::default() }
        } else {
            VerifyCursor { sink: from.sink, source, replica, began }
        };
        task_run.checkpoint(reached).await?;
        if Instant::now() >= scan_until {
            return Ok(task_run.cursor().sink == context.replicas.len());
        }
    }
    Ok(true)
}

/// Checks the candidates again after `verify.recheck_after`. Returns `None` if there is not enough time: the next
/// invocation then scans this range again.
async fn recheck_after_lag(
    task_run: &mut TaskRun<VerifyCursor>,
    context: &TaskContext<'_>,
    replica: &dyn Replica,
    verify: &ReplicaComparison,
    candidates: Vec<CandidateDifference>,
) -> Result<Option<Vec<ConfirmedDifference>>, VerifyError> {
    if candidates.is_empty() {
        return Ok(Some(Vec::new()));
    }
    if !task_run.wait_until(Instant::now() + verify.recheck_after).await {
        return Ok(None);
    }
    let keys: Vec<CanonicalKey> = candidates.iter().map(|candidate| candidate.key.clone()).collect();
    let replica_now = async { replica.read(&keys).await.map_err(ReconcileError::from) };
    let source_now = async { context.source.read(&keys).await.map_err(ReconcileError::from) };
    let (held, (items, _)) = try_join(replica_now, source_now).await?;
    let mut findings = Vec::new();
    let mut moving = 0;
    for ((candidate, held), item) in candidates.into_iter().zip(held.items).zip(items) {
        let expected = item.map_or(Ok(None), |item| replica.expected(&candidate.key, item));
        match candidate.confirm(held.as_ref(), &expected) {
            Some(finding) => findings.push(finding),
            None => moving += 1,
        }
    }
    task_run.count(format!("{}.in_flux", replica.name()), moving);
    Ok(Some(findings))
}

/// Counts the real differences, repairs them if requested, and reports them.
async fn report_findings(
    task_run: &mut TaskRun<VerifyCursor>,
    context: &TaskContext<'_>,
    replica: &dyn Replica,
    verify: &ReplicaComparison,
    findings: Vec<ConfirmedDifference>,
    any_failed: bool,
) -> Result<(), VerifyError> {
    if findings.is_empty() {
        return Ok(());
    }
    let sink = replica.name();
    let stale = |finding: &ConfirmedDifference| StaleKey { key: finding.key.clone(), record_revision: None };
    let stale = || findings.iter().map(stale).collect::<Vec<_>>();
    let outcomes: Vec<Option<RepairOutcome>> = match verify.repair_mode {
        RepairMode::No => vec![None; findings.len()],
        RepairMode::DryRun => {
            predict(context.source, replica, &stale(), context.invocation).await?.into_iter().map(Some).collect()
        }
        RepairMode::Yes => {
            reconcile_keys(context.source, replica, &stale(), context.invocation).await?.into_iter().map(Some).collect()
        }
    };
    let dry_run = verify.repair_mode == RepairMode::DryRun;
    // A repair counts the differences by the outcome of the repair.
    let found = if verify.repair_mode == RepairMode::No { CountOutcome::Difference } else { CountOutcome::Success };
    let outstanding = if any_failed {
        let keys = findings.iter().map(|finding| &finding.key);
        match failure_index::find_failures(keys, sink, context.bucket, context.functions, task_run.report_by()).await {
            // Repaired keys must be reported even if the failure bucket cannot be read: another invocation would find
            // them equal.
            Err(fault) if verify.repair_mode == RepairMode::Yes => {
                tracing::warn!(error = %fault, "cannot read the failure bucket");
                FailureIndex::unread()
            }
            read => read?,
        }
    } else {
        FailureIndex::none()
    };
    for (finding, outcomes) in findings.iter().zip(outcomes) {
        let objects = outstanding.objects(&finding.key);
        let unattributed = objects.is_empty() && !outstanding.is_complete;
        task_run.count(format!("{sink}.unattributed"), usize::from(unattributed));
        let kind = if objects.is_empty() { finding.kind } else { DifferenceKind::Quarantined };
        task_run.count_as(found, format!("{sink}.{}", kind.as_str()), 1);
        let (outcome, reason) = match &outcomes {
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
            task_run.count_as(count, format!("{sink}.{outcome}"), 1);
        }
        let (kind, key) = (kind.as_str(), &*finding.key.to_raw());
        task_run.report(&VerifyEntry {
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

/// A report entry.
#[derive(Serialize)]
struct VerifyEntry<'a> {
    sink: &'a str,
    kind: &'static str,
    key: &'a serde_json::value::RawValue,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    attributes: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    objects: &'a [String],
    /// True if the deadline passed before the whole failure bucket was read: it may contain an object of the key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unattributed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}
