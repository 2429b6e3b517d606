//! Responses that are decided before any table call: the table client here has no reachable endpoint.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use millrace_shared::clock::Clock;
use millrace_shared::http::caller::{AuthMode, ScopeMapping};
use millrace_shared::http::cursor_seal::SealKeys;
use millrace_shared::table::UserTable;
use proptest::prelude::*;
use serde_json::Value;
use time::macros::datetime;
use tower::ServiceExt;

use super::*;

fn app() -> Router {
    app_with(AuthMode::None, Clock::fixed(datetime!(2026-11-22 10:00 UTC)))
}

/// Returns the API with a table client that has no reachable endpoint.
pub(super) fn app_with(auth: AuthMode, clock: Clock) -> Router {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("none", "none", None, None, "test"))
        .endpoint_url("http://127.0.0.1:9")
        .retry_config(aws_sdk_dynamodb::config::retry::RetryConfig::disabled())
        .build();
    let table = UserTable::new(aws_sdk_dynamodb::Client::from_conf(config), "Users".into(), "EmailIndex".into());
    let keys = SealKeys::parse("test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    let scopes = ScopeMapping::default();
    let deployment = ContractDeployment { auth, scopes: scopes.clone(), has_relational: false };
    let users = AppState::new(table, clock.clone(), keys);
    routes(users, AuthLayer { auth, scopes, clock, required_scope }, &BasePath::default(), deployment, None)
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

async fn respond(request: Request) -> (StatusCode, http::HeaderMap, Value) {
    let response = app().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    (parts.status, parts.headers, json)
}

async fn bare(method: &str, path: &str) -> (StatusCode, http::HeaderMap, Value) {
    respond(request(method, path).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn health_needs_no_table() {
    let (status, headers, json) = bare("GET", "/health").await;
    assert_eq!((status, json["status"].as_str()), (StatusCode::OK, Some("ok")));
    assert_eq!(headers["cache-control"], "no-store");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("OPTIONS", "/users", 204),
        ("GET", "/users/ada/x", 400),
        ("GET", "/nowhere", 404),
        ("DELETE", "/users", 405),
        ("POST", "/users", 415),
        ("GET", "/users/ada/7", 503),
    ] {
        let (answered, headers, _) = bare(method, path).await;
        assert_eq!(answered, status, "{method} {path}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("referrer-policy", "no-referrer"),
            ("strict-transport-security", "max-age=63072000; includeSubDomains"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(headers[name], value, "{method} {path}");
        }
        assert!(headers.contains_key("x-request-id"), "{method} {path}");
    }
}

#[tokio::test]
async fn an_unknown_route_is_a_problem_with_the_request_s_id() {
    for path in ["/", "/user", "/users/", "/users/ada/7/x", "/openapi.yaml", "/docs"] {
        let (status, headers, json) = bare("GET", path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(json["type"], "urn:millrace:problem:unknown-route");
        assert_eq!(json["status"], 404);
        assert_eq!(json["instance"].as_str().unwrap(), headers["x-request-id"]);
    }
}

#[tokio::test]
async fn every_method_is_either_allowed_or_refused_with_those_that_are() {
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];
    for (path, allow) in [
        ("/health", READ),
        ("/openapi.json", READ),
        ("/users", COLLECTION),
        ("/users:batchGet", ACTION),
        ("/users/ada", READ),
        ("/users/ada/latest", READ),
        ("/users/ada/7", RECORD),
    ] {
        let (status, headers, _) = bare("OPTIONS", path).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (StatusCode::NO_CONTENT, allow), "{path}");
        let patches = headers.get("accept-patch").map(|types| types.to_str().unwrap());
        assert_eq!(patches, allow.contains("PATCH").then_some("application/merge-patch+json"), "{path}");
        for method in methods {
            let (status, headers, _) = bare(method, path).await;
            let allowed = allow.split(", ").any(|allowed| allowed == method);
            assert_eq!(status != StatusCode::METHOD_NOT_ALLOWED, allowed, "{method} {path}");
            if !allowed {
                assert_eq!(headers["allow"], allow, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn served_contract_lists_the_routes_that_answer_and_no_others() {
    let (status, _, contract) = bare("GET", "/openapi.json").await;
    assert_eq!(status, StatusCode::OK);
    let paths = contract["paths"].as_object().unwrap();
    for (path, methods) in paths {
        let (status, headers, _) = bare("OPTIONS", &path.replace(['{', '}'], "")).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{path}");
        let allowed =
            headers["allow"].to_str().unwrap().split(", ").filter(|method| !["HEAD", "OPTIONS"].contains(method));
        let allowed: BTreeSet<String> = allowed.map(str::to_ascii_lowercase).collect();
        assert_eq!(allowed, methods.as_object().unwrap().keys().cloned().collect(), "{path}");
    }
    assert_eq!(paths.len(), 7);
    for path in SEARCH_PATHS {
        assert!(!paths.contains_key(path), "{path}");
        for method in ["GET", "HEAD", "POST", "OPTIONS"] {
            let (status, _, problem) = bare(method, &path.replace(['{', '}'], "")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
            let is_told = method == "HEAD" || problem["type"] == "urn:millrace:problem:relational-tier-off";
            assert!(is_told, "{method} {path}: {problem}");
        }
    }
}

#[tokio::test]
async fn unreachable_table_returns_503_with_retry_after() {
    let (status, headers, json) = bare("GET", "/users/ada/7").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(json["type"], "urn:millrace:problem:service-unavailable");
    assert!(!json.to_string().contains("127.0.0.1"), "the cause is only in the log: {json}");
}

#[tokio::test]
async fn a_key_that_cannot_be_is_refused_by_its_parts() {
    let (status, _, json) = bare("GET", &format!("/users/{}/007", "a".repeat(129))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(json["errors"][0]["parameter"], "user_id");
    assert_eq!(json["errors"][1]["parameter"], "timestamp");
    assert_eq!(bare("GET", "/users/a/1700000000000").await.0, StatusCode::BAD_REQUEST);
    for path in ["/users/%ff/7", "/users/a%2Fb", "/users/a%00", "/users/a%20b/7", "/users//7", "/users/a/%2e%2e"] {
        let (status, _, json) = bare("GET", path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(json["type"], "urn:millrace:problem:invalid-path", "{path}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_is_refused_before_anything_is_listed() {
    for (path, parameter) in [
        ("/users?emial=a@b.cd", "emial"),
        ("/users?email=nobody", "email"),
        ("/users?limit=0", "limit"),
        ("/users?limit=5&limit=6", "limit"),
        ("/users?cursor=AAAA", "cursor"),
        ("/users/ada?from=9&to=8", "from"),
        ("/users/ada?to=x", "to"),
        ("/users/ada?order=up", "order"),
        ("/users/ada?segment=0", "segment"),
        ("/users/ada?fields=nmae", "fields"),
        ("/users/ada/7?fields=", "fields"),
        ("/users/ada/7?limit=1", "limit"),
        ("/users/ada/latest?from=1", "from"),
        ("/users?order=asc", "order"),
        ("/users?segment=0", "segments"),
        ("/users?segments=2", "segment"),
        ("/users?segment=2&segments=2", "segment"),
        ("/users?segment=0&segments=0", "segments"),
        ("/users?segment=0&segments=1001", "segments"),
        ("/users?email=a@b.cd&segment=0&segments=2", "segment"),
        ("/users/ada?email=a@b.cd", "email"),
    ] {
        let (status, _, json) = bare("GET", path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(json["errors"][0]["parameter"], parameter, "{path}: {json}");
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused_with_the_type_to_send() {
    for (method, path, types) in [
        ("POST", "/users", ["text/plain", "application/merge-patch+json"]),
        ("PUT", "/users/ada/7", ["application/xml", "application/jsonx"]),
        ("PATCH", "/users/ada/7", ["application/json", "application/json-patch+json"]),
    ] {
        for content_type in types {
            let typed = request(method, path).header("content-type", content_type);
            let (status, headers, json) = respond(typed.body(Body::from("{}")).unwrap()).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} {content_type}");
            assert_eq!(headers.contains_key("accept-patch"), method == "PATCH");
            assert_eq!(json["type"], "urn:millrace:problem:unsupported-media-type");
            let expected = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            assert!(json["detail"].as_str().unwrap().ends_with(&format!("expected {expected}")), "{json}");
        }
        assert_eq!(bare(method, path).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} without a type");
    }
    let encoded =
        request("POST", "/users").header("content-type", "application/json").header("content-encoding", "gzip");
    let (status, headers, json) = respond(encoded.body(Body::from("x")).unwrap()).await;
    assert_eq!(json["type"], "urn:millrace:problem:unsupported-content-encoding");
    assert_eq!(
        (status, headers["accept-encoding"].to_str().unwrap()),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "identity")
    );
}

#[tokio::test]
async fn oversized_body_is_rejected_with_or_without_content_length() {
    let large = vec![b' '; millrace_http::problem::MAX_BODY_BYTES + 1];
    let json = || request("POST", "/users").header("content-type", "application/json; charset=utf-8");
    let announced = json().header("content-length", large.len()).body(Body::from(large.clone())).unwrap();
    assert_eq!(respond(announced).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let silent = json().body(Body::from(large)).unwrap();
    assert_eq!(respond(silent).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_place() {
    let body = "{\n  \"name\": \"Ada\",\n  \"email\" \"x\"\n}";
    let request = request("POST", "/users").header("content-type", "application/json").body(Body::from(body)).unwrap();
    let (status, _, json) = respond(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((json["line"].as_u64(), json["column"].as_u64()), (Some(3), Some(11)), "{json}");
    assert!(json["detail"].as_str().unwrap().contains("line 3, column 11"));
}

#[tokio::test]
async fn a_header_that_is_no_list_of_tags_is_refused() {
    let tagged = request("DELETE", "/users/ada/7").header("if-match", "7").body(Body::empty()).unwrap();
    let (status, _, json) = respond(tagged).await;
    assert_eq!((status, json["errors"][0]["header"].as_str()), (StatusCode::BAD_REQUEST, Some("if-match")));
}

/// The method, path, headers and body of a request.
type RawResponse = (String, String, Vec<(String, Vec<u8>)>, Vec<u8>);

/// Any request that a client can send.
fn any_request() -> impl Strategy<Value = RawResponse> {
    let methods =
        proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"]);
    let part = "([a-zA-Z0-9._~:|@+-]|%[0-9a-f]{2}){0,12}";
    let query = "((limit|cursor|email|from|to|order|fields|segment|segments|[a-z%]{0,3})=([a-z0-9._@+,-]|%[0-9a-f]{2}){0,9}&?){0,3}";
    let path = prop_oneof![
        (part, part, query).prop_map(|(id, second, query)| format!("/users/{id}/{second}?{query}")),
        (part, query).prop_map(|(id, query)| format!("/users/{id}?{query}")),
        (0_i64..20_000_000_000, query).prop_map(|(second, query)| format!("/users/ada/{second}?{query}")),
        query.prop_map(|query| format!("/users?{query}")),
        Just("/users:batchGet".to_owned()),
        Just("/users".to_owned()),
        Just("/users/ada/latest".to_owned()),
        part.prop_map(|path| format!("/{path}")),
    ];
    let name = proptest::sample::select(vec![
        "if-match",
        "if-none-match",
        "idempotency-key",
        "content-encoding",
        "content-length",
        "accept",
        "x-amzn-trace-id",
    ]);
    let headers =
        proptest::collection::vec((name.prop_map(str::to_owned), proptest::collection::vec(any::<u8>(), 0..30)), 0..3);
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(br#"{"name":"Ada"}"#.to_vec()),
        Just(br#"{"keys":[{"user_id":"ada","timestamp":7}]}"#.to_vec()),
        Just(br#"{"attributes":{"a":[1e400]}}"#.to_vec()),
    ];
    (methods.prop_map(str::to_owned), path, headers, body)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_request_causes_an_internal_error((method, path, headers, body) in any_request()) {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = request(&method, &path).header("content-type", content_type);
        for (name, value) in &headers {
            if let Ok(value) = http::HeaderValue::from_bytes(value) {
                request = request.header(name, value);
            }
        }
        let Ok(request) = request.body(Body::from(body)) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, headers, json) = runtime.block_on(respond(request));
        // The table is unreachable: a request that gets through to it returns 503.
        prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{} {}: {}", method, path, json);
        if status.is_client_error() && method != "HEAD" {
            prop_assert_eq!(&headers["content-type"], "application/problem+json");
            prop_assert!(!json["detail"].as_str().unwrap().is_empty());
            if status == StatusCode::BAD_REQUEST && json["type"].as_str().unwrap().ends_with("invalid-request") {
                prop_assert!(!json["errors"].as_array().unwrap().is_empty(), "{}", json);
            }
        }
    }
}

/// Returns an API Gateway payload for `GET` with any path that API Gateway may decode.
fn payload(path: &str, query: &str, host: &str, stage: &str) -> String {
    serde_json::json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query,
        "headers": {"host": host, "x-forwarded-proto": "https"}, "isBase64Encoded": false,
        "requestContext": {
            "domainName": host, "stage": stage, "timeEpoch": 0, "routeKey": "$default",
            "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "x"},
        },
    })
    .to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_api_gateway_payload_is_handled_without_an_internal_error(
        path in prop_oneof![any::<String>(), "/users(/|\\.|%2[ef]|[#?\\\\ \t\n%]|[a-z|+@:]|\\PC){0,12}"],
        query in prop_oneof![any::<String>(), "(fields|limit|x)=(%[0-9a-f]{0,2}|[+a-z#&=]|\\PC){0,12}"],
        host in prop_oneof![Just("api.example.com".to_owned()), "[ -~]{0,12}"],
        stage in prop_oneof![Just("$default".to_owned()), "[a-z%#?/ ]{0,6}"],
    ) {
        let text = payload(&path, &query, &host, &stage);
        let request = millrace_http::lambda::request(serde_json::from_str(&text).unwrap());
        let sent = millrace_shared::http::path::RequestPath::from_decoded(&path);
        if let Ok(canonical) = &sent {
            prop_assert_eq!(request.uri().path(), canonical.uri(None));
            prop_assert_eq!(request.uri().query().is_some(), !query.is_empty());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, _, json) = runtime.block_on(respond(request.map(Body::new)));
        prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{}: {}", path, json);
        let is_refused = json["type"] == "urn:millrace:problem:invalid-path";
        prop_assert_eq!(is_refused, sent.is_err(), "{}: {}", path, json);
    }
}
