//! Misconfigurations of a database that are detected before the first batch: each error names the cause and the fix.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_local::postgres::PostgresServer;
use millrace_sinks::Sink;
use millrace_sinks::document::{PostgresTable, ReplicationDocument, USERS_DOCUMENT};
use millrace_sinks::postgres::{PostgresSchema, PostgresSink, migrate, pending};
use serde_json::json;
use tempfile::TempDir;

use super::store::{RelationalStore, apply, empty, sink, soon};
use crate::postgres::{connect, server};
use crate::replication::events::EventBuilder;
use crate::search::scene::{ids, nobody, over};

async fn broken(sink: &PostgresSink) -> String {
    sink.check().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_missing_migration_is_named_with_the_task_that_applies_it() {
    let url = empty().await;
    let sink = sink(&url);
    let message = broken(&sink).await;
    assert!(
        message.contains("POSTGRES_URL") && message.contains("users") && message.contains("task migrate"),
        "{message}"
    );
    let steps = pending(sink.database(), soon()).await.unwrap();
    // A table that is dropped later is not the fault of a record.
    let outcome = apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await;
    assert!(
        format!("{outcome:?}").contains("Transient") && format!("{outcome:?}").contains("task migrate"),
        "{outcome:?}"
    );
    assert_eq!(migrate(sink.database(), soon()).await.unwrap(), steps);
    assert_eq!(migrate(sink.database(), soon()).await.unwrap(), [""; 0], "a second time there is nothing to do");
    sink.check().await.unwrap();
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_at_once_apply_each_step_once() {
    let url = empty().await;
    let one = async |url: &str| migrate(sink(url).database(), soon()).await.unwrap().len();
    let (first, second) = tokio::join!(one(&url), one(&url));
    assert!(first == 0 || second == 0, "{first} {second}");
    assert_eq!(first + second, pending(sink(&empty().await).database(), soon()).await.unwrap().len());
}

/// The document of the users service with another column.
pub(super) fn users_with_plan(kind: &str) -> PostgresTable {
    let mut document: serde_json::Value = serde_json::from_str(USERS_DOCUMENT).unwrap();
    document["replicas"][0]["columns"]["plan"] = json!({"path": "attributes.plan", "type": kind});
    ReplicationDocument::parse(&document.to_string()).unwrap().replicas()[0].postgres_table().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn column_that_a_document_adds_to_the_users_table_is_created_and_search_still_serves_it() {
    let store = RelationalStore::start().await;
    assert_eq!(apply(&store.sink, &[EventBuilder::named("ada", 1, "Ada")]).await.applied, 1);
    let wider = sink(&store.url).with_users_table(users_with_plan("text"));
    let message = broken(&wider).await;
    assert!(message.contains("add the column plan") && message.contains("task migrate"), "{message}");
    let schema = PostgresSchema { users: Some(users_with_plan("text")), tables: Vec::new() };
    let applied = schema.migrate(wider.database(), soon()).await.unwrap();
    assert_eq!(
        applied,
        ["users: add the column plan, which a repair fills", "users: create the view users_live"],
        "and nothing of search"
    );
    wider.check().await.unwrap();
    let mut bob = crate::replication::events::user("bob", "1", "Bob");
    bob["attributes"] = json!({"M": {"plan": {"S": "pro"}}});
    assert_eq!(apply(&wider, &[EventBuilder::image("bob", 2, &bob.to_string())]).await.applied, 1);
    let sql = "select user_id from users_live where plan = 'pro'";
    assert_eq!(store.client.query_one(sql, &[]).await.unwrap().get::<_, &str>(0), "bob");
    let response = over(&[("POSTGRES_URL", &store.url)]).get("/search/users?sort=user_id").await;
    assert_eq!((response.status, ids(&response)), (200, vec!["ada".to_owned(), "bob".to_owned()]), "{}", response.text);
}

#[tokio::test]
async fn a_read_only_server_is_not_the_writer() {
    let store = RelationalStore::start().await;
    let name = store.url.rsplit('/').next().unwrap();
    let read_only = |on: bool| format!("alter database {name} set default_transaction_read_only = {on}");
    store.client.batch_execute(&read_only(true)).await.unwrap();
    let sink = sink(&store.url);
    let message = broken(&sink).await;
    assert!(message.contains("read-only") && message.contains("writer's endpoint"), "{message}");
    let outcome = format!("{:?}", apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await);
    assert!(outcome.contains("Transient") && outcome.contains("read-only"), "{outcome}");
    // The read replica is promoted, under the same host name: the next batch succeeds.
    store.client.batch_execute(&format!("set transaction_read_only = off; {}", read_only(false))).await.unwrap();
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
}

/// A server in recovery, as after a failover or behind a reader endpoint: it does everything except write.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_not_the_writer_until_it_is_promoted_and_answers_searches_as_the_reader() {
    let mut server = server().await;
    let sink = sink(&server.url());
    migrate(sink.database(), soon()).await.unwrap();
    assert_eq!(apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    server.stop().unwrap();
    std::fs::write(server.folder().join("data/standby.signal"), "").unwrap();
    server.start().await.unwrap();

    let message = broken(&sink).await;
    assert!(message.contains("read-only") && message.contains("writer's endpoint"), "{message}");
    let outcome = format!("{:?}", apply(&sink, &[EventBuilder::named("b", 2, "Bob")]).await);
    assert!(outcome.contains("Transient") && outcome.contains("read-only"), "{outcome}");
    let search = over(&[("POSTGRES_URL", &nobody().await), ("POSTGRES_READER_URL", &server.url())]);
    let response = search.get("/search/users?name_prefix=ad").await;
    assert_eq!((response.status, ids(&response)), (200, vec!["a".to_owned()]), "{}", response.text);

    server.owner("postgres", "select pg_promote()").await.unwrap();
    assert_eq!(apply(&sink, &[EventBuilder::named("b", 2, "Bob")]).await.applied, 1);
}

#[tokio::test]
async fn unknown_database_unknown_user_and_missing_grant_are_distinguished() {
    let store = RelationalStore::start().await;
    let (base, name) = store.url.rsplit_once('/').unwrap();
    let message = broken(&sink(&format!("{base}/nowhere"))).await;
    assert!(message.contains("/nowhere does not exist"), "{message}");
    let message = broken(&sink(&store.url.replace("millrace@", "nobody@"))).await;
    assert!(message.contains("rejects the login of nobody"), "{message}");
    store.client.batch_execute("create table other (); revoke insert on users from millrace").await.unwrap();
    let message = broken(&sink(&store.url)).await;
    assert!(message.contains("permission denied") && message.contains("grant"), "{message}");
    assert!(message.contains(name));
}

#[tokio::test]
async fn a_server_that_is_not_there_may_come_and_is_no_reason_not_to_start() {
    // No server listens on port 1.
    let sink = sink("postgres://millrace:s3cret@127.0.0.1:1/users");
    sink.check().await.unwrap();
    let outcome = format!("{:?}", apply(&sink, &[EventBuilder::named("a", 1, "Ada")]).await);
    assert!(outcome.contains("POSTGRES_URL 127.0.0.1:1/users is unreachable"), "{outcome}");
    assert!(!outcome.contains("s3cret"));
}

/// Runs openssl in a directory.
fn openssl(folder: &Path, arguments: &str) {
    let ran = Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output();
    let ran = ran.expect("openssl is not installed: apt-get install openssl, or brew install openssl");
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Creates a certificate authority for the test, and a certificate for this host name that it signs.
fn certificates(folder: &Path, name: &str) {
    openssl(folder, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
    openssl(folder, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server");
    std::fs::write(folder.join("names"), format!("subjectAltName=DNS:{name}")).unwrap();
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    );
}

/// Gives the server a certificate for `localhost`, and returns the file of the authority, which is in this directory.
pub(super) async fn encrypt(server: &PostgresServer, folder: &Path) -> String {
    certificates(folder, "localhost");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    // The server reads the files from its own directory, as its own user.
    let write = |name: &str, file: &str| {
        let text = read(file);
        format!("copy (select unnest(string_to_array($pem${text}$pem$, E'\\n'))) to program 'umask 077; cat > {name}'")
    };
    server.owner("postgres", &write("server.crt", "server.pem")).await.unwrap();
    server.owner("postgres", &write("server.key", "server.key")).await.unwrap();
    server.owner("postgres", "alter system set ssl = on").await.unwrap();
    server.owner("postgres", "select pg_reload_conf()").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    folder.join("ca.pem").display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_proves_its_name_or_is_not_spoken_to() {
    let server = server().await;
    let folder = TempDir::new().unwrap();
    let authority = encrypt(&server, folder.path()).await;
    let at = |host: &str, query: &str| server.url().replace("127.0.0.1", host) + query;
    let trusted = sink(&at("localhost", &format!("?sslrootcert={authority}")));
    migrate(trusted.database(), soon()).await.unwrap();
    trusted.check().await.unwrap();
    assert_eq!(apply(&trusted, &[EventBuilder::named("a", 1, "Ada")]).await.applied, 1);
    let sql = "select count(*) from pg_stat_ssl where ssl and pid <> pg_backend_pid()";
    let encrypted: i64 = connect(&server.url()).await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(encrypted, 1);

    let message = broken(&sink(&at("localhost", "?sslmode=require"))).await;
    assert!(message.contains("certificate") && message.contains("sslrootcert="), "an unknown authority: {message}");
    let message = broken(&sink(&at("127.0.0.1", &format!("?sslrootcert={authority}")))).await;
    assert!(message.contains("certificate") && message.contains("a host name"), "another name: {message}");

    server.owner("postgres", "alter system set ssl = off").await.unwrap();
    server.owner("postgres", "select pg_reload_conf()").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let message = broken(&sink(&at("localhost", "?sslmode=verify-full"))).await;
    assert!(message.contains("does not support TLS") && message.contains("sslmode=disable"), "{message}");
}
