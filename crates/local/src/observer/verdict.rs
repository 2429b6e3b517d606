//! The verdict of a sink on each change of a batch: [`resolve`].
//!
//! A sink counts its verdicts, and names only the changes that failed or that its filter left out. The counts determine
//! the verdict of each change if they are all of one kind, apart from those that the sink names. Otherwise the revisions
//! that the sink confirmed before decide, and the result is used only if it adds up to the counts.

use std::collections::{HashMap, VecDeque};

use millrace_shared::hash::fnv1a;
use millrace_shared::revision::Revision;
use millrace_sinks::{FailureKind, SinkOutcome};

/// The number of keys whose last revision is retained per sink.
const KNOWN_KEYS: usize = 20_000;

/// The verdict of a sink on a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeVerdict {
    /// The change was written.
    Applied,
    /// The change was written as a tombstone.
    Tombstone,
    /// The replica has this revision already.
    Duplicate,
    /// The replica has a later revision.
    Stale,
    /// The filter of the replica leaves the item out.
    Filtered,
    /// A later change of the same item in the same batch was written instead.
    Superseded,
    /// The sink confirmed the change in an earlier delivery, and did not receive it again.
    Confirmed,
    /// The change was not applied; Lambda redelivers it.
    Failed,
    /// The sink can never store the change; the record is in the failure bucket.
    Quarantined,
    /// The sink processed the change, but its counts do not show how.
    Processed,
}

impl ChangeVerdict {
    /// All verdicts.
    pub const ALL: [Self; 10] = [
        Self::Applied,
        Self::Tombstone,
        Self::Duplicate,
        Self::Stale,
        Self::Filtered,
        Self::Superseded,
        Self::Confirmed,
        Self::Failed,
        Self::Quarantined,
        Self::Processed,
    ];

    /// Returns the verdict as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Tombstone => "tombstone",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Filtered => "filtered",
            Self::Superseded => "superseded",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Processed => "processed",
        }
    }

    /// Returns the meaning in one sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Applied => "The change was written to the replica.",
            Self::Tombstone => "The deletion was written as a tombstone, so that no late delivery restores the item.",
            Self::Duplicate => "The replica has this revision already: nothing was written.",
            Self::Stale => "The replica has a later revision: nothing was written.",
            Self::Filtered => "The filter of the replica leaves the item out: nothing was written.",
            Self::Superseded => "A later change of the same item in the same batch was written instead.",
            Self::Confirmed => "The replica confirmed the change in an earlier delivery.",
            Self::Failed => "The change was not applied; it is delivered again.",
            Self::Quarantined => "The replica can never store the change; the record is in the failure bucket.",
            Self::Processed => "The replica applied the change, or had it or a later one already.",
        }
    }

    /// Returns the verdict with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// A change that a sink had to confirm.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequiredChange {
    /// The index of the record in the batch.
    pub(super) index: usize,
    /// The hash of the canonical key.
    pub(super) key: u64,
    pub(super) revision: Revision,
    /// Whether the item was removed.
    pub(super) removed: bool,
}

/// Returns the hash by which [`KnownRevisions`] identifies a key.
pub(super) fn key_hash(canonical: &str) -> u64 {
    fnv1a(canonical)
}

/// The last revisions that a sink confirmed, of a limited number of keys.
#[derive(Debug, Default)]
pub(super) struct KnownRevisions {
    by_key: HashMap<u64, Revision>,
    order: VecDeque<u64>,
}

impl KnownRevisions {
    fn get(&self, key: u64) -> Option<Revision> {
        self.by_key.get(&key).copied()
    }

    fn raise(&mut self, key: u64, revision: Revision) {
        if let Some(known) = self.by_key.get_mut(&key) {
            *known = revision.max(*known);
            return;
        }
        if self.order.len() == KNOWN_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        self.by_key.insert(key, revision);
        self.order.push_back(key);
    }
}

