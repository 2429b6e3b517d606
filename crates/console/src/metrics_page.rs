//! The page Metrics of a deployed stack: its metrics in `CloudWatch`, with the lag of each replica as a plot.

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use crate::stack_metrics::{FunctionMetrics, MetricSeries, MetricWindow, SinkMetrics, StackMetrics};
use crate::{DeployedContext, frame};

const TITLE: &str = "Metrics";
/// The size of a plot, in units of its own.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;

/// The window in the page's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct MetricsQuery {
    /// The number of hours, as text: an invalid one is named on the page.
    hours: String,
}

/// Shows the page.
pub(crate) async fn show(State(context): State<DeployedContext>, Query(query): Query<MetricsQuery>) -> Response {
    let window = match MetricWindow::parse(&query.hours) {
        Ok(window) => window,
        Err(reason) => return frame::failed(StatusCode::BAD_REQUEST, "/", TITLE, &reason),
    };
    let connection = match context.stack.connect().await {
        Ok(connection) => connection,
        Err(reason) => return frame::failed(StatusCode::BAD_GATEWAY, "/", TITLE, &reason),
    };
    let metrics = match StackMetrics::read(&connection, window, context.clock.now()).await {
        Ok(metrics) => metrics,
        Err(reason) => return frame::failed(StatusCode::BAD_GATEWAY, "/", TITLE, &reason),
    };
    let body = html! {
        p.note {
            "CloudWatch metrics of the stack " code { (context.stack.name()) } " in " (connection.account.region)
            ", in steps of " (window.minutes) " min. The last minutes may be incomplete. Reload the page to update it."
        }
        @if let Err(reason) = &connection.maintenance { (frame::problem(reason)) }
        nav.pages aria-label="Window" {
            @for own in MetricWindow::ALL {
                @let hours = own.hours.to_string();
                a href=(frame::href("/", &[("hours", &hours)])) aria-current=[(own == window).then_some("true")] {
                    "Last " @if own.hours == 1 { "hour" } @else { (own.hours) " hours" }
                }
            }
        }
        h2 { "Replicas" }
        (sinks(&metrics.sinks))
        div.cards { @for sink in &metrics.sinks { (lag(sink, window)) } }
        h2 { "Functions" }
        (functions(&metrics.functions))
        h2 { "Archive and verification" }
        ul {
            li { (format_count(metrics.archived_rows.sum())) " rows archived" }
            li { (format_count(metrics.verified_segments.sum())) " segments verified" }
            li {
                (format_count(metrics.differences.sum())) " differences found"
                @if metrics.differences.sum() > 0.0 { ": see the reports on the page " a href="/tasks" { "Tasks" } }
            }
        }
    };
    frame::page("/", TITLE, &body).into_response()
}

/// Formats a count.
fn format_count(count: f64) -> String {
    format!("{count:.0}")
}

/// Formats milliseconds of a metric.
fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "–".to_owned(),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.0} s", ms / 1_000.0),
    }
}

fn sinks(sinks: &[SinkMetrics]) -> Markup {
    html! {
        @if sinks.is_empty() { p.box { "The replicas are not known." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="Metrics of the replicas" { table {
                caption { "The lag is the maximum of a period; “–” means that nothing was recorded." }
                thead { tr {
                    th scope="col" { "Replica" }
                    th.number scope="col" { "Last lag" } th.number scope="col" { "Largest lag" }
                    th.number scope="col" { "applied" } th.number scope="col" { "tombstones (of applied)" }
                    th.number scope="col" { "duplicate" } th.number scope="col" { "stale" }
                } }
                tbody { @for sink in sinks { tr {
                    th scope="row" { (sink.sink) }
                    td.number { (milliseconds(sink.lag.last())) } td.number { (milliseconds(sink.lag.max())) }
                    @for series in [&sink.applied, &sink.tombstones, &sink.duplicate, &sink.stale] {
                        td.number { (format_count(series.sum())) }
                    }
                } } }
            } }
        }
    }
}

fn functions(functions: &[FunctionMetrics]) -> Markup {
    let marked = |series: &MetricSeries| {
        let sum = series.sum();
        html! { td.number { @if sum > 0.0 { span.verdict.bad { (format_count(sum)) } } @else { (format_count(sum)) } } }
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Metrics of the functions" { table {
            caption { "Quarantined records are on the page " a href="/quarantine" { "Quarantine" } "." }
            thead { tr {
                th scope="col" { "Function" }
                th.number scope="col" { "Invocations" } th.number scope="col" { "Errors" }
                th.number scope="col" { "Throttles" } th.number scope="col" { "Largest iterator age" }
                th.number scope="col" { "Quarantined" } th.number scope="col" { "Redelivered batches" }
            } }
            tbody { @for own in functions { tr {
                th scope="row" { (own.function) }
                td.number { (format_count(own.invocations.sum())) }
                (marked(&own.errors)) (marked(&own.throttles))
                td.number { (milliseconds(own.iterator_age.max())) }
                (marked(&own.quarantined)) (marked(&own.redelivered))
            } } }
        } }
    }
}

/// Renders the lag of a replica as a plot that needs no script.
fn lag(sink: &SinkMetrics, window: MetricWindow) -> Markup {
    let (largest, axis) = (sink.lag.max(), HEIGHT - 1.0);
    let label = format!(
        "Lag of {} in the last {}: at most {}",
        sink.sink,
        frame::count(usize::try_from(window.hours).unwrap_or_default(), "hour"),
        milliseconds(largest)
    );
    html! {
        section.box aria-label=(format!("lag of {}", sink.sink)) {
            h3 { "Lag of " (sink.sink) }
            @match largest {
                None => { p.note { "No lag was recorded in this window." } }
                Some(largest) => {
                    p.note { "0 to " (milliseconds(Some(largest))) }
                    svg.full viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                        line x1="0" y1=(axis) x2=(WIDTH) y2=(axis) stroke="currentColor" stroke-opacity="0.4" {}
                        @for (x, y) in points(&sink.lag, largest) {
                            line x1=(x) y1=(axis) x2=(x) y2=(y) stroke="currentColor" stroke-width="3" {}
                        }
                    }
                }
            }
        }
    }
}

/// Returns the tops of the bars, one for each period with a value.
fn points(series: &MetricSeries, largest: f64) -> Vec<(String, String)> {
    #[expect(clippy::cast_precision_loss, reason = "at most 60 periods")]
    let step = WIDTH / series.0.len().max(1) as f64;
    let mut x = -step / 2.0;
    let mut points = Vec::new();
    for value in &series.0 {
        x += step;
        if let Some(value) = value {
            let share = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
            // A value of 0 is a dot on the axis.
            let y = (HEIGHT - 3.0) * (1.0 - share);
            points.push((format!("{x:.1}"), format!("{y:.1}")));
        }
    }
    points
}
