//! Runs a router as a Lambda function: [`serve`].

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use millrace_shared::clock::Clock;
use millrace_shared::runtime::{InvocationContext, ServeError, diagnostic, request_budget, run_requests};
use millrace_shared::telemetry::Telemetry;
use time::OffsetDateTime;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::gateway::{GatewayEvent, GatewayResponse, InvocationIds};

/// Handles the requests of API Gateway, one at a time, until Lambda ends the process. Metrics are flushed with each
/// response.
///
/// # Errors
/// The Runtime API cannot be reached.
pub async fn serve(app: Router, telemetry: Telemetry) -> Result<(), ServeError> {
    let clock = Clock::system();
    run_requests(telemetry, async |payload, context| {
        let event: GatewayEvent =
            serde_json::from_slice(payload).map_err(|error| diagnostic("InvalidEvent", &error))?;
        respond(app.clone(), clock.now(), event, context).await.map_err(|error| diagnostic("InvalidResponse", &error))
    })
    .await
}

/// Returns the router's response to an event at the time `now`.
///
/// # Errors
/// The body of the response cannot be read, which does not happen with the responses of this crate.
pub async fn respond(
    app: Router,
    now: OffsetDateTime,
    event: GatewayEvent,
    context: InvocationContext,
) -> Result<GatewayResponse, axum::Error> {
    let budget = request_budget(Instant::now(), context.deadline, now);
    let mut request = event.into_request();
    let extensions = request.extensions_mut();
    extensions.insert(budget);
    extensions.insert(InvocationIds { request_id: context.request_id, trace: context.trace });
    let Ok(response) = app.oneshot(request).await;
    let (parts, body) = response.into_parts();
    Ok(GatewayResponse::new(parts, to_bytes(body, usize::MAX).await?))
}

/// Converts an event to a request.
#[must_use]
pub fn request(event: GatewayEvent) -> Request {
    event.into_request()
}

#[cfg(test)]
mod tests {
    use std::convert::identity;
    use std::time::Duration;

    use axum::http::Uri;
    use axum::routing::get;
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
        let context = InvocationContext { request_id: "r".to_owned(), trace: None, deadline: NOW + time };
        let app = with_middleware(auth_layer, BasePath::default(), identity, routes, ());
        let answered = respond(app, NOW, serde_json::from_value(payload).unwrap(), context).await.unwrap();
        serde_json::to_value(&answered).unwrap()
    }

    #[tokio::test]
    async fn a_payload_s_path_and_query_reach_the_route_as_they_are() {
        let response = answered("/users/auth0|ada", Duration::from_secs(10)).await;
        assert_eq!((&response["statusCode"], &response["body"]), (&json!(200), &json!("/users/auth0%7Cada?a=b+c%2B")));
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
