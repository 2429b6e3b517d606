//! One invocation: an order is read, gone about until it is done or the time is up, and answered.

use archiver::archive::{Compression, KeyNames};
use archiver::store::Store;
use replicator::sink::Replica;
use serde_json::value::RawValue;
use shared::invocation::Invocation;
use shared::metric;
use shared::postgres::Database;
use shared::raw_table::RawTable;
use shared::table::RestoreTable;

use crate::deployment::{Deployment, SinksUnknown, Unserved};
use crate::failure::Functions;
use crate::failure_bucket::{BucketFault, FailureBucket};
use crate::mapping::{Mappings, Unfed};
use crate::mend::MendFault;
use crate::source::{Source, SourceFault};
use crate::sweep::Library;
use crate::task::audit::{self, AuditFault};
use crate::task::backfill::{self, BackfillFault};
use crate::task::columns;
use crate::task::compact;
use crate::task::course::Course;
use crate::task::export::{self, ExportFault};
use crate::task::merge::MergeFault;
use crate::task::migrate::{self, MigrateFault};
use crate::task::redrive::{self, RedriveFault};
use crate::task::restore::{self, RestoreFault};
use crate::task::summary::{self, SummaryFault};
use crate::task::verify::{self, VerifyFault};
use crate::task::{Answer, BadOrder, Order, Task};

/// The tasks that only look: what they find is counted as a metric, a segment at a time.
const LOOKING: [&str; 2] = ["audit", "verify"];

