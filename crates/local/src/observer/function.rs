//! A stream function whose deliveries are observed: [`ObservedFunction`]; and deliveries out of turn, by the same path:
//! [`ChangeObserver::redeliver`].

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use millrace_event_source_mapping::invoke::{InvokeError, StreamFunction};
use millrace_event_source_mapping::response::FunctionResponse;
use millrace_replicator::deduplicate::latest_per_key;
use millrace_shared::change::Change;
use millrace_shared::clock::new_uuid;
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::SequenceNumber;
use millrace_shared::stream::{self, StreamRecord};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::record::summarize;
use super::{ChangeObserver, ChangeVerdict, ObservedChange, RecordKind, SinkReport, SinkVerdict, shorten};

/// The name under which the rows of the archiver are shown.
const ARCHIVE: &str = "archiver";
/// The time limit of a delivery out of turn.
const REDELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// A delivery out of turn that failed.
#[derive(Debug, thiserror::Error)]
pub enum RedeliverError {
    /// The replicator does not run in this process, or the stack is not observed.
    #[error("the replicator does not run in this process: start millrace without --lambda-endpoint")]
    NoReplicator,
    /// There is no suitable record yet.
    #[error("{0}")]
    NoRecord(&'static str),
    /// The records are not valid JSON.
    #[error("the retained records are not a valid event: {0}")]
    Event(#[from] serde_json::Error),
    /// The function failed.
    #[error("the replicator failed: {0}")]
    Invoke(#[from] InvokeError),
    /// The delivery ended without a result.
    #[error("the delivery was interrupted")]
    Interrupted,
}

/// A stream function that reports its deliveries to an observer.
pub struct ObservedFunction {
    inner: Arc<dyn StreamFunction>,
    name: Arc<str>,
    observer: Arc<ChangeObserver>,
}

/// Removes an invocation that was dropped, e.g. by its timeout.
struct InProgress<'o> {
    observer: &'o ChangeObserver,
    request_id: String,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        drop(self.observer.end(&self.request_id));
    }
}

impl ObservedFunction {
    /// Wraps the replicator, whose sinks are observed as well.
    #[must_use]
    pub fn replicator(inner: Arc<dyn StreamFunction>, name: &str, observer: Arc<ChangeObserver>) -> Arc<Self> {
        let function = Arc::new(Self { inner, name: name.into(), observer });
        function.observer.set_replicator(Arc::clone(&function.inner), Arc::clone(&function.name));
        function
    }

    /// Wraps the archiver, which has one sink of its own.
    #[must_use]
    pub fn archiver(inner: Arc<dyn StreamFunction>, name: &str, observer: Arc<ChangeObserver>) -> Arc<Self> {
        observer.add_sink(ARCHIVE);
        Arc::new(Self { inner, name: name.into(), observer })
    }
}

impl StreamFunction for ObservedFunction {
    fn invoke<'a>(
        &'a self,
        event: &'a RawValue,
        invocation: Invocation,
    ) -> LocalBoxFuture<'a, Result<String, InvokeError>> {
        let is_archiver = &*self.name == ARCHIVE;
        observe(&self.observer, &*self.inner, &self.name, is_archiver, event, invocation).boxed_local()
    }
}

async fn observe(
    observer: &ChangeObserver,
    function: &dyn StreamFunction,
    name: &Arc<str>,
    is_archiver: bool,
    event: &RawValue,
    invocation: Invocation,
) -> Result<String, InvokeError> {
    let request_id = invocation.request_id.clone();
    let kill = observer.begin(&request_id, !is_archiver);
    let in_progress = InProgress { observer, request_id };
    let result = match kill {
        None => function.invoke(event, invocation).await,
        Some(kill) => tokio::select! {
            result = function.invoke(event, invocation) => result,
            () = kill.notified() => Err(InvokeError::new("the process was killed in the middle of the batch")),
        },
    };
    let reports = observer.end(&in_progress.request_id);
    observer.record(event, name, is_archiver, &reports, &result);
    result
}

impl ChangeObserver {
    /// Delivers the last records to the replicator again, as Lambda may do at any time.
    ///
    /// # Errors
    /// [`RedeliverError`] if there is no record yet, or the replicator fails.
    pub async fn redeliver_last(self: &Arc<Self>, most: usize) -> Result<usize, RedeliverError> {
        let records = self.recent().last(most);
        if records.is_empty() {
            return Err(RedeliverError::NoRecord("no change has been delivered yet: write an item first"));
        }
        let count = records.len();
        self.redeliver(records).await.map(|()| count)
    }

    /// Delivers a record that is older than the state of its item, and returns the item's key.
    ///
    /// # Errors
    /// [`RedeliverError`] if no item has changed twice, or the replicator fails.
    pub async fn deliver_outdated(self: &Arc<Self>) -> Result<String, RedeliverError> {
        let recent = self.recent();
        let missing = "no item has changed twice yet: change an item twice first";
        let (key, record) = recent.outdated().ok_or(RedeliverError::NoRecord(missing))?;
        let key = key.to_owned();
        self.redeliver(vec![record]).await.map(|()| key)
    }

