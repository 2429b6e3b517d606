//! One batch: read, settle, apply to every sink, put aside what can never be applied, answer.
//!
//! Nothing is acknowledged that is not in every replica, in quarantine, or superseded by a change that is. What a
//! sink may lack is answered by its lowest position, and Lambda delivers from there again; the guard makes what was
//! applied meanwhile a duplicate, and a sink that confirmed it in this environment is spared it ([`Confirmations`]).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join, join_all};
use futures::{StreamExt, stream};
use serde_json::value::RawValue;
use shared::change::{CanonicalKey, Change, Effect};
use shared::checkpoint::{self, NoPosition};
use shared::invocation::Invocation;
use shared::metric::{self, CounterMetric};
use shared::quarantine::{Naming, Quarantine};
use shared::revision::{Revision, SequenceNumber};
use shared::stream::{self as dialect, Answer, NotAStreamEvent, Record};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::confirmed::Confirmations;
use crate::settle::{Settlement, decide};
use crate::sink::{Broken, Decided, Failure, FailureKind, Outcome, Sink};

/// Stands for the sink in the quarantine key of a record that is offered to none of them: it cannot be read, or contradicts
/// another one.
const READ: &str = "read";

/// Why a record is put aside that no replica could tell from another one.
const CONTRADICTION: &str = "another record of this item has the same sequence number and tells something else: that one was \
     applied; a redrive brings the item to the table's state";

/// Puts into the failure bucket at once: poison is rare, and seldom comes alone.
const PUTS_IN_FLIGHT: usize = 16;

/// Of the time that is left to an invocation, a quarter at most: kept from the sinks for putting aside what they cannot
/// hold. A sink that always runs out of time would leave its poison at the head of the shard for ever.
const PUTTING_ASIDE: Duration = Duration::from_secs(3);

/// The invocation fails, and Lambda delivers the whole batch again.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The mapping is not that of a `DynamoDB` stream.
    #[error(transparent)]
    NotAStreamEvent(#[from] NotAStreamEvent),
    /// The stream carries no new images, so nothing can be replicated from it.
    #[error(
        "stream {stream} has the view {view}, without new images: set the table's StreamViewType to \
         NEW_AND_OLD_IMAGES or NEW_IMAGE"
    )]
    View {
        /// The stream's ARN.
        stream: String,
        /// Its view, as its records say.
        view: String,
    },
    /// A sink can serve no batch.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// What failed cannot be named in an answer.
    #[error(transparent)]
    NoPosition(#[from] NoPosition),
}

impl Fault {
    /// What Lambda shows as `errorType`; docs/operations.md lists them.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotAStreamEvent(_) => "NotAStreamEvent",
            Self::View { .. } => "StreamViewWithoutImages",
            Self::Broken(_) => "SinkMisconfigured",
            // A readable record has a position of its own, so it is one that the failure bucket did not take.
            Self::NoPosition(_) => "QuarantineUnavailable",
        }
    }
}

/// The function: its sinks, its corner of the failure bucket, and what the sinks confirmed of batches that come again.
pub struct Replicator {
    sinks: Vec<Box<dyn Sink>>,
    quarantine: Quarantine,
    confirmed: Mutex<Confirmations>,
}

/// What a sink is given of a batch of which it confirmed a part before.
struct Share<'b> {
    changes: Vec<&'b Change<'b>>,
    settled: Vec<&'b Change<'b>>,
}

impl Share<'_> {
    fn decided(&self) -> Decided<'_> {
        Decided { changes: &self.changes, settled: &self.settled }
    }
}

/// What became of a batch in one sink.
struct Applied<'b> {
    /// The sink's place among all.
    place: usize,
    sink: &'static str,
    /// What it was given; nothing if that was the whole batch.
    share: Option<Share<'b>>,
    outcome: Outcome,
}

impl Applied<'_> {
    fn given<'s>(&'s self, decided: Decided<'s>) -> Decided<'s> {
        self.share.as_ref().map_or(decided, Share::decided)
    }

    /// How many of the settled changes the sink was spared, because it confirmed them before.
    fn confirmed_before(&self, decided: Decided<'_>) -> usize {
        decided.settled.len() - self.given(decided).settled.len()
    }
}

/// A record that no delivery will bring into a sink.
struct Poison {
    sink: &'static str,
    index: usize,
    naming: Naming,
    reason: String,
}

impl Replicator {
    /// The function over these sinks.
    #[must_use]
    pub fn new(sinks: Vec<Box<dyn Sink>>, quarantine: Quarantine) -> Self {
        Self { sinks, quarantine, confirmed: Mutex::default() }
    }

