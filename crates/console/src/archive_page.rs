//! The page Archive: the days, objects and rows of the items that TTL removed, and their restore.
//!
//! `archive_query` has the SQL of the page.

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_archive::ArchiveDay;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::archive_reader::{ArchiveReader, MAX_ROWS, OBJECTS, ObjectPage, ROWS, RowPage};
use crate::{ConsoleContext, archive_query, frame, key};

pub(crate) const PATH: &str = "/archive";
pub(crate) const DAY_PATH: &str = "/archive/day";
pub(crate) const OBJECT_PATH: &str = "/archive/object";
pub(crate) const TITLE: &str = "Archive";
/// The number of days of a page.
const DAYS: usize = 60;
/// The maximum length of an item on the page, in bytes.
const SHOWN_BYTES: usize = 2_000;

/// The part of the archive in the page's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ArchiveQuery {
    /// The number of days before the page, as text: an invalid one is named on the page.
    skip: String,
    day: String,
    /// The key of the last object of the page before.
    after: String,
    object: String,
    /// The number of rows before the page.
    from: String,
    /// The key and the times of the restore's form.
    key: String,
    since: String,
    until: String,
}

/// Opens the archive.
///
/// # Errors
/// The page that says why there is none, or why it cannot be read.
pub(crate) async fn open(context: &ConsoleContext) -> Result<ArchiveReader, Box<Response>> {
    let failed = |status, reason: &str| Err(Box::new(frame::failed(status, PATH, TITLE, reason)));
    let maintenance = match context.stores().await {
        Ok(stores) => stores.maintenance,
        Err(missing) => return Err(Box::new(missing.page(PATH, TITLE))),
    };
    match ArchiveReader::open(&maintenance).await {
        Ok(Some(reader)) => Ok(reader),
        Ok(None) => failed(
            StatusCode::CONFLICT,
            "This deployment has no archive: set the parameter Archive of the template to separate, and the items that \
             TTL removes are archived.",
        ),
        Err(reason) => failed(StatusCode::BAD_GATEWAY, &reason),
    }
}

fn unreadable(reason: &str) -> Response {
    frame::failed(StatusCode::BAD_GATEWAY, PATH, TITLE, reason)
}

/// Parses a number of the page's address; an empty text is 0.
fn number(name: &str, text: &str) -> Result<usize, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| format!("{name}: {text:?} is not a number: start at the first page"))
}

/// Returns the address of the page of a day.
fn day_address(day: ArchiveDay) -> String {
    frame::href(DAY_PATH, &[("day", &day.to_string())])
}

