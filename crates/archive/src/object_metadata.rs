//! The metadata of an archive object.

use std::collections::HashMap;

use millrace_shared::hash::to_hex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The number of the format that this crate writes, and the only one that it reads.
pub const FORMAT: &str = "1";

/// An object's row count, times and digest, stored as S3 user metadata (`x-amz-meta-…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// Number of rows in the object.
    pub rows: u64,
    /// Time at which the first of them was removed.
    pub first: OffsetDateTime,
    /// Time at which the last of them was removed.
    pub last: OffsetDateTime,
    /// The SHA-256 of the object's compressed bytes, as stored in the bucket. S3 also uses it as the checksum to verify
    /// the upload.
    pub sha256: [u8; 32],
}

impl ObjectMetadata {
    /// Returns the metadata entries: `format`, `rows`, `first`, `last` (RFC 3339, UTC) and `sha256` (hex).
    ///
    /// # Errors
    /// If a time is outside the years that RFC 3339 can represent.
    pub fn encode(&self) -> Result<[(&'static str, String); 5], time::error::Format> {
        Ok([
            ("format", FORMAT.to_owned()),
            ("rows", self.rows.to_string()),
            ("first", self.first.format(&Rfc3339)?),
            ("last", self.last.format(&Rfc3339)?),
            ("sha256", to_hex(&self.sha256)),
        ])
    }

    /// Parses the entries that [`ObjectMetadata::encode`] returned; other entries of the metadata are ignored.
    ///
    /// # Errors
    /// The name of the entry that is missing or malformed.
    pub fn parse(metadata: &HashMap<String, String>) -> Result<Self, &'static str> {
        let entry = |name: &'static str| metadata.get(name).map(String::as_str).ok_or(name);
        let time = |name| OffsetDateTime::parse(entry(name)?, &Rfc3339).map_err(|_| name);
        if entry("format")? != FORMAT {
            return Err("format");
        }
        Ok(Self {
            rows: entry("rows")?.parse().map_err(|_| "rows")?,
            first: time("first")?,
            last: time("last")?,
            sha256: unhex(entry("sha256")?).ok_or("sha256")?,
        })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn metadata() -> (ObjectMetadata, HashMap<String, String>) {
        let description = ObjectMetadata {
            rows: 12,
            first: datetime!(2026-11-22 14:00:01 UTC),
            last: datetime!(2026-11-22 14:59:59.25 UTC),
            sha256: std::array::from_fn(|index| u8::try_from(index * 8).unwrap()),
        };
        let metadata = description.encode().unwrap().map(|(name, value)| (name.to_owned(), value)).into();
        (description, metadata)
    }

    #[test]
    fn a_description_is_read_back_among_other_metadata() {
        let (description, mut metadata) = metadata();
        metadata.insert("owner".to_owned(), "somebody else".to_owned());
        assert_eq!(ObjectMetadata::parse(&metadata), Ok(description));
    }

    #[test]
    fn missing_or_malformed_metadata_entry_is_named() {
        for name in ["format", "rows", "first", "last", "sha256"] {
            for value in [None, Some("2 "), Some("é")] {
                let (_, mut metadata) = metadata();
                metadata.remove(name);
                metadata.extend(value.map(|value| (name.to_owned(), value.to_owned())));
                assert_eq!(ObjectMetadata::parse(&metadata), Err(name), "{value:?}");
            }
        }
    }
}