    /// Proves before the first batch that every replica is there and of the right shape. All are asked at once: together
    /// they have no more time than Lambda gives the start.
    ///
    /// # Errors
    /// [`Fault::Broken`], which names the sink and the setting to mend; of several, all are in the log.
    pub async fn check(&self) -> Result<(), Fault> {
        let checked = join_all(self.sinks.iter().map(|sink| sink.check())).await;
        let mut broken = checked.into_iter().filter_map(Result::err);
        let first = broken.next();
        for other in broken {
            tracing::error!(error = %other, "cannot start");
        }
        first.map_or(Ok(()), |first| Err(first.into()))
    }

    /// Handles the records of one invocation.
    ///
    /// # Errors
    /// [`Fault`] if the whole batch must come again; a failing record is part of the answer.
    pub async fn handle(&self, event: &RawValue, invocation: &Invocation) -> Result<Answer, Fault> {
        let handled = self.handle_batch(event, invocation).await;
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

    async fn handle_batch(&self, event: &RawValue, invocation: &Invocation) -> Result<Answer, Fault> {
        let started = Instant::now();
        let records = dialect::read(event)?.records;
        let (changes, mut unfit) = readable(&records);
        refuse_view_without_images(&changes)?;
        let Settlement { survivors, contradicting } = decide(&changes);
        unfit.extend(contradicting.into_iter().map(|place| Poison {
            sink: READ,
            index: changes[place].index,
            naming: Naming::Content,
            reason: CONTRADICTION.to_owned(),
        }));
        let settled: Vec<&Change<'_>> = survivors.into_iter().map(|place| changes[place]).collect();
        let decided = Decided { changes: &changes, settled: &settled };

        let left = invocation.stop_at.saturating_duration_since(started);
        let until = invocation.stop_at - PUTTING_ASIDE.min(left / 4);
        let applying = Invocation { stop_at: until, ..invocation.clone() };
        let shares = self.shares(decided, invocation.now);
        let sinks = self.sinks.iter().zip(shares).enumerate();
        let (tried, aside) = join(
            join_all(sinks.map(|(place, (sink, share))| apply(place, &**sink, share, decided, &applying))),
            self.put_aside(&records, &name_apart(unfit, &records), invocation),
        )
        .await;
        if tried.iter().any(Result::is_err) {
            // The batch comes again whole, and the sinks that are well have it already.
            self.remember(tried.iter().flatten(), decided, None, invocation.now);
        }
        let outcomes: Vec<Applied<'_>> = tried.into_iter().collect::<Result<_, Broken>>()?;
        let (poison, lacking) = sort_failures(&outcomes);
        let aside = aside.and(self.put_aside(&records, &name_apart(poison, &records), invocation).await);

        let failed: BTreeSet<usize> = lacking.union(&aside.failing).copied().collect();
        let answer = checkpoint::answer(&records, failed.iter().copied());
        let (retry_from, retry_all) = (answer.as_ref().ok().and_then(Answer::identifier), answer.is_err());
        let is_redelivered = retry_all || retry_from.is_some();
        match answer.as_ref().map(Answer::identifier) {
            Ok(None) => self.confirmed().acknowledge(&changes),
            // What is below that position does not come again.
            Ok(Some(position)) => {
                let from = SequenceNumber::parse(position).ok();
                self.remember(outcomes.iter(), decided, from, invocation.now);
            }
            Err(_) => self.remember(outcomes.iter(), decided, None, invocation.now),
        }
        let lag = count(&outcomes, decided, aside.quarantined, is_redelivered, invocation, started);
        let sum = |part: fn(&Outcome) -> usize| outcomes.iter().map(|applied| part(&applied.outcome)).sum::<usize>();
        tracing::info!(
            request_id = invocation.request_id,
            batch.records = records.len(),
            batch.deduplicated = settled.len(),
            batch.applied = sum(|outcome| outcome.applied),
            batch.duplicate = sum(|outcome| outcome.duplicate),
            batch.stale = sum(|outcome| outcome.stale),
            batch.confirmed_before = outcomes.iter().map(|applied| applied.confirmed_before(decided)).sum::<usize>(),
            batch.tombstones = sum(|outcome| outcome.tombstones),
            batch.quarantined = aside.quarantined,
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
                error = first_transient(&outcomes).or(aside.error),
                "batch not fully processed"
            );
        }
        Ok(answer?)
    }

