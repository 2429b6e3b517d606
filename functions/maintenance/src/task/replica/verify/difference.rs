//! Classification of the differences of a key. Pure functions.

use millrace_shared::change::CanonicalKey;
use millrace_shared::replica_item::ReplicaItem;
use millrace_shared::revision::{Revision, RevisionError};
use millrace_sinks::ExpectedItem;

use crate::reconcile::is_in_sync;

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DifferenceKind {
    Missing,
    Different,
    Resurrected,
    Extra,
    Quarantined,
}

impl DifferenceKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Different => "different",
            Self::Resurrected => "resurrected",
            Self::Extra => "extra",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A difference that has persisted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConfirmedDifference {
    pub(super) key: CanonicalKey,
    pub(super) kind: DifferenceKind,
    /// The names of the attributes that differ, if both sides have the item.
    pub(super) attributes: Vec<String>,
}

/// A key that differed at the first check, and the state of both sides at that time.
#[derive(Debug)]
pub(super) struct CandidateDifference {
    pub(super) key: CanonicalKey,
    source: ExpectedItem,
    first_revision: Option<Result<Revision, RevisionError>>,
}

impl CandidateDifference {
    /// Returns the key as a candidate, if it differs.
    pub(super) fn compare(key: CanonicalKey, held: Option<&ReplicaItem>, source: ExpectedItem) -> Option<Self> {
        let differs = difference(held, &source).is_some();
        differs.then(|| Self { key, source, first_revision: held.and_then(|held| held.revision.clone()) })
    }

    /// Confirms the difference with the current state of both sides; returns `None` if the difference has disappeared,
    /// or if either side has changed.
    pub(super) fn confirm(self, held: Option<&ReplicaItem>, source: &ExpectedItem) -> Option<ConfirmedDifference> {
        let (kind, attributes) = difference(held, source)?;
        let same_source = match (&self.source, source) {
            (Ok(Some(then)), Ok(Some(now))) => then.eq_by_value(now),
            (Ok(None), Ok(None)) => true,
            (Err(then), Err(now)) => then == now,
            _ => false,
        };
        let same_replica = self.first_revision == held.and_then(|held| held.revision.clone());
        (same_source && same_replica).then_some(ConfirmedDifference { key: self.key, kind, attributes })
    }
}

/// An item that cannot be transformed is one that the replica lacks.
fn difference(held: Option<&ReplicaItem>, source: &ExpectedItem) -> Option<(DifferenceKind, Vec<String>)> {
    let source = source.as_ref().map(Option::as_ref);
    match (held.and_then(ReplicaItem::item), source) {
        (None, Ok(None)) => None,
        (None, Ok(Some(_)) | Err(_)) => Some((DifferenceKind::Missing, Vec::new())),
        (Some(_), Err(_)) => Some((DifferenceKind::Different, Vec::new())),
        (Some(_), Ok(None)) => {
            let ours = held.is_some_and(|held| held.revision.is_some());
            Some((if ours { DifferenceKind::Resurrected } else { DifferenceKind::Extra }, Vec::new()))
        }
        (Some(_), Ok(Some(source))) if is_in_sync(held, Some(source)) => None,
        // No attribute differs if only the columns of the replica do.
        (Some(item), Ok(Some(source))) => Some((DifferenceKind::Different, item.diff_attribute_names(source))),
    }
}

#[cfg(test)]
mod tests {
    use millrace_shared::raw_item::RawItem;
    use millrace_shared::replica_item::ReplicaState;
    use millrace_transform::TransformError;

    use super::*;

    fn key() -> CanonicalKey {
        CanonicalKey::parse(r#"{"k":{"S":"a"}}"#).unwrap()
    }

    fn item(name: &str) -> RawItem {
        RawItem::parse(&format!(r#"{{"k":{{"S":"a"}},"name":{{"S":"{name}"}}}}"#)).unwrap()
    }

    fn held(number: Option<u8>, name: Option<&str>) -> ReplicaItem {
        let revision = number.map(|number| Ok(Revision::parse(&format!("2026-01-01T00:00:00.000#{number}")).unwrap()));
        ReplicaItem {
            revision,
            state: name.map_or(ReplicaState::Tombstone { expired: false }, |name| ReplicaState::Item(item(name))),
            columns_differ: false,
        }
    }

    fn found(held: Option<&ReplicaItem>, source: Option<&RawItem>) -> Option<DifferenceKind> {
        let source = Ok(source.cloned());
        let candidate = CandidateDifference::compare(key(), held, source.clone())?;
        Some(candidate.confirm(held, &source).unwrap().kind)
    }

    #[test]
    fn a_difference_has_its_name() {
        assert_eq!(found(None, Some(&item("Ada"))), Some(DifferenceKind::Missing));
        assert_eq!(found(Some(&held(Some(1), None)), Some(&item("Ada"))), Some(DifferenceKind::Missing));
        assert_eq!(found(Some(&held(Some(1), Some("Bob"))), Some(&item("Ada"))), Some(DifferenceKind::Different));
        assert_eq!(found(Some(&held(Some(1), Some("Ada"))), None), Some(DifferenceKind::Resurrected));
        assert_eq!(found(Some(&held(None, Some("Ada"))), None), Some(DifferenceKind::Extra));
        for (held, source) in
            [(None, None), (Some(held(Some(1), None)), None), (Some(held(Some(1), Some("Ada"))), Some(item("Ada")))]
        {
            assert_eq!(found(held.as_ref(), source.as_ref()), None);
        }
    }

    #[test]
    fn columns_that_differ_are_a_difference_without_attributes() {
        let outdated = ReplicaItem { columns_differ: true, ..held(Some(1), Some("Ada")) };
        let source: ExpectedItem = Ok(Some(item("Ada")));
        let candidate = CandidateDifference::compare(key(), Some(&outdated), source.clone()).unwrap();
        let confirmed = candidate.confirm(Some(&outdated), &source).unwrap();
        assert_eq!((confirmed.kind, confirmed.attributes.len()), (DifferenceKind::Different, 0));
    }

    #[test]
    fn item_that_cannot_be_transformed_differs_from_whatever_the_replica_has() {
        let source: ExpectedItem = Err(TransformError::Unmatchable);
        for (held, kind) in
            [(None, DifferenceKind::Missing), (Some(held(Some(1), Some("Ada"))), DifferenceKind::Different)]
        {
            let candidate = CandidateDifference::compare(key(), held.as_ref(), source.clone()).unwrap();
            let confirmed = candidate.confirm(held.as_ref(), &source).unwrap();
            assert_eq!((confirmed.kind, confirmed.attributes), (kind, Vec::new()));
        }
    }

    #[test]
    fn candidate_difference_in_flux_is_not_confirmed() {
        let then = held(Some(1), Some("Bob"));
        let again = |held: &ReplicaItem, source: &RawItem| {
            let candidate = CandidateDifference::compare(key(), Some(&then), Ok(Some(item("Ada")))).unwrap();
            candidate.confirm(Some(held), &Ok(Some(source.clone())))
        };
        assert_eq!(again(&then, &item("Ada")).unwrap().attributes, ["name"]);
        assert_eq!(again(&held(Some(2), Some("Bob")), &item("Ada")), None, "the replica has moved");
        assert_eq!(again(&then, &item("Eve")), None, "the source has moved");
        assert_eq!(again(&held(Some(2), Some("Ada")), &item("Ada")), None, "it has been replicated");
    }
}
