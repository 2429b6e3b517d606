use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use millrace_local::clients;
use millrace_shared::clock::Clock;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::service::{ApiHandle, JSON, NOW, ServiceResponse, UsersService, config, n, s};

async fn batch(api: &ApiHandle, keys: &[(&str, u64)]) -> ServiceResponse {
    let keys: Vec<Value> = keys.iter().map(|(id, second)| json!({"user_id": id, "timestamp": second})).collect();
    api.send("POST", "/users:batchGet", &[JSON], &json!({"keys": keys}).to_string()).await
}

fn seconds(keys: &Value) -> Vec<u64> {
    keys.as_array().unwrap().iter().map(|key| key["timestamp"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_batch_gives_each_key_its_place() {
    let service = UsersService::start().await;
    let api = service.api();
    for second in [1, 2, 3] {
        api.created("ada", second).await;
    }
    service.put(&[("user_id", s("ada")), ("timestamp", n(4)), ("name", n(7))]).await;
    let past = n(u64::try_from(NOW.unix_timestamp()).unwrap());
    service.put(&[("user_id", s("ada")), ("timestamp", n(5)), ("name", s("Old")), ("expires_at", past)]).await;
    let keys = [("ada", 5), ("ada", 3), ("ada", 4), ("eve", 9), ("ada", 1)];
    let response = batch(&api, &keys).await;
    assert_eq!(response.status, 200, "{}", response.text);
    assert_eq!(response.seconds(), [3, 1], "in the order of the keys");
    assert_eq!(seconds(&response.json["missing"]), [5, 9]);
    assert_eq!(seconds(&response.json["corrupt"]), [4]);
    assert_eq!(seconds(&response.json["unprocessed"]), [0; 0]);
    assert_eq!(response.json["users"][0], api.get("/users/ada/3").await.json["user"]);
    let keys = r#"{"keys":[{"user_id":"ada","timestamp":1}]}"#;
    let names = api.send("POST", "/users:batchGet?fields=name", &[JSON], keys).await;
    assert_eq!(names.text, r#"{"users":[{"name":"Ada"}],"missing":[],"corrupt":[],"unprocessed":[]}"#);
}

#[tokio::test]
async fn a_batch_is_one_to_a_hundred_keys_each_once() {
    let service = UsersService::start().await;
    let api = service.api();
    let hundred: Vec<(&str, u64)> = (0..100).map(|second| ("ada", second)).collect();
    api.created("ada", 99).await;
    let response = batch(&api, &hundred).await;
    assert_eq!((response.status, response.seconds()), (200, vec![99]));
    assert_eq!(seconds(&response.json["missing"]).len(), 99);
    for keys in [vec![], [&hundred[..], &[("ada", 100)]].concat(), vec![("ada", 1), ("ada", 1)]] {
        assert_eq!(batch(&api, &keys).await.status, 422, "{}", keys.len());
    }
}

#[tokio::test]
async fn oversized_batch_response_returns_unprocessed_keys() {
    let service = UsersService::start().await;
    let api = service.api();
    let long = "x".repeat(390_000);
    let keys: Vec<(&str, u64)> = (1..21).map(|second| ("ada", second)).collect();
    for (_, second) in &keys {
        let body = format!(r#"{{"user_id":"ada","timestamp":{second},"name":"A","attributes":{{"long":"{long}"}}}}"#);
        assert_eq!(api.post(&body).await.status, 201);
    }
    let first = batch(&api, &keys).await;
    assert!(first.text.len() < 6 * 1024 * 1024 && first.seconds().len() >= 10, "{}", first.text.len());
    let left = seconds(&first.json["unprocessed"]);
    assert_eq!([first.seconds(), left.clone()].concat(), (1..21).collect::<Vec<_>>());
    let rest: Vec<_> = left.into_iter().map(|second| ("ada", second)).collect();
    assert_eq!(batch(&api, &rest).await.seconds().len(), rest.len());
}

/// The API over a table that returns one key per call, and none in the first `silent` calls; also returns the number of
/// calls.
async fn busy(silent: usize) -> (ApiHandle, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| async move {
        assert_eq!(headers["x-amz-target"], "DynamoDB_20120810.BatchGetItem");
        let request: Value = serde_json::from_slice(&body).unwrap();
        let mut keys = request["RequestItems"]["Users"]["Keys"].as_array().unwrap().clone();
        let mut items = Vec::new();
        if counted.fetch_add(1, Ordering::Relaxed) >= silent {
            let mut item = keys.remove(0);
            item["name"] = json!({"S": "Ada"});
            items.push(item);
        }
        let left = if keys.is_empty() { json!({}) } else { json!({"Users": {"Keys": keys, "ConsistentRead": true}}) };
        json!({"Responses": {"Users": items}, "UnprocessedKeys": left}).to_string()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (ApiHandle(millrace_api::app(&config("Users"), clients::dynamodb(&url), None, Clock::fixed(NOW))), calls)
}

#[tokio::test]
async fn keys_unprocessed_by_the_table_are_retried_and_then_returned() {
    let keys = [("ada", 1), ("ada", 2), ("ada", 3)];
    for (silent, found, left) in [(0, 3, 0), (2, 3, 0), (3, 2, 1), (9, 0, 3)] {
        let (api, calls) = busy(silent).await;
        let response = batch(&api, &keys).await;
        assert_eq!((response.status, response.seconds().len()), (200, found), "{silent}: {}", response.text);
        assert_eq!(seconds(&response.json["unprocessed"]).len(), left, "{silent}");
        assert_eq!(seconds(&response.json["missing"]), [0; 0], "what was not read is not missing");
        assert!(calls.load(Ordering::Relaxed) <= 5);
    }
}
