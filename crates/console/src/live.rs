//! The page Live: counters and lag per sink, and the timeline of changes with each sink's verdict.
//!
//! The server sends at most [`ROWS`] changes per interval to a page, and says how many there were: 1,000 changes per
//! second are more than a person reads, and than a browser shows.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{Stream, unfold};
use http::StatusCode;
use maud::{Markup, html};
use millrace_local::fault_switches::SinkFault;
use millrace_local::observer::{ChangeObserver, ChangeVerdict, LagPoint, ObservedChange, RING_CAPACITY, SinkTotals};
use millrace_sinks::cache;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{LocalContext, assets, break_it, frame, key};

/// The number of changes that a page shows at first.
const FIRST_ROWS: usize = 50;
/// The maximum number of changes that are sent to a page per interval.
const ROWS: usize = 20;
/// The interval at which changes are sent.
const EVERY: Duration = Duration::from_millis(500);

const TITLE: &str = "Live";
/// The name of the archiver among the sinks.
pub(crate) const ARCHIVER: &str = "archiver";

/// The filter of the timeline, as in the page's address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TimelineFilter {
    /// Only changes whose key contains this text.
    key: String,
    /// Only changes on which a sink has this verdict.
    verdict: String,
    /// The number of the last change that the page shows.
    since: Option<u64>,
}

impl TimelineFilter {
    fn matches(&self, change: &ObservedChange) -> bool {
        let verdict = ChangeVerdict::parse(&self.verdict);
        let has = |verdict| change.verdicts.iter().any(|own| own.verdict == verdict);
        change.key.contains(&self.key) && verdict.is_none_or(has)
    }

    fn is_set(&self) -> bool {
        !self.key.is_empty() || !self.verdict.is_empty()
    }
}

/// A page of the timeline.
struct TimelinePage {
    /// The shown changes, newest first.
    shown: Vec<Arc<ObservedChange>>,
    /// The number of changes that the filter admits, as far as they are retained.
    admitted: usize,
    /// The number of changes that were no longer retained.
    dropped: u64,
    position: u64,
}

fn timeline(observer: &ChangeObserver, filter: &TimelineFilter, position: u64, most: usize) -> TimelinePage {
    let page = observer.after(position, RING_CAPACITY);
    let dropped = page.observed.saturating_sub(page.changes.len() as u64);
    let admitted: Vec<_> = page.changes.into_iter().filter(|change| filter.matches(change)).collect();
    // Evenly spaced, so that the sample shows all of the interval.
    let step = admitted.len().div_ceil(most).max(1);
    let shown = admitted.iter().rev().step_by(step).cloned().collect();
    TimelinePage { shown, admitted: admitted.len(), dropped, position: page.position }
}

/// Shows the page.
pub(crate) async fn show(State(context): State<LocalContext>, Query(filter): Query<TimelineFilter>) -> Response {
    let Some(observer) = context.stack.observer() else {
        return frame::failed(StatusCode::CONFLICT, "/", TITLE, "The stack is not observed.");
    };
    if !filter.verdict.is_empty() && ChangeVerdict::parse(&filter.verdict).is_none() {
        let reason = format!("unknown verdict {:?}: choose one of the list", filter.verdict);
        return frame::failed(StatusCode::BAD_REQUEST, "/", TITLE, &reason);
    }
    let newest = TimelineFilter { since: None, ..filter.clone() };
    let all = observer.after(0, RING_CAPACITY);
    let shown: Vec<_> = all.changes.iter().rev().filter(|change| newest.matches(change)).take(FIRST_ROWS).collect();
    let table = source_name(&context);
    let body = html! {
        p.note { "Every change of " code { (table) } " as it arrives, and what it did in each replica. Times are in UTC." }
        div.flow #picture role="group" aria-label="The system" { (picture(table, observer)) }
        h2 { "Replicas" }
        // The region itself stays when its content is updated, and with it the focus.
        div.scroll #totals tabindex="0" role="region" aria-label="Counters of the replicas" {
            (totals(&observer.totals(), observer.in_progress()))
        }
        div.cards.plots {
            section.box { h3 { "Lag, last minute (ms)" } div.plot data-window="minute" role="img" aria-label="Plot of the lag of each replica in the last minute" {} }
            section.box { h3 { "Lag, last hour (ms)" } div.plot data-window="hour" role="img" aria-label="Plot of the lag of each replica in the last hour" {} }
        }
        h2 { "Changes" }
        form.row method="get" action="/" role="search" {
            div { label for="key" { "Key contains" } input #key type="text" name="key" value=(filter.key) maxlength="300"; }
            div {
                label for="verdict" { "Verdict" }
                select #verdict name="verdict" {
                    option value="" { "any" }
                    @for verdict in ChangeVerdict::ALL {
                        option value=(verdict.as_str()) selected[verdict.as_str() == filter.verdict] { (verdict.as_str()) }
                    }
                }
            }
            button type="submit" { "Filter" }
            @if filter.is_set() { a href="/" { "Show all" } }
            button #pause type="button" aria-pressed="false" hidden { "Pause" }
        }
        noscript { p.note { "Without JavaScript this page does not update itself: reload it." } }
        p #sampling .note role="status" { (first_note(shown.len(), all.observed)) }
        div.scroll tabindex="0" role="region" aria-label="Timeline" {
            table {
                caption { "The newest change is at the top." }
                thead { (head()) }
                tbody #rows data-position=(all.position) data-plots=(assets::href("uplot.js")) { @for change in &shown { (row(change)) } }
            }
        }
        @if shown.is_empty() { (empty(&filter, table)) }
    };
    frame::page("/", TITLE, &body).into_response()
}

