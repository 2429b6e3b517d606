//! Handles one invocation: parses the request, runs the task until it is done or the deadline is reached, and returns
//! the response.

use millrace_archive::store::ArchiveStore;
use millrace_archive::{Compression, KeyNames};
use millrace_shared::invocation::Invocation;
use millrace_shared::metric;
use millrace_shared::postgres::PostgresDatabase;
use millrace_shared::table::RestoreTable;
use millrace_shared::table_reader::TableReader;
use millrace_sinks::Replica;
use serde_json::value::RawValue;

use crate::archive_scan::ArchiveReader;
use crate::deployment::{DeployedReplicator, SinksUnknownError, UnknownSink};
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::failure_record::FunctionNames;
use crate::mapping::{MappingNotReady, ReplicatorMappings};
use crate::repair::ReconcileError;
use crate::source::{SourceTable, SourceTableError};
use crate::task::audit::{self, AuditError};
use crate::task::backfill::{self, BackfillError};
use crate::task::compact;
use crate::task::export::{self, ExportError};
use crate::task::export_parquet;
use crate::task::merge::MergeError;
use crate::task::migrate::{self, MigrateError};
use crate::task::redrive::{self, RedriveError};
use crate::task::restore::{self, RestoreError};
use crate::task::summary::{self, SummaryError};
use crate::task::task_run::TaskRun;
use crate::task::verify::{self, VerifyError};
use crate::task::{InvalidRequest, TaskRequest, TaskResponse, TaskSpec};

/// The read-only tasks. The differences that they find are recorded as a metric, per segment.
const LOOKING: [&str; 2] = ["audit", "verify"];

/// Error of an invocation. All work that was confirmed before the error remains.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The payload is not a valid task request.
    #[error(transparent)]
    Order(#[from] InvalidRequest),
    /// The source table cannot be used.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// The sinks of the deployment cannot be determined.
    #[error(transparent)]
    Sinks(#[from] SinksUnknownError),
    /// A sink of the deployment would be skipped.
    #[error(transparent)]
    Unserved(#[from] UnknownSink),
    /// A backfill failed.
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    /// A `verify` or `repair` failed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A redrive failed.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    /// A compaction or a Parquet export failed.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A restore failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// An export failed.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An audit failed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A migration failed.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The results of the segments cannot be added up.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl TaskError {
    /// Returns the error name that the state machine matches. Only a `TaskFailed` error may be transient.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let read = match self {
            Self::Restore(RestoreError::Sweep(fault))
            | Self::Export(ExportError::Sweep(fault))
            | Self::Audit(AuditError::Sweep(fault))
                if fault.is_permanent() =>
            {
                return "TaskInvalid";
            }
            Self::Order(_)
            | Self::Verify(VerifyError::NoTime(_))
            | Self::Merge(MergeError::NoTime(_) | MergeError::TooManyCorruptObjects(_))
            | Self::Migrate(MigrateError::NotConfigured)
            | Self::Summary(SummaryError::Missing { .. } | SummaryError::Unreadable { .. })
            | Self::Export(ExportError::Objects | ExportError::RunIdConflict { .. }) => return "TaskInvalid",
            Self::Backfill(BackfillError::MappingNotReady(MappingNotReady::Unknown { .. })) => return "TaskFailed",
            Self::Backfill(BackfillError::MappingNotReady(_)) | Self::Unserved(_) => return "TaskPreconditionFailed",
            Self::Sinks(unknown) | Self::Redrive(RedriveError::Sinks(unknown)) => {
                return if unknown.retryable() { "TaskFailed" } else { "TaskPreconditionFailed" };
            }
            Self::Verify(VerifyError::Read(ReconcileError::Source(fault)))
            | Self::Redrive(RedriveError::Read(ReconcileError::Source(fault)))
            | Self::Backfill(BackfillError::Source(fault))
            | Self::Source(fault) => Some(fault),
            _ => None,
        };
        if matches!(read, Some(SourceTableError::NoStream(_))) { "TaskPreconditionFailed" } else { "TaskFailed" }
    }

    /// Returns whether the request was rejected before any work was done.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        let while_running = match self {
            Self::Merge(_) | Self::Restore(_) | Self::Audit(_) | Self::Summary(_) => true,
            Self::Export(fault) => !matches!(fault, ExportError::RunIdConflict { .. }),
            _ => false,
        };
        !while_running && self.name() != "TaskFailed"
    }
}

/// The maintenance function: the source, its replicas, the archive and the failure bucket.
pub struct MaintenanceHandler {
    /// The source table, which the replicas mirror.
    pub source: TableReader,
    /// The source table, for the writes of a restore.
    pub restore_table: RestoreTable,
    /// The replicas.
    pub replicas: Vec<Box<dyn Replica>>,
    /// The database of the relational replica, accessed as its owner.
    pub admin_database: Option<PostgresDatabase>,
    /// The event source mappings that feed the replicas.
    pub mappings: ReplicatorMappings,
    /// The deployed replicator, whose sinks must be among the replicas.
    pub deployment: DeployedReplicator,
    /// The failure bucket, which also stores the reports.
    pub failures: FailureBucket,
    /// The archive of the items that TTL removed.
    pub archive: ArchiveStore,
    /// The compression of archive objects.
    pub compression: Compression,
    /// The names of the deployed functions.
    pub functions: FunctionNames,
}