/// Returns the verdict on each required change, and the reason of a failure; raises the known revisions.
pub(super) fn resolve(
    required: &[RequiredChange],
    outcome: &SinkOutcome,
    known: &mut KnownRevisions,
) -> Vec<(usize, ChangeVerdict, Option<String>)> {
    let failure = |index: usize| outcome.failures.iter().find(|failure| failure.index == index);
    let mut verdicts = Vec::with_capacity(required.len());
    let mut settled = Vec::new();
    for change in required {
        match failure(change.index).map(|failure| &failure.kind) {
            Some(FailureKind::Transient(reason)) => {
                verdicts.push((change.index, ChangeVerdict::Failed, Some(super::shorten(reason))));
            }
            Some(FailureKind::Permanent(reason)) => {
                verdicts.push((change.index, ChangeVerdict::Quarantined, Some(super::shorten(reason))));
            }
            // Nothing was written, so that no revision is known of it.
            None if outcome.filtered.contains(&change.index) => {
                verdicts.push((change.index, ChangeVerdict::Filtered, None));
            }
            None => settled.push(*change),
        }
    }
    let resolved = resolve_settled(&settled, outcome, known);
    for (change, verdict) in settled.iter().zip(resolved) {
        known.raise(change.key, change.revision);
        // A change that takes its item out of the filter is written as a tombstone as well.
        let is_tombstone = verdict == ChangeVerdict::Applied
            && outcome.tombstones > 0
            && (change.removed || outcome.tombstones == outcome.applied);
        verdicts.push((change.index, if is_tombstone { ChangeVerdict::Tombstone } else { verdict }, None));
    }
    verdicts
}

fn resolve_settled(settled: &[RequiredChange], outcome: &SinkOutcome, known: &KnownRevisions) -> Vec<ChangeVerdict> {
    let counts = [outcome.applied, outcome.duplicate, outcome.stale];
    let kinds = [ChangeVerdict::Applied, ChangeVerdict::Duplicate, ChangeVerdict::Stale];
    for (count, kind) in counts.into_iter().zip(kinds) {
        if count == settled.len() {
            return vec![kind; settled.len()];
        }
    }
    // A key that is not known is expected to be new.
    let expected = |change: &RequiredChange| match known.get(change.key) {
        Some(revision) if revision == change.revision => ChangeVerdict::Duplicate,
        Some(revision) if revision > change.revision => ChangeVerdict::Stale,
        _ => ChangeVerdict::Applied,
    };
    let expected: Vec<ChangeVerdict> = settled.iter().map(expected).collect();
    let counted = kinds.map(|kind| expected.iter().filter(|verdict| **verdict == kind).count());
    if counted == counts { expected } else { vec![ChangeVerdict::Processed; settled.len()] }
}

#[cfg(test)]
mod tests {
    use millrace_shared::revision::{SequenceNumber, StreamLabel};
    use millrace_sinks::FailedChange;

    use super::*;

    fn required(index: usize, key: &str, sequence: u32) -> RequiredChange {
        let label = StreamLabel::parse("2026-11-27T09:30:00.000").unwrap();
        let sequence = SequenceNumber::parse(&sequence.to_string()).unwrap();
        RequiredChange { index, key: key_hash(key), revision: Revision::new(label, sequence), removed: false }
    }

    fn outcome(applied: usize, duplicate: usize, stale: usize) -> SinkOutcome {
        SinkOutcome { applied, duplicate, stale, ..SinkOutcome::default() }
    }

