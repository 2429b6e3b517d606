//! Access by route, method and caller, as one complete table. The table client has no reachable endpoint: a 503 means
//! that the request was authorized and reached the table, and every other response was returned without a table call.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use http_body_util::BodyExt;
use millrace_http::gateway::GatewayContext;
use millrace_shared::clock::Clock;
use millrace_shared::http::caller::AuthMode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;
use tower::ServiceExt;

use super::*;
use crate::router::tests::app_with;

const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

fn app(auth: AuthMode) -> Router {
    app_with(auth, Clock::fixed(NOW))
}

/// Returns the claims of a token with this subject and these scopes.
fn token(subject: &str, scope: &str) -> Value {
    json!({"jwt": {"claims": {"sub": subject, "scope": scope, "iss": "https://issuer.example"}, "scopes": null}})
}

async fn send(app: &Router, method: &str, path: &str, authorizer: &Value) -> (u16, HeaderMap, String) {
    let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = match method {
        "GET" | "HEAD" | "DELETE" | "OPTIONS" => "",
        _ if path == "/users:batchGet" => r#"{"keys":[{"user_id":"ada","timestamp":7}]}"#,
        _ if path == "/users" => r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#,
        _ => r#"{"name":"Ada"}"#,
    };
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    let mut request = request.header("authorization", "Bearer nobody.reads.this").body(Body::from(body)).unwrap();
    if !authorizer.is_null() {
        let context = json!({"stage": "$default", "requestId": "r", "timeEpoch": 0, "authorizer": authorizer, "http": {
            "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"}});
        request.extensions_mut().insert(serde_json::from_value::<GatewayContext>(context).unwrap());
    }
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_table_of_routes_and_callers_holds() {
    let app = app(AuthMode::Jwt);
    let read = "users:read openid";
    let write = "users:write";
    let callers = [
        Value::Null,
        token("ada", ""),
        token("ada", "users:other"),
        token("ada", read),
        token("ada", write),
        token("ada", &format!("{read} {write}")),
        token("eve", &format!("{read} {write}")),
        token("operator", "users:admin"),
    ];
    // Columns: no token; no scope; another scope; ada with read, with write, with both; eve with both; an admin.
    for (method, path, expected) in [
        ("GET", "/health", [200; 8]),
        ("GET", "/openapi.json", [200; 8]),
        ("OPTIONS", "/users/ada/7", [204; 8]),
        ("GET", "/nowhere", [404; 8]),
        ("GET", "/users", [401, 403, 403, 403, 403, 403, 403, 503]),
        ("HEAD", "/users", [401, 403, 403, 403, 403, 403, 403, 503]),
        ("GET", "/users?email=ada@example.com", [401, 403, 403, 403, 403, 403, 403, 503]),
        ("POST", "/users", [401, 403, 403, 403, 503, 503, 403, 503]),
        // Keys of another user are reported as missing without a table read.
        ("POST", "/users:batchGet", [401, 403, 403, 503, 403, 503, 200, 503]),
        ("GET", "/users/ada", [401, 403, 403, 503, 403, 503, 404, 503]),
        ("HEAD", "/users/ada", [401, 403, 403, 503, 403, 503, 404, 503]),
        ("GET", "/users/ada?limit=0", [401, 403, 403, 400, 403, 400, 404, 400]),
        ("GET", "/users/ada/latest", [401, 403, 403, 503, 403, 503, 404, 503]),
        ("GET", "/users/ada/7", [401, 403, 403, 503, 403, 503, 404, 503]),
        ("HEAD", "/users/ada/7", [401, 403, 403, 503, 403, 503, 404, 503]),
        ("PUT", "/users/ada/7", [401, 403, 403, 403, 503, 503, 404, 503]),
        ("PATCH", "/users/ada/7", [401, 403, 403, 403, 503, 503, 404, 503]),
        ("DELETE", "/users/ada/7", [401, 403, 403, 403, 503, 503, 404, 503]),
        ("TRACE", "/users/ada/7", [401, 403, 403, 403, 403, 403, 403, 405]),
        ("POST", "/users/ada", [401, 403, 403, 403, 403, 403, 403, 405]),
    ] {
        for (caller, expected) in callers.iter().zip(expected) {
            let (status, headers, body) = send(&app, method, path, caller).await;
            assert_eq!(status, expected, "{method} {path} by {caller}: {body}");
            let challenge = headers.get("www-authenticate").map(|value| value.to_str().unwrap());
            match (status, path) {
                (401, _) => assert_eq!(challenge, Some("Bearer")),
                (403, "/users") if method == "POST" && caller["jwt"]["claims"]["sub"] == "eve" => {
                    assert!(body.contains(r#""pointer":"/user_id""#), "{body}");
                }
                (403, _) => {
                    let challenge = challenge.unwrap();
                    assert!(
                        challenge.starts_with("Bearer error=\"insufficient_scope\", scope=\"users:"),
                        "{challenge}"
                    );
                }
                _ => assert_eq!(challenge, None, "{method} {path}"),
            }
        }
    }
}

#[tokio::test]
async fn signed_requests_may_do_everything_and_unsigned_ones_nothing() {
    let app = app(AuthMode::Iam);
    let signed = json!({"iam": {"accessKey": "A", "accountId": "1", "callerId": "AROAEXAMPLE:session", "userArn": "arn",
        "cognitoIdentity": null, "principalOrgId": null, "userId": "AROAEXAMPLE:session"}});
    for (authorizer, expected) in
        [(signed, 503), (Value::Null, 401), (token("ada", "users:admin"), 401), (json!({"iam": {"callerId": ""}}), 401)]
    {
        for (method, path) in [("GET", "/users"), ("POST", "/users"), ("DELETE", "/users/ada/7")] {
            let (status, headers, _) = send(&app, method, path, &authorizer).await;
            assert_eq!(status, expected, "{method} {path} by {authorizer}");
            assert_eq!(headers.get("www-authenticate").is_some(), status == 401);
        }
    }
}

#[tokio::test]
async fn a_token_that_names_no_user_or_is_past_its_time_is_no_token() {
    let app = app(AuthMode::Jwt);
    for claims in [
        json!({"scope": "users:admin"}),
        json!({"sub": "", "scope": "users:admin"}),
        json!({"sub": "ada", "scope": "users:admin", "exp": NOW.unix_timestamp().to_string()}),
    ] {
        let (status, ..) = send(&app, "GET", "/users/ada/7", &json!({"jwt": {"claims": claims}})).await;
        assert_eq!(status, 401, "{claims}");
    }
}

#[test]
fn a_route_without_a_line_needs_the_widest_scope() {
    assert_eq!(required_scope("/users/{user_id}/export", &Method::GET), Some(Scope::Admin));
    assert_eq!(required_scope("/users/{user_id}/{timestamp}", &Method::CONNECT), Some(Scope::Admin));
}
