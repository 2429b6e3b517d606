//! The registry of tasks: [`TASKS`]. It is the only list of all tasks: requests are parsed and dispatched by it, and the
//! command line, the documentation and the tests compare with it.
//!
//! Each task is a type that implements `MaintenanceTask` in a file of its own. A task that processes the source's
//! segments also implements `SegmentTask`, and runs in `MaintenanceHandler::run_segment`; another one implements
//! `RunTask` itself.

use std::fmt;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use millrace_shared::invocation::Invocation;
use millrace_sinks::SinkName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::archive::audit::AuditTask;
use super::archive::compact::CompactTask;
use super::archive::export_import_table::ExportTask;
use super::archive::export_parquet::ParquetTask;
use super::archive::restore::RestoreTask;
use super::context::TaskContext;
use super::error::{ClassifiedError, TaskError};
use super::replica::backfill::BackfillTask;
use super::replica::migrate::MigrateTask;
use super::replica::redrive::RedriveTask;
use super::replica::repair::RepairTask;
use super::replica::verify::VerifyTask;
use super::request::{InvalidRequest, RequestFields, nearest};
use super::summary::SummaryTask;
use super::task_run::TaskRun;
use super::{TaskRequest, TaskResponse};
use crate::failure_bucket::BucketError;
use crate::handler::MaintenanceHandler;

/// Declares the tables from the list of tasks.
macro_rules! tasks {
    ($($task:ty),+ $(,)?) => {
        /// All tasks, in the order of the documentation.
        pub static TASKS: &[TaskDefinition] = &[$(TaskDefinition::for_task::<$task>()),+];

        /// The command-line options of all tasks, in the same order. They are a table of their own so that the function
        /// does not contain a parser of command lines.
        #[cfg(feature = "cli")]
        pub static TASK_OPTIONS: &[super::options::TaskOptions] = &[$(super::options::TaskOptions::for_task::<$task>()),+];
    };
}

tasks![
    BackfillTask,
    VerifyTask,
    RepairTask,
    RedriveTask,
    CompactTask,
    ParquetTask,
    RestoreTask,
    ExportTask,
    AuditTask,
    MigrateTask,
    SummaryTask,
];

/// A registered task.
#[derive(Clone, Copy)]
pub struct TaskDefinition {
    /// The name in requests, responses and reports.
    pub name: &'static str,
    /// The purpose, in one line.
    pub summary: &'static str,
    /// True if the task reports differences, which are counted as a metric per segment.
    pub reports_differences: bool,
    /// True if the task scans the source, whose number of items is therefore an estimate of the work.
    pub scans_source: bool,
    /// True if the task is run for each segment of a run, and not once after all of them.
    pub has_segments: bool,
    command_key: fn(&str) -> Option<String>,
    fields: fn() -> &'static [&'static str],
    parse: fn(RequestFields, OffsetDateTime) -> Result<Box<dyn RunTask>, InvalidRequest>,
}

impl TaskDefinition {
    const fn for_task<T: MaintenanceTask>() -> Self {
        Self {
            name: T::NAME,
            summary: T::SUMMARY,
            reports_differences: T::REPORTS_DIFFERENCES,
            scans_source: T::SCANS_SOURCE,
            has_segments: T::HAS_SEGMENTS,
            command_key: T::command_key,
            fields: super::request::field_names::<T::Request>,
            parse: |fields, now| {
                let request = fields.into_request(T::NAME)?;
                Ok(Box::new(T::parse(request, now)?))
            },
        }
    }

    /// Returns the task with this name.
    ///
    /// # Errors
    /// [`InvalidRequest::UnknownTask`] if there is none.
    pub fn find(name: &str) -> Result<&'static Self, InvalidRequest> {
        let found = TASKS.iter().find(|task| task.name == name);
        found.ok_or_else(|| InvalidRequest::UnknownTask { name: name.to_owned(), nearest: nearest(name, task_names()) })
    }

    /// Returns the names of the fields that the task accepts in addition to those of every task.
    #[must_use]
    pub fn fields(&self) -> &'static [&'static str] {
        (self.fields)()
    }

    /// Returns the key of the archive object that contains the command with which the user continues after this run, if
    /// the task writes one.
    #[must_use]
    pub fn command_key(&self, run_id: &str) -> Option<String> {
        (self.command_key)(run_id)
    }

    /// Parses the task's own fields.
    pub(super) fn parse(&self, fields: RequestFields, now: OffsetDateTime) -> Result<Box<dyn RunTask>, InvalidRequest> {
        (self.parse)(fields, now)
    }
}

