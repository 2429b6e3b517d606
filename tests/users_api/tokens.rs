//! A token end to end: signed, verified as API Gateway does, and its claims checked by the API.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::token::LocalAuth;

#[tokio::test]
async fn a_token_opens_its_own_user_s_records_and_no_other_s() {
    let stack =
        LocalStack::start(StackOptions { auth: LocalAuth::Jwt(None), ..StackOptions::default() }).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let send = async |method: &str, path: &str, token: &str, body: &'static str| {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", stack.api_url()));
        request = request.header("content-type", "application/json").header("x-request", "any");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (parts, body) = client.request(request.body(Full::from(body)).unwrap()).await.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (parts.status.as_u16(), text.split(r#","instance""#).next().unwrap().to_owned())
    };
    let ada = stack.token("ada", "users:read users:write").unwrap();
    let eve = stack.token("eve", "users:read users:write").unwrap();
    let admin = stack.token("operator", "users:admin").unwrap();
    let forged = format!("{}.{}", ada.rsplit_once('.').unwrap().0, eve.rsplit_once('.').unwrap().1);

    let (status, created) = send("POST", "/users", &ada, r#"{"timestamp":7,"name":"Ada"}"#).await;
    assert_eq!(status, 201, "{created}");
    assert!(created.contains(r#""user_id":"ada""#), "the token's subject is the user: {created}");
    for (token, expected) in [(&ada, 200), (&admin, 200), (&eve, 404), (&forged, 401), (&String::new(), 401)] {
        assert_eq!(send("GET", "/users/ada/7", token, "").await.0, expected);
    }
    let foreign = send("GET", "/users/ada/7", &eve, "").await;
    assert_eq!(foreign, send("GET", "/users/ada/8", &ada, "").await, "as if it were not there, to the byte");
    assert_eq!(foreign, send("DELETE", "/users/ada/7", &eve, "").await);
    assert_eq!(send("PUT", "/users/ada/9", &eve, r#"{"name":"Eve"}"#).await.0, 404);
    assert_eq!(send("POST", "/users", &eve, r#"{"user_id":"ada","name":"Eve"}"#).await.0, 403);
    assert_eq!((send("GET", "/users", &ada, "").await.0, send("GET", "/users", &admin, "").await.0), (403, 200));
    let stored = stack.dynamodb().scan().table_name("Users").send().await.unwrap();
    assert_eq!(stored.count(), 1, "nothing of eve's was written");
    stack.stop().await;
}

#[tokio::test]
async fn scopes_are_those_of_the_claim_and_prefix_that_are_chosen() {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for (claim, prefix) in [(Some("permissions"), None), (None, Some("millrace/")), (Some("roles"), Some("api://m/"))] {
        let (scope_claim, scope_prefix) = (claim.map(str::to_owned), prefix.map(str::to_owned));
        let chosen = StackOptions { auth: LocalAuth::Jwt(None), scope_claim, scope_prefix, ..StackOptions::default() };
        let (usual, chosen) = (StackOptions { auth: LocalAuth::Jwt(None), ..StackOptions::default() }, chosen);
        let (usual, chosen) = (LocalStack::start(usual).await.unwrap(), LocalStack::start(chosen).await.unwrap());
        let status = async |stack: &LocalStack, scope: &str| {
            let bearer = format!("Bearer {}", stack.token("ada", scope).unwrap());
            let request = Request::builder().uri(format!("{}/users/ada", stack.api_url()));
            let request = request.header("authorization", bearer).body(Full::default()).unwrap();
            client.request(request).await.unwrap().status().as_u16()
        };
        assert_eq!(status(&chosen, "users:read").await, 200, "{claim:?} {prefix:?}");
        assert_eq!(status(&chosen, "users:write").await, 403, "{claim:?} {prefix:?}");
        assert_eq!(status(&usual, &format!("{}users:read", prefix.unwrap_or("x"))).await, 403);
        usual.stop().await;
        chosen.stop().await;
    }
}
