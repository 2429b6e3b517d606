//! The stored counts of the statistics, compared with a scan of all rows.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_sinks::document::users_table;
use millrace_sinks::postgres::{PostgresSchema, migrate};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::model::person;
use super::scene::{NOW, SearchScene, over};
use crate::postgres::connect;
use crate::relational::store::{RelationalStore, apply, empty, sink, sink_that_keeps, soon};
use crate::replication::events::EventBuilder;

/// Connections that write concurrently.
const WRITERS: usize = 4;
const STEPS: usize = 60;

/// A step of a writer.
#[derive(Clone, Debug)]
enum WriterStep {
    /// A batch of the sink: changes of few keys with revisions in any order, so that many are replays or stale.
    Batch(Vec<EventBuilder>),
    /// SQL of an operator, which may be rolled back.
    Sql(&'static str, bool),
}

fn change() -> impl Strategy<Value = EventBuilder> {
    let written = (person(), 0..6_u8, 1..400_u64, 0..40_i64).prop_map(|(mut person, id, number, days)| {
        person.id = format!("u{id}");
        person.created_at = person.created_at.map(|second| second - days * 86_400);
        person.event(number)
    });
    let removed = (0..6_u8, 7..12_i64, 1..400_u64, any::<bool>()).prop_map(|(id, timestamp, number, is_expired)| {
        let user_id = format!("u{id}");
        let removed =
            if is_expired { EventBuilder::expired(&user_id, number) } else { EventBuilder::deleted(&user_id, number) };
        removed.at(&timestamp.to_string())
    });
    prop_oneof![4 => written, 1 => removed]
}

fn step() -> impl Strategy<Value = WriterStep> {
    let sql = proptest::sample::select(vec![
        "update users set status = null where user_id = 'u1'",
        "update users set email_folded = 'x@moved.example' where user_id < 'u3' and deleted_at is null",
        "update users set created_at = created_at - interval '1 day' where user_id = 'u2'",
        "update users set created_at = 'infinity' where user_id = 'u0' and \"timestamp\" = 7 and deleted_at is null",
        "delete from users where user_id = 'u4'",
        "delete from users where deleted_at is not null",
        "insert into users (key, revision, item, status, created_at) values ('by hand', '\\x01', '{}', 'new', now()) \
         on conflict (key) do update set status = 'changed'",
        "truncate users",
    ]);
    prop_oneof![
        5 => proptest::collection::vec(change(), 1..30).prop_map(WriterStep::Batch),
        2 => (sql, any::<bool>()).prop_map(|(sql, is_kept)| WriterStep::Sql(sql, is_kept)),
    ]
}

async fn write(url: String, steps: Vec<WriterStep>) {
    // Tombstones are deleted at once.
    let (sink, client) = (sink_that_keeps(&url, time::Duration::ZERO), connect(&url).await);
    for step in steps {
        match step {
            WriterStep::Batch(changes) => drop(apply(&sink, &changes).await),
            WriterStep::Sql(sql, is_kept) => {
                let end = if is_kept { "commit" } else { "rollback" };
                // The statement may be the victim of a deadlock with a batch; it has no effect then.
                if client.batch_execute(&format!("begin; {sql}; {end}")).await.is_err() {
                    client.batch_execute("rollback").await.unwrap();
                }
            }
        }
    }
}

/// The statistics as the rows give them, without the stored counts.
async fn scanned(store: &RelationalStore) -> Value {
    let live = format!(
        "from users where deleted_at is null and (expires_at is null or expires_at > {now} or expires_at <= {now} - 157788000)",
        now = NOW.unix_timestamp()
    );
    let rows = async |sql: &str| -> Value {
        let sql = format!("select coalesce(json_agg(each), '[]')::text from ({sql}) as each");
        serde_json::from_str(store.client.query_one(&sql, &[]).await.unwrap().get(0)).unwrap()
    };
    let total = rows(&format!("select count(*) as records {live}")).await;
    json!({
        "records": total[0]["records"],
        "statuses": rows(&format!("select status, count(*) as records {live} group by 1 order by 2 desc, 1")).await,
        "days": rows(&format!("select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD') as day, count(*) as records \
            {live} and created_at >= '2026-10-24Z' and isfinite(created_at) group by 1 order by 1")).await,
        "domains": rows(&format!("select email_domain as domain, count(*) as records {live} and email_domain is not null \
            group by 1 order by 2 desc, 1 limit 10")).await,
    })
}

async fn answered(store: &RelationalStore) -> Value {
    let mut response = over(&[("POSTGRES_URL", &store.url)]).get("/stats/users").await.json;
    response.as_object_mut().unwrap().remove("as_of");
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_those_of_a_full_scan_in_every_snapshot_of_concurrent_writers() {
    let store = RelationalStore::start().await;
    let mut runner = TestRunner::deterministic();
    for _ in 0..3 {
        let mut steps = || proptest::collection::vec(step(), STEPS).new_tree(&mut runner).unwrap().current();
        let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(store.url.clone(), steps()))).collect();
        let done = AtomicBool::new(false);
        let watch = async {
            let mut snapshots = 0;
            while !done.load(Ordering::Relaxed) {
                store.assert_counts().await;
                snapshots += 1;
            }
            assert!(snapshots > 5, "{snapshots} snapshots");
        };
        let finish = async {
            for writer in writers {
                writer.await.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(watch, finish);
        store.assert_counts().await;
        assert_eq!(answered(&store).await, scanned(&store).await);
    }
    // Whether the log has been added to the counts makes no difference.
    store.client.batch_execute("select users_add_count_log()").await.unwrap();
    store.assert_counts().await;
    assert_eq!(answered(&store).await, scanned(&store).await);
}

/// Some records with all values of the model.
fn people(count: usize) -> Vec<super::scene::ScenePerson> {
    let people =
        proptest::collection::vec(person(), count).new_tree(&mut TestRunner::deterministic()).unwrap().current();
    let numbered = people.into_iter().enumerate();
    numbered.map(|(number, person)| super::scene::ScenePerson { id: format!("p{number}"), ..person }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_of_a_filled_table_counts_its_rows() {
    let url = empty().await;
    let sink = sink(&url);
    let table = PostgresSchema { users: None, tables: vec![users_table()] };
    table.migrate(sink.database(), soon()).await.unwrap();
    let changes: Vec<_> = (1..).zip(people(200)).map(|(number, person)| person.event(number)).collect();
    assert_eq!(apply(&sink, &changes).await.applied, 200);
    migrate(sink.database(), soon()).await.unwrap();
    let store = RelationalStore { sink, client: connect(&url).await, url };
    store.assert_counts().await;
    assert_eq!(answered(&store).await, scanned(&store).await);
    assert_ne!(answered(&store).await["records"], 0);
}

/// Runs a program of PostgreSQL.
fn run(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_database_has_the_counts_of_its_rows() {
    let scene = SearchScene::with_people(&people(200)).await;
    let expected = answered(&scene.store).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    let file = file.to_str().unwrap();
    run("pg_dump", &["--format=custom", "--file", file, "--dbname", &scene.store.url]);

    let url = empty().await;
    run("pg_restore", &["--no-comments", "--no-privileges", "--dbname", &url, file]);
    let whole = RelationalStore { sink: sink(&url), client: connect(&url).await, url };
    whole.assert_counts().await;
    assert_eq!(answered(&whole).await, expected);
    assert_eq!(apply(&whole.sink, &[EventBuilder::named("later", 900, "Ada")]).await.applied, 1);
    whole.assert_counts().await;

    // The rows alone, into a table that counts them as they arrive.
    let rows = RelationalStore::start().await;
    run("pg_restore", &["--data-only", "--table=users", "--dbname", &rows.url, file]);
    rows.assert_counts().await;
    assert_eq!(answered(&rows).await, expected);

    // Rows that were written without the triggers are counted by the function.
    rows.client
        .batch_execute("alter table users disable trigger user; delete from users where user_id < 'p15'")
        .await
        .unwrap();
    rows.client.batch_execute("alter table users enable trigger user; select users_recount()").await.unwrap();
    rows.assert_counts().await;
    assert_eq!(answered(&rows).await, scanned(&rows).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_function_runs_no_code_of_another_user() {
    let store = RelationalStore::start().await;
    // A role that can only connect and create temporary tables: with a trigger of its own it could choose the rows.
    store
        .client
        .batch_execute("create role counts_stranger; grant counts_stranger to current_user; set role counts_stranger")
        .await
        .unwrap();
    let attempt = "create temporary table own \
        (status text, created_at timestamptz, email_domain text, deleted_at timestamptz); \
        create trigger counted after insert on own referencing new table as new_rows \
        for each statement execute function public.users_count_changes()";
    let error = store.client.batch_execute(attempt).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501", "{error}");
    for function in ["users_add_count_log", "users_recount"] {
        let error = store.client.batch_execute(&format!("select public.{function}()")).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{function}: {error}");
    }
    store.client.batch_execute("reset role; drop owned by counts_stranger; drop role counts_stranger").await.unwrap();

    // A writer of rows whose temporary type has the name of one that the function uses.
    let writer = "create role counts_writer; grant counts_writer to current_user; grant insert on users to counts_writer; \
        set role counts_writer; \
        create function pg_temp.called(pg_catalog.date) returns boolean language sql as 'select 1 / 0 = 0'; \
        create domain pg_temp.date as pg_catalog.date check (pg_temp.called(value)); \
        insert into users (key, revision, item, status, created_at) values ('w', '\\x01', '{}', 'new', now()); \
        reset role; drop owned by counts_writer; drop role counts_writer";
    store.client.batch_execute(writer).await.unwrap();
    store.assert_counts().await;
}