fn source_name(context: &LocalContext) -> &str {
    context.stack.source_table().map_or("the source table", |table| table.name.as_str())
}

/// Renders the way of a change: the source, the functions and their sinks, with the faults that are switched on.
fn picture(table: &str, observer: &ChangeObserver) -> Markup {
    let totals = observer.totals();
    let (archivers, sinks): (Vec<_>, Vec<_>) = totals.iter().partition(|sink| &*sink.sink == ARCHIVER);
    let fault = |sink: &SinkTotals| {
        if &*sink.sink == ARCHIVER {
            return observer.switches().is_s3_down().then_some("S3 is down");
        }
        let fault = observer.switches().sink_fault(&sink.sink);
        (fault != SinkFault::Off).then(|| break_it::label(fault))
    };
    let target = |sink: &SinkTotals, name: &str| {
        let written = sink.count_of(ChangeVerdict::Applied) + sink.count_of(ChangeVerdict::Tombstone);
        let fault = fault(sink);
        html! {
            div.node.bad[fault.is_some()] {
                strong { (name) }
                div.note {
                    (written) @if name == cache::NAME { " invalidated" } @else { " written" }
                    @if let Some(lag_ms) = sink.lag_ms { ", lag " (frame::milliseconds(lag_ms)) }
                }
                @if let Some(fault) = fault { div { (fault) } }
            }
        }
    };
    let arrow = html! { span.arrow aria-hidden="true" { "→" } };
    html! {
        div.node { strong { (table) } div.note { "source table" } }
        div.lanes {
            div.lane {
                (arrow) div.node { strong { "replicator" } div.note { "reads the stream" } } (arrow)
                @for sink in sinks { (target(sink, &sink.sink)) }
            }
            @for sink in archivers {
                div.lane {
                    (arrow) div.node { strong { "archiver" } div.note { "reads removals by TTL" } } (arrow)
                    (target(sink, "archive"))
                }
            }
        }
    }
}

fn first_note(shown: usize, observed: u64) -> String {
    format!("{shown} of {observed} changes since the start are shown; {RING_CAPACITY} are retained.")
}

fn empty(filter: &TimelineFilter, table: &str) -> Markup {
    html! {
        p #empty .box {
            @if filter.is_set() { "No retained change matches the filter. " a href="/" { "Show all changes" } "." }
            @else { "No change has arrived yet. Write an item to " code { (table) } ": the page " a href="/break" { "Break it" } " writes some, and the banner of " code { "millrace up" } " has a command." }
        }
    }
}

/// Returns the columns of a table of counters: the usual verdicts, and those that have occurred.
pub(crate) fn shown_verdicts(has_occurred: impl Fn(ChangeVerdict) -> bool) -> Vec<ChangeVerdict> {
    let usual = [ChangeVerdict::Applied, ChangeVerdict::Duplicate, ChangeVerdict::Stale, ChangeVerdict::Failed];
    ChangeVerdict::ALL.into_iter().filter(|own| usual.contains(own) || has_occurred(*own)).collect()
}

