//! The PostgreSQL replica: a row a user's record, written by one guarded statement a batch.
//!
//! The statement (`statement`) writes all rows over nothing or over a lower revision and counts what it did, in one round
//! trip. A removed record leaves a tombstone: its row with `deleted_at`, its key and its revision, and nothing else; after
//! `TOMBSTONE_RETENTION_DAYS` it is deleted, 1,000 at a time, next to a batch every few minutes.
//!
//! A statement fails whole, so one row that the server cannot hold would hold up its neighbours. What is known to be such
//! a row is never sent (`row`). What the server alone finds, with an error about a value, is looked for by halves; and
//! before the row that is left is called poison, the table is asked whether it takes any row at all.
//!
//! What would break it: calling any other error permanent (an outage would empty a stream into the failure bucket), rows in
//! another order than that of their keys (two invocations would wait for each other), or a plan that was made for an
//! empty table (see `statement::SETUP`).

mod migrations;
mod replica;
mod row;
mod statement;
mod write;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shared::change::Change;
use shared::iam_token::TokenSigner;
use shared::invocation::Invocation;
use shared::item::columns::RowError;
use shared::postgres::{PostgresDatabase, PostgresError, PostgresErrorKind, PostgresSettings};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};
use row::{RowEncodeError, UserRow};
use write::{RowFailure, UpsertCounts, UpsertMode, UpsertOutput};

pub use migrations::{MigrationError, grant_app_role, migrate, pending};

/// The sink's name.
pub const NAME: &str = "postgres";

/// The variable that names the database.
pub const SETTING: &str = "POSTGRES_URL";

/// Lambda gives the whole start 10 seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks for tombstones that have had their time.
const PURGE_PAUSE_SECONDS: i64 = 600;
/// How many are taken away at once: a few milliseconds' worth.
const PURGE_ROWS: i64 = 1_000;

/// A table of users that mirrors the source's.
#[derive(Debug)]
pub struct PostgresSink {
    database: PostgresDatabase,
    tombstone: time::Duration,
    /// In epoch seconds.
    purge_at: AtomicI64,
    /// The stream that has had a user's key.
    fitting: Mutex<Option<Box<str>>>,
}

impl PostgresSink {
    /// A sink for the database that `settings` describe, with tombstones that stay for `tombstone`; no I/O.
    #[must_use]
    pub fn new(settings: &PostgresSettings, signer: Option<TokenSigner>, tombstone: time::Duration) -> Self {
        let database = settings.database(signer, statement::SETUP);
        Self { database, tombstone, purge_at: AtomicI64::new(i64::MIN), fitting: Mutex::default() }
    }

    /// The line to it.
    #[must_use]
    pub fn database(&self) -> &PostgresDatabase {
        &self.database
    }

    async fn apply_all(&self, decided: DeduplicatedBatch<'_>, invocation: &Invocation) -> SinkOutcome {
        let settled = decided.latest_per_key;
        if settled.is_empty() {
            return SinkOutcome::default();
        }
        let (mut rows, refused) = rows(settled, invocation.now);
        if let Some(reason) = wrong_table_error(&rows, &refused)
            && !self.has_fitted(settled[0])
        {
            return SinkOutcome::all_failed(settled, &reason);
        }
        if !rows.is_empty() {
            self.fits(settled[0]);
        }
        UserRow::sort(&mut rows);
        let UpsertOutput { counts, left, .. } = self.write(&rows, UpsertMode::Lower, invocation.deadline).await;
        let UpsertCounts { applied, tombstones, duplicate, stale } = counts;
        let refused = refused.into_iter().map(|(place, refused)| (place, refused.into()));
        let failures = refused.chain(left.into_iter().map(|(place, left)| (place, left.into())));
        let failures = failures.map(|(place, kind)| FailedChange { index: settled[place].index, kind }).collect();
        if applied > 0 {
            self.purge(invocation).await;
        }
        SinkOutcome { applied, duplicate, stale, tombstones, failures }
    }

    /// Whether a batch before has shown that this stream is one of users. Its keys are all alike, so a key that is none is
    /// the record's fault then, also where its neighbours are not beside it any more.
    fn has_fitted(&self, change: &Change<'_>) -> bool {
        self.fitting.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(change.source.arn())
    }

    fn fits(&self, change: &Change<'_>) {
        let mut fitting = self.fitting.lock().unwrap_or_else(PoisonError::into_inner);
        if fitting.as_deref() != Some(change.source.arn()) {
            *fitting = Some(change.source.arn().into());
        }
    }

