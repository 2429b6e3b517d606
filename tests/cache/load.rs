//! The cache is killed and restarted while another program writes to the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures::{StreamExt, stream};
use millrace_api::cache::{CacheAside, CacheTimeouts};
use millrace_local::cache::CacheServer;
use millrace_local::stack::StackOptions;
use millrace_local::tier::TierServer;
use millrace_shared::clock::Clock;
use serde_json::json;

use super::servers::at;
use crate::maintenance::scene::{MaintenanceScene, SOURCE, SceneItem};
use crate::table_shape::USERS;
use crate::users_api::service::{ApiHandle, config};

const CHANGES: u64 = 50_000;
const RECORDS: u64 = 500;
/// Items per batch write.
const AT_ONCE: u64 = 25;
const KILLS: usize = 5;

fn item(n: u64) -> SceneItem {
    SceneItem::from([
        ("user_id".to_owned(), AttributeValue::S(format!("u{}", n % RECORDS))),
        ("timestamp".to_owned(), AttributeValue::N("1".to_owned())),
        ("name".to_owned(), AttributeValue::S(format!("Name {n}"))),
        // The program does not count versions: the version of a record never changes.
        ("version".to_owned(), AttributeValue::N("7".to_owned())),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_killed_under_load_ends_with_every_replica_equal_and_nothing_stale() {
    let server = CacheServer::start().await.unwrap();
    let url = server.url();
    let options = StackOptions { cache: TierServer::At(url.clone()), ..StackOptions::default() };
    let scene = MaintenanceScene::with(USERS, options).await;
    let patience = CacheTimeouts { call: Duration::from_secs(2), cooldown: Duration::from_millis(1) };
    let cache = CacheAside::new(at(&url), SOURCE, patience);
    let api = ApiHandle(millrace_api::app(&config(SOURCE), scene.dynamodb.clone(), Some(cache), Clock::system()));

    let (written, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mortal = {
        let written = Arc::clone(&written);
        tokio::spawn(async move {
            let mut server = server;
            for kill in 1..=KILLS {
                let after = usize::try_from(CHANGES).unwrap() * kill / (KILLS + 1);
                while written.load(Ordering::Relaxed) < after {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                server.kill();
                tokio::time::sleep(Duration::from_millis(100)).await;
                server.restart().await.unwrap();
            }
            server
        })
    };
    let reader = {
        let (api, done) = (api.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut reads = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let response = api.get(&format!("/users/u{}/1", reads * 7 % RECORDS)).await;
                assert!(response.status == 200 || response.status == 404, "{}", response.text);
                reads += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            reads
        })
    };
    let put = |first| {
        let request = |n| PutRequest::builder().set_item(Some(item(n))).build().unwrap();
        let requests = (first..first + AT_ONCE).map(|n| WriteRequest::builder().put_request(request(n)).build());
        let put = scene.dynamodb.batch_write_item().request_items(SOURCE, requests.collect());
        let written = &written;
        async move {
            put.send().await.unwrap();
            written.fetch_add(usize::try_from(AT_ONCE).unwrap(), Ordering::Relaxed);
        }
    };
    // In rounds, so that each record's last change is the one with the highest number.
    for turn in 0..CHANGES / RECORDS {
        let firsts = (turn * RECORDS..(turn + 1) * RECORDS).step_by(usize::try_from(AT_ONCE).unwrap());
        stream::iter(firsts).map(put).buffer_unordered(8).collect::<Vec<()>>().await;
    }
    scene.stack.wait_until_drained().await;
    done.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
    let _server = mortal.await.unwrap();

    let response = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let progress = &response.progress;
    assert_eq!((progress.get("source.items"), progress.sum(".equal")), (RECORDS, RECORDS), "{progress}");
    for n in 0..RECORDS {
        let response = api.get(&format!("/users/u{n}/1")).await;
        let expected = format!("Name {}", CHANGES - RECORDS + n);
        assert_eq!(response.json["user"]["name"], expected, "read from the {}", response.json["source"]);
    }
    scene.stack.stop().await;
}
