//! PostgreSQL is killed and restarted while another program writes to the table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, PutRequest, WriteRequest};
use futures::{StreamExt as _, stream};
use millrace_local::tier::TierServer;
use serde_json::json;

use super::tcp_proxy::TcpProxy;
use crate::maintenance::scene::{MaintenanceScene, text};
use crate::postgres::{connect, server};
use crate::table_shape::{ORDERS, TableShape, USERS};

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

/// Returns whether change `n` has a value that its column cannot store.
fn is_unfit(n: usize) -> bool {
    n % 7 == 5
}

fn request(shape: TableShape, n: usize) -> WriteRequest {
    let mut item = shape.key(&name(n), "1");
    if is_delete(n) {
        let delete = DeleteRequest::builder().set_key(Some(item)).build().unwrap();
        return WriteRequest::builder().delete_request(delete).build();
    }
    item.insert("name".to_owned(), text(&format!("Name {n}")));
    let number = AttributeValue::N(n.to_string());
    item.insert("n".to_owned(), if is_unfit(n) { text("no number") } else { number.clone() });
    item.insert("email".to_owned(), text(&format!("{n}@example.com")));
    item.insert("placed".to_owned(), number);
    item.insert("tags".to_owned(), AttributeValue::Ss(vec![format!("tag {n}"), "all".to_owned()]));
    item.insert("address".to_owned(), AttributeValue::M([("city".to_owned(), text("Paris"))].into()));
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}

/// The replication document of the orders: a copy in DynamoDB, and a table with a column of every kind of value.
fn document() -> String {
    let column = |path: &str, kind: &str| json!({"path": path, "type": kind});
    let columns = json!({
        "name": column("name", "text"), "n": column("n", "bigint"), "amount": column("placed", "numeric"),
        "placed_at": {"path": "placed", "type": "timestamptz", "format": "epoch_seconds"},
        "tags": column("tags", "text[]"), "address": column("address", "jsonb"),
        "city": column("address.city", "text"), "email": column("email", "text"),
    });
    json!({"version": 1, "replicas": [
        {"name": "dynamodb", "sink": "dynamodb", "table": "OrdersReplica"},
        {"name": "sql", "sink": "postgres", "table": "orders", "columns": columns},
    ]})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_changes_arrive_though_the_server_is_killed_among_them() {
    let rows = "select user_id, name from users where deleted_at is null";
    let expected = |n: usize| (name(n), format!("Name {n}"));
    Box::pin(fifty_thousand_changes_arrive(USERS, "postgres", rows, expected)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_changes_of_any_table_arrive_in_typed_columns_though_the_server_is_killed() {
    let rows = "select key, concat_ws('|', name, coalesce(n::text, 'null'), amount, extract(epoch from placed_at)::bigint, \
        array_to_string(tags, ','), address->>'city', city, email) from orders_live";
    let expected = |n: usize| {
        let number = if is_unfit(n) { "null".to_owned() } else { n.to_string() };
        let columns = format!("Name {n}|{number}|{n}|{n}|all,tag {n}|Paris|Paris|{n}@example.com");
        (ORDERS.canonical_key(&ORDERS.key(&name(n), "1")).as_str().to_owned(), columns)
    };
    Box::pin(fifty_thousand_changes_arrive(ORDERS, "sql", rows, expected)).await;
}

/// Writes the changes while the server is killed, and compares the rows of this query with those that are expected.
async fn fifty_thousand_changes_arrive(
    shape: TableShape,
    relational: &str,
    query: &str,
    expected: impl Fn(usize) -> (String, String),
) {
    let server = server().await;
    let url = server.url();
    let wire = TcpProxy::to(&url).await;
    let mut options = MaintenanceScene::options_of(shape);
    options.postgres = TierServer::At(wire.url().to_owned());
    if shape != USERS {
        options.parameters.insert("Replication".to_owned(), document());
    }
    let scene = MaintenanceScene::with(shape, options).await;

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
            let requests = (first..first + AT_ONCE).map(|n| request(shape, n)).collect();
            let put = scene.dynamodb.batch_write_item().request_items(shape.table, requests);
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
    let response = scene.task(json!({"task": "verify", "recheck_after_seconds": 0})).await;
    let counts: BTreeSet<String> = response.progress.to_string().split(", ").map(str::to_owned).collect();
    for replica in ["dynamodb", relational] {
        let own: Vec<_> = counts.iter().filter_map(|count| count.strip_prefix(&format!("{replica}."))).collect();
        let tombstones = RECORDS - live;
        assert_eq!(own, [format!("equal {live}"), format!("items {live}"), format!("tombstones {tombstones}")]);
    }
    assert_eq!(response.progress.get("source.items"), u64::try_from(live).unwrap(), "{}", response.progress);
    assert_eq!(scene.objects("quarantine/").await, [""; 0], "nobody's poison");
    // Compare the rows themselves, too.
    let rows = connect(&url).await;
    let rows = rows.query(query, &[]).await.unwrap();
    let rows: BTreeSet<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, left.filter(|n| !is_delete(*n)).map(expected).collect());
    scene.stack.stop().await;
}
