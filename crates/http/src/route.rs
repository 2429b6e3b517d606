//! The middleware that all routes share: authorization, unsupported methods, unknown paths and path prefixes.

use axum::Router;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use tower::ServiceExt;

use crate::auth::{AuthLayer, authorize};
use crate::base_path::BasePath;
use crate::deadline::limit;
use crate::problem::{MERGE_PATCH, Problem};
use crate::request_telemetry::{ACCEPT_PATCH, request_telemetry};
use crate::uri;

/// The methods of a read-only resource.
pub const READ: &str = "GET, HEAD, OPTIONS";

/// Returns these routes with authorization, deadline, logging and metrics, below this base path.
pub fn with_middleware<S: Clone + Send + Sync + 'static>(
    auth_layer: AuthLayer,
    base: BasePath,
    routes: Router<S>,
    state: S,
) -> Router {
    let clock = auth_layer.clock.clone();
    let routes = routes
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(auth_layer, authorize))
        .layer(middleware::from_fn(uri::refuse))
        .layer(middleware::from_fn(limit))
        .layer(middleware::from_fn_with_state(clock, request_telemetry))
        .with_state(state);
    Router::new()
        .fallback_service(routes.map_request(move |request| base.take_off(request)).map_request(uri::canonical))
}

/// Returns a resource that rejects other methods with the list of allowed ones (RFC 9110, section 10.2.1), and returns
/// that list for `OPTIONS`.
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
