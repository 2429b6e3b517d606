//! What to write to a replica so that a key is as its source has it: the only way beside the stream.
//!
//! The three reads come in this order: the label of the source's latest stream, *then* the replica, *then* the source. A
//! change that the source takes after it was read is yet to be streamed, under that label or a later one, and so above
//! what is written here. Had the replica been read last, it might hold such a change already, and the write would go over
//! it.
//!
//! A write stands just above what it goes over: at the highest of the replica's revision, that of the record at hand and
//! the label's floor, with a count behind it. So it beats every delivery up to there, however late, and loses to the next
//! change. It is made on the condition that the revision is as read: whatever came in between wins, and all is read anew.
//!
//! What would break it: keeping the replica's revision (a replay would undo the write), the next sequence number (there
//! may be a change that has it), or the record's own image (the item may have been deleted long since).

use shared::raw_item::RawItem;
use shared::replica_item::ReplicaItem;
use shared::revision::{Revision, RevisionError, StreamLabel};

/// What is to be done about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileAction {
    /// Nothing: the replica is as the source, and no record at hand could undo that.
    Settled,
    /// The source's state, or a tombstone, is to be written.
    Write {
        /// With this age.
        revision: Revision,
        /// If this, and nothing else, stands there.
        over: Option<Revision>,
    },
    /// The replica's item has a `_rev` that is no revision: it is somebody else's.
    Unmanaged(RevisionError),
}

/// Decides about a key, of what was read in the order above.
///
/// `at_hand` is the revision of a record that brought the key up, if one did. The replica is then also brought to its age,
/// so that no further delivery of that record or of an older one changes anything, even if the replica has forgotten all.
#[must_use]
pub fn plan_repair(
    label: StreamLabel,
    at_hand: Option<Revision>,
    replica: Option<&ReplicaItem>,
    source: Option<&RawItem>,
) -> ReconcileAction {
    let stands = match replica.and_then(|held| held.revision.as_ref()) {
        Some(Err(foreign)) => return ReconcileAction::Unmanaged(foreign.clone()),
        Some(Ok(revision)) => Some(*revision),
        None => None,
    };
    let floor = Revision::floor(label);
    let least = at_hand.map(|revision| revision.max(floor));
    if is_in_sync(replica, source) && stands >= least {
        return ReconcileAction::Settled;
    }
    let highest = floor.max(at_hand.unwrap_or(floor)).max(stands.unwrap_or(floor));
    ReconcileAction::Write { revision: highest.next_reconciled(), over: stands }
}

/// Whether the replica has what the source has; a tombstone is as good as nothing.
#[must_use]
pub fn is_in_sync(replica: Option<&ReplicaItem>, source: Option<&RawItem>) -> bool {
    match (replica.and_then(ReplicaItem::item), source) {
        (Some(held), Some(item)) => held.eq_by_value(item),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::replica_item::ReplicaState;
    use shared::revision::SequenceNumber;

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
        ReplicaItem { revision: revision.map(Ok), state }
    }

    fn written(verdict: ReconcileAction) -> (Revision, Option<Revision>) {
        match verdict {
            ReconcileAction::Write { revision, over } => (revision, over),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_equal_is_left_alone() {
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
    fn what_differs_is_written_just_above_what_stands_there() {
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
        // The tombstone expired, and a record of the item's life comes back from the failure bucket.
        let (tombstone, over) = written(plan_repair(label(1), Some(revision(1, 5)), None, None));
        assert_eq!(over, None);
        assert!(tombstone > revision(1, 5), "the record's next delivery is stale");
    }

    #[test]
    fn a_later_stream_outranks_every_record_of_the_one_before() {
        let held = holding(Some(revision(1, 5)), Some("Ada"));
        let (at, _) = written(plan_repair(label(2), Some(revision(1, 9)), Some(&held), Some(&item("Ada"))));
        assert!(at > Revision::floor(label(2)) && at < revision(2, 1));
    }

    #[test]
    fn a_foreign_item_is_left_and_one_without_a_revision_is_taken() {
        let foreign =
            ReplicaItem { revision: Some(Err(RevisionError::Bytes(3))), state: ReplicaState::Item(item("Ada")) };
        assert_eq!(
            plan_repair(label(1), None, Some(&foreign), None),
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
        fn a_write_is_above_all_that_was_seen_and_settles_what_it_was_for(
            of in 1..4_u64,
            at_hand in proptest::option::of((1..4_u64, 0..9_u64)),
            stands in revisions(),
            there in proptest::option::of(proptest::option::of("[ab]")),
            source in proptest::option::of("[ab]"),
        ) {
            let at_hand = at_hand.map(|(of, number)| revision(of, number));
            let held = there.map(|name| holding(stands, name.as_deref()));
            let source = source.map(|name| item(&name));
            match plan_repair(label(of), at_hand, held.as_ref(), source.as_ref()) {
                ReconcileAction::Settled => prop_assert!(is_in_sync(held.as_ref(), source.as_ref())),
                ReconcileAction::Write { revision, over } => {
                    prop_assert_eq!(over, held.as_ref().and(stands));
                    let seen = [over, at_hand, Some(Revision::floor(label(of)))];
                    let highest = seen.into_iter().flatten().max().unwrap();
                    prop_assert!(revision > highest);
                    // Below the next change of that place, whatever its number.
                    prop_assert_eq!((revision.label(), revision.sequence()), (highest.label(), highest.sequence()));
                    let state = source.clone().map_or(ReplicaState::Tombstone { expired: false }, ReplicaState::Item);
                    let now = ReplicaItem { revision: Some(Ok(revision)), state };
                    prop_assert_eq!(plan_repair(label(of), at_hand, Some(&now), source.as_ref()), ReconcileAction::Settled);
                }
                ReconcileAction::Unmanaged(_) => prop_assert!(false, "every revision here is one"),
            }
        }
    }
}
