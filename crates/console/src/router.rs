//! The pages and their paths: [`router`].

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};
use http::StatusCode;

use crate::stack_stores::StackOrigin;
use crate::{
    ConsoleContext, DeployedContext, LocalContext, api_page, archive_page, archive_query, assets, break_it,
    doctor_page, frame, item_page, key, live, metrics_page, quarantine, security, tables, tasks,
};

/// The pages of a stack of this machine, in the order of the navigation.
const LOCAL_PAGES: frame::PageLinks = &[
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

/// The pages of a deployed stack.
const DEPLOYED_PAGES: frame::PageLinks = &[
    ("/", "Metrics"),
    ("/key", "Key"),
    ("/archive", "Archive"),
    ("/quarantine", "Quarantine"),
    ("/tasks", "Tasks"),
    (doctor_page::PATH, "Doctor"),
];

/// The paths that a deployed stack does not have, each with the reason.
const LOCAL_PATHS: [(&str, &str); 9] = [
    ("/events", NO_TIMELINE),
    ("/lag.json", NO_TIMELINE),
    (tables::PATH, NO_EDITOR),
    ("/tables/import", NO_EDITOR),
    (item_page::PATH, NO_EDITOR),
    ("/tables/item/delete", NO_EDITOR),
    ("/break", NO_FAULTS),
    ("/light", NO_FAULTS),
    (api_page::PATH, NO_API),
];
const NO_TIMELINE: &str = "The timeline needs a local stack, whose functions this process observes. The page Metrics \
                           shows the CloudWatch metrics of a deployed stack.";
const NO_EDITOR: &str = "The page Tables needs a local stack: the console only reads a deployed stack. The page Key \
                         shows an item in every store.";
const NO_API: &str = "The page API needs a local stack. A deployed API serves its documentation at /docs.";
const NO_FAULTS: &str = "The page Break it needs a local stack: nothing of a deployed stack is broken on purpose. \
                         Start one with millrace up.";

/// Returns the console as a router.
pub fn router(context: ConsoleContext) -> Router {
    let guard = Arc::clone(&context.guard);
    let (own, navigation) = match &context.origin {
        StackOrigin::Local(local) => (local_pages(LocalContext::new(local, &context)), LOCAL_PAGES),
        StackOrigin::Deployed(stack) => {
            let deployed = DeployedContext { stack: Arc::clone(stack), console: context.clone() };
            (deployed_pages(deployed), DEPLOYED_PAGES)
        }
    };
    own.merge(shared_pages().with_state(context))
        .route("/assets/{name}", get(assets::serve))
        .fallback(|| async {
            frame::failed(StatusCode::NOT_FOUND, "/", "Not found", "There is no page at this address.")
        })
        .layer(DefaultBodyLimit::max(item_page::FORM_BYTES))
        .layer(from_fn_with_state(navigation, frame::add_frame))
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

/// Returns the pages that only a deployed stack has. The paths of local pages return 404 with the reason.
fn deployed_pages(context: DeployedContext) -> Router {
    let pages = Router::new()
        .route("/", get(metrics_page::show))
        .route(doctor_page::PATH, post(doctor_page::again))
        .with_state(context);
    LOCAL_PATHS.into_iter().fold(pages, |pages, (path, reason)| {
        pages.route(path, any(move || async move { frame::failed(StatusCode::NOT_FOUND, "/", "Not found", reason) }))
    })
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
