//! The promises of the API, over HTTP to the booted stack.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::maintenance::scene::Scene;

/// A number that no binary floating point holds.
const EXACT: &str = "12345678901234567890123456789012345678";

async fn send(scene: &Scene, request: http::request::Builder, path: &str, body: String) -> (StatusCode, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = request.uri(format!("{}{path}", scene.stack.api_url())).header("content-type", "application/json");
    let answer = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8(body.to_vec()).unwrap())
}

async fn create(scene: &Scene, mut more: Value) -> Value {
    more["user_id"] = json!("ada");
    more["name"] = json!("Ada Byron");
    more["email"] = json!("ada@example.com");
    let (status, body) = send(scene, Request::builder().method("POST"), "/users", more.to_string()).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["user"].take()
}

fn path(user: &Value) -> String {
    format!("/users/ada/{}", user["timestamp"])
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_09_an_expired_item_is_absent() {
    let scene = Scene::start().await;
    let soon = shared::clock::Clock::system().now().unix_timestamp() + 2;
    let user = create(&scene, json!({"expires_at": soon})).await;
    assert_eq!(send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await.0, StatusCode::OK);
    while shared::clock::Clock::system().now().unix_timestamp() < soon {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await.0,
        StatusCode::NOT_FOUND
    );
    let count = scene.dynamodb.scan().table_name("Users").send().await.unwrap().count;
    assert_eq!(count, 1, "though it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_10_no_update_is_lost() {
    let scene = Scene::start().await;
    let user = create(&scene, json!({})).await;
    let tag = format!("\"{}\"", user["version"]);
    let rename = async |name: &str| {
        let body = json!({"name": name, "email": "ada@example.com"}).to_string();
        send(&scene, Request::builder().method("PUT").header("if-match", &tag), &path(&user), body).await.0
    };
    let statuses = tokio::join!(rename("One"), rename("Other"));
    assert!(
        matches!(
            statuses,
            (StatusCode::OK, StatusCode::PRECONDITION_FAILED) | (StatusCode::PRECONDITION_FAILED, StatusCode::OK)
        ),
        "{statuses:?}"
    );
    let (_, body) = send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await;
    let winner = if statuses.0 == StatusCode::OK { "One" } else { "Other" };
    assert!(body.contains(&format!("\"name\":\"{winner}\"")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_11_no_number_is_rounded() {
    let scene = Scene::start().await;
    let body = format!(
        r#"{{"user_id":"ada","name":"Ada","email":"ada@example.com","attributes":{{"exact":{EXACT},"deep":[{{"small":1.{EXACT}e-90}}]}}}}"#
    );
    let body = body.replace(&format!("1.{EXACT}e-90"), "1.2345678901234567890123456789012345678e-90");
    let (status, answer) = send(&scene, Request::builder().method("POST"), "/users", body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let user = serde_json::from_str::<Value>(&answer).unwrap()["user"].take();
    let (_, read) = send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await;
    assert!(read.contains(&format!("\"exact\":{EXACT}")), "{read}");
    scene.stack.drained().await;
    scene.replica_is_source().await;
    let replica = format!("{:?}", scene.items("UsersReplica").await);
    assert!(replica.contains(EXACT), "{replica}");
}