    async fn redeliver(self: &Arc<Self>, records: Vec<Arc<str>>) -> Result<(), RedeliverError> {
        let (function, name) = self.replicator().ok_or(RedeliverError::NoReplicator)?;
        let event = RawValue::from_string(format!(r#"{{"Records":[{}]}}"#, records.join(",")))?;
        let now = self.clock.now();
        let invocation = Invocation::new(now, Instant::now(), REDELIVERY_TIMEOUT, new_uuid(now).to_string());
        let (observer, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        // A function's future stays on one thread, as on Lambda.
        let delivered = tokio::task::spawn_blocking(move || {
            runtime.block_on(observe(&observer, &*function, &name, false, &event, invocation))
        });
        delivered.await.map_err(|_| RedeliverError::Interrupted)??;
        Ok(())
    }

    /// Adds the records of an invocation that has ended.
    fn record(
        &self,
        event: &RawValue,
        function: &Arc<str>,
        is_archiver: bool,
        reports: &[SinkReport],
        result: &Result<String, InvokeError>,
    ) {
        // The function reports a payload that is not an event.
        let Ok(batch) = stream::read(event) else { return };
        let readable: Vec<&Change<'_>> = batch.records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
        let latest: Vec<usize> =
            latest_per_key(&readable).into_iter().map(|position| readable[position].index).collect();
        let names = if is_archiver { vec![ARCHIVE.into()] } else { self.sink_names() };
        let names: Vec<Arc<str>> = names.into_iter().filter(|name| is_archiver || &**name != ARCHIVE).collect();
        let failed_from = failed_from(result);
        let now = self.clock.now();
        let changes = batch.records.iter().enumerate().map(|(index, record)| {
            let summary = summarize(record.raw.to_raw());
            let change = record.read.as_ref();
            let verdict = |sink: &Arc<str>| {
                let own = reports.iter().filter(|report| report.sink == *sink);
                let own = own.flat_map(|report| &report.verdicts).find(|(position, ..)| *position == index);
                let (verdict, reason) = match own {
                    Some((_, verdict, reason)) => (*verdict, reason.clone()),
                    None if change.is_err() => unreadable(record, result),
                    None if is_archiver => (archived(record, failed_from), None),
                    None if result.is_err() => (ChangeVerdict::Failed, None),
                    None if latest.contains(&index) => (ChangeVerdict::Confirmed, None),
                    None => (ChangeVerdict::Superseded, None),
                };
                SinkVerdict { sink: Arc::clone(sink), verdict, reason }
            };
            let created = change.ok().and_then(|change| change.approximate_creation_time);
            ObservedChange {
                number: 0,
                at: now,
                function: Arc::clone(function),
                key: change.map_or(summary.keys, |change| shorten(change.key.canonical().as_str())),
                kind: if change.is_ok() { summary.kind } else { RecordKind::Unknown },
                attributes: summary.attributes,
                sequence: shorten(record.sequence.as_deref().unwrap_or("none")),
                lag_ms: created.and_then(|at| u64::try_from((now - at).whole_milliseconds()).ok()),
                verdicts: names.iter().map(verdict).collect(),
                error: result.as_ref().err().map(|error| shorten(&error.to_string())),
            }
        });
        let changes: Vec<ObservedChange> = changes.collect();
        if !is_archiver {
            let texts = batch.records.iter().zip(&changes);
            self.retain(texts.map(|(record, change)| (change.key.clone(), record.raw.get().into())));
        }
        self.add(changes);
    }
}

/// The position from which an invocation failed.
#[derive(Clone, Copy)]
enum FailedFrom {
    Nowhere,
    Beginning,
    Position(SequenceNumber),
}

fn failed_from(result: &Result<String, InvokeError>) -> FailedFrom {
    match result.as_ref().map(|body| FunctionResponse::read(body)) {
        Ok(FunctionResponse::Done) => FailedFrom::Nowhere,
        Ok(FunctionResponse::Failures(identifiers)) => {
            let numbers = identifiers.iter().map(|text| SequenceNumber::parse(text).ok());
            numbers
                .collect::<Option<Vec<_>>>()
                .and_then(|numbers| numbers.into_iter().min())
                .map_or(FailedFrom::Beginning, FailedFrom::Position)
        }
        Ok(FunctionResponse::Malformed) | Err(_) => FailedFrom::Beginning,
    }
}

fn archived(record: &StreamRecord<'_>, failed_from: FailedFrom) -> ChangeVerdict {
    match failed_from {
        FailedFrom::Nowhere => ChangeVerdict::Applied,
        FailedFrom::Position(from) if record.number.is_some_and(|number| number < from) => ChangeVerdict::Applied,
        FailedFrom::Position(_) | FailedFrom::Beginning => ChangeVerdict::Failed,
    }
}

/// Returns the verdict on a record that cannot be parsed: every sink lacks it, and it is quarantined once.
fn unreadable(record: &StreamRecord<'_>, result: &Result<String, InvokeError>) -> (ChangeVerdict, Option<String>) {
    let reason = record.read.as_ref().err().map(|error| shorten(&error.to_string()));
    (if result.is_ok() { ChangeVerdict::Quarantined } else { ChangeVerdict::Failed }, reason)
}
