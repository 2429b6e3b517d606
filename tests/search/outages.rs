//! Outages of the reader and of the writer, and queries that take too long.

use std::time::Duration;

use millrace_local::postgres::NAME;
use tokio::time::Instant;

use super::scene::{ScenePerson, SearchScene, ids, nobody, over};
use crate::log_capture::logged;
use crate::postgres::{connect, server};
use crate::relational::store::empty;
use crate::relational::tcp_proxy::TcpProxy;
use crate::users_api::service::ApiHandle;

const ALL: &str = "/search/users";

#[tokio::test(flavor = "multi_thread")]
async fn while_the_reader_is_gone_the_writer_answers() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let reader = nobody().await;
    let search = over(&[("POSTGRES_URL", &scene.store.url), ("POSTGRES_READER_URL", &reader)]);
    let lines = logged(async {
        for _ in 0..3 {
            let response = search.get(ALL).await;
            assert_eq!((response.status, ids(&response)), (200, vec!["ada".to_owned()]), "{}", response.text);
        }
    });
    let warnings: Vec<_> = lines.await.into_iter().filter(|line| line.contains("reader unavailable")).collect();
    assert_eq!(warnings.len(), 1, "once, and then the writer is asked first: {warnings:?}");
    assert!(warnings[0].contains("POSTGRES_READER_URL"), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lacks_its_tables_is_stood_in_for() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let search = over(&[("POSTGRES_URL", &scene.store.url), ("POSTGRES_READER_URL", &empty().await)]);
    assert_eq!(search.get(ALL).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn available_reader_is_queried_instead_of_the_writer() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let search = over(&[("POSTGRES_URL", &nobody().await), ("POSTGRES_READER_URL", &scene.store.url)]);
    assert_eq!(search.get(ALL).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn recovered_reader_is_queried_again() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let line = TcpProxy::to(&scene.store.url).await;
    let mut server = server().await;
    millrace_sinks::postgres::migrate(
        crate::relational::store::sink(&server.url()).database(),
        crate::relational::store::soon(),
    )
    .await
    .unwrap();
    // The reader's database is empty, so the response shows which server it is from.
    let search = over(&[("POSTGRES_URL", line.url()), ("POSTGRES_READER_URL", &server.url())]);
    assert_eq!(ids(&search.get(ALL).await), [""; 0]);
    server.kill();
    assert_eq!(ids(&search.get(ALL).await), ["ada"]);
    server.start().await.unwrap();
    assert_eq!(ids(&search.get(ALL).await), ["ada"], "not every request looks whether it is back");
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(ids(&search.get(ALL).await), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn search_without_any_server_returns_503_with_retry_after() {
    let (writer, reader) = (nobody().await, nobody().await);
    for variables in
        [&[("POSTGRES_URL", writer.as_str())][..], &[("POSTGRES_URL", &writer), ("POSTGRES_READER_URL", &reader)]]
    {
        let search = over(variables);
        for path in [ALL, "/users/ada/summary", "/stats/users"] {
            let response = search.get(path).await;
            assert_eq!((response.status, response.problem()), (503, "service-unavailable"), "{}", response.text);
            assert_eq!(response.header("retry-after"), "1");
            assert!(!response.text.contains("127.0.0.1"), "where it is stays in the log: {}", response.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_migration_is_an_operator_s_business() {
    let search = over(&[("POSTGRES_URL", &empty().await)]);
    let lines = logged(async {
        let response = search.get(ALL).await;
        assert_eq!((response.status, response.problem()), (500, "internal"), "{}", response.text);
    });
    let lines = lines.await;
    assert!(lines.iter().any(|line| line.contains("run the maintenance task migrate")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_query_times_out_and_is_not_retried_on_the_writer() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let search = over(&[("POSTGRES_URL", &nobody().await), ("POSTGRES_READER_URL", &scene.store.url)]);
    assert_eq!(search.get(ALL).await.status, 200);
    // The lock on the table makes every query wait.
    let other = connect(&scene.store.url).await;
    other.batch_execute("begin; lock table users in access exclusive mode").await.unwrap();
    let started = Instant::now();
    let response = search.get(ALL).await;
    assert_eq!((response.status, response.problem()), (504, "query-timeout"), "{}", response.text);
    assert!(response.json["detail"].as_str().unwrap().contains("5 s"), "{}", response.text);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(search.get(ALL).await.status, 200, "the next question is a new one");
}

/// The URL of a server that accepts connections and never responds.
async fn silent() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://{NAME}@{}/{NAME}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_reader_and_a_silent_writer_have_less_than_the_request_together() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let ((_reader, reader), (_writer, writer)) = (silent().await, silent().await);
    let time = Duration::from_secs(4);
    let within = |variables: &[(&str, &str)]| ApiHandle(millrace_http::deadline::within(over(variables).0, time));
    for path in [ALL, "/users/ada/summary", "/stats/users"] {
        let started = Instant::now();
        let search = within(&[("POSTGRES_URL", &writer), ("POSTGRES_READER_URL", &reader)]);
        let response = search.get(path).await;
        assert_eq!((response.status, response.problem()), (503, "service-unavailable"), "{path}: {}", response.text);
        assert_eq!(response.header("retry-after"), "1");
        assert!(started.elapsed() < time, "{path}: {:?}", started.elapsed());
    }
    let search = within(&[("POSTGRES_URL", &scene.store.url), ("POSTGRES_READER_URL", &reader)]);
    assert_eq!(ids(&search.get(ALL).await), ["ada"], "the writer has time left");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_query_ends_before_the_request_deadline() {
    let scene = SearchScene::with_people(&[ScenePerson::named("ada", "Ada")]).await;
    let time = Duration::from_secs(2);
    let search = over(&[("POSTGRES_URL", &nobody().await), ("POSTGRES_READER_URL", &scene.store.url)]);
    let search = ApiHandle(millrace_http::deadline::within(search.0, time));
    assert_eq!(search.get(ALL).await.status, 200);
    let other = connect(&scene.store.url).await;
    other.batch_execute("begin; lock table users in access exclusive mode").await.unwrap();
    let started = Instant::now();
    let response = search.get(ALL).await;
    assert_eq!(
        (response.status, response.problem()),
        (503, "service-unavailable"),
        "it had less than its time: {}",
        response.text
    );
    assert!(started.elapsed() < time, "{:?}", started.elapsed());
    other.batch_execute("rollback").await.unwrap();
    assert_eq!(search.get(ALL).await.status, 200);
}
