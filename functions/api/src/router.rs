//! The routes, and what each answers to which method.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use front::door::Door;
use front::route::{READ, behind, resource};

use crate::contract::schema;
use crate::limit::{Limit, ration};
use crate::users::{self, Users};

const COLLECTION: &str = "GET, HEAD, POST, OPTIONS";
const ACTION: &str = "POST, OPTIONS";
const RECORD: &str = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";

/// Every route of the API, over these users, behind this door.
pub(crate) fn routes(users: Users, door: Door, limit: Option<Limit>) -> Router {
    let record = get(users::read).put(users::replace).patch(users::patch).delete(users::delete);
    let routes = Router::new()
        .route("/health", resource(get(health), READ))
        .route("/openapi.json", resource(get(contract), READ))
        .route("/users", resource(get(users::list).post(users::create), COLLECTION))
        .route("/users:batchGet", resource(post(users::read_batch), ACTION))
        .route("/users/{user_id}", resource(get(users::history), READ))
        .route("/users/{user_id}/latest", resource(get(users::latest), READ))
        .route("/users/{user_id}/{timestamp}", resource(record, RECORD))
        .layer(middleware::from_fn_with_state(limit, ration));
    behind(door, routes, users)
}

/// Says that the function runs. It asks the table nothing: a throttled table is no reason to replace a function.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "users",
    summary = "Say that the function runs",
    responses(
        (status = 200, description = "the function runs", body = schema::Health),
    ),
)]
async fn health() -> Response {
    ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

/// The contract, for clients and their generators.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "contract",
    tag = "users",
    summary = "Tell the contract",
    responses((status = 200, description = "this document", body = Object)),
)]
async fn contract() -> Response {
    ([(CONTENT_TYPE, "application/json")], crate::contract::SERVED).into_response()
}

#[cfg(test)]
pub(crate) mod tests;
