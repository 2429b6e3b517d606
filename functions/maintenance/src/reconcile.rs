//! Reconciliation: plans the write that brings a key of a replica to the state of its source. Apart from the stream, an
//! existing replica item is written only by this rule.
//!
//! The three reads must be made in this order: the label of the source's latest stream, *then* the replica, *then* the
//! source. A change that is made to the source after it was read has yet to be streamed, under that label or a later
//! one, so its revision is above the one that is written here. If the replica were read last, it might already contain
//! such a change, and the write would overwrite it.
//!
//! The write has a revision just above all that it supersedes: the highest of the replica's revision, the revision of
//! the record at hand and the label's lowest revision, extended by a count. It therefore supersedes every delivery up
//! to that revision, however late, and is superseded by the next change. It is conditional on the replica's revision
//! being the one that was read: if another write came in between, that one wins, and all three reads are repeated.
//!
//! Three alternatives would be wrong: to reuse the replica's revision (a replayed record would undo the write), to use
//! the next sequence number (an actual change may have it), and to write the record's own image (the item may have been
//! deleted long ago).

use millrace_shared::raw_item::RawItem;
use millrace_shared::replica_item::ReplicaItem;
use millrace_shared::revision::{Revision, RevisionError, StreamLabel};

/// The action for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileAction {
    /// No action: the replica matches the source, and another delivery of the record at hand cannot change that.
    Settled,
    /// Write the source's state, or a tombstone.
    Write {
        /// The revision of the write.
        revision: Revision,
        /// The condition of the write: the revision that the replica must have, or `None` for no revision.
        over: Option<Revision>,
    },
    /// No action: the replica's item has a `_rev` that is not a valid revision, so another program wrote it.
    Unmanaged(RevisionError),
}

/// Plans the action for a key, from values that were read in the order described in the module's documentation.
///
/// `record_revision` is the revision of the record that named the key, if there is one. The replica is then also raised to at
/// least that revision, so that another delivery of that record or of an older one changes nothing, even if the replica
/// has neither an item nor a tombstone.
#[must_use]
pub fn plan_repair(
    label: StreamLabel,
    record_revision: Option<Revision>,
    replica: Option<&ReplicaItem>,
    source: Option<&RawItem>,
) -> ReconcileAction {
    let current = match replica.and_then(|held| held.revision.as_ref()) {
        Some(Err(invalid)) => return ReconcileAction::Unmanaged(invalid.clone()),
        Some(Ok(revision)) => Some(*revision),
        None => None,
    };
    let lowest = Revision::lowest(label);
    let least = record_revision.map(|revision| revision.max(lowest));
    if is_in_sync(replica, source) && current >= least {
        return ReconcileAction::Settled;
    }
    let highest = lowest.max(record_revision.unwrap_or(lowest)).max(current.unwrap_or(lowest));
    ReconcileAction::Write { revision: highest.next_reconciled(), over: current }
}

