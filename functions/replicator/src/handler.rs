//! Handling of a batch: parse, deduplicate, apply to every sink, quarantine the records that can never be applied,
//! respond.
//!
//! A change is acknowledged only if it is in every replica, in quarantine, or superseded by a change that is. The
//! response contains the lowest position that a sink may lack, and Lambda redelivers from there; for a change that is
//! already applied, the revision guard reports a duplicate, and a sink that confirmed it in this execution environment
//! does not receive it again ([`ConfirmedChanges`]).

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join, join_all};
use millrace_shared::change::{CanonicalKey, Change, ChangeKind, OtherTableError, replace_stream_steps};
use millrace_shared::checkpoint::{self, MissingSequenceNumberError};
use millrace_shared::concurrency::for_each_until;
use millrace_shared::invocation::Invocation;
use millrace_shared::metric::{self, CounterMetric};
use millrace_shared::quarantine::Quarantine;
use millrace_shared::revision::SequenceNumber;
use millrace_shared::stream::{self as dialect, BatchResponse, CONTRADICTION, EventParseError, StreamRecord};
use millrace_shared::transform_record::RECORD_INTERVAL;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::confirmed::ConfirmedChanges;
use crate::deduplicate::{LatestChanges, decide};
use millrace_sinks::transform_history::{REPORT_TIMEOUT, TransformHistory};
use millrace_sinks::{
    DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkName, SinkOutcome,
};

/// Replaces the sink in the quarantine key of a record that is passed to no sink: it cannot be parsed, or contradicts
/// another record.
const PARSE_STAGE: &str = "read";

/// The number of concurrent puts into the failure bucket: poison records are rare, but seldom come alone.
const PUTS_IN_FLIGHT: usize = 16;

/// The time reserved for quarantining records that the sinks cannot store; the sinks' own deadline is earlier by this
/// margin, or by a quarter of the invocation's remaining time if that is shorter. Without it, the poison record of a
/// sink that always uses all of its time would stay at the head of the shard forever.
const QUARANTINE_MARGIN: Duration = Duration::from_secs(3);

/// An error that fails the invocation, so that Lambda redelivers the whole batch.
#[derive(Debug, thiserror::Error)]
pub enum ReplicatorError {
    /// The event source is not a `DynamoDB` stream.
    #[error(transparent)]
    NotAStreamEvent(#[from] EventParseError),
    /// The stream carries no new images, so nothing can be replicated from it.
    #[error("stream {stream} has the view {view}, without new images: {}", replace_stream_steps(stream))]
    View {
        /// The stream's ARN.
        stream: String,
        /// The stream's view type, as stated in its records.
        view: String,
    },
    /// The event source mapping reads the stream of another table than the configured one.
    #[error(transparent)]
    OtherTable(#[from] OtherTableError),
    /// A sink cannot process any batch.
    #[error(transparent)]
    SinkMisconfigured(#[from] SinkMisconfiguredError),
    /// A failed record cannot be identified in a response.
    #[error(transparent)]
    NoPosition(#[from] MissingSequenceNumberError),
}

impl ReplicatorError {
    /// Returns the name that Lambda reports as `errorType`; docs/operations.md lists the names.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAStreamEvent(_) => "NotAStreamEvent",
            Self::View { .. } => "StreamViewWithoutImages",
            Self::OtherTable(_) => "StreamOfAnotherTable",
            Self::SinkMisconfigured(_) => "SinkMisconfigured",
            // A readable record has a sequence number, so the failed record is an unreadable one that the failure
            // bucket did not accept.
            Self::NoPosition(_) => "QuarantineUnavailable",
        }
    }
}

/// The function: its sinks, its quarantine, and the changes that the sinks confirmed in batches that are redelivered.
pub struct ReplicatorHandler {
    sinks: Vec<Box<dyn Sink>>,
    quarantine: Quarantine,
    confirmed: Mutex<ConfirmedChanges>,
    rules: Option<ReplicaRules>,
    /// The ARN of the source table, if it is configured.
    source_arn: Option<String>,
}

/// The rules of the replicas, and the records to compare them with.
struct ReplicaRules {
    history: TransformHistory,
    replicas: Vec<ReplicaRule>,
}

/// The rules of a replica.
struct ReplicaRule {
    replica: SinkName,
    /// The digest of the rules; `None` if the replica stores items as they are.
    digest: Option<String>,
    /// Whether this execution environment has reported a replica with items of other rules.
    is_reported: AtomicBool,
    /// The time at which an invocation of this execution environment last recorded the rules, in epoch seconds.
    recorded_at: AtomicI64,
}

impl ReplicaRules {
    /// Records the rules that no invocation of this execution environment has recorded in the last [`RECORD_INTERVAL`],
    /// and returns the replicas whose rules remain unrecorded, each with the reason. `now` is the time of the invocation,
    /// or `None` at the start: a long time may pass between the start and the first invocation.
    async fn record(&self, now: Option<OffsetDateTime>, deadline: Instant) -> Vec<(&str, String)> {
        let now = now.map(OffsetDateTime::unix_timestamp);
        let is_open = |rule: &&ReplicaRule| {
            let age = now.map(|now| now.saturating_sub(rule.recorded_at.load(Ordering::Relaxed)));
            age.is_none_or(|age| !(0..RECORD_INTERVAL.whole_seconds()).contains(&age))
        };
        let recorded = join_all(self.replicas.iter().filter(is_open).map(|rule| async move {
            let name = rule.replica.as_str();
            let is_start = !rule.is_reported.load(Ordering::Relaxed);
            let reported = self.history.report_rules(name, rule.digest.as_deref(), is_start, deadline).await;
            rule.is_reported.fetch_or(reported.is_ok(), Ordering::Relaxed);
            if let (Ok(()), Some(now)) = (&reported, now) {
                rule.recorded_at.store(now, Ordering::Relaxed);
            }
            reported.err().map(|error| (name, error))
        }));
        recorded.await.into_iter().flatten().collect()
    }
}

/// The part of a batch that is passed to a sink which confirmed the rest of it before.
struct SinkShare<'b> {
    changes: Vec<&'b Change<'b>>,
    latest: Vec<&'b Change<'b>>,
}

impl SinkShare<'_> {
    fn batch(&self) -> DeduplicatedBatch<'_> {
        DeduplicatedBatch { changes: &self.changes, latest_per_key: &self.latest }
    }
}

