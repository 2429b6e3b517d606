//! The tables of the relational replica, made and brought up to date.
//!
//! It logs in as the database's owner, and lets the user in whom all functions log in as. It asks nothing of the source, so
//! that it runs before anything else does; a second time it changes nothing.

use replicator::sink::postgres::{MigrationError, grant_app_role, migrate};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::postgres::PostgresDatabase;
use shared::table_reader::ScanSegment;

use super::task_run::TaskRun;
use crate::failure_bucket::BucketError;

/// Why nothing, or not all, is migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The tier is off.
    #[error("POSTGRES_URL is not set: there is no relational replica to migrate")]
    NotConfigured,
    /// The database refuses.
    #[error(transparent)]
    Unmigrated(#[from] MigrationError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// It has no place to go on from: each step stands once it was applied.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct MigrateCursor {}

/// Applies what is missing, and reports the steps. The tables are not dealt out: the first segment makes them.
///
/// # Errors
/// [`MigrateError`]. What was applied until then stays.
pub async fn run(
    course: &mut TaskRun<MigrateCursor>,
    owned: Option<&PostgresDatabase>,
    segment: ScanSegment,
) -> Result<bool, MigrateError> {
    let database = owned.ok_or(MigrateError::NotConfigured)?;
    if segment.segment > 0 {
        return Ok(true);
    }
    let applied = migrate(database, course.stop_at).await?;
    grant_app_role(database, database.address().user(), course.stop_at).await?;
    course.count("postgres.migrations_applied", applied.len());
    for step in &applied {
        course.report(&json!({"kind": "applied", "step": step}));
    }
    Ok(true)
}
