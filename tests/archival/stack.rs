//! End to end: from the table through its stream into the bucket.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};
use time::macros::datetime;

use super::harness;

/// Puts a user that expires at this time in epoch seconds, or never.
async fn put(stack: &LocalStack, user: &str, expires_at: Option<i64>) {
    let number = |text: &str| AttributeValue::N(text.to_owned());
    let mut put = stack.dynamodb().put_item().table_name("Users");
    put = put.item("user_id", AttributeValue::S(user.to_owned())).item("timestamp", number("7"));
    put = put.item("score", number("0.12345678901234567890123456789012345678"));
    if let Some(second) = expires_at {
        put = put.item("expires_at", number(&second.to_string()));
    }
    put.send().await.unwrap();
}

async fn delete(stack: &LocalStack, user: &str) {
    let delete = stack.dynamodb().delete_item().table_name("Users");
    let delete = delete.key("user_id", AttributeValue::S(user.to_owned()));
    delete.key("timestamp", AttributeValue::N("7".into())).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_that_leaves_the_table_only_what_ttl_removed_reaches_the_archive() {
    let never = Duration::from_hours(24);
    let stack = LocalStack::start(StackOptions { ttl_interval: never, ..StackOptions::default() }).await.unwrap();
    // A month ago: TTL ignores items that expired more than five years ago.
    let expired = (millrace_shared::clock::Clock::system().now() - time::Duration::days(30)).unix_timestamp();
    put(&stack, "alive", None).await;
    put(&stack, "deleted", None).await;
    put(&stack, "expired", Some(expired)).await;
    delete(&stack, "deleted").await;
    assert_eq!(stack.run_ttl_sweep().await.unwrap(), 1);
    stack.wait_until_drained().await;

    let rows = harness::rows(&stack.s3()).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].key.as_str(), r#"{"timestamp":{"N":"7"},"user_id":{"S":"expired"}}"#);
    assert!(rows[0].item.get().contains("0.12345678901234567890123456789012345678"), "{}", rows[0].item.get());
    assert!(rows[0].removed_at > datetime!(2026-01-01 0:00 UTC), "the time is the record's: {}", rows[0].removed_at);
    stack.stop().await;
}
