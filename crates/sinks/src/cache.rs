//! The cache in front of the Users table: not a replica, but a sink that invalidates every changed record, whichever
//! program changed it.
//!
//! Each changed record gets one invalidation marker, with the highest minimum version of *all* its changes in the
//! batch: if a record was deleted and created again, its deduplicated change is the creation, and the minimum version
//! of the creation alone would not invalidate the record's previous state. The markers are sent in one round trip. They
//! may be set twice, late and in any order: the highest one stays.
//!
//! A change is not confirmed until its marker is set, so an outage of the cache delays the checkpoint, as with any
//! sink, and with it the following records. It does so only as long as it serves a purpose: an entry that was cached
//! before a change of a certain age has expired automatically ([`FENCE_NOT_NEEDED_AFTER`]), so a cache that is
//! unreachable for longer no longer delays any change, and no stale record is served.
//!
//! Pitfall: reporting the index of a deduplicated change when its marker failed. The marker may be due to an earlier
//! change of the record, which has to be redelivered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use millrace_shared::cache::{self, Cache, CacheError};
use millrace_shared::change::Change;
use millrace_shared::invocation::Invocation;
use millrace_shared::item;
use millrace_shared::version_fence::{FENCE_NOT_NEEDED_AFTER, MinVersion};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::{DeduplicatedBatch, FailedChange, FailureKind, Sink, SinkMisconfiguredError, SinkOutcome};

/// The sink's name.
pub const NAME: &str = "cache";

/// The markers of a batch take milliseconds to set. The results of the other sinks must not wait for an unresponsive
/// cache.
const INVALIDATION_TIMEOUT: Duration = Duration::from_secs(3);

/// A sink that sets invalidation markers in a cache.
#[derive(Debug)]
pub struct CacheSink {
    cache: Cache,
}

/// A record's minimum version, and the index of the change that requires it.
struct KeyInvalidation {
    min_version: MinVersion,
    index: usize,
}

impl CacheSink {
    /// Creates a sink for this cache.
    #[must_use]
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    async fn invalidate(&self, markers: &[(String, MinVersion)]) -> Result<(), CacheError> {
        let connection = self.cache.connection().await?;
        connection.invalidate_all(markers).await.inspect_err(|_| self.cache.discard(&connection))
    }

    async fn invalidate_in_time(&self, markers: &[(String, MinVersion)], deadline: Instant) -> Result<(), CacheError> {
        if markers.is_empty() {
            return Ok(());
        }
        let late = |_| Err(CacheError::Unavailable(format!("the cache at {} timed out", self.cache.endpoint())));
        timeout_at(deadline.min(Instant::now() + INVALIDATION_TIMEOUT), self.invalidate(markers))
            .await
            .unwrap_or_else(late)
    }
}

/// Returns the invalidation markers of a batch, by cache key. A key that is not a user record's is never looked up in
/// the cache, and needs none.
fn due(changes: &[&Change<'_>], now: OffsetDateTime) -> HashMap<String, KeyInvalidation> {
    let mut due: HashMap<String, KeyInvalidation> = HashMap::new();
    for change in changes.iter().filter(|change| !is_older_than_fence(change, now)) {
        let Ok(key) = item::image_key(change.key.canonical()) else { continue };
        let min_version = MinVersion::from_change(change, item::image_version);
        match due.entry(cache::key(change.source.table(), &key)) {
            Entry::Vacant(entry) => drop(entry.insert(KeyInvalidation { min_version, index: change.index })),
            Entry::Occupied(mut entry) if min_version > entry.get().min_version => {
                *entry.get_mut() = KeyInvalidation { min_version, index: change.index }
            }
            Entry::Occupied(_) => {}
        }
    }
    due
}

/// Returns whether the change is so old that it needs no marker. A change without a time needs one at any age.
fn is_older_than_fence(change: &Change<'_>, now: OffsetDateTime) -> bool {
    change.approximate_creation_time.is_some_and(|at| now - at > FENCE_NOT_NEEDED_AFTER)
}

impl Sink for CacheSink {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Fails only for errors that do not resolve without a correction. An unreachable cache does not prevent the start:
    /// the other sinks run without it, and a warning is logged.
    fn check(&self) -> BoxFuture<'_, Result<(), SinkMisconfiguredError>> {
        async {
            let proof = async {
                let connection = self.cache.connection().await?;
                connection.check_writable().await.inspect_err(|_| self.cache.discard(&connection))
            };
            match tokio::time::timeout(INVALIDATION_TIMEOUT, proof).await {
                Ok(Ok(())) => {}
                Ok(Err(CacheError::Misconfigured(reason))) => {
                    return Err(SinkMisconfiguredError { sink: NAME.to_owned(), reason });
                }
                Ok(Err(CacheError::Unavailable(error))) => tracing::warn!(error, "the cache is not writable"),
                Err(_) => {
                    tracing::warn!(cache.endpoint = self.cache.endpoint(), "the cache timed out: check CACHE_URL");
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn apply<'s>(
        &'s self,
        batch: DeduplicatedBatch<'s>,
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Result<SinkOutcome, SinkMisconfiguredError>> {
        async {
            let due = due(batch.changes, invocation.now);
            let markers: Vec<_> = due.iter().map(|(key, due)| (key.clone(), due.min_version)).collect();
            let latest = batch.latest_per_key.len();
            let Err(error) = self.invalidate_in_time(&markers, invocation.deadline).await else {
                return Ok(SinkOutcome { applied: latest, ..SinkOutcome::default() });
            };
            let reason = error.to_string();
            let failures: Vec<_> = due
                .values()
                .map(|due| FailedChange { index: due.index, kind: FailureKind::Transient(reason.clone()) })
                .collect();
            Ok(SinkOutcome { applied: latest - failures.len(), failures, ..SinkOutcome::default() })
        }
        .boxed()
    }
}
