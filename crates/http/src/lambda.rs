//! Runs a router as a Lambda function: [`serve`].
//!
//! `lambda_http` parses a payload's path as a URL, although API Gateway has already decoded it: a `#` would truncate
//! it, `..` would be resolved, `%` would be decoded again, and some characters cause a panic. Therefore path and query
//! are removed from the payload before ([`request`]) and converted to the request's URI by [`crate::uri`].

use std::convert::Infallible;

use axum::Router;
use axum::http::header::HOST;
use axum::http::{HeaderValue, Uri};
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::{Adapter, Error, LambdaEvent, Request, Service as _, service_fn};
use millrace_shared::clock::Clock;
use millrace_shared::http::path::{PathError, RequestPath};
use millrace_shared::runtime::{request_budget, run_events};
use millrace_shared::telemetry::Telemetry;
use time::OffsetDateTime;
use tokio::time::Instant;
use tower::ServiceExt;

/// Handles the requests of API Gateway, one at a time, until Lambda ends the process. Metrics are flushed with each
/// response.
///
/// # Errors
/// The Runtime API cannot be reached.
pub async fn serve(app: Router, telemetry: Telemetry) -> Result<(), Error> {
    let clock = Clock::system();
    run_events(telemetry, async |event: LambdaEvent<LambdaRequest>| answer(app.clone(), clock.now(), event).await).await
}

/// Returns the router's response to a payload at the time `now`, in the form that Lambda expects.
///
/// # Errors
/// None: an error of the router is a response.
pub async fn answer(
    app: Router,
    now: OffsetDateTime,
    LambdaEvent { mut payload, context }: LambdaEvent<LambdaRequest>,
) -> Result<impl serde::Serialize, Infallible> {
    let budget = request_budget(Instant::now(), context.deadline().into(), now);
    let taken = OriginalUri::from_payload(&mut payload);
    let router = service_fn(move |mut request: Request| {
        taken.clone().put_back(&mut request);
        request.extensions_mut().insert(budget);
        app.clone().oneshot(request)
    });
    Adapter::from(router).call(LambdaEvent { payload, context }).await
}

/// Converts a payload to a request.
#[must_use]
pub fn request(mut payload: LambdaRequest) -> Request {
    let taken = OriginalUri::from_payload(&mut payload);
    let mut request = Request::from(payload);
    taken.put_back(&mut request);
    request
}

/// The values that `lambda_http` would parse as a URL: removed from a payload and restored in its request.
#[derive(Clone, Default)]
struct OriginalUri {
    uri: Option<Result<Uri, PathError>>,
    host: Option<HeaderValue>,
    domain_name: Option<String>,
}

impl OriginalUri {
    fn from_payload(payload: &mut LambdaRequest) -> Self {
        let LambdaRequest::ApiGatewayV2(event) = payload else { return Self::default() };
        let path = event.raw_path.replace("/".to_owned());
        let query = event.raw_query_string.replace(String::new());
        let path = RequestPath::from_decoded(path.as_deref().unwrap_or_default());
        Self {
            uri: Some(path.and_then(|path| crate::uri::uri(&path, query.as_deref()))),
            host: event.headers.remove(HOST),
            domain_name: event.request_context.domain_name.take(),
        }
    }

    fn put_back(self, request: &mut Request) {
        if let Some(uri) = self.uri {
            crate::uri::put(request, uri);
        }
        if let Some(host) = self.host {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(RequestContext::ApiGatewayV2(context)) = request.extensions_mut().get_mut() {
            context.domain_name = self.domain_name;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::identity;
    use std::time::Duration;

    use axum::routing::get;
    use lambda_http::Context;
    use millrace_shared::http::caller::{AuthMode, ScopeMapping};
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;
    use crate::auth::AuthLayer;
    use crate::base_path::BasePath;
    use crate::route::{READ, resource, with_middleware};

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

    /// Returns the response to `GET` on a path, from a function with this remaining time.
    async fn answered(path: &str, time: Duration) -> Value {
        let auth_layer = AuthLayer {
            auth: AuthMode::None,
            scopes: ScopeMapping::default(),
            clock: Clock::fixed(NOW),
            required_scope: |_, _| None,
        };
        let routes = Router::new()
            .route("/users/{user_id}", resource(get(|uri: Uri| async move { uri.to_string() }), READ))
            .route("/users/{user_id}/latest", resource(get(std::future::pending::<String>), READ));
        let payload = json!({
            "version": "2.0", "rawPath": path, "rawQueryString": "a=b+c%2B", "headers": {"host": "api.example.com"},
            "requestContext": {"domainName": "api.example.com", "stage": "$default", "timeEpoch": 0, "http": {
                "method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": ""}},
            "isBase64Encoded": false,
        });
        let mut context = Context::default();
        context.deadline = u64::try_from((NOW + time).unix_timestamp_nanos() / 1_000_000).unwrap();
        let event = LambdaEvent { payload: serde_json::from_value(payload).unwrap(), context };
        serde_json::to_value(
            answer(with_middleware(auth_layer, BasePath::default(), identity, routes, ()), NOW, event).await.unwrap(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_payload_s_path_and_query_reach_the_route_as_they_are() {
        let answer = answered("/users/auth0|ada", Duration::from_secs(10)).await;
        assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("/users/auth0%7Cada?a=b+c%2B")));
        for path in ["/users/r1#0", "/users/./r1", "/users/r1/..", "/users\\r1", "/users/r\t1", "/users/%31"] {
            let refused = answered(path, Duration::from_secs(10)).await;
            assert_eq!(refused["statusCode"], 400, "{path:?}: {refused}");
            assert!(refused["body"].as_str().unwrap().contains("urn:millrace:problem:invalid-path"), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_answered_before_lambda_ends_it() {
        for seconds in [10, 3, 1] {
            let (started, time) = (Instant::now(), Duration::from_secs(seconds));
            let late = answered("/users/ada/latest", time).await;
            assert_eq!(late["statusCode"], 503, "{late}");
            assert_eq!(late["headers"]["retry-after"], "1", "{late}");
            let took = started.elapsed();
            assert!(took < time && took >= time / 2, "{seconds} s: {took:?}");
        }
    }
}
