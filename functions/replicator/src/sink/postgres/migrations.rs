//! The tables of the PostgreSQL replica, step by step, as `migrations/` has them. [`migrate`]
//!
//! They are applied by the maintenance task `migrate`, and by `local`; never when a function starts: a cold start has no time
//! for it, and a function that reads and writes rows needs no right to change tables.

use std::collections::BTreeSet;

use refinery::{Migration, Runner};
use shared::postgres::{PostgresDatabase, PostgresError, PostgresErrorKind};
use tokio::time::{Instant, timeout_at};

/// In order; a step that was applied somewhere is never changed.
const STEPS: [(&str, &str); 4] = [
    ("V1__users", include_str!("../../../migrations/V1__users.sql")),
    ("V2__times", include_str!("../../../migrations/V2__times.sql")),
    ("V3__likeness", include_str!("../../../migrations/V3__likeness.sql")),
    ("V4__folding", include_str!("../../../migrations/V4__folding.sql")),
];

/// Where refinery keeps what was applied.
const HISTORY: &str = "select version from refinery_schema_history";

/// Two tasks at once apply each step once. The number is only ours.
const ONE_AT_A_TIME: &str = "select pg_advisory_lock(5926110247031844701)";

/// Why the tables are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database is not to be used.
    #[error(transparent)]
    Database(#[from] PostgresError),
    /// A step is none. It is known before anything is asked.
    #[error("a migration is malformed: {0}")]
    Malformed(#[source] refinery::Error),
    /// A step failed; it left nothing, and those before it stay.
    #[error("{setting} {address} could not be migrated: {cause}")]
    Step {
        /// The variable that names the database.
        setting: &'static str,
        /// Where it is.
        address: String,
        /// What the server said.
        cause: String,
    },
}

/// Applies the steps that are missing, and answers their names.
///
/// # Errors
/// [`MigrationError`], which names the step. What was applied before it stays.
pub async fn migrate(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    let runner = Runner::new(&steps()?);
    let mut client = database.dedicated_connection(until).await?;
    let failed = |cause: String| {
        let (setting, address) = (database.setting(), database.address().to_string());
        MigrationError::Step { setting, address, cause }
    };
    let applying = async {
        client.batch_execute(ONE_AT_A_TIME).await.map_err(|error| MigrationError::from(database.fault(&error)))?;
        runner.run_async(&mut client).await.map_err(|error| failed(causes(&error)))
    };
    let late = || failed("the time was up; run it again".to_owned());
    let report = timeout_at(until, applying).await.unwrap_or_else(|_| Err(late()))?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Lets `user` in, if it is not the owner itself: makes the role, lets it log in by IAM where the server knows that, and
/// grants it the rows of all tables.
///
/// # Errors
/// [`MigrationError`], which says what the server refuses.
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

/// The steps that are missing there, by name.
///
/// # Errors
/// [`MigrationError`] if the database does not tell.
pub async fn pending(database: &PostgresDatabase, until: Instant) -> Result<Vec<String>, MigrationError> {
    let asked = database.run(until, |session| async move { session.client().query(HISTORY, &[]).await }).await;
    let applied: BTreeSet<i32> = match asked {
        Ok(rows) => rows.iter().filter_map(|row| row.try_get(0).ok()).collect(),
        // No table of that name: nothing was ever applied.
        Err(fault) if fault.kind == PostgresErrorKind::NotMigrated => BTreeSet::new(),
        Err(fault) => return Err(fault.into()),
    };
    let steps = steps()?;
    Ok(steps.iter().filter(|step| !applied.contains(&step.version())).map(ToString::to_string).collect())
}

fn steps() -> Result<Vec<Migration>, MigrationError> {
    STEPS.iter().map(|(name, sql)| Migration::unapplied(name, sql).map_err(MigrationError::Malformed)).collect()
}

/// refinery's own sentence ends before the server's.
fn causes(error: &refinery::Error) -> String {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !said.contains(&more) {
            said.push_str(": ");
            said.push_str(&more);
        }
        source = cause.source();
    }
    said
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
