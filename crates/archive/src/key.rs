//! The key of an archive object: the table, the hour of the rows, and a digest that identifies them.

use std::fmt;

use millrace_shared::change::CanonicalKey;
use millrace_shared::hash::{Sha256Hasher, to_hex};
use millrace_shared::revision::Revision;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use super::Compression;

/// The key prefix of the objects that the archiver writes.
pub const ARCHIVE: &str = "archive/";
/// Number of hex digits of the digest in a key: half of SHA-256, which is enough to rule out accidental collisions.
const DIGEST_DIGITS: usize = 32;
/// The number of bytes of the digest's input that are hashed at a time.
const PENDING_BYTES: usize = 8 * 1024;

/// A UTC day: one partition of the compacted layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveDay(Date);

impl ArchiveDay {
    /// Returns the UTC day that contains a time.
    #[must_use]
    pub fn from_datetime(at: OffsetDateTime) -> Self {
        Self(at.to_offset(UtcOffset::UTC).date())
    }

    /// Returns the start of the day.
    #[must_use]
    pub fn start(self) -> OffsetDateTime {
        OffsetDateTime::new_utc(self.0, Time::MIDNIGHT)
    }

    /// Returns the end of the day, exclusive.
    #[must_use]
    pub fn end(self) -> OffsetDateTime {
        self.start() + time::Duration::DAY
    }

    /// Parses `2026-11-22`. Returns `None` if the text has another format or is not a valid date.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
        let day = Self(Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()?);
        (day.to_string() == text).then_some(day)
    }
}

/// Formats the day as in a key after `dt=`: `2026-11-22`.
impl fmt::Display for ArchiveDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

/// A UTC hour: one partition of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveHour {
    day: ArchiveDay,
    hour: u8,
}

impl ArchiveHour {
    /// Returns the UTC hour that contains a time.
    #[must_use]
    pub fn from_datetime(at: OffsetDateTime) -> Self {
        let at = at.to_offset(UtcOffset::UTC);
        Self { day: ArchiveDay::from_datetime(at), hour: at.hour() }
    }

    /// Returns the day that contains the hour.
    #[must_use]
    pub fn day(self) -> ArchiveDay {
        self.day
    }

    /// Returns the start of the hour.
    #[must_use]
    pub fn start(self) -> OffsetDateTime {
        self.day.start() + time::Duration::hours(i64::from(self.hour))
    }

    fn parse(date: &str, hour: &str) -> Option<Self> {
        let hour = hour.strip_prefix("hr=")?.parse().ok().filter(|hour| *hour < 24)?;
        Some(Self { day: ArchiveDay::parse(date.strip_prefix("dt=")?)?, hour })
    }
}

/// Formats the hour as in a key: `dt=2026-11-22/hr=14`, which Athena and DuckDB read as partition columns.
impl fmt::Display for ArchiveHour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dt={}/hr={:02}", self.day, self.hour)
    }
}

/// A parsed key of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey {
    /// The table that the rows were removed from.
    pub table: String,
    /// The hour in which they were removed.
    pub hour: ArchiveHour,
    /// The first 32 hex digits of the SHA-256 over their (key, revision).
    pub digest: String,
    /// The object's compression.
    pub compression: Compression,
}

/// A key that does not have the archiver's layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized key: expected archive/<table>/dt=YYYY-MM-DD/hr=HH/<32 hex digits>.ndjson.zst (or .gz)")]
pub struct ObjectKeyError;

impl ObjectKey {
    /// Parses a key.
    ///
    /// # Errors
    /// [`ObjectKeyError`] if the parsed key does not format to the same text.
    pub fn parse(text: &str) -> Result<Self, ObjectKeyError> {
        let key = Self::parts(text).ok_or(ObjectKeyError)?;
        if key.to_string() == text { Ok(key) } else { Err(ObjectKeyError) }
    }

    fn parts(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(ARCHIVE)?.splitn(4, '/');
        let (table, date, hour, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (digest, compression) = object_name(name)?;
        if table.is_empty() || !is_digest(digest) {
            return None;
        }
        Some(Self {
            table: table.to_owned(),
            hour: ArchiveHour::parse(date, hour)?,
            digest: digest.to_owned(),
            compression,
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ARCHIVE}{}/{}/{}.ndjson.{}", self.table, self.hour, self.digest, self.compression.extension())
    }
}

/// Returns the file name without its extension, and the compression that the extension names.
pub(super) fn object_name(name: &str) -> Option<(&str, Compression)> {
    let (name, ending) = name.split_once(".ndjson.")?;
    let named =
        [Compression::Zstd, Compression::Gzip].into_iter().find(|compression| compression.extension() == ending)?;
    Some((name, named))
}

/// Returns whether a text has the form of a digest in a key: 32 lower-case hex digits.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest of an object's rows, which must be pushed in the object's order.
///
/// Each key text and each revision is preceded by its length, so that different lists of rows never produce the same
/// input.
#[derive(Default)]
pub(super) struct RowsDigest {
    hasher: Sha256Hasher,
    /// The input that is not hashed yet: the parts are much shorter than what is hashed fastest.
    pending: Vec<u8>,
}

impl RowsDigest {
    pub(super) fn push(&mut self, key: &CanonicalKey, revision: Revision) {
        let (key, revision) = (key.as_str().as_bytes(), revision.encode());
        for part in [key, revision.as_ref()] {
            self.pending.extend_from_slice(&(part.len() as u64).to_be_bytes());
            self.pending.extend_from_slice(part);
        }
        if self.pending.len() >= PENDING_BYTES {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.hasher.update(&self.pending);
        let mut digest = to_hex(&self.hasher.finish());
        digest.truncate(DIGEST_DIGITS);
        digest
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_hour_is_that_of_utc() {
        let hour = ArchiveHour::from_datetime(datetime!(2026-01-01 00:59:59.9 +02:00));
        assert_eq!(hour.to_string(), "dt=2025-12-31/hr=22");
        assert_eq!(hour.start(), datetime!(2025-12-31 22:00 UTC));
    }

    #[test]
    fn a_key_is_taken_apart_as_it_was_put_together() {
        let text = "archive/Users.v-2/dt=2026-11-02/hr=04/0123456789abcdef0123456789abcdef.ndjson.gz";
        let key = ObjectKey::parse(text).unwrap();
        assert_eq!((key.table.as_str(), key.compression), ("Users.v-2", Compression::Gzip));
        assert_eq!(key.hour, ArchiveHour::from_datetime(datetime!(2026-11-02 04:30 UTC)));
        assert_eq!(key.to_string(), text);
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let good = "archive/Users/dt=2026-11-02/hr=04/0123456789abcdef0123456789abcdef.ndjson.zst";
        assert!(ObjectKey::parse(good).is_ok());
        for (from, to) in [
            ("archive/", "export/"),
            ("Users", ""),
            ("2026-11-02", "2026-11-2"),
            ("11-02", "13-02"),
            ("hr=04", "hr=24"),
            ("hr=04", "hr=+4"),
            ("0123", "012"),
            ("abcdef.", "ABCDEF."),
            (".zst", ".bz2"),
            (".zst", ".zst.tmp"),
        ] {
            assert_eq!(ObjectKey::parse(&good.replace(from, to)), Err(ObjectKeyError), "{from} → {to}");
        }
    }
}
