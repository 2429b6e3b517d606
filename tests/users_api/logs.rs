//! Log lines of requests: one line each, with ids and numbers, and without personal data.

use serde_json::Value;

use super::service::{ApiHandle, JSON, MERGE, UsersService, config};
use crate::log_capture::logged;

/// Personal data of the requests; none of it may be in a log.
const PERSONAL: [&str; 6] =
    ["Grace Hopper", "grace.hopper@example.com", "on-parental-leave", "blood-group-o", "diagnosis", "secret-cursor"];

/// Sends requests to every route, with success and with every kind of error, each with personal data; returns their
/// number.
async fn everything(api: &ApiHandle, elsewhere: &ApiHandle) -> usize {
    let user = r#"{"user_id":"grace","timestamp":7,"name":"Grace Hopper","email":"grace.hopper@example.com",
        "status":"on-parental-leave","attributes":{"diagnosis":"blood-group-o"}}"#;
    let wrong = r#"{"user_id":"grace","name":"Grace Hopper","email":"grace.hopper@example.com blood-group-o","diagnosis":1,
        "status":["on-parental-leave"],"attributes":{"diagnosis":1e999}}"#;
    let broken = r#"{"name":"Grace Hopper","diagnosis":blood-group-o}"#;
    let keys = r#"{"keys":[{"user_id":"grace","timestamp":7},{"user_id":"Grace Hopper","timestamp":"diagnosis"}]}"#;
    let requests = [
        ("POST", "/users", JSON, user),
        ("POST", "/users", JSON, user),
        ("POST", "/users", JSON, wrong),
        ("POST", "/users", JSON, broken),
        ("POST", "/users", ("content-type", "text/grace.hopper@example.com"), user),
        ("GET", "/users?email=grace.hopper@example.com", JSON, ""),
        ("GET", "/users?email=Grace%20Hopper&diagnosis=blood-group-o", JSON, ""),
        ("GET", "/users?cursor=secret-cursor", JSON, ""),
        ("GET", "/users/grace?order=diagnosis", JSON, ""),
        ("GET", "/users/Grace%20Hopper/7", JSON, ""),
        ("GET", "/users/grace/7", ("if-none-match", "grace.hopper@example.com"), ""),
        ("GET", "/users/grace/7", ("x-amzn-trace-id", "Root=grace.hopper@example.com"), ""),
        ("GET", "/users/grace/latest", JSON, ""),
        ("PUT", "/users/grace/7", JSON, user),
        ("PATCH", "/users/grace/7", MERGE, r#"{"name":"Grace Hopper","attributes":{"diagnosis":null}}"#),
        ("PATCH", "/users/grace/7", MERGE, wrong),
        ("POST", "/users:batchGet", JSON, keys),
        ("DELETE", "/users/grace/8", JSON, ""),
        ("DELETE", "/users", ("x-diagnosis", "blood-group-o"), ""),
        ("GET", "/Grace-Hopper/grace.hopper@example.com", JSON, ""),
        ("GET", "/health", JSON, ""),
    ];
    for api in [api, elsewhere] {
        for (method, path, header, body) in requests {
            api.send(method, path, &[header], body).await;
        }
    }
    2 * requests.len()
}

#[tokio::test]
async fn no_log_line_contains_personal_data() {
    let service = UsersService::start().await;
    // An item of another program, which is invalid because of its values.
    let name = super::service::n(7);
    let email = super::service::s("grace.hopper@example.com");
    service
        .put(&[
            ("user_id", super::service::s("grace")),
            ("timestamp", super::service::n(9)),
            ("name", name),
            ("email", email),
        ])
        .await;
    let elsewhere = ApiHandle(millrace_api::app(
        &config("Elsewhere"),
        service.dynamodb.clone(),
        None,
        millrace_shared::clock::Clock::fixed(super::service::NOW),
    ));
    let mut requests = 0;
    let lines = logged(async { requests = everything(&service.api(), &elsewhere).await }).await;
    assert!(lines.len() >= requests, "each request has its line: {} of {requests}", lines.len());
    for line in &lines {
        for personal in PERSONAL {
            assert!(!line.contains(personal), "{personal} in {line}");
        }
    }
}

#[tokio::test]
async fn a_request_is_one_line_with_its_figures_and_ids() {
    let service = UsersService::start().await;
    let api = service.api();
    let trace = ("x-amzn-trace-id", "Root=1-6b02a0c0-0123456789abcdef01234567;Sampled=1");
    let mut responses = Vec::new();
    let lines = logged(async {
        responses.push(api.send("PUT", "/users/grace/7", &[JSON, trace], r#"{"name":"Grace Hopper"}"#).await);
        responses.push(api.send("GET", "/users/grace/7", &[trace], "").await);
    });
    let mut lines: Vec<Value> = lines.await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A failing cache logs additional lines.
    let is_cache =
        |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("millrace_api::cache"));
    lines.retain(|line| !is_cache(line));
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, (response, status)) in lines.iter().zip(responses.iter().zip([201, 200])) {
        assert_eq!(line["http.route"], "/users/{user_id}/{timestamp}");
        assert_eq!(line["http.status"], status);
        assert_eq!(line["request_id"], response.header("x-request-id"));
        assert_eq!(line["trace_id"], "1-6b02a0c0-0123456789abcdef01234567");
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["capacity_units"].as_f64().unwrap() > 0.0, "{line}");
    }
}
