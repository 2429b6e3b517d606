//! The transformation of a batch: what happens to the deduplicated change of each item. [`transform_changes`]
//!
//! An item that leaves the filter gets a tombstone at the revision of that change: a change that is skipped would leave
//! the former item in the replica forever. A write is omitted only if no image of the key in the whole batch matches,
//! neither a new nor an old one. The deduplicated change alone does not show that: of two changes, the first of which
//! takes the item out of the filter, the second has no image that matches, and the replica still has the item.

use std::collections::{HashMap, HashSet};

use millrace_shared::change::{CanonicalKey, Change, ChangeKind, OldImage};

use crate::item_transform::{ItemTransform, TransformError, key_names};

/// What happens to the deduplicated change of an item.
#[derive(Debug)]
pub enum TransformedChange {
    /// The change is applied as it is: it removes the item, or has no image.
    Unchanged,
    /// The image with this text is written.
    Write(String),
    /// A tombstone is written: the item is not, or is no longer, replicated.
    Tombstone,
    /// Nothing is written: the replica has nothing under the key as far as this batch is concerned.
    Omitted,
    /// The change cannot be applied.
    Failed(TransformError),
}

/// Decides on each of `latest_per_key`, in their order. `changes` are all changes of the batch.
#[must_use]
pub fn transform_changes(
    transform: &ItemTransform,
    changes: &[&Change<'_>],
    latest_per_key: &[&Change<'_>],
) -> Vec<TransformedChange> {
    let mut decisions: Vec<TransformedChange> =
        latest_per_key.iter().map(|change| transform_change(transform, change)).collect();
    if transform.settings().filter.is_none() {
        return decisions;
    }
    let is_removal = |decision: &TransformedChange, change: &Change<'_>| match decision {
        TransformedChange::Tombstone => true,
        TransformedChange::Unchanged => matches!(change.effect, ChangeKind::Remove { .. }),
        _ => false,
    };
    let mut removed: HashMap<&CanonicalKey, usize> = HashMap::new();
    for (position, (decision, change)) in decisions.iter().zip(latest_per_key).enumerate() {
        if is_removal(decision, change) {
            removed.insert(change.key.canonical(), position);
        }
    }
    if removed.is_empty() {
        return decisions;
    }
    let mut replicated: HashSet<&CanonicalKey> = HashSet::new();
    for change in changes {
        let key = change.key.canonical();
        if removed.contains_key(key) && !replicated.contains(key) && may_be_replicated(transform, change) {
            replicated.insert(key);
        }
    }
    for (key, position) in removed {
        if !replicated.contains(key) {
            decisions[position] = TransformedChange::Omitted;
        }
    }
    decisions
}

/// Returns the change from which a batch has to be delivered again if this deduplicated change has not been applied.
///
/// That is an earlier change of the item if only this one shows that the replica may have the item: a batch that begins
/// after it would omit the write.
#[must_use]
pub fn redelivered_from<'b>(
    transform: &ItemTransform,
    changes: &[&'b Change<'b>],
    change: &'b Change<'b>,
) -> &'b Change<'b> {
    if transform.settings().filter.is_none() || may_be_replicated(transform, change) {
        return change;
    }
    let earlier = changes.iter().rev().copied().filter(|other| other.index < change.index);
    let mut of_item = earlier.filter(|other| other.key.canonical() == change.key.canonical());
    of_item.find(|other| may_be_replicated(transform, other)).unwrap_or(change)
}

fn transform_change(transform: &ItemTransform, change: &Change<'_>) -> TransformedChange {
    let ChangeKind::Write { image: Some(image) } = change.effect else { return TransformedChange::Unchanged };
    match transform.apply(&key_names(change.key.canonical()), image) {
        Ok(Some(text)) => TransformedChange::Write(text),
        Ok(None) => TransformedChange::Tombstone,
        Err(error) => TransformedChange::Failed(error),
    }
}

