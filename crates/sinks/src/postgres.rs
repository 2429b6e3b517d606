//! The PostgreSQL replica: one row for each item, written by one conditional statement per batch.
//!
//! A replication document gives a table its name and its typed columns ([`PostgresSink::with_table`]). The table of the
//! users service is declared by the document of that service ([`PostgresSink::new`]); it accepts only users, and search
//! adds its indexes to it. The layout of a table (`table_layout`) converts an item to the values of its columns.
//!
//! The statement (`statement`) writes every row whose key has no row or one with a lower revision, and counts the
//! results, in one round trip. A removed item leaves a tombstone: its row with `deleted_at`, its key and its
//! revision, and nothing else; after `TOMBSTONE_RETENTION_DAYS` it is deleted, 1,000 at a time, along with a batch
//! every few minutes.
//!
//! A statement fails as a whole, so a single row that the server cannot store would hold up the other rows. A row that
//! is known to be invalid is never sent (`row`). If the server reports an error about a value, the row is located by
//! bisection; and before that row is treated as poison, the sink makes sure that the table accepts other rows
//! (`rejection`). If no item fits the columns, whether the document declares them or an operator added them to the table,
//! they are misconfigured, and no item is poison.
//!
//! Pitfalls: treating any other error as permanent (an outage would empty a stream into the failure bucket), writing
//! rows in another order than that of their keys (two invocations would wait for each other), or using a plan that was
//! made for an empty table (see `statement::SETUP`).

mod migrations;
mod rejection;
mod replica;
mod row;
mod statement;
mod table_layout;
mod table_migration;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::change::Change;
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::invocation::Invocation;
use millrace_shared::item::columns::RowError;
use millrace_shared::item::restored::SourceSchema;
use millrace_shared::metric;
use millrace_shared::postgres::{PostgresDatabase, PostgresError, PostgresErrorKind, PostgresSettings};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkName, SinkOutcome};
use crate::document::{PostgresTable, users_table};
use row::TableRow;
use table_layout::{MisfitKind, RowEncodeError, TableLayout};
use write::{RowFailure, UpsertCounts, UpsertMode, UpsertOutput};

pub use migrations::{MigrationError, PostgresSchema, grant_app_role, migrate, migrate_table, pending};

/// The name of the sink of the users service.
pub const NAME: &str = "postgres";

/// The variable that contains the database URL.
pub const SETTING: &str = "POSTGRES_URL";

/// The time limit of the check at start; Lambda limits the whole start to 10 seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two searches for expired tombstones.
const PURGE_PAUSE_SECONDS: i64 = 600;
/// The maximum number of tombstones deleted at once: this takes a few milliseconds.
const PURGE_ROWS: i64 = 1_000;

/// A sink that mirrors the source's items in a table.
#[derive(Debug)]
pub struct PostgresSink {
    name: SinkName,
    /// The setting that declares the table, for errors.
    setting: String,
    table: PostgresTable,
    layout: TableLayout,
    database: PostgresDatabase,
    tombstone: time::Duration,
    /// The time of the next purge, in epoch seconds.
    purge_at: AtomicI64,
    /// The stream of which records have fitted the table.
    fitting: Mutex<FittingStream>,
}

/// The facts about the table that the batches of a stream have shown.
#[derive(Debug, Default)]
struct FittingStream {
    /// The stream's ARN.
    arn: Box<str>,
    /// Whether a key has fitted.
    key: bool,
    /// Whether an item has fitted the typed columns.
    item: bool,
}

impl PostgresSink {
    /// Creates the sink of the users service for the database in `settings`, with tombstones that are retained for
    /// `tombstone`; no I/O.
    #[must_use]
    pub fn new(settings: &PostgresSettings, signer: Option<TokenSigner>, tombstone: time::Duration) -> Self {
        let database = settings.database(signer, statement::SETUP);
        let table = users_table();
        Self {
            name: SinkName::from_static(NAME),
            setting: SETTING.to_owned(),
            layout: TableLayout::for_users(&table),
            table,
            database,
            tombstone,
            purge_at: AtomicI64::new(i64::MIN),
            fitting: Mutex::default(),
        }
    }

