//! Maintenance tasks over the table of a document: the same requests, counts and reports as for every replica.

use std::time::Duration;

use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_shared::environment::Environment;
use millrace_sinks::config::{ReplicaClients, SinksConfig};
use millrace_sinks::document::PostgresTable;
use millrace_sinks::postgres::PostgresSchema;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{TableStore, declared, table_sink};
use crate::maintenance::scene::{FORMER, MaintenanceScene, SOURCE, record, text, to_its_end, user};
use crate::maintenance::transforms::person;
use crate::relational::store::apply_within;
use crate::replication::events::EventBuilder;

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
async fn redrive_brings_a_row_to_the_state_of_the_source_and_never_to_the_record() {
    let columns = json!({"name": {"path": "name", "type": "text"}});
    let (scene, store) = (MaintenanceScene::start().await, TableStore::start(&columns).await);
    for name in ["renamed", "deleted", "kept"] {
        scene.put(SOURCE, user(name, "Now")).await;
    }
    scene.delete(SOURCE, "deleted").await;
    scene.stack.wait_until_drained().await;
    let maintenance = over(&scene, &store, &store.table);
    let records = [
        EventBuilder::named("renamed", 5, "Then"),
        EventBuilder::named("deleted", 6, "Then"),
        EventBuilder::deleted("kept", 7),
    ];
    let records = records.map(|event| record(event, FORMER)).to_vec();
    let object = scene.give_up("replicator", records, false).await;
    let body = scene.object(&object).await;

    let request = |run: &str, dry_run: bool| json!({"task": "redrive", "run_id": run, "dry_run": dry_run});
    let dry = task(&maintenance, request("dry", true)).await;
    assert_eq!(dry.progress.get("redrive.would_redrive"), 1);
    assert_eq!(store.count("orders").await, 0, "a dry run writes nothing");
    let real = task(&maintenance, request("real", false)).await;
    assert_eq!((real.progress.get("redrive.redriven"), real.progress.get("redrive.failed")), (1, 0));
    assert_eq!(store.count("orders_live where name = 'Now'").await, 2);
    assert_eq!(store.count("orders where deleted_at is not null and name is null and item is null").await, 1);
    assert_eq!(store.count("orders where coalesce(item::text, name, '') like '%Then%'").await, 0);
    assert_eq!(verified(&maintenance, "verified").await, "equal 2, items 2, tombstones 1");

    // As if the invocation had ended after the write and before the object was moved.
    scene.put_object(&object, body).await;
    let state = "select string_agg(concat_ws(' ', key, encode(revision, 'hex'), name), ', ' order by key) from orders";
    let before = store.text(state).await;
    let again = task(&maintenance, request("again", false)).await;
    assert_eq!((again.progress.get("redrive.redriven"), again.progress.get("redrive.written")), (1, 0));
    assert_eq!(store.text(state).await, before);
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
    maintenance.admin_database = Some(settings.unwrap().unwrap().owner_database(None));
    maintenance.postgres_schema = PostgresSchema { users: None, tables: vec![wider] };
    let response = task(&maintenance, json!({"task": "migrate", "run_id": "again"})).await;
    assert_eq!(response.progress.get("postgres.migrations_applied"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_contain_the_values_of_the_transformed_item() {
    const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";
    let column = |path: &str| json!({"path": path, "type": "text"});
    let columns = json!({"label": column("title"), "email": column("email"), "phone": column("phone")});
    let (scene, store) = (MaintenanceScene::start().await, TableStore::start(&columns).await);
    let document = json!({
        "version": 1, "hash_keys": {"pii": SECRET},
        "replicas": [{
            "name": "sql", "sink": "postgres", "table": "orders", "columns": columns,
            "where": [{"status": {"S": ["active"]}}],
            "attributes": {
                "include": ["user_id", "timestamp", "status", "name", "email"],
                "hash": {"email": "pii"}, "rename": {"name": "title"},
            },
        }],
    });
    let variables = [
        ("REPLICATION", document.to_string()),
        ("POSTGRES_URL", store.url.clone()),
        (SECRET, "a key for the hashes of tests".to_owned()),
    ];
    let environment: Environment = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let config = SinksConfig::parse(&environment).unwrap();
    let clients = ReplicaClients::from(scene.dynamodb.clone());
    let mut maintenance = scene.maintenance();
    maintenance.replicas.extend(config.replicas(&clients, config.postgres(None)));

    for (name, status) in [("ada", "active"), ("bob", "draft")] {
        let mut item = person(name, status);
        item.insert("phone".to_owned(), text("555-0100"));
        scene.put(SOURCE, item).await;
    }
    scene.stack.wait_until_drained().await;
    let filled = task(&maintenance, json!({"task": "backfill", "run_id": "first", "replica": "sql"})).await;
    assert_eq!((filled.progress.get("sql.written"), filled.progress.get("sql.filtered")), (1, 1));
    assert_eq!(store.text("select label from orders_live").await.as_deref(), Some("The name of ada"));
    assert_eq!(store.text("select email from orders_live").await.unwrap().len(), 64);
    assert_eq!(store.count("orders where phone is null and not item ? 'phone' and not item ? 'name'").await, 1);
    assert_eq!(verified(&maintenance, "clean").await, "equal 1, items 1");

    // A value that the rules do not let pass is a difference, also in a column alone.
    store.client.batch_execute("update orders set phone = '555-0100'").await.unwrap();
    assert_eq!(verified(&maintenance, "unmasked").await, "different 1, items 1");
    let repair = json!({"task": "repair", "run_id": "mended", "recheck_after_seconds": 0, "dry_run": false,
        "replica": "sql"});
    task(&maintenance, repair).await;
    assert_eq!(verified(&maintenance, "mended").await, "equal 1, items 1");

    // The stream applies the same rules: an item that leaves the filter leaves a tombstone.
    let table = scene.dynamodb.describe_table().table_name(SOURCE).send().await.unwrap().table.unwrap();
    let label = table.latest_stream_label.unwrap();
    let sinks = config.sinks(&clients, config.postgres(None), None);
    for (number, (name, status)) in (1..).zip([("ada", "draft"), ("bob", "draft"), ("cleo", "active")]) {
        let item = person(name, status);
        scene.put(SOURCE, item.clone()).await;
        let value = |name: &str| item[name].as_s().unwrap();
        let image = json!({
            "user_id": {"S": name}, "timestamp": {"N": item["timestamp"].as_n().unwrap()}, "phone": {"S": "555-0100"},
            "name": {"S": value("name")}, "status": {"S": status}, "email": {"S": value("email")},
        });
        let change = record(EventBuilder::image(name, number, &image.to_string()), &label);
        let event = RawValue::from_string(json!({"Records": [change]}).to_string()).unwrap();
        apply_within(&*sinks[0], &event, Duration::from_secs(30)).await;
    }
    assert_eq!(store.text("select label from orders_live").await.as_deref(), Some("The name of cleo"));
    assert_eq!(store.count("orders where deleted_at is not null").await, 2);
    assert_eq!(store.count("orders where item::text like '%555-0100%' or phone is not null").await, 0);
    assert_eq!(verified(&maintenance, "streamed").await, "equal 1, items 1, tombstones 2");
}
