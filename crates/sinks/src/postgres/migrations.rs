//! The schema of a database: the tables of the replication document, and what search adds to the table of the users
//! service. [`PostgresSchema`]
//!
//! It is created and updated by the maintenance task `migrate`, and by `millrace`, but never when a function starts: a
//! cold start has no time for it, and a function that reads and writes rows needs no right to change tables.

use std::collections::BTreeSet;

use millrace_shared::error_chain::error_chain;
use millrace_shared::postgres::{PostgresDatabase, PostgresError, PostgresErrorKind};
use refinery_core::{Migration, Runner};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Error};

use super::table_migration::{TableConflict, TableStep, plan, reader_role, stored_table};
use crate::document::{PostgresTable, users_table};

/// The migrations of search, in ascending order; one that has been applied anywhere must never be changed.
const SEARCH: [(&str, &str); 1] =
    [("V1__search", include_str!("../../../../functions/search/migrations/V1__search.sql"))];

/// The query for the applied migrations of search, in refinery's table.
const HISTORY: &str = "select version from refinery_schema_history";

/// An advisory lock, so that two concurrent tasks apply each step once. The number is arbitrary.
const ONE_AT_A_TIME: &str = "select pg_advisory_lock(5926110247031844701)";

/// A migration that failed, or whose state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// A migration is malformed. [`PostgresSchema::migrate`] detects this before it connects.
    #[error("a migration is malformed: {0}")]
    Malformed(#[source] refinery_core::Error),
    /// A migration failed; it has left no changes, and the ones before it stay applied.
    #[error("{setting} {address} could not be migrated: {cause}")]
    Step {
        /// The variable that names the database.
        setting: &'static str,
        /// The database's location.
        address: String,
        /// The server's error message.
        cause: String,
    },
}

impl MigrationError {
    fn step(database: &PostgresDatabase, cause: String) -> Self {
        Self::Step { setting: database.setting(), address: database.address().to_string(), cause }
    }

    fn rejected(database: &PostgresDatabase, error: &Error) -> Self {
        let fault = database.fault(error);
        // The message of the server names the object, and no value of a row.
        let message = error.as_db_error().map_or_else(|| error_chain(error), |error| error.message().to_owned());
        if fault.is_connection_fatal() { fault.into() } else { Self::step(database, message) }
    }
}

/// The tables that a database has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PostgresSchema {
    /// The table of the users service, if it has that table, to which search adds its indexes.
    pub users: Option<PostgresTable>,
    /// The tables of other sources.
    pub tables: Vec<PostgresTable>,
}

impl PostgresSchema {
    /// The schema of the users service.
    #[must_use]
    pub fn for_users() -> Self {
        Self { users: Some(users_table()), tables: Vec::new() }
    }

    /// Creates the tables, or adds what they lack; returns the names of the steps.
    ///
    /// # Errors
    /// [`MigrationError`], which names the table or the step, and the fix. The steps before it stay applied.
    pub async fn migrate(&self, database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
        let runner = Runner::new(&search_steps()?);
        let mut client = database.dedicated_connection(until).await?;
        let applying = async {
            let locked = client.batch_execute(ONE_AT_A_TIME).await;
            locked.map_err(|error| MigrationError::from(database.fault(&error)))?;
            let mut applied = Vec::new();
            if let Some(table) = &self.users {
                applied.extend(migrate_locked(database, &client, table).await?);
                let report = runner.run_async(&mut client).await;
                let report = report.map_err(|error| MigrationError::step(database, error_chain(&error)))?;
                applied.extend(report.applied_migrations().iter().map(ToString::to_string));
            }
            for table in &self.tables {
                applied.extend(migrate_locked(database, &client, table).await?);
            }
            Ok(applied)
        };
        let late = || MigrationError::step(database, "the deadline has passed: run the task again".to_owned());
        timeout_at(until, applying).await.unwrap_or_else(|_| Err(late()))
    }

    /// Returns the names of the pending steps without which a replica cannot be written or search cannot query it.
    pub(super) async fn required(
        &self,
        database: &PostgresDatabase,
        until: Instant,
    ) -> Result<Vec<String>, MigrationError> {
        self.pending(database, until, |step| !step.is_optional).await
    }

