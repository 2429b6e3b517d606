//! The values under a cache key, as text: a letter for the kind and a version of 20 digits, and for an entry also the
//! record's expiry time in seconds and its JSON. Versions are digits because scripts compare them as text: a number in
//! a script is a float.
//!
//! ```text
//! E00001795341600123456 00000000001900000000 {"user_id":"ada",…}
//! M00001795341600123457
//! N00000000000000000000
//! ```
//!
//! The spaces are not part of the value. The key's prefix identifies this format; another format needs another prefix.

use crate::version_fence::MinVersion;

const ENTRY: u8 = b'E';
const MARKER: u8 = b'M';
const MISSING: u8 = b'N';
/// The part that the scripts read: the kind and the version.
const HEAD: usize = 1 + DIGITS;
const DIGITS: usize = 20;

/// A cached record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CacheEntry {
    /// The record's version.
    pub version: u64,
    /// The time, in epoch seconds, from which on the record counts as absent.
    pub expires_at: Option<i64>,
    /// The record as the API returns it.
    pub json: Vec<u8>,
}

/// The result of a lookup of a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CacheSlot {
    /// A record.
    Entry(CacheEntry),
    /// A negative entry: the table had no such record a moment ago.
    Missing,
    /// An invalidation marker: the record was written recently, so the table must be read.
    Fenced,
    /// The key is absent.
    Miss,
}

impl CacheEntry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let ends = self.expires_at.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(u64::MAX);
        let mut text = Vec::with_capacity(HEAD + DIGITS + self.json.len());
        text.push(ENTRY);
        text.extend(digits(self.version).bytes());
        text.extend(digits(ends).bytes());
        text.extend(&self.json);
        text
    }

    /// Returns whether the record may be cached: its version must distinguish it from the states before and after it,
    /// so it is neither 0 (no record, or a record without a version) nor `u64::MAX` ([`MinVersion::HIGHEST`]).
    #[must_use]
    pub fn is_cacheable(&self) -> bool {
        (1..u64::MAX).contains(&self.version)
    }
}

impl CacheSlot {
    /// Decodes the result of a lookup; a text in any other format counts as absent.
    pub(super) fn decode(text: Option<Vec<u8>>) -> Self {
        let Some(mut text) = text else { return Self::Miss };
        let number =
            |range: std::ops::Range<usize>| -> Option<u64> { std::str::from_utf8(text.get(range)?).ok()?.parse().ok() };
        match text.first() {
            Some(&MARKER) => Self::Fenced,
            Some(&MISSING) => Self::Missing,
            Some(&ENTRY) => match (number(1..HEAD), number(HEAD..HEAD + DIGITS)) {
                (Some(version), Some(ends)) => {
                    // Avoids a copy: the rest of the text is the record.
                    text.drain(..HEAD + DIGITS);
                    let expires_at = i64::try_from(ends).ok();
                    Self::Entry(CacheEntry { version, expires_at, json: text })
                }
                _ => Self::Miss,
            },
            _ => Self::Miss,
        }
    }
}

pub(super) fn digits(number: u64) -> String {
    format!("{number:020}")
}

pub(super) fn marker(min_version: MinVersion) -> String {
    format!("M{:020}", min_version.version())
}

pub(super) fn missing() -> String {
    format!("N{:020}", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_cache_slots_are_decoded_unchanged() {
        for (version, expires_at) in [(1, None), (u64::MAX - 1, Some(0)), (1_795_341_600_123_456, Some(1_900_000_000))]
        {
            let entry = CacheEntry { version, expires_at, json: br#"{"user_id":"ada"}"#.to_vec() };
            assert_eq!(CacheSlot::decode(Some(entry.encode())), CacheSlot::Entry(entry));
        }
        assert_eq!(CacheSlot::decode(Some(marker(MinVersion::HIGHEST).into_bytes())), CacheSlot::Fenced);
        assert_eq!(CacheSlot::decode(Some(missing().into_bytes())), CacheSlot::Missing);
        assert_eq!(CacheSlot::decode(None), CacheSlot::Miss);
    }

    #[test]
    fn unrecognized_cache_value_is_a_miss() {
        for text in ["", "E", "E1", "hello", "E0000179534160012345600000000001x00000000{}"] {
            assert_eq!(CacheSlot::decode(Some(text.into())), CacheSlot::Miss, "{text}");
        }
    }

    #[test]
    fn versions_compare_as_text_as_they_do_as_numbers() {
        let mut numbers = [0, 1, 9, 10, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX];
        numbers.sort_by_key(|number| digits(*number));
        assert!(numbers.is_sorted());
    }
}
