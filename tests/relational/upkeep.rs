//! Maintenance over both replicas: what is filled, compared, mended and redriven in the one is in the other.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use maintenance::Maintenance;
use maintenance::task::Answer;
use replicator::Replicator;
use replicator::sink::Sink as _;
use replicator::sink::postgres::{admit, migrate};
use serde_json::{Value, json};
use shared::quarantine::Quarantine;
use shared::raw_item::RawItem;

use super::store::{Store, empty, sink, soon};
use crate::maintenance::scene::{FAILURES, FORMER, REPLICA, SOURCE, Scene, invoke, record, text, to_its_end, user};
use crate::postgres::connect;
use crate::replication::rig::hand_over;
use crate::replication::story::{self, Told, What, event};

/// The stack's own maintenance, with a relational replica beside the other.
fn over_both(scene: &Scene, store: &Store) -> Maintenance {
    let mut maintenance = scene.maintenance();
    maintenance.replicas.push(Box::new(sink(&store.url)));
    maintenance
}

async fn task(maintenance: &Maintenance, order: Value) -> Answer {
    to_its_end(maintenance, order, Duration::from_mins(1)).await.unwrap()
}

/// What was counted of this replica, e.g. `equal 3, items 3`.
fn counted(answer: &Answer, sink: &str) -> String {
    let prefix = format!("{sink}.");
    let said = answer.progress.to_string();
    let own = said.split(", ").filter_map(|count| count.strip_prefix(&prefix));
    own.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_replica_is_filled_in_segments_and_found_equal() {
    let (scene, store) = (Scene::start().await, Store::start().await);
    scene.fill(700, 40).await;
    scene.stack.drained().await;
    let maintenance = over_both(&scene, &store);
    for segment in 0..3 {
        let order = json!({"task": "backfill", "run": "first", "segment": segment, "segments": 3});
        task(&maintenance, order).await;
    }
    assert_eq!(store.count("deleted_at is null").await, 700);
    let mut equal = 0;
    for segment in 0..3 {
        let order = json!({"task": "verify", "run": "proof", "segment": segment, "segments": 3, "lag_seconds": 0});
        let answer = task(&maintenance, order).await;
        let said = counted(&answer, "postgres");
        assert!(!said.contains("missing") && !said.contains("different") && !said.contains("extra"), "{said}");
        let count = said.split(", ").find_map(|count| count.strip_prefix("equal ")).unwrap_or("0").parse::<u32>();
        equal += count.unwrap();
    }
    assert_eq!(equal, 700);
    // A second time there is nothing to fill in, and a change is never written over.
    let moved = "update users set revision = '\\xff'::bytea || revision where user_id = 'u00007'";
    assert_eq!(store.client.execute(moved, &[]).await.unwrap(), 1);
    task(&maintenance, json!({"task": "backfill", "run": "second"})).await;
    assert_eq!(store.count("substr(revision, 1, 1) = '\\xff'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_found_and_mended_and_then_equal() {
    let (scene, store) = (Scene::start().await, Store::start().await);
    for name in ["same", "missing", "different", "deleted"] {
        scene.put(SOURCE, user(name, "Created")).await;
    }
    scene.stack.drained().await;
    let maintenance = over_both(&scene, &store);
    task(&maintenance, json!({"task": "backfill", "run": "first"})).await;
    scene.delete(SOURCE, "deleted").await;
    scene.stack.drained().await;
    let mess = r#"delete from users where user_id = 'missing';
        update users set item = jsonb_set(item, '{name,S}', '"Confidential"') where user_id = 'different';
        insert into users (user_id, "timestamp", revision, item)
            select 'extra', 1, revision, item from users where user_id = 'same'"#;
    store.client.batch_execute(mess).await.unwrap();
    let answer = task(&maintenance, json!({"task": "verify", "run": "found", "lag_seconds": 0})).await;
    assert_eq!(counted(&answer, "postgres"), "different 1, equal 1, items 4, missing 1, resurrected 2");
    let report = scene.report("found").await;
    let different = report.iter().find(|line| line["kind"] == "different").unwrap();
    assert_eq!((&different["sink"], &different["attributes"]), (&json!("postgres"), &json!(["name"])));
    assert!(!serde_json::to_string(&report).unwrap().contains("Confidential"));

    task(&maintenance, json!({"task": "repair", "run": "mended", "lag_seconds": 0, "dry_run": false})).await;
    let answer = task(&maintenance, json!({"task": "verify", "run": "proof", "lag_seconds": 0})).await;
    assert_eq!(counted(&answer, "postgres"), "equal 3, items 3, tombstones 2");
    let name = "select name from users where user_id = 'different'";
    assert_eq!(store.client.query_one(name, &[]).await.unwrap().get::<_, &str>(0), "Created", "the columns as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_weeks_ago_is_brought_to_the_source_s_state_in_both() {
    let (scene, store) = (Scene::start().await, Store::start().await);
    scene.put(SOURCE, user("kept", "Now")).await;
    scene.stack.drained().await;
    let old = |told: Told| record(told, FORMER);
    let records = vec![old(Told::named("kept", 5, "Old")), old(Told::named("deleted", 6, "Old"))];
    scene.give_up("replicator", records, false).await;
    let maintenance = over_both(&scene, &store);
    let answer = task(&maintenance, json!({"task": "redrive", "run": "again", "dry_run": false})).await;
    assert!(answer.done);
    assert!(scene.objects("aws/").await.is_empty(), "it is retired");
    assert_eq!(store.users().await, ["kept"]);
    assert_eq!(store.count("deleted_at is not null and user_id = 'deleted'").await, 1, "its age is remembered");
    let row = store.client.query_one("select name from users where user_id = 'kept'", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "Now");
    assert_eq!(scene.item(REPLICA, "kept").await.unwrap()["name"], text("Now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_makes_the_tables_and_lets_the_functions_in() {
    let scene = Scene::start().await;
    let url = empty().await;
    let mut maintenance = scene.maintenance();
    let fault = invoke(&maintenance, &json!({"task": "migrate"}), Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(fault.name(), "TaskInvalid");
    assert!(fault.to_string().contains("POSTGRES_URL"), "{fault}");

    // The owner is another than who the functions log in as.
    let owner = sink(&url.replace("millrace@", "postgres@"));
    maintenance.owned = Some(settings(&url.replace("millrace@", "postgres@")).owned(None));
    let answer = task(&maintenance, json!({"task": "migrate", "run": "first"})).await;
    assert!(answer.progress.to_string().contains("postgres.steps"), "{}", answer.progress);
    assert!(!scene.report("first").await.is_empty());
    let line = connect(&url.replace("millrace@", "postgres@")).await;
    line.batch_execute("drop role if exists reader; create role rds_iam").await.unwrap();
    admit(owner.database(), "reader", soon()).await.unwrap();
    admit(owner.database(), "reader", soon()).await.unwrap();
    let reader = sink(&url.replace("millrace@", "reader@"));
    reader.check().await.unwrap();
    let by_iam = "select pg_has_role('reader', 'rds_iam', 'member')";
    assert!(line.query_one(by_iam, &[]).await.unwrap().get::<_, bool>(0));
    let made = connect(&url.replace("millrace@", "reader@")).await.batch_execute("create table mine ()").await;
    assert!(made.is_err(), "it makes no tables");

    let answer = task(&maintenance, json!({"task": "migrate", "run": "second"})).await;
    assert_eq!(answer.progress.to_string(), "", "a second time there is nothing to do");
    line.batch_execute("drop owned by reader; drop role reader; drop role rds_iam").await.unwrap();
}

fn settings(url: &str) -> shared::postgres::Settings {
    shared::postgres::Settings::parse("POSTGRES_URL", |name| (name == "POSTGRES_URL").then_some(url)).unwrap().unwrap()
}

/// What the nth change does to its user: every user is written often, and deleted now and then.
fn nth(n: u64, users: u64) -> Told {
    let user_id = format!("u{:05}", n * 7 % users);
    match n % 11 {
        0 => Told::deleted(&user_id, n),
        1 => Told::expired(&user_id, n),
        _ => Told::named(&user_id, n, &format!("Name {n}")),
    }
}

/// Fifty batches, delivered as Lambda does, to a server that is killed twice among them.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_changes_arrive_though_the_server_is_killed_among_them() {
    const CHANGES: u64 = 50_000;
    const USERS: u64 = 2_000;
    let scene = Scene::start().await;
    let mut server = crate::postgres::server().await;
    let url = server.url();
    migrate(sink(&url).database(), soon()).await.unwrap();
    let quarantine = Quarantine::new(scene.s3.clone(), FAILURES.to_owned(), "replicator");
    let replicator = Replicator::new(vec![Box::new(sink(&url))], quarantine);

    let mut refused = 0;
    let delivering = async {
        let told: Vec<_> = (1..=CHANGES).map(|n| nth(n, USERS)).collect();
        for batch in told.chunks(1_000) {
            let mut from = 0;
            // From the lowest position that is not safe, until all of it is.
            while let Some(position) = hand_over(&replicator, &event(&batch[from..])).await.identifier() {
                refused += 1;
                from = batch.iter().position(|told| told.number.to_string() == position).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let trouble = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.start().await.unwrap();
        }
    };
    tokio::join!(delivering, trouble);
    assert!(refused > 0, "it was killed among them");
    assert!(scene.objects("quarantine/").await.is_empty(), "nobody's poison");

    // The source as those changes left it.
    let last: BTreeMap<_, _> = (1..=CHANGES).map(|n| nth(n, USERS)).map(|told| (told.user_id.clone(), told)).collect();
    let live: Vec<_> = last.values().filter(|told| matches!(told.what, What::Named(_))).collect();
    stream::iter(&live).map(|told| put(&scene, told)).buffer_unordered(32).collect::<()>().await;
    let mut maintenance = scene.maintenance();
    maintenance.replicas = vec![Box::new(sink(&url))];
    let answer = task(&maintenance, json!({"task": "verify", "run": "proof", "lag_seconds": 0})).await;
    let (equal, tombstones) = (live.len(), last.len() - live.len());
    assert_eq!(counted(&answer, "postgres"), format!("equal {equal}, items {equal}, tombstones {tombstones}"));
}

async fn put(scene: &Scene, told: &Told) {
    let What::Named(name) = &told.what else { return };
    let item = RawItem::parse(&story::user(&told.user_id, "1", name).to_string()).unwrap();
    scene.put(SOURCE, item.into_attributes()).await;
}
