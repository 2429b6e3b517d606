//! What each sink confirmed of batches that come again because of another sink. [`ConfirmedChanges`]
//!
//! Lambda delivers a batch again until every sink has all of it. A sink that is well would write, and pay for, the same
//! changes with every delivery while another one is sick. So what a sink confirmed of a batch that was not wholly
//! acknowledged is remembered in the memory of the environment, change by change, and the sink is spared exactly that.
//!
//! A sink is spared an item only if it confirmed every change of it that the batch holds. One that it did not confirm goes to
//! it with all the others of its item: a cache marks by the highest of them, and an older one may show that the replica was
//! filled anew.
//!
//! What would break it: remembering what no sink confirmed (the change would be acknowledged and nowhere), remembering for
//! ever (a replica that was lost is filled anew, and the confirmation was that of the lost one), or comparing batches (a
//! batch comes again longer, shorter or cut in two).
//!
//! Bounded in age and size. While all is well it is empty, and costs a look at that once a batch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shared::change::{CanonicalKey, Change};
use shared::revision::Revision;
use time::{Duration, OffsetDateTime};

/// For how long a confirmation counts. Lambda tries again within seconds or minutes.
pub const LASTS: Duration = Duration::minutes(15);

/// How much is remembered at most, in bytes: some 25,000 changes with usual keys, two of the largest batches.
pub const ROOM: usize = 8 * 1024 * 1024;

/// What a confirmation takes besides its key.
const WEIGHT: usize = 256;

/// A place among the sinks; of those beyond nothing is remembered.
const SINKS: usize = 64;

/// A change that some sinks confirmed.
#[derive(Debug, Clone)]
struct ConfirmedChange {
    /// The stream's ARN.
    stream: Arc<str>,
    revision: Revision,
    /// A bit for each sink that confirmed it, by its place.
    sinks: u64,
    at: OffsetDateTime,
}

/// Where the confirmation of a change is, or belongs: those of an item stand in the order of their revisions, in which they
/// come as a rule.
fn place_of(known: &[ConfirmedChange], change: &Change<'_>) -> Result<usize, usize> {
    known.binary_search_by(|confirmation| {
        let by_age = confirmation.revision.cmp(&change.revision);
        by_age.then_with(|| (*confirmation.stream).cmp(change.source.arn()))
    })
}

/// What each sink confirmed.
#[derive(Debug, Default)]
pub struct ConfirmedChanges {
    of_item: HashMap<CanonicalKey, Vec<ConfirmedChange>>,
    weight: usize,
}

impl ConfirmedChanges {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_item.is_empty()
    }

    /// How much is remembered, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Forgets what is older than [`LASTS`].
    pub fn expire(&mut self, now: OffsetDateTime) {
        self.retain(|_, confirmation| now - confirmation.at < LASTS && confirmation.at <= now);
    }

    /// The items of a batch that a sink has to be given, whole: it did not confirm all of their changes.
    #[must_use]
    pub fn lacking<'c>(&self, sink: usize, changes: &[&'c Change<'_>]) -> HashSet<&'c CanonicalKey> {
        let unconfirmed = changes.iter().filter(|change| !self.is_confirmed(sink, change));
        unconfirmed.map(|change| change.key.canonical()).collect()
    }

    fn is_confirmed(&self, sink: usize, change: &Change<'_>) -> bool {
        let Some(known) = self.of_item.get(change.key.canonical()) else { return false };
        place_of(known, change).is_ok_and(|place| known[place].sinks & bit(sink) != 0)
    }

    /// Remembers that a sink confirmed these changes. If there is no room for them, what was remembered before is
    /// forgotten, and if there is none even then, nothing is remembered.
    pub fn confirm<'c>(
        &mut self,
        sink: usize,
        changes: impl Iterator<Item = &'c Change<'c>> + Clone,
        now: OffsetDateTime,
    ) {
        let needed: usize = changes.clone().map(|change| weight(change.key.canonical())).sum();
        if self.weight + needed > ROOM {
            // Not what other sinks confirmed of this very batch.
            self.retain(|_, confirmation| confirmation.at == now);
        }
        if bit(sink) == 0 || self.weight + needed > ROOM {
            return;
        }
        let mut stream: Option<Arc<str>> = None;
        for change in changes {
            let key = change.key.canonical();
            if !self.of_item.contains_key(key) {
                self.of_item.insert(key.clone(), Vec::with_capacity(1));
            }
            let Some(known) = self.of_item.get_mut(key) else { continue };
            let place = match place_of(known, change) {
                Ok(place) => {
                    known[place].sinks |= bit(sink);
                    continue;
                }
                Err(place) => place,
            };
            let arn = match &stream {
                Some(arn) if **arn == *change.source.arn() => Arc::clone(arn),
                _ => Arc::from(change.source.arn()),
            };
            stream = Some(Arc::clone(&arn));
            known.insert(place, ConfirmedChange { stream: arn, revision: change.revision, sinks: bit(sink), at: now });
            self.weight += weight(key);
        }
    }

    /// Forgets what a sink confirmed of these items: it is given them again.
    pub fn forget_items(&mut self, sink: usize, items: &HashSet<&CanonicalKey>) {
        self.revoke(sink, |key| items.contains(key));
    }

    /// Forgets all that a sink confirmed: it may have been replaced.
    pub fn forget_sink(&mut self, sink: usize) {
        self.revoke(sink, |_| true);
    }

    /// Forgets a batch that is wholly acknowledged: it does not come again.
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
        self.of_item.retain(|key, known| {
            known.retain_mut(|confirmation| keep(key, confirmation));
            kept += known.len() * weight(key);
            !known.is_empty()
        });
        self.weight = kept;
    }
}

fn bit(sink: usize) -> u64 {
    if sink < SINKS { 1 << sink } else { 0 }
}

fn weight(key: &CanonicalKey) -> usize {
    key.as_str().len() + WEIGHT
}

#[cfg(test)]
mod tests;