    async fn pending(
        &self,
        database: &PostgresDatabase,
        until: Instant,
        counts: impl Fn(&TableStep) -> bool,
    ) -> Result<Vec<String>, MigrationError> {
        let mut pending = Vec::new();
        let steps = async |table| {
            let query = database.run(until, |session| async move { stored_table(session.client(), table).await });
            plan(table, &query.await?).map_err(|conflict| conflicting(database, &conflict))
        };
        for table in self.users.iter().chain(&self.tables) {
            pending.extend(steps(table).await?.into_iter().filter(&counts).map(|step| step.name));
        }
        if self.users.is_some() {
            pending.extend(pending_of_search(database, until).await?);
        }
        Ok(pending)
    }
}

/// Creates the table of the users service and the indexes of search, or adds what they lack; returns the names of the
/// steps.
///
/// # Errors
/// As [`PostgresSchema::migrate`].
pub async fn migrate(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    PostgresSchema::for_users().migrate(database, until).await
}

/// Creates the table, its view and its reader role, or adds what they lack; returns the names of the steps.
///
/// # Errors
/// [`MigrationError`], which names the table and the fix. Nothing is changed then.
pub async fn migrate_table(
    database: &PostgresDatabase,
    table: &PostgresTable,
    until: Instant,
) -> Result<Vec<String>, MigrationError> {
    PostgresSchema { users: None, tables: vec![table.clone()] }.migrate(database, until).await
}

/// Returns the names of the steps that [`migrate`] would apply.
///
/// # Errors
/// [`MigrationError`] if the database does not respond.
pub async fn pending(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    PostgresSchema::for_users().pending(database, until, |_| true).await
}

/// Grants access to `user`, unless it is the current user, i.e. the owner: creates the role, allows it to log in with
/// IAM if the server supports that, and grants it access to the rows of all tables.
///
/// # Errors
/// [`MigrationError`], which contains the server's error.
pub async fn grant_app_role(database: &PostgresDatabase, user: &str, until: Instant) -> Result<(), MigrationError> {
    let (name, text) = (user.replace('"', "\"\""), user.replace('\'', "''"));
    let sql = format!(
        r#"do $admit$ begin
            if current_user = '{text}' then return; end if;
            if not exists (select from pg_roles where rolname = '{text}') then create role "{name}" login; end if;
            if exists (select from pg_roles where rolname = 'rds_iam') then grant rds_iam to "{name}"; end if;
            grant usage on schema public to "{name}";
            grant select, insert, update, delete on all tables in schema public to "{name}";
        end $admit$"#
    );
    let sql = sql.as_str();
    let query = database.run(until, |session| async move { session.client().batch_execute(sql).await });
    Ok(query.await?)
}

/// Brings a table to its declared layout on a connection that has the lock.
async fn migrate_locked(
    database: &PostgresDatabase,
    client: &Client,
    table: &PostgresTable,
) -> Result<Vec<String>, MigrationError> {
    let rejected = |error: Error| MigrationError::rejected(database, &error);
    let stored = stored_table(client, table).await.map_err(rejected)?;
    let steps = plan(table, &stored).map_err(|conflict| conflicting(database, &conflict))?;
    let mut sql = "begin; set local standard_conforming_strings = on; ".to_owned();
    for step in &steps {
        sql.extend([step.sql.as_str(), "; "]);
    }
    // The role may exist already, or may not be this user's to create; the grants are repeated.
    sql.push_str(&reader_role(table));
    sql.push_str("; commit");
    client.batch_execute(&sql).await.map_err(rejected)?;
    Ok(steps.into_iter().map(|step| step.name).collect())
}

fn conflicting(database: &PostgresDatabase, conflict: &TableConflict) -> MigrationError {
    MigrationError::step(database, conflict.to_string())
}

/// Returns the names of the pending migrations of search.
async fn pending_of_search(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    let query = database.run(until, |session| async move { session.client().query(HISTORY, &[]).await }).await;
    let applied: BTreeSet<i32> = match query {
        Ok(rows) => rows.iter().filter_map(|row| row.try_get(0).ok()).collect(),
        // refinery's table does not exist: no migration was ever applied.
        Err(fault) if fault.kind == PostgresErrorKind::NotMigrated => BTreeSet::new(),
        Err(fault) => return Err(fault.into()),
    };
    let steps = search_steps()?;
    Ok(steps.iter().filter(|step| !applied.contains(&step.version())).map(ToString::to_string).collect())
}

fn search_steps() -> Result<Vec<Migration>, MigrationError> {
    SEARCH.iter().map(|(name, sql)| Migration::unapplied(name, sql).map_err(MigrationError::Malformed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_step() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions/search/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        assert_eq!(files, SEARCH.map(|(name, _)| name.to_owned()));
        assert_eq!(search_steps().unwrap().len(), SEARCH.len());
    }
}