    /// Replaces the table of the users service by that of another source. `name` is the replica's name, and `setting` its
    /// place in the replication document, for errors.
    #[must_use]
    pub fn with_table(self, name: SinkName, setting: String, table: PostgresTable) -> Self {
        Self { name, setting, layout: TableLayout::for_any_source(&table), table, ..self }
    }

    /// Replaces the columns of the users service by those of this table, which has them and may have others.
    #[must_use]
    pub fn with_users_table(self, table: PostgresTable) -> Self {
        Self { layout: TableLayout::for_users(&table), table, ..self }
    }

    /// Returns the database client.
    #[must_use]
    pub fn database(&self) -> &PostgresDatabase {
        &self.database
    }

    async fn apply_all(&self, batch: DeduplicatedBatch<'_>, invocation: &Invocation) -> SinkOutcome {
        let latest = batch.latest_per_key;
        if latest.is_empty() {
            return SinkOutcome::default();
        }
        let (mut rows, refused) = self.rows(latest, invocation.now);
        let unfit = self.misconfiguration(latest[0], &rows, &refused, invocation.deadline).await;
        if unfit.is_none() {
            self.fits(latest[0], &rows);
        }
        self.count_replaced(&rows);
        TableRow::sort(&mut rows);
        let UpsertOutput { counts, left, .. } = self.write(&rows, UpsertMode::Lower, invocation.deadline).await;
        let UpsertCounts { applied, tombstones, duplicate, stale } = counts;
        let refused = refused.into_iter().map(|(position, refused)| {
            let unfit = unfit.clone().filter(|_| self.layout.misfit(&refused).is_some());
            (position, unfit.map_or_else(|| refused.into(), FailureKind::Transient))
        });
        let failures = refused.chain(left.into_iter().map(|(position, left)| (position, left.into())));
        let failures = failures.map(|(position, kind)| FailedChange { index: latest[position].index, kind }).collect();
        if applied > 0 {
            self.purge(invocation).await;
        }
        SinkOutcome { applied, duplicate, stale, tombstones, failures, ..SinkOutcome::default() }
    }

