//! One invocation: an order is read, gone about until it is done or the time is up, and answered.

use archiver::archive::{Compression, KeyNames};
use archiver::store::ArchiveStore;
use replicator::sink::Replica;
use serde_json::value::RawValue;
use shared::invocation::Invocation;
use shared::metric;
use shared::postgres::PostgresDatabase;
use shared::table::RestoreTable;
use shared::table_reader::TableReader;

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

/// The tasks that only look: what they find is counted as a metric, a segment at a time.
const LOOKING: [&str; 2] = ["audit", "verify"];

/// Why an invocation has no answer. All that was confirmed until then stays.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The payload is no task.
    #[error(transparent)]
    Order(#[from] InvalidRequest),
    /// The source cannot be worked from.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// It is not known which sinks there are.
    #[error(transparent)]
    Sinks(#[from] SinksUnknownError),
    /// A sink would be passed over.
    #[error(transparent)]
    Unserved(#[from] UnknownSink),
    /// A backfill stopped.
    #[error(transparent)]
    Backfill(#[from] BackfillError),
    /// A comparison stopped.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// A redrive stopped.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    /// A compaction stopped, or the writing of columns.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A restore stopped.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// An export stopped.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An audit stopped.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A migration stopped.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// Of the segments there is no sum.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl TaskError {
    /// What a state machine goes by: only a `TaskFailed` may pass by itself.
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
            | Self::Merge(MergeError::NoTime(_) | MergeError::TooDamaged(_))
            | Self::Migrate(MigrateError::NotConfigured)
            | Self::Summary(SummaryError::Missing { .. } | SummaryError::Unreadable { .. })
            | Self::Export(ExportError::Objects | ExportError::RunIdConflict { .. }) => return "TaskInvalid",
            Self::Backfill(BackfillError::Unfed(MappingNotReady::Unknown { .. })) => return "TaskFailed",
            Self::Backfill(BackfillError::Unfed(_)) | Self::Unserved(_) => return "TaskPreconditionFailed",
            Self::Sinks(unknown) | Self::Redrive(RedriveError::Sinks(unknown)) => {
                return if unknown.may_pass() { "TaskFailed" } else { "TaskPreconditionFailed" };
            }
            Self::Verify(VerifyError::Read(ReconcileError::Source(fault)))
            | Self::Redrive(RedriveError::Read(ReconcileError::Source(fault)))
            | Self::Backfill(BackfillError::Source(fault))
            | Self::Source(fault) => Some(fault),
            _ => None,
        };
        if matches!(read, Some(SourceTableError::NoStream(_))) { "TaskPreconditionFailed" } else { "TaskFailed" }
    }

    /// Whether the request was rejected before any of its work was done.
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

/// The function: the source, its replicas, the archive, and the bucket of what failed.
pub struct MaintenanceHandler {
    /// The table that the replicas mirror.
    pub source: TableReader,
    /// The same table, as a restore writes to it.
    pub restore_table: RestoreTable,
    /// Its replicas.
    pub replicas: Vec<Box<dyn Replica>>,
    /// The database of the relational one, as its owner sees it.
    pub admin_database: Option<PostgresDatabase>,
    /// The mappings that feed them.
    pub mappings: ReplicatorMappings,
    /// The replicator, whose sinks are to be among the replicas.
    pub deployment: DeployedReplicator,
    /// What failed, and the reports.
    pub failures: FailureBucket,
    /// Where what TTL removed goes.
    pub archive: ArchiveStore,
    /// How it is compressed.
    pub compression: Compression,
    /// What the functions are called.
    pub functions: FunctionNames,
}

impl MaintenanceHandler {
    /// Goes about a task.
    ///
    /// # Errors
    /// [`TaskError`], in words that say what to mend.
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
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world =
                    backfill::BackfillContext { source: &source, replicas: &self.replicas, mappings: &self.mappings };
                let done = backfill::run(&mut course, &world, *capacity_units, invocation).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Verify(verify) => {
                self.serves_all_sinks().await?;
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world = verify::VerifyContext {
                    source: &source,
                    replicas: &self.replicas,
                    bucket: &self.failures,
                    functions: &self.functions,
                };
                let done = verify::run(&mut course, &world, *verify, invocation).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Redrive(redrive) => {
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world = redrive::RedriveContext {
                    source: &source,
                    replicas: &self.replicas,
                    archive: &self.archive,
                    compression: self.compression,
                    bucket: &self.failures,
                    functions: &self.functions,
                    deployment: &self.deployment,
                };
                let done = redrive::run(&mut course, &world, redrive, invocation).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Compact(compact) => {
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?;
                let world = compact::CompactContext {
                    archive: &self.archive,
                    compression: self.compression,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = compact::run(&mut course, &world, compact).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Columns(columns) => {
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?;
                let world = export_parquet::ParquetContext {
                    archive: &self.archive,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = export_parquet::run(&mut course, &world, columns).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Restore(restore) => {
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?;
                let library = self.library(&source);
                let world = restore::RestoreContext { library, source: &source, table: &self.restore_table };
                let done = restore::run(&mut course, &world, restore, invocation.now).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Export(export) => {
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?;
                let (library, description) = (self.library(&source), source.description());
                let world = export::ExportContext { library, compression: self.compression, description };
                let done = export::run(&mut course, &world, export, &order.run_id).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Audit(audit) => {
                if audit.keys.is_none() {
                    self.serves_all_sinks().await?;
                }
                let source = self.open().await?;
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let library = self.library(&source);
                let world = audit::AuditContext { library, replicas: &self.replicas };
                let done = audit::run(&mut course, &world, audit).await;
                Ok(course.finish(done).await?)
            }
            // Neither needs a source: the one comes before there is a replica of it, the other after all is done.
            TaskSpec::Migrate => {
                let mut course = TaskRun::resume(&order, invocation, &self.failures)?;
                let done = migrate::run(&mut course, self.admin_database.as_ref(), order.segment).await;
                Ok(course.finish(done).await?)
            }
            TaskSpec::Summary(summary) => {
                Ok(summary::run(summary, &order.run_id, order.segment.total_segments, &self.failures).await?)
            }
        }
    }

    /// The names of the replicas.
    fn sinks(&self) -> Vec<&'static str> {
        self.replicas.iter().map(|replica| replica.name()).collect()
    }

    /// Refuses to work on a part of the deployment's sinks: the others would be passed over without a word.
    async fn serves_all_sinks(&self) -> Result<(), TaskError> {
        let unserved = self.deployment.unserved(&self.sinks()).await?;
        unserved.into_iter().next().map_or(Ok(()), |unserved| Err(unserved.into()))
    }

    async fn open(&self) -> Result<SourceTable, SourceTableError> {
        SourceTable::open(self.source.clone()).await
    }

    fn library(&self, source: &SourceTable) -> ArchiveReader {
        ArchiveReader {
            store: self.archive.clone(),
            table: source.table_name().to_owned(),
            key_names: KeyNames::new(source.description().key_names()),
        }
    }
}