impl MaintenanceHandler {
    /// Runs the task that the payload requests.
    ///
    /// # Errors
    /// [`TaskError`], whose message says what to fix.
    pub async fn handle(&self, payload: &RawValue, invocation: &Invocation) -> Result<TaskResponse, TaskError> {
        let answer = Box::pin(self.dispatch(payload, invocation)).await;
        let request_id = &invocation.request_id;
        match &answer {
            Ok(answer) => tracing::info!(
                request_id,
                task.name = answer.task,
                task.run_id = answer.run_id,
                task.segment = answer.segment,
                task.segments = answer.segments,
                task.done = answer.done,
                task.progress = %answer.progress,
                task.sinks = ?answer.sinks,
                "task processed"
            ),
            Err(fault) => tracing::error!(request_id, error.kind = fault.name(), error = %fault, "task failed"),
        }
        if let Ok(TaskResponse { done: true, task, differences, .. }) = &answer
            && LOOKING.contains(&task.as_str())
        {
            metric::DIFFERENCES.increment([], *differences);
        }
        answer
    }

    async fn dispatch(&self, payload: &RawValue, invocation: &Invocation) -> Result<TaskResponse, TaskError> {
        let order = TaskRequest::parse(payload, invocation)?;
        match &order.task {
            TaskSpec::Backfill { capacity_units } => {
                self.serves_all_sinks().await?;
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let context =
                    backfill::BackfillContext { source: &source, replicas: &self.replicas, mappings: &self.mappings };
                let done = backfill::run(&mut task_run, &context, *capacity_units, invocation).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Verify(verify) => {
                self.serves_all_sinks().await?;
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let context = verify::VerifyContext {
                    source: &source,
                    replicas: &self.replicas,
                    bucket: &self.failures,
                    functions: &self.functions,
                };
                let done = verify::run(&mut task_run, &context, *verify, invocation).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Redrive(redrive) => {
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let context = redrive::RedriveContext {
                    source: &source,
                    replicas: &self.replicas,
                    archive: &self.archive,
                    compression: self.compression,
                    bucket: &self.failures,
                    functions: &self.functions,
                    deployment: &self.deployment,
                };
                let done = redrive::run(&mut task_run, &context, redrive, invocation).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Compact(compact) => {
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?;
                let context = compact::CompactContext {
                    archive: &self.archive,
                    compression: self.compression,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = compact::run(&mut task_run, &context, compact).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Columns(columns) => {
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?;
                let context = export_parquet::ParquetContext {
                    archive: &self.archive,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = export_parquet::run(&mut task_run, &context, columns).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Restore(restore) => {
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?;
                let archive_reader = self.archive_reader(&source);
                let context = restore::RestoreContext { archive_reader, source: &source, table: &self.restore_table };
                let done = restore::run(&mut task_run, &context, restore, invocation.now).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Export(export) => {
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?;
                let (archive_reader, description) = (self.archive_reader(&source), source.description());
                let context = export::ExportContext { archive_reader, compression: self.compression, description };
                let done = export::run(&mut task_run, &context, export, &order.run_id).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Audit(audit) => {
                if audit.keys.is_none() {
                    self.serves_all_sinks().await?;
                }
                let source = self.open().await?;
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let archive_reader = self.archive_reader(&source);
                let context = audit::AuditContext { archive_reader, replicas: &self.replicas };
                let done = audit::run(&mut task_run, &context, audit).await;
                Ok(task_run.finish(done).await?)
            }
            // Neither task needs the source: `migrate` runs before a replica of it exists, and `summary` after all
            // segments are done.
            TaskSpec::Migrate => {
                let mut task_run = TaskRun::resume(&order, invocation, &self.failures)?;
                let done = migrate::run(&mut task_run, self.admin_database.as_ref(), order.segment).await;
                Ok(task_run.finish(done).await?)
            }
            TaskSpec::Summary(summary) => {
                Ok(summary::run(summary, &order.run_id, order.segment.total_segments, &self.failures).await?)
            }
        }
    }

    /// Returns the names of the replicas.
    fn sinks(&self) -> Vec<&'static str> {
        self.replicas.iter().map(|replica| replica.name()).collect()
    }

    /// Fails if this function is configured for only some of the deployment's sinks: the others would be skipped
    /// silently.
    async fn serves_all_sinks(&self) -> Result<(), TaskError> {
        let unserved = self.deployment.unserved(&self.sinks()).await?;
        unserved.into_iter().next().map_or(Ok(()), |unserved| Err(unserved.into()))
    }

    async fn open(&self) -> Result<SourceTable, SourceTableError> {
        SourceTable::open(self.source.clone()).await
    }

    fn archive_reader(&self, source: &SourceTable) -> ArchiveReader {
        ArchiveReader {
            store: self.archive.clone(),
            table: source.table_name().to_owned(),
            key_names: KeyNames::new(source.description().key_names()),
        }
    }
}