/// Shows the days, the restore and the SQL.
pub(crate) async fn show(State(context): State<ConsoleContext>, Query(query): Query<ArchiveQuery>) -> Response {
    let reader = match open(&context).await {
        Ok(reader) => reader,
        Err(failed) => return *failed,
    };
    let skip = match number("skip", &query.skip) {
        Ok(skip) => skip,
        Err(reason) => return frame::failed(StatusCode::BAD_REQUEST, PATH, TITLE, &reason),
    };
    let days = match reader.days().await {
        Ok(days) => days,
        Err(reason) => return unreadable(&reason),
    };
    let shown: Vec<ArchiveDay> = days.iter().skip(skip).take(DAYS).copied().collect();
    let body = html! {
        p.note {
            "The items of " code { (reader.table) }
            " that TTL removed, in the bucket " code { (reader.store.bucket()) }
            ". Days are in UTC."
        }
        h2 { "Days" }
        @if days.is_empty() {
            p.box {
                "The archive is empty."
                @if context.origin.is_local() {
                    " The page " a href="/break" { "Break it" }
                    " has “Expire an item now”, which archives an item."
                } @else { " It gets the items that TTL removes." }
            }
        } @else if shown.is_empty() {
            p.box { "There are no more days. " a href=(PATH) { "Show the latest" } "." }
        } @else {
            p.note {
                (frame::count(days.len(), "day")) @if days.len() > shown.len() {
                    "; " (skip + 1) " to " (skip + shown.len()) " are shown"
                }
                ". The latest is first."
            }
            ul.columns { @for day in &shown { li { a href=(day_address(*day)) { (day) } } } }
            @if days.len() > shown.len() {
                nav.pages aria-label="Pages of days" {
                    @if skip > 0 { a href=(PATH) { "Latest days" } }
                    @if skip + shown.len() < days.len() {
                        a href=(frame::href(PATH, &[("skip", &(skip + DAYS).to_string())])) rel="next" {
                            "Earlier days"
                        }
                    }
                }
            }
        }
        h2 #restore { "Restore" }
        @if context.allows_tasks() { (restore(&context, &query)) }
        @else {
            (context.start_command(&restore_request(&query)).await)
        }
        (archive_query::section(&context, &reader, shown.first().copied()).await)
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// Returns the request of a restore of the chosen key or times, or of an example's, for a console that does not start it.
fn restore_request(query: &ArchiveQuery) -> Value {
    let mut request = json!({"task": "restore", "dry_run": true, "never_expires": true});
    let chosen = [("from", &query.since), ("to", &query.until)].into_iter().filter(|(_, text)| !text.is_empty());
    let mut chosen: Vec<(&str, Value)> = chosen.map(|(name, text)| (name, text.as_str().into())).collect();
    chosen.extend(serde_json::from_str(&query.key).ok().map(|key| ("key", key)));
    if chosen.is_empty() {
        chosen = vec![("from", "2026-11-22T00:00:00Z".into()), ("to", "2026-11-23T00:00:00Z".into())];
    }
    for (name, value) in chosen {
        request[name] = value;
    }
    request
}

/// Renders the form of a restore, which starts the task `restore` as a dry run.
fn restore(context: &ConsoleContext, query: &ArchiveQuery) -> Markup {
    html! {
        form.box method="post" action="/tasks/restore" aria-label="Restore" {
            (frame::token_field(context))
            p {
                "Select items by their key, by the time of their removal, or both. A restore is a change like "
                "any other: every replica gets the items."
            }
            div.row {
                div.wide {
                    label for="restore-key" { "Key in DynamoDB JSON" }
                    input #restore-key type="text" name="key" value=(query.key);
                }
                div {
                    label for="restore-from" { "Removed at or after" }
                    input #restore-from type="text" name="from" value=(query.since) placeholder="2026-11-22T00:00:00Z";
                }
                div {
                    label for="restore-to" { "Removed before" }
                    input #restore-to type="text" name="to" value=(query.until) placeholder="2026-11-23T00:00:00Z";
                }
            }
            div.row {
                div {
                    label for="restore-versions" { "Of several rows of a key" }
                    select #restore-versions name="versions" {
                        option value="latest" { "the latest" } option value="all" { "all, in order" }
                    }
                }
                div {
                    label for="restore-seconds" { "Expire again after (seconds)" }
                    input #restore-seconds type="text" name="expires-in-seconds" placeholder="2592000";
                }
                div.check {
                    input #restore-never type="checkbox" name="never-expires" value="true";
                    label for="restore-never" { "or never" }
                }
                div.check {
                    input #restore-overwrite type="checkbox" name="overwrite" value="true";
                    label for="restore-overwrite" { "Replace existing items" }
                }
            }
            button type="submit" { "Dry run" }
            p.note {
                "The dry run changes nothing. Its page shows the outcome of each item, and the button that "
                "restores for real."
            }
        }
    }
}

/// Shows the objects of a day.
pub(crate) async fn show_day(State(context): State<ConsoleContext>, Query(query): Query<ArchiveQuery>) -> Response {
    let reader = match open(&context).await {
        Ok(reader) => reader,
        Err(failed) => return *failed,
    };
    let Some(day) = ArchiveDay::parse(&query.day) else {
        let reason = format!("day: {:?} is not a date: expected one such as 2026-11-22", query.day);
        return frame::failed(StatusCode::BAD_REQUEST, PATH, TITLE, &reason);
    };
    let page = match reader.objects(day, &query.after).await {
        Ok(page) => page,
        Err(reason) => return unreadable(&reason),
    };
    let day_text = day.to_string();
    let (since, until) = (frame::machine_time(day.start()), frame::machine_time(day.end()));
    let body = html! {
        nav.pages aria-label="Archive" {
            a href=(PATH) { "All days" }
            a href=(format!("{}#restore", frame::href(PATH, &[("since", &since), ("until", &until)]))) {
                "Restore this day"
            }
        }
        @if page.objects.is_empty() {
            p.box {
                @if query.after.is_empty() {
                    "The archive has no object of this day."
                } @else {
                    "There are no more objects."
                }
            }
        } @else {
            p.note role="status" {
                (frame::count(page.objects.len(), "object")) @if page.next.is_some() {
                    "; there are more. " (OBJECTS) " are shown at a time."
                } @else {
                    "."
                }
            }
            (objects(&page))
        }
        @if !query.after.is_empty() || page.next.is_some() {
            nav.pages aria-label="Pages of objects" {
                @if !query.after.is_empty() { a href=(day_address(day)) { "First page" } }
                @if let Some(next) = &page.next {
                    a href=(frame::href(DAY_PATH, &[("day", &day_text), ("after", next)])) rel="next" { "Next page" }
                }
            }
        }
    };
    frame::page(PATH, &format!("Archive of {day}"), &body).into_response()
}

fn objects(page: &ObjectPage) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Objects" { table {
            thead {
                tr {
                    th scope="col" { "Object" }
                    th.number scope="col" { "Rows" }
                    th.number scope="col" { "Bytes" }
                    th scope="col" { "First removal" }
                    th scope="col" { "Last removal" }
                }
            }
            tbody { @for object in &page.objects { tr {
                td.mono { a href=(object_address(&object.key, 0)) { (object.key) } }
                @match &object.metadata {
                    Ok(metadata) => {
                        td.number { (metadata.rows) } td.number { (object.bytes) }
                        td.fixed { (frame::clock_time(metadata.first)) } td.fixed { (frame::clock_time(metadata.last)) }
                    }
                    Err(reason) => { td.number { "?" } td.number { (object.bytes) } td colspan="2" { (reason) } }
                }
            } } }
        } }
    }
}