    /// Returns the rows of these changes, and the changes that cannot be encoded as rows.
    fn rows<'c>(
        &self,
        latest: &[&'c Change<'_>],
        now: OffsetDateTime,
    ) -> (Vec<TableRow<'c>>, Vec<(usize, RowEncodeError)>) {
        let (mut rows, mut refused) = (Vec::with_capacity(latest.len()), Vec::new());
        for (position, change) in latest.iter().enumerate() {
            match TableRow::from_change(&self.layout, position, change, now) {
                Ok(row) => rows.push(row),
                Err(reason) => refused.push((position, reason)),
            }
        }
        (rows, refused)
    }

    /// Returns the error of the configuration if nothing of the batch fits and nothing has fitted before: no key is a
    /// user's key, or no item fits the columns. That is not the error of any record, so none is quarantined.
    async fn misconfiguration(
        &self,
        change: &Change<'_>,
        rows: &[TableRow<'_>],
        refused: &[(usize, RowEncodeError)],
        until: Instant,
    ) -> Option<String> {
        // Other records, such as one with the character U+0000, are invalid whatever the columns are.
        let mut unfit = refused.iter().filter_map(|(_, refused)| Some((self.layout.misfit(refused)?, refused)));
        let (misfit, first) = unfit.next()?;
        if is_fit(misfit, rows) || unfit.any(|(other, _)| other != misfit) || self.has_fitted(misfit, change) {
            return None;
        }
        let setting = &self.setting;
        if misfit == MisfitKind::Key {
            return Some(format!("{setting} accepts only user records, but {}: leave it unset", RowError::Key));
        }
        // An execution environment that has just started has seen nothing, but the table shows what has fitted.
        let sql = self.layout.statements.sample.as_str();
        let query = self.database.run(until, |session| async move { session.client().query(sql, &[]).await });
        let fits = |row: &Row| row.try_get(0).is_ok_and(|item| self.layout.values(item).is_ok());
        match query.await {
            Ok(rows) if rows.iter().any(fits) => None,
            Ok(_) => Some(format!(
                "{setting}: no item fits the columns of the table {}, so they are misconfigured: {first}; correct the \
                 column{}",
                self.layout.table,
                match self.layout.source {
                    SourceSchema::Users => ", or remove it from the replication document",
                    SourceSchema::Any => ", or set otherwise to \"null\"",
                }
            )),
            Err(fault) => Some(fault.reason),
        }
    }

    /// Counts the values that are null because their columns cannot store them.
    fn count_replaced(&self, rows: &[TableRow<'_>]) {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for column in rows.iter().flat_map(TableRow::replaced_by_null) {
            *counts.entry(*column).or_default() += 1;
        }
        let count: usize = counts.values().sum();
        if count == 0 {
            return;
        }
        metric::UNFIT_VALUES.increment([&*self.name], count as u64);
        let columns = self.layout.columns.definitions();
        let name = |column: usize| columns.get(column).map_or("", |column| column.name.as_str());
        let columns: Vec<String> = counts.iter().map(|(column, count)| format!("{}: {count}", name(*column))).collect();
        tracing::warn!(
            sink = &*self.name,
            columns.unfit = columns.join(", "),
            "values that do not fit their columns are stored as null"
        );
    }

    /// Returns whether an earlier batch has shown that the records of this stream fit the table. All keys of a stream
    /// have the same schema, so a key that is not a user's is then the record's error, even if the batch contains no
    /// user's key.
    fn has_fitted(&self, misfit: MisfitKind, change: &Change<'_>) -> bool {
        let fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        *fitting.arn == *change.source.arn()
            && match misfit {
                MisfitKind::Key => fitting.key,
                MisfitKind::Column => fitting.item,
            }
    }

    fn fits(&self, change: &Change<'_>, rows: &[TableRow<'_>]) {
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if *fitting.arn != *change.source.arn() {
            *fitting = FittingStream { arn: change.source.arn().into(), ..FittingStream::default() };
        }
        fitting.key |= is_fit(MisfitKind::Key, rows);
        fitting.item |= is_fit(MisfitKind::Column, rows);
    }

    /// Deletes expired tombstones from time to time. Nothing depends on the time of their deletion, so an error is only
    /// logged.
    async fn purge(&self, invocation: &Invocation) {
        let now = invocation.now.unix_timestamp();
        if now < self.purge_at.load(Ordering::Relaxed) {
            return;
        }
        let before = invocation.now - self.tombstone;
        let purged = self.database.run(invocation.deadline, |session| async move {
            let statement = session.statement(&self.layout.statements.purge).await?;
            session.client().execute(&statement, &[&before, &PURGE_ROWS]).await
        });
        let pause = match purged.await {
            // There may be more expired tombstones.
            Ok(rows) if i64::try_from(rows).is_ok_and(|rows| rows >= PURGE_ROWS) => 0,
            Ok(_) => PURGE_PAUSE_SECONDS,
            Err(fault) => {
                tracing::warn!(
                    sink = &*self.name,
                    error = %fault,
                    "cannot delete expired tombstones: a later batch retries"
                );
                PURGE_PAUSE_SECONDS
            }
        };
        self.purge_at.store(now + pause, Ordering::Relaxed);
    }

    async fn check_server(&self, until: Instant) -> Result<(), ServingError> {
        let query =
            self.database.run(until, |session| async move { session.client().query_one(statement::CHECK, &[]).await });
        let server = query.await?;
        if server.try_get::<_, bool>(0).unwrap_or_default() {
            let reason = "is read-only: it is a replica, not the writer; set the URL to the writer's endpoint";
            return Err(ServingError::Misconfigured(format!("{SETTING} {} {reason}", self.database.address())));
        }
        let encoding: &str = server.try_get(1).unwrap_or_default();
        if encoding != "UTF8" {
            let address = self.database.address();
            let reason = format!("{SETTING} {address} has the encoding {encoding}: create a database with UTF8");
            return Err(ServingError::Misconfigured(reason));
        }
        let table = self.table.clone();
        let schema = match self.layout.source {
            SourceSchema::Users => PostgresSchema { users: Some(table), tables: Vec::new() },
            SourceSchema::Any => PostgresSchema { users: None, tables: vec![table] },
        };
        let pending = schema.required(&self.database, until).await?;
        if !pending.is_empty() {
            let (address, steps) = (self.database.address(), pending.join(", "));
            let reason = format!("{SETTING} {address} is not migrated ({steps}): run the maintenance task migrate");
            return Err(ServingError::Misconfigured(reason));
        }
        self.probe_rows(until).await
    }
}

