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
pub(super) struct PendingInvalidations(Mutex<PendingByKey>);

#[derive(Default)]
struct PendingByKey {
    marks: HashMap<String, (MinVersion, Instant)>,
    everything_until: Option<Instant>,
}

impl PendingInvalidations {
    pub(super) fn add(&self, name: &str, min_version: MinVersion, now: Instant) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.marks.len() >= LIMIT {
            debts.marks.retain(|_, (_, lapses)| *lapses > now);
        }
        if debts.marks.len() >= LIMIT {
            debts.marks.clear();
            debts.everything_until = Some(now + FENCE_NOT_NEEDED_AFTER);
        }
        let before = debts.marks.get(name).map_or(min_version, |(before, _)| min_version.max(*before));
        debts.marks.insert(name.to_owned(), (before, now + FENCE_NOT_NEEDED_AFTER));
    }

    pub(super) fn get(&self, name: &str, now: Instant) -> PendingInvalidation {
        let debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.everything_until.is_some_and(|until| until > now) {
            return PendingInvalidation::All;
        }
        let mark = debts.marks.get(name).filter(|(_, lapses)| *lapses > now);
        mark.map_or(PendingInvalidation::None, |(min_version, _)| PendingInvalidation::MinVersion(*min_version))
    }

    /// Removes the pending invalidation after this minimum version was delivered; one with a higher minimum version
    /// remains.
    pub(super) fn complete(&self, name: &str, min_version: MinVersion) {
        let mut debts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if debts.marks.get(name).is_some_and(|(pending, _)| *pending <= min_version) {
            debts.marks.remove(name);
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
    async fn the_highest_is_owed_until_it_is_paid_or_lapses() {
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
    async fn who_owes_more_than_is_remembered_believes_nothing_for_a_while() {
        let (pending, now) = (PendingInvalidations::default(), Instant::now());
        for n in 0..=LIMIT {
            pending.add(&format!("k{n}"), min_version(8), now);
        }
        assert_eq!(pending.get("another", now), PendingInvalidation::All);
        assert_eq!(pending.get("another", now + FENCE_NOT_NEEDED_AFTER), PendingInvalidation::None);
    }
}