    fn confirmed(&self) -> MutexGuard<'_, Confirmations> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each sink is to be given of a batch; nothing if that is all of it.
    fn shares<'b>(&self, decided: Decided<'b>, now: OffsetDateTime) -> Vec<Option<Share<'b>>> {
        let mut confirmed = self.confirmed();
        confirmed.expire(now);
        let share = |place: usize| {
            // As nearly always.
            if confirmed.is_empty() {
                return None;
            }
            let lacking = confirmed.lacking(place, decided.changes);
            // An older change may be among them, which shows that the replica has to take all of the item anew.
            confirmed.forget_items(place, &lacking);
            let of = |changes: &[&'b Change<'b>]| {
                changes.iter().copied().filter(|change| lacking.contains(change.key.canonical())).collect()
            };
            Some(Share { changes: of(decided.changes), settled: of(decided.settled) })
        };
        (0..self.sinks.len()).map(share).collect()
    }

    /// Remembers what the sinks confirmed of a batch that comes again from this number on, or whole.
    fn remember<'a>(
        &self,
        outcomes: impl Iterator<Item = &'a Applied<'a>>,
        decided: Decided<'a>,
        from: Option<SequenceNumber>,
        now: OffsetDateTime,
    ) {
        let mut confirmed = self.confirmed();
        for applied in outcomes {
            let given = applied.given(decided);
            let failing: HashSet<&CanonicalKey> = applied
                .outcome
                .failures
                .iter()
                .filter_map(|failure| {
                    let place = given.changes.binary_search_by_key(&failure.index, |change| change.index).ok()?;
                    Some(given.changes[place].key.canonical())
                })
                .collect();
            // Whatever a sink failed for, its mark or its row may be that of another change of the item.
            let is_whole = |change: &&&Change<'_>| !failing.contains(change.key.canonical());
            // What it can never hold says nothing of its reach.
            let is_transient = |failure: &Failure| matches!(failure.kind, FailureKind::Transient(_));
            if applied.outcome.failures.iter().any(is_transient)
                && !given.changes.iter().any(|change| is_whole(&change))
            {
                // It is out of reach, and may come back as another one, e.g. after a failover.
                confirmed.forget_sink(applied.place);
                continue;
            }
            let comes_again = |change: &&&Change<'_>| from.is_none_or(|from| change.revision.sequence() >= from);
            let kept = given.changes.iter().filter(is_whole).filter(comes_again).copied();
            confirmed.confirm(applied.place, kept, now);
        }
    }

    /// Puts records into quarantine, until the time is up.
    async fn put_aside(&self, records: &[Record<'_>], poison: &[Poison], invocation: &Invocation) -> Aside {
        // A record may be poison to two sinks and is safe only when both puts are confirmed: puts are kept, not records.
        let mut open: BTreeSet<usize> = (0..poison.len()).collect();
        let mut first_error = None;
        let mut puts = stream::iter(0..poison.len())
            .map(|place| async move {
                let Poison { sink, index, naming, reason } = &poison[place];
                (place, self.quarantine.put(sink, &records[*index], *naming, reason).await)
            })
            .buffer_unordered(PUTS_IN_FLIGHT);
        while let Ok(Some((place, put))) = timeout_at(invocation.stop_at, puts.next()).await {
            match put {
                Ok(()) => drop(open.remove(&place)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
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
        let failing = open.iter().map(|place| poison[*place].index).collect();
        Aside { quarantined: poison.len() - open.len(), failing, error }
    }
}

/// What came of a set of quarantine puts.
struct Aside {
    quarantined: usize,
    failing: BTreeSet<usize>,
    /// Why records were not quarantined.
    error: Option<String>,
}

impl Aside {
    fn and(mut self, mut other: Self) -> Self {
        self.failing.append(&mut other.failing);
        Self {
            quarantined: self.quarantined + other.quarantined,
            failing: self.failing,
            error: self.error.or(other.error),
        }
    }
}

/// The changes of a batch, and the records that tell none.
fn readable<'b, 'a>(records: &'b [Record<'a>]) -> (Vec<&'b Change<'a>>, Vec<Poison>) {
    let (mut changes, mut unreadable) = (Vec::with_capacity(records.len()), Vec::new());
    for (index, record) in records.iter().enumerate() {
        match &record.read {
            Ok(change) => changes.push(change),
            Err(reason) => {
                let (naming, reason) = (Naming::Position, reason.to_string());
                unreadable.push(Poison { sink: READ, index, naming, reason });
            }
        }
    }
    (changes, unreadable)
}

/// Names a record by its content, too, where another one of its batch that is put aside for the same sink has its position:
/// the second object would overwrite the first.
fn name_apart(mut poison: Vec<Poison>, records: &[Record<'_>]) -> Vec<Poison> {
    let mut first_of: HashMap<(&'static str, Revision), usize> = HashMap::new();
    for Poison { sink, index, naming, .. } in &mut poison {
        let record = &records[*index];
        let Some((source, number)) = record.source.as_ref().zip(record.number) else { continue };
        let first = *first_of.entry((*sink, Revision::new(source.label(), number))).or_insert(*index);
        if records[first].raw.get() != record.raw.get() {
            *naming = Naming::Content;
        }
    }
    poison
}

/// A written item without its image is no fault of the record: every record of such a stream is like it.
fn refuse_view_without_images(changes: &[&Change<'_>]) -> Result<(), Fault> {
    let without = changes.iter().find(|change| matches!(change.effect, Effect::Write { image: None }));
    without.map_or(Ok(()), |change| {
        let view = change.view.as_deref().unwrap_or("unknown").to_owned();
        Err(Fault::View { stream: change.source.arn().to_owned(), view })
    })
}

async fn apply<'b>(
    place: usize,
    sink: &dyn Sink,
    share: Option<Share<'b>>,
    decided: Decided<'b>,
    invocation: &Invocation,
) -> Result<Applied<'b>, Broken> {
    let given = share.as_ref().map_or(decided, Share::decided);
    let outcome = if given.changes.is_empty() {
        Outcome::default()
    } else {
        match timeout_at(invocation.stop_at, sink.apply(given, invocation)).await {
            Ok(outcome) => outcome?,
            Err(_) => Outcome::all_failed(given.settled, "the sink did not answer in time"),
        }
    };
    Ok(Applied { place, sink: sink.name(), share, outcome })
}

/// What to put aside, and what some sink lacks until another delivery.
fn sort_failures(outcomes: &[Applied<'_>]) -> (Vec<Poison>, BTreeSet<usize>) {
    let (mut poison, mut lacking) = (Vec::new(), BTreeSet::new());
    for Applied { sink, outcome, .. } in outcomes {
        for Failure { index, kind } in &outcome.failures {
            match kind {
                FailureKind::Transient(_) => drop(lacking.insert(*index)),
                FailureKind::Permanent(reason) => {
                    poison.push(Poison { sink, index: *index, naming: Naming::Position, reason: reason.clone() });
                }
            }
        }
    }
    (poison, lacking)
}

fn first_transient(outcomes: &[Applied<'_>]) -> Option<String> {
    outcomes.iter().find_map(|Applied { sink, outcome, .. }| {
        outcome.failures.iter().find_map(|failure| match &failure.kind {
            FailureKind::Transient(reason) => Some(format!("{sink}: {reason}")),
            FailureKind::Permanent(_) => None,
        })
    })
}

/// Counts the batch, and answers its lag: the age of its oldest change when it was applied. A batch of which nothing was
/// applied has none: a replay is old without any replica being behind.
fn count(
    outcomes: &[Applied<'_>],
    decided: Decided<'_>,
    quarantined: usize,
    redelivered: bool,
    invocation: &Invocation,
    started: Instant,
) -> Option<u64> {
    let add = |metric: CounterMetric<1>, sink, count: usize| metric.increment([sink], count as u64);
    for applied in outcomes {
        let Applied { sink, outcome, .. } = applied;
        add(metric::APPLIED_CHANGES, *sink, outcome.applied);
        add(metric::DUPLICATE_CHANGES, *sink, outcome.duplicate);
        add(metric::STALE_CHANGES, *sink, outcome.stale);
        add(metric::TOMBSTONES, *sink, outcome.tombstones);
        let confirmed_before = applied.confirmed_before(decided);
        if confirmed_before > 0 {
            add(metric::PREVIOUSLY_CONFIRMED_CHANGES, *sink, confirmed_before);
        }
    }
    metric::QUARANTINED.increment([], quarantined as u64);
    metric::PARTIAL_BATCH_FAILURES.increment([], u64::from(redelivered));
    if outcomes.iter().all(|applied| applied.outcome.applied == 0) {
        return None;
    }
    let oldest = decided.changes.iter().filter_map(|change| change.at).min()?;
    let lag = Duration::try_from(invocation.now - oldest).unwrap_or_default() + started.elapsed();
    metric::REPLICATION_LAG.record([], lag.as_secs_f64() * 1000.0);
    Some(millis(lag))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
