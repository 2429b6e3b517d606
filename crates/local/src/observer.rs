//! Observer of replication on this machine: what every delivered stream record did in every sink. [`ChangeObserver`]
//!
//! [`ObservedFunction`] wraps a stream function and records the deliveries, and [`ObservedSink`] wraps a sink and records
//! its verdicts. Both pass everything on unchanged, unless a [fault switch](crate::fault_switches) is on. The functions
//! and sinks themselves know nothing of it.
//!
//! Memory is bounded whatever the load: a ring of the last [`RING_CAPACITY`] changes with texts of limited length, the
//! last records as text ([`RecentRecords`]), and counters of fixed size per sink.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_event_source_mapping::invoke::StreamFunction;
use millrace_shared::clock::Clock;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::fault_switches::FaultSwitches;

mod function;
mod recent_records;
mod record;
mod sink;
mod totals;
mod verdict;

pub use function::{ObservedFunction, RedeliverError};
pub use recent_records::RecentRecords;
pub use record::RecordKind;
pub use sink::ObservedSink;
pub use totals::{LagPoint, SinkTotals};
pub use verdict::ChangeVerdict;

/// The number of changes that are retained.
pub const RING_CAPACITY: usize = 2_000;
/// The maximum length of a retained text, such as a key or a reason, in characters.
const TEXT_LENGTH: usize = 300;

/// The verdict of a sink on a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkVerdict {
    /// The sink's name.
    pub sink: Arc<str>,
    /// The verdict.
    pub verdict: ChangeVerdict,
    /// The reason of a failure.
    pub reason: Option<String>,
}

/// A delivered stream record, and what it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedChange {
    /// The number of the change in the order of observation, from 1; a redelivery has a number of its own.
    pub number: u64,
    /// The time at which the invocation ended.
    pub at: OffsetDateTime,
    /// The function that received the record.
    pub function: Arc<str>,
    /// The canonical key, or the text of the record's keys if the record cannot be read.
    pub key: String,
    /// The kind of the record.
    pub kind: RecordKind,
    /// The names of the attributes that differ between the images.
    pub attributes: Vec<String>,
    /// The sequence number, as delivered.
    pub sequence: String,
    /// The age of the change at the end of the invocation, in milliseconds.
    pub lag_ms: Option<u64>,
    /// The verdict of each sink.
    pub verdicts: Vec<SinkVerdict>,
    /// The error of the invocation, if it failed as a whole.
    pub error: Option<String>,
}

/// A sink's verdicts on the changes of one batch, by the index of the record.
#[derive(Debug, Clone)]
pub(crate) struct SinkReport {
    pub(crate) sink: Arc<str>,
    pub(crate) verdicts: Vec<(usize, ChangeVerdict, Option<String>)>,
}

/// The changes after a position, as a page polls them.
#[derive(Debug, Clone, Default)]
pub struct ObservedPage {
    /// The changes, oldest first.
    pub changes: Vec<Arc<ObservedChange>>,
    /// The number of changes that were observed since the position, including those that are not in the page.
    pub observed: u64,
    /// The position after this page.
    pub position: u64,
}

/// An invocation in progress.
#[derive(Debug, Default)]
struct ObservedInvocation {
    reports: Vec<SinkReport>,
    /// Set if the invocation ends in the middle of its batch, by a switch; notified when it has come that far.
    kill: Option<Arc<Notify>>,
}

#[derive(Debug, Default)]
struct ObserverState {
    ring: VecDeque<Arc<ObservedChange>>,
    last_number: u64,
    totals: Vec<SinkTotals>,
    /// The invocations in progress, by request ID.
    in_progress: HashMap<String, ObservedInvocation>,
    recent: RecentRecords,
}

/// A function with its name.
type NamedFunction = (Arc<dyn StreamFunction>, Arc<str>);

/// Records what every delivered stream record did in every sink.
pub struct ChangeObserver {
    state: Mutex<ObserverState>,
    switches: Arc<FaultSwitches>,
    replicator: Mutex<Option<NamedFunction>>,
    clock: Clock,
}

impl ChangeObserver {
    /// Creates an observer that has seen nothing.
    #[must_use]
    pub fn new(switches: Arc<FaultSwitches>, clock: Clock) -> Self {
        Self { state: Mutex::default(), switches, replicator: Mutex::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, ObserverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the switches of the faults that the observed sinks simulate.
    #[must_use]
    pub fn switches(&self) -> &FaultSwitches {
        &self.switches
    }

    /// Adds a sink, so that it is shown before its first change.
    pub fn add_sink(&self, name: &str) {
        let mut state = self.state();
        if !state.totals.iter().any(|totals| &*totals.sink == name) {
            state.totals.push(SinkTotals::new(name.into()));
        }
        drop(state);
        self.switches.add_sink(name);
    }

    /// Returns the counters of every sink, in the order of the sinks.
    #[must_use]
    pub fn totals(&self) -> Vec<SinkTotals> {
        self.state().totals.clone()
    }

    /// Returns the number of invocations in progress.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.state().in_progress.len()
    }

    /// Returns the number of the last observed change.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.state().last_number
    }

    /// Returns up to `most` changes after the position, the newest ones if there are more.
    #[must_use]
    pub fn after(&self, position: u64, most: usize) -> ObservedPage {
        let state = self.state();
        let observed = state.last_number.saturating_sub(position);
        let wanted = usize::try_from(observed).unwrap_or(usize::MAX).min(most).min(state.ring.len());
        let changes = state.ring.iter().skip(state.ring.len() - wanted).cloned().collect();
        ObservedPage { changes, observed, position: state.last_number }
    }