/// The result of a batch in one sink.
struct AppliedBatch<'b> {
    /// The sink's index.
    sink_index: usize,
    sink: &'b str,
    /// The part that was passed to the sink; `None` if that was the whole batch.
    share: Option<SinkShare<'b>>,
    outcome: SinkOutcome,
    /// The time from the arrival of the batch to the sink's response.
    duration: Duration,
}

impl AppliedBatch<'_> {
    fn passed<'s>(&'s self, batch: DeduplicatedBatch<'s>) -> DeduplicatedBatch<'s> {
        self.share.as_ref().map_or(batch, SinkShare::batch)
    }

    /// Returns how many of the deduplicated changes were not passed to the sink because it had confirmed them before.
    fn confirmed_before(&self, batch: DeduplicatedBatch<'_>) -> usize {
        batch.latest_per_key.len() - self.passed(batch).latest_per_key.len()
    }

    /// Returns the age of the oldest change that was passed to the sink, at its response to a batch that arrived at
    /// `now`. `None` if the sink neither applied a change nor lacks one: a replay is old, but the replica is not
    /// behind.
    fn lag(&self, batch: DeduplicatedBatch<'_>, now: OffsetDateTime) -> Option<Duration> {
        if self.outcome.applied == 0 && !self.outcome.failures.iter().any(is_transient) {
            return None;
        }
        let changes = self.passed(batch).changes;
        let oldest = changes.iter().filter_map(|change| change.approximate_creation_time).min()?;
        Some(Duration::try_from(now - oldest).unwrap_or_default() + self.duration)
    }
}

/// A record that a sink cannot store, however often it is delivered.
struct PoisonRecord<'s> {
    sink: &'s str,
    index: usize,
    reason: String,
    /// The index of the record from which Lambda must redeliver the batch if this record is not quarantined.
    redelivered_from: usize,
}

impl ReplicatorHandler {
    /// Creates the function with these sinks.
    #[must_use]
    pub fn new(sinks: Vec<Box<dyn Sink>>, quarantine: Quarantine) -> Self {
        Self { sinks, quarantine, confirmed: Mutex::default(), rules: None, source_arn: None }
    }

