//! The cache user of the functions: infra/cache.yaml allows the commands that they use, and no others. Tested on a real
//! server, in both modes.

use millrace_local::cache::CacheServer;
use millrace_shared::cache::{Cache, CacheEntry, CacheSlot, RequestQuota, key};
use millrace_shared::user::id::UserId;
use millrace_shared::user::{Timestamp, UserKey};
use millrace_shared::version_fence::MinVersion;
use redis::aio::MultiplexedConnection;

use super::tiers::section;
use crate::cache::servers::{cluster_server, settings};
use crate::users_api::service::NOW;

/// The rules of the access string. Servers before Valkey do not support `client|setinfo`, which the client does not
/// need.
fn access() -> Vec<String> {
    let resources = section("infra/cache.yaml", "Resources");
    let words = resources["FunctionsUser"]["Properties"]["AccessString"].as_str().unwrap().to_owned();
    words.split_whitespace().filter(|word| *word != "+client|setinfo").map(str::to_owned).collect()
}

/// Starts a server with that user; also returns a cache that connects as the user, and a connection with all
/// permissions.
async fn server(mode: &str) -> (CacheServer, Cache, MultiplexedConnection) {
    let (server, mut all) = if mode == "cluster" {
        cluster_server().await
    } else {
        let server = CacheServer::start().await.unwrap_or_else(|error| panic!("{error}"));
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        (server, connection)
    };
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("functions").arg(">secret").arg(access()).exec_async(&mut all).await.unwrap();
    let url = format!("redis://functions:secret@127.0.0.1:{}", server.port());
    let cache = Cache::new(settings(&[("CACHE_URL", &url), ("CACHE_MODE", mode)]), None);
    (server, cache, all)
}

async fn everything_that_functions_do(cache: &Cache) {
    let line = loop {
        // A cluster that has just been created is not ready yet.
        match cache.connection().await {
            Ok(line) if line.check_writable().await.is_ok() => break line,
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let user = UserId::parse("ada").unwrap();
    let record = key("Users", &UserKey { id: user, timestamp: Timestamp::parse(7).unwrap() });
    let entry = CacheEntry { version: 7, expires_at: None, json: b"{}".to_vec() };
    line.put_negative(&record).await.unwrap();
    assert!(line.put(&record, &entry, NOW).await.unwrap());
    assert_eq!(line.get(&record).await.unwrap(), CacheSlot::Entry(entry));
    line.invalidate(&record, MinVersion::after_write(0, 8)).await.unwrap();
    line.invalidate_all(&[(record, MinVersion::after_write(0, 9))]).await.unwrap();
    line.try_acquire("ada", RequestQuota { requests: 1, seconds: 1, burst: 2 }).await.unwrap();
}

#[tokio::test]
async fn the_user_of_the_functions_may_do_what_they_do_on_one_server() {
    let (_server, cache, _) = server("single").await;
    tokio::time::timeout(std::time::Duration::from_secs(10), everything_that_functions_do(&cache)).await.unwrap();
}

#[tokio::test]
async fn the_user_of_the_functions_may_do_what_they_do_in_a_cluster() {
    let (_server, cache, _) = server("cluster").await;
    tokio::time::timeout(std::time::Duration::from_secs(10), everything_that_functions_do(&cache)).await.unwrap();
}

#[tokio::test]
async fn it_may_nothing_else_and_reach_no_other_key() {
    let (_server, _, mut all) = server("single").await;
    for refused in [
        "get other",
        "set other 1",
        "keys *",
        "scan 0",
        "del millrace:1:{x}",
        "flushall",
        "config get *",
        "acl list",
        "info",
    ] {
        let mut dry = redis::cmd("ACL");
        dry.arg("DRYRUN").arg("functions").arg(refused.split(' ').collect::<Vec<_>>());
        let message: String = dry.query_async(&mut all).await.unwrap();
        assert_ne!(message, "OK", "{refused}");
    }
}
