//! Version fencing for the cache: the minimum version that an entry must have to be stored and served.
//!
//! A cache receives each change twice, from its writer and from the stream, and at the same time readers store records
//! that they read a moment ago. A record that a reader stores is older than a change if its version is below the
//! change's *minimum version*. A change leaves its minimum version in the cache as an *invalidation marker*: the marker
//! removes an entry with a lower version, and until it expires, no entry with a lower version is accepted.
//!
//! A marker outlives every reader that may have read before the change ([`FENCE_TTL`] against [`MAX_FILL_DELAY`]); once
//! it has expired, no reader is left that could store a record that it kept out.

use std::time::Duration;

use crate::change::{Change, ChangeKind, ItemImage, OldImage};

/// The lifetime of an invalidation marker.
pub const FENCE_TTL: Duration = Duration::from_mins(1);
/// How long after its cache lookup a reader may still store the record that it then read from the table.
pub const MAX_FILL_DELAY: Duration = Duration::from_secs(30);
/// The maximum lifetime of an entry.
pub const MAX_ENTRY_TTL: Duration = Duration::from_mins(15);
/// A change of this age needs no invalidation marker: if a record was read before the change, it was stored within
/// [`MAX_FILL_DELAY`] and has expired by now. The rest of the time allows for clock skew.
pub const FENCE_NOT_NEEDED_AFTER: Duration = Duration::from_mins(20);

/// The lowest version that is not older than a change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct MinVersion(u64);

impl MinVersion {
    /// Above every version: for a change whose record does not show both versions.
    pub const HIGHEST: Self = Self(u64::MAX);

    /// Returns the minimum version after a write that replaced the version `before` with `after`; 0 is an item without
    /// a version, or no item.
    ///
    /// It is the new version. If that is not the higher one, the write came from another program, which does not count
    /// versions: `before` is then the version of an outdated record, and `after` may be the version of both records, so
    /// the minimum is one above `before`.
    #[must_use]
    pub fn after_write(before: u64, after: u64) -> Self {
        if after > before { Self(after) } else { Self(before.saturating_add(1)) }
    }

    /// Returns the minimum version after the removal of an item of this version: one above it, whichever program
    /// removed it.
    #[must_use]
    pub fn after_delete(before: u64) -> Self {
        Self(before.saturating_add(1))
    }

    /// Returns the minimum version after a stream change; `version` reads the version in an image.
    #[must_use]
    pub fn from_change(change: &Change<'_>, version: impl Fn(ItemImage<'_>) -> Option<u64>) -> Self {
        let before = match change.before {
            OldImage::Nothing => Some(0),
            OldImage::Image(image) => version(image),
            OldImage::Unknown => None,
        };
        match (before, change.effect) {
            (Some(before), ChangeKind::Remove { .. }) => Self::after_delete(before),
            (Some(before), ChangeKind::Write { image: Some(image) }) => {
                version(image).map_or(Self::HIGHEST, |after| Self::after_write(before, after))
            }
            _ => Self::HIGHEST,
        }
    }

    /// Returns the minimum version as a number.
    #[must_use]
    pub fn version(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;
    use crate::{item, stream};

    #[test]
    fn a_write_s_floor_is_its_version_and_above_both_if_that_did_not_grow() {
        assert_eq!(MinVersion::after_write(7, 8), MinVersion(8));
        assert_eq!(MinVersion::after_write(0, 8), MinVersion(8));
        assert_eq!(MinVersion::after_write(8, 8), MinVersion(9), "a write did not increment the version");
        assert_eq!(MinVersion::after_write(8, 3), MinVersion(9), "a write decremented the version");
        assert_eq!(MinVersion::after_write(0, 0), MinVersion(1), "a missing record has version 0");
    }

    proptest! {
        #[test]
        fn nothing_from_before_a_change_reaches_its_floor(before in 0..u64::MAX, after in any::<u64>()) {
            prop_assert!(MinVersion::after_write(before, after).0 > before);
            prop_assert!(MinVersion::after_delete(before).0 > before);
        }
    }

    fn min_version(name: &str, old: Option<u64>, new: Option<u64>) -> MinVersion {
        let image = |version: Option<u64>| {
            version.map(|version| json!({"k": {"S": "a"}, "version": {"N": version.to_string()}}))
        };
        let event = json!({"Records": [{
            "eventName": name, "eventSourceARN": "arn:aws:dynamodb:r:1:table/Users/stream/2026-11-01T08:00:00.000",
            "dynamodb": {"Keys": {"k": {"S": "a"}}, "SequenceNumber": "1", "OldImage": image(old), "NewImage": image(new)},
        }]});
        let event = RawValue::from_string(event.to_string()).unwrap();
        let batch = stream::read(&event).unwrap();
        MinVersion::from_change(batch.records[0].read.as_ref().unwrap(), item::image_version)
    }

    #[test]
    fn a_change_of_the_stream_has_the_floor_of_what_it_did() {
        assert_eq!(min_version("INSERT", None, Some(7)), MinVersion(7));
        assert_eq!(min_version("MODIFY", Some(7), Some(8)), MinVersion(8));
        assert_eq!(min_version("MODIFY", Some(7), Some(7)), MinVersion(8));
        assert_eq!(min_version("REMOVE", Some(7), None), MinVersion(8));
        assert_eq!(min_version("REMOVE", Some(0), None), MinVersion(1));
    }

    #[test]
    fn change_without_old_version_fences_every_version() {
        assert_eq!(min_version("MODIFY", None, Some(8)), MinVersion::HIGHEST);
        assert_eq!(min_version("REMOVE", None, None), MinVersion::HIGHEST);
    }
}