/// Renders the counters of the sinks.
fn totals(totals: &[SinkTotals], in_progress: usize) -> Markup {
    let verdicts = shown_verdicts(|verdict| totals.iter().any(|sink| sink.count_of(verdict) > 0));
    html! {
        table {
            caption { (in_progress) " batches in progress" }
            thead { tr {
                th scope="col" { "Replica" } th.number scope="col" { "Lag" }
                @for verdict in &verdicts { th.number scope="col" title=(verdict.meaning()) { (verdict.as_str()) } }
            } }
            tbody { @for sink in totals { tr {
                th scope="row" { (sink.sink) }
                td.number { (sink.lag_ms.map_or_else(|| "–".to_owned(), frame::milliseconds)) }
                @for verdict in &verdicts { td.number { (sink.count_of(*verdict)) } }
            } } }
        }
    }
}

/// Renders the head of a table of changes.
pub(crate) fn head() -> Markup {
    html! {
        tr {
            th scope="col" { "Time" } th scope="col" { "Key" } th scope="col" { "Change" }
            th scope="col" { "Attributes" } th scope="col" { "Lag" } th scope="col" { "Replicas" }
        }
    }
}

/// Renders a change.
pub(crate) fn row(change: &ObservedChange) -> Markup {
    html! {
        tr {
            td.fixed { time datetime=(frame::machine_time(change.at)) { (frame::clock_time(change.at)) } }
            // A shortened key is not a key.
            td.key {
                span.mono {
                    @if change.key.ends_with('}') { a href=(key::href(&change.key)) { (change.key) } } @else { (change.key) }
                }
                div.note { "revision " (change.sequence) }
            }
            td.fixed { (change.kind.as_str()) }
            td { (change.attributes.join(", ")) }
            td.fixed { (change.lag_ms.map_or_else(String::new, frame::milliseconds)) }
            td {
                div.verdicts {
                    @for own in &change.verdicts {
                        div { (own.sink) ": " (frame::verdict(own.verdict, own.reason.as_deref())) }
                    }
                }
                @if let Some(error) = &change.error { div.note { (error) } }
            }
        }
    }
}

/// Sends the changes that arrive, until the page is closed or the console stops.
pub(crate) async fn events(
    State(context): State<LocalContext>,
    Query(filter): Query<TimelineFilter>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let position = filter.since.unwrap_or_default();
    let stream = unfold((context, filter, position), |(context, filter, position)| async move {
        sleep(EVERY).await;
        let observer = context.stack.observer().filter(|_| !*context.stopped.borrow())?;
        let page = timeline(observer, &filter, position, ROWS);
        let rows = html! { @for change in &page.shown { (row(change)) } };
        let totals = totals(&observer.totals(), observer.in_progress());
        let picture = picture(source_name(&context), observer);
        let data = json!({"rows": rows.0, "totals": totals.0, "picture": picture.0, "note": note(&page)});
        let next = page.position;
        Some((Ok(Event::default().event("changes").data(data.to_string())), (context, filter, next)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

fn note(page: &TimelinePage) -> String {
    let observed = page.admitted as u64 + page.dropped;
    let sampled = page.shown.len() as u64;
    if sampled == observed {
        return "Every change is shown.".to_owned();
    }
    format!("Sampled: {sampled} of {observed} changes in the last {} ms are shown.", EVERY.as_millis())
}

/// The interval of a plot.
#[derive(Debug, Deserialize)]
pub(crate) struct LagWindow {
    window: String,
}

/// Returns the points of the lag plots.
pub(crate) async fn lag(
    State(context): State<LocalContext>,
    Query(LagWindow { window }): Query<LagWindow>,
) -> Json<Value> {
    let totals = context.stack.observer().map(|observer| observer.totals()).unwrap_or_default();
    Json(lag_points(&totals, window == "hour"))
}

fn lag_points(totals: &[SinkTotals], by_hour: bool) -> Value {
    let points = |sink: &SinkTotals| if by_hour { sink.last_hour.clone() } else { sink.last_minute.clone() };
    let all: Vec<_> = totals.iter().map(points).collect();
    let seconds: BTreeSet<i64> = all.iter().flatten().map(|point| point.second).collect();
    let lag = |points: &VecDeque<LagPoint>| -> Vec<Option<u64>> {
        let at = |second: &i64| points.iter().find(|point| point.second == *second).map(|point| point.lag_ms);
        seconds.iter().map(at).collect()
    };
    let sinks: Vec<&str> = totals.iter().map(|sink| &*sink.sink).collect();
    json!({"sinks": sinks, "seconds": seconds, "lag_ms": all.iter().map(lag).collect::<Vec<_>>()})
}
