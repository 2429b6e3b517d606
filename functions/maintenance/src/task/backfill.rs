//! Fills replicas with the source's items that they have never heard of.
//!
//! An item is written at `(L, 0)`, where L is the label of the source's latest stream, read before the item was: above
//! all of former streams, below every change of this one. And it is written only over nothing, neither an item nor a
//! tombstone: whatever the stream has brought or will bring wins. That rests on every change since the page was read
//! reaching the replica, so a backfill is refused unless the replicator's mapping is enabled and began at `TRIM_HORIZON`.
//!
//! It takes nothing away. What a former stream of the table brings after the replica was lost may be an item that was
//! deleted since, whose tombstone is lost as well: where the stream was switched off and on, a repair follows.
//!
//! Absent: the cache, which fills itself; and mending, for where something stands it is left alone (see `verify`).

use std::time::Duration;

use futures::future::{join, join_all};
use replicator::sink::{Replica, ReplicaCondition, ReplicaWrite, WriteResult, WriteTarget};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::change::CanonicalKey;
use shared::invocation::Invocation;
use shared::raw_item::RawItem;
use shared::revision::Revision;
use shared::table_reader::{ScanPage, ScanSegment};
use tokio::time::Instant;

use super::capacity_budget::CapacityBudget;
use super::task_run::TaskRun;
use crate::failure_bucket::BucketError;
use crate::mapping::{MappingNotReady, ReplicatorMappings};
use crate::progress::CountOutcome;
use crate::source::{SourceTable, SourceTableError};

/// A page whose writes fail is tried so often before the task fails; with the SDK's retries, that is half a minute.
const MAX_ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Why a backfill stops before its end.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Changes might pass the replica by.
    #[error(transparent)]
    Unfed(#[from] MappingNotReady),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceTableError),
    /// A replica takes no writes.
    #[error("sink {sink}: {failed} of {writes} writes failed: {reason}")]
    Sink {
        /// Its name.
        sink: &'static str,
        /// How many writes failed.
        failed: usize,
        /// Of how many.
        writes: usize,
        /// The first one's reason.
        reason: String,
    },
    /// The report cannot be written.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Where a backfill is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub enum BackfillCursor {
    /// At the segment's beginning.
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

/// What a backfill works on.
#[derive(Clone, Copy)]
pub struct BackfillContext<'w> {
    /// The table that counts.
    pub source: &'w SourceTable,
    /// Its replicas.
    pub replicas: &'w [Box<dyn Replica>],
    /// The mappings that feed them.
    pub mappings: &'w ReplicatorMappings,
}

/// A line of the report: an item that a replica cannot hold.
#[derive(Serialize)]
struct BackfillEntry<'a> {
    sink: &'static str,
    key: Box<RawValue>,
    outcome: &'static str,
    reason: &'a str,
}

/// Goes on with a backfill; tells whether it is done.
///
/// # Errors
/// [`BackfillError`]; what was written until then is right and stays.
pub async fn run(
    course: &mut TaskRun<BackfillCursor>,
    world: &BackfillContext<'_>,
    capacity_units: Option<u32>,
    invocation: &Invocation,
) -> Result<bool, BackfillError> {
    let BackfillContext { source, replicas, mappings } = *world;
    let mut reading = PageFetcher {
        source,
        mappings,
        segment: course.segment(),
        pace: CapacityBudget::new(capacity_units, course.segment().total_segments, Instant::now()),
        fed: None,
    };
    let stop = Invocation { deadline: course.stop_at, ..invocation.clone() };
    if course.deadline_reached() {
        return Ok(false);
    }
    let mut ready = reading.page(course.cursor().after()).await?;
    loop {
        let FetchedPage { revision, page: found } = ready;
        let fill_all = join_all(replicas.iter().map(|replica| fill(&**replica, &found.items, revision, &stop)));
        // The next page is read while this one is written.
        let ahead = async {
            match &found.next {
                Some(key) if course.wait_until(reading.pace.next_permit_at()).await => {
                    reading.page(Some(key)).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        let (filled, next) = join(fill_all, ahead).await;
        if let Some((sink, (failed, reason))) =
            replicas.iter().zip(&filled).find_map(|(replica, filled)| Some((replica.name(), filled.failed.clone()?)))
        {
            // A page never outlives its invocation: the next one reads its label and its items anew.
            let writes = found.items.len();
            return if course.deadline_reached() {
                Ok(false)
            } else {
                Err(BackfillError::Sink { sink, failed, writes, reason })
            };
        }
        for (replica, filled) in replicas.iter().zip(filled) {
            let sink = replica.name();
            for (key, reason) in &filled.left {
                course.report(&BackfillEntry { sink, key: key.to_raw(), outcome: "failed", reason });
            }
            course.count(format!("{sink}.written"), filled.written);
            course.count(format!("{sink}.skipped"), filled.refused);
            course.count_as(CountOutcome::NotProcessed, format!("{sink}.failed"), filled.left.len());
        }
        course.count("source.items", found.items.len());
        match found.next {
            Some(key) => course.checkpoint(BackfillCursor::After(key)).await?,
            None => return Ok(true),
        }
        match next? {
            Some(page) if !course.deadline_reached() => ready = page,
            _ => return Ok(false),
        }
    }
}

/// A page, and the age at which its items are written.
struct FetchedPage {
    revision: Revision,
    page: ScanPage,
}

/// Reads the source page by page.
struct PageFetcher<'w> {
    source: &'w SourceTable,
    mappings: &'w ReplicatorMappings,
    segment: ScanSegment,
    pace: CapacityBudget,
    /// The stream that is known to reach the replicator.
    fed: Option<String>,
}

impl PageFetcher<'_> {
    /// The label before the items: what changes in between is streamed under it, or under a later one.
    async fn page(&mut self, after: Option<&CanonicalKey>) -> Result<FetchedPage, BackfillError> {
        let (label, stream_arn) = self.source.stream().await?;
        // Asked again when the stream is another one: its mapping is, too.
        if self.fed.as_ref() != Some(&stream_arn) {
            self.mappings.ensure_delivers_all(&stream_arn).await?;
            self.fed = Some(stream_arn);
        }
        let page = self.source.scan(self.segment, after).await?;
        self.pace.spend(page.units, Instant::now());
        Ok(FetchedPage { revision: Revision::floor(label), page })
    }
}

/// What came of a page in one replica.
#[derive(Default)]
struct FillStats {
    written: usize,
    /// Something stood there.
    refused: usize,
    /// The replica can never hold these, and why.
    left: Vec<(CanonicalKey, String)>,
    /// How many writes are in doubt, and why the first of them.
    failed: Option<(usize, String)>,
}

async fn fill(
    replica: &dyn Replica,
    items: &[(CanonicalKey, RawItem)],
    revision: Revision,
    invocation: &Invocation,
) -> FillStats {
    let write =
        |(key, item)| ReplicaWrite { key, target: WriteTarget::Item(item), revision, over: ReplicaCondition::IfAbsent };
    let mut open: Vec<ReplicaWrite<'_>> = items.iter().map(|(key, item)| write((key, item))).collect();
    let (mut filled, mut pause) = (FillStats::default(), FIRST_PAUSE);
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
