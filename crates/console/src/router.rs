//! The pages and their paths: [`router`].

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::StatusCode;

use crate::stack_stores::StackOrigin;
use crate::{
    ConsoleContext, LocalContext, api_page, archive_page, archive_query, assets, break_it, doctor_page, frame,
    item_page, key, live, quarantine, security, tables, tasks,
};

/// The pages of a stack of this machine, in the order of the navigation.
const LOCAL_PAGES: frame::Navigation = &[
    ("/", "Live"),
    ("/key", "Key"),
    ("/tables", "Tables"),
    ("/archive", "Archive"),
    ("/break", "Break it"),
    ("/quarantine", "Quarantine"),
    ("/tasks", "Tasks"),
    (doctor_page::PATH, "Doctor"),
    (api_page::PATH, "API"),
];

/// Returns the console as a router.
pub fn router(context: ConsoleContext) -> Router {
    let guard = Arc::clone(&context.guard);
    let StackOrigin::Local(local) = &context.origin;
    let pages = local_pages(LocalContext::new(local, &context)).merge(shared_pages().with_state(context));
    pages
        .route("/assets/{name}", get(assets::serve))
        .fallback(|| async {
            frame::failed(StatusCode::NOT_FOUND, "/", "Not found", "There is no page at this address.")
        })
        .layer(DefaultBodyLimit::max(item_page::FORM_BYTES))
        .layer(from_fn_with_state(LOCAL_PAGES, frame::add_frame))
        .layer(from_fn_with_state(guard, security::guard))
}

/// Returns the pages that read the stores of any stack.
fn shared_pages() -> Router<ConsoleContext> {
    Router::new()
        .route("/key", get(key::show))
        .route(archive_page::PATH, get(archive_page::show))
        .route(archive_page::DAY_PATH, get(archive_page::show_day))
        .route(archive_page::OBJECT_PATH, get(archive_page::show_object))
        .route(archive_query::QUERY_PATH, post(archive_query::run))
        .route("/quarantine", get(quarantine::show).post(quarantine::start))
        .route("/tasks", get(tasks::show))
        .route("/tasks/{name}", post(tasks::start))
        .route("/tasks/runs/{id}", get(tasks::run))
        .route("/tasks/runs/{id}/cancel", post(tasks::cancel))
        .route("/tasks/runs/{id}/apply", post(tasks::apply))
        .route(doctor_page::PATH, get(doctor_page::show))
        .route("/doctor/{rule}", get(doctor_page::show_rule))
}

/// Returns the pages that need a stack of this machine.
fn local_pages(context: LocalContext) -> Router {
    Router::new()
        .route("/", get(live::show))
        .route("/events", get(live::events))
        .route("/lag.json", get(live::lag))
        .route(tables::PATH, get(tables::show))
        .route("/tables/import", post(tables::start_import))
        .route(item_page::PATH, get(item_page::show).post(item_page::save))
        .route("/tables/item/delete", post(item_page::remove))
        .route("/break", get(break_it::show).post(break_it::act))
        .route("/light", get(break_it::light))
        .route(api_page::PATH, get(api_page::show))
        .with_state(context)
}
