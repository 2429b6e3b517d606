//! The schema migrations of the PostgreSQL replica, from the folder `migrations/`. [`migrate`]
//!
//! They are applied by the maintenance task `migrate`, and by `millrace`, but never when a function starts: a cold start
//! has no time for it, and a function that reads and writes rows needs no right to change tables.

use std::collections::BTreeSet;

use millrace_shared::error_chain::error_chain;
use millrace_shared::postgres::{PostgresDatabase, PostgresError, PostgresErrorKind};
use refinery::{Migration, Runner};
use tokio::time::{Instant, timeout_at};

/// In ascending order; a migration that has been applied anywhere must never be changed.
const STEPS: [(&str, &str); 4] = [
    ("V1__users", include_str!("../../migrations/V1__users.sql")),
    ("V2__times", include_str!("../../migrations/V2__times.sql")),
    ("V3__likeness", include_str!("../../migrations/V3__likeness.sql")),
    ("V4__folding", include_str!("../../migrations/V4__folding.sql")),
];

/// The query for the applied migrations, in refinery's table.
const HISTORY: &str = "select version from refinery_schema_history";

/// An advisory lock, so that two concurrent tasks apply each migration once. The number is arbitrary.
pub(super) const ONE_AT_A_TIME: &str = "select pg_advisory_lock(5926110247031844701)";

/// A migration that failed, or whose state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// A migration is malformed. [`migrate`] detects this before it connects.
    #[error("a migration is malformed: {0}")]
    Malformed(#[source] refinery::Error),
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

/// Applies the pending migrations, and returns their names.
///
/// # Errors
/// [`MigrationError`], which names the migration. The ones before it stay applied.
pub async fn migrate(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    let runner = Runner::new(&steps()?);
    let mut client = database.dedicated_connection(until).await?;
    let failed = |cause: String| {
        let (setting, address) = (database.setting(), database.address().to_string());
        MigrationError::Step { setting, address, cause }
    };
    let applying = async {
        client.batch_execute(ONE_AT_A_TIME).await.map_err(|error| MigrationError::from(database.fault(&error)))?;
        runner.run_async(&mut client).await.map_err(|error| failed(error_chain(&error)))
    };
    let late = || failed("the deadline has passed: run the task again".to_owned());
    let report = timeout_at(until, applying).await.unwrap_or_else(|_| Err(late()))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
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
    let asked = database.run(until, |session| async move { session.client().batch_execute(sql).await });
    Ok(asked.await?)
}

/// Returns the names of the pending migrations.
///
/// # Errors
/// [`MigrationError`] if the database does not respond.
pub async fn pending(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    let asked = database.run(until, |session| async move { session.client().query(HISTORY, &[]).await }).await;
    let applied: BTreeSet<i32> = match asked {
        Ok(rows) => rows.iter().filter_map(|row| row.try_get(0).ok()).collect(),
        // refinery's table does not exist: no migration was ever applied.
        Err(fault) if fault.kind == PostgresErrorKind::NotMigrated => BTreeSet::new(),
        Err(fault) => return Err(fault.into()),
    };
    let steps = steps()?;
    Ok(steps.iter().filter(|step| !applied.contains(&step.version())).map(ToString::to_string).collect())
}

fn steps() -> Result<Vec<Migration>, MigrationError> {
    STEPS.iter().map(|(name, sql)| Migration::unapplied(name, sql).map_err(MigrationError::Malformed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_step() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        assert_eq!(files, STEPS.map(|(name, _)| name.to_owned()));
        assert_eq!(steps().unwrap().len(), STEPS.len());
    }
}
