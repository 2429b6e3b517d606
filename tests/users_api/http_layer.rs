//! The router behind a socket, as the local stack serves it.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use millrace_local::stack::{LocalStack, StackOptions};

#[tokio::test]
async fn the_stack_serves_the_api_over_http() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let send = async |method: &str, path: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(format!("{}{path}", stack.api_url()));
        let request = request.header("content-type", "application/json").body(Full::from(body)).unwrap();
        let (parts, body) = client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts, String::from_utf8(body.to_vec()).unwrap())
    };
    let (created, text) = send("POST", "/users", r#"{"user_id":"auth0|ada","name":"Ada"}"#).await;
    assert_eq!(created.status, 201, "{text}");
    let location = created.headers["location"].to_str().unwrap();
    let (read, text) = send("GET", location, "").await;
    assert_eq!(read.status, 200, "{text}");
    assert_eq!(read.headers["etag"], created.headers["etag"]);
    let stored = stack.dynamodb().scan().table_name("Users").send().await.unwrap();
    assert_eq!(stored.items()[0]["name"].as_s().unwrap(), "Ada");
    let (refused, text) = send("DELETE", "/users", "").await;
    assert_eq!(
        (refused.status.as_u16(), refused.headers["allow"].to_str().unwrap()),
        (405, "GET, HEAD, POST, OPTIONS")
    );
    assert!(text.contains("urn:millrace:problem:method-not-allowed"), "{text}");
    let (page, text) = send("GET", "/docs/", "").await;
    assert_eq!(page.status, 200, "{text}");
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        let (served, script) = send("GET", &format!("/docs/{file}"), "").await;
        assert!(served.status == 200 && text.contains(file), "{file}: the renderer comes with the program");
        assert!(file != "swagger-initializer.js" || script.contains("/openapi.json"), "{script}");
    }
    let (contract, text) = send("GET", "/openapi.json", "").await;
    assert!(contract.status == 200 && text.contains("\"openapi\": \"3.1"), "{text}");
    stack.stop().await;
}
