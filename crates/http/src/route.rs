//! The middleware around the routes of an HTTP function ([`with_middleware`]), and the methods of a route
//! ([`resource`]).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use tower::ServiceExt;

use crate::auth::AuthLayer;
use crate::base_path::BasePath;
use crate::deadline;
use crate::problem::{MERGE_PATCH, Problem};
use crate::request_telemetry::{ACCEPT_PATCH, RequestTelemetry};
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
/// 4. `RequestTelemetry` records the log entry and the metrics of every response, and adds the common headers. It
///    also writes the body of a `Problem`, so each step below it may return one.
/// 5. `deadline::limit` responds before Lambda ends the process. It is outside of all steps that wait.
/// 6. `uri::refuse` rejects a path that is not canonical, and a route other than the one that API Gateway authorized,
///    before any step relies on the route.
/// 7. `AuthLayer::authorize` identifies the caller and checks its scope.
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
    // Steps 4 to 7 are one layer, because each layer boxes the request's future and clones the service below it. Each
    // `layer` wraps the ones before it, and `map_request` likewise: read upwards, this is the order above.
    let routes = rate_limit(routes)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::new(auth_layer), handle))
        .with_state(state);
    Router::new()
        .fallback_service(routes.map_request(move |request| base.take_off(request)).map_request(uri::canonical))
}

/// Steps 4 to 7 of [`with_middleware`].
async fn handle(State(auth_layer): State<Arc<AuthLayer>>, mut request: Request, next: Next) -> Response {
    let telemetry = RequestTelemetry::start(&mut request, &auth_layer.clock);
    let budget = deadline::budget(&mut request);
    let handled = deadline::limit(budget, async {
        uri::refuse(&request)?;
        auth_layer.authorize(&mut request)?;
        Ok(next.run(request).await)
    });
    telemetry.finish(handled.await.into_response())
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
