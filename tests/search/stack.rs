//! End to end: written through the API, streamed, replicated, and found.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::tier::TierServer;
use millrace_local::token::LocalAuth;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn user_written_by_the_api_is_searchable_only_by_authorized_callers() {
    let options = StackOptions { auth: LocalAuth::Jwt(None), postgres: TierServer::Auto, ..StackOptions::default() };
    let stack = LocalStack::start(options).await.unwrap_or_else(|refusal| panic!("{refusal}"));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let send = async |method: &str, path: &str, token: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(format!("{}{path}", stack.api_url()));
        let request =
            request.header("content-type", "application/json").header("authorization", format!("Bearer {token}"));
        let (parts, body) = client.request(request.body(Full::from(body)).unwrap()).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), serde_json::from_slice::<Value>(&text).unwrap_or_default())
    };
    let ada = stack.token("ada", "users:read users:write").unwrap();
    let admin = stack.token("operator", "users:admin").unwrap();
    assert_eq!(send("POST", "/users", &ada, r#"{"timestamp":7,"name":"Ada","status":"active"}"#).await.0, 201);
    stack.wait_until_drained().await;
    let (status, found) = send("GET", "/search/users?status=active", &admin, "").await;
    assert_eq!((status, found["users"][0]["user_id"].as_str()), (200, Some("ada")), "{found}");
    let (status, read) = send("GET", "/users/ada/7", &ada, "").await;
    assert_eq!((status, &read["user"]), (200, &found["users"][0]), "search tells a record as the api does");
    let (status, summary) = send("GET", "/users/ada/summary", &ada, "").await;
    assert_eq!((status, summary["records"].as_u64()), (200, Some(1)), "{summary}");
    assert_eq!(send("GET", "/stats/users", &admin, "").await.1["records"], 1);
    for (path, token, status) in [
        ("/search/users", &ada, 403),
        ("/stats/users", &ada, 403),
        ("/users/eve/summary", &ada, 404),
        ("/search/users", &String::new(), 401),
    ] {
        assert_eq!(send("GET", path, token, "").await.0, status, "{path}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tier_there_is_no_search() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    assert!(stack.postgres_url().is_none());
    assert!(stack.template().functions.iter().all(|function| function.name != "search"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_server_is_rejected_if_the_data_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        StackOptions { data: Some(folder.path().to_owned()), postgres: TierServer::Auto, ..StackOptions::default() };
    let refusal = LocalStack::start(options).await.err().unwrap().to_string();
    assert!(refusal.contains("--postgres") && refusal.lines().count() == 1, "{refusal}");
}