    /// Sets the ARN of the source table: a batch of another table's stream is refused.
    #[must_use]
    pub fn with_source(self, source_arn: Option<String>) -> Self {
        Self { source_arn, ..self }
    }

    /// Sets the digests of the replicas' rules, which [`ReplicatorHandler::check`] compares with the recorded ones;
    /// `None` for a replica that stores items as they are.
    #[must_use]
    pub fn with_rules(self, history: TransformHistory, digests: Vec<(SinkName, Option<String>)>) -> Self {
        let rule = |(replica, digest)| ReplicaRule {
            replica,
            digest,
            is_reported: AtomicBool::new(false),
            recorded_at: AtomicI64::new(i64::MIN),
        };
        let replicas = digests.into_iter().map(rule).collect();
        Self { rules: Some(ReplicaRules { history, replicas }), ..self }
    }

    /// Verifies, before the first batch, that every replica exists and has the right shape. All sinks are checked
    /// concurrently: together they have only the time that Lambda allows for the start. Then records the rules of the
    /// replicas, and reports a replica that may contain items of other rules.
    ///
    /// # Errors
    /// [`ReplicatorError::SinkMisconfigured`], which names the sink and the setting to correct; if there are several,
    /// all are logged.
    pub async fn check(&self) -> Result<(), ReplicatorError> {
        let checked = join_all(self.sinks.iter().map(|sink| sink.check())).await;
        let mut errors = checked.into_iter().filter_map(Result::err);
        let first = errors.next();
        for other in errors {
            tracing::error!(error = %other, "cannot start");
        }
        if let Some(first) = first {
            return Err(first.into());
        }
        // Rules that are not recorded now are recorded before the first batch.
        drop(self.record_rules(None, Instant::now() + REPORT_TIMEOUT).await);
        Ok(())
    }

    /// As [`ReplicaRules::record`].
    async fn record_rules(&self, now: Option<OffsetDateTime>, deadline: Instant) -> Vec<(&str, String)> {
        match &self.rules {
            Some(rules) => rules.record(now, deadline).await,
            None => Vec::new(),
        }
    }

    /// Handles the records of one invocation.
    ///
    /// # Errors
    /// [`ReplicatorError`] if the whole batch must be redelivered; a failed record is part of the response.
    pub async fn handle(&self, event: &RawValue, invocation: &Invocation) -> Result<BatchResponse, ReplicatorError> {
        self.handle_payload(event.get().as_bytes(), invocation).await
    }

