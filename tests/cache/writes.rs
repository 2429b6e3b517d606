//! Reads from the cache after a write whose call or response was lost: whatever the write returned, every instance then
//! returns the record that is in the table.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration as Pause;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_local::clients;
use millrace_shared::cache::Cache;
use millrace_shared::clock::Clock;
use time::{Duration, OffsetDateTime};

use super::servers::cache;
use crate::faults::proxy::{self, HttpFault};
use crate::users_api::service::{ApiHandle, JSON, MERGE, NOW, ServiceResponse, UsersService, config_with, n};

const ATTEMPTS: (&str, &str) = ("IDEMPOTENCY_TABLE", "Idempotency");
/// Timeouts that are longer than any load on the machine could delay a call.
const PATIENT: CacheTimeouts = CacheTimeouts { call: Pause::from_secs(5), cooldown: Pause::from_millis(1) };

/// An instance of the API with its own connections to the shared tables and the shared cache.
fn instance(client: Client, cache: Option<&Cache>, more: &[(&str, &str)], now: OffsetDateTime) -> ApiHandle {
    let cache = cache.map(|cache| CacheAside::new(cache.clone(), "Users", PATIENT));
    ApiHandle(millrace_api::app(&config_with("Users", &[&[ATTEMPTS], more].concat()), client, cache, Clock::fixed(now)))
}

/// A client into whose calls these faults are injected, in order.
async fn troubled(service: &UsersService, mishaps: Arc<Mutex<VecDeque<HttpFault>>>, retries: u32) -> Client {
    let plan = move |_: &proxy::ProxiedCall<'_>| mishaps.lock().unwrap().pop_front().unwrap_or(HttpFault::None);
    let url = proxy::before(service.endpoint(), plan).await;
    let retry = RetryConfig::standard().with_max_attempts(1 + retries).with_initial_backoff(Pause::from_millis(1));
    Client::from_conf(clients::dynamodb(&url).config().to_builder().retry_config(retry).build())
}

fn mishaps(planned: &[HttpFault]) -> Arc<Mutex<VecDeque<HttpFault>>> {
    Arc::new(Mutex::new(planned.iter().copied().collect()))
}

#[tokio::test]
async fn replayed_create_invalidates_the_cached_missing_record() {
    let (service, cache) = (UsersService::start().await, cache().await);
    let body = r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#;
    let headers = [JSON, ("idempotency-key", "\"one\"")];
    // The transaction takes effect, and the process ends before it can invalidate the cache.
    let lost = mishaps(&[HttpFault::None, HttpFault::ResponseLost, HttpFault::Error(500, "InternalServerError")]);
    let first = instance(troubled(&service, lost, 0).await, None, &[], NOW);
    let (second, third) = (
        instance(service.dynamodb.clone(), Some(&cache), &[], NOW),
        instance(service.dynamodb.clone(), Some(&cache), &[], NOW),
    );
    for _ in 0..2 {
        assert_eq!(second.get("/users/ada/7").await.status, 404);
    }
    assert_eq!(first.send("POST", "/users", &headers, body).await.status, 503);
    assert_eq!(second.send("POST", "/users", &headers, body).await.status, 201, "it was created");
    assert_eq!(second.get("/users/ada/7").await.status, 200);
    assert_eq!(third.get("/users/ada/7").await.status, 200);
}

