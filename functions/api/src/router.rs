//! The API's route table, and the scope that each route requires.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, get, post};
use millrace_http::auth::AuthLayer;
use millrace_http::base_path::BasePath;
use millrace_http::path::StagePrefix;
use millrace_http::problem::Problem;
use millrace_http::response::json;
use millrace_http::route::{READ, resource, with_middleware};
use millrace_shared::http::caller::Scope;

use crate::openapi::deployed::{ContractDeployment, SEARCH_PATHS};
use crate::openapi::schema;
use crate::rate_limit::{RateLimiter, enforce_rate_limit};
use crate::users::{self, AppState};

const COLLECTION: &str = "GET, HEAD, POST, OPTIONS";
const ACTION: &str = "POST, OPTIONS";
const RECORD: &str = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";

/// Returns all routes of the API with this state, authentication and base path.
pub(crate) fn routes(
    users: AppState,
    auth_layer: AuthLayer,
    base: &BasePath,
    deployment: ContractDeployment,
    limit: Option<RateLimiter>,
) -> Router {
    // With the relational tier, API Gateway routes reads of these paths to the search function; other methods arrive
    // here.
    let elsewhere =
        if deployment.has_relational { resource(get(unknown), READ) } else { routing::any(relational_tier_off) };
    let search = SEARCH_PATHS.into_iter().fold(Router::new(), |routes, path| routes.route(path, elsewhere.clone()));
    let describe = move |stage: StagePrefix| async move { contract(&deployment, &stage) };
    let record = get(users::read).put(users::replace).patch(users::patch).delete(users::delete);
    let routes = Router::new()
        .route("/health", resource(get(health), READ))
        .route("/openapi.json", resource(get(describe), READ))
        .route("/users", resource(get(users::list).post(users::create), COLLECTION))
        .route("/users:batchGet", resource(post(users::read_batch), ACTION))
        .route("/users/{user_id}", resource(get(users::list_records), READ))
        .route("/users/{user_id}/latest", resource(get(users::latest), READ))
        .route("/users/{user_id}/{timestamp}", resource(record, RECORD))
        .merge(search);
    let rate_limit = |routes: Router<_>| routes.layer(middleware::from_fn_with_state(limit, enforce_rate_limit));
    with_middleware(auth_layer, base.clone(), rate_limit, routes, users)
}

/// Returns the scope that a request requires, or `None` if its response contains no user data. Access is denied by
/// default: a route without an entry here requires the widest scope.
pub(crate) fn required_scope(route: &str, method: &Method) -> Option<Scope> {
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        _ if method == Method::OPTIONS => None,
        // The last three are served by the search function or disabled, so this function returns no user data for them.
        "/health" | "/openapi.json" | "/search/users" | "/stats/users" | "/users/{user_id}/summary" => None,
        "/users" if method == Method::POST => Some(Scope::Write),
        // The handler reads only the keys of the body that belong to the caller.
        "/users:batchGet" if method == Method::POST => Some(Scope::Read),
        "/users/{user_id}" | "/users/{user_id}/latest" | "/users/{user_id}/{timestamp}" if reads => Some(Scope::Read),
        "/users/{user_id}/{timestamp}" if [Method::PUT, Method::PATCH, Method::DELETE].contains(method) => {
            Some(Scope::Write)
        }
        // Lists over all users, and every route without an entry above.
        _ => Some(Scope::Admin),
    }
}

/// Reports that the function runs. It does not read the table, because throttling of the table is not a
/// reason to replace the function.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = "users",
    summary = "Check that the function runs",
    description = "Returns no user data and reads no table. On AWS, API Gateway rejects requests without a valid signature \
        (403) or token (401).",
    responses(
        (status = 200, description = "The function runs", body = schema::Health),
    ),
)]
async fn health() -> Response {
    ([(CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

/// The OpenAPI document of this deployment, for clients and their generators.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    tag = "users",
    summary = "Get the OpenAPI document",
    description = "Returns the document of this deployment: its enabled paths and its security scheme. On AWS, API Gateway \
        rejects requests without a valid signature (403) or token (401).",
    responses((status = 200, description = "The OpenAPI document", body = Object)),
)]
fn contract(deployment: &ContractDeployment, stage: &StagePrefix) -> Result<Response, Problem> {
    let document = deployment.document(&stage.0);
    let document = document.map_err(|error| Problem::Internal { cause: format!("OpenAPI document: {error}") })?;
    Ok(json(StatusCode::OK, document))
}

async fn unknown() -> Problem {
    Problem::UnknownRoute
}

async fn relational_tier_off() -> Problem {
    Problem::RelationalTierOff
}

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod tests;
