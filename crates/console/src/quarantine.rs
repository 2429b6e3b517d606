//! The page Quarantine: the objects of the failure bucket with their reason, their record and what the source stores now;
//! and the redrive, as a dry run and for real.

use std::time::Duration;

use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures::{StreamExt as _, stream};
use http::StatusCode;
use maud::{Markup, html};
use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::failure_bucket::FailureObject;
use millrace_maintenance::failure_record::{FailureRecord, ON_FAILURE_PREFIX, QUARANTINE};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::key_stores::{failure, keys_of};
use crate::{ConsoleContext, frame, key, tasks};

const PATH: &str = "/quarantine";
const TITLE: &str = "Quarantine";
/// The number of objects that the page shows.
const SHOWN: i32 = 50;
/// The number of objects that are read at once, and the time limit of the page.
const IN_FLIGHT: usize = 8;
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum length of a shown record, in bytes.
const RECORD_BYTES: usize = 4 * 1024;

/// A form of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RedriveForm {
    token: Option<String>,
    /// The object, or a prefix of objects.
    prefix: String,
    /// `true` to write; everything else is a dry run.
    apply: String,
}

/// Shows the page.
pub(crate) async fn show(State(context): State<ConsoleContext>) -> Response {
    let maintenance = match context.stores().await {
        Ok(stores) => stores.maintenance,
        Err(missing) => return missing.page(PATH, TITLE),
    };
    let sections = tokio::time::timeout(READ_TIMEOUT, Box::pin(sections(&context, &maintenance))).await;
    let late = || Err(format!("the failure bucket has not responded within {} s: try again", READ_TIMEOUT.as_secs()));
    let shown = match sections.unwrap_or_else(|_| late()) {
        Ok(shown) => shown,
        Err(reason) => return frame::failed(StatusCode::BAD_GATEWAY, PATH, TITLE, &reason),
    };
    let body = html! {
        p.note { "Records that a function could not process, with the reason. A redrive reconciles their items: it writes what the source stores now, not the old record." }
        @if shown.is_empty() {
            p.box.good {
                "The failure bucket is empty."
                @if context.origin.is_local() {
                    " To see a record here, write a poison record on the page " a href="/break" { "Break it" } "."
                }
            }
        } @else {
            @if shown.len() >= usize::try_from(SHOWN).unwrap_or_default() { p.note { "Only the first " (SHOWN) " objects of each kind are shown." } }
            h2 { "Failure objects" }
            section.box aria-label="All objects" {
                h3 { "All objects" }
                (redrive(&context, ""))
                @if !context.allows_tasks() {
                    (context.start_command(&json!({"task": "redrive", "dry_run": true})).await)
                }
            }
            @for own in &shown { (own) }
        }
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// Renders the first objects of each kind.
///
/// # Errors
/// The error of the bucket, as text.
async fn sections(context: &ConsoleContext, maintenance: &MaintenanceHandler) -> Result<Vec<Markup>, String> {
    let mut objects = Vec::new();
    for prefix in [QUARANTINE, ON_FAILURE_PREFIX] {
        objects.extend(maintenance.failures.list(prefix, None, SHOWN).await.map_err(|error| error.to_string())?);
    }
    let sections = stream::iter(objects).map(|object| async move { section(context, maintenance, &object).await });
    Ok(sections.buffered(IN_FLIGHT).collect().await)
}

fn redrive(context: &ConsoleContext, prefix: &str) -> Markup {
    html! {
        @if context.allows_tasks() { div.row {
            @for (apply, label) in [("false", "Dry run"), ("true", "Redrive")] {
                form method="post" action=(PATH) {
                    (frame::token_field(context))
                    input type="hidden" name="prefix" value=(prefix);
                    input type="hidden" name="apply" value=(apply);
                    button type="submit" aria-label=(format!("{label}: {}", if prefix.is_empty() { "all objects" } else { prefix })) { (label) }
                }
            }
        } }
    }
}

async fn section(context: &ConsoleContext, maintenance: &MaintenanceHandler, object: &FailureObject) -> Markup {
    let read = failure(maintenance, &object.key, object.size_bytes).await;
    let body = match &read {
        Err(error) => frame::problem(error),
        Ok(None) => {
            html! { p.note { "The object has " (object.size_bytes / 1024) " KB, or no longer exists: it is not shown." } }
        }
        Ok(Some(record)) => record_section(maintenance, record).await,
    };
    html! {
        section.box aria-label=(object.key) {
            h3.mono { (object.key) }
            @if let Some(at) = object.modified { p.note { "Written at " time { (frame::machine_time(at)) } } }
            (body)
            (redrive(context, &object.key))
        }
    }
}

async fn record_section(maintenance: &MaintenanceHandler, record: &FailureRecord) -> Markup {
    let keys = keys_of(record);
    let mut now = Vec::new();
    for key in keys.iter().take(3) {
        let found = maintenance.source.read(std::slice::from_ref(key)).await;
        now.push((key, found.map(|mut found| found.items.pop().flatten()).map_err(|error| error.to_string())));
    }
    html! {
        p { "Reason: " strong { (record.reason) } }
        p { "Function: " (record.function.as_str()) @if let Some(sink) = &record.sink { ", replica: " (sink) } }
        @for (key, found) in &now {
            p { "Key: " a.mono href=(key::href(key.as_str())) { (key) } }
            @match found {
                Ok(Some(item)) => { details { summary { "The source stores an item now" } pre { (frame::cut(&item.encode(), RECORD_BYTES)) } } }
                Ok(None) => { p { "The source has no item with this key now." } }
                Err(error) => { (frame::problem(error)) }
            }
        }
        @if keys.len() > now.len() { p.note { "and " (keys.len() - now.len()) " other keys" } }
        details { summary { "Record" } pre { (frame::cut(record.event.get(), RECORD_BYTES)) } }
    }
}

/// Starts a redrive.
pub(crate) async fn start(State(context): State<ConsoleContext>, Form(form): Form<RedriveForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let mut request = Map::from_iter([("dry_run".to_owned(), Value::from(form.apply != "true"))]);
    if !form.prefix.is_empty() {
        request.insert("prefix".to_owned(), form.prefix.into());
    }
    match context.start_task("redrive", request).await {
        Ok(id) => Redirect::to(&tasks::href(&id)).into_response(),
        Err(refused) => refused.page(PATH, TITLE),
    }
}
