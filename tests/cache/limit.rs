//! The rate limit, as clients see it.

use std::time::Duration;

use millrace_api::cache::CacheTimeouts;
use millrace_local::cache::CacheServer;
use millrace_shared::cache::Cache;

use super::servers::{at, cache, url};
use crate::users_api::service::UsersService;

const PATIENT: CacheTimeouts = CacheTimeouts { call: Duration::from_secs(5), cooldown: Duration::from_millis(1) };

async fn limited(cache: Cache, url: &str) -> crate::users_api::service::ApiHandle {
    let service = UsersService::with_cache(cache, PATIENT).await;
    let variables = [("CACHE_URL", url), ("RATE_LIMIT", "10/60s burst 3")];
    let api = service.api_with(&variables);
    // Keep the engine running after this function returns.
    std::mem::forget(service);
    api
}

#[tokio::test]
async fn rate_limited_caller_gets_429_with_retry_after() {
    let url = url().await;
    let api = limited(at(&url), &url).await;
    for remaining in [2, 1, 0] {
        let response = api.get("/users/ada/7").await;
        assert_eq!((response.status, response.header("ratelimit-policy")), (404, "\"caller\";q=10;w=60"));
        assert!(
            response.header("ratelimit").starts_with(&format!("\"caller\";r={remaining};t=")),
            "{:?}",
            response.headers
        );
    }
    let refused = api.get("/users/ada/7").await;
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited"));
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    assert!(refused.header("ratelimit").starts_with("\"caller\";r=0;t="), "{:?}", refused.headers);
    assert_eq!(api.post(r#"{"name":"Ada"}"#).await.status, 429, "whatever is asked");
    for open in ["/health", "/openapi.json"] {
        assert_eq!(api.get(open).await.status, 200, "{open} is nobody's");
    }
}

#[tokio::test]
async fn response_has_no_rate_limit_headers_without_a_limit() {
    let service = UsersService::with_cache(cache().await, PATIENT).await;
    let response = service.api().get("/users/ada/7").await;
    assert_eq!((response.status, response.header("ratelimit-policy")), (404, ""));
}

#[tokio::test]
async fn without_the_cache_everybody_passes() {
    let server = CacheServer::start().await.unwrap();
    let url = server.url();
    let api = limited(at(&url), &url).await;
    assert!(!api.get("/users/ada/7").await.header("ratelimit").is_empty());
    drop(server);
    for _ in 0..10 {
        let response = api.get("/users/ada/7").await;
        assert_eq!((response.status, response.header("ratelimit")), (404, ""));
    }
}
