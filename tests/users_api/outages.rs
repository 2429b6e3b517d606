//! A table that is throttled or unavailable results in a 503 with `Retry-After` for every request, never in a 500.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use millrace_local::clients;
use millrace_shared::clock::Clock;
use tokio::time::Instant;

use super::service::{ApiHandle, JSON, MERGE, NOW, UsersService, config, config_with};
use crate::faults::proxy::{self, HttpFault};

/// `(operation, method, path, content type, body)`
type OutageRequest = (&'static str, &'static str, &'static str, (&'static str, &'static str), &'static str);

/// Every request that calls the table, with its first call.
const REQUESTS: [OutageRequest; 10] = [
    ("PutItem", "POST", "/users", JSON, r#"{"name":"Ada"}"#),
    ("Scan", "GET", "/users", JSON, ""),
    ("Query", "GET", "/users?email=ada@example.com", JSON, ""),
    ("Query", "GET", "/users/ada", JSON, ""),
    ("Query", "GET", "/users/ada/latest", JSON, ""),
    ("GetItem", "GET", "/users/ada/7", JSON, ""),
    ("UpdateItem", "PUT", "/users/ada/7", JSON, r#"{"name":"Ada"}"#),
    ("UpdateItem", "PATCH", "/users/ada/7", MERGE, r#"{"name":"Ada"}"#),
    ("GetItem", "PATCH", "/users/ada/7", MERGE, r#"{"attributes":{"a":1}}"#),
    ("DeleteItem", "DELETE", "/users/ada/7", JSON, ""),
];

/// The API, whose every call to the table meets this fault.
async fn troubled(service: &UsersService, operation: &'static str, mishap: HttpFault) -> ApiHandle {
    let url = proxy::before(service.endpoint(), move |call| {
        assert_eq!(call.operation, operation);
        mishap
    });
    let retries = RetryConfig::disabled();
    let client = clients::dynamodb(&url.await).config().to_builder().retry_config(retries).build();
    ApiHandle(millrace_api::app(&config("Users"), aws_sdk_dynamodb::Client::from_conf(client), None, Clock::fixed(NOW)))
}

#[tokio::test]
async fn throttling_and_outages_are_busy_and_never_an_internal_error() {
    let service = UsersService::start().await;
    for mishap in [
        HttpFault::Error(400, "ProvisionedThroughputExceededException"),
        HttpFault::Error(400, "ThrottlingException"),
        HttpFault::Error(400, "RequestLimitExceeded"),
        HttpFault::Error(500, "InternalServerError"),
        HttpFault::Error(503, "ServiceUnavailable"),
        HttpFault::ResponseLost,
    ] {
        for (operation, method, path, content_type, body) in REQUESTS {
            let api = troubled(&service, operation, mishap).await;
            let response = api.send(method, path, &[content_type], body).await;
            assert_eq!(
                (response.status, response.problem()),
                (503, "service-unavailable"),
                "{method} {path} with {mishap:?}"
            );
            assert_eq!(response.header("retry-after"), "1", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_table_that_denies_access_is_an_operator_s_matter() {
    let service = UsersService::start().await;
    for (operation, method, path, content_type, body) in REQUESTS {
        let api = troubled(&service, operation, HttpFault::Error(400, "AccessDeniedException")).await;
        let response = api.send(method, path, &[content_type], body).await;
        assert_eq!((response.status, response.problem()), (500, "internal"), "{method} {path}");
        assert!(!response.text.contains("AccessDenied"), "{}", response.text);
    }
}

#[tokio::test]
async fn common_requests_make_one_table_call() {
    let service = UsersService::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let url = proxy::before(service.endpoint(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        HttpFault::None
    });
    let api = ApiHandle(millrace_api::app(&config("Users"), clients::dynamodb(&url.await), None, Clock::fixed(NOW)));
    for (method, path, content_type, body, status) in [
        ("POST", "/users", JSON, r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#, 201),
        ("POST", "/users", JSON, r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#, 409),
        ("GET", "/users/ada/7", JSON, "", 200),
        ("GET", "/users/ada/latest", JSON, "", 200),
        ("GET", "/users/ada", JSON, "", 200),
        ("GET", "/users?email=ada@example.com", JSON, "", 200),
        ("GET", "/users", JSON, "", 200),
        ("POST", "/users:batchGet", JSON, r#"{"keys":[{"user_id":"ada","timestamp":7}]}"#, 200),
        ("PUT", "/users/ada/7", JSON, r#"{"name":"Ada King"}"#, 200),
        ("PUT", "/users/ada/8", JSON, r#"{"name":"Ada King"}"#, 201),
        ("PATCH", "/users/ada/7", MERGE, r#"{"name":"Ada"}"#, 200),
        ("DELETE", "/users/ada/7", JSON, "", 204),
        ("DELETE", "/users/ada/7", JSON, "", 404),
    ] {
        calls.store(0, Ordering::Relaxed);
        let response = api.send(method, path, &[content_type], body).await;
        assert_eq!((response.status, calls.load(Ordering::Relaxed)), (status, 1), "{method} {path}: {}", response.text);
    }
}

#[tokio::test]
async fn a_table_that_is_silent_is_busy_before_the_function_s_time_is_up() {
    let service = UsersService::start().await;
    let time = Duration::from_secs(2);
    let url = proxy::before(service.endpoint(), |_| HttpFault::Silence).await;
    let more = [("IDEMPOTENCY_TABLE", "Idempotency"), ("UNIQUE_EMAIL", "true"), ("EMAILS_TABLE", "Emails")];
    let api = millrace_api::app(&config_with("Users", &more), clients::dynamodb(&url), None, Clock::fixed(NOW));
    let api = ApiHandle(millrace_http::deadline::within(api, time));
    let keys = r#"{"keys":[{"user_id":"ada","timestamp":7}]}"#;
    let batch = ("BatchGetItem", "POST", "/users:batchGet", JSON, keys);
    let asked = REQUESTS.into_iter().chain([batch]).map(async |(_, method, path, content_type, body)| {
        let started = Instant::now();
        for key in [None, Some(("idempotency-key", "one"))] {
            let headers: Vec<_> = [content_type].into_iter().chain(key).collect();
            let response = api.send(method, path, &headers, body).await;
            assert_eq!((response.status, response.problem()), (503, "service-unavailable"), "{method} {path}");
            assert_eq!(response.header("retry-after"), "1", "{method} {path}");
        }
        // Two requests, each within its own deadline.
        assert!(started.elapsed() < time * 2, "{method} {path}: {:?}", started.elapsed());
    });
    futures::future::join_all(asked).await;
}
