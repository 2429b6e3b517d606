//! Maintenance tasks over the table of a document: the same requests, counts and reports as for every replica.

use std::time::Duration;

use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_sinks::document::PostgresTable;
use millrace_sinks::postgres::PostgresSchema;
use serde_json::{Value, json};

use super::{TableStore, declared, table_sink};
use crate::maintenance::scene::{MaintenanceScene, SOURCE, to_its_end, user};

/// The maintenance handler of the stack, with the table added.
fn over(scene: &MaintenanceScene, store: &TableStore, table: &PostgresTable) -> MaintenanceHandler {
    let mut maintenance = scene.maintenance();
    maintenance.replicas.push(Box::new(table_sink(&store.url, table)));
    maintenance
}

async fn task(maintenance: &MaintenanceHandler, request: Value) -> TaskResponse {
    to_its_end(maintenance, request, Duration::from_mins(1)).await.unwrap()
}

/// The counts of the table, such as `equal 3, items 3`.
fn counted(response: &TaskResponse) -> String {
    let counts = response.progress.to_string();
    counts.split(", ").filter_map(|count| count.strip_prefix("sql.")).collect::<Vec<_>>().join(", ")
}

async fn verified(maintenance: &MaintenanceHandler, run_id: &str) -> String {
    let request = json!({"task": "verify", "run_id": run_id, "recheck_after_seconds": 0, "replica": "sql"});
    counted(&task(maintenance, request).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_filled_verified_and_repaired_with_its_columns() {
    let columns = json!({"name": {"path": "name", "type": "text"}});
    let (scene, store) = (MaintenanceScene::start().await, TableStore::start(&columns).await);
    for name in ["same", "missing", "different", "deleted", "edited"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.stack.wait_until_drained().await;
    let maintenance = over(&scene, &store, &store.table);
    task(&maintenance, json!({"task": "backfill", "run_id": "first", "replica": "sql"})).await;
    assert_eq!(store.count("orders_live where name = 'Created'").await, 5);
    assert_eq!(verified(&maintenance, "full").await, "equal 5, items 5");
    scene.delete(SOURCE, "deleted").await;
    scene.stack.wait_until_drained().await;
    let mess = r#"delete from orders where key like '%"missing"%';
        update orders set item = jsonb_set(item, '{name,S}', '"Confidential"') where key like '%"different"%';
        update orders set name = 'Confidential' where key like '%"edited"%'"#;
    store.client.batch_execute(mess).await.unwrap();
    assert_eq!(verified(&maintenance, "found").await, "different 2, equal 1, items 4, missing 1, resurrected 1");
    let report = serde_json::to_string(&scene.report("found").await).unwrap();
    assert!(report.contains(r#""attributes":["name"]"#) && !report.contains("Confidential"), "{report}");
    let repair = json!({"task": "repair", "run_id": "mended", "recheck_after_seconds": 0, "dry_run": false,
        "replica": "sql"});
    task(&maintenance, repair).await;
    assert_eq!(verified(&maintenance, "proof").await, "equal 4, items 4, tombstones 1");
    assert_eq!(store.count("orders_live where name = 'Created'").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_fills_a_column_that_the_document_adds() {
    let (scene, store) = (MaintenanceScene::start().await, TableStore::start(&json!({})).await);
    scene.fill(300, 40).await;
    scene.stack.wait_until_drained().await;
    let before = over(&scene, &store, &store.table);
    task(&before, json!({"task": "backfill", "run_id": "first", "replica": "sql"})).await;
    assert_eq!(verified(&before, "before").await, "equal 300, items 300");

    let wider = declared("orders", &json!({"name": {"path": "name", "type": "text"}}), "null");
    let mut maintenance = over(&scene, &store, &wider);
    let sink = table_sink(&store.url, &wider);
    millrace_sinks::postgres::migrate_table(sink.database(), &wider, crate::relational::store::soon()).await.unwrap();
    assert_eq!(verified(&maintenance, "after").await, "different 300, items 300");
    let repair = json!({"task": "repair", "run_id": "fill", "recheck_after_seconds": 0, "dry_run": false,
        "replica": "sql"});
    task(&maintenance, repair).await;
    assert_eq!(verified(&maintenance, "proof").await, "equal 300, items 300");
    assert_eq!(store.count("orders_live where name is not null").await, 300);

    // The task `migrate` of a deployment with this document has nothing left to do.
    let url = store.url.clone();
    let settings = millrace_shared::postgres::PostgresSettings::parse("POSTGRES_URL", |name| {
        (name == "POSTGRES_URL").then_some(url.as_str())
    });
    maintenance.admin_database = Some(settings.unwrap().unwrap().owned(None));
    maintenance.postgres_schema = PostgresSchema { has_users: false, tables: vec![wider] };
    let response = task(&maintenance, json!({"task": "migrate", "run_id": "again"})).await;
    assert_eq!(response.progress.get("postgres.migrations_applied"), 0);
}
