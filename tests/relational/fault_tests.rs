//! Failures of the server and of the connection to it, and the guarantees that must hold nevertheless.

use std::time::Duration;

use millrace_sinks::{FailureKind, SinkOutcome};
use tokio::time::Instant;

use super::store::{RelationalStore, apply, apply_within, empty, sink, soon};
use super::tcp_proxy::TcpProxy;
use crate::postgres::{connect, server};
use crate::replication::events::{EventBuilder, event};
use crate::replication::rig::ReplicationRig;

fn users(numbers: impl IntoIterator<Item = u64>) -> Vec<EventBuilder> {
    numbers.into_iter().map(|number| EventBuilder::named(&format!("u{number:05}"), number, "Ada")).collect()
}

/// Asserts that all changes fail with a transient error, so that they are redelivered and none is quarantined; returns
/// the reason of the last one.
fn assert_all_transient(outcome: &SinkOutcome, count: usize) -> String {
    assert_eq!(outcome.failures.len(), count, "{outcome:?}");
    let mut reasons = outcome.failures.iter().map(|failure| match &failure.kind {
        FailureKind::Transient(reason) => reason.clone(),
        FailureKind::Permanent(_) => panic!("nobody's poison: {failure:?}"),
    });
    reasons.next_back().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_costs_a_delivery_and_no_change() {
    let mut server = server().await;
    let url = server.url();
    let sink = sink(&url);
    millrace_sinks::postgres::migrate(sink.database(), soon()).await.unwrap();
    assert_eq!(apply(&sink, &users(1..=50)).await.applied, 50);
    server.kill();
    let started = Instant::now();
    let outcome = apply(&sink, &users(51..=100)).await;
    let reason = assert_all_transient(&outcome, 50);
    assert!(reason.contains("POSTGRES_URL 127.0.0.1:"), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    server.start().await.unwrap();
    let outcome = apply(&sink, &users(1..=100)).await;
    assert_eq!(outcome, SinkOutcome { applied: 50, duplicate: 50, ..SinkOutcome::default() });
    let count: i64 = connect(&url).await.query_one("select count(*) from users", &[]).await.unwrap().get(0);
    assert_eq!(count, 100);
    // After an orderly restart between two batches, the sink reconnects without an error.
    server.stop().unwrap();
    server.start().await.unwrap();
    assert_eq!(apply(&sink, &users(101..=150)).await.applied, 50);
}

/// Simulates a full disk. Files of the server may not grow beyond 16 MiB and half a page: PostgreSQL writes half of the
/// next page and reports a full disk. From PostgreSQL 16 on, and on systems without such limits, a trigger on the table
/// raises the same error.
async fn fill_the_disk(server: &millrace_local::postgres::PostgresServer) {
    let client = connect(&server.url()).await;
    let version = "select current_setting('server_version_num')::int";
    let version: i32 = client.query_one(version, &[]).await.unwrap().get(0);
    if cfg!(target_os = "linux") && version < 160_000 {
        // Runs as the server's own user, because other users may not set the limit.
        let limit = format!("prlimit --pid {} --fsize=16781312:", server.process().unwrap());
        server.owner("postgres", &format!("copy (select 1) to program '{limit}'")).await.unwrap();
    } else {
        let says = "create function full_disk() returns trigger language plpgsql as \
                    $$ begin raise exception 'could not extend file' using errcode = '53100'; end $$; \
                    create trigger full_disk before insert on users execute function full_disk()";
        client.batch_execute(says).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_with_its_cure_and_once_there_is_room_nothing_is_missing() {
    let mut server = server().await;
    let sink = sink(&server.url());
    millrace_sinks::postgres::migrate(sink.database(), soon()).await.unwrap();
    let filled = "insert into users (key, revision, item) select 'filling' || n, '\\x01', \
                  jsonb_build_object('x', repeat(md5(n::text), 40)) from generate_series(1, 11000) as n";
    connect(&server.url()).await.batch_execute(filled).await.unwrap();
    fill_the_disk(&server).await;

    let batch = |nth: u64| {
        let image = |n| {
            let user = crate::replication::events::user(&format!("u{n:05}"), "1", &"Ada ".repeat(60));
            EventBuilder::image(&format!("u{n:05}"), n, &user.to_string())
        };
        (1 + nth * 500..=500 + nth * 500).map(image).collect::<Vec<_>>()
    };
    let mut delivered = 0;
    let outcome = loop {
        let outcome = apply(&sink, &batch(delivered)).await;
        if !outcome.failures.is_empty() {
            break outcome;
        }
        delivered += 1;
        assert!(delivered < 40, "the disk never filled");
    };
    let reason = assert_all_transient(&outcome, 500);
    assert!(
        reason.contains("POSTGRES_URL") && reason.contains("has no disk space left: increase its storage"),
        "{reason}"
    );
    let outcome = apply(&sink, &batch(delivered)).await;
    assert_all_transient(&outcome, 500);

    // The limit does not apply to a restarted server.
    server.stop().unwrap();
    server.start().await.unwrap();
    let room = "drop trigger if exists full_disk on users";
    connect(&server.url()).await.batch_execute(room).await.unwrap();
    assert_eq!(apply(&sink, &batch(delivered)).await.applied, 500);
    let sql = "select count(*) from users where user_id like 'u%'";
    let count: i64 = connect(&server.url()).await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(u64::try_from(count).unwrap(), (delivered + 1) * 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connection_is_reopened_and_a_lost_response_yields_duplicates() {
    let store = RelationalStore::start().await;
    let line = TcpProxy::to(&store.url).await;
    let sink = sink(line.url());
    assert_eq!(apply(&sink, &users(1..=5)).await.applied, 5);
    line.cut();
    assert_eq!(apply(&sink, &users(6..=9)).await.applied, 4, "the sink tries the rows again");
    assert_eq!(line.connections(), 2);
    line.lose_the_answer();
    let outcome = apply(&sink, &users(10..=12)).await;
    assert_eq!(
        outcome,
        SinkOutcome { duplicate: 3, ..SinkOutcome::default() },
        "they were written, and the response was lost"
    );
    assert_eq!(store.count("true").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_costs_the_time_and_not_a_moment_more() {
    let store = RelationalStore::start().await;
    let line = TcpProxy::to(&store.url).await;
    let sink = sink(line.url());
    assert_eq!(apply(&sink, &users(1..=5)).await.applied, 5);
    line.silence(true);
    let (started, time) = (Instant::now(), Duration::from_millis(600));
    let outcome = apply_within(&sink, &event(&users(6..=9)), time).await;
    assert!(assert_all_transient(&outcome, 4).contains("in time"));
    assert!(started.elapsed() < time + Duration::from_millis(300), "{:?}", started.elapsed());
    line.silence(false);
    assert_eq!(apply(&sink, &users(6..=9)).await.applied, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_else_holds_are_waited_for_until_the_time_is_up() {
    let store = RelationalStore::start().await;
    assert_eq!(apply(&store.sink, &users(1..=5)).await.applied, 5);
    store.client.batch_execute("begin; select * from users where user_id = 'u00003' for update").await.unwrap();
    let later: Vec<_> = (1..=5).map(|n| EventBuilder::named(&format!("u{n:05}"), 10 + n, "Later")).collect();
    let outcome = apply_within(&store.sink, &event(&later), Duration::from_millis(500)).await;
    assert_all_transient(&outcome, 5);
    store.client.batch_execute("rollback").await.unwrap();
    // The server may have executed the statement after the client had stopped waiting: the changes are then duplicates.
    let outcome = apply(&store.sink, &later).await;
    assert_eq!(outcome.applied + outcome.duplicate, 5, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_invocations_over_the_same_rows_never_deadlock() {
    let store = RelationalStore::start().await;
    let rounds = 12_u64;
    let worker = |own: u64, url: String| async move {
        let sink = sink(&url);
        for round in 0..rounds {
            // Both workers write the same rows, in opposite orders.
            let number = |n: u64| 1 + round * 1_000 + own * 500 + n;
            let change = |n: u64| EventBuilder::named(&format!("u{n:03}"), number(n), "Ada");
            let mut batch: Vec<_> = (0..400).map(change).collect();
            if own == 1 {
                batch.reverse();
            }
            let outcome = apply(&sink, &batch).await;
            assert_eq!(outcome.failures, [], "a deadlock would be one");
        }
    };
    let (one, other) = (tokio::spawn(worker(0, store.url.clone())), tokio::spawn(worker(1, store.url.clone())));
    one.await.unwrap();
    other.await.unwrap();
    assert_eq!(store.count("true").await, 400);
    let deadlocks: i64 = {
        let sql = "select deadlocks from pg_stat_database where datname = current_database()";
        store.client.query_one(sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(deadlocks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_are_one_round_trip() {
    let store = RelationalStore::start().await;
    let line = TcpProxy::to(&store.url).await;
    let sink = sink(line.url());
    assert_eq!(apply(&sink, &users(1..=10)).await.applied, 10);
    let before = line.round_trips();
    assert_eq!(apply(&sink, &users(11..=1_010)).await.applied, 1_000);
    assert_eq!(line.round_trips() - before, 1, "what was written");
    assert_eq!(apply(&sink, &users(11..=1_010)).await.duplicate, 1_000);
    assert_eq!(line.round_trips() - before, 2, "what was there already");
    assert_eq!(line.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_one_replica_holds_the_position_and_spares_the_other() {
    let rig = ReplicationRig::start().await;
    let url = empty().await;
    let line = TcpProxy::to(&url).await;
    let postgres = sink(line.url());
    millrace_sinks::postgres::migrate(postgres.database(), soon()).await.unwrap();
    line.silence(true);
    line.cut();
    let dynamodb = millrace_sinks::dynamodb::DynamoDbSink::new(
        rig.dynamodb.clone(),
        crate::replication::rig::REPLICA,
        8,
        time::Duration::days(8),
    );
    let replicator = rig.replicator_with(vec![Box::new(dynamodb), Box::new(postgres)]);
    let invocation = crate::replication::rig::invocation_within(Duration::from_millis(800));
    let response = replicator.handle(&event(&users(7..=9)), &invocation).await.unwrap();
    assert_eq!(response.identifier(), Some("7"));
    assert_eq!(rig.item_count().await, 3);
    line.silence(false);
    let response = replicator.handle(&event(&users(7..=9)), &crate::replication::rig::invocation()).await.unwrap();
    assert_eq!(response.identifier(), None);
    let count: i64 = connect(&url).await.query_one("select count(*) from users", &[]).await.unwrap().get(0);
    assert_eq!(count, 3);
    assert!(rig.quarantined().await.is_empty());
}
