//! PostgreSQL replica benchmark: the replicator's CPU time per record, the rows per second into an empty table with all
//! of its indexes, and the ratio to `COPY`, the fastest way to load rows into the server. It measures the table of the
//! users service, and the table of a replication document with eight typed columns.
//!
//! The server is the installed PostgreSQL, in a separate process, and does not wait for the disk. The replicator's code
//! runs on its own thread of this process with a runtime like the function's, so that the thread's CPU time is that of
//! the replicator alone.

mod search;

use std::time::Duration;

use futures::SinkExt;
use millrace_local::postgres::{PlannedServer, PostgresServer};
use millrace_replicator::deduplicate::latest_per_key;
use millrace_shared::invocation::Invocation;
use millrace_shared::postgres::PostgresSettings;
use millrace_shared::stream;
use millrace_sinks::document::{PostgresTable, ReplicationDocument, SinkSettings};
use millrace_sinks::postgres::{PostgresSink, SETTING, migrate, migrate_table};
use millrace_sinks::{DeduplicatedBatch, Sink, SinkName};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::events;
use crate::report::median;

type BenchError = Box<dyn std::error::Error + Send + Sync>;

const ROWS: usize = 100_000;
const BATCH: usize = 1_000;
const ROUNDS: usize = 3;

/// The results of one round.
struct BenchRound {
    cpu_micros: f64,
    rows_a_second: f64,
    again_a_second: f64,
    copied_a_second: f64,
    transactions_a_batch: f64,
}

/// The table that is measured.
#[derive(Debug, Clone, Copy)]
enum BenchTable {
    /// That of the users service, with all of its indexes.
    Users,
    /// One of a document, with eight typed columns.
    Declared,
}

impl BenchTable {
    fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Declared => "orders",
        }
    }

    /// Creates the table; returns the sink that writes it.
    async fn migrate(self, sink: PostgresSink) -> Result<PostgresSink, BenchError> {
        let until = Instant::now() + Duration::from_mins(1);
        match self {
            Self::Users => migrate(sink.database(), until).await.map(drop)?,
            Self::Declared => {
                let table = declared()?;
                migrate_table(sink.database(), &table, until).await?;
                return Ok(sink.with_table(SinkName::parse("sql")?, "REPLICATION /replicas/0".to_owned(), table));
            }
        }
        Ok(sink)
    }

    /// Returns the nth batch, whose items are in no other batch.
    fn batch(self, nth: usize) -> Result<Box<RawValue>, serde_json::Error> {
        let changes = match self {
            Self::Users => events::changes(BATCH),
            Self::Declared => events::orders(BATCH),
        };
        RawValue::from_string(changes.replace("user-0", &format!("user-{nth:03}-0")))
    }
}

/// Returns a table with eight typed columns.
fn declared() -> Result<PostgresTable, BenchError> {
    let document = r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"orders","columns":{
        "status":{"path":"status","type":"text"},"city":{"path":"address.city","type":"text"},
        "amount":{"path":"total","type":"numeric"},"quantity":{"path":"quantity","type":"bigint"},
        "paid":{"path":"paid","type":"boolean"},"created_at":{"path":"created_at","type":"timestamptz"},
        "due":{"path":"due","type":"date"},"address":{"path":"address","type":"jsonb"}}}]}"#;
    match &ReplicationDocument::parse(document)?.replicas()[0].sink {
        SinkSettings::Postgres(table) => Ok(table.clone()),
        other => Err(format!("{other:?} is not a table of PostgreSQL").into()),
    }
}

/// Runs the benchmark of the replica, or of its queries if `what` is `search`, and prints the results.
pub(crate) async fn measure(what: &str) -> Result<(), BenchError> {
    if what == "search" {
        return search::measure().await;
    }
    let tables: &[BenchTable] =
        if what == "postgres" { &[BenchTable::Users, BenchTable::Declared] } else { &[BenchTable::Declared] };
    let server = PlannedServer::new()?.start().await?;
    for table in tables {
        measure_table(&server, *table).await?;
    }
    Ok(())
}