    /// Takes tombstones away that have had their time, now and then. Nothing depends on when, so nothing fails with it.
    async fn purge(&self, invocation: &Invocation) {
        let now = invocation.now.unix_timestamp();
        if now < self.purge_at.load(Ordering::Relaxed) {
            return;
        }
        let before = invocation.now - self.tombstone;
        let purged = self.database.run(invocation.deadline, |session| async move {
            let statement = session.statement(statement::PURGE).await?;
            session.client().execute(&statement, &[&before, &PURGE_ROWS]).await
        });
        let pause = match purged.await {
            // There are more.
            Ok(rows) if i64::try_from(rows).is_ok_and(|rows| rows >= PURGE_ROWS) => 0,
            Ok(_) => PURGE_PAUSE_SECONDS,
            Err(fault) => {
                tracing::warn!(sink = NAME, error = %fault, "old tombstones were not taken away; another batch tries");
                PURGE_PAUSE_SECONDS
            }
        };
        self.purge_at.store(now + pause, Ordering::Relaxed);
    }

    async fn ask(&self, until: Instant) -> Result<(), ServingError> {
        let asked =
            self.database.run(until, |session| async move { session.client().query_one(statement::CHECK, &[]).await });
        if asked.await?.try_get::<_, bool>(0).unwrap_or_default() {
            let reason = "is read-only: it is a replica, not the writer; name the writer's endpoint";
            return Err(ServingError::Broken(format!("{SETTING} {} {reason}", self.database.address())));
        }
        let pending = pending(&self.database, until).await?;
        if !pending.is_empty() {
            let (address, steps) = (self.database.address(), pending.join(", "));
            let reason = format!("{SETTING} {address} is not migrated ({steps}): run the maintenance task migrate");
            return Err(ServingError::Broken(reason));
        }
        self.takes_rows(until).await
    }

    /// Whether the table takes a row that is beyond doubt.
    async fn takes_rows(&self, until: Instant) -> Result<(), ServingError> {
        let probed =
            self.database.run(until, |session| async move { session.client().batch_execute(statement::PROBE).await });
        match probed.await {
            Err(fault) if matches!(&fault.kind, PostgresErrorKind::Refused(code) if code.code() == statement::PROBED) => {
                Ok(())
            }
            Err(fault) if fault.is_data_error() => {
                let reason = format!("{fault}: the table users takes no row at all; look for constraints added to it");
                Err(ServingError::Broken(reason))
            }
            Err(fault) => Err(fault.into()),
            Ok(()) => Ok(()),
        }
    }
}

/// Why the replica serves nobody now.
enum ServingError {
    /// Someone has to mend it.
    Broken(String),
    /// It may pass.
    Transient(String),
}

impl From<PostgresError> for ServingError {
    fn from(fault: PostgresError) -> Self {
        match fault.kind {
            PostgresErrorKind::Unreachable => Self::Transient(fault.reason),
            PostgresErrorKind::Refused(code) if passes(&code) => Self::Transient(fault.reason),
            _ => Self::Broken(fault.reason),
        }
    }
}

/// Whether a server that refuses a statement so may take it a moment later: it lacks a resource, is in maintenance, is
/// busy with another transaction or has an error of its own. SQLSTATE classes 40, 53, 55, 57, 58 and XX.
fn passes(code: &SqlState) -> bool {
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
            other => Self::Broken(other.to_string()),
        }
    }
}

impl Sink for PostgresSink {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            let reason = match timeout(CHECK_TIMEOUT, self.ask(Instant::now() + CHECK_TIMEOUT)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(ServingError::Broken(reason))) => return Err(SinkMisconfiguredError { sink: NAME, reason }),
                Ok(Err(ServingError::Transient(reason))) => reason,
                Err(_) => format!("{SETTING} {} did not answer in time", self.database.address()),
            };
            tracing::warn!(
                sink = NAME,
                error = reason,
                "the replica was not checked at start; the first batch asks again"
            );
            Ok(())
        }
        .boxed()
    }

    fn apply<'s>(
        &'s self,
        decided: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        self.apply_all(decided, invocation).map(Ok).boxed()
    }
}

/// The rows of these changes, and what is none.
fn rows<'c>(settled: &[&'c Change<'_>], now: OffsetDateTime) -> (Vec<UserRow<'c>>, Vec<(usize, RowEncodeError)>) {
    let (mut rows, mut refused) = (Vec::with_capacity(settled.len()), Vec::new());
    for (place, change) in settled.iter().enumerate() {
        match UserRow::of_change(place, change, now) {
            Ok(row) => rows.push(row),
            Err(reason) => refused.push((place, reason)),
        }
    }
    (rows, refused)
}

/// If every record's key is unlike a user's, it is the table that is unlike this one, and no record's fault.
fn wrong_table_error(rows: &[UserRow<'_>], refused: &[(usize, RowEncodeError)]) -> Option<String> {
    let other = |(_, refused): &(usize, RowEncodeError)| *refused == RowEncodeError::NoRow(RowError::Key);
    let all = rows.is_empty() && refused.iter().all(other);
    all.then(|| format!("{SETTING} holds users, and this table's {}: leave it unset", RowError::Key))
}
