//! The key of a compacted object, and the properties that a key of either layout encodes: [`ArchiveKey`].
//!
//! ```text
//! compacted/<table>/dt=YYYY-MM-DD/<run>-<part>.ndjson.zst      (or .gz)
//! ```
//!
//! A run is one merge. Its parts form one sorted sequence, so a further merge reads them as one input. The run's name
//! is a digest of its inputs and of the size and compression of its parts. The same merge therefore writes the same
//! objects however often it restarts, and no other merge overwrites them.

use std::fmt;

use millrace_shared::hash::{Sha256Hasher, to_hex};
use time::OffsetDateTime;

use super::key::{ArchiveDay, is_digest, object_name};
use super::{ArchiveHour, Compression, ObjectKey};

/// The key prefix of compacted objects.
pub const COMPACTED: &str = "compacted/";
/// Number of digits of the part number in a key.
const PART_DIGITS: usize = 5;

/// The parsed key of a compacted object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactedKey {
    /// The table that the rows were removed from.
    pub table: String,
    /// The day they were removed on.
    pub day: ArchiveDay,
    /// The name of the merge that wrote the object.
    pub run: String,
    /// Index of the part in the run, from 0.
    pub part: u32,
    /// The object's compression.
    pub compression: Compression,
}

impl CompactedKey {
    /// Returns the name of the merge of these objects into parts of `target_bytes`.
    pub fn run_of<'k>(
        inputs: impl IntoIterator<Item = &'k str>,
        target_bytes: u64,
        compression: Compression,
    ) -> String {
        let mut digest = Sha256Hasher::new();
        digest.update(format!("{target_bytes} {compression}"));
        for key in inputs {
            digest.update([b'\n']);
            digest.update(key);
        }
        let mut run = to_hex(&digest.finish());
        run.truncate(32);
        run
    }

    fn parts(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(COMPACTED)?.splitn(3, '/');
        let (table, day, name) = (parts.next()?, parts.next()?, parts.next()?);
        let (name, compression) = object_name(name)?;
        let (run, part) = name.split_once('-')?;
        if table.is_empty() || !is_digest(run) || part.len() != PART_DIGITS {
            return None;
        }
        let day = ArchiveDay::parse(day.strip_prefix("dt=")?)?;
        Some(Self { table: table.to_owned(), day, run: run.to_owned(), part: part.parse().ok()?, compression })
    }
}

impl fmt::Display for CompactedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, day, run, part, compression } = self;
        write!(f, "{COMPACTED}{table}/dt={day}/{run}-{part:0PART_DIGITS$}.ndjson.{}", compression.extension())
    }
}

/// A key of either layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveKey {
    /// The key of an object that the archiver wrote.
    Archived(ObjectKey),
    /// The key of an object that a merge wrote.
    Compacted(CompactedKey),
}

/// A key that has neither layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unrecognized key: expected archive/<table>/dt=YYYY-MM-DD/hr=HH/<32 hex digits>.ndjson.zst (or .gz) \
     or compacted/<table>/dt=YYYY-MM-DD/<32 hex digits>-<5 digits>.ndjson.zst (or .gz)"
)]
pub struct UnrecognizedKeyError;

impl ArchiveKey {
    /// Parses a key.
    ///
    /// # Errors
    /// [`UnrecognizedKeyError`] if the parsed key does not format to the same text.
    pub fn parse(text: &str) -> Result<Self, UnrecognizedKeyError> {
        if let Ok(key) = ObjectKey::parse(text) {
            return Ok(Self::Archived(key));
        }
        match CompactedKey::parts(text) {
            Some(key) if key.to_string() == text => Ok(Self::Compacted(key)),
            _ => Err(UnrecognizedKeyError),
        }
    }

    /// Returns the table that the rows were removed from.
    #[must_use]
    pub fn table(&self) -> &str {
        match self {
            Self::Archived(key) => &key.table,
            Self::Compacted(key) => &key.table,
        }
    }

    /// Returns the day on which the rows were removed.
    #[must_use]
    pub fn day(&self) -> ArchiveDay {
        match self {
            Self::Archived(key) => key.hour.day(),
            Self::Compacted(key) => key.day,
        }
    }

    /// Returns the object's compression.
    #[must_use]
    pub fn compression(&self) -> Compression {
        match self {
            Self::Archived(key) => key.compression,
            Self::Compacted(key) => key.compression,
        }
    }

    /// Returns whether the object may contain a row that was removed at this time.
    pub(super) fn contains(&self, removed_at: OffsetDateTime) -> bool {
        match self {
            Self::Archived(key) => ArchiveHour::from_datetime(removed_at) == key.hour,
            Self::Compacted(key) => ArchiveDay::from_datetime(removed_at) == key.day,
        }
    }

    /// Returns the digest of the rows, if the key contains it.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Self::Archived(key) => Some(&key.digest),
            Self::Compacted(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "compacted/Users/dt=2026-11-02/0123456789abcdef0123456789abcdef-00012.ndjson.zst";

    #[test]
    fn a_key_is_taken_apart_as_it_was_put_together() {
        let ArchiveKey::Compacted(key) = ArchiveKey::parse(KEY).unwrap() else { panic!("a compacted object") };
        assert_eq!((key.table.as_str(), key.part, key.to_string().as_str()), ("Users", 12, KEY));
        assert!(matches!(ArchiveKey::parse(&KEY.replace(".zst", ".gz")).unwrap().compression(), Compression::Gzip));
    }

    #[test]
    fn a_foreign_key_is_refused() {
        for (from, to) in [
            ("compacted/", "parquet/"),
            ("Users", ""),
            ("-11-02", "-11-31"),
            ("cdef-", "cdeg-"),
            ("-00012", "-12"),
            ("-00012", "-+0012"),
            (".zst", ".bz2"),
        ] {
            assert_eq!(ArchiveKey::parse(&KEY.replace(from, to)), Err(UnrecognizedKeyError), "{from} → {to}");
        }
    }

    #[test]
    fn a_run_is_named_by_what_goes_into_it_and_how_it_is_cut() {
        let run =
            |inputs: &[&str], target, compression| CompactedKey::run_of(inputs.iter().copied(), target, compression);
        let one = run(&["a", "b"], 1, Compression::Zstd);
        assert!(is_digest(&one) && one == run(&["a", "b"], 1, Compression::Zstd));
        assert_ne!(one, run(&["a", "b"], 2, Compression::Zstd));
        assert_ne!(one, run(&["a", "b"], 1, Compression::Gzip));
        assert_ne!(one, run(&["a", "b", "c"], 1, Compression::Zstd));
    }
}
