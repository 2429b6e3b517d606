//! Creates the tables of the relational replica, and brings them up to date.
//!
//! The task logs in as the database's owner, and grants access to the user that all functions log in as. It does not
//! read the source, so it can run before all other tasks. A second run changes nothing.

use millrace_shared::postgres::PostgresDatabase;
use millrace_shared::table_reader::ScanSegment;
use millrace_sinks::postgres::{MigrationError, grant_app_role, migrate};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::task_run::TaskRun;
use crate::failure_bucket::BucketError;

/// Error of a migration: no steps were applied, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The relational tier is disabled.
    #[error("POSTGRES_URL is not set: there is no relational replica to migrate")]
    NotConfigured,
    /// The database rejected the migration.
    #[error(transparent)]
    Unmigrated(#[from] MigrationError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Cursor of a migration. It is empty, because an applied step is permanent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct MigrateCursor {}

/// Applies the missing steps and reports them. The tables are not divided among the segments: the first segment creates
/// them.
///
/// # Errors
/// [`MigrateError`]. Steps that were applied before the error remain.
pub async fn run(
    task_run: &mut TaskRun<MigrateCursor>,
    owned: Option<&PostgresDatabase>,
    segment: ScanSegment,
) -> Result<bool, MigrateError> {
    let database = owned.ok_or(MigrateError::NotConfigured)?;
    if segment.segment > 0 {
        return Ok(true);
    }
    let applied = migrate(database, task_run.deadline).await?;
    grant_app_role(database, database.address().user(), task_run.deadline).await?;
    task_run.count("postgres.migrations_applied", applied.len());
    for step in &applied {
        task_run.report(&json!({"kind": "applied", "step": step}));
    }
    Ok(true)
}
