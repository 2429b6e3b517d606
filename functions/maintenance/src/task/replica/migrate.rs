//! Creates the tables of the relational replica, and brings them up to date.
//!
//! The task logs in as the database's owner, and grants access to the user that all functions log in as. It does not
//! read the source, so it can run before all other tasks. A second run changes nothing.

use futures::future::LocalBoxFuture;
use millrace_shared::invocation::Invocation;
use millrace_shared::postgres::PostgresDatabase;
use millrace_sinks::postgres::{MigrationError, PostgresSchema, grant_app_role};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

use crate::failure_bucket::BucketError;
use crate::handler::MaintenanceHandler;
use crate::task::error::{ClassifiedError, TaskError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, RunTask};
use crate::task::request::InvalidRequest;
use crate::task::task_run::TaskRun;
use crate::task::{TaskRequest, TaskResponse};

/// The request of a migration, which has no fields.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct MigrateRequest {}

/// The task `migrate`.
#[derive(Debug, PartialEq, Eq)]
pub struct MigrateTask;

impl MaintenanceTask for MigrateTask {
    const NAME: &'static str = "migrate";
    const SUMMARY: &'static str = "creates the tables of the relational replica, or updates them";
    type Request = MigrateRequest;

    fn parse(MigrateRequest {}: MigrateRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        Ok(Self)
    }
}

/// Runs without the source, because a migration comes before a replica of it exists.
impl RunTask for MigrateTask {
    fn respond<'a>(
        &'a self,
        handler: &'a MaintenanceHandler,
        request: &'a TaskRequest,
        invocation: &'a Invocation,
    ) -> LocalBoxFuture<'a, Result<TaskResponse, TaskError>> {
        Box::pin(async move {
            let mut task_run = TaskRun::resume(request, invocation, &handler.failures)?;
            let done = run(&mut task_run, handler.admin_database.as_ref(), &handler.postgres_schema).await;
            Ok(task_run.finish(done).await?)
        })
    }
}

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

impl ClassifiedError for MigrateError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::NotConfigured => TaskErrorKind::Invalid,
            Self::Unmigrated(_) | Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }
}

/// Cursor of a migration. It is empty, because an applied step is permanent.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct MigrateCursor {}

/// Applies the missing steps and reports them. The tables are not divided among the segments: the first segment creates
/// them.
///
/// # Errors
/// [`MigrateError`]. Steps that were applied before the error remain.
async fn run(
    task_run: &mut TaskRun<MigrateCursor>,
    owned: Option<&PostgresDatabase>,
    schema: &PostgresSchema,
) -> Result<bool, MigrateError> {
    let database = owned.ok_or(MigrateError::NotConfigured)?;
    if task_run.segment().segment > 0 {
        return Ok(true);
    }
    let applied = schema.migrate(database, task_run.deadline).await?;
    grant_app_role(database, database.address().user(), task_run.deadline).await?;
    task_run.count("postgres.migrations_applied", applied.len());
    for step in &applied {
        task_run.report(&json!({"kind": "applied", "step": step}));
    }
    Ok(true)
}
