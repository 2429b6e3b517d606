//! Fills replicas with the source's items for which they have neither an item nor a tombstone.
//!
//! An item is written at revision `(L, 0)`, where L is the label of the source's latest stream, read before the item.
//! This revision is above all changes of former streams and below every change of this stream. The write is conditional
//! on the replica having neither an item nor a tombstone for the key, so every change that the stream has delivered or
//! will deliver wins. This requires that every change since the page was read reaches the replica. A backfill is
//! therefore rejected unless the replicator's event source mapping is enabled and started from `TRIM_HORIZON`.
//!
//! The items stay the JSON that the service returned, as stream images do: a replica without rules receives this text.
//!
//! A backfill deletes nothing. After the loss of a replica, a former stream of the table may deliver an item that has
//! been deleted since and whose tombstone was lost as well. If the stream was disabled and enabled again, run a repair
//! afterwards.
//!
//! Out of scope: the cache, which fills itself, and repairs, because an existing item is left unchanged (see `verify`).

use std::borrow::Cow;
use std::time::Duration;

use futures::future::{join, join_all};
use millrace_shared::change::{CanonicalKey, OwnedItemImage};
use millrace_shared::invocation::Invocation;
use millrace_shared::revision::Revision;
use millrace_shared::table_reader::{ImagePage, ScanSegment};
use millrace_sinks::{Replica, ReplicaCondition, ReplicaWrite, SinkName, WriteResult, WriteTarget};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::failure_bucket::BucketError;
use crate::mapping::{MappingNotReadyError, ReplicatorMappings};
use crate::progress::CountOutcome;
use crate::source::{SourceTable, SourceTableError};
use crate::task::capacity_budget::CapacityBudget;
use crate::task::context::TaskContext;
use crate::task::error::{ClassifiedError, TaskErrorKind};
use crate::task::registry::{MaintenanceTask, SegmentTask};
use crate::task::request::{InvalidRequest, replica_name};
use crate::task::task_run::TaskRun;

/// Number of attempts to write a page before the task fails; with the SDK's retries, they take about 30 seconds.
const MAX_ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Fields of the request of a backfill.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct BackfillRequest {
    /// Process only the replica of this name (default: all replicas)
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    replica: Option<String>,
    /// Maximum number of read capacity units per second that the task consumes, for all concurrent segments together
    /// (default: no limit)
    #[cfg_attr(feature = "cli", arg(long, value_name = "UNITS"))]
    max_read_capacity_units: Option<u32>,
}

/// A backfill.
#[derive(Debug, PartialEq, Eq)]
pub struct BackfillTask {
    /// The only replica to fill, or `None` for all.
    replica: Option<SinkName>,
    /// Maximum number of read capacity units per second consumed from the source, for all segments together.
    capacity_units: Option<u32>,
}

impl MaintenanceTask for BackfillTask {
    const NAME: &'static str = "backfill";
    const SUMMARY: &'static str = "copies every item that a replica does not have";
    const SCANS_SOURCE: bool = true;
    type Request = BackfillRequest;

    fn parse(request: BackfillRequest, _: OffsetDateTime) -> Result<Self, InvalidRequest> {
        Ok(Self {
            replica: replica_name(request.replica)?,
            capacity_units: CapacityBudget::parse(request.max_read_capacity_units)?,
        })
    }
}

/// Error of a backfill.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Changes might not reach the replica.
    #[error(transparent)]
    MappingNotReadyError(#[from] MappingNotReadyError),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// Writes to a replica failed.
    #[error("sink {sink}: {failed} of {writes} writes failed: {reason}")]
    Sink {
        /// The sink's name.
        sink: String,
        /// The number of failed writes.
        failed: usize,
        /// The number of all writes.
        writes: usize,
        /// The reason of the first failure.
        reason: String,
    },
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl ClassifiedError for BackfillError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::MappingNotReadyError(error) => error.kind(),
            Self::Source(error) => error.kind(),
            Self::Sink { .. } | Self::Bucket(_) => TaskErrorKind::Failed,
        }
    }
}

/// Cursor of a backfill.
#[derive(Debug, Default, Serialize, Deserialize)]
pub enum BackfillCursor {
    /// At the beginning of the segment.
    #[default]
    Start,
    /// After this key.
    After(CanonicalKey),
}

impl BackfillCursor {
    fn after(&self) -> Option<&CanonicalKey> {
        match self {
            Self::Start => None,
            Self::After(key) => Some(key),
        }
    }
}

/// A report entry: an item that a replica cannot store.
#[derive(Serialize)]
struct BackfillEntry<'a> {
    sink: &'a str,
    key: Box<RawValue>,
    outcome: &'static str,
    reason: &'a str,
}

impl SegmentTask for BackfillTask {
    type Cursor = BackfillCursor;
    type Error = BackfillError;
    const USES_REPLICAS: bool = true;

    fn replica(&self) -> Option<&SinkName> {
        self.replica.as_ref()
    }

    fn writes_replicas(&self) -> bool {
        true
    }

