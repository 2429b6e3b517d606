//! Handles one invocation: parses the request, runs the task until it is done or the deadline is reached, and returns
//! the response.

use millrace_archive::Compression;
use millrace_archive::store::ArchiveStore;
use millrace_shared::invocation::Invocation;
use millrace_shared::metric;
use millrace_shared::postgres::PostgresDatabase;
use millrace_shared::table::RestoreTable;
use millrace_shared::table_reader::{SourceDescription, TableReader};
use millrace_sinks::Replica;
use millrace_sinks::postgres::PostgresSchema;
use millrace_transform::columns::TableColumns;
use serde_json::value::RawValue;

use crate::deployment::DeployedReplicator;
use crate::failure_bucket::{BucketError, FailureBucket};
use crate::failure_record::FunctionNames;
use crate::mapping::ReplicatorMappings;
use crate::parquet::ColumnDefinition;
use crate::source::SourceTable;
use crate::task::context::TaskContext;
use crate::task::error::TaskError;
use crate::task::registry::{MaintenanceTask as _, SegmentTask, TaskDefinition};
use crate::task::replica::verify::VerifyTask;
use crate::task::replicas::{self, NoReplicaError};
use crate::task::task_run::TaskRun;
use crate::task::{TaskRequest, TaskResponse};

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
    /// The tables that this database has.
    pub postgres_schema: PostgresSchema,
    /// The event source mappings that feed the replicas.
    pub mappings: ReplicatorMappings,
    /// The deployed replicator, whose sinks must be among the replicas.
    pub deployment: DeployedReplicator,
    /// The failure bucket, which also stores the reports.
    pub failures: FailureBucket,
    /// The archive of the items that TTL removed, if the deployment has one.
    pub archive: Option<ArchiveStore>,
    /// The compression of archive objects.
    pub compression: Compression,
    /// The columns of a Parquet export in addition to those that every table has.
    pub parquet_columns: Vec<ColumnDefinition>,
    /// The columns that the replication document declares for a Parquet export.
    pub declared_columns: TableColumns,
    /// The names of the deployed functions.
    pub functions: FunctionNames,
}

impl MaintenanceHandler {
    /// Runs the task that the payload requests.
    ///
    /// # Errors
    /// [`TaskError`], whose message says what to fix.
    pub async fn handle(&self, payload: &RawValue, invocation: &Invocation) -> Result<TaskResponse, TaskError> {
        let response = Box::pin(self.dispatch(payload, invocation)).await;
        let request_id = &invocation.request_id;
        match &response {
            Ok(response) => tracing::info!(
                request_id,
                task.name = response.task,
                task.run_id = response.run_id,
                task.segment = response.segment,
                task.segments = response.segments,
                task.done = response.done,
                task.progress = %response.progress,
                task.sinks = ?response.sinks,
                "task processed"
            ),
            Err(fault) => {
                tracing::error!(request_id, error.kind = fault.kind().as_str(), error = %fault, "task failed");
            }
        }
        if let Ok(TaskResponse { done: true, task, differences, .. }) = &response
            && TaskDefinition::find(task).is_ok_and(|definition| definition.reports_differences)
        {
            metric::DIFFERENCES.increment([], *differences);
            if task == VerifyTask::NAME {
                metric::VERIFIED_SEGMENTS.increment([], 1);
            }
        }
        response
    }

    /// Verifies that every replica can mirror the source: it is another table with the same key schema. A replica that
    /// cannot be reached is not an error.
    ///
    /// # Errors
    /// [`TaskError`], which names the replica's setting and the fix.
    pub async fn check_replicas(&self) -> Result<(), TaskError> {
        let source = SourceTable::open(self.source.clone()).await?;
        for replica in &self.replicas {
            replica.check_source(source.description()).await?;
        }
        Ok(())
    }

    /// Verifies, once for each segment of a run, that the replicator reads the latest stream of the source, and that no
    /// replica feeds the source.
    async fn check_streams(&self, source: &SourceDescription, replicas: &[&dyn Replica]) -> Result<(), TaskError> {
        // A task that needs images reports a stream without them, and how to replace it.
        let has_images = matches!(source.stream_view.as_deref(), Some("NEW_IMAGE" | "NEW_AND_OLD_IMAGES"));
        if let (Some(stream), true) = (&source.stream_arn, has_images) {
            match self.mappings.ensure_reads_latest(stream).await {
                Err(error) if error.retryable() => {
                    tracing::warn!(%error, "the replicator's event source mapping was not checked");
                }
                checked => checked?,
            }
        }
        for replica in replicas {
            if let Some(stream) = replica.stream_arn() {
                self.deployment.reject_loop(replica.name(), &stream, &source.arn).await?;
            }
        }
        Ok(())
    }

    async fn dispatch(&self, payload: &RawValue, invocation: &Invocation) -> Result<TaskResponse, TaskError> {
        let request = TaskRequest::parse(payload, invocation)?;
        request.respond(self, invocation).await
    }

    /// Runs a task on a segment of the source: verifies that no replica would be skipped, opens the source, resumes the
    /// run from the request's cursor, and continues it until the segment is done or the deadline is reached.
    pub(crate) async fn run_segment<T: SegmentTask>(
        &self,
        task: &T,
        request: &TaskRequest,
        invocation: &Invocation,
    ) -> Result<TaskResponse, TaskError> {
        let configured: Vec<&dyn Replica> = self.replicas.iter().map(AsRef::as_ref).collect();
        let replicas = replicas::select(configured, task.replica())?;
        if task.needs_all_replicas() && task.replica().is_none() {
            if replicas.is_empty() {
                return Err(NoReplicaError.into());
            }
            if let Some(unserved) = self.deployment.unserved(&replicas::names(&replicas)).await?.into_iter().next() {
                return Err(unserved.into());
            }
        }
        let source = SourceTable::open(self.source.clone()).await?;
        let mut task_run = TaskRun::resume(request, invocation, &self.failures)?;
        let replicas = match &request.cursor {
            Some(cursor) if T::USES_REPLICAS => replicas::resume(&replicas, &cursor.replicas)?,
            _ => replicas,
        };
        if T::USES_REPLICAS {
            for replica in &replicas {
                replica.check_source(source.description()).await?;
            }
            if request.cursor.is_none() {
                self.check_streams(source.description(), &replicas).await?;
            }
            task_run = task_run.over(&replicas::names(&replicas));
        }
        if task.writes_replicas() {
            let history = self.failures.transform_history();
            for replica in &replicas {
                // The future of a request of the SDK is large.
                let recorded = Box::pin(history.record_write(replica.name(), replica.rules_digest())).await;
                recorded.map_err(BucketError::from)?;
            }
        }
        let context = TaskContext {
            run_id: &request.run_id,
            invocation,
            source: &source,
            restore_table: &self.restore_table,
            replicas: &replicas,
            bucket: &self.failures,
            archive: self.archive.as_ref(),
            compression: self.compression,
            parquet_columns: &self.parquet_columns,
            declared_columns: &self.declared_columns,
            mappings: &self.mappings,
            deployment: &self.deployment,
            functions: &self.functions,
        };
        let done = task.run(&mut task_run, &context).await;
        Ok(task_run.finish(done).await?)
    }
}
