//! The guarantees of the cache.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::tier::TierServer;
use millrace_shared::clock::Clock;

use crate::cache::servers;
use crate::users_api::service::{ApiHandle, config};

#[tokio::test]
async fn guarantee_24_cache_serves_no_stale_record() {
    let url = servers::url().await;
    let stack = LocalStack::start(StackOptions { cache: TierServer::At(url.clone()), ..StackOptions::default() })
        .await
        .unwrap();
    let patience = CacheTimeouts { call: Duration::from_secs(5), cooldown: Duration::from_millis(1) };
    let cache = CacheAside::new(servers::at(&url), "Users", patience);
    let api = ApiHandle(millrace_api::app(&config("Users"), stack.dynamodb(), Some(cache), Clock::system()));
    let named = async || {
        let response = api.get("/users/ada/7").await;
        let user = &response.json["user"]["name"];
        (
            response.status,
            user.as_str().unwrap_or_default().to_owned(),
            response.json["source"].as_str() == Some("cache"),
        )
    };
    let text = |text: String| AttributeValue::S(text);
    let number = |number: u64| AttributeValue::N(number.to_string());
    for turn in 0..5 {
        // A write by the API is visible from its response on.
        assert!(api.put("/users/ada/7", &format!(r#"{{"name":"Ada {turn}"}}"#)).await.status < 300);
        assert_eq!(named().await, (200, format!("Ada {turn}"), false));
        assert_eq!(named().await, (200, format!("Ada {turn}"), true));
        // A write by another program, which does not count versions, is visible once its stream record is acknowledged.
        let put = stack.dynamodb().put_item().table_name("Users").item("name", text(format!("Eve {turn}")));
        let put =
            put.item("user_id", text("ada".to_owned())).item("timestamp", number(7)).item("version", number(turn));
        put.send().await.unwrap();
        named().await;
        stack.wait_until_drained().await;
        assert_eq!(named().await.1, format!("Eve {turn}"));
        let delete = stack.dynamodb().delete_item().table_name("Users").key("user_id", text("ada".to_owned()));
        delete.key("timestamp", number(7)).send().await.unwrap();
        named().await;
        stack.wait_until_drained().await;
        assert_eq!(named().await.0, 404);
    }
    stack.stop().await;
}
