//! PostgreSQL is killed and restarted while another program writes to the table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, PutRequest, WriteRequest};
use futures::{StreamExt as _, stream};
use millrace_local::stack::StackOptions;
use millrace_local::tier::TierServer;
use serde_json::json;

use super::tcp_proxy::TcpProxy;
use crate::maintenance::scene::{FAILURES, MaintenanceScene, SOURCE, key, text, user};
use crate::postgres::{connect, server};
use crate::table_shape::USERS;

const CHANGES: usize = 50_000;
const RECORDS: usize = 2_000;
/// Items per batch write.
const AT_ONCE: usize = 25;
const KILLS: usize = 3;
/// The number of changes that are written while the server is down.
const MISSED: usize = 3_000;

fn name(n: usize) -> String {
    format!("u{:04}", n % RECORDS)
}

/// Returns whether change `n` is a delete: every record is written often and deleted sometimes.
fn is_delete(n: usize) -> bool {
    n % 11 == 3
}

fn request(n: usize) -> WriteRequest {
    if is_delete(n) {
        let delete = DeleteRequest::builder().set_key(Some(key(&name(n)))).build().unwrap();
        return WriteRequest::builder().delete_request(delete).build();
    }
    let mut item = user(&name(n), &format!("Name {n}"));
    item.insert("n".to_owned(), AttributeValue::N(n.to_string()));
    item.insert("email".to_owned(), text(&format!("{n}@example.com")));
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_changes_arrive_though_the_server_is_killed_among_them() {
    let server = server().await;
    let url = server.url();
    let wire = TcpProxy::to(&url).await;
    let options = StackOptions { postgres: TierServer::At(wire.url().to_owned()), ..StackOptions::default() };
    let scene = MaintenanceScene::with(USERS, options).await;

    let written = Arc::new(AtomicUsize::new(0));
    let mortal = {
        let written = Arc::clone(&written);
        let reached = async move |count| {
            while written.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::spawn(async move {
            let mut server = server;
            for kill in 1..=KILLS {
                reached(CHANGES * kill / (KILLS + 1)).await;
                server.kill();
                let before = wire.connections();
                reached(CHANGES * kill / (KILLS + 1) + MISSED).await;
                assert!(wire.connections() > before, "nobody tried while it was gone");
                server.start().await.unwrap();
            }
            server
        })
    };
    // In rounds, so that each record's last change is the one with the highest number.
    for turn in (0..CHANGES).step_by(RECORDS) {
        let put = |first: usize| {
            let requests = (first..first + AT_ONCE).map(request).collect();
            let put = scene.dynamodb.batch_write_item().request_items(SOURCE, requests);
            let written = &written;
            async move {
                put.send().await.unwrap();
                written.fetch_add(AT_ONCE, Ordering::Relaxed);
            }
        };
        stream::iter((turn..turn + RECORDS).step_by(AT_ONCE)).map(put).buffer_unordered(8).collect::<Vec<()>>().await;
    }
    let _server = mortal.await.unwrap();
    scene.stack.wait_until_drained().await;

    let left = CHANGES - RECORDS..CHANGES;
    let live = left.clone().filter(|n| !is_delete(*n)).count();
    let answer = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let told: BTreeSet<String> = answer.progress.to_string().split(", ").map(str::to_owned).collect();
    for replica in ["dynamodb", "postgres"] {
        let own: Vec<_> = told.iter().filter_map(|count| count.strip_prefix(&format!("{replica}."))).collect();
        let tombstones = RECORDS - live;
        assert_eq!(own, [format!("equal {live}"), format!("items {live}"), format!("tombstones {tombstones}")]);
    }
    assert_eq!(answer.progress.get("source.items"), u64::try_from(live).unwrap(), "{}", answer.progress);
    let given_up = scene.s3.list_objects_v2().bucket(FAILURES).prefix("quarantine/").send().await.unwrap();
    assert_eq!(given_up.key_count(), Some(0), "nobody's poison");
    // Compare the rows themselves, too.
    let rows = connect(&url).await;
    let rows = rows.query("select user_id, name from users where deleted_at is null", &[]).await.unwrap();
    let rows: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, left.filter(|n| !is_delete(*n)).map(|n| (name(n), format!("Name {n}"))).collect());
    scene.stack.stop().await;
}
