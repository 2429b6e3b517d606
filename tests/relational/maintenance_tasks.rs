//! Maintenance tasks over both replicas: backfill, verify, repair and redrive process each of them.

use std::time::Duration;

use millrace_maintenance::MaintenanceHandler;
use millrace_maintenance::task::TaskResponse;
use millrace_sinks::Sink as _;
use millrace_sinks::postgres::{PostgresSchema, grant_app_role};
use serde_json::{Value, json};

use super::store::{RelationalStore, empty, is_key, sink, soon};
use crate::maintenance::scene::{FORMER, MaintenanceScene, REPLICA, SOURCE, invoke, record, text, to_its_end, user};
use crate::postgres::connect;
use crate::replication::events::EventBuilder;

/// The maintenance handler of the stack, with the PostgreSQL replica added.
fn over_both(scene: &MaintenanceScene, store: &RelationalStore) -> MaintenanceHandler {
    let mut maintenance = scene.maintenance();
    maintenance.replicas.push(Box::new(sink(&store.url)));
    maintenance
}

async fn task(maintenance: &MaintenanceHandler, order: Value) -> TaskResponse {
    to_its_end(maintenance, order, Duration::from_mins(1)).await.unwrap()
}

/// The counts of this replica, e.g. `equal 3, items 3`.
fn counted(response: &TaskResponse, sink: &str) -> String {
    let prefix = format!("{sink}.");
    let progress = response.progress.to_string();
    let own = progress.split(", ").filter_map(|count| count.strip_prefix(&prefix));
    own.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_is_filled_in_segments_and_found_equal() {
    let (scene, store) = (MaintenanceScene::start().await, RelationalStore::start().await);
    scene.fill(700, 40).await;
    scene.stack.wait_until_drained().await;
    let maintenance = over_both(&scene, &store);
    for segment in 0..3 {
        let order = json!({"task": "backfill", "run_id": "first", "segment": segment, "segments": 3});
        task(&maintenance, order).await;
    }
    assert_eq!(store.count("deleted_at is null").await, 700);
    let mut equal = 0;
    for segment in 0..3 {
        let order =
            json!({"task": "verify", "run_id": "proof", "segment": segment, "segments": 3, "recheck_after_seconds": 0});
        let response = task(&maintenance, order).await;
        let counts = counted(&response, "postgres");
        assert!(!counts.contains("missing") && !counts.contains("different") && !counts.contains("extra"), "{counts}");
        let count = counts.split(", ").find_map(|count| count.strip_prefix("equal ")).unwrap_or("0").parse::<u32>();
        equal += count.unwrap();
    }
    assert_eq!(equal, 700);
    // A second backfill finds nothing missing, and never overwrites a change.
    let moved = "update users set revision = '\\xff'::bytea || revision where user_id = 'u00007'";
    assert_eq!(store.client.execute(moved, &[]).await.unwrap(), 1);
    task(&maintenance, json!({"task": "backfill", "run_id": "second"})).await;
    assert_eq!(store.count("substr(revision, 1, 1) = '\\xff'").await, 1);
    store.assert_counts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_in_postgres_are_found_by_verify_and_fixed_by_repair() {
    let (scene, store) = (MaintenanceScene::start().await, RelationalStore::start().await);
    for name in ["same", "missing", "different", "deleted"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.stack.wait_until_drained().await;
    let maintenance = over_both(&scene, &store);
    task(&maintenance, json!({"task": "backfill", "run_id": "first"})).await;
    scene.delete(SOURCE, "deleted").await;
    scene.stack.wait_until_drained().await;
    let mess = r#"delete from users where user_id = 'missing';
        update users set item = jsonb_set(item, '{name,S}', '"Confidential"') where user_id = 'different';
        insert into users (key, revision, item)
            select replace(key, 'same', 'extra'), revision, item from users where user_id = 'same'"#;
    store.client.batch_execute(mess).await.unwrap();
    let response = task(&maintenance, json!({"task": "verify", "run_id": "found", "recheck_after_seconds": 0})).await;
    assert_eq!(counted(&response, "postgres"), "different 1, equal 1, items 4, missing 1, resurrected 2");
    let report = scene.report("found").await;
    let different = report.iter().find(|line| line["kind"] == "different").unwrap();
    assert_eq!((&different["sink"], &different["attributes"]), (&json!("postgres"), &json!(["name"])));
    assert!(!serde_json::to_string(&report).unwrap().contains("Confidential"));

    task(&maintenance, json!({"task": "repair", "run_id": "mended", "recheck_after_seconds": 0, "dry_run": false}))
        .await;
    let response = task(&maintenance, json!({"task": "verify", "run_id": "proof", "recheck_after_seconds": 0})).await;
    assert_eq!(counted(&response, "postgres"), "equal 3, items 3, tombstones 2");
    let name = "select name from users where user_id = 'different'";
    assert_eq!(store.client.query_one(name, &[]).await.unwrap().get::<_, &str>(0), "Created", "the columns as well");
    store.assert_counts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_of_old_records_reconciles_both_replicas_with_the_source() {
    let (scene, store) = (MaintenanceScene::start().await, RelationalStore::start().await);
    scene.put(SOURCE, user("kept", "Now")).await;
    scene.stack.wait_until_drained().await;
    let old = |event: EventBuilder| record(event, FORMER);
    let records = vec![old(EventBuilder::named("kept", 5, "Old")), old(EventBuilder::named("deleted", 6, "Old"))];
    scene.give_up("replicator", records, false).await;
    let maintenance = over_both(&scene, &store);
    let response = task(&maintenance, json!({"task": "redrive", "run_id": "again", "dry_run": false})).await;
    assert!(response.done);
    assert!(scene.objects("aws/").await.is_empty(), "it is moved below redriven");
    assert_eq!(store.users().await, ["kept"]);
    assert_eq!(
        store.count(&format!("deleted_at is not null and {}", is_key("deleted"))).await,
        1,
        "its age is remembered"
    );
    let row = store.client.query_one("select name from users where user_id = 'kept'", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "Now");
    assert_eq!(scene.item(REPLICA, "kept").await.unwrap()["name"], text("Now"));
    store.assert_counts().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_makes_the_tables_and_lets_the_functions_in() {
    let scene = MaintenanceScene::start().await;
    let url = empty().await;
    let mut maintenance = scene.maintenance();
    let fault = invoke(&maintenance, &json!({"task": "migrate"}), Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(fault.kind().as_str(), "TaskInvalid");
    assert!(fault.to_string().contains("POSTGRES_URL"), "{fault}");

    // The owner is a different role than the one that the functions log in as.
    let owner = sink(&url.replace("millrace@", "postgres@"));
    maintenance.postgres_schema = PostgresSchema::for_users();
    maintenance.admin_database = Some(settings(&url.replace("millrace@", "postgres@")).owner_database(None));
    let response = task(&maintenance, json!({"task": "migrate", "run_id": "first"})).await;
    assert!(response.progress.to_string().contains("postgres.migrations_applied"), "{}", response.progress);
    assert!(!scene.report("first").await.is_empty());
    let line = connect(&url.replace("millrace@", "postgres@")).await;
    line.batch_execute("drop role if exists reader; create role rds_iam").await.unwrap();
    grant_app_role(owner.database(), "reader", soon()).await.unwrap();
    grant_app_role(owner.database(), "reader", soon()).await.unwrap();
    let reader = sink(&url.replace("millrace@", "reader@"));
    reader.check().await.unwrap();
    let by_iam = "select pg_has_role('reader', 'rds_iam', 'member')";
    assert!(line.query_one(by_iam, &[]).await.unwrap().get::<_, bool>(0));
    let made = connect(&url.replace("millrace@", "reader@")).await.batch_execute("create table mine ()").await;
    assert!(made.is_err(), "it makes no tables");

    let response = task(&maintenance, json!({"task": "migrate", "run_id": "second"})).await;
    assert_eq!(response.progress.to_string(), "", "a second time there is nothing to do");
    line.batch_execute("drop owned by reader; drop role reader; drop role rds_iam").await.unwrap();
}

fn settings(url: &str) -> millrace_shared::postgres::PostgresSettings {
    millrace_shared::postgres::PostgresSettings::parse("POSTGRES_URL", |name| (name == "POSTGRES_URL").then_some(url))
        .unwrap()
        .unwrap()
}
