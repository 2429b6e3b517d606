//! The PostgreSQL server of this machine, on which the tests of the relational tier run.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use millrace_local::postgres::{NAME, PlannedServer, PostgresServer};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_postgres::{Client, NoTls};

/// Starts a separate server, which the test may kill.
pub(crate) async fn server() -> PostgresServer {
    PlannedServer::new()
        .unwrap_or_else(|error| panic!("{error}"))
        .start()
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, line) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(line);
    client
}

async fn count(client: &Client) -> i64 {
    client.query_one("select count(*) from kept", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_killed_and_started_and_keeps_what_it_held() {
    let mut server = server().await;
    let client = connect(&server.url()).await;
    client.batch_execute("create table kept (n int); insert into kept select generate_series(1, 1000)").await.unwrap();
    let role: String = client.query_one("select current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(role, NAME);
    server.kill();
    assert!(client.query_one("select 1", &[]).await.is_err(), "connections break");
    assert!(tokio_postgres::connect(&server.url(), NoTls).await.is_err());
    server.start().await.unwrap();
    let client = connect(&server.url()).await;
    assert_eq!(count(&client).await, 1000);
    drop(client);
    server.stop().unwrap();
    server.start().await.unwrap();
    let client = connect(&server.url()).await;
    assert_eq!(count(&client).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_copied_from_another() {
    let server = server().await;
    let client = connect(&server.url()).await;
    client.batch_execute("create table kept (n int); insert into kept values (1)").await.unwrap();
    drop(client);
    // The server notices the end of a connection with a delay.
    let mut copied = server.copy_database(NAME, "copy").await;
    for _ in 0..50 {
        if copied.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        copied = server.copy_database(NAME, "copy").await;
    }
    copied.unwrap();
    assert_eq!(count(&connect(&server.url_of("copy")).await).await, 1);
}

/// Returns whether a process with this id is running.
fn runs(process: &str) -> bool {
    Path::new("/proc").join(process).join("exe").exists() || !Path::new("/proc/self").exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_server_whose_process_was_killed() {
    // This test binary is the process: the ignored test below starts a server and waits.
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["postgres::a_server_that_waits_to_be_orphaned", "--exact", "--nocapture", "--ignored"]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (folder, process) = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if let Some((_, orphan)) = line.split_once("orphan ") {
            let (folder, process) = orphan.split_once(' ').unwrap();
            break (folder.to_owned(), process.to_owned());
        }
    };
    assert!(Path::new(&folder).is_dir() && runs(&process));
    child.kill().await.unwrap();
    for _ in 0..100 {
        if !Path::new(&folder).exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!Path::new(&folder).exists(), "{folder} is left");
    assert!(!runs(&process), "process {process} still runs");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a process of its own, which the test above starts and kills"]
async fn a_server_that_waits_to_be_orphaned() {
    let server = server().await;
    println!("orphan {} {}", server.folder().display(), server.process().unwrap());
    tokio::time::sleep(Duration::from_mins(1)).await;
}
