//! The parts that all responses share: headers, one log entry, two metrics, and the body of a problem.
//!
//! The log entry and the metric dimensions contain the route's template and never the path, because a path contains a
//! user's identifier. The log entry contains the route, the status, the duration, the capacity units that DynamoDB
//! reported, and the ids of the request and its trace.

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use millrace_shared::clock::{Clock, new_uuid};
use millrace_shared::http::caller::{AuthMode, Scope, ScopeMapping};
use millrace_shared::metric;
use millrace_shared::table::CapacityMeter;
use tokio::time::Instant;

use crate::gateway::InvocationIds;
use crate::problem::{MERGE_PATCH, Problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that lists the patch formats that a resource accepts (RFC 5789, section 3.1).
pub const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// A response with an entity tag may be cached if it is revalidated on each use; other responses must not be stored.
const CACHE_CONTROL_REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const CACHE_CONTROL_NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Security headers: a response is data that a browser must not execute, frame or sniff for a type (OWASP's REST
/// security cheat sheet). Over plain HTTP, as on a development machine, browsers ignore the first header.
const SECURITY: [(HeaderName, HeaderValue); 5] = [
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=63072000; includeSubDomains")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The data of a request in progress that its log entry and its metrics need in addition to the response.
pub(crate) struct RequestTelemetry {
    started: Instant,
    request_id: String,
    route: Option<MatchedPath>,
    trace_id: Option<String>,
    meter: CapacityMeter,
}

impl RequestTelemetry {
    /// Starts the measurement of a request, and attaches the meter of its capacity units.
    pub(crate) fn start(request: &mut Request, clock: &Clock) -> Self {
        let request_id = match request.extensions().get::<InvocationIds>() {
            Some(ids) => ids.request_id.clone(),
            None => new_uuid(clock.now()).to_string(),
        };
        let meter = CapacityMeter::default();
        request.extensions_mut().insert(meter.clone());
        Self {
            started: Instant::now(),
            request_id,
            route: request.extensions().get::<MatchedPath>().cloned(),
            trace_id: trace_id(request),
            meter,
        }
    }

    /// Adds the common headers to the response, and records the log entry and the metrics.
    pub(crate) fn finish(self, mut response: Response) -> Response {
        let Self { started, request_id, route, trace_id, meter } = self;
        let problem = response.extensions_mut().remove::<Problem>();
        if let Some(problem) = &problem {
            render_problem(problem, &request_id, &mut response);
        }
        let headers = response.headers_mut();
        let kept = if headers.contains_key(ETAG) { CACHE_CONTROL_REVALIDATE } else { CACHE_CONTROL_NO_STORE };
        headers.reserve(SECURITY.len() + 2);
        headers.insert(CACHE_CONTROL, kept);
        headers.extend(SECURITY);
        if let Ok(request_id) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, request_id);
        }
        let answered = RequestLog {
            route: route.as_ref().map_or("unknown", MatchedPath::as_str),
            status: response.status().as_u16(),
            duration_ms: started.elapsed().as_secs_f64() * 1_000.0,
            capacity_units: meter.consumed_units(),
            request_id: &request_id,
            trace_id: trace_id.as_deref().unwrap_or_default(),
        };
        answered.record(problem.as_ref());
        response
    }
}

fn render_problem(problem: &Problem, request_id: &str, response: &mut Response) {
    *response.body_mut() = Body::from(problem.body(request_id));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Problem::IdempotencyKeyInUse { seconds } = problem {
        headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if let Problem::RateLimited { seconds } = problem {
        headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if let Problem::InsufficientScope { scope, scopes } = problem {
        headers.extend(insufficient(*scope, scopes).map(|challenge| (WWW_AUTHENTICATE, challenge)));
    }
    let header = match problem {
        Problem::MethodNotAllowed { allow } => (ALLOW, *allow),
        Problem::UnsupportedMediaType { expected: MERGE_PATCH } => (ACCEPT_PATCH, MERGE_PATCH),
        Problem::UnsupportedContentEncoding => (ACCEPT_ENCODING, "identity"),
        Problem::ServiceUnavailable { .. } => (RETRY_AFTER, "1"),
        // TTL deletes expired items only after hours.
        Problem::TooManyExpired => (RETRY_AFTER, "3600"),
        Problem::Unauthenticated { auth: AuthMode::Iam } => (WWW_AUTHENTICATE, "AWS4-HMAC-SHA256"),
        Problem::Unauthenticated { .. } => (WWW_AUTHENTICATE, "Bearer"),
        _ => return,
    };
    headers.insert(header.0, HeaderValue::from_static(header.1));
}

/// Returns the challenge of RFC 6750, section 3. A scope prefix contains only characters that are allowed in a quoted
/// string.
fn insufficient(scope: Scope, scopes: &ScopeMapping) -> Option<HeaderValue> {
    HeaderValue::try_from(format!(r#"Bearer error="insufficient_scope", scope="{}""#, scopes.scope_name(scope))).ok()
}

/// Returns the root of the request's trace (X-Ray's `Root=1-<8 hex>-<24 hex>`), from the Lambda context or else from
/// API Gateway's header. A client can send this header itself, so a value of another form is not logged.
fn trace_id(request: &Request) -> Option<String> {
    let of_lambda = request.extensions().get::<InvocationIds>().and_then(|ids| ids.trace.as_deref());
    let of_header = || request.headers().get("x-amzn-trace-id")?.to_str().ok();
    let root = of_lambda.or_else(of_header)?.split(';').find_map(|part| part.trim().strip_prefix("Root="))?;
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (time, unique) = root.strip_prefix("1-")?.split_once('-')?;
    (is_hex(time, 8) && is_hex(unique, 24)).then(|| root.to_owned())
}

/// The log entry and the metrics of a request.
struct RequestLog<'a> {
    route: &'a str,
    status: u16,
    duration_ms: f64,
    capacity_units: f64,
    request_id: &'a str,
    trace_id: &'a str,
}

impl RequestLog<'_> {
    fn record(&self, problem: Option<&Problem>) {
        let Self { route, status, duration_ms, capacity_units, request_id, trace_id } = *self;
        let status_class = match status {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        metric::REQUESTS.increment([route, status_class], 1);
        metric::REQUEST_DURATION.record([route], duration_ms);
        if let Some((problem, error)) = problem.and_then(|problem| Some((problem, problem.cause()?))) {
            tracing::error!(
                http.route = route,
                http.status = status,
                duration_ms,
                capacity_units,
                request_id,
                trace_id,
                error.kind = problem.kind(),
                error,
                "request failed"
            );
        } else {
            tracing::info!(
                http.route = route,
                http.status = status,
                duration_ms,
                capacity_units,
                request_id,
                trace_id,
                "request"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_a_trace_s_root_is_taken_for_one() {
        let root = "1-6b02a0c0-0123456789abcdef01234567";
        let of = |header: &str| {
            let request = Request::builder().header("x-amzn-trace-id", header).body(Body::empty()).unwrap();
            trace_id(&request)
        };
        for header in [format!("Root={root}"), format!("Self=1-2-3;Root={root};Parent=53995c3f42cd8ad8;Sampled=1")] {
            assert_eq!(of(&header).as_deref(), Some(root), "{header}");
        }
        for header in
            ["", root, "Root=ada@example.com", "Root=1-6b02a0c0-ada", "Root=1-6b02a0c0-0123456789abcdef0123456z"]
        {
            assert_eq!(of(header), None, "{header}");
        }
    }
}