    /// Items that were written before an error are correct and remain.
    async fn run(
        &self,
        task_run: &mut TaskRun<BackfillCursor>,
        context: &TaskContext<'_>,
    ) -> Result<bool, BackfillError> {
        let TaskContext { source, replicas, mappings, invocation, .. } = *context;
        let mut reading = PageFetcher {
            source,
            mappings,
            segment: task_run.segment(),
            pace: CapacityBudget::new(self.capacity_units, task_run.segment().total_segments, Instant::now()),
            fed: None,
        };
        let stop = Invocation { deadline: task_run.deadline, ..invocation.clone() };
        if task_run.deadline_reached() {
            return Ok(false);
        }
        let mut ready = reading.page(task_run.cursor().after()).await?;
        loop {
            let FetchedPage { revision, page: found } = ready;
            let fill_all = join_all(replicas.iter().map(|replica| fill(*replica, &found.items, revision, &stop)));
            // The next page is read while this one is written.
            let ahead = async {
                match &found.next {
                    Some(key) if task_run.wait_until(reading.pace.next_permit_at()).await => {
                        reading.page(Some(key)).await.map(Some)
                    }
                    _ => Ok(None),
                }
            };
            let (filled, next) = join(fill_all, ahead).await;
            if let Some((sink, (failed, reason))) = replicas
                .iter()
                .zip(&filled)
                .find_map(|(replica, filled)| Some((replica.name(), filled.failed.clone()?)))
            {
                // A page is not carried over to the next invocation, which reads the label and the items again.
                let writes = found.items.len();
                return if task_run.deadline_reached() {
                    Ok(false)
                } else {
                    Err(BackfillError::Sink { sink: sink.to_owned(), failed, writes, reason })
                };
            }
            for (replica, filled) in replicas.iter().zip(filled) {
                let sink = replica.name();
                for (key, reason) in &filled.left {
                    task_run.report(&BackfillEntry { sink, key: key.to_raw(), outcome: "failed", reason });
                }
                task_run.count(format!("{sink}.written"), filled.written);
                task_run.count(format!("{sink}.skipped"), filled.refused);
                if replica.transform().is_some() {
                    task_run.count(format!("{sink}.filtered"), filled.filtered);
                }
                task_run.count_as(CountOutcome::NotProcessed, format!("{sink}.failed"), filled.left.len());
            }
            task_run.count("source.items", found.items.len());
            match found.next {
                Some(key) => task_run.checkpoint(BackfillCursor::After(key)).await?,
                None => return Ok(true),
            }
            match next? {
                Some(page) if !task_run.deadline_reached() => ready = page,
                _ => return Ok(false),
            }
        }
    }
}

/// A page, and the revision at which its items are written.
struct FetchedPage {
    revision: Revision,
    page: ImagePage,
}

/// Reads the source page by page.
struct PageFetcher<'w> {
    source: &'w SourceTable,
    mappings: &'w ReplicatorMappings,
    segment: ScanSegment,
    pace: CapacityBudget,
    /// The ARN of the stream that is known to reach the replicator.
    fed: Option<String>,
}

impl PageFetcher<'_> {
    /// Reads a page: the label before the items, so that changes in between are streamed under this label or a later
    /// one.
    async fn page(&mut self, after: Option<&CanonicalKey>) -> Result<FetchedPage, BackfillError> {
        let stream = self.source.stream().await?;
        // Another stream has another event source mapping, which must be checked as well.
        if self.fed.as_ref() != Some(&stream.arn) {
            stream.ensure_new_images()?;
            self.mappings.ensure_delivers_all(&stream.arn).await?;
            self.fed = Some(stream.arn);
        }
        let page = self.source.scan_images(self.segment, after).await?;
        self.pace.spend(page.units, Instant::now());
        Ok(FetchedPage { revision: Revision::lowest(stream.label), page })
    }
}

/// The result of writing a page to one replica.
#[derive(Default)]
struct FillStats {
    written: usize,
    /// The number of keys for which an item or a tombstone exists.
    refused: usize,
    /// The number of items that the filter leaves out.
    filtered: usize,
    /// The items that the replica can never store, and the reasons.
    left: Vec<(CanonicalKey, String)>,
    /// The number of unconfirmed writes, and the reason of the first one.
    failed: Option<(usize, String)>,
}

async fn fill(
    replica: &dyn Replica,
    items: &[(CanonicalKey, OwnedItemImage)],
    revision: Revision,
    invocation: &Invocation,
) -> FillStats {
    let (mut filled, mut pause) = (FillStats::default(), FIRST_PAUSE);
    let mut expected = Vec::with_capacity(items.len());
    for (key, item) in items {
        // Without a transformation, the page is written as it is, without a copy.
        let transformed = match replica.transform() {
            Some(transform) => transform.apply_to_image(key, item.as_image()).map(|item| item.map(Cow::Owned)),
            None => Ok(Some(Cow::Borrowed(item))),
        };
        match transformed {
            Ok(Some(item)) => expected.push((key, item)),
            Ok(None) => filled.filtered += 1,
            Err(error) => filled.left.push((key.clone(), error.to_string())),
        }
    }
    let mut open: Vec<ReplicaWrite<'_>> = expected
        .iter()
        .map(|(key, item)| ReplicaWrite {
            key,
            target: WriteTarget::Image(item.as_image()),
            revision,
            over: ReplicaCondition::IfAbsent,
        })
        .collect();
    for attempt in 1..=MAX_ATTEMPTS {
        let mut failed: Option<String> = None;
        let mut again = Vec::new();
        for (write, put) in open.iter().zip(replica.put(&open, invocation).await) {
            match put {
                WriteResult::Written => filled.written += 1,
                WriteResult::ConditionFailed => filled.refused += 1,
                WriteResult::Permanent(reason) => filled.left.push((write.key.clone(), reason)),
                WriteResult::Transient(reason) => {
                    again.push(*write);
                    failed.get_or_insert(reason);
                }
            }
        }
        open = again;
        filled.failed = failed.map(|reason| (open.len(), reason));
        if open.is_empty() || attempt == MAX_ATTEMPTS || Instant::now() + pause >= invocation.deadline {
            break;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    filled
}
