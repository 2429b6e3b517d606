//! End to end on one machine: a write to the table, the stream, the mapping, the function, the replica.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};

use super::rig::RigItem;

const USERS: &str = "Users";
const REPLICA: &str = "UsersReplica";

fn user(user_id: &str, name: &str) -> RigItem {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    RigItem::from([
        ("user_id".to_owned(), s(user_id)),
        ("timestamp".to_owned(), AttributeValue::N("1".to_owned())),
        ("name".to_owned(), s(name)),
        ("exact".to_owned(), AttributeValue::N("0.12345678901234567890123456789012345678".to_owned())),
        ("unknown_to_any_user".to_owned(), AttributeValue::M(RigItem::from([("deep".to_owned(), s(""))]))),
    ])
}

fn key(user_id: &str) -> RigItem {
    let mut key = user(user_id, "");
    key.retain(|name, _| name == "user_id" || name == "timestamp");
    key
}

async fn put(client: &Client, item: RigItem) {
    client.put_item().table_name(USERS).set_item(Some(item)).send().await.unwrap();
}

/// All items of a table by user.
async fn items(client: &Client, table: &str) -> BTreeMap<String, RigItem> {
    let mut pages = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let mut items = BTreeMap::new();
    while let Some(item) = pages.try_next().await.unwrap() {
        items.insert(item["user_id"].as_s().unwrap().clone(), item);
    }
    items
}

/// The replica as its readers see it: without tombstones and without revisions.
async fn replica(client: &Client) -> BTreeMap<String, RigItem> {
    let mut items = items(client, REPLICA).await;
    items.retain(|_, item| !item.contains_key("_tombstone_expires_at"));
    for item in items.values_mut() {
        assert!(item.remove("_rev").is_some(), "every item of a replica has its revision");
    }
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_ends_equal_to_the_source() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let client = stack.dynamodb();
    for n in 0..60 {
        put(&client, user(&format!("u{n:02}"), "Created")).await;
    }
    for n in 0..30 {
        put(&client, user(&format!("u{n:02}"), "Renamed")).await;
    }
    for n in 20..40 {
        client.delete_item().table_name(USERS).set_key(Some(key(&format!("u{n:02}")))).send().await.unwrap();
    }
    for n in 35..45 {
        put(&client, user(&format!("u{n:02}"), "Created again")).await;
    }
    stack.wait_until_drained().await;

    let source = items(&client, USERS).await;
    assert_eq!(source.len(), 45);
    assert_eq!(replica(&client).await, source);
    assert_eq!(items(&client, REPLICA).await.len(), 60, "each deleted user has left a tombstone");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_user_is_gone_from_the_replica_too() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let client = stack.dynamodb();
    let mut expired = user("bob", "Bob");
    // Not longer ago: TTL ignores items that expired more than five years ago.
    let past = millrace_shared::clock::Clock::system().now() - time::Duration::days(30);
    expired.insert("expires_at".to_owned(), AttributeValue::N(past.unix_timestamp().to_string()));
    put(&client, expired).await;
    put(&client, user("ada", "Ada")).await;
    stack.run_ttl_sweep().await.unwrap();
    stack.wait_until_drained().await;

    let held = items(&client, REPLICA).await;
    assert_eq!(held["bob"]["_deleted_by_ttl"], AttributeValue::Bool(true));
    assert!(held["bob"].contains_key("_tombstone_expires_at") && !held["bob"].contains_key("name"));
    assert_eq!(replica(&client).await, items(&client, USERS).await);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn item_with_a_reserved_attribute_does_not_block_other_items() {
    let stack = LocalStack::start(StackOptions::default()).await.unwrap();
    let client = stack.dynamodb();
    put(&client, user("ada", "Ada")).await;
    let mut poison = user("eve", "Eve");
    poison.insert("_tombstone_expires_at".to_owned(), AttributeValue::N("1".to_owned()));
    put(&client, poison).await;
    put(&client, user("fay", "Fay")).await;
    stack.wait_until_drained().await;

    let held = replica(&client).await;
    assert_eq!(held.keys().collect::<Vec<_>>(), ["ada", "fay"]);
    let failures = stack.s3().list_objects_v2().bucket("users-failures").send().await.unwrap();
    let keys: Vec<_> = failures.contents().iter().filter_map(|object| object.key()).collect();
    assert!(matches!(keys[..], [key] if key.starts_with("quarantine/replicator/dynamodb/Users/")), "{keys:?}");
    stack.stop().await;
}
