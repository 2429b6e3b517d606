//! What routes have in common: the door before them, other methods, unknown paths, and a stage in front of the path.

use axum::Router;
use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;
use tower::ServiceExt;

use crate::door::{Door, admit};
use crate::observe::{ACCEPT_PATCH, observe};
use crate::path::Stage;
use crate::problem::{MERGE_PATCH, Problem};
use crate::uri;

/// What a resource that is only read has.
pub const READ: &str = "GET, HEAD, OPTIONS";

/// These routes behind this door, each answer told of.
pub fn behind<S: Clone + Send + Sync + 'static>(door: Door, routes: Router<S>, state: S) -> Router {
    let clock = door.clock.clone();
    let routes = routes
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(door, admit))
        .layer(middleware::from_fn(uri::refuse))
        .layer(middleware::from_fn_with_state(clock, observe))
        .with_state(state);
    Router::new().fallback_service(routes.map_request(without_stage).map_request(uri::canonical))
}

/// A resource refuses every other method with the ones that it has (RFC 9110, section 10.2.1), and tells them on request.
pub fn resource<S: Clone + Send + Sync + 'static>(methods: MethodRouter<S>, allow: &'static str) -> MethodRouter<S> {
    methods.fallback(move |method: Method| async move { other_method(&method, allow) })
}

fn other_method(method: &Method, allow: &'static str) -> Result<Response, Problem> {
    if method == Method::OPTIONS {
        let mut response = (StatusCode::NO_CONTENT, [(ALLOW, HeaderValue::from_static(allow))]).into_response();
        if allow.contains("PATCH") {
            response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(MERGE_PATCH));
        }
        return Ok(response);
    }
    Err(Problem::MethodNotAllowed { allow })
}

async fn unknown() -> Problem {
    Problem::UnknownRoute
}

/// API Gateway puts the name of a stage that is not `$default` before the path. The routes know nothing of stages.
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