/// Returns whether the replica matches the source; a tombstone counts as no item. An item whose columns differ from
/// what the item gives does not match.
#[must_use]
pub fn is_in_sync(replica: Option<&ReplicaItem>, source: Option<&RawItem>) -> bool {
    match (replica.and_then(ReplicaItem::item), source) {
        (Some(held), Some(item)) => held.eq_by_value(item) && !replica.is_some_and(|held| held.columns_differ),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use millrace_shared::replica_item::ReplicaState;
    use millrace_shared::revision::SequenceNumber;
    use proptest::prelude::*;

    use super::*;

    fn label(millis: u64) -> StreamLabel {
        StreamLabel::parse(&format!("{}.{:03}", millis / 1000, millis % 1000)).unwrap()
    }

    fn revision(of: u64, number: u64) -> Revision {
        Revision::new(label(of), SequenceNumber::parse(&number.to_string()).unwrap())
    }

    fn item(name: &str) -> RawItem {
        RawItem::parse(&format!(r#"{{"k":{{"S":"a"}},"name":{{"S":"{name}"}}}}"#)).unwrap()
    }

    fn holding(revision: Option<Revision>, name: Option<&str>) -> ReplicaItem {
        let state = name.map_or(ReplicaState::Tombstone { expired: false }, |name| ReplicaState::Item(item(name)));
        ReplicaItem { revision: revision.map(Ok), state, columns_differ: false }
    }

    fn written(verdict: ReconcileAction) -> (Revision, Option<Revision>) {
        match verdict {
            ReconcileAction::Write { revision, over } => (revision, over),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_replica_item_needs_no_repair() {
        let held = holding(Some(revision(1, 5)), Some("Ada"));
        assert_eq!(plan_repair(label(1), None, Some(&held), Some(&item("Ada"))), ReconcileAction::Settled);
        assert_eq!(
            plan_repair(label(1), Some(revision(1, 5)), Some(&held), Some(&item("Ada"))),
            ReconcileAction::Settled
        );
        assert_eq!(
            plan_repair(label(1), None, Some(&holding(Some(revision(1, 5)), None)), None),
            ReconcileAction::Settled
        );
        assert_eq!(plan_repair(label(1), None, None, None), ReconcileAction::Settled);
    }

    #[test]
    fn columns_that_differ_are_written_again() {
        let outdated = ReplicaItem { columns_differ: true, ..holding(Some(revision(1, 5)), Some("Ada")) };
        let (at, over) = written(plan_repair(label(1), None, Some(&outdated), Some(&item("Ada"))));
        assert_eq!(over, Some(revision(1, 5)));
        assert!(at > revision(1, 5) && at < revision(1, 6));
    }

    #[test]
    fn repair_is_written_just_above_the_stored_revision() {
        let held = holding(Some(revision(1, 5)), Some("Bob"));
        let (written_at, over) = written(plan_repair(label(1), None, Some(&held), Some(&item("Ada"))));
        assert_eq!(over, Some(revision(1, 5)));
        assert!(written_at > revision(1, 5) && written_at < revision(1, 6));
        let again = holding(Some(written_at), Some("Bob"));
        let (twice, _) = written(plan_repair(label(1), None, Some(&again), None));
        assert!(twice > written_at && twice < revision(1, 6));
    }

    #[test]
    fn a_forgotten_delete_gets_a_tombstone_of_the_record_s_age() {
        // The tombstone has expired, and a record from the item's lifetime is redriven from the failure bucket.
        let (tombstone, over) = written(plan_repair(label(1), Some(revision(1, 5)), None, None));
        assert_eq!(over, None);
        assert!(tombstone > revision(1, 5), "the record's next delivery is stale");
    }

    #[test]
    fn a_later_stream_outranks_every_record_of_the_one_before() {
        let held = holding(Some(revision(1, 5)), Some("Ada"));
        let (at, _) = written(plan_repair(label(2), Some(revision(1, 9)), Some(&held), Some(&item("Ada"))));
        assert!(at > Revision::lowest(label(2)) && at < revision(2, 1));
    }

    #[test]
    fn a_foreign_item_is_left_and_one_without_a_revision_is_taken() {
        let invalid = ReplicaItem {
            revision: Some(Err(RevisionError::Bytes(3))),
            state: ReplicaState::Item(item("Ada")),
            columns_differ: false,
        };
        assert_eq!(
            plan_repair(label(1), None, Some(&invalid), None),
            ReconcileAction::Unmanaged(RevisionError::Bytes(3))
        );
        let unmarked = holding(None, Some("Bob"));
        assert_eq!(written(plan_repair(label(1), None, Some(&unmarked), Some(&item("Ada")))).1, None);
    }

    fn revisions() -> impl Strategy<Value = Option<Revision>> {
        let reconciled =
            |(of, number, count): (u64, u64, u32)| (0..count).fold(revision(of, number), |at, _| at.next_reconciled());
        proptest::option::of((1..4_u64, 0..9_u64, 0..3_u32).prop_map(reconciled))
    }

    proptest! {
        #[test]
        fn a_reconciled_write_is_above_every_revision_that_was_read_and_makes_the_replica_equal(
            of in 1..4_u64,
            record_revision in proptest::option::of((1..4_u64, 0..9_u64)),
            current in revisions(),
            there in proptest::option::of(proptest::option::of("[ab]")),
            source in proptest::option::of("[ab]"),
        ) {
            let record_revision = record_revision.map(|(of, number)| revision(of, number));
            let held = there.map(|name| holding(current, name.as_deref()));
            let source = source.map(|name| item(&name));
            match plan_repair(label(of), record_revision, held.as_ref(), source.as_ref()) {
                ReconcileAction::Settled => prop_assert!(is_in_sync(held.as_ref(), source.as_ref())),
                ReconcileAction::Write { revision, over } => {
                    prop_assert_eq!(over, held.as_ref().and(current));
                    let seen = [over, record_revision, Some(Revision::lowest(label(of)))];
                    let highest = seen.into_iter().flatten().max().unwrap();
                    prop_assert!(revision > highest);
                    // The label and the sequence number are unchanged, so the next change is above, whatever its
                    // number.
                    prop_assert_eq!((revision.label(), revision.sequence()), (highest.label(), highest.sequence()));
                    let state = source.clone().map_or(ReplicaState::Tombstone { expired: false }, ReplicaState::Item);
                    let now = ReplicaItem { revision: Some(Ok(revision)), state, columns_differ: false };
                    prop_assert_eq!(plan_repair(label(of), record_revision, Some(&now), source.as_ref()), ReconcileAction::Settled);
                }
                ReconcileAction::Unmanaged(_) => prop_assert!(false, "every revision here is one"),
            }
        }
    }
}
