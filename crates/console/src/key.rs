//! The page Key: one key in every store, side by side, with the differences marked, and its changes.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_local::observer::ObservedChange;
use millrace_shared::item::VERSION;
use millrace_shared::raw_item::RawItem;
use serde::Deserialize;

use crate::key_stores::{self, CacheState, KeyStores, StoredReplica, differences, state_word};
use crate::{ConsoleContext, frame, live};

const PATH: &str = "/key";
const TITLE: &str = "Key";
/// The number of changes that the history shows.
const HISTORY: usize = 50;
/// The maximum length of an item on the page, in bytes; a larger one is cut, and the page says so.
const SHOWN_BYTES: usize = 32 * 1024;
/// The length of a value that is shown in a box of limited height, in bytes.
const LONG_BYTES: usize = 1_000;

/// The key in the page's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct KeyQuery {
    key: String,
}

/// Returns the link to the page of a key.
pub(crate) fn href(key: &str) -> String {
    frame::href(PATH, &[("key", key)])
}

/// Shows the page.
pub(crate) async fn show(State(context): State<ConsoleContext>, Query(query): Query<KeyQuery>) -> Response {
    let own = match context.stores().await {
        Ok(own) => own,
        Err(missing) => return missing.page(PATH, TITLE),
    };
    let maintenance = &own.maintenance;
    let description = match maintenance.source.describe().await {
        Ok(description) => description,
        Err(error) => return frame::failed(StatusCode::BAD_GATEWAY, PATH, TITLE, &error.to_string()),
    };
    let text = query.key.trim();
    if text.is_empty() {
        let body = html! {
            (search(text, &key_stores::example(&description)))
            p.box {
                "Enter a key to see it in every store"
                @if context.origin.is_local() { ", or choose one on the page " a href="/" { "Live" } }
                "."
            }
        };
        return frame::page(PATH, TITLE, &body).into_response();
    }
    let key = match key_stores::parse_key(text, &description) {
        Ok(key) => key,
        Err(problem) => {
            let body = html! { (search(text, &key_stores::example(&description))) (frame::problem(&problem)) };
            return (StatusCode::BAD_REQUEST, frame::page(PATH, TITLE, &body)).into_response();
        }
    };
    let stores = key_stores::read(maintenance, &own.cache, &key, context.clock.now()).await;
    let history =
        context.origin.changes().map(|observer| observer.changes_of_key(key.as_str(), HISTORY)).unwrap_or_default();
    let body = html! {
        (search(key.as_str(), &key_stores::example(&description)))
        (summary(&stores))
        h2 { "Stores" }
        div.cards {
            section.box aria-label="source" {
                h3 { "source: " (maintenance.source.name()) }
                @match &stores.source {
                    Ok(Some(own)) => { (item("source", own, &[])) }
                    Ok(None) => { p { "No item." } }
                    Err(error) => { (frame::problem(error)) }
                }
            }
            @for replica in &stores.replicas { (replica_section(replica)) }
            (cache(&stores))
            (archive(&stores))
            (failures(&stores))
        }
        @if context.origin.is_local() {
            h2 { "History" }
            (changes(&history))
        }
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// Renders the changes of the key.
fn changes(history: &[Arc<ObservedChange>]) -> Markup {
    html! {
        @if history.is_empty() { p.note { "No retained change has this key." } }
        @else {
            div.scroll tabindex="0" role="region" aria-label="History" {
                table {
                    caption { "The newest change is at the top. Only changes since the start are shown." }
                    thead { (live::head()) }
                    tbody { @for change in history { (live::row(change)) } }
                }
            }
        }
    }
}

fn search(key: &str, example: &str) -> Markup {
    html! {
        form.row method="get" action=(PATH) role="search" {
            div.wide { label for="key" { "Key in DynamoDB JSON" } input #key type="text" name="key" value=(key) placeholder=(example); }
            button type="submit" { "Show" }
        }
        p.note { "Example: " code { (example) } }
    }
}

fn summary(stores: &KeyStores) -> Markup {
    let equal: Vec<Option<bool>> = stores.replicas.iter().map(StoredReplica::is_equal).collect();
    html! {
        @if equal.contains(&Some(false)) { p.box.bad role="status" { "A replica differs from the source." } }
        @else if equal.contains(&None) { p.box.warn role="status" { "Not every store could be read." } }
        @else { p.box.good role="status" { "Every replica is equal to the source." } }
    }
}

fn replica_section(replica: &StoredReplica) -> Markup {
    let is_equal = replica.is_equal();
    let different = match &replica.expected {
        Ok(expected) if is_equal == Some(false) => differences(expected.as_ref(), replica.item()),
        _ => Vec::new(),
    };
    html! {
        section.box aria-label=(format!("replica {}", replica.name)) {
            h3 { "replica: " (replica.name) " "
                @match is_equal {
                    Some(true) => { span.verdict.good { "equal" } }
                    Some(false) => { span.verdict.bad { "different" } }
                    None => { span.verdict.warn { "not read" } }
                }
            }
            @if replica.has_rules {
                p.note { "Compared with the source's item as the rules of the replica transform it." }
                @if let Err(error) = &replica.expected { (frame::problem(error)) }
            }
            @match &replica.state {
                Err(error) => { (frame::problem(error)) }
                Ok(state) => {
                    p.note { "Stores " (state_word(state.as_ref())) "."
                        @match state.as_ref().and_then(|stored| stored.revision.as_ref()) {
                            Some(Ok(revision)) => { " Revision " (revision.to_string()) "." }
                            Some(Err(error)) => { " The revision is not valid: " (error) "." }
                            None => {}
                        }
                    }
                    @if let Some(own) = replica.item() { (item(&replica.name, own, &different)) }
                    @if !different.is_empty() { p { "Different: " mark { (different.join(", ")) } } }
                }
            }
        }
    }
}

fn cache(stores: &KeyStores) -> Markup {
    let source = stores.source.as_ref().ok().map(|item| item.as_ref().and_then(version));
    html! {
        section.box aria-label="cache" {
            h3 { "cache " @if let CacheState::Entry { version, .. } = &stores.cache {
                @if source == Some(Some(*version)) { span.verdict.good { "current" } } @else { span.verdict.warn { "other version" } }
            } }
            @match &stores.cache {
                CacheState::Off => { p { "The cache tier is off. " code { "millrace up --cache auto" } " starts it." } }
                CacheState::InNetwork => {
                    p { "The cache of a deployed stack, if it has one, can be reached only from its network: it is not read." }
                }
                CacheState::NotCached => { p { "The cache contains only records of the users service, and this key is not one." } }
                CacheState::Unreadable(error) => { (frame::problem(error)) }
                CacheState::Miss => { p { "No entry: the next read of the API writes one." } }
                CacheState::Missing => { p { "A negative entry: a moment ago the table had no such record." } }
                CacheState::Fenced => { p { "An invalidation marker: the record was written recently, so the API reads the table." } }
                CacheState::Entry { version, expires_at, json } => {
                    p.note { "Version " (version) @if let Some(expires_at) = expires_at { ", expires at " time { (frame::machine_time(*expires_at)) } } "." }
                    pre tabindex="0" { (frame::cut(json, SHOWN_BYTES)) }
                }
            }
        }
    }
}

/// Returns the version of a record of the users service.
fn version(item: &RawItem) -> Option<u64> {
    match item.get(VERSION)? {
        aws_sdk_dynamodb::types::AttributeValue::N(number) => number.parse().ok(),
        _ => None,
    }
}

fn archive(stores: &KeyStores) -> Markup {
    html! {
        section.box aria-label="archive" {
            h3 { "archive" }
            p.note { "Rows of yesterday and today: the item before TTL removed it." }
            @match &stores.archive {
                None => { p { "This deployment has no archive." } }
                Some(Err(error)) => { (frame::problem(error)) }
                Some(Ok(found)) => {
                    @if found.rows.is_empty() { p { "No row." } }
                    @for row in &found.rows {
                        p.note { "Removed at " time { (frame::machine_time(row.removed_at)) } }
                        pre tabindex="0" { (frame::cut(row.item.get(), SHOWN_BYTES)) }
                    }
                    @if found.is_cut {
                        p.note {
                            "Only " (key_stores::ARCHIVE_OBJECTS) " objects of the latest hours were searched: "
                            "query the others on the page " a href="/archive" { "Archive" } "."
                        }
                    }
                }
            }
        }
    }
}

fn failures(stores: &KeyStores) -> Markup {
    html! {
        section.box aria-label="failure bucket" {
            h3 { "failure bucket" }
            @match &stores.failures {
                Err(error) => { (frame::problem(error)) }
                Ok(own) if own.is_empty() => { p { "No record among the first " (key_stores::FAILURES) " objects of each kind." } }
                Ok(own) => {
                    ul { @for failure in own {
                        li { code { (failure.object) } br; (failure.sink.as_deref().unwrap_or("every replica")) ": " (failure.reason) }
                    } }
                    p { a href="/quarantine" { "Redrive" } }
                }
            }
        }
    }
}

/// Renders the item of a store with one attribute per line, sorted by name; attributes with these names are marked.
fn item(store: &str, item: &RawItem, marked: &[String]) -> Markup {
    let json: Result<std::collections::BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(&item.encode());
    html! {
        @match json {
            Err(error) => { (frame::problem(&error.to_string())) }
            Ok(attributes) => {
                table { tbody {
                    @for (name, value) in &attributes {
                        tr {
                            th scope="row" { @if marked.contains(name) { mark { (name) } } @else { (name) } }
                            @let text = value.to_string();
                            td.mono {
                                @if text.len() > LONG_BYTES {
                                    div.long tabindex="0" role="region" aria-label=(format!("{store}: {name}")) {
                                        (frame::cut(&text, SHOWN_BYTES))
                                    }
                                } @else { (text) }
                            }
                        }
                    }
                } }
            }
        }
    }
}
