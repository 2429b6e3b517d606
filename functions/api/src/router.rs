//! The routes, and what each answers to which method.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use tower::ServiceExt;

use crate::access::{Door, admit};
use crate::contract::schema;
use crate::observe::{ACCEPT_PATCH, observe};
use crate::path::Stage;
use crate::problem::{MERGE_PATCH, Problem};
use crate::users::{self, Users};

const READ: &str = "GET, HEAD, OPTIONS";
const COLLECTION: &str = "GET, HEAD, POST, OPTIONS";
const ACTION: &str = "POST, OPTIONS";
const RECORD: &str = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS";

/// Every route of the API, over these users, behind this door.
pub(crate) fn routes(users: Users, door: Door) -> Router {
    let record = get(users::read).put(users::replace).patch(users::patch).delete(users::delete);
    let routes = Router::new()
        .route("/health", resource(get(health), READ))
        .route("/openapi.json", resource(get(contract), READ))
        .route("/users", resource(get(users::list).post(users::create), COLLECTION))
        .route("/users:batchGet", resource(post(users::read_batch), ACTION))
        .route("/users/{user_id}", resource(get(users::history), READ))
        .route("/users/{user_id}/latest", resource(get(users::latest), READ))
        .route("/users/{user_id}/{timestamp}", resource(record, RECORD))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(door, admit))
        .layer(middleware::from_fn_with_state(users.clock().clone(), observe))
        .with_state(users);
    Router::new().fallback_service(routes.map_request(without_stage))
}

/// A resource refuses every other method with the ones that it has (RFC 9110, section 10.2.1), and tells them on request.
fn resource(methods: MethodRouter<Users>, allow: &'static str) -> MethodRouter<Users> {
    methods.fallback(move |method: Method| async move { other_method(&method, allow) })
}

fn other_method(method: &Method, allow: &'static str) -> Result<Response, Problem> {
    if method == Method::OPTIONS {
        let mut response = (StatusCode::NO_CONTENT, [(ALLOW, HeaderValue::from_static(allow))]).into_response();
        if allow == RECORD {
            // What can be patched tells with what (RFC 5789, section 3.1).
            response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(MERGE_PATCH));
        }
        return Ok(response);
    }
    Err(Problem::MethodNotAllowed { allow })
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

async fn unknown() -> Problem {
    Problem::UnknownRoute
}

/// API Gateway puts the name of a stage that is not `$default` before the path, and `lambda_http` adds it where it is
/// missing, unless `AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH` is set. The routes know nothing of stages.
fn without_stage(mut request: Request) -> Request {
    let stage = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.stage.as_deref().filter(|stage| *stage != "$default"),
        _ => None,
    };
    let Some(prefix) = stage.map(|stage| format!("/{stage}")) else {
        return request;
    };
    let Some(rest) = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(&prefix)) else {
        return request;
    };
    let path = match rest.as_bytes().first() {
        Some(b'/') => rest.to_owned(),
        None | Some(b'?') => format!("/{rest}"),
        // `/productions` does not start with the stage `prod`.
        Some(_) => return request,
    };
    if let Ok(uri) = Uri::try_from(path) {
        *request.uri_mut() = uri;
        request.extensions_mut().insert(Stage(prefix));
    }
    request
}

#[cfg(test)]
pub(crate) mod tests;