fn object_address(object: &str, from: usize) -> String {
    let from = from.to_string();
    let mut fields = vec![("object", object)];
    fields.extend((from != "0").then_some(("from", from.as_str())));
    frame::href(OBJECT_PATH, &fields)
}

/// Shows the rows of an object.
pub(crate) async fn show_object(State(context): State<ConsoleContext>, Query(query): Query<ArchiveQuery>) -> Response {
    let reader = match open(&context).await {
        Ok(reader) => reader,
        Err(failed) => return *failed,
    };
    let selected = number("from", &query.from).and_then(|from| Ok((reader.parse_key(&query.object)?, from)));
    let (day, from) = match selected {
        Ok((day, from)) if from <= MAX_ROWS => (day, from),
        Ok(_) => {
            let reason = format!(
                "from: only the first {MAX_ROWS} rows of an object are shown: query the others with DuckDB or Athena"
            );
            return frame::failed(StatusCode::BAD_REQUEST, PATH, TITLE, &reason);
        }
        Err(reason) => return frame::failed(StatusCode::BAD_REQUEST, PATH, TITLE, &reason),
    };
    let page = match reader.rows(&query.object, from).await {
        Ok(page) => page,
        Err(reason) => return frame::failed(StatusCode::BAD_GATEWAY, &day_address(day), TITLE, &reason),
    };
    let body = html! {
        p.mono { (query.object) }
        nav.pages aria-label="Archive" {
            a href=(PATH) { "All days" } a href=(day_address(day)) { "Objects of " (day) }
        }
        @if page.rows.is_empty() { p.box { "There are no more rows." } }
        @else {
            p.note role="status" {
                "Rows " (from + 1) " to " (from + page.rows.len()) @if page.has_more {
                    "; there are more."
                } @else {
                    "."
                }
            }
            (rows(&page))
        }
        @if from > 0 || page.has_more {
            nav.pages aria-label="Pages of rows" {
                @if from > 0 { a href=(object_address(&query.object, 0)) { "First page" } }
                @if page.has_more { a href=(object_address(&query.object, from + ROWS)) rel="next" { "Next page" } }
            }
        }
    };
    frame::page(PATH, "Archive object", &body).into_response()
}

/// Returns the address of the form that restores a key.
fn restore_address(key: &str) -> String {
    format!("{}#restore", frame::href(PATH, &[("key", key)]))
}

fn rows(page: &RowPage) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Rows" { table {
            thead {
                tr {
                    th scope="col" { "Removed" }
                    th scope="col" { "Key" }
                    th scope="col" { "Item before its removal" }
                    th scope="col" { "Restore" }
                }
            }
            tbody { @for row in &page.rows { tr {
                td.fixed { time datetime=(frame::machine_time(row.removed_at)) { (frame::clock_time(row.removed_at)) } }
                td.mono {
                    a href=(key::href(row.key.as_str())) { (row.key) }
                    div.note { "revision " (row.revision.to_string()) }
                }
                td.mono { (frame::cut(row.item.get(), SHOWN_BYTES)) }
                td {
                    a href=(restore_address(row.key.as_str())) aria-label=(format!("Restore {}", row.key)) {
                        "Restore"
                    }
                }
            } } }
        } }
    }
}