/// Returns whether these rows show that the source fits the table: any key, or any item that fits the typed columns.
fn is_fit(misfit: MisfitKind, rows: &[TableRow<'_>]) -> bool {
    match misfit {
        MisfitKind::Key => !rows.is_empty(),
        MisfitKind::Column => rows.iter().any(TableRow::has_item),
    }
}

/// An error that prevents the replica from processing any batch at present.
enum ServingError {
    /// An operator has to correct it.
    Misconfigured(String),
    /// The error may resolve without a correction.
    Transient(String),
}

impl From<PostgresError> for ServingError {
    fn from(fault: PostgresError) -> Self {
        match fault.kind {
            PostgresErrorKind::Unreachable => Self::Transient(fault.reason),
            PostgresErrorKind::Refused(code) if is_transient_code(&code) => Self::Transient(fault.reason),
            _ => Self::Misconfigured(fault.reason),
        }
    }
}

/// Returns whether a server that rejects a statement with this code may accept it a moment later: it lacks a resource,
/// is in maintenance, is busy with another transaction or has an internal error. SQLSTATE classes 40, 53, 55, 57, 58
/// and XX.
fn is_transient_code(code: &SqlState) -> bool {
    ["40", "53", "55", "57", "58", "XX"].iter().any(|class| code.code().starts_with(class))
}

impl From<RowEncodeError> for FailureKind {
    fn from(refused: RowEncodeError) -> Self {
        match refused {
            RowEncodeError::View => Self::Transient(refused.to_string()),
            poison => Self::Permanent(poison.to_string()),
        }
    }
}

impl From<RowFailure> for FailureKind {
    fn from(left: RowFailure) -> Self {
        match left {
            RowFailure::Poison(reason) => Self::Permanent(reason),
            RowFailure::Fault(reason) => Self::Transient(reason),
        }
    }
}

impl From<MigrationError> for ServingError {
    fn from(unmigrated: MigrationError) -> Self {
        match unmigrated {
            MigrationError::Database(fault) => fault.into(),
            other => Self::Misconfigured(other.to_string()),
        }
    }
}

impl Sink for PostgresSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            let reason = match timeout(CHECK_TIMEOUT, self.check_server(Instant::now() + CHECK_TIMEOUT)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(ServingError::Misconfigured(reason))) => {
                    return Err(SinkMisconfiguredError { sink: self.name.to_string(), reason });
                }
                Ok(Err(ServingError::Transient(reason))) => reason,
                Err(_) => format!("{SETTING} {} did not respond in time", self.database.address()),
            };
            tracing::warn!(
                sink = &*self.name,
                error = reason,
                "the replica was not checked at start: the first batch repeats the check"
            );
            Ok(())
        }
        .boxed()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.apply_all(batch, invocation).map(Ok).boxed()
    }
}