    fn words(changes: &[RequiredChange], outcome: &SinkOutcome, known: &mut KnownRevisions) -> Vec<&'static str> {
        resolve(changes, outcome, known).into_iter().map(|(_, verdict, _)| verdict.as_str()).collect()
    }

    #[test]
    fn counts_of_one_kind_decide() {
        let changes = [required(0, "a", 1), required(1, "b", 2)];
        let known = &mut KnownRevisions::default();
        assert_eq!(words(&changes, &outcome(2, 0, 0), known), ["applied", "applied"]);
        assert_eq!(words(&changes, &outcome(0, 2, 0), known), ["duplicate", "duplicate"]);
        assert_eq!(words(&changes, &outcome(0, 0, 2), known), ["stale", "stale"]);
    }

    #[test]
    fn mixed_counts_are_resolved_by_the_revisions_that_are_known() {
        let known = &mut KnownRevisions::default();
        words(&[required(0, "a", 5), required(1, "b", 6)], &outcome(2, 0, 0), known);
        let changes = [required(0, "a", 5), required(1, "b", 3), required(2, "c", 7)];
        assert_eq!(words(&changes, &outcome(1, 1, 1), known), ["duplicate", "stale", "applied"]);
    }

    #[test]
    fn verdicts_that_do_not_add_up_are_not_claimed() {
        let changes = [required(0, "a", 5), required(1, "b", 3)];
        let known = &mut KnownRevisions::default();
        assert_eq!(words(&changes, &outcome(1, 1, 0), known), ["processed", "processed"]);
    }

    #[test]
    fn failures_are_named_and_removals_are_tombstones() {
        let mut changes = [required(0, "a", 1), required(1, "b", 2), required(2, "c", 3)];
        changes[2].removed = true;
        let failed = |index, kind| FailedChange { index, kind };
        let outcome = SinkOutcome {
            applied: 1,
            tombstones: 1,
            failures: vec![
                failed(0, FailureKind::Transient("throttled".to_owned())),
                failed(1, FailureKind::Permanent("too large".to_owned())),
            ],
            ..SinkOutcome::default()
        };
        let resolved = resolve(&changes, &outcome, &mut KnownRevisions::default());
        let reason = |text: &str| Some(text.to_owned());
        assert_eq!(
            resolved,
            [
                (0, ChangeVerdict::Failed, reason("throttled")),
                (1, ChangeVerdict::Quarantined, reason("too large")),
                (2, ChangeVerdict::Tombstone, None)
            ]
        );
    }

    #[test]
    fn changes_that_the_filter_leaves_out_are_named() {
        let changes = [required(0, "a", 1), required(1, "b", 2), required(2, "c", 3)];
        let known = &mut KnownRevisions::default();
        let outcome = SinkOutcome { filtered: vec![2, 0], ..outcome(1, 0, 0) };
        let mut resolved = resolve(&changes, &outcome, known);
        resolved.sort_by_key(|(index, ..)| *index);
        let words: Vec<_> = resolved.iter().map(|(_, verdict, _)| verdict.as_str()).collect();
        assert_eq!(words, ["filtered", "applied", "filtered"]);
        assert_eq!(known.by_key.len(), 1, "nothing was written of the others");
    }

    #[test]
    fn change_that_leaves_the_filter_is_a_tombstone() {
        let outcome = SinkOutcome { tombstones: 1, ..outcome(1, 0, 0) };
        assert_eq!(words(&[required(0, "a", 1)], &outcome, &mut KnownRevisions::default()), ["tombstone"]);
    }

    #[test]
    fn number_of_known_keys_is_bounded() {
        let mut known = KnownRevisions::default();
        for number in 0..KNOWN_KEYS + 10 {
            let RequiredChange { key, revision, .. } = required(0, &number.to_string(), 1);
            known.raise(key, revision);
        }
        assert_eq!((known.by_key.len(), known.order.len()), (KNOWN_KEYS, KNOWN_KEYS));
    }

    #[test]
    fn each_verdict_parses_from_its_name_and_has_a_meaning() {
        for verdict in ChangeVerdict::ALL {
            assert_eq!(ChangeVerdict::parse(verdict.as_str()), Some(verdict));
            assert!(verdict.meaning().ends_with('.'));
        }
        assert_eq!(ChangeVerdict::parse("lost"), None);
    }
}
