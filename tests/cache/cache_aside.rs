//! The API with a cache in front of its table: the source of each response, and the stale values that it must never
//! return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use millrace_api::cache::CacheTimeouts;
use millrace_local::cache::CacheServer;
use millrace_local::clients;
use millrace_shared::cache::{Cache, CacheSlot};
use millrace_shared::clock::Clock;
use tokio::time::Instant;

use super::proxy::{self, CacheFault};
use super::servers::{self, at, cache};
use crate::faults;
use crate::users_api::service::{ApiHandle, FIRST, JSON, MERGE, NOW, ServiceResponse, UsersService, config, n, s};

const KEY: &str = "millrace:1:{Users/ada/7}";
/// Timeouts that are longer than any load on the machine could delay a call: these tests do not measure time.
const PATIENT: CacheTimeouts = CacheTimeouts { call: Duration::from_secs(5), cooldown: Duration::from_millis(1) };

async fn service() -> (UsersService, Cache) {
    let cache = cache().await;
    (UsersService::with_cache(cache.clone(), PATIENT).await, cache)
}

fn source(response: &ServiceResponse) -> &str {
    response.json["source"].as_str().unwrap_or_else(|| panic!("{}", response.text))
}

#[tokio::test]
async fn a_second_read_comes_from_the_cache_and_is_the_same_to_the_letter() {
    let (service, _) = service().await;
    let api = service.api();
    let body = r#"{"user_id":"ada","timestamp":7,"name":"Ada","attributes":{"exact":0.12345678901234567890123456789012345678}}"#;
    assert_eq!(api.post(body).await.status, 201);
    let (first, second) = (api.get("/users/ada/7").await, api.get("/users/ada/7").await);
    assert_eq!((source(&first), source(&second)), ("database", "cache"));
    assert_eq!(second.text, first.text.replace("database", "cache"));
    let body_of = |response: &ServiceResponse| {
        response
            .headers
            .iter()
            .filter(|(name, _)| *name != "x-request-id" && *name != "content-length")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(body_of(&first), body_of(&second));

    let chosen = api.get("/users/ada/7?fields=version,name").await;
    assert_eq!(chosen.text, format!(r#"{{"user":{{"name":"Ada","version":{FIRST}}},"source":"cache"}}"#));
    let tag = format!("\"{FIRST}\"");
    let unmodified = api.send("GET", "/users/ada/7", &[("if-none-match", &tag)], "").await;
    assert_eq!((unmodified.status, unmodified.header("etag")), (304, tag.as_str()));
    assert_eq!(unmodified.header("content-length"), second.text.len().to_string());
    assert_eq!(api.send("GET", "/users/ada/7", &[("if-match", "\"1\"")], "").await.status, 412);
    assert_eq!(api.send("HEAD", "/users/ada/7", &[], "").await.header("content-length"), second.text.len().to_string());
    assert_eq!(source(&api.get("/users/ada/latest").await), "database", "which record that is is a query");
}

#[tokio::test]
async fn every_write_of_the_api_is_read_at_once() {
    let (service, _) = service().await;
    let table = ("IDEMPOTENCY_TABLE", "Idempotency");
    let api = service.api_with(&[table]);
    let named = async |name: &str| {
        for expected in ["database", "cache"] {
            let read = api.get("/users/ada/7").await;
            assert_eq!((read.json["user"]["name"].as_str(), source(&read)), (Some(name), expected));
        }
    };
    assert_eq!(api.get("/users/ada/7").await.status, 404);
    let body = r#"{"user_id":"ada","timestamp":7,"name":"Ada"}"#;
    assert_eq!(api.post(body).await.status, 201);
    named("Ada").await;
    assert_eq!(api.put("/users/ada/7", r#"{"name":"Bob"}"#).await.status, 200);
    named("Bob").await;
    assert_eq!(api.send("PATCH", "/users/ada/7", &[MERGE], r#"{"name":"Eve"}"#).await.status, 200);
    named("Eve").await;
    assert_eq!(api.delete("/users/ada/7").await.status, 204);
    assert_eq!(api.get("/users/ada/7").await.status, 404);
    let created = api.put("/users/ada/7", r#"{"name":"Ann"}"#).await;
    assert_eq!(created.status, 201);
    // The clock is fixed, so the new record has the version of the first one: for a minute no entry is accepted that
    // might be the first one.
    assert_eq!(source(&api.get("/users/ada/7").await), "database");
    assert_eq!(source(&api.get("/users/ada/7").await), "database");
    assert_eq!(api.get("/users/bob/7").await.status, 404);
    let with_key = [JSON, ("idempotency-key", "\"one\"")];
    let body = r#"{"user_id":"bob","timestamp":7,"name":"Bob"}"#;
    assert_eq!(api.send("POST", "/users", &with_key, body).await.status, 201);
    assert_eq!(api.get("/users/bob/7").await.status, 200, "its absence is no longer cached");
}

#[tokio::test]
async fn write_of_another_program_is_read_after_its_invalidation() {
    let (service, cache) = service().await;
    let api = service.api();
    api.created("ada", 7).await;
    api.get("/users/ada/7").await;
    let item = [("user_id", s("ada")), ("timestamp", n(7)), ("name", s("Eve")), ("version", n(FIRST))];
    service.put(&item).await;
    let read = api.get("/users/ada/7").await;
    assert_eq!((read.json["user"]["name"].as_str(), source(&read)), (Some("Eve"), "database"));
    assert_eq!(cache.connection().await.unwrap().get(KEY).await.unwrap(), CacheSlot::Fenced);
}

#[tokio::test]
async fn a_record_without_a_version_is_never_kept() {
    let (service, cache) = service().await;
    let api = service.api();
    service.put(&[("user_id", s("eve")), ("timestamp", n(7)), ("name", s("Eve"))]).await;
    for _ in 0..2 {
        assert_eq!(source(&api.get("/users/eve/7").await), "database");
    }
    let connection = cache.connection().await.unwrap();
    assert_eq!(connection.get("millrace:1:{Users/eve/7}").await.unwrap(), CacheSlot::Fenced);
}

#[tokio::test]
async fn missing_record_is_cached_and_a_create_is_visible_at_once() {
    let (service, cache) = service().await;
    let api = service.api();
    assert_eq!(api.get("/users/ada/7").await.status, 404);
    let connection = cache.connection().await.unwrap();
    assert_eq!(connection.get(KEY).await.unwrap(), CacheSlot::Missing);
    let missing = api.get("/users/ada/7").await;
    assert_eq!((missing.status, missing.problem()), (404, "not-found"));
    api.created("ada", 7).await;
    assert_eq!(source(&api.get("/users/ada/7").await), "database");
}

#[tokio::test]
async fn a_kept_record_ends_when_it_expires() {
    let (service, _) = service().await;
    let ends = NOW.unix_timestamp() + 100;
    let body = format!(r#"{{"user_id":"ada","timestamp":7,"name":"Ada","expires_at":{ends}}}"#);
    assert_eq!(service.api().post(&body).await.status, 201);
    service.api().get("/users/ada/7").await;
    let at = |seconds| service.api_at(NOW + time::Duration::seconds(seconds));
    assert_eq!(source(&at(98).get("/users/ada/7").await), "cache");
    assert_eq!(at(101).get("/users/ada/7").await.status, 404);
    assert_eq!(at(101).put("/users/ada/7", r#"{"name":"Bob"}"#).await.status, 201, "nothing is there");
    assert_eq!(at(101).get("/users/ada/7").await.json["user"]["name"], "Bob");
}

/// Starts a service whose cache is behind a proxy; also returns the number of calls that went through the proxy.
async fn troubled(
    patience: CacheTimeouts,
    plan: impl Fn(&str) -> CacheFault + Send + Sync + 'static,
) -> (UsersService, CacheServer, Arc<AtomicUsize>) {
    let server = CacheServer::start().await.unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let plan = move |command: &str| {
        counted.fetch_add(1, Ordering::Relaxed);
        plan(command)
    };
    let port = proxy::before(server.port(), plan).await;
    (UsersService::with_cache(at(&format!("redis://127.0.0.1:{port}")), patience).await, server, calls)
}

#[tokio::test]
async fn a_silent_cache_costs_its_patience_once_and_is_then_left_alone() {
    let patience = CacheTimeouts { call: Duration::from_millis(25), cooldown: Duration::from_mins(1) };
    let (service, _server, calls) = troubled(patience, |_| CacheFault::Silence).await;
    let api = ApiHandle(millrace_api::app(&config("Users"), service.dynamodb.clone(), None, Clock::fixed(NOW)));
    api.created("ada", 7).await;
    let api = service.api();
    let started = Instant::now();
    assert_eq!(source(&api.get("/users/ada/7").await), "database");
    assert!(started.elapsed() >= patience.call);
    for _ in 0..20 {
        assert_eq!(source(&api.get("/users/ada/7").await), "database");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "twenty requests waited for nothing");
}

#[tokio::test]
async fn a_cache_that_is_back_is_used_again() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let plan = move |_: &str| if is_down.load(Ordering::Relaxed) { CacheFault::CutBefore } else { CacheFault::None };
    let (service, _server, _) = troubled(PATIENT, plan).await;
    let api = service.api();
    api.created("ada", 7).await;
    assert_eq!(source(&api.get("/users/ada/7").await), "database");
    down.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut sources = Vec::new();
    for _ in 0..3 {
        sources.push(source(&api.get("/users/ada/7").await).to_owned());
    }
    assert_eq!(sources.last().map(String::as_str), Some("cache"), "{sources:?}");
}

#[tokio::test]
async fn lost_invalidation_stays_pending_and_the_stale_entry_is_not_served() {
    for mishap in [CacheFault::CutBefore, CacheFault::ResponseLost] {
        let marks_fail = Arc::new(AtomicBool::new(false));
        let fail = Arc::clone(&marks_fail);
        let plan = move |command: &str| {
            if command.contains("PEXPIRE") && fail.load(Ordering::Relaxed) { mishap } else { CacheFault::None }
        };
        let (service, server, _) = troubled(PATIENT, plan).await;
        let api = service.api();
        api.created("ada", 7).await;
        for expected in ["database", "cache"] {
            assert_eq!(source(&api.get("/users/ada/7").await), expected);
        }
        marks_fail.store(true, Ordering::Relaxed);
        assert_eq!(api.delete("/users/ada/7").await.status, 204);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(api.get("/users/ada/7").await.status, 404, "{mishap:?}");
        }
        marks_fail.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(api.get("/users/ada/7").await.status, 404);
        let connection = at(&server.url()).connection().await.unwrap();
        assert_eq!(connection.get(KEY).await.unwrap(), CacheSlot::Fenced, "the debt is paid");
    }
}

#[tokio::test]
async fn concurrent_reads_of_one_record_query_the_table_one_at_a_time() {
    let (service, _) = service().await;
    service.api().created("ada", 7).await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let url = faults::proxy::before(service.endpoint(), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        faults::proxy::HttpFault::None
    });
    let client = clients::dynamodb(&url.await);
    let api = ApiHandle(millrace_api::app(&config("Users"), client, service.cache.clone(), Clock::fixed(NOW)));
    let readers = (0..50).map(|_| {
        let api = api.clone();
        tokio::spawn(async move { api.get("/users/ada/7").await.status })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.unwrap(), 200);
    }
    assert!(reads.load(Ordering::Relaxed) <= 3, "{reads:?}");
}

#[tokio::test]
async fn a_reader_that_was_overtaken_brings_nothing_old() {
    let (service, _) = service().await;
    service.api().created("ada", 7).await;
    let (held, open) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    // A reader whose response from the table is delayed until another client has written.
    let slow = {
        let (held, open) = (Arc::clone(&held), Arc::clone(&open));
        let (service_url, config) = (service.endpoint().to_owned(), config("Users"));
        let cache = service.cache.clone();
        tokio::spawn(async move {
            let client = clients::dynamodb(&held_back(&service_url, held, open).await);
            ApiHandle(millrace_api::app(&config, client, cache, Clock::fixed(NOW))).get("/users/ada/7").await
        })
    };
    while !held.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(service.api().patch("/users/ada/7", r#"{"name":"Bob"}"#).await.status, 200);
    open.notify_one();
    let late = slow.await.unwrap();
    assert_eq!((late.json["user"]["name"].as_str(), source(&late)), (Some("Ada"), "database"), "it asked before");
    let read = service.api().get("/users/ada/7").await;
    assert_eq!((read.json["user"]["name"].as_str(), source(&read)), (Some("Bob"), "database"));
}

/// Serves the table, and delays the response to the first read until `open` is notified; returns the URL.
async fn held_back(url: &str, held: Arc<AtomicBool>, open: Arc<tokio::sync::Notify>) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let own = format!("http://{}", listener.local_addr().unwrap());
    let address = url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, _) = listener.accept().await.unwrap();
        let mut table = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut request_bytes, mut response_bytes) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let count = client.read(&mut request_bytes).await.unwrap();
        table.write_all(&request_bytes[..count]).await.unwrap();
        let count = table.read(&mut response_bytes).await.unwrap();
        held.store(true, Ordering::Relaxed);
        open.notified().await;
        client.write_all(&response_bytes[..count]).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut table).await;
    });
    own
}

#[tokio::test]
async fn a_server_that_lost_its_marks_is_brought_nothing_that_was_read_before() {
    let mut server = CacheServer::start().await.unwrap();
    let cache = servers::at(&server.url());
    let service = UsersService::with_cache(cache.clone(), PATIENT).await;
    service.api().created("ada", 7).await;
    let connection = cache.connection().await.unwrap();
    assert_eq!(connection.get(KEY).await.unwrap(), CacheSlot::Fenced);
    server.restart().await.unwrap();
    let read = service.api().get("/users/ada/7").await;
    assert_eq!(source(&read), "database");
    assert_eq!(at(&server.url()).connection().await.unwrap().get(KEY).await.unwrap(), CacheSlot::Miss);
}
