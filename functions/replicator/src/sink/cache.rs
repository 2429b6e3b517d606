//! The cache before the Users table: no replica, but told of every change, whoever wrote it.
//!
//! Each record that changed gets one mark, of the highest floor over *all* its changes in the batch: of a record that was
//! deleted and created again the settled change is the creation, and its floor alone would leave what stood there before.
//! Marks go out in one round trip. They may come twice, late and in any order: the highest stays.
//!
//! Until its mark is there a change is not answered for, so an outage holds the position as with any sink, and with it
//! the records behind. But only for as long as it does good: what was cached before a change of some age is gone by itself
//! ([`FENCE_NOT_NEEDED_AFTER`]), so a cache that is out of reach for longer holds nothing up any more, and nothing stale is told.
//!
//! What would break it: reporting a settled change by its own position. Its mark may be that of an earlier change of the
//! record, which has to come again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shared::cache::{self, Cache, CacheError};
use shared::change::Change;
use shared::invocation::Invocation;
use shared::item;
use shared::version_fence::{FENCE_NOT_NEEDED_AFTER, MinVersion};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};

/// The sink's name.
pub const NAME: &str = "cache";

/// A batch's marks take milliseconds. The other sinks' answers are not to wait for a cache that is silent.
const INVALIDATION_TIMEOUT: Duration = Duration::from_secs(3);

/// Marks in a cache what changed.
#[derive(Debug)]
pub struct CacheSink {
    cache: Cache,
}

/// A record's mark, and the change that demands it.
struct KeyInvalidation {
    floor: MinVersion,
    index: usize,
}

impl CacheSink {
    /// A sink that marks there.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    async fn mark(&self, marks: &[(String, MinVersion)]) -> Result<(), CacheError> {
        let line = self.cache.connection().await?;
        line.invalidate_all(marks).await.inspect_err(|_| self.cache.discard(&line))
    }

    async fn mark_in_time(&self, marks: &[(String, MinVersion)], stop_at: Instant) -> Result<(), CacheError> {
        if marks.is_empty() {
            return Ok(());
        }
        let late = |_| Err(CacheError::Unavailable(format!("the cache at {} was silent", self.cache.endpoint())));
        timeout_at(stop_at.min(Instant::now() + INVALIDATION_TIMEOUT), self.mark(marks)).await.unwrap_or_else(late)
    }
}

/// The marks of a batch. A key that is no record's cannot be asked for, and needs none.
fn due(changes: &[&Change<'_>], now: OffsetDateTime) -> HashMap<String, KeyInvalidation> {
    let mut due: HashMap<String, KeyInvalidation> = HashMap::new();
    for change in changes.iter().filter(|change| !is_outlived(change, now)) {
        let Ok(key) = item::image_key(change.key.canonical()) else { continue };
        let floor = MinVersion::of_change(change, item::image_version);
        match due.entry(cache::key(change.source.table(), &key)) {
            Entry::Vacant(entry) => drop(entry.insert(KeyInvalidation { floor, index: change.index })),
            Entry::Occupied(mut entry) if floor > entry.get().floor => {
                *entry.get_mut() = KeyInvalidation { floor, index: change.index }
            }
            Entry::Occupied(_) => {}
        }
    }
    due
}

/// A change without a time is marked at any age.
fn is_outlived(change: &Change<'_>, now: OffsetDateTime) -> bool {
    change.approximate_creation_time.is_some_and(|at| now - at > FENCE_NOT_NEEDED_AFTER)
}

impl Sink for CacheSink {
    fn name(&self) -> &'static str {
        NAME
    }

    /// What stops the start is what no wait would mend. A cache that is out of reach does not: the other sinks go on
    /// without it, and it says so in the log.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            let proof = async {
                let line = self.cache.connection().await?;
                line.check_writable().await.inspect_err(|_| self.cache.discard(&line))
            };
            match tokio::time::timeout(INVALIDATION_TIMEOUT, proof).await {
                Ok(Ok(())) => {}
                Ok(Err(CacheError::Misconfigured(reason))) => {
                    return Err(SinkMisconfiguredError { sink: NAME, reason });
                }
                Ok(Err(CacheError::Unavailable(error))) => tracing::warn!(error, "the cache cannot be marked yet"),
                Err(_) => {
                    tracing::warn!(cache.endpoint = self.cache.endpoint(), "the cache is silent: look after CACHE_URL");
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn apply<'s>(
        &'s self,
        decided: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        async {
            let due = due(decided.changes, invocation.now);
            let marks: Vec<_> = due.iter().map(|(key, due)| (key.clone(), due.floor)).collect();
            let settled = decided.latest_per_key.len();
            let Err(error) = self.mark_in_time(&marks, invocation.deadline).await else {
                return Ok(SinkOutcome { applied: settled, ..SinkOutcome::default() });
            };
            let reason = error.to_string();
            let failures: Vec<_> = due
                .values()
                .map(|due| FailedChange { index: due.index, kind: FailureKind::Transient(reason.clone()) })
                .collect();
            Ok(SinkOutcome { applied: settled - failures.len(), failures, ..SinkOutcome::default() })
        }
        .boxed()
    }
}