    /// Like [`ReplicatorHandler::handle`], for the bytes of a payload.
    ///
    /// # Errors
    /// As [`ReplicatorHandler::handle`].
    pub async fn handle_payload(
        &self,
        payload: &[u8],
        invocation: &Invocation,
    ) -> Result<BatchResponse, ReplicatorError> {
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

    async fn handle_batch(&self, payload: &[u8], invocation: &Invocation) -> Result<BatchResponse, ReplicatorError> {
        let started = Instant::now();
        let batch = dialect::read_bytes(payload)?;
        batch.check_table(self.source_arn.as_deref())?;
        let records = batch.records;
        let (changes, mut unfit) = readable(&records);
        refuse_view_without_images(&changes)?;
        let LatestChanges { survivors, contradicting } = decide(&changes);
        unfit.extend(contradicting.into_iter().map(|position| PoisonRecord {
            sink: PARSE_STAGE,
            index: changes[position].index,
            reason: format!("{CONTRADICTION}: that record was applied; a redrive sets the item to the table's state"),
            redelivered_from: changes[position].index,
        }));
        let latest: Vec<&Change<'_>> = survivors.into_iter().map(|position| changes[position]).collect();
        let batch = DeduplicatedBatch { changes: &changes, latest_per_key: &latest };

        let left = invocation.deadline.saturating_duration_since(started);
        let until = invocation.deadline - QUARANTINE_MARGIN.min(left / 4);
        let applying = Invocation { deadline: until, ..invocation.clone() };
        let shares = self.shares(batch, invocation.now);
        let unrecorded = self.record_rules(Some(invocation.now), until.min(started + REPORT_TIMEOUT)).await;
        let sinks = self.sinks.iter().zip(shares).enumerate();
        let (tried, quarantine_outcome) = join(
            join_all(sinks.map(|(sink_index, (sink, share))| {
                let unrecorded = unrecorded.iter().find(|(replica, _)| *replica == sink.name());
                let refusal = unrecorded.map(|(_, error)| {
                    format!(
                        "nothing is written before the rules of the replica are recorded in FAILURE_BUCKET: {error}"
                    )
                });
                apply(sink_index, &**sink, share, batch, refusal, &applying, started)
            })),
            self.quarantine_records(&records, &unfit, invocation),
        )
        .await;
        if tried.iter().any(Result::is_err) {
            // The whole batch is redelivered, and the working sinks have applied it already.
            self.remember(tried.iter().flatten(), batch, None, invocation.now);
        }
        let outcomes: Vec<AppliedBatch<'_>> = tried.into_iter().collect::<Result<_, SinkMisconfiguredError>>()?;
        let (poison, lacking) = sort_failures(&outcomes);
        let quarantine_outcome = quarantine_outcome.and(self.quarantine_records(&records, &poison, invocation).await);

        let failed: BTreeSet<usize> = lacking.union(&quarantine_outcome.failing).copied().collect();
        let response = checkpoint::batch_response(&records, failed.iter().copied());
        let (retry_from, retry_all) = (response.as_ref().ok().and_then(BatchResponse::identifier), response.is_err());
        let is_redelivered = retry_all || retry_from.is_some();
        match response.as_ref().map(BatchResponse::identifier) {
            Ok(None) => self.confirmed().acknowledge(&changes),
            // Records below that position are not redelivered.
            Ok(Some(position)) => {
                let from = SequenceNumber::parse(position).ok();
                self.remember(outcomes.iter(), batch, from, invocation.now);
            }
            Err(_) => self.remember(outcomes.iter(), batch, None, invocation.now),
        }
        let lag = count(&outcomes, batch, quarantine_outcome.quarantined, is_redelivered, invocation.now);
        let sum =
            |part: fn(&SinkOutcome) -> usize| outcomes.iter().map(|applied| part(&applied.outcome)).sum::<usize>();
        tracing::info!(
            request_id = invocation.request_id,
            batch.records = records.len(),
            batch.deduplicated = latest.len(),
            batch.applied = sum(|outcome| outcome.applied),
            batch.duplicate = sum(|outcome| outcome.duplicate),
            batch.stale = sum(|outcome| outcome.stale),
            batch.filtered = sum(|outcome| outcome.filtered.len()),
            batch.confirmed_before = outcomes.iter().map(|applied| applied.confirmed_before(batch)).sum::<usize>(),
            batch.tombstones = sum(|outcome| outcome.tombstones),
            batch.quarantined = quarantine_outcome.quarantined,
            batch.failed = failed.len(),
            batch.lag_ms = lag,
            duration_ms = millis(started.elapsed()),
            "batch handled"
        );
        if is_redelivered {
            tracing::warn!(
                request_id = invocation.request_id,
                batch.failed = failed.len(),
                batch.retry_from_sequence = retry_from,
                batch.retry_all = retry_all,
                error = first_transient(&outcomes).or(quarantine_outcome.error),
                "batch not fully processed"
            );
        }
        Ok(response?)
    }

    fn confirmed(&self) -> MutexGuard<'_, ConfirmedChanges> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the part of a batch that each sink has to receive; `None` means the whole batch.
    fn shares<'b>(&self, batch: DeduplicatedBatch<'b>, now: OffsetDateTime) -> Vec<Option<SinkShare<'b>>> {
        let mut confirmed = self.confirmed();
        confirmed.expire(now);
        let share = |sink_index: usize| {
            // The common case.
            if confirmed.is_empty() {
                return None;
            }
            let lacking = confirmed.lacking(sink_index, batch.changes);
            // These changes may include an older one, which may mean that the replica was refilled and needs all
            // changes of the item again.
            confirmed.forget_items(sink_index, &lacking);
            let of = |changes: &[&'b Change<'b>]| {
                changes.iter().copied().filter(|change| lacking.contains(change.key.canonical())).collect()
            };
            Some(SinkShare { changes: of(batch.changes), latest: of(batch.latest_per_key) })
        };
        (0..self.sinks.len()).map(share).collect()
    }

    /// Records the changes that the sinks confirmed in a batch that is redelivered from the sequence number `from` on,
    /// or completely if that is `None`.
    fn remember<'a>(
        &self,
        outcomes: impl Iterator<Item = &'a AppliedBatch<'a>>,
        batch: DeduplicatedBatch<'a>,
        from: Option<SequenceNumber>,
        now: OffsetDateTime,
    ) {
        let mut confirmed = self.confirmed();
        for applied in outcomes {
            let passed = applied.passed(batch);
            let failing: HashSet<&CanonicalKey> = applied
                .outcome
                .failures
                .iter()
                .filter_map(|failure| {
                    let position = passed.changes.binary_search_by_key(&failure.index, |change| change.index).ok()?;
                    Some(passed.changes[position].key.canonical())
                })
                .collect();
            // After any failure, none of the item's changes counts as confirmed: the failed invalidation marker or row
            // may be due to another change of the item than the reported one.
            let is_whole = |change: &&&Change<'_>| !failing.contains(change.key.canonical());
            // A change that the sink can never store says nothing about whether the sink is reachable.
            if applied.outcome.failures.iter().any(is_transient)
                && !passed.changes.iter().any(|change| is_whole(&change))
            {
                // The sink is unreachable, and may be a different one when it is available again, e.g. after a
                // failover.
                confirmed.forget_sink(applied.sink_index);
                continue;
            }
            let comes_again = |change: &&&Change<'_>| from.is_none_or(|from| change.revision.sequence() >= from);
            let kept = passed.changes.iter().filter(is_whole).filter(comes_again).copied();
            confirmed.confirm(applied.sink_index, kept, now);
        }
    }

    /// Quarantines records, until the deadline.
    async fn quarantine_records(
        &self,
        records: &[StreamRecord<'_>],
        poison: &[PoisonRecord<'_>],
        invocation: &Invocation,
    ) -> QuarantineOutcome {
        // A record may be poison to two sinks and is safe only when both puts are confirmed: `open` contains puts, not
        // records.
        let (mut failed, mut first_error) = (Vec::new(), None);
        let put = |position: usize| {
            let PoisonRecord { sink, index, reason, .. } = &poison[position];
            self.quarantine.put(sink, &records[*index], reason)
        };
        let puts = for_each_until(invocation.deadline, PUTS_IN_FLIGHT, 0..poison.len(), put, |position, put| {
            match put {
                Ok(()) => {}
                Err(error) => {
                    failed.push(position);
                    first_error.get_or_insert(error);
                }
            }
            ControlFlow::Continue(())
        });
        let mut open = puts.await;
        open.append(&mut failed);
        let error = (!open.is_empty())
            .then(|| first_error.map_or_else(|| "the deadline has passed".to_owned(), |error| error.to_string()));
        if let Some(error) = &error {
            tracing::error!(
                request_id = invocation.request_id,
                batch.quarantine_failed = open.len(),
                error,
                "records not quarantined: Lambda redelivers them"
            );
        }
        let failing = open.iter().map(|position| poison[*position].redelivered_from).collect();
        QuarantineOutcome { quarantined: poison.len() - open.len(), failing, error }
    }
}

/// The result of a set of quarantine puts.
struct QuarantineOutcome {
    quarantined: usize,
    failing: BTreeSet<usize>,
    /// The first error, if records were not quarantined.
    error: Option<String>,
}

impl QuarantineOutcome {
    fn and(mut self, mut other: Self) -> Self {
        self.failing.append(&mut other.failing);
        Self {
            quarantined: self.quarantined + other.quarantined,
            failing: self.failing,
            error: self.error.or(other.error),
        }
    }
}

/// Separates the changes of a batch from the records that cannot be parsed.
fn readable<'b, 'a>(records: &'b [StreamRecord<'a>]) -> (Vec<&'b Change<'a>>, Vec<PoisonRecord<'b>>) {
    let (mut changes, mut unreadable) = (Vec::with_capacity(records.len()), Vec::new());
    for (index, record) in records.iter().enumerate() {
        match &record.read {
            Ok(change) => changes.push(change),
            Err(reason) => {
                let reason = reason.to_string();
                unreadable.push(PoisonRecord { sink: PARSE_STAGE, index, reason, redelivered_from: index });
            }
        }
    }
    (changes, unreadable)
}