    /// Returns up to `most` retained changes of the item with this canonical key, newest first.
    #[must_use]
    pub fn changes_of_key(&self, key: &str, most: usize) -> Vec<Arc<ObservedChange>> {
        let key = shorten(key);
        self.state().ring.iter().rev().filter(|change| change.key == key).take(most).cloned().collect()
    }

    /// Returns the last records as text, for deliveries out of turn.
    #[must_use]
    pub fn recent(&self) -> RecentRecords {
        self.state().recent.clone()
    }

    fn replicator(&self) -> Option<NamedFunction> {
        self.replicator.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_replicator(&self, function: Arc<dyn StreamFunction>, name: Arc<str>) {
        *self.replicator.lock().unwrap_or_else(PoisonError::into_inner) = Some((function, name));
    }

    /// Adds an invocation. Returns the notification on which it must end, if a switch kills it.
    fn begin(&self, request_id: &str, can_be_killed: bool) -> Option<Arc<Notify>> {
        let kill = (can_be_killed && self.switches.take_kill()).then(Arc::default);
        let invocation = ObservedInvocation { reports: Vec::new(), kill: kill.clone() };
        self.state().in_progress.insert(request_id.to_owned(), invocation);
        kill
    }

    /// Returns whether a switch kills this invocation.
    fn is_killed(&self, request_id: &str) -> bool {
        self.state().in_progress.get(request_id).is_some_and(|invocation| invocation.kill.is_some())
    }

    /// Ends an invocation that a switch kills.
    fn kill(&self, request_id: &str) {
        if let Some(kill) = self.state().in_progress.get(request_id).and_then(|invocation| invocation.kill.as_ref()) {
            kill.notify_one();
        }
    }

    /// Adds the report of a sink to its invocation; a report of an invocation that has ended is dropped.
    fn report(&self, request_id: &str, report: SinkReport) {
        if let Some(invocation) = self.state().in_progress.get_mut(request_id) {
            invocation.reports.push(report);
        }
    }

    /// Ends an invocation and returns its reports.
    fn end(&self, request_id: &str) -> Vec<SinkReport> {
        self.state().in_progress.remove(request_id).unwrap_or_default().reports
    }

    fn sink_names(&self) -> Vec<Arc<str>> {
        self.state().totals.iter().map(|totals| Arc::clone(&totals.sink)).collect()
    }

    /// Adds changes to the ring and to the counters; their numbers are assigned here.
    fn add(&self, changes: Vec<ObservedChange>) {
        let now = self.clock.now();
        let mut state = self.state();
        for mut change in changes {
            state.last_number += 1;
            change.number = state.last_number;
            for verdict in &change.verdicts {
                if let Some(totals) = state.totals.iter_mut().find(|totals| totals.sink == verdict.sink) {
                    totals.count(verdict.verdict, change.lag_ms, now);
                }
            }
            if state.ring.len() == RING_CAPACITY {
                state.ring.pop_front();
            }
            state.ring.push_back(Arc::new(change));
        }
    }

    fn retain(&self, records: impl Iterator<Item = (String, Arc<str>)>) {
        let mut state = self.state();
        records.for_each(|(key, record)| state.recent.push(key, record));
    }
}

/// Shortens a text to the retained length, and says so with an ellipsis.
#[must_use]
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(TEXT_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, lag_ms: u64) -> ObservedChange {
        ObservedChange {
            number: 0,
            at: OffsetDateTime::UNIX_EPOCH,
            function: "replicator".into(),
            key: key.to_owned(),
            kind: RecordKind::Insert,
            attributes: Vec::new(),
            sequence: "1".to_owned(),
            lag_ms: Some(lag_ms),
            verdicts: vec![SinkVerdict { sink: "copy".into(), verdict: ChangeVerdict::Applied, reason: None }],
            error: None,
        }
    }

    fn observer() -> ChangeObserver {
        let observer = ChangeObserver::new(Arc::default(), Clock::system());
        observer.add_sink("copy");
        observer
    }

    #[test]
    fn ring_retains_the_newest_changes_and_reports_how_many_there_were() {
        let observer = observer();
        observer.add((0..RING_CAPACITY + 50).map(|n| change(&format!("k{n}"), 1)).collect());
        let page = observer.after(0, 10);
        assert_eq!((page.changes.len(), page.observed), (10, RING_CAPACITY as u64 + 50));
        assert_eq!(page.changes[9].key, format!("k{}", RING_CAPACITY + 49));
        assert_eq!(observer.after(page.position, 10).changes, []);
        assert_eq!(observer.after(0, usize::MAX).changes.len(), RING_CAPACITY);
        assert!(observer.changes_of_key("k0", 5).is_empty());
        assert_eq!(observer.changes_of_key("k60", 5).len(), 1);
        assert_eq!(observer.totals()[0].count_of(ChangeVerdict::Applied), RING_CAPACITY as u64 + 50);
    }

    #[test]
    fn long_texts_are_shortened() {
        assert_eq!(shorten("é"), "é");
        assert_eq!(shorten(&"é".repeat(400)).chars().count(), TEXT_LENGTH + 1);
    }

    #[test]
    fn report_of_an_ended_invocation_is_dropped() {
        let observer = observer();
        assert!(observer.begin("1", true).is_none());
        let report = SinkReport { sink: "copy".into(), verdicts: Vec::new() };
        observer.report("1", report.clone());
        observer.report("2", report);
        assert_eq!(observer.in_progress(), 1);
        assert_eq!((observer.end("1").len(), observer.end("2").len(), observer.in_progress()), (1, 0, 0));
    }
}