/// Why an invocation has no answer. All that was confirmed until then stays.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The payload is no task.
    #[error(transparent)]
    Order(#[from] BadOrder),
    /// The source cannot be worked from.
    #[error(transparent)]
    Source(#[from] SourceFault),
    /// It is not known which sinks there are.
    #[error(transparent)]
    Sinks(#[from] SinksUnknown),
    /// A sink would be passed over.
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// A backfill stopped.
    #[error(transparent)]
    Backfill(#[from] BackfillFault),
    /// A comparison stopped.
    #[error(transparent)]
    Verify(#[from] VerifyFault),
    /// A redrive stopped.
    #[error(transparent)]
    Redrive(#[from] RedriveFault),
    /// A compaction stopped, or the writing of columns.
    #[error(transparent)]
    Merge(#[from] MergeFault),
    /// A restore stopped.
    #[error(transparent)]
    Restore(#[from] RestoreFault),
    /// An export stopped.
    #[error(transparent)]
    Export(#[from] ExportFault),
    /// An audit stopped.
    #[error(transparent)]
    Audit(#[from] AuditFault),
    /// A migration stopped.
    #[error(transparent)]
    Migrate(#[from] MigrateFault),
    /// Of the segments there is no sum.
    #[error(transparent)]
    Summary(#[from] SummaryFault),
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketFault),
}

impl Fault {
    /// What a state machine goes by: only a `TaskFailed` may pass by itself.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let read = match self {
            Self::Restore(RestoreFault::Sweep(fault))
            | Self::Export(ExportFault::Sweep(fault))
            | Self::Audit(AuditFault::Sweep(fault))
                if fault.lasts() =>
            {
                return "TaskInvalid";
            }
            Self::Order(_)
            | Self::Verify(VerifyFault::NoTime(_))
            | Self::Merge(MergeFault::NoTime(_) | MergeFault::TooDamaged(_))
            | Self::Migrate(MigrateFault::Absent)
            | Self::Summary(SummaryFault::Missing { .. } | SummaryFault::Unreadable { .. })
            | Self::Export(ExportFault::Objects | ExportFault::Taken { .. }) => return "TaskInvalid",
            Self::Backfill(BackfillFault::Unfed(Unfed::Unknown { .. })) => return "TaskFailed",
            Self::Backfill(BackfillFault::Unfed(_)) | Self::Unserved(_) => return "TaskPreconditionFailed",
            Self::Sinks(unknown) | Self::Redrive(RedriveFault::Sinks(unknown)) => {
                return if unknown.may_pass() { "TaskFailed" } else { "TaskPreconditionFailed" };
            }
            Self::Verify(VerifyFault::Read(MendFault::Source(fault)))
            | Self::Redrive(RedriveFault::Read(MendFault::Source(fault)))
            | Self::Backfill(BackfillFault::Source(fault))
            | Self::Source(fault) => Some(fault),
            _ => None,
        };
        if matches!(read, Some(SourceFault::NoStream(_))) { "TaskPreconditionFailed" } else { "TaskFailed" }
    }

    /// Whether the request was rejected before any of its work was done.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        let while_running = match self {
            Self::Merge(_) | Self::Restore(_) | Self::Audit(_) | Self::Summary(_) => true,
            Self::Export(fault) => !matches!(fault, ExportFault::Taken { .. }),
            _ => false,
        };
        !while_running && self.name() != "TaskFailed"
    }
}

/// The function: the source, its replicas, the archive, and the bucket of what failed.
pub struct Maintenance {
    /// The table that the replicas mirror.
    pub source: RawTable,
    /// The same table, as a restore writes to it.
    pub restored: RestoreTable,
    /// Its replicas.
    pub replicas: Vec<Box<dyn Replica>>,
    /// The database of the relational one, as its owner sees it.
    pub owned: Option<Database>,
    /// The mappings that feed them.
    pub mappings: Mappings,
    /// The replicator, whose sinks are to be among the replicas.
    pub deployment: Deployment,
    /// What failed, and the reports.
    pub failures: FailureBucket,
    /// Where what TTL removed goes.
    pub archive: Store,
    /// How it is compressed.
    pub compression: Compression,
    /// What the functions are called.
    pub functions: Functions,
}

impl Maintenance {
    /// Goes about a task.
    ///
    /// # Errors
    /// [`Fault`], in words that say what to mend.
    pub async fn handle(&self, payload: &RawValue, invocation: &Invocation) -> Result<Answer, Fault> {
        let answer = Box::pin(self.go_about(payload, invocation)).await;
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
        if let Ok(Answer { done: true, task, differences, .. }) = &answer
            && LOOKING.contains(&task.as_str())
        {
            metric::DIFFERENCES.increment([], *differences);
        }
        answer
    }

    async fn go_about(&self, payload: &RawValue, invocation: &Invocation) -> Result<Answer, Fault> {
        let order = Order::parse(payload, invocation)?;
        match &order.task {
            Task::Backfill { capacity_units } => {
                self.serves_all_sinks().await?;
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world = backfill::World { source: &source, replicas: &self.replicas, mappings: &self.mappings };
                let done = backfill::run(&mut course, &world, *capacity_units, invocation).await;
                Ok(course.answer(done).await?)
            }
            Task::Verify(verify) => {
                self.serves_all_sinks().await?;
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world = verify::World {
                    source: &source,
                    replicas: &self.replicas,
                    bucket: &self.failures,
                    functions: &self.functions,
                };
                let done = verify::run(&mut course, &world, *verify, invocation).await;
                Ok(course.answer(done).await?)
            }
            Task::Redrive(redrive) => {
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let world = redrive::World {
                    source: &source,
                    replicas: &self.replicas,
                    archive: &self.archive,
                    compression: self.compression,
                    bucket: &self.failures,
                    functions: &self.functions,
                    deployment: &self.deployment,
                };
                let done = redrive::run(&mut course, &world, redrive, invocation).await;
                Ok(course.answer(done).await?)
            }
            Task::Compact(compact) => {
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?;
                let world = compact::World {
                    archive: &self.archive,
                    compression: self.compression,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = compact::run(&mut course, &world, compact).await;
                Ok(course.answer(done).await?)
            }
            Task::Columns(columns) => {
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?;
                let world = columns::World {
                    archive: &self.archive,
                    table: source.table_name(),
                    key_names: KeyNames::new(source.description().key_names()),
                };
                let done = columns::run(&mut course, &world, columns).await;
                Ok(course.answer(done).await?)
            }
            Task::Restore(restore) => {
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?;
                let library = self.library(&source);
                let world = restore::World { library, source: &source, table: &self.restored };
                let done = restore::run(&mut course, &world, restore, invocation.now).await;
                Ok(course.answer(done).await?)
            }
            Task::Export(export) => {
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?;
                let (library, description) = (self.library(&source), source.description());
                let world = export::World { library, compression: self.compression, description };
                let done = export::run(&mut course, &world, export, &order.run_id).await;
                Ok(course.answer(done).await?)
            }
            Task::Audit(audit) => {
                if audit.keys.is_none() {
                    self.serves_all_sinks().await?;
                }
                let source = self.open().await?;
                let mut course = Course::resume(&order, invocation, &self.failures)?.over(&self.sinks());
                let library = self.library(&source);
                let world = audit::World { library, replicas: &self.replicas };
                let done = audit::run(&mut course, &world, audit).await;
                Ok(course.answer(done).await?)
            }
            // Neither needs a source: the one comes before there is a replica of it, the other after all is done.
            Task::Migrate => {
                let mut course = Course::resume(&order, invocation, &self.failures)?;
                let done = migrate::run(&mut course, self.owned.as_ref(), order.segment).await;
                Ok(course.answer(done).await?)
            }
            Task::Summary(summary) => Ok(summary::run(summary, &order.run_id, order.segment.of, &self.failures).await?),
        }
    }

    /// The names of the replicas.
    fn sinks(&self) -> Vec<&'static str> {
        self.replicas.iter().map(|replica| replica.name()).collect()
    }

    /// Refuses to work on a part of the deployment's sinks: the others would be passed over without a word.
    async fn serves_all_sinks(&self) -> Result<(), Fault> {
        let unserved = self.deployment.unserved(&self.sinks()).await?;
        unserved.into_iter().next().map_or(Ok(()), |unserved| Err(unserved.into()))
    }

    async fn open(&self) -> Result<Source, SourceFault> {
        Source::open(self.source.clone()).await
    }

    fn library(&self, source: &Source) -> Library {
        Library {
            store: self.archive.clone(),
            table: source.table_name().to_owned(),
            key_names: KeyNames::new(source.description().key_names()),
        }
    }
}