/// Fails if a written item comes without its image. This is not an error of the record: every record of such a stream
/// lacks its image.
fn refuse_view_without_images(changes: &[&Change<'_>]) -> Result<(), ReplicatorError> {
    let without = changes.iter().find(|change| matches!(change.effect, ChangeKind::Write { image: None }));
    without.map_or(Ok(()), |change| {
        let view = change.view.as_deref().unwrap_or("unknown").to_owned();
        Err(ReplicatorError::View { stream: change.source.arn().to_owned(), view })
    })
}

/// Passes a batch, or the sink's share of it, to a sink; with a `refusal`, every change is a transient failure instead.
async fn apply<'b>(
    sink_index: usize,
    sink: &'b dyn Sink,
    share: Option<SinkShare<'b>>,
    batch: DeduplicatedBatch<'b>,
    refusal: Option<String>,
    invocation: &Invocation,
    started: Instant,
) -> Result<AppliedBatch<'b>, SinkMisconfiguredError> {
    let passed = share.as_ref().map_or(batch, SinkShare::batch);
    let outcome = if passed.changes.is_empty() {
        SinkOutcome::default()
    } else if let Some(refusal) = refusal {
        SinkOutcome::all_failed(&sink.required_changes(passed), &refusal)
    } else {
        match timeout_at(invocation.deadline, sink.apply(passed, invocation)).await {
            Ok(outcome) => outcome?,
            Err(_) => SinkOutcome::all_failed(&sink.required_changes(passed), "the sink did not respond in time"),
        }
    };
    Ok(AppliedBatch { sink_index, sink: sink.name(), share, outcome, duration: started.elapsed() })
}