/// Returns whether an image of a change matches, or may match: one that is unknown, or cannot be evaluated. If none does,
/// a delivery of the change alone writes nothing.
#[must_use]
pub fn may_be_replicated(transform: &ItemTransform, change: &Change<'_>) -> bool {
    let after = match change.effect {
        ChangeKind::Write { image } => image,
        ChangeKind::Remove { .. } => None,
    };
    let before = match change.before {
        OldImage::Nothing => None,
        OldImage::Image(image) => Some(image),
        OldImage::Unknown => return true,
    };
    [after, before].into_iter().flatten().any(|image| transform.matches(image).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millrace_shared::stream;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::{RowFilter, TransformSettings};

    fn paid() -> ItemTransform {
        let filter = RowFilter::parse(&[json!({"status": {"S": ["paid"]}})]).unwrap();
        let settings = TransformSettings { filter: Some(filter), ..TransformSettings::default() };
        ItemTransform::new(&settings, &BTreeMap::new()).unwrap()
    }

    /// The state of an item: absent, or its status.
    type State = Option<&'static str>;

    fn image(status: &str) -> Value {
        json!({"id": {"S": "1"}, "status": {"S": status}})
    }

    /// The record that leads from one state to another. Without old images, the stream shows only the new one.
    fn record(number: usize, before: State, after: State, old_images: bool) -> Value {
        let name = match (before, after) {
            (None, Some(_)) => "INSERT",
            (_, Some(_)) => "MODIFY",
            (_, None) => "REMOVE",
        };
        let mut change = json!({"Keys": {"id": {"S": "1"}}, "SequenceNumber": number.to_string()});
        if let Some(after) = after {
            change["NewImage"] = image(after);
        }
        if let Some(before) = before.filter(|_| old_images) {
            change["OldImage"] = image(before);
        }
        json!({
            "eventName": name, "dynamodb": change,
            "eventSourceARN": "arn:aws:dynamodb:r:1:table/Orders/stream/2026-01-01T00:00:00.000",
        })
    }

    /// Returns what happens to the last change of an item that goes through these states in one batch.
    fn last(states: &[State], old_images: bool) -> TransformedChange {
        let steps = states.windows(2).enumerate();
        let records: Vec<Value> = steps.map(|(index, pair)| record(index + 1, pair[0], pair[1], old_images)).collect();
        let payload = RawValue::from_string(json!({ "Records": records }).to_string()).unwrap();
        let batch = stream::read(&payload).unwrap();
        let changes: Vec<&Change<'_>> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
        transform_changes(&paid(), &changes, &changes[changes.len() - 1..]).remove(0)
    }

    #[test]
    fn item_that_leaves_the_filter_becomes_a_tombstone() {
        let is = |states: &[State]| last(states, true);
        assert!(matches!(is(&[Some("draft"), Some("paid")]), TransformedChange::Write(_)));
        assert!(matches!(is(&[Some("paid"), Some("draft")]), TransformedChange::Tombstone));
        assert!(matches!(is(&[Some("paid"), None]), TransformedChange::Unchanged));
    }

    #[test]
    fn write_is_omitted_only_if_no_image_of_the_batch_matches() {
        let is = |states: &[State]| last(states, true);
        assert!(matches!(is(&[None, Some("draft")]), TransformedChange::Omitted));
        assert!(matches!(is(&[Some("draft"), Some("draft")]), TransformedChange::Omitted));
        assert!(matches!(is(&[Some("draft"), None]), TransformedChange::Omitted));
        let lost = [Some("paid"), Some("draft"), Some("draft")];
        assert!(matches!(is(&lost), TransformedChange::Tombstone), "the first change left the filter");
        let passing = [None, Some("paid"), Some("draft"), None];
        assert!(matches!(is(&passing), TransformedChange::Unchanged), "it was in the filter within the batch");
    }

    #[test]
    fn failed_tombstone_is_redelivered_with_the_change_that_left_the_filter() {
        let from = |states: &[State]| {
            let steps = states.windows(2).enumerate();
            let records: Vec<Value> = steps.map(|(index, pair)| record(index + 1, pair[0], pair[1], true)).collect();
            let payload = RawValue::from_string(json!({ "Records": records }).to_string()).unwrap();
            let batch = stream::read(&payload).unwrap();
            let changes: Vec<&Change<'_>> = batch.records.iter().map(|record| record.read.as_ref().unwrap()).collect();
            redelivered_from(&paid(), &changes, changes[changes.len() - 1]).index
        };
        let (paid, draft) = (Some("paid"), Some("draft"));
        assert_eq!(from(&[paid, paid, draft, draft]), 1, "the last change alone would be omitted");
        assert_eq!(from(&[paid, draft, None]), 0);
        assert_eq!(from(&[draft, draft, paid, draft]), 2, "the change itself leaves the filter");
        assert_eq!(from(&[draft, draft, draft]), 1, "the write is omitted");
    }

    #[test]
    fn without_old_images_the_tombstone_is_always_written() {
        let is = |states: &[State]| last(states, false);
        assert!(matches!(is(&[Some("draft"), Some("draft")]), TransformedChange::Tombstone));
        assert!(matches!(is(&[Some("draft"), None]), TransformedChange::Unchanged));
        assert!(matches!(is(&[None, Some("draft")]), TransformedChange::Omitted), "there was no item");
    }

    proptest! {
        /// Whatever the item goes through, and however the stream is cut into batches, the replica ends with the
        /// transformation of the last state.
        #[test]
        fn replica_ends_with_the_transformed_source(
            states in proptest::collection::vec(proptest::sample::select(vec![None, Some("paid"), Some("draft")]), 2..9),
            cuts in proptest::collection::vec(any::<bool>(), 8),
            old_images: bool,
        ) {
            // No change leads from absent to absent.
            let mut lived: Vec<State> = vec![None];
            lived.extend(states);
            lived.dedup_by(|next, last| next.is_none() && last.is_none());
            let (mut replica, mut from) = (None, 0);
            for at in 1..lived.len() {
                if at + 1 < lived.len() && !cuts[at - 1] {
                    continue;
                }
                match last(&lived[from..=at], old_images) {
                    TransformedChange::Write(image) => replica = Some(image),
                    TransformedChange::Unchanged | TransformedChange::Tombstone => replica = None,
                    TransformedChange::Omitted => {}
                    TransformedChange::Failed(error) => prop_assert!(false, "{}", error),
                }
                from = at;
            }
            let expected = lived.last().copied().flatten().filter(|status| *status == "paid");
            prop_assert_eq!(replica, expected.map(|status| image(status).to_string()));
        }
    }
}
