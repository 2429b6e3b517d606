//! A separate database for each test on the one server of this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_local::postgres::PostgresServer;
use millrace_replicator::deduplicate::latest_per_key;
use millrace_shared::postgres::PostgresSettings;
use millrace_shared::stream;
use millrace_sinks::postgres::{PostgresSink, SETTING, migrate};
use millrace_sinks::{DeduplicatedBatch, Sink, SinkOutcome};
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::postgres::{connect, server};
use crate::replication::events::{EventBuilder, event};
use crate::replication::rig::invocation_within;

/// The shared server: starting one takes longer than most tests. It ends with the process.
static SERVER: OnceCell<PostgresServer> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// A migrated database, a sink for it, and a separate connection for the test.
pub(crate) struct RelationalStore {
    pub(crate) sink: PostgresSink,
    pub(crate) client: Client,
    pub(crate) url: String,
}

impl RelationalStore {
    pub(crate) async fn start() -> Self {
        let url = empty().await;
        let sink = sink(&url);
        migrate(sink.database(), soon()).await.unwrap();
        Self { sink, client: connect(&url).await, url }
    }

    /// The number of rows that meet a condition.
    pub(crate) async fn count(&self, condition: &str) -> i64 {
        let sql = format!("select count(*) from users where {condition}");
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// Asserts that the stored counts of the statistics are those of a scan of all rows, in one snapshot.
    pub(crate) async fn assert_counts(&self) {
        let rows = self.client.query(DIFFERENT_COUNTS, &[]).await.unwrap();
        let different: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(different, [""; 0], "the counts differ from the rows");
    }

    /// The user ids of the rows that are not tombstones, sorted.
    pub(crate) async fn users(&self) -> Vec<String> {
        let rows =
            self.client.query("select user_id from users where deleted_at is null order by 1", &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// The counts that only the rows have (`row`) or that only the tables of counts have (`count`).
const DIFFERENT_COUNTS: &str = "with scanned as (
        select 'status' as dimension, status collate \"C\" as value, count(*) as records from users
            where deleted_at is null group by 2
        union all select 'day', to_char(created_at at time zone 'UTC', 'YYYY-MM-DD') collate \"C\", count(*) from users
            where isfinite(created_at) group by 2
        union all select 'domain', email_domain collate \"C\", count(*) from users where email_domain is not null group by 2),
    stored as (select dimension, value, records from users_counts
        union all select dimension, value, records from users_count_log cross join unnest(changes)),
    counted as (select replace(dimension, 'no status', 'status') as dimension, case dimension when 'no status' then null
        when 'day' then to_char(date '1970-01-01' + value::int, 'YYYY-MM-DD') else value end collate \"C\" as value,
        sum(records)::int8 as records from stored where value is not null group by 1, 2 having sum(records) <> 0)
    select concat_ws(' ', 'row', lost.*) from (table scanned except table counted) as lost
    union all select concat_ws(' ', 'count', added.*) from (table counted except table scanned) as added";

/// The condition that a row, which may be a tombstone, has the key of this user with the timestamp 1.
pub(crate) fn is_key(user_id: &str) -> String {
    format!(r#"key = '{{"timestamp":{{"N":"1"}},"user_id":{{"S":"{user_id}"}}}}'"#)
}

/// Creates an empty database; returns its URL.
pub(crate) async fn empty() -> String {
    let server = SERVER.get_or_init(server).await;
    let name = format!("store{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap();
    server.url_of(&name)
}

/// A sink for the database at a URL, as the function creates it.
pub(crate) fn sink(url: &str) -> PostgresSink {
    sink_that_keeps(url, time::Duration::days(8))
}

/// A sink that retains tombstones for the given time.
pub(crate) fn sink_that_keeps(url: &str, tombstone: time::Duration) -> PostgresSink {
    let settings = PostgresSettings::parse(SETTING, |name| (name == SETTING).then_some(url)).unwrap().unwrap();
    PostgresSink::new(&settings, None, tombstone)
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Deduplicates the changes and applies them.
pub(crate) async fn apply(sink: &PostgresSink, events: &[EventBuilder]) -> SinkOutcome {
    apply_within(sink, &event(events), Duration::from_mins(1)).await
}

/// Deduplicates a batch and applies it within the given time.
pub(crate) async fn apply_within(sink: &dyn Sink, event: &RawValue, time: Duration) -> SinkOutcome {
    let batch = stream::read(event).unwrap();
    let changes: Vec<_> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
    let settled: Vec<_> = latest_per_key(&changes).into_iter().map(|position| changes[position]).collect();
    let outcome = sink
        .apply(DeduplicatedBatch { changes: &changes, latest_per_key: &settled }, &invocation_within(time))
        .await
        .unwrap();
    let named = outcome.filtered.len() + outcome.failures.len();
    let counted = outcome.applied + outcome.duplicate + outcome.stale + named;
    assert_eq!(counted, settled.len(), "each settled change is counted once: {outcome:?}");
    outcome
}