/// Returns the records to quarantine, and the indexes of the changes that a sink lacks until another delivery.
fn sort_failures<'s>(outcomes: &'s [AppliedBatch<'_>]) -> (Vec<PoisonRecord<'s>>, BTreeSet<usize>) {
    let (mut poison, mut lacking) = (Vec::new(), BTreeSet::new());
    for AppliedBatch { sink, outcome, .. } in outcomes {
        for FailedChange { index, kind } in &outcome.failures {
            match kind {
                FailureKind::Transient(_) => drop(lacking.insert(*index)),
                FailureKind::Permanent(reason) => {
                    let redelivered_from = outcome.redelivered_from.get(index).copied().unwrap_or(*index);
                    poison.push(PoisonRecord { sink, index: *index, reason: reason.clone(), redelivered_from });
                }
            }
        }
    }
    (poison, lacking)
}

fn is_transient(failure: &FailedChange) -> bool {
    matches!(failure.kind, FailureKind::Transient(_))
}

fn first_transient(outcomes: &[AppliedBatch<'_>]) -> Option<String> {
    outcomes.iter().find_map(|AppliedBatch { sink, outcome, .. }| {
        outcome.failures.iter().find_map(|failure| match &failure.kind {
            FailureKind::Transient(reason) => Some(format!("{sink}: {reason}")),
            FailureKind::Permanent(_) => None,
        })
    })
}

/// Records the metrics of the batch, and returns its lag in milliseconds: that of the last sink that applied a change.
fn count(
    outcomes: &[AppliedBatch<'_>],
    batch: DeduplicatedBatch<'_>,
    quarantined: usize,
    redelivered: bool,
    now: OffsetDateTime,
) -> Option<u64> {
    let add = |metric: CounterMetric<1>, sink, count: usize| metric.increment([sink], count as u64);
    let mut longest = None;
    for applied in outcomes {
        let AppliedBatch { sink, outcome, .. } = applied;
        add(metric::APPLIED_CHANGES, *sink, outcome.applied);
        add(metric::DUPLICATE_CHANGES, *sink, outcome.duplicate);
        add(metric::STALE_CHANGES, *sink, outcome.stale);
        add(metric::TOMBSTONES, *sink, outcome.tombstones);
        let confirmed_before = applied.confirmed_before(batch);
        if confirmed_before > 0 {
            add(metric::PREVIOUSLY_CONFIRMED_CHANGES, *sink, confirmed_before);
        }
        if let Some(lag) = applied.lag(batch, now) {
            // Also of a sink that fails, so that the lag of this replica grows meanwhile.
            metric::REPLICATION_LAG.record([*sink], lag.as_secs_f64() * 1000.0);
            longest = longest.max((outcome.applied > 0).then(|| millis(lag)));
        }
    }
    metric::QUARANTINED.increment([], quarantined as u64);
    metric::PARTIAL_BATCH_FAILURES.increment([], u64::from(redelivered));
    longest
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
