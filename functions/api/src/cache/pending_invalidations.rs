//! Pending cache invalidations: writes whose invalidation marker did not reach the cache. Until one is delivered,
//! cached values of that record are ignored, and the next read of the record delivers the invalidation first.
//!
//! A pending invalidation lapses when the entries that it would invalidate have expired. The number of pending
//! invalidations is limited: beyond the limit, the whole cache is ignored until all of them have lapsed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use millrace_shared::version_fence::{FENCE_NOT_NEEDED_AFTER, MinVersion};
use tokio::time::Instant;

const LIMIT: usize = 10_000;

/// The pending invalidation of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PendingInvalidation {
    None,
    MinVersion(MinVersion),
    /// More invalidations are pending than are tracked: every record counts as invalidated.
    All,
}

#[derive(Default)]
pub(super) struct PendingInvalidations(Mutex<PendingByName>);

#[derive(Default)]
struct PendingByName {
    /// The minimum version that each record must have, and the time at which the invalidation lapses.
    min_versions: HashMap<String, (MinVersion, Instant)>,
    /// Until then, every record counts as invalidated.
    all_until: Option<Instant>,
}

impl PendingInvalidations {
    /// Adds an invalidation. If one is pending already, the higher minimum version applies.
    pub(super) fn add(&self, name: &str, min_version: MinVersion, now: Instant) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.min_versions.len() >= LIMIT {
            pending.min_versions.retain(|_, (_, lapses)| *lapses > now);
        }
        if pending.min_versions.len() >= LIMIT {
            pending.min_versions.clear();
            pending.all_until = Some(now + FENCE_NOT_NEEDED_AFTER);
        }
        let before = pending.min_versions.get(name).map_or(min_version, |(before, _)| min_version.max(*before));
        pending.min_versions.insert(name.to_owned(), (before, now + FENCE_NOT_NEEDED_AFTER));
    }

    /// Returns the pending invalidation of a record.
    pub(super) fn get(&self, name: &str, now: Instant) -> PendingInvalidation {
        let pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.all_until.is_some_and(|until| until > now) {
            return PendingInvalidation::All;
        }
        let min_version = pending.min_versions.get(name).filter(|(_, lapses)| *lapses > now);
        min_version.map_or(PendingInvalidation::None, |(min_version, _)| PendingInvalidation::MinVersion(*min_version))
    }

    /// Removes the pending invalidation after this minimum version was delivered; one with a higher minimum version
    /// remains.
    pub(super) fn complete(&self, name: &str, min_version: MinVersion) {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.min_versions.get(name).is_some_and(|(highest, _)| *highest <= min_version) {
            pending.min_versions.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn min_version(version: u64) -> MinVersion {
        MinVersion::after_write(0, version)
    }

    #[tokio::test]
    async fn highest_min_version_is_pending_until_it_is_completed_or_lapses() {
        let (pending, now) = (PendingInvalidations::default(), Instant::now());
        assert_eq!(pending.get("k", now), PendingInvalidation::None);
        pending.add("k", min_version(8), now);
        pending.add("k", min_version(7), now);
        assert_eq!(pending.get("k", now), PendingInvalidation::MinVersion(min_version(8)));
        pending.complete("k", min_version(7));
        assert_eq!(pending.get("k", now), PendingInvalidation::MinVersion(min_version(8)));
        assert_eq!(pending.get("k", now + FENCE_NOT_NEEDED_AFTER), PendingInvalidation::None);
        pending.complete("k", min_version(8));
        assert_eq!(pending.get("k", now), PendingInvalidation::None);
    }

    #[tokio::test]
    async fn more_invalidations_than_the_limit_invalidate_every_record_until_they_lapse() {
        let (pending, now) = (PendingInvalidations::default(), Instant::now());
        for n in 0..=LIMIT {
            pending.add(&format!("k{n}"), min_version(8), now);
        }
        assert_eq!(pending.get("another", now), PendingInvalidation::All);
        assert_eq!(pending.get("another", now + FENCE_NOT_NEEDED_AFTER), PendingInvalidation::None);
    }
}
