//! The middleware around the routes of an HTTP function ([`with_middleware`]), and the methods of a route
//! ([`resource`]).

use axum::Router;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use tower::ServiceExt;

use crate::auth::{AuthLayer, authorize};
use crate::base_path::BasePath;
use crate::deadline;
use crate::problem::{MERGE_PATCH, Problem};
use crate::request_telemetry::{ACCEPT_PATCH, request_telemetry};
use crate::uri;

/// The methods of a read-only resource.
pub const READ: &str = "GET, HEAD, OPTIONS";

/// Returns these routes within the middleware of an HTTP function. `rate_limit` adds the function's rate limit to the
/// routes; a function without one passes [`std::convert::identity`].
///
/// A request passes through the middleware in this order, from the outside in, and its response in the reverse order:
///
/// 1. [`uri::canonical`] makes the path canonical, because every later step compares it as text.
/// 2. [`BasePath`] removes the stage and the base path, which the routes do not contain.
/// 3. The router matches the route. All later steps can read its template.
/// 4. [`request_telemetry`] records the log entry and the metrics of every response, and adds the common headers. It
///    also writes the body of a [`Problem`], so each step below it may return one.
/// 5. [`deadline::limit`] responds before Lambda ends the process. It is outside of all steps that wait.
/// 6. [`uri::refuse`] rejects a path that is not canonical, and a route other than the one that API Gateway authorized,
///    before any step relies on the route.
/// 7. [`authorize`] identifies the caller and checks its scope.
/// 8. `rate_limit` takes the request from the caller's quota. It needs the caller, so a request that is rejected before
///    costs no quota and no call to the cache.
/// 9. The handler. A path without a route gets [`Problem::UnknownRoute`] here, without steps 7 and 8 having an effect.
pub fn with_middleware<S: Clone + Send + Sync + 'static>(
    auth_layer: AuthLayer,
    base: BasePath,
    rate_limit: impl FnOnce(Router<S>) -> Router<S>,
    routes: Router<S>,
    state: S,
) -> Router {
    let clock = auth_layer.clock.clone();
    // Each `layer` wraps the ones before it, and `map_request` likewise: read upwards, this is the order above.
    let routes = rate_limit(routes)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(auth_layer, authorize))
        .layer(middleware::from_fn(uri::refuse))
        .layer(middleware::from_fn(deadline::limit))
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