impl fmt::Debug for TaskDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Returns the names of all tasks.
pub fn task_names() -> impl Iterator<Item = &'static str> + Clone {
    TASKS.iter().map(|task| task.name)
}

/// The JSON fields of a task's request; with the feature `cli`, also the options of its command line.
#[cfg(not(feature = "cli"))]
pub(crate) trait FieldSet: Serialize + DeserializeOwned {}
#[cfg(not(feature = "cli"))]
impl<R: Serialize + DeserializeOwned> FieldSet for R {}

/// The JSON fields of a task's request, and the options of its command line.
#[cfg(feature = "cli")]
pub(crate) trait FieldSet: Serialize + DeserializeOwned + clap::Args {}
#[cfg(feature = "cli")]
impl<R: Serialize + DeserializeOwned + clap::Args> FieldSet for R {}

/// The declaration of a task. The type that implements it contains the validated parameters.
pub(crate) trait MaintenanceTask: RunTask + Sized + 'static {
    /// The name in requests, responses and reports.
    const NAME: &'static str;
    /// The purpose, in one line: the text of the command line's help and of docs/maintenance.md.
    const SUMMARY: &'static str;
    /// See [`TaskDefinition::reports_differences`].
    const REPORTS_DIFFERENCES: bool = false;
    /// See [`TaskDefinition::scans_source`].
    const SCANS_SOURCE: bool = false;
    /// See [`TaskDefinition::has_segments`].
    const HAS_SEGMENTS: bool = true;

    /// The JSON fields of the request.
    type Request: FieldSet;

    /// Validates a request that was received at `now`.
    ///
    /// # Errors
    /// [`InvalidRequest`], which names the field and the fix.
    fn parse(request: Self::Request, now: OffsetDateTime) -> Result<Self, InvalidRequest>;

    /// See [`TaskDefinition::command_key`].
    fn command_key(_run_id: &str) -> Option<String> {
        None
    }
}

/// A task that processes one segment of the source in one or more invocations.
pub(crate) trait SegmentTask: fmt::Debug {
    /// The position from which the next invocation continues.
    type Cursor: Default + Serialize + DeserializeOwned;
    /// The error of the task.
    type Error: ClassifiedError + From<BucketError>;

    /// True if the task works on the replicas, whose names are then in the response.
    const USES_REPLICAS: bool = false;

    /// Returns whether every replica that the deployment writes must be configured. Otherwise the task would skip some
    /// of them silently.
    fn needs_all_replicas(&self) -> bool {
        Self::USES_REPLICAS
    }

    /// Returns the name of the only replica that the task processes, or `None` for all replicas.
    fn replica(&self) -> Option<&SinkName> {
        None
    }

    /// Returns whether the task writes to the replicas, so that their rules must be recorded.
    fn writes_replicas(&self) -> bool {
        false
    }

    /// Returns the time that an invocation needs in addition to the time for making progress.
    fn extra_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Continues from the cursor of `task_run` until the segment is done or the deadline is reached. Returns whether the
    /// segment is done.
    ///
    /// # Errors
    /// [`SegmentTask::Error`]; work that was confirmed before the error remains.
    async fn run(&self, task_run: &mut TaskRun<Self::Cursor>, context: &TaskContext<'_>) -> Result<bool, Self::Error>;
}

/// The validated parameters of any task, as an object.
pub(crate) trait RunTask: fmt::Debug {
    /// Runs one invocation, and returns its response.
    fn respond<'a>(
        &'a self,
        handler: &'a MaintenanceHandler,
        request: &'a TaskRequest,
        invocation: &'a Invocation,
    ) -> LocalBoxFuture<'a, Result<TaskResponse, TaskError>>;

    /// See [`SegmentTask::extra_time`].
    fn extra_time(&self) -> Duration {
        Duration::ZERO
    }
}

impl<T: SegmentTask> RunTask for T {
    fn respond<'a>(
        &'a self,
        handler: &'a MaintenanceHandler,
        request: &'a TaskRequest,
        invocation: &'a Invocation,
    ) -> LocalBoxFuture<'a, Result<TaskResponse, TaskError>> {
        Box::pin(handler.run_segment(self, request, invocation))
    }

    fn extra_time(&self) -> Duration {
        SegmentTask::extra_time(self)
    }
}
