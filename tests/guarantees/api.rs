//! The guarantees of the API, tested over HTTP on the local stack.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::token::LocalAuth;
use serde_json::{Value, json};

use crate::maintenance::scene::MaintenanceScene;
use crate::users_api::service::UsersService;

/// A number that no binary floating-point type represents exactly.
const EXACT: &str = "12345678901234567890123456789012345678";

async fn send(
    scene: &MaintenanceScene,
    request: http::request::Builder,
    path: &str,
    body: String,
) -> (StatusCode, String) {
    send_to(scene.stack.api_url(), request, path, body).await
}

async fn send_to(base: &str, request: http::request::Builder, path: &str, body: String) -> (StatusCode, String) {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = request.uri(format!("{base}{path}")).header("content-type", "application/json");
    let response = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8(body.to_vec()).unwrap())
}

async fn create(scene: &MaintenanceScene, mut more: Value) -> Value {
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
async fn guarantee_09_an_expired_item_is_absent() {
    let scene = MaintenanceScene::start().await;
    let soon = millrace_shared::clock::Clock::system().now().unix_timestamp() + 2;
    let user = create(&scene, json!({"expires_at": soon})).await;
    assert_eq!(send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await.0, StatusCode::OK);
    while millrace_shared::clock::Clock::system().now().unix_timestamp() < soon {
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
async fn guarantee_10_no_update_is_lost() {
    let scene = MaintenanceScene::start().await;
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
async fn guarantee_11_no_number_is_rounded() {
    let scene = MaintenanceScene::start().await;
    let body = format!(
        r#"{{"user_id":"ada","name":"Ada","email":"ada@example.com","attributes":{{"exact":{EXACT},"deep":[{{"small":1.{EXACT}e-90}}]}}}}"#
    );
    let body = body.replace(&format!("1.{EXACT}e-90"), "1.2345678901234567890123456789012345678e-90");
    let (status, response) = send(&scene, Request::builder().method("POST"), "/users", body).await;
    assert_eq!(status, StatusCode::CREATED, "{response}");
    let user = serde_json::from_str::<Value>(&response).unwrap()["user"].take();
    let (_, read) = send(&scene, Request::builder().method("GET"), &path(&user), String::new()).await;
    assert!(read.contains(&format!("\"exact\":{EXACT}")), "{read}");
    scene.stack.wait_until_drained().await;
    scene.replica_is_source().await;
    let replica = format!("{:?}", scene.items("UsersReplica").await);
    assert!(replica.contains(EXACT), "{replica}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_18_a_caller_reaches_its_own_records_alone() {
    let options = StackOptions { auth: LocalAuth::Jwt(None), ..StackOptions::default() };
    let stack = LocalStack::start(options).await.unwrap();
    let bearer = |subject: &str, scope: &str| format!("Bearer {}", stack.token(subject, scope).unwrap());
    let all = "users:read users:write";
    let create = async |subject: &str| {
        let body = json!({"timestamp": 7, "name": "A", "email": "a@example.com"}).to_string();
        let request = Request::builder().method("POST").header("authorization", bearer(subject, all));
        send_to(stack.api_url(), request, "/users", body).await.0
    };
    assert_eq!((create("ada").await, create("eve").await), (StatusCode::CREATED, StatusCode::CREATED));
    let read = async |authorization: Option<String>, path: &str| {
        let mut request = Request::builder().method("GET");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        send_to(stack.api_url(), request, path, String::new()).await
    };
    assert_eq!(read(Some(bearer("ada", all)), "/users/ada/7").await.0, StatusCode::OK);
    assert_eq!(read(Some(bearer("ada", "users:admin")), "/users/eve/7").await.0, StatusCode::OK);
    assert_eq!(read(None, "/users/ada/7").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(read(Some(bearer("ada", all)), "/users").await.0, StatusCode::FORBIDDEN);
    let [(foreign, foreign_body), (missing, missing_body)] =
        [read(Some(bearer("ada", all)), "/users/eve/7").await, read(Some(bearer("ada", all)), "/users/ada/8").await];
    assert_eq!((foreign, missing), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
    let without_instance = |body: &str| {
        let mut problem: Value = serde_json::from_str(body).unwrap();
        problem.as_object_mut().unwrap().remove("instance");
        problem
    };
    assert_eq!(without_instance(&foreign_body), without_instance(&missing_body));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guarantee_19_one_idempotency_key_creates_one_record() {
    let scene = MaintenanceScene::start().await;
    let create = async || {
        let request =
            Request::builder().method("POST").header("idempotency-key", "8e03978e-40d5-43e8-bc93-6894a57f9324");
        send(&scene, request, "/users", json!({"name": "Ada", "email": "ada@example.com"}).to_string()).await
    };
    let (first, second) = tokio::join!(create(), create());
    let again = create().await;
    assert_eq!(again.0, StatusCode::CREATED, "{}", again.1);
    for (status, body) in [first, second] {
        assert!(
            status == StatusCode::CREATED && body == again.1 || status == StatusCode::CONFLICT,
            "{status} {body} {}",
            again.1
        );
    }
    assert_eq!(scene.items("Users").await.len(), 1);
}

#[tokio::test]
async fn guarantee_20_an_email_belongs_to_one_user() {
    let service = UsersService::start().await;
    let api = service.api_with(&[("UNIQUE_EMAIL", "true"), ("EMAILS_TABLE", "Emails")]);
    let create = async |user_id: &str, second: u64| {
        let body = json!({"user_id": user_id, "timestamp": second, "name": "A", "email": "ada@example.com"});
        api.post(&body.to_string()).await.status
    };
    assert_eq!((create("ada", 1).await, create("ada", 2).await, create("eve", 1).await), (201, 201, 409));
    for (second, taken) in [(1, 409), (2, 201)] {
        assert_eq!(api.send("DELETE", &format!("/users/ada/{second}"), &[], "").await.status, 204);
        assert_eq!(create("eve", 1).await, taken, "it is freed by the last record that leaves it");
    }
}