#[tokio::test]
async fn cancelled_write_leaves_no_stale_cache_entry() {
    let (service, cache) = (UsersService::start().await, cache().await);
    let sound = instance(service.dynamodb.clone(), Some(&cache), &[], NOW);
    sound.created("ada", 7).await;
    let aside = CacheAside::new(cache.clone(), "Users", PATIENT);
    let over = |client| {
        ApiHandle(millrace_api::app(&config_with("Users", &[]), client, Some(aside.clone()), Clock::fixed(NOW)))
    };
    let (slow, same) =
        (over(troubled(&service, mishaps(&[HttpFault::Landed]), 0).await), over(service.dynamodb.clone()));
    for source in ["database", "cache"] {
        assert_eq!(same.get("/users/ada/7").await.json["source"], source);
    }
    // The write takes effect, no response arrives, and the client stops waiting.
    let given_up = tokio::time::timeout(Pause::from_millis(300), slow.put("/users/ada/7", r#"{"name":"Eve"}"#)).await;
    assert!(given_up.is_err());
    assert_eq!(same.get("/users/ada/7").await.json["user"]["name"], "Eve");
}

/// A pseudorandom generator that is deterministic for a seed.
struct WriteRandom(u64);

impl WriteRandom {
    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choices[usize::try_from(self.0 >> 33).unwrap() % choices.len()]
    }
}

/// Makes one random write through this instance.
async fn write(
    api: &ApiHandle,
    chance: &mut WriteRandom,
    path: &str,
    id: &str,
    step: usize,
    version: Option<u64>,
) -> (String, ServiceResponse) {
    let name = format!(r#"{{"name":"{step}"}}"#);
    let create = format!(r#"{{"user_id":"{id}","timestamp":7,"name":"{step}"}}"#);
    let tag = format!("\"{}\"", version.unwrap_or(1));
    let key = format!("{id}-{}", chance.choose(&[0, 1, step]));
    let condition = chance.choose(&[None, Some("if-match"), Some("if-none-match")]);
    let conditions: Vec<(&str, &str)> = match condition {
        Some("if-none-match") => vec![("if-none-match", "*")],
        Some(name) => vec![(name, tag.as_str())],
        None => vec![],
    };
    let (kind, method, path, media, body) = chance.choose(&[
        ("POST", "POST", "/users", JSON, create.as_str()),
        ("POST with a key", "POST", "/users", JSON, create.as_str()),
        ("PUT", "PUT", path, JSON, name.as_str()),
        ("PATCH", "PATCH", path, MERGE, name.as_str()),
        ("PATCH of attributes", "PATCH", path, MERGE, r#"{"attributes":{"a":1}}"#),
        ("DELETE", "DELETE", path, JSON, ""),
        ("DELETE", "DELETE", path, JSON, ""),
    ]);
    let mut headers = vec![media];
    match kind {
        "POST" => {}
        "POST with a key" => headers.push(("idempotency-key", &key)),
        _ => headers.extend(&conditions),
    }
    (format!("{kind} {condition:?}"), api.send(method, path, &headers, body).await)
}

/// Runs random writes with faults against one record.
async fn live(service: &UsersService, cache: &Cache, seed: u64, unique: &str) {
    let mut chance = WriteRandom(seed);
    let id = format!("life-{unique}-{seed}");
    let path = format!("/users/{id}/7");
    let more = [("UNIQUE_EMAIL", unique), ("EMAILS_TABLE", "Emails")];
    let planned = mishaps(&[]);
    let (with_retries, without) =
        (troubled(service, Arc::clone(&planned), 2).await, troubled(service, Arc::clone(&planned), 0).await);
    for step in 0..14 {
        let now = NOW + Duration::seconds(i64::try_from(step).unwrap());
        let client = chance.choose(&[&with_retries, &without]).clone();
        let (writer, reader) =
            (instance(client, Some(cache), &more, now), instance(service.dynamodb.clone(), Some(cache), &more, now));
        let mut read = reader.get(&path).await;
        if chance.choose(&[true, true, false]) {
            read = reader.get(&path).await;
        }
        let version = (read.status == 200).then(|| read.version());
        let wrong = chance.choose(&[
            HttpFault::ResponseLost,
            HttpFault::ResponseLost,
            HttpFault::None,
            HttpFault::Error(500, "InternalServerError"),
        ]);
        let before = chance.choose(&[0, 0, 1, 2]);
        *planned.lock().unwrap() = [HttpFault::None].repeat(before).into_iter().chain([wrong]).collect();
        let (what, written) = write(&writer, &mut chance, &path, &id, step, version).await;
        planned.lock().unwrap().clear();
        let stored = service.item(&id, 7).await.map(|item| item["version"].clone());
        for (who, api) in [("the writer", &writer), ("another instance", &reader)] {
            let response = api.get(&path).await;
            let version = (response.status == 200).then(|| n(response.version()));
            assert_eq!(
                version, stored,
                "{id}, step {step}, {what}, {wrong:?} after {before} calls: {} and {who}",
                written.status
            );
        }
    }
}

#[tokio::test]
async fn every_instance_returns_the_stored_record_after_any_write_response() {
    let (service, cache) = (UsersService::start().await, cache().await);
    for unique in ["false", "true"] {
        for seed in 0..24 {
            live(&service, &cache, seed, unique).await;
        }
    }
}
