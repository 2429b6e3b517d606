//! Confirmed changes: for each sink, the changes that it has confirmed in batches that are redelivered because of
//! another sink. [`ConfirmedChanges`]
//!
//! Lambda redelivers a batch until every sink has applied all of it. While one sink fails, a working one would write,
//! and pay for, the same changes with every delivery. Therefore the changes that a sink confirmed in a batch that was
//! not completely acknowledged are recorded in the memory of the execution environment, change by change, and exactly
//! these are not passed to the sink again.
//!
//! An item is withheld from a sink only if the sink confirmed every change of it in the batch. A change that the sink
//! did not confirm is passed to it together with all other changes of the item: the cache's invalidation marker is
//! derived from the highest of them, and an older change may mean that the replica was refilled.
//!
//! Pitfalls: recording a change that no sink confirmed (the change would be acknowledged without being in the replica),
//! recording without a time limit (a replica that was lost is refilled, and the confirmation came from the lost one),
//! or comparing whole batches (a redelivered batch may be longer, shorter or split in two).
//!
//! The record is bounded in age and size. In normal operation it is empty, and its only cost is one check of that per
//! batch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use millrace_shared::change::{CanonicalKey, Change};
use millrace_shared::revision::Revision;
use time::{Duration, OffsetDateTime};

/// The time for which a confirmation counts. Lambda retries within seconds or minutes.
pub const CONFIRMATION_TTL: Duration = Duration::minutes(15);

/// The maximum size, in bytes: some 25,000 changes with usual keys, two of the largest batches.
pub const MAX_CONFIRMED_BYTES: usize = 8 * 1024 * 1024;

/// The size of a confirmation in addition to its key.
const CONFIRMATION_BYTES: usize = 256;

/// The number of sinks whose confirmations are recorded; nothing is recorded for further ones.
const MAX_SINKS: usize = 64;

/// A change that one or more sinks confirmed.
#[derive(Debug, Clone)]
struct ConfirmedChange {
    /// The stream's ARN.
    stream: Arc<str>,
    revision: Revision,
    /// One bit for each sink that confirmed the change, by the sink's index.
    sinks: u64,
    at: OffsetDateTime,
}

/// Returns the index of a change's confirmation, or the index at which to insert it: the confirmations of an item are
/// sorted by revision, which is also the order in which they usually arrive.
fn find_confirmation(known: &[ConfirmedChange], change: &Change<'_>) -> Result<usize, usize> {
    known.binary_search_by(|confirmation| {
        let by_age = confirmation.revision.cmp(&change.revision);
        by_age.then_with(|| (*confirmation.stream).cmp(change.source.arn()))
    })
}

/// The changes that each sink confirmed.
#[derive(Debug, Default)]
pub struct ConfirmedChanges {
    by_item: HashMap<CanonicalKey, Vec<ConfirmedChange>>,
    weight: usize,
}

impl ConfirmedChanges {
    /// Returns whether nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_item.is_empty()
    }

    /// Returns the recorded size, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Removes confirmations older than [`CONFIRMATION_TTL`].
    pub fn expire(&mut self, now: OffsetDateTime) {
        self.retain(|_, confirmation| now - confirmation.at < CONFIRMATION_TTL && confirmation.at <= now);
    }

    /// Returns the items of a batch that a sink must receive, with all their changes: it did not confirm every one of
    /// them.
    #[must_use]
    pub fn lacking<'c>(&self, sink: usize, changes: &[&'c Change<'_>]) -> HashSet<&'c CanonicalKey> {
        let unconfirmed = changes.iter().filter(|change| !self.is_confirmed(sink, change));
        unconfirmed.map(|change| change.key.canonical()).collect()
    }

    fn is_confirmed(&self, sink: usize, change: &Change<'_>) -> bool {
        let Some(known) = self.by_item.get(change.key.canonical()) else { return false };
        find_confirmation(known, change).is_ok_and(|index| known[index].sinks & bit(sink) != 0)
    }

    /// Records that a sink confirmed these changes. If they do not fit, earlier confirmations are removed; if they do
    /// not fit even then, nothing is recorded.
    pub fn confirm<'c>(
        &mut self,
        sink: usize,
        changes: impl Iterator<Item = &'c Change<'c>> + Clone,
        now: OffsetDateTime,
    ) {
        let needed: usize = changes.clone().map(|change| weight(change.key.canonical())).sum();
        if self.weight + needed > MAX_CONFIRMED_BYTES {
            // Confirmations of this same batch by other sinks stay.
            self.retain(|_, confirmation| confirmation.at == now);
        }
        if bit(sink) == 0 || self.weight + needed > MAX_CONFIRMED_BYTES {
            return;
        }
        let mut stream: Option<Arc<str>> = None;
        for change in changes {
            let key = change.key.canonical();
            if !self.by_item.contains_key(key) {
                self.by_item.insert(key.clone(), Vec::with_capacity(1));
            }
            let Some(known) = self.by_item.get_mut(key) else { continue };
            let index = match find_confirmation(known, change) {
                Ok(index) => {
                    known[index].sinks |= bit(sink);
                    continue;
                }
                Err(index) => index,
            };
            let arn = match &stream {
                Some(arn) if **arn == *change.source.arn() => Arc::clone(arn),
                _ => Arc::from(change.source.arn()),
            };
            stream = Some(Arc::clone(&arn));
            known.insert(index, ConfirmedChange { stream: arn, revision: change.revision, sinks: bit(sink), at: now });
            self.weight += weight(key);
        }
    }

    /// Removes the confirmations of these items by a sink, because it receives them again.
    pub fn forget_items(&mut self, sink: usize, items: &HashSet<&CanonicalKey>) {
        self.revoke(sink, |key| items.contains(key));
    }

    /// Removes all confirmations by a sink, because it may have been replaced.
    pub fn forget_sink(&mut self, sink: usize) {
        self.revoke(sink, |_| true);
    }

    /// Removes the confirmations of a batch that is completely acknowledged: it is not redelivered.
    pub fn acknowledge(&mut self, changes: &[&Change<'_>]) {
        if self.is_empty() {
            return;
        }
        let batch: HashSet<(&CanonicalKey, Revision, &str)> =
            changes.iter().map(|change| (change.key.canonical(), change.revision, change.source.arn())).collect();
        self.retain(|key, confirmation| !batch.contains(&(key, confirmation.revision, &*confirmation.stream)));
    }

    fn revoke(&mut self, sink: usize, of: impl Fn(&CanonicalKey) -> bool) {
        self.retain(|key, confirmation| {
            if of(key) {
                confirmation.sinks &= !bit(sink);
            }
            confirmation.sinks != 0
        });
    }

    fn retain(&mut self, mut keep: impl FnMut(&CanonicalKey, &mut ConfirmedChange) -> bool) {
        let mut kept = 0;
        self.by_item.retain(|key, known| {
            known.retain_mut(|confirmation| keep(key, confirmation));
            kept += known.len() * weight(key);
            !known.is_empty()
        });
        self.weight = kept;
    }
}

fn bit(sink: usize) -> u64 {
    if sink < MAX_SINKS { 1 << sink } else { 0 }
}

fn weight(key: &CanonicalKey) -> usize {
    key.as_str().len() + CONFIRMATION_BYTES
}

#[cfg(test)]
mod tests;
