//! What every answer has in common: its headers, one line in the log, two metrics, and the body of a problem.
//!
//! The log line and the dimensions name the route's template and never the path: a path has a user's identifier.

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use lambda_http::RequestExt;
use shared::clock::Clock;
use shared::http::caller::{Auth, Scope};
use shared::metric;
use tokio::time::Instant;
use uuid::{NoContext, Timestamp, Uuid};

use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// An answer with an entity tag may be kept, if it is asked about each time; nothing else may be kept.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const KEEP_NOTHING: HeaderValue = HeaderValue::from_static("no-store");
/// An answer is data: nothing of it is to be run, framed or guessed at by a browser (OWASP's REST security cheat sheet).
/// Over plain HTTP, as on one machine, browsers ignore the first.
const SECURITY: [(HeaderName, HeaderValue); 5] = [
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

pub(crate) async fn observe(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = match request.lambda_context_ref() {
        Some(context) => context.request_id.clone(),
        None => new_uuid(&clock).to_string(),
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        spell(problem, &request_id, &mut response);
    }
    let kept = if response.headers().contains_key(ETAG) { REVALIDATE } else { KEEP_NOTHING };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, kept);
    headers.extend(SECURITY);
    if let Ok(request_id) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, request_id);
    }
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    record(route, response.status().as_u16(), started, &request_id, problem.as_ref());
    response
}

/// A new identifier, by the time of this clock.
pub(crate) fn new_uuid(clock: &Clock) -> Uuid {
    let now = clock.now();
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

fn spell(problem: &Problem, request_id: &str, response: &mut Response) {
    *response.body_mut() = Body::from(problem.body(request_id));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let told = match problem {
        Problem::MethodNotAllowed { allow } => (ALLOW, *allow),
        Problem::NotAMergePatch => (ACCEPT_PATCH, crate::problem::MERGE_PATCH),
        Problem::Encoded => (ACCEPT_ENCODING, "identity"),
        Problem::Busy { .. } => (RETRY_AFTER, "1"),
        Problem::Unauthenticated { auth: Auth::Iam } => (WWW_AUTHENTICATE, "AWS4-HMAC-SHA256"),
        Problem::Unauthenticated { .. } => (WWW_AUTHENTICATE, "Bearer"),
        // RFC 6750, section 3.
        Problem::InsufficientScope { scope } => (WWW_AUTHENTICATE, insufficient(*scope)),
        _ => return,
    };
    headers.insert(told.0, HeaderValue::from_static(told.1));
}

fn insufficient(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => r#"Bearer error="insufficient_scope", scope="users:read""#,
        Scope::Write => r#"Bearer error="insufficient_scope", scope="users:write""#,
        Scope::Admin => r#"Bearer error="insufficient_scope", scope="users:admin""#,
    }
}

fn record(route: &str, status: u16, started: Instant, request_id: &str, problem: Option<&Problem>) {
    let duration_ms = started.elapsed().as_secs_f64() * 1_000.0;
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    metrics::counter!(metric::REQUESTS, "route" => route.to_owned(), "class" => class).increment(1);
    metrics::histogram!(metric::REQUEST_DURATION, "route" => route.to_owned()).record(duration_ms);
    if let Some(cause) = problem.and_then(Problem::cause) {
        tracing::error!(http.route = route, http.status = status, duration_ms, request_id, cause, "request failed");
    } else {
        tracing::info!(http.route = route, http.status = status, duration_ms, request_id, "request");
    }
}
