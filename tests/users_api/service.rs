//! The API over an embedded DynamoDB engine, with a clock that the test sets.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_api::config::ApiConfig;
use millrace_local::clients;
use millrace_local::dynamodb::DynamoDbEngine;
use millrace_shared::cache::Cache;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::version_fence::MinVersion;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::cache::api_suite;
use crate::template::template;

/// The time of a test, unless it sets another one.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 10:00:00.123456 UTC);
/// [`NOW`] as a record's first version.
pub(crate) const FIRST: u64 = 1_795_341_600_123_456;
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

/// An engine with the template's tables.
pub(crate) struct UsersService {
    engine: DynamoDbEngine,
    pub(crate) dynamodb: Client,
    /// Shared by all APIs over these tables: together they are one instance.
    pub(crate) cache: Option<CacheAside>,
    stream: Option<Cache>,
}

impl UsersService {
    pub(crate) async fn start() -> Self {
        let engine = DynamoDbEngine::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), None).await.unwrap();
        engine.create_tables(&template().tables).unwrap();
        let dynamodb = clients::dynamodb(engine.endpoint());
        let (cache, stream) = api_suite::cache().await.unzip();
        Self { engine, dynamodb, cache, stream }
    }

    /// Starts the tables with this cache in front of them, whichever cache the suite runs with.
    pub(crate) async fn with_cache(cache: Cache, patience: CacheTimeouts) -> Self {
        let service = Self::start().await;
        let aside = CacheAside::new(cache.clone(), "Users", patience);
        Self { cache: Some(aside), stream: Some(cache), ..service }
    }

    /// The API at [`NOW`].
    pub(crate) fn api(&self) -> ApiHandle {
        self.api_at(NOW)
    }

    /// The API at this time.
    pub(crate) fn api_at(&self, now: OffsetDateTime) -> ApiHandle {
        ApiHandle(millrace_api::app(&config("Users"), self.dynamodb.clone(), self.cache.clone(), Clock::fixed(now)))
    }

    /// The endpoint of the engine.
    pub(crate) fn endpoint(&self) -> &str {
        self.engine.endpoint()
    }

    /// The API at [`NOW`] with these additional environment variables.
    pub(crate) fn api_with(&self, variables: &[(&str, &str)]) -> ApiHandle {
        let config = config_with("Users", variables);
        ApiHandle(millrace_api::app(&config, self.dynamodb.clone(), self.cache.clone(), Clock::fixed(NOW)))
    }

    /// Writes an item as another program would, and then invalidates the cache entry as the stream would.
    pub(crate) async fn put(&self, attributes: &[(&str, AttributeValue)]) {
        let item: HashMap<_, _> = attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let text = |name: &str| item[name].as_s().or_else(|_| item[name].as_n()).unwrap().clone();
        let key = format!("millrace:1:{{Users/{}/{}}}", text("user_id"), text("timestamp"));
        self.dynamodb.put_item().table_name("Users").set_item(Some(item)).send().await.unwrap();
        self.streamed(&key).await;
    }

    /// Invalidates the key, and retries like the stream until the cache confirms it.
    async fn streamed(&self, key: &str) {
        let Some(cache) = &self.stream else { return };
        loop {
            let Ok(connection) = cache.connection().await else { continue };
            match connection.invalidate(key, MinVersion::HIGHEST).await {
                Ok(()) => break,
                Err(_) => cache.discard(&connection),
            }
        }
    }

    /// Removes the items that TTL deletes at this time; returns their number.
    pub(crate) async fn expire(&self, now: OffsetDateTime) -> usize {
        self.engine.sweep_ttl(now).await.unwrap()
    }

    /// The stored item, whether it has expired or not.
    pub(crate) async fn item(&self, id: &str, timestamp: u64) -> Option<HashMap<String, AttributeValue>> {
        let call = self.dynamodb.get_item().table_name("Users").key("user_id", s(id)).key("timestamp", n(timestamp));
        call.consistent_read(true).send().await.unwrap().item
    }
}

pub(crate) fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(crate) fn n(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// A record whose members have their maximum length, with `attributes` of this size in bytes as DynamoDB counts them.
pub(crate) fn longest(bytes: usize) -> Value {
    let domain = ["b".repeat(63), "c".repeat(63), "d".repeat(63), "e".repeat(60)].join(".");
    // DynamoDB counts three bytes for a map, one for its member, and one for the member's name.
    serde_json::json!({
        "name": "\u{10ffff}".repeat(256), "email": format!("a@{domain}"), "status": "\u{10ffff}".repeat(64),
        "expires_at": 3_000_000_000_u64, "attributes": {"x": "a".repeat(bytes - 5)},
    })
}

pub(crate) fn config(table: &str) -> ApiConfig {
    config_with(table, &[])
}

pub(crate) fn config_with(table: &str, variables: &[(&str, &str)]) -> ApiConfig {
    let key = "test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let usual = [("USERS_TABLE", table), ("EMAIL_INDEX", "EmailIndex"), ("AUTH", "none"), ("CURSOR_KEYS", key)];
    let environment: Environment =
        usual.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ApiConfig::parse(&environment).unwrap()
}

/// A client of the API.
#[derive(Clone)]
pub(crate) struct ApiHandle(pub(crate) Router);

impl ApiHandle {
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> ServiceResponse {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ServiceResponse::from_response(
            self.0.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap(),
        )
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> ServiceResponse {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, body: &str) -> ServiceResponse {
        self.send("POST", "/users", &[JSON], body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> ServiceResponse {
        self.send("PUT", path, &[JSON], body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &str) -> ServiceResponse {
        self.send("PATCH", path, &[MERGE], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> ServiceResponse {
        self.send("DELETE", path, &[], "").await
    }

    /// Creates a record of this user and second; panics if it exists.
    pub(crate) async fn created(&self, id: &str, timestamp: u64) {
        let response = self.post(&format!(r#"{{"user_id":"{id}","timestamp":{timestamp},"name":"Ada"}}"#)).await;
        assert_eq!(response.status, 201, "{}", response.text);
    }
}

pub(crate) struct ServiceResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl ServiceResponse {
    pub(crate) async fn from_response(response: http::Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Self { status: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns whether the content length is that of `other`, whether either record came from the cache or from the
    /// table.
    pub(crate) fn is_as_long_as(&self, other: &Self) -> bool {
        let sources = [r#""source":"cache""#, r#""source":"database""#];
        let in_words = |source| other.text.replace(sources[0], source).replace(sources[1], source).len().to_string();
        sources.into_iter().any(|source| in_words(source) == self.header("content-length"))
    }

    pub(crate) fn version(&self) -> u64 {
        self.json["user"]["version"].as_u64().unwrap()
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        self.json["type"].as_str().unwrap().rsplit(':').next().unwrap()
    }

    /// The timestamps of the listed records.
    pub(crate) fn seconds(&self) -> Vec<u64> {
        let users = self.json["users"].as_array().unwrap_or_else(|| panic!("no list: {}", self.text));
        users.iter().map(|user| user["timestamp"].as_u64().unwrap()).collect()
    }
}