async fn measure_table(server: &PostgresServer, table: BenchTable) -> Result<(), BenchError> {
    println!(
        "\npostgres, table {}: {ROWS} rows in batches of {BATCH}, {} bytes a record, with all indexes",
        table.name(),
        table.batch(0)?.get().len() / BATCH
    );
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let database = format!("{}{round}", table.name());
        server.create_database(&database).await?;
        let url = server.url_of(&database);
        let round = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(one(&url, table))
        });
        rounds.push(round.join().map_err(|_| "a round ended early")??);
    }
    let of = |part: fn(&BenchRound) -> f64| median(rounds.iter().map(part).collect());
    println!("  CPU of the replicator a record, reading and settling included: {:.1} µs", of(|round| round.cpu_micros));
    println!("  rows a second into an empty table: {:.0}", of(|round| round.rows_a_second));
    println!("  the same batches again, all duplicates: {:.0} a second", of(|round| round.again_a_second));
    println!("  COPY of the same rows, at once: {:.0} a second", of(|round| round.copied_a_second));
    println!("  speed, to that of COPY: {:.2}", of(|round| round.rows_a_second / round.copied_a_second));
    println!("  transactions a batch: {:.2}", of(|round| round.transactions_a_batch));
    Ok(())
}

async fn one(url: &str, table: BenchTable) -> Result<BenchRound, BenchError> {
    let settings = PostgresSettings::parse(SETTING, |name| (name == SETTING).then_some(url))
        .map_err(|problems| problems.join(" "))?;
    let settings = settings.ok_or("the server has no URL")?;
    let sink = PostgresSink::new(&settings, None, time::Duration::days(8));
    let sink = table.migrate(sink).await?;
    sink.check().await?;
    let (client, line) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(line);

    let batches: Vec<Box<RawValue>> = (0..ROWS / BATCH).map(|nth| table.batch(nth)).collect::<Result<_, _>>()?;
    let before = transactions(&sink, &client).await?;
    let (cpu, started) = (own_cpu()?, Instant::now());
    let applied = all(&sink, &batches).await?;
    let (took, cpu) = (started.elapsed(), own_cpu()?.saturating_sub(cpu));
    if applied != ROWS {
        return Err(format!("{applied} rows of {ROWS} were applied").into());
    }
    let written = transactions(&sink, &client).await? - before;
    let started = Instant::now();
    if all(&sink, &batches).await? != 0 {
        return Err("a duplicate was applied".into());
    }
    let again = started.elapsed();

    let name = table.name();
    let mut rows = Vec::new();
    let mut out = std::pin::pin!(client.copy_out(&format!("copy {name} to stdout")).await?);
    while let Some(chunk) = futures::TryStreamExt::try_next(&mut out).await? {
        rows.push(chunk);
    }
    client.batch_execute(&format!("truncate {name}")).await?;
    let started = Instant::now();
    let mut into = std::pin::pin!(client.copy_in(&format!("copy {name} from stdin")).await?);
    for chunk in rows {
        into.send(chunk).await?;
    }
    into.finish().await?;
    let copied = started.elapsed();
    let count = f64::from(u32::try_from(ROWS)?);
    Ok(BenchRound {
        cpu_micros: cpu.as_secs_f64() * 1e6 / count,
        rows_a_second: count / took.as_secs_f64(),
        again_a_second: count / again.as_secs_f64(),
        copied_a_second: count / copied.as_secs_f64(),
        transactions_a_batch: f64::from(i32::try_from(written)?) / (count / f64::from(u32::try_from(BATCH)?)),
    })
}

/// Returns the number of transactions of the database so far. The sink's session reports its own at the next one.
async fn transactions(sink: &PostgresSink, client: &tokio_postgres::Client) -> Result<i64, BenchError> {
    let until = Instant::now() + Duration::from_mins(1);
    let report = sink
        .database()
        .run(until, |session| async move { session.client().batch_execute("select pg_stat_force_next_flush()").await });
    report.await?;
    let sql = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Parses, deduplicates and applies the batches one after another; returns the number of applied rows.
async fn all(sink: &PostgresSink, batches: &[Box<RawValue>]) -> Result<usize, BenchError> {
    let mut applied = 0;
    for batch in batches {
        let records = stream::read(batch)?.records;
        let changes: Vec<_> = records.iter().filter_map(|record| record.read.as_ref().ok()).collect();
        let latest: Vec<_> = latest_per_key(&changes).into_iter().map(|index| changes[index]).collect();
        let deadline = Instant::now() + Duration::from_mins(1);
        let invocation = Invocation { now: OffsetDateTime::UNIX_EPOCH, deadline, request_id: "bench".to_owned() };
        let outcome = sink.apply(DeduplicatedBatch { changes: &changes, latest_per_key: &latest }, &invocation).await?;
        if let Some(failure) = outcome.failures.first() {
            return Err(format!("{failure:?}").into());
        }
        applied += outcome.applied;
    }
    Ok(applied)
}

/// Returns the CPU time of this thread.
fn own_cpu() -> Result<Duration, BenchError> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}
